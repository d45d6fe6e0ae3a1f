"""A run that was stopped goes on to the weights, the records and the result of an unbroken one, to the bit."""

from __future__ import annotations

import random
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, Sampler, TensorDataset, WeightedRandomSampler

import bayesreg as br
from tests.trainer.checkpoint.training import ADAM, COSINE, HOW, SGD, Jittered, network, records, train

EVERY_STEP = {"checkpoint_every": 1}


def same(one, other):
    (weights, result), (others, again) = one, other
    assert torch.equal(weights, others)
    assert records(result) == records(again)
    assert (result.mean_nll, result.log_prior, result.val_nll) == (again.mean_nll, again.log_prior, again.val_nll)


def broken(folder, *stops, **how):
    """Train with interruptions: at which reading of an example, counted from each beginning."""
    for number, stop in enumerate(stops):
        assert train(folder, resume=number > 0, stop_at=stop, **how) is None
    return train(folder, resume=True, seed=99, **how)


@pytest.mark.parametrize(
    "name", [name if index < 4 else pytest.param(name, marks=pytest.mark.slow) for index, name in enumerate(HOW)]
)
@pytest.mark.parametrize("every", [{"checkpoint_every": 3}, pytest.param({}, marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_twice_ends_as_an_unbroken_one(tmp_path, name, every):
    # Seeds differ from process to process: all that is random comes from the checkpoint.
    same(train(tmp_path / "whole", **HOW[name], **every), broken(tmp_path / "broken", 150, 140, **HOW[name], **every))


@pytest.mark.parametrize(
    "loader",
    [
        pytest.param({"shuffle": False}, marks=pytest.mark.slow),
        pytest.param({"drop_last": True}, marks=pytest.mark.slow),
        {"generator": 5},
        {"sampler": lambda data: RandomSampler(data, replacement=True, num_samples=77), "shuffle": None},
        {"sampler": lambda data: WeightedRandomSampler(torch.arange(101) + 1.0, 90), "shuffle": None},
        {"sampler": lambda data: torch.utils.data.SubsetRandomSampler(range(0, 101, 2)), "shuffle": None},
    ],
)
def test_the_order_of_the_examples_is_replayed(tmp_path, loader, monkeypatch):
    def made(seed):
        given = dict(loader)
        if "sampler" in given:
            given["sampler"] = given["sampler"](Jittered(False))
        if "generator" in given:
            given["generator"] = torch.Generator().manual_seed(given["generator"] + seed)
        return given

    how = {**HOW["plain"], "checkpoint_every": 2, "num_data": 101}
    whole = train(tmp_path / "whole", loader=made(0), **how)
    assert train(tmp_path / "broken", loader=made(0), stop_at=170, **how) is None
    same(whole, train(tmp_path / "broken", loader=made(1), resume=True, seed=8, **how))


@pytest.mark.slow
def test_workers_draw_again_what_they_drew(tmp_path):
    how = {**HOW["plain"], "checkpoint_every": 2, "loader": {"num_workers": 2}, "max_epochs": 2}
    whole = train(tmp_path / "whole", **how)
    # A worker has its own count of readings.
    assert train(tmp_path / "broken", stop_at=45, **how) is None
    same(whole, train(tmp_path / "broken", resume=True, seed=8, **how))


def test_arrays_and_the_trainers_own_order(tmp_path):
    data = Jittered(False)

    def run(folder, resume, epochs):
        torch.manual_seed(3)
        trainer = br.MAPTrainer(
            network(2), br.Gaussian(0.3), br.likelihoods.Categorical(), optimizer=ADAM, max_epochs=epochs,
            checkpoint=folder, progress=False,
        )  # fmt: skip
        trainer.fit((data.x, data.y), resume=resume)
        return nn.utils.parameters_to_vector(trainer.model.parameters())

    whole = run(tmp_path / "whole", False, 5)
    run(tmp_path / "parts", True, 2)
    # More epochs than it was begun with: the same run, longer.
    assert torch.equal(run(tmp_path / "parts", True, 5), whole)


def test_a_run_that_has_ended_is_not_trained_again(tmp_path):
    first = train(tmp_path, **HOW["plain"])
    again = train(tmp_path, resume=True, seed=5, **HOW["plain"])
    same(first, again)
    assert len(again[1].history) == 4


@pytest.mark.parametrize("how", [{"patience": 3}, {"on_epoch_end": lambda record: record["epoch"] == 2}])
def test_what_has_stopped_stays_stopped(tmp_path, how):
    given = {**HOW["plain"], "max_epochs": 30, **how}
    first = train(tmp_path, **given)
    assert len(first[1].history) < 30
    same(first, train(tmp_path, resume=True, seed=5, **given))


@pytest.mark.slow
def test_more_patience_goes_on(tmp_path):
    given = {**HOW["plain"], "max_epochs": 12}
    first = train(tmp_path, patience=1, **given)
    assert len(first[1].history) < 12
    longer = train(tmp_path, patience=50, resume=True, seed=5, **given)
    same(train(None, patience=50, **given), longer)


@pytest.mark.slow
def test_plateaus_and_milestones_go_on(tmp_path):
    for name, scheduler in {
        "plateau": partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.5),
        "milestones": partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[3, 20, 30]),
        "warm-up": lambda optimizer: torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=9), COSINE(optimizer)],
            milestones=[9],
        ),
        "one cycle": partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=60),
    }.items():
        how = {**HOW["plain"], "scheduler": scheduler, "checkpoint_every": 4}
        same(train(tmp_path / name, **how), broken(tmp_path / f"{name}, broken", 130, **how))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["NAdam", "RAdam", "Adagrad", "RMSprop", "Adadelta", "Rprop", "ASGD", "Adamax"])
def test_every_optimizers_state_is_kept(tmp_path, name):
    how = {"optimizer": partial(getattr(torch.optim, name), lr=0.01), "checkpoint_every": 2, "scheduler": None}
    how["optimizer"].keywords.update({"lambd": 0.0} if name == "ASGD" else {})
    same(train(tmp_path / "whole", **how), broken(tmp_path / "broken", 120, **how))


def test_states_wider_than_their_weights_stay_so(tmp_path):
    class Wide(torch.optim.Optimizer):
        """Momentum in float32 on weights in bfloat16."""

        def __init__(self, params):
            super().__init__(params, {"lr": 0.01})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        state = self.state[p]
                        state["sum"] = 0.9 * state.get("sum", torch.zeros_like(p, dtype=torch.float32)) + p.grad.float()
                        p.sub_(group["lr"] * state["sum"])

    class Kept(br.callbacks.Callback):
        def on_end(self, training):
            self.sums = [training.optimizer.state[p]["sum"] for p in training.model.parameters()]

    data = Jittered(False)

    def run(folder, epochs, resume):
        torch.manual_seed(0)
        model, kept = nn.Linear(6, 2).bfloat16(), Kept()
        br.MAPTrainer(
            model, br.Gaussian(1.0), br.likelihoods.Categorical(), optimizer=Wide, max_epochs=epochs,
            checkpoint=folder, progress=False, callbacks=kept,
        ).fit((data.x, data.y), resume=resume)  # fmt: skip
        return [*model.parameters(), *kept.sums]

    whole = run(tmp_path / "whole", 4, False)
    run(tmp_path / "parts", 2, False)
    again = run(tmp_path / "parts", 4, True)
    assert again[-1].dtype == torch.float32
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))


# -- solvers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "prior", "stops"),
    [("lbfgs", br.Gaussian(0.5), [2]), ("proximal", br.Laplace(2.0), [3, 2])],
)
@pytest.mark.parametrize("starts", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_solvers_go_on_too(tmp_path, solver, prior, stops, starts, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    y = (X[:, 0] * X[:, 1] > 0).long()

    def run(folder, resume, stop_at=None):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        calls = 0

        def stop(record):
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise KeyboardInterrupt

        trainer = br.MAPTrainer(
            model, prior, br.likelihoods.Categorical(), optimizer=solver, max_iterations=400, starts=starts,
            tolerance=1e-12, checkpoint=folder, checkpoint_every=1, progress=False,
        )  # fmt: skip
        # What a user's Ctrl-C would meet: between two reports of the solver.
        append = br.trainer.result.History.append
        with monkeypatch.context() as patch:
            patch.setattr(
                br.trainer.result.History, "append", lambda self, record: (append(self, record), stop(record))
            )
            result = trainer.fit((X, y), resume=resume)
        return nn.utils.parameters_to_vector(model.parameters()).detach(), result

    weights, result = run(tmp_path / "whole", False)
    for number, stop_at in enumerate(stops):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "broken", number > 0, stop_at)
    again, other = run(tmp_path / "broken", True)
    assert torch.equal(weights, again)
    assert result.history == other.history
    assert (result.kkt_residual, result.objective) == (other.kkt_residual, other.objective)
    if starts > 1:
        assert [m.objective for m in result.modes] == [m.objective for m in other.modes]
    # One that has ended is not gone on with.
    after, third = run(tmp_path / "broken", True)
    assert torch.equal(weights, after)
    assert third.history == other.history


# -- what is said ------------------------------------------------------------------------------------------


def test_a_folder_that_holds_a_run_is_not_begun_in_again(tmp_path):
    train(tmp_path, **HOW["plain"])
    with pytest.raises(br.CheckpointError, match=r"holds a run already \(step-000000000052.safetensors\): go on"):
        train(tmp_path, **HOW["plain"])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"loader": {"batch_size": 9}}, r"another setting \(batch_size\): it was 8, and is 9"),
        ({"accumulate": 2}, r"another setting \(accumulate\): it was 1, and is 2"),
        ({"optimizer": ADAM}, r"another optimizer \(class\): it was 'SGD', and is 'Adam'"),
        ({"optimizer": lambda groups: SGD(groups, lr=0.01)}, r"another optimizer \(lr\): it was '0.05', and is '0.01'"),
        ({"prior": br.Laplace(0.3)}, r"another prior \(0.weight\): it was 'Gaussian\(scale=0.3"),
        ({"likelihood": partial(br.likelihoods.Categorical, -1)}, r"another likelihood \(ignore_index\)"),
        ({"prior": br.Gaussian(0.31)}, r"another prior \(0.weight\): it was 'Gaussian\(scale=0.3"),
        ({"likelihood": partial(br.likelihoods.Gaussian, 0.5)}, r"another model \(4.weight\): it was \[\[2, 8\]"),
        ({"num_data": 400}, r"another training set \(size\): it was 101, and is 400"),
        ({"scheduler": None}, r"another setting \(scheduler\)"),
    ],
)
def test_another_run_is_not_gone_on_with(tmp_path, other, said):
    train(tmp_path, **HOW["plain"])
    before = sorted((file.name, file.read_bytes()) for file in tmp_path.iterdir())
    with pytest.raises(br.CheckpointError, match=said):
        train(tmp_path, resume=True, **{**HOW["plain"], **other})
    assert sorted((file.name, file.read_bytes()) for file in tmp_path.iterdir()) == before


def test_other_data_are_noticed(tmp_path):
    data = Jittered(False)

    def run(x, resume):
        torch.manual_seed(0)
        br.MAPTrainer(
            network(2), br.Gaussian(1.0), br.likelihoods.Categorical(), max_epochs=1, checkpoint=tmp_path,
            progress=False,
        ).fit((x, data.y), resume=resume)  # fmt: skip

    run(data.x, False)
    with pytest.raises(br.CheckpointError, match=r"another training set \(content\): they differ"):
        run(data.x + 1e-6, True)


def test_two_runs_in_one_folder_are_refused(tmp_path):
    data = Jittered(False)

    def inner(record):
        with pytest.raises(br.CheckpointError, match="another run is at work in"):
            train(tmp_path, resume=True, **HOW["plain"])
        code = f"import bayesreg.trainer.checkpoint as c; c.RunFolder({str(tmp_path)!r})"
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another run is at work in" in told.stderr
        return True

    trainer = br.MAPTrainer(
        network(2), br.Gaussian(1.0), br.likelihoods.Categorical(), checkpoint=tmp_path, on_epoch_end=inner,
        progress=False,
    )  # fmt: skip
    trainer.fit((data.x, data.y))
    # Afterwards it is free again.
    trainer.fit((data.x, data.y), resume=True)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"checkpoint_every": 3}, "needs a folder"),
        ({"checkpoint": 5}, "checkpoint: expected a text, a path or None, got int 5"),
        ({"checkpoint": ""}, "checkpoint: expected the path of a folder, such as 'runs/a', got ''"),
        ({"checkpoint": "runs", "checkpoint_every": 0}, "expected an integer >= 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(keywords, said):
    with pytest.raises(br.InvalidArgumentError, match=said):
        br.MAPTrainer(nn.Linear(2, 2), br.Gaussian(1.0), br.likelihoods.Categorical(), **keywords)


def test_resume_needs_a_folder():
    trainer = br.MAPTrainer(nn.Linear(2, 2), br.Gaussian(1.0), br.likelihoods.Categorical())
    with pytest.raises(br.InvalidArgumentError, match="resume: needs the folder of the run"):
        trainer.fit((torch.zeros(4, 2), torch.zeros(4).long()), resume=True)


class Steps(br.callbacks.Callback):
    steps = 0

    def on_step(self, training):
        self.steps += 1


def test_state_that_only_a_pickle_could_hold_is_refused_at_the_first_step(tmp_path):
    class Odd(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            self.param_groups[0]["remember"] = lambda: None

    with pytest.raises(br.CheckpointError, match="got function as state/optimizer/param_groups/0/remember"):
        train(tmp_path, optimizer=partial(Odd, lr=0.1), callbacks=(count := Steps()))
    assert count.steps == 1
    assert not list(tmp_path.glob("*.safetensors"))


class Own(Sampler):
    """An order that only it knows."""

    def __init__(self, data):
        self.length, self.epoch = len(data), 0

    def __len__(self):
        return self.length

    def __iter__(self):
        self.epoch += 1
        return iter(np.random.default_rng(self.epoch).permutation(self.length).tolist())


class Stream(IterableDataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __iter__(self):
        return iter(zip(self.x, self.y, strict=True))


def fit_loader(loader, folder, resume=False, **how):
    torch.manual_seed(0)
    model = network(2)
    br.MAPTrainer(
        model, br.Gaussian(0.5), br.likelihoods.Categorical(), optimizer=SGD, checkpoint=folder, num_data=101,
        progress=False, **{"max_epochs": 3, **how},
    ).fit(loader, resume=resume)  # fmt: skip
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("kind", ["sampler", "stream"])
def test_an_order_that_cannot_be_replayed_is_told_at_set_up(tmp_path, kind):
    data = Jittered(False)
    if kind == "sampler":
        loader, why = DataLoader(data, batch_size=8, sampler=Own(data)), "the order of Own is its own"
    else:
        loader, why = DataLoader(Stream(data.x, data.y), batch_size=8), "a stream has no places to go back to"
    with pytest.raises(br.InvalidArgumentError, match=f"cannot be begun in its middle, as {why}"):
        fit_loader(loader, tmp_path / "a", checkpoint_every=2)
    with pytest.warns(br.CheckpointWarning, match=f"at the ends of epochs alone, as {why}"):
        fit_loader(loader, tmp_path / "b")


@pytest.mark.filterwarnings("ignore::bayesreg.CheckpointWarning")
def test_a_stream_goes_on_at_the_ends_of_its_epochs(tmp_path):
    data = Jittered(False)
    stream = partial(DataLoader, Stream(data.x, data.y), batch_size=8)
    whole = fit_loader(stream(), tmp_path / "whole")
    fit_loader(stream(), tmp_path / "parts", max_epochs=2)
    assert torch.equal(fit_loader(stream(), tmp_path / "parts", resume=True), whole)


def test_a_loader_that_keeps_its_own_place_is_asked(tmp_path):
    class Keeps(DataLoader):
        """As torchdata's StatefulDataLoader: it can say where it is, and go there."""

        place, left_off = 0, 0

        def __iter__(self):
            order = np.random.default_rng(7).permutation(96).reshape(-1, 8)
            for place in range(self.left_off, len(order)):
                self.place = place
                batch = [self.dataset[i] for i in order[place].tolist()]
                yield torch.stack([x for x, _ in batch]), torch.stack([y for _, y in batch])
            self.left_off = 0

        def state_dict(self):
            return {"place": self.place + 1}

        def load_state_dict(self, state):
            self.left_off = state["place"]

    data = Jittered(False)
    plain = TensorDataset(data.x, data.y)
    whole = fit_loader(Keeps(plain, batch_size=8), tmp_path / "whole", checkpoint_every=1)
    fit_loader(Keeps(plain, batch_size=8), tmp_path / "parts", checkpoint_every=1, max_steps=17)
    resumed = fit_loader(Keeps(plain, batch_size=8), tmp_path / "parts", resume=True, checkpoint_every=1)
    assert torch.equal(resumed, whole)


def test_what_changes_in_a_prior_is_kept(tmp_path):
    data = Jittered(False)

    def run(folder, resume, epochs):
        torch.manual_seed(0)
        model = network(2)
        prior = br.ModelPrior(model, br.Gaussian(scale=torch.tensor(0.5)))

        def narrower(record):
            # A schedule of the prior's own: its strength grows while training goes on.
            for entry in prior:
                if hasattr(entry.prior, "scale"):
                    entry.prior.scale.mul_(0.9)

        br.MAPTrainer(
            model, prior, br.likelihoods.Categorical(), optimizer=SGD, max_epochs=epochs, checkpoint=folder,
            on_epoch_end=narrower, progress=False,
        ).fit((data.x, data.y), resume=resume)  # fmt: skip
        return nn.utils.parameters_to_vector(model.parameters()).detach(), float(prior.log_prob().detach())

    weights, log_prob = run(tmp_path / "whole", False, 4)
    run(tmp_path / "parts", False, 2)
    again, other = run(tmp_path / "parts", True, 4)
    assert torch.equal(weights, again)
    assert log_prob == other


def test_randomness_of_numpy_and_python_goes_on(tmp_path):
    drawn = {}

    def run(name, resume, epochs):
        random.seed(name)
        np.random.seed(len(name))
        torch.manual_seed(0)
        data = Jittered(False)
        model = network(2)

        def draw(record):
            drawn.setdefault((name, record["epoch"]), (random.random(), np.random.rand()))

        br.MAPTrainer(
            model, br.Gaussian(0.5), br.likelihoods.Categorical(), optimizer=SGD, max_epochs=epochs,
            checkpoint=tmp_path / name[:5], on_epoch_end=draw, progress=False,
        ).fit((data.x, data.y), resume=resume)  # fmt: skip

    run("whole", False, 4)
    random_of_whole = [drawn["whole", epoch] for epoch in (3, 4)]
    run("parts one", False, 2)
    run("parts, then the rest", True, 4)
    begun = [drawn["parts one", epoch] for epoch in (1, 2)]
    assert len({*random_of_whole, *begun}) == 4


# -- what a review found -----------------------------------------------------------------------------------


def linear(folder=None, *, data=None, resume=False, val=None, prior=None, **how):
    torch.manual_seed(0)
    held = Jittered(False)
    trainer = br.MAPTrainer(
        nn.Linear(6, 2), prior or br.Gaussian(1.0), br.likelihoods.Categorical(), checkpoint=folder, progress=False,
        **{"optimizer": SGD, **how},
    )  # fmt: skip
    result = trainer.fit((held.x, held.y) if data is None else data, val, resume=resume)
    return trainer.model.weight.detach().clone(), result


def test_a_last_window_may_be_short(tmp_path):
    # Thirteen batches make six windows of two and one of one.
    how = {"batch_size": 8, "accumulate": 2, "checkpoint_every": 7}
    whole, _ = linear(tmp_path / "whole", max_epochs=3, **how)
    linear(tmp_path / "parts", max_epochs=1, **how)
    assert torch.equal(linear(tmp_path / "parts", max_epochs=3, resume=True, **how)[0], whole)


def test_looking_at_a_run_that_has_ended_leaves_it_as_it_was(tmp_path):
    whole, _ = linear(tmp_path / "whole", max_steps=9)
    linear(tmp_path / "parts", max_steps=3)
    before = sorted((file.name, file.read_bytes()) for file in tmp_path.joinpath("parts").iterdir())
    linear(tmp_path / "parts", max_steps=3, resume=True)
    assert sorted((file.name, file.read_bytes()) for file in tmp_path.joinpath("parts").iterdir()) == before
    assert torch.equal(linear(tmp_path / "parts", max_steps=9, resume=True)[0], whole)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_a_schedule_by_name_ends_where_it_was_said(tmp_path, name):
    linear(tmp_path, scheduler=name, max_epochs=2)
    with pytest.raises(br.CheckpointError, match=r"another schedule's number of steps: it was 8, and is 16"):
        linear(tmp_path, scheduler=name, max_epochs=4, resume=True)


def test_another_noise_is_not_overwritten(tmp_path):
    held = Jittered(True)

    def run(noise, resume):
        br.MAPTrainer(
            nn.Linear(6, 1), br.Gaussian(1.0), br.likelihoods.Gaussian(noise), max_epochs=1, checkpoint=tmp_path,
            progress=False,
        ).fit((held.x, held.y), resume=resume)  # fmt: skip

    run(0.1, False)
    with pytest.raises(br.CheckpointError, match=r"another likelihood \(noise_std\)"):
        run(1.0, True)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_in_the_middle_of_an_epoch_too_the_best_weights_are_put_back(error):
    held = Jittered(False)

    class Breaks(br.callbacks.Callback):
        def on_step(self, training):
            if training.step == 11:
                raise error

    torch.manual_seed(0)
    trainer = br.MAPTrainer(
        nn.Linear(6, 2), br.Gaussian(1.0), br.likelihoods.Categorical(), optimizer=SGD, max_epochs=9, batch_size=20,
        evaluate_every=4, callbacks=Breaks(), progress=False,
    )  # fmt: skip
    with pytest.raises(error):
        trainer.fit((held.x, held.y), (held.x, held.y))
    # The last record is the best, and three steps were made after it.
    assert trainer.result.kept_record == len(trainer.result.history) == 2
    assert trainer.evaluate((held.x, held.y))["nll"] == pytest.approx(trainer.result.val_nll, rel=1e-6)


def test_after_a_nan_the_result_is_of_the_weights_that_are_there():
    held = Jittered(False)

    class Poisons(br.callbacks.Callback):
        def on_step(self, training):
            if training.step == 11:
                training.model.weight.data.fill_(float("nan"))

    torch.manual_seed(0)
    trainer = br.MAPTrainer(
        nn.Linear(6, 2), br.Gaussian(1.0), br.likelihoods.Categorical(), optimizer=SGD, max_epochs=9, batch_size=20,
        evaluate_every=4, callbacks=Poisons(), progress=False,
    )  # fmt: skip
    with pytest.raises(br.NonFiniteObjectiveError):
        trainer.fit((held.x, held.y), (held.x, 1 - held.y))
    assert trainer.result.kept_record == 2
    assert trainer.evaluate((held.x, 1 - held.y))["nll"] == pytest.approx(trainer.result.val_nll, rel=1e-6)


@pytest.mark.slow
def test_an_interrupted_solver_leaves_the_lowest_point(monkeypatch):
    held = Jittered(False)
    seen = []
    append = br.trainer.result.History.append

    def noted(self, record):
        append(self, record)
        seen.append(record["objective"])
        if len(seen) == 9:
            raise KeyboardInterrupt

    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    trainer = br.MAPTrainer(
        model, br.StudentT(df=3.0, scale=0.3), br.likelihoods.Categorical(), optimizer="lbfgs", starts=6,
        max_iterations=300, progress=False,
    )  # fmt: skip
    monkeypatch.setattr(br.trainer.result.History, "append", noted)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit((held.x.double(), held.y))
    penalty = float(trainer.prior.penalty().detach()) / 101
    assert trainer.evaluate((held.x.double(), held.y))["nll"] + penalty == pytest.approx(min(seen[:8]), abs=1e-6)


def test_a_stream_that_ended_within_an_epoch_is_not_gone_on_with(tmp_path):
    held = Jittered(False)
    make = partial(DataLoader, Stream(held.x, held.y), batch_size=8)
    how = {"num_data": 101, "max_epochs": None}
    with pytest.warns(br.CheckpointWarning):
        linear(tmp_path, data=make(), max_steps=5, **how)
    with pytest.warns(br.CheckpointWarning), pytest.raises(br.CheckpointError, match="ended in the middle of an epoch"):
        linear(tmp_path, data=make(), max_steps=9, resume=True, **how)
