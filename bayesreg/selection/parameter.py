"""One parameter of a model as selectors see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from torch import nn

from bayesreg.errors import CoverageError

__all__ = ["ParameterInfo"]


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter as selectors see it.

    Attributes:
        name: Its name in the plain model, free of `module.`, `_orig_mod.` and the like.
        names: All names it goes by: tied weights have several, `weight_norm` adds the name before it.
        parameter: The parameter, as it is now.
        modules: The modules around it, outermost first; the last one owns it.
        attribute: Its attribute name in the owner.
        shared: The modules around it at its other places, for tied weights.
        keys: The names under which a state dict of the plain model holds it: `names` without those that only stand for
            it.
        raw: The names that it has in `model.named_parameters()`, as the model is: compiled, wrapped, parametrized.
    """

    name: str
    names: tuple[str, ...]
    modules: tuple[nn.Module, ...] = field(repr=False)
    attribute: str
    shared: tuple[tuple[nn.Module, ...], ...] = field(default=(), repr=False)
    keys: tuple[str, ...] = field(default=(), repr=False)
    raw: tuple[str, ...] = field(default=(), repr=False)

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter, looked up afresh: loading with assign=True or sharding replaces the object."""
        owner = self.modules[-1]
        # A scripted module keeps its own kind of dictionary.
        own: Any = owner._parameters
        found = own[self.attribute] if self.attribute in own else owner._buffers.get(self.attribute)
        if found is None:
            raise CoverageError(
                f"{self.name}: the model no longer has this parameter (deleted, pruned, parametrized, or put in "
                f"another form since); build the prior and the optimizer again, as the model is now."
            )
        return cast(nn.Parameter, found)

    @property
    def module(self) -> nn.Module:
        """The module that owns the parameter."""
        return self.modules[-1]
