"""Any torch loss as a likelihood."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.errors import DataError, InvalidArgumentError, UnsupportedError, kind_of
from bayesreg.likelihoods.base import Likelihood, aligned

__all__ = ["FromLoss"]

_CATEGORICAL = (nn.CrossEntropyLoss, nn.NLLLoss)
_ELEMENTWISE = (
    nn.BCELoss, nn.BCEWithLogitsLoss, nn.HuberLoss, nn.L1Loss, nn.MSELoss, nn.PoissonNLLLoss, nn.SmoothL1Loss,
)  # fmt: skip


@final
class FromLoss(Likelihood):
    """A likelihood whose per-example NLL is a torch loss, or any function that returns one value per example.

    torch's reduction is undone: the loss is evaluated element by element and summed per example. Class weights and
    label smoothing stay as they are in the loss.

    Args:
        loss: A torch loss module, or a function (output, target) -> tensor of shape (batch, ...), in nats.
        noise_std: τ, needed for `nn.MSELoss` only; its NLL is (target − output)²/(2τ²) + log τ + ½ log 2π.

    Raises:
        InvalidArgumentError: If noise_std is missing for MSELoss or given for another loss.

    Example:
        >>> likelihood = FromLoss(nn.CrossEntropyLoss(label_smoothing=0.1))
        >>> likelihood.nll(torch.zeros(1, 2), torch.tensor([0]))
        tensor([0.6931])
    """

    @answering
    def __init__(self, loss: nn.Module | Callable[[Tensor, Tensor], Tensor], noise_std: float | None = None) -> None:
        super().__init__()
        is_mse = type(loss) is nn.MSELoss
        if is_mse and noise_std is None:
            raise InvalidArgumentError("noise_std: MSELoss is a likelihood only together with a noise std; pass one.")
        if not is_mse and noise_std is not None:
            raise InvalidArgumentError(f"noise_std: only MSELoss takes one, got loss {type(loss).__name__}.")
        if not callable(loss):
            raise InvalidArgumentError(f"loss: expected a torch loss or a function, got {kind_of(loss)}.")
        self.noise_std = None if noise_std is None else checks.positive_float("noise_std", noise_std)
        if isinstance(loss, nn.Module) and hasattr(loss, "reduction"):
            loss = copy.deepcopy(loss)
            loss.reduction = "none"  # type: ignore[assignment]
        self.loss = loss
        elementwise = isinstance(loss, _ELEMENTWISE)
        self.target_kind = "integer" if isinstance(loss, _CATEGORICAL) else "real" if elementwise else "any"

    @property
    def gaussian_noise_std(self) -> float | None:
        """That of `nn.MSELoss`; see `Likelihood.gaussian_noise_std`."""
        return self.noise_std

    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        if isinstance(self.loss, _ELEMENTWISE):
            output, target = aligned(output, target, type(self.loss).__name__)
        terms = self.loss(output, target)
        shapes = (output.shape[:1], output.shape, target.shape)
        # Any other shape is a broadcast: (batch, 1) against (batch,) gives (batch, batch).
        if not isinstance(terms, Tensor) or terms.ndim == 0 or terms.shape not in shapes:
            got = tuple(terms.shape) if isinstance(terms, Tensor) else type(terms).__name__
            raise DataError(
                f"FromLoss: expected one value per example or element, ({len(output)}, ...), from the loss, got {got} "
                f"for output {tuple(output.shape)} and target {tuple(target.shape)}."
            )
        per_example = terms.reshape(len(terms), -1)
        if self.noise_std is not None:
            constant = math.log(self.noise_std) + 0.5 * math.log(2.0 * math.pi)
            per_example = per_example / (2.0 * self.noise_std**2) + constant
        return per_example.sum(1)

    def predictive(self, output: Tensor) -> Distribution:
        """Return the distribution that torch's own losses stand for; see `Likelihood.predictive`.

        Args:
            output: The model's output.

        Returns:
            The distribution.

        Raises:
            UnsupportedError: If the loss is one whose distribution is not known.
        """
        kinds: dict[type, Callable[[Tensor], Distribution]] = {
            nn.CrossEntropyLoss: lambda o: torch.distributions.Categorical(logits=o.movedim(1, -1)),
            nn.NLLLoss: lambda o: torch.distributions.Categorical(logits=o.movedim(1, -1)),
            nn.BCEWithLogitsLoss: lambda o: torch.distributions.Bernoulli(logits=o),
            nn.BCELoss: lambda o: torch.distributions.Bernoulli(probs=o),
            nn.MSELoss: lambda o: torch.distributions.Normal(o, self.noise_std or 1.0),
            nn.PoissonNLLLoss: lambda o: torch.distributions.Poisson(o.exp() if self._log_input else o),
        }
        if type(self.loss) not in kinds:
            name = getattr(self.loss, "__name__", type(self.loss).__name__)
            raise UnsupportedError(f"FromLoss({name}): the distribution this loss stands for is not known.")
        return kinds[type(self.loss)](output)

    @property
    def _log_input(self) -> bool:
        return bool(getattr(self.loss, "log_input", True))

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the NLL per example: what an arbitrary loss means by good is its own value."""
        return self.nll(output, target)

    metric_name = "loss"

    def describe(self) -> str:
        """Return how reports call the likelihood."""
        return f"FromLoss({getattr(self.loss, '__name__', type(self.loss).__name__)})"
