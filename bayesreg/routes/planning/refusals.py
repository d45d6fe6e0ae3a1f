"""What `br.attach` refuses: decay from elsewhere, parameters held twice, by nobody, or without a prior."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from bayesreg.errors import CoverageError, InvalidArgumentError, UnsupportedError
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.entry import Entry
from bayesreg.optimizers import DecayRule, hand_set_decay
from bayesreg.optimizers.attached import MARK
from bayesreg.priors import Belief

__all__ = ["check_membership", "covered_by", "refuse_decay"]


def covered_by(prior: ModelPrior) -> dict[int, tuple[Entry, Belief]]:
    """Return entry and prior by the identity of the parameter; frozen ones too: they may be unfrozen later."""
    return {id(entry.parameter): (entry, entry.prior) for entry in prior if entry.prior is not None}


def refuse_decay(optimizer: Optimizer, rules: Sequence[DecayRule]) -> None:
    """Raise if the optimizer decays weights by itself; a decay that a prior has set does not count.

    Args:
        optimizer: The optimizer.
        rules: What it does with the decay of each group.

    Raises:
        InvalidArgumentError: If it does.
    """
    name = type(optimizer).__name__
    for index, group in enumerate(optimizer.param_groups):
        if group.get("weight_decay") and not _own(group):
            decay = float(group["weight_decay"])
            parameter = inspect.signature(type(optimizer).__init__).parameters.get("weight_decay")
            whose = f" ({name}'s default)" if parameter is not None and parameter.default == decay else ""
            raise InvalidArgumentError(
                f"{name} param group {index} already has weight_decay={decay:g}{whose}, which would "
                f"count on top of the prior; pass weight_decay=0 and let the prior decide."
            )
        if group.get("lambd"):
            raise InvalidArgumentError(
                f"{name} param group {index} has lambd={group['lambd']:g}, a hidden weight decay on top of the prior; "
                f"pass lambd=0."
            )
    if any(rule.hidden for rule in rules):
        raise InvalidArgumentError(
            f"{name} moves weights whose gradient is zero, with weight_decay at 0: a decay under another name, "
            f"which would count on top of the prior; turn it off."
        )
    if given := hand_set_decay(optimizer):
        raise InvalidArgumentError(
            f"{name} was given weight_decay={given:g} besides a prior; leave it out and let the prior decide."
        )


def _own(group: dict[str, Any]) -> bool:
    return MARK in group and group["weight_decay"] == group[MARK]


def check_membership(optimizers: Sequence[Optimizer], prior: ModelPrior, without_prior: Iterable[Tensor]) -> None:
    """Raise unless the optimizers together hold each trainable parameter of the prior once, and nothing else.

    Args:
        optimizers: The optimizers.
        prior: The prior.
        without_prior: Further parameters that are meant to have no prior.

    Raises:
        CoverageError: If they do not.
        UnsupportedError: If the model is wrapped by FSDP1.
    """
    covered = covered_by(prior)
    held = [parameter for o in optimizers for group in o.param_groups for parameter in group["params"]]
    # With use_orig_params=True the parameters look like their own, and are views into a flat one.
    flat = [p for p in held if type(p).__name__ == "FlatParameter" or getattr(p, "_fsdp_flattened", False)]
    if flat:
        raise UnsupportedError(
            "the model is wrapped by FSDP1, which joins weights and biases in flat parameters (with "
            "use_orig_params=True too, of which each process then holds pieces), so a prior would see a part of them; "
            "use torch.distributed.fsdp.fully_shard (FSDP2)."
        )
    counts: dict[int, int] = {}
    for parameter in held:
        counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    missing = [e.name for key, (e, _) in covered.items() if key not in counts and e.parameter.requires_grad]
    if missing and not any(key in counts for key in covered):
        raise CoverageError(
            "the prior is over another model: the optimizer holds none of its parameters; make the prior of the model "
            "that this optimizer trains (as it is now, after wrapping, sharding or copying)."
        )
    several = "the optimizer does" if len(optimizers) == 1 else "the optimizers do"
    if missing:
        raise CoverageError(
            f"{several} not hold {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}, which the prior "
            f"covers; build it from prior.param_groups() or model.parameters(), after the model was wrapped or "
            f"sharded, or add what was unfrozen: for group in prior.param_groups(only={missing[:12]!r}): "
            f"optimizer.add_param_group(group); if several optimizers share the model: br.attach([first, second], "
            f"prior, ...); freeze what is not to be trained: requires_grad_(False)."
        )
    twice = [e.name for key, (e, _) in covered.items() if counts.get(key, 0) > 1]
    if twice:
        raise CoverageError(f"{', '.join(twice[:5])}: held by more than one optimizer, so its prior would count twice.")
    free = {id(parameter) for parameter in without_prior}
    strangers = [p for p in held if p.requires_grad and id(p) not in covered and id(p) not in free]
    if strangers:
        whose = "the optimizer holds" if len(optimizers) == 1 else "the optimizers hold"
        raise CoverageError(
            f"{whose} {len(strangers)} trainable parameters that the prior does not cover (the first of shape "
            f"{tuple(strangers[0].shape)}); build the prior from the model that is trained."
        )
