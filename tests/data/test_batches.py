"""Every form in which people have their batches trains as the pair does, and what does not fit is told."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import bayesreg as br

L = br.likelihoods
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
N = 53


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(N, 4, generator=generator)
    return X, (X[:, 0] + 0.3 * torch.randn(N, generator=generator) > 0).long()


class Net(nn.Module):
    """One linear layer, called in one of many ways."""

    def __init__(self, call):
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(4, 2)
        self.call = call


class Plain(Net):
    def forward(self, x):
        return self.call(self.linear(x))


class ByKeyword(Net):
    def forward(self, pixels, scale=None, *, flag=False):
        return self.call(self.linear(pixels if scale is None else pixels * scale[:, None]))


class OfTwo(Net):
    def forward(self, left, right):
        return self.call(self.linear(torch.cat([left, right], 1)))


class Whole(Net):
    def forward(self, batch):
        return self.call(self.linear(batch["pixels"]))


class Only(Net):
    def forward(self, parts):
        return self.call(self.linear(parts[0]))


class AnyKeyword(Net):
    def forward(self, **given):
        return self.call(self.linear(given["pixels"]))


class AnyNumber(Net):
    def forward(self, *parts):
        return self.call(self.linear(torch.cat(parts, 1)))


def as_it_is(x):
    return x


def train(model, loader, **how):
    trainer = br.MAPTrainer(
        model, br.Gaussian(0.5), how.pop("likelihood", L.Categorical()), optimizer=SGD, max_epochs=2, progress=False,
        **how,
    )  # fmt: skip
    result = trainer.fit(loader)
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]), result


def loaded(data, make):
    X, y = data
    return DataLoader([make(x, t) for x, t in zip(X, y, strict=True)], batch_size=8)


@pytest.fixture(scope="module")
def expected(data):
    return train(Plain(as_it_is), loaded(data, lambda x, y: (x, y)))


@pytest.mark.parametrize(
    ("model", "make", "how"),
    [
        (ByKeyword, lambda x, y: {"pixels": x, "labels": y}, {}),
        (ByKeyword, lambda x, y: {"pixels": x, "scale": torch.tensor(1.0), "labels": y}, {}),
        (ByKeyword, lambda x, y: {"pixels": x, "digit": y}, {"target": "digit"}),
        (AnyKeyword, lambda x, y: {"pixels": x, "labels": y, "other": 1}, {}),
        (Whole, lambda x, y: {"pixels": x, "labels": y}, {}),
        (Whole, lambda x, y: ({"pixels": x}, y), {}),
        (ByKeyword, lambda x, y: ({"pixels": x}, y), {}),
        (OfTwo, lambda x, y: (x[:2], x[2:], y), {"target": -1}),
        (OfTwo, lambda x, y: (y, x[:2], x[2:]), {"target": 0}),
        (OfTwo, lambda x, y: ((x[:2], x[2:]), y), {}),
        (Only, lambda x, y: ((x,), y), {}),
        (OfTwo, lambda x, y: {"right": x[2:], "left": x[:2], "labels": y}, {}),
        (AnyNumber, lambda x, y: (x[:1], x[1:3], x[3:], y), {"target": 3}),
        (Plain, lambda x, y: [x, y], {}),
        (Plain, lambda x, y: (y, x), {"target": 0}),
        (Plain, lambda x, y: (x, y, torch.tensor(1.0)), {"sample_weight": 2}),
        (Plain, lambda x, y: (x, torch.tensor(1.0), y), {"sample_weight": 1, "target": -1}),
        (ByKeyword, lambda x, y: {"pixels": x, "labels": y, "w": 1.0}, {"sample_weight": "w"}),
    ],
)
@pytest.mark.parametrize("optimizer", ["sgd", "lbfgs"])
def test_every_form_of_batch_trains_alike(data, expected, model, make, how, optimizer):
    if optimizer == "sgd":
        weights, result = train(model(as_it_is), loaded(data, make), **how)
        assert torch.equal(weights, expected[0])
        assert result.mean_nll == expected[1].mean_nll
    else:
        fits = []
        for net, form, given in ((Plain, lambda x, y: (x, y), {}), (model, make, how)):
            made = net(as_it_is)
            trainer = br.MAPTrainer(made, br.Gaussian(0.5), L.Categorical(), optimizer="lbfgs", progress=False, **given)
            fits.append((trainer.fit(loaded(data, form)), made.linear.weight.detach()))
        assert torch.equal(fits[0][1], fits[1][1])


class Named(NamedTuple):
    loss: None
    scores: torch.Tensor


@dataclass
class Record:
    logits: torch.Tensor
    hidden: int = 0


@pytest.mark.parametrize(
    ("call", "how"),
    [
        (lambda o: {"logits": o, "hidden": 1}, {}),
        (Record, {}),
        (lambda o: UserDict(logits=o), {}),
        (lambda o: {"out": o}, {"output": "out"}),
        (lambda o: (o, 1), {"output": 0}),
        (lambda o: [1, o], {"output": -1}),
        (lambda o: Named(None, o), {"output": "scores"}),
        (lambda o: Named(None, o), {"output": 1}),
        (lambda o: {"deep": {"er": o}}, {"output": lambda out: out["deep"]["er"]}),
        (lambda o: o[:, None], {"output": lambda out: out[:, 0]}),
    ],
)
def test_every_form_of_output_trains_alike(data, expected, call, how):
    weights, result = train(Plain(call), loaded(data, lambda x, y: (x, y)), **how)
    assert torch.equal(weights, expected[0])
    assert result.mean_nll == expected[1].mean_nll


class Map(Dataset):
    def __init__(self, data, make):
        self.data, self.make = data, make

    def __len__(self):
        return N

    def __getitem__(self, index):
        return self.make(self.data[0][index], self.data[1][index])


class DuckTyped:
    """Examples by their number that are no torch dataset, as those of Hugging Face."""

    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        return self.inner[index]


class Stream(IterableDataset):
    def __init__(self, inner):
        self.inner = inner

    def __iter__(self):
        return (self.inner[index] for index in range(len(self.inner)))


def test_every_source_of_batches_trains_alike(data):
    X, y = data
    mapped = Map(data, lambda x, t: {"pixels": x, "labels": t})
    ready = [{"pixels": X[i : i + 8], "labels": y[i : i + 8]} for i in range(0, N, 8)]

    class Batches:
        def __iter__(self):
            return iter(ready)

    in_order = [
        (DataLoader(mapped, batch_size=8), {}),
        (DataLoader(Stream(mapped), batch_size=8), {"num_data": N}),
        (Stream(mapped), {"num_data": N, "batch_size": 8}),
        (Batches(), {"num_data": N}),
    ]
    weights = [train(ByKeyword(as_it_is), loader, **how)[0] for loader, how in in_order]
    assert all(torch.equal(one, weights[0]) for one in weights)
    shuffled = [
        ({"pixels": X, "labels": y}, {}),
        ({"pixels": X.numpy(), "labels": y.numpy()}, {}),
        (mapped, {}),
        (DuckTyped(mapped), {}),
        ([mapped[index] for index in range(N)], {}),
        (TensorDataset(X, y), {}),
        ((X, y), {}),
        ([X.numpy(), y.tolist()], {}),
        ((X, y, torch.ones(N)), {"sample_weight": 2}),
        ((y, X), {"target": 0}),
    ]
    weights = [train(ByKeyword(as_it_is), loader, batch_size=8, **how)[0] for loader, how in shuffled]
    assert all(torch.equal(one, weights[0]) for one in weights)


def test_several_inputs_in_memory(data, expected):
    X, y = data
    fits = [
        train(OfTwo(as_it_is), (X[:, :2], X[:, 2:], y), target=-1, batch_size=8),
        train(OfTwo(as_it_is), ((X[:, :2].numpy(), X[:, 2:].double()), y), batch_size=8),
        train(OfTwo(as_it_is), {"left": X[:, :2], "right": X[:, 2:], "labels": y}, batch_size=8),
        train(Plain(as_it_is), (X, y), batch_size=8),
    ]
    assert all(torch.equal(weights, fits[0][0]) for weights, _ in fits)


@pytest.mark.slow
def test_a_model_of_hugging_face_needs_no_argument(data):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config).eval()
    tokens = torch.randint(0, 30, (24, 7))
    rows = [
        {"input_ids": t, "attention_mask": torch.ones(7, dtype=torch.long), "labels": torch.tensor(int(t[0]) % 3)}
        for t in tokens
    ]
    trainer = br.MAPTrainer(
        model, br.Gaussian(0.1), L.Categorical(), optimizer=partial(torch.optim.Adam, lr=1e-3), max_epochs=1,
        batch_size=8, progress=False,
    )  # fmt: skip
    result = trainer.fit(rows)
    with torch.no_grad():
        labels = torch.stack([row["labels"] for row in rows])
        by_model = model(input_ids=tokens, attention_mask=torch.ones(24, 7, dtype=torch.long), labels=labels).loss
    assert result.num_data == 24
    assert result.mean_nll == pytest.approx(float(by_model), rel=1e-5)


# -- what does not fit ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "how", "said"),
    [
        (lambda x, y: {"pixels": x, "label": y}, {}, "got one with pixels, label; did you mean 'label'"),
        (lambda x, y: {"pixels": x, "labels": y}, {"target": "digit"}, "mapping with 'digit' as its target"),
        (lambda x, y: (x, y, y), {"target": -1, "sample_weight": 2}, "entry 2 is the target, and cannot be the sample"),
        (lambda x, y: {"pixels": x, "labels": y}, {"sample_weight": "labels"}, "'labels' is the target, and cannot be"),
        (lambda x, y: {"labels": y}, {}, "expected inputs beside the target 'labels', got a mapping with nothing else"),
        (lambda x, y: {"pixels": x, "idx": y, "labels": y}, {}, "takes pixels, scale, flag, and the batch has 'idx'"),
        (lambda x, y: (x, y, y), {}, r"3 entries \(Tensor, Tensor, Tensor\); say what they are"),
        (lambda x, y: (x,), {}, r"got 1 entries"),
        (lambda x, y: (x, y), {"target": 2}, "target=2 was said to be the target, and there are 2 entries"),
        (lambda x, y: (x, y), {"target": "labels"}, "target='labels' was said to be the target"),
        (lambda x, y: (x, y), {"sample_weight": 1}, "expected a pair .* beside the weights, got 2 entries"),
        (lambda x, y: (x, y, torch.ones(2)), {"sample_weight": 2}, r"a tensor of shape \(8,\), got shape \(8, 2\)"),
        (lambda x, y: (x, y, -1.0), {"sample_weight": 2}, "expected sample weights >= 0, got values from -1 to -1"),
        (lambda x, y: (x, y, float("nan")), {"sample_weight": 2}, "expected sample weights >= 0, got values from nan"),
        (lambda x, y: {"pixels": x, "labels": y}, {"sample_weight": "w"}, "mapping with 'w' as its sample weights"),
        (lambda x, y: (x, "cat"), {}, "expected a tensor of targets, .* as entry 1, got"),
    ],
)  # fmt: skip
def test_batches_that_do_not_fit_are_told(data, make, how, said):
    with pytest.raises(br.DataError, match=said):
        train(ByKeyword(as_it_is), loaded(data, make), **{"num_data": N, **how})


@pytest.mark.parametrize(
    ("call", "how", "said"),
    [
        (
            lambda o: {"scores": o},
            {},
            "or a mapping with 'logits', got a mapping with scores from Plain",
        ),
        (lambda o: (o, o), {}, r"got 2 entries \(Tensor, Tensor\) from Plain; say which output the likelihood takes"),
        (lambda o: (o, o), {"output": 2}, "returns 2 among its outputs"),
        (lambda o: {"scores": o}, {"output": "logits"}, "returns 'logits' among its outputs"),
        (lambda o: o, {"output": lambda out: None}, "returns a tensor from <lambda>, got Tensor"),
        (lambda o: o, {"output": lambda out: out.sum()}, r"expected output \(batch, classes, ...\) .*, got \(\) and"),
        (lambda o: o, {"output": br.Gaussian}, "got Gaussian, which cannot take it"),
        (lambda o: o, {"output": lambda: None}, "output: expected a function of what the model returns, a Tensor"),
        (lambda o: o, {"output": lambda out: out["scores"]}, "got <lambda>, which cannot take it"),
        (lambda o: None, {}, "got NoneType from Plain"),
    ],
)
def test_outputs_that_do_not_fit_are_told(data, call, how, said):
    with pytest.raises(br.DataError, match=said):
        train(Plain(call), loaded(data, lambda x, y: (x, y)), **how)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"target": 1.5}, "target: expected"),
        ({"sample_weight": True}, "sample_weight: expected a key of the batch or its place"),
        ({"target": 1, "sample_weight": 1}, "sample_weight: is the target already, 1"),
        ({"output": 1.5}, "output: expected"),
        ({"weights_are": "relative"}, "weights_are: there are no weights"),
        ({"weights_are": "importance", "sample_weight": 2}, "weights_are: expected 'counts' or 'relative'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(how, said):
    with pytest.raises(br.InvalidArgumentError, match=said):
        br.MAPTrainer(nn.Linear(2, 2), br.Gaussian(1.0), L.Categorical(), **how)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (({"a": np.zeros((4, 2))}, np.zeros(3)), r"got inputs 'a' of shape \(4, 2\) and targets of shape \(3,\)"),
        ((np.zeros((4, 2)), np.zeros(4), np.array([1.0, 1.0, np.inf, 1.0])), "expected sample weights >= 0"),
        (((torch.zeros(4, 2), torch.full((4, 1), torch.nan)), torch.zeros(4)), "inputs 1 hold NaN or infinity"),
    ],
)
def test_arrays_that_do_not_fit_are_told(given, said):
    how = {"sample_weight": 2} if len(given) == 3 else {}
    trainer = br.MAPTrainer(nn.Linear(2, 1), br.Gaussian(1.0), L.Gaussian(1.0), max_epochs=1, **how)
    with pytest.raises(br.DataError, match=said):
        trainer.fit(given)


def test_epochs_of_a_generator_are_told(data):
    X, y = data
    once = ((X[i : i + 8], y[i : i + 8]) for i in range(0, N, 8))
    with pytest.raises(br.DataError, match="the loader gave no examples"):
        train(Plain(as_it_is), once, num_data=N)
