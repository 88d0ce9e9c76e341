"""Against ONNX's checker and ONNX Runtime: what mlserve reads and writes again passes the checker in full mode (strict shape inference, types
checked), and gives in ONNX Runtime what the original gives there, for the inputs of ONNX's own backend tests. Models are those of the distribution's
libonnx-testdata and of the newest onnx package; one that mlserve refuses to load, or ONNX Runtime to run, is counted and left out."""
import glob
import os
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from support import FULL, ROOT, ask, check, finish

SUITES = ("node", "simple", "pytorch-operator", "pytorch-converted")
PACKAGE = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data")
NEWEST = os.path.join(ROOT, ".interop", "suite")  # what build-aux/onnx_suite.py wrote; without it, what the older package brings
ROOTS = ["/usr/share/libonnx-testdata/data", NEWEST if os.path.isdir(NEWEST) else PACKAGE]
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
onnxruntime.set_default_logger_severity(4)


LIGHT = os.path.join(PACKAGE, "light")  # ResNet-50, DenseNet-121 and so on, their weights made by ConstantOfShape


def cases():
    for path in sorted(glob.glob(os.path.join(LIGHT, "*.onnx"))):
        yield f"light/{os.path.basename(path)}", path
    for root in ROOTS:
        for suite in SUITES:
            for path in sorted(glob.glob(os.path.join(root, suite, "*", "model.onnx"))):
                yield f"{suite}/{os.path.basename(os.path.dirname(path))}", path


def refusal(path):
    """What the checker has against a model; it knows no version newer than itself, and fails over a few operators of its own."""
    try:
        onnx.checker.check_model(path, full_check=True)
    except Exception as problem:  # it has many exception types
        return str(problem)[:300] or "refused"
    return None


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def is_random(model):
    for node in model.graph.node:
        if node.op_type in RANDOM or (node.op_type == "Dropout" and len(node.input) > 2):
            return True
    return False


def inputs_of(model, path):
    """The inputs of the first data set by name; None when there is none or a value is no tensor."""
    directory = os.path.join(os.path.dirname(path), "test_data_set_0")
    given = {initializer.name for initializer in model.graph.initializer}
    wanted = [value for value in model.graph.input if value.name not in given]
    if LIGHT in path:
        shape = [d.dim_value for d in wanted[0].type.tensor_type.shape.dim]
        return {wanted[0].name: np.random.default_rng(5).normal(size=shape).astype(np.float32)}
    if len(glob.glob(os.path.join(directory, "input_*.pb"))) < len(wanted):
        return None
    found = {}
    for i, value in enumerate(model.graph.input):
        file = os.path.join(directory, f"input_{i}.pb")
        if not value.type.HasField("tensor_type") or not os.path.exists(file):
            continue
        tensor = onnx.TensorProto()
        with open(file, "rb") as stream:
            tensor.ParseFromString(stream.read())
        array = numpy_helper.to_array(tensor)
        found[value.name] = array.astype(object) if array.dtype.kind in "SU" else array
    return found


def alike_values(alike, a, b):
    """Tensors; or sequences, maps and optionals of them."""
    if isinstance(b, list):
        return isinstance(a, list) and len(a) == len(b) and all(alike_values(alike, x, y) for x, y in zip(a, b))
    if isinstance(b, dict):
        return isinstance(a, dict) and a.keys() == b.keys() and all(alike_values(alike, a[key], b[key]) for key in b)
    return a is b if b is None else alike(a, b)


def near(a, b):
    """As near as float16 arithmetic comes: 1e-2 of the largest magnitude; integers and booleans may differ where a comparison was close."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f" or a.size == 0:
        return True
    finite = np.isfinite(b) & (np.abs(b) < 6e4)
    scale = max(1.0, np.max(np.abs(b[finite]), initial=0))
    return bool(np.all(np.abs(a[finite].astype(np.float64) - b[finite]) <= 1e-2 * scale))


def close(a, b):
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind in "OSUb":
        return bool(np.all(a == b))
    return np.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)


def run_original(path):
    """Names of outputs and what they are, or None."""
    model = onnx.load(path)
    inputs = inputs_of(model, path)
    if inputs is None or is_random(model):
        return None
    try:
        runtime = session(path)
        return inputs, [output.name for output in runtime.get_outputs()], runtime.run(None, copies(inputs))
    except Exception:  # an operator, type or version it does not have
        return None


def copies(values):
    """ONNX Runtime writes into its inputs where an operator may work in place (BatchNormalization in training)."""
    return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in values.items()}


originals = {}


def compare(name, path, written, alike=None):
    """Whether ONNX Runtime runs the original; when it does, the same of what was written."""
    if path not in originals:
        originals[path] = run_original(path)
    if not originals[path]:
        return False
    inputs, outputs, expected = originals[path]
    try:
        got = session(written).run(outputs, copies(inputs))
    except Exception as problem:
        return check(False, f"{name}: running what was written: {str(problem)[:300]}")
    for output, a, b in zip(outputs, got, expected):
        check(alike_values(alike or close, a, b), f"{name}: output {output} differs")
    return True


def check_all(found, opset=None, convert=None, alike=None):
    """Every model written in one operator set (None: the lowest that fits, from 17 on), converted by options of model:convert."""
    what = " ".join(([f"opset {opset}"] if opset else []) + sorted(convert or {})) or "as it is"
    counts = dict(models=0, refused=0, inexpressible=0, unchecked=0, run=0)
    options = {**({"opset": opset} if opset else {}), **({"convert": convert} if convert else {})}
    answers = ask("roundtrip.lua", [dict(path=path, to=to, **options) for _, path, to in found])
    for (name, path, to), answer in zip(found, answers):
        name = f"{name} ({what})"
        counts["models"] += 1
        if not answer["loaded"]:
            counts["refused"] += 1
            continue
        if opset and not answer["written"] and f"opset {opset} cannot express" in answer["message"]:
            counts["inexpressible"] += 1
            continue
        if not check(answer["written"], f"{name}: not written: {answer.get('message')}"):
            continue
        problem = refusal(to)
        if problem and refusal(path):
            counts["unchecked"] += 1
            continue
        if not check(not problem, f"{name}: checker: {problem}"):
            continue
        counts["run"] += compare(name, path, to, alike)
    loaded = counts["models"] - counts["refused"]
    check(loaded > 900 and counts["run"] > loaded / 3, f"{loaded} models were loaded, {counts['run']} compared")
    print(f"# {what}: {counts['models']} models, {counts['refused']} not loaded, {counts['inexpressible']} not expressible, "
          f"{counts['unchecked']} refused by the checker as they were, {counts['run']} run by ONNX Runtime before and after", flush=True)


def main():
    with tempfile.TemporaryDirectory() as scratch:
        found = [(name, path, os.path.join(scratch, f"{i}.onnx")) for i, (name, path) in enumerate(cases())]
        check_all(found)
        check_all(found, convert={"simplify": True})
        check_all(found, convert={"simplify": True, "fp16": True}, alike=near)
        if FULL:
            check_all(found, opset=13, convert={"fp16": True}, alike=near)
        for opset in (11, 12, 13, 15, 18, 21) if FULL else (11, 21):
            check_all(found, opset=opset)


main()
finish()
