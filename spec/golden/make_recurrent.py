"""Writes spec/golden/recurrent: LSTM, GRU and RNN in the corners that ONNX's own test data does not reach (both directions, sequences of unequal
length, peepholes, clip, other activations, float64), with ONNX Runtime's outputs, in the layout of ONNX's own test data. Expected values never
come from mlserve. Run: python3 spec/golden/make_recurrent.py (needs numpy, onnx, onnxruntime)."""
import os
import shutil

import numpy as np
import onnxruntime
from onnx import TensorProto as T
from onnx import helper, numpy_helper

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "recurrent")
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
rng = np.random.default_rng(3)


def case(name, op, steps=5, batch=3, inputs=4, hidden=6, bias=True, lens=None, states=False, peepholes=False, constant=True, dtype=np.float32, **attributes):
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = GATES[op] * hidden
    make = lambda *shape: rng.uniform(-0.8, 0.8, shape).astype(dtype)
    given = {"X": make(steps, batch, inputs), "W": make(directions, rows, inputs), "R": make(directions, rows, hidden)}
    if bias:
        given["B"] = make(directions, 2 * rows)
    if lens:
        given["sequence_lens"] = np.array(lens, np.int32)
    if states:
        given["initial_h"] = make(directions, batch, hidden)
        if op == "LSTM":
            given["initial_c"] = make(directions, batch, hidden)
    if peepholes:
        given["P"] = make(directions, 3 * hidden)
    order = ["X", "W", "R", "B", "sequence_lens", "initial_h"] + (["initial_c", "P"] if op == "LSTM" else [])
    names = [n if n in given else "" for n in order]
    while not names[-1]:
        names.pop()
    outputs = ["Y", "Y_h"] + (["Y_c"] if op == "LSTM" else [])
    node = helper.make_node(op, names, outputs, hidden_size=hidden, **attributes)
    fixed = ["W", "R", "B", "P"] if constant else []
    kind = helper.np_dtype_to_tensor_dtype
    feeds = {n: a for n, a in given.items() if n not in fixed}
    graph = helper.make_graph([node], "golden", [helper.make_tensor_value_info(n, kind(a.dtype), a.shape) for n, a in feeds.items()],
                              [helper.make_tensor_value_info(n, kind(np.dtype(dtype)), None) for n in outputs],
                              [numpy_helper.from_array(a, n) for n, a in given.items() if n in fixed])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="golden")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, feeds)
    data = os.path.join(ROOT, name, "test_data_set_0")
    os.makedirs(data)
    with open(os.path.join(ROOT, name, "model.onnx"), "wb") as f:
        f.write(model.SerializeToString())
    for what, arrays in (("input", feeds.values()), ("output", expected)):
        for i, array in enumerate(arrays):
            with open(os.path.join(data, f"{what}_{i}.pb"), "wb") as f:
                f.write(numpy_helper.from_array(array, f"{what}_{i}").SerializeToString())


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    lens = [5, 2, 4]
    for op in GATES:
        low = op.lower()
        case(low, op)
        case(f"{low}_weights_given", op, constant=False)
        case(f"{low}_reverse", op, direction="reverse", states=True)
        case(f"{low}_bidirectional", op, direction="bidirectional", states=True)
        case(f"{low}_lengths", op, lens=lens, states=True)
        case(f"{low}_lengths_bidirectional", op, lens=lens, direction="bidirectional", bias=False)
        case(f"{low}_clip", op, clip=0.3)
        case(f"{low}_one_row", op, batch=1, hidden=17, inputs=9)
    case("gru_linear", "GRU", linear_before_reset=1, states=True)
    case("gru_linear_bidirectional", "GRU", linear_before_reset=1, direction="bidirectional", lens=lens)
    case("gru_linear_no_bias", "GRU", linear_before_reset=1, bias=False)
    case("gru_activations", "GRU", activations=["HardSigmoid", "Softsign"], activation_alpha=[0.3], activation_beta=[0.4])
    case("lstm_peepholes", "LSTM", peepholes=True, states=True)
    case("lstm_peepholes_bidirectional", "LSTM", peepholes=True, states=True, direction="bidirectional", lens=lens)
    case("lstm_input_forget", "LSTM", input_forget=1)
    case("lstm_activations", "LSTM", activations=["Sigmoid", "Relu", "Elu"], activation_alpha=[0.7])
    case("rnn_relu", "RNN", activations=["Relu"])
    case("rnn_leaky_bidirectional", "RNN", activations=["LeakyRelu", "ScaledTanh"], activation_alpha=[0.2, 0.5], activation_beta=[1.5], direction="bidirectional")


if __name__ == "__main__":
    main()
