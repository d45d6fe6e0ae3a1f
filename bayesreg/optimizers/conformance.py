"""What an optimizer's decay is, measured: for reports, and for the tests of those who write optimizers."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bayesreg._support.calls import answering
from bayesreg._support.tables import Table, Tabled
from bayesreg.errors import InvalidArgumentError, kind_of, nearest
from bayesreg.optimizers.arrival import arrival
from bayesreg.optimizers.probe import Build, examine

__all__ = ["DecayKind", "DecayReport", "decay_of"]

#: What a decay may be.
DecayKind: TypeAlias = Literal["coupled", "decoupled", "cautious", "none", "held", "other", "unknown"]

_RATE, _DECAY = 0.05, 1e-3
_ACTING = ("coupled", "decoupled", "cautious")
_WORDS = {
    "coupled": "weight_decay is added to the gradient: a Gaussian prior",
    "decoupled": "weights are shrunk apart from the gradient: no Gaussian prior",
    "cautious": "weights are shrunk where the update shrinks them too: no prior at rest",
    "none": "weight_decay changes nothing, or is no setting",
    "held": "the norm of the weights is held: a decay, or a prior around 0, can do nothing",
    "other": "neither added to the gradient nor a plain shrinkage",
    "unknown": "it could not be run on a toy, or moves it too little to tell",
}


@dataclass(frozen=True, repr=False)
class DecayReport(Tabled):
    """What an optimizer's `weight_decay` does; made by `bayesreg.testing.decay_of`.

    Attributes:
        name: Of the optimizer.
        kind: "coupled", "decoupled", "cautious", "none", "held", "other" or "unknown".
        hidden: Whether weights shrink at weight_decay = 0 too: a decay under another name.
        through_metric: Of a coupled decay, whether it is divided by what the gradient is divided by, as in Adam; None
            elsewhere.
        scales_with: Of a decoupled decay, what a step shrinks by: "lr" (1 − lr·λ), "lr²" or "nothing" (1 − λ of the
            first learning rate); None elsewhere.
        follows_schedule: Of a decoupled decay, whether a learning rate that changes on the way changes it; None
            elsewhere.
        applies_to: "all", or "matrices" or "vectors" where it acts on those alone; None where it does not act, or it
            cannot be told.
        acts_in: For each dtype whether a step at lr = 1e-3 and weight_decay = 0.01 moves a weight of 1 that has no
            gradient; rounding may lose it. Empty where it cannot be told.
    """

    name: str
    kind: DecayKind
    hidden: bool
    through_metric: bool | None
    scales_with: str | None
    follows_schedule: bool | None
    applies_to: str | None
    acts_in: dict[str, bool]

    def table(self) -> Table:
        """Return it as a table."""
        rows: list[tuple[str, Any]] = [("kind", self.kind), ("hidden decay", self.hidden)]
        rows += [
            (words, value)
            for words, value in (
                ("through a metric", self.through_metric),
                ("a step shrinks by", self.scales_with),
                ("follows the schedule", self.follows_schedule),
                ("applies to", self.applies_to),
            )
            if value is not None
        ]
        rows += [(f"acts in {dtype}", acts) for dtype, acts in self.acts_in.items()]
        return Table(f"weight_decay of {self.name}", ("", "found"), rows, (f"{_WORDS[self.kind]}.",))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)

    def require(self, kind: DecayKind, **more: Any) -> None:
        """Raise unless the decay is of this kind; for the tests of an optimizer.

        Args:
            kind: What it should be.
            **more: What else should be: `scales_with="lr"`, `follows_schedule=True`, `hidden=False`,
                `applies_to="all"`.

        Raises:
            AssertionError: If it is not; with what it is.
            InvalidArgumentError: If there is no such kind or property.
        """
        if kind not in get_args(DecayKind):
            known = get_args(DecayKind)
            raise InvalidArgumentError(
                f"kind: expected one of {', '.join(known)}, got {kind!r}{nearest(str(kind), known)}."
            )
        for name, wanted in {"kind": kind, **more}.items():
            if name not in _PROPERTIES:
                raise InvalidArgumentError(
                    f"{name}: expected one of {', '.join(_PROPERTIES)}{nearest(name, _PROPERTIES)}."
                )
            found = getattr(self, name)
            if found != wanted:
                raise AssertionError(f"{self.name}: expected {name} {wanted!r}, got {found!r}.\n{self}")


_PROPERTIES = ("kind", "hidden", "through_metric", "scales_with", "follows_schedule", "applies_to")


@answering
def decay_of(make_optimizer: Callable[..., Optimizer]) -> DecayReport:
    """Measure what an optimizer does with its `weight_decay`, by steps on toys.

    Six steps with the decay are compared with steps in which it is made by hand, on a matrix and on a vector; a second
    learning rate, one that changes on the way, and two dtypes follow.

    Args:
        make_optimizer: A class, or a function from a list of parameters to an optimizer.

    Returns:
        The report; `report.require("decoupled")` is an assertion for an optimizer's own tests.

    Raises:
        InvalidArgumentError: If it is no such function, or what it makes is no optimizer.

    Example:
        >>> import torch
        >>> report = decay_of(torch.optim.AdamW)
        >>> report.kind, report.scales_with, report.acts_in
        ('decoupled', 'lr', {'float32': True, 'bfloat16': False})
        >>> decay_of(torch.optim.Adam).require("coupled", through_metric=True)
    """
    if not callable(make_optimizer):
        raise InvalidArgumentError(
            f"make_optimizer: expected a class, or a function from a list of parameters to an optimizer, got "
            f"{kind_of(make_optimizer)}."
        )
    name = _checked(make_optimizer)
    found = examine(make_optimizer)
    kind: DecayKind = found.kind
    if "held" in arrival(make_optimizer).values():
        kind = "held"
    applies_to = "all" if kind in _ACTING else None
    if kind == "other" and not found.drifts:
        # A decay that leaves one of them out, as for biases, is what it is on the other.
        for acting, still, name in ((found.matrix, found.vector, "matrices"), (found.vector, found.matrix, "vectors")):
            if acting in _ACTING and still == "none":
                kind, applies_to = acting, name
    decoupled = kind == "decoupled"
    return DecayReport(
        name,
        kind,
        found.drifts,
        _quietly(lambda: _through_metric(make_optimizer)) if kind == "coupled" else None,
        _quietly(lambda: _scaling(make_optimizer)) if decoupled else None,
        _quietly(lambda: _follows(make_optimizer)) if decoupled else None,
        applies_to,
        (_quietly(lambda: _acts_in(make_optimizer)) or {}) if decoupled else {},
    )


def _checked(make: Callable[..., Any]) -> str:
    try:
        made = make([nn.Parameter(torch.zeros(3, 3))])
    except Exception as error:  # Whatever a caller's function raises, it is no factory.
        raise InvalidArgumentError(
            f"make_optimizer: expected a function from a list of parameters to an optimizer; calling it raised "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, Optimizer):
        raise InvalidArgumentError(f"make_optimizer: expected one that makes an optimizer, got {kind_of(made)}.")
    return type(made).__name__


def _quietly(look: Callable[[], Any]) -> Any:
    with (
        contextlib.suppress(Exception),  # Third-party code: whatever it raises, nothing was learned about it.
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
    ):
        warnings.simplefilter("ignore")
        return look()


def _after(
    build: Build, start: Tensor, grads: Sequence[Tensor], decay: float, rates: Sequence[float], by_hand: str = ""
) -> Tensor:
    """Return the weights after steps of these gradients and rates; by hand they are shrunk beside the steps."""
    weights = nn.Parameter(start.clone())
    optimizer = build([weights])
    for grad, rate in zip(grads, rates, strict=True):
        optimizer.param_groups[0].update(lr=rate, weight_decay=0.0 if by_hand else decay)
        weights.grad = grad.clone()
        before = weights.detach().clone()
        with torch.no_grad():
            if by_hand == "before":
                weights.mul_(1.0 - rate * decay)
        optimizer.step()
        with torch.no_grad():
            if by_hand == "after":
                weights.mul_(1.0 - rate * decay)
            elif by_hand == "beside":
                weights.sub_(before, alpha=rate * decay)
    return weights.detach()


def _toy(shape: tuple[int, ...] = (4, 4), steps: int = 1) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn((steps + 1, *shape), generator=generator, dtype=torch.float64)
    return draws[0], list(draws[1:])


def _through_metric(build: Build) -> bool:
    """Return whether a coupled decay shrinks weights of small gradients by more."""
    start, scales = torch.ones(2, dtype=torch.float64), torch.tensor([1.0, 100.0], dtype=torch.float64)
    draws = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def pulled(steps: int) -> Tensor:
        # So short that the weights stay where they are.
        grads, rates = [draw * scales for draw in draws[:steps]], [1e-7] * steps
        return _after(build, start, grads, 0.0, rates) - _after(build, start, grads, _DECAY, rates)

    # Some begin without a metric, for the first few steps.
    late = pulled(40) - pulled(20)
    return not bool((late - late[0]).abs().max() <= 0.1 * late.abs().max())


def _scaling(build: Build) -> str | None:
    start, grads = _toy()

    def shrunk(rate: float) -> float:
        return float((_after(build, start, grads, 0.0, [rate]) - _after(build, start, grads, _DECAY, [rate])).norm())

    one, two = shrunk(_RATE), shrunk(2.0 * _RATE)
    by = {"lr": 2.0, "lr²": 4.0, "nothing": 1.0}
    return next((name for name, factor in by.items() if abs(two / one - factor) < 0.05 * factor), None)


def _follows(build: Build) -> bool:
    start, grads = _toy(steps=6)
    rates = [_RATE, _RATE, 0.5 * _RATE, 0.1 * _RATE, 0.1 * _RATE, 2.0 * _RATE]

    pulled = _after(build, start, grads, _DECAY, rates)
    return any(
        torch.allclose(pulled, _after(build, start, grads, _DECAY, rates, when), rtol=0.0, atol=1e-7)
        for when in ("before", "after", "beside")
    )


def _acts_in(build: Build) -> dict[str, bool]:
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        ones = torch.ones(2, 2, dtype=dtype)
        with contextlib.suppress(Exception):
            after = _after(build, ones, [torch.zeros_like(ones)], 0.01, [1e-3])
            if bool(after.isfinite().all()):
                found[str(dtype).removeprefix("torch.")] = not torch.equal(after, ones)
    return found
