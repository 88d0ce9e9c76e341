"""Writes a residual network's graph with random weights: resnet.py 18 FILE (for 224 x 224 pixels, 46 MB) or resnet.py 20 FILE (CIFAR's, 1 MB).
Needs onnx and NumPy. Layers: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015, table 1 and section 4.2."""
import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

rng = np.random.default_rng(0)
nodes, weights = [], []


def weight(name, *shape):
    fan_in = int(np.prod(shape[1:])) or 1
    weights.append(numpy_helper.from_array((rng.standard_normal(shape) * (2 / fan_in) ** 0.5).astype(np.float32), name))
    return name


def node(op, inputs, output, **attributes):
    nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
    return output


def conv(x, name, n_in, n_out, kernel, stride):
    """Convolution with a bias, as exporters write it with BatchNormalization folded in."""
    return node("Conv", [x, weight(name + ".w", n_out, n_in, kernel, kernel), weight(name + ".b", n_out)], name,
                kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4)


def block(x, name, n_in, n_out, stride):
    y = node("Relu", [conv(x, name + ".1", n_in, n_out, 3, stride)], name + ".r1")
    y = conv(y, name + ".2", n_out, n_out, 3, 1)
    short = x if stride == 1 and n_in == n_out else conv(x, name + ".short", n_in, n_out, 1, stride)
    return node("Relu", [node("Add", [y, short], name + ".add")], name + ".out")


DEPTH = {18: dict(widths=[64, 128, 256, 512], blocks=2, size=224, classes=1000), 20: dict(widths=[16, 32, 64], blocks=3, size=32, classes=10)}
depth = int(sys.argv[1])
shape = DEPTH[depth]
channels = shape["widths"][0]
if depth == 18:
    x = node("Relu", [conv("x", "stem", 3, channels, 7, 2)], "stem.r")
    x = node("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
else:
    x = node("Relu", [conv("x", "stem", 3, channels, 3, 1)], "stem.r")
for stage, width in enumerate(shape["widths"]):
    for i in range(shape["blocks"]):
        x = block(x, f"stage{stage}.{i}", channels, width, 2 if stage > 0 and i == 0 else 1)
        channels = width
x = node("Flatten", [node("GlobalAveragePool", [x], "mean")], "features")
node("Gemm", [x, weight("fc.w", shape["classes"], channels), weight("fc.b", shape["classes"])], "y", transB=1)
graph = helper.make_graph(nodes, f"resnet{depth}",
                          [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, shape["size"], shape["size"]])],
                          [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", shape["classes"]])], weights)
save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), sys.argv[2])
