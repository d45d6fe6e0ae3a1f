"""All strengths of a prior, from the empty model to the dense one, each fit started where the one before ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg._support.drawing import draw
from bayesreg._support.tables import Table
from bayesreg.data import TrainingData, as_tensors
from bayesreg.errors import InvalidArgumentError
from bayesreg.likelihoods import Likelihood
from bayesreg.likelihoods.output import tensor_output
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.coverage import check_prior_of
from bayesreg.sparsity.null import null_strength
from bayesreg.sparsity.shared import SharedFit
from bayesreg.sparsity.strength import with_strength
from bayesreg.trainer import MAPTrainer

__all__ = ["Path", "PathPoint", "regularization_path"]


@dataclass(frozen=True)
class PathPoint:
    """The fit at one strength.

    Attributes:
        strength: What −log p was multiplied by.
        weights: The trained parameters by name.
        nonzero: How many weights are off their kink.
        mean_nll: Mean NLL of the training data, in nats.
        validation_nll: Mean NLL of the validation data; None without.
        converged: Whether the solver reached its tolerance.
        kinked: The parameters whose prior has a kink, the ones that are counted.
    """

    strength: float
    weights: dict[str, Tensor] = field(repr=False)
    nonzero: int
    mean_nll: float
    validation_nll: float | None
    converged: bool
    kinked: tuple[str, ...] = ()


class Path(list[PathPoint]):
    """The points of a path, from the strongest prior to the weakest."""

    @property
    def table(self) -> Table:
        """The points as a table."""
        columns = ("strength", "nonzero", "mean NLL", "validation NLL", "converged")
        rows = [(p.strength, p.nonzero, p.mean_nll, p.validation_nll, p.converged) for p in self]
        return Table("Regularization path", columns, rows)

    def best(self) -> PathPoint:
        """Return the point with the lowest validation NLL.

        Returns:
            The point.

        Raises:
            InvalidArgumentError: If the path was made without validation data.
        """
        scored = [point for point in self if point.validation_nll is not None]
        if not scored:
            raise InvalidArgumentError(
                "best(): expected a path with validation data: regularization_path(validation=)."
            )
        return min(scored, key=lambda point: point.validation_nll or 0.0)

    def plot(self, axes: Any = None) -> Any:
        """Draw every weight under a kinked prior against the strength, and how many are off their kink.

        Args:
            axes: Two matplotlib axes; a new figure by default.

        Returns:
            The axes.

        Raises:
            ImportError: If matplotlib is not installed (`pip install 'bayesreg[viz]'`).
        """
        return draw("plot_path", self, axes)

    def __str__(self) -> str:
        return str(self.table)


@answering
def regularization_path(
    model: nn.Module,
    prior: ModelPrior,
    likelihood: Likelihood,
    data: TrainingData,
    *,
    strengths: Iterable[float] | None = None,
    count: int = 30,
    floor: float = 1e-3,
    validation: TrainingData | None = None,
    tolerance: float = 1e-7,
    max_iterations: int = 5000,
) -> Path:
    """Fit the MAP at every strength, from the empty model on, each from where the one before ended.

    Args:
        model: A model with a kinked prior, in float64; it is left at the last (weakest) point.
        prior: Its prior; each point's is `with_strength(prior, strength)`.
        likelihood: From `br.likelihoods`.
        data: All inputs and targets.
        strengths: The factors. Default: `count` of them, even in the logarithm, from `null_strength` to `floor` of it.
        count: How many. Default 30.
        floor: In (0, 1). Default 1e-3.
        validation: Inputs and targets to score each point on.
        tolerance: KKT residual of each fit, per example.
        max_iterations: Of each fit.

    Returns:
        The path; `path.best()` and `path.plot()`.

    Raises:
        CoverageError: If the prior is over another model.
        InvalidArgumentError: If a number is out of range, or no parameter is under a prior with a kink and `strengths`
            are not given.
        UnsupportedError: If the prior's strength cannot be varied (horseshoes, mixtures, Student-t: fit them at each of
            their own scales instead, each from where the one before ended), or the empty model is always a local mode.

    Example:
        >>> import bayesreg as br
        >>> X, y = torch.eye(3).double(), torch.tensor([[3.0], [-1.0], [0.5]]).double()
        >>> model = nn.Linear(3, 1, bias=False).double()
        >>> prior = br.ModelPrior(model, br.Laplace(1.0))
        >>> noise = br.likelihoods.Gaussian(noise_std=1.0)
        >>> path = br.sparsity.regularization_path(model, prior, noise, (X, y), strengths=[4.0, 2.0, 0.7, 0.1])
        >>> [point.nonzero for point in path]
        [0, 1, 2, 3]
    """
    check_prior_of(model, prior)
    inputs, target = as_tensors(model, likelihood, data)
    validation = None if validation is None else as_tensors(model, likelihood, validation)
    with_strength(prior, 1.0)  # refused before anything is touched
    checks.positive_float("tolerance", tolerance)
    checks.positive_int("max_iterations", max_iterations)
    # A tensor or array of no dimension has what iterating takes, and cannot be iterated.
    if isinstance(strengths, str | bytes) or getattr(strengths, "ndim", 1) == 0:
        raise InvalidArgumentError(f"strengths: expected a list of numbers > 0, got {strengths!r}.")
    if strengths is None:
        checks.positive_int("count", count)
        if not 0.0 < checks.finite_float("floor", floor) < 1.0:
            raise InvalidArgumentError(f"floor: expected a number in (0, 1), got {floor!r}.")
        # At the strength itself 0 and a rounding error beside it are both optimal: a hair above it only 0 is.
        top = (1.0 + 1e-9) * null_strength(model, prior, likelihood, (inputs, target))
        strengths = [top * floor ** (k / max(count - 1, 1)) for k in range(count)]
    factors = sorted((checks.positive_float("strengths", value) for value in strengths), reverse=True)
    path = Path()
    with torch.no_grad():
        for entry, part in prior.kinked():
            entry.parameter.copy_(part.centre().to(entry.parameter).expand(entry.parameter.shape))
    here = _points(model, prior, likelihood, validation)
    if (line := SharedFit.of(model, prior, likelihood, inputs, target)) is not None:
        for factor in factors:
            converged = line.fit(factor, tolerance, max_iterations)
            path.append(here(factor, converged, line.mean_nll()))
        return path
    for factor in factors:
        trainer = MAPTrainer(
            model, with_strength(prior, factor), likelihood, optimizer="proximal", tolerance=tolerance,
            max_iterations=max_iterations, progress=False,
        )  # fmt: skip
        result = trainer.fit((inputs, target))
        path.append(here(factor, result.converged, result.mean_nll))
    return path


def _points(
    model: nn.Module, prior: ModelPrior, likelihood: Likelihood, validation: tuple[Tensor, Tensor] | None
) -> Callable[[float, bool | None, float], PathPoint]:
    """Return what makes a point of the model as it is: of its strength, whether it converged, and its mean NLL."""
    kinked = prior.kinked()
    names = tuple(entry.name for entry, _ in kinked)
    trained = {entry.name: entry.parameter for entry, _ in prior.active()}

    @torch.no_grad()
    def here(strength: float, converged: bool | None, mean: float) -> PathPoint:
        off = sum(int((~part.at_kink(entry.parameter)).sum()) for entry, part in kinked)
        scored = None
        model.eval()
        if validation is not None:
            scored = float(likelihood.nll(tensor_output(model, validation[0]), validation[1]).mean())
        weights = {name: parameter.detach().clone() for name, parameter in trained.items()}
        mean = mean if math.isfinite(mean) else math.inf
        return PathPoint(strength, weights, off, mean, scored, bool(converged), names)

    return here
