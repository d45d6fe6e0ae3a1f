"""Gaussian priors whose width follows the size of the layer: He, Glorot and Neal."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal, Self, TypeAlias, final, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError, nearest
from bayesreg.priors.contract.prior import Prior
from bayesreg.priors.contract.readings import WeightDecayReadings
from bayesreg.priors.contract.registry import register_family
from bayesreg.priors.contract.tensors import Hyperparameter, summed
from bayesreg.priors.contract.traits import Traits
from bayesreg.priors.elementwise.gaussian import Gaussian
from bayesreg.priors.located.located import Loc, LocatedPrior
from bayesreg.selection import ParameterInfo

__all__ = ["FanInGaussian"]

Fan: TypeAlias = Literal["fan_in", "fan_out", "fan_avg"]


def _layer_of(info: ParameterInfo) -> nn.Module:
    """Return the layer that owns a parameter, past what parametrizes it."""
    return next(
        module
        for module in reversed(info.modules)
        if not isinstance(module, ParametrizationList | nn.ModuleDict | nn.ParameterList) or module is info.modules[0]
    )


@register_family
@final
class FanInGaussian(LocatedPrior):
    r"""Independent Gaussian elements, ``w ~ N(loc, gain²/fan)``, with the fan read off each parameter's shape.

    With such a prior the outputs of a layer have, a priori, a variance that does not depend on its width. In a
    `ModelPrior` every parameter gets the plain `Gaussian` of its own shape, with its own exact weight decay.

    A parameter of shape ``(out, in, *kernel)`` has ``fan_in = in·|kernel|`` and ``fan_out = out·|kernel|``, as in
    `torch.nn.init`. Where a layer stores ``(in, out, *kernel)`` (transposed convolutions, the `Conv1D` of GPT-2) a
    `ModelPrior` reads it so; a bare matrix of a module of your own is taken for ``(out, in)``, and one of three or more
    axes that belongs to no convolution is refused.

    Args:
        gain: Standard deviation > 0 at fan 1.
        fan: "fan_in" (default), "fan_out", or "fan_avg", the mean of the two.
        loc: The centre: a number, a tensor, or a mapping from parameter names to tensors. Default 0.

    Raises:
        InvalidArgumentError: If `gain` is not one number > 0, `fan` none of these or `loc` not finite.

    Example:
        >>> import bayesreg as br
        >>> model = torch.nn.Sequential(torch.nn.Linear(50, 200), torch.nn.ReLU(), torch.nn.Linear(200, 10))
        >>> prior = br.ModelPrior(model, FanInGaussian.he())
        >>> for entry in prior:
        ...     print(entry.prior.describe())
        Gaussian, std 0.2, centred on 0 (1.414/√fan_in, fan 50)
        flat (no penalty)
        Gaussian, std 0.1, centred on 0 (1.414/√fan_in, fan 200)
        flat (no penalty)

    References:
        Neal (1996), Bayesian Learning for Neural Networks, section 2.1; Glorot and Bengio (2010), Understanding the
        Difficulty of Training Deep Feedforward Neural Networks, equation 12; He, Zhang, Ren and Sun (2015), Delving
        Deep into Rectifiers, equation 10.
    """

    traits = Traits(proper=True, convex=True, smooth=True, elementwise=True, has_prox=True, gaussian=True)
    gain: Tensor

    def __init__(self, gain: float, fan: Fan = "fan_in", *, loc: Loc = 0.0) -> None:
        if fan not in get_args(Fan):
            known = get_args(Fan)
            raise InvalidArgumentError(
                f"fan: expected one of {', '.join(known)}, got {fan!r}{nearest(str(fan), known)}."
            )
        super().__init__(loc=loc, gain=checks.positive_float("gain", gain))
        self.fan: Fan = fan
        self._inputs_first = False

    @property
    def may_end(self) -> bool:
        """No: its width is that of the whole parameter."""
        return False

    @classmethod
    @answering
    def he(cls, gain: float = math.sqrt(2.0), *, loc: Loc = 0.0) -> Self:
        """Return N(0, 2/fan_in): for layers before a ReLU.

        Args:
            gain: Default √2, that of a ReLU.
            loc: The centre. Default 0.

        Returns:
            The prior.

        Example:
            >>> round(FanInGaussian.he().for_shape((10, 50)).variance(), 6)
            0.04
        """
        return cls(gain, "fan_in", loc=loc)

    @classmethod
    @answering
    def glorot(cls, gain: float = 1.0, *, loc: Loc = 0.0) -> Self:
        """Return N(0, 2/(fan_in + fan_out)): for layers before a tanh.

        Args:
            gain: Default 1.
            loc: The centre. Default 0.

        Returns:
            The prior.

        Example:
            >>> round(FanInGaussian.glorot().for_shape((30, 50)).variance(), 6)
            0.025
        """
        return cls(gain, "fan_avg", loc=loc)

    @classmethod
    @answering
    def neal(cls, scale: float = 1.0, *, loc: Loc = 0.0) -> Self:
        """Return N(0, scale²/fan_in): with a wide layer the outputs tend to a Gaussian process of this scale.

        Args:
            scale: Standard deviation > 0 of a layer's output for unit inputs. Default 1.
            loc: The centre. Default 0.

        Returns:
            The prior.

        Example:
            >>> round(FanInGaussian.neal(2.0).for_shape((1, 100)).variance(), 6)
            0.04
        """
        return cls(scale, "fan_in", loc=loc)

    def for_shape(self, shape: Sequence[int]) -> Gaussian:
        """Return the Gaussian of a parameter of this shape.

        Args:
            shape: Shape of the parameter, of two or more dimensions.

        Returns:
            The prior, with std gain/√fan.

        Raises:
            InvalidArgumentError: If the shape has fewer dimensions.
        """
        self._require_bound()
        fan = self._fan(shape)
        prior = Gaussian(float(self.gain) / math.sqrt(fan))
        # Shared, not copied: a centre may be as large as the model.
        prior._buffers["loc"] = self._buffers["loc"]
        prior.source = self.source
        prior.note = f"{float(self.gain.detach()):.4g}/√{self.fan}, fan {fan:g}"
        return prior

    def _fan(self, shape: Sequence[int]) -> float:
        if len(shape) < 2 or not math.prod(shape):
            raise InvalidArgumentError(
                f"{self.family}: expected a parameter with inputs and outputs, of two or more dimensions, got shape "
                f"{tuple(shape)}; give it a rule of its own, such as br.Flat() or br.Gaussian(0.1)."
            )
        kernel = math.prod(shape[2:])
        outputs, inputs = (shape[1], shape[0]) if self._inputs_first else (shape[0], shape[1])
        fan_in, fan_out = inputs * kernel, outputs * kernel
        return {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": 0.5 * (fan_in + fan_out)}[self.fan]

    def _placed(self, info: ParameterInfo) -> FanInGaussian:
        owner, axes = _layer_of(info), info.parameter.ndim
        if axes > 2 and not (hasattr(owner, "kernel_size") or isinstance(owner, nn.Bilinear)):
            raise InvalidArgumentError(
                f"parameter {info.name!r}: {self.family} reads inputs and outputs off the shape, and which axes of "
                f"{tuple(info.parameter.shape)} they are in a {type(owner).__name__} is not known; give it a rule of "
                f"its own, such as br.Gaussian(0.1) or br.Flat()."
            )
        if not (getattr(owner, "transposed", False) or (type(owner).__name__ == "Conv1D" and hasattr(owner, "nf"))):
            return self
        made = copy.copy(self)
        made._inputs_first = True
        return made

    def bound_to(self, name: str, parameter: Tensor) -> Prior:  # type: ignore[override]
        """Return the plain Gaussian of the parameter's shape, its named centre looked up; see `Prior.bound_to`."""
        located = super().bound_to(name, parameter)
        try:
            return located.for_shape(parameter.shape)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"parameter {name!r}: {error}") from error

    # -- the contract: that of the Gaussian of the value's shape ------------------------------------------

    def penalty(self, value: Tensor) -> Tensor:
        return 0.5 * summed((self._shifted(value) / self._std(value.shape)).square())

    def log_constant(self, shape: Sequence[int]) -> Tensor:
        return -math.prod(shape) * (self._std(shape).log() + 0.5 * math.log(2.0 * math.pi))

    def _std(self, shape: Sequence[int]) -> Tensor:
        return self.gain / math.sqrt(self._fan(shape))

    def add_grad_(self, grads: Sequence[Tensor], values: Sequence[Tensor], coefficient: float) -> None:
        for grad, value in zip(grads, values, strict=True):
            self.for_shape(value.shape).add_grad_([grad], [value], coefficient)

    def prox(self, value: Tensor, step: float | Tensor) -> Tensor:
        return self.for_shape(value.shape).prox(value, step)

    def curvature(self, value: Tensor) -> Tensor:
        return self.for_shape(value.shape).curvature(value)

    def draw_offsets(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.for_shape(like.shape).draw_offsets(like, generator)

    def variance(self, shape: Sequence[int] | None = None) -> Hyperparameter | None:
        """Return gain²/fan; None without a shape, as the fan is not known then. See `Prior.variance`."""
        return None if shape is None else self.for_shape(shape).variance()

    def _why_no_decay(self, loss_scale: LossScale) -> str:
        return (
            f"{self.family} has one weight decay per shape of parameter: prior.for_shape(weight.shape)."
            f"weight_decay(loss_scale). br.ModelPrior and br.attach put each in its place."
        )

    @answering
    def weight_decay_readings(self, num_data: int | LossScale, at: Tensor | None = None) -> WeightDecayReadings:
        """Return the readings for the shape of `at`, none without one; see `Prior.weight_decay_readings`."""
        if at is None:
            return WeightDecayReadings(None, None, None, None)
        return self.for_shape(at.shape).weight_decay_readings(num_data, at)

    def saved_options(self) -> dict[str, Any]:
        return {"fan": self.fan}

    def describe(self) -> str:
        """Return the prior in one line of plain words."""
        return f"Gaussian, std {float(self.gain.detach()):.4g}/√{self.fan}, {self._centre_in_words()}"

    def __repr__(self) -> str:
        return super().__repr__()[:-1] + f", fan={self.fan!r})"
