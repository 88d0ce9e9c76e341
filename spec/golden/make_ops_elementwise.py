#!/usr/bin/env python3
"""Writes ops_elementwise.h: inputs and expected outputs of the element-wise operators.

Expected values come from NumPy and SciPy, computed in float64 (float32 cases: from the float32 inputs, rounded once). Where
ONNX Runtime has the operator for the dtype, the same case is run there too and must agree; the exceptions are listed with
their reason in NOT_IN_ORT.
Usage: make_ops_elementwise.py [--no-ort] > ops_elementwise.h      (needs numpy, scipy, onnx, onnxruntime)
"""

import sys
import warnings

import numpy as np
from scipy import special

warnings.simplefilter("ignore")
F4, F8, I1, I4, I8, U1, U4, U8, B1 = (
    np.float32,
    np.float64,
    np.int8,
    np.int32,
    np.int64,
    np.uint8,
    np.uint32,
    np.uint64,
    np.bool_,
)
NAN, INF = np.nan, np.inf
CASES = []
NOT_IN_ORT = {  # case name: why ONNX Runtime is not asked
    "div zero int32": "traps",
    "div zero int64": "traps",
    "div zero int8": "traps",
    "mod zero": "traps",
    "mod zero fmod": "traps",
    "sign special": "ONNX Runtime gives 0 or 1 for NaN, NumPy NaN",
    "relu special": "NaN handling of its vector code depends on the processor",
    "pow negative int": "defined by us",
    "softplus special": "NaN handling",
    "pow int float": "saturation defined by us",
}


def case(name, op, inputs, expected, attrs=None, rtol=None, domain="", opset=None):
    expected = expected if isinstance(expected, list) else [expected]
    if rtol is None:
        rtol = 4e-6 if expected[0].dtype == F4 else 1e-13 if expected[0].dtype == F8 else 0
    CASES.append(
        dict(name=name, op=op, inputs=inputs, expected=expected, attrs=attrs or {}, rtol=rtol, domain=domain, opset=opset)
    )


rng = np.random.RandomState(20240517)


def both(name, op, function, x, attrs=None, rtol=None):
    """a unary float operator in float32 and float64"""
    for dtype in (F4, F8):
        v = np.asarray(x, dtype)
        case(
            f"{name} {dtype.__name__}",
            op,
            [v],
            np.asarray(function(v.astype(F8))).astype(dtype),
            attrs,
            rtol if dtype == F4 else None,
        )


POINTS = np.array([-30, -6.5, -3, -2.5, -1, -0.5, -1e-3, 0, 1e-3, 0.3, 0.5, 1, 1.5, 2.5, 3, 4.25, 12, 25, 80]).reshape(1, 19)
POSITIVE = np.array([1e-6, 0.01, 0.5, 1, 1.5, 2, 3, 10, 1e5, 3e7]).reshape(5, 2)
sig = special.expit
both("abs", "Abs", np.abs, POINTS)
both("ceil", "Ceil", np.ceil, POINTS)
both("floor", "Floor", np.floor, POINTS)
both("round", "Round", np.rint, np.array([-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49999997, 2.4, -2.6, 1e10]))
both("sign", "Sign", np.sign, POINTS)
both("neg", "Neg", np.negative, POINTS)
both("exp", "Exp", np.exp, POINTS, rtol=1e-5)
both("log", "Log", np.log, POSITIVE)
both("sqrt", "Sqrt", np.sqrt, POSITIVE)
both("reciprocal", "Reciprocal", lambda x: 1 / x, POSITIVE)
both("erf", "Erf", special.erf, POINTS)
both("relu", "Relu", lambda x: np.maximum(x, 0), POINTS)
both("sigmoid", "Sigmoid", sig, POINTS, rtol=1e-5)
both("tanh", "Tanh", np.tanh, POINTS)
both("softplus", "Softplus", lambda x: np.logaddexp(0, x), POINTS, rtol=1e-5)
both("softsign", "Softsign", lambda x: x / (1 + np.abs(x)), POINTS)
both("leaky_relu", "LeakyRelu", lambda x: np.where(x < 0, F8(F4(0.01)) * x, x), POINTS)
both("leaky_relu 0.3", "LeakyRelu", lambda x: np.where(x < 0, F8(F4(0.3)) * x, x), POINTS, {"alpha": 0.3})
both("elu", "Elu", lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), POINTS, rtol=1e-5)
both("elu 1.7", "Elu", lambda x: np.where(x > 0, x, F8(F4(1.7)) * np.expm1(np.minimum(x, 0))), POINTS, {"alpha": 1.7}, rtol=1e-5)
SA, SG = F8(F4(1.67326319217681884765625)), F8(F4(1.05070102214813232421875))
both("selu", "Selu", lambda x: SG * np.where(x > 0, x, SA * np.expm1(np.minimum(x, 0))), POINTS, rtol=1e-5)
both(
    "celu",
    "Celu",
    lambda x: np.maximum(0, x) + np.minimum(0, 2.5 * np.expm1(np.minimum(x, 0) / 2.5)),
    POINTS,
    {"alpha": 2.5},
    rtol=1e-5,
)
both("hard_sigmoid", "HardSigmoid", lambda x: np.clip(F8(F4(0.2)) * x + 0.5, 0, 1), POINTS)
both("hard_sigmoid set", "HardSigmoid", lambda x: np.clip(0.5 * x + 0.25, 0, 1), POINTS, {"alpha": 0.5, "beta": 0.25})
both("hard_swish", "HardSwish", lambda x: x * np.clip(x / 6 + 0.5, 0, 1), POINTS)
both("mish", "Mish", lambda x: x * np.tanh(np.logaddexp(0, x)), POINTS, rtol=1e-5)
both("gelu", "Gelu", lambda x: x * special.ndtr(x), np.clip(POINTS, -3, 25), rtol=2e-5)
both(
    "gelu tanh",
    "Gelu",
    lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    np.clip(POINTS, -2.5, 25),
    {"approximate": "tanh"},
    rtol=3e-5,
)
both("swish", "Swish", lambda x: x * sig(x), POINTS, rtol=1e-5)
both("swish 1.5", "Swish", lambda x: x * sig(1.5 * x), POINTS, {"alpha": 1.5}, rtol=1e-5)
both("thresholded_relu", "ThresholdedRelu", lambda x: np.where(x > 1, x, 0), POINTS)
both("thresholded_relu 2.5", "ThresholdedRelu", lambda x: np.where(x > 2.5, x, 0), POINTS, {"alpha": 2.5})

COMPARISONS = (
    ("Greater", np.greater),
    ("Less", np.less),
    ("GreaterOrEqual", np.greater_equal),
    ("LessOrEqual", np.less_equal),
    ("Equal", np.equal),
)
SPECIAL = np.array([NAN, INF, -INF, 0.0, -0.0, 1.0])
for dtype in (F4, F8):
    s = SPECIAL.astype(dtype)
    n = dtype.__name__
    case("relu special", "Relu", [s], np.maximum(s, 0))
    case("sign special", "Sign", [s], np.sign(s))
    case("softplus special", "Softplus", [s], np.logaddexp(0, s).astype(dtype))
    case(f"exp special {n}", "Exp", [s], np.exp(s))
    case(f"log special {n}", "Log", [np.append(s, -1).astype(dtype)], np.log(np.append(s, -1)).astype(dtype))
    case(f"sqrt special {n}", "Sqrt", [s], np.sqrt(s))
    case(f"tanh special {n}", "Tanh", [s], np.tanh(s))
    case(f"sigmoid special {n}", "Sigmoid", [s], sig(s))
    case(f"erf special {n}", "Erf", [s], special.erf(s))
    case(f"isnan {n}", "IsNaN", [s], np.isnan(s))
    case(f"isinf {n}", "IsInf", [s], np.isinf(s))
    case(f"isinf positive {n}", "IsInf", [s], np.isposinf(s), {"detect_negative": 0})
    case(f"isinf negative {n}", "IsInf", [s], np.isneginf(s), {"detect_positive": 0})
    a, b = np.meshgrid(s, s)
    for op, f in (
        ("Add", np.add),
        ("Sub", np.subtract),
        ("Mul", np.multiply),
        ("Div", np.divide),
        ("Max", np.maximum),
        ("Min", np.minimum),
    ):
        case(f"{op} special {n}", op, [a, b], f(a, b))
    for op, f in COMPARISONS:
        case(f"{op} special {n}", op, [a, b], f(a, b))

SHAPES = [
    ((2, 3), (2, 3)),
    ((2, 3), ()),
    ((), (2, 3)),
    ((4, 3), (3,)),
    ((3,), (4, 3)),
    ((4, 1), (1, 3)),
    ((2, 3, 1, 2), (3, 4, 1)),
    ((2, 1, 2), (1, 3, 1)),
    ((1,), (1, 1)),
    ((0, 3), (3,)),
    ((2, 0), (1, 1)),
    ((), ()),
]
ARITHMETIC = (("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply))
for i, (sa, sb) in enumerate(SHAPES):
    for dtype in (F4, F8, I4):
        a, b = (np.round(rng.uniform(-4, 4, s), 2) if dtype != I4 else rng.randint(-9, 10, s) for s in (sa, sb))
        a, b = np.asarray(a, dtype), np.asarray(b, dtype)
        for op, f in ARITHMETIC if dtype == F4 else ARITHMETIC[i % 3 : i % 3 + 1]:
            case(f"{op} {sa} {sb} {dtype.__name__}", op, [a, b], np.asarray(f(a, b), dtype))
        if dtype != I4:
            case(f"Div {sa} {sb} {dtype.__name__}", "Div", [a, b], np.asarray(np.divide(a, b), dtype))
        op, f = COMPARISONS[i % 5]
        case(f"{op} {sa} {sb} {dtype.__name__}", op, [a, b], np.asarray(f(a, b)))

for dtype in (I1, np.int16, I4, I8, U1, np.uint16, U4, U8):
    n, info = dtype.__name__, np.iinfo(dtype)
    a = np.array([info.min, info.max, 7, 100, 0, 5, info.max], dtype)
    b = np.array([1, 2, 3, 7, 9, 5, info.max], dtype)
    for op, f in (("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply), ("Max", np.maximum), ("Min", np.minimum)):
        case(f"{op} {n}", op, [a, b], f(a, b))
    case(f"div {n}", "Div", [a, b], np.trunc(a.astype(np.longdouble) / b.astype(np.longdouble)).astype(dtype))
    case(f"mod {n}", "Mod", [a, b], np.mod(a, b))
    case(f"mod fmod {n}", "Mod", [a, b], np.fmod(a, b), {"fmod": 1})
    case(f"abs {n}", "Abs", [a], np.abs(a))
    case(f"sign {n}", "Sign", [a], np.sign(a))
    case(f"less {n}", "Less", [a, b], a < b)
    case(f"equal {n}", "Equal", [a, b], a == b)
    case(f"clip {n}", "Clip", [a, np.array(3, dtype), np.array(50, dtype)], np.clip(a, 3, 50))
    case(f"where {n}", "Where", [np.array([1, 0, 1, 0, 1, 0, 1], B1), a, b], np.where([1, 0, 1, 0, 1, 0, 1], a, b))
    if info.min < 0:
        case(f"neg {n}", "Neg", [a], np.negative(a))
        case(f"relu {n}", "Relu", [np.array([info.min, -3, 0, 4, info.max], dtype)], np.array([0, 0, 0, 4, info.max], dtype))
        x, y = np.array([-7, 7, -7, 7, -6, 6], dtype), np.array([3, -3, -3, 3, 3, -3], dtype)
        case(f"mod signs {n}", "Mod", [x, y], np.mod(x, y))
        case(f"mod signs fmod {n}", "Mod", [x, y], np.fmod(x, y), {"fmod": 1})
        case(f"div signs {n}", "Div", [x, y], np.array([-2, -2, 2, 2, -2, -2], dtype))
        # defined by mlserve: x / 0 = 0, INT_MIN / -1 = INT_MIN, x mod 0 = 0
        case(
            f"div zero {n}",
            "Div",
            [np.array([5, -5, 0, info.min, 9], dtype), np.array([0, 0, 0, -1, -1], dtype)],
            np.array([0, 0, 0, info.min, -9], dtype),
        )
        case("mod zero", "Mod", [np.array([5, -5, info.min], dtype), np.array([0, 0, -1], dtype)], np.array([0, 0, 0], dtype))
        case(
            "mod zero fmod",
            "Mod",
            [np.array([5, -5, info.min], dtype), np.array([0, 0, -1], dtype)],
            np.array([0, 0, 0], dtype),
            {"fmod": 1},
        )
    else:
        case(f"div zero {n}", "Div", [np.array([5, 0], dtype), np.array([0, 0], dtype)], np.array([0, 0], dtype))
        case("mod zero", "Mod", [np.array([5, 0], dtype), np.array([0, 0], dtype)], np.array([0, 0], dtype))
NOT_IN_ORT.update({f"div zero {d.__name__}": "traps" for d in (I1, np.int16, I4, I8, U1, np.uint16, U4, U8)})

x, y = np.array([-7.5, 7.5, -7.5, 6.0, 5.3]), np.array([2.0, -2.0, -2.0, 3.0, 0.7])
for dtype in (F4, F8):
    case(
        f"mod fmod {dtype.__name__}",
        "Mod",
        [x.astype(dtype), y.astype(dtype)],
        np.fmod(x.astype(dtype), y.astype(dtype)),
        {"fmod": 1},
    )

for dtype in (F4, F8):
    n = dtype.__name__
    x = np.array([[-2, -1, 0], [0.5, 1.5, 3]], dtype)
    for e in (0, 1, 2, 3, -1, 0.5, 2.5):
        case(f"pow {e} {n}", "Pow", [x, np.array(e, dtype)], np.power(x, dtype(e)))
    case(
        f"pow broadcast {n}",
        "Pow",
        [np.abs(x), np.array([0.5, 2, -1.5], dtype)],
        np.power(np.abs(x), np.array([0.5, 2, -1.5], dtype)),
    )
    case(f"pow int exponent {n}", "Pow", [x, np.array([2, 3, 1], I8)], np.power(x, np.array([2, 3, 1])).astype(dtype))
    case(f"pow int32 square {n}", "Pow", [x, np.array(2, I4)], np.power(x, 2).astype(dtype))
case("pow int32", "Pow", [np.array([2, -3, 0, 7], I4), np.array([10, 3, 0, 2], I4)], np.array([1024, -27, 1, 49], I4))
case("pow int64", "Pow", [np.array([[2], [3]], I8), np.array([0, 1, 39], I8)], np.array([[1, 2, 2**39], [1, 3, 3**39]], I8))
case("pow int32 int64", "Pow", [np.array([2, -3, 0, 7], I4), np.array([10, 3, 0, 2], I8)], np.array([1024, -27, 1, 49], I4))
case(
    "pow negative int",
    "Pow",
    [np.array([1, -1, -1, 2, 0], I4), np.array([-5, -3, -2, -1, -1], I4)],
    np.array([1, -1, 1, 0, 0], I4),
)
case("pow int float", "Pow", [np.array([4, 9, 2, 10], I4), np.array([0.5, 0.5, 1.5, 40], F4)], np.array([2, 3, 2, 2**31 - 1], I4))

x = np.array([[-5, -1, NAN], [0.25, 1, 8]])
for dtype in (F4, F8):
    n, v = dtype.__name__, x.astype(dtype)
    case(f"clip {n}", "Clip", [v, np.array(-1, dtype), np.array(2, dtype)], np.clip(v, -1, 2))
    case(f"clip low {n}", "Clip", [v, np.array(-1, dtype)], np.maximum(v, dtype(-1)))
    case(f"clip high {n}", "Clip", [v, None, np.array(2, dtype)], np.minimum(v, dtype(2)))
    case(f"clip none {n}", "Clip", [v], v)
    case(f"clip crossed {n}", "Clip", [v, np.array(3, dtype), np.array(1, dtype)], np.where(np.isnan(v), v, 1).astype(dtype))
    p, q, r = (rng.randint(-9, 10, s).astype(dtype) for s in ((3,), (2, 1), (2, 3)))
    for op, f in (("Max", np.maximum), ("Min", np.minimum), ("Sum", np.add)):
        case(f"{op} of 3 {n}", op, [p, q, r], f(f(p, q), r))
        case(f"{op} of 1 {n}", op, [r], r)
    case(f"Mean of 3 {n}", "Mean", [p, q, r], ((p + q + r) / dtype(3)).astype(dtype))
    case(f"Mean of 1 {n}", "Mean", [r], r)
    case(
        f"prelu {n}",
        "PRelu",
        [r.reshape(2, 3, 1), np.array([[0.5], [2], [-1]], dtype)],
        np.where(r.reshape(2, 3, 1) < 0, r.reshape(2, 3, 1) * np.array([[0.5], [2], [-1]], dtype), r.reshape(2, 3, 1)).astype(
            dtype
        ),
    )
    case(f"prelu scalar {n}", "PRelu", [r, np.array([0.25], dtype)], np.where(r < 0, r * dtype(0.25), r))
    c = np.array([[True], [False]])
    case(f"where {n}", "Where", [c, p, r], np.where(c, p, r))
    case(f"where scalar {n}", "Where", [r > 0, r, np.array(-1, dtype)], np.where(r > 0, r, dtype(-1)))
    case(f"where scalars {n}", "Where", [r > 0, np.array(2, dtype), np.array(-1, dtype)], np.where(r > 0, dtype(2), dtype(-1)))
case("prelu int32", "PRelu", [np.array([-3, 0, 4], I4), np.array([5], I4)], np.array([-15, 0, 4], I4))
case("prelu uint32", "PRelu", [np.array([3, 0, 4], U4), np.array([5], U4)], np.array([3, 0, 4], U4))
case("where bool", "Where", [np.array([True, False]), np.array([True]), np.array([False, False])], np.array([True, False]))
case(
    "where string",
    "Where",
    [np.array([True, False, True]), np.array(["a", "bc", "def"], object), np.array(["x"], object)],
    np.array(["a", "x", "def"], object),
)
case(
    "equal string",
    "Equal",
    [np.array(["a", "bc", ""], object), np.array(["a", "bd", ""], object)],
    np.array([True, False, True]),
    opset=19,
)
case(
    "equal string scalar",
    "Equal",
    [np.array(["a", "bc", "bcd"], object), np.array("bc", object)],
    np.array([False, True, False]),
    opset=19,
)
p, q = np.array([[True], [False]]), np.array([True, False])
for op, f in (("And", np.logical_and), ("Or", np.logical_or), ("Xor", np.logical_xor), ("Equal", np.equal)):
    case(f"{op} bool", op, [p, q], f(p, q))
case("Not", "Not", [p], ~p)

for dtype in (F4, F8):
    n = dtype.__name__
    for shape, axis in (
        ((3, 5), -1),
        ((3, 5), 0),
        ((2, 3, 4), 1),
        ((2, 3, 4), -3),
        ((1, 40), 1),
        ((2, 3, 35), 1),
        ((4,), 0),
        ((2, 0), -1),
    ):
        v = np.round(rng.uniform(-8, 8, shape), 3).astype(dtype)
        w = v.astype(F8)
        attrs = {} if axis == -1 else {"axis": axis}
        case(f"softmax {shape} {axis} {n}", "Softmax", [v], (special.softmax(w, axis) if w.size else w).astype(dtype), attrs)
        case(
            f"log_softmax {shape} {axis} {n}",
            "LogSoftmax",
            [v],
            (special.log_softmax(w, axis) if w.size else w).astype(dtype),
            attrs,
            1e-5 if dtype == F4 else None,
        )
    v = np.array([[1e4, 1e4 + 1, -1e4], [-INF, 0, 1], [NAN, 0, 1]], dtype)
    case(f"softmax extreme {n}", "Softmax", [v], special.softmax(v.astype(F8), -1).astype(dtype))
    case(f"log_softmax extreme {n}", "LogSoftmax", [v], special.log_softmax(v.astype(F8), -1).astype(dtype))
    case(f"softmax extreme columns {n}", "Softmax", [v.T.copy()], special.softmax(v.T.astype(F8), 0).astype(dtype), {"axis": 0})
    case(f"dropout off {n}", "Dropout", [v], [v, np.ones(v.shape, B1)])
    case(f"dropout ratio 0 {n}", "Dropout", [v, np.array(0, F4), np.array(True)], [v, np.ones(v.shape, B1)])

    # ours
    for dshape, xshape in (
        ((4, 3), (3,)),
        ((4, 3), (4, 1)),
        ((4, 3), ()),
        ((4, 3), (1, 1)),
        ((4, 3), (4, 3)),
        ((2, 3, 4), (3, 1)),
        ((2, 3, 4), (2, 1, 4)),
        ((2, 3, 4), (1, 3, 4)),
        ((0, 3), (3,)),
        ((2, 3, 2, 2), (3, 1, 1)),
        ((5,), (1,)),
        ((1, 1), ()),
    ):
        d = np.round(rng.uniform(-8, 8, dshape), 2).astype(dtype)
        full = (1,) * (len(dshape) - len(xshape)) + xshape
        axes = tuple(i for i in range(len(dshape)) if full[i] == 1)
        case(
            f"reduce_to {dshape} {xshape} {n}",
            "ReduceTo",
            [d, np.zeros(xshape, dtype)],
            np.asarray(d.astype(F8).sum(axes, keepdims=True)).reshape(xshape).astype(dtype),
            domain="mlserve",
        )

# ---------------------------------------------------------------- ONNX Runtime as a second opinion
if "--no-ort" not in sys.argv:
    import onnx
    import onnxruntime as ort
    from onnx import helper

    ort.set_default_logger_severity(4)
    agreed, unsupported, differ = 0, {}, []
    for c in CASES:
        if c["name"] in NOT_IN_ORT or c["domain"]:
            continue
        names = ["" if v is None else f"i{k}" for k, v in enumerate(c["inputs"])]
        outs = [f"o{k}" for k in range(len(c["expected"]))]
        node = helper.make_node(c["op"], names, outs, **c["attrs"])
        kind = lambda v: onnx.TensorProto.STRING if v.dtype == object else helper.np_dtype_to_tensor_dtype(v.dtype)
        graph = helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info(m, kind(v), list(v.shape)) for m, v in zip(names, c["inputs"]) if v is not None],
            [helper.make_tensor_value_info(m, kind(v), None) for m, v in zip(outs, c["expected"])],
        )
        need = c["opset"] or {"Gelu": 20, "Swish": 24, "Mish": 18}.get(c["op"], 17)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", need)], ir_version=10)
        try:
            got = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
                None, {m: v for m, v in zip(names, c["inputs"]) if v is not None}
            )
        except Exception as error:  # no kernel for this dtype
            unsupported.setdefault(c["op"], str(error)[:100])
            continue
        for g, e in zip(got, c["expected"]):
            same = g.shape == e.shape and (
                list(g.ravel()) == list(e.ravel())
                if e.dtype == object
                else np.allclose(
                    g,
                    e,
                    rtol=max(c["rtol"], 1e-5 if e.dtype == F4 else 1e-6 if e.dtype == F8 else 0),
                    atol=1e-6 if e.dtype in (F4, F8) else 0,
                    equal_nan=True,
                )
            )
            if same:
                agreed += 1
            else:
                differ.append((c["name"], c["inputs"], e, g))
    print(f"ONNX Runtime {ort.__version__}: {agreed} outputs agree, not available: {sorted(unsupported)}", file=sys.stderr)
    for name, inputs, e, g in differ:
        print("DIFFERS", name, inputs, "expected", e, "got", g, file=sys.stderr)
    if differ:
        sys.exit(1)

# ---------------------------------------------------------------- the header
DTYPES = {
    F4: ("FLOAT32", "float"),
    F8: ("FLOAT64", "double"),
    I1: ("INT8", "int8_t"),
    np.int16: ("INT16", "int16_t"),
    I4: ("INT32", "int32_t"),
    I8: ("INT64", "int64_t"),
    U1: ("UINT8", "uint8_t"),
    np.uint16: ("UINT16", "uint16_t"),
    U4: ("UINT32", "uint32_t"),
    U8: ("UINT64", "uint64_t"),
    B1: ("BOOL", "uint8_t"),
    np.object_: ("STRING", "ml_str"),
}


def literal(v, dtype):
    if dtype == np.object_:
        return '{ "%s", %d }' % (v, len(v))
    if dtype in (F4, F8):
        if np.isnan(v):
            return "NAN"
        if np.isinf(v):
            return "INFINITY" if v > 0 else "-INFINITY"
        text = repr(float(v)) if dtype == F8 else np.format_float_scientific(v, unique=True, trim="0")
        return text + ("f" if dtype == F4 else "")
    if dtype == B1:
        return str(int(v))
    v = int(v)
    if v == -(2**63):
        return "INT64_MIN"
    if v >= 2**63:
        return f"UINT64_C({v})"
    return f"INT64_C({v})" if abs(v) >= 2**31 else str(v)


arrays = {}
out = []


def tensor(v):
    if v is None:
        return "{ NULL, 0, -1, { 0 } }"
    v = np.asarray(v)
    dtype = v.dtype.type
    name, ctype = DTYPES[dtype]
    text = ", ".join(literal(e, dtype) for e in v.ravel())
    key = (ctype, text)
    if text and key not in arrays:
        arrays[key] = f"v{len(arrays)}"
        line = f"static const {ctype} {arrays[key]}[] = {{ {text} }};"
        while len(line) > 128:
            at = line.rindex(", ", 0, 128) + 1
            out.append(line[:at])
            line = "  " + line[at:].lstrip()
        out.append(line)
    dims = ", ".join(str(d) for d in v.shape) or "0"
    return f"{{ {arrays[key] if text else 'NULL'}, ML_{name}, {v.ndim}, {{ {dims} }} }}"


rows = []
for c in CASES:
    attrs = []
    for k, v in c["attrs"].items():
        if isinstance(v, str):
            attrs.append(f'{{ "{k}", ML_ATTR_STRING, 0, 0, "{v}" }}')
        elif isinstance(v, int):
            attrs.append(f'{{ "{k}", ML_ATTR_INT, {v}, 0, NULL }}')
        else:
            attrs.append(f'{{ "{k}", ML_ATTR_FLOAT, 0, {float(v)!r}f, NULL }}')
    attrs_text = ", ".join(attrs) or "{ 0 }"
    rows.append(f'  {{ "{c["name"]}", "{c["domain"]}", "{c["op"]}", {len(attrs)},')
    rows.append(f'    {{ {attrs_text} }}, {len(c["inputs"])},')
    rows.append("    { " + ",\n      ".join(tensor(v) for v in c["inputs"]) + " },")
    rows.append(f'    {len(c["expected"])}, {{ {", ".join(tensor(v) for v in c["expected"])} }}, {c["rtol"]} }},')
print(
    """/* Made by make_ops_elementwise.py from NumPy and SciPy, cross-checked with ONNX Runtime; do not edit. */
#ifndef MLSERVE_SPEC_OPS_ELEMENTWISE_H
#define MLSERVE_SPEC_OPS_ELEMENTWISE_H
#include <math.h>
#include "ops/op.h"

typedef struct gold_tensor {
  const void *data;
  int dtype;
  int32_t rank; /* -1: input left out */
  int64_t dims[4];
} gold_tensor;

typedef struct gold_attr {
  const char *name;
  ml_attr_type type;
  int64_t i;
  float f;
  const char *s;
} gold_attr;

typedef struct gold_case {
  const char *name, *domain, *op;
  size_t n_attrs;
  gold_attr attrs[2];
  int32_t n_in;
  gold_tensor in[3];
  int32_t n_out;
  gold_tensor out[2];
  double rtol;
} gold_case;
"""
)
print("\n".join(out))
print("\nstatic const gold_case gold[] = {")
print("\n".join(rows))
print("};\n\n#endif")
