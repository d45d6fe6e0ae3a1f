"""The Gaussian on what a low-rank adapter adds to a weight, instead of on its factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Self, final

import torch
from torch import Tensor, nn

from bayesreg import _checks
from bayesreg.errors import InvalidArgumentError, UnsupportedError, nearest
from bayesreg.priors.adapter_joint import JointAdapter
from bayesreg.priors.base import Traits
from bayesreg.priors.gaussian import Gaussian
from bayesreg.priors.located import Loc, LocatedPrior
from bayesreg.priors.readings import WeightDecayReadings
from bayesreg.priors.tensors import Hyperparameter
from bayesreg.scale import LossScale

__all__ = ["AdapterGaussian"]


@final
class AdapterGaussian(LocatedPrior):
    r"""Gaussian elements of a merged update, ``−log p = ½·Σ_ij (ΔW_ij − ΔW⁰_ij)²/scale_ij²``, ΔW = scaling·B·A.

    A LoRA adapter turns a pretrained weight W₀ into W₀ + scaling·B·A; this is N(W₀ + ΔW; W₀, scale²), the prior that
    full fine-tuning would have, with the factors as its parameters. With one scale, or one per row or column,
    ‖B·A‖² = tr(B'B·AA') needs r × r matrices and the update is never formed; with one per element it is formed a few
    rows at a time. Weight decay on A and B is another prior: at the best split of a given update between the two it is
    the nuclear norm, a Laplace prior on singular values.

    It is not a density of (B, A), which can grow and shrink against each other for ever: `traits.proper` is False. The
    factors' gradients are scaling²·B·(AA')/scale² and scaling²·(B'B)·A/scale².

    Args:
        scale: Standard deviation > 0 of the update's elements, in units of the weights: a number; a tensor of the
            update's shape (p, q), or (p, 1) or (1, q); or a mapping from left names to such.
        factors: Pairs (left, right) of parameter names, B of shape (p, r) and A of (r, q); convolutions are flattened.
            `br.transfer.lora_prior` finds them in a model.
        scaling: What multiplies B·A in the model, PEFT's `scaling`, α/r: a number, or a mapping from left names.
        loc: Centre: 0 (default, no update), or a mapping from the factors' names to those of the update at the centre.
        joins: The pair that a part of it belongs to; prior files set it.

    Raises:
        InvalidArgumentError: If `scale` is not > 0, `scaling` is 0, a pair is none or a name is in several.

    Example:
        >>> import bayesreg as br
        >>> class LoRA(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.B, self.A = nn.Parameter(torch.ones(5, 2)), nn.Parameter(torch.ones(2, 3))
        >>> model = LoRA()
        >>> prior = br.ModelPrior(model, {"*": AdapterGaussian(0.5, [("B", "A")], scaling=0.1)})
        >>> update = 0.1 * model.B @ model.A
        >>> torch.allclose(prior.penalty(), 0.5 * (update / 0.5).square().sum())
        True

    References:
        Hu et al. (2022), LoRA: Low-Rank Adaptation of Large Language Models, equation 3; Srebro, Rennie and Jaakkola
        (2004), Maximum-Margin Matrix Factorization, lemma 1 (decay of factors and the nuclear norm).
    """

    traits = Traits(proper=False, convex=False, smooth=True, elementwise=False, has_prox=False)
    # The centre may have another rank; both are checked together.
    _not_shaped = frozenset({"scale", "loc"})

    def __init__(
        self,
        scale: Hyperparameter | Mapping[str, Hyperparameter] | None = None,
        factors: Sequence[tuple[str, str]] | None = None,
        *,
        scaling: float | Mapping[str, float] = 1.0,
        loc: Loc = 0.0,
        joins: Sequence[str] | None = None,
    ) -> None:
        self.joins = None if joins is None else tuple(joins)
        self._pairs: dict[str, tuple[str, str]] = {}
        self._scales: Mapping[str, Hyperparameter] = {}
        self._scalings: Mapping[str, float] = {}
        if self.joins is not None:
            # One factor's part. A scale of many numbers is held by the left one alone.
            held = {} if scale is None else {"scale": _fixed(scale)}
            super().__init__(loc=loc, **held)
            self.scaling = _nonzero("scaling", scaling)
            return
        super().__init__(loc=loc)
        if not isinstance(loc, Mapping) and bool((self.loc != 0).any()):
            raise InvalidArgumentError(
                "AdapterGaussian loc: expected 0 or a mapping from the factors' names to tensors."
            )
        self._take(factors, scale, scaling)

    def _take(
        self,
        factors: Sequence[tuple[str, str]] | None,
        scale: Hyperparameter | Mapping[str, Hyperparameter] | None,
        scaling: float | Mapping[str, float],
    ) -> None:
        if not isinstance(factors, list | tuple) or not factors:
            raise InvalidArgumentError(
                "AdapterGaussian factors: expected pairs (left, right) of parameter names, B before A; "
                "br.transfer.lora_prior(model, scale) finds them."
            )
        for pair in factors:
            if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(name, str) for name in pair)):
                raise InvalidArgumentError(
                    f"AdapterGaussian factors: expected pairs (left, right) of names, got {pair!r}."
                )
            for name in pair:
                if name in self._pairs or pair[0] == pair[1]:
                    raise InvalidArgumentError(f"AdapterGaussian factors: {name} is in more than one place.")
                self._pairs[name] = (pair[0], pair[1])
        lefts = list(dict.fromkeys(left for left, _ in self._pairs.values()))
        self._scales = {name: _fixed(held, name) for name, held in _by_left("scale", scale, lefts).items()}
        self._scalings = {
            name: _nonzero(f"scaling of {name}", held) for name, held in _by_left("scaling", scaling, lefts).items()
        }

    # -- parts -----------------------------------------------------------------------------------------

    @property
    def joins_parameters(self) -> bool:
        """Always: it is a density over both factors."""
        return True

    def bound_to(self, name: str, parameter: Tensor) -> Self:
        """Return the part of one factor; see `Prior.bound_to`."""
        if self.joins is not None:
            self.part_name = name
            return self
        if name not in self._pairs:
            raise InvalidArgumentError(
                f"AdapterGaussian is over the factors {', '.join(list(self._pairs)[:4])}"
                f"{', ...' if len(self._pairs) > 4 else ''}, and {name} is none of them{nearest(name, self._pairs)}. "
                f"Give it a prior by another rule, before this one."
            )
        left, right = self._pairs[name]
        scale = self._scales[left]
        is_tensor = isinstance(scale, Tensor) and scale.ndim > 0
        held = None if is_tensor and name != left else scale
        part = type(self)(held, scaling=self._scalings[left], joins=(left, right))
        if self.reference is not None:
            part._buffers["loc"] = self.reference[name].to(parameter.device)
            part.source = self.reference.source
        part.part_name = name
        part.check_shape(parameter.shape, f"parameter {name!r}")
        return part

    def with_loc(self, loc: Loc) -> Self:
        if self.joins is not None:
            raise UnsupportedError("AdapterGaussian of named factors: give the centre when it is made, loc=mapping.")
        pairs = list(dict.fromkeys(self._pairs.values()))
        return type(self)(self._scales, pairs, scaling=self._scalings, loc=loc)

    def joined(self) -> JointAdapter:
        """Return the density of both factors."""
        assert self.joins is not None
        return JointAdapter(self.joins)

    def held_scale(self) -> Tensor | None:
        """Return the scale, None where the other factor's part holds it."""
        return self._buffers.get("scale")

    def follow(self, device: torch.device) -> None:
        """Move to where the factors are, once.

        Args:
            device: Theirs.
        """
        for name, held in self._buffers.items():
            if held is not None and held.ndim and held.device != device:
                self._buffers[name] = held.to(device)

    # -- the contract: of both factors together, so none of it on a single tensor --------------------------------

    def _alone(self) -> NoReturn:
        raise UnsupportedError(
            "AdapterGaussian is a prior on the product of two factors and has no value for a single tensor: use it in "
            "br.ModelPrior(model, ...), or br.transfer.lora_prior, and ask that."
        )

    def penalty(self, value: Tensor) -> Tensor:
        self._alone()

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        return torch.zeros((), dtype=torch.float64)

    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        self._alone()

    def curvature(self, value: Tensor) -> Tensor:
        self._alone()

    def sample(self, shape: Sequence[int] = (), **_: Any) -> Tensor:
        raise UnsupportedError(
            "AdapterGaussian is improper over its factors (they grow and shrink against each other at no cost), so "
            "sampling is undefined; br.Gaussian(scale) is the prior of a whole update."
        )

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        self._alone()

    def variance(self, shape: Sequence[int] | None = None) -> None:
        """Return None: a factor has no variance of its own. See `Prior.variance`."""

    def update(self) -> Gaussian:
        """Return the prior of the merged update's elements, where they have one scale in common.

        Its `weight_decay(num_data)` is that of full fine-tuning under the same prior, toward the pretrained weights.

        Returns:
            The Gaussian.

        Raises:
            UnsupportedError: If there are several scales.

        Example:
            >>> prior = AdapterGaussian(0.02, [("B", "A")], scaling=2.0)
            >>> round(prior.update().weight_decay(1000), 6)
            2.5
        """
        numbers = {v for v in self._scales.values() if not isinstance(v, Tensor)}
        if self.joins is not None and (held := self.held_scale()) is not None and not held.ndim:
            return Gaussian(float(held))
        if len(numbers) != 1 or any(isinstance(v, Tensor) for v in self._scales.values()):
            raise UnsupportedError("AdapterGaussian: its updates have several scales, so no one Gaussian.")
        return Gaussian(numbers.pop())

    def weight_decay_readings(self, loss_scale: LossScale | int, at: Tensor | None = None) -> WeightDecayReadings:
        """Return no readings: no decay of the factors resembles it; see `update` for that of full fine-tuning."""
        return WeightDecayReadings(None, None, None, None)

    def near_in_words(self, loss_scale: LossScale) -> str | None:
        """Return the decay of full fine-tuning under the same prior; see `Prior.near_in_words`."""
        scale = self.held_scale() if self.joins is not None else None
        if scale is None or scale.ndim:
            return None
        return f"none; {loss_scale.value / float(scale) ** 2:.4g} toward the pretrained weights, on the update"

    def shape_fits_centre(self, centre: Sequence[int], parameter: Sequence[int]) -> bool:
        """Return True: factors of another rank make an update of the same shape."""
        return True

    def why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            "No weight_decay is equivalent to AdapterGaussian: decay of the factors of an update penalises its nuclear "
            "norm, not its squares. Train it with br.attach or br.MAPTrainer; prior.update().weight_decay(...) is what "
            "full fine-tuning would have."
        )

    # -- keeping it ------------------------------------------------------------------------------------

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        if self.joins is None:
            raise UnsupportedError("AdapterGaussian: save it in a br.ModelPrior, which knows the factors.")
        return super().hyperparameters()

    def saved_options(self) -> dict[str, Any]:
        return {} if self.joins is None else {"joins": list(self.joins), "scaling": self.scaling}

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        scales = [self.held_scale()] if self.joins is not None else list(self._scales.values())
        numbers = {float(s) for s in scales if s is not None and (not isinstance(s, Tensor) or not s.ndim)}
        width = f"std {min(numbers):.4g}" if numbers else "a std for each element"
        if len(numbers) > 1:
            width += f" to {max(numbers):.4g}"
        factors = {self.scaling} if self.joins is not None else set(self._scalings.values())
        times = f"{factors.pop():.4g}·B·A" if len(factors) == 1 else "scaling·B·A"
        centre = "centred on no update" if self._centred_on_zero else self._centre_in_words()
        return f"Gaussian on the merged update {times}, {width}, {centre}"

    def __repr__(self) -> str:
        if self.joins is not None:
            return f"AdapterGaussian({' · '.join(self.joins)}, scaling={self.scaling:g})"
        return f"AdapterGaussian({self.describe()}, {len(self._pairs) // 2} pairs of factors)"


def _fixed(scale: object, name: str = "") -> Hyperparameter:
    if isinstance(scale, nn.Parameter):
        raise InvalidArgumentError("scale: expected fixed numbers, got an nn.Parameter; pass it detached.")
    if isinstance(scale, Tensor) and scale.requires_grad:
        raise InvalidArgumentError("scale: expected fixed numbers, got a tensor that requires a gradient; detach it.")
    checked = _checks.positive(f"scale of {name}" if name else "scale", scale)
    return float(checked) if isinstance(checked, Tensor) and not checked.ndim else checked


def _nonzero(name: str, value: object) -> float:
    number = _checks.finite(name, value)
    if isinstance(number, Tensor) or number == 0.0:
        raise InvalidArgumentError(f"{name}: expected a number other than 0, got {value!r}.")
    return number


def _by_left(name: str, given: Any, lefts: Sequence[str]) -> dict[str, Any]:
    """Return one value for every pair."""
    if not isinstance(given, Mapping):
        return dict.fromkeys(lefts, given)
    odd = sorted(set(given) ^ set(lefts))
    if odd:
        raise InvalidArgumentError(
            f"AdapterGaussian {name}: expected a value for each left factor, not so for {', '.join(odd[:5])}."
        )
    return {left: given[left] for left in lefts}
