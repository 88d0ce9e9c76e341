"""tf2onnx on Keras models with random weights: Sequential and functional, convolutions in TensorFlow's layout, recurrent layers, attention,
preprocessing layers. Only in the full run, since TensorFlow is large; run by the Python of a virtual environment of its own."""
import os
import warnings

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", TF_ENABLE_ONEDNN_OPTS="0")
warnings.filterwarnings("ignore")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tf2onnx  # noqa: E402
from keras import layers  # noqa: E402

import recorder  # noqa: E402

rng = np.random.default_rng(2)
keras.utils.set_random_seed(3)


def settle(model):
    """Statistics and affine terms as after training: those of a fresh model would hide mistakes."""
    for layer in model._flatten_layers() if hasattr(model, "_flatten_layers") else model.layers:
        for weight in layer.weights:
            low, high = {"moving_variance": (0.5, 1.5), "gamma": (0.7, 1.3), "moving_mean": (-0.3, 0.3), "beta": (-0.2, 0.2), "bias": (-0.2, 0.2)}.get(weight.name, (0, 0))
            if high > low:
                weight.assign(rng.uniform(low, high, weight.shape).astype(np.float32))


def export(name, model, rows=(1, 4), integers=0, opset=None):
    name = "keras_" + name
    if not recorder.wanted(name):
        return
    settle(model)
    signature = [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, name=f"input_{i}") for i, tensor in enumerate(model.inputs)]

    @tf.function(input_signature=signature)
    def call(*inputs):
        return model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)

    onx, _ = tf2onnx.convert.from_function(call, input_signature=signature, opset=opset)
    with open(recorder.path_of(name), "wb") as file:
        file.write(onx.SerializeToString())
    runs = []
    for count in rows:
        inputs = {}
        for spec in signature:
            shape = [count] + [9 if d is None else d for d in spec.shape[1:]]
            inputs[spec.name] = rng.integers(1, integers, shape).astype(np.int32) if spec.dtype.is_integer else rng.normal(size=shape).astype(np.float32)
        runs.append({value.name: inputs[value.name.split(":")[0]] for value in onx.graph.input})
    recorder.add(name, runs)


def sequential(*parts):
    return keras.Sequential(list(parts))


def mlp():
    return sequential(layers.Input((12,)), layers.Dense(24, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.4),
                      layers.Dense(16, activation=lambda x: keras.activations.gelu(x, approximate=True)),
                      layers.Dense(5, activation="softmax"))


def cnn():
    return sequential(layers.Input((16, 16, 3)), layers.Conv2D(8, 3, padding="same", activation="relu"), layers.BatchNormalization(), layers.MaxPooling2D(),
                      layers.SeparableConv2D(12, 3, activation="swish"), layers.DepthwiseConv2D(3, padding="same", strides=2), layers.ZeroPadding2D(1),
                      layers.AveragePooling2D(2),
                      layers.SpatialDropout2D(0.2), layers.GlobalAveragePooling2D(), layers.Dense(4, activation="softmax"))


def residual():
    x = inputs = layers.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    y = layers.Conv2D(8, 3, padding="same")(x)
    x = layers.add([x, layers.LeakyReLU()(y)])
    gate = layers.Dense(8, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.multiply([x, gate])
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def autoencoder():
    return sequential(layers.Input((12, 12, 1)), layers.Conv2D(6, 3, strides=2, padding="same", activation="elu"), layers.Conv2DTranspose(6, 3, strides=2, padding="same", activation="selu"),
                      layers.UpSampling2D(2, interpolation="bilinear"), layers.Cropping2D(1), layers.Conv2D(1, 1, activation="tanh"))


def attention():
    x = inputs = layers.Input((None,), dtype="int32")
    x = layers.Embedding(30, 16)(x)
    y = layers.MultiHeadAttention(4, 4)(x, x)
    x = layers.LayerNormalization()(x + y)
    x = layers.LayerNormalization()(x + layers.Dense(16)(layers.Dense(32, activation="relu")(x)))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


def two_inputs():
    a, b = layers.Input((4,)), layers.Input((6,))
    x = layers.concatenate([layers.Dense(5, activation="softsign")(a), layers.Dense(5, activation="softplus")(b)])
    return keras.Model([a, b], [layers.Dense(1, activation="sigmoid")(x), layers.Dense(3, activation="log_softmax")(x)])


def scaled():
    return sequential(layers.Input((6,)), layers.Rescaling(0.5, 1.0), layers.Dense(3, activation="hard_sigmoid"), layers.UnitNormalization())


def text(kind):
    part = {"lstm": lambda: layers.LSTM(8), "gru": lambda: layers.GRU(8), "gru_before": lambda: layers.GRU(8, reset_after=False), "rnn": lambda: layers.SimpleRNN(8),
            "bidirectional": lambda: layers.Bidirectional(layers.LSTM(8, return_sequences=True))}[kind]()
    parts = [layers.Input((9,), dtype="int32"), layers.Embedding(30, 12), part]
    if kind == "bidirectional":
        parts += [layers.TimeDistributed(layers.Dense(4)), layers.GlobalMaxPooling1D()]
    return sequential(*parts, layers.Dense(2, activation="softmax"))


def conv1d():
    return sequential(layers.Input((20, 4)), layers.Conv1D(8, 3, padding="causal", dilation_rate=2, activation="relu"), layers.MaxPooling1D(2), layers.GroupNormalization(4),
                      layers.Conv1D(6, 3), layers.Permute((2, 1)), layers.Reshape((-1,)), layers.PReLU(), layers.Dense(2))


export("mlp", mlp())
for version in (11, 13, 17):
    export(f"mlp_opset{version}", mlp(), opset=version)
    export(f"cnn_opset{version}", cnn(), opset=version)
export("cnn", cnn())
export("residual", residual())
export("autoencoder", autoencoder())
export("attention", attention(), integers=30)
export("two_inputs", two_inputs())
export("scaled", scaled())
export("conv1d", conv1d())
export("conv3d", sequential(layers.Input((6, 6, 6, 2)), layers.Conv3D(4, 3, activation="relu"), layers.GlobalAveragePooling3D(), layers.Dense(2)))
for recurrent in ("lstm", "gru", "gru_before", "rnn", "bidirectional"):
    export(f"text_{recurrent}", text(recurrent), integers=30)
export("mobilenet_v2", keras.applications.MobileNetV2((96, 96, 3), weights=None, classes=20), rows=(1, 2))
recorder.finish()
