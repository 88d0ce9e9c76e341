"""Do others read what mlserve writes? For a directory that spec/csrc/test_format left files in: every NAME.onnx must pass the ONNX checker with
shape inference and give, in ONNX Runtime (for operator sets newer than it knows: in ONNX's reference implementation), the outputs
NAME.output_N.pb for the inputs NAME.input_N.pb; .safetensors and .npy files must be
read by their own libraries. Run: python3 spec/interop/onnx_files.py DIRECTORY (needs numpy, onnx, onnxruntime; safetensors if there)."""
import glob
import os
import sys

import numpy as np
import onnx
import onnx.reference
import onnxruntime
from onnx import numpy_helper

passed = failed = 0


def check(condition, what):
    global passed, failed
    if condition:
        passed += 1
    else:
        failed += 1
        print("not ok -", what)


def tensors(prefix):
    found = []
    while os.path.exists(f"{prefix}_{len(found)}.pb"):
        tensor = onnx.TensorProto()
        with open(f"{prefix}_{len(found)}.pb", "rb") as f:
            tensor.ParseFromString(f.read())
        found.append((tensor.name, numpy_helper.to_array(tensor)))
    return found


def needs_newer(model):
    return any(n.op_type in ("Gelu", "Mish", "Swish") for n in model.graph.node)


def close(a, b):
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return False
    if a.dtype.kind in "OSU":
        return all((x.decode() if isinstance(x, bytes) else x) == (y.decode() if isinstance(y, bytes) else y) for x, y in zip(a.flat, b.flat))
    return a.dtype == b.dtype and np.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)


NEWEST_OF_RUNTIME = 21


def run(path, opset, names, inputs):
    if opset[""] > NEWEST_OF_RUNTIME:
        session = onnx.reference.ReferenceEvaluator(path)
        known = session.output_names
    else:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        known = [o.name for o in session.get_outputs()]
    return session.run(names if set(names) <= set(known) else None, inputs)


def check_model(path):
    stem = path[: -len(".onnx")]
    name = os.path.basename(stem)
    model = onnx.load(path)
    try:
        onnx.checker.check_model(path, full_check=True)
        check(True, name)
    except Exception as e:  # the checker has many exception types
        check(False, f"{name}: checker: {e}")
        return
    opset = {o.domain: o.version for o in model.opset_import}
    expected_ir = max(8, onnx.helper.OP_SET_ID_VERSION_MAP[("ai.onnx", opset[""])])
    check(model.ir_version == expected_ir, f"{name}: IR {model.ir_version}, expected {expected_ir}")
    check((opset[""] == 17) == (not needs_newer(model)), f"{name}: operator set {opset['']}")
    expected = tensors(stem + ".output")
    if not expected:
        return
    try:
        outputs = run(path, opset, [n for n, _ in expected], dict(tensors(stem + ".input")))
    except Exception as e:
        check(False, f"{name}: running it: {e}")
        return
    check(len(outputs) == len(expected), f"{name}: number of outputs")
    for (output, want), got in zip(expected, outputs):
        check(close(got, want), f"{name}: output {output}")


def main():
    directory = sys.argv[1]
    models = sorted(glob.glob(os.path.join(directory, "*.onnx")))
    check(models, f"no models in {directory}")
    for path in models:
        check_model(path)
    array = os.path.join(directory, "array.npy")
    if os.path.exists(array):
        check(np.array_equal(np.load(array), np.arange(3) * 0.1), "npy")
    file = os.path.join(directory, "tensors.safetensors")
    try:
        from safetensors.numpy import load_file
    except ImportError:
        print("# safetensors is not installed")
    else:
        read = load_file(file)
        check(np.array_equal(read['w"1'], [[0, 0.5], [1, 1.5]]) and read['w"1'].dtype == np.float32, "safetensors: floats")
        check(read["flags"].tolist() == [False, True, False], "safetensors: booleans")
        check(read["step"].shape == () and read["step"] == -(2**63), "safetensors: a scalar")
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
