"""skl2onnx on scikit-learn's estimators and pipelines: every classifier with the converter's defaults (which add ZipMap) and without ZipMap.
Left out are those it has no converter for, and those whose file ONNX Runtime cannot load: GaussianProcessClassifier becomes an operator that
exists nowhere (com.microsoft.Solve), SelectFromModel a ConstantOfShape of floats."""
import warnings

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn import (calibration, cluster, compose, cross_decomposition, decomposition, discriminant_analysis, ensemble, feature_extraction,
                     feature_selection, gaussian_process, impute, isotonic, kernel_approximation, linear_model, mixture, multiclass, multioutput,
                     naive_bayes, neighbors, neural_network, pipeline, preprocessing, random_projection, svm, tree)
from sklearn.gaussian_process import kernels

import recorder

warnings.filterwarnings("ignore")
rng = np.random.default_rng(9)
ROWS, WIDTH = 160, 5

X = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
SCORE = X[:, 0] * 1.5 + np.sin(2 * X[:, 1]) - X[:, 2] * X[:, 3]
BINARY = (SCORE + 0.3 * rng.normal(size=ROWS) > 0).astype(np.int64)
CLASSES = np.digitize(SCORE, [-0.8, 0.8]).astype(np.int64)
NAMES = np.array(["low", "middle", "high"])[CLASSES]
TARGET = (SCORE * 3 + 1).astype(np.float32)
TARGETS = np.stack([TARGET, X[:, 3] - X[:, 4]], 1)
COUNTS = np.floor(np.abs(X) * 4).astype(np.float32)
HOLES = np.where(rng.random(X.shape) < 0.15, np.nan, X).astype(np.float32)
NEW = (rng.normal(size=(9, WIDTH)) * 1.2).astype(np.float32)
NEW_HOLES = np.where(rng.random(NEW.shape) < 0.2, np.nan, NEW).astype(np.float32)
NEW_COUNTS = np.floor(np.abs(NEW) * 4).astype(np.float32)
WORDS = np.array("the a red green quick lazy fox dog runs jumps over under Very FAST slow it's e-mail don't 2nd x 42".split())
TEXT = np.array([" ".join(rng.choice(WORDS, size=rng.integers(3, 9))) for _ in range(ROWS)])
NEW_TEXT = np.array([" ".join(rng.choice(WORDS, size=rng.integers(2, 9))) for _ in range(6)] + ["", "unknown words only", "fox, dog; FOX!"])
CITY, COLOUR = rng.choice(["Bern", "Lima", "Oslo"], size=ROWS), rng.choice(["red", "green"], size=ROWS)
NEW_CITY, NEW_COLOUR = rng.choice(["Bern", "Lima", "Oslo", "Rome"], size=9), rng.choice(["red", "green", "blue"], size=9)


def export(name, model, initial_types, inputs, **options):
    """One export; inputs: whole arrays by name, tried one row at a time and all rows together."""
    if not recorder.wanted(name):
        return
    target = options.pop("target_opset", None)
    try:
        onx = to_onnx(model, initial_types=initial_types, options={id(model): options} if options else None, target_opset=target)
    except Exception as problem:
        raise RuntimeError(f"{name} cannot be exported: {problem}") from problem
    with open(recorder.path_of(name), "wb") as file:
        file.write(onx.SerializeToString())
    recorder.add(name, [{k: v[:1] for k, v in inputs.items()}, inputs])


def features(kind=FloatTensorType, width=WIDTH):
    return [("X", kind([None, width]))]


def has_zipmap(model):
    last = model.steps[-1][1] if isinstance(model, pipeline.Pipeline) else model
    return not isinstance(last, (svm.LinearSVC, linear_model.RidgeClassifier))


def classifier(name, model, y=CLASSES, x=X, new=NEW, kind=FloatTensorType, defaults=True, **options):
    """defaults False: ONNX Runtime has no ZipMap of doubles, nor of several targets."""
    model.fit(x, y)
    if defaults:
        export(f"sklearn_{name}", model, features(kind, new.shape[1]), {"X": new})
    if has_zipmap(model):
        export(f"sklearn_{name}_nozipmap", model, features(kind, new.shape[1]), {"X": new}, zipmap=False, **options)


def other(name, model, y=None, x=X, new=NEW, kind=FloatTensorType, **options):
    model.fit(x, y)
    export(f"sklearn_{name}", model, features(kind, new.shape[1]), {"X": new}, **options)


def column_inputs(pairs):
    """Inputs a column at a time, as skl2onnx wants them for a data frame."""
    return {key: column.reshape(-1, 1) for key, column in pairs}


def linear_models():
    for y, kind in ((BINARY, "binary"), (CLASSES, "classes"), (NAMES, "names")):
        classifier(f"logistic_{kind}", linear_model.LogisticRegression(), y)
        classifier(f"scaled_logistic_{kind}", pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()), y)
    classifier("logistic_double", linear_model.LogisticRegression(), kind=DoubleTensorType, x=X.astype(np.float64), new=NEW.astype(np.float64), defaults=False)
    classifier("logistic_int64", linear_model.LogisticRegression(), kind=Int64TensorType, x=COUNTS, new=NEW_COUNTS.astype(np.int64))
    classifier("logistic_ovr", multiclass.OneVsRestClassifier(linear_model.LogisticRegression()))
    classifier("logistic_cv", linear_model.LogisticRegressionCV(cv=3, Cs=3))
    classifier("ridge_classifier", linear_model.RidgeClassifier())
    classifier("ridge_classifier_binary", linear_model.RidgeClassifier(), BINARY)
    classifier("perceptron", linear_model.Perceptron())
    classifier("passive_aggressive", linear_model.PassiveAggressiveClassifier(), BINARY)
    for loss in ("log_loss", "modified_huber", "hinge"):
        classifier(f"sgd_{loss}", linear_model.SGDClassifier(loss=loss))
    classifier("lda", discriminant_analysis.LinearDiscriminantAnalysis(), NAMES)
    classifier("qda", discriminant_analysis.QuadraticDiscriminantAnalysis())
    regressors = dict(linear=linear_model.LinearRegression(), ridge=linear_model.Ridge(), lasso=linear_model.Lasso(0.05), lars=linear_model.Lars(),
                      elastic_net=linear_model.ElasticNet(0.05), bayesian_ridge=linear_model.BayesianRidge(), huber=linear_model.HuberRegressor(),
                      ard=linear_model.ARDRegression(), theil_sen=linear_model.TheilSenRegressor(max_subpopulation=50, random_state=0),
                      sgd=linear_model.SGDRegressor(), ransac=linear_model.RANSACRegressor(random_state=0), tweedie=linear_model.TweedieRegressor(power=0),
                      quantile=linear_model.QuantileRegressor(alpha=0.01, solver="highs"), omp=linear_model.OrthogonalMatchingPursuit())
    for name, model in regressors.items():
        other(f"regressor_{name}", model, TARGET)
    other("regressor_poisson", linear_model.PoissonRegressor(), np.abs(TARGET))
    other("regressor_gamma", linear_model.GammaRegressor(), np.abs(TARGET) + 0.1)
    other("regressor_linear_two_targets", linear_model.LinearRegression(), TARGETS)
    other("regressor_multi_task_lasso", linear_model.MultiTaskLasso(0.05), TARGETS)
    other("regressor_pls", cross_decomposition.PLSRegression(2), TARGETS)
    other("regressor_polynomial", pipeline.make_pipeline(preprocessing.PolynomialFeatures(3), linear_model.Ridge()), TARGET)
    other("regressor_multi_output", multioutput.MultiOutputRegressor(linear_model.Ridge()), TARGETS)
    other("linear_svr", svm.LinearSVR(), TARGET)


def support_vectors():
    for kernel in ("rbf", "linear", "poly", "sigmoid"):
        classifier(f"svc_{kernel}", svm.SVC(kernel=kernel))
        classifier(f"svc_{kernel}_probability", svm.SVC(kernel=kernel, probability=True, random_state=0))
        other(f"svr_{kernel}", svm.SVR(kernel=kernel), TARGET)
    classifier("svc_names_probability", svm.SVC(probability=True, random_state=0), NAMES)
    classifier("svc_binary_probability", svm.SVC(probability=True, random_state=0), BINARY)
    classifier("svc_binary", svm.SVC(), BINARY)
    classifier("svc_ovo", svm.SVC(decision_function_shape="ovo"), NAMES)
    classifier("nu_svc_probability", svm.NuSVC(nu=0.3, probability=True, random_state=0))
    classifier("nu_svc", svm.NuSVC(nu=0.3), BINARY)
    other("nu_svr", svm.NuSVR(), TARGET)
    classifier("linear_svc", svm.LinearSVC())
    classifier("linear_svc_binary", svm.LinearSVC(), BINARY)
    other("one_class_svm", svm.OneClassSVM())


def trees():
    for y, kind in ((BINARY, "binary"), (CLASSES, "classes"), (NAMES, "names")):
        classifier(f"tree_{kind}", tree.DecisionTreeClassifier(max_depth=6, random_state=0), y)
        classifier(f"forest_{kind}", ensemble.RandomForestClassifier(20, random_state=0), y)
        classifier(f"extra_trees_{kind}", ensemble.ExtraTreesClassifier(20, random_state=0), y)
        classifier(f"gradient_boosting_{kind}", ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0), y)
        classifier(f"hist_gradient_boosting_{kind}", ensemble.HistGradientBoostingClassifier(max_iter=20, random_state=0), y)
    classifier("hist_gradient_boosting_missing", ensemble.HistGradientBoostingClassifier(max_iter=20, random_state=0), x=HOLES, new=NEW_HOLES)
    classifier("extra_tree", tree.ExtraTreeClassifier(random_state=0))
    classifier("forest_two_targets", ensemble.RandomForestClassifier(10, random_state=0), np.stack([BINARY, CLASSES], 1), defaults=False)
    classifier("forest_double", ensemble.RandomForestClassifier(20, random_state=0), x=X.astype(np.float64), new=NEW.astype(np.float64), kind=DoubleTensorType)
    classifier("forest_int64", ensemble.RandomForestClassifier(20, random_state=0), x=COUNTS, new=NEW_COUNTS.astype(np.int64), kind=Int64TensorType)
    regressors = dict(tree=tree.DecisionTreeRegressor(max_depth=7, random_state=0), extra_tree=tree.ExtraTreeRegressor(random_state=0),
                      forest=ensemble.RandomForestRegressor(20, random_state=0), extra_trees=ensemble.ExtraTreesRegressor(20, random_state=0),
                      gradient_boosting=ensemble.GradientBoostingRegressor(n_estimators=20, random_state=0),
                      hist_gradient_boosting=ensemble.HistGradientBoostingRegressor(max_iter=20, random_state=0))
    for name, model in regressors.items():
        other(f"regressor_{name}", model, TARGET)
    other("regressor_forest_two_targets", ensemble.RandomForestRegressor(10, random_state=0), TARGETS)
    other("regressor_hist_gradient_boosting_missing", ensemble.HistGradientBoostingRegressor(max_iter=20, random_state=0), TARGET, x=HOLES, new=NEW_HOLES)
    other("isolation_forest", ensemble.IsolationForest(n_estimators=20, random_state=0), target_opset={"": 17, "ai.onnx.ml": 3})


def ensembles():
    parts = [("logistic", linear_model.LogisticRegression()), ("tree", tree.DecisionTreeClassifier(max_depth=4, random_state=0))]
    classifier("voting_soft", ensemble.VotingClassifier(parts, voting="soft", flatten_transform=False))
    classifier("voting_hard", ensemble.VotingClassifier(parts, voting="hard", flatten_transform=False))
    classifier("stacking", ensemble.StackingClassifier(parts, cv=3))
    classifier("bagging", ensemble.BaggingClassifier(n_estimators=5, random_state=0))
    classifier("ada_boost", ensemble.AdaBoostClassifier(n_estimators=5, random_state=0))
    classifier("one_vs_rest", multiclass.OneVsRestClassifier(svm.LinearSVC()), NAMES)
    classifier("one_vs_one", multiclass.OneVsOneClassifier(linear_model.LogisticRegression()))
    classifier("multi_output", multioutput.MultiOutputClassifier(linear_model.LogisticRegression()), np.stack([BINARY, CLASSES], 1))
    for method in ("sigmoid", "isotonic"):
        for y, kind in ((BINARY, "binary"), (NAMES, "names")):
            classifier(f"calibrated_{method}_{kind}", calibration.CalibratedClassifierCV(svm.LinearSVC(), method=method, cv=3), y)
    classifier("calibrated_forest", calibration.CalibratedClassifierCV(ensemble.RandomForestClassifier(10, random_state=0), cv=3))
    numeric = [("ridge", linear_model.Ridge()), ("tree", tree.DecisionTreeRegressor(max_depth=4, random_state=0))]
    other("regressor_voting", ensemble.VotingRegressor(numeric), TARGET)
    other("regressor_stacking", ensemble.StackingRegressor(numeric, cv=3), TARGET)
    other("regressor_bagging", ensemble.BaggingRegressor(n_estimators=5, random_state=0), TARGET)
    other("regressor_ada_boost", ensemble.AdaBoostRegressor(n_estimators=5, random_state=0), TARGET)


def neighbours_and_processes():
    for y, kind in ((BINARY, "binary"), (NAMES, "names")):
        classifier(f"knn_{kind}", neighbors.KNeighborsClassifier(5), y)
    classifier("knn_distance", neighbors.KNeighborsClassifier(4, weights="distance"))
    classifier("knn_manhattan", neighbors.KNeighborsClassifier(5, metric="manhattan"))
    classifier("radius_neighbours", neighbors.RadiusNeighborsClassifier(4.0))
    other("regressor_knn", neighbors.KNeighborsRegressor(5), TARGET)
    other("regressor_knn_distance", neighbors.KNeighborsRegressor(4, weights="distance"), TARGET)
    other("regressor_knn_two_targets", neighbors.KNeighborsRegressor(5), TARGETS)
    other("regressor_radius", neighbors.RadiusNeighborsRegressor(4.0), TARGET)
    other("nearest_neighbours", neighbors.NearestNeighbors(n_neighbors=3, radius=None))
    other("knn_imputer", impute.KNNImputer(n_neighbors=3), x=HOLES, new=NEW_HOLES)
    kernel_list = dict(rbf=kernels.RBF(1.5), constant=kernels.ConstantKernel(2.0) * kernels.RBF(1.5) + kernels.WhiteKernel(0.1), dot=kernels.DotProduct() + kernels.WhiteKernel(0.5),
                       rational=kernels.RationalQuadratic(1.2, 0.8), exp_sine=kernels.ExpSineSquared(1.2, 3.0), matern=kernels.Matern(1.5, nu=1.5))
    for name, kernel in kernel_list.items():
        model = gaussian_process.GaussianProcessRegressor(kernel, alpha=0.5, optimizer=None)
        width = 1 if name == "exp_sine" else WIDTH  # not positive definite in more dimensions
        x, new = (table[:, :width].astype(np.float64) for table in (X, NEW))
        other(f"regressor_gaussian_process_{name}", model, TARGET, x=x, new=new, kind=DoubleTensorType)
    model = gaussian_process.GaussianProcessRegressor(kernels.RBF(1.5), alpha=1e-2, optimizer=None)
    other("regressor_gaussian_process_std", model, TARGET, x=X.astype(np.float64), new=NEW.astype(np.float64), kind=DoubleTensorType, return_std=True)


def bayes_and_networks():
    classifier("gaussian_nb", naive_bayes.GaussianNB(), NAMES)
    for model in (naive_bayes.MultinomialNB(), naive_bayes.ComplementNB()):
        classifier(type(model).__name__, model, x=COUNTS, new=NEW_COUNTS)
    classifier("bernoulli_nb", naive_bayes.BernoulliNB())
    classifier("categorical_nb", naive_bayes.CategoricalNB(min_categories=20), x=COUNTS, new=np.minimum(NEW_COUNTS, 5))
    for activation in ("relu", "tanh", "logistic", "identity"):
        classifier(f"mlp_{activation}", neural_network.MLPClassifier((8, 6), activation=activation, max_iter=60, random_state=0), NAMES)
    classifier("mlp_binary", neural_network.MLPClassifier((8,), max_iter=60, random_state=0), BINARY)
    other("regressor_mlp", neural_network.MLPRegressor((8,), max_iter=60, random_state=0), TARGET)


def unsupervised():
    steps = dict(pca=decomposition.PCA(3), pca_whiten=decomposition.PCA(3, whiten=True), incremental_pca=decomposition.IncrementalPCA(2), truncated_svd=decomposition.TruncatedSVD(2),
                 kernel_pca=decomposition.KernelPCA(2, kernel="rbf"),
                 kmeans=cluster.KMeans(3, n_init=2, random_state=0), mini_batch_kmeans=cluster.MiniBatchKMeans(3, n_init=2, random_state=0),
                 gaussian_mixture=mixture.GaussianMixture(2, random_state=0), bayesian_mixture=mixture.BayesianGaussianMixture(n_components=2, random_state=0),
                 gaussian_projection=random_projection.GaussianRandomProjection(3, random_state=0),
                 standard=preprocessing.StandardScaler(), min_max=preprocessing.MinMaxScaler(clip=True), max_abs=preprocessing.MaxAbsScaler(),
                 robust=preprocessing.RobustScaler(), normalizer_l1=preprocessing.Normalizer("l1"), normalizer_l2=preprocessing.Normalizer(),
                 binarizer=preprocessing.Binarizer(threshold=0.2),
                 polynomial=preprocessing.PolynomialFeatures(2, interaction_only=True), power=preprocessing.PowerTransformer(),
                 discretizer=preprocessing.KBinsDiscretizer(4, encode="onehot-dense"), discretizer_ordinal=preprocessing.KBinsDiscretizer(4, encode="ordinal"),
                 variance=feature_selection.VarianceThreshold(0.9), function=preprocessing.FunctionTransformer())
    for name, model in steps.items():
        other(name, model)
    for name, model in dict(select_k=feature_selection.SelectKBest(k=2), select_percentile=feature_selection.SelectPercentile(percentile=40),
                            rfe=feature_selection.RFE(linear_model.LogisticRegression(), n_features_to_select=2)).items():
        other(name, model, BINARY)
    # of negative numbers ONNX Runtime takes the largest, scikit-learn and ONNX's reference the largest absolute value
    other("normalizer_max", preprocessing.Normalizer("max"), x=COUNTS, new=NEW_COUNTS)
    for strategy in ("mean", "median", "most_frequent", "constant"):
        other(f"imputer_{strategy}", impute.SimpleImputer(strategy=strategy), x=HOLES, new=NEW_HOLES)
    whole = preprocessing.FunctionTransformer()
    other("feature_union", pipeline.FeatureUnion([("scaled", preprocessing.StandardScaler()), ("pca", decomposition.PCA(2)), ("as_is", whole)]))


def categories():
    both = np.stack([CITY, COLOUR], 1).astype(object)
    new = np.stack([NEW_CITY, NEW_COLOUR], 1).astype(object)
    known = np.stack([CITY[:9], COLOUR[:9]], 1).astype(object)
    other("one_hot", preprocessing.OneHotEncoder(handle_unknown="ignore"), x=both, new=new, kind=StringTensorType)
    other("one_hot_drop", preprocessing.OneHotEncoder(drop="first", sparse_output=False), x=both, new=known, kind=StringTensorType)
    other("one_hot_int64", preprocessing.OneHotEncoder(handle_unknown="ignore"), x=COUNTS.astype(np.int64), new=NEW_COUNTS.astype(np.int64), kind=Int64TensorType)
    other("ordinal", preprocessing.OrdinalEncoder(), x=both, new=known, kind=StringTensorType)
    other("target_encoder", preprocessing.TargetEncoder(random_state=0), TARGET, x=both, new=known, kind=StringTensorType)
    other("feature_hasher", feature_extraction.FeatureHasher(8, input_type="string"), x=both, new=known, kind=StringTensorType)
    encoder = preprocessing.LabelEncoder().fit(CITY)
    export("sklearn_label_encoder", encoder, [("X", StringTensorType([None]))], {"X": CITY[:9].astype(object)})
    binarizer = preprocessing.LabelBinarizer().fit(CLASSES)
    export("sklearn_label_binarizer", binarizer, [("X", Int64TensorType([None]))], {"X": CLASSES[:9]})
    # positions instead of a data frame's names, one input a column group
    table = np.empty((ROWS, 4), dtype=object)
    table[:, 0], table[:, 1], table[:, 2:] = CITY, COLOUR, X[:, :2]
    columns = compose.ColumnTransformer([("category", preprocessing.OneHotEncoder(handle_unknown="ignore"), [0, 1]),
                                         ("number", pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler()), [2, 3])])
    types = [("text", StringTensorType([None, 2])), ("numbers", FloatTensorType([None, 2]))]
    inputs = {"text": new, "numbers": np.where(rng.random((9, 2)) < 0.3, np.nan, NEW[:, :2]).astype(np.float32)}
    for y, kind in ((BINARY, "binary"), (NAMES, "names")):
        for last, model in (("logistic", linear_model.LogisticRegression()), ("forest", ensemble.RandomForestClassifier(10, random_state=0))):
            whole = pipeline.Pipeline([("columns", columns), ("model", model)]).fit(table, y)
            export(f"sklearn_columns_{last}_{kind}", whole, types, inputs)
            export(f"sklearn_columns_{last}_{kind}_nozipmap", whole, types, inputs, zipmap=False)
    single = [("city", StringTensorType([None, 1])), ("colour", StringTensorType([None, 1])), ("a", FloatTensorType([None, 1])), ("b", FloatTensorType([None, 1]))]
    whole = pipeline.Pipeline([("columns", columns), ("model", linear_model.Ridge())]).fit(table, TARGET)
    export("sklearn_columns_ridge", whole, single, column_inputs([("city", new[:, 0]), ("colour", new[:, 1]), ("a", NEW[:, 0]), ("b", NEW[:, 1])]))


def texts():
    vectorizers = dict(tfidf=feature_extraction.text.TfidfVectorizer(), count=feature_extraction.text.CountVectorizer(),
                       tfidf_bigrams=feature_extraction.text.TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
                       count_binary=feature_extraction.text.CountVectorizer(binary=True, lowercase=False),
                       tfidf_stop=feature_extraction.text.TfidfVectorizer(stop_words=["the", "a"], norm="l1", use_idf=False),
                       count_characters=feature_extraction.text.CountVectorizer(analyzer="char", ngram_range=(1, 2)),
                       count_pattern=feature_extraction.text.CountVectorizer(token_pattern="[a-zA-Z]+"))
    types, inputs = [("text", StringTensorType([None, 1]))], {"text": NEW_TEXT.reshape(-1, 1).astype(object)}
    for name, vectorizer in vectorizers.items():
        vectorizer.fit(TEXT)
        export(f"sklearn_{name}", vectorizer, types, inputs)
        model = pipeline.make_pipeline(vectorizer, linear_model.LogisticRegression()).fit(TEXT, NAMES)
        export(f"sklearn_{name}_logistic", model, types, inputs)
        export(f"sklearn_{name}_logistic_nozipmap", model, types, inputs, zipmap=False)
    model = pipeline.make_pipeline(feature_extraction.text.TfidfVectorizer(), naive_bayes.MultinomialNB()).fit(TEXT, BINARY)
    export("sklearn_tfidf_naive_bayes", model, types, inputs)


def opsets():
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()).fit(X, NAMES)
    forest = ensemble.RandomForestClassifier(10, random_state=0).fit(X, NAMES)
    for version in (9, 11, 13, 15, 17, 19, 21):
        machine = 1 if version < 11 else 2 if version < 15 else 3
        for name, estimator in (("logistic", model), ("forest", forest)):
            export(f"sklearn_opset{version}_{name}", estimator, features(), {"X": NEW}, zipmap=False, target_opset={"": version, "ai.onnx.ml": machine})


for part in (linear_models, support_vectors, trees, ensembles, neighbours_and_processes, bayes_and_networks, unsupervised, categories, texts, opsets):
    part()
recorder.finish()
