"""A module that has the parameters of a checkpoint and does nothing: for work on files without the model's code."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from bayesreg.errors import ReferenceMismatchError

__all__ = ["skeleton"]

# Floating tensors that normalisation layers keep beside their parameters.
_STATISTICS = ("running_mean", "running_var")


def skeleton(tensors: Mapping[str, Tensor], *, parameters: bool = False) -> nn.Module:
    """Return a module whose state dict has these names: parameters, and buffers where they are integers or statistics.

    Args:
        tensors: By name; not copied.
        parameters: Whether all are parameters, those of integers frozen.

    Returns:
        The module.

    Raises:
        ReferenceMismatchError: If a name is both a tensor and a prefix of others, or has nothing between two dots.

    Example:
        >>> import torch
        >>> model = skeleton({"layer.weight": torch.ones(2, 3), "norm.running_mean": torch.zeros(2)})
        >>> [name for name, _ in model.named_parameters()], [name for name, _ in model.named_buffers()]
        (['layer.weight'], ['norm.running_mean'])
    """
    root = nn.Module()
    for name, tensor in tensors.items():
        *path, attribute = name.split(".")
        if not all((*path, attribute)):
            raise ReferenceMismatchError(f"{name!r}: expected a name of words between dots, such as layer.weight.")
        module = root
        for part in path:
            if part in module._parameters or part in module._buffers:
                raise ReferenceMismatchError(f"{name}: {part} is a tensor and the prefix of other names.")
            inner = module._modules.get(part)
            if inner is None:
                inner = nn.Module()
                module._modules[part] = inner
            module = inner
        if attribute in module._modules:
            raise ReferenceMismatchError(f"{name}: is a tensor and the prefix of other names.")
        learned = tensor.is_floating_point() and attribute not in _STATISTICS
        if learned or parameters:
            trained = tensor.is_floating_point() or tensor.is_complex()
            module._parameters[attribute] = nn.Parameter(tensor, requires_grad=trained)
        else:
            module._buffers[attribute] = tensor
    return root
