"""SWAG: the mean, the variances and the last deviations of weights along training, as a low-rank Gaussian."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_swa_multi_avg_fn

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError, ReferenceMismatchError, kind_of, nearest
from bayesreg.priors import LowRankGaussian
from bayesreg.references import Reference, read_reference
from bayesreg.references.skeleton import skeleton
from bayesreg.selection import Selection, buffers_of, canonical_tensors, parameters_of, selected

__all__ = ["SWAG", "Convention", "low_rank_prior"]

Convention: TypeAlias = Literal["stated", "shwartz_ziv", "harvey", "data_emphasized_elbo"]


@answering
def low_rank_prior(
    mean: Mapping[str, Tensor],
    variance: Mapping[str, Tensor],
    deviations: Mapping[str, Tensor],
    *,
    scale: float = 1.0,
    epsilon: float = 0.0,
    convention: Convention = "stated",
    source: str = "low-rank statistics",
) -> LowRankGaussian:
    """Return the Gaussian of low-rank statistics under one of the covariances that go by the same name.

    With D = diag(variance), Q the deviations in columns, K of them, λ = scale and ε = epsilon, Σ is

    - "stated", the one that bayesreg means, and "data_emphasized_elbo": λ·(½·D + ε·I) + λ·Q·Q'/(2·(K − 1)). λ changes
      the size of the prior and not its shape;
    - "harvey": ½·λ·D + ε·I + λ·Q·Q'/(2·(K − 1)). ε is not scaled: for small λ the prior is N(mean, ε·I);
    - "shwartz_ziv": λ·D + ε·I + λ²·Q·Q'. The low-rank part grows with the square, and neither ½ nor K − 1 is in it.

    Args:
        mean: Mean weights by parameter name.
        variance: Their variances ≥ 0, by name, of the same shapes.
        deviations: Snapshots minus mean, by name: of the parameter's shape and one dimension more, of size K.
        scale: λ > 0.
        epsilon: ε ≥ 0, in squared units of the weights.
        convention: Which of them. Default "stated".
        source: Where the statistics come from, for `describe()`.

    Returns:
        The prior, over all named parameters as one density; use it in a `ModelPrior` whose rule covers exactly those.

    Raises:
        InvalidArgumentError: If a number or the convention is out of range, K is too small, a variance is negative or
            all of an element's variance is 0.
        ReferenceMismatchError: If names or shapes differ.

    Example:
        >>> mean, variance = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
        >>> prior = low_rank_prior(mean, variance, {"w": torch.eye(2)}, scale=4.0)
        >>> prior.bound_to("w", torch.zeros(2)).variance()  # 4·½ + 4·1/(2·1)
        tensor([4., 4.])

    References:
        Maddox et al. (2019), A Simple Baseline for Bayesian Uncertainty in Deep Learning, section 3.2 (½ and K − 1);
        Shwartz-Ziv et al. (2022), Pre-Train Your Loss; Harvey, Petrov and Hughes (2024), Transfer Learning with
        Informative Priors.
    """
    known = get_args(Convention)
    if convention not in known:
        raise InvalidArgumentError(
            f"convention: expected one of {', '.join(known)}, got {convention!r}{nearest(str(convention), known)}."
        )
    size = checks.positive_float("scale", scale)
    floor = checks.finite_float("epsilon", epsilon)
    if floor < 0.0:
        raise InvalidArgumentError(f"epsilon: expected a number >= 0, got {epsilon!r}.")
    for argument, held in (("mean", mean), ("variance", variance), ("deviations", deviations)):
        if not isinstance(held, Mapping) or not held or not all(isinstance(t, Tensor) for t in held.values()):
            raise InvalidArgumentError(f"{argument}: expected tensors by parameter name, got {kind_of(held)}.")
    columns = _check_statistics(mean, variance, deviations)
    if columns < 2 and convention != "shwartz_ziv":
        raise InvalidArgumentError(f"deviations: expected two or more columns (K - 1 divides), got {columns}.")
    half = 0.5 if convention != "shwartz_ziv" else 1.0
    unscaled = convention in ("harvey", "shwartz_ziv")
    factor = size if convention == "shwartz_ziv" else math.sqrt(0.5 * size / (columns - 1))
    diagonal = {name: size * half * value + (floor if unscaled else size * floor) for name, value in variance.items()}
    endless = [name for name, value in diagonal.items() if not bool(torch.isfinite(value).all())]
    if endless:
        raise InvalidArgumentError(
            f"scale, epsilon: expected finite variances, got {size:g} and {floor:g}, with which those of "
            f"{', '.join(endless[:3])} are not."
        )
    empty = [name for name, value in diagonal.items() if not bool((value > 0).all())]
    if empty:
        raise InvalidArgumentError(
            f"variance of {', '.join(empty)}: expected numbers > 0, got 0 for some elements; give epsilon > 0."
        )
    low_rank = {name: factor * value for name, value in deviations.items()}
    centre = Reference(mean, source)
    centre.notes = (_in_words(convention, size, floor, columns),)
    return LowRankGaussian(diagonal, low_rank, loc=centre)


def _held_wide(tensor: Tensor) -> Tensor:
    """Return a copy that later checkpoints, of a wider dtype perhaps, can be put into."""
    wide = torch.promote_types(tensor.dtype, torch.float32) if tensor.is_floating_point() else tensor.dtype
    return tensor.to(wide, copy=True)


def _in_words(convention: Convention, size: float, floor: float, columns: int) -> str:
    """Return the covariance with its numbers, as files and descriptions keep it."""
    formula = {
        "harvey": f"½·{size:g}·D + {floor:g}·I + {size:g}·Q·Q'/(2·(K − 1))",
        "shwartz_ziv": f"{size:g}·D + {floor:g}·I + {size:g}²·Q·Q'",
    }.get(convention, f"{size:g}·(½·D + {floor:g}·I) + {size:g}·Q·Q'/(2·(K − 1))")
    return f"covariance {formula} with K = {columns} deviations in Q (convention {convention!r})"


def _check_statistics(
    mean: Mapping[str, Tensor], variance: Mapping[str, Tensor], deviations: Mapping[str, Tensor]
) -> int:
    """Raise unless the statistics are of the same parameters; return how many columns the deviations have."""
    odd = sorted((set(mean) ^ set(variance)) | (set(mean) ^ set(deviations)))
    problems = [f"{name} is not in all of mean, variance and deviations" for name in odd]
    counts = set()
    for name in [name for name in mean if name not in odd]:
        shape = tuple(mean[name].shape)
        if tuple(variance[name].shape) != shape:
            problems.append(f"variance of {name} has shape {tuple(variance[name].shape)}, expected {shape}")
        elif bool((variance[name] < 0).any()):
            problems.append(f"variance of {name} is negative for some elements")
        if tuple(deviations[name].shape[:-1]) != shape or deviations[name].ndim == 0:
            problems.append(
                f"deviations of {name} have shape {tuple(deviations[name].shape)}, expected {(*shape, 'K')}"
            )
        else:
            counts.add(deviations[name].shape[-1])
    if len(counts) > 1:
        problems.append(f"deviations have different numbers of columns: {sorted(counts)}")
    if problems or not mean:
        raise ReferenceMismatchError(
            f"low-rank statistics: {'; '.join(problems) or 'expected at least one parameter, got none'}."
        )
    return int(counts.pop())


class SWAG:
    """Collects a model's weights along any training; call `collect()` after an epoch, or every so many steps.

    Mean and variance are of all snapshots (a running mean and Welford's sums: no cancellation); the deviations are
    those of the last `max_rank` snapshots from the mean at their time, as published.

    Args:
        model: The model that is trained; only its trainable parameters are collected.
        max_rank: How many deviations are kept, ≥ 2. Default 20.

    Raises:
        InvalidArgumentError: If nothing is trainable or `max_rank` is below 2.

    Example:
        >>> import bayesreg as br
        >>> model = nn.Linear(2, 1)
        >>> swag = br.transfer.SWAG(model, max_rank=5)
        >>> for _ in range(3):
        ...     _ = nn.init.normal_(model.weight), nn.init.normal_(model.bias)
        ...     swag.collect()
        >>> prior = br.ModelPrior(model, {"*": swag.prior(epsilon=1e-6)})

    References:
        Maddox et al. (2019), A Simple Baseline for Bayesian Uncertainty in Deep Learning, algorithm 1.
    """

    @answering
    def __init__(self, model: nn.Module, *, max_rank: int = 20) -> None:
        self.model = model
        self.max_rank = checks.positive_int("max_rank", max_rank)
        if self.max_rank < 2:
            raise InvalidArgumentError(f"max_rank: expected 2 or more, got {max_rank}.")
        infos = [info for info in parameters_of(model) if info.parameter.requires_grad]
        if not infos:
            raise InvalidArgumentError(f"model: {type(model).__name__} has no trainable parameters.")
        self._infos = infos
        wide = [torch.promote_types(info.parameter.dtype, torch.float32) for info in infos]
        self._mean = [torch.zeros_like(i.parameter, dtype=d).detach() for i, d in zip(infos, wide, strict=True)]
        self._sums = [torch.zeros_like(mean) for mean in self._mean]
        self._deviations: deque[list[Tensor]] = deque(maxlen=self.max_rank)
        self.num_snapshots = 0

    @classmethod
    @answering
    def from_checkpoints(cls, paths: Sequence[str | os.PathLike[str]], *, max_rank: int = 20) -> SWAG:
        """Collect the weights that a training run has left in files.

        Floating tensors are taken for parameters, but for the statistics of normalisation layers.

        Args:
            paths: At least two `.safetensors` or torch files or Hugging Face directories, in the order of training.
            max_rank: As in the constructor.

        Returns:
            The collection; its `model` has the names and shapes and cannot be called.

        Raises:
            InvalidArgumentError: If there are fewer than two.
            PriorFileError: If a file cannot be read.
            ReferenceMismatchError: If names or shapes differ between files; all are listed.

        Example:
            >>> import tempfile
            >>> paths = [f"{tempfile.mkdtemp()}/{k}.pt" for k in range(3)]
            >>> for path in paths:
            ...     torch.save(nn.Linear(2, 1).state_dict(), path)
            >>> SWAG.from_checkpoints(paths).num_snapshots
            3
        """
        listed = (
            [] if isinstance(paths, str | bytes | Mapping | Tensor) or not isinstance(paths, Iterable) else list(paths)
        )
        if len(listed) < 2 or not all(isinstance(path, str | os.PathLike) for path in listed):
            raise InvalidArgumentError(
                f"paths: expected two or more checkpoints, in the order of training, got {kind_of(paths)}."
            )
        swag: SWAG | None = None
        for path in listed:
            # A file with weights that are NaN is a snapshot with weights that are NaN: collect() says so.
            found = read_reference(path)
            if swag is None:
                first = path
                swag = cls(skeleton({name: _held_wide(tensor) for name, tensor in found.items()}), max_rank=max_rank)
            held = canonical_tensors(swag.model)
            odd = sorted(set(held) ^ set(found))
            odd += [name for name in held if name in found and held[name].shape != found[name].shape]
            if odd:
                raise ReferenceMismatchError(
                    f"{path}: expected the same names and shapes as in {first}, not so for {', '.join(odd[:8])}."
                )
            for name, tensor in held.items():
                tensor.detach().copy_(found[name])
            swag.collect()
        assert swag is not None
        return swag

    @torch.no_grad()
    def collect(self) -> None:
        """Take a snapshot of the weights as they are now.

        Raises:
            InvalidArgumentError: If a weight is NaN or infinite; nothing is collected then.
        """
        now = [info.parameter.detach().to(mean) for info, mean in zip(self._infos, self._mean, strict=True)]
        bad = [i.name for i, value in zip(self._infos, now, strict=True) if not bool(torch.isfinite(value).all())]
        if bad:
            raise InvalidArgumentError(
                f"SWAG: snapshot {self.num_snapshots + 1} has NaN or infinite weights in {', '.join(bad)}; it was not "
                f"collected."
            )
        before = torch._foreach_sub(now, self._mean)
        if self.num_snapshots:
            get_swa_multi_avg_fn()(self._mean, now, self.num_snapshots)
        else:
            torch._foreach_copy_(self._mean, now)
        after = list(torch._foreach_sub(now, self._mean))
        if self.num_snapshots:
            torch._foreach_addcmul_(self._sums, list(before), after)
        self.num_snapshots += 1
        self._deviations.append(after)

    def statistics(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Return mean, variance (of all snapshots) and deviations by parameter name, as `low_rank_prior` takes them.

        Returns:
            Three mappings of copies.

        Raises:
            InvalidArgumentError: If fewer than two snapshots were collected.
        """
        if self.num_snapshots < 2:
            raise InvalidArgumentError(
                f"SWAG: expected two or more snapshots, got {self.num_snapshots}; collect() more."
            )
        names = [info.name for info in self._infos]
        mean = {name: value.clone() for name, value in zip(names, self._mean, strict=True)}
        variance = {name: value / self.num_snapshots for name, value in zip(names, self._sums, strict=True)}
        columns = zip(names, zip(*self._deviations, strict=True), strict=True)
        return mean, variance, {name: torch.stack(list(values), -1) for name, values in columns}

    def reference(self) -> Reference:
        """Return the mean weights, with the model's buffers as they are now: what `load_into` starts a model at.

        Statistics of normalisation layers belong to other weights; `torch.optim.swa_utils.update_bn` makes new ones.

        Returns:
            The reference.
        """
        buffers = {info.name: info.parameter for info in buffers_of(self.model)}
        return Reference({**buffers, **self.statistics()[0]}, f"SWAG of {self.num_snapshots} snapshots")

    @answering
    def prior(
        self, *, scale: float = 1.0, epsilon: float = 0.0, rank: int | None = None, only: Selection | None = None
    ) -> LowRankGaussian:
        """Return N(mean, λ·(½·D + ε·I) + λ·Q·Q'/(2·(K − 1))), with K the number of deviations used.

        Args:
            scale: λ > 0: how much wider than the collected spread. Default 1.
            epsilon: ε ≥ 0, in squared units of the weights; needed where some weights never moved.
            rank: K, the last deviations to use. Default: all that are kept.
            only: Rule key, or a list of them, of the parameters that the prior is over, where the next model has other
                layers besides. Default: all.

        Returns:
            The prior, over the collected parameters as one density.

        Raises:
            InvalidArgumentError: If a number is out of range, or `rank` larger than the number of deviations kept.
            PatternError: If `only` matches nothing.
        """
        mean, variance, deviations = self.statistics()
        kept = len(self._deviations)
        used = kept if rank is None else checks.positive_int("rank", rank)
        if not 2 <= used <= kept:
            raise InvalidArgumentError(
                f"rank: expected 2 to {kept}, the deviations kept of {self.num_snapshots} snapshots, got {used}."
            )
        over = set(mean) if only is None else selected("only", only, self._infos)
        mean, variance = ({name: part[name] for name in part if name in over} for part in (mean, variance))
        chosen = {name: value[..., -used:] for name, value in deviations.items() if name in over}
        source = f"SWAG of {self.num_snapshots} snapshots"
        return low_rank_prior(mean, variance, chosen, scale=scale, epsilon=epsilon, source=source)
