"""A prior on what low-rank adapters add to the pretrained weights."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from torch import Tensor, nn

from bayesreg import _checks
from bayesreg.errors import CoverageError, InvalidArgumentError, PatternError, nearest
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import AdapterGaussian, Flat, Prior
from bayesreg.priors.tensors import Hyperparameter
from bayesreg.references import Reference, Rename, read_reference
from bayesreg.selection import SelectorLike, as_selector, biases, norms, parameters_of, where
from bayesreg.transfer.adapter_factors import AdapterPair, find_pairs
from bayesreg.transfer.methods import ReferenceLike

__all__ = ["UpdateScales", "lora_prior"]

_FREE = biases | norms | where(lambda info: "lora_magnitude_vector" in info.name, "DoRA's magnitudes")

UpdateScales: TypeAlias = "Hyperparameter | Mapping[SelectorLike, Hyperparameter]"


def lora_prior(
    model: nn.Module,
    scale: UpdateScales,
    *,
    head: Prior | Mapping[SelectorLike, Prior] | None = None,
    scaling: float | None = None,
    factors: Sequence[tuple[str, str]] | None = None,
    reference: ReferenceLike | None = None,
    rename: Rename | None = None,
) -> ModelPrior:
    """Return N(0, scale²) on the elements of the merged updates of a model's LoRA adapters.

    The penalty is ½·‖scaling·B·A‖²/scale² nats for each adapted weight: L2-SP for adapters, the prior that full
    fine-tuning about the pretrained weights would have. Found are the adapters that are trained now: layers of PEFT
    (linear, embedding and convolution; rsLoRA; DoRA, whose direction it is on), and others that call their factors
    lora_A and lora_B (lora_a, lora_down and lora_up), of shapes (r, ...) and (p, r).

    Args:
        model: The model with its adapters.
        scale: Standard deviation > 0 of the elements of an update, in units of the weights: a number, or a mapping from
            rule keys (globs over names of the adapted weights, in the model with or without adapters) to numbers or to
            tensors of the weight's shape, as a diagonal posterior of the pretrained weights has them. A tensor's update
            is formed a few rows at a time.
        head: The prior of the weights that are trained besides (a new head), or rules for whatever else is trained.
            Biases, normalisation and DoRA's magnitudes stay flat unless a rule takes them.
        scaling: What multiplies B·A in every layer, α/r. Default: what the layers say.
        factors: Pairs (left, right) of parameter names, where they have other names; needs `scaling`.
        reference: The factors of the update that the prior is about: an earlier adapter's file, directory or state
            dict, or the model itself for the factors that it has now (PiSSA and the like subtract their start from the
            weights). Default: no update.
        rename: From names in the reference to names in the model.

    Returns:
        The prior.

    Raises:
        InvalidArgumentError: If no adapter is found, `scaling` is not known, or a number is out of range.
        CoverageError: If other weights are trained and `head` is not given, or `scale` leaves an adapter out.
        PatternError: If a rule matches nothing.
        ReferenceMismatchError: If the reference does not fit.
        UnsupportedError: If an adapter adds something else than scaling·B·A (AdaLoRA, several experts).

    Example:
        >>> import torch, bayesreg as br
        >>> class LoRALinear(nn.Module):
        ...     def __init__(self, base, rank=2, alpha=4.0):
        ...         super().__init__()
        ...         self.base, self.scaling = base.requires_grad_(False), alpha / rank
        ...         self.lora_A = nn.Parameter(torch.randn(rank, base.in_features))
        ...         self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))
        >>> model = nn.Sequential(LoRALinear(nn.Linear(8, 6)), nn.ReLU(), nn.Linear(6, 2))
        >>> prior = lora_prior(model, 0.02, head=br.Gaussian(1.0))
        >>> prior["0.lora_B"].describe()
        'Gaussian on the merged update 2·B·A, std 0.02, centred on 0'

    References:
        Hu et al. (2022), LoRA: Low-Rank Adaptation of Large Language Models; Li, Grandvalet and Davoine (2018),
        Explicit Inductive Bias for Transfer Learning with Convolutional Networks (L2-SP).
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model: expected a module, got {type(model).__name__}.")
    infos = parameters_of(model)
    if scaling is not None:
        scaling = _checks.positive_float("scaling", scaling)
    if factors is None:
        pairs = find_pairs(infos, scaling)
    else:
        by_name = {name: info for info in infos for name in info.names}
        unknown = [name for pair in factors for name in pair if name not in by_name]
        if unknown or scaling is None:
            problem = (
                f"no parameter {unknown[0]!r}{nearest(unknown[0], by_name)}" if unknown else "scaling is not given"
            )
            raise InvalidArgumentError(f"factors: expected names of parameters, and scaling with them; {problem}.")
        pairs = [AdapterPair(by_name[a], by_name[b], scaling, a, transposed=False) for a, b in factors]
    if not pairs:
        trained = [info.name for info in infos if info.parameter.requires_grad]
        raise InvalidArgumentError(
            f"model: expected LoRA factors that are trained (parameters lora_A and lora_B), got "
            f"{', '.join(trained[:4]) or 'nothing trained'}; name others by factors=[(left, right)] and scaling=."
        )
    taken = {name for pair in pairs for name in pair.names}
    rest = [info for info in infos if info.parameter.requires_grad and info.name not in taken]
    others = [info.name for info in rest if not _FREE(info)]
    if others and head is None:
        raise CoverageError(
            f"head: {', '.join(others[:5])}{', ...' if len(others) > 5 else ''} {'is' if len(others) == 1 else 'are'} "
            f"trained beside the adapters; give them a prior, such as head=br.Gaussian(1.0), or br.Flat()."
        )
    update = AdapterGaussian(
        {pair.left.name: value for pair, value in _scales(pairs, scale).items()},
        [pair.names for pair in pairs],
        scaling={pair.left.name: pair.scaling for pair in pairs},
        loc=0.0 if reference is None else _centre(pairs, reference, rename),
    )
    rules: dict[SelectorLike, Prior] = {where(lambda info: info.name in taken, "adapters"): update}
    if isinstance(head, Mapping):
        rules |= head
    elif head is not None:
        if not others:
            raise InvalidArgumentError("head: expected none, as no weight is trained beside the adapters.")
        rules[where(lambda info: info.name in others, "head")] = head
    left = [info.name for info in rest if _FREE(info) and not any(as_selector(key)(info) for key in rules)]
    if left:
        rules[where(lambda info: info.name in left, "biases, norms and magnitudes")] = Flat()
    prior = ModelPrior(model, rules)
    if reference is None and any(bool(p.left.parameter.any()) and bool(p.right.parameter.any()) for p in pairs):
        prior.notes += (
            "The adapters do not start at a zero update; the prior is about none. Where the start was subtracted from "
            "the weights (PiSSA, OLoRA), centre it there: reference=model, before training.",
        )
    return prior


def _scales(pairs: Sequence[AdapterPair], scale: UpdateScales) -> dict[AdapterPair, Hyperparameter]:
    """Return the scale of each update, in its own orientation."""
    if not isinstance(scale, Mapping):
        return {pair: _oriented(pair, scale) for pair in pairs}
    found: dict[AdapterPair, Hyperparameter] = {}
    used = set()
    for pair in pairs:
        known = (pair.weight, *pair.left.names, *pair.right.names)
        for key, value in scale.items():
            hit = (
                any(fnmatch.fnmatchcase(name, key.replace(".base_layer.", ".")) for name in known)
                if isinstance(key, str)
                else as_selector(key)(pair.left)
            )
            if hit:
                found[pair] = _oriented(pair, value)
                used.add(key)
                break
    lacking = [pair.weight for pair in pairs if pair not in found]
    if lacking:
        raise CoverageError(
            f"scale: no rule covers {', '.join(lacking[:5])}{', ...' if len(lacking) > 5 else ''}; add one, such as "
            f"'*': 0.02."
        )
    # Tensors of a whole model may be given: those of weights that have no adapter are passed over.
    odd = [key for key in scale if key not in used and not isinstance(scale[key], Tensor)]
    if odd:
        hint = nearest(odd[0], [pair.weight for pair in pairs]) if isinstance(odd[0], str) else "."
        raise PatternError(f"scale {as_selector(odd[0]).label}: expected a rule that decides for an adapter{hint}")
    return found


def _oriented(pair: AdapterPair, value: Hyperparameter) -> Hyperparameter:
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value if not isinstance(value, Tensor) else float(value)
    flat = value.reshape(len(value), -1) if value.ndim > 2 else value
    return flat.T.contiguous() if pair.transposed else flat


def _centre(pairs: Sequence[AdapterPair], reference: ReferenceLike, rename: Rename | None) -> Reference:
    """Return the factors that a reference holds under the names of this model's."""
    names = [name for pair in pairs for name in pair.names]
    if isinstance(reference, nn.Module):
        own = {info.name: info.parameter for info in parameters_of(reference) if info.name in names}
        return Reference({name: parameter.detach() for name, parameter in own.items()}, type(reference).__name__)
    if isinstance(reference, str | os.PathLike) and Path(reference).is_dir():
        saved = [Path(reference) / f"adapter_model.{ending}" for ending in ("safetensors", "bin")]
        reference = next((path for path in saved if path.is_file()), reference)
    if rename is None:
        # PEFT's files leave the adapter's name out: ...lora_A.weight for ...lora_A.default.weight.
        rename = {_without_adapter(name): name for name in names if _without_adapter(name) != name}
        held = read_reference(reference, extra="ignore")
        rename = {short: name for short, name in rename.items() if short in held and name not in held}
    return read_reference(reference, rename=rename or None, extra="ignore")


def _without_adapter(name: str) -> str:
    tokens = name.split(".")
    return ".".join([*tokens[:-2], tokens[-1]]) if len(tokens) > 2 and tokens[-1] == "weight" else name
