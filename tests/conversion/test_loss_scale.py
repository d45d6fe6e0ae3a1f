"""LossScale: every row is proved by training with plain torch and landing on the MAP of the converted prior."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bayesreg as br
from tests.conversion.closed_forms import newton, ridge, train_with_weight_decay
from tests.sampling import cells

N, D, K = 40, 3, 4
VARIANCE = 0.3
TAU = 0.7
BATCH = 8


@pytest.fixture(scope="module")
def data():
    g = torch.Generator().manual_seed(1)
    X = torch.randn(N, D, generator=g, dtype=torch.float64)
    Y = X @ torch.randn(D, K, generator=g, dtype=torch.float64) + TAU * torch.randn(N, K, generator=g).double()
    return {
        "X": X,
        "Y": Y,
        "labels": torch.randint(0, K, (N,), generator=g),
        "bits": torch.randint(0, 2, (N, K), generator=g).double(),
        "counts": torch.poisson(torch.ones(N, K, dtype=torch.float64), generator=g),
        "soft": torch.softmax(torch.randn(N, K, generator=g).double(), 1),
        "class_weights": torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64),
    }


def log_softmax(logits):
    return logits - torch.logsumexp(logits, 1, keepdim=True)


def assert_is_map(loss, scale, total_nll, wrong_scales, start=None):
    """Train `loss` with the weight decay that `scale` converts from VARIANCE; compare with the MAP by Newton."""
    start = torch.zeros(D, K, dtype=torch.float64) if start is None else start
    map_ = newton(
        lambda v: total_nll(v.reshape(start.shape)) + 0.5 / VARIANCE * (v**2).sum(), start.reshape(-1)
    ).reshape(start.shape)

    trained = train_with_weight_decay(loss, start, br.variance_to_weight_decay(VARIANCE, scale))
    assert (trained - map_).abs().max() < 1e-8
    assert wrong_scales
    for wrong in wrong_scales:
        missed = train_with_weight_decay(loss, start, wrong / VARIANCE)
        assert (missed - map_).abs().max() > 1e-3
    return map_


def test_mean_cross_entropy(data):
    X, y = data["X"], data["labels"]
    assert_is_map(
        lambda W: F.cross_entropy(X @ W, y),
        br.LossScale.mean(N),
        lambda W: -log_softmax(X @ W)[range(N), y].sum(),
        wrong_scales=[1.0, 1 / BATCH],
    )


def test_summed_cross_entropy(data):
    X, y = data["X"], data["labels"]
    assert_is_map(
        lambda W: F.cross_entropy(X @ W, y, reduction="sum"),
        br.LossScale.sum(),
        lambda W: -log_softmax(X @ W)[range(N), y].sum(),
        wrong_scales=[1 / N],
    )


def test_cross_entropy_summed_over_minibatches(data):
    X, y = data["X"], data["labels"]

    def average_over_batches(W):
        return sum(
            F.cross_entropy(X[i : i + BATCH] @ W, y[i : i + BATCH], reduction="sum") for i in range(0, N, BATCH)
        ) / (N / BATCH)

    assert_is_map(
        average_over_batches,
        br.LossScale.minibatch_sum(N, BATCH),
        lambda W: -log_softmax(X @ W)[range(N), y].sum(),
        wrong_scales=[1.0, 1 / N],
    )


def test_mean_squared_error_over_examples_and_outputs(data):
    X, Y = data["X"], data["Y"]
    map_ = assert_is_map(
        lambda W: F.mse_loss(X @ W, Y),
        br.LossScale.mse(N, K, TAU),
        lambda W: ((Y - X @ W) ** 2).sum() / (2 * TAU**2),
        wrong_scales=[1 / N, TAU**2 / (N * K), 2 * TAU**2 / N, 2 / (N * K)],
    )
    assert (map_ - ridge(X, Y, TAU, VARIANCE)).abs().max() < 1e-12


def test_half_squared_error_averaged_over_examples(data):
    X, Y = data["X"], data["Y"]
    map_ = assert_is_map(
        lambda W: 0.5 * ((Y - X @ W) ** 2).sum(1).mean(),
        br.LossScale.half_squared_error(N, TAU),
        lambda W: ((Y - X @ W) ** 2).sum() / (2 * TAU**2),
        wrong_scales=[1 / N, 2 * TAU**2 / N],
    )
    assert (map_ - ridge(X, Y, TAU, VARIANCE)).abs().max() < 1e-12


def test_mean_over_unmasked_tokens(data):
    X, y = data["X"], data["labels"].clone()
    y[::5] = -100
    valid = y != -100
    tokens = int(valid.sum())
    assert_is_map(
        lambda W: F.cross_entropy(X @ W, y),
        br.LossScale.tokens(tokens),
        lambda W: -log_softmax(X @ W)[valid][range(tokens), y[valid]].sum(),
        wrong_scales=[1 / N],
    )


@pytest.mark.parametrize("weight", [0.1, 3.0])
def test_emphasised_likelihood(data, weight):
    X, y = data["X"], data["labels"]
    assert_is_map(
        lambda W: F.cross_entropy(X @ W, y),
        br.LossScale.mean(N, likelihood_weight=weight),
        lambda W: -weight * log_softmax(X @ W)[range(N), y].sum(),
        wrong_scales=[1 / N, weight / N],
    )


# -- from_loss -----------------------------------------------------------------------------------------


def explicit_nll(name, data, loss):
    X, Y = data["X"], data["Y"]

    def bernoulli(logits):
        return -(data["bits"] * F.logsigmoid(logits) + (1 - data["bits"]) * F.logsigmoid(-logits)).sum()

    return {
        "BCEWithLogitsLoss": lambda W: bernoulli(X @ W),
        "BCELoss": lambda W: bernoulli(X @ W),
        "MSELoss": lambda W: ((Y - X @ W) ** 2).sum() / (2 * TAU**2),
        "GaussianNLLLoss": lambda W: ((Y - X @ W) ** 2).sum() / (2 * TAU**2),
        "PoissonNLLLoss": lambda W: (torch.exp(X @ W) - data["counts"] * (X @ W)).sum(),
    }[name]


def elementwise_loss(name, data, loss):
    X, Y = data["X"], data["Y"]
    return {
        "BCEWithLogitsLoss": lambda W: loss(X @ W, data["bits"]),
        "BCELoss": lambda W: loss(torch.sigmoid(X @ W), data["bits"]),
        "MSELoss": lambda W: loss(X @ W, Y),
        "GaussianNLLLoss": lambda W: loss(X @ W, Y, torch.full_like(Y, TAU**2)),
        "PoissonNLLLoss": lambda W: loss(X @ W, data["counts"]),
    }[name]


@pytest.mark.parametrize(
    ("name", "reduction"),
    cells(
        ["BCEWithLogitsLoss", "BCELoss", "MSELoss", "GaussianNLLLoss", "PoissonNLLLoss"],
        ["mean", "sum"],
        keep=lambda i, j: i % 2 == j,
    ),
)
def test_from_elementwise_loss(data, name, reduction):
    loss = getattr(nn, name)(reduction=reduction)
    extra = {"noise_std": TAU} if name == "MSELoss" else {}
    if reduction == "sum":
        scale = br.LossScale.from_loss(loss, N, num_outputs=K, batch_size=N, **extra)
    else:
        scale = br.LossScale.from_loss(loss, N, num_outputs=K, **extra)
    wrong = [1 / N, 1 / BATCH] if reduction == "mean" else [1 / N]
    assert_is_map(elementwise_loss(name, data, loss), scale, explicit_nll(name, data, loss), wrong)


@pytest.mark.parametrize(
    ("reduction", "smoothing", "weighted"),
    cells(["mean", "sum"], [0.0, 0.2], [False, True], keep=lambda i, j, k: i + j + k in (0, 2)),
)
def test_from_cross_entropy(data, reduction, smoothing, weighted):
    X, y, w = data["X"], data["labels"].clone(), data["class_weights"]
    y[::5] = -100
    valid = y != -100
    loss = nn.CrossEntropyLoss(weight=w if weighted else None, label_smoothing=smoothing, reduction=reduction)

    def total(W):
        logp, target = log_softmax(X @ W)[valid], y[valid]
        per_class = w if weighted else torch.ones(K, dtype=torch.float64)
        hard = -per_class[target] * logp[range(len(target)), target]
        return ((1 - smoothing) * hard - smoothing / K * (per_class * logp).sum(1)).sum()

    batch = {"batch_size": N} if reduction == "sum" else {}
    scale = br.LossScale.from_loss(loss, N, targets=y, **batch)
    wrong = [1 / N] if reduction == "sum" else [1 / BATCH, *([1 / int(valid.sum())] if weighted else [1 / N])]
    assert_is_map(lambda W: loss(X @ W, y), scale, total, wrong)


def test_from_nll_loss_on_log_probabilities(data):
    X, y, w = data["X"], data["labels"], data["class_weights"]
    loss = nn.NLLLoss(weight=w)
    assert_is_map(
        lambda W: loss(log_softmax(X @ W), y),
        br.LossScale.from_loss(loss, N, targets=y),
        lambda W: -(w[y] * log_softmax(X @ W)[range(N), y]).sum(),
        wrong_scales=[1 / N],
    )


def test_from_cross_entropy_with_probability_targets_ignores_class_weights_in_the_denominator(data):
    X, soft, w = data["X"], data["soft"], data["class_weights"]
    loss = nn.CrossEntropyLoss(weight=w)
    scale = br.LossScale.from_loss(loss, N, targets=soft)
    assert scale.value == pytest.approx(1 / N)
    assert_is_map(
        lambda W: loss(X @ W, soft),
        scale,
        lambda W: -(soft * w * log_softmax(X @ W)).sum(),
        wrong_scales=[1 / float((soft * w).sum()) * 2],
    )


def test_outputs_are_counted_off_the_targets():
    scale = br.LossScale.from_loss(nn.MSELoss(), 100, targets=torch.zeros(100, 3), noise_std=1.0)
    assert scale == br.LossScale.mse(100, 3, 1.0)
    with pytest.raises(br.InvalidArgumentError, match="num_outputs: expected 3, as in targets=, got 2"):
        br.LossScale.from_loss(nn.BCELoss(), 100, targets=torch.zeros(100, 3), num_outputs=2)
    with pytest.raises(br.InvalidArgumentError, match="num_data: expected the number of training targets given, 100"):
        br.LossScale.from_loss(nn.BCELoss(), 50, targets=torch.zeros(100, 3))


def test_minibatch_sum_from_loss():
    scale = br.LossScale.from_loss(nn.CrossEntropyLoss(reduction="sum"), 1000, batch_size=50)
    assert scale == br.LossScale.minibatch_sum(1000, 50)


# -- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: br.LossScale.mean(0), r"num_data: expected an integer >= 1, got 0"),
        (lambda: br.LossScale.mean(-5), r"num_data: expected an integer >= 1, got -5"),
        (lambda: br.LossScale.mean(2.5), r"num_data: expected an integer >= 1, got float 2\.5"),
        (lambda: br.LossScale.mean(True), r"num_data: expected an integer >= 1, got bool True"),
        (lambda: br.LossScale.mean(None), r"num_data: expected an integer >= 1, got NoneType"),
        (lambda: br.LossScale.minibatch_sum(10, 32), r"batch_size: expected at most num_data = 10, got 32"),
        (lambda: br.LossScale.mse(10, 1, 0.0), r"noise_std: expected a value > 0, got 0"),
        (lambda: br.LossScale.mean(10, likelihood_weight=-1.0), r"likelihood_weight: expected a value > 0"),
        (lambda: br.LossScale(math.nan), r"LossScale value: expected a finite number, got nan"),
        (lambda: br.weight_decay_to_variance(0.1, 0.01), r"num_data: "),
        (lambda: br.weight_decay_to_variance(0.1, None), r"num_data: "),
        (
            lambda: br.LossScale.from_loss(nn.MSELoss(), 10),
            r"noise_std: MSELoss is a likelihood only together with the standard deviation",
        ),
        (
            lambda: br.LossScale.from_loss(nn.CrossEntropyLoss(reduction="sum"), 10),
            r"pass batch_size= \(batch_size=10 for full-batch training\)",
        ),
        (
            lambda: br.LossScale.from_loss(nn.CrossEntropyLoss(reduction="none"), 10),
            r"expected reduction='mean' or 'sum', got 'none'",
        ),
        (
            lambda: br.LossScale.from_loss(nn.CrossEntropyLoss(weight=torch.ones(3)), 10),
            r"class weights divides by the sum of the targets' weights; pass targets=",
        ),
        (
            lambda: br.LossScale.from_loss(nn.CrossEntropyLoss(), 10, targets=torch.zeros(9, dtype=torch.long)),
            r"num_data: expected the number of training targets given, 9, got 10",
        ),
        (
            lambda: br.LossScale.from_loss(nn.CrossEntropyLoss(), 2, targets=torch.full((2,), -100)),
            r"all 2 targets equal ignore_index=-100",
        ),
        (
            lambda: br.LossScale.from_loss(nn.CrossEntropyLoss(), 2, noise_std=1.0),
            r"CrossEntropyLoss has no noise std",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(br.InvalidArgumentError, match=message):
        call()


def test_unknown_loss_says_how_to_give_the_scale_by_hand():
    class Mine(nn.CrossEntropyLoss):
        pass

    for loss in (nn.HuberLoss(), Mine()):
        with pytest.raises(br.UnknownLossError, match=r"write br\.LossScale\.mean\(num_data\)") as caught:
            br.LossScale.from_loss(loss, 10)
        assert type(loss).__name__ in str(caught.value)
