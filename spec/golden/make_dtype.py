#!/usr/bin/env python3
"""Writes dtype/: for every element type of less than 16 bits one case in the layout of ONNX's backend tests, for spec/dtype_spec.lua.

Expected values are those of ONNX's reference evaluator, that is of ml_dtypes and of onnx.numpy_helper; casts are compared with ml_dtypes directly
before they are written. Casts to a type go through every number between two neighbours where rounding turns, and its neighbours in float32.
Needs: numpy, onnx >= 1.23, ml_dtypes. Run: python3 make_dtype.py
"""
import os, shutil
import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto as P, helper as h, numpy_helper as nh
from onnx.reference import ReferenceEvaluator

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'dtype')
TYPES = ['FLOAT8E4M3FN', 'FLOAT8E4M3FNUZ', 'FLOAT8E5M2', 'FLOAT8E5M2FNUZ', 'FLOAT8E8M0', 'FLOAT4E2M1', 'FLOAT6E2M3', 'FLOAT6E3M2', 'INT4', 'UINT4',
         'INT2', 'UINT2']
BITS = {'FLOAT4E2M1': 4, 'FLOAT6E2M3': 6, 'FLOAT6E3M2': 6, 'INT4': 4, 'UINT4': 4, 'INT2': 2, 'UINT2': 2}
f32 = np.float32


def codes(dtype, bits):
    """Every element once, and the first again: an odd number of them leaves the last byte of a packed tensor half empty."""
    all_of = np.arange(2 ** bits, dtype=np.uint8)
    if np.dtype(dtype).name.startswith('int'):
        all_of = np.where(all_of >= 2 ** (bits - 1), all_of.astype(np.int16) - 2 ** bits, all_of).astype(np.int8).view(np.uint8)
    return np.append(all_of, all_of[:1]).view(dtype)


def turning_points(dtype, bits, name):
    values = codes(dtype, bits)[:-1].astype(np.float64)
    values = np.unique(values[np.isfinite(values)])
    middle = ((values[1:] + values[:-1]) / 2).astype(f32)
    x = np.concatenate([values.astype(f32), np.nextafter(middle, f32(-np.inf)), middle, np.nextafter(middle, f32(np.inf))])
    if name == 'FLOAT8E8M0':  # below float32's normal numbers numpy_helper looks at bits only; infinity and zero: see the spec
        return x[(x >= f32(2 ** -126)) & np.isfinite(x)]
    if name.startswith('FLOAT'):
        top = float(values[-1])
        more = [0.0, -0.0, top * 1.03, top * 1.0625, top * 1.07, top * 1.14, top * 1.2, top * 2, np.inf, np.nan, 1e-30, 3e38]
        return np.concatenate([x, np.array(more + [-v for v in more], f32)])
    return np.concatenate([x, np.arange(-20, 21, dtype=f32)])


def typed(name, dtype, values, bits):
    """The same tensor in int32_data."""
    t = P(name=name, data_type=getattr(P, dtype), dims=values.shape)
    raw = values.view(np.uint8)
    if bits in (2, 4):
        raw = (nh._pack_4bitx2 if bits == 4 else nh._pack_2bitx4)(values).view(np.uint8)
    t.int32_data.extend(int(v) for v in raw.ravel())
    return t


def case(name):
    number, bits = getattr(P, name), BITS.get(name, 8)
    dtype = h.tensor_dtype_to_np_dtype(number)
    y = codes(dtype, bits)
    x = turning_points(dtype, bits, name)
    matrix = np.random.default_rng(7).normal(0, 40, (4, 6)).astype(f32)
    scale, blocks = np.array([0.5, 2, 1, 4, 8, 0.25], f32), np.linspace(0.5, 9, 8).astype(f32).reshape(4, 2)
    feeds = {'x': x, 'y': y}
    raw, int32 = nh.from_array(y, 'raw'), typed('typed', name, y, bits)
    nodes, outputs = [], []

    def add(op, inputs, made, shape, **attributes):
        outputs.append(h.make_tensor_value_info("out%d" % len(outputs), made, shape))
        nodes.append(h.make_node(op, inputs, [outputs[-1].name], **attributes))
    add('Cast', ['x'], number, x.shape, to=number)
    if name.startswith('FLOAT8'):
        add('Cast', ['x'], number, x.shape, to=number, saturate=0, round_mode='nearest' if name == 'FLOAT8E8M0' else 'up')
    if name == 'FLOAT8E8M0':
        add('Cast', ['x'], number, x.shape, to=number, round_mode='down')
    add('Cast', ['y'], P.FLOAT, y.shape, to=P.FLOAT)
    add('Cast', ['y'], P.BFLOAT16, y.shape, to=P.BFLOAT16)
    add('Cast', ['typed'], P.FLOAT, y.shape, to=P.FLOAT)
    add('Concat', ['y', 'raw'], number, [2 * y.size], axis=0)
    add('Gather', ['raw', 'index'], number, [2], axis=0)
    initializers = [raw, int32, nh.from_array(np.array([3, 1]), 'index')]
    if name != 'FLOAT8E8M0':
        feeds['matrix'] = matrix
        zero = (np.zeros(6) if name.startswith('FLOAT') else np.array([0, 1, 1, 0, 1, 0])).astype(dtype)
        quantised = matrix[:, ::-1].astype(np.int8).astype(dtype) if name.startswith(('INT', 'UINT')) else (matrix / 9).astype(dtype)
        initializers += [nh.from_array(scale, 'scale'), nh.from_array(blocks, 'blocks'), nh.from_array(zero, 'zero'),
                         nh.from_array(quantised, 'quantised')]
        add('QuantizeLinear', ['matrix', 'scale', 'zero'], number, matrix.shape, axis=1)
        add('QuantizeLinear', ['matrix', 'blocks'], number, matrix.shape, axis=1, block_size=3, output_dtype=number)
        add('DequantizeLinear', ['quantised', 'scale', 'zero'], P.FLOAT, matrix.shape, axis=1)
        add('DequantizeLinear', ['quantised', 'blocks'], P.FLOAT, matrix.shape, axis=1, block_size=3)
    inputs = [h.make_tensor_value_info(k, h.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in feeds.items()]
    graph = h.make_graph(nodes, 'dtype', inputs, outputs, initializers)
    model = h.make_model(graph, opset_imports=[h.make_opsetid('', 28 if 'FLOAT6' in name else 25)], producer_name='make_dtype')
    results = ReferenceEvaluator(model).run(None, feeds)
    direct = nh.to_float8e8m0(x) if name == 'FLOAT8E8M0' else nh.saturate_cast(x, dtype) if 'FLOAT8' in name else x.astype(dtype)
    assert np.array_equal(results[0].view(np.uint8), direct.view(np.uint8)), name
    path = os.path.join(HERE, name.lower())
    os.makedirs(os.path.join(path, 'test_data_set_0'))
    with open(os.path.join(path, 'model.onnx'), 'wb') as f:
        f.write(model.SerializeToString())
    for kind, tensors, names in (('input', feeds.values(), list(feeds)), ('output', results, [o.name for o in outputs])):
        for i, (value, tensor_name) in enumerate(zip(tensors, names)):
            with open(os.path.join(path, 'test_data_set_0', '%s_%d.pb' % (kind, i)), 'wb') as f:
                f.write(nh.from_array(value, tensor_name).SerializeToString())


shutil.rmtree(HERE, ignore_errors=True)
for each in TYPES:
    case(each)
