"""How far weights travel, from data of the source: `br.transfer.rehearse`."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg._support.tables import Table
from bayesreg.data import TrainingData, as_tensors
from bayesreg.errors import DataError, StrengthWarning, UnsupportedError
from bayesreg.hyperpriors import HalfCauchy
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.coverage import check_prior_of
from bayesreg.priors import Belief
from bayesreg.selection import SelectorLike
from bayesreg.strength.by_walk import walked_over
from bayesreg.strength.choice import Step
from bayesreg.strength.setting import Setting
from bayesreg.strength.signals import LOUD, of_walk
from bayesreg.strength.walk.full_batch import FullBatch
from bayesreg.strength.walk.held_out import Task
from bayesreg.strength.walk.parts import Part
from bayesreg.strength.walk.points import Point, vertex
from bayesreg.strength.walk.settings import require_settings, stochastic_settings
from bayesreg.strength.walk.stochastic import Stochastic

__all__ = ["Rehearsal", "rehearse"]

_OWN = ("model", "prior", "likelihood", "data", "num_data", "draws", "validation", "seed")


@dataclass(frozen=True, repr=False)
class Rehearsal:
    """What a rehearsal found.

    Attributes:
        scale: What the widths of the given prior are multiplied by.
        scales: The best scale that was tried, of each draw by itself.
        steps: What was tried, from the strongest prior; the NLL is the mean over draws.
        num_data: n, the size of the target's training set.
        warnings: What speaks against it, in words, with an identifier each.
        seconds: Wall-clock time.
    """

    scale: float
    scales: tuple[float, ...]
    steps: Sequence[Step] = field(repr=False)
    num_data: int
    warnings: dict[str, str]
    seconds: float

    @property
    def hyperprior(self) -> HalfCauchy:
        """A half-Cauchy with the scale as its median, for `br.choose_strength` on the target."""
        return HalfCauchy(self.scale)

    def summary(self) -> Table:
        """Return what was found, and what was tried, as a table."""
        rows = [(step.scale, step.held_out_nll, step.evaluations) for step in self.steps]
        shown = ", ".join(f"{scale:.3g}" for scale in self.scales)
        said = (
            f"Scale {self.scale:.4g} for {self.num_data} examples; best of each draw: {shown}.",
            *(f"{name}: {words}" for name, words in self.warnings.items()),
        )
        return Table("Rehearsal", ("scale", "held-out NLL", "evaluations"), rows, said)

    def __repr__(self) -> str:
        return str(self.summary())


@answering
def rehearse(
    model: nn.Module,
    prior: ModelPrior | Belief | Mapping[SelectorLike, Belief],
    likelihood: Likelihood,
    data: TrainingData,
    *,
    num_data: int,
    draws: int = 5,
    validation: int = 500,
    seed: int = 0,
    **trainer: Any,
) -> Rehearsal:
    """Find how wide a prior about pretrained weights should be, from data of the source alone.

    A few examples of a target cannot say how far the weights have to travel. Source data can, made to differ from what
    the network was trained on as the target does: other domains, other classes, images turned or blurred. From these a
    small transfer task is drawn several times: `num_data` examples to fit, others to validate. The walk of
    `br.choose_strength` goes over the widths, and the scale with the lowest mean NLL over all draws is returned.

    Args:
        model: Pretrained, as the fits on the target begin; left as it is.
        prior: The prior about its weights, of scale 1.
        likelihood: From `br.likelihoods`, with nothing to learn.
        data: Inputs and targets of the source, not those that it was trained on.
        num_data: Size of the target's training set.
        draws: How many small tasks. Default 5.
        validation: Examples that each is scored on, at most. Default 500.
        seed: Of the draws.
        **trainer: How a fit from scratch is made, as in `br.choose_strength`.

    Returns:
        The scale, and a hyperprior about it for the target.

    Raises:
        CoverageError: If the prior is over another model.
        DataError: If the data cannot be used, or are too few to hold any out.
        InvalidArgumentError: If an argument is out of range.
        UnsupportedError: If the prior's width cannot be multiplied, or the likelihood has something to learn.

    Warns:
        StrengthWarning: If the best scale is at an end of what was tried.

    Example:
        >>> import bayesreg as br
        >>> generator = torch.Generator().manual_seed(0)
        >>> X = torch.randn(200, 3, generator=generator).double()
        >>> model, noise = nn.Linear(3, 1).double(), br.likelihoods.Gaussian(0.5)
        >>> target = X @ (model.weight.detach() + 0.3).T + model.bias.detach()  # the weights have 0.3 to go
        >>> target += 0.5 * torch.randn(200, 1, generator=generator).double()
        >>> prior = br.Gaussian.centered_at(model, scale=1.0)
        >>> found = br.transfer.rehearse(model, prior, noise, (X, target), num_data=10)
        >>> 0.1 < found.scale < 3.0
        True

    References:
        docs/transfer.md, where rehearsals chose all strengths.
    """
    start = time.perf_counter()
    n = checks.positive_int("num_data", num_data)
    checks.positive_int("draws", draws)
    checks.positive_int("validation", validation)
    seed = checks.seed("seed", seed)
    require_settings(trainer, _OWN)
    given = prior if isinstance(prior, ModelPrior) else ModelPrior(model, prior)
    check_prior_of(model, given)
    copied, own = copy.deepcopy((model, given))
    inputs, targets = as_tensors(copied, likelihood, data)
    if len(targets) <= n:
        raise DataError(f"data: expected more than the {n} examples of a fit, to hold some out, got {len(targets)}.")
    if any(p.requires_grad for p in likelihood.parameters()):
        raise UnsupportedError(f"{likelihood.describe()}: expected a likelihood with nothing to learn.")
    training = stochastic_settings(copied, trainer)
    copied.eval()
    device = next(copied.parameters()).device
    setting = Setting.of(copied, own, likelihood, inputs.to(device), targets.to(device), None, seed, training)
    task = Task(
        copied,
        lambda at, unit: setting.at(unit * 10.0**at),
        likelihood,
        setting.inputs,
        setting.targets,
        _drawn(targets, n, draws, validation, seed),
        lambda scale: 0.0,
        noise=None,
        linear=setting.linear,
    )
    ground = FullBatch(task, leave_one_out=False) if training is None else Stochastic(task, training, seed)
    walked = walked_over(setting, ground)
    said = dict(of_walk(walked, ground.examples))
    for name in LOUD & said.keys():
        warnings.warn(f"rehearse: {said[name]}", StrengthWarning, stacklevel=3)
    points = walked.points
    steps = [Step(p.measured.scale, p.measured.held_out, 0.0, p.objective, None, None, p.evaluations) for p in points]
    return Rehearsal(10.0 ** vertex(points), _of_each(points), steps, n, said, time.perf_counter() - start)


def _drawn(targets: Tensor, n: int, draws: int, validation: int, seed: int) -> list[Part]:
    """Draw n examples to fit, classes as even as they go, and others to validate; several times."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for _ in range(draws):
        order = torch.randperm(len(targets), generator=generator)
        if not targets.is_floating_point() and targets.ndim == 1:
            # The first of each class, then the second of each, ...
            labels = targets.cpu()[order]
            rank = torch.zeros(len(order), dtype=torch.long)
            for label in labels.unique():
                here = labels == label
                rank[here] = torch.arange(int(here.sum()))
            fit = order[torch.argsort(rank, stable=True)[:n]]
        else:
            fit = order[:n]
        rest = order[~torch.isin(order, fit)]
        parts.append((fit, rest[:validation]))
    return parts


def _of_each(points: Sequence[Point]) -> tuple[float, ...]:
    """Return the scale of the lowest point of each draw."""
    columns = zip(*(point.measured.parts for point in points), strict=True)
    return tuple(points[min(range(len(points)), key=column.__getitem__)].measured.scale for column in columns)
