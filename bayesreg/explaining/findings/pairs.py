"""Matrices that act as a product: decay of both is a belief about the product."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from bayesreg._support.tables import in_short
from bayesreg.explaining.findings.finding import Finding, Situation

__all__ = ["pairs_findings", "pairs_of"]

# What stands for the first factor in a name, and what the other is called beside it.
_PARTNERS = (
    (r"\bq_proj\b", ("k_proj",)), (r"\bv_proj\b", ("o_proj", "out_proj")), (r"\bquery\b", ("key",)),
    (r"\blora_A\b", ("lora_B",)), (r"\bto_q\b", ("to_k",)),
)  # fmt: skip

_ADAPTERS = "For a Gaussian on what adapters add to the weights: br.transfer.lora_prior(model, std)."


def pairs_of(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the weights whose product is what a model computes with: queries and keys, values and outputs, adapters.

    Args:
        names: Of weights.

    Returns:
        The pairs, by name.

    Example:
        >>> pairs_of(["h.0.q_proj.weight", "h.0.k_proj.weight", "h.0.lora_A.default.weight", "h.1.q_proj.weight"])
        [('h.0.q_proj.weight', 'h.0.k_proj.weight')]
    """
    held = dict.fromkeys(name for name in names if name.endswith("weight"))
    found = []
    for name in held:
        for first, others in _PARTNERS:
            if "lora_" in name and "lora" not in first:
                # The adapter of a query has its own partner.
                continue
            partner = next((p for other in others if (p := re.sub(first, other, name)) != name and p in held), None)
            if partner is not None:
                found.append((name, partner))
    return found


def pairs_findings(situation: Situation) -> Iterator[Finding]:
    """Say that decay of two factors is a nuclear norm of their product."""
    decayed = {
        p.name: reading for facts, reading in situation.decayed() for p in facts.parameters if facts.prior is None
    }
    pairs = [
        (one, other) for one, other in pairs_of(decayed)
        if decayed[one].decay == decayed[other].decay and decayed[one].weight_decay == decayed[other].weight_decay
    ]  # fmt: skip
    if not pairs:
        return
    one = pairs[0][0]
    coupled = decayed[one].decay == "coupled"
    shown = in_short([f"{first} and {second.rsplit('.', 2)[-2]}" for first, second in pairs])
    yield Finding(
        "nuclear-norm", "note",
        f"{len(pairs)} pair{'s of weights act' if len(pairs) > 1 else ' of weights acts'} as a product only ({shown}): "
        f"the decay of both factors{'' if coupled else ', were it coupled,'} is weight_decay times the nuclear norm of "
        f"the product, which makes its rank small, more than a Gaussian of each.",
        _ADAPTERS if "lora" in one.lower() else "",
        sum(p.elements for f in situation.groups for p in f.parameters if p.name in {n for pair in pairs for n in pair})
        / max(sum(reading.elements for reading in situation.readings), 1),
    )  # fmt: skip
