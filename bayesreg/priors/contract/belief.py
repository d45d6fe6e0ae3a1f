"""What a rule gives a parameter: everything that can be said of it without a value of the parameter."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from bayesreg._support.calls import answering
from bayesreg._support.plain import alike
from bayesreg._support.sharding import is_sharded, shard_like
from bayesreg.conversion import LossScale, as_loss_scale, variance_to_weight_decay
from bayesreg.errors import InvalidArgumentError, NotEquivalentError, UnsupportedError
from bayesreg.optimizers import OptimizerLike, require_coupled
from bayesreg.priors.contract.holder import Holder
from bayesreg.priors.contract.quadratic import Quadratic
from bayesreg.priors.contract.readings import WeightDecayReadings
from bayesreg.priors.contract.remarks import Remarks
from bayesreg.priors.contract.tensors import Hyperparameter, as_given, as_number, short
from bayesreg.priors.contract.traits import Traits
from bayesreg.references import Reference
from bayesreg.selection import ParameterInfo

__all__ = ["Belief"]


class Belief(Holder):
    """What a `ModelPrior` holds for a parameter: a `Prior`, or one parameter's part of a density over several.

    Scalar hyper-parameters are float64 buffers that stay on the CPU, so neither `.bfloat16()` nor `.to("cuda")`
    changes what the prior says. Tensor ones move with the module and are never narrowed.
    """

    #: Abilities; an instance may narrow them.
    traits: Traits
    #: The named weights that it is centred on, until `bound_to` has looked up the parameter's own.
    reference: Reference | None = None
    #: Whether the named weights may have another shape than the parameter.
    centre_may_differ = False
    #: What it was centred on, in words.
    source: str | None = None
    #: Where its width comes from, in words.
    note: str | None = None

    @property
    def family(self) -> str:
        """The name of the family."""
        return type(self).__name__

    @property
    def parts(self) -> Sequence[Belief]:
        """The priors that it is made of: itself, for all but products, mixtures and the like."""
        return [self]

    # -- what it says ----------------------------------------------------------------------------------

    def quadratic(self) -> Quadratic | None:
        """Return the parabola that −log p is, None where it is none; what weight decay and routes ask.

        Returns:
            Its variance and centre.
        """
        return None

    def centre(self) -> Tensor:
        """Return the point about which the prior is symmetric: a scalar or a tensor; 0 by default."""
        return torch.zeros((), dtype=torch.float64)

    def _mean(self) -> Tensor:
        """Return the mean of an element: the centre, of a symmetric prior."""
        return self.centre()

    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """Return the least and the largest value that a weight may have, None where it may have any."""
        return None

    def groups(self, shape: Sequence[int]) -> list[int] | None:
        """Return the dimensions along which elements vanish together, None where each does apart.

        Args:
            shape: Shape of the parameter.

        Returns:
            The dimensions.
        """
        return None

    @abstractmethod
    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        """Return the variance of one element, or None where it has none (infinite or undefined).

        Args:
            shape: Shape of the parameter; needed only by families whose variance depends on it.

        Returns:
            A float, or a tensor where elements differ.
        """

    @answering
    def weight_decay(
        self, num_data: int | LossScale, optimizer: OptimizerLike | None = None, *, about_loc: bool = False
    ) -> Hyperparameter:
        """Return the `weight_decay` that makes an optimizer mean exactly this prior: s/variance where it is a parabola.

        Args:
            num_data: Size of the training set of a mean loss, or the `LossScale` of another.
            optimizer: The optimizer in use; a coupled one is assumed if None.
            about_loc: Return the λ of the pull (λ/2)‖w − loc‖² toward a centre other than 0, which no optimizer's
                `weight_decay` can express. Default False: such a prior raises.

        Returns:
            The number (or, for a diagonal prior, the tensor of numbers).

        Raises:
            NotEquivalentError: If there is none, as for all but Gaussians and flat priors, if the centre is not 0
                (unless `about_loc`), or the optimizer decouples its decay; the message says why and what to use.

        Example:
            >>> import torch, bayesreg as br
            >>> br.Gaussian(scale=0.5).weight_decay(br.LossScale.mean(1000), torch.optim.SGD)
            0.004
        """
        s = as_loss_scale(num_data)
        parabola = self.quadratic()
        if parabola is None:
            raise NotEquivalentError(self._why_no_decay(s))
        strength = parabola.strength(s)
        if parabola.flat:
            return strength
        if parabola.centre is not None and not about_loc:
            pull = "" if isinstance(strength, Tensor) else f" (here lambda = {strength:.3g})"
            raise NotEquivalentError(
                f"An optimizer's weight_decay pulls toward 0, this prior toward loc{pull}: use br.attach(optimizer, "
                f"prior, num_data=n), or ask for the strength of the pull with about_loc=True."
            )
        if optimizer is None:
            return strength
        require_coupled(optimizer)
        # ASGD's own lambd is part of a pull toward 0.
        variance: Any = parabola.variance
        return strength if parabola.centre is not None else variance_to_weight_decay(variance, s, optimizer=optimizer)

    @answering
    def weight_decay_readings(self, num_data: int | LossScale, at: Tensor | None = None) -> WeightDecayReadings:
        """Return the weight decays that the prior resembles, each by its name; only the exact one has the same MAP.

        Args:
            num_data: Size of the training set of a mean loss, or the `LossScale` of another.
            at: Weights at which to match gradient and curvature. Default: the curvature at the centre, no gradient.

        Returns:
            The readings.

        Raises:
            InvalidArgumentError: If `at` has a shape that does not fit.
        """
        as_loss_scale(num_data)
        return WeightDecayReadings(None, None, None, None)

    def _stiffness(self) -> float:
        """Return the largest precision that its pull has, 0 where that is not known.

        Returns:
            In inverse squared units of the weights.
        """
        parabola = self.quadratic()
        variance = math.inf if parabola is None else parabola.variance
        return 1.0 / float(torch.as_tensor(variance, dtype=torch.float64).min())

    def times(self, factor: float) -> Self | None:
        """Return the prior with −log p, but for its constant, multiplied; None where the family does not offer it.

        Args:
            factor: > 0.

        Returns:
            The prior.

        Raises:
            UnsupportedError: If a hyper-parameter that would change is learned.
        """
        return None

    def stretched(self, factor: float) -> Self | None:
        """Return the prior of deviations from the centre `factor` times as large: what multiplies a prior's width.

        A Gaussian's or Laplace's scale times the factor. A family that is no such family has −log p times 1/factor.

        Args:
            factor: > 0; over 1 is wider, weaker.

        Returns:
            The prior; None where the family offers neither.

        Raises:
            UnsupportedError: If a hyper-parameter that would change is learned.

        Example:
            >>> import bayesreg as br
            >>> br.Laplace(0.1).stretched(2.0)
            Laplace(scale=0.2, loc=0)
        """
        return self.times(factor ** (-2.0 if self.traits.gaussian or self.quadratic() is not None else -1.0))

    def remarks(self, shape: Sequence[int] | None = None, num_data: int | LossScale | None = None) -> Remarks:
        """Return what there is to say of the prior, for tables and errors.

        Args:
            shape: Shape of the parameter, for what depends on it.
            num_data: Size of the training set, or the `LossScale`, for what depends on it.

        Returns:
            The remarks.
        """
        s = None if num_data is None or self.quadratic() is not None else as_loss_scale(num_data)
        return Remarks(
            no_map=self._why_no_map(),
            improper=None if self.traits.proper else self._why_improper(),
            no_decay=None if s is None else self._why_no_decay(s),
            near=None if s is None else self._near(s, shape),
            caution=None if shape is None else self._caution(shape),
        )

    # What `remarks` is made of; families say theirs.

    def _why_no_map(self) -> str | None:
        return None

    def _why_improper(self) -> str:
        return "it has no total mass of 1"

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return f"No weight_decay is equivalent to {self.family}: train it with br.attach or br.MAPTrainer."

    def _near(self, loss_scale: LossScale, shape: Sequence[int] | None) -> str:
        """Return the regularisation constants that come near, by name, after the word "none"."""
        readings = self.weight_decay_readings(loss_scale)
        if readings.curvature_matched:
            return f"none; {readings.curvature_matched:.4g} matches its curvature at the centre"
        found = readings.variance_matched
        if found is None and shape is not None:
            variance = as_number(self.variance(shape))
            found = loss_scale.value / variance if isinstance(variance, float) and variance > 0 else None
        return "none" if found is None else f"none; {found:.4g} matches its variance"

    def _caution(self, shape: Sequence[int]) -> str | None:
        return None

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return repr(self)

    # -- how it comes to a parameter -------------------------------------------------------------------

    def bound_to(self, name: str, parameter: Tensor) -> Belief:
        """Return the prior for one named parameter: itself, unless it is centred on named references.

        Args:
            name: The parameter's name in the model.
            parameter: The parameter.

        Returns:
            A prior whose hyper-parameters broadcast to the parameter's shape.

        Raises:
            InvalidArgumentError: If a hyper-parameter has another shape.
        """
        self._check_shape(parameter.shape, f"parameter {name!r}")
        return self

    def _placed(self, info: ParameterInfo) -> Belief:
        """Return the prior as the module that owns the parameter makes it: itself, if its shape says all."""
        return self

    def _check_shape(self, shape: Sequence[int], what: str = "value") -> None:
        """Raise unless every hyper-parameter broadcasts to `shape`.

        Args:
            shape: Shape of the parameter.
            what: How the message calls it.

        Raises:
            InvalidArgumentError: If one does not.
        """
        for name, hyper in self._tensors().items():
            # Most are one number or the weights' shape; asking torch takes as long as the penalty of a small layer.
            if name in self._not_shaped or not hyper.ndim or hyper.shape == shape:
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

    def _hyper_shape(self) -> torch.Size:
        """Return the shape that the hyper-parameters have together; () where all are numbers."""
        shapes = [held.shape for name, held in self._tensors().items() if name not in self._not_shaped]
        return torch.Size(torch.broadcast_shapes(*shapes))

    def _localized(self, parameter: Tensor) -> Self:
        """Return the prior of this process's shard of a sharded parameter: itself, with tensors cut alike.

        Args:
            parameter: The parameter; for one that is not sharded the prior itself comes back.

        Returns:
            A prior for `parameter.to_local()`.

        Raises:
            UnsupportedError: If the density does not fall apart into elements.
        """
        if not is_sharded(parameter):
            return self
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
            return self
        part = copy.copy(self)
        part._buffers = dict(self._buffers)
        for name, held in tensors.items():
            part._buffers[name] = shard_like(held.detach(), parameter)
        return part

    def _whole_in_shards(self, parameter: Tensor) -> bool:
        """Return whether what the density joins lies in one shard of the parameter."""
        return False

    @answering
    def same_as(self, other: object) -> bool:
        """Return whether another prior is the same density: of this family, with equal hyper-parameters and centre.

        `==` compares identity, as two equal priors in one model are still two.

        Args:
            other: The other prior.

        Returns:
            Whether it is. What they say of where they come from plays no part, nor does a dtype that holds the same
            numbers.

        Example:
            >>> import bayesreg as br
            >>> br.Gaussian(0.5).same_as(br.Gaussian(0.5)), br.Gaussian(0.5) == br.Gaussian(0.5)
            (True, False)
        """
        if self is other:
            return True
        if type(self) is not type(other):
            return False
        assert isinstance(other, Belief)
        beyond, theirs = getattr(self, "beyond", None), getattr(other, "beyond", None)
        return (
            alike(self.hyperparameters(), other.hyperparameters())
            and self.saved_options() == other.saved_options()
            and alike(self.reference, other.reference)
            and alike([beyond], [theirs])
        )

    # -- how it is kept --------------------------------------------------------------------------------

    @abstractmethod
    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """Return the constructor's arguments, detached; what is saved in files."""

    def saved_options(self) -> dict[str, Any]:
        """Return what a file must keep besides the hyper-parameters, ready for JSON."""
        return {}

    @classmethod
    def from_saved(cls, arguments: dict[str, Tensor], options: dict[str, Any]) -> Belief:
        """Rebuild the prior from `hyperparameters()` and `saved_options()`.

        Args:
            arguments: The hyper-parameters as a file holds them; scalars have no dimension.
            options: The options.

        Returns:
            The prior.
        """
        return cls(**{name: as_given(held) for name, held in arguments.items()}, **options)

    def _saved_family(self) -> type[Belief]:
        """Return the class whose `from_saved` rebuilds it."""
        return type(self)

    def _said(self) -> dict[str, str]:
        """Return what it says of where it comes from, for files and copies."""
        return {key: text for key in _SAID if (text := getattr(self, key)) is not None}

    def _say(self, said: Mapping[str, Any]) -> Self:
        """Take what `_said` of another returned."""
        for key in _SAID:
            if said.get(key) is not None:
                setattr(self, key, str(said[key]))
        return self

    def _changed(self, **changed: Any) -> Self:
        """Return the same prior with other arguments."""
        held = {name: as_given(tensor) for name, tensor in self._tensors().items()}
        return type(self)(**{**held, **self.saved_options(), **changed})._say(self._said())

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={short(value)}" for name, value in self.hyperparameters().items())
        return f"{self.family}({inner})"


# What a prior says of where it comes from, in describe().
_SAID = ("source", "note")
