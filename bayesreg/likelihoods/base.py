"""The contract every likelihood keeps."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesreg._support.calls import answering
from bayesreg.errors import DataError
from bayesreg.likelihoods.local import Local

__all__ = ["Likelihood", "aligned"]


class Likelihood(nn.Module, ABC):
    """From a model's output to a per-example negative log-likelihood and a predictive distribution."""

    #: Whether targets are class indices, real numbers, or whatever the loss takes.
    target_kind: Literal["integer", "real", "any"] = "real"
    #: Name of `metric`.
    metric_name: ClassVar[str] = "mse"
    #: Whether an example holds several observations, which `count` counts: the tokens of a text.
    counts_within: ClassVar[bool] = False
    #: What each of these is.
    unit: ClassVar[str] = "observation"

    @answering
    def __init__(self) -> None:
        super().__init__()

    @abstractmethod
    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        """Return −log p(target | output) per example, in nats, with all constants.

        Args:
            output: The model's output, first dimension the batch.
            target: The targets.

        Returns:
            Tensor of shape (batch,); an example's output dimensions are summed.

        Raises:
            DataError: If the shapes do not fit.
        """

    @abstractmethod
    def predictive(self, output: Tensor) -> Distribution:
        """Return the distribution of the target given the model's output.

        Args:
            output: The model's output.

        Returns:
            A torch distribution with the batch as its first batch dimension.
        """

    def _middle(self, output: Tensor) -> Tensor:
        """Return what is predicted where one number is asked for: the mean of the target.

        Args:
            output: The model's output.

        Returns:
            Tensor of the shape of a target.
        """
        return self.predictive(output).mean

    def _local(self, output: Tensor, target: Tensor) -> Local | None:
        """Return NLL, slope and Hessian of each example in its outputs; None where only autograd has them.

        Args:
            output: (batch, outputs).
            target: The targets, which `nll` has taken before: they are not looked at again.

        Returns:
            Them, without a graph.
        """
        return None

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the metric `metric_name` per example; here the squared error of the predictive mean.

        Args:
            output: The model's output.
            target: The targets.

        Returns:
            Tensor of shape (batch,).
        """
        middle = self._middle(output)
        error = (middle - target.reshape(middle.shape)) ** 2
        return error.reshape(len(error), -1).mean(1)

    def count(self, target: Tensor) -> Tensor:
        """Return how many observations each example is: means are over them, and n is their sum.

        Args:
            target: The targets, first dimension the examples.

        Returns:
            Tensor of shape (batch,); ones unless `counts_within`.
        """
        return torch.ones(len(target), device=target.device)

    @property
    def gaussian_noise_std(self) -> float | None:
        """The std of the noise where it is Gaussian, as it is now; None for other likelihoods."""
        return None

    def penalty(self) -> Tensor | None:
        """Return −log density of what the likelihood learns itself, nats, counted once; None without a prior on it.

        Returns:
            A scalar, differentiable.
        """
        return None

    def settings(self) -> dict[str, Any] | None:
        """Return the arguments that make this likelihood again, as JSON holds them.

        Returns:
            The arguments, with the noise as it is now; None where only code could make it.
        """
        return None

    def __repr__(self) -> str:
        return self.describe()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Return plain values in place of tensors, so that equal likelihoods are equal pickles and hash alike."""
        held = [*self.parameters(), *self.buffers()]
        if list(self.children()) or any(t.ndim or t.device.type != "cpu" or t.dtype != torch.float64 for t in held):
            return super().__reduce_ex__(protocol)
        learned = {name: (float(p.detach()), p.requires_grad) for name, p in self.named_parameters()}
        fixed = {name: float(tensor) for name, tensor in self.named_buffers()}
        return _remade, (type(self), {**self.__dict__, "_parameters": learned, "_buffers": fixed})

    def describe(self) -> str:
        """Return how reports call the likelihood."""
        return type(self).__name__


def _remade(cls: type[Likelihood], state: dict[str, Any]) -> Likelihood:
    made = cls.__new__(cls)
    made.__dict__.update(state)
    made._parameters = {
        name: nn.Parameter(torch.tensor(value, dtype=torch.float64), requires_grad=grad)
        for name, (value, grad) in state["_parameters"].items()
    }
    made._buffers = {name: torch.tensor(value, dtype=torch.float64) for name, value in state["_buffers"].items()}
    return made


def aligned(output: Tensor, target: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Return output and target in one shape (batch, elements), refusing what would broadcast.

    (batch, 1) against (batch,) broadcasts to (batch, batch) in torch: the classic silent error of regression.

    Args:
        output: The model's output.
        target: The targets.
        name: The likelihood, for the message.

    Returns:
        Both, two-dimensional.

    Raises:
        DataError: If they do not hold the same number of elements per example.
    """
    same = (target.shape, (*target.shape, 1), target.shape[:-1] if target.shape[-1:] == (1,) else target.shape)
    if output.ndim == 0 or output.shape not in same:
        raise DataError(
            f"{name}: expected one target per output, got output of shape {tuple(output.shape)} and target of shape "
            f"{tuple(target.shape)}."
        )
    rows = len(output)
    return output.reshape(rows, -1), target.reshape(rows, -1).to(output.dtype)
