"""Writes spec/golden/cnn: one-node models of convolution, pooling, image and normalisation operators, in the layout of ONNX's own test data.
Expected values come from ONNX Runtime, or from ONNX's reference evaluator where the runtime lacks the operator or reads the specification
differently (REFERENCE); never from mlserve. Run: python3 spec/golden/make_cnn.py (needs onnx, onnxruntime, numpy)."""
import os
import shutil

import numpy as np
import onnxruntime
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cnn")
REFERENCE = {"AffineGrid", "CenterCropPad", "Col2Im", "DeformConv", "GroupNormalization", "LpPool", "MeanVarianceNormalization",
             "RMSNormalization"}
rng = np.random.default_rng(5)


def floats(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def infos(prefix, arrays):
    return [helper.make_tensor_value_info(f"{prefix}{i}", helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for i, a in enumerate(arrays)
            if a is not None]


def case(name, op, inputs, opset=17, outputs=1, reference=False, **attributes):
    names = ["" if a is None else f"x{i}" for i, a in enumerate(inputs)]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, **attributes)
    feed = {n: a for n, a in zip(names, inputs) if n}
    opsets = [helper.make_opsetid("", opset)]
    graph = helper.make_graph([node], "golden", infos("x", inputs), [helper.make_empty_tensor_value_info(r) for r in results])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="golden")
    if reference or op in REFERENCE:
        expected = ReferenceEvaluator(model).run(None, feed)
    else:
        model = shape_inference.infer_shapes(model)
        expected = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)
    graph = helper.make_graph([node], "golden", infos("x", inputs), infos("y", expected))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="golden")
    data = os.path.join(ROOT, name, "test_data_set_0")
    os.makedirs(data)
    with open(os.path.join(ROOT, name, "model.onnx"), "wb") as f:
        f.write(model.SerializeToString())
    for kind, arrays, prefix in (("input", list(feed.values()), list(feed)), ("output", expected, results)):
        for i, (array, value_name) in enumerate(zip(arrays, prefix)):
            with open(os.path.join(data, f"{kind}_{i}.pb"), "wb") as f:
                f.write(numpy_helper.from_array(np.asarray(array), value_name).SerializeToString())


def convolution():
    case("conv_2d", "Conv", [floats(2, 3, 7, 6), floats(4, 3, 3, 2), floats(4)], pads=[1, 0, 2, 1], strides=[2, 1])
    case("conv_1d_groups_dilated", "Conv", [floats(2, 6, 11), floats(4, 3, 3)], group=2, dilations=[2], pads=[3, 0])
    case("conv_3d", "Conv", [floats(1, 2, 4, 5, 4), floats(3, 2, 2, 3, 2), floats(3)], auto_pad="SAME_LOWER")
    case("conv_depthwise", "Conv", [floats(1, 4, 9, 40), floats(4, 1, 3, 3), floats(4)], group=4, pads=[1, 1, 1, 1])
    case("conv_depthwise_stride", "Conv", [floats(1, 3, 9, 41), floats(6, 1, 3, 5)], group=3, pads=[1, 2, 1, 2], strides=[2, 2])
    case("conv_1x1", "Conv", [floats(2, 5, 3, 4), floats(3, 5, 1, 1), floats(3)])
    case("conv_1x1_stride", "Conv", [floats(2, 5, 5, 4), floats(3, 5, 1, 1)], strides=[2, 3])
    case("conv_transpose_2d", "ConvTranspose", [floats(1, 3, 4, 3), floats(3, 2, 3, 2), floats(2)], strides=[2, 3], pads=[1, 0, 0, 1],
         output_padding=[1, 2])
    case("conv_transpose_groups", "ConvTranspose", [floats(2, 4, 6), floats(4, 3, 3)], group=2, dilations=[2])
    case("conv_transpose_shape", "ConvTranspose", [floats(1, 2, 3, 3), floats(2, 2, 3, 3)], strides=[2, 2], output_shape=[6, 6])
    case("deform_conv", "DeformConv", [floats(1, 2, 5, 5), floats(3, 2, 2, 2), floats(1, 16, 4, 4), floats(3), floats(1, 8, 4, 4)], opset=19,
         offset_group=2, kernel_shape=[2, 2], pads=[0, 0, 0, 0], strides=[1, 1], dilations=[1, 1], group=1)
    case("col2im", "Col2Im", [floats(2, 8, 12), ints(4, 5), ints(2, 2)], opset=18)


def pooling():
    x = floats(2, 3, 7, 6)
    for kind, extra in (("MaxPool", {"dilations": [2, 1]}), ("AveragePool", {"count_include_pad": 1})):
        name = kind.lower()
        case(f"{name}_pads", kind, [x], kernel_shape=[3, 2], pads=[1, 0, 2, 1], strides=[2, 1])
        case(f"{name}_extra", kind, [x], kernel_shape=[2, 3], pads=[1, 1, 0, 1], strides=[1, 2], **extra)
        case(f"{name}_ceil", kind, [floats(1, 2, 8)], kernel_shape=[3], strides=[2], ceil_mode=1)
        case(f"{name}_same", kind, [x], kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[2, 2])
    case("maxpool_indices", "MaxPool", [x], outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    case("maxpool_uint8", "MaxPool", [rng.integers(0, 255, (1, 2, 5, 5)).astype(np.uint8)], kernel_shape=[2, 2])
    case("lppool", "LpPool", [x], kernel_shape=[2, 3], strides=[2, 2], pads=[1, 0, 0, 1], p=3)
    case("globalaveragepool", "GlobalAveragePool", [x])
    case("globalmaxpool", "GlobalMaxPool", [x])
    case("globallppool", "GlobalLpPool", [x], p=3)
    case("maxunpool", "MaxUnpool", [floats(1, 1, 2, 2), ints(5, 7, 13, 15).reshape(1, 1, 2, 2), ints(1, 1, 5, 5)], kernel_shape=[2, 2],
         strides=[2, 2], reference=True)


def images():
    x = floats(1, 2, 5, 4)
    none = [None, None]
    for mode in ("constant", "edge", "reflect"):
        case(f"pad_{mode}", "Pad", [x, ints(0, 0, 2, 1, 0, 1, 1, 2)], mode=mode)
    case("pad_negative_axes", "Pad", [x, ints(-1, 1, 2, -2), np.array(7, np.float32), ints(2, -1)], opset=18)
    case("pad_wrap", "Pad", [x, ints(0, 0, 2, 1, 0, 0, 1, 2)], opset=19, mode="wrap")
    case("pad_2", "Pad", [x], opset=10, mode="constant", pads=[0, 0, 1, 0, 0, 0, 0, 2], value=1.5)
    for mode in ("nearest", "linear", "cubic"):
        case(f"resize_{mode}_scales", "Resize", [x, None, np.array([1, 1, 1.6, 2.5], np.float32)], mode=mode, reference=True)
        case(f"resize_{mode}_sizes", "Resize", [x, *none, ints(1, 2, 3, 7)], mode=mode, coordinate_transformation_mode="align_corners")
        case(f"resize_{mode}_asymmetric", "Resize", [x, *none, ints(1, 2, 8, 3)], mode=mode, coordinate_transformation_mode="asymmetric")
    case("resize_crop", "Resize", [x, np.array([0, 0, 0.2, 0.4, 1, 1, 1.3, 0.9], np.float32), None, ints(1, 2, 4, 5)], mode="linear",
         coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=9.0)
    case("resize_antialias", "Resize", [x, *none, ints(3, 2)], opset=18, mode="cubic", antialias=1, axes=[2, 3], reference=True)
    case("resize_not_larger", "Resize", [x, *none, ints(9, 9)], opset=18, axes=[2, 3], keep_aspect_ratio_policy="not_larger")
    case("resize_10", "Resize", [x, np.array([1, 1, 2, 0.5], np.float32)], opset=10, mode="nearest")
    case("upsample_9", "Upsample", [x, np.array([1, 1, 2, 3], np.float32)], opset=9, mode="linear")
    case("upsample_7", "Upsample", [x], opset=7, mode="nearest", scales=[1.0, 1.0, 2.0, 3.0])
    case("depthtospace_dcr", "DepthToSpace", [floats(1, 8, 2, 3)], blocksize=2)
    case("depthtospace_crd", "DepthToSpace", [floats(1, 8, 2, 3)], blocksize=2, mode="CRD")
    case("spacetodepth", "SpaceToDepth", [floats(2, 3, 4, 6)], blocksize=2)
    case("centercroppad", "CenterCropPad", [floats(5, 4, 3), ints(2, 7)], opset=18, axes=[0, 2])
    case("affinegrid", "AffineGrid", [floats(2, 2, 3), ints(2, 1, 3, 4)], opset=20, align_corners=1)
    grid = rng.uniform(-1.4, 1.4, (1, 3, 5, 2)).astype(np.float32)
    for mode, padding in (("bilinear", "zeros"), ("nearest", "border"), ("bicubic", "reflection"), ("bilinear", "reflection")):
        case(f"gridsample_{mode}_{padding}", "GridSample", [x, grid], mode=mode, padding_mode=padding, align_corners=int(mode == "bilinear"))
    rois = np.array([[0, 0, 6, 5], [1, 2, 3, 9], [4, 1, 9, 8]], np.float32)
    for version in (10, 16):
        case(f"roialign_{version}", "RoiAlign", [floats(2, 2, 8, 9), rois, ints(0, 1, 0)], opset=version, output_height=3, output_width=2,
             sampling_ratio=2, spatial_scale=0.8)
    case("nonmaxsuppression", "NonMaxSuppression", [rng.uniform(0, 1, (2, 10, 4)).astype(np.float32), rng.uniform(0, 1, (2, 2, 10)).astype(np.float32),
                                                    ints(6), np.array([0.3], np.float32), np.array([0.2], np.float32)])


def others():
    x = floats(2, 6, 3, 4)
    case("instancenormalization", "InstanceNormalization", [x, floats(6), floats(6)], epsilon=0.01)
    case("groupnormalization", "GroupNormalization", [x, floats(6), floats(6)], opset=21, num_groups=3, epsilon=0.01)
    case("rmsnormalization", "RMSNormalization", [x, floats(3, 4)], opset=23, axis=2, epsilon=0.01)
    case("meanvariancenormalization", "MeanVarianceNormalization", [x])
    case("lpnormalization_1", "LpNormalization", [x], axis=1, p=1)
    case("lpnormalization_2", "LpNormalization", [x], axis=-1)
    case("lrn", "LRN", [x], size=5, alpha=0.3, beta=0.6, bias=1.5)
    case("hardmax_11", "Hardmax", [x], opset=11)
    case("hardmax_13", "Hardmax", [x], axis=1)
    case("det", "Det", [floats(2, 3, 4, 4)])
    for i, (equation, *shapes) in enumerate((("bij,bjk->bik", (3, 4, 5), (3, 5, 6)), ("...ij,...kj", (2, 1, 3, 4), (2, 5, 2, 4)), ("ii->i", (4, 4)),
                                             ("ab,cd,bc->ad", (2, 3), (4, 5), (3, 4)), ("bhwc,hkc->bhwk", (2, 3, 4, 5), (3, 6, 5)))):
        case(f"einsum_{i}", "Einsum", [floats(*s) for s in shapes], equation=equation)


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    convolution()
    pooling()
    images()
    others()


if __name__ == "__main__":
    main()
