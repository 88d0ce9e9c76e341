"""Real exports: exports/from_*.py make models with PyTorch, scikit-learn, XGBoost, LightGBM and (in the full run) Keras, each with its own converter;
every model gives here what it gives in ONNX Runtime, at every optimisation level: numbers to 1e-5 of the output's largest, labels exactly.
Arguments: parts of the names of models, to try only those."""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime

from support import FULL, HERE, ask, check, finish

TOLERANCE = 1e-5
LEVELS = ["none", "exact", "fast"]
# exporter -> the Python that has its packages; PyTorch is the distribution's
EXPORTERS = {"pytorch": "/usr/bin/python3", "sklearn": sys.executable, "xgboost": sys.executable, "lightgbm": sys.executable}
if FULL:
    EXPORTERS["keras"] = os.environ["INTEROP_KERAS_PYTHON"]


def exported(directory, only):
    models = []
    for name, python in EXPORTERS.items():
        place = os.path.join(directory, name)
        os.mkdir(place)
        command = [python, os.path.join(HERE, "exports", f"from_{name}.py"), place, *only]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if check(result.returncode == 0, f"from_{name}.py: {result.stdout[-2000:]}"):
            with open(os.path.join(place, "models.json")) as file:
                models += json.load(file)
    return models


def array_of(given):
    if "npy" in given:
        return np.load(given["npy"])
    return np.array(given["values"], dtype=object).reshape(given["shape"])


def expectations(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # its fusions err: of Pad into AveragePool, for one
    session = onnxruntime.InferenceSession(model["path"], options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return [dict(zip(names, session.run(None, {key: array_of(given) for key, given in run.items()}))) for run in model["runs"]]


def tensors_differ(got, expected):
    """What is wrong with one tensor, or None."""
    if "shape" not in got:
        return f"a tensor expected, got {str(got)[:100]}"
    expected = np.asarray(expected)
    kind = "string" if expected.dtype.kind in "OU" else str(expected.dtype)
    if list(expected.shape) != got["shape"] or kind != got["dtype"]:
        return f"{got['dtype']} of shape {got['shape']}, expected {kind} of {list(expected.shape)}"
    if expected.dtype.kind in "OUSbiu":
        wanted = expected.reshape(-1).tolist()
        if got["values"] != wanted:
            at = next(i for i, pair in enumerate(zip(got["values"], wanted)) if pair[0] != pair[1])
            return f"element {at} is {got['values'][at]!r}, expected {wanted[at]!r}"
        return None
    wanted, values = expected.reshape(-1).astype(np.float64), np.array(got["values"], dtype=np.float64)
    finite = np.isfinite(wanted)
    if not np.array_equal(values[~finite], wanted[~finite], equal_nan=True) or not np.isfinite(values[finite]).all():
        return f"{values[~finite][:5]} where {wanted[~finite][:5]} is expected"
    scale = np.max(np.abs(wanted[finite]), initial=0)
    off = np.abs(values - wanted, where=finite, out=np.zeros_like(wanted))
    worst = int(np.argmax(off)) if off.size else 0
    if off.size and off[worst] > TOLERANCE * scale:
        return f"element {worst} is {values[worst]:.9g}, expected {wanted[worst]:.9g}: off by {off[worst] / max(scale, 1e-300):.2g} of the scale"
    return None


def maps_differ(got, expected):
    if "keys" not in got:
        return f"a map expected, got {str(got)[:100]}"
    found = dict(zip(got["keys"], got["values"]))
    if len(found) != len(expected) or any(type(a) is not type(b) or a != b for a, b in zip(sorted(found), sorted(expected))):
        return f"keys {sorted(found)}, expected {sorted(expected)}"
    off = max(abs(found[key] - value) for key, value in expected.items())
    return f"{found}, expected {expected}" if off > TOLERANCE * max(abs(value) for value in expected.values()) else None


def differ(got, expected):
    """What is wrong with an output (tensor, or list of tensors or of maps), or None."""
    if not isinstance(got, dict):
        return "missing"
    if not isinstance(expected, list):
        return tensors_differ(got, expected)
    if len(got.get("items", [])) != len(expected):
        return f"a sequence of {len(expected)} expected, got {str(got)[:100]}"
    for i, (item, wanted) in enumerate(zip(got["items"], expected)):
        wrong = maps_differ(item, wanted) if isinstance(wanted, dict) else tensors_differ(item, wanted)
        if wrong:
            return f"item {i + 1}: {wrong}"
    return None


def compare(model, expected, answer):
    if not check("error" not in answer, f"{model['name']}: {answer.get('error')}"):
        return
    for level in LEVELS:
        for k, outputs in enumerate(expected):
            for name, value in outputs.items():
                wrong = differ(answer["runs"][level][k].get(name), value)
                check(wrong is None, f"{model['name']} ({level}, run {k + 1}): output {name}: {wrong}")


def main():
    with tempfile.TemporaryDirectory() as directory:
        models = exported(directory, sys.argv[1:])
        expected = []
        for model in models:
            try:
                expected.append(expectations(model))
            except Exception as problem:  # an export that ONNX Runtime refuses can be compared with nothing
                raise RuntimeError(f"{model['name']}: {problem}") from problem
        answers = ask("exports.lua", [dict(path=model["path"], runs=model["runs"], levels=LEVELS) for model in models])
        for model, wanted, answer in zip(models, expected, answers):
            compare(model, wanted, answer)
        print(f"{len(models)} exported models")
    finish()


main()
