"""Priors made of priors: how their parts are kept, bound, cut, named and saved."""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from bayesreg._support.sharding import is_sharded
from bayesreg.errors import InvalidArgumentError, UnsupportedError, kind_of
from bayesreg.priors.contract.joint import JointPrior
from bayesreg.priors.contract.prior import Prior
from bayesreg.priors.contract.registry import FAMILIES
from bayesreg.priors.contract.tensors import Hyperparameter

__all__ = ["Composite", "held_by", "options_of", "parts_from"]


class Composite(Prior, ABC):
    """A prior whose density is made of others', its parts.

    Args:
        parts: Two or more priors over the same parameter.

    Raises:
        InvalidArgumentError: If they are not, or one of them joins several parameters.
    """

    #: What the constructor calls them.
    _argument = "parts"

    def __init__(self, parts: Sequence[Prior]) -> None:
        super().__init__()
        joint = [part for part in parts if isinstance(part, JointPrior)] if isinstance(parts, Sequence) else []
        if joint:
            raise InvalidArgumentError(f"{self.family}: {joint[0].family} is a density over several parameters.")
        if not isinstance(parts, Sequence) or len(parts) < 2 or not all(isinstance(part, Prior) for part in parts):
            raise InvalidArgumentError(
                f"{self._argument}: expected a list of two or more priors, such as [br.Laplace(0.1), "
                f"br.Gaussian(1.0)], got {kind_of(parts)}."
            )
        self._parts_of = nn.ModuleList(parts)

    @property
    def parts(self) -> list[Prior]:
        """The priors that it is made of."""
        return [part for part in self._parts_of if isinstance(part, Prior)]

    def _with(self, parts: Sequence[Prior]) -> Self:
        """Return the same composition of other parts."""
        made = copy.copy(self)
        made._modules = {**self._modules, "_parts_of": nn.ModuleList(parts)}
        return made

    def bound_to(self, name: str, parameter: Tensor) -> Self:
        bound = [part for one in self.parts if isinstance(part := one.bound_to(name, parameter), Prior)]
        made = self if all(new is old for new, old in zip(bound, self.parts, strict=True)) else self._with(bound)
        made._check_shape(parameter.shape, f"parameter {name!r}")
        return made

    def _localized(self, parameter: Tensor) -> Self:
        if not is_sharded(parameter):
            return self
        if not self.traits.elementwise:
            raise UnsupportedError(
                f"{self.family}: the parameter is sharded over processes and this prior joins its elements; keep the "
                f"parameter whole on each process, or use a prior on single elements."
            )
        return self._with([part._localized(parameter) for part in self.parts])

    def _check_shape(self, shape: Sequence[int], what: str = "value") -> None:
        """Raise unless every part's hyper-parameters fit; see `Prior`."""
        for part in self.parts:
            part._check_shape(shape, what)

    def _hyper_shape(self) -> torch.Size:
        return torch.Size(torch.broadcast_shapes(*(part._hyper_shape() for part in self.parts)))

    def centre(self) -> Tensor:
        return self.parts[0].centre()

    @property
    def _one_centre(self) -> bool:
        """Whether all parts are about the same point."""
        first, *others = (part.centre() for part in self.parts)
        return all(bool((first.to(other.device) == other).all()) for other in others)

    # -- files -----------------------------------------------------------------------------------------

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return held_by(self.parts)

    def saved_options(self) -> dict[str, Any]:
        return options_of(self.parts)

    def get_extra_state(self) -> dict[str, Any]:
        """Return what the state dict keeps besides the parts' hyper-parameters."""
        return {key: value for key, value in self.saved_options().items() if key != "parts"}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take what `get_extra_state` of another prior returned.

        Args:
            state: That.
        """


def held_by(parts: Sequence[Prior]) -> dict[str, Hyperparameter]:
    """Return the hyper-parameters of some priors, each name after its prior's number."""
    return {
        f"{index}.{name}": value for index, part in enumerate(parts) for name, value in part.hyperparameters().items()
    }


def options_of(parts: Sequence[Prior]) -> dict[str, Any]:
    """Return what a file must keep of some priors besides their hyper-parameters."""
    rows = [
        {"family": part._saved_family().__name__, "options": part.saved_options(), "said": part._said()}
        for part in parts
    ]
    return {"parts": rows}


def parts_from(arguments: Mapping[str, Tensor], options: Mapping[str, Any]) -> list[Prior]:
    """Return the priors that a file describes.

    Args:
        arguments: What `held_by` gave.
        options: What `options_of` gave.

    Returns:
        The priors.
    """
    found: list[Prior] = []
    for index, row in enumerate(options["parts"]):
        own = {
            name.partition(".")[2]: value for name, value in arguments.items() if name.partition(".")[0] == str(index)
        }
        part = FAMILIES[row["family"]].from_saved(own, row["options"])
        assert isinstance(part, Prior)
        found.append(part._say(row["said"]))
    return found
