"""Predictions, metrics, what says which weights are best, and a noise that cannot be."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bayesreg as br

L = br.likelihoods
SGD = partial(torch.optim.SGD, lr=0.2, momentum=0.9)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(70, 3, generator=generator)
    return X, torch.randint(0, 4, (70,), generator=generator)


def trainer_of(likelihood=None, outputs=4, **how):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, outputs))
    given = {"optimizer": SGD, "max_epochs": 4, "progress": False, **how}
    return br.MAPTrainer(model, br.Gaussian(1.0), likelihood or L.Categorical(), **given)


# -- predict and evaluate ----------------------------------------------------------------------------------


def test_predictions_do_not_depend_on_the_batches_and_leave_the_model_alone(data):
    X, y = data
    trainer = trainer_of()
    trainer.fit((X, y))
    trainer.model.train()
    trainer.model[1].eval()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    whole = trainer.predict(X, kind="output")
    for size in (1, 7, 70, 1000):
        assert torch.allclose(trainer.predict(X, kind="output", batch_size=size), whole, atol=1e-6)
    assert [module.training for module in trainer.model] == [True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert not whole.requires_grad
    trainer.model.eval()
    assert torch.allclose(whole, trainer.model(X), atol=1e-6)


def test_every_kind_is_of_the_same_distribution(data):
    X, y = data
    trainer = trainer_of()
    trainer.fit((X, y))
    distribution = trainer.predict(X)
    probabilities = trainer.predict(X, kind="probabilities")
    assert torch.allclose(probabilities, torch.softmax(trainer.predict(X, kind="output"), 1), atol=1e-6)
    assert torch.equal(trainer.predict(X, kind="classes"), probabilities.argmax(1))
    assert -distribution.log_prob(y).mean() == pytest.approx(trainer.evaluate((X, y))["nll"], rel=1e-5)
    with pytest.raises(br.UnsupportedError, match="classes have no mean; ask for kind='probabilities'"):
        trainer.predict(X, kind="mean")
    with pytest.raises(br.DataError, match=r"data: model: Sequential .* cannot take inputs of shape \(3,\)"):
        trainer.predict(X[0])
    plain = br.MAPTrainer(nn.Linear(3, 4), br.Gaussian(1.0), L.Categorical())
    with pytest.raises(br.DataError, match=r"data: expected inputs \(examples, ...\) .* an output of shape \(4,\)"):
        plain.predict(X[0])
    with pytest.raises(br.DataError, match=r"got inputs of shape .* on the meta device"):
        trainer.predict(X.to("meta"))


@pytest.mark.parametrize(
    ("likelihood", "kind", "of"),
    [
        (L.Bernoulli(), "probabilities", torch.sigmoid),
        (L.Bernoulli(), "mean", torch.sigmoid),
        (L.Bernoulli(), "classes", lambda o: (o > 0).long()),
        (L.Gaussian(0.5), "mean", lambda o: o),
        (L.Poisson(), "mean", torch.exp),
    ],
)
def test_kinds_of_other_likelihoods(data, likelihood, kind, of):
    trainer = trainer_of(likelihood, 1)
    output = trainer.predict(data[0], kind="output")
    assert torch.allclose(trainer.predict(data[0], kind=kind), of(output), atol=1e-6)


def test_numbers_are_no_classes(data):
    with pytest.raises(br.UnsupportedError, match="Normal predicts numbers, not classes; ask for kind='mean'"):
        trainer_of(L.Gaussian(1.0), 1).predict(data[0], kind="classes")
    with pytest.raises(br.InvalidArgumentError, match="kind: expected one of 'distribution'"):
        trainer_of().predict(data[0], kind="label")


def test_inputs_come_in_every_form(data):
    X, y = data
    trainer = trainer_of()
    expected = trainer.predict(X, kind="output", batch_size=16)
    pairs = TensorDataset(X, y)
    named = [{"input": x, "labels": t} for x, t in zip(X, y, strict=True)]
    for given in (
        X.numpy(), X.double(), X.tolist(), {"input": X}, pairs, DataLoader(pairs, batch_size=16), TensorDataset(X),
        DataLoader(X, batch_size=16), named, [{"input": x} for x in X], DataLoader(named, batch_size=16),
    ):  # fmt: skip
        assert torch.allclose(trainer.predict(given, kind="output", batch_size=16), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((0, 3)), "expected at least one example, got none"),
        (np.array(["a", "b"]), "expected numbers as inputs, got dtype"),
        ({"a": np.zeros((3, 3)), "b": np.zeros((2, 3))}, "expected inputs of as many examples"),
        (np.full((2, 3), np.nan), "inputs hold NaN or infinity"),
        (np.zeros((2, 5)), "cannot take inputs of shape"),
    ],
)
def test_inputs_that_do_not_fit_are_told(given, said):
    with pytest.raises(br.DataError, match=said):
        trainer_of().predict(given)


def test_texts_of_several_lengths_are_told():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
    trainer = br.MAPTrainer(model, br.Gaussian(1.0), L.Tokens())
    batches = [torch.zeros(2, 4).long(), torch.zeros(2, 5).long()]
    with pytest.raises(br.DataError, match="outputs differ in shape from batch to batch"):
        trainer.predict(DataLoader(batches, batch_size=None))


def test_evaluation_weighs_examples(data):
    X, y = data
    w = torch.arange(70.0)
    trainer = trainer_of(sample_weight=2)
    found = trainer.evaluate((X, y, w))
    each = L.Categorical().nll(trainer.predict(X, kind="output"), y)
    assert found["nll"] == pytest.approx(float((w * each).sum() / w.sum()), rel=1e-5)


# -- metrics -----------------------------------------------------------------------------------------------


class Counting:
    """As torchmetrics has them: fed batch after batch."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.hits, self.seen, self.calls = 0, 0, 0

    def update(self, output, target):
        self.hits += int((output.argmax(1) == target).sum())
        self.seen += len(target)
        self.calls += 1

    def compute(self):
        return torch.tensor(self.hits / self.seen)


def macro_f1(output, target):
    from sklearn.metrics import f1_score

    return f1_score(target, output.argmax(1), average="macro")


def test_metrics_are_measured_on_all_of_the_validation_data(data):
    sklearn = pytest.importorskip("sklearn.metrics")
    X, y = data
    counting = Counting()
    trainer = trainer_of(metrics={"f1": macro_f1, "hits": counting}, batch_size=9)
    result = trainer.fit((X, y), (X, y))
    last = result.history[-1]
    assert last["val_hits"] == pytest.approx(last["val_accuracy"])
    assert counting.calls == 8
    predicted = trainer.predict(X, kind="classes")
    assert result.val_metrics["f1"] == pytest.approx(sklearn.f1_score(y, predicted, average="macro"))
    assert trainer.evaluate((X, y))["f1"] == result.val_metrics["f1"]
    assert "validation f1" in str(result.summary())
    assert result.to_dict()["val_metrics"] == result.val_metrics


@pytest.mark.slow
def test_a_metric_of_torchmetrics(data):
    torchmetrics = pytest.importorskip("torchmetrics", reason="needs torchmetrics")
    X, y = data
    accuracy = torchmetrics.classification.MulticlassAccuracy(num_classes=4, average="micro")
    result = trainer_of(metrics={"their accuracy": accuracy}).fit((X, y), (X, y))
    assert result.val_metrics["their accuracy"] == pytest.approx(result.val_metric)


def test_the_best_by_a_named_metric_is_kept(data):
    X, y = data
    for how, pick in (
        ({"monitor": "val_accuracy"}, np.argmax),
        ({"monitor": "val_f1", "monitor_mode": "max"}, np.argmax),
        ({"monitor": "val_f1", "monitor_mode": "min"}, np.argmin),
        ({}, np.argmin),
    ):
        trainer = trainer_of(metrics={"f1": macro_f1}, max_epochs=12, **how)
        result = trainer.fit((X, y), (X.flip(0), y))
        column = result.history.column(how.get("monitor", "val_nll"))
        assert result.best_epoch == int(pick(column)) + 1
        again = trainer.evaluate((X.flip(0), y))[how.get("monitor", "val_nll").removeprefix("val_")]
        assert again == pytest.approx(column[result.best_epoch - 1], rel=1e-6)


def test_patience_follows_what_is_monitored(data):
    X, y = data
    trainer = trainer_of(metrics={"never": lambda o, t: 0.5}, monitor="val_never", monitor_mode="max", patience=3,
                         max_epochs=50)  # fmt: skip
    assert len(trainer.fit((X, y), (X, y)).history) == 4


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"metrics": macro_f1}, "metrics: expected functions by name"),
        ({"metrics": {"nll": macro_f1}}, "expected a name other than 'nll' and 'accuracy', got 'nll'"),
        ({"metrics": {"f1": lambda output: 0}}, r"metrics\['f1'\]: expected"),
        ({"monitor_mode": "up"}, "monitor_mode: expected"),
        ({"measure": 1}, "measure: expected True or False"),
    ],
)
def test_bad_metrics_are_refused(how, said):
    with pytest.raises(br.InvalidArgumentError, match=said):
        trainer_of(**how)


def test_what_is_monitored_must_be_there(data):
    with pytest.raises(br.InvalidArgumentError, match="monitor_mode: whether a higher or a lower val_f1 is better"):
        trainer_of(monitor="val_f1").fit(data, data)
    with pytest.raises(br.InvalidArgumentError, match=r"monitor: .* pass val="):
        trainer_of(monitor="val_accuracy").fit(data)
    with pytest.raises(br.InvalidArgumentError, match=r"one of val_nll, val_accuracy, got 'val_acuracy'; did you"):
        trainer_of(monitor="val_acuracy", monitor_mode="max").fit(data, data)
    with pytest.raises(br.DataError, match=r"metrics\['pair'\]: expected one number, got Tensor"):
        trainer_of(metrics={"pair": lambda o, t: torch.zeros(2)}).fit(data, data)


def test_a_pass_may_be_spared(data):
    result = trainer_of(measure=False).fit(data)
    assert not result.measured
    assert result.mean_nll == result.history[-1]["running_nll"]
    assert "on the way, not of the final weights" in str(result.summary())
    assert trainer_of().fit(data).measured


# -- a noise that cannot be --------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["lbfgs", SGD])
def test_residuals_of_thousands_of_noises_are_noticed(optimizer):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    prices = 1e5 * torch.randn(50, generator=generator, dtype=torch.float64)
    how = {} if optimizer == "lbfgs" else {"max_epochs": 1, "batch_size": 50}
    if how:
        optimizer = partial(torch.optim.SGD, lr=1e-9)
    trainer = br.MAPTrainer(
        nn.Linear(2, 1).double(), br.Gaussian(1.0), L.Gaussian(1.0), optimizer=optimizer, progress=False, **how
    )
    with pytest.warns(br.OffScaleWarning, match=r"residuals .* are \d+,\d\d\d noise standard deviations") as told:
        trainer.fit((X, prices))
    assert len(told) == 1


def test_a_noise_that_fits_is_not_spoken_of():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    y = 1e5 * (X[:, 0] + 0.1 * torch.randn(50, generator=generator))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for noise in (1e4, "learned"):
            br.MAPTrainer(
                nn.Linear(2, 1).double(), br.Gaussian(1e5), L.Gaussian(noise), optimizer="lbfgs", progress=False,
                tolerance=1e-6,
            ).fit((X, y))  # fmt: skip


# -- interrupts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("restore_best", [True, False])
def test_after_an_interrupt_the_best_weights_and_the_history_are_there(data, error, restore_best):
    X, y = data
    kept = {}

    class Breaks(TensorDataset):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            if self.reads == 70 * 5 + 13:
                raise error("in the middle of epoch 6")
            return super().__getitem__(index)

    trainer = trainer_of(
        max_epochs=50, restore_best=restore_best,
        on_epoch_end=lambda record: kept.update({record["epoch"]: nn.utils.parameters_to_vector(
            trainer.model.parameters()).detach().clone()}) and None,
    )  # fmt: skip
    with pytest.raises(error, match="in the middle of epoch 6"):
        trainer.fit(DataLoader(Breaks(X, y), batch_size=10), (X.flip(0), y))
    result = trainer.result
    assert result.interrupted == f"{error.__name__} in epoch 6, after 36 steps"
    assert len(result.history) == 5
    assert not result.measured
    best = result.best_epoch
    now = nn.utils.parameters_to_vector(trainer.model.parameters())
    assert torch.equal(now, kept[best]) == restore_best
    if restore_best:
        assert best == int(np.argmin(result.history.column("val_nll"))) + 1
        assert result.val_nll == result.history[best - 1]["val_nll"]
    assert f"Stopped by {error.__name__} in epoch 6" in str(result.summary())
    # The optimizer has no prior on it any more, and the trainer trains again.
    trainer.settings.__dict__["max_epochs"] = 1
    assert trainer.fit((X, y)).interrupted == ""


def test_an_interrupt_before_the_first_record_leaves_what_there_is(data):
    X, y = data

    class Breaks(TensorDataset):
        def __getitem__(self, index):
            raise KeyboardInterrupt

    trainer = trainer_of()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(DataLoader(Breaks(X, y), batch_size=10))
    assert trainer.result.history == []
    assert np.isnan(trainer.result.mean_nll)


# -- how long ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "steps"),
    [
        ({"max_steps": 13}, [7, 13]),
        ({"max_steps": 300, "max_epochs": 2}, [7, 14]),
        ({"max_steps": 14}, [7, 14]),
        ({"max_steps": 13, "evaluate_every": 5}, [5, 10, 13]),
        ({"max_epochs": 2, "evaluate_every": 5}, [5, 10, 14]),
        ({"max_epochs": 2, "evaluate_every": 7}, [7, 14]),
    ],
)
def test_steps_and_records_are_counted(data, how, steps):
    trainer = trainer_of(batch_size=10, **{"max_epochs": None, **how})
    assert trainer.fit(data, data).history.column("step") == steps


def test_the_best_of_records_within_epochs_is_kept(data):
    X, y = data
    trainer = trainer_of(evaluate_every=3, max_epochs=8, batch_size=10)
    result = trainer.fit((X, y), (X.flip(0), y))
    column = result.history.column("val_nll")
    assert result.kept_record == int(np.argmin(column)) + 1
    assert trainer.evaluate((X.flip(0), y))["nll"] == pytest.approx(min(column), rel=1e-6)


# -- schedules ---------------------------------------------------------------------------------------------


def rates(data, **how):
    found = []
    trainer = trainer_of(
        batch_size=10, max_epochs=2, optimizer=partial(torch.optim.SGD, lr=1.0),
        callbacks=br.callbacks.Log(lambda step, values: found.append(values["train/lr"]), every=1)
        if False else [Rates(found)], **how,
    )  # fmt: skip
    trainer.fit(data)
    return found


class Rates(br.callbacks.Callback):
    """The learning rates that steps were taken with."""

    def __init__(self, found):
        self.found = found

    def on_start(self, training):
        training.optimizer.register_step_pre_hook(
            lambda optimizer, *_: self.found.append(float(optimizer.param_groups[0]["lr"]))
        )


def test_schedules_by_name(data):
    cosine = [0.5 * (1 + np.cos(np.pi * k / 14)) for k in range(14)]
    assert rates(data, scheduler="cosine") == pytest.approx(cosine)
    assert rates(data, scheduler="linear") == pytest.approx([1 - k / 14 for k in range(14)])
    assert rates(data, scheduler="constant") == [1.0] * 14
    assert rates(data, warmup=4) == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 11)
    warm = [0.25, 0.5, 0.75, 1.0, *(0.5 * (1 + np.cos(np.pi * k / 10)) for k in range(10))]
    assert rates(data, scheduler="cosine", warmup=4) == pytest.approx(warm)
    assert rates(data, scheduler="linear", warmup=0.5)[:7] == pytest.approx([k / 7 for k in range(1, 8)])
    assert rates(data, scheduler="cosine", warmup=1)[0] == 1.0
    assert len(rates(data, scheduler="cosine", accumulate=3)) == 6


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"scheduler": "cosin"}, "scheduler: expected 'constant', 'linear', 'cosine' or a factory"),
        ({"warmup": 1.5}, "warmup: expected a number of steps, or a share"),
        ({"warmup": -1}, "warmup: expected a number of steps"),
        ({"warmup": True}, "warmup: expected"),
        ({"warmup": 3, "scheduler": lambda o: o}, "warmup: is for the schedules by name"),
        ({"scheduler": "cosine", "scheduler_interval": "epoch"}, "scheduler_interval: 'cosine' goes by steps"),
    ],
)
def test_bad_schedules_are_refused(how, said):
    with pytest.raises(br.InvalidArgumentError, match=said):
        trainer_of(**how)


def test_an_optimizer_is_no_schedule(data):
    with pytest.raises(br.InvalidArgumentError, match="scheduler: expected a factory optimizer -> scheduler"):
        trainer_of(scheduler=lambda optimizer: optimizer).fit(data)


def test_a_warm_up_must_end(data):
    with pytest.raises(br.InvalidArgumentError, match="expected fewer steps than the 12 of the training, got 12"):
        trainer_of(warmup=12).fit(data)


def test_a_schedule_needs_an_end(data):
    stream = DataLoader(Endless(data), batch_size=10)
    with pytest.raises(br.InvalidArgumentError, match="'cosine' needs to know how many steps"):
        trainer_of(scheduler="cosine", num_data=70).fit(stream)
    result = trainer_of(scheduler="cosine", num_data=70, max_epochs=None, max_steps=9).fit(stream)
    assert result.history.column("step") == [9]


class Endless(torch.utils.data.IterableDataset):
    def __init__(self, data):
        self.data = data

    def __iter__(self):
        while True:
            yield from zip(*self.data, strict=True)


# -- the rest ----------------------------------------------------------------------------------------------


def test_deterministic_algorithms_are_asked_for_and_given_back(data):
    seen = []

    class Looks(br.callbacks.Callback):
        def on_step(self, training):
            seen.append(torch.are_deterministic_algorithms_enabled())

    trainer_of(deterministic=True, callbacks=[Looks()]).fit(data)
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()
    seen.clear()
    trainer_of(callbacks=[Looks()]).fit(data)
    assert not any(seen)


# -- what a review found -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_monitor_that_is_no_number_throws_nothing_away(data, value):
    trainer = trainer_of(metrics={"auc": lambda o, t: value}, monitor="val_auc", monitor_mode="min")
    before = nn.utils.parameters_to_vector(trainer.model.parameters()).detach().clone()
    result = trainer.fit(data, data)
    assert not torch.equal(nn.utils.parameters_to_vector(trainer.model.parameters()), before)
    assert result.kept_record == 4
    assert "val_auc was never a finite number, so the last weights are kept" in str(result.summary())
    assert trainer.evaluate(data)["nll"] == pytest.approx(result.history[-1]["val_nll"], rel=1e-6)


def test_an_interval_without_a_schedule_is_refused():
    with pytest.raises(br.InvalidArgumentError, match="scheduler_interval: there is no scheduler; leave it out"):
        trainer_of(scheduler_interval="epoch")


def test_a_stream_of_batches_makes_its_own(data):
    with pytest.raises(br.InvalidArgumentError, match="batch_size: a stream of batches makes batches of its own size"):
        trainer_of(batch_size=8, num_data=70).fit(iter([data]))
