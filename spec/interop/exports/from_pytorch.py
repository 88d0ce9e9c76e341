"""PyTorch's own exporter (torch.onnx.export) on the networks people export most, with random weights. Run by the distribution's Python."""
import math
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import recorder

warnings.filterwarnings("ignore")
torch.manual_seed(5)
torch.set_num_threads(1)


def conv_bn(c_in, c_out, kernel=3, stride=1, groups=1, act=nn.ReLU6):
    return nn.Sequential(nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(c_out), act())


class BasicBlock(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out)
        self.conv2, self.bn2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out)
        self.downsample = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    def __init__(self, classes=1000):
        super().__init__()
        self.conv1, self.bn1, self.maxpool = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.MaxPool2d(3, 2, 1)
        sizes = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
        self.layers = nn.Sequential(*[nn.Sequential(BasicBlock(a, b, s), BasicBlock(b, b, 1)) for a, b, s in sizes])
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(512, classes)

    def forward(self, x):
        x = self.layers(self.maxpool(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class InvertedResidual(nn.Module):
    def __init__(self, c_in, c_out, stride, expand):
        super().__init__()
        hidden = c_in * expand
        layers = [conv_bn(c_in, hidden, 1)] if expand != 1 else []
        layers += [conv_bn(hidden, hidden, 3, stride, hidden), nn.Conv2d(hidden, c_out, 1, bias=False), nn.BatchNorm2d(c_out)]
        self.conv, self.residual = nn.Sequential(*layers), stride == 1 and c_in == c_out

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self, classes=1000):
        super().__init__()
        features, c = [conv_bn(3, 32, stride=2)], 32
        for t, c_out, n, s in [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]:
            for i in range(n):
                features.append(InvertedResidual(c, c_out, s if i == 0 else 1, t))
                c = c_out
        self.features = nn.Sequential(*features, conv_bn(320, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean([2, 3]))


class SqueezeExcite(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.pool, self.fc1, self.fc2 = nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c // 4, 1), nn.Conv2d(c // 4, c, 1)

    def forward(self, x):
        return x * F.hardsigmoid(self.fc2(F.relu(self.fc1(self.pool(x)))))


class UNet(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.down1, self.down2 = conv_bn(1, 8, act=nn.SiLU), conv_bn(8, 16, act=nn.SiLU)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2) if mode == "transposed" else None
        self.mode, self.mix, self.out = mode, nn.Conv2d(16 if self.up else 24, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        if self.up:
            b = self.up(b)
        elif self.mode == "nearest":
            b = F.interpolate(b, scale_factor=2, mode="nearest")
        else:
            b = F.interpolate(b, size=a.shape[2:], mode=self.mode, align_corners=self.mode == "bicubic")
        return self.out(F.leaky_relu(self.mix(torch.cat([a, b], 1)), 0.1))


class TextRecurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.embedding = nn.Embedding(50, 12, padding_idx=0)
        self.rnn = getattr(nn, kind)(12, 16, batch_first=True, **options)
        self.fc = nn.Linear(16 * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, ids):
        y, _ = self.rnn(self.embedding(ids))
        return torch.log_softmax(self.fc(y[:, -1]), -1)


class Recurrent(nn.Module):
    """Sequences in, every step and the last states out; the initial states are inputs."""
    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = getattr(nn, kind)(6, 10, **options)

    def forward(self, x, h):
        y, state = self.rnn(x, h)
        return y, state


class LSTMStates(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.rnn = nn.LSTM(6, 10, **options)

    def forward(self, x, h, c):
        y, (hn, cn) = self.rnn(x, (h, c))
        return y, hn, cn


class PackedLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.LSTM(6, 10, batch_first=True, bidirectional=True), nn.Linear(20, 2)

    def forward(self, x, lengths, state):  # the exporter would keep the batch of its example in initial states of zero
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        y, (h, _) = self.rnn(packed, (state, state * 0.5))
        y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True)
        return self.fc(y), h


class Positions(nn.Module):
    def __init__(self, width, longest=64):
        super().__init__()
        angle = torch.arange(longest)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        table = torch.zeros(longest, 1, width)
        table[:, 0, 0::2], table[:, 0, 1::2] = torch.sin(angle), torch.cos(angle)
        self.register_buffer("table", table)

    def forward(self, x):
        return x + self.table[:x.size(0)]


class Encoder(nn.Module):
    """nn.TransformerEncoder over word numbers, with a padding mask."""
    def __init__(self, activation="relu", norm_first=False):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(40, 16), Positions(16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, activation=activation, norm_first=norm_first)
        self.encoder, self.fc = nn.TransformerEncoder(layer, 2), nn.Linear(16, 5)

    def forward(self, ids):
        x = self.positions(self.embedding(ids.t()) * 4.0)
        return self.fc(self.encoder(x, src_key_padding_mask=ids == 0).mean(0))


class Decoder(nn.Module):
    """Causal self-attention written with matmul and softmax, tied output weights."""
    def __init__(self):
        super().__init__()
        self.embedding, self.norm1, self.norm2 = nn.Embedding(40, 16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))

    def forward(self, ids):
        x = self.embedding(ids)
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        q, k, v = (part.view(b, t, 4, c // 4).transpose(1, 2) for part in (q, k, v))
        scores = q @ k.transpose(-2, -1) / math.sqrt(c // 4)
        mask = torch.tril(torch.ones(t, t, dtype=torch.bool))
        scores = scores.masked_fill(~mask, float("-inf"))
        x = x + self.proj((F.softmax(scores, -1) @ v).transpose(1, 2).reshape(b, t, c))
        x = x + self.mlp(self.norm2(x))
        return x @ self.embedding.weight.t()


class Vision(nn.Module):
    """Patches, class token, one encoder layer of nn.MultiheadAttention."""
    def __init__(self):
        super().__init__()
        self.patch, self.token, self.place = nn.Conv2d(3, 24, 8, 8), nn.Parameter(torch.randn(1, 1, 24)), nn.Parameter(torch.randn(1, 17, 24))
        self.norm, self.attention, self.head = nn.LayerNorm(24), nn.MultiheadAttention(24, 3), nn.Linear(24, 10)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.size(0), -1, -1), x], 1) + self.place
        y = self.norm(x).transpose(0, 1)
        y, weights = self.attention(y, y, y)
        return self.head((x + y.transpose(0, 1))[:, 0]), weights


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.group, self.instance, self.layer = nn.GroupNorm(3, 6), nn.InstanceNorm2d(6, affine=True), nn.LayerNorm([6, 5, 4])
        self.local = nn.LocalResponseNorm(3)

    def forward(self, x):
        return self.group(x), self.instance(x), self.layer(x), self.local(x)


class Activations(nn.Module):
    def __init__(self):
        super().__init__()
        self.prelu = nn.PReLU(4)

    def forward(self, x):
        some = [F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.softplus, F.softsign, F.hardswish, F.hardsigmoid, F.hardtanh, F.relu6, F.logsigmoid,
                F.softshrink, F.hardshrink, F.tanhshrink, self.prelu, lambda v: F.glu(v, 1), lambda v: F.softmin(v, 1), lambda v: F.threshold(v, 0.0, 0.0)]
        return tuple(f(x) for f in some)


class Arithmetic(nn.Module):
    """What people write between layers."""
    def forward(self, x, i):
        picked = torch.gather(x, 1, i)
        top, where = torch.topk(x, 3, dim=1)
        normal = F.normalize(x, dim=1)
        rolled = torch.roll(x, 1, 1)
        distance = torch.cdist(x, x[:2] * 0.5)
        counted = torch.cumsum((x > 0).long(), 1)
        clipped = torch.where(x.abs() > 1, torch.sign(x), x).clamp(min=-0.5)
        variance = torch.var(x, 1, unbiased=True, keepdim=True)
        return (picked, top, where, normal, rolled, distance, counted, clipped, variance, x.argmax(1), x.norm(dim=1), torch.logsumexp(x, 1), x[:, ::2],
                torch.einsum("bi,bj->bij", x, x), x.std(0), torch.outer(x[0], x[1]), F.one_hot(i, 8), F.pad(x, (1, 2), value=3.0), x.flip(1),
                torch.remainder(x, 0.7), torch.fmod(x, 0.7), x.floor() // 2, torch.pow(x.abs(), 1.5), x.prod(1), torch.sort(x, 1, descending=True)[0])


class Reshaping(nn.Module):
    def forward(self, x):
        b, c, h, w = x.shape
        shuffled = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        patches = F.unfold(x, 2, stride=2)
        return (shuffled, patches, F.pixel_shuffle(x, 2), F.pixel_unshuffle(x, 2), F.pad(x, (1, 1, 2, 0), mode="reflect"), F.pad(x, (1, 0, 0, 1), mode="replicate"),
                F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), F.lp_pool2d(x.abs(), 2, 2), F.adaptive_avg_pool2d(x, (2, 2)), F.adaptive_max_pool2d(x, 1),
                F.interpolate(x, scale_factor=1.5, mode="bilinear", align_corners=False), torch.stack([x, x * 2], 1).mean(1), x.split(3, 1)[1],
                F.max_pool2d(x, 3, 1, 1, ceil_mode=True), torch.tril(x), x.repeat(1, 2, 1, 1), x.unfold(2, 2, 2), x.permute(0, 2, 3, 1).contiguous().view(b, -1))


class Loop(nn.Module):
    """Scripted control flow: becomes Loop and If."""
    def forward(self, x, steps: torch.Tensor):
        total = torch.zeros_like(x)
        for _ in range(int(steps.item())):
            if bool(total.sum() > 3.0):
                total = total * 0.5
            else:
                total = total + x
        return total


class AnchorBoxes(nn.Module):
    """Boxes of a detector: grids from shapes, decoding, non-maximum suppression's inputs."""
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 2 * 6, 3, 2, 1)

    def forward(self, x):
        y = self.head(x)
        b, _, h, w = y.shape
        y = y.view(b, 2, 6, h, w).permute(0, 1, 3, 4, 2)
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack([columns, rows], -1).float()
        centre = (torch.sigmoid(y[..., :2]) * 2 - 0.5 + grid) * 2.0
        size = (torch.sigmoid(y[..., 2:4]) * 2) ** 2
        return torch.cat([centre, size, torch.sigmoid(y[..., 4:])], -1).reshape(b, -1, 6)


def floats(*shape):
    return torch.randn(*shape)


def words(*shape):
    return torch.randint(1, 40, shape)


def image_rows(*shape):
    return [(floats(n, *shape),) for n in (1, 3)]


def sequential_cnn():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Dropout2d(0.3),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10), nn.Softmax(1))


def mlp():
    return nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Dropout(0.5), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 4), nn.Softmax(-1))


def mobile_v3():
    return nn.Sequential(conv_bn(3, 16, stride=2, act=nn.Hardswish), SqueezeExcite(16), conv_bn(16, 16, 5, 2, 16, nn.Hardswish), nn.Conv2d(16, 24, 1),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(24, 7))


def conv1d():
    return nn.Sequential(nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(2, 8, 3, dilation=2), nn.ReLU(), nn.Conv1d(8, 8, 3, groups=4), nn.AvgPool1d(2),
                         nn.ConvTranspose1d(8, 3, 4, 2, 1), nn.Upsample(scale_factor=2))


def conv3d():
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2), nn.ConvTranspose3d(4, 2, 2, 2), nn.AdaptiveAvgPool3d(1))


# name -> (network, runs, names of the inputs, dynamic axes by input, opset)
SEQUENCE = {0: "batch", 1: "time"}
STEPS = {0: "time", 1: "batch"}
BATCH = {0: "batch"}


def table():
    lstm_runs = [(floats(t, b, 6), floats(2, b, 10), floats(2, b, 10)) for t, b in ((5, 1), (7, 3))]
    state_runs = [(floats(t, b, 6), floats(2, b, 10)) for t, b in ((5, 1), (7, 3))]
    text_runs = [(words(b, t),) for b, t in ((1, 6), (4, 9))]
    small_runs = [(floats(n, 8), torch.randint(0, 8, (n, 3))) for n in (2, 5)]
    rows = {}

    def row(name, network, runs, inputs=("x",), axes=None, opset=None):
        rows[name] = (network, runs, inputs, axes or {"x": BATCH}, opset)

    for opset in (9, 11, 13, 16):
        row(f"mlp_opset{opset}", mlp, [(floats(n, 13),) for n in (1, 6)], opset=opset)
        row(f"cnn_opset{opset}", sequential_cnn, image_rows(1, 12, 12), opset=opset)
    row("mlp", mlp, [(floats(n, 13),) for n in (1, 6)])
    row("mlp_fixed_batch", mlp, [(floats(4, 13),)], axes={"x": {}})
    row("cnn", sequential_cnn, image_rows(1, 12, 12))
    row("resnet18", ResNet18, image_rows(3, 96, 96))
    row("mobilenet_v2", MobileNetV2, image_rows(3, 96, 96))
    row("mobilenet_v3_block", mobile_v3, image_rows(3, 32, 32))
    for mode in ("transposed", "nearest", "bilinear", "bicubic"):
        row(f"unet_{mode}", lambda mode=mode: UNet(mode), image_rows(1, 16, 12), axes={"x": {0: "batch", 2: "height", 3: "width"}})
    row("conv1d", conv1d, image_rows(2, 24), axes={"x": {0: "batch", 2: "time"}})
    row("conv3d", conv3d, image_rows(1, 6, 6, 6))
    row("text_lstm", lambda: TextRecurrent("LSTM"), text_runs, axes={"x": SEQUENCE})
    row("text_lstm_bidirectional", lambda: TextRecurrent("LSTM", bidirectional=True, num_layers=2), text_runs, axes={"x": SEQUENCE})
    row("text_gru", lambda: TextRecurrent("GRU", num_layers=2), text_runs, axes={"x": SEQUENCE})
    row("text_rnn", lambda: TextRecurrent("RNN", nonlinearity="relu"), text_runs, axes={"x": SEQUENCE})
    row("lstm_states", lambda: LSTMStates(num_layers=2), lstm_runs, ("x", "h", "c"), {"x": STEPS, "h": {1: "batch"}, "c": {1: "batch"}})
    row("gru_states", lambda: Recurrent("GRU", bidirectional=True), state_runs, ("x", "h"), {"x": STEPS, "h": {1: "batch"}})
    row("rnn_states", lambda: Recurrent("RNN", num_layers=2, bias=False), state_runs, ("x", "h"), {"x": STEPS, "h": {1: "batch"}})
    row("packed_lstm", PackedLSTM, [(floats(2, 7, 6), torch.tensor([7, 7]), floats(2, 2, 10)), (floats(3, 7, 6), torch.tensor([7, 4, 2]), floats(2, 3, 10))],
        ("x", "lengths", "state"), {"x": SEQUENCE, "lengths": BATCH, "state": {1: "batch"}})
    for activation, first in (("relu", False), ("gelu", True)):
        row(f"transformer_encoder_{activation}", lambda a=activation, f=first: Encoder(a, f), [(words(b, t),) for b, t in ((1, 6), (3, 9))], axes={"x": SEQUENCE})
    row("transformer_encoder_opset17", Encoder, [(words(b, t),) for b, t in ((1, 6), (3, 9))], axes={"x": SEQUENCE}, opset=17)
    row("decoder", Decoder, text_runs, axes={"x": SEQUENCE})
    row("vision_transformer", Vision, image_rows(3, 32, 32))
    row("norms", Norms, image_rows(6, 5, 4))
    row("norms_opset17", Norms, image_rows(6, 5, 4), opset=17)
    row("activations", Activations, image_rows(4, 3))
    row("arithmetic", Arithmetic, small_runs, ("x", "i"), {"x": BATCH, "i": BATCH})
    row("arithmetic_opset11", Arithmetic, small_runs, ("x", "i"), {"x": BATCH, "i": BATCH}, 12)
    row("reshaping", Reshaping, image_rows(8, 6, 4))
    row("anchor_boxes", AnchorBoxes, image_rows(3, 16, 20), axes={"x": {0: "batch", 2: "height", 3: "width"}})
    row("scripted_loop", lambda: torch.jit.script(Loop()), [(floats(3), torch.tensor(n)) for n in (0, 1, 6)], ("x", "steps"), {"x": BATCH})
    return rows


def settle(network):
    """Random statistics and affine terms, as after training: those of a fresh network (0 and 1) would hide mistakes."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for parameter in network.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, *((0.7, 1.3) if parameter.min() == 1 else (-0.2, 0.2)))
        else:  # the layers of nn.TransformerEncoder begin equal, and the exporter makes one initialiser of equal ones
            parameter.data.add_(0.01 * torch.randn_like(parameter))
    return network.eval()


def main():
    for name, (make, runs, inputs, axes, opset) in table().items():
        if not recorder.wanted("torch_" + name):
            continue
        network = settle(make())
        try:
            torch.onnx.export(network, runs[-1], recorder.path_of("torch_" + name), input_names=list(inputs),
                              dynamic_axes={k: v for k, v in axes.items() if v}, **({"opset_version": opset} if opset else {}))
        except Exception as problem:
            raise RuntimeError(f"{name} cannot be exported") from problem
        recorder.add("torch_" + name, [{key: value.numpy() for key, value in zip(inputs, run)} for run in runs])
    recorder.finish()


if __name__ == "__main__":
    main()
