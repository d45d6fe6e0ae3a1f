"""The loss scale: the one number that relates a training loss to the total negative log-likelihood."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bayesreg._support import checks
from bayesreg._support.calls import answering, answering_class
from bayesreg.conversion.loss_table import scale_of_loss
from bayesreg.errors import InvalidArgumentError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["LossScale", "as_loss_scale"]


@answering_class
@dataclass(frozen=True)
class LossScale:
    r"""The factor s in (training loss) = s · NLL, where NLL is summed over the data set, in nats.

    With a prior p(θ), minimising `training loss + s · (−log p(θ))` is MAP estimation. Every regularisation
    constant is a prior hyper-parameter times s; the constructors below give s for the losses people train with.
    Write `LossScale(value)` for a loss that none of them fits.

    Args:
        value: s, > 0.
        origin: In plain words, where the number comes from; shown by `describe()`.
        num_data: n, where the constructor was told; for what counts examples, such as scikit-learn's constants.
        likelihood_weight: κ, which is in `value` already.
        noise_std: τ, where the constructor was told.

    Raises:
        InvalidArgumentError: If `value` is not a finite number > 0.

    Example:
        >>> LossScale.mean(num_data=50_000).value
        2e-05
        >>> LossScale.mean(num_data=50_000, likelihood_weight=2.0).value  # likelihood counted twice
        1e-05

    References:
        docs/scaling.md derives each row.
    """

    value: float
    origin: str = field(default="given by hand", compare=False)
    num_data: int | None = field(default=None, compare=False, repr=False)
    likelihood_weight: float = field(default=1.0, compare=False, repr=False)
    noise_std: float | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", checks.positive_float("LossScale value", self.value))
        checks.positive_float("likelihood_weight", self.likelihood_weight)
        if self.num_data is not None:
            checks.positive_int("num_data", self.num_data)
        if self.noise_std is not None:
            checks.positive_float("noise_std", self.noise_std)

    def __float__(self) -> float:
        return self.value

    @classmethod
    @answering
    def mean(cls, num_data: int, *, likelihood_weight: float = 1.0) -> LossScale:
        """The loss is the mean NLL over examples: s = 1 / (κ · num_data).

        Args:
            num_data: Size of the training set, >= 1 (not of the batch).
            likelihood_weight: κ > 0, how often each example's NLL counts in the model that is meant (1/κ is the
                likelihood temperature). The loss code stays as it is.

        Returns:
            The scale.

        Raises:
            InvalidArgumentError: If an argument is out of range.
        """
        n = checks.positive_int("num_data", num_data)
        return cls._tempered(1.0 / n, f"mean NLL over {n:,} examples", likelihood_weight, n)

    @classmethod
    @answering
    def sum(cls, *, likelihood_weight: float = 1.0) -> LossScale:
        """The loss is the NLL summed over the whole data set: s = 1 / κ.

        Args:
            likelihood_weight: κ > 0, see `mean`.

        Returns:
            The scale.

        Raises:
            InvalidArgumentError: If `likelihood_weight` is not > 0.
        """
        return cls._tempered(1.0, "NLL summed over the data set", likelihood_weight)

    @classmethod
    @answering
    def minibatch_sum(cls, num_data: int, batch_size: int, *, likelihood_weight: float = 1.0) -> LossScale:
        """The loss is the NLL summed over a minibatch: s = batch_size / (κ · num_data).

        Args:
            num_data: Size of the training set, >= 1.
            batch_size: Examples in a batch, from 1 to `num_data`.
            likelihood_weight: κ > 0, see `mean`.

        Returns:
            The scale.

        Raises:
            InvalidArgumentError: If an argument is out of range, or the batch larger than the data.
        """
        n, b = checks.positive_int("num_data", num_data), checks.positive_int("batch_size", batch_size)
        checks.batch_fits(n, b)
        return cls._tempered(b / n, f"NLL summed over batches of {b:,} out of {n:,} examples", likelihood_weight, n)

    @classmethod
    @answering
    def mse(cls, num_data: int, num_outputs: int, noise_std: float, *, likelihood_weight: float = 1.0) -> LossScale:
        """The loss is `nn.MSELoss()`, the mean of (y − f)² over examples and outputs: s = 2τ² / (κ · n · K).

        Args:
            num_data: n, size of the training set, >= 1.
            num_outputs: K, outputs per example, >= 1.
            noise_std: τ > 0, standard deviation of the Gaussian noise, in the units of y.
            likelihood_weight: κ > 0, see `mean`.

        Returns:
            The scale.

        Raises:
            InvalidArgumentError: If an argument is out of range.
        """
        n, k = checks.positive_int("num_data", num_data), checks.positive_int("num_outputs", num_outputs)
        tau = checks.positive_float("noise_std", noise_std)
        origin = f"mean squared error over {n:,} examples x {k:,} outputs, noise std {tau:g}"
        return cls._tempered(2.0 * tau**2 / (n * k), origin, likelihood_weight, n, tau)

    @classmethod
    @answering
    def half_squared_error(cls, num_data: int, noise_std: float, *, likelihood_weight: float = 1.0) -> LossScale:
        """The loss is ½‖y − f‖² averaged over examples: s = τ² / (κ · n).

        Args:
            num_data: n, size of the training set, >= 1.
            noise_std: τ > 0, standard deviation of the Gaussian noise, in the units of y.
            likelihood_weight: κ > 0, see `mean`.

        Returns:
            The scale.

        Raises:
            InvalidArgumentError: If an argument is out of range.
        """
        n, tau = checks.positive_int("num_data", num_data), checks.positive_float("noise_std", noise_std)
        origin = f"half squared error averaged over {n:,} examples, noise std {tau:g}"
        return cls._tempered(tau**2 / n, origin, likelihood_weight, n, tau)

    @classmethod
    @answering
    def tokens(cls, num_tokens: int, *, likelihood_weight: float = 1.0) -> LossScale:
        """The loss is the mean NLL over unmasked tokens: s = 1 / (κ · num_tokens).

        Args:
            num_tokens: Unmasked tokens in the training set, >= 1.
            likelihood_weight: κ > 0, see `mean`.

        Returns:
            The scale.

        Raises:
            InvalidArgumentError: If an argument is out of range.
        """
        t = checks.positive_int("num_tokens", num_tokens)
        return cls._tempered(1.0 / t, f"mean NLL over {t:,} tokens", likelihood_weight)

    @classmethod
    @answering
    def from_loss(
        cls,
        loss: nn.Module,
        num_data: int,
        *,
        targets: Tensor | None = None,
        num_outputs: int | None = None,
        noise_std: float | None = None,
        batch_size: int | None = None,
        likelihood_weight: float = 1.0,
    ) -> LossScale:
        """Read the scale off one of torch's loss modules.

        With reduction="mean", for n examples of K outputs:

        - CrossEntropyLoss, NLLLoss: s = 1/n, n the valid targets; with class weights 1/Σ of the targets' weights
        - BCELoss, BCEWithLogitsLoss, GaussianNLLLoss, PoissonNLLLoss: s = 1/(nK)
        - MSELoss with noise std τ: s = 2τ²/(nK)

        With reduction="sum" over batches of B examples s = B/n, for MSELoss 2τ²·B/n.

        Label smoothing, `pos_weight` and elementwise `weight` change the likelihood but not its scale.

        Args:
            loss: A torch loss module with reduction "mean" or "sum".
            num_data: n, examples in the training set (for CrossEntropyLoss on sequences: targets), >= 1.
            targets: All training targets. Needed when the loss has class weights; otherwise optional: with them
                the targets equal to `ignore_index` are not counted.
            num_outputs: K, outputs per example, for the elementwise losses. Default: as in `targets`, else 1.
            noise_std: τ, needed for MSELoss only, which says nothing of the noise.
            batch_size: B, needed for reduction="sum"; the size of the training set for full-batch training.
            likelihood_weight: κ > 0, see `mean`.

        Returns:
            The scale.

        Raises:
            UnknownLossError: If the loss is not one of these; give the scale by hand then.
            InvalidArgumentError: If an argument is missing or out of range.

        Example:
            >>> import torch
            >>> LossScale.from_loss(torch.nn.CrossEntropyLoss(), num_data=1000).value
            0.001
            >>> LossScale.from_loss(torch.nn.MSELoss(), num_data=100, num_outputs=2, noise_std=0.5).value
            0.0025
        """
        from torch.nn import MSELoss

        value, origin = scale_of_loss(
            loss,
            checks.positive_int("num_data", num_data),
            targets=targets,
            num_outputs=None if num_outputs is None else checks.positive_int("num_outputs", num_outputs),
            noise_std=noise_std,
            batch_size=batch_size,
        )
        return cls._tempered(
            value, origin, likelihood_weight, noise_std=noise_std if isinstance(loss, MSELoss) else None
        )

    @classmethod
    def _tempered(
        cls,
        value: float,
        origin: str,
        likelihood_weight: float,
        num_data: int | None = None,
        noise_std: float | None = None,
    ) -> LossScale:
        weight = checks.positive_float("likelihood_weight", likelihood_weight)
        words = origin if weight == 1.0 else f"{origin}, likelihood counted {weight:g} times"
        return cls(value / weight, words, num_data, weight, noise_std)

    @property
    def words(self) -> str:
        """What s is, in a sentence."""
        return f"Training loss = s x NLL with s = {self.value:.4g} ({self.origin})."


def _is_data(thing: object) -> bool:
    return hasattr(thing, "__len__") and not hasattr(thing, "shape") and not isinstance(thing, str)


def as_loss_scale(num_data: int | LossScale | None) -> LossScale:
    """Return a LossScale; a bare integer is the size of the training set of a mean loss.

    Args:
        num_data: n >= 1, or a scale.

    Returns:
        The scale.

    Raises:
        InvalidArgumentError: If it is neither.

    Example:
        >>> as_loss_scale(100).value
        0.01
    """
    if isinstance(num_data, LossScale):
        return num_data
    if num_data is None:
        raise InvalidArgumentError(
            "num_data: pass the size of the training set, num_data=n, or a br.LossScale for a loss that is not a mean "
            "over examples."
        )
    if isinstance(num_data, float):
        # Only a number below 1 can be meant as s: a size taken for one is wrong by n squared.
        hint = f"a scale given by hand is br.LossScale({num_data!r})" if 0 < num_data < 1 else "write int(num_data)"
        raise InvalidArgumentError(
            f"num_data: expected the size of the training set, an integer, or a LossScale, got {num_data!r}; {hint}."
        )
    if _is_data(num_data):
        raise InvalidArgumentError(
            f"num_data: expected the size of the training set or a LossScale, got {type(num_data).__name__}; write "
            f"len(dataset), which for a loader is len(loader.dataset)."
        )
    if getattr(num_data, "forward", None) is not None:
        raise InvalidArgumentError(
            f"num_data: expected the size of the training set or a LossScale, got the loss itself; write "
            f"br.LossScale.from_loss({type(num_data).__name__}(), num_data)."
        )
    return LossScale.mean(checks.positive_int("num_data", num_data))
