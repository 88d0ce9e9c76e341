"""Writes spec/golden/onnx: models of old and new operator sets with inputs and expected outputs, in the layout of ONNX's own test data
(model.onnx, test_data_set_0/input_N.pb, output_N.pb). Expected values come from ONNX Runtime, or from NumPy where the runtime no longer
accepts the operator set; never from mlserve. Run: python3 spec/golden/make_onnx.py (needs onnx, onnxruntime, numpy)."""
import os
import shutil

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper, numpy_helper

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "onnx")
rng = np.random.default_rng(11)


def floats(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def elem(array):
    return T.STRING if array.dtype.kind in "OU" else helper.np_dtype_to_tensor_dtype(array.dtype)


def save(name, model, inputs, expected, external=None):
    base = os.path.join(ROOT, name)
    data = os.path.join(base, "test_data_set_0")
    os.makedirs(data)
    with open(os.path.join(base, "model.onnx"), "wb") as f:
        f.write(model.SerializeToString())
    for kind, arrays in (("input", inputs), ("output", expected)):
        for i, array in enumerate(arrays):
            with open(os.path.join(data, f"{kind}_{i}.pb"), "wb") as f:
                f.write(numpy_helper.from_array(array, f"{kind}_{i}").SerializeToString())
    for path, content in (external or {}).items():
        full = os.path.join(base, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as f:
            f.write(content)


def build(nodes, inputs, outputs, init=(), opset=17, ml=None, ir=None, list_init=False, dims=None):
    infos = [helper.make_tensor_value_info(n, elem(a), dims.get(n, a.shape) if dims else a.shape) for n, a in inputs]
    if list_init:
        infos += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in init]
    outs = [helper.make_tensor_value_info(n, t, s) for n, t, s in outputs]
    graph = helper.make_graph(nodes, "golden", infos, outs, list(init))
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid("ai.onnx.ml", ml)] if ml else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir or (3 if opset < 9 else 8), producer_name="golden")


def case(name, nodes, inputs, outputs, init=(), expected=None, **options):
    model = build(nodes, inputs, outputs, init, **options)
    arrays = [a for _, a in inputs]
    if expected is None:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        expected = session.run(None, dict(inputs))
    save(name, model, arrays, expected)


def node(op, ins, outs, **attributes):
    return helper.make_node(op, ins, outs, name=attributes.pop("node", op.lower()), **attributes)


def const(name, values, dtype):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    x = floats(2, 3, 4)
    y3 = [("y", T.FLOAT, None)]
    X = [("x", x)]
    for op in ("Softmax", "LogSoftmax"):
        case(f"{op.lower()}_9_default", [node(op, ["x"], ["y"])], X, y3, opset=9)
        case(f"{op.lower()}_11_axis0", [node(op, ["x"], ["y"], axis=0)], X, y3, opset=11)
        case(f"{op.lower()}_12_last", [node(op, ["x"], ["y"], axis=-1)], X, y3, opset=12)
        case(f"{op.lower()}_13_axis1", [node(op, ["x"], ["y"], axis=1)], X, y3, opset=13)
    case("squeeze_11", [node("Squeeze", ["x"], ["y"], axes=[0, -2])], [("x", floats(1, 3, 1, 2))], y3, opset=11)
    case("squeeze_9_all", [node("Squeeze", ["x"], ["y"])], [("x", floats(1, 3, 1, 2))], y3, opset=9)
    case("unsqueeze_11", [node("Unsqueeze", ["x"], ["y"], axes=[-1, 0])], X, y3, opset=11)
    case("unsqueeze_13", [node("Unsqueeze", ["x", "a"], ["y"])], X, y3, [const("a", [1], np.int64)], opset=13)
    for op in ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
               "ReduceSumSquare"):
        data = [("x", np.abs(x) + np.float32(0.5))]
        case(f"{op.lower()}_11", [node(op, ["x"], ["y"], axes=[0, -1], keepdims=0)], data, y3, opset=11)
        case(f"{op.lower()}_18", [node(op, ["x", "a"], ["y"])], data, y3, [const("a", [1], np.int64)], opset=18)
    case("reducemean_13_all", [node("ReduceMean", ["x"], ["y"])], X, y3, opset=13)
    case("clip_6", [node("Clip", ["x"], ["y"], min=-0.5, max=0.25)], X, y3, opset=9)
    case("clip_11_max", [node("Clip", ["x", "", "m"], ["y"])], X, y3, [const("m", 0.25, np.float32)], opset=11)
    case("dropout_7", [node("Dropout", ["x"], ["y"], ratio=0.3)], X, y3, opset=7)
    case("dropout_9_mask", [node("Dropout", ["x"], ["y", "m"], ratio=0.3), node("Mul", ["y", "m"], ["z"])], X, [("z", T.FLOAT, None)],
         expected=[x], opset=9)
    case("dropout_6", [node("Dropout", ["x"], ["y"], is_test=1)], X, y3, expected=[x], opset=6)
    case("slice_1", [node("Slice", ["x"], ["y"], starts=[0, -2], ends=[1, 2147483647], axes=[0, 2])], X, y3, opset=9)
    case("slice_13", [node("Slice", ["x", "s", "e", "a", "p"], ["y"])], X, y3,
         [const("s", [3], np.int64), const("e", [-100], np.int64), const("a", [2], np.int64), const("p", [-2], np.int64)], opset=13)
    two = [("y", T.FLOAT, None), ("z", T.FLOAT, None)]
    case("split_2", [node("Split", ["x"], ["y", "z"], axis=2, split=[1, 3])], X, two, opset=11)
    case("split_13_equal", [node("Split", ["x"], ["y", "z"], axis=2)], X, two, opset=13)
    case("split_18_uneven", [node("Split", ["x"], ["y", "z"], axis=1, num_outputs=2)], X, two, opset=18)
    case("reshape_1", [node("Reshape", ["x"], ["y"], shape=[4, -1])], X, y3, expected=[x.reshape(4, 6)], opset=4)
    case("reshape_5", [node("Reshape", ["x", "s"], ["y"])], X, y3, [const("s", [0, -1], np.int64)], opset=9)
    b = floats(3)
    B = [("x", x), ("b", b)]
    case("add_6_axis", [node("Add", ["x", "b"], ["y"], broadcast=1, axis=1)], B, y3, expected=[x + b.reshape(3, 1)], opset=6)
    case("mul_1_axis_negative", [node("Mul", ["x", "b"], ["y"], broadcast=1, axis=-2, consumed_inputs=[0, 0])], B, y3,
         expected=[x * b.reshape(3, 1)], opset=5)
    c = floats(4)
    case("sub_6_end", [node("Sub", ["x", "c"], ["y"], broadcast=1)], [("x", x), ("c", c)], y3, expected=[x - c], opset=6)
    case("prelu_6", [node("PRelu", ["x", "b"], ["y"])], B, y3, expected=[np.where(x < 0, x * b.reshape(3, 1), x)], opset=6)
    g = (floats(2, 3), floats(3, 4), floats(4))
    case("gemm_6", [node("Gemm", ["a", "b", "c"], ["y"], broadcast=1, alpha=0.5)], list(zip("abc", g)), y3,
         expected=[(0.5 * g[0] @ g[1] + g[2]).astype(np.float32)], opset=6)
    case("gemm_11_no_c", [node("Gemm", ["a", "b"], ["y"], transB=1)], [("a", floats(2, 3)), ("b", floats(4, 3))], y3, opset=11)
    image = floats(2, 3, 2, 2)
    stats = [const("s", floats(3), np.float32), const("o", floats(3), np.float32), const("m", floats(3), np.float32),
             const("v", np.abs(floats(3)) + 0.1, np.float32)]
    for version, attributes in ((7, {"spatial": 1}), (9, {}), (15, {})):
        case(f"batchnormalization_{version}", [node("BatchNormalization", ["x", "s", "o", "m", "v"], ["y"], epsilon=1e-3, **attributes)],
             [("x", image)], y3, stats, opset=version, list_init=version < 9)
    case("cast_1", [node("Cast", ["x"], ["y"], to="INT32")], X, [("y", T.INT32, None)], expected=[x.astype(np.int32)], opset=5)
    case("cast_13", [node("Cast", ["x"], ["y"], to=T.DOUBLE)], X, [("y", T.DOUBLE, None)], opset=13)
    case("concat_1", [node("Concat", ["x", "x"], ["y"])], X, y3, expected=[np.concatenate([x, x], 1)], opset=3)
    case("tile_1", [node("Tile", ["x", "n", "k"], ["y"])], X, y3, [const("n", 3, np.int64), const("k", 1, np.int64)],
         expected=[np.tile(x, (1, 3, 1))], opset=5, ir=4)
    case("selu_1", [node("Selu", ["x"], ["y"])], X, y3,
         expected=[np.where(x > 0, 1.0507 * x, 1.0507 * (1.6732 * np.exp(x) - 1.6732)).astype(np.float32)], opset=5)
    case("argmax_11", [node("ArgMax", ["x"], ["y"], axis=-1, keepdims=0)], X, [("y", T.INT64, None)], opset=11)
    words = np.array(["b", "?", "a"], object)
    case("labelencoder_1", [node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", classes_strings=["a", "b"], default_int64=-7)], [("x", words)],
         [("y", T.INT64, None)], opset=9, ml=1)
    case("labelencoder_2", [node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_strings=["a", "b"], values_floats=[0.5, 2.0],
                                 default_float=-1.0)], [("x", words)], [("y", T.FLOAT, None)], opset=12, ml=2)
    case("labelencoder_4", [node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_tensor=const("k", [1, 5], np.int64),
                                 values_tensor=numpy_helper.from_array(np.array(["one", "five"], object), "v"),
                                 default_tensor=numpy_helper.from_array(np.array(["none"], object), "d"))],
         [("x", np.array([5, 2, 1], np.int64))], [("y", T.STRING, None)], opset=20, ml=4, ir=9)
    # names that an upgrade might make up for itself
    case("names_collide", [node("Clip", ["x"], ["clip_"], node="constant", min=0.0), node("Softmax", ["clip_"], ["Flatten_1"]),
                           node("Neg", ["Flatten_1"], ["constant"]), node("Abs", ["constant"], ["Shape_0"])], X,
         [("Shape_0", T.FLOAT, None)], opset=9)

    # every way of storing an initialiser
    kinds = {"float32": (T.FLOAT, [0.5, -1.25]), "float64": (T.DOUBLE, [0.1, -2.5]), "int8": (T.INT8, [-128, 7]), "uint8": (T.UINT8, [255, 1]),
             "int16": (T.INT16, [-32768, 3]), "uint16": (T.UINT16, [65535, 2]), "int32": (T.INT32, [-5, 2147483647]),
             "uint32": (T.UINT32, [4294967295, 9]), "int64": (T.INT64, [-(1 << 63), 5]), "uint64": (T.UINT64, [(1 << 64) - 1, 5]),
             "bool": (T.BOOL, [True, False]), "string": (T.STRING, [b"ab\xc3\xa9", b""])}
    for raw in (False, True):
        init, nodes, outs, expected = [], [], [], []
        for name, (kind, values) in kinds.items():
            if raw and name == "string":
                continue
            array = np.array([v.decode() for v in values], object) if name == "string" else np.array(values, name)
            init.append(helper.make_tensor(name, kind, [2], array.tobytes() if raw else values, raw=raw))
            nodes.append(node("Identity", [name], [name + "_out"], node=name))
            outs.append((name + "_out", kind, [2]))
            expected.append(array)
        save("initialisers_raw" if raw else "initialisers_typed", build(nodes, [], outs, init, opset=17), [], expected)

    # a small network as PyTorch exports it, with a named batch dimension, metadata and intermediate types
    w = [const("0.weight", floats(5, 4), np.float32), const("0.bias", floats(5), np.float32), const("2.weight", floats(3, 5), np.float32),
         const("2.bias", floats(3), np.float32)]
    nodes = [node("Gemm", ["x", "0.weight", "0.bias"], ["h"], transB=1, node="fc1"), node("Relu", ["h"], ["r"]),
             node("Gemm", ["r", "2.weight", "2.bias"], ["l"], transB=1, node="fc2"), node("Softmax", ["l"], ["p"], axis=1)]
    inputs = [("x", floats(6, 4))]
    model = build(nodes, inputs, [("p", T.FLOAT, ["batch", 3])], w, opset=13, dims={"x": ["batch", 4]})
    model.graph.value_info.append(helper.make_tensor_value_info("h", T.FLOAT, ["batch", 5]))
    model.doc_string = "a network"
    model.model_version = 7
    helper.set_model_props(model, {"author": "golden", "mlserve.frozen": '["0.bias"]'})
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, dict(inputs))
    save("network", model, [a for _, a in inputs], expected)

    # the same with its weights in two files beside it, one at an odd offset
    contents = {"weights/a.bin": b"", "b.bin": b"xyz"}
    for i, tensor in enumerate(model.graph.initializer):
        path = "b.bin" if i == 2 else "weights/a.bin"
        raw = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = T.EXTERNAL
        for key, value in (("location", path), ("offset", str(len(contents[path]))), ("length", str(len(raw))), ("checksum", "0")):
            tensor.external_data.add(key=key, value=value)
        contents[path] += raw
    save("external", model, [a for _, a in inputs], expected, contents)


if __name__ == "__main__":
    main()
