"""How a prior comes to belong to a parameter: its name, its shape, its shard, and the others that it is joined with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self, cast

import torch
from torch import Tensor

from bayesreg._sharding import is_sharded, shard_like
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.priors.holder import Holder
from bayesreg.priors.joint import Joint
from bayesreg.priors.traits import Traits

if TYPE_CHECKING:
    from bayesreg.priors.base import Prior

__all__ = ["Bindable"]


class Bindable(Holder):
    """What a prior knows of the parameters that it is for; the part of `Prior` that has no density."""

    #: Abilities; an instance may narrow them.
    traits: Traits
    #: The density over several parameters that this is a part of, once a `ModelPrior` has put the parts together.
    joint: Joint | None = None
    #: The names of those parameters.
    joins: tuple[str, ...] | None = None
    #: Which of them this is the part of.
    part_name: str | None = None

    @property
    def joins_parameters(self) -> bool:
        """Whether it is a density over several named parameters."""
        return self.joins is not None

    @property
    def family(self) -> str:
        """The name of the family."""
        return type(self).__name__

    def bound_to(self, name: str, parameter: Tensor) -> Prior:
        """Return the prior for one named parameter: itself, unless it is centred on named references.

        Args:
            name: The parameter's name in the model.
            parameter: The parameter.

        Returns:
            A prior whose hyper-parameters broadcast to the parameter's shape.

        Raises:
            InvalidArgumentError: If a hyper-parameter has another shape.
        """
        self.check_shape(parameter.shape, f"parameter {name!r}")
        return cast("Prior", self)

    def localized(self, parameter: Tensor) -> Prior:
        """Return the prior of this process's shard of a sharded parameter: itself, with tensors cut alike.

        Args:
            parameter: The parameter; for one that is not sharded the prior itself comes back.

        Returns:
            A prior for `parameter.to_local()`.

        Raises:
            UnsupportedError: If the density does not fall apart into elements.
        """
        if not is_sharded(parameter):
            return cast("Prior", self)
        if not self.traits.elementwise and not self._whole_in_shards(parameter):
            raise UnsupportedError(
                f"{self.family}: the parameter is sharded over processes and this prior joins its elements; keep the "
                f"parameter whole on each process, or use a prior on single elements."
            )
        tensors = {
            name: held
            for name, held in self._buffers.items()
            if held is not None and held.ndim and name not in self._not_shaped
        }
        if not tensors:
            return cast("Prior", self)
        part = copy.copy(self)
        part._buffers = dict(self._buffers)
        for name, held in tensors.items():
            part._buffers[name] = shard_like(held.detach(), parameter)
        return cast("Prior", part)

    def _whole_in_shards(self, parameter: Tensor) -> bool:
        """Return whether what the density joins lies in one shard of the parameter."""
        return False

    def check_shape(self, shape: Sequence[int], what: str = "value") -> None:
        """Raise unless every hyper-parameter broadcasts to `shape`.

        Args:
            shape: Shape of the parameter.
            what: How the message calls it.

        Raises:
            InvalidArgumentError: If one does not.
        """
        for name, hyper in self._tensors().items():
            if name in self._not_shaped:
                continue
            try:
                fits = torch.broadcast_shapes(hyper.shape, shape) == torch.Size(shape)
            except RuntimeError:
                fits = False
            if not fits:
                raise InvalidArgumentError(
                    f"{self.family} {name}: expected a shape that broadcasts to {what} of shape {tuple(shape)}, "
                    f"got {tuple(hyper.shape)}."
                )

    def joined(self) -> Joint:
        """Return the joint density of the parts that this is one of.

        Returns:
            A new one.

        Raises:
            UnsupportedError: If the family has no parts.
        """
        raise UnsupportedError(f"{self.family} is a prior over single parameters.")

    def restricted_to(self, names: Sequence[str]) -> Self:
        """Return this part of a joint density where that is over these parameters only, the others integrated out.

        Args:
            names: The parameters that are left, by their names in the model.

        Returns:
            The part.

        Raises:
            UnsupportedError: If the density over fewer parameters is not of the same form.
        """
        if self.joins is not None and len(names) != len(self.joins):
            raise UnsupportedError(
                f"{self.family} joins {' and '.join(self.joins[:4])}, of which only {', '.join(names)} would be left."
            )
        return self._joining(names)

    def _joining(self, names: Sequence[str]) -> Self:
        part = copy.copy(self)
        part._buffers = dict(self._buffers)
        part.joins = tuple(names)
        return part

    def hyper_shape(self) -> torch.Size:
        """Return the shape that the hyper-parameters have together; () where all are numbers."""
        shapes = [held.shape for name, held in self._tensors().items() if name not in self._not_shaped]
        return torch.Size(torch.broadcast_shapes(*shapes))
