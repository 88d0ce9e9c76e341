"""Keeps exported models and the inputs they are to be tried with: DIRECTORY/NAME.onnx, DIRECTORY/NAME.K.INPUT.npy and DIRECTORY/models.json.
Runs in the Python of whatever makes the export, so it needs NumPy only."""
import json
import os
import sys

import numpy as np

models = []


def directory():
    return sys.argv[1]


def wanted(name):
    """Arguments after the directory name the only models to make."""
    return len(sys.argv) < 3 or any(part in name for part in sys.argv[2:])


def path_of(name):
    return os.path.join(directory(), name + ".onnx")


def add(name, inputs):
    """inputs: one table of arrays by input name for each run; text goes into models.json as it is."""
    runs = []
    for k, given in enumerate(inputs):
        files = {}
        for key, array in given.items():
            if array.dtype.kind in "OU":
                files[key] = dict(shape=list(array.shape), values=array.tolist())
            else:
                files[key] = dict(npy=os.path.join(directory(), f"{name}.{k}.{key.replace('/', '_')}.npy"))
                np.save(files[key]["npy"], np.asarray(array, order="C"))
        runs.append(files)
    models.append(dict(name=name, path=path_of(name), runs=runs))


def finish():
    with open(os.path.join(directory(), "models.json"), "w") as file:
        json.dump(models, file)
