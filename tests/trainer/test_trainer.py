"""MAPTrainer: routes, invariances, validation, refusals."""

from __future__ import annotations

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_iris
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import bayesreg as br

L = br.likelihoods


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    order = np.random.default_rng(0).permutation(150)
    X, y = torch.as_tensor(X[order]), torch.as_tensor(y[order])
    return (X[:100], y[:100]), (X[100:], y[100:])


def net(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def linear(seed=0):
    """A convex task: one optimum, whatever the order of a sum."""
    torch.manual_seed(seed)
    return nn.Linear(4, 3).double()


def sgd(lr=0.1, **keywords):
    return partial(torch.optim.SGD, lr=lr, **keywords)


def fitted(data, prior, *, model=None, val=None, **keywords):
    model = net() if model is None else model
    keywords.setdefault("optimizer", sgd())
    if not isinstance(keywords["optimizer"], str):
        keywords.setdefault("max_epochs", 5)
    result = br.MAPTrainer(model, prior, L.Categorical(), **keywords).fit(data, val)
    return [p.detach().clone() for p in model.parameters()], result


def gap(one, other):
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


# -- what is minimised ---------------------------------------------------------------------------------


PRIORS = {
    "flat": br.Flat,
    "native": lambda: br.Gaussian(0.5),
    "native and gradient": lambda: br.Gaussian(0.5, loc=0.2),
    "centred": lambda: {"*": br.Gaussian.centered_at(net(3), 0.4)},
    "gradient": lambda: br.FromDistribution(torch.distributions.StudentT(torch.tensor(3.0).double(), 0.0, 0.3)),
}


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("accumulate", [1, 2, 7])
@pytest.mark.parametrize("name", PRIORS)
def test_each_step_is_that_of_the_autograd_penalty(iris, name, accumulate, clip):
    """Full passes of 7 ragged batches, against a loop written out with the penalty in the loss."""
    (X, y), _ = iris
    got, _ = fitted((X, y), PRIORS[name](), batch_size=15, accumulate=accumulate, clip_norm=clip, seed=4)

    model = net()
    reference = br.ModelPrior(model, PRIORS[name]())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(4)
    loader = DataLoader(TensorDataset(X, y), batch_size=15, shuffle=True, generator=generator)
    for _ in range(5):
        batches = list(loader)
        for start in range(0, len(batches), accumulate):
            window = batches[start : start + accumulate]
            inputs, target = (torch.cat(part) for part in zip(*window, strict=True))
            optimizer.zero_grad()
            (nn.functional.cross_entropy(model(inputs), target) + reference.penalty() / 100).backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
    assert gap(got, [p.detach() for p in model.parameters()]) < 1e-12


@pytest.mark.slow
def test_the_map_does_not_depend_on_the_batch_size_or_the_optimizer(iris):
    """Invariance 3: full-batch L-BFGS, proximal, and small batches with a falling learning rate end at one point."""
    train, _ = iris
    prior = {"*": br.Gaussian(0.3)}
    truth, _ = fitted(train, prior, model=linear(), optimizer="lbfgs")
    other, _ = fitted(train, prior, model=linear(), optimizer="proximal")
    assert gap(truth, other) < 1e-7
    for batch_size, accumulate in ((100, 1), (25, 4), (10, 10)):
        got, _ = fitted(
            train, prior, model=linear(), optimizer=sgd(0.3, momentum=0.9), batch_size=batch_size,
            accumulate=accumulate, max_epochs=600,
        )  # fmt: skip
        assert gap(truth, got) < 1e-7
    noisy, _ = fitted(
        train, prior, model=linear(), optimizer=sgd(0.1), batch_size=10, max_epochs=300,
        scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 3000),
    )  # fmt: skip
    assert gap(truth, noisy) < 2e-2


def test_the_gradient_of_the_log_joint_is_zero_at_the_map(iris):
    (X, y), _ = iris
    model = net()
    prior = br.ModelPrior(model, {br.biases: br.Gaussian(2.0), "*": br.Gaussian(0.7)})
    result = br.MAPTrainer(model, prior, L.Categorical(), optimizer="lbfgs").fit((X, y))
    assert result.converged
    joint = -L.Categorical().nll(model(X), y).sum() + prior.log_prob()
    for slope in torch.autograd.grad(joint, list(model.parameters())):
        assert slope.abs().max() < 1e-7


def test_the_numbers_of_the_result_are_those_of_the_model(iris):
    (X, y), (Xv, yv) = iris
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.5))
    result = br.MAPTrainer(model, prior, L.Categorical(), optimizer=sgd(), max_epochs=3).fit((X, y), (Xv, yv))
    nll = nn.functional.cross_entropy(model(X), y).item()
    assert result.mean_nll == pytest.approx(nll, rel=1e-12)
    assert result.log_prior == pytest.approx(prior.log_prob().item(), rel=1e-12)
    assert result.objective == pytest.approx(nll + prior.penalty().item() / 100, rel=1e-12)
    assert result.val_nll == pytest.approx(nn.functional.cross_entropy(model(Xv), yv).item(), rel=1e-12)
    assert result.val_metric == pytest.approx((model(Xv).argmax(1) == yv).double().mean().item())
    assert result.num_data == 100
    assert set(result.to_dict()) >= {"mean_nll", "log_prior", "objective", "val_nll"}
    text = str(result.summary())
    assert "validation accuracy" in text
    assert "route native" in text


def test_history_keeps_nll_and_log_prior_apart(iris):
    train, val = iris
    _, result = fitted(train, br.Gaussian(0.5), val=val, max_epochs=4)
    assert result.history.column("epoch") == [1, 2, 3, 4]
    for record in result.history:
        assert {"running_nll", "log_prior", "running_objective", "val_nll", "val_accuracy", "lr", "seconds"} <= set(
            record
        )
    assert "running_nll" in str(result.history)
    with pytest.raises(KeyError, match="no column 'loss'; there are epoch, step, running_nll"):
        result.history.column("loss")


def test_history_of_a_solver_begins_before_its_first_step(iris):
    (X, y), _ = iris
    before = nn.functional.cross_entropy(net()(X), y).item()
    _, result = fitted((X, y), br.Gaussian(0.5), optimizer="lbfgs")
    first, last = result.history[0], result.history[-1]
    assert first["iteration"] == 0
    assert first["mean_nll"] == pytest.approx(before, rel=1e-9)
    assert last["objective"] == pytest.approx(result.objective, rel=1e-9)
    assert last["kkt_residual"] <= 1e-9 < first["kkt_residual"]


@pytest.mark.slow
def test_learned_noise_is_fitted_with_the_weights():
    X, y = load_diabetes(return_X_y=True)
    X, y = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    noises = []
    for optimizer, how in (("lbfgs", {}), (sgd(0.05, momentum=0.9), {"batch_size": 442, "max_epochs": 1500})):
        likelihood = L.Gaussian(noise_std="learned")
        model = nn.Linear(10, 1).double()
        br.MAPTrainer(model, br.Gaussian(1.0), likelihood, optimizer=optimizer, **how).fit((X, y))
        residual = (torch.as_tensor(y) - model(torch.as_tensor(X))[:, 0]).square().mean().sqrt().item()
        # At the optimum τ² is the mean squared residual.
        assert likelihood.noise_std == pytest.approx(residual, rel=1e-6)
        noises.append(likelihood.noise_std)
    assert noises[0] == pytest.approx(noises[1], rel=1e-6)


def test_exact_zeros_by_stochastic_proximal_training(iris):
    train, _ = iris
    _, result = fitted(train, br.Laplace(0.2), optimizer=sgd(0.1), max_epochs=60)
    assert 0.3 < result.exact_zeros < 1.0
    assert {row[2] for row in result.routes.rows} == {"proximal", "none"}


# -- data ----------------------------------------------------------------------------------------------


def test_arrays_datasets_and_loaders_train_alike(iris):
    (X, y), _ = iris
    arrays, _ = fitted((X.numpy(), y.numpy()), br.Gaussian(0.5), batch_size=20, seed=1)
    tensors, _ = fitted((X, y), br.Gaussian(0.5), batch_size=20, seed=1)
    dataset, _ = fitted(TensorDataset(X, y), br.Gaussian(0.5), batch_size=20, seed=1)
    loader = DataLoader(TensorDataset(X, y), batch_size=20, shuffle=True, generator=torch.Generator().manual_seed(1))
    given, _ = fitted(loader, br.Gaussian(0.5))
    for other in (tensors, dataset, given):
        assert gap(arrays, other) < 1e-14


def test_full_batch_solvers_take_loaders_too(iris):
    (X, y), _ = iris
    # The loader sums in another order: the task is convex, so that it can lead nowhere else.
    prior = {"*": br.Gaussian(0.5)}
    one, _ = fitted((X, y), prior, model=linear(), optimizer="lbfgs")
    two, result = fitted(DataLoader(TensorDataset(X, y), batch_size=7), prior, model=linear(), optimizer="lbfgs")
    assert gap(one, two) < 1e-8
    assert result.num_data == 100


def test_arrays_are_cast_to_the_dtype_of_the_model(iris):
    (X, y), _ = iris
    weights, _ = fitted((X.numpy(), y.numpy().astype(np.int32)), br.Gaussian(0.5), model=net(dtype=torch.float32))
    assert weights[0].dtype == torch.float32


class Stream(IterableDataset):
    def __init__(self, X, y):
        self.X, self.y = X, y

    def __iter__(self):
        yield from zip(self.X, self.y, strict=True)


def test_a_stream_needs_its_size(iris):
    (X, y), _ = iris
    with pytest.raises(br.InvalidArgumentError, match="num_data: the size of this training set cannot be read off"):
        fitted(DataLoader(Stream(X, y), batch_size=10), br.Gaussian(0.5))
    _, result = fitted(DataLoader(Stream(X, y), batch_size=10), br.Gaussian(0.5), num_data=100)
    assert result.num_data == 100


def test_num_data_smaller_than_the_batch_is_refused(iris):
    train, _ = iris
    with pytest.raises(br.InvalidArgumentError, match="num_data: expected at least the batch size, 32, got 10"):
        fitted(train, br.Gaussian(0.5), num_data=10)
    for bad in (0, -1, 2.5):
        with pytest.raises(br.InvalidArgumentError, match="num_data: expected an integer >= 1"):
            fitted(train, br.Gaussian(0.5), num_data=bad)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ((torch.zeros(3, 4), torch.zeros(2).long()), br.DataError, "as many targets as inputs"),
        ((torch.zeros(0, 4), torch.zeros(0).long()), br.DataError, "at least one example"),
        ((torch.full((3, 4), math.nan), torch.zeros(3).long()), br.DataError, "inputs hold NaN or infinity"),
        ((torch.zeros(3, 4), torch.zeros(3)), br.DataError, "expects integer targets, got dtype torch.float32"),
        ((np.array([["a"] * 4] * 3), np.zeros(3, int)), br.DataError, "expected numbers as inputs, got dtype"),
        ((torch.zeros(3, 4),), br.DataError, "expected a pair"),
        ("data.csv", br.InvalidArgumentError, "train: expected a DataLoader, a Dataset"),
    ],
)
def test_bad_data_is_refused(data, error, message):
    with pytest.raises(error, match=message):
        fitted(data, br.Gaussian(0.5))


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (lambda d: SubsetRandomSampler(range(30)), 30),
        (lambda d: DistributedSampler(d, num_replicas=2, rank=0), 100),
        (lambda d: RandomSampler(d, num_samples=10), None),
        (lambda d: WeightedRandomSampler(torch.ones(100), 10), None),
    ],
)
def test_n_is_what_a_sampler_can_draw_not_what_it_draws(iris, sampler, expected):
    dataset = TensorDataset(*iris[0])
    for loader in (
        DataLoader(dataset, batch_size=10, sampler=sampler(dataset)),
        DataLoader(dataset, batch_sampler=BatchSampler(sampler(dataset), 10, drop_last=False)),
    ):
        if expected is None:
            with pytest.raises(br.InvalidArgumentError, match="num_data: the size of this training set cannot be read"):
                fitted(loader, br.Gaussian(0.5), max_epochs=1)
            assert fitted(loader, br.Gaussian(0.5), max_epochs=1, num_data=100)[1].num_data == 100
        else:
            assert fitted(loader, br.Gaussian(0.5), max_epochs=1)[1].num_data == expected


def test_a_loader_without_examples_is_refused(iris):
    loader = DataLoader(TensorDataset(*iris[0]), batch_size=101, drop_last=True)
    with pytest.raises(br.DataError, match="the loader gave no examples, so nothing was trained"):
        fitted(loader, br.Gaussian(0.5))


@pytest.mark.parametrize("optimizer", [sgd(), "lbfgs"])
def test_a_prior_over_another_model_is_refused(iris, optimizer):
    model, other = net(), net()
    with pytest.raises(br.CoverageError, match=r"0\.weight, 0\.bias, 2\.weight belongs to another model"):
        fitted(iris[0], br.ModelPrior(other, br.Gaussian(0.5)), model=model, optimizer=optimizer)
    model[0].weight.requires_grad_(False)
    prior = br.ModelPrior(model, {"2.*": br.Gaussian(0.5), "0.bias": br.Flat()})
    model[0].weight.requires_grad_(True)
    with pytest.raises(br.CoverageError, match=r"0\.weight has no prior in it"):
        fitted(iris[0], prior, model=model, optimizer=optimizer)


def test_targets_of_a_function_keep_their_kind(iris):
    (X, y), _ = iris
    function = L.FromLoss(lambda output, target: nn.functional.cross_entropy(output, target, reduction="none"))
    expected, _ = fitted((X, y), br.Gaussian(0.5))
    for loss, target in ((function, y), (L.FromLoss(nn.CrossEntropyLoss()), y.int())):
        model = net()
        br.MAPTrainer(model, br.Gaussian(0.5), loss, optimizer=sgd(), max_epochs=5).fit((X, target))
        assert gap([p.detach() for p in model.parameters()], expected) < 1e-13


# -- validation, stopping, schedule --------------------------------------------------------------------


def test_the_best_weights_are_kept_and_patience_stops(iris):
    (X, y), _ = iris
    rng = np.random.default_rng(0)
    noise = torch.as_tensor(rng.integers(0, 3, 50))
    weights, result = fitted(
        (X, y), br.Flat(), val=(X[:50], noise), optimizer=sgd(0.5), max_epochs=200, patience=5, batch_size=10
    )
    curve = result.history.column("val_nll")
    assert result.best_epoch == int(np.argmin(curve)) + 1
    assert len(curve) == result.best_epoch + 5
    assert result.val_nll == pytest.approx(min(curve), rel=1e-12)
    last, kept = fitted(
        (X, y), br.Flat(), val=(X[:50], noise), optimizer=sgd(0.5), max_epochs=len(curve), batch_size=10,
        restore_best=False,
    )  # fmt: skip
    assert kept.val_nll == pytest.approx(curve[-1], rel=1e-12)
    assert gap(weights, last) > 1e-3


def test_a_callback_can_stop(iris):
    train, _ = iris
    _, result = fitted(train, br.Flat(), max_epochs=50, on_epoch_end=lambda record: record["epoch"] == 3)
    assert len(result.history) == 3


def test_the_schedule_steps_once_per_optimizer_step(iris):
    train, _ = iris
    _, result = fitted(
        train, br.Flat(), batch_size=10, max_epochs=2, optimizer=sgd(1.0),
        scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
    )  # fmt: skip
    assert result.history.column("lr") == pytest.approx([0.9**10, 0.9**20])


def test_a_schedule_can_step_once_per_epoch(iris):
    train, _ = iris
    _, result = fitted(
        train, br.Flat(), batch_size=10, max_epochs=3, optimizer=sgd(1.0), scheduler_interval="epoch",
        scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 2, gamma=0.1),
    )  # fmt: skip
    assert result.history.column("lr") == pytest.approx([1.0, 0.1, 0.1])


@pytest.mark.parametrize("with_val", [True, False])
def test_reduce_on_plateau_follows_the_validation_nll(iris, with_val):
    (X, y), val = iris
    _, result = fitted(
        (X, y), br.Flat(), val=val if with_val else None, max_epochs=40, optimizer=sgd(3.0), batch_size=10,
        scheduler=lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=1),
    )  # fmt: skip
    watched = result.history.column("val_nll" if with_val else "running_objective")
    replay = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=3.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(replay, factor=0.5, patience=1)
    expected = []
    for value in watched:
        plateau.step(value)
        expected.append(replay.param_groups[0]["lr"])
    assert result.history.column("lr") == pytest.approx(expected)
    assert expected[-1] < 3.0


@pytest.mark.parametrize("prior", [br.Gaussian(0.5), {"*": br.Gaussian.centered_at(net(3), 0.4)}])
def test_torchs_lbfgs_trains_to_the_map_of_the_solver(iris, prior):
    """Full batches, the prior's gradient and value in the closure; its convex last layer has one optimum."""
    train, _ = iris

    def model():
        built = net()
        built[0].requires_grad_(False)
        return built

    factory = partial(torch.optim.LBFGS, line_search_fn="strong_wolfe", tolerance_grad=1e-11, tolerance_change=0.0)
    got, result = fitted(train, prior, model=model(), optimizer=factory, batch_size=100, max_epochs=20)
    truth, _ = fitted(train, prior, model=model(), optimizer="lbfgs")
    assert gap(got, truth) < 1e-6
    assert {row[2] for row in result.routes.rows} <= {"gradient", "none"}


def test_an_optimizer_that_exists_is_used(iris):
    train, _ = iris
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.5))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    br.MAPTrainer(model, prior, L.Categorical(), optimizer=optimizer, max_epochs=5).fit(train)
    expected, _ = fitted(train, br.Gaussian(0.5))
    assert gap([p.detach() for p in model.parameters()], expected) == 0.0
    assert all(group["weight_decay"] == 0 for group in optimizer.param_groups)


def test_modes_and_global_state_are_left_as_they_were(iris):
    train, val = iris
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    model.eval()
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    br.MAPTrainer(net(), br.Gaussian(0.5), L.Categorical(), optimizer=sgd(), max_epochs=2).fit(train, val)
    torch.set_rng_state(state)
    br.MAPTrainer(model, br.Gaussian(0.5), L.Categorical(), optimizer=sgd(), max_epochs=2).fit(train, val)
    assert not model.training
    assert torch.get_default_dtype() == dtype
    torch.manual_seed(1)
    before = torch.get_rng_state()
    br.MAPTrainer(net(1), br.Gaussian(0.5), L.Categorical(), optimizer="lbfgs").fit(train)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_draws_nothing_from_the_global_generator(iris):
    train, val = iris
    model = net()
    state = torch.get_rng_state()
    br.MAPTrainer(model, br.Gaussian(0.5), L.Categorical(), optimizer=sgd(), max_epochs=2).fit(train, val)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("fused", [False, True])
def test_mixed_precision_follows_full_precision(iris, precision, clip, fused):
    train, _ = iris
    prior = {"0.weight": br.Gaussian(0.3, loc=0.2), "*": br.Gaussian(0.3)}
    keywords = {"optimizer": sgd(fused=fused), "max_epochs": 10, "clip_norm": clip}
    full, _ = fitted(train, prior, model=net(dtype=torch.float32), **keywords)
    half, result = fitted(train, prior, model=net(dtype=torch.float32), mixed_precision=precision, **keywords)
    assert all(w.dtype == torch.float32 for w in half)
    # bfloat16 keeps three digits.
    assert 0 < gap(full, half) < 0.02
    assert len(result.history) == 10


# -- when things go wrong ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::bayesreg.OvershootWarning")
def test_a_diverging_run_stops_with_the_last_good_weights(iris):
    train, _ = iris
    model = net()
    start = copy.deepcopy(model.state_dict())
    trainer = br.MAPTrainer(model, br.Gaussian(0.5), L.Categorical(), optimizer=sgd(1e6), max_epochs=50)
    with pytest.raises(
        br.NonFiniteObjectiveError, match=r"the objective became (nan|inf) in epoch \d+, batch \d+"
    ) as caught:
        trainer.fit(train)
    assert caught.value.epoch >= 1
    assert caught.value.batch >= 1
    assert caught.value.parameter in dict(model.named_parameters())
    assert caught.value.parameter in str(caught.value)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    if caught.value.epoch == 1:
        assert all(torch.equal(model.state_dict()[k], v) for k, v in start.items())


def test_a_nan_in_a_batch_is_met_before_it_spreads(iris):
    (X, y), _ = iris
    X = X.clone()
    X[95] = math.nan
    model = net()
    loader = DataLoader(TensorDataset(X, y), batch_size=10)
    trainer = br.MAPTrainer(model, br.Gaussian(0.5), L.Categorical(), optimizer=sgd(), max_epochs=3)
    start = copy.deepcopy(model.state_dict())
    with pytest.raises(
        br.NonFiniteObjectiveError, match=r"in epoch 1, batch 10: the gradient of 0\.weight is not finite"
    ):
        trainer.fit(loader)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in start.items())


def test_full_batch_solvers_meet_nan_too(iris):
    (X, y), _ = iris
    bad = DataLoader(TensorDataset(torch.where(X > 2, math.nan, X), y), batch_size=50)
    with pytest.raises(br.NonFiniteObjectiveError, match="the objective became nan"):
        fitted(bad, br.Gaussian(0.5), optimizer="lbfgs")


def test_a_solver_that_stops_early_says_so(iris):
    train, _ = iris
    model = net()
    trainer = br.MAPTrainer(model, br.Gaussian(0.5), L.Categorical(), optimizer="lbfgs", max_iterations=2)
    with pytest.warns(
        RuntimeWarning, match=r"stopped at a KKT residual of .*, after 2 iterations: raise max_iter"
    ) as said:
        result = trainer.fit(train)
    assert result.converged is False
    assert said[0].filename == __file__


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_solver_that_ends_on_a_kink_of_the_network_does_not_ask_for_more_iterations(dtype):
    # (1 + |w|)²/2 + w²/2 is least at 0, where |w| has a slope on either side.
    class Kink(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[0.7]], dtype=dtype))

        def forward(self, x):
            return x * self.weight.abs()

    X = torch.ones(8, 1, dtype=dtype)
    trainer = br.MAPTrainer(Kink(), br.Gaussian(1.0), L.Gaussian(1.0), optimizer="lbfgs", progress=False)
    with pytest.warns(RuntimeWarning, match="where the objective fell no further: ") as said:
        trainer.fit((X, -X))
    assert ("use model.double()" in str(said[0].message)) is (dtype == torch.float32)
    assert "max_iterations" not in str(said[0].message)


def test_the_default_optimizer_is_adam(iris):
    train, _ = iris
    _, result = fitted(train, br.Gaussian(0.5), optimizer=None, max_epochs=2)
    assert "Adam" in result.routes.title


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"optimizer": "adam"}, br.InvalidArgumentError, "optimizer: expected 'lbfgs', 'proximal', a torch optimizer"),
        ({"optimizer": "lbfgs", "clip_norm": 1.0}, br.InvalidArgumentError,
         "clip_norm: optimizer='lbfgs' is a full-batch"),
        ({"optimizer": torch.optim.LBFGS, "clip_norm": 1.0}, br.UnsupportedError, "LBFGS compares values"),
        ({"optimizer": torch.optim.LBFGS}, br.UnsupportedError, "4 batches are as many functions; write"),
        ({"scheduler_interval": "batch"}, br.InvalidArgumentError, "scheduler_interval: expected 'step' or 'epoch'"),
        ({"batch_size": 0}, br.InvalidArgumentError, "batch_size: expected an integer >= 1"),
        ({"max_epochs": -1}, br.InvalidArgumentError, "max_epochs: expected an integer >= 1"),
        ({"clip_norm": 0.0}, br.InvalidArgumentError, "clip_norm: expected a value > 0"),
        ({"mixed_precision": "fp8"}, br.InvalidArgumentError,
         "mixed_precision: expected 'no', 'bf16' or 'fp16', got 'fp8'"),
        ({"patience": 3}, br.InvalidArgumentError, "patience: early stopping needs validation data"),
        ({"optimizer": partial(torch.optim.SGD, lr=0.1, weight_decay=0.1)}, br.InvalidArgumentError,
         "SGD was given weight_decay=0.1 besides a prior"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(iris, keywords, error, message):
    with pytest.raises(error, match=message):
        fitted(iris[0], br.Gaussian(0.5), **keywords)


def test_a_loader_makes_its_own_batches(iris):
    examples = DataLoader(TensorDataset(*(torch.as_tensor(a) for a in iris[0])), batch_size=10)
    trainer = br.MAPTrainer(net(), br.Gaussian(0.5), L.Categorical(), batch_size=20)
    with pytest.raises(br.InvalidArgumentError, match="batch_size: a DataLoader makes batches of its own size"):
        trainer.fit(examples)


def test_a_class_in_place_of_an_object_is_named():
    with pytest.raises(br.InvalidArgumentError, match=r"got the class Categorical; make one, Categorical\(\.\.\.\)"):
        br.MAPTrainer(net(), br.Gaussian(0.5), L.Categorical)
    with pytest.raises(br.InvalidArgumentError, match=r"got the class Flat; make one, Flat\(\.\.\.\)"):
        br.ModelPrior(net(), br.Flat)


def test_a_loss_is_not_a_likelihood(iris):
    with pytest.raises(
        br.InvalidArgumentError, match=r"likelihood: expected one of br\.likelihoods .* got CrossEntropyLoss"
    ):
        br.MAPTrainer(net(), br.Gaussian(0.5), nn.CrossEntropyLoss())


@pytest.mark.parametrize("solver", ["lbfgs", "proximal"])
def test_full_batch_solvers_refuse_random_models(iris, solver):
    for layer, message in (
        (nn.Dropout(0.5), r"Dropout\(p=0\.5\) does not"),
        (nn.BatchNorm1d(8), "cannot train through"),
    ):
        model = nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, 3)).double()
        with pytest.raises(br.UnsupportedError, match=message):
            fitted(iris[0], br.Gaussian(0.5), model=model, optimizer=solver)


def test_solvers_refuse_priors_they_cannot_serve(iris):
    with pytest.raises(br.UnsupportedError, match=r"'lbfgs' needs smooth priors, and that of 0\.weight has a kink"):
        fitted(iris[0], br.Laplace(0.5), optimizer="lbfgs")
    kinked = br.FromDistribution(torch.distributions.Laplace(torch.tensor(0.0).double(), 1.0))
    with pytest.raises(br.UnsupportedError, match="has a kink but no proximal operator"):
        fitted(iris[0], kinked, optimizer="proximal")
    learned = br.Gaussian(nn.Parameter(torch.tensor(0.5)))
    with pytest.raises(br.UnsupportedError, match="collapses; fix the scale"):
        fitted(iris[0], learned, optimizer="lbfgs")


def test_a_validation_nll_that_is_not_finite_stops(iris):
    train, (Xv, yv) = iris
    Xv = Xv.clone()
    Xv[3] = math.nan
    for likelihood in (L.Categorical(), L.FromLoss(nn.CrossEntropyLoss())):
        trainer = br.MAPTrainer(net(), br.Gaussian(0.5), likelihood, optimizer=sgd(), max_epochs=3)
        with pytest.raises(br.NonFiniteObjectiveError, match="the validation NLL became nan in epoch 1"):
            trainer.fit(train, DataLoader(TensorDataset(Xv, yv), batch_size=10))


def test_modules_with_extra_state_are_trained_too(iris):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"calls": 3}

        def set_extra_state(self, state):
            self.calls = state["calls"]

    train, val = iris
    _, result = fitted(train, br.Gaussian(0.5), model=nn.Sequential(Extra(4, 3)).double(), val=val)
    assert len(result.history) == 5


def test_frozen_batch_norms_stay_frozen(iris):
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double()
    model[1].eval()
    fitted(iris[0], br.Gaussian(0.5), model=model, val=iris[1])
    assert not model[1].training
    assert model.training
    assert torch.equal(model[1].running_mean, torch.zeros(8, dtype=torch.float64))


def test_solvers_refuse_settings_they_would_ignore(iris):
    for name, value in (("on_epoch_end", max), ("accumulate", 2), ("mixed_precision", "bf16")):
        with pytest.raises(br.InvalidArgumentError, match=f"{name}: optimizer='lbfgs' is a full-batch solver"):
            fitted(iris[0], br.Gaussian(0.5), optimizer="lbfgs", **{name: value})


def test_float32_is_taken_as_far_as_it_goes(iris):
    _, result = fitted(iris[0], br.Gaussian(0.5), model=nn.Linear(4, 3), optimizer="lbfgs")
    assert result.converged
    assert result.kkt_residual < 1e-5


# -- nets: the solvers on what is not convex -----------------------------------------------------------


def test_proximal_solver_reaches_optimality_on_a_network(iris):
    _, result = fitted(iris[0], br.Laplace(0.5), optimizer="proximal")
    assert result.converged
    assert 0.2 < result.exact_zeros < 1


def test_frozen_parameters_stay(iris):
    model = net()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    for optimizer in (sgd(), "lbfgs"):
        _, result = fitted(iris[0], {"2.*": br.Gaussian(0.5), "0.bias": br.Flat()}, model=model, optimizer=optimizer)
        assert torch.equal(model[0].weight, before)
    assert result.converged


# -- what an optimizer would ignore --------------------------------------------------------------------

BY_EPOCH = {
    "scheduler": lambda optimizer: None,
    "scheduler_interval": "step",
    "batch_size": 32,
    "accumulate": 1,
    "clip_norm": 1.0,
    "patience": 3,
    "restore_best": True,
    "mixed_precision": "no",
    "cpu": False,
    "on_epoch_end": lambda record: None,
}
FULL_BATCH = {"tolerance": 1e-9, "max_iterations": 10, "starts": 1}


@pytest.mark.parametrize("name", BY_EPOCH)
@pytest.mark.parametrize("solver", ["lbfgs", "proximal"])
def test_full_batch_solvers_refuse_what_concerns_epochs_even_at_its_default(solver, name):
    with pytest.raises(
        br.InvalidArgumentError, match=f"{name}: optimizer='{solver}' is a full-batch solver and takes none"
    ):
        br.MAPTrainer(net(), br.Gaussian(0.5), L.Categorical(), optimizer=solver, **{name: BY_EPOCH[name]})


@pytest.mark.parametrize("name", FULL_BATCH)
@pytest.mark.parametrize("optimizer", [None, sgd(), torch.optim.LBFGS])
def test_other_optimizers_refuse_what_is_for_solvers(optimizer, name):
    with pytest.raises(
        br.InvalidArgumentError, match=rf"{name}: .* full-batch solver \(optimizer='lbfgs' or 'proximal'\)"
    ):
        br.MAPTrainer(net(), br.Gaussian(0.5), L.Categorical(), optimizer=optimizer, **{name: FULL_BATCH[name]})


def test_what_an_optimizer_takes_is_taken():
    br.MAPTrainer(net(), br.Gaussian(0.5), L.Categorical(), optimizer="lbfgs", seed=3, progress=False, **FULL_BATCH)
    br.MAPTrainer(net(), br.Gaussian(0.5), L.Categorical(), optimizer=sgd(), seed=3, progress=False, **BY_EPOCH)


# -- a scale in place of n -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", [
    {"optimizer": "lbfgs"},
    pytest.param({"optimizer": sgd(0.3, momentum=0.9), "batch_size": 100, "max_epochs": 600}, marks=pytest.mark.slow),
], ids=["solver", "epochs"])  # fmt: skip
def test_a_likelihood_that_counts_four_times_is_a_prior_twice_as_wide(iris, how):
    train, _ = iris
    emphasised = br.LossScale.mean(100, likelihood_weight=4.0)
    one, result = fitted(train, {"*": br.Gaussian(0.3)}, model=linear(), num_data=emphasised, **how)
    two, plain = fitted(train, {"*": br.Gaussian(0.6)}, model=linear(), **how)
    assert gap(one, two) < 1e-7
    assert result.num_data == plain.num_data == 100
    assert result.loss_scale.value == 1 / 400
    penalty = result.log_prior_constant - result.log_prior
    assert result.objective == pytest.approx(result.mean_nll + penalty / 400, rel=1e-12)
    assert result.objective == pytest.approx(plain.objective, rel=1e-7)
    assert "likelihood counted 4 times" in str(result.summary())


def test_a_stream_whose_scale_is_known_needs_no_size(iris):
    (X, y), _ = iris
    _, result = fitted(DataLoader(Stream(X, y), batch_size=10), br.Gaussian(0.5), num_data=br.LossScale.mean(100))
    _, counted = fitted(DataLoader(Stream(X, y), batch_size=10), br.Gaussian(0.5), num_data=100)
    assert result.num_data is None
    assert result.objective == counted.objective


class EveryOther(torch.utils.data.Sampler):
    """Batches of one's own, which leave half of the examples out."""

    def __init__(self, size):
        self.size = size

    def __iter__(self):
        return iter([[index, index + 2] for index in range(0, self.size - 2, 4)])

    def __len__(self):
        return (self.size + 1) // 4


def test_a_batch_sampler_of_ones_own_leaves_the_size_to_the_user():
    X, y = torch.randn(40, 4, dtype=torch.float64), torch.randint(0, 3, (40,))
    loader = DataLoader(TensorDataset(X, y), batch_sampler=EveryOther(40))
    with pytest.raises(br.InvalidArgumentError, match="num_data: the size of this training set cannot be read"):
        fitted(loader, br.Gaussian(0.5), max_epochs=1)
    assert fitted(loader, br.Gaussian(0.5), max_epochs=1, num_data=20)[1].num_data == 20
    # In a fixed order the last ones are never met.
    short = DataLoader(TensorDataset(X, y), batch_size=16, drop_last=True)
    assert fitted(short, br.Gaussian(0.5), max_epochs=1)[1].num_data == 32
    assert fitted(DataLoader(TensorDataset(X, y), batch_size=16, drop_last=True, shuffle=True), br.Gaussian(0.5),
                  max_epochs=1)[1].num_data == 40  # fmt: skip


@pytest.mark.parametrize("optimizer", [None, "lbfgs"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda x, y: {"x": x, "y": y}, "expected a mapping with 'labels' as its target, got one with x, y"),
        (lambda x, y: (x, y, torch.tensor(1.0)), r"got 3 entries \(Tensor, Tensor, Tensor\)"),
        (lambda x, y: x, "got Tensor"),
        (lambda x, y: ((x, x), y), "cannot take the inputs of a batch, a list"),
        (lambda x, y: ({"pixels": x}, y), "cannot take the inputs of a batch, a dict"),
    ],
)
def test_batches_that_are_no_pairs_are_refused(optimizer, make, said):
    X, y = torch.randn(16, 4), torch.randint(0, 3, (16,))
    loader = DataLoader([make(a, b) for a, b in zip(X, y, strict=True)], batch_size=8)
    trainer = br.MAPTrainer(nn.Linear(4, 3), br.Gaussian(1.0), L.Categorical(), optimizer=optimizer, max_epochs=1)
    with pytest.raises(br.DataError, match=said):
        trainer.fit(loader)


def test_inputs_that_are_no_tensor_go_to_a_model_that_takes_them():
    class Of(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, batch):
            return self.inner(batch["x"])

    X, y = torch.randn(16, 4), torch.randint(0, 3, (16,))
    rows = [({"x": a}, b) for a, b in zip(X, y, strict=True)]
    means = []
    for optimizer, epochs in ((None, 2), ("lbfgs", None)):
        trainer = br.MAPTrainer(
            Of(), br.Gaussian(1.0), L.Categorical(), optimizer=optimizer, max_epochs=epochs, progress=False
        )
        means.append(trainer.fit(DataLoader(rows, batch_size=8), DataLoader(rows, batch_size=8)).mean_nll)
    assert means[1] < means[0] < 3.0


def test_passes_of_a_full_batch_solver_are_its_iterations():
    trainer = br.MAPTrainer(nn.Linear(4, 3), br.Gaussian(1.0), L.Categorical(), optimizer="lbfgs", max_epochs=7)
    assert trainer.solving.max_iterations == 7
    with pytest.raises(br.InvalidArgumentError, match="max_epochs"):
        br.MAPTrainer(
            nn.Linear(4, 3), br.Gaussian(1.0), L.Categorical(), optimizer="lbfgs", max_epochs=7, max_iterations=9
        )


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        ("lbfgs", "Fit 2 of this trainer: it began at the weights that the model had."),
        (partial(torch.optim.SGD, lr=0.01), "at the weights that the model had, with a fresh optimizer and a schedule"),
        ("built", "at the weights that the model had, with the optimizer as it was and a schedule of its own."),
    ],
)
def test_a_second_fit_says_that_it_goes_on(optimizer, words):
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(20, 2, generator=generator), torch.randn(20, 1, generator=generator)
    model = nn.Linear(2, 1).double()
    if optimizer == "built":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    settings = {} if isinstance(optimizer, str) else {"max_epochs": 1}
    trainer = br.MAPTrainer(model, br.Gaussian(1.0), br.likelihoods.Gaussian(1.0), optimizer=optimizer, **settings)
    first = trainer.fit(data)
    assert first.continued == ""
    assert not any("Fit 1" in note for note in first.summary().notes)
    second = trainer.fit(data)
    assert words in second.continued
    assert second.continued in second.summary().notes
    assert second.to_dict()["continued"] == second.continued
    # It does go on.
    assert second.objective <= first.objective * (1.0 + 1e-14)
