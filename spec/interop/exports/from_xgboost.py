"""onnxmltools on XGBoost: the scikit-learn estimators, all objectives its converter knows, missing values, limits on trees."""
import warnings

import numpy as np
import xgboost
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

import recorder

warnings.filterwarnings("ignore")
rng = np.random.default_rng(4)
X = rng.normal(size=(300, 6)).astype(np.float32)
SCORE = X[:, 0] - X[:, 1] * X[:, 2] + np.abs(X[:, 3])
BINARY, CLASSES = (SCORE > 0.5).astype(np.int64), np.digitize(SCORE, [-0.2, 1.2])
NEW = (rng.normal(size=(12, 6)) * 1.3).astype(np.float32)


def holes(x):
    return np.where(rng.random(x.shape) < 0.2, np.nan, x).astype(np.float32)


def export(name, model, y, x=X, new=NEW, zipmaps=False):
    if not recorder.wanted("xgboost_" + name):
        return
    model.fit(x, y)
    onx = convert_xgboost(model, initial_types=[("X", FloatTensorType([None, x.shape[1]]))])
    with open(recorder.path_of("xgboost_" + name), "wb") as file:
        file.write(onx.SerializeToString())
    recorder.add("xgboost_" + name, [{"X": new[:1]}, {"X": new}])


options = dict(n_estimators=15, max_depth=4, random_state=0, n_jobs=1)
export("binary", xgboost.XGBClassifier(**options), BINARY)
export("classes", xgboost.XGBClassifier(**options), CLASSES)
export("binary_missing", xgboost.XGBClassifier(**options), BINARY, holes(X), holes(NEW))
export("classes_missing", xgboost.XGBClassifier(**options), CLASSES, holes(X), holes(NEW))
export("binary_base_score", xgboost.XGBClassifier(base_score=0.3, **options), BINARY)
export("binary_deep", xgboost.XGBClassifier(n_estimators=60, max_depth=9, learning_rate=0.3, random_state=0, n_jobs=1), BINARY)
export("binary_random_forest", xgboost.XGBRFClassifier(n_estimators=10, max_depth=5, random_state=0, n_jobs=1), BINARY)
export("regression", xgboost.XGBRegressor(**options), SCORE)
export("regression_missing", xgboost.XGBRegressor(**options), SCORE, holes(X), holes(NEW))
export("regression_base_score", xgboost.XGBRegressor(base_score=2.5, **options), SCORE)
export("regression_absolute", xgboost.XGBRegressor(objective="reg:absoluteerror", **options), SCORE)
export("regression_huber", xgboost.XGBRegressor(objective="reg:pseudohubererror", **options), SCORE)
export("regression_logistic", xgboost.XGBRegressor(objective="reg:logistic", **options), BINARY)
export("regression_poisson", xgboost.XGBRegressor(objective="count:poisson", **options), np.floor(np.abs(SCORE)))
export("regression_random_forest", xgboost.XGBRFRegressor(n_estimators=10, max_depth=5, random_state=0, n_jobs=1), SCORE)
recorder.finish()
