#!/usr/bin/env python3
"""Writes ops_shape.h, ops_reduce.h and ops_matmul_loss.h beside itself: inputs and expected outputs of operators for spec/csrc/test_ops_*.c.

Expected values come from ONNX Runtime and, where it lacks the operator or a type, from the reference evaluator of the onnx package; both are
compared with each other where both run. mlserve's own losses come from NumPy in float64, preprocessing also from scikit-learn.
Needs: numpy, onnx, onnxruntime, scikit-learn, ml_dtypes. Run: python3 make_ops_onnx.py
"""
import math, os, sys
import numpy as np
import onnx, onnxruntime as ort
from onnx import helper, numpy_helper, TensorProto
from onnx.reference import ReferenceEvaluator
import ml_dtypes
from sklearn.preprocessing import Normalizer as SkNormalizer, StandardScaler

rng = np.random.default_rng(20240607)
NUMBER = {np.dtype(k): v for k, v in {
    'float32': 1, 'uint8': 2, 'int8': 3, 'uint16': 4, 'int16': 5, 'int32': 6, 'int64': 7, 'bool': 9, 'float16': 10, 'float64': 11, 'uint32': 12, 'uint64': 13}.items()}
NUMBER[np.dtype(ml_dtypes.bfloat16)] = 16
NAME = {1: 'ML_FLOAT32', 2: 'ML_UINT8', 3: 'ML_INT8', 4: 'ML_UINT16', 5: 'ML_INT16', 6: 'ML_INT32', 7: 'ML_INT64', 8: 'ML_STRING', 9: 'ML_BOOL',
        10: 'ML_FLOAT16', 11: 'ML_FLOAT64', 12: 'ML_UINT32', 13: 'ML_UINT64', 16: 'ML_BFLOAT16'}
CTYPE = {1: 'float', 2: 'uint8_t', 3: 'int8_t', 4: 'uint16_t', 5: 'int16_t', 6: 'int32_t', 7: 'int64_t', 8: 'ml_str', 9: 'bool', 10: 'uint16_t',
         11: 'double', 12: 'uint32_t', 13: 'uint64_t', 16: 'uint16_t'}
groups = {}

def number(a):
    return 8 if a.dtype.kind in 'OUST' else NUMBER[a.dtype]

def text(s):
    s = s.decode() if isinstance(s, bytes) else str(s)
    return '{ "%s", %d }' % (s.replace('\\', '\\\\').replace('"', '\\"'), len(s.encode()))

def literal(v, n):
    if n == 8: return text(v)
    if n in (10, 16): return hex(int(np.asarray(v).view(np.uint16)))
    if n == 9: return 'true' if v else 'false'
    if n in (1, 11):
        v = float(v)
        if math.isnan(v): return 'NAN'
        if math.isinf(v): return 'INFINITY' if v > 0 else '-INFINITY'
        return (np.format_float_scientific(np.float32(v), unique=True) + 'f') if n == 1 else repr(v)
    v = int(v)
    if n == 7: return 'INT64_MIN' if v == -2**63 else 'INT64_C(%d)' % v
    if n == 13: return 'UINT64_C(%d)' % v
    if n == 6 and v == -2**31: return 'INT32_MIN'
    return str(v) + ('u' if n == 12 else '')

class Group:
    def __init__(self): self.data, self.cases, self.n = [], [], 0
    def array(self, values, n):
        self.n += 1
        name = 'd%d' % self.n
        self.data.append('static %s %s[] = { %s };' % (CTYPE[n], name, ', '.join(literal(v, n) for v in values)))
        return name
    def view(self, a):
        if a is None: return '{ .dtype = ML_DTYPE_NONE }'
        n = number(a)
        data = self.array(a.ravel(), n) if a.size else 'NULL'
        dims = ', .dims = { %s }' % ', '.join(map(str, a.shape)) if a.ndim else ''
        return '{ .data = %s, .count = %d, .dtype = %s, .rank = %d%s }' % (data, a.size, NAME[n], a.ndim, dims)
    def attr(self, k, v):
        if isinstance(v, np.ndarray):
            view = self.view(v)
            self.n += 1
            self.data.append('static ml_tensor t%d = { .view = %s };' % (self.n, view))
            return '{ .name = "%s", .type = ML_ATTR_TENSOR, .count = 1, .as = { .tensor = &t%d } }' % (k, self.n)
        if isinstance(v, bool) or isinstance(v, int): return '{ .name = "%s", .type = ML_ATTR_INT, .count = 1, .as = { .i = %s } }' % (k, literal(v, 7))
        if isinstance(v, float): return '{ .name = "%s", .type = ML_ATTR_FLOAT, .count = 1, .as = { .f = %s } }' % (k, literal(v, 1))
        if isinstance(v, str): return '{ .name = "%s", .type = ML_ATTR_STRING, .count = 1, .as = { .s = %s } }' % (k, text(v))
        kind = 'FLOATS' if isinstance(v[0], float) else 'INTS' if isinstance(v[0], int) else 'STRINGS'
        field = kind.lower()
        name = self.array(v, {'FLOATS': 1, 'INTS': 7, 'STRINGS': 8}[kind])
        return '{ .name = "%s", .type = ML_ATTR_%s, .count = %d, .as = { .%s = %s } }' % (k, kind, len(v), field, name)

def proto(a, name):
    if number(a) == 8: return helper.make_tensor(name, TensorProto.STRING, a.shape, [str(s).encode() for s in a.ravel()])
    return numpy_helper.from_array(a, name)

def onnx_model(op, inputs, attrs, n_out, domain, opset):
    names = ['' if a is None else 'i%d' % k for k, a in enumerate(inputs)]
    a = {k: proto(v, k) if isinstance(v, np.ndarray) else v for k, v in attrs.items()}
    node = helper.make_node(op, names, ['o%d' % k for k in range(n_out)], domain=domain, **a)
    vi = [helper.make_tensor_value_info(n, number(x), x.shape) for n, x in zip(names, inputs) if x is not None]
    return helper.make_model(helper.make_graph([node], 'g', vi, [helper.make_empty_tensor_value_info('o%d' % k) for k in range(n_out)]),
                             opset_imports=[helper.make_opsetid('', opset), helper.make_opsetid('ai.onnx.ml', 4)], ir_version=10), names

def authority(op, inputs, attrs, n_out, domain, opset):
    model, names = onnx_model(op, inputs, attrs, n_out, domain, opset)
    feed = {n: x for n, x in zip(names, inputs) if x is not None}
    got = {}
    try:
        so = ort.SessionOptions(); so.log_severity_level = 4
        # typed outputs are needed by the runtime: inferred
        m = onnx.shape_inference.infer_shapes(model)
        got['ort'] = ort.InferenceSession(m.SerializeToString(), so, providers=['CPUExecutionProvider']).run(None, feed)
    except Exception as e: got['ort_error'] = str(e)[:160]
    try:
        got['ref'] = [np.asarray(o) for o in ReferenceEvaluator(model).run(None, feed)]
    except Exception as e: got['ref_error'] = str(e)[:160]
    return got

def case(group, name, op, inputs, attrs=None, n_out=1, domain='', tol=0.0, want=None, opset=21, prefer='ort', dtype=None):
    g = groups.setdefault(group, Group())
    attrs = attrs or {}
    if want is None:
        got = authority(op, inputs, attrs, n_out, domain, opset)
        other = 'ref' if prefer == 'ort' else 'ort'
        pick = prefer if prefer in got else other
        if pick not in got: sys.exit('%s: nobody computes it: %s' % (name, got))
        want = got[pick]
        if 'ort' in got and 'ref' in got:
            for a, b in zip(got['ort'], got['ref']):
                same = a.shape == b.shape and (np.array_equal(a.astype(str), b.astype(str)) if number(a) == 8 else
                                               np.allclose(a.astype('float64'), b.astype('float64'), 1e-5, 1e-6, equal_nan=True))
                if not same: print('note: %s: the two authorities differ; %s taken\n  ort %s\n  ref %s' % (name, pick, a.ravel()[:8], b.ravel()[:8]))
        elif 'ort' not in got: print('note: %s: reference evaluator only (%s)' % (name, got['ort_error'][:90]))
    want = [np.asarray(w, dtype) for w in want]  # the reference evaluator widens some integers
    a = ', '.join(g.attr(k, v) for k, v in attrs.items())
    i = ', '.join(g.view(None if x is None else np.asarray(x)) for x in inputs)
    o = ', '.join(g.view(w) for w in want)
    g.cases.append('  { .name = "%s", .domain = "%s", .op = "%s",%s\n    .in = { %s }, .n_in = %d,\n    .out = { %s }, .n_out = %d, .tolerance = %g },'
                   % (name, domain, op, ' .attrs = { %s }, .n_attrs = %d,' % (a, len(attrs)) if attrs else '', i if i else '{ .data = NULL }', len(inputs), o, len(want), tol))

def f(*shape): return rng.standard_normal(shape).round(3).astype(np.float32)
def d(*shape): return rng.standard_normal(shape).round(3)
def i64(*v): return np.array(v, np.int64)
def ar(*shape, dtype=np.float32): return np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)
S = np.array
STR = np.array([['ab', 'c', ''], ['déf', 'g', 'hij']], dtype=object)

# ------------------------------------------------------------------ shape and data movement
G = 'shape'
x = ar(2, 3, 4)
for n, s in (('plain', (4, 6)), ('infer', (2, -1)), ('copy', (0, -1)), ('extended', (2, 3, 2, 2)), ('one', (24,)), ('copy_two', (0, 0, 4))): case(G, 'reshape_' + n, 'Reshape', [x, i64(*s)])
case(G, 'reshape_scalar', 'Reshape', [f(1, 1), i64()])
case(G, 'reshape_zero_copy', 'Reshape', [np.zeros((0, 3, 4), np.float32), i64(3, 4, 0)], {'allowzero': 1})
case(G, 'reshape_empty', 'Reshape', [np.zeros((0, 3, 4), np.float32), i64(0, 12)])
case(G, 'reshape_string', 'Reshape', [STR, i64(3, 2)], prefer='ref')
for a in (0, 1, 2, 3, -1, -3): case(G, 'flatten_%d' % a, 'Flatten', [x], {'axis': a})
case(G, 'flatten_default', 'Flatten', [x])
case(G, 'identity', 'Identity', [ar(2, 2, dtype=np.int16)])
case(G, 'squeeze_all', 'Squeeze', [f(1, 3, 1, 2)])
case(G, 'squeeze_axes', 'Squeeze', [f(1, 3, 1, 2), i64(0)])
case(G, 'squeeze_negative', 'Squeeze', [f(1, 3, 1, 2), i64(-2)])
case(G, 'unsqueeze', 'Unsqueeze', [f(3, 2), i64(0, 2)])
case(G, 'unsqueeze_unsorted', 'Unsqueeze', [f(3, 4, 5), i64(5, 4, 2)])
case(G, 'unsqueeze_negative', 'Unsqueeze', [f(3), i64(-1)])
case(G, 'shape', 'Shape', [x])
case(G, 'shape_range', 'Shape', [x], {'start': 1, 'end': -1})
case(G, 'shape_clamped', 'Shape', [x], {'start': -9, 'end': 9})
case(G, 'shape_none', 'Shape', [x], {'start': 2, 'end': 1})
case(G, 'size', 'Size', [x])
case(G, 'size_empty', 'Size', [np.zeros((2, 0), np.float32)])
case(G, 'concat_0', 'Concat', [f(2, 3), f(1, 3), f(3, 3)], {'axis': 0})
case(G, 'concat_1', 'Concat', [f(2, 3), f(2, 1)], {'axis': 1})
case(G, 'concat_last', 'Concat', [ar(2, 2, 3, dtype=np.uint8), ar(2, 2, 1, dtype=np.uint8)], {'axis': -1})
case(G, 'concat_empty', 'Concat', [f(2, 3), np.zeros((0, 3), np.float32)], {'axis': 0})
case(G, 'concat_string', 'Concat', [STR, STR], {'axis': 1})
case(G, 'split_equal', 'Split', [ar(6, 2)], {'num_outputs': 3}, n_out=3)
case(G, 'split_uneven', 'Split', [ar(7, 2)], {'num_outputs': 4}, n_out=4)
case(G, 'split_sizes', 'Split', [ar(2, 6), i64(2, 4)], {'axis': 1}, n_out=2)
case(G, 'split_zero', 'Split', [ar(2, 3), i64(0, 3)], {'axis': -1}, n_out=2)
y = ar(20, 4, 3)
case(G, 'slice', 'Slice', [y, i64(0, 1), i64(3, 4), i64(0, 1), i64(1, 2)])
case(G, 'slice_default', 'Slice', [y, i64(1, 0, 1), i64(4, 2, 3)])
case(G, 'slice_negative_step', 'Slice', [y, i64(19, 3), i64(0, 0), i64(0, 1), i64(-5, -1)])
case(G, 'slice_reverse_all', 'Slice', [ar(5), i64(-1), i64(-2**63), i64(0), i64(-1)])
case(G, 'slice_clamped', 'Slice', [ar(5), i64(-100), i64(2**62), i64(0), i64(2)])
case(G, 'slice_out_of_bounds', 'Slice', [y, i64(1000), i64(1000), i64(1)])
case(G, 'slice_negative_axis', 'Slice', [y, i64(0, 0), i64(2, -2), i64(-1, -2)])
case(G, 'slice_int32', 'Slice', [y, S([1], np.int32), S([3], np.int32), S([2], np.int32)])
case(G, 'slice_huge_step', 'Slice', [ar(5), i64(1), i64(5), i64(0), i64(2**40)])
case(G, 'slice_string', 'Slice', [STR, i64(1), i64(3), i64(1)], prefer='ref')
case(G, 'gather_0', 'Gather', [f(5, 4, 3), i64(0, 1, 3)])
case(G, 'gather_1', 'Gather', [f(3, 4, 2), S([[0, -1], [2, -4]], np.int64)], {'axis': 1})
case(G, 'gather_scalar', 'Gather', [f(5, 2), S(3, np.int32)])
case(G, 'gather_string', 'Gather', [STR, i64(1, 0, 1)], {'axis': 1})
case(G, 'gather_nothing', 'Gather', [f(5, 2), np.zeros((0,), np.int64)])
case(G, 'expand', 'Expand', [f(3, 1), i64(2, 1, 6)])
case(G, 'expand_keep', 'Expand', [f(3, 1), i64(3, 4)])
case(G, 'expand_ones', 'Expand', [f(3, 4), i64(1, 1)])
case(G, 'expand_scalar', 'Expand', [S(2.5, np.float32), i64(2, 3)])
case(G, 'expand_middle', 'Expand', [f(2, 1, 3), i64(2, 4, 1)])
case(G, 'tile', 'Tile', [f(2, 3), i64(2, 3)])
case(G, 'tile_one', 'Tile', [f(2, 1, 2), i64(1, 3, 1)])
case(G, 'tile_zero', 'Tile', [f(2, 2), i64(0, 2)])
case(G, 'tile_bytes', 'Tile', [ar(3, dtype=np.int8), i64(4)])
for p in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)): case(G, 'transpose_%d%d%d' % p, 'Transpose', [x], {'perm': list(p)})
case(G, 'transpose_default', 'Transpose', [x])
case(G, 'transpose_large', 'Transpose', [ar(33, 19, dtype=np.int32)])
case(G, 'transpose_half', 'Transpose', [ar(5, 3).astype(np.float16)])
case(G, 'transpose_double', 'Transpose', [ar(2, 3, 2, 2, dtype=np.float64)], {'perm': [3, 1, 0, 2]})
case(G, 'transpose_string', 'Transpose', [STR])
case(G, 'one_hot', 'OneHot', [i64(0, 7, 8), S([10], np.int64), f(2)])
case(G, 'one_hot_axis', 'OneHot', [S([[1, 9], [2, 4]], np.float32), S([10], np.float32), S([1, 3], np.float32)], {'axis': 1})
case(G, 'one_hot_negative', 'OneHot', [i64(0, -7, -8), S(10, np.int64), S([1, 3], np.int64)], {'axis': -2})
case(G, 'one_hot_out_of_range', 'OneHot', [i64(10, -11, 3), S(10, np.int64), S([0, 1], np.float32)])
case(G, 'constant_of_shape', 'ConstantOfShape', [i64(2, 3)])
case(G, 'constant_of_shape_int', 'ConstantOfShape', [i64(3)], {'value': S([7], np.int32)})
case(G, 'constant_of_shape_scalar', 'ConstantOfShape', [i64()], {'value': S([True])})
case(G, 'constant_of_shape_empty', 'ConstantOfShape', [i64(0, 3)])
case(G, 'constant_tensor', 'Constant', [], {'value': f(2, 2)})
case(G, 'constant_float', 'Constant', [], {'value_float': 1.5})
case(G, 'constant_floats', 'Constant', [], {'value_floats': [1.5, -2.0]})
case(G, 'constant_int', 'Constant', [], {'value_int': -3})
case(G, 'constant_ints', 'Constant', [], {'value_ints': [3, 4, 5]})
case(G, 'constant_string', 'Constant', [], {'value_string': 'abc'}, want=[S('abc', dtype=object)])
case(G, 'constant_strings', 'Constant', [], {'value_strings': ['abc', '']}, want=[S(['abc', ''], dtype=object)])
v = S([0, 1, -1, 1.5, -2.75, 100.25, 3e4, 0.1], np.float32)
for t in (np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.int16, np.int32, np.int64, np.bool_):
    n = NUMBER[np.dtype(t)]
    src = v if t != np.int8 else v[:6]
    case(G, 'cast_float_%s' % np.dtype(t).name, 'Cast', [src], {'to': n}, want=[src.astype(t)] if t is ml_dtypes.bfloat16 else None)
for t in (np.uint8, np.uint16, np.uint32, np.uint64, np.float16): case(G, 'cast_%s_float' % np.dtype(t).name, 'Cast', [S([0, 1, 200, 7], t)], {'to': 1})
case(G, 'cast_bfloat16_float', 'Cast', [S([0, 1.5, -3e20], ml_dtypes.bfloat16)], {'to': 1}, want=[S([0, 1.5, -3e20], ml_dtypes.bfloat16).astype(np.float32)])
case(G, 'cast_bool_int', 'Cast', [S([True, False])], {'to': 6})
case(G, 'cast_int_wide', 'Cast', [S([-2**63, 2**62 + 1], np.int64)], {'to': 7})
case(G, 'cast_int_uint8', 'Cast', [S([0, 255, 17], np.int32)], {'to': 2})
case(G, 'cast_nan_bool', 'Cast', [S([np.nan, 0, -0.0, 0.25], np.float32)], {'to': 9})
case(G, 'cast_double_half', 'Cast', [S([1/3, 65504, 1e-8, 2049], np.float64)], {'to': 10})
case(G, 'cast_string_float', 'Cast', [S(['1.5', '-2', '3e-2', 'INF', '-inf', 'NaN', '+inf', ' 7 '][:7], dtype=object)], {'to': 1})
case(G, 'cast_string_double', 'Cast', [S(['0.1', '1e300', '-0'], dtype=object)], {'to': 11}, want=[S([0.1, 1e300, -0.0])])
case(G, 'cast_string_int64', 'Cast', [S(['9223372036854775807', '-9223372036854775808', '12'], dtype=object)], {'to': 7})
case(G, 'cast_string_int32', 'Cast', [S(['-12', '77'], dtype=object)], {'to': 6})
case(G, 'cast_float_string', 'Cast', [S([0.47892547, -1.5, 1, 12345.5, np.nan, np.inf, -np.inf], np.float32)], {'to': 8},
     want=[S(['0.47892547', '-1.5', '1.0', '12345.5', 'NaN', 'INF', '-INF'], dtype=object)])
case(G, 'cast_int_string', 'Cast', [S([-2**63, 2**63 - 1, 0], np.int64)], {'to': 8})
case(G, 'cast_uint64_string', 'Cast', [S([2**64 - 1, 5], np.uint64)], {'to': 8})
case(G, 'cast_like', 'CastLike', [f(2, 2), S([1], np.float64)])

# ------------------------------------------------------------------ reductions
G = 'reduce'
OPS = ('Sum', 'Mean', 'Max', 'Min', 'Prod', 'L1', 'L2', 'LogSum', 'LogSumExp', 'SumSquare')
for o in OPS:
    a = np.abs(f(3, 4, 5)) + np.float32(0.5) if o == 'LogSum' else f(3, 4, 5)
    t = 3e-6
    for n, axes, keep in (('last', (2,), 1), ('first', (0,), 0), ('middle', (1,), 1), ('outer', (0, 2), 0), ('negative', (-2, -1), 1)):
        case(G, 'reduce_%s_%s' % (o, n), 'Reduce' + o, [a, i64(*axes)], {'keepdims': keep}, tol=t)
    case(G, 'reduce_%s_all' % o, 'Reduce' + o, [a], {'keepdims': 0}, tol=t)
    case(G, 'reduce_%s_noop' % o, 'Reduce' + o, [a, i64()], {'noop_with_empty_axes': 1}, want=[a])
    case(G, 'reduce_%s_empty_axes' % o, 'Reduce' + o, [a[0], i64()], tol=t)
    case(G, 'reduce_%s_double' % o, 'Reduce' + o, [np.abs(d(2, 3, 2)), i64(1)], tol=1e-12, prefer='ref')
    case(G, 'reduce_%s_rank0' % o, 'Reduce' + o, [S(0.75, np.float32)], tol=t)
    if o in ('Sum', 'Max', 'Min', 'Prod', 'Mean', 'L1', 'SumSquare'):
        case(G, 'reduce_%s_int32' % o, 'Reduce' + o, [rng.integers(-9, 9, (3, 5)).astype(np.int32), i64(1)], prefer='ref', dtype=np.int32)
        case(G, 'reduce_%s_int64' % o, 'Reduce' + o, [rng.integers(-9, 9, (3, 2, 2)).astype(np.int64), i64(0, 2)], {'keepdims': 0}, prefer='ref')
e = np.zeros((2, 0, 3), np.float32)
inf = np.float32(np.inf)
for o, w in (('Sum', 0), ('Prod', 1), ('Max', -inf), ('Min', inf), ('L1', 0), ('L2', 0), ('SumSquare', 0), ('LogSum', -inf), ('LogSumExp', -inf), ('Mean', np.nan)):
    case(G, 'reduce_%s_nothing' % o, 'Reduce' + o, [e, i64(1)], want=[np.full((2, 1, 3), w, np.float32)])
    case(G, 'reduce_%s_of_empty' % o, 'Reduce' + o, [e, i64(0)], want=[np.zeros((1, 0, 3), np.float32)])
for t in (np.int32, np.int64, np.uint32, np.uint64):
    lim = np.iinfo(t)
    for o, w in (('Sum', 0), ('Prod', 1), ('Max', lim.min), ('Min', lim.max)): case(G, 'reduce_%s_nothing_%s' % (o, np.dtype(t).name), 'Reduce' + o, [np.zeros((2, 0), t), i64(1)], want=[np.full((2, 1), w, t)])
case(G, 'reduce_max_uint8', 'ReduceMax', [S([[3, 200], [7, 1]], np.uint8), i64(0)], {'keepdims': 0})
case(G, 'reduce_min_int8', 'ReduceMin', [S([[3, -100], [7, 1]], np.int8), i64(1)], {'keepdims': 0})
case(G, 'reduce_max_bool', 'ReduceMax', [S([[True, False], [False, False]]), i64(1)], {'keepdims': 1}, prefer='ref')
case(G, 'reduce_max_nan', 'ReduceMax', [S([[1, np.nan, 3], [4, 5, 6]], np.float32), i64(1)], want=[S([[np.nan], [6]], np.float32)])
case(G, 'reduce_max_nan_columns', 'ReduceMax', [S([[1, np.nan, 3], [4, 5, 6]], np.float32), i64(0)], want=[S([[4, np.nan, 6]], np.float32)])
case(G, 'reduce_lse_large', 'ReduceLogSumExp', [S([[1000, 1001], [-1000, -inf]], np.float32), i64(1)], want=[S([[1001.3132617], [-1000]], np.float32)], tol=1e-6)
case(G, 'reduce_lse_infinite', 'ReduceLogSumExp', [S([[-inf, -inf], [inf, 0]], np.float32), i64(1)], want=[S([[-inf], [inf]], np.float32)])
b = f(7, 67)
case(G, 'reduce_sum_columns', 'ReduceSum', [b, i64(0)], want=[b.astype('f8').sum(0, keepdims=True).astype('f4')], tol=2e-6)
case(G, 'reduce_l2_long', 'ReduceL2', [b, i64(1)], want=[np.sqrt((b.astype('f8')**2).sum(1, keepdims=True)).astype('f4')], tol=2e-6)
for o in ('ArgMax', 'ArgMin'):
    a = S([[2, 2, 1], [3, 10, 10], [0, 5, 0]], np.float32)
    for ax in (0, 1, -1):
        for last in (0, 1): case(G, '%s_%d_%d' % (o, ax, last), o, [a], {'axis': ax, 'keepdims': last, 'select_last_index': last})
    case(G, o + '_default', o, [rng.integers(0, 5, (3, 4)).astype(np.int32)])
    case(G, o + '_3d', o, [f(2, 3, 4)], {'axis': 1, 'keepdims': 0})
    nan = S([1, np.nan, 7, np.nan], np.float32)
    case(G, o + '_nan', o, [nan], want=[i64(1)])
    case(G, o + '_uint8', o, [S([3, 9, 1], np.uint8)])

# ------------------------------------------------------------------ products, normalisation, losses, preprocessing
G = 'matmul_loss'
T = 1e-5
case(G, 'gemm', 'Gemm', [f(3, 4), f(4, 5)], tol=T)
case(G, 'gemm_all', 'Gemm', [f(4, 3), f(5, 4), f(1, 5)], {'alpha': 0.25, 'beta': 0.35, 'transA': 1, 'transB': 1}, tol=T)
case(G, 'gemm_transA', 'Gemm', [f(6, 3), f(6, 4), f(3, 1)], {'transA': 1}, tol=T)
case(G, 'gemm_transB', 'Gemm', [f(3, 6), f(4, 6), f(3, 4)], {'transB': 1}, tol=T)
case(G, 'gemm_scalar_bias', 'Gemm', [f(2, 7), f(7, 4), S(3.14, np.float32)], tol=T)
case(G, 'gemm_vector_bias', 'Gemm', [f(2, 7), f(7, 4), f(4)], tol=T)
for M, N, K in ((1, 1, 1), (1, 17, 33), (37, 1, 5), (7, 35, 20)):
    A, B = f(M, K), f(K, N)
    case(G, 'gemm_%dx%dx%d' % (M, N, K), 'Gemm', [A, B], tol=3e-5)
A, B, C = d(4, 35), d(9, 35), d(9)
case(G, 'gemm_double', 'Gemm', [A, B, C], {'transB': 1}, want=[A @ B.T + C], tol=1e-12)
A, B = rng.integers(-9, 9, (3, 4)).astype(np.int32), rng.integers(-9, 9, (4, 2)).astype(np.int32)
case(G, 'gemm_int32', 'Gemm', [A, B, S([1, -1], np.int32)], {'alpha': -2.0}, want=[-2 * (A @ B) + S([1, -1], np.int32)])
case(G, 'gemm_no_k', 'Gemm', [np.zeros((2, 0), np.float32), np.zeros((0, 3), np.float32), f(3)], {'beta': 2.0}, prefer='ref')
case(G, 'gemm_no_k_no_c', 'Gemm', [np.zeros((2, 0), np.float32), np.zeros((0, 3), np.float32)], want=[np.zeros((2, 3), np.float32)])
case(G, 'gemm_no_rows', 'Gemm', [np.zeros((0, 4), np.float32), f(4, 3)])
for n, a, b in (('2d', (3, 4), (4, 3)), ('3d', (2, 3, 4), (2, 4, 3)), ('4d', (1, 2, 3, 4), (1, 2, 4, 3)), ('1d_1d', (3,), (3,)), ('1d_2d', (3,), (3, 2)), ('2d_1d', (2, 3), (3,)),
                ('1d_3d', (4,), (2, 4, 3)), ('3d_1d', (2, 3, 4), (4,)), ('batch_both', (2, 1, 3, 4), (3, 4, 2)), ('left_batch', (5, 3, 4), (4, 2)), ('right_batch', (3, 4), (5, 4, 2)),
                ('empty_k', (2, 0), (0, 3)), ('empty_batch', (0, 2, 3), (3, 4))):
    A, B = f(*a), f(*b)
    case(G, 'mat_mul_' + n, 'MatMul', [A, B], tol=T, want=[np.matmul(A, B)])
A, B = rng.integers(-2**31, 2**31, (3, 4)).astype(np.int64), rng.integers(-2**31, 2**31, (4, 2)).astype(np.int64)
case(G, 'mat_mul_int64', 'MatMul', [A, B], want=[A @ B])
case(G, 'mat_mul_uint32', 'MatMul', [A.astype(np.uint32), B.astype(np.uint32)], want=[A.astype(np.uint32) @ B.astype(np.uint32)])
A, B = d(2, 3, 4), d(4, 5)
case(G, 'mat_mul_double', 'MatMul', [A, B], want=[A @ B], tol=1e-12)
erf = np.vectorize(math.erf)
ACT = {'': lambda v: v, 'Relu': lambda v: np.maximum(v, 0), 'Sigmoid': lambda v: 1 / (1 + np.exp(-v)), 'Tanh': np.tanh, 'LeakyRelu': lambda v: np.where(v < 0, 0.1 * v, v),
       'Elu': lambda v: np.where(v < 0, np.exp(v) - 1, v), 'Softplus': lambda v: np.log1p(np.exp(v)), 'Gelu': lambda v: 0.5 * v * (1 + erf(v / math.sqrt(2))),
       'Selu': lambda v: 1.0507009873554805 * np.where(v < 0, 1.6732632423543772 * (np.exp(v) - 1), v)}
for a, fn in ACT.items():
    X, W, b = f(5, 7), f(7, 9), f(9)
    at = {'activation': a}
    if a == 'LeakyRelu': at['alpha'] = 0.1
    case(G, 'dense_' + (a or 'none'), 'Dense', [X, W, b], at, domain='mlserve', want=[fn(X.astype('f8') @ W.astype('f8') + b).astype('f4')], tol=T)
X, W = f(2, 3, 7), f(9, 7)
case(G, 'dense_3d_transposed', 'Dense', [X, W], {'transB': 1}, domain='mlserve', want=[(X.astype('f8') @ W.T.astype('f8')).astype('f4')], tol=T)

def bn(X, s, b, m, v, eps, training, mom):
    sh = (1, -1) + (1,) * (X.ndim - 2)
    X8 = X.astype('f8'); ax = tuple(a for a in range(X.ndim) if a != 1)
    outs = []
    if training:
        bm, bv = X8.mean(ax), X8.var(ax)
        outs = [m * mom + bm * (1 - mom), v * mom + bv * (1 - mom)]
        m, v = bm, bv
    return [z.astype(X.dtype) for z in [(X8 - m.reshape(sh)) / np.sqrt(v.reshape(sh) + eps) * s.reshape(sh) + b.reshape(sh)] + outs]
for n, sh in (('2d', (5, 3)), ('4d', (2, 3, 2, 2))):
    X, s, b, m, v = f(*sh), f(3), f(3), f(3), np.abs(f(3)) + np.float32(0.1)
    case(G, 'batch_normalization_' + n, 'BatchNormalization', [X, s, b, m, v], {'epsilon': 0.01}, tol=T)
    case(G, 'batch_normalization_training_' + n, 'BatchNormalization', [X, s, b, m, v], {'training_mode': 1, 'momentum': 0.8}, n_out=3, tol=T, want=bn(X, s, b, m, v, 1e-5, True, 0.8))
case(G, 'batch_normalization_double', 'BatchNormalization', [d(4, 2), d(2), d(2), d(2), np.abs(d(2))], prefer='ref', tol=1e-7)
for ax in (-1, 1, 0, -2):
    X = f(2, 3, 4)
    case(G, 'layer_normalization_%d' % ax, 'LayerNormalization', [X, f(*X.shape[ax:]), f(*X.shape[ax:])], {'axis': ax}, n_out=3, tol=T)
case(G, 'layer_normalization_no_bias', 'LayerNormalization', [f(3, 19), f(19)], {'epsilon': 0.1}, tol=T)
X, s = f(2, 3, 4), f(4)
m = X.astype('f8').mean((1, 2), keepdims=True); v = X.astype('f8').var((1, 2), keepdims=True)
case(G, 'layer_normalization_spread', 'LayerNormalization', [X, s, f(1)[:1] * 0 + np.float32(2)], {'axis': 1}, tol=T, want=[((X - m) / np.sqrt(v + 1e-5) * s + 2).astype('f4')])

for red in ('mean', 'sum', 'none'):
    for n, sh in (('', (5, 4)), ('_3d', (3, 5, 2)), ('_4d', (2, 3, 2, 3))):
        lab = rng.integers(0, sh[1], (sh[0],) + sh[2:]).astype(np.int64)
        w = np.abs(f(sh[1])) + np.float32(0.1)
        X = f(*sh)
        LP = (X - np.log(np.exp(X.astype('f8')).sum(1, keepdims=True))).astype('f4')
        case(G, 'softmax_ce_%s%s' % (red, n), 'SoftmaxCrossEntropyLoss', [X, lab], {'reduction': red}, tol=T)
        case(G, 'softmax_ce_%s_weights_log%s' % (red, n), 'SoftmaxCrossEntropyLoss', [X, lab, w], {'reduction': red, 'ignore_index': 1}, n_out=2, tol=T)
        case(G, 'nll_%s%s' % (red, n), 'NegativeLogLikelihoodLoss', [LP, lab.astype(np.int32)], {'reduction': red}, tol=T, prefer='ref')
        case(G, 'nll_%s_weights%s' % (red, n), 'NegativeLogLikelihoodLoss', [LP, lab, w], {'reduction': red, 'ignore_index': 0}, tol=T)
X = d(3, 4)
LP = X - np.log(np.exp(X).sum(1, keepdims=True))
case(G, 'softmax_ce_double', 'SoftmaxCrossEntropyLoss', [X, i64(0, 3, 2)], want=[-(LP[0, 0] + LP[1, 3] + LP[2, 2]) / 3], tol=1e-12)
case(G, 'softmax_ce_large', 'SoftmaxCrossEntropyLoss', [S([[1000, 0, -1000]], np.float32), i64(1)], want=[S(1000, np.float32)])
lab = i64(0, -1, 3)
case(G, 'softmax_ce_ignore_outside', 'SoftmaxCrossEntropyLoss', [X.astype('f4'), lab], {'ignore_index': -1}, want=[S(-(LP[0, 0] + LP[2, 3]) / 2, np.float32)], tol=T)
P = np.exp(LP); onehot = np.zeros((3, 4)); onehot[0, 0] = onehot[2, 3] = 1
case(G, 'softmax_ce_grad', 'SoftmaxCrossEntropyGrad', [X.astype('f4'), lab, S(0.5, np.float32)], {'ignore_index': -1}, domain='mlserve', tol=T,
     want=[((P - onehot) * S([[1], [0], [1]]) * 0.5 / 2).astype('f4')])

def mean(l, w): return l.mean() if w is None else (l * w.reshape((-1,) + (1,) * (l.ndim - 1))).sum() / l.size
def losses(p, t):
    e = p - t; c = np.clip(p, 1e-7, 1 - 1e-7)
    return {'SquaredError': (e**2, 2 * e), 'AbsoluteError': (np.abs(e), np.sign(e)),
            'HuberLoss': (np.where(np.abs(e) <= 0.5, e**2 / 2, 0.5 * (np.abs(e) - 0.25)), np.clip(e, -0.5, 0.5)),
            'BinaryCrossEntropy': (-(t * np.log(c) + (1 - t) * np.log(1 - c)), np.where((p >= 1e-7) & (p <= 1 - 1e-7), (c - t) / (c * (1 - c)), 0)),
            'SigmoidCrossEntropy': (np.maximum(p, 0) - p * t + np.log1p(np.exp(-np.abs(p))), 1 / (1 + np.exp(-p)) - t)}
for name in ('SquaredError', 'AbsoluteError', 'HuberLoss', 'BinaryCrossEntropy', 'SigmoidCrossEntropy'):
    for kind, dt, tol in (('float', np.float32, T), ('double', np.float64, 1e-12)):
        for weighted in (False, True):
            p, t = d(11, 3), d(11, 3)
            if name == 'BinaryCrossEntropy': p, t = rng.uniform(0.05, 0.95, (11, 3)).round(3), (t > 0).astype('f8'); p[0] = [0, 1, 1]; t[0] = [1, 1, 0]
            if name == 'SigmoidCrossEntropy': p, t = p * 20, (t > 0).astype('f8')
            p, t = p.astype(dt), t.astype(dt)
            w = rng.uniform(0, 2, 11).round(3).astype(dt) if weighted else None
            pp = p.astype('f8')
            l, g = losses(pp, t.astype('f8'))[name]
            if name == 'BinaryCrossEntropy' and dt == np.float32:  # clipping happens in the type of the data
                c = np.clip(p, np.float32(1e-7), np.float32(1 - 1e-7)).astype('f8'); l = -(t * np.log(c) + (1 - t) * np.log(1 - c))
            at = {'delta': 0.5} if name == 'HuberLoss' else {}
            extra = [w] if weighted else []
            tag = '%s_%s%s' % (name, kind, '_weighted' if weighted else '')
            case(G, tag, name, [p, t] + extra, at, domain='mlserve', want=[S(mean(l, w)).astype(dt)], tol=tol)
            wr = 1 if w is None else w.reshape(-1, 1)
            gop = 'SigmoidCrossEntropyGrad' if name == 'SigmoidCrossEntropy' else 'PointwiseLossGrad'
            gat = {} if name == 'SigmoidCrossEntropy' else dict(at, loss=name)
            case(G, tag + '_grad', gop, [p, t, S(0.25, dt)] + extra, gat, domain='mlserve', want=[(0.25 * wr * g / l.size).astype(dt)], tol=tol)

M = 'ai.onnx.ml'
X = S([[1, np.nan, 3], [np.nan, 5, -1]], np.float32)
case(G, 'imputer_nan', 'Imputer', [X], {'imputed_value_floats': [10.0, 20.0, 30.0], 'replaced_value_float': float('nan')}, domain=M)
case(G, 'imputer_one', 'Imputer', [X], {'imputed_value_floats': [7.5], 'replaced_value_float': 3.0}, domain=M)
case(G, 'imputer_int', 'Imputer', [S([[1, 0], [0, 4]], np.int64)], {'imputed_value_int64s': [8, 9], 'replaced_value_int64': 0}, domain=M)
case(G, 'imputer_double', 'Imputer', [X.astype('f8')], {'imputed_value_floats': [1.5], 'replaced_value_float': float('nan')}, domain=M, want=[np.nan_to_num(X.astype('f8'), nan=1.5)])
Z = f(6, 3); sk = StandardScaler().fit(Z)
case(G, 'scaler', 'Scaler', [Z], {'offset': [float(q) for q in sk.mean_], 'scale': [float(1 / q) for q in sk.scale_]}, domain=M, want=[sk.transform(Z).astype('f4')], tol=T)
case(G, 'scaler_one', 'Scaler', [S([[1, 2], [3, 4]], np.int64)], {'offset': [1.0], 'scale': [0.5]}, domain=M)
case(G, 'scaler_double', 'Scaler', [d(2, 2)], {'offset': [1.0, -1.0], 'scale': [0.5, 2.0]}, domain=M, tol=1e-6)
for norm in ('MAX', 'L1', 'L2'):
    Z = np.abs(f(3, 4)); Z[1] = 0
    case(G, 'normalizer_' + norm, 'Normalizer', [Z], {'norm': norm}, domain=M, tol=T)
    Z = f(3, 4)
    case(G, 'normalizer_signed_' + norm, 'Normalizer', [Z], {'norm': norm}, domain=M, tol=T, want=[SkNormalizer(norm.lower()).transform(Z)])
case(G, 'normalizer_int', 'Normalizer', [S([[3, 4]], np.int64)], {'norm': 'L2'}, domain=M, tol=T)
case(G, 'binarizer', 'Binarizer', [f(3, 4)], {'threshold': 0.25}, domain=M)
case(G, 'binarizer_int', 'Binarizer', [S([-1, 0, 1, 2], np.int64)], {'threshold': 0.5}, domain=M, want=[i64(0, 0, 1, 1)])
case(G, 'one_hot_encoder_int', 'OneHotEncoder', [S([[3, 1], [2, 9]], np.int64)], {'cats_int64s': [1, 2, 3]}, domain=M)
case(G, 'one_hot_encoder_float', 'OneHotEncoder', [S([3, 1.0, 7], np.float32)], {'cats_int64s': [1, 2, 3], 'zeros': 1}, domain=M)
case(G, 'one_hot_encoder_string', 'OneHotEncoder', [S(['b', 'a', 'zz'], dtype=object)], {'cats_strings': ['a', 'b', 'c']}, domain=M)
strs, ints, flts = ['a', 'bc', 'd'], [1, -5, 7], [0.5, -2.0, 3.25]
xs = {'strings': S([['bc', 'x'], ['a', 'd']], dtype=object), 'int64s': S([[7, 8], [1, -5]], np.int64), 'floats': S([[3.25, 9], [0.5, -2]], np.float32)}
vals = {'strings': strs, 'int64s': ints, 'floats': flts}
default = {'strings': ('default_string', 'none'), 'int64s': ('default_int64', 42), 'floats': ('default_float', 0.125)}
for k in xs:
    for v in vals:
        case(G, 'label_encoder_%s_%s' % (k, v), 'LabelEncoder', [xs[k]], {'keys_' + k: vals[k], 'values_' + v: vals[v], default[v][0]: default[v][1]}, domain=M)
case(G, 'label_encoder_defaults', 'LabelEncoder', [xs['int64s']], {'keys_int64s': ints, 'values_strings': strs}, domain=M)
case(G, 'label_encoder_nan', 'LabelEncoder', [S([np.nan, -0.0, 1], np.float32)], {'keys_floats': [float('nan'), 0.0], 'values_int64s': [5, 6], 'default_int64': 0}, domain=M)
case(G, 'label_encoder_tensor', 'LabelEncoder', [S([2.5, 0.1, 7])], {'keys_tensor': S([0.1, 2.5]), 'values_tensor': S([11, 12], np.int64), 'default_tensor': S([-7], np.int64)}, domain=M)
case(G, 'label_encoder_tensor_int16', 'LabelEncoder', [S(['q', 'w'], dtype=object)], {'keys_tensor': S(['w'], dtype=object), 'values_tensor': S([3], np.int16), 'default_tensor': S([-3], np.int16)}, domain=M,
     want=[S([-3, 3], np.int16)])

here = os.path.dirname(os.path.abspath(__file__))
for name, g in groups.items():
    with open(os.path.join(here, 'ops_%s.h' % name), 'w') as out:
        out.write('/* Made by make_ops_onnx.py (onnx %s, onnxruntime %s, numpy %s); do not edit. */\n' % (onnx.__version__, ort.__version__, np.__version__))
        out.write('\n'.join(g.data) + '\n\nstatic const op_case cases[] = {\n' + '\n'.join(g.cases) + '\n};\n')
    print(name, len(g.cases), 'cases')
