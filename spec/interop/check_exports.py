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


def numbers_differ(got, expected):
    """What is wrong with one tensor, or None."""
    if not isinstance(got, dict) or "shape" not in got:
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
    """ZipMap's output: an array of one map from class to score a row."""
    rows = got.get("value") if isinstance(got, dict) else None
    if not isinstance(rows, list) or len(rows) != len(expected):
        return f"an array of {len(expected)} maps expected, got {str(got)[:100]}"
    for i, (row, wanted) in enumerate(zip(rows, expected)):
        if sorted(row) != sorted(str(key) for key in wanted):
            return f"row {i + 1} has the keys {sorted(row)}, expected {sorted(wanted)}"
        off = max(abs(row[str(key)] - value) for key, value in wanted.items())
        if off > TOLERANCE * max(abs(value) for value in wanted.values()):
            return f"row {i + 1} is {row}, expected {wanted}"
    return None


def compare(model, expected, answer):
    if not check("error" not in answer, f"{model['name']}: {answer.get('error')}"):
        return
    for level in LEVELS:
        for k, outputs in enumerate(expected):
            for name, value in outputs.items():
                got = answer["runs"][level][k].get(name)
                is_maps = isinstance(value, list) and value and isinstance(value[0], dict)
                wrong = maps_differ(got, value) if is_maps else numbers_differ(got, value)
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
