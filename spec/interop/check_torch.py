"""Against PyTorch: the gradients of every loss, and the weights after 20 steps of every optimiser, from the same initial weights and batches."""
import sys

import torch

from support import ask, check, finish

TOLERANCE = 1e-5
STEPS, BATCH = 20, 8

torch.set_num_threads(1)
torch.manual_seed(3)

ACTIVATIONS = {"Relu": torch.relu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "Elu": torch.nn.functional.elu,
               "Softplus": torch.nn.functional.softplus, "Identity": lambda x: x, "Softmax": lambda x: torch.softmax(x, -1)}


def binary_crossentropy(p, y):
    return torch.nn.functional.binary_cross_entropy(p, y)


def sparse_categorical_crossentropy(p, y):
    return torch.nn.functional.nll_loss(torch.log(p), y)


def huber(p, y):
    return torch.nn.functional.huber_loss(p, y, delta=1.0)


LOSSES = {"mse": torch.nn.functional.mse_loss, "mae": torch.nn.functional.l1_loss, "huber": huber, "binary_crossentropy": binary_crossentropy,
          "sparse_categorical_crossentropy": sparse_categorical_crossentropy}
ENDS = {"mse": "Identity", "mae": "Identity", "huber": "Identity", "binary_crossentropy": "Sigmoid",
        "sparse_categorical_crossentropy": "Softmax"}


def optimizers():
    """name -> (our options, PyTorch's constructor)"""
    o = torch.optim

    def adamw(parameters):  # as is usual, and as mlserve does, only kernels decay
        kernels, others = [p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() == 1]
        return o.AdamW([dict(params=kernels), dict(params=others, weight_decay=0.0)], lr=0.01, weight_decay=0.1)

    return {
        "sgd": (dict(optimizer="sgd", learning_rate=0.05), lambda p: o.SGD(p, lr=0.05)),
        "momentum": (dict(optimizer="sgd", learning_rate=0.02, momentum=0.9), lambda p: o.SGD(p, lr=0.02, momentum=0.9)),
        "nesterov": (dict(optimizer="sgd", learning_rate=0.02, momentum=0.9, nesterov=True),
                     lambda p: o.SGD(p, lr=0.02, momentum=0.9, nesterov=True)),
        "adam": (dict(optimizer="adam", learning_rate=0.01, epsilon=1e-8), lambda p: o.Adam(p, lr=0.01)),
        "adam, other betas": (dict(optimizer="adam", learning_rate=0.01, beta1=0.8, beta2=0.95, epsilon=1e-6),
                              lambda p: o.Adam(p, lr=0.01, betas=(0.8, 0.95), eps=1e-6)),
        "adamw": (dict(optimizer="adamw", learning_rate=0.01, weight_decay=0.1, epsilon=1e-8), adamw),
        "rmsprop": (dict(optimizer="rmsprop", learning_rate=0.005, rho=0.9, epsilon=1e-8), lambda p: o.RMSprop(p, lr=0.005, alpha=0.9)),
        "rmsprop with momentum": (dict(optimizer="rmsprop", learning_rate=0.002, rho=0.9, momentum=0.8, epsilon=1e-8),
                                  lambda p: o.RMSprop(p, lr=0.002, alpha=0.9, momentum=0.8)),
        "adagrad": (dict(optimizer="adagrad", learning_rate=0.05, epsilon=1e-10), lambda p: o.Adagrad(p, lr=0.05)),
    }


class Case:
    def __init__(self, name, loss, optimizer, activation="Tanh", extra=None, sizes=(6, 10, 8, 3)):
        self.name, self.loss, self.extra = name, loss, extra or {}
        self.options, self.make = optimizer
        outputs = 1 if loss == "binary_crossentropy" else sizes[-1]
        sizes = sizes[:-1] + (outputs,)
        self.kernels = [torch.empty(a, b).uniform_(-0.6, 0.6) for a, b in zip(sizes, sizes[1:])]
        self.biases = [torch.empty(b).uniform_(-0.2, 0.2) for b in sizes[1:]]
        self.activations = [activation] * (len(sizes) - 2) + [ENDS[loss]]
        rows = STEPS * BATCH
        self.x = torch.randn(rows, sizes[0])
        if loss == "binary_crossentropy":
            self.y = (self.x[:, :1] > 0).float()
        elif loss == "sparse_categorical_crossentropy":
            self.y = torch.randint(0, outputs, (rows,))
        else:
            self.y = self.x[:, :outputs] * 2 + torch.randn(rows, outputs)

    def question(self):
        layers = [dict(kernel=k.tolist(), bias=b.tolist(), activation=a) for k, b, a in zip(self.kernels, self.biases, self.activations)]
        return dict(layers=layers, x=self.x.tolist(), y=self.y.tolist(), batch_size=BATCH, options=dict(self.options, loss=self.loss, **self.extra))

    def train(self):
        """PyTorch's loss and gradients of the first step, and its weights after the last."""
        parameters = {}
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases), 1):
            parameters[f"kernel{i}"] = kernel.clone().requires_grad_()
            parameters[f"bias{i}"] = bias.clone().requires_grad_()
        optimizer = self.make(list(parameters.values()))
        loss_of_first = gradients = None
        for step in range(STEPS):
            x, y = self.x[step * BATCH:(step + 1) * BATCH], self.y[step * BATCH:(step + 1) * BATCH]
            for i, activation in enumerate(self.activations, 1):
                x = ACTIVATIONS[activation](x @ parameters[f"kernel{i}"] + parameters[f"bias{i}"])
            optimizer.zero_grad()
            loss = LOSSES[self.loss](x, y)
            total = loss
            if "l2" in self.extra:
                total = total + self.extra["l2"] * sum((p ** 2).sum() for name, p in parameters.items() if name.startswith("kernel"))
            total.backward()
            if gradients is None:
                loss_of_first, gradients = loss.item(), {name: p.grad.clone() for name, p in parameters.items()}
            if "clip_norm" in self.extra:
                torch.nn.utils.clip_grad_norm_(list(parameters.values()), self.extra["clip_norm"])
            if "clip_value" in self.extra:
                torch.nn.utils.clip_grad_value_(list(parameters.values()), self.extra["clip_value"])
            optimizer.step()
        return loss_of_first, gradients, {name: p.detach() for name, p in parameters.items()}


def difference(expected, got):
    got = torch.tensor(got, dtype=torch.float64)
    expected = expected.double()
    if got.shape != expected.shape:
        return float("inf")
    return float(((got - expected).abs() / expected.abs().clamp(min=1.0)).max())


def compare(case, answer):
    loss, gradients, weights = case.train()
    check(abs(answer["loss"] - loss) <= TOLERANCE * max(1.0, abs(loss)), f"{case.name}: loss {answer['loss']}, expected {loss}")
    check(answer["steps"] == STEPS, f"{case.name}: {answer['steps']} steps")
    for name, expected in gradients.items():
        if not case.extra:  # penalties and clipping come between the gradient of the loss and the step
            off = difference(expected, answer["gradients"][name])
            check(off <= TOLERANCE, f"{case.name}: gradient of {name} differs by {off:.3g}")
    for name, expected in weights.items():
        off = difference(expected, answer["weights"][name])
        check(off <= TOLERANCE, f"{case.name}: {name} after {STEPS} steps differs by {off:.3g}")


def main():
    rows = optimizers()
    cases = [Case(f"{name}, {loss}", loss, optimizer) for name, optimizer in rows.items()
             for loss in ("mse", "binary_crossentropy", "sparse_categorical_crossentropy")]
    cases += [Case(loss, loss, rows["sgd"]) for loss in LOSSES]
    cases += [Case(f"activation {name}", "mse", rows["sgd"], activation=name) for name in ("Relu", "Elu", "Softplus", "Sigmoid")]
    cases += [Case("wide layers", "sparse_categorical_crossentropy", rows["sgd"], activation="Relu", sizes=(30, 128, 64, 10))]
    cases += [Case(f"l2, {name}", "mse", rows[name], extra=dict(l2=0.01)) for name in ("sgd", "nesterov", "adam")]
    cases += [Case("clip_norm", "mse", rows["sgd"], extra=dict(clip_norm=0.5)), Case("clip_value", "mse", rows["momentum"], extra=dict(clip_value=0.05))]
    for case, answer in zip(cases, ask("trainer.lua", [c.question() for c in cases])):
        compare(case, answer)
    finish()


if __name__ == "__main__":
    sys.exit(main())
