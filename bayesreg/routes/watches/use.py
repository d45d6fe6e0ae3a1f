"""Whether an optimizer uses `.grad` at its step: one gradient of each group is watched for a step or a few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bayesreg.errors import UnsupportedError

__all__ = ["UseWatch"]

_SAMPLE, _STEPS, _RUNNING = 4096, 16, 3
# Looking at these is not using a gradient.
_ABOUT = frozenset({
    "dtype", "device", "shape", "layout", "is_sparse", "is_cuda", "is_cpu", "is_mps", "is_meta", "is_leaf",
    "is_complex", "is_floating_point", "is_contiguous", "is_quantized", "is_mkldnn", "size", "stride", "dim", "ndim",
    "numel", "names", "element_size", "requires_grad", "grad_fn", "grad", "type", "_version", "__class__", "__repr__",
    "__format__", "__hash__",
})  # fmt: skip


class _Watched(Tensor):
    """A gradient that notes whether anything is computed from it; what is computed are plain tensors."""

    used = False

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", "")
        if name not in _ABOUT:
            _Watched.used = True
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


class UseWatch:
    """Watches the first steps of an optimizer that is not known to use `.grad` as it is at the step.

    Args:
        optimizer: The optimizer.
        groups: The indices of its groups to watch.
    """

    def __init__(self, optimizer: Optimizer, groups: Sequence[int]) -> None:
        self._optimizer = optimizer
        self._left = dict.fromkeys(groups, 0)
        self._armed: list[tuple[int, Tensor, Tensor, Tensor]] = []
        self._without: dict[int, tuple[Tensor, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._left)

    def arm(self, *, between: bool = True) -> None:
        """Watch from now, when the prior's gradient has just been added, to the end of the step.

        Args:
            between: Whether this is right before a step without a closure, where gradients must be there.
        """
        # A gradient that is another class breaks the tracing of a compiled step.
        if torch.compiler.is_compiling():
            return
        self.disarm()
        _Watched.used = False
        for index in list(self._left):
            group = self._optimizer.param_groups[index]
            trained = [p for p in group["params"] if p.requires_grad]
            held = [p for p in trained if type(p.grad) is Tensor and p.grad.layout is torch.strided and not p.is_meta]
            if held:
                self._without.pop(index, None)
                smallest = min(held, key=Tensor.numel)
                self._armed.append((index, smallest, smallest.grad, _sample(smallest)))
                smallest.grad.__class__ = _Watched
            elif between and trained and all(p.grad is None for p in trained):
                self._look_without(index, min(trained, key=Tensor.numel))

    def disarm(self) -> None:
        """Make every watched gradient a plain tensor again."""
        for _, _, grad, _ in self._armed:
            if type(grad) is _Watched:
                grad.__class__ = Tensor  # type: ignore[assignment]
        self._armed = []

    def judge(self) -> None:
        """Look, after the step, whether the gradients were used where weights moved.

        Raises:
            UnsupportedError: If they were not.
        """
        armed, used = self._armed, _Watched.used
        self.disarm()
        for index, parameter, _, before in armed:
            moved = not torch.equal(_sample(parameter), before)
            if moved and not used:
                raise UnsupportedError(_words(self._optimizer, "the weights moved and .grad was not looked at"))
            self._left[index] += 1
            if moved or self._left[index] >= _STEPS:
                del self._left[index]

    def _look_without(self, index: int, parameter: Tensor) -> None:
        last, times = self._without.get(index, (None, 0))
        now = _sample(parameter)[:64]
        times = times + 1 if last is not None and not torch.equal(now, last) else 0
        if times >= _RUNNING:
            raise UnsupportedError(_words(self._optimizer, "the weights move and have no .grad at the step"))
        self._without[index] = (now, times)


def _sample(parameter: Tensor) -> Tensor:
    return parameter.detach().flatten()[:_SAMPLE].clone()


def _words(optimizer: Optimizer, seen: str) -> str:
    return (
        f"{type(optimizer).__name__} takes its gradients before step() ({seen}), so a prior that is added to them "
        f"there is lost. Attach it anew, after handle.remove(), with br.attach(..., before_clip=True) and call "
        f"handle.apply_() where the gradients are complete and not taken yet (IVON: inside `with "
        f"sampled_params(...)`, after backward()); or with br.attach(..., route='loss') and add handle.penalty() to "
        f"the loss."
    )
