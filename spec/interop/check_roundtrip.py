"""Against ONNX's checker and ONNX Runtime: what mlserve reads and writes again passes the checker in full mode (strict shape inference, types
checked), and gives in ONNX Runtime what the original gives there, for the inputs of ONNX's own backend tests. Models are those of the distribution's
libonnx-testdata and of the installed onnx package; one that mlserve refuses to load, or ONNX Runtime to run, is counted and left out."""
import glob
import os
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from support import ask, check, finish

SUITES = [("/usr/share/libonnx-testdata/data", ("node", "simple", "pytorch-operator", "pytorch-converted"))]
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
onnxruntime.set_default_logger_severity(4)


def cases():
    for root, suites in SUITES:
        for suite in suites:
            for path in sorted(glob.glob(os.path.join(root, suite, "*", "model.onnx"))):
                yield f"{suite}/{os.path.basename(os.path.dirname(path))}", path


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


def close(a, b):
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind in "OSUb":
        return bool(np.all(a == b))
    return np.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)


def compare(name, path, written):
    """Whether ONNX Runtime runs the original; when it does, the same of what was written."""
    model = onnx.load(path)
    inputs = inputs_of(model, path)
    if inputs is None or is_random(model):
        return False
    try:
        runtime = session(path)
        expected = runtime.run(None, inputs)
    except Exception:  # an operator, type or version it does not have
        return False
    try:
        got = session(written).run([output.name for output in runtime.get_outputs()], inputs)
    except Exception as problem:
        return check(False, f"{name}: running what was written: {str(problem)[:300]}")
    for output, a, b in zip(runtime.get_outputs(), got, expected):
        check(close(a, b), f"{name}: output {output.name} differs")
    return True


def main():
    counts = dict(models=0, refused=0, run=0)
    with tempfile.TemporaryDirectory() as scratch:
        found = [(name, path, os.path.join(scratch, f"{i}.onnx")) for i, (name, path) in enumerate(cases())]
        answers = ask("roundtrip.lua", [dict(path=path, to=to) for _, path, to in found])
        for (name, path, to), answer in zip(found, answers):
            counts["models"] += 1
            if not answer["loaded"]:
                counts["refused"] += 1
                continue
            if not check(answer["written"], f"{name}: not written: {answer.get('message')}"):
                continue
            try:
                onnx.checker.check_model(to, full_check=True)
                check(True, name)
            except Exception as problem:  # the checker has many exception types
                check(False, f"{name}: checker: {str(problem)[:300]}")
                continue
            counts["run"] += compare(name, path, to)
    check(counts["models"] - counts["refused"] > 900, f"{counts['models'] - counts['refused']} models were loaded")
    print(f"# {counts['models']} models, {counts['refused']} not loaded, {counts['run']} run by ONNX Runtime before and after")


main()
finish()
