"""Whether a prior is over the model that is trained."""

from __future__ import annotations

from torch import nn

from bayesreg.errors import CoverageError, InvalidArgumentError
from bayesreg.model_prior.model_prior import ModelPrior
from bayesreg.selection import parameters_of

__all__ = ["check_prior_of"]


def check_prior_of(model: nn.Module, prior: ModelPrior) -> None:
    """Refuse a prior over another model: that would be trained in place of this one.

    Args:
        model: The model.
        prior: Its prior.

    Raises:
        InvalidArgumentError: If they are of other types.
        CoverageError: If the prior is over other parameters.
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model: expected a module, got {type(model).__name__}.")
    if not isinstance(prior, ModelPrior):
        raise InvalidArgumentError(
            f"prior: expected a ModelPrior, got {type(prior).__name__}; write br.ModelPrior(model, prior)."
        )
    own = {id(info.parameter): info.name for info in parameters_of(model) if info.parameter.requires_grad}
    covered = {id(entry.parameter): entry.name for entry, _ in prior.active()}
    strangers = [name for key, name in covered.items() if key not in own]
    uncovered = [name for key, name in own.items() if key not in covered]
    if strangers or uncovered:
        raise CoverageError(
            f"prior: expected a prior over the parameters of the model that is trained; "
            f"{', '.join((strangers or uncovered)[:3])} "
            f"{'belongs to another model' if strangers else 'has no prior in it'}. Build it after the last change "
            f"to the model: br.ModelPrior(model, ...)."
        )
