"""What a weight decay becomes when the run changes: the belief kept, the memory kept, and what is commonly copied."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, overload

from torch.optim import Optimizer

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg._support.tables import Table, Tabled
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.horizon.noise import noise_share
from bayesreg.horizon.run import Run, run_of
from bayesreg.optimizers import DecayRule, OptimizerLike, decay_rule, unwrap
from bayesreg.optimizers.bounds import bound_of

__all__ = ["Adapted", "adapt_weight_decay"]

Reading: TypeAlias = Literal["Gaussian", "noise", "not checked", "bound"]

# Of v̂: from how little noise on AdamW's decay is a bound more than a belief, before and after.
_NOISY, _NOISY_AFTER = 0.9, 0.5
# k below which, as a rule, weights are not at rest.
_REST = 3.0
_ADAPTIVE = ("AdamW", "Adam", "NAdam", "RAdam")


@dataclass(frozen=True, repr=False)
class Adapted(Tabled):
    """A weight decay for another run; made by `br.adapt_weight_decay`.

    Attributes:
        weight_decay: Keeps the belief: the prior that the decay stands for at rest. Not the optimum.
        keeps_memory: Keeps the memory in epochs, batch_size/(lr · weight_decay · num_data); None where decay has none.
        copied_rules: What rules that people copy would make of it, by name.
        regime: "Gaussian": a coupled decay, exact. "noise": a decoupled one whose gradients are mostly noise, read from
            the optimizer's state. "not checked": the same without a state to read. "bound": it bounds the weights.
        noise_share: Of v̂, the share that is noise; None where it was not read.
        why: In words.
        before: The weight decay before.
        notes: What else there is to say.
        optimizer: Its name.
        keeps_sum: Keeps the sum of lr x weight_decay; None where the length of a run is not known.
        advised: Which of them to set: `keeps_sum` where the weights did not come to rest before, else `weight_decay`.
    """

    weight_decay: float
    keeps_memory: float | None
    copied_rules: dict[str, float]
    regime: Reading
    noise_share: float | None
    why: str
    before: float
    notes: tuple[str, ...] = field(default=())
    optimizer: str = ""
    keeps_sum: float | None = None
    advised: float = math.nan

    @property
    def agree(self) -> bool:
        """Whether belief and memory ask for the same, to a hundredth."""
        return self.keeps_memory is not None and math.isclose(self.weight_decay, self.keeps_memory, rel_tol=0.01)

    def table(self) -> Table:
        """Return it as a table."""
        rows: list[tuple[Any, ...]] = [("keeps the belief", self.weight_decay, self._times(self.weight_decay))]
        if self.keeps_memory is not None:
            rows.append(("keeps the memory in epochs", self.keeps_memory, self._times(self.keeps_memory)))
        rows += [(name, value, self._times(value)) for name, value in self.copied_rules.items()]
        title = f"{self.optimizer}'s weight_decay={self.before:g} in the other run"
        so = f"So here: weight_decay={self.advised:.4g}."
        return Table(title, ("rule", "weight_decay", "times"), rows, (self.why, *self.notes, so))

    def _times(self, value: float) -> float | None:
        return value / self.before if self.before else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {**asdict(self), "notes": list(self.notes), "agree": self.agree}


@overload
def adapt_weight_decay(
    weight_decay: float, *, optimizer: OptimizerLike, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Adapted: ...


@overload
def adapt_weight_decay(
    weight_decay: float | Sequence[float],
    *,
    optimizer: list[Any] | tuple[OptimizerLike, ...],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> list[Adapted]: ...


@answering
def adapt_weight_decay(
    weight_decay: float | Sequence[float],
    *,
    optimizer: OptimizerLike | Sequence[OptimizerLike],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> Adapted | list[Adapted]:
    """Say what a weight decay should become when batch size, learning rate, data or length of a run change.

    What is kept is the belief, the prior that the decay stands for at rest, not the optimum. A coupled decay is the
    Gaussian of variance 1/(num_data · weight_decay): λ' = λ·n/n', whatever the batch size. A decoupled one in AdamW
    stands for the precision num_data · weight_decay · (√v̂ + ε) of each weight, and where gradients are mostly noise √v̂
    goes with 1/√batch_size: λ' = λ·√(B'/B)·(n/n'), whatever the learning rate. With learning rates scaled by √(B'/B)
    that keeps the memory, 1/(ηλ) steps, in epochs too. Under Muon and Lion a decay is a bound, 1/λ, which stays.

    Args:
        weight_decay: λ before, >= 0; of several optimizers one for all, or a list.
        optimizer: A class, a name, a factory, or the optimizer itself: after some steps its state says how much of its
            gradients is noise, and the rule is refused where that is little. A list of those that share the model,
            such as Muon for matrices and AdamW for the rest.
        before: Of the run: `batch_size`, `lr` (at its peak) and `num_data`; `steps` or `epochs` tell whether the
            weights come to rest, more exactly with `schedule` ("constant", "linear", "cosine" or a factory optimizer →
            scheduler) and `warmup` (steps, or a share). Of several optimizers `lr` is one for all, or a list.
        after: What is different in the other run; what is not there stays, a length as `steps` or `epochs`, as given.

    Returns:
        The decay that keeps the belief, the one that keeps the memory, and what copied rules make of it; of several
        optimizers a list of such, in their order.

    Raises:
        InvalidArgumentError: If a run lacks something, or has what it cannot have.
        UnsupportedError: If the optimizer's decay is no belief that is known, or its gradients are mostly signal.

    Example:
        >>> import torch
        >>> before = {"batch_size": 64, "lr": 1e-3, "num_data": 1e6}
        >>> found = adapt_weight_decay(0.1, optimizer=torch.optim.AdamW, before=before, after={"batch_size": 256})
        >>> found.weight_decay, round(found.keeps_memory, 3), found.agree
        (0.2, 0.4, False)
        >>> scaled = {"batch_size": 256, "lr": 2e-3}
        >>> adapt_weight_decay(0.1, optimizer=torch.optim.AdamW, before=before, after=scaled).agree
        True
        >>> both, before["lr"] = [torch.optim.Adam, torch.optim.AdamW], [1e-3, 3e-4]
        >>> found = adapt_weight_decay(0.1, optimizer=both, before=before, after={"batch_size": 256})
        >>> [(one.optimizer, one.weight_decay) for one in found]
        [('Adam', 0.1), ('AdamW', 0.2)]

    References:
        Wang & Aitchison (2024), How to set AdamW's weight decay as you scale model and dataset size, section 3; Malladi
        et al. (2022), On the SDEs and Scaling Rules for Adaptive Gradient Algorithms.
    """
    if isinstance(optimizer, list | tuple):
        return _of_several(weight_decay, optimizer, before, after)
    return _of_one(weight_decay, optimizer, before, after)  # type: ignore[arg-type]


def _of_several(
    decay: object, optimizers: Sequence[OptimizerLike], before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[Adapted]:
    count = len(optimizers)
    if not count:
        raise InvalidArgumentError("optimizer: expected at least one, got an empty list.")

    def each(name: str, given: Any) -> list[Any]:
        if not isinstance(given, list | tuple):
            return [given] * count
        if len(given) != count:
            raise InvalidArgumentError(f"{name}: expected one number, or one of each of {count}, got {len(given)}.")
        return list(given)

    def runs(name: str, given: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        if not isinstance(given, Mapping) or "lr" not in given:
            return [given] * count
        return [{**given, "lr": rate} for rate in each(f"{name} lr", given["lr"])]

    decays, firsts, seconds = each("weight_decay", decay), runs("before", before), runs("after", after)
    return [_of_one(*parts) for parts in zip(decays, optimizers, firsts, seconds, strict=True)]


def _of_one(
    weight_decay: float, optimizer: OptimizerLike, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Adapted:
    decay = checks.non_negative_float("weight_decay", weight_decay)
    first = run_of("before", before, {})
    second = run_of("after", after, before)
    rule = decay_rule(optimizer)
    batch, rate = second.batch_size / first.batch_size, second.lr / first.lr
    data = first.num_data / second.num_data
    memory: float | None = decay * batch * data / rate
    summed = decay / rate * first.at_peak / second.at_peak if first.at_peak and second.at_peak else None
    share, notes = None, _length(first, second)
    if rule.kind == "coupled" and not rule.hidden:
        regime: Reading = "Gaussian"
        kept = decay * data
        why = (
            f"{rule.name} adds the decay to the gradient: it is the Gaussian of variance 1/(num_data x weight_decay), "
            f"whatever batch size and learning rate."
        )
        if rule.name != "SGD":
            # What it divides the gradient by also divides the decay.
            memory = None
    elif rule.kind == "decoupled" and bound_of(rule.name, 1.0) is not None:
        regime, kept = "bound", decay
        bound = bound_of(rule.name, 1.0)
        what = "singular values" if bound is not None and bound.spectral else "weights"
        why = f"{rule.name} steps by signs of {what}, so its decay bounds them by about 1/weight_decay, in any run."
    elif rule.kind == "decoupled" and _is_adaptive(rule):
        share = noise_share(unwrap(optimizer)) if isinstance(optimizer, Optimizer) else None
        if share is not None:
            _require_noise(rule.name, share, batch)
        regime = "not checked" if share is None else "noise"
        noisy = 1.0 if share is None else share
        kept = decay * data / math.sqrt(1.0 - noisy + noisy / batch)
        why = (
            f"{rule.name}'s decay stands for the precision num_data x weight_decay x sqrt(v) of each weight, and where "
            f"gradients are mostly noise sqrt(v) goes with 1/sqrt(batch size)"
            f"{'; whether they are was not checked.' if share is None else f' ({100.0 * share:.0f} % by its state).'}"
        )
        notes += _at_rest(decay, first, second, kept, summed)
    else:
        raise UnsupportedError(
            f"{rule.name}: expected an optimizer whose weight_decay is a belief that is known (SGD, Adam and their kin "
            f"with coupled decay, AdamW, Muon, Lion), and its own is {rule.kind!r}."
        )
    copied = {"weight_decay unchanged": decay, "weight_decay with batch size": decay * batch}
    copied["lr x weight_decay kept"] = decay / rate
    if summed is not None:
        copied["sum of lr x weight_decay kept"] = summed
    resting = first.at_peak is None or first.lr * decay * first.at_peak >= _REST
    advised = summed if regime in ("noise", "not checked") and summed is not None and not resting else kept
    return Adapted(kept, memory, copied, regime, share, why, decay, tuple(notes), rule.name, summed, advised)


def _require_noise(name: str, share: float, batch: float) -> None:
    later = share / batch / (1.0 - share + share / batch)
    if share >= _NOISY and later >= _NOISY_AFTER:
        return
    which = f"{100.0 * share:.0f} % of their square is"
    if share >= _NOISY:
        which += f", and {100.0 * later:.0f} % will be at the other batch size"
    raise UnsupportedError(
        f"optimizer: expected gradients that are mostly noise, as {name}'s weight_decay is a belief only there; by its "
        f"state {which}. Then it is more of a bound on the weights, and no factor keeps a belief; for one, set "
        f"weight_decay=0 and br.attach a prior."
    )


def _is_adaptive(rule: DecayRule) -> bool:
    return rule.name in _ADAPTIVE or (rule.probed and rule.name.lower() in ("adamw", "nadamw", "radamw"))


def _at_rest(decay: float, first: Run, second: Run, kept: float, summed: float | None) -> list[str]:
    keeps = "" if summed is None else f" (weight_decay={summed:.4g} keeps it)"
    notes = []
    if first.steps is None and second.steps is None:
        notes.append(
            f"With steps or epochs it says whether weights come to rest: where lr x weight_decay sums to less than "
            f"about {_REST:g}, that sum counts more than the belief."
        )
    for name, run, here in (("Before", first, decay), ("After", second, kept)):
        if run.steps is None or run.at_peak is None:
            continue
        k = run.lr * here * run.at_peak
        if k < _REST:
            said = "k is" if run.scheduled else "at the peak rate k is at most"
            notes.append(
                f"{name}: over {run.steps:,.0f} steps {said} {k:.2g} with weight_decay={here:.4g}: weights do not come "
                f"to rest, and what counts is the sum of lr x weight_decay more than the belief"
                f"{keeps if name == 'Before' else ''}."
            )
    return notes


def _length(first: Run, second: Run) -> list[str]:
    """Say how long the other run was taken to be, where that is another number of epochs or steps."""
    if first.steps is None or second.steps is None or not second.as_before:
        return []
    old, new = (f"{run.epochs:.3g} epochs, {run.steps:,.0f} steps" for run in (first, second))
    if old == new:
        return []
    return [f"After: {second.as_before} as before, so that {old} become {new}; pass its own steps or epochs if not."]
