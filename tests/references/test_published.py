"""Published pretrained files as reference weights; they need the folder $BAYESREG_DATA."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bayesreg as br
from bayesreg.references import load_reference


class MnistCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


@pytest.fixture
def mnist(data_folder):
    with gzip.open(data_folder / "mnist_t10k" / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(data_folder / "mnist_t10k" / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    x = (torch.as_tensor(images[:1000].copy()).float() / 255 - 0.1307) / 0.3081
    return x, torch.as_tensor(labels[:1000].copy()).long()


def test_a_checkpoint_with_prefixed_names_and_other_entries(data_folder):
    """ResNet-20: a dictionary of state_dict and best_prec1, its keys prefixed by `module.`"""
    reference = load_reference(data_folder / "weights_cifar10_resnet" / "resnet20-12fca82f.th")
    assert "conv1.weight" in reference
    assert not any(name.startswith("module.") for name in reference)
    weights = sum(t.numel() for n, t in reference.items() if "running" not in n and "num_batches" not in n)
    assert weights == 269_722


@pytest.mark.slow
def test_fine_tuning_under_a_prior_centred_on_a_published_network(data_folder, mnist):
    path = data_folder / "weights_mnist_botorch" / "mnist_cnn.pt"
    x, y = mnist
    model = MnistCnn()
    rules = {"fc2.*": br.Gaussian(scale=1.0), "*": br.Gaussian.centered_at(path, scale=0.02)}
    prior = br.ModelPrior(model, rules)
    model.load_state_dict(dict(load_reference(path)))
    assert (model(x).argmax(1) == y).float().mean() > 0.97
    body = sum(prior[n].penalty(p).item() for n, p in model.named_parameters() if not n.startswith("fc2"))
    assert body == 0.0

    with torch.no_grad():
        nn.init.normal_(model.fc2.weight, std=0.01)
    trainer = br.MAPTrainer(
        model, prior, br.likelihoods.Categorical(), max_epochs=2, optimizer=lambda g: torch.optim.Adam(g, lr=1e-3)
    )
    result = trainer.fit((x[:500], y[:500]), (x[500:], y[500:]))
    # By seed it is 0.952 to 0.960.
    assert result.val_metric > 0.93
    assert {row[2] for row in result.routes.rows} == {"native", "gradient"}
    moved = sum(prior[n].penalty(p).item() for n, p in model.named_parameters() if not n.startswith("fc2"))
    assert 0 < moved / 500 < 1
