"""What counts how much: sample weights in both readings, and the tokens of texts."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import bayesreg as br

L = br.likelihoods
N = 40


@pytest.fixture(scope="module")
def table():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(N, 3, generator=generator, dtype=torch.float64)
    y = X @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) + 0.3 * torch.randn(N, generator=generator).double()
    return X, y, torch.randint(0, 4, (N,), generator=generator).double()


def fitted(data, likelihood=None, optimizer="lbfgs", prior=None, **how):
    torch.manual_seed(0)
    model = nn.Linear(data[0].shape[1], 1).double()
    trainer = br.MAPTrainer(
        model, prior or br.Gaussian(0.7), likelihood or L.Gaussian(0.5), optimizer=optimizer, progress=False, **how
    )
    result = trainer.fit(data)
    return nn.utils.parameters_to_vector(model.parameters()).detach(), result


def test_counts_are_repetitions(table):
    X, y, w = table
    repeated = w.long()
    weights, result = fitted((X, y, w), sample_weight=2)
    again, other = fitted((X.repeat_interleave(repeated, 0), y.repeat_interleave(repeated)))
    assert torch.allclose(weights, again, atol=1e-9)
    assert result.num_data == other.num_data == int(w.sum())
    assert result.mean_nll == pytest.approx(other.mean_nll, abs=1e-10)
    assert result.objective == pytest.approx(other.objective, abs=1e-10)
    assert result.loss_scale == other.loss_scale


def test_counts_need_not_be_whole(table):
    sklearn = pytest.importorskip("sklearn.linear_model")
    X, y, w = table
    weights, result = fitted((X, y, 0.37 * w), sample_weight=2)
    ridge = sklearn.Ridge(alpha=br.variance_to_ridge_alpha(0.7**2, noise_std=0.5))
    ridge.fit(X.numpy(), y.numpy(), sample_weight=0.37 * w.numpy())
    assert np.allclose(weights[:3], ridge.coef_, atol=1e-8)
    assert result.num_data == pytest.approx(0.37 * float(w.sum()))


def test_relative_weights_know_ratios_alone(table):
    X, y, w = table
    fits = [fitted((X, y, c * w), sample_weight=2, weights_are="relative") for c in (1.0, 1e-3, 70.0)]
    assert all(torch.allclose(weights, fits[0][0], atol=1e-9) for weights, _ in fits)
    assert all(result.num_data == N for _, result in fits)
    # As counts whose sum is the number of rows.
    weights, result = fitted((X, y, w * N / w.sum()), sample_weight=2)
    assert torch.allclose(weights, fits[0][0], atol=1e-9)
    assert result.mean_nll == pytest.approx(fits[0][1].mean_nll, abs=1e-10)
    counted, _ = fitted((X, y, w), sample_weight=2)
    assert not torch.allclose(counted, fits[0][0], atol=1e-3)


@pytest.mark.parametrize("reading", ["counts", "relative"])
@pytest.mark.parametrize("likelihood", ["weights", "tokens"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_gradient_is_that_of_the_whole_on_average(table, reading, likelihood, accumulate):
    X, y, w = table
    if likelihood == "weights":
        model, terms, how = nn.Linear(3, 1).double(), L.Gaussian(0.5), {"sample_weight": 2, "weights_are": reading}
        data = TensorDataset(X, y, w)
        factor = 1.0 if reading == "counts" else N / w.sum()
        whole = (factor * w * terms.nll(model(X), y)).sum() / (w.sum() if reading == "counts" else N)
    else:
        torch.manual_seed(2)
        tokens = torch.randint(0, 5, (N, 6))
        tokens[w[:, None] * 2 > torch.arange(6.0)] = -100
        model, terms, how = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5)).double(), L.Tokens(), {}
        inputs = torch.randint(0, 7, (N, 6))
        data = TensorDataset(inputs, tokens)
        whole = F.cross_entropy(model(inputs).movedim(2, 1), tokens)
    expected = torch.autograd.grad(whole, list(model.parameters()))
    met = []

    class Looked(torch.optim.SGD):
        def step(self, closure=None):
            met.append([p.grad.clone() for p in model.parameters()])

    trainer = br.MAPTrainer(
        model, br.Flat(), terms, optimizer=partial(Looked, lr=0.1), max_epochs=1, accumulate=accumulate,
        progress=False, **how,
    )  # fmt: skip
    # Ten rows in each step, so that each counts for as much; what is in them is not alike.
    trainer.fit(DataLoader(data, batch_size=10 if accumulate == 1 else 5, drop_last=True))
    shares = torch.tensor([15.0, 15.0, 10.0]) / N if accumulate == 3 else torch.full((4,), 0.25)
    for index, one in enumerate(expected):
        mean = sum(share * step[index] for share, step in zip(shares.double(), met, strict=True))
        assert torch.allclose(mean, one, atol=1e-12)


@pytest.mark.parametrize("own", [True, False])
def test_a_loader_is_read_ahead_without_disturbing_its_order(table, own):
    X, y, w = table

    def order(weighted):
        seen = []

        class Seen(torch.utils.data.Dataset):
            def __len__(self):
                return N

            def __getitem__(self, index):
                seen.append(index)
                return (X[index], y[index], w[index]) if weighted else (X[index], y[index])

        torch.manual_seed(3)
        generator = torch.Generator().manual_seed(1) if own else None
        loader = DataLoader(Seen(), batch_size=8, shuffle=True, generator=generator)
        how = {"sample_weight": 2} if weighted else {}
        br.MAPTrainer(
            nn.Linear(3, 1).double(), br.Gaussian(1.0), L.Gaussian(1.0), max_epochs=1, progress=False, **how
        ).fit(loader)
        return seen[N:] if weighted else seen

    assert order(True) == order(False)


class Stream(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def test_streams_of_weights_say_what_they_need(table):
    rows = list(zip(*table, strict=True))
    make = partial(DataLoader, Stream(rows), batch_size=8)
    with pytest.raises(br.InvalidArgumentError, match="num_data: this stream cannot be read ahead"):
        fitted_loader(make(), sample_weight=2)
    with pytest.raises(br.InvalidArgumentError, match="weights_are: the mean weight of a stream"):
        fitted_loader(make(), sample_weight=2, weights_are="relative", num_data=N)
    result = fitted_loader(make(), sample_weight=2, num_data=int(table[2].sum()))
    assert result.num_data == int(table[2].sum())
    weights = fitted_loader(make(), sample_weight=2, num_data=br.LossScale.mean(60))
    assert weights.num_data is None


def fitted_loader(loader, **how):
    model = nn.Linear(3, 1).double()
    return br.MAPTrainer(
        model, br.Gaussian(1.0), L.Gaussian(1.0), max_epochs=1, progress=False, **how
    ).fit(loader)  # fmt: skip


def test_weights_of_nothing_are_refused(table):
    X, y, w = table
    with pytest.raises(br.DataError, match="the weights are all 0"):
        fitted((X, y, 0.0 * w), sample_weight=2)


# -- tokens ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, 6, (30, 8), generator=generator)
    labels = tokens.clone()
    for row, length in enumerate(torch.randint(2, 9, (30,), generator=generator).tolist()):
        labels[row, length:] = -100
    return tokens, labels


def language_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(6, 5), nn.Linear(5, 6)).double()


def test_means_are_over_unmasked_tokens(texts):
    tokens, labels = texts
    model = language_model()
    trainer = br.MAPTrainer(model, br.Gaussian(1.0), L.Tokens(), max_epochs=3, progress=False)
    result = trainer.fit((tokens, labels), (tokens, labels))
    with torch.no_grad():
        output = model(tokens)
    assert result.num_data == int((labels != -100).sum())
    assert result.mean_nll == pytest.approx(float(F.cross_entropy(output.movedim(2, 1), labels)), rel=1e-12)
    hits = ((output.argmax(-1) == labels) & (labels != -100)).sum() / (labels != -100).sum()
    assert result.val_metric == pytest.approx(float(hits))
    assert math.isclose(result.loss_scale.value, 1.0 / result.num_data)
    said = {row[0]: row[1] for row in result.summary().rows}
    assert said["training tokens"] == result.num_data
    assert said["objective (nats per token)"] == result.objective


def test_the_map_of_a_language_model_is_that_of_all_its_tokens(texts):
    tokens, labels = texts
    model = language_model()
    prior = br.ModelPrior(model, {"*": br.Gaussian(1.0)})
    result = br.MAPTrainer(model, prior, L.Tokens(), optimizer="lbfgs", progress=False).fit((tokens, labels))
    assert result.converged
    total = F.cross_entropy(model(tokens).movedim(2, 1), labels, reduction="sum") - prior.log_prob()
    slope = torch.autograd.grad(total, list(model.parameters()))
    assert max(float(g.abs().max()) for g in slope) < 1e-9 * result.num_data * 10


def test_masked_tokens_and_padding_change_nothing(texts):
    tokens, labels = texts
    padded = torch.cat([tokens, torch.zeros_like(tokens)], 1)
    masked = torch.cat([labels, torch.full_like(labels, -100)], 1)
    fits = []
    for x, y in ((tokens, labels), (padded, masked)):
        model = language_model()
        result = br.MAPTrainer(model, br.Gaussian(1.0), L.Tokens(), optimizer="lbfgs", progress=False).fit((x, y))
        fits.append((nn.utils.parameters_to_vector(model.parameters()), result.num_data))
    assert torch.allclose(fits[0][0], fits[1][0], atol=1e-9)
    assert fits[0][1] == fits[1][1]


@pytest.mark.slow
def test_shifted_labels_are_those_of_hugging_face(texts):
    transformers = pytest.importorskip("transformers")
    tokens, labels = texts
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0)
    config = transformers.GPT2Config(vocab_size=6, n_positions=8, n_embd=8, n_layer=1, n_head=2, **dropout)
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config)
    rows = [{"input_ids": t, "labels": y} for t, y in zip(tokens, labels, strict=True)]
    how = {"max_epochs": 1, "batch_size": 30, "progress": False}
    result = br.MAPTrainer(model, br.Gaussian(1.0), L.Tokens(shift=True), **how).fit(rows)
    with torch.no_grad():
        by_model = model(input_ids=tokens, labels=labels).loss
    assert result.mean_nll == pytest.approx(float(by_model), rel=1e-5)
    assert result.num_data == int((labels[:, 1:] != -100).sum())
    with pytest.raises(br.InvalidArgumentError, match=r"labels of GPT2LMHeadModel .*Tokens\(shift=True\)"):
        br.MAPTrainer(model, br.Gaussian(1.0), L.Tokens(), **how)


@pytest.mark.parametrize(
    ("output", "target", "said"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3).long(), r"expected output \(batch, time, vocabulary\)"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 4).long(), r"got \(2, 3, 4\) and \(2, 4\)"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 3), "expected integer tokens as targets, got dtype torch.float32"),
        (torch.zeros(2, 3, 4), torch.full((2, 3), 4), "expected class indices from 0 to 3"),
    ],
)
def test_tokens_that_do_not_fit_are_told(output, target, said):
    with pytest.raises(br.DataError, match=said):
        L.Tokens().nll(output, target)


def test_classes_that_come_last_are_pointed_to_tokens():
    with pytest.raises(br.DataError, match=r"classes that come last, .* are br.likelihoods.Tokens\(\)"):
        L.Categorical().nll(torch.zeros(2, 5, 3), torch.zeros(2, 5).long())


def test_tokens_agree_with_the_categorical_of_turned_outputs(texts):
    _, labels = texts
    output = torch.randn(30, 8, 6, dtype=torch.float64)
    assert torch.allclose(L.Tokens().nll(output, labels), L.Categorical().nll(output.movedim(2, 1), labels), atol=1e-12)
    shifted = L.Tokens(shift=True).nll(output, labels)
    assert torch.allclose(shifted, L.Tokens().nll(output[:, :-1], labels[:, 1:]), atol=1e-12)
    assert L.Tokens().predictive(output).probs.shape == (30, 8, 6)
