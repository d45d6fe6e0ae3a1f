"""The scale of torch's own loss modules, row by row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg.errors import InvalidArgumentError, UnknownLossError

__all__ = ["scale_of_loss"]

_CATEGORICAL = (nn.CrossEntropyLoss, nn.NLLLoss)
_ELEMENTWISE = (nn.BCELoss, nn.BCEWithLogitsLoss, nn.GaussianNLLLoss, nn.PoissonNLLLoss)
_KNOWN = (*_CATEGORICAL, *_ELEMENTWISE, nn.MSELoss)


def scale_of_loss(
    loss: nn.Module,
    num_data: int,
    *,
    targets: Tensor | None,
    num_outputs: int | None,
    noise_std: float | None,
    batch_size: int | None,
) -> tuple[float, str]:
    """Return s and its origin in words."""
    if isinstance(loss, type):
        raise UnknownLossError(f"loss: expected an instance, got the class; write {loss.__name__}().")
    # A subclass may compute something else, so the class must be torch's own.
    if type(loss) not in _KNOWN:
        raise UnknownLossError(
            f"loss: expected one of {', '.join(c.__name__ for c in _KNOWN)}, got {type(loss).__name__}. If it is a "
            f"mean NLL over examples write br.LossScale.mean(num_data); if it is s times the total NLL for another s, "
            f"write br.LossScale(s)."
        )
    name = type(loss).__name__
    reduction = getattr(loss, "reduction", "mean")
    if reduction not in ("mean", "sum"):
        raise InvalidArgumentError(
            f"{name}: expected reduction='mean' or 'sum', got {reduction!r}; reduce the loss yourself and give the "
            f"scale by hand, br.LossScale.mean(num_data) for a mean over examples."
        )
    factor, noise = _noise_factor(loss, name, noise_std)
    if reduction == "sum":
        if batch_size is None:
            raise InvalidArgumentError(
                f"{name}(reduction='sum') adds up each batch, so its scale depends on the batch: pass batch_size= "
                f"(batch_size={num_data} for full-batch training)."
            )
        size = checks.positive_int("batch_size", batch_size)
        checks.batch_fits(num_data, size)
        return factor * size / num_data, f"{name}(sum) over batches of {size:,} out of {num_data:,} examples{noise}"
    if isinstance(loss, _CATEGORICAL):
        count, words = _target_count(loss, name, num_data, targets)
    else:
        outputs = _outputs(num_data, num_outputs, targets)
        count, words = float(num_data * outputs), f"{num_data:,} examples x {outputs:,} outputs"
    return factor / count, f"{name}(mean) over {words}{noise}"


def _outputs(num_data: int, num_outputs: int | None, targets: Tensor | None) -> int:
    """Return K, as said or as the targets show it."""
    if targets is None:
        return num_outputs or 1
    _count_matches(len(targets), num_data)
    shown = targets.numel() // len(targets)
    if num_outputs not in (None, shown):
        raise InvalidArgumentError(f"num_outputs: expected {shown}, as in targets=, got {num_outputs}.")
    return shown


def _noise_factor(loss: nn.Module, name: str, noise_std: float | None) -> tuple[float, str]:
    """Return the loss per nat of NLL of one term: 2τ² for squared errors, 1 for losses that are NLLs."""
    if not isinstance(loss, nn.MSELoss):
        if noise_std is not None:
            raise InvalidArgumentError(f"noise_std: {name} has no noise std to set, got {noise_std!r}; leave it out.")
        return 1.0, ""
    if noise_std is None:
        raise InvalidArgumentError(
            "noise_std: MSELoss is a likelihood only together with the standard deviation of the noise; pass "
            "noise_std= in the units of y (1.0 if y is standardised and you have no better guess)."
        )
    tau = checks.positive_float("noise_std", noise_std)
    return 2.0 * tau**2, f", noise std {tau:g}"


def _target_count(
    loss: nn.CrossEntropyLoss | nn.NLLLoss, name: str, num_data: int, targets: Tensor | None
) -> tuple[float, str]:
    """Return what torch divides by: valid targets, or the sum of their class weights."""
    if targets is None:
        if loss.weight is not None:
            raise InvalidArgumentError(
                f"targets: {name} with class weights divides by the sum of the targets' weights; pass targets= "
                f"(all training targets)."
            )
        return float(num_data), f"{num_data:,} targets"
    if targets.is_floating_point():
        # Probability targets: torch divides by their number, weights or not.
        count = targets.numel() // targets.shape[1]
        _count_matches(count, num_data)
        return float(count), f"{count:,} probability targets"
    _count_matches(targets.numel(), num_data)
    valid = targets[targets != loss.ignore_index]
    if valid.numel() == 0:
        raise InvalidArgumentError(f"targets: all {targets.numel()} targets equal ignore_index={loss.ignore_index}.")
    if loss.weight is None:
        return float(valid.numel()), f"{valid.numel():,} valid targets"
    total = float(loss.weight.to(torch.float64)[valid.to(loss.weight.device)].sum())
    return total, f"{valid.numel():,} valid targets of total class weight {total:g}"


def _count_matches(count: int, num_data: int) -> None:
    if count != num_data:
        raise InvalidArgumentError(
            f"num_data: expected the number of training targets given, {count}, got {num_data}; targets= must hold "
            f"all training targets, the ignored ones too."
        )
