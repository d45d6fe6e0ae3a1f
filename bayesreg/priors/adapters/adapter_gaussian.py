"""The Gaussian on what a low-rank adapter adds to a weight, instead of on its factors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError, ReferenceMismatchError, UnsupportedError, kind_of
from bayesreg.priors.adapters.adapter_joint import JointAdapter
from bayesreg.priors.adapters.scaling import adapter_place, said_scaling
from bayesreg.priors.contract.belief import Belief
from bayesreg.priors.contract.joint import JointPrior, Part
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, as_given, plain
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.elementwise.gaussian import Gaussian
from bayesreg.priors.located.located import Loc
from bayesreg.references import Reference, load_reference
from bayesreg.selection import ParameterInfo

__all__ = ["AdapterGaussian"]


@register_family
@final
class AdapterGaussian(JointPrior):
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
        >>> torch.allclose(prior.penalty(), 0.5 * (update / 0.5).double().square().sum())
        True

    References:
        Hu et al. (2022), LoRA: Low-Rank Adaptation of Large Language Models, equation 3; Srebro, Rennie and Jaakkola
        (2004), Maximum-Margin Matrix Factorization, lemma 1 (decay of factors and the nuclear norm).
    """

    traits = Traits(proper=False, convex=False, smooth=True, elementwise=False, has_prox=False, gaussian=True)
    # Factors of another rank make an update of the same shape.
    centre_may_differ = True

    def __init__(
        self,
        scale: Hyperparameter | Mapping[str, Hyperparameter],
        factors: Sequence[tuple[str, str]] = (),
        *,
        scaling: float | Mapping[str, float] = 1.0,
        loc: Loc = 0.0,
    ) -> None:
        super().__init__()
        self._pairs: dict[str, tuple[str, str]] = {}
        if isinstance(loc, Mapping):
            try:
                self.reference = loc if isinstance(loc, Reference) else load_reference(loc)
            except ReferenceMismatchError as error:
                raise ReferenceMismatchError(f"AdapterGaussian loc: {error}") from error
        elif bool((torch.as_tensor(checks.finite("loc", loc)) != 0).any()):
            raise InvalidArgumentError(
                f"AdapterGaussian loc: expected 0 or a mapping from the factors' names to tensors, got {loc!r}."
            )
        self._take(factors, scale, scaling)

    def _take(
        self,
        factors: Sequence[tuple[str, str]],
        scale: Hyperparameter | Mapping[str, Hyperparameter],
        scaling: float | Mapping[str, float],
    ) -> None:
        if not isinstance(factors, list | tuple) or not factors:
            raise InvalidArgumentError(
                f"AdapterGaussian factors: expected pairs (left, right) of parameter names, B before A, got "
                f"{kind_of(factors)}; br.transfer.lora_prior(model, scale) finds them."
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

    def bound_to(self, name: str, parameter: Tensor) -> AdapterPart:
        """Return the part of one factor; see `Prior.bound_to`."""
        if name not in self._pairs:
            raise InvalidArgumentError(
                f"AdapterGaussian is over the factors {', '.join(list(self._pairs)[:4])}"
                f"{', ...' if len(self._pairs) > 4 else ''}, and the model's {name} is none of them: name the factors "
                f"as the model does, or give {name} a prior by another rule, before this one."
            )
        left, right = self._pairs[name]
        scale = self._scales[left]
        # A scale of many numbers is held by the left factor's part alone.
        elsewhere = isinstance(scale, Tensor) and scale.ndim > 0 and name != left
        loc = 0.0 if self.reference is None else self.reference[name].to(parameter.device)
        part = AdapterPart((left, right), None if elsewhere else scale, self._scalings[left], loc, name)
        part.source = None if self.reference is None else self.reference.source
        part._check_shape(parameter.shape, f"parameter {name!r}")
        return part

    @classmethod
    def from_saved(cls, arguments: dict[str, Tensor], options: dict[str, Any]) -> AdapterPart:
        held = {name: as_given(value) for name, value in arguments.items()}
        return AdapterPart(options["joins"], held.get("scale"), options["scaling"], held["loc"])

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
        if len(numbers) != 1 or any(isinstance(v, Tensor) for v in self._scales.values()):
            raise UnsupportedError("AdapterGaussian: its updates have several scales, so no one Gaussian.")
        return Gaussian(numbers.pop())

    def times(self, factor: float) -> Self:
        """Return the prior of scale/√factor; see `Prior.times`."""
        scales = {name: held * factor**-0.5 for name, held in self._scales.items()}
        pairs = list(dict.fromkeys(self._pairs.values()))
        return type(self)(scales, pairs, scaling=self._scalings, loc=0.0 if self.reference is None else self.reference)

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return _NO_DECAY

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return _in_words(self._scales.values(), set(self._scalings.values()), self._centre_in_words())

    def _centre_in_words(self) -> str:
        return "centred on no update" if self.reference is None else f"centred on {self.reference.source}"

    def __repr__(self) -> str:
        return f"AdapterGaussian({self.describe()}, {len(self._pairs) // 2} pairs of factors)"


class AdapterPart(Part):
    """One factor's part of the prior on an update.

    Args:
        joins: The names of both factors, left first.
        scale: That of the update; None where the left factor's part holds it.
        scaling: What multiplies the product of the factors.
        loc: The factor of the update at the centre; 0 for none.
        name: The factor's name.
    """

    traits = AdapterGaussian.traits
    # The centre may have another rank; both are checked together.
    _not_shaped = frozenset({"scale", "loc"})
    loc: Tensor

    def __init__(
        self, joins: Sequence[str], scale: Hyperparameter | None, scaling: float, loc: Hyperparameter, name: str = ""
    ) -> None:
        super().__init__(joins, name)
        if scale is not None:
            self._hold("scale", _fixed(scale))
        self._hold("loc", checks.finite("loc", loc))
        self.scaling = _nonzero("scaling", scaling)

    def _saved_family(self) -> type[Belief]:
        return AdapterGaussian

    @classmethod
    def term(cls, parts: Mapping[str, AdapterPart], infos: Mapping[str, ParameterInfo]) -> JointAdapter:
        """Return the density of both factors; see `Part.term`."""
        return JointAdapter(parts, infos)

    def check_place(self, info: ParameterInfo) -> None:
        """Raise if the layer multiplies its adapter's product by another number; see `Part.check_place`."""
        if (at := adapter_place(info)) is None:
            return
        said = said_scaling(at[1], at[2])
        if said is not None and not math.isclose(said, self.scaling, rel_tol=1e-6):
            raise UnsupportedError(
                f"saved for the update {self.scaling:g}·B·A of {info.name}, and its layer now adds {said:g}·B·A "
                f"(another lora_alpha or rank): make the prior anew with br.transfer.lora_prior."
            )

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

    def centre(self) -> Tensor:
        return self.loc.detach()

    def times(self, factor: float) -> Self:
        """Return the part of scale/√factor; see `Prior.times`."""
        scale = self.held_scale()
        wider = None if scale is None else scale * math.pow(factor, -0.5)
        return type(self)(self.joins, wider, self.scaling, self.loc, self.name)._say(self._said())

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        scale = self.held_scale()
        return {**({} if scale is None else {"scale": plain(scale)}), "loc": plain(self.loc)}

    def saved_options(self) -> dict[str, Any]:
        return {**super().saved_options(), "scaling": self.scaling}

    def _near(self, loss_scale: LossScale, shape: Sequence[int] | None) -> str:
        """Return the decay of full fine-tuning under the same prior."""
        scale = self.held_scale()
        if scale is None or scale.ndim:
            return "none"
        return f"none; {loss_scale.value / float(scale) ** 2:.4g} toward the pretrained weights, on the update"

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return _NO_DECAY

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        centred = f"centred on {self.source}" if self.source is not None else "centred on given weights"
        about = centred if bool((self.loc != 0).any()) else "centred on no update"
        return _in_words([self.held_scale()], {self.scaling}, about)

    def __repr__(self) -> str:
        return f"AdapterGaussian({' · '.join(self.joins)}, scaling={self.scaling:g})"


_NO_DECAY = (
    "No weight_decay is equivalent to AdapterGaussian: decay of the factors of an update penalises its nuclear norm, "
    "not its squares. Train it with br.attach or br.MAPTrainer; AdapterGaussian.update().weight_decay(...) is "
    "what full fine-tuning would have."
)


def _in_words(scales: Iterable[Hyperparameter | None], scalings: set[float], centre: str) -> str:
    numbers = {float(s) for s in scales if s is not None and (not isinstance(s, Tensor) or not s.ndim)}
    width = f"std {min(numbers):.4g}" if numbers else "a std for each element"
    if len(numbers) > 1:
        width += f" to {max(numbers):.4g}"
    times = f"{scalings.pop():.4g}·B·A" if len(scalings) == 1 else "scaling·B·A"
    return f"Gaussian on the merged update {times}, {width}, {centre}"


def _fixed(scale: object, name: str = "") -> Hyperparameter:
    if isinstance(scale, nn.Parameter):
        raise InvalidArgumentError("scale: expected fixed numbers, got an nn.Parameter; pass it detached.")
    if isinstance(scale, Tensor) and scale.requires_grad:
        raise InvalidArgumentError("scale: expected fixed numbers, got a tensor that requires a gradient; detach it.")
    checked = checks.positive(f"scale of {name}" if name else "scale", scale)
    return float(checked) if isinstance(checked, Tensor) and not checked.ndim else checked


def _nonzero(name: str, value: object) -> float:
    number = checks.finite(name, value)
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
            f"AdapterGaussian {name}: expected a value for each left factor, got {', '.join(given) or 'none'}: "
            f"not so for {', '.join(odd[:5])}."
        )
    return {left: given[left] for left in lefts}
