"""What a trap is, and the problem that most of them are measured on: linear regression, whose MAP is known."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import bayesreg as br

N, P = 60, 4
DECAY = 0.3
SCALE = (1.0 / (N * DECAY)) ** 0.5
STEPS = 1200
WARNINGS = (
    br.RoundingWarning, br.ClipAfterPriorWarning, br.HeldNormWarning, br.OtherOptimizerWarning, br.ZerosLostWarning,
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What came out.

    Attributes:
        without: The number without bayesreg.
        with_: The number with it; None where it raises or warns.
        right: The number that is right.
        raised: What bayesreg said, where it raises or warns.
    """

    without: float
    with_: float | None = None
    right: float = 1.0
    raised: str = ""


@dataclass(frozen=True)
class Trap:
    """A trap: its identifier, what a plain attempt is, what is measured, what bayesreg does."""

    identifier: str
    attempt: str
    quantity: str
    answer: str
    measure: Callable[[], Measured]


TRAPS: list[Trap] = []
STRENGTH = "strength of the prior"


def trap(identifier: str, attempt: str, answer: str, quantity: str = STRENGTH):
    def register(measure: Callable[[], Measured]) -> Callable[[], Measured]:
        TRAPS.append(Trap(identifier, attempt, quantity, answer, measure))
        return measure

    return register


# -- the problem: linear regression, whose MAP is known ----------------------------------------------------------


def problem():
    g = torch.Generator().manual_seed(2)
    X = torch.randn(N, P, generator=g, dtype=torch.float64)
    return X, X @ torch.tensor([2.0, -1.0, 0.7, 0.0]).double() + torch.randn(N, generator=g, dtype=torch.float64)


def model_of(bias=False):
    torch.manual_seed(0)
    return nn.Linear(P, 1, bias=bias).double()


def loss_of(model, rows=slice(None)):
    X, y = problem()
    return 0.5 * (model(X[rows])[:, 0] - y[rows]).square().mean()


def strength(model):
    """Return the precision in effect at the weights, relative to the one asked for: −g·w / (λ w·w)."""
    weights = model.weight if hasattr(model, "weight") else next(model.parameters())
    (slope,) = torch.autograd.grad(loss_of(model), [weights])
    return float(-(slope * weights).sum().detach() / (DECAY * weights.square().sum().detach()))


def train(model, optimizer, *, steps=STEPS, before_step=lambda: None, sign=1.0, schedule=True):
    cooling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-6) if schedule else None
    for _ in range(steps):
        optimizer.zero_grad()
        (sign * loss_of(model)).backward()
        before_step()
        optimizer.step()
        if cooling:
            cooling.step()
    return model


def prior_of(model, **keywords):
    return br.ModelPrior(model, {"*": br.Gaussian(SCALE, **keywords)})


def sgd(model, **keywords):
    return torch.optim.SGD(model.parameters(), lr=0.05, **keywords)


def naive_hook(optimizer, params=None, factor=DECAY):
    """What people write: add λw to the gradients in a step_pre_hook."""
    chosen = params if params is not None else [p for group in optimizer.param_groups for p in group["params"]]

    @torch.no_grad()
    def hook(*_):
        for p in chosen:
            if p.grad is not None:
                p.grad.add_(p, alpha=factor)

    return optimizer.register_step_pre_hook(hook)


def attached(make, **keywords):
    """Train with bayesreg; return the strength."""
    model = model_of()
    optimizer = make(model)
    br.attach(optimizer, prior_of(model), num_data=N)
    return strength(train(model, optimizer, **keywords))


def said(call) -> str:
    """Return the first words of what bayesreg raises or warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            call()
        except (br.errors.BayesRegError, *WARNINGS) as error:
            return f"{type(error).__name__}: {error}"
    return ""
