"""Choosing a strength exactly: models that are linear in their weights, with Gaussian noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from bayesreg.likelihoods import Gaussian
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.times import each_stretched
from bayesreg.strength.choice import OwnScale, Step
from bayesreg.strength.groups import Group
from bayesreg.strength.linear.design import design_of
from bayesreg.strength.linear.minimum import crossing, lowest
from bayesreg.strength.linear.several import best_ratios, rescaled
from bayesreg.strength.linear.spectrum import Spectrum
from bayesreg.strength.route import NAMES
from bayesreg.strength.setting import Found, Setting
from bayesreg.strength.signals import several

__all__ = ["by_evidence"]

# ln λ in steps of a quarter of a decade: from where the prior no longer acts to where nothing else does.
_DECADE = math.log(10.0)
_STEP, _BELOW, _ABOVE = 0.125 * _DECADE, 88, 48
_SHOWN = 2.5 * _DECADE
_WITHIN = 2.0
_DECIDES, _LEVERAGE, _FEW = 2.0, 0.99, 20


@dataclass(frozen=True)
class _Criterion:
    """What is minimised over places, log λ: a score and what is believed of the scale."""

    setting: Setting
    spectrum: Spectrum
    name: str
    noise: float | None

    def score(self, place: Tensor) -> Tensor:
        value: Tensor = getattr(self.spectrum, self.name)(place, self.noise)
        return value

    def variance(self, place: Tensor) -> Tensor:
        """Return the variance of the noise: as known, or what goes with the criterion."""
        if self.noise is not None:
            return torch.full_like(place, self.noise)
        if self.name == "evidence":
            return self.spectrum.square(place) / (self.spectrum.degrees * self.spectrum.columns)
        return self.spectrum.left_out(place).square().mean((-2, -1))

    def log_scale(self, place: Tensor) -> Tensor:
        return 0.5 * (self.variance(place).log() - place)

    def value(self, place: Tensor) -> Tensor:
        score = self.score(place)
        return score if self.setting.hyperprior is None else score + self.setting.hyper_of(self.log_scale(place))


def by_evidence(setting: Setting, name: str) -> Found:
    """Decompose once, and take the strength at which a criterion is lowest.

    Args:
        setting: What the choice is for; its model is at the MAP afterwards.
        name: "evidence", "loo" or "gcv".

    Returns:
        What was found. Noise that is learned has the mean square of leave-one-out.
    """
    design = design_of(setting.model, setting.prior, setting.inputs, setting.targets, by_weight=setting.each)
    spectrum = Spectrum(design)
    criterion = _Criterion(setting, spectrum, name, _known_noise(setting))
    left_out = _Criterion(setting, spectrum, "loo", criterion.noise)
    top = math.log(float(spectrum.squares.max())) if len(spectrum.squares) else 0.0
    grid = torch.tensor([top + _STEP * step for step in range(-_BELOW, _ABOVE + 1)], dtype=torch.float64)
    at, values, inside = lowest(criterion.value, grid, spectrum.many)
    limit = float(criterion.value(at)) + _WITHIN
    ends = [
        None if end is None else float(left_out.log_scale(end).exp())
        for end in (crossing(limit, at, grid, values, way) for way in (1, -1))
    ]
    widths = _Widths.of(criterion, at)
    last, place = (spectrum, at) if widths is None else (widths.spectrum, torch.zeros_like(at))
    last.write(place)
    square = float(_Criterion(setting, last, "loo", criterion.noise).variance(place))
    variance = setting.noise_variance(square, spectrum.rows * spectrum.columns) if setting.learns_noise else square
    std = math.sqrt(variance)
    scale = std / math.exp(0.5 * float(at))
    prior, own = (setting.at(scale), ()) if widths is None else widths.prior(std, scale)
    why = f"The noise has the mean square of leave-one-out, a std of {std:.4g}." if setting.learns_noise else ""
    return Found(
        scale if widths is None else widths.scale(std, scale), prior,
        Gaussian(noise_std=std) if setting.learns_noise else setting.likelihood, (ends[0], ends[1]),
        _steps(left_out, grid, values, float(at)), why, dict(_signals(criterion, at, inside, grid, values)), 0.0, own,
        (last.moved(place, 2.0 * math.log(2.0)) / variance, last.moved(place, -2.0 * math.log(2.0)) / variance),
    )  # fmt: skip


@dataclass(frozen=True)
class _Widths:
    """Scales of groups, or of every weight, at the maximum of the evidence.

    Attributes:
        setting: What the choice is for.
        spectrum: The problem with its columns as wide as they are to be.
        relative: What each column is multiplied by, in units of the noise, by parameter.
    """

    setting: Setting
    spectrum: Spectrum
    relative: dict[str, Tensor]

    @classmethod
    def of(cls, criterion: _Criterion, at: Tensor) -> Self | None:
        """Return the best widths, begun at the common one; None where none were asked for."""
        setting, spectrum = criterion.setting, criterion.spectrum
        design = spectrum.design
        if setting.each:
            index = torch.arange(design.features.shape[1], device=design.features.device)
        elif setting.groups:
            of = {name: k for k, group in enumerate(setting.groups) for name in group.names}
            numbers = [of.get(name, len(setting.groups)) for name, count in design.owners.items() for _ in range(count)]
            index = torch.tensor(numbers, device=design.features.device)
        else:
            return None
        ratios = best_ratios(spectrum, index, float(at), criterion.noise, setting.hyper_of)
        factors = torch.exp(-0.5 * ratios)[index]
        parts = factors.split(list(design.owners.values()))
        return cls(setting, Spectrum(rescaled(design, factors)), dict(zip(design.owners, parts, strict=True)))

    def _of(self, group: Group) -> float:
        return float(self.relative[group.names[0]][0])

    def scale(self, std: float, common: float) -> float:
        """Return the scale of what no group has; the common one where there is none such."""
        taken = {name for group in self.setting.groups for name in group.names}
        rest = [] if self.setting.each else [name for name in self.relative if name not in taken]
        return std * float(self.relative[rest[0]][0]) if rest else common

    def prior(self, std: float, common: float) -> tuple[ModelPrior, tuple[OwnScale, ...]]:
        """Return the prior with these widths, and the scales."""
        setting = self.setting
        if setting.each:
            shapes = {entry.name: entry.parameter.shape for entry, _ in setting.prior.active()}
            scales = {name: (std * part).reshape(shapes[name]) for name, part in self.relative.items()}
            prior = each_stretched(setting.prior, scales, "The width of every weight was chosen by br.choose_strength.")
            return prior, tuple(OwnScale(name, (name,), scale) for name, scale in scales.items())
        found = {group: std * self._of(group) for group in setting.groups}
        own = tuple(OwnScale(group.label, group.names, scale) for group, scale in found.items())
        return setting.at(self.scale(std, common), found), own


def _known_noise(setting: Setting) -> float | None:
    if setting.learns_noise:
        return None
    std = setting.likelihood.gaussian_noise_std
    assert std is not None
    return std**2


def _steps(left_out: _Criterion, grid: Tensor, values: Tensor, at: float) -> list[Step]:
    """Return what there is to show around the lowest place, from the strongest prior."""
    setting, spectrum = left_out.setting, left_out.spectrum
    near = (grid - at).abs() <= _SHOWN
    shown, found = grid[near].flip(0), []
    for part in shown.split(spectrum.many):
        log_scale = left_out.log_scale(part)
        columns = (
            log_scale.exp(), left_out.score(part) / spectrum.examples, spectrum.effective_parameters(part),
            setting.hyper_of(log_scale), -spectrum.evidence(part, left_out.noise),
        )  # fmt: skip
        found += list(zip(*(column.tolist() for column in columns), strict=True))
    return [
        Step(scale, score, hyper, value, effective, None, 0.0, log_evidence)
        for (scale, score, effective, hyper, log_evidence), value in zip(
            found, values[near].flip(0).tolist(), strict=True
        )
    ]


def _signals(
    criterion: _Criterion, at: Tensor, inside: bool, grid: Tensor, values: Tensor
) -> Iterator[tuple[str, str]]:
    spectrum, name = criterion.spectrum, criterion.name
    near = grid[(grid - at).abs() <= 2.0 * _DECADE]
    scores = torch.cat([criterion.score(part) for part in near.split(spectrum.many)])
    spread = float(scores.max() - scores.min())
    if spread < _DECIDES:
        words = f"from a tenth of the scale to ten times it their score differs by {spread:.2g} nats"
        yield "undecided", f"The data do not determine the strength: {words}. The hyperprior decides."
    if not inside:
        weak = float(at) == float(grid[0])
        yield (
            "end",
            (
                f"The {'weakest' if weak else 'strongest'} prior is the best: the data ask for "
                f"{'none at all' if weak else 'nothing but what is flat'}."
            ),
        )
    yield from several(list(zip(criterion.log_scale(grid).exp().tolist(), values.tolist(), strict=True)))
    other = _Criterion(criterion.setting, spectrum, "loo" if name == "evidence" else "evidence", criterion.noise)
    there = grid[int(torch.cat([other.score(part) for part in grid.split(spectrum.many)]).argmin())]
    apart = abs(float(there - at)) / _DECADE
    if apart > 1.0:
        yield (
            "disagree",
            (
                f"The evidence and leave-one-out ask for precisions that are {apart:.1f} decades apart: by "
                f"{NAMES[other.name]} the scale would be {float(other.log_scale(there).exp()):.3g}."
            ),
        )
    leverage = float(spectrum.leverage(at).max())
    if leverage > _LEVERAGE:
        yield "leverage", f"One example decides {leverage:.1%} of its own prediction, which without it extrapolates."
    if spectrum.examples < _FEW:
        yield "few", f"There are {spectrum.examples} examples to decide by; that is not many."
