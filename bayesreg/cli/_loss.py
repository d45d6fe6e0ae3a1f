"""The options that say what the training loss is."""

from __future__ import annotations

from bayesreg.cli._options import Word
from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError

__all__ = ["Loss", "loss_scale_of"]


class Loss(Word):
    """The training loss."""

    mean = "mean"
    sum = "sum"
    minibatch_sum = "minibatch-sum"
    mse = "mse"
    half_squared_error = "half-squared-error"
    tokens = "tokens"


def loss_scale_of(
    loss: Loss,
    num_data: int | None,
    noise_std: float | None,
    num_outputs: int | None,
    batch_size: int | None,
    likelihood_weight: float,
) -> LossScale:
    """Return the loss scale, asking for the options that it needs."""
    if batch_size is not None and loss is not Loss.minibatch_sum:
        raise InvalidArgumentError(
            f"--batch-size: it plays no part with --loss {loss.value}; n is the size of the training set. Leave it out."
        )
    if num_outputs is not None and loss is not Loss.mse:
        raise InvalidArgumentError(f"--num-outputs: it plays no part with --loss {loss.value}; leave it out.")
    if loss is Loss.sum:
        return LossScale.sum(likelihood_weight=likelihood_weight)
    if num_data is None:
        raise InvalidArgumentError("--num-data: pass the size of the training set; the prior counts once against it.")
    weight = likelihood_weight
    if loss is Loss.mean:
        return LossScale.mean(num_data, likelihood_weight=weight)
    if loss is Loss.tokens:
        return LossScale.tokens(num_data, likelihood_weight=weight)
    if loss is Loss.minibatch_sum:
        if batch_size is None:
            raise InvalidArgumentError("--batch-size: pass it for --loss minibatch-sum.")
        return LossScale.minibatch_sum(num_data, batch_size, likelihood_weight=weight)
    if noise_std is None:
        raise InvalidArgumentError(f"--noise-std: a squared error needs one; pass it for --loss {loss.value}.")
    if loss is Loss.mse:
        return LossScale.mse(num_data, 1 if num_outputs is None else num_outputs, noise_std, likelihood_weight=weight)
    return LossScale.half_squared_error(num_data, noise_std, likelihood_weight=weight)
