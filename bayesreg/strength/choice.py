"""The strength that was chosen, how sure that is, and what was tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from bayesreg._support.calls import answering
from bayesreg._support.drawing import draw
from bayesreg._support.tables import Table, number
from bayesreg.conversion import LossScale
from bayesreg.errors import NotEquivalentError
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.optimizers import OptimizerLike
from bayesreg.priors.contract.asking import is_flat

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Choice", "OwnScale", "Step"]


@dataclass(frozen=True)
class Step:
    """One strength that was tried.

    Attributes:
        scale: What the prior's widths were multiplied by.
        held_out_nll: Mean NLL of what the fit did not see, nats per example; None where only evidence was looked at.
        hyperprior: −log density of the scale, nats, 0 at its middle.
        objective: What is minimised, nats: the sum over held-out examples plus `hyperprior`.
        effective_parameters: How many parameters the data determined; None where that was not measured.
        gradient: Largest entry of the objective's gradient, per example, at the fit; None where it was not measured.
        evaluations: Passes over all the data that it took.
        log_evidence: Of the fit there, a second opinion; None where it was not measured.
    """

    scale: float
    held_out_nll: float | None
    hyperprior: float
    objective: float
    effective_parameters: float | None
    gradient: float | None
    evaluations: float
    log_evidence: float | None = None


@dataclass(frozen=True)
class OwnScale:
    """The scale of some of the parameters.

    Attributes:
        group: The rule; with groups="each" a parameter's name.
        names: The parameters.
        scale: What their widths were multiplied by; with groups="each" a tensor of the parameter's shape.
        interval: As of the choice; (None, None) with groups="each".
        steps: What was tried, the other scales at their best.
    """

    group: str
    names: tuple[str, ...]
    scale: float | Tensor
    interval: tuple[float | None, float | None] = (None, None)
    steps: Sequence[Step] = field(default=(), repr=False)


@dataclass(frozen=True, repr=False)
class Choice:
    """What `choose_strength` found.

    Attributes:
        model: A copy of the model, at the MAP of all the data under `prior`.
        prior: The prior over that copy, its widths set.
        likelihood: As given; with a noise that was learned, Gaussian noise of the chosen std.
        scale: What the widths of the given prior are multiplied by: of `br.Gaussian(1.0)` the std itself.
        interval: The scales between which the objective is within 2 nats of its least; None for an end that the data
            leave open.
        steps: What was tried, from the strongest prior.
        method: "evidence", "loo", "split", "folds" or "centre".
        why: How the choice was made, in words.
        warnings: What speaks against it, in words, with an identifier each; empty if nothing does.
        num_data: n.
        evaluations: Passes over all the data (of value and gradient) in all.
        seconds: Wall-clock time.
        groups: The scales of groups, where they were asked for; `scale` is then that of all others.
        sensitivity: How far the predictions for the training inputs move when the scale is halved and when it is
            doubled, nats per example (see `summary`); None where no fit tells.
    """

    model: nn.Module = field(repr=False)
    prior: ModelPrior = field(repr=False)
    likelihood: Likelihood = field(repr=False)
    scale: float
    interval: tuple[float | None, float | None]
    steps: Sequence[Step] = field(repr=False)
    method: str
    why: str
    warnings: dict[str, str]
    num_data: int
    evaluations: float
    seconds: float
    groups: tuple[OwnScale, ...] = ()
    sensitivity: tuple[float | None, float | None] = (None, None)

    @property
    def path(self) -> Table:
        """What was tried, as a table."""
        columns = (
            "scale", "held-out NLL", "hyperprior (nats)", "objective (nats)", "effective parameters", "gradient",
            "log evidence", "evaluations",
        )  # fmt: skip
        rows = [
            (
                s.scale, s.held_out_nll, s.hyperprior, s.objective, s.effective_parameters, s.gradient, s.log_evidence,
                s.evaluations,
            )
            for s in self.steps
        ]  # fmt: skip
        return Table("Strengths tried", columns, rows)

    @answering
    def weight_decay(
        self, num_data: int | LossScale | None = None, optimizer: OptimizerLike | None = None
    ) -> float | Tensor | dict[str, float | Tensor]:
        """Return the chosen prior as a `weight_decay`, where it is one.

        Args:
            num_data: Size of the training set of a mean loss, or the `LossScale` of another. Default: the mean loss
                over the data of the choice.
            optimizer: The optimizer in use; a coupled one is assumed if None.

        Returns:
            One number for all parameters that have a prior; where they differ, one for each, by name.

        Raises:
            NotEquivalentError: If there is none, as for all but Gaussians about 0.
        """
        scale = LossScale.mean(self.num_data) if num_data is None else num_data
        found = {
            entry.name: prior.weight_decay(scale, optimizer)
            for entry, prior in self.prior.active()
            if not is_flat(prior)
        }
        if not found:
            raise NotEquivalentError("weight_decay: all parameters are flat, which is a weight_decay of 0.")
        first, *rest = found.values()
        if isinstance(first, Tensor) or any(isinstance(value, Tensor) or value != first for value in rest):
            return found
        return first

    def summary(self) -> Table:
        """Return the choice as a table, with what speaks against it.

        Its rows on halving and doubling are the prior's sensitivity: the Kullback-Leibler divergence between the
        predictions under the chosen scale and those under half of it or twice, to second order, a mean over the
        training inputs. It is exact where the strength is; elsewhere it comes from the walk's own fits next to the
        best, as the square of the step goes.
        """
        low, high = (None if end is None else float(end) for end in self.interval)
        rows: list[tuple[Any, ...]] = [
            ("scale", self.scale),
            ("within 2 nats of the best", f"{_end(low)} to {_end(high)}"),
            ("method", self.method),
            ("strengths tried", len(self.steps)),
            ("evaluations", self.evaluations),
            ("seconds", self.seconds),
        ]
        rows += [(f"scale of {own.group}", _range(own.scale)) for own in self.groups]
        for value, words in zip(self.sensitivity, ("half", "twice"), strict=True):
            if value is not None:
                rows.append((f"predictions move with {words} the scale (nats)", value))
        best = min(self.steps, key=lambda step: abs(step.scale / self.scale - 1.0), default=None)
        if best is not None and best.held_out_nll is not None:
            rows.insert(2, ("held-out mean NLL near it (nats)", best.held_out_nll))
        said = [self.why, *(f"{name}: {words}" for name, words in self.warnings.items())]
        priors = {prior.describe(): None for _, prior in self.prior.active()}
        times = "its group's scale" if self.groups else number(self.scale)
        said.append(f"Chosen, the widths of the prior that was given times {times}:")
        return Table("Prior strength", ("quantity", "value"), rows, (*said, *priors))

    def to_dict(self) -> dict[str, Any]:
        """Return everything but model and prior, ready for JSON."""
        return {
            "scale": self.scale,
            "interval": list(self.interval),
            "method": self.method,
            "why": self.why,
            "warnings": dict(self.warnings),
            "steps": [dict(vars(step)) for step in self.steps],
            "groups": [_as_dict(own) for own in self.groups],
            "sensitivity": list(self.sensitivity),
            "num_data": self.num_data,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the objective over the scale, its interval, and what the hyperprior has to do with it.

        Args:
            ax: Where to draw; a new figure by default.

        Returns:
            The axes.

        Raises:
            ImportError: If matplotlib is not installed (`pip install 'bayesreg[viz]'`).
        """
        return draw("plot_strength", self, ax)

    def __repr__(self) -> str:
        return str(self.summary())


def _end(value: float | None) -> str:
    return "open" if value is None else f"{value:.4g}"


def _range(scale: float | Tensor) -> float | str:
    return f"{float(scale.min()):.3g} to {float(scale.max()):.3g}" if isinstance(scale, Tensor) else scale


def _as_dict(own: OwnScale) -> dict[str, Any]:
    return {
        "group": own.group,
        "names": list(own.names),
        "scale": own.scale.tolist() if isinstance(own.scale, Tensor) else own.scale,
        "interval": list(own.interval),
        "steps": [dict(vars(step)) for step in own.steps],
    }
