"""The Jacobian of a model's outputs in its parameters, not formed where two factors say it all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn import functional as F

from bayesreg.errors import DataError, UnsupportedError
from bayesreg.likelihoods.output import tensor_output
from bayesreg.selection import ParameterInfo

__all__ = ["Block", "Jacobian", "model_jacobian"]


@dataclass(frozen=True)
class Block:
    """The Jacobian in one parameter: all of it, or the two factors of a linear layer's.

    Attributes:
        name: The parameter.
        dense: (examples, outputs, elements), or None.
        inputs: (examples, features) of a linear layer, or None.
        slopes: (examples, outputs, units): derivative of each output in what the layer puts out; or None.
    """

    name: str
    dense: Tensor | None = None
    inputs: Tensor | None = None
    slopes: Tensor | None = None

    def matrix(self) -> Tensor:
        """Return it whole, (examples · outputs, elements), in float64."""
        if self.dense is not None:
            return self.dense.flatten(0, 1).to(torch.float64)
        assert self.inputs is not None
        assert self.slopes is not None
        whole = torch.einsum("nko,ni->nkoi", self.slopes.to(torch.float64), self.inputs.to(torch.float64))
        return whole.reshape(whole.shape[0] * whole.shape[1], -1)

    def gram(self, variance: float | Tensor) -> Tensor:
        """Return J · diag(variance) · Jᵀ, (examples · outputs, examples · outputs), in float64.

        Args:
            variance: One number, or a tensor of the parameter's shape.
        """
        if self.dense is None and not isinstance(variance, Tensor):
            assert self.inputs is not None
            assert self.slopes is not None
            features = self.inputs.to(torch.float64)
            slopes = self.slopes.flatten(0, 1).to(torch.float64)
            outputs = self.slopes.shape[1]
            both = (features @ features.T).repeat_interleave(outputs, 0).repeat_interleave(outputs, 1)
            return variance * both.mul_(slopes @ slopes.T)
        whole = self.matrix()
        weighted = whole * (variance.reshape(-1).to(torch.float64) if isinstance(variance, Tensor) else variance)
        return weighted @ whole.T


@dataclass(frozen=True)
class Jacobian:
    """The outputs of a model and their derivatives.

    Attributes:
        output: What the model puts out, as it is.
        blocks: One per parameter.
    """

    output: Tensor
    blocks: tuple[Block, ...]

    @property
    def rows(self) -> tuple[int, int]:
        """Examples, and outputs of each."""
        return len(self.output), self.output[0].numel()


def model_jacobian(model: nn.Module, infos: Sequence[ParameterInfo], inputs: Tensor) -> Jacobian:
    """Return the Jacobian of a model's outputs in some of its parameters, in evaluation mode.

    Linear and convolutional layers are read off one forward and as many backward passes as there are outputs; other
    parameters are differentiated example by example.

    Args:
        model: The model; left as it is.
        infos: The parameters.
        inputs: All examples.

    Returns:
        The Jacobian.

    Raises:
        DataError: If an output is NaN or infinite.
        UnsupportedError: If examples are not apart from each other in the model's outputs.
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.enable_grad():
            return _jacobian(model, infos, inputs)
    finally:
        for module, mode in training.items():
            module.training = mode


def _jacobian(model: nn.Module, infos: Sequence[ParameterInfo], inputs: Tensor) -> Jacobian:
    taps: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {
        info.module: [] for info in infos if isinstance(info.module, nn.Linear | nn.Conv2d) and not info.shared
    }

    def keep(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        taps[module].append((arguments[0].detach(), output))
        # What is read on may be changed in place by the next layer.
        return output.clone()

    hooks = [module.register_forward_hook(keep) for module in taps]
    try:
        output = tensor_output(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if output.ndim == 0 or len(output) != len(inputs):
        raise UnsupportedError(
            f"model: expected one output per example, got {tuple(output.shape)} for {len(inputs)} examples."
        )
    if not bool(torch.isfinite(output).all()):
        raise DataError(f"model: expected finite outputs, got NaN or infinity from {type(model).__name__}.")
    _require_apart(model, inputs, output)
    read = {module: calls[0] for module, calls in taps.items() if len(calls) == 1 and _readable(module, *calls[0])}
    slopes = _slopes(output.reshape(len(output), -1), [made for _, made in read.values()])
    found: dict[str, Block] = {}
    for (module, (given, _)), slope in zip(read.items(), slopes, strict=True):
        found |= {
            b.name: b
            for b in _layer_blocks(module, [i for i in infos if i.module is module and not i.shared], given, slope)
        }
    rest = [info for info in infos if info.name not in found]
    found |= {block.name: block for block in _one_by_one(model, rest, inputs, output)}
    return Jacobian(output.detach(), tuple(found[info.name] for info in infos))


def _require_apart(model: nn.Module, inputs: Tensor, output: Tensor) -> None:
    """Refuse a model in which an example's output depends on the others."""
    with torch.no_grad():
        alone = tensor_output(model, inputs[:1])
    size = max(1.0, float(output[:1].detach().abs().max()))
    if alone.shape != output[:1].shape or float((alone - output[:1]).detach().abs().max()) > 1e-3 * size:
        raise UnsupportedError(
            f"model: expected the output of an example not to depend on the others in evaluation mode, and that of "
            f"{type(model).__name__} does."
        )


def _readable(module: nn.Module, given: Tensor, made: Tensor) -> bool:
    """Return whether a layer's Jacobian can be read off its inputs and the derivatives in its outputs."""
    if not made.requires_grad:
        return False
    if isinstance(module, nn.Conv2d):
        plain = module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return plain and given.ndim == 4
    return type(module) is nn.Linear and given.ndim >= 2


def _slopes(flat: Tensor, at: list[Tensor]) -> list[Tensor]:
    """Return the derivatives of each output column in each tensor, (examples, outputs, ...)."""
    if not at:
        return []
    columns: list[list[Tensor]] = [[] for _ in at]
    for k in range(flat.shape[1]):
        made = torch.autograd.grad(flat[:, k].sum(), at, retain_graph=True, allow_unused=True)
        for column, grad, tensor in zip(columns, made, at, strict=True):
            column.append(torch.zeros_like(tensor) if grad is None else grad)
    return [torch.stack(column, 1) for column in columns]


def _layer_blocks(module: nn.Module, infos: Sequence[ParameterInfo], given: Tensor, slope: Tensor) -> list[Block]:
    found = []
    for info in infos:
        if info.attribute == "bias":
            # Summed over the places of an image or a sequence.
            units_first = slope if isinstance(module, nn.Conv2d) else slope.movedim(-1, 2)
            found.append(Block(info.name, units_first.reshape(*units_first.shape[:3], -1).sum(3)))
        elif info.attribute != "weight":
            continue
        elif isinstance(module, nn.Conv2d):
            assert not isinstance(module.padding, str)
            patches = F.unfold(given, module.kernel_size, module.dilation, module.padding, module.stride)
            found.append(Block(info.name, torch.einsum("nip,nkop->nkoi", patches, slope.flatten(3)).flatten(2)))
        elif given.ndim == 2:
            found.append(Block(info.name, inputs=given, slopes=slope))
        else:
            summed = torch.einsum("nti,nkto->nkoi", given.flatten(1, -2), slope.flatten(2, -2))
            found.append(Block(info.name, summed.flatten(2)))
    return found


def _one_by_one(model: nn.Module, infos: Sequence[ParameterInfo], inputs: Tensor, output: Tensor) -> list[Block]:
    """Differentiate example by example: norms, embeddings, parameters of one's own, tied and parametrized ones."""
    if not infos:
        return []
    held = {info.raw[0]: info.parameter.detach() for info in infos}
    directions = torch.eye(output[0].numel(), dtype=output.dtype, device=output.device)

    def rows(one: Tensor) -> dict[str, Tensor]:
        def value(weights: dict[str, Tensor]) -> Tensor:
            made: Tensor = functional_call(model, weights, (one.unsqueeze(0),))
            return made.reshape(-1)

        pull: Any = vjp(value, held)[1]
        found: dict[str, Tensor] = vmap(pull)(directions)[0]
        return found

    try:
        made: dict[str, Tensor] = vmap(rows)(inputs)
    except RuntimeError:
        # What cannot be vectorised can be differentiated all the same.
        parts = [_rows_of_one(model, infos, inputs[i : i + 1]) for i in range(len(inputs))]
        made = {name: torch.stack([part[name] for part in parts]) for name in held}
    return [Block(info.name, made[info.raw[0]].detach().reshape(*made[info.raw[0]].shape[:2], -1)) for info in infos]


def _rows_of_one(model: nn.Module, infos: Sequence[ParameterInfo], one: Tensor) -> dict[str, Tensor]:
    flat = tensor_output(model, one).reshape(-1)
    parameters = [info.parameter for info in infos]
    rows: list[list[Tensor]] = [[] for _ in infos]
    for k in range(len(flat)):
        grads = torch.autograd.grad(flat[k], parameters, retain_graph=True, allow_unused=True)
        for row, grad, parameter in zip(rows, grads, parameters, strict=True):
            row.append(torch.zeros_like(parameter) if grad is None else grad)
    return {info.raw[0]: torch.stack(row) for info, row in zip(infos, rows, strict=True)}
