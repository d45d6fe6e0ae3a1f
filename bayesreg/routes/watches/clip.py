"""Whether the loop clips gradients between backward and step, where a prior that is added after it counts for more.

Two kinds of evidence: that something changed `.grad` since it was accumulated, on a few probes; and the mark that a
clip leaves, the same norm in many steps, which is the largest of them.
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from bayesreg.errors import ClipAfterPriorWarning

__all__ = ["ClipWatch"]

_LOOKS, _SAMPLE = 24, 64
# After how many looks it decides; on an accelerator each look waits for the device, so there are fewer.
_DECIDES = (4, 8, 16, 24)
_ON_ACCELERATOR = (1, 2, 3, 4, 8, 16)
# Without a record of what was accumulated (gradients that are set by hand, sharded ones) it looks a few times only.
_UNRECORDED = 6
_HALF = (torch.float16, torch.bfloat16)
# Elements up to which the largest one is looked for too: a clip by it is rare.
_SMALL = 2**20


@dataclass(frozen=True)
class _Look:
    """What one step showed: how the probes changed, by what factor, and the norms of the gradients."""

    kind: str
    factor: float | None = None
    level: float | None = None
    norms: Tensor | None = None
    direction: Tensor | None = None


class ClipWatch:
    """Watches the first steps of the optimizers of one handle, and warns once.

    Args:
        optimizers: The optimizers; a clip may be over the parameters of all of them.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._probes = {id(one): _probes(one) for one in optimizers}
        self._waiting: dict[int, list[_Look]] = {}
        #: Samples of the gradients as they were accumulated.
        self._records: dict[int, Tensor] = {}
        self._looks: list[_Look] = []
        self._steps, self._unrecorded = 0, 0
        self._low = False
        # Weak: a hook of a parameter must not keep alive what holds the parameter.
        this = weakref.ref(self)

        def record(parameter: Tensor) -> None:
            watch = this()
            if watch is not None:
                watch._record(parameter)

        self._hooks = [
            probe.register_post_accumulate_grad_hook(record)
            for probe in {id(p): p for probes in self._probes.values() for p in probes}.values()
        ]

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def close(self) -> None:
        """Stop watching."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._records, self._waiting = [], {}, {}

    def _record(self, parameter: Tensor) -> None:
        grad = parameter.grad
        if grad is not None and type(grad) is Tensor and grad.layout is torch.strided and not _compiling():
            self._records[id(parameter)] = _sample(grad).clone()

    @torch.no_grad()
    def look(self, optimizer: Optimizer) -> None:
        """Look right before the prior's gradient is added."""
        if not self._hooks or _compiling():
            return
        # One look is over a step of each of the optimizers.
        if id(optimizer) in self._waiting:
            self._end_look()
        probes = self._probes.get(id(optimizer), [])
        skip = any(p.device.type != "cpu" for p in probes) and self._steps + 1 not in _ON_ACCELERATOR
        self._waiting[id(optimizer)] = [] if skip else [self._seen(optimizer, probes)]
        for probe in probes:
            self._records.pop(id(probe), None)
        if len(self._waiting) == len(self._probes):
            self._end_look()

    def _seen(self, optimizer: Optimizer, probes: Sequence[Tensor]) -> _Look:
        kinds: list[tuple[str, float | None]] = []
        for probe in probes:
            before, grad = self._records.get(id(probe)), probe.grad
            if before is not None and grad is not None:
                kinds.append(_change(before, _sample(grad)))
        kind, number = _worst(kinds)
        factor, level = (number, None) if kind == "scaled" else (None, number if kind == "clamped" else None)
        if kind not in ("scaled", "per tensor", "other", "no record"):
            return _Look(kind, factor, level)
        trained = [p for group in optimizer.param_groups for p in group["params"] if type(p.grad) is Tensor]
        grads = [p.grad for p in trained if p.grad is not None and not p.grad.is_sparse and p.grad.is_floating_point()]
        grads = [grad for grad in grads if grad.numel()]
        if not grads or len({grad.device for grad in grads}) > 1 or grads[0].device.type == "mps":
            return _Look(kind, factor)
        self._low |= any(grad.dtype in _HALF for grad in grads)
        # GradScaler leaves its scale here for fused optimizers.
        amp = getattr(optimizer, "grad_scale", None)
        scale = 1.0 if amp is None else float(amp)
        wide = torch.float64 if any(grad.dtype is torch.float64 for grad in grads) else torch.float32
        norms = torch.stack(torch._foreach_norm(grads, dtype=wide)).double() / scale
        matrices = torch.tensor([grad.ndim > 1 for grad in grads], device=norms.device)
        largest = torch.zeros((), dtype=torch.float64, device=norms.device)
        if sum(map(Tensor.numel, grads)) <= _SMALL:
            largest = torch.stack(torch._foreach_norm(grads, ord=math.inf, dtype=wide)).max().double() / scale
        squares = norms.square()
        found = torch.stack([squares.sum(), (squares * matrices).sum(), largest.square()])
        largest_grad = probes[-1].grad if probes else None
        big = None if largest_grad is None else _sample(largest_grad)
        direction = None if big is None else big.float() / big.float().norm().clamp_min(1e-30)
        return _Look(kind, factor, level, found, direction)

    def _end_look(self) -> None:
        """Put together what the optimizers showed in one step: a clip may be over all of them."""
        seen = [look for looks in self._waiting.values() for look in looks]
        self._waiting = {}
        self._steps += 1
        if seen:
            order = ("scaled", "clamped", "per tensor", "other", "nonfinite", "no record", "power of two", "same")
            worst = min(seen, key=lambda look: order.index(look.kind))
            with_norms = [look.norms for look in seen if look.norms is not None]
            norms = None
            if with_norms and len(with_norms) == len(seen):
                together = torch.stack([one.to(with_norms[0].device) for one in with_norms])
                norms = torch.cat([together[:, :2].sum(0), together[:, 2:].amax(0)]).sqrt()
            self._looks.append(_Look(worst.kind, worst.factor, worst.level, norms, worst.direction))
            self._unrecorded += worst.kind == "no record"
        if len(self._looks) in _DECIDES or self._steps >= _LOOKS:
            said = self._verdict()
            if said is not None:
                self.close()
                warnings.warn(
                    f"clip-after-prior: {said}, so the prior, which is added after that, counts for more than it says; "
                    f"attach it with before_clip=True and call handle.apply_() between backward() and the clip.",
                    ClipAfterPriorWarning,
                    stacklevel=8,
                )
        if self._steps >= _LOOKS or self._unrecorded >= _UNRECORDED:
            self.close()

    def _verdict(self) -> str | None:
        levels = [look.level for look in self._looks if look.level is not None]
        if len(levels) >= 2 and max(levels) - min(levels) < 1e-3 * max(levels):
            return f"gradients are clipped to values within ±{max(levels):.3g} ({len(levels)} of {self._steps} steps)"
        factors = [_up_to_powers_of_two(look.factor) for look in self._looks if look.factor]
        if len(factors) >= 3 and max(factors) - min(factors) <= 1e-5 * max(factors):
            return None  # a constant factor, such as a mean over micro-batches
        need, tolerance = (8, 8e-3) if self._low else (3, 2e-5)
        pairs = [(look.norms, look.direction) for look in self._looks if look.norms is not None]
        if len(pairs) < need:
            return None
        for column, of in enumerate(("norm", "norm of matrices", "largest element")):
            sizes = [float(norms[column]) for norms, _ in pairs]
            top = max(sizes)
            at = [index for index, size in enumerate(sizes) if size >= top * (1.0 - tolerance) > 0.0]
            turns = [d for d in (pairs[index][1] for index in at) if d is not None]
            turned = max((float((turns[0] - other).norm()) for other in turns[1:]), default=0.0)
            if len(at) >= need and turned > 1e-3 and math.isfinite(top):
                return f"gradients are clipped to a {of} of {top:.3g} ({len(at)} of {self._steps} steps)"
        return None


def _probes(optimizer: Optimizer) -> list[Tensor]:
    """Return the smallest, a middle and the largest parameter that is trained."""
    trained = {id(p): p for group in optimizer.param_groups for p in group["params"] if p.requires_grad and p.is_leaf}
    usable = (p for p in trained.values() if p.is_floating_point() and p.numel() and not p.is_meta)
    by_size = sorted(usable, key=Tensor.numel)
    return by_size if len(by_size) < 3 else [by_size[0], by_size[len(by_size) // 2], by_size[-1]]


def _sample(grad: Tensor) -> Tensor:
    flat = grad.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // _SAMPLE)][:_SAMPLE]


def _change(before: Tensor, now: Tensor) -> tuple[str, float | None]:
    """Return how a gradient was changed since it was accumulated."""
    tolerance = 1e-2 if before.dtype in _HALF else 1e-5
    if before.dtype != torch.float64:
        before, now = before.float(), now.float()
    if before.shape != now.shape or torch.equal(before, now):
        return "same", None
    if not (before.isfinite().all() and now.isfinite().all()):
        return "nonfinite", None
    large = before.abs() > before.abs().max() * 1e-3
    ratios = now[large] / before[large]
    if not len(ratios):
        return "other", None
    middle = float(ratios.median())
    if float((ratios - middle).abs().max()) <= tolerance * abs(middle):
        power = math.log2(abs(middle)) if middle else 0.5
        return ("power of two", None) if middle > 0 and abs(power - round(power)) < 1e-6 else ("scaled", middle)
    changed = now != before
    levels = now[changed].abs()
    top = float(levels.max())
    clamped = (
        top > 0.0 and top - float(levels.min()) <= tolerance * top and bool((before[changed].abs() >= levels).all())
    )
    return ("clamped", top) if clamped else ("other", None)


def _worst(kinds: Sequence[tuple[str, float | None]]) -> tuple[str, float | None]:
    """Return what the probes show together: one factor over all tensors, or each its own."""
    factors = [number for kind, number in kinds if kind == "scaled" and number is not None]
    if len(factors) > 1 and max(factors) - min(factors) > 1e-3 * max(map(abs, factors)):
        return "per tensor", None
    for kind in ("scaled", "clamped", "other", "nonfinite", "power of two", "same"):
        for found, number in kinds:
            if found == kind:
                return kind, number
    return "no record", None


def _up_to_powers_of_two(factor: float) -> float:
    """Return a factor without what a GradScaler multiplies it by as it grows and backs off."""
    return abs(factor) / 2.0 ** round(math.log2(abs(factor)) - 0.25)


def _compiling() -> bool:
    return bool(torch.compiler.is_compiling())
