"""The settings of `strength.py`: data, networks, seeds. Some need the folder $BAYESREG_DATA."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn.datasets
import torch
from _transfer_tasks import TASKS as TRANSFERS
from _transfer_tasks import Pool, folder, idx
from torch import Tensor, nn
from torch.nn import functional as F

import bayesreg as br

__all__ = ["SETTINGS", "Problem", "Setting"]


STANDARD = br.hyperpriors.HalfCauchy(1.0)


@dataclass(frozen=True)
class Problem:
    """One draw: training data, test data and the network at its initial weights.

    Attributes:
        train: Inputs and targets.
        test: The same, for the final numbers alone.
        model: The network.
        likelihood: The likelihood.
        prior: The prior of scale 1.
        hyperprior: Of the scale.
    """

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    model: nn.Module
    likelihood: br.likelihoods.Likelihood
    prior: Any
    hyperprior: br.hyperpriors.HyperPrior = STANDARD


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Attributes:
        name: What it is called.
        n: Training examples.
        seeds: How many draws.
        iterations: Of a fit from scratch, at most.
        every: The oracle looks at every so many points of the grid.
        draw: From a seed to a problem.
        grid: log₁₀ of the precisions.
    """

    name: str
    n: int
    seeds: int
    iterations: int
    every: int
    draw: Callable[[int], Problem]
    grid: Sequence[float]


def _initialised(model: nn.Module, seed: int) -> nn.Module:
    """Draw the initial weights from a seed of their own, as torch does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.reset_parameters()
    return model


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _table(load: str, widths: tuple[int, ...], n: int, seed: int) -> Problem:
    """Standardised by the training rows; in float64."""
    X, y = getattr(sklearn.datasets, f"load_{load}")(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    a, b = order[:n], order[n : n + 500]
    mean, std = X[a].mean(0), X[a].std(0) + 1e-12
    X = (X - mean) / std
    likelihood: br.likelihoods.Likelihood = br.likelihoods.Categorical()
    if load == "diabetes":
        y = (y - y[a].mean()) / y[a].std()
        likelihood = br.likelihoods.Gaussian("learned")
    parts = [(torch.tensor(X[i]), torch.tensor(y[i])) for i in (a, b)]
    train, test = parts
    return Problem(train, test, _initialised(_mlp(*widths).double(), seed), likelihood, br.Gaussian(1.0))


def _digits(n: int, seed: int) -> Problem:
    X, y = sklearn.datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    parts = [(torch.tensor(X[i] / 16.0), torch.tensor(y[i])) for i in (order[:n], order[n : n + 797])]
    model = _initialised(_mlp(64, 64, 10).double(), seed)
    train, test = parts
    return Problem(train, test, model, br.likelihoods.Categorical(), br.Gaussian(1.0))


@functools.cache
def _fashion_images(part: str) -> tuple[Tensor, Tensor]:
    where = folder() / "fashion_mnist"
    images = idx(where / f"{part}-images-idx3-ubyte.gz").float() / 255
    return ((images - 0.286) / 0.353)[:, None], idx(where / f"{part}-labels-idx1-ubyte.gz").long()


def _fashion(kind: str, n: int, seed: int) -> Problem:
    (X, y), (Xt, yt) = _fashion_images("train"), _fashion_images("t10k")
    a = torch.tensor(np.random.default_rng(seed).permutation(len(y))[:n])
    b = torch.tensor(np.random.default_rng(5).permutation(len(yt))[:2000])
    X, Xt = X[a], Xt[b]
    if kind == "mlp":
        X, Xt = (F.avg_pool2d(images, 2).flatten(1) for images in (X, Xt))
        model = _mlp(196, 32, 10)
    else:
        model = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU(), nn.Flatten(),
            nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip
    likelihood = br.likelihoods.Categorical()
    return Problem((X, y[a]), (Xt, yt[b]), _initialised(model, seed), likelihood, br.Gaussian(1.0))


def _sentences(n: int, seed: int) -> Problem:
    """Logistic regression on bags of words about restaurants, from nothing."""
    pool = TRANSFERS["sentences"].target()
    order = np.random.default_rng(seed).permutation(len(pool.y))
    parts = [(pool.x[i].double(), pool.y[i].double().reshape(-1, 1)) for i in (order[:n], order[n : n + 500])]
    model = nn.Linear(parts[0][0].shape[1], 1).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    train, test = parts
    return Problem(train, test, model, br.likelihoods.Bernoulli(), br.Gaussian(1.0))


@functools.cache
def _rehearsed(name: str, n: int) -> br.hyperpriors.HyperPrior:
    """Return what source data say of how far weights travel, once for all draws."""
    pool = TRANSFERS[name].rehearsal()
    model = _pretrained(name, pool)
    prior = br.Gaussian.centered_at(pool.reference, scale=1.0)
    return br.transfer.rehearse(model, {"*": prior}, _of(name), (pool.x, _labels(name, pool)), num_data=n).hyperprior


def _of(name: str) -> br.likelihoods.Likelihood:
    return br.likelihoods.Bernoulli() if name == "sentences" else br.likelihoods.Categorical()


def _labels(name: str, pool: Pool) -> Tensor:
    return pool.y.reshape(-1, 1) if name == "sentences" else pool.y


def _pretrained(name: str, pool: Pool) -> nn.Module:
    model = TRANSFERS[name].network(10 if name == "digits" else 2)
    br.transfer.load_into(model, pool.reference)
    return model


def _transfer(name: str, n: int, seed: int) -> Problem:
    """The weights' prior is about pretrained ones; how far they travel was rehearsed on other data."""
    pool = TRANSFERS[name].target()
    a, b = pool.draw(n, seed, 500)
    train, test = ((pool.x[i], _labels(name, pool)[i]) for i in (a, b))
    prior = {"*": br.Gaussian.centered_at(pool.reference, scale=1.0)}
    return Problem(train, test, _pretrained(name, pool), _of(name), prior, _rehearsed(name, n))


ORDINARY = [-4.0 + 7.0 * k / 39.0 for k in range(40)]
#: About pretrained weights.
NEAR = [-2.0 + 7.0 * k / 39.0 for k in range(40)]


def _setting(
    name: str, n: int, seeds: int, draw: Callable[..., Problem], *arguments: Any, every: int = 1, iterations: int = 200,
    grid: Sequence[float] = ORDINARY,
) -> Setting:  # fmt: skip
    return Setting(name, n, seeds, iterations, every, lambda seed: draw(*arguments, n, seed), grid)


CANCER, WINE = (30, 50, 2), (13, 50, 3)
SETTINGS = [
    _setting("breast cancer, linear", 50, 5, _table, "breast_cancer", (30, 2)),
    _setting("breast cancer, linear", 200, 5, _table, "breast_cancer", (30, 2)),
    _setting("breast cancer, 30-50-2", 50, 5, _table, "breast_cancer", CANCER),
    _setting("breast cancer, 30-50-2", 200, 5, _table, "breast_cancer", CANCER),
    _setting("wine, 13-50-3", 40, 5, _table, "wine", WINE),
    _setting("wine, 13-50-3", 90, 5, _table, "wine", WINE),
    _setting("digits, 64-64-10", 50, 5, _digits),
    _setting("digits, 64-64-10", 200, 5, _digits),
    _setting("digits, 64-64-10", 500, 5, _digits),
    _setting("digits, 64-64-10", 1000, 4, _digits, every=2),
    _setting("Fashion, 196-32-10", 100, 5, _fashion, "mlp", iterations=150),
    _setting("Fashion, 196-32-10", 1000, 3, _fashion, "mlp", every=2, iterations=150),
    _setting("Fashion, 196-32-10", 10_000, 3, _fashion, "mlp", every=4, iterations=150),
    _setting("Fashion, CNN", 100, 5, _fashion, "cnn", every=2, iterations=150),
    _setting("Fashion, CNN", 1000, 2, _fashion, "cnn", every=4, iterations=150),
    _setting("diabetes, 10-50-1, noise learned", 100, 5, _table, "diabetes", (10, 50, 1)),
    _setting("sentences, 1448 words, linear", 200, 5, _sentences),
    _setting("sentences, about weights from others", 20, 5, _transfer, "sentences", grid=NEAR),
    _setting("sentences, about weights from others", 100, 5, _transfer, "sentences", grid=NEAR),
    _setting("digits, about weights from MNIST", 20, 5, _transfer, "digits", every=2, iterations=60, grid=NEAR),
    _setting("digits, about weights from MNIST", 100, 5, _transfer, "digits", every=4, iterations=60, grid=NEAR),
]
