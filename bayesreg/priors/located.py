"""What the families with a centre share: named centres, shapes, description."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from bayesreg import _checks
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.base import Prior
from bayesreg.priors.resizing import check_beyond
from bayesreg.priors.resizing import resized as resize
from bayesreg.priors.tensors import Hyperparameter, as_given, plain, promoted, sampling_device, wide_dtype
from bayesreg.references import Reference, Rename, Storage, load_reference

__all__ = ["Loc", "LocatedPrior"]

Loc = Hyperparameter | Mapping[str, Tensor]


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

    def __init__(self, *, loc: Loc = 0.0, **hyperparameters: Hyperparameter) -> None:
        super().__init__()
        self.reference: Reference | None = None
        #: What holds where the reference is smaller than the parameter.
        self.beyond: LocatedPrior | None = None
        self.source: str | None = None
        for name, value in hyperparameters.items():
            # Families of other authors may not have looked.
            self._hold(name, (_checks.positive if name == "scale" else _checks.finite)(name, value))
        if isinstance(loc, Mapping):
            self.reference = loc if isinstance(loc, Reference) else load_reference(loc)
            loc = 0.0
        if isinstance(loc, nn.Parameter):
            raise InvalidArgumentError(
                "loc: expected a number, a tensor or a mapping, got an nn.Parameter; to centre the prior on its values "
                "write loc=parameter.detach()."
            )
        self._hold("loc", _checks.finite("loc", loc))
        if isinstance(loc, Tensor) and loc.ndim and loc.is_floating_point() and loc.dtype != self.loc.dtype:
            # A centre may be as large as the model: kept in half precision if given so, which loses nothing.
            self._buffers["loc"] = loc.detach().clone()

    @classmethod
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
        check_beyond(self, resized)
        prior = self.with_loc(plain(self.loc) if self.reference is None else self.reference)
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
        others: dict[str, Any] = {key: as_given(held) for key, held in self._tensors().items() if key != "loc"}
        prior = type(self)(**others, **self.saved_options(), loc=loc)
        prior.beyond = self.beyond
        return prior

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
        prior.check_shape(parameter.shape, f"parameter {name!r}")
        return prior

    def shape_fits_centre(self, centre: Sequence[int], parameter: Sequence[int]) -> bool:
        """Return whether a reference of this shape can be the centre of a parameter of that shape.

        Args:
            centre: Shape of the reference.
            parameter: Shape of the parameter.

        Returns:
            Whether they are the same, for most families.
        """
        return tuple(centre) == tuple(parameter)

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

    @torch.no_grad()
    def sample(
        self,
        shape: Sequence[int] = (),
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        self._require_bound()
        self.check_shape(shape, "the shape asked for")
        where = sampling_device(generator, device)
        like = torch.empty(tuple(shape), dtype=wide_dtype(dtype), device=where)
        draws = self.loc.to(where) + self.draw_offsets(like, generator)
        return draws.to(dtype or torch.get_default_dtype())

    def centre(self) -> Tensor:
        return self.loc.detach()

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
        shaped = [name for name, held in self._buffers.items() if held is not None and held.ndim]
        for name in shaped:
            held = self._buffers[name]
            if held is not None and held.device != value.device:
                # The model was moved after the prior was made: follow it, once.
                self._buffers[name] = held.to(value.device)
        if shaped or any(True for _ in self.parameters(recurse=False)):
            self.check_shape(value.shape)
        loc = self.loc
        if self.source is not None and not self.traits.smooth and value.element_size() < 4:
            # A weight must be able to sit on its reference, also where the model was narrowed after binding.
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
