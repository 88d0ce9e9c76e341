"""Writes metrics.lua: predictions and what scikit-learn says about them.

    python3 make_metrics.py > metrics.lua        (scikit-learn >= 1.6, NumPy)

Scores are float32 values rounded to few digits, so that ties occur and the text holds them exactly.
"""
import math
import sys
import warnings

import numpy as np
import sklearn
from sklearn import metrics as sk

warnings.simplefilter("ignore")
rng = np.random.default_rng(20)


def lua(value):
    if isinstance(value, str):
        return '"%s"' % value
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        value = float(value)
        return "nan" if math.isnan(value) else repr(value)
    if isinstance(value, np.ndarray):
        return lua(value.tolist())
    if isinstance(value, (list, tuple)):
        return "{ " + ", ".join(lua(v) for v in value) + " }"
    if isinstance(value, dict):
        return "{ " + ", ".join('["%s"] = %s' % (k, lua(v)) for k, v in value.items()) + " }"
    raise TypeError(type(value))


def averages(y, called, names):
    out = {}
    for average in names:
        kw = dict(average=average, zero_division=0)
        out["precision:" + average] = sk.precision_score(y, called, **kw)
        out["recall:" + average] = sk.recall_score(y, called, **kw)
        out["f1:" + average] = sk.f1_score(y, called, **kw)
    return out


def from_classes(y, called):
    return {
        "accuracy": sk.accuracy_score(y, called),
        "balanced_accuracy": sk.balanced_accuracy_score(y, called),
        "matthews_corrcoef": sk.matthews_corrcoef(y, called),
        "cohen_kappa": sk.cohen_kappa_score(y, called),
    }


def binary(name, y, scores, dtype, probabilities=True):
    scores = scores.astype(dtype).astype(float)
    called = (scores > 0.5).astype(int)
    out = from_classes(y, called) | averages(y, called, ["binary", "macro", "micro", "weighted"])
    out["roc_auc"] = sk.roc_auc_score(y, scores)
    if probabilities:
        out["log_loss"] = sk.log_loss(y, scores.astype(dtype), labels=[0, 1])
        out["brier_score"] = sk.brier_score_loss(y, scores)
        out["mse"] = sk.mean_squared_error(y, scores)
    return dict(name=name, task="binary", dtype=dtype, y_true=y, y_pred=scores, expected=out,
                confusion=sk.confusion_matrix(y, called, labels=[0, 1]))


def categorical(name, y, scores, dtype):
    scores = scores.astype(dtype).astype(float)
    classes = scores.shape[1]
    ids = list(range(classes))
    called = scores.argmax(axis=1)
    out = from_classes(y, called) | averages(y, called, ["macro", "micro", "weighted"])
    onehot = np.eye(classes)[y]
    for average in ["macro", "weighted"]:
        every = len(set(y)) == classes
        out["roc_auc:" + average] = sk.roc_auc_score(onehot, scores, average=average) if every else float("nan")
    out["roc_auc:micro"] = sk.roc_auc_score(onehot, scores, average="micro")
    for k in (1, 2, 3):
        out["top_k_accuracy:%d" % k] = sk.top_k_accuracy_score(y, scores, k=k, labels=ids)
    out["log_loss"] = sk.log_loss(y, scores.astype(dtype), labels=ids)
    out["brier_score"] = sk.brier_score_loss(y, scores, labels=ids)
    return dict(name=name, task="categorical", dtype=dtype, y_true=y, y_pred=scores, expected=out,
                confusion=sk.confusion_matrix(y, called, labels=ids))


def regression(name, y, f, dtype):
    y, f = y.astype(dtype).astype(float), f.astype(dtype).astype(float)
    out = {
        "mse": sk.mean_squared_error(y, f),
        "mae": sk.mean_absolute_error(y, f),
        "rmse": sk.root_mean_squared_error(y, f),
        "r2": sk.r2_score(y, f),
        "mape": sk.mean_absolute_percentage_error(y, f),
    }
    return dict(name=name, task="regression", dtype=dtype, y_true=y, y_pred=f, expected=out)


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


cases = []
y = rng.integers(0, 2, 60)
p = np.clip(np.round(0.35 * y + rng.random(60) * 0.7, 2), 0, 1)
for dtype in ("float32", "float64"):
    cases.append(binary("ties, " + dtype, y, p, dtype))
extreme = p.copy()
extreme[:6] = [0, 1, 0, 1, 1e-9, 1 - 1e-9]
for dtype in ("float32", "float64"):
    cases.append(binary("zeros and ones, " + dtype, y, extreme, dtype))
cases.append(binary("unbounded scores", y, np.round(4 * p - 1, 1), "float64", probabilities=False))
cases.append(binary("never positive", y, p * 0.4, "float64"))
cases.append(binary("all scores equal", y, np.full(60, 0.75), "float64"))
cases.append(binary("one class", np.ones(12, int), p[:12], "float64"))

for dtype in ("float32", "float64"):
    y = rng.integers(0, 4, 50)
    s = softmax(np.round(2 * np.eye(4)[y] + rng.normal(0, 1.5, (50, 4)), 1)).astype("float32").astype(float)
    cases.append(categorical("four classes, " + dtype, y, s, dtype))
y = rng.integers(0, 3, 30)
s = np.round(np.eye(3)[y] * 0.25 + rng.integers(0, 4, (30, 3)) * 0.25, 2)
s = np.clip(s / np.maximum(s.sum(axis=1, keepdims=True), 0.25), 0, 1)
s[s.sum(axis=1) == 0] = [0.25, 0.5, 0.25]
cases.append(categorical("ties between classes", y, s, "float64"))
y = rng.choice([0, 2, 3], 40)
s = softmax(np.round(1.5 * np.eye(5)[y] + rng.normal(0, 1, (40, 5)), 1))
s[:, 4] = 0
s /= s.sum(axis=1, keepdims=True)
cases.append(categorical("classes that do not occur", y, s, "float64"))

y = np.round(rng.normal(10, 5, 40), 2)
f = np.round(y + rng.normal(0, 2, 40), 2)
for dtype in ("float32", "float64"):
    cases.append(regression("one output, " + dtype, y, f, dtype))
cases.append(regression("a zero target", np.array([0, 1.5, -2, 4]), np.array([0, 1, -2.5, 4.5]), "float64"))
y = np.round(rng.normal(0, 3, (12, 3)), 2)
cases.append(regression("three outputs", y, np.round(rng.normal(0, 3, (12, 3)), 2), "float64"))
cases.append(regression("constant target met", np.full(5, 2.5), np.full(5, 2.5), "float64"))
cases.append(regression("constant target missed", np.full(5, 2.5), np.arange(5.0), "float64"))
cases.append(regression("a single row", np.array([2.0]), np.array([3.0]), "float64"))

sys.stdout.write("-- made by make_metrics.py with scikit-learn %s\nlocal nan = 0 / 0\nreturn {\n" % sklearn.__version__)
for case in cases:
    sys.stdout.write("  {\n")
    for key, value in case.items():
        if key == "expected":
            sys.stdout.write("    expected = {\n")
            for metric, number in value.items():
                sys.stdout.write('      ["%s"] = %s,\n' % (metric, lua(number)))
            sys.stdout.write("    },\n")
        else:
            sys.stdout.write("    %s = %s,\n" % (key, lua(value)))
    sys.stdout.write("  },\n")
sys.stdout.write("}\n")
