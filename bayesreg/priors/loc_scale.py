"""What the families with a centre and a scale share: validation, named centres, description."""

from __future__ import annotations

import os
from abc import ABC
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from bayesreg import _checks
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.base import Hyperparameter, Prior, _as_given, plain, promoted
from bayesreg.references import Reference, load_reference

__all__ = ["LocScalePrior"]

Loc = Hyperparameter | Mapping[str, Tensor]


class LocScalePrior(Prior, ABC):
    """A prior on independent elements with a centre `loc` and a width `scale`.

    Args:
        scale: Width > 0, in units of the weights: a number, a tensor that broadcasts to the parameter, or an
            `nn.Parameter` when it is learned.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors, which `ModelPrior`
            binds to each parameter. Default 0.
        **shape_parameters: Further hyper-parameters of the family, already checked.

    Raises:
        InvalidArgumentError: If `scale` is not > 0 or `loc` not finite.
    """

    scale: Tensor
    loc: Tensor

    def __init__(self, scale: Hyperparameter, *, loc: Loc = 0.0, **shape_parameters: Hyperparameter) -> None:
        super().__init__()
        self.reference: Reference | None = None
        self.source: str | None = None
        for name, value in shape_parameters.items():
            self._hold(name, value)
        self._hold("scale", _checks.positive("scale", scale))
        if isinstance(loc, Mapping):
            self.reference = loc if isinstance(loc, Reference) else load_reference(loc)
            loc = 0.0
        if isinstance(loc, nn.Parameter):
            raise InvalidArgumentError(
                "loc: expected a number, a tensor or a mapping, got an nn.Parameter; to centre the prior on its values "
                "write loc=parameter.detach()."
            )
        self._hold("loc", _checks.finite("loc", loc))

    @classmethod
    def centered_at(
        cls,
        reference: nn.Module | Mapping[str, Tensor] | str | os.PathLike[str],
        scale: Hyperparameter,
        *,
        extra: Literal["raise", "ignore"] = "raise",
        **shape_parameters: Any,
    ) -> Self:
        """Return the prior centred on named reference weights, for use in a `ModelPrior`.

        The reference is copied, so training the module it came from does not move the centre.

        Args:
            reference: A module, a state dict, or a `.safetensors`, `.pt`, `.pth` or `.th` file (the latter are
                read with `weights_only=True`).
            scale: Width > 0 around the reference.
            extra: What to do with reference tensors that the model has no parameter or buffer for: "raise"
                (default) or "ignore".
            **shape_parameters: Further arguments of the family.

        Returns:
            The prior; each parameter it is given must be in the reference, with the same shape.

        Raises:
            InvalidArgumentError: If `scale` or `extra` is out of range.
            PriorFileError: If the file cannot be read.
            ReferenceMismatchError: If the reference holds no tensors, or non-finite ones.

        Example:
            >>> import torch, bayesreg as br
            >>> pretrained = torch.nn.Linear(3, 2)
            >>> br.Gaussian.centered_at(pretrained, scale=0.05)
            Gaussian(scale=0.05, loc=<reference Linear, 2 tensors>)
        """
        if extra not in ("raise", "ignore"):
            raise InvalidArgumentError(f"extra: expected 'raise' or 'ignore', got {extra!r}.")
        return cls(scale=scale, loc=load_reference(reference, extra=extra), **shape_parameters)

    def bound_to(self, name: str, parameter: Tensor) -> Self:
        """Return the prior for one parameter, its named centre looked up; see `Prior.bound_to`."""
        prior = self
        if self.reference is not None:
            loc = self.reference[name].to(device=parameter.device)
            if not self.traits.smooth:
                # A weight can only sit exactly on a centre that its own dtype can hold.
                loc = loc.to(parameter.dtype)
            others: dict[str, Any] = {key: _as_given(held) for key, held in self._tensors().items() if key != "loc"}
            prior = type(self)(**others)
            # The reference is a copy already: shared, not copied again.
            prior._buffers["loc"] = loc if loc.ndim else loc.to(torch.float64)
            prior.source = self.reference.source
        prior.check_shape(parameter.shape, f"parameter {name!r}")
        return prior

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        held = self._tensors()
        ordered = ["scale", "loc", *(key for key in held if key not in ("scale", "loc"))]
        return {key: plain(held[key]) for key in ordered}

    def _centre_in_words(self) -> str:
        if self.reference is not None:
            return f"centred on {self.reference.source}"
        if self.source is not None:
            return f"centred on {self.source}"
        return "centred on given weights" if self.loc.ndim else f"centred on {float(self.loc):g}"

    @property
    def _centred_on_zero(self) -> bool:
        return self.reference is None and not bool((self.loc != 0).any())

    @property
    def _centred_on_zero_scalar(self) -> bool:
        return self.reference is None and self.loc.ndim == 0 and float(self.loc) == 0.0

    def _shifted(self, value: Tensor) -> Tensor:
        """Return value − loc in float32 or better, refusing shapes that would broadcast the value itself."""
        self._require_bound()
        for name in ("loc", "scale"):
            held = self._buffers.get(name)
            if held is not None and held.ndim and held.device != value.device:
                # The model was moved after the prior was made: follow it, once.
                self._buffers[name] = held.to(value.device)
        shifted = promoted(value) - self.loc
        if shifted.shape != value.shape or (self.scale.ndim and self.scale.shape != value.shape):
            self.check_shape(value.shape)
        return shifted

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
