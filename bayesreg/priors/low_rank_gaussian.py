"""The Gaussian prior whose covariance is a diagonal plus a few directions, over one parameter or a whole model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast, final

import torch
from torch import Tensor, nn

from bayesreg import _checks
from bayesreg.errors import InvalidArgumentError, ReferenceMismatchError, UnsupportedError
from bayesreg.priors import low_rank_algebra as algebra
from bayesreg.priors.base import Traits
from bayesreg.priors.located import Loc
from bayesreg.priors.low_rank_joint import JointLowRank
from bayesreg.priors.multivariate_gaussian import CorrelatedGaussian
from bayesreg.priors.readings import WeightDecayReadings
from bayesreg.priors.tensors import Hyperparameter, promoted
from bayesreg.priors.woodbury import Block, capacitance_root, gradient_
from bayesreg.references import Reference
from bayesreg.scale import LossScale, as_loss_scale

__all__ = ["LowRankGaussian"]

Named = Mapping[str, Tensor]


@final
class LowRankGaussian(CorrelatedGaussian):
    r"""Gaussian elements with covariance Σ = diag + factor·factor', by Woodbury's identity.

    ``log p(w) = −½·r'Σ⁻¹r − ½·log det Σ − (d/2)·log 2π`` with r = w − loc. With C = I + factor'·diag⁻¹·factor,
    Σ⁻¹r = diag⁻¹(r − factor·C⁻¹·factor'·diag⁻¹r) and log det Σ = Σ log diag + log det C. C is computed once; a step
    costs two passes over the factor and never flattens the parameters.

    With tensors it is the prior of one parameter. With mappings from parameter names to tensors it joins all of
    them, as a posterior learned on another task does: use it in a `ModelPrior` whose rule covers exactly those.

    Args:
        diag: > 0, in squared units of the weights: a number or a tensor of the parameter's shape; or a mapping from
            parameter names to such tensors.
        factor: Tensor of the parameter's shape and one dimension more, of size k (the rank); or a mapping.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.
        joins: Names of the parameters that this part of a joint prior goes with; prior files set it.

    Raises:
        InvalidArgumentError: If `diag` is not > 0, a tensor is not finite, or shapes do not fit.
        ReferenceMismatchError: If the mappings have different names.

    Example:
        >>> factor = torch.tensor([[1.0], [1.0], [0.0]])
        >>> prior = LowRankGaussian(diag=torch.full((3,), 0.1), factor=factor)
        >>> together, apart = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0, -1.0, 0.0])
        >>> [round(prior.penalty(w).item(), 3) for w in (together, apart)]
        [0.476, 10.0]

    References:
        Shwartz-Ziv et al. (2022), Pre-Train Your Loss: Easy Bayesian Transfer Learning with Informative Priors,
        section 3.
    """

    _not_shaped = frozenset({"factor"})
    diag: Tensor
    #: Transposed, (k, *shape): a pass then reads memory in order.
    factor: Tensor

    def __init__(
        self,
        diag: Hyperparameter | Named,
        factor: Tensor | Named,
        *,
        loc: Loc = 0.0,
        joins: Sequence[str] | None = None,
    ) -> None:
        self._parts: dict[str, LowRankGaussian] | None = None
        self._prepare = algebra.Prepared()
        self.joins = None if joins is None else tuple(joins)
        if isinstance(diag, Mapping) or isinstance(factor, Mapping):
            super().__init__()
            self._take_named(diag, factor, loc)
            return
        rows = _checks.finite("factor", factor)
        if not isinstance(rows, Tensor) or rows.ndim < 2 or not rows.numel():
            given = tuple(rows.shape) if isinstance(rows, Tensor) else rows
            raise InvalidArgumentError(
                f"factor: expected a tensor of the parameter's shape and one dimension more, the rank, got {given}."
            )
        checked = _checks.positive("diag", diag)
        if isinstance(checked, nn.Parameter) or isinstance(rows, nn.Parameter):
            raise InvalidArgumentError("diag, factor: expected fixed tensors, got an nn.Parameter; pass it detached.")
        super().__init__(loc=loc, diag=checked)
        transposed = promoted(rows.detach()).movedim(-1, 0)
        self.register_buffer("factor", transposed.clone(memory_format=torch.contiguous_format))
        shape = tuple(rows.shape[:-1])
        super().check_shape(shape, "the factor's parameter")
        for name in ("diag", "loc"):
            held = cast(Tensor, self._buffers[name])
            if held.ndim and tuple(held.shape) != shape:
                self._buffers[name] = held.expand(shape).contiguous()

    def _take_named(self, diag: Hyperparameter | Named, factor: Tensor | Named, loc: Loc) -> None:
        if not isinstance(diag, Mapping) or not isinstance(factor, Mapping):
            raise InvalidArgumentError(
                "diag, factor: expected two tensors or two mappings from parameter names to tensors, got one of each."
            )
        if not diag:
            raise InvalidArgumentError("diag, factor: expected mappings with at least one parameter, got empty ones.")
        odd = sorted(set(diag) ^ set(factor))
        lacking = [name for name in diag if isinstance(loc, Mapping) and name not in loc]
        if odd or lacking:
            raise ReferenceMismatchError(
                f"LowRankGaussian: expected diag, factor and loc for the same parameters, got no pair for "
                f"{', '.join([*odd, *lacking][:5])}."
            )
        names = tuple(diag)
        self._parts = {}
        for name in names:
            part = loc[name] if isinstance(loc, Mapping) else loc
            try:
                self._parts[name] = LowRankGaussian(diag[name], factor[name], loc=part, joins=names)
            except InvalidArgumentError as error:
                raise InvalidArgumentError(f"{name}: {error}") from error
        ranks = {len(part.factor) for part in self._parts.values()}
        if len(ranks) > 1:
            raise InvalidArgumentError(f"factor: expected one rank for all parameters, got {sorted(ranks)}.")
        # The parts are modules that belong to whatever they are bound in; of this one, only the names are known.
        words = "named tensors" if isinstance(loc, (Mapping, Tensor)) else f"{loc:g}"
        self.reference = Reference.sharing({name: part.diag for name, part in self._parts.items()}, words)
        if isinstance(loc, Reference):
            self.reference.source, self.reference.notes = loc.source, loc.notes
            self.reference.ignore_extra, self.reference.module = loc.ignore_extra, loc.module
            self.reference.others = tuple(name for name in loc if name not in self._parts)

    # -- parts -----------------------------------------------------------------------------------------

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        """What it can do: a part of a joint density has no prox of its own."""
        return Traits(proper=True, convex=True, smooth=True, elementwise=False, has_prox=self.joins is None)

    @property
    def joins_parameters(self) -> bool:
        """Whether it was made from mappings, or is a part of one that was."""
        return self.joins is not None or self._parts is not None

    @property
    def rank(self) -> int:
        """The number of directions, k."""
        return len(next(iter(self._parts.values())).factor if self._parts else self.factor)

    def bound_to(self, name: str, parameter: Tensor) -> Self:
        """Return the part of one parameter; see `Prior.bound_to`."""
        prior: Self = self
        if self._parts is not None:
            held = self._parts[name]
            prior = type(self)(1.0, torch.zeros(1, 1), joins=held.joins)
            for key, tensor in held._buffers.items():
                prior._buffers[key] = None if tensor is None else _beside(tensor, parameter)
            assert self.reference is not None
            prior.source = self.reference.source
        elif self.reference is not None:
            prior = self.with_loc(_beside(self.reference[name], parameter))
            prior.source = self.reference.source
        prior.part_name = name
        prior.check_shape(parameter.shape, f"parameter {name!r}")
        return prior

    def with_loc(self, loc: Loc) -> Self:
        if self._parts is not None or self.joins is not None:
            raise UnsupportedError("LowRankGaussian of named parameters: give the centre when it is made, loc=mapping.")
        return type(self)(self.diag, self.factor.movedim(0, -1), loc=loc)

    def marginal(self, names: Sequence[str]) -> LowRankGaussian:
        """Return the prior of some of the parameters, the others integrated out.

        Args:
            names: Parameters to keep.

        Returns:
            The prior over those.

        Raises:
            InvalidArgumentError: If it is not a prior over named parameters, or not over one of these.

        Example:
            >>> both = {"a": torch.ones(2), "b": torch.ones(3)}
            >>> prior = LowRankGaussian(both, {name: tensor[:, None] for name, tensor in both.items()})
            >>> prior.marginal(["b"]).describe()
            'low-rank Gaussian of rank 1 over 1 parameter, centred on 0'
        """
        if self._parts is None:
            raise InvalidArgumentError("marginal: expected a prior made from mappings, this one is of one parameter.")
        names = [names] if isinstance(names, str) else list(names)
        unknown = [name for name in names if name not in self._parts]
        if unknown or not names:
            raise InvalidArgumentError(f"marginal: expected some of {', '.join(self._parts)}, got {names}.")
        parts = {name: self._parts[name] for name in names}
        made = LowRankGaussian(
            {name: part.diag for name, part in parts.items()},
            {name: part.factor.movedim(0, -1) for name, part in parts.items()},
            loc={name: part.loc for name, part in parts.items()},
        )
        assert made.reference is not None
        assert self.reference is not None
        made.reference.source = self.reference.source
        return made

    def restricted_to(self, names: Sequence[str]) -> Self:
        return self._joining(names)

    def joined(self) -> JointLowRank:
        """Return the joint density that this part and others will share."""
        assert self.joins is not None
        return JointLowRank(self.joins)

    def block(self) -> Block:
        """Return its tensors."""
        return Block(self.diag, self.factor, self.loc)

    def _require_bound(self) -> None:
        if self._parts is None:
            super()._require_bound()
        if self.joins is not None or self._parts is not None:
            names = self.joins or tuple(self._parts or ())
            raise UnsupportedError(
                f"{self.family}: a density over {len(names)} parameters together has none for a single tensor: use it "
                f"in br.ModelPrior(model, ...) and ask that, or take prior.marginal([name])."
            )

    def _root(self) -> Tensor:
        return self._prepare([self.block()])[0]

    # -- the contract ----------------------------------------------------------------------------------

    def check_shape(self, shape: Sequence[int], what: str = "value") -> None:
        """Raise unless the parameter has the factor's shape; see `Prior.check_shape`."""
        if "factor" in self._buffers and tuple(shape) != tuple(self.factor.shape[1:]):
            raise InvalidArgumentError(
                f"{self.family} factor: expected shape {(*shape, self.rank)} (that of {what} and the rank), got "
                f"{(*self.factor.shape[1:], self.rank)}."
            )

    def precision_times(self, offset: Tensor) -> Tensor:
        return algebra.precision_times([self.block()], [offset], self._root())[0]

    def penalty(self, value: Tensor) -> Tensor:
        self._require_bound()
        self.check_shape(value.shape)
        self.follow(value.device)
        return algebra.penalty([self.block()], [value], self._root())

    @torch.no_grad()
    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        self._require_bound()
        for grad, value in zip(grads, values, strict=True):
            self.check_shape(value.shape)
            self.follow(value.device)
            gradient_([self.block()], [grad], [value], self._root(), coefficient)

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        self._require_bound()
        self.check_shape(shape)
        return algebra.log_constant([self.block()], self._prepare([self.block()])[1])

    def prox(self, value: Tensor, step: float | Tensor) -> Tensor:
        offset = self._shifted(value)
        # v − H(D + H + WW')⁻¹v, with the steps H on a diagonal.
        steps = torch.as_tensor(step, dtype=offset.dtype, device=offset.device).expand_as(offset)
        widened = Block(self.diag.to(offset) + steps, self.factor.to(offset), torch.zeros((), dtype=torch.float64))
        image = torch.zeros_like(offset)
        gradient_([widened], [image], [offset.detach()], capacitance_root([widened]), 1.0)
        return (self.loc + offset - steps * image).to(value.dtype)

    def curvature(self, value: Tensor) -> Tensor:
        """Return the diagonal of Σ⁻¹; see `Prior.curvature`."""
        self._require_bound()
        self.check_shape(value.shape)
        return algebra.curvature(self.block(), value, self._root())

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        common = torch.randn(self.rank, generator=generator, dtype=like.dtype, device=like.device)
        return algebra.draw(self.block(), common, generator)

    def variance(self, shape: Sequence[int] | None = None) -> Tensor | None:
        """Return diag + Σ_k factor_k², in the shape of the parameter; None unbound. See `Prior.variance`."""
        return None if self._parts is not None else (self.diag + self.factor.square().sum(0)).detach()

    def weight_decay_readings(self, loss_scale: LossScale | int, at: Tensor | None = None) -> WeightDecayReadings:
        """Return the readings; a part of a joint density has only that of its variance. See `Prior`."""
        if self.joins is None and self._parts is None:
            return super().weight_decay_readings(loss_scale, at)
        variance = self.variance()
        matched = None if variance is None else as_loss_scale(loss_scale).value / float(variance.mean())
        return WeightDecayReadings(None, None, None, matched)

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        if self._parts is not None:
            raise UnsupportedError(f"{self.family}: save it in a br.ModelPrior, which knows the parameters it joins.")
        held = super().hyperparameters()
        return {**held, "factor": self.factor.detach().movedim(0, -1)}

    def saved_options(self) -> dict[str, Any]:
        return {} if self.joins is None else {"joins": list(self.joins)}

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        names = self.joins or tuple(self._parts or ())
        over = f" over {len(names)} parameter{'s' if len(names) > 1 else ''}" if names else ""
        return f"low-rank Gaussian of rank {self.rank}{over}, {self._centre_in_words()}"

    def __repr__(self) -> str:
        if self._parts is not None:
            return f"{self.family}(<{len(self._parts)} named tensors>, rank={self.rank})"
        return super().__repr__()

    def follow(self, device: torch.device) -> None:
        """Move to where the parameter is, once.

        Args:
            device: That of the parameter.
        """
        for name, held in self._buffers.items():
            if held is not None and held.ndim and held.device != device:
                self._buffers[name] = held.to(device)


def _beside(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return a tensor on the device of a parameter, unless that has no memory yet."""
    return tensor if parameter.is_meta else tensor.to(parameter.device)
