"""Whether a model is linear in the parameters that are trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bayesreg.likelihoods.output import tensor_output
from bayesreg.selection import ParameterInfo

__all__ = ["is_linear"]

# Steps to each side: large ones pass kinks that small ones do not meet.
_STEPS = (1.0, 8.0)


@torch.no_grad()
def is_linear(model: nn.Module, infos: Sequence[ParameterInfo], inputs: Tensor) -> bool:
    """Return whether a model's outputs are linear (or affine) in some of its parameters, by trying.

    f(θ + d) + f(θ − d) = 2 f(θ) for random d: exact, up to rounding, for linear layers and for heads on frozen
    features, and not for networks.

    Args:
        model: The model, in evaluation mode.
        infos: The parameters.
        inputs: Examples.

    Returns:
        Whether it is.
    """
    generator = torch.Generator().manual_seed(0)
    held = {info.raw[0]: info.parameter.detach() for info in infos}
    here = tensor_output(model, inputs[:64])
    for size in _STEPS:
        ways = {
            name: size * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p)
            for name, p in held.items()
        }
        ahead, behind = (
            functional_call(model, {name: p + sign * ways[name] for name, p in held.items()}, (inputs[:64],))
            for sign in (1.0, -1.0)
        )
        bend = ahead + behind - 2.0 * here
        scale = float((ahead.abs() + behind.abs()).max())
        if not float(bend.abs().max()) <= 1e3 * torch.finfo(here.dtype).eps * max(scale, 1e-300):
            return False
    return True
