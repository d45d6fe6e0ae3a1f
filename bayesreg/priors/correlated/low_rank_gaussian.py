"""The Gaussian prior whose covariance is a diagonal plus a few directions, over one parameter or a whole model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast, final

import torch
from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError, ReferenceMismatchError
from bayesreg.priors.contract.joint import JointPrior
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, as_given, promoted
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.correlated import low_rank_algebra as algebra
from bayesreg.priors.correlated.low_rank_parts import LowRankPart, beside, check_factor, follow, in_words
from bayesreg.priors.correlated.multivariate_gaussian import CorrelatedGaussian
from bayesreg.priors.correlated.woodbury import Block, capacitance_root, gradient_
from bayesreg.priors.located.located import Loc
from bayesreg.references import Reference

__all__ = ["JointLowRankGaussian", "LowRankGaussian"]

Named = Mapping[str, Tensor]


@register_family(words=False)
@final
class LowRankGaussian(CorrelatedGaussian):
    r"""Gaussian elements with covariance Σ = diag + factor·factor', by Woodbury's identity.

    ``log p(w) = −½·r'Σ⁻¹r − ½·log det Σ − (d/2)·log 2π`` with r = w − loc. With C = I + factor'·diag⁻¹·factor,
    Σ⁻¹r = diag⁻¹(r − factor·C⁻¹·factor'·diag⁻¹r) and log det Σ = Σ log diag + log det C. C is computed once; a step
    costs two passes over the factor and never flattens the parameters.

    With tensors it is the prior of one parameter. With mappings from parameter names to tensors it joins all of
    them, as a posterior learned on another task does, and a `JointLowRankGaussian` is what comes back: use it in a
    `ModelPrior` whose rule covers exactly those.

    Args:
        diag: > 0, in squared units of the weights: a number or a tensor of the parameter's shape; or a mapping from
            parameter names to such tensors.
        factor: Tensor of the parameter's shape and one dimension more, of size k (the rank); or a mapping.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

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

    def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
        """Return the density over several parameters where they are named."""
        if any(isinstance(one, Mapping) for one in (*arguments[:2], keywords.get("diag"), keywords.get("factor"))):
            return JointLowRankGaussian(*arguments, **keywords)
        return super().__new__(cls)

    def __init__(self, diag: Hyperparameter | Named, factor: Tensor | Named, *, loc: Loc = 0.0) -> None:
        self._prepare = algebra.Prepared()
        rows = checks.finite("factor", factor)
        if not isinstance(rows, Tensor) or rows.ndim < 2 or not rows.numel():
            given = tuple(rows.shape) if isinstance(rows, Tensor) else rows
            raise InvalidArgumentError(
                f"factor: expected a tensor of the parameter's shape and one dimension more, the rank, got {given}."
            )
        checked = checks.positive("diag", diag)
        if isinstance(checked, nn.Parameter) or isinstance(rows, nn.Parameter):
            raise InvalidArgumentError("diag, factor: expected fixed tensors, got an nn.Parameter; pass it detached.")
        super().__init__(loc=loc, diag=checked)
        transposed = promoted(rows.detach()).movedim(-1, 0)
        self.register_buffer("factor", transposed.clone(memory_format=torch.contiguous_format))
        shape = tuple(rows.shape[:-1])
        super()._check_shape(shape, "the factor's parameter")
        for name in ("diag", "loc"):
            held = cast(Tensor, self._buffers[name])
            if held.ndim and tuple(held.shape) != shape:
                self._buffers[name] = held.expand(shape).contiguous()

    @property
    def rank(self) -> int:
        """The number of directions, k."""
        return len(self.factor)

    def bound_to(self, name: str, parameter: Tensor) -> Self:
        """Return the prior of one parameter; see `Prior.bound_to`."""
        if self.reference is None:
            self._check_shape(parameter.shape, f"parameter {name!r}")
            return self
        prior = self.with_loc(beside(self.reference[name], parameter))
        prior.source = self.reference.source
        prior._check_shape(parameter.shape, f"parameter {name!r}")
        return prior

    def _changed(self, **changed: Any) -> Self:
        return super()._changed(**{"factor": self.factor.movedim(0, -1), **changed})

    def block(self) -> Block:
        """Return its tensors."""
        return Block(self.diag, self.factor, self.loc)

    def _root(self) -> Tensor:
        return self._prepare([self.block()])[0]

    # -- the contract ----------------------------------------------------------------------------------

    def _check_shape(self, shape: Sequence[int], what: str = "value") -> None:
        """Raise unless the parameter has the factor's shape; see `Prior`."""
        if "factor" in self._buffers:
            check_factor(self.factor, shape, what)

    def precision_times(self, offset: Tensor) -> Tensor:
        return algebra.precision_times([self.block()], [offset], self._root())[0]

    def penalty(self, value: Tensor) -> Tensor:
        self._require_bound()
        self._check_shape(value.shape)
        self.follow(value.device)
        return algebra.penalty([self.block()], [value], self._root())

    @torch.no_grad()
    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        self._require_bound()
        for grad, value in zip(grads, values, strict=True):
            self._check_shape(value.shape)
            self.follow(value.device)
            gradient_([self.block()], [grad], [value], self._root(), coefficient)

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        self._require_bound()
        self._check_shape(shape)
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
        self._check_shape(value.shape)
        return algebra.curvature(self.block(), value, self._root())

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        common = torch.randn(self.rank, generator=generator, dtype=like.dtype, device=like.device)
        return algebra.draw(self.block(), common, generator)

    def variance(self, shape: Sequence[int] | None = None) -> Tensor | None:
        """Return diag + Σ_k factor_k², in the shape of the parameter; see `Prior.variance`."""
        return (self.diag + self.factor.square().sum(0)).detach()

    def _stiffness(self) -> float:
        """Return the precision off its directions; see `Prior`."""
        return 1.0 / float(self.diag.min())

    def times(self, factor: float) -> Self:
        """Return the Gaussian of covariance Σ/factor; see `Prior.times`."""
        return self.with_powers(factor, diag=-1.0, factor=-0.5)

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return {**super().hyperparameters(), "factor": self.factor.detach().movedim(0, -1)}

    @classmethod
    def from_saved(cls, arguments: dict[str, Tensor], options: dict[str, Any]) -> LowRankGaussian | LowRankPart:
        held: dict[str, Any] = {name: as_given(value) for name, value in arguments.items()}
        own = cls(**held)
        return LowRankPart(options["joins"], own) if "joins" in options else own

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return f"low-rank Gaussian of rank {self.rank}, {self._centre_in_words()}"

    def follow(self, device: torch.device) -> None:
        """Move to where the parameter is, once.

        Args:
            device: That of the parameter.
        """
        follow(self, device)


@final
class JointLowRankGaussian(JointPrior):
    """A low-rank Gaussian over several named parameters; what `LowRankGaussian` of mappings makes.

    Args:
        diag: As in `LowRankGaussian`, by parameter name.
        factor: By the same names, all of one rank.
        loc: The centre: a number, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If a tensor is not finite or shapes do not fit.
        ReferenceMismatchError: If the mappings have different names.

    Example:
        >>> both = {"a": torch.ones(2), "b": torch.ones(3)}
        >>> LowRankGaussian(both, {name: tensor[:, None] for name, tensor in both.items()})
        LowRankGaussian(<2 named tensors>, rank=1)
    """

    traits = Traits(proper=True, convex=True, smooth=True, elementwise=False, has_prox=False, gaussian=True)

    def __init__(self, diag: Hyperparameter | Named, factor: Tensor | Named, *, loc: Loc = 0.0) -> None:
        super().__init__()
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
        # Modules of their own, that belong to whatever they are bound in: not registered here.
        self._alone: dict[str, LowRankGaussian] = {}
        for name in diag:
            centre = loc[name] if isinstance(loc, Mapping) else loc
            try:
                self._alone[name] = LowRankGaussian(diag[name], factor[name], loc=centre)
            except InvalidArgumentError as error:
                raise InvalidArgumentError(f"{name}: {error}") from error
        ranks = {alone.rank for alone in self._alone.values()}
        if len(ranks) > 1:
            raise InvalidArgumentError(f"factor: expected one rank for all parameters, got {sorted(ranks)}.")
        # So that a `ModelPrior` lists what does not fit, as it does for any named weights.
        words = "named tensors" if isinstance(loc, (Mapping, Tensor)) else f"{loc:g}"
        self.reference = Reference.sharing({name: alone.diag for name, alone in self._alone.items()}, words)
        if isinstance(loc, Reference):
            self.reference.source, self.reference.notes = loc.source, loc.notes
            self.reference.ignore_extra, self.reference.module = loc.ignore_extra, loc.module
            self.reference.others = tuple(name for name in loc if name not in self._alone)

    @property
    def family(self) -> str:
        """The name of the family."""
        return LowRankGaussian.__name__

    @property
    def rank(self) -> int:
        """The number of directions, k."""
        return next(iter(self._alone.values())).rank

    def bound_to(self, name: str, parameter: Tensor) -> LowRankPart:
        """Return the part of one parameter; see `Prior.bound_to`."""
        part = LowRankPart(tuple(self._alone), self._alone[name], name)
        for key, tensor in part._buffers.items():
            part._buffers[key] = None if tensor is None else beside(tensor, parameter)
        assert self.reference is not None
        part.source = self.reference.source
        part._check_shape(parameter.shape, f"parameter {name!r}")
        return part

    def marginal(self, names: Sequence[str]) -> JointLowRankGaussian:
        """Return the prior of some of the parameters, the others integrated out.

        Args:
            names: Parameters to keep.

        Returns:
            The prior over those.

        Raises:
            InvalidArgumentError: If it is not over one of these.

        Example:
            >>> both = {"a": torch.ones(2), "b": torch.ones(3)}
            >>> prior = LowRankGaussian(both, {name: tensor[:, None] for name, tensor in both.items()})
            >>> prior.marginal(["b"]).describe()
            'low-rank Gaussian of rank 1 over 1 parameter, centred on 0'
        """
        names = [names] if isinstance(names, str) else list(names)
        unknown = [name for name in names if name not in self._alone]
        if unknown or not names:
            raise InvalidArgumentError(f"marginal: expected some of {', '.join(self._alone)}, got {names}.")
        return self._of({name: self._alone[name] for name in names})

    def times(self, factor: float) -> JointLowRankGaussian:
        """Return the Gaussian of covariance Σ/factor; see `Prior.times`."""
        return self._of({name: alone.times(factor) for name, alone in self._alone.items()})

    def _of(self, alone: Mapping[str, LowRankGaussian]) -> JointLowRankGaussian:
        """Return the density over these parameters, with what is said of the centre."""
        made = JointLowRankGaussian(
            {name: one.diag for name, one in alone.items()},
            {name: one.factor.movedim(0, -1) for name, one in alone.items()},
            loc={name: one.loc for name, one in alone.items()},
        )
        assert made.reference is not None
        assert self.reference is not None
        made.reference.source = self.reference.source
        return made

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            "No weight_decay is equivalent to LowRankGaussian, which joins parameters: train it with br.attach or "
            "br.MAPTrainer."
        )

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        assert self.reference is not None
        return in_words(self.rank, len(self._alone), f"centred on {self.reference.source}")

    def __repr__(self) -> str:
        return f"{self.family}(<{len(self._alone)} named tensors>, rank={self.rank})"
