"""Class labels."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.errors import DataError
from bayesreg.likelihoods.base import Likelihood
from bayesreg.likelihoods.local import Local

__all__ = ["Categorical", "class_terms"]


def class_terms(name: str, output: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Return −log softmax(output)[target] for each target, the classes in the second dimension.

    Args:
        name: Of the likelihood.
        output: (batch, classes, ...).
        target: (batch, ...), class indices.
        ignore_index: Targets of this value are 0.

    Returns:
        Tensor of the shape of `target`.

    Raises:
        DataError: If a target is out of range.
    """
    # On the CPU torch looks itself, in the same pass; on an accelerator it would end the process.
    if not output.is_cpu:
        require_classes(name, target, output.shape[1], ignore_index)
    try:
        return F.cross_entropy(output, target, ignore_index=ignore_index, reduction="none")
    except IndexError as error:
        require_classes(name, target, output.shape[1], ignore_index)
        raise DataError(f"{name}: {error}") from error


def require_classes(name: str, target: Tensor, classes: int, ignore_index: int) -> None:
    """Raise if a target is none of the classes that the model has outputs for.

    Args:
        name: Of the likelihood.
        target: Class indices.
        classes: How many there are.
        ignore_index: Targets of this value do not count.

    Raises:
        DataError: If one is out of range.
    """
    counted = target[target != ignore_index]
    if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < classes:
        raise DataError(
            f"{name}: expected class indices from 0 to {classes - 1} (the model has {classes} outputs), got "
            f"{int(counted.min())} to {int(counted.max())}; labels that start at 1 need 1 subtracted."
        )


@final
class Categorical(Likelihood):
    """Classes from logits: −log softmax(output)[target].

    Outputs are (batch, classes) with targets (batch,), or (batch, classes, ...) with targets (batch, ...), whose
    terms are summed per example.

    Args:
        ignore_index: Targets of this value do not count. Default −100.

    Example:
        >>> Categorical().nll(torch.zeros(1, 4), torch.tensor([2]))
        tensor([1.3863])
    """

    target_kind = "integer"
    metric_name = "accuracy"

    @answering
    def __init__(self, ignore_index: int = -100) -> None:
        super().__init__()
        self.ignore_index = checks.integer("ignore_index", ignore_index)

    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        if output.ndim < 2 or target.shape != output.shape[:1] + output.shape[2:]:
            hint = "; write target.squeeze(1)" if target.shape == (*output.shape[:1], 1) else ""
            if output.ndim > 2 and target.shape == output.shape[:-1]:
                hint = "; classes that come last, as in (batch, time, vocabulary), are br.likelihoods.Tokens()"
            raise DataError(
                f"Categorical: expected output (batch, classes, ...) and target (batch, ...), got "
                f"{tuple(output.shape)} and {tuple(target.shape)}{hint}."
            )
        if target.is_floating_point():
            raise DataError(f"Categorical: expected integer class indices as targets, got dtype {target.dtype}.")
        terms = class_terms("Categorical", output, target, self.ignore_index)
        return terms if terms.ndim == 1 else terms.reshape(len(terms), -1).sum(1)

    def _local(self, output: Tensor, target: Tensor) -> Local:
        nll = self.nll(output, target)
        share = output.softmax(1)
        counted = target != self.ignore_index
        slope = share.scatter_add(1, torch.where(counted, target, 0)[:, None], -torch.ones_like(share[:, :1]))
        if not bool(counted.all()):
            slope, share = slope * counted[:, None], share * counted[:, None]
        return Local(nll, slope, share, share)

    def settings(self) -> dict[str, Any]:
        """See `Likelihood.settings`."""
        return {"ignore_index": self.ignore_index}

    def predictive(self, output: Tensor) -> torch.distributions.Categorical:
        return torch.distributions.Categorical(logits=output.movedim(1, -1))

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        valid = target != self.ignore_index
        hits = ((output.argmax(1) == target) & valid).to(output.dtype).reshape(len(target), -1).sum(1)
        return hits / valid.reshape(len(target), -1).sum(1).clamp_min(1)
