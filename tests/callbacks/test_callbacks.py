"""What looks on while a model trains: when it is called, what it sees, what it may do."""

from __future__ import annotations

import json
import math
from functools import partial

import pytest
import torch
from torch import nn

import bayesreg as br

L = br.likelihoods
SGD = partial(torch.optim.SGD, lr=0.1)


def data():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(40, 4, generator=generator)
    return X, (X[:, 0] > 0).long()


def trained(*callbacks, prior=None, folder=None, resume=False, **how):
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    given = {"max_epochs": 3, "batch_size": 8, "optimizer": SGD, **how}
    trainer = br.MAPTrainer(
        model, prior or {"weight": br.Laplace(0.1), "bias": br.Gaussian(2.0)}, L.Categorical(), progress=False,
        callbacks=list(callbacks), checkpoint=folder, **given,
    )  # fmt: skip
    return trainer.fit(data(), data(), resume=resume), trainer


class Noted(br.callbacks.Callback):
    def __init__(self):
        self.calls, self.seen = [], 0

    def on_start(self, training):
        self.calls.append(("start", training.step))

    def on_step(self, training):
        self.calls.append(("step", training.step))
        self.seen += 1

    def on_epoch_end(self, training):
        self.calls.append(("epoch", training.epoch, training.record["step"]))

    def on_end(self, training):
        self.calls.append(("end", training.step))

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def test_calls_come_in_order():
    noted = Noted()
    trained(noted, max_epochs=2)
    steps = [[("step", 5 * e + k) for k in range(1, 6)] + [("epoch", e + 1, 5 * e + 5)] for e in range(2)]
    assert noted.calls == [("start", 0), *steps[0], *steps[1], ("end", 10)]


def test_records_of_steps_are_told_too():
    noted = Noted()
    trained(noted, max_epochs=2, evaluate_every=4)
    assert [call for call in noted.calls if call[0] == "epoch"] == [("epoch", 1, 4), ("epoch", 2, 8), ("epoch", 2, 10)]


@pytest.mark.parametrize("where", ["on_step", "on_epoch_end"])
def test_a_callback_may_stop(where):
    class Stops(br.callbacks.Callback):
        pass

    def stop(self, training):
        if training.step >= 7:
            training.stop()

    setattr(Stops, where, stop)
    result, _ = trained(Stops(), max_epochs=9)
    assert result.history[-1]["step"] == (7 if where == "on_step" else 10)


def test_the_end_is_told_after_an_error_too():
    class Fails(Noted):
        def on_step(self, training):
            super().on_step(training)
            if training.step == 3:
                raise ZeroDivisionError

    noted = Fails()
    with pytest.raises(ZeroDivisionError):
        trained(noted)
    assert noted.calls[-1] == ("end", 3)


def test_what_a_callback_keeps_goes_on(tmp_path):
    first = Noted()
    trained(first, folder=tmp_path, max_epochs=2)
    again = Noted()
    trained(again, folder=tmp_path, max_epochs=3, resume=True)
    assert again.calls[0] == ("start", 10)
    assert again.seen == 15


def test_what_is_seen_is_what_there_is():
    class Looks(br.callbacks.Callback):
        def wants_grad_norm(self, step):
            return step % 2 == 0

        def on_step(self, training):
            if training.step % 2:
                assert training.grad_norm is None
                return
            terms = training.prior_terms()
            expected = trainer.prior.penalty().detach()
            parts = [v for name, v in terms.items() if name.count("/") == 2]
            assert terms["prior/penalty"] == pytest.approx(float(expected))
            assert sum(parts) == pytest.approx(terms["prior/penalty"])
            assert len(parts) == 2
            assert terms["prior/log_prior"] == pytest.approx(float(trainer.prior.log_prob().detach()))

    seen = []
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    trainer = br.MAPTrainer(
        model, {"weight": br.Laplace(0.1), "bias": br.Gaussian(2.0)}, L.Categorical(), optimizer=SGD, max_epochs=2,
        batch_size=8, progress=False, callbacks=Looks(),
    )  # fmt: skip
    seen.append(trainer.fit(data()))
    assert len(seen[0].history) == 2


@pytest.mark.parametrize("how", [{}, {"clip_norm": 0.01}, {"mixed_precision": "fp16"}])
def test_the_gradient_norm_is_that_of_the_mean_nll(how):
    X, y = data()
    rows = []
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    loss = nn.functional.cross_entropy(model(X), y)
    expected = nn.utils.get_total_norm(torch.autograd.grad(loss, list(model.parameters())))
    log = br.callbacks.Log(lambda step, values: rows.append(values), every=1)
    br.MAPTrainer(
        model, br.Gaussian(0.1), L.Categorical(), optimizer=SGD, max_epochs=1, batch_size=40, callbacks=[log],
        progress=False, **how,
    ).fit((X, y))  # fmt: skip
    assert rows[0]["train/grad_norm"] == pytest.approx(float(expected), rel=1e-3 if "mixed_precision" in how else 1e-5)
    assert rows[0]["train/nll"] == pytest.approx(float(loss.detach()), rel=1e-3)


def test_a_log_changes_no_step():
    plain, _ = trained()
    logged, _ = trained(br.callbacks.Log(lambda step, values: None, every=1))
    assert plain.history[-1]["running_nll"] == logged.history[-1]["running_nll"]
    assert plain.mean_nll == logged.mean_nll


# -- loggers -----------------------------------------------------------------------------------------------


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_of_json_have_flat_names(tmp_path):
    path = tmp_path / "new" / "log.jsonl"
    result, _ = trained(br.callbacks.JSONLines(path, every=2))
    rows = lines(path)
    assert [row["step"] for row in rows] == [2, 4, 5, 6, 8, 10, 10, 12, 14, 15]
    assert set(rows[0]) == {
        "step", "train/nll", "train/lr", "train/grad_norm", "prior/log_prior", "prior/penalty",
        "prior/Laplace/penalty", "prior/Gaussian/penalty",
    }  # fmt: skip
    assert set(rows[-1]) == {
        "step", "epoch/epoch", "epoch/running_nll", "epoch/log_prior", "epoch/running_objective", "epoch/lr",
        "epoch/seconds", "val/nll", "val/accuracy",
    }  # fmt: skip
    assert rows[-1]["val/nll"] == result.history[-1]["val_nll"]


def test_a_resumed_run_goes_on_in_its_file(tmp_path):
    path = tmp_path / "log.jsonl"
    trained(br.callbacks.JSONLines(path, every=1), folder=tmp_path / "run", max_epochs=1)
    # As a run that was killed two steps after its checkpoint, in the middle of a line.
    with path.open("a") as file:
        file.write('{"step": 6, "train/nll": 9.0}\n{"step": 7, "tra')
    trained(br.callbacks.JSONLines(path, every=1), folder=tmp_path / "run", max_epochs=2, resume=True)
    whole = tmp_path / "whole.jsonl"
    trained(br.callbacks.JSONLines(whole, every=1), max_epochs=2)

    def timeless(rows):
        return [{name: value for name, value in row.items() if name != "epoch/seconds"} for row in rows]

    assert timeless(lines(path)) == timeless(lines(whole))


def test_a_file_that_is_there_is_not_lost(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("mine\n")
    with pytest.raises(br.InvalidArgumentError, match=r"log\.jsonl exists already; name another file"):
        trained(br.callbacks.JSONLines(path))
    assert path.read_text() == "mine\n"
    trained(br.callbacks.JSONLines(path, every=None, overwrite=True))
    assert [row["step"] for row in lines(path)] == [5, 10, 15]


def test_nan_is_no_json(tmp_path):
    path = tmp_path / "log.jsonl"
    trained(br.callbacks.JSONLines(path, every=None), metrics={"odd": lambda output, target: math.nan})
    assert lines(path)[0]["val/odd"] is None


@pytest.mark.slow
def test_tensorboard_shows_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result, _ = trained(br.callbacks.TensorBoard(tmp_path / "run", every=5), folder=tmp_path / "kept", max_epochs=2)
    trained(br.callbacks.TensorBoard(tmp_path / "run", every=5), folder=tmp_path / "kept", max_epochs=3, resume=True)
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    assert [e.step for e in events.Scalars("val/nll")] == [5, 10, 15]
    assert events.Scalars("val/nll")[0].value == pytest.approx(result.history[0]["val_nll"], rel=1e-6)
    assert [e.step for e in events.Scalars("prior/penalty")] == [5, 10, 15]


def test_tensorboard_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'bayesreg\[tensorboard\]'"):
        br.callbacks.TensorBoard("runs")


def test_a_profiler_is_told_of_every_step():
    schedule = torch.profiler.schedule(wait=1, warmup=1, active=2, repeat=1)
    with_names = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], schedule=schedule)
    trained(br.callbacks.Profile(with_names), max_epochs=1)
    assert any("addmm" in event.key for event in with_names.key_averages())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: br.callbacks.Log(lambda step: None), "sink: expected a function of"),
        (lambda: br.callbacks.Log(print, every=0), "every: expected an integer >= 1"),
        (lambda: br.callbacks.Profile(5), "profiler: expected a torch.profiler.profile"),
        (lambda: br.callbacks.JSONLines("x", overwrite="yes"), "overwrite: expected True or False"),
        (lambda: trained(5), "callbacks: expected objects of br.callbacks.Callback"),
        (lambda: trained(""), r"callbacks: expected objects .*, got str"),
        (lambda: trained(Noted), r"callbacks: expected objects .*, got the class Noted; make one"),
    ],
)
def test_what_is_no_callback_is_refused(make, said):
    with pytest.raises(br.InvalidArgumentError, match=said):
        make()


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_its_file_again(tmp_path):
    path = tmp_path / "log.jsonl"

    class Killed(br.callbacks.Callback):
        def on_step(self, training):
            if training.step == 3:
                raise SystemExit

    log = br.callbacks.JSONLines(path, every=1)
    with pytest.raises(SystemExit):
        trained(log, Killed(), folder=tmp_path / "run", resume=True)
    trained(br.callbacks.JSONLines(path, every=1), folder=tmp_path / "run", resume=True)
    assert [row["step"] for row in lines(path)] == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 10, 11, 12, 13, 14, 15, 15]


def test_a_record_is_logged_once_where_a_checkpoint_came_before_it(tmp_path):
    path = tmp_path / "log.jsonl"

    class Killed(br.callbacks.Callback):
        def on_epoch_end(self, training):
            raise SystemExit

    with pytest.raises(SystemExit):
        trained(br.callbacks.JSONLines(path, every=None), Killed(), folder=tmp_path / "run", checkpoint_every=5)
    trained(br.callbacks.JSONLines(path, every=None), folder=tmp_path / "run", checkpoint_every=5, resume=True)
    assert [row["step"] for row in lines(path)] == [5, 10, 15]


def test_what_started_is_ended_where_another_cannot_start(tmp_path):
    class Fails(br.callbacks.Callback):
        def on_start(self, training):
            raise ZeroDivisionError

    noted = Noted()
    with pytest.raises(ZeroDivisionError):
        trained(noted, Fails())
    assert noted.calls == [("start", 0), ("end", 0)]
