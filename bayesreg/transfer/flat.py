"""Statistics that other codes keep as flat vectors, split by a model's parameters."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError, PriorFileError, ReferenceMismatchError, kind_of
from bayesreg.selection import Selection, parameters_of, selected

__all__ = ["flat_statistics"]

Flat: TypeAlias = "Tensor | str | os.PathLike[str]"


@answering
def flat_statistics(
    model: nn.Module, *, mean: Flat, variance: Flat, deviations: Flat, new: Selection | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Split flat SWAG statistics by the parameters of a model, as `low_rank_prior` takes them.

    The published priors of Shwartz-Ziv et al. are three torch files, `..._mean.pt` and `..._variance.pt` of D numbers
    and `..._covmat.pt` of K rows of D, without names: the order is that of the model's parameters.

    Args:
        model: A model with the same parameters in the same order.
        mean: D numbers: a tensor, or the path of a torch file that holds one (read with `weights_only=True`).
        variance: D numbers, likewise.
        deviations: K rows of D, likewise; the transposed form (D, K) is understood where K is not D.
        new: Rule key, or a list of them, of the model's parameters that the statistics are not of: the head.

    Returns:
        Mean, variance and deviations by parameter name.

    Raises:
        InvalidArgumentError: If one is neither a tensor nor a path.
        PatternError: If `new` matches nothing.
        PriorFileError: If a file cannot be read, or holds no tensor.
        ReferenceMismatchError: If the numbers are not as many as the parameters have elements; all are listed.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> mean, variance, deviations = flat_statistics(
        ...     model, mean=torch.zeros(3), variance=torch.ones(3), deviations=torch.zeros(5, 3)
        ... )
        >>> mean["weight"].shape, deviations["weight"].shape
        (torch.Size([1, 2]), torch.Size([1, 2, 5]))

    References:
        Shwartz-Ziv et al. (2022), Pre-Train Your Loss: Easy Bayesian Transfer Learning with Informative Priors.
    """
    infos = parameters_of(model)
    fresh = set() if new is None else selected("new", new, infos)
    own = [info for info in infos if info.name not in fresh]
    size = sum(info.parameter.numel() for info in own)
    given = {
        "mean": _tensor("mean", mean),
        "variance": _tensor("variance", variance),
        "deviations": _tensor("deviations", deviations),
    }
    columns = given["deviations"]
    if columns.ndim == 2 and columns.shape[1] == size:
        columns = columns.T
    problems = [
        f"{name} has shape {tuple(given[name].shape)}, expected ({size},)"
        for name in ("mean", "variance")
        if tuple(given[name].shape) != (size,)
    ]
    if columns.ndim != 2 or len(columns) != size:
        problems.append(f"deviations have shape {tuple(given['deviations'].shape)}, expected (K, {size})")
    if problems:
        raise ReferenceMismatchError(
            f"flat statistics: {'; '.join(problems)}, as {len(own)} parameters of {type(model).__name__} have {size} "
            f"elements. Parameters that they are not of are named by new=."
        )
    counts = [info.parameter.numel() for info in own]
    result: list[dict[str, Tensor]] = []
    for whole in (given["mean"], given["variance"], columns):
        parts = whole.split(counts)
        shapes = [(*info.parameter.shape, *whole.shape[1:]) for info in own]
        result.append({i.name: p.reshape(s).clone() for i, p, s in zip(own, parts, shapes, strict=True)})
    return result[0], result[1], result[2]


def _tensor(argument: str, given: Flat) -> Tensor:
    if isinstance(given, Tensor):
        return given.detach()
    if not isinstance(given, str | os.PathLike):
        raise InvalidArgumentError(f"{argument}: expected a tensor or the path of one, got {kind_of(given)}.")
    path = Path(given)
    if not path.is_file():
        raise PriorFileError(f"{argument}: {path}: no such file.")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PriorFileError(
            f"{path}: corrupt, or pickled objects other than tensors, which are never loaded."
        ) from error
    except Exception as error:  # torch's reader raises whatever a damaged byte leads to
        raise PriorFileError(f"{path}: not a readable torch file, corrupt or truncated.") from error
    if not isinstance(loaded, Tensor):
        raise PriorFileError(f"{path}: expected one tensor, got {type(loaded).__name__}.")
    return loaded
