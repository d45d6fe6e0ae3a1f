"""Averages of the weights: of which steps, over which epochs, with which zeros."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

import bayesreg as br

L = br.likelihoods
SGD = partial(torch.optim.SGD, lr=0.3)


def data():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(60, 8, generator=generator)
    return X, (X[:, 0] + X[:, 1] > 0).long()


class Watch(br.callbacks.Callback):
    """The weights after each step, and at the end of each epoch."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_step(self, training):
        self.steps.append([p.detach().clone() for p in training.model.parameters()])

    def on_epoch_end(self, training):
        self.epochs.append(self.steps[-1])


def trained(average, prior=None, val=True, net=None, **how):
    torch.manual_seed(0)
    model = net() if net else nn.Linear(8, 2)
    watch = Watch()
    given = {"optimizer": SGD, "max_epochs": 8, "batch_size": 20, "progress": False, **how}
    trainer = br.MAPTrainer(
        model, prior or br.Gaussian(0.5), L.Categorical(), average=average, callbacks=[watch], **given
    )
    result = trainer.fit(data(), data() if val else None)
    return model, watch, result, trainer


@pytest.mark.parametrize(("start", "first"), [(None, 0), (3, 6)])
def test_ema_is_the_recursion_over_steps(start, first):
    model, watch, _, _ = trained(br.WeightAverage("ema", decay=0.9, start=start), restore_best=False)
    expected = [p.double() for p in watch.steps[first]]
    for step in watch.steps[first + 1 :]:
        expected = [0.9 * e + 0.1 * p for e, p in zip(expected, step, strict=True)]
    assert len(watch.steps) == 24
    for p, e in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(p.double(), e, atol=1e-6)


@pytest.mark.parametrize(("average", "first"), [("swa", 7), (br.WeightAverage("swa", start=3), 3)])
def test_swa_is_the_mean_over_epochs(average, first):
    model, watch, _, _ = trained(average, restore_best=False)
    for index, p in enumerate(model.parameters()):
        mean = torch.stack([epoch[index] for epoch in watch.epochs[first - 1 :]]).mean(0)
        assert torch.allclose(p, mean, atol=1e-6)


@pytest.mark.parametrize("average", ["ema", "swa", br.WeightAverage("ema", decay=0.8)])
@pytest.mark.parametrize("restore_best", [True, False])
def test_what_is_validated_is_what_is_kept(average, restore_best):
    _, _, result, trainer = trained(average, restore_best=restore_best)
    assert trainer.evaluate(data())["nll"] == pytest.approx(result.history[result.kept_record - 1]["val_nll"], rel=1e-6)
    assert result.val_nll == pytest.approx(result.history[result.kept_record - 1]["val_nll"], rel=1e-6)


def test_averaging_leaves_the_steps_alone():
    plain, averaged = trained(None)[1], trained("ema")[1]
    for one, other in zip(plain.steps, averaged.steps, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(one, other, strict=True))


def test_exact_zeros_are_kept_or_lost():
    prior = br.Laplace(0.12)
    kept = trained(br.WeightAverage("ema", decay=0.9), prior)
    lost = trained(br.WeightAverage("ema", decay=0.9, keep_zeros=False), prior)
    last = kept[1].steps[-1][0]
    assert 0.2 < float((last == 0).float().mean()) < 1.0
    assert torch.equal(kept[0].weight == 0, last == 0)
    assert kept[2].exact_zeros == pytest.approx(float((last == 0).float().mean()))
    assert lost[2].exact_zeros < kept[2].exact_zeros
    assert "average" in str(lost[2].summary())
    assert "average" not in str(kept[2].summary())


def test_statistics_of_norms_are_averaged_too():
    def net():
        return nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))

    model, _, result, trainer = trained(br.WeightAverage("swa", start=2), net=net)
    assert trainer.evaluate(data())["nll"] == pytest.approx(result.history[result.kept_record - 1]["val_nll"], rel=1e-6)
    assert model[1].num_batches_tracked.dtype == torch.long


def test_tied_weights_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(8, 8, bias=False)
            self.outer = nn.Linear(8, 8, bias=False)
            self.outer.weight = self.inner.weight
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.outer(torch.tanh(self.inner(x))))

    model, watch, _, _ = trained(br.WeightAverage("ema", decay=0.5), net=Tied)
    assert model.inner.weight is model.outer.weight
    assert len(watch.steps[0]) == 3


@pytest.mark.parametrize("average", [br.WeightAverage("ema", decay=0.9), br.WeightAverage("swa", start=2)])
def test_an_average_goes_on_after_a_stop(tmp_path, average):
    whole = trained(average, checkpoint=tmp_path / "whole")
    torch.manual_seed(0)
    for epochs in (3, 5, 8):
        torch.manual_seed(0)
        model = nn.Linear(8, 2)
        trainer = br.MAPTrainer(
            model, br.Gaussian(0.5), L.Categorical(), average=average, optimizer=SGD, max_epochs=epochs, batch_size=20,
            progress=False, checkpoint=tmp_path / "parts",
        )  # fmt: skip
        trainer.fit(data(), data(), resume=True)
    assert torch.equal(model.weight, whole[0].weight)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: br.WeightAverage("mean"), "kind: expected 'ema' or 'swa'"),
        (lambda: br.WeightAverage("ema", decay=1.0), "decay: expected a number between 0 and 1"),
        (lambda: br.WeightAverage("ema", start=0), "start: expected an integer >= 1"),
        (lambda: trained("mean"), "average: expected 'ema', 'swa'"),
        (lambda: trained(br.WeightAverage("swa", start=9)), "average: begins in epoch 9, and there are 8"),
        (lambda: trained("swa", max_epochs=None, max_steps=5), "how many epochs there will be is not known"),
    ],
)
def test_bad_averages_are_refused(make, said):
    with pytest.raises(br.InvalidArgumentError, match=said):
        make()


def test_an_average_that_never_begins_is_told():
    _, _, result, _ = trained(br.WeightAverage("swa", start=8), max_epochs=9, max_steps=6)
    assert "Training ended before the average of the weights began" in str(result.summary())
