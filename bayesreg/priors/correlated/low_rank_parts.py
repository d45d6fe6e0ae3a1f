"""One parameter's part of a low-rank Gaussian over several, and what it shares with that of a single one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from bayesreg._support.calls import answering
from bayesreg.conversion import LossScale, as_loss_scale
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.contract.belief import Belief
from bayesreg.priors.contract.joint import Part
from bayesreg.priors.contract.readings import WeightDecayReadings, over_variance
from bayesreg.priors.contract.registry import FAMILIES
from bayesreg.priors.contract.tensors import Hyperparameter, plain
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.correlated.low_rank_joint import JointLowRank
from bayesreg.priors.correlated.woodbury import Block
from bayesreg.selection import ParameterInfo

__all__ = ["LowRankPart", "beside", "check_factor", "follow", "in_words"]


class LowRankPart(Part):
    """One parameter's part of a low-rank Gaussian over several.

    Args:
        joins: The names of all parameters.
        alone: The Gaussian that this parameter has alone, whose tensors it shares.
        name: The parameter's name.
    """

    traits = Traits(proper=True, convex=True, smooth=True, elementwise=False, has_prox=False, gaussian=True)
    divisible = True
    _not_shaped = frozenset({"factor"})
    diag: Tensor
    factor: Tensor
    loc: Tensor

    def __init__(self, joins: Sequence[str], alone: nn.Module, name: str = "") -> None:
        super().__init__(joins, name)
        for key, tensor in alone._buffers.items():
            self.register_buffer(key, tensor)

    def _saved_family(self) -> type[Belief]:
        return FAMILIES["LowRankGaussian"]

    @classmethod
    def term(cls, parts: Mapping[str, LowRankPart], infos: Mapping[str, ParameterInfo]) -> JointLowRank:
        """Return the density of all parameters together; see `Part.term`."""
        return JointLowRank(parts, infos)

    def restricted_to(self, names: Sequence[str]) -> Self:
        return self._joining(names)

    def _check_shape(self, shape: Sequence[int], what: str = "value") -> None:
        """Raise unless the parameter has the factor's shape; see `Prior`."""
        check_factor(self.factor, shape, what)

    def block(self) -> Block:
        """Return its tensors."""
        return Block(self.diag, self.factor, self.loc)

    def follow(self, device: torch.device) -> None:
        """Move to where the parameter is, once.

        Args:
            device: That of the parameter.
        """
        follow(self, device)

    def centre(self) -> Tensor:
        return self.loc.detach()

    def variance(self, shape: Sequence[int] | None = None) -> Tensor:
        """Return diag + Σ_k factor_k², in the shape of the parameter; see `Prior.variance`."""
        return (self.diag + self.factor.square().sum(0)).detach()

    @answering
    def weight_decay_readings(self, num_data: int | LossScale, at: Tensor | None = None) -> WeightDecayReadings:
        """Return the reading of its variance, the only one it has. See `Prior.weight_decay_readings`."""
        s = as_loss_scale(num_data).value
        return WeightDecayReadings(None, None, None, over_variance(s, self.variance()))

    def _stiffness(self) -> float:
        """Return the precision off its directions; see `Prior`."""
        return 1.0 / float(self.diag.min())

    def times(self, factor: float) -> Self:
        """Return the part of the Gaussian of covariance Σ/factor; see `Prior.times`."""
        part = self._joining(self.joins)
        part._buffers["diag"], part._buffers["factor"] = self.diag / factor, self.factor * factor**-0.5
        return part

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return {"diag": plain(self.diag), "loc": plain(self.loc), "factor": self.factor.detach().movedim(0, -1)}

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        about = self.source or ("given weights" if self.loc.ndim else f"{float(self.loc.detach()):g}")
        return in_words(len(self.factor), len(self.joins), f"centred on {about}")


def in_words(rank: int, count: int, centred: str) -> str:
    """Return the prior in one line of plain words."""
    return f"low-rank Gaussian of rank {rank} over {count} parameter{'s' if count > 1 else ''}, {centred}"


def check_factor(factor: Tensor, shape: Sequence[int], what: str) -> None:
    """Raise unless a parameter has the factor's shape."""
    rank, own = len(factor), tuple(factor.shape[1:])
    if tuple(shape) != own:
        raise InvalidArgumentError(
            f"LowRankGaussian factor: expected shape {(*shape, rank)} (that of {what} and the rank), got "
            f"{(*own, rank)}."
        )


def beside(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return a tensor on the device of a parameter, unless that has no memory yet."""
    return tensor if parameter.is_meta else tensor.to(parameter.device)


def follow(prior: Belief, device: torch.device) -> None:
    """Move the tensors of a prior to where its parameter is, once."""
    for name, held in prior._buffers.items():
        if held is not None and held.ndim and held.device != device:
            prior._buffers[name] = held.to(device)
