"""Writes spec/golden/newops: models of the newest operators, of the training domain and of old operator forms, in the layout of ONNX's own test
data. Expected values come from ONNX's reference evaluator, from ONNX Runtime (RUNTIME) or, for Gradient, from derivatives worked out by hand in
NumPy; never from mlserve. Run: python3 spec/golden/make_newops.py (needs onnx 1.23, onnxruntime, numpy)."""
import os
import shutil

import numpy as np
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "newops")
PREVIEW, TRAINING = "ai.onnx.preview", "ai.onnx.preview.training"
RUNTIME = {"MaxRoiPool"}
rng = np.random.default_rng(7)


def floats(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def positive(*shape):
    return rng.uniform(0.1, 1.5, shape).astype(np.float32)


def infos(names, arrays):
    return [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in zip(names, arrays)]


def write(name, model, feed, results, expected):
    data = os.path.join(ROOT, name, "test_data_set_0")
    os.makedirs(data)
    with open(os.path.join(ROOT, name, "model.onnx"), "wb") as f:
        f.write(model.SerializeToString())
    for kind, arrays, names in (("input", list(feed.values()), list(feed)), ("output", expected, results)):
        for i, (array, value_name) in enumerate(zip(arrays, names)):
            with open(os.path.join(data, f"{kind}_{i}.pb"), "wb") as f:
                f.write(numpy_helper.from_array(np.asarray(array), value_name).SerializeToString())


def case(name, op, inputs, opset=28, outputs=1, domain="", expected=None, **attributes):
    names = ["" if a is None else f"x{i}" for i, a in enumerate(inputs)]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, domain=domain, **attributes)
    feed = {n: a for n, a in zip(names, inputs) if n}
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])

    def model(out):
        return helper.make_model(helper.make_graph([node], "golden", infos(feed, feed.values()), out), opset_imports=opsets, ir_version=8,
                                 producer_name="golden")
    if expected is None:
        whole = model([helper.make_empty_tensor_value_info(r) for r in results])
        if op in RUNTIME:
            whole = model([helper.make_tensor_value_info(r, 1, None) for r in results])
            session = onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
            expected = session.run(None, feed)
        else:
            expected = ReferenceEvaluator(whole).run(None, feed)
    write(name, model(infos(results, expected)), feed, results, expected)


def activations():
    case("swiglu", "SwiGLU", [floats(3, 700), floats(3, 700)], alpha=1.7)
    case("swiglu_double", "SwiGLU", [floats(2, 3).astype(np.float64), floats(2, 3).astype(np.float64)])
    case("mod_0", "Mod", [np.array([5, -5, 5, -5, 0, -0.0, 3, -3, 6.5], np.float32), np.array([3, 3, -3, -3, -2, 2, np.inf, np.inf, -0.5], np.float32)])


def images():
    rois = np.array([[0, 0, 0, 6, 5], [1, 2, 3, 3, 9], [1, 5, 7, 2, 1], [0, 30, 30, 40, 40], [1, -4, 1.4, 3.6, 30]], np.float32)
    case("maxroipool", "MaxRoiPool", [floats(2, 3, 8, 9), rois], opset=11, pooled_shape=[3, 2], spatial_scale=0.8)


def transformers():
    q, k, v = (floats(2, 5, n) for n in (24, 12, 10))
    decay, beta, past = -positive(2, 5, 2), positive(2, 5, 2), floats(2, 2, 6, 5)
    case("linearattention_linear", "LinearAttention", [q, k, v], outputs=2, q_num_heads=4, kv_num_heads=2, update_rule="linear", scale=0.3)
    case("linearattention_gated", "LinearAttention", [q, k, v, past, -positive(2, 5, 12)], outputs=2, q_num_heads=4, kv_num_heads=2,
         update_rule="gated")
    case("linearattention_delta", "LinearAttention", [q, k, v, past, None, positive(2, 5, 1)], outputs=2, q_num_heads=4, kv_num_heads=2,
         update_rule="delta")
    case("linearattention_gated_delta", "LinearAttention", [q, k, v, None, decay, beta], outputs=2, q_num_heads=4, kv_num_heads=2)
    case("causalconvwithstate", "CausalConvWithState", [floats(2, 3, 7), floats(3, 1, 4), floats(3), floats(2, 3, 3)], outputs=2, activation="silu")
    case("causalconvwithstate_short", "CausalConvWithState", [floats(2, 3, 2), floats(3, 1, 5), None, None], outputs=2)
    case("flexattention", "FlexAttention", [floats(2, 4, 5, 6), floats(2, 2, 7, 6), floats(2, 2, 7, 3)], domain=PREVIEW, scale=0.4)


def modifier(name, op, other, dtype):
    """The subgraph t -> op(t, other), `other` being a value of the graph around it."""
    shape = ["B", "H", "L", "S"]
    return helper.make_graph([helper.make_node(op, ["t", other], ["u"])], name, [helper.make_tensor_value_info("t", dtype, shape)],
                             [helper.make_tensor_value_info("u", dtype, shape)])


def modified_attention():
    """FlexAttention with modifiers that read values around them, worked out by hand: the evaluator gives them their formal input only."""
    for name, dtype in (("flexattention_modifiers", np.float32), ("flexattention_modifiers_double", np.float64)):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        feed = {"q": floats(2, 4, 3, 6), "k": floats(2, 2, 5, 6), "v": floats(2, 2, 5, 3), "bias": floats(4, 3, 5).astype(dtype),
                "factor": np.array(0.5, dtype)}
        node = helper.make_node("FlexAttention", ["q", "k", "v"], ["y"], domain=PREVIEW, score_mod=modifier("score", "Add", "bias", kind),
                                prob_mod=modifier("prob", "Mul", "factor", kind), softmax_precision=kind)
        k, v = (np.repeat(feed[n], 2, axis=1) for n in "kv")
        scores = feed["q"].astype(dtype) @ k.transpose(0, 1, 3, 2) / np.sqrt(6) + feed["bias"]
        probs = np.exp(scores - scores.max(-1, keepdims=True))
        y = (probs / probs.sum(-1, keepdims=True) * feed["factor"] @ v).astype(np.float32)
        graph = helper.make_graph([node], "golden", infos(feed, feed.values()), infos(["y"], [y]))
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(PREVIEW, 1)]
        write(name, helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="golden"), feed, ["y"], [y])


def optimisers():
    for dtype in (np.float32, np.float64):
        shapes = ((3, 2), (4,)) if dtype == np.float32 else ((3, 2),) # the evaluator gives float32 for several tensors
        n = len(shapes)
        kinds = [[floats(*s).astype(dtype) for s in shapes] for _ in range(3)] + [[positive(*s).astype(dtype) for s in shapes]]
        rate, count, kind = np.array(0.05, dtype), np.array(3, np.int64), np.dtype(dtype).name
        case(f"adam_{kind}", "Adam", [rate, count, *kinds[0], *kinds[1], *kinds[2], *kinds[3]], outputs=3 * n, domain=TRAINING, alpha=0.8, beta=0.95,
             epsilon=1e-3, norm_coefficient=0.01, norm_coefficient_post=0.02)
        case(f"adagrad_{kind}", "Adagrad", [rate, count, *kinds[0], *kinds[1], *kinds[3]], outputs=2 * n, domain=TRAINING, epsilon=1e-3,
             norm_coefficient=0.01, decay_factor=0.1)
        for mode in ("standard", "nesterov"):
            case(f"momentum_{mode}_{kind}", "Momentum", [rate, count, *kinds[0], *kinds[1], *kinds[2]], outputs=2 * n, domain=TRAINING, alpha=0.9,
                 beta=0.7, mode=mode, norm_coefficient=0.01)
    case("momentum_first", "Momentum", [np.array([0.1], np.float32), np.array(0, np.int64), floats(3), floats(3), floats(3)], outputs=2,
         domain=TRAINING, alpha=0.9, beta=0.7, mode="standard", norm_coefficient=0.0)


def gradient(name, nodes, feed, expected):
    """nodes: (op, inputs, outputs, attributes); expected: results by name, in order"""
    made = [helper.make_node(op, i, o, domain=TRAINING if op == "Gradient" else "", **attributes) for op, i, o, attributes in nodes]
    graph = helper.make_graph(made, "golden", infos(feed, feed.values()), infos(expected, expected.values()))
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(TRAINING, 1)]
    write(name, helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="golden"), feed, list(expected), list(expected.values()))


def gradients():
    x, w, z, other = floats(3, 4), floats(4, 2), floats(3, 4), floats(3, 4)
    layer = [("MatMul", ["x", "w"], ["p"], {}), ("Tanh", ["p"], ["y"], {})]
    slope = 1 - np.tanh(x @ w) ** 2
    gradient("gradient_layer", layer + [("Gradient", ["x", "w"], ["dx", "dw"], {"xs": ["x", "w"], "y": "y"})], {"x": x, "w": w},
             {"y": np.tanh(x @ w), "dx": slope @ w.T, "dw": x.T @ slope})
    slope = 1 - np.tanh(other @ w) ** 2
    gradient("gradient_other_value", layer + [("Gradient", ["other", "w"], ["", "dw"], {"xs": ["x", "w"], "y": "y"})],
             {"x": x, "w": w, "other": other}, {"y": np.tanh(x @ w), "dw": other.T @ slope})
    chain = [("Exp", ["x"], ["h"], {}), ("Mul", ["h", "z"], ["m"], {}), ("Mul", ["m", "h"], ["y"], {})]
    gradient("gradient_intermediate", chain + [("Gradient", ["h", "z"], ["dh", "dz"], {"xs": ["h", "z"], "y": "y"})], {"x": x, "z": z},
             {"dh": 2 * np.exp(x) * z, "dz": np.exp(2 * x)})
    gradient("gradient_zs", chain + [("Gradient", ["z", "h"], ["dz"], {"xs": ["z"], "zs": ["h"], "y": "y"})], {"x": x, "z": z},
             {"dz": np.exp(2 * x)})
    product = [("Exp", ["x"], ["h"], {}), ("Mul", ["x", "h"], ["y"], {})]
    gradient("gradient_dependent_names", product + [("Gradient", ["x", "h"], ["dx", "dh"], {"xs": ["x", "h"], "y": "y"})], {"x": x},
             {"dx": np.exp(x), "dh": x})
    gradient("gradient_one_value_twice", product + [("Gradient", ["x", "x"], ["dx", "dh"], {"xs": ["x", "h"], "y": "y"})], {"x": x},
             {"dx": x, "dh": x.copy()})
    cube = [("Mul", ["x", "x"], ["s"], {}), ("Mul", ["s", "x"], ["y"], {})]
    gradient("gradient_twice", cube + [("Gradient", ["x"], ["dx"], {"xs": ["x"], "y": "y"}),
                                       ("Gradient", ["x"], ["ddx"], {"xs": ["x"], "y": "dx"})], {"x": x}, {"dx": 3 * x * x, "ddx": 6 * x})
    gradient("gradient_none", [("Exp", ["x"], ["y"], {}), ("Gradient", ["z"], ["dz"], {"xs": ["z"], "y": "y"})], {"x": x, "z": z},
             {"y": np.exp(x), "dz": np.zeros_like(z)})


def old_forms():
    y = floats(2, 5)
    case("split_1", "Split", [y, np.array([2, 3], np.float32)], opset=1, outputs=2, axis=1, expected=[y[:, :2], y[:, 2:]])
    x, (scale, bias, mean), variance = floats(2, 3, 4), (floats(3, 4) for _ in range(3)), positive(3, 4)
    expected = (x - mean) / np.sqrt(variance + np.float32(1e-5)) * scale + bias
    case("batchnormalization_spatial_0", "BatchNormalization", [x, scale, bias, mean, variance], opset=7, spatial=0, expected=[expected])


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    activations()
    images()
    transformers()
    modified_attention()
    optimisers()
    gradients()
    old_forms()


main()
