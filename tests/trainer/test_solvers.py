"""The full-batch solvers: what they promise away from the convex problems."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_iris
from torch import nn

import bayesreg as br
from bayesreg.data import Batch, Reading
from bayesreg.trainer.full_batch.lbfgs import minimise_lbfgs
from bayesreg.trainer.full_batch.newton import newton_polish
from bayesreg.trainer.full_batch.problem import FullBatchProblem


def problem(prior, seed, spread=1.0):
    X, y = load_iris(return_X_y=True)
    X = torch.as_tensor((X - X.mean(0)) / X.std(0))
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(spread)
    built = br.ModelPrior(model, prior)
    return FullBatchProblem(model, built, Reading(br.likelihoods.Categorical()), [Batch(X, torch.as_tensor(y))], len(y))


@pytest.mark.parametrize("prior", [br.Gaussian(0.5), br.Laplace(0.5)])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.1, 1.0, 20.0])
def test_newton_steps_never_make_the_residual_larger(prior, seed, spread):
    """Far from a minimum the curvature is negative and a Newton step may lead anywhere: it is then refused."""
    task = problem(prior, seed, spread)
    start = task.get()
    before = task.residual(start, task.value_and_grad(start)[1])
    end = newton_polish(task, start, 1e-12, max_steps=5)
    assert task.residual(end, task.value_and_grad(end)[1]) <= before


@pytest.mark.parametrize("prior", [br.Gaussian(0.5), br.Laplace(0.5), br.Flat()])
def test_derivatives_are_those_of_the_value(prior):
    task = problem(prior, seed=0)
    flat = task.get()
    direction = torch.randn(flat.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-5
    ahead, behind = flat + step * direction, flat - step * direction
    slope = (task.value(ahead) - task.value(behind)) / (2 * step)
    value, grad = task.value_and_grad(flat)
    assert value == pytest.approx(task.value(flat), rel=1e-13)
    assert float(grad @ direction) == pytest.approx(slope, rel=1e-6)
    curved = (task.value_and_grad(ahead)[1] - task.value_and_grad(behind)[1]) / (2 * step)
    assert torch.allclose(task.hessian_times(flat, direction), curved, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("solver", ["lbfgs", "proximal"])
def test_both_solvers_descend_to_a_stationary_point_of_a_network(solver):
    X, y = load_iris(return_X_y=True)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    trainer = br.MAPTrainer(model, br.Gaussian(1.0), br.likelihoods.Categorical(), optimizer=solver)
    result = trainer.fit(((X - X.mean(0)) / X.std(0), y))
    assert result.converged
    assert result.objective < result.history[0]["objective"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("solver", ["lbfgs", "proximal"])
def test_nothing_drifts_along_a_direction_that_the_objective_does_not_see(solver, weighted, seed):
    """Such as the common shift of flat biases under a softmax, whose curvature is rounding."""
    X, y = load_iris(return_X_y=True)
    torch.manual_seed(seed)
    weights = 10.0 ** torch.randn(3).double()
    likelihood = (
        br.likelihoods.FromLoss(nn.CrossEntropyLoss(weight=weights)) if weighted else br.likelihoods.Categorical()
    )
    model = nn.Linear(X.shape[1], 3).double()
    before = model.bias.detach().mean().item()
    prior = br.Gaussian(0.5) if solver == "lbfgs" else br.Laplace(0.5)
    trainer = br.MAPTrainer(model, prior, likelihood, optimizer=solver, tolerance=1e-10, progress=False)
    assert trainer.fit(((X - X.mean(0)) / X.std(0), y)).converged
    assert abs(model.bias.detach().mean().item() - before) < 1e-8


class Sum(nn.Module):
    """Two parameters that get one gradient tensor from autograd."""

    def __init__(self, whole):
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(2))
        self.whole = whole

    def forward(self, x):
        both = self.a + self.b
        return (x.sum(1) * both.sum() if self.whole else x @ both)[:, None]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("solver", ["lbfgs", "proximal"])
def test_parameters_with_one_gradient_get_their_own_prior(whole, solver):
    X = torch.randn(40, 3, dtype=torch.float64)
    y = X @ torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64)
    model = Sum(whole)
    rules = {"a": br.Gaussian(1.0), "b": br.Gaussian(2.0)}
    trainer = br.MAPTrainer(model, rules, br.likelihoods.Gaussian(1.0), optimizer=solver, progress=False)
    assert trainer.fit((X, y)).converged
    # At the MAP both pulls equal the gradient of the data: a/1² = b/2².
    assert torch.allclose(model.b.detach(), 4.0 * model.a.detach(), atol=1e-7)


def test_several_starts_never_end_worse_than_one():
    X, y = torch.randn(30, 2, dtype=torch.float64), torch.randn(30, 1, dtype=torch.float64)

    def run(starts):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        trainer = br.MAPTrainer(
            model, br.Cauchy(3.0), br.likelihoods.Gaussian(1.0), optimizer="lbfgs", starts=starts, max_iterations=5,
            progress=False,
        )  # fmt: skip
        with pytest.warns(RuntimeWarning, match="stopped at a KKT residual"):
            return trainer.fit((X, y))

    single = run(1).objective
    several = run(6)
    assert several.objective <= single + 1e-12
    assert several.modes.unconverged == 6
    assert "No local mode was reached" in several.modes.words


def test_noise_that_goes_to_nought_is_not_followed_for_ever():
    # A price that is 1000 + 37 i, one of whose rows has a column to itself: no noise is left, and no minimum.
    i = torch.arange(40, dtype=torch.float64)
    size, rooms = torch.where(i == 14, 80.0, 60.0 + i), torch.where(i % 9 == 0, 3.0, i % 7)
    columns = [size, i == 14, rooms, i % 9 == 0, i % 3 == 0, i % 3 == 1, i % 3 == 2]
    X, y = torch.stack([column.double() for column in columns], 1), 1000.0 + 37.0 * i
    X, y = (X - X.mean(0)) / X.std(0, correction=0), ((y - y.mean()) / y.std(correction=0))[:, None]
    torch.manual_seed(0)
    model = nn.Linear(7, 1).double()
    built = br.ModelPrior(model, br.Gaussian(4069.0))
    likelihood = br.likelihoods.Gaussian("learned")
    problem = FullBatchProblem(model, built, Reading(likelihood), [Batch(X, y)], 40)
    seen = []
    minimise_lbfgs(problem, 1e-9, 10_000, lambda *report: seen.append(report))
    assert seen[-1][0] < 3_000


class Slide:
    """An objective that falls by `rate` a round and has a slope of 1 wherever one looks."""

    dtype, kinked = torch.float64, ()

    def __init__(self, rate, steeper=0.0):
        self.rate, self.steeper = rate, steeper

    def get(self):
        return torch.zeros(1, dtype=torch.float64)

    def value_and_grad(self, flat):
        return 1.0 - self.rate * float(flat), torch.exp(-self.steeper * flat)

    def residual(self, flat, grad):
        return float(grad.abs().max())


@pytest.mark.parametrize(
    ("rate", "steeper", "rounds"),
    [
        pytest.param(1e-10, 0.0, 2, id="round-off is no progress"),
        pytest.param(1e-5, 0.0, 100, id="a slow fall is"),
        pytest.param(0.0, 0.05, 100, id="a slope that goes away is"),
        pytest.param(0.0, 1e-4, 2, id="one that hardly does is none"),
    ],
)
def test_what_counts_as_progress(rate, steeper, rounds, monkeypatch):
    def descend(problem, flat, tolerance, iterations):
        flat.data.add_(1.0)
        return iterations

    monkeypatch.setattr("bayesreg.trainer.full_batch.lbfgs.descend", descend)
    done = []
    minimise_lbfgs(Slide(rate, steeper), 1e-9, 10_000, lambda *report: done.append(report[0]))
    assert done[-1] == 100 * rounds
