"""Against PyTorch: networks exported by PyTorch and trained on here give, after some steps of gradient descent, what they give when PyTorch takes the
same steps (so the gradients of every operator on the way are PyTorch's); and a network that PyTorch trained on one half of the digits learns the
other half here, with another last layer, with and without its first layers frozen."""
import importlib.util
import os
import re
import sys
import tempfile
import warnings

import numpy as np
import torch
from torch import nn

from support import DATA, HERE, ask, check, finish

sys.path.insert(0, os.path.join(HERE, "exports"))
import from_pytorch as zoo  # noqa: E402

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
TOLERANCE, STEPS, RATE = 1e-4, 3, 0.05
ROWS = 4


class First(nn.Module):
    """Only the first output of a network: the loss is on that one."""
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, *inputs):
        return self.network(*inputs)[0]


def floats(*shape):
    return torch.randn(*shape)


def networks():
    """name -> (network, inputs, names of the inputs)"""
    words, image = zoo.words(ROWS, 9), ("x",)
    rows = {
        "mlp": (zoo.mlp(), (floats(ROWS, 13),), image),
        "cnn": (zoo.sequential_cnn()[:-1], (floats(ROWS, 1, 12, 12),), image),
        "mobilenet_v3_block": (zoo.mobile_v3(), (floats(ROWS, 3, 32, 32),), image),
        "residual": (nn.Sequential(zoo.BasicBlock(3, 6, 2), zoo.InvertedResidual(6, 6, 1, 2), nn.Flatten(), nn.Linear(384, 3)), (floats(ROWS, 3, 16, 16),), image),
        "conv1d": (zoo.conv1d(), (floats(ROWS, 2, 24),), image),
        "conv3d": (zoo.conv3d(), (floats(ROWS, 1, 6, 6, 6),), image),
        "group_norm": (nn.Sequential(nn.Conv2d(2, 6, 3), nn.GroupNorm(3, 6), nn.SiLU(), nn.InstanceNorm2d(6, affine=True), nn.PReLU(6)), (floats(ROWS, 2, 7, 6),), image),
        "lstm": (First(zoo.LSTMStates(num_layers=2, bidirectional=True)), (floats(4, ROWS, 6), floats(4, ROWS, 10), floats(4, ROWS, 10)), ("x", "h", "c")),
        "gru": (First(zoo.Recurrent("GRU", bidirectional=True)), (floats(2, ROWS, 6), floats(2, ROWS, 10)), ("x", "h")),
        "rnn": (First(zoo.Recurrent("RNN", num_layers=2)), (floats(2, ROWS, 6), floats(2, ROWS, 10)), ("x", "h")),
        "vision_transformer": (First(zoo.Vision()), (floats(ROWS, 3, 32, 32),), image),
    }
    for mode in ("transposed", "nearest", "bilinear"):
        rows[f"unet_{mode}"] = (zoo.UNet(mode), (floats(ROWS, 1, 16, 12),), image)
    for kind in ("LSTM", "GRU", "RNN"):
        rows[f"text_{kind.lower()}"] = (zoo.TextRecurrent(kind), (words,), image)
    for activation, first in (("relu", False), ("gelu", True)):
        rows[f"encoder_{activation}"] = (zoo.Encoder(activation, first), (words,), image)
    rows["decoder"] = (zoo.Decoder(), (words,), image)
    return rows


def frozen(network):
    """Batch normalisation, which would otherwise be trained with the statistics of the batch; and tables that PyTorch does not train."""
    names = [name for name, _ in network.named_buffers() if name.endswith("table")]
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            names += [f"{name}.weight", f"{name}.bias"]
            module.requires_grad_(False)
    return ["^" + re.sub(r"([^\w])", r"%\1", name) + "$" for name in names]


def trained(network, inputs, target):
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.mse_loss(network(*inputs), target).backward()
        optimizer.step()
    with torch.no_grad():
        return network(*inputs).numpy()


def npy(directory, name, tensor):
    path = os.path.join(directory, name + ".npy")
    np.save(path, np.ascontiguousarray(tensor.numpy()))
    return path


def same_steps(directory):
    torch.manual_seed(11)
    names, cases, before, expected = [], [], [], []
    for name, (network, inputs, input_names) in networks().items():
        zoo.settle(network)
        with torch.no_grad():
            first = network(*inputs)
        target = first + 0.5 * torch.randn_like(first)
        axes = {key: {axis: f"{key}{axis}" for axis in range(value.dim() if value.dim() < 3 else 1)} for key, value in zip(input_names, inputs)}
        path = os.path.join(directory, name + ".onnx")
        # parameters as they are in PyTorch: no folding of batch normalisation, and tied weights stay tied
        torch.onnx.export(network, inputs, path, input_names=list(input_names), dynamic_axes=axes, training=torch.onnx.TrainingMode.PRESERVE,
                          do_constant_folding=name != "decoder", opset_version=17)
        files = {key: npy(directory, f"{name}.{key}", value) for key, value in zip(input_names, inputs)}
        names.append(name)
        cases.append(dict(path=path, inputs=files, target=npy(directory, name + ".y", target), steps=STEPS, learning_rate=RATE, freeze=frozen(network)))
        before.append(first.numpy())
        expected.append(trained(network, inputs, target))
    for name, first, wanted, answer in zip(names, before, expected, ask("finetune.lua", cases)):
        moved = np.max(np.abs(wanted - first))
        if check("error" not in answer, f"{name}: {answer.get('error')}") and check(moved > 1e-3, f"{name}: PyTorch's steps change nothing"):
            off = np.max(np.abs(np.array(answer["values"]) - wanted.reshape(-1)))
            check(off <= TOLERANCE * moved + 1e-6, f"{name}: off by {off:.3g} after {STEPS} steps that changed the output by {moved:.3g}")


def maker():
    spec = importlib.util.spec_from_file_location("make_digits_cnn", os.path.join(DATA, "make_digits_cnn.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def other_digits(directory):
    make = maker()
    network = make.trained(seed=2)
    x, y = make.digits(5, 9)
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(x)))
    x, y = x[order], y[order]
    data = dict(train_x=x[:150], train_y=y[:150], test_x=x[150:], test_y=y[150:])
    files = {key: npy(directory, key, value) for key, value in data.items()}
    cases, names = [], []
    for kind, options in (("plain", {}), ("preserved", dict(training=torch.onnx.TrainingMode.PRESERVE))):
        path = os.path.join(directory, f"digits_{kind}.onnx")
        make.export(network, path, **options)
        for freeze in ([], ["^features" if options else "^/features/"]):
            names.append(f"digits ({kind} export, {'frozen ' + freeze[0] if freeze else 'nothing frozen'})")
            cases.append(dict(path=path, data=files, classes=5, epochs=30, learning_rate=0.005, freeze=freeze, save=os.path.join(directory, f"out{len(names)}.onnx")))
    for name, answer in zip(names, ask("finetune.lua", cases)):
        if check("error" not in answer, f"{name}: {answer.get('error')}"):
            check(answer["before"] < 0.5, f"{name}: accuracy {answer['before']:.3f} before any training")
            check(answer["after"] > 0.9, f"{name}: accuracy {answer['after']:.3f} after fine-tuning")
            check(answer["kept"], f"{name}: frozen parameters have changed")
            print(f"{name}: accuracy {answer['before']:.3f} -> {answer['after']:.3f}")


with tempfile.TemporaryDirectory() as scratch:
    same_steps(scratch)
    other_digits(scratch)
finish()
