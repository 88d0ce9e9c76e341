"""Against scikit-learn: every metric on random and on degenerate predictions, and the accuracy of a trained network beside MLPClassifier's."""
import csv
import math
import os
import warnings

import numpy as np
from sklearn import metrics as sk
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from support import DATA, FULL, ask, check, finish, same

warnings.simplefilter("ignore")
TOLERANCE = 1e-6
AVERAGES = ["macro", "micro", "weighted"]


def classes_scores(y, called, averages):
    out = {
        "accuracy": sk.accuracy_score(y, called),
        "balanced_accuracy": sk.balanced_accuracy_score(y, called),
        "matthews_corrcoef": sk.matthews_corrcoef(y, called),
        "cohen_kappa": sk.cohen_kappa_score(y, called),
    }
    for average in averages:
        options = dict(average=average, zero_division=0)
        out["precision:" + average] = sk.precision_score(y, called, **options)
        out["recall:" + average] = sk.recall_score(y, called, **options)
        out["f1:" + average] = sk.f1_score(y, called, **options)
    return out


def regression_scores(y, f):
    return {
        "mse": sk.mean_squared_error(y, f),
        "mae": sk.mean_absolute_error(y, f),
        "rmse": sk.root_mean_squared_error(y, f),
        "r2": sk.r2_score(y, f),
        "mape": sk.mean_absolute_percentage_error(y, f),
    }


def binary(y, scores):
    called = (scores > 0.5).astype(int)
    out = classes_scores(y, called, ["binary"] + AVERAGES)
    out["roc_auc"] = sk.roc_auc_score(y, scores) if len(set(y)) == 2 else math.nan
    out["log_loss"] = sk.log_loss(y, scores, labels=[0, 1])
    out["brier_score"] = sk.brier_score_loss(y, scores)
    return dict(task="binary", y_true=y.tolist(), y_pred=scores.tolist(), expected=out,
                confusion=sk.confusion_matrix(y, called, labels=[0, 1]).tolist())


def categorical(y, scores):
    ids = list(range(scores.shape[1]))
    called = scores.argmax(axis=1)
    out = classes_scores(y, called, AVERAGES)
    one_hot = np.eye(len(ids))[y]
    all_there = len(set(y)) == len(ids)
    for average in ["macro", "weighted"]:
        out["roc_auc:" + average] = sk.roc_auc_score(one_hot, scores, average=average) if all_there else math.nan
    out["roc_auc:micro"] = sk.roc_auc_score(one_hot, scores, average="micro")
    for k in (1, 2):
        out[f"top_k_accuracy:{k}"] = sk.top_k_accuracy_score(y, scores, k=k, labels=ids)
    out["log_loss"] = sk.log_loss(y, scores, labels=ids)
    return dict(task="categorical", y_true=y.tolist(), y_pred=scores.tolist(), expected=out,
                confusion=sk.confusion_matrix(y, called, labels=ids).tolist())


def regression(y, f):
    return dict(task="regression", y_true=y.tolist(), y_pred=f.tolist(), expected=regression_scores(y, f))


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def metric_cases(rng):
    cases = {}
    for i in range(40 if FULL else 8):
        n = int(rng.integers(2, 200))
        y = rng.integers(0, 2, n)
        y[:2] = [0, 1]
        cases[f"binary, random {i}"] = binary(y, rng.random(n))
        cases[f"binary, ties {i}"] = binary(y, rng.integers(0, 6, n) / 5)
        classes = int(rng.integers(3, 8))
        y = np.concatenate([np.arange(classes), rng.integers(0, classes, n)])
        cases[f"categorical, random {i}"] = categorical(y, softmax(rng.normal(size=(len(y), classes)) * 2))
        cases[f"categorical, good {i}"] = categorical(y, softmax(np.eye(classes)[y] * 3 + rng.normal(size=(len(y), classes))))
        y = rng.normal(size=n) * 10 ** float(rng.integers(-3, 4)) + float(rng.integers(-5, 6))
        cases[f"regression, random {i}"] = regression(y, y + rng.normal(size=n) * float(np.abs(y).mean()))
    y = rng.integers(0, 2, 30)
    y[:2] = [0, 1]
    cases["binary, never called positive"] = binary(y, np.full(30, 0.1))
    cases["binary, always called positive"] = binary(y, np.full(30, 0.9))
    cases["binary, exactly at the threshold"] = binary(y, np.full(30, 0.5))
    cases["binary, all right"] = binary(y, y.astype(float))
    cases["binary, all wrong"] = binary(y, 1.0 - y)
    cases["binary, only ones"] = binary(np.ones(9, int), rng.random(9))
    cases["binary, only zeros"] = binary(np.zeros(9, int), rng.random(9))
    y = rng.choice([0, 2], 25)
    cases["categorical, a class never there"] = categorical(y, softmax(rng.normal(size=(25, 4))))
    y = np.arange(12) % 3
    cases["categorical, one class called"] = categorical(y, np.tile([0.2, 0.7, 0.1], (12, 1)))
    cases["categorical, all right"] = categorical(y, np.eye(3)[y])
    cases["categorical, all wrong"] = categorical(y, np.eye(3)[(y + 1) % 3])
    cases["regression, exact"] = regression(np.arange(5.0), np.arange(5.0))
    cases["regression, constant target met"] = regression(np.full(4, 2.0), np.full(4, 2.0))
    cases["regression, constant target missed"] = regression(np.full(4, 2.0), np.arange(4.0))
    cases["regression, a target of 0"] = regression(np.array([0.0, 1, -1]), np.array([0.5, 1, -2]))
    return cases


def check_metrics():
    cases = metric_cases(np.random.default_rng(5))
    answers = ask("metrics.lua", list(cases.values()))
    for (name, case), answer in zip(cases.items(), answers):
        for metric, expected in case["expected"].items():
            got = answer[metric]
            check("value" in got and same(float(expected), float(got["value"]), TOLERANCE), f"{name}: {metric}: expected {expected}, got {got}")
        if "confusion" in case:
            check(answer["confusion"] == case["confusion"], f"{name}: confusion matrix {answer['confusion']}, expected {case['confusion']}")


def table(file, label):
    with open(os.path.join(DATA, file), newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    names = sorted({row[label] for row in rows})
    x = np.array([[float(v) for k, v in row.items() if k != label] for row in rows], dtype=np.float32)
    return x, np.array([names.index(row[label]) for row in rows]), len(names)


def check_accuracy(file, label, hidden, epochs):
    """Same rows, same architecture, same optimiser: within two points of accuracy, averaged over three splits."""
    x, y, classes = table(file, label)
    theirs, ours = [], []
    for seed in range(3):
        x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.3, stratify=y, random_state=seed)
        scaler = StandardScaler().fit(x_train)
        peer = MLPClassifier(hidden, batch_size=32, max_iter=epochs, n_iter_no_change=epochs, alpha=0, random_state=seed)
        peer.fit(scaler.transform(x_train), y_train)
        theirs.append(peer.score(scaler.transform(x_test), y_test))
        scores = np.array(ask("classifier.lua", dict(x=x_train.tolist(), y=y_train.tolist(), test=x_test.tolist(), hidden=list(hidden),
                                                     classes=classes, epochs=epochs)))
        called = (scores[:, 0] > 0.5).astype(int) if classes == 2 else scores.argmax(axis=1)
        ours.append(float((called == y_test).mean()))
    check(np.mean(ours) >= np.mean(theirs) - 0.02, f"{file}: accuracy {ours}, scikit-learn's {theirs}")
    print(f"# {file}: accuracy {np.mean(ours):.4f}, MLPClassifier's {np.mean(theirs):.4f}")


check_metrics()
check_accuracy("breast_cancer.csv", "diagnosis", (128, 64), 30)
check_accuracy("digits.csv", "digit", (64,), 30)
finish()
