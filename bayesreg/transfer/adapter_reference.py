"""The update that a prior on adapters is about: an earlier adapter's, in the scaling of this model."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayesreg.errors import PriorFileError, ReferenceMismatchError
from bayesreg.references import Reference, Rename, read_reference
from bayesreg.references.names import rename_hint, renamed
from bayesreg.selection import parameters_of
from bayesreg.transfer.adapter_factors import AdapterPair, find_pairs
from bayesreg.transfer.methods import ReferenceLike

__all__ = ["reference_update"]


def reference_update(
    pairs: Sequence[AdapterPair], reference: ReferenceLike, rename: Rename | None, scaling: float | None
) -> Reference:
    """Return the factors of a reference by this model's names, the left ones in this model's scaling.

    Args:
        pairs: The model's adapters.
        reference: The earlier adapter.
        rename: From names in the reference to names in the model.
        scaling: What multiplied its products, where it does not say.

    Returns:
        Factors of the same update: zeros for adapters that it does not have.

    Raises:
        PriorFileError: If a file cannot be read.
        ReferenceMismatchError: If it has none of the adapters, or half of one.
    """
    said: dict[str, float] = {}
    if isinstance(reference, nn.Module):
        own = find_pairs(parameters_of(reference)) if scaling is None else []
        said = {pair.left.name: pair.scaling for pair in own}
        held: Mapping[str, Tensor] = {info.name: info.parameter.detach() for info in parameters_of(reference)}
        source = type(reference).__name__
        if rename is not None:
            held, _ = renamed(held, rename, source)
            lefts, _ = renamed({name: name for name in said}, rename, source) if said else ({}, [])
            said = {new: said[old] for new, old in lefts.items()}
    else:
        config: dict[str, Any] = {}
        if isinstance(reference, str | os.PathLike) and Path(reference).is_dir():
            folder = Path(reference)
            saved = [folder / f"adapter_model.{ending}" for ending in ("safetensors", "bin")]
            reference, config = next((path for path in saved if path.is_file()), folder), _config(folder)
        loaded = read_reference(reference, rename=rename, extra="ignore")
        held, source = _with_adapter_names(pairs, loaded), loaded.source
        if config:
            said = {
                pair.left.name: _said_by(config, pair, held[pair.right.name])
                for pair in pairs
                if pair.right.name in held
            }
    found = {name for pair in pairs for name in pair.names if name in held}
    halves = [name for pair in pairs for name in pair.names if name not in found and found & set(pair.names)]
    if not found or halves:
        hint = rename_hint([name for pair in pairs for name in pair.names], held)
        what = f"lacks {', '.join(halves)}" if halves else f"has none of {pairs[0].left.name}, ..."
        raise ReferenceMismatchError(
            f"reference {source}: expected the factors of an adapter under this model's names, but it {what};{hint} "
            f"other names are mapped with rename=."
        )
    factors: dict[str, Tensor] = {}
    changed, absent, unsaid = [], [], []
    for pair in pairs:
        left, right = pair.names
        if left not in found:
            absent.append(pair.weight)
            factors |= {
                name: torch.zeros_like(part.parameter) for name, part in ((left, pair.left), (right, pair.right))
            }
            continue
        theirs = said.get(left, scaling)
        if theirs is None:
            theirs = pair.scaling
            unsaid.append(pair.weight)
        elif not math.isclose(theirs, pair.scaling, rel_tol=1e-9):
            changed.append(f"{theirs:g} to {pair.scaling:g}")
        factors[left], factors[right] = held[left] * (theirs / pair.scaling), held[right]
    made = Reference(factors, source)
    others = sorted(name for name in held if name not in found and not isinstance(reference, nn.Module))
    made.notes = tuple(_notes(changed, absent, unsaid, others))
    return made


def _notes(changed: list[str], absent: list[str], unsaid: list[str], others: list[str]) -> list[str]:
    notes = []
    if changed:
        notes.append(f"its factors, scaled from {', '.join(dict.fromkeys(changed))}, are those of the same update here")
    if unsaid:
        notes.append("it does not say its scaling, which is taken to be this model's; another is reference_scaling=")
    if absent:
        notes.append(f"no update of {', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''}: about 0 there")
    if others:
        notes.append(f"not a part of it: {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}")
    return notes


def _with_adapter_names(pairs: Sequence[AdapterPair], held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """PEFT's files leave the adapter's name out: ...lora_A.weight for ...lora_A.default.weight."""
    named = dict(held)
    for name in (name for pair in pairs for name in pair.names):
        tokens = name.split(".")
        options = [".".join([*tokens[:-2], tokens[-1]]), ".".join(tokens[:-1])] if len(tokens) > 2 else []
        for short in options:
            if name not in named and short in held:
                named[name] = named.pop(short)
    return named


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    if not path.is_file():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        return read if isinstance(read, dict) and "lora_alpha" in read else {}
    except (OSError, ValueError) as error:
        raise PriorFileError(f"{path}: not a readable adapter configuration ({error}).") from error


def _said_by(config: Mapping[str, Any], pair: AdapterPair, right: Tensor) -> float:
    """Return PEFT's scaling: α/r, or α/√r for rsLoRA, with the patterns for some layers."""
    layer = pair.weight.removesuffix(".weight")
    patterns = config.get("alpha_pattern") or {}
    key = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", layer)), None)
    alpha = float(config["lora_alpha"] if key is None else patterns[key])
    return alpha / (math.sqrt(len(right)) if config.get("use_rslora") else len(right))
