"""A prior over a model in a framework's checkpoint, and whether the one given now is the same."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from bayesreg.conversion import LossScale
from bayesreg.errors import InvalidArgumentError
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Belief

__all__ = ["FILE", "packed", "require_same_scale", "resumed", "unpacked"]

#: Of the prior, beside a model.
FILE = "prior.safetensors"


def packed(prior: ModelPrior) -> Tensor:
    """Return the file of a prior as a tensor of bytes, which every checkpoint can hold and none has to unpickle.

    Args:
        prior: The prior.

    Returns:
        Of dtype uint8.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        prior.save(path)
        return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)


def unpacked(content: Tensor, model: nn.Module) -> ModelPrior:
    """Return the prior over a model that `packed` holds.

    Args:
        content: The file.
        model: The model.

    Returns:
        The prior.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        path.write_bytes(content.cpu().numpy().tobytes())
        return ModelPrior.load(path, model)


def resumed(found: ModelPrior, now: ModelPrior, where: str, *, moved: bool) -> ModelPrior:
    """Return the prior of a checkpoint, whose centre is the model as it first came.

    Args:
        found: The prior of the checkpoint.
        now: The one that is given now.
        where: What to do without to go on under the new one.
        moved: Whether the centre may differ, as that of a prior about the weights that a model has: they are those of
            the checkpoint, or others, by now.

    Returns:
        The prior of the checkpoint.

    Raises:
        InvalidArgumentError: If families, widths or centres differ.
    """
    if not (_same_but_for_centres(found, now) if moved else found.same_as(now)):
        raise InvalidArgumentError(
            f"prior: the checkpoint was written under another prior than is given now; pass the same, or {where} to go "
            f"on under the new one."
        )
    return found


def require_same_scale(found: float | None, now: LossScale) -> None:
    """Raise where a run is resumed with another n than it had.

    Args:
        found: s of the checkpoint; None of one that does not say.
        now: s now.

    Raises:
        InvalidArgumentError: If they differ.
    """
    if found is not None and not math.isclose(found, now.value, rel_tol=1e-9):
        raise InvalidArgumentError(
            f"num_data: the checkpoint was trained at s = {found:.6g} (n = {1.0 / found:,.6g} of a mean loss), and "
            f"now s = {now.value:.6g}, another objective; pass the same num_data, or begin anew from the weights."
        )


def _same_but_for_centres(one: ModelPrior, other: ModelPrior) -> bool:
    first, second = ({entry.name: entry.prior for entry in prior} for prior in (one, other))
    return first.keys() == second.keys() and all(_alike(first[name], second[name]) for name in first)


def _alike(one: Belief | None, other: Belief | None) -> bool:
    if one is None or other is None or one.family != other.family:
        return one is other
    ours, theirs = one.hyperparameters(), other.hyperparameters()
    return ours.keys() == theirs.keys() and all(_equal(name, value, theirs[name]) for name, value in ours.items())


def _equal(name: str, one: object, other: object) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return repr(one) == repr(other)
    moved = name == "loc" and one.ndim > 0 and other.ndim > 0
    return moved or (one.shape == other.shape and bool((one.cpu() == other.cpu()).all()))
