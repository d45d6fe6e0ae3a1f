"""Likelihood and prior over two weights, and the MAP between them."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg._support.optional import require
from bayesreg.conversion import LossScale
from bayesreg.data import TrainingData, as_tensors
from bayesreg.errors import InvalidArgumentError, nearest
from bayesreg.likelihoods import Likelihood
from bayesreg.likelihoods.output import tensor_output
from bayesreg.model_prior import ModelPrior
from bayesreg.plots.canvas import DATA, PRIOR, bare, on
from bayesreg.priors.contract.asking import is_flat

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Element", "plot_contours"]

Element: TypeAlias = tuple[str, int | tuple[int, ...]]

_GRID = 51
_STRENGTHS = tuple(10.0 ** (k / 4.0) for k in range(-8, 9))


class _Plane:
    """NLL and penalty in nats as functions of two weights of a model, everything else held."""

    def __init__(
        self, model: nn.Module, prior: ModelPrior, likelihood: Likelihood, data: tuple[Tensor, Tensor],
        elements: Sequence[Element] | None,
    ) -> None:  # fmt: skip
        self.model, self.prior, self.likelihood, self.data = model, prior, likelihood, data
        by_name = {entry.name: entry.parameter for entry, _ in prior.active()}
        places = [_place(given, by_name) for given in (_two_of(prior) if elements is None else elements)]
        if len(places) != 2 or places[0] == places[1]:
            raise InvalidArgumentError(
                "elements: expected two different ones, such as ('weight', (0, 3)) and ('bias', 0)."
            )
        # Views of single elements, whatever the parameter's layout in memory.
        self.views = [by_name[name].detach()[index] for name, index in places]
        self.names = [_label(name, index) for name, index in places]
        self.centre = [_centre_of(prior, name, index) for name, index in places]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Leave the model as it was found."""
        before = [view.clone() for view in self.views]
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            with torch.no_grad():
                for view, old in zip(self.views, before, strict=True):
                    view.copy_(old)
            for module, training in modes:
                module.training = training

    def __call__(self, a: float, b: float) -> tuple[float, float]:
        """Return NLL and penalty, both summed, in nats."""
        self.views[0].fill_(a)
        self.views[1].fill_(b)
        nll = self.likelihood.nll(tensor_output(self.model, self.data[0]), self.data[1]).sum()
        return float(nll), float(self.prior.penalty())

    def map_at(self, c: float, start: tuple[float, float], step: float) -> tuple[float, float]:
        """Return the MAP at strength c, of 1 · NLL + c · penalty, divided by c if c > 1."""
        return self.minimum(1.0, c, start, step) if c <= 1.0 else self.minimum(1.0 / c, 1.0, start, step)

    def at_centre(self, point: tuple[float, float]) -> tuple[bool, bool]:
        """Return which coordinates are exactly the prior's centre."""
        return point[0] == self.centre[0], point[1] == self.centre[1]

    def minimum(self, weight: float, strength: float, start: tuple[float, float], step: float) -> tuple[float, float]:
        """Return where weight · NLL + strength · penalty is least: nine points that follow their best and then shrink.

        The prior's centre is always among the points tried, each coordinate apart, so that exact zeros are found.

        Returns:
            The point, to a hundred-thousandth of its size.
        """

        def height(point: tuple[float, float]) -> float:
            nll, penalty = self(*point)
            total = weight * nll + strength * penalty
            return total if math.isfinite(total) else math.inf

        best, lowest = start, height(start)
        for _ in range(500):
            a, b = best
            around = [(a + i * step, b + j * step) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
            around += [(self.centre[0], b), (a, self.centre[1])]
            heights = [height(point) for point in around]
            found = int(np.argmin(heights))
            if heights[found] < lowest:
                best, lowest = around[found], heights[found]
            elif step < 1e-5 * max(*map(abs, best), 1e-3):
                break
            else:
                step *= 0.4
        return best


@answering
def plot_contours(
    model: nn.Module,
    prior: ModelPrior,
    likelihood: Likelihood,
    data: TrainingData,
    ax: Axes | None = None,
    *,
    elements: Sequence[Element] | None = None,
    strengths: Sequence[float] | None = None,
) -> Axes:
    """Draw contours of likelihood and prior over two weights, and the MAP moving from one to the other with λ.

    Each dot minimises NLL + c · (−log p) over the two weights for a factor c on the prior, from the maximum of the
    likelihood (c → 0) to the prior's centre (c → ∞). Through the MAP of the prior as it is (c = 1) one contour of each
    is drawn thick: they touch there, since at a MAP the two gradients are opposite. Every other weight is held where it
    is, and the model is left as it was found.

    Args:
        model: The model.
        prior: Its prior.
        likelihood: From `br.likelihoods`.
        data: All inputs and targets.
        ax: Where to draw; a new figure by default.
        elements: Two weights, each a parameter's name and an index into it: `[("weight", (0, 2)), ("weight", (0, 8))]`.
            Default: the two that the prior is on, where there are just two.
        strengths: The factors c, all > 0. Default: 17 from 0.01 to 100.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
        CoverageError: If the prior is over another model.
        InvalidArgumentError: If the elements are not two weights of the model, the likelihood does not depend on
            them, or a factor is not > 0.

    Example:
        >>> import bayesreg as br
        >>> X, y = torch.tensor([[1.0, 0.5], [0.2, 1.0], [1.0, 1.0]]), torch.tensor([[1.0], [0.0], [1.0]])
        >>> model = nn.Linear(2, 1, bias=False)
        >>> prior = br.ModelPrior(model, br.Gaussian(1.0))
        >>> ax = plot_contours(model, prior, br.likelihoods.Gaussian(noise_std=1.0), (X, y))
        >>> ax.get_xlabel()
        'weight[0, 0]'
    """
    require("matplotlib", "viz", "plots")
    from bayesreg.model_prior.coverage import check_prior_of

    check_prior_of(model, prior)
    factors = sorted(
        checks.positive_float("strengths", float(c)) for c in (_STRENGTHS if strengths is None else strengths)
    )
    if not factors:
        raise InvalidArgumentError("strengths: expected at least one factor > 0, got none.")
    plane = _Plane(model, prior, likelihood, as_tensors(model, likelihood, data), elements)
    ax = on(ax, (5.4, 5.4))
    with plane.kept():
        step = 0.1 + max(abs(float(v) - c) for v, c in zip(plane.views, plane.centre, strict=True))
        here = (float(plane.views[0]), float(plane.views[1]))
        solved: dict[float, tuple[float, float]] = {}
        for c in factors:
            here = solved[c] = plane.map_at(c, here, step)
        path = [solved[c] for c in factors]
        turns = _kinks_between(plane, factors, solved, step)
        own = plane.minimum(1.0, 1.0, path[int(np.argmin([abs(math.log(c)) for c in factors]))], step / 4)
        x, y = _box([*turns, own, (plane.centre[0], plane.centre[1])])
        grid = np.array([[plane(a, b) for a in x] for b in y])
        at_own = plane(*own)
    _require_slope(grid[..., 0], plane.names)
    _draw(ax, x, y, grid, at_own)
    ax.plot(*zip(*turns, strict=True), color="black", lw=1.2, zorder=4)
    ax.plot(*zip(*path, strict=True), color="black", ls="", marker="o", ms=4, zorder=4, label="MAP as λ grows")
    ax.plot(*own, marker="*", ms=14, color="black", mec="white", ls="", zorder=5, label="MAP under this prior")
    ax.plot(*plane.centre, marker="x", ms=8, mew=2, color=DATA, ls="", zorder=5, label="centre of the prior")
    for c, point, inner in ((factors[0], path[0], path[1:]), (factors[-1], path[-1], path[-2::-1])):
        side = _side(point, inner)
        ax.annotate(
            _strength_label(prior, c, len(plane.data[1])), point, xytext=(0, 13 * side), textcoords="offset points",
            ha="center", va="center", fontsize=9, zorder=3,
            bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.7},
        )  # fmt: skip
    ax.set(xlabel=plane.names[0], ylabel=plane.names[1], aspect="equal")
    bare(ax)
    ax.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def _kinks_between(
    plane: _Plane, factors: list[float], solved: dict[float, tuple[float, float]], step: float
) -> list[tuple[float, float]]:
    """Return the path through all MAPs, with the points where a coordinate comes to its centre: lines turn there."""
    line = [solved[factors[0]]]
    for weak, strong in itertools.pairwise(factors):
        low, high = (weak, solved[weak]), (strong, solved[strong])
        if plane.at_centre(low[1]) != plane.at_centre(high[1]):
            for _ in range(7):
                middle = math.sqrt(low[0] * high[0])
                found = plane.map_at(middle, low[1], step / 4)
                if plane.at_centre(found) == plane.at_centre(solved[weak]):
                    low = (middle, found)
                else:
                    high = (middle, found)
            line += [low[1], high[1]]
        line.append(solved[strong])
    return line


def _require_slope(nll: np.ndarray, names: Sequence[str]) -> None:
    finite = nll[np.isfinite(nll)]
    if not len(finite) or float(finite.max() - finite.min()) <= 1e-9 * max(1.0, abs(float(finite.min()))):
        raise InvalidArgumentError(
            f"elements: the likelihood does not change with {' or '.join(names)} (an input that is always 0, or a unit "
            f"that nothing reads); name two that matter."
        )


def _side(point: tuple[float, float], inner: list[tuple[float, float]]) -> int:
    """Return 1 for above or −1 for below: the side of the path's end that the path does not come from."""
    other = next((p for p in inner if p != point), point)
    return 1 if point[1] > other[1] else -1


def _draw(ax: Axes, x: np.ndarray, y: np.ndarray, grid: np.ndarray, own: tuple[float, float]) -> None:
    from matplotlib.lines import Line2D

    nll, penalty = grid[..., 0], grid[..., 1]
    for height, at, colour, dashes, name in (
        (nll, own[0], PRIOR, "solid", "likelihood"),
        (penalty, own[1], DATA, "dashed", "prior"),
    ):
        # The contour through the MAP, and others at a few times and a fraction of its height above the lowest.
        low = float(height[np.isfinite(height)].min())
        above = max(at - low, 1e-9)
        high = float(height[np.isfinite(height)].max()) - low
        others = [low + above * 3.0**k for k in range(-3, 8) if k and above * 3.0**k < high]
        ax.contour(x, y, height, levels=others, colors=colour, linestyles=dashes, linewidths=0.7, alpha=0.8)
        ax.contour(x, y, height, levels=[at], colors=colour, linestyles=dashes, linewidths=2.2)
        ax.add_line(Line2D([], [], color=colour, ls=dashes, lw=1.4, label=name))


def _box(points: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return a grid over a square about all points, so that a circle is one."""
    at = np.array(points)
    low, high = at.min(0), at.max(0)
    half = 0.7 * max(float((high - low).max()), 1e-3)
    first, second = (np.linspace(middle - half, middle + half, _GRID) for middle in (low + high) / 2)
    return first, second


def _two_of(prior: ModelPrior) -> list[Element]:
    held = [(entry, p) for entry, p in prior.active() if not is_flat(p)]
    count = sum(entry.parameter.numel() for entry, _ in held)
    if count != 2:
        raise InvalidArgumentError(
            f"elements: the prior is on {count} weights; name two, such as elements=[('{_example(prior)}', 0), "
            f"('{_example(prior)}', 1)]."
        )
    return [
        (entry.name, tuple(int(i) for i in np.unravel_index(k, entry.parameter.shape)))
        for entry, _ in held
        for k in range(entry.parameter.numel())
    ]


def _example(prior: ModelPrior) -> str:
    return next((entry.name for entry, _ in prior.active()), "weight")


def _place(given: Any, by_name: Mapping[str, Tensor]) -> tuple[str, tuple[int, ...]]:
    """Return name and index of an element as it was given."""
    if not isinstance(given, tuple | list) or len(given) != 2 or not isinstance(given[0], str):
        raise InvalidArgumentError(f"elements: expected pairs such as ('weight', (0, 3)), got {given!r}.")
    name, index = given
    if name not in by_name:
        hint = nearest(name, by_name)
        raise InvalidArgumentError(f"elements: expected a trained parameter, got {name!r}{hint}")
    shape = tuple(by_name[name].shape)
    try:
        if not isinstance(index, tuple | list):
            return name, tuple(int(i) for i in np.unravel_index(range(math.prod(shape))[operator.index(index)], shape))
        return name, tuple(range(size)[operator.index(i)] for i, size in zip(index, shape, strict=True))
    except (IndexError, TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"elements: expected an index into {name} of shape {shape}, got {index!r}."
        ) from error


def _centre_of(prior: ModelPrior, name: str, index: tuple[int, ...]) -> float:
    entry, p = next(pair for pair in prior.active() if pair[0].name == name)
    return float(p.centre().double().cpu().broadcast_to(entry.parameter.shape)[index])


def _label(name: str, index: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(map(str, index))}]"


def _strength_label(prior: ModelPrior, factor: float, count: int) -> str:
    """Return λ where one weight decay says it, else the factor on the prior."""
    parabolas = [parabola for _, p in prior.active() if (parabola := p.quadratic()) is not None and not parabola.flat]
    strengths = [parabola.strength(LossScale.mean(count)) for parabola in parabolas]
    decays = {strength for strength in strengths if isinstance(strength, float)}
    if len(decays) != 1:
        return f"{factor:g} × prior"
    decay = factor * decays.pop()
    return f"λ = {decay:.2g}" if decay < 100 else f"λ = {decay:.0f}"
