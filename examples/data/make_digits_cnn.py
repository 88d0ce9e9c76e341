"""Writes digits_cnn.onnx, beside this file: a small convolutional network that PyTorch trained to tell the digits 0 to 4 apart, exported with
PyTorch's own exporter. examples/finetune.lua teaches it the digits 5 to 9. Run: python3 examples/data/make_digits_cnn.py (needs PyTorch)."""
import os
import sys

import numpy as np
import torch
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))


class Network(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
                                      nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        self.classifier = nn.Linear(128, classes)

    def forward(self, x):
        return torch.softmax(self.classifier(self.features(x / 16)), 1)


def digits(low, high):
    """Images (n, 1, 8, 8) of grey levels 0 to 16 and their classes, counted from 0."""
    rows = np.loadtxt(os.path.join(HERE, "digits.csv"), delimiter=",", skiprows=1, dtype=np.float32)
    rows = rows[(rows[:, -1] >= low) & (rows[:, -1] <= high)]
    return torch.from_numpy(rows[:, :-1].reshape(-1, 1, 8, 8)), torch.from_numpy(rows[:, -1].astype(np.int64) - low)


def trained(seed=1, epochs=12):
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    images, classes = digits(0, 4)
    network = Network(5)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(32):
            optimizer.zero_grad()
            nn.functional.nll_loss(torch.log(network(images[batch]) + 1e-9), classes[batch]).backward()
            optimizer.step()
    return network.eval()


def export(network, path, **options):
    """Names stay as they are in PyTorch (features.0.weight), and the batch may have any size."""
    torch.onnx.export(network, torch.zeros(1, 1, 8, 8), path, input_names=["image"], output_names=["scores"], opset_version=17,
                      dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}}, **options)


if __name__ == "__main__":
    export(trained(), sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "digits_cnn.onnx"), training=torch.onnx.TrainingMode.PRESERVE)
