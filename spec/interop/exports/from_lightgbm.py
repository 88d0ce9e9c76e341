"""onnxmltools on LightGBM: classifiers with the converter's defaults (which add ZipMap) and without ZipMap, regressors, boosters, categorical splits,
missing values."""
import warnings

import lightgbm
import numpy as np
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

import recorder

warnings.filterwarnings("ignore")
rng = np.random.default_rng(4)
X = rng.normal(size=(400, 6)).astype(np.float32)
SCORE = X[:, 0] - X[:, 1] * X[:, 2] + np.abs(X[:, 3])
NEW = (rng.normal(size=(12, 6)) * 1.3).astype(np.float32)
BINARY, CLASSES = (SCORE > 0.5).astype(np.int64), np.digitize(SCORE, [-0.2, 1.2])


def holes(x):
    return np.where(rng.random(x.shape) < 0.2, np.nan, x).astype(np.float32)


def categorical(x):
    """The first two columns become category numbers."""
    return np.concatenate([np.floor(np.abs(x[:, :2]) * 5), x[:, 2:]], 1).astype(np.float32)


def export(name, model, y, x=X, new=NEW, **options):
    if not recorder.wanted("lightgbm_" + name):
        return
    classifies = not isinstance(model, lightgbm.LGBMRegressor) if not isinstance(model, dict) else options.pop("classifies")
    fit = {"categorical_feature": [0, 1]} if "categor" in name else {}
    if isinstance(model, dict):
        model = lightgbm.train(model, lightgbm.Dataset(x, y), 10)
    else:
        model.fit(x, y, **fit)
    for suffix, zipmap in (("", {}), ("_nozipmap", {"zipmap": False})):
        if suffix and not classifies:
            continue
        onx = convert_lightgbm(model, initial_types=[("X", FloatTensorType([None, x.shape[1]]))], **zipmap, **options)
        with open(recorder.path_of("lightgbm_" + name + suffix), "wb") as file:
            file.write(onx.SerializeToString())
        recorder.add("lightgbm_" + name + suffix, [{"X": new[:1]}, {"X": new}])


small = dict(n_estimators=15, num_leaves=12, random_state=0, n_jobs=1, verbose=-1, min_child_samples=5)
export("binary", lightgbm.LGBMClassifier(**small), BINARY)
export("classes", lightgbm.LGBMClassifier(**small), CLASSES)
export("names", lightgbm.LGBMClassifier(**small), np.array(["low", "middle", "high"])[CLASSES])
export("binary_missing", lightgbm.LGBMClassifier(**small), BINARY, holes(X), holes(NEW))
export("classes_missing", lightgbm.LGBMClassifier(**small), CLASSES, holes(X), holes(NEW))
export("binary_zero_as_missing", lightgbm.LGBMClassifier(zero_as_missing=True, **small), BINARY, holes(X) * (X > -1), NEW * (NEW > -1))
export("binary_categories", lightgbm.LGBMClassifier(min_data_per_group=5, cat_smooth=1, **small), BINARY, categorical(X), categorical(NEW))
export("regression", lightgbm.LGBMRegressor(**small), SCORE)
export("regression_missing", lightgbm.LGBMRegressor(**small), SCORE, holes(X), holes(NEW))
export("regression_categories", lightgbm.LGBMRegressor(min_data_per_group=5, cat_smooth=1, **small), SCORE, categorical(X), categorical(NEW))
export("regression_split", lightgbm.LGBMRegressor(**small), SCORE, split=4)
export("regression_forest", lightgbm.LGBMRegressor(boosting_type="rf", bagging_freq=1, bagging_fraction=0.7, **small), SCORE)
export("regression_dart", lightgbm.LGBMRegressor(boosting_type="dart", **small), SCORE)
export("regression_poisson", lightgbm.LGBMRegressor(objective="poisson", **small), np.floor(np.abs(SCORE)))
export("regression_quantile", lightgbm.LGBMRegressor(objective="quantile", **small), SCORE)
export("regression_huber", lightgbm.LGBMRegressor(objective="huber", **small), SCORE)
quiet = dict(verbose=-1, num_leaves=8, num_threads=1)
export("booster_binary", dict(objective="binary", **quiet), BINARY, classifies=True)
export("booster_classes", dict(objective="multiclass", num_class=3, **quiet), CLASSES, classifies=True)
export("booster_regression", dict(objective="regression", **quiet), SCORE, classifies=False)
recorder.finish()
