"""A prior on what low-rank adapters add to the pretrained weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeAlias

import torch
from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.errors import CoverageError, InvalidArgumentError, PatternError, UnsupportedError, kind_of, nearest
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import AdapterGaussian, Belief, Flat, Prior
from bayesreg.priors.adapters.scaling import adapter_place
from bayesreg.priors.contract.tensors import Hyperparameter
from bayesreg.references import Rename
from bayesreg.selection import ParameterInfo, SelectorLike, as_selector, biases, norms, parameters_of, where
from bayesreg.transfer.adapter_factors import AdapterPair, Scaling, find_pairs, plain_name
from bayesreg.transfer.adapter_reference import reference_update
from bayesreg.transfer.methods import ReferenceLike

__all__ = ["UpdateScales", "lora_prior"]

_FREE = biases | norms | where(lambda info: "lora_magnitude_vector" in info.name, "DoRA's magnitudes")

# Parameters of PEFT's other adapters.
_KIN = ("hada_", "lokr_", "vera_", "ia3_", "oft_", "boft_")

UpdateScales: TypeAlias = "Hyperparameter | Mapping[SelectorLike, Hyperparameter] | ModelPrior"


@answering
def lora_prior(
    model: nn.Module,
    scale: UpdateScales,
    *,
    head: Prior | Mapping[SelectorLike, Prior] | None = None,
    scaling: Scaling = None,
    factors: Sequence[tuple[str, str]] | None = None,
    reference: ReferenceLike | None = None,
    reference_scaling: float | None = None,
    rename: Rename | None = None,
) -> ModelPrior:
    """Return N(0, scale²) on the elements of the merged updates of a model's LoRA adapters.

    The penalty is ½·‖scaling·B·A‖²/scale² nats for each adapted weight: L2-SP for adapters, the prior that full
    fine-tuning about the pretrained weights would have. Found are the adapters that are trained now: layers of PEFT
    (linear, embedding and convolution; rsLoRA; DoRA, whose direction it is on), and others that call their factors
    lora_A and lora_B (lora_a, lora_down and lora_up), of shapes (r, ...) and (p, r).

    Args:
        model: The model with its adapters.
        scale: Standard deviation > 0 of the elements of an update, in units of the weights: a number; or a mapping from
            rule keys (globs over names of the adapted weights, in the model with or without adapters) to numbers or to
            tensors of the weight's shape; or a `ModelPrior` of the model without adapters, such as `ewc_prior` makes,
            whose standard deviations are taken. A tensor's update is formed a few rows at a time.
        head: The prior of the weights that are trained besides (a new head), or rules for whatever else is trained.
            Biases, normalisation and DoRA's magnitudes stay flat unless a rule takes them.
        scaling: What multiplies B·A, α/r, where the layers do not say it: a number for all, or a mapping from globs.
        factors: Pairs (left, right) of parameter names that are factors besides those found.
        reference: The adapter whose update the prior is about: PEFT's directory, a file, a state dict, a module; or the
            model itself for the factors that it has now (PiSSA and the like subtract their start from the weights).
            Its update is taken, whatever its rank and scaling were; about 0 where it has none. Default: no update.
        reference_scaling: What multiplied the reference's products, for files and state dicts, which do not say.
            Default: as in this model.
        rename: From names in the reference to names in the model.

    Returns:
        The prior.

    Raises:
        InvalidArgumentError: If no adapter is found, `scaling` is not known, or a number is out of range.
        CoverageError: If other weights are trained and `head` is not given, or `scale` leaves an adapter out.
        PatternError: If a rule matches nothing.
        PriorFileError: If a file cannot be read.
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
        'Gaussian on the merged update 2·B·A, std 0.02, centred on no update'

    References:
        Hu et al. (2022), LoRA: Low-Rank Adaptation of Large Language Models; Li, Grandvalet and Davoine (2018),
        Explicit Inductive Bias for Transfer Learning with Convolutional Networks (L2-SP).
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model: expected a module, got {type(model).__name__}.")
    infos = parameters_of(model)
    if factors is not None and not isinstance(factors, list | tuple):
        raise InvalidArgumentError(f"factors: expected pairs (left, right) of names, got {kind_of(factors)}.")
    pairs = find_pairs(infos, factors, scaling)
    if not pairs:
        _refuse_model(infos)
    if reference is None and (rename is not None or reference_scaling is not None):
        raise InvalidArgumentError("rename, reference_scaling: expected with reference=, got none.")
    if reference_scaling is not None:
        reference_scaling = checks.positive_float("reference_scaling", reference_scaling)
    taken = {name for pair in pairs for name in pair.names}
    rest = [info for info in infos if info.parameter.requires_grad and info.name not in taken]
    others = [info.name for info in rest if not _FREE(info)]
    if others and head is None:
        raise CoverageError(
            f"head: {', '.join(others[:5])}{', ...' if len(others) > 5 else ''} {'is' if len(others) == 1 else 'are'} "
            f"trained beside the adapters; give a prior, such as head=br.Gaussian(1.0), or br.Flat()."
        )
    widths, notes = _scales(pairs, scale, infos)
    centre = None if reference is None else reference_update(pairs, reference, rename, reference_scaling)
    update = AdapterGaussian(
        {pair.left.name: value for pair, value in widths.items()},
        [pair.names for pair in pairs],
        scaling={pair.left.name: pair.scaling for pair in pairs},
        loc=0.0 if centre is None else centre,
    )
    rules: dict[SelectorLike, Belief] = {where(lambda info: info.name in taken, "adapters"): update}
    if isinstance(head, Mapping):
        rules |= head
    elif head is not None:
        if not others:
            raise InvalidArgumentError(
                f"head: expected none, as no weight is trained beside the adapters, got {kind_of(head)}."
            )
        rules[where(lambda info: info.name in others, "head")] = head
    left = [info.name for info in rest if _FREE(info) and not any(as_selector(key)(info) for key in rules)]
    if left:
        rules[where(lambda info: info.name in left, "biases, norms and magnitudes")] = Flat()
    if centre is None and any(_nonzero(p.left) and _nonzero(p.right) for p in pairs):
        notes.append(
            "The adapters have an update already, and the prior is centred on none. Where the start was subtracted "
            "from the weights (PiSSA, OLoRA), centre it there: reference=model, before training."
        )
    return ModelPrior(model, rules, notes=notes)


def _nonzero(info: ParameterInfo) -> bool:
    return not info.parameter.is_meta and bool(info.parameter.any())


def _refuse_model(infos: Sequence[ParameterInfo]) -> NoReturn:
    """Raise with what there is instead of adapters that are trained."""
    frozen = [info.name for info in infos if adapter_place(info) is not None]
    if frozen:
        raise InvalidArgumentError(
            f"model: expected adapters that are trained, got {len(frozen)} frozen factors ({frozen[0]}, ...): load "
            f"them with PeftModel.from_pretrained(..., is_trainable=True), or model.set_adapter(name)."
        )
    trained = [info.name for info in infos if info.parameter.requires_grad]
    kin = [name for name in trained if any(kind in name for kind in _KIN)]
    if kin:
        raise UnsupportedError(
            f"model: expected LoRA adapters, got others ({kin[0]}, ...), whose update is not scaling·B·A: give their "
            f"parameters a prior in br.ModelPrior."
        )
    listed = f"{', '.join(trained[:4]) or 'nothing trained'}{', ...' if len(trained) > 4 else ''}"
    raise InvalidArgumentError(
        f"model: expected LoRA adapters (parameters lora_A and lora_B), got none among {listed}: add them first "
        f"(peft.get_peft_model), name them by factors=[(left, right)], or use br.transfer.l2_sp for full fine-tuning."
    )


def _scales(
    pairs: Sequence[AdapterPair], scale: UpdateScales, infos: Sequence[ParameterInfo]
) -> tuple[dict[AdapterPair, Hyperparameter], list[str]]:
    """Return the scale of each update, in its own orientation, and what was passed over."""
    if isinstance(scale, ModelPrior):
        spreads = {
            entry.name: entry.prior.variance(entry.parameter.shape) for entry in scale if entry.prior is not None
        }
        scale = {name: torch.as_tensor(spread).sqrt() for name, spread in spreads.items() if spread is not None}
    if not isinstance(scale, Mapping):
        return {pair: _oriented(pair, scale) for pair in pairs}, []
    found: dict[AdapterPair, Hyperparameter] = {}
    used = set()
    for pair in pairs:
        for key, value in scale.items():
            if _hits(key, pair):
                found[pair] = _oriented(pair, value)
                used.add(key)
                break
    unused = [key for key in scale if key not in used]
    # Tensors of a whole model may be given: those of parameters that have no adapter are passed over. A name that the
    # model does not have may be a slip, unless every adapter found its own tensor.
    own = {plain_name(name) for info in infos for name in info.names}
    exact = all(isinstance(scale[key], Tensor) and isinstance(key, str) and "*" not in key for key in used)
    plain = [
        key
        for key in unused
        if isinstance(scale[key], Tensor) and isinstance(key, str) and "*" not in key
        if not any(_hits(key, pair) for pair in pairs) and (exact or plain_name(key) in own)
    ]
    odd = [key for key in unused if key not in plain]
    names = [pair.weight for pair in pairs]
    listed = f"{', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
    if odd:
        label = as_selector(odd[0]).label
        if any(_hits(odd[0], pair) for pair in pairs):
            raise PatternError(f"scale {label}: rules before it take all that it matches; move it up.")
        hint = nearest(odd[0], names) if isinstance(odd[0], str) else ""
        raise PatternError(
            f"scale {label}: expected a rule that matches an adapted weight ({listed}), got none{hint or '.'}"
        )
    lacking = [pair.weight for pair in pairs if pair not in found]
    if lacking:
        raise CoverageError(
            f"scale: no rule covers {', '.join(lacking[:5])}{', ...' if len(lacking) > 5 else ''}; add one, such as "
            f"'*': 0.02."
        )
    notes = [f"Scales of {len(plain)} weights without an adapter were passed over."] if plain else []
    return found, notes


def _hits(key: SelectorLike, pair: AdapterPair) -> bool:
    if isinstance(key, str):
        return any(fnmatch.fnmatchcase(name, form) for name in pair.known_as for form in {key, plain_name(key)})
    return as_selector(key)(pair.left)


def _oriented(pair: AdapterPair, value: Hyperparameter) -> Hyperparameter:
    """Return a weight's scale in the orientation of left·right, checked to be of the weight's shape."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return checks.finite_float("scale", value)
    flat = value.reshape(len(value), -1) if value.ndim > 2 else value
    own = pair.shape[::-1] if pair.transposed else pair.shape
    try:
        fits = flat.ndim == 2 and torch.broadcast_shapes(flat.shape, own) == torch.Size(own)
    except RuntimeError:
        fits = False
    if not fits:
        raise InvalidArgumentError(
            f"scale of {pair.weight}: expected a number or a shape that broadcasts to the weight's, {tuple(own)}, got "
            f"{tuple(value.shape)}."
        )
    return flat.T.contiguous() if pair.transposed else flat
