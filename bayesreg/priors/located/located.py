"""What the families with a centre share: named centres, shapes, description."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError, ReferenceMismatchError, UnsupportedError, nearest
from bayesreg.priors.contract.prior import Prior
from bayesreg.priors.contract.quadratic import Quadratic
from bayesreg.priors.contract.tensors import Hyperparameter, plain, promoted
from bayesreg.priors.located.resizing import check_beyond
from bayesreg.priors.located.resizing import resized as resize
from bayesreg.references import Reference, Rename, Storage, load_reference

__all__ = ["Loc", "LocatedPrior", "about_zero"]

Loc = Hyperparameter | Mapping[str, Tensor]

# Hyper-parameters in powers of the weights' units, and those without.
_WIDTHS = {"scale": 1.0, "scales": 1.0, "slab_scale": 1.0, "gain": 1.0, "rate": -1.0, "l1": -1.0, "l2": -2.0}
_WITHOUT_UNITS = {"loc", "df", "power", "weights", "fan"}


class LocatedPrior(Prior, ABC):
    """A prior about a centre `loc`.

    Args:
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors, which `ModelPrior`
            binds to each parameter.
        **hyperparameters: The other hyper-parameters of the family, already checked; kept under these names, which are
            those of its constructor's arguments.

    Raises:
        InvalidArgumentError: If `loc` is not finite.
    """

    loc: Tensor
    #: Whether elements of an infinite scale are flat; elsewhere such a scale is refused.
    _flat_where_infinite = False

    @property
    def may_end(self) -> bool:
        """Whether the density can be another one where the reference ends."""
        return self.traits.elementwise

    def __init__(self, *, loc: Loc = 0.0, **hyperparameters: Hyperparameter) -> None:
        super().__init__()
        #: What holds where the reference is smaller than the parameter.
        self.beyond: LocatedPrior | None = None
        for name, value in hyperparameters.items():
            # Families of other authors may not have looked.
            self._hold(name, self._checked(name, value))
        scale = self._buffers.get("scale")
        if scale is not None and scale.ndim and bool(torch.isinf(scale).any()):
            self.traits = replace(self.traits, proper=False)
        if isinstance(loc, Mapping):
            try:
                self.reference = loc if isinstance(loc, Reference) else load_reference(loc)
            except ReferenceMismatchError as error:
                raise ReferenceMismatchError(f"loc: {error}") from error
            loc = 0.0
        if isinstance(loc, nn.Parameter):
            raise InvalidArgumentError(
                "loc: expected a number, a tensor or a mapping, got an nn.Parameter; to centre the prior on its values "
                "write loc=parameter.detach()."
            )
        self._hold("loc", checks.finite("loc", loc))
        if isinstance(loc, Tensor) and loc.ndim and loc.is_floating_point() and loc.dtype != self.loc.dtype:
            # A centre may be as large as the model: kept in half precision if given so, which loses nothing.
            self._buffers["loc"] = loc.detach().clone()

    def _checked(self, name: str, value: Hyperparameter) -> Hyperparameter:
        if name != "scale":
            return checks.finite(name, value)
        return (checks.positive_or_infinite if self._flat_where_infinite else checks.positive)(name, value)

    def _why_improper(self) -> str:
        return "elements of infinite scale are flat" if self._flat_where_infinite else super()._why_improper()

    @classmethod
    @answering
    def centered_at(
        cls,
        reference: nn.Module | Mapping[str, Tensor] | str | os.PathLike[str],
        *arguments: Any,
        rename: Rename | None = None,
        extra: Literal["raise", "ignore"] = "raise",
        storage: Storage = "copy",
        resized: LocatedPrior | None = None,
        **keywords: Any,
    ) -> Self:
        """Return the prior centred on named reference weights, for use in a `ModelPrior`.

        The reference is copied, so training the module it came from does not move the centre.

        Args:
            reference: A module, a state dict, a `.safetensors`, `.pt`, `.pth` or `.th` file (the latter are
                read with `weights_only=True`), a Hugging Face directory, or what `load_reference` returned.
            *arguments: Arguments of the family, such as the width `scale` around the reference.
            rename: From names in the reference to names in the model; see `load_reference`.
            extra: What to do with reference tensors that the model has no parameter or buffer for: "raise"
                (default) or "ignore".
            storage: Where the reference is kept: "copy" (default), "memory_map" or "bfloat16"; see `load_reference`.
            resized: For parameters whose shape is not that of the reference (an embedding with more rows): a prior of
                the same family, whose centre is a number, for the elements that the reference does not have. The
                others keep their centre. Default: another shape raises.
            **keywords: Arguments of the family, by name.

        Returns:
            The prior; each parameter it is given must be in the reference, with the same shape or as `resized` says.

        Raises:
            InvalidArgumentError: If an argument is out of range.
            PriorFileError: If the file cannot be read.
            ReferenceMismatchError: If the reference holds no tensors, or non-finite ones.

        Example:
            >>> import torch, bayesreg as br
            >>> pretrained = torch.nn.Linear(3, 2)
            >>> br.Gaussian.centered_at(pretrained, scale=0.05)
            Gaussian(scale=0.05, loc=<reference Linear, 2 tensors>)
        """
        if "loc" in keywords:
            raise InvalidArgumentError("loc: the reference is the centre; leave loc out, or use the constructor.")
        loaded = load_reference(reference, rename=rename, extra=extra, storage=storage)
        prior = cls(*arguments, loc=loaded, **keywords)
        return prior if resized is None else prior.with_resized(resized)

    def with_resized(self, resized: LocatedPrior) -> Self:
        """Return the same prior for parameters larger or smaller than their reference; see `centered_at`.

        Args:
            resized: The prior of the elements that the reference does not have.

        Returns:
            The prior, about the same reference.

        Raises:
            InvalidArgumentError: If `resized` is of another family or has tensors as hyper-parameters.
        """
        if not self.may_end:
            raise InvalidArgumentError(
                f"resized: {self.family} is one density of all elements and cannot end where the reference does."
            )
        check_beyond(self, resized)
        prior = self._changed()
        prior.beyond = resized
        return prior

    def with_loc(self, loc: Loc) -> Self:
        """Return the same prior about another centre.

        Args:
            loc: As in the constructor: a number, a tensor, or a mapping from parameter names to tensors such as a
                `Reference`.

        Returns:
            The prior; learned hyper-parameters are shared.

        Raises:
            InvalidArgumentError: If `loc` is not finite.

        Example:
            >>> import bayesreg as br
            >>> br.Laplace(0.1).with_loc(2.0)
            Laplace(scale=0.1, loc=2)
        """
        prior = self._changed(loc=loc)
        # What was said of the old centre is not true of the new one.
        prior.source = None
        return prior

    def _changed(self, **changed: Any) -> Self:
        about: dict[str, Any] = {} if self.reference is None else {"loc": self.reference}
        made = super()._changed(**{**about, **changed})
        made.beyond = self.beyond
        return made

    def bound_to(self, name: str, parameter: Tensor) -> Self:
        """Return the prior for one parameter, its named centre looked up; see `Prior.bound_to`."""
        prior = self
        if self.reference is not None:
            loc = self.reference[name]
            if not parameter.is_meta:
                loc = loc.to(parameter.device)
            if not self.traits.smooth and torch.promote_types(loc.dtype, parameter.dtype) != parameter.dtype:
                # A weight can only sit exactly on a centre that its own dtype can hold.
                loc = loc.to(parameter.dtype)
            prior, words = self, ""
            if self.beyond is not None and loc.shape != parameter.shape:
                prior, loc, words = resize(self, self.beyond, loc, parameter)
            prior = prior.with_loc(0.0)
            # The reference is a copy already: shared, not copied again.
            prior._buffers["loc"] = loc if loc.ndim else loc.to(torch.float64)
            prior.source = self.reference.source + words
        prior._check_shape(parameter.shape, f"parameter {name!r}")
        return prior

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        held = self._tensors()
        ordered = [*(key for key in held if key != "loc"), "loc"]
        return {key: plain(held[key]) for key in ordered}

    @abstractmethod
    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return draws of w − loc.

        Args:
            like: A tensor of the shape, dtype (float32 or better) and device wanted.
            generator: Source of randomness.

        Returns:
            The draws.
        """

    def _draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.loc.to(like.device) + self.draw_offsets(like, generator)

    def centre(self) -> Tensor:
        return self.loc.detach()

    def _centre_in_words(self) -> str:
        if self.reference is not None:
            return f"centred on {self.reference.source}"
        if self.source is not None:
            return f"centred on {self.source}"
        return "centred on given weights" if self.loc.ndim else f"centred on {float(self.loc.detach()):g}"

    def stretched(self, factor: float) -> Self | None:
        """Return the prior of deviations `factor` times as large; see `Belief.stretched`."""
        held = self.hyperparameters()
        powers = {name: _WIDTHS[name] for name in held if name in _WIDTHS}
        if powers and not held.keys() - powers.keys() - _WITHOUT_UNITS:
            return self.with_powers(factor, **powers)
        return super().stretched(factor)

    def with_powers(self, factor: float, /, **powers: float) -> Self:
        """Return the same prior with hyper-parameters multiplied by powers of a factor; for `times` of a family.

        Args:
            factor: > 0.
            **powers: By the names of the hyper-parameters: a Gaussian's scale goes with −½.

        Returns:
            The prior, about the same centre.

        Raises:
            InvalidArgumentError: If the family has no hyper-parameter of a name.
            UnsupportedError: If one of them is learned.

        Example:
            >>> import bayesreg as br
            >>> br.Laplace(0.1).with_powers(4.0, scale=-1.0)
            Laplace(scale=0.025, loc=0)
        """
        held = self.hyperparameters()
        for name in powers:
            if name not in held:
                raise InvalidArgumentError(
                    f"{self.family}.with_powers: expected hyper-parameters of the family ({', '.join(held)}), got "
                    f"{name!r}{nearest(name, held) or '.'}"
                )
        learned = [name for name in powers if getattr(self, name).requires_grad]
        if learned:
            raise UnsupportedError(f"{self.family} {learned[0]}: it is learned, and no factor rescales it.")
        made = self._changed(**{name: held[name] * math.pow(factor, power) for name, power in powers.items()})
        # What was said of the old width is not true of the new one.
        made.note = None
        made.beyond = None if self.beyond is None else self.beyond.with_powers(factor, **powers)
        return made

    def parabola(self, variance: Tensor) -> Quadratic:
        """Return the parabola of this variance about the centre; for `quadratic` of a family.

        Args:
            variance: > 0, a scalar or one per element.

        Returns:
            The parabola.

        Example:
            >>> import torch, bayesreg as br
            >>> br.Gaussian(0.5, loc=1.0).parabola(torch.tensor(0.25)).centre
            tensor(1., dtype=torch.float64)
        """
        centre = self.reference if self.reference is not None else self.loc.detach()
        return Quadratic(plain(variance), None if self._centred_on_zero else centre, learned=variance.requires_grad)

    @property
    def _centred_on_zero(self) -> bool:
        return self.reference is None and not bool((self.loc != 0).any())

    @property
    def _centred_on_zero_scalar(self) -> bool:
        return self.reference is None and self.loc.ndim == 0 and float(self.loc.detach()) == 0.0

    def _shifted(self, value: Tensor) -> Tensor:
        """Return value − loc in float32 or better, refusing shapes that would broadcast the value itself."""
        self._require_bound()
        shaped = [name for name, held in self._buffers.items() if held is not None and held.ndim]
        for name in shaped:
            held = self._buffers[name]
            if held is not None and held.device != value.device:
                # The model was moved after the prior was made: follow it, once.
                self._buffers[name] = held.to(value.device)
        if shaped or any(True for _ in self.parameters(recurse=False)):
            self._check_shape(value.shape)
        loc = self.loc
        if self.source is not None and value.element_size() < 4:
            # A weight must be able to sit on its reference, also where the model was narrowed after binding: of what
            # is left between them an adaptive optimizer would make whole steps.
            loc = loc.to(value.dtype)
        return promoted(value) - loc

    def _require_bound(self) -> None:
        if self.reference is not None:
            raise InvalidArgumentError(
                f"This {self.family} is centred on named weights and cannot know which one a bare tensor is: use it "
                f"in br.ModelPrior(model, ...), or bind it with prior.bound_to(name, parameter)."
            )

    def __repr__(self) -> str:
        if self.reference is None:
            return super().__repr__()
        words = super().__repr__()
        return words.replace("loc=0", f"loc=<reference {self.reference.source}, {len(self.reference)} tensors>")


def about_zero(prior: Prior) -> tuple[Prior, float]:
    """Return a prior about one point that has the density of the offsets of this one, and that point.

    Args:
        prior: A prior on single elements.

    Returns:
        The prior moved to 0, where it can be moved; else itself, and its centre.
    """
    return (prior.with_loc(0.0), 0.0) if isinstance(prior, LocatedPrior) else (prior, float(prior.centre()))
