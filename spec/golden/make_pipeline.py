"""Writes spec/golden/pipeline: a scikit-learn pipeline on the penguins (a category and a number in, label and probabilities out, ZipMap's default
form) as skl2onnx exports it, with inputs and the outputs ONNX Runtime gives. Run: python3 spec/golden/make_pipeline.py (needs onnxruntime,
scikit-learn, skl2onnx)."""
import csv
import json
import os

import numpy as np
import onnxruntime
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "pipeline")

if __name__ == "__main__":
    with open(os.path.join(HERE, "../../examples/data/penguins.csv"), newline="") as f:
        rows = [r for r in csv.DictReader(f) if r["body_mass_g"] not in ("", "NA")]
    island = np.array([[r["island"]] for r in rows], dtype=object)
    mass = np.array([[float(r["body_mass_g"])] for r in rows], dtype=object)
    species = np.array([r["species"] for r in rows])
    pipeline = make_pipeline(ColumnTransformer([("island", OneHotEncoder(handle_unknown="ignore"), [0]), ("mass", StandardScaler(), [1])]),
                             LogisticRegression(max_iter=1000))
    pipeline.fit(np.hstack([island, mass]), species)
    model = convert_sklearn(pipeline, initial_types=[("island", StringTensorType([None, 1])), ("mass", FloatTensorType([None, 1]))], target_opset=17)
    os.makedirs(ROOT, exist_ok=True)
    with open(os.path.join(ROOT, "model.onnx"), "wb") as f:
        f.write(model.SerializeToString())
    some = [0, 100, 200, 300]
    feeds = {"island": island[some], "mass": mass[some].astype(np.float32)}
    label, probabilities = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    with open(os.path.join(ROOT, "expected.json"), "w") as f:
        json.dump({"instances": [{"island": [str(i[0])], "mass": [float(m[0])]} for i, m in zip(feeds["island"], feeds["mass"])],
                   "label": [str(v) for v in label], "probabilities": [{k: float(p) for k, p in row.items()} for row in probabilities]}, f, indent=1)
        f.write("\n")
