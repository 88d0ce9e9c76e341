"""Writes every backend test of the installed onnx package into a directory, one folder a suite (node, simple, pytorch-operator,
pytorch-converted, light), in the layout that `mlserve verify` runs: onnx_suite.py DIRECTORY.

The cases and the writer are onnx's own (onnx.backend.test.loader and .cmd_tools); the tool alone leaves out the node tests since ONNX 1.23
and the nets of the suite "real", whose models lie in the package with weights of one value. NumPy is pinned below 2: from 2 on its FFT
computes float32 in single precision, and the expected values of the inverse DFT are then off by more than the test's own tolerance."""
import argparse
import json
import os
import shutil
import sys
import types

import onnx
from onnx import numpy_helper
from onnx.backend.test import cmd_tools
from onnx.backend.test.loader import DATA_DIR, load_model_tests
from onnx.backend.test.runner import Runner


def write_generated(directory):
    """The node tests and the generated models."""
    models = cmd_tools.model_test.collect_testcases()
    cases = load_model_tests(kind="node") + [case for case in models if case.kind != "real"]
    cmd_tools.model_test = types.SimpleNamespace(collect_testcases=lambda: cases)
    cmd_tools.generate_data(argparse.Namespace(output=directory))
    for case in cases:
        write_tolerances(os.path.join(directory, case.kind, case.name), case)


def write_tolerances(path, case):
    if (case.rtol, case.atol) != (1e-3, 1e-7):
        with open(os.path.join(path, "data.json"), "w") as file:
            json.dump({"rtol": case.rtol, "atol": case.atol}, file)


def copy_stored(directory):
    """The cases that lie in the package as files."""
    for kind in ("simple", "pytorch-operator", "pytorch-converted"):
        shutil.copytree(os.path.join(DATA_DIR, kind), os.path.join(directory, kind), dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns("*.py", "__pycache__"))


def write_nets(directory):
    """The nets of "real": onnx's runner makes their input and the package holds their output."""
    root = os.path.dirname(os.path.dirname(onnx.__file__))
    for case in load_model_tests(kind="real"):
        model_path = os.path.join(root, case.url)
        stem = os.path.splitext(model_path)[0]
        path = os.path.join(directory, "light", case.name)
        data = os.path.join(path, "test_data_set_0")
        os.makedirs(data)
        shutil.copy(model_path, os.path.join(path, "model.onnx"))
        write_tolerances(path, case)
        graph = onnx.load(model_path).graph
        constants = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in constants]
        for i, value in enumerate(inputs):
            tensor = numpy_helper.from_array(Runner.generate_dummy_data(value), value.name)
            with open(os.path.join(data, f"input_{i}.pb"), "wb") as file:
                file.write(tensor.SerializeToString())
        for i in range(len(graph.output)):
            shutil.copy(f"{stem}_output_{i}.pb", os.path.join(data, f"output_{i}.pb"))


def main():
    directory = sys.argv[1]
    partial = directory + ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)
    write_generated(partial)
    copy_stored(partial)
    write_nets(partial)
    os.rename(partial, directory)
    counts = {kind: len(os.listdir(os.path.join(directory, kind))) for kind in sorted(os.listdir(directory))}
    print(f"onnx {onnx.__version__}: {sum(counts.values())} cases ({', '.join(f'{kind} {n}' for kind, n in counts.items())})")


if __name__ == "__main__":
    main()
