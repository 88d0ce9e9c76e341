"""Against ONNX and ONNX Runtime: everything the examples, the command line and every layer save passes the checker with full shape inference, and
gives in ONNX Runtime the outputs it gives here; so do the files that the C tests write."""
import glob
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime

from support import BUILD, DATA, FULL, HERE, add, ask, check, finish, lua

TOLERANCE = 1e-5
WORDS = ["Biscoe", "Dream", "Torgersen", "MALE", "FEMALE", "male", "female", "red", "green", "blue", "", "something else"]
NUMPY = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(string)": object, "tensor(double)": np.float64}


def random_input(value, rows, rng, path):
    shape = [rows if not isinstance(d, int) or d < 0 else d for d in value.shape]
    kind = NUMPY[value.type]
    if kind is object:
        return rng.choice(WORDS, size=shape).astype(object)
    if kind is np.int64:
        return rng.integers(0, 5, shape)
    x = (rng.normal(size=shape) * rng.choice([0.1, 1, 20])).astype(kind)
    if "penguins" in path or "imputer" in path:
        x[rng.random(shape) < 0.2] = np.nan
    return x


def compare(paths):
    rng = np.random.default_rng(11)
    sessions, cases = [], []
    for path in paths:
        name = path[len(os.path.commonpath(paths)) + 1:]
        try:
            onnx.checker.check_model(path, full_check=True)
            check(True, name)
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as problem:  # checker and runtime have many exception types
            check(False, f"{name}: {problem}")
            continue
        for rows in (1, 7, 64) if FULL else (1, 7):
            inputs = {value.name: random_input(value, rows, rng, path) for value in session.get_inputs()}
            sessions.append((name, session, inputs))
            cases.append(dict(path=path, inputs={k: v.tolist() for k, v in inputs.items()}))
    for (name, session, inputs), answer in zip(sessions, ask("predict.lua", cases)):
        for value, expected in zip(session.get_outputs(), session.run(None, inputs)):
            got = answer.get(value.name)
            if not check(got and list(expected.shape) == got["shape"], f"{name}: output {value.name}: {got and got['shape']}, expected {expected.shape}"):
                continue
            values = np.array(got["values"], dtype=np.float64).reshape(expected.shape)
            off = np.max(np.abs(values - expected) / np.maximum(1, np.abs(expected)), initial=0)
            check(off <= TOLERANCE, f"{name}: output {value.name} differs by {off:.3g}")


def written_by_c_tests(directory):
    program = os.path.join(BUILD, "spec", "test_format")
    if not check(os.path.exists(program), f"{program} is built"):
        return
    subprocess.run([program, directory], check=True, stdout=subprocess.DEVNULL)
    result = subprocess.run([sys.executable, os.path.join(HERE, "onnx_files.py"), directory], capture_output=True, text=True)
    for line in result.stdout.splitlines():
        counts = re.match(r"^(\d+) passed, (\d+) failed$", line)
        if counts:
            add(int(counts[1]), int(counts[2]))
        elif line.startswith("not ok"):
            print(line)
    check(result.returncode == 0, f"onnx_files.py: {result.stderr.strip()[-500:]}")


with tempfile.TemporaryDirectory() as scratch:
    for example in ("cancer", "digits", "penguins"):
        lua(f"examples/{example}.lua", os.path.join(scratch, example))
    for name, label in (("breast_cancer", "diagnosis"), ("penguins", "species"), ("digits", "digit")):
        trained, better = (os.path.join(scratch, f"{kind}_{name}") for kind in ("cli", "optimized"))
        data = os.path.join(DATA, name + ".csv")
        lua("bin/mlserve", "train", "--data", data, "--label", label, "--epochs", "2", "-q", "-o", trained)
        lua("bin/mlserve", "optimize", trained, "--data", data, "--label", label, "--epochs", "2", "--dropout", "0.2", "-q", "-o", better)
    os.mkdir(os.path.join(scratch, "layers"))
    lua("spec/interop/layers.lua", os.path.join(scratch, "layers"))
    models = sorted(glob.glob(os.path.join(scratch, "**", "*.onnx"), recursive=True))
    check(len(models) > 30, f"{len(models)} models were saved")
    compare(models)
with tempfile.TemporaryDirectory() as scratch:
    written_by_c_tests(scratch)
finish()
