"""Writes spec/golden/ml: models of ai.onnx.ml as converters make them (scikit-learn, XGBoost, LightGBM) and by hand for what converters never
write, with inputs and ONNX Runtime's outputs, in the layout of ONNX's own test data (model.onnx, test_data_set_0/input_N.pb, output_N.pb).
Expected values never come from mlserve. Run: python3 spec/golden/make_ml.py (needs numpy, onnx, onnxruntime, scikit-learn, skl2onnx, xgboost,
lightgbm, onnxmltools)."""
import os
import shutil

import lightgbm
import numpy as np
import onnxmltools
import onnxruntime
import xgboost
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from onnxmltools.convert.common.data_types import FloatTensorType as ToolsFloat
from skl2onnx import to_onnx
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import (ExtraTreesClassifier, GradientBoostingClassifier, GradientBoostingRegressor,
                              RandomForestClassifier, RandomForestRegressor)
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ml")
ML = "ai.onnx.ml"
rng = np.random.default_rng(5)

iris_x, iris_y = load_iris(return_X_y=True)
iris_x = iris_x.astype(np.float32)
two = iris_y > 0
binary_x, binary_y = iris_x[two], iris_y[two] - 1
names = np.array(["setosa", "versicolor", "virginica"])[iris_y]
sugar_x, sugar_y = load_diabetes(return_X_y=True)
sugar_x = sugar_x.astype(np.float32)
rows = iris_x[::7]
scaled = (iris_x - iris_x.mean(0)) / iris_x.std(0)  # for kernels
scaled_two, scaled_rows = scaled[two], scaled[::7]
holes = iris_x.copy()
holes[rng.random(holes.shape) < 0.2] = np.nan
hole_rows = holes[::7]


def save(name, model, inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {i.name: a for i, a in zip(session.get_inputs(), inputs)})
    data = os.path.join(ROOT, name, "test_data_set_0")
    os.makedirs(data)
    with open(os.path.join(ROOT, name, "model.onnx"), "wb") as f:
        f.write(model.SerializeToString())
    for kind, arrays in (("input", inputs), ("output", outputs)):
        for i, array in enumerate(arrays):
            with open(os.path.join(data, f"{kind}_{i}.pb"), "wb") as f:
                f.write(numpy_helper.from_array(np.asarray(array), f"{kind}_{i}").SerializeToString())
    print(name, os.path.getsize(os.path.join(ROOT, name, "model.onnx")))


def skl(name, estimator, x, y, given=None, **options):
    estimator.fit(x, y)
    given = x[::7] if given is None else given
    opts = {id(estimator): options} if options else None
    save("skl_" + name, to_onnx(estimator, x[:1], options=opts, target_opset={"": 17, ML: 3}), [given])


def by_hand(name, op, inputs, attributes, outputs, version=3, domain=ML):
    """One node; inputs are arrays, outputs types."""
    ins = [f"x{i}" for i in range(len(inputs))]
    outs = [f"y{i}" for i in range(len(outputs))]
    kind = lambda a: T.STRING if a.dtype.kind in "OU" else helper.np_dtype_to_tensor_dtype(a.dtype)
    node = helper.make_node(op, ins, outs, domain=domain, **attributes)
    graph = helper.make_graph([node], "golden", [helper.make_tensor_value_info(n, kind(a), [None, *a.shape[1:]]) for n, a in zip(ins, inputs)],
                              [helper.make_tensor_value_info(n, t, None) for n, t in zip(outs, outputs)])
    opsets = [helper.make_opsetid("", 17 if domain else version), helper.make_opsetid(domain or ML, version if domain else 3)]
    save(name, helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="golden"), inputs)


def random_trees(n_trees, depth, modes, n_features, seed):
    """nodes_* attributes of complete trees with random tests; leaves in a list."""
    g = np.random.default_rng(seed)
    a = {k: [] for k in ("nodes_treeids nodes_nodeids nodes_featureids nodes_values nodes_modes nodes_truenodeids nodes_falsenodeids "
                         "nodes_missing_value_tracks_true").split()}
    leaves = []
    for tree in range(n_trees):
        inner = 2 ** depth - 1
        for node in range(2 * inner + 1):
            leaf = node >= inner
            a["nodes_treeids"].append(tree)
            a["nodes_nodeids"].append(node)
            a["nodes_featureids"].append(0 if leaf else int(g.integers(n_features)))
            a["nodes_values"].append(0.0 if leaf else float(g.integers(-2, 3)))
            a["nodes_modes"].append("LEAF" if leaf else str(g.choice(modes)))
            a["nodes_truenodeids"].append(0 if leaf else 2 * node + 1)
            a["nodes_falsenodeids"].append(0 if leaf else 2 * node + 2)
            a["nodes_missing_value_tracks_true"].append(int(g.integers(2)))
            if leaf:
                leaves.append((tree, node))
    return a, leaves, g


def votes(prefix, leaves, ids, g, low=-1.0):
    out = {f"{prefix}_treeids": [], f"{prefix}_nodeids": [], f"{prefix}_ids": [], f"{prefix}_weights": []}
    for tree, node in leaves:
        for i in ids:
            out[f"{prefix}_treeids"].append(tree)
            out[f"{prefix}_nodeids"].append(node)
            out[f"{prefix}_ids"].append(i)
            out[f"{prefix}_weights"].append(float(np.float32(g.uniform(low, 1))))
    return out


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    forest = dict(n_estimators=6, max_depth=4, random_state=0)
    skl("random_forest", RandomForestClassifier(**forest), iris_x, iris_y, zipmap=False)
    skl("random_forest_strings", RandomForestClassifier(**forest), iris_x, names, zipmap=False)
    skl("random_forest_binary", RandomForestClassifier(**forest), binary_x, binary_y, zipmap=False)
    skl("extra_trees_deep", ExtraTreesClassifier(n_estimators=3, random_state=1), iris_x, iris_y, zipmap=False)
    skl("decision_tree", DecisionTreeClassifier(max_depth=3, random_state=0), binary_x, binary_y.astype(bool), zipmap=False)
    skl("gradient_boosting", GradientBoostingClassifier(n_estimators=4, max_depth=2, random_state=0), iris_x, iris_y, zipmap=False)
    skl("gradient_boosting_binary", GradientBoostingClassifier(n_estimators=5, max_depth=3, random_state=0), binary_x, binary_y, zipmap=False)
    skl("random_forest_regressor", RandomForestRegressor(**forest), sugar_x, sugar_y, sugar_x[::29])
    skl("gradient_boosting_regressor", GradientBoostingRegressor(n_estimators=10, max_depth=3, random_state=0), sugar_x, sugar_y, sugar_x[::29])
    skl("decision_tree_two_targets", DecisionTreeRegressor(max_depth=4), sugar_x, np.stack([sugar_y, -sugar_y / 3], 1), sugar_x[::29])
    skl("logistic_regression", LogisticRegression(max_iter=500), iris_x, iris_y, zipmap=False)
    skl("logistic_regression_binary", LogisticRegression(), binary_x, binary_y, zipmap=False)
    skl("logistic_regression_strings_ovr", LogisticRegression(multi_class="ovr", solver="liblinear"), iris_x, names, zipmap=False)
    skl("linear_regression", LinearRegression(), sugar_x, sugar_y, sugar_x[::29])
    skl("ridge_two_targets", Ridge(), sugar_x, np.stack([sugar_y, sugar_y ** 2 / 100], 1), sugar_x[::29])
    skl("sgd", SGDClassifier(random_state=0), iris_x, iris_y, zipmap=False)
    skl("linear_svc", LinearSVC(random_state=0), iris_x, iris_y)
    for kernel in ("rbf", "poly", "sigmoid", "linear"):
        skl(f"svc_{kernel}_probability", SVC(kernel=kernel, probability=True, random_state=0, coef0=0.1), scaled[::3], iris_y[::3], scaled_rows, zipmap=False)
    skl("svc_binary_probability", SVC(probability=True, random_state=0), scaled_two[::2], binary_y[::2], scaled_rows, zipmap=False)
    skl("svc", SVC(), scaled[::3], names[::3], scaled_rows, zipmap=False)
    skl("svc_binary", SVC(kernel="poly", degree=2), scaled_two[::2], binary_y[::2], scaled_rows, zipmap=False)
    skl("nu_svc_probability", NuSVC(probability=True, random_state=0), scaled[::3], iris_y[::3], scaled_rows, zipmap=False)
    skl("svr", SVR(kernel="rbf", C=50), sugar_x[::12], sugar_y[::12], sugar_x[::29])
    skl("svr_poly", SVR(kernel="poly", C=50, coef0=1), sugar_x[::12], sugar_y[::12], sugar_x[::29])
    skl("one_class", OneClassSVM(nu=0.2), iris_x[::3], None, rows)

    small = dict(n_estimators=4, max_depth=3, random_state=0)
    shape = [("x", ToolsFloat([None, 4]))]
    for name, model, y, x in (
            ("xgboost", xgboost.XGBClassifier(**small), iris_y, rows), ("xgboost_binary", xgboost.XGBClassifier(**small), iris_y == 1, rows),
            ("xgboost_missing", xgboost.XGBClassifier(**small), iris_y, hole_rows), ("xgboost_regressor", xgboost.XGBRegressor(**small), iris_y, hole_rows)):
        model.fit(holes, y.astype(int))
        save(name, onnxmltools.convert_xgboost(model, initial_types=shape, target_opset=15), [x])
    light = dict(n_estimators=4, num_leaves=7, min_child_samples=5, verbose=-1)
    for name, model, y in (("lightgbm", lightgbm.LGBMClassifier(**light), iris_y), ("lightgbm_binary", lightgbm.LGBMClassifier(**light), iris_y == 1),
                           ("lightgbm_regressor", lightgbm.LGBMRegressor(**light), iris_y * 0.7)):
        model.fit(holes, y.astype(int) if y.dtype == bool else y)
        save(name, onnxmltools.convert_lightgbm(model, initial_types=shape, zipmap=False, target_opset=15), [hole_rows])

    # what converters do not write
    every = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
    x = rng.integers(-3, 4, (21, 5)).astype(np.float32)
    with_nan = x.copy()
    with_nan[rng.random(x.shape) < 0.15] = np.nan
    with_nan[3, :] = np.inf
    with_nan[4, :] = -np.inf
    for mode in every:
        nodes, leaves, g = random_trees(3, 3, [mode], 5, 3)
        by_hand("trees_" + mode.lower(), "TreeEnsembleRegressor", [with_nan], {**nodes, **votes("target", leaves, [0], g), "n_targets": 1}, [T.FLOAT])
    nodes, leaves, g = random_trees(11, 3, every, 5, 4)
    for aggregate in ("SUM", "AVERAGE", "MIN", "MAX"):
        by_hand("trees_" + aggregate.lower(), "TreeEnsembleRegressor", [with_nan],
                {**nodes, **votes("target", leaves, [0, 2], g), "n_targets": 3, "aggregate_function": aggregate}, [T.FLOAT])
        by_hand("trees_base_" + aggregate.lower(), "TreeEnsembleRegressor", [with_nan],
                {**nodes, **votes("target", leaves, [1, 0], g), "n_targets": 2, "aggregate_function": aggregate, "base_values": [0.5, -1.0]}, [T.FLOAT])
    one = votes("target", leaves, [0], g)
    by_hand("trees_average_one", "TreeEnsembleRegressor", [x], {**nodes, **one, "n_targets": 1, "aggregate_function": "AVERAGE", "base_values": [3.0]}, [T.FLOAT])
    for kind in (np.int64, np.int32):
        by_hand(f"trees_{np.dtype(kind).name}", "TreeEnsembleClassifier", [x.astype(kind)],
                {**nodes, **votes("class", leaves, [0, 1, 2], g), "classlabels_int64s": [2, 4, 6]}, [T.INT64, T.FLOAT])
    wide = {k: v for k, v in {**nodes, **one}.items() if k not in ("nodes_values", "target_weights")}
    tensor = lambda name, v: helper.make_tensor(name, T.DOUBLE, [len(v)], v)
    by_hand("trees_float64", "TreeEnsembleRegressor", [with_nan.astype(np.float64) + 1e-12],
            {**wide, "n_targets": 1, "nodes_values_as_tensor": tensor("v", [v + 1e-12 for v in nodes["nodes_values"]]),
             "target_weights_as_tensor": tensor("w", [w / 3 for w in one["target_weights"]]), "base_values_as_tensor": tensor("b", [0.1])}, [T.FLOAT])
    for post in ("SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"):
        by_hand("trees_classes_" + post.lower(), "TreeEnsembleClassifier", [x],
                {**nodes, **votes("class", leaves, [0, 1, 2], g), "classlabels_strings": ["a", "b", "c"], "post_transform": post,
                 "base_values": [0.1, 0.2, -0.1]}, [T.STRING, T.FLOAT])
    few, few_leaves, g = random_trees(2, 2, every, 5, 8)
    by_hand("trees_unvoted_class", "TreeEnsembleClassifier", [x], {**few, **votes("class", few_leaves[:4], [2], g, -2.0), "classlabels_int64s": [4, 7, 9]},
            [T.INT64, T.FLOAT])
    for post in ("NONE", "LOGISTIC", "SOFTMAX"):
        for sign, low in (("mixed", -1.0), ("positive", 0.0)):
            weights = votes("class", few_leaves, [0], g, low)
            by_hand(f"trees_binary_{sign}_{post.lower()}", "TreeEnsembleClassifier", [x],
                    {**few, **weights, "classlabels_int64s": [5, 9], "post_transform": post, "base_values": [0.25]}, [T.INT64, T.FLOAT])
        by_hand(f"trees_binary_second_{post.lower()}", "TreeEnsembleClassifier", [x],
                {**few, **votes("class", few_leaves, [1], g), "classlabels_strings": ["no", "yes"], "post_transform": post}, [T.STRING, T.FLOAT])
    probabilities = votes("target", few_leaves, [0], g, 0.0)
    probabilities["target_weights"] = [w * 0.4 + 0.01 for w in probabilities["target_weights"]]
    by_hand("trees_probit", "TreeEnsembleRegressor", [x], {**few, **probabilities, "n_targets": 1, "post_transform": "PROBIT"}, [T.FLOAT])

    u8 = lambda v: helper.make_tensor("m", T.UINT8, [len(v)], v)
    for dtype, code in ((np.float32, T.FLOAT), (np.float64, T.DOUBLE)):
        real = lambda v: helper.make_tensor("r", code, [len(v)], v)
        by_hand(f"trees_5_{np.dtype(dtype).name}", "TreeEnsemble", [with_nan.astype(dtype)], dict(
            n_targets=2, aggregate_function=1, post_transform=0, tree_roots=[0, 3], nodes_modes=u8([0, 6, 3, 5, 6]), nodes_featureids=[0, 1, 2, 3, 4],
            nodes_splits=real([0.5, 0.0, 1.0, -1.0, 0.0]), nodes_truenodeids=[1, 0, 2, 3, 5], nodes_trueleafs=[0, 1, 1, 1, 1],
            nodes_falsenodeids=[2, 1, 0, 4, 4], nodes_falseleafs=[0, 1, 1, 0, 1], leaf_targetids=[0, 1, 0, 1, 0, 1],
            nodes_missing_value_tracks_true=[1, 0, 0, 0, 0],
            leaf_weights=real([1.5, -2.25, 3.0, 0.125, 5.0, 7.0]), membership_values=real([1.0, -2.0, float("nan"), 0.0, 3.0, 2.0, float("nan")])), [code], 5)

    z = rng.normal(size=(9, 3)).astype(np.float32)
    for post in ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"):
        by_hand("linear_" + post.lower(), "LinearClassifier", [z], dict(coefficients=[0.05, 0.02, -0.03, 0.01, 0.04, 0.02, -0.05, 0.03, 0.01],
                intercepts=[0.2, 0.75, 0.8], classlabels_ints=[3, 1, 2], post_transform=post), [T.INT64, T.FLOAT], 1)
    by_hand("linear_one_row", "LinearClassifier", [z.astype(np.float64)], dict(coefficients=[0.5, 0.2, -0.3], intercepts=[0.1],
            classlabels_strings=["no", "yes"]), [T.STRING, T.FLOAT], 1)
    by_hand("linear_regressor_softmax", "LinearRegressor", [z], dict(coefficients=[0.5, 0.2, -0.3, 1, 2, 3],
            intercepts=[0.1, -1.0], targets=2, post_transform="SOFTMAX"), [T.FLOAT], 1)
    by_hand("svm_linear", "SVMClassifier", [z], dict(coefficients=[0.5, 0.2, -0.3, -0.5, 0.1, 0.3], rho=[0.1], classlabels_ints=[3, 8],
            kernel_params=[0.0, 0.0, 0.0]), [T.INT64, T.FLOAT], 1)
    by_hand("features", "FeatureVectorizer", [z, z[:, :2].astype(np.float32)], dict(inputdimensions=[3, 2]), [T.FLOAT], 1)
    by_hand("extractor", "ArrayFeatureExtractor", [z, np.array([2, 0], np.int64)], {}, [T.FLOAT], 1)
    by_hand("extractor_strings", "ArrayFeatureExtractor", [np.array([["a", "b", "c"], ["d", "e", "f"]], object), np.array([1], np.int64)], {}, [T.STRING], 1)
    by_hand("categories_to_ints", "CategoryMapper", [np.array(["cat", "dog", "emu"], object)], dict(cats_strings=["dog", "cat"], cats_int64s=[7, 3],
            default_int64=-5), [T.INT64], 1)
    by_hand("categories_to_strings", "CategoryMapper", [np.array([3, 9, 7], np.int64)], dict(cats_strings=["dog", "cat"], cats_int64s=[7, 3],
            default_string="?"), [T.STRING], 1)

    # text operators of ai.onnx
    words = np.array([["one", "two", "two", "three"], ["two", "one", "two", "five"]], object)
    grams = dict(min_gram_length=1, max_gram_length=2, max_skip_count=1, ngram_counts=[0, 3], ngram_indexes=[2, 0, 4, 1, 3],
                 pool_strings=["one", "two", "five", "one", "two", "two", "two"])
    for mode in ("TF", "IDF", "TFIDF"):
        by_hand("text_" + mode.lower(), "TfIdfVectorizer", [words], {**grams, "mode": mode, "weights": [0.5, 2.0, 3.0, 0.25, 7.0]}, [T.FLOAT], 17, "")
    numbers = rng.integers(0, 4, (3, 9))
    by_hand("text_ints", "TfIdfVectorizer", [numbers], dict(mode="TF", min_gram_length=2, max_gram_length=3, max_skip_count=2, ngram_counts=[0, 2, 8],
            ngram_indexes=[0, 1, 2, 3, 4, 5, 6], pool_int64s=[0, 1, 0, 1, 2, 3, 1, 1, 0, 0, 1, 1, 2, 3]), [T.FLOAT], 17, "")
    text = np.array(["a,b,,c", "no comma", ",end,"], object)  # of "" ONNX Runtime makes no parts, ONNX's reference one
    spaced = np.array([["  two words ", "one"], ["", "a b  c d"]], object)
    by_hand("text_split", "StringSplit", [text], dict(delimiter=","), [T.STRING, T.INT64], 20, "")
    by_hand("text_split_once", "StringSplit", [text], dict(delimiter=",", maxsplit=1), [T.STRING, T.INT64], 20, "")
    by_hand("text_split_spaces", "StringSplit", [spaced], {}, [T.STRING, T.INT64], 20, "")
    by_hand("text_concat", "StringConcat", [spaced, np.array(["-x", ""], object)], {}, [T.STRING], 20, "")
    some = np.array(["The", "Cat", "sat", "ON", "the", "mat"], object)
    for action in ("LOWER", "UPPER", "NONE"):
        by_hand("text_" + action.lower(), "StringNormalizer", [some], dict(case_change_action=action, stopwords=["the", "on"], locale="C"), [T.STRING], 17, "")
    addresses = np.array([["ada@example.org", "no address"], ["", "x@y.z"], ["Ünï@x.org", "ADA@EXAMPLE.ORG"]], object)
    for name, pattern in (("address", r"[\w.]+@[a-z]+\.[a-z]{2,3}"), ("fold", r"(?i)ada@(example|test)\.org"), ("unicode", r"[^@]{3}@.*"), ("empty", "(a*)*")):
        by_hand("text_regex_" + name, "RegexFullMatch", [addresses], dict(pattern=pattern), [T.BOOL], 20, "")

    # com.microsoft: what skl2onnx makes of vectorisers and hashers
    texts = np.array([["the fox, the dog", "ünï cödé x"], ["", "aab aaab b"]], object)
    tokens = dict(words=dict(tokenexp=r"[a-zA-Z0-9_]+", mincharnum=2), characters=dict(tokenexp="."), longest=dict(tokenexp="a|aa|aab", mark=1),
                  separators=dict(separators=[",", r"\s+|n"], mark=1), letters=dict(separators=[""]))
    for name, options in tokens.items():
        by_hand("text_tokens_" + name, "Tokenizer", [texts], {**dict(mark=0, mincharnum=1, pad_value="#"), **options}, [T.STRING], 1, "com.microsoft")
    for name, keys in (("strings", texts), ("numbers", np.array([0, 1, -7, 123456], np.int32)), ("doubles", np.array([[0.5, -3.0]]))):
        by_hand("hash_" + name, "MurmurHash3", [keys], dict(seed=3), [T.UINT32], 1, "com.microsoft")
    by_hand("hash_signed", "MurmurHash3", [texts], dict(positive=0), [T.INT32], 1, "com.microsoft")


if __name__ == "__main__":
    main()
