"""`br.explain`: what an existing optimizer's settings say about the weights."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg._support.tables import Shown, Table, in_short
from bayesreg._text import printable
from bayesreg.conversion import LossScale, as_loss_scale
from bayesreg.errors import InvalidArgumentError
from bayesreg.explaining.findings.finding import Finding, Situation, ranked
from bayesreg.explaining.findings.looks import find
from bayesreg.explaining.formats.keras import read_penalties
from bayesreg.explaining.formats.settings import penalties_of, run_of, settings_of
from bayesreg.explaining.groups.facts import GroupFacts, facts_of_live, facts_of_state
from bayesreg.explaining.groups.reading import GroupReading, read_group, with_horizons
from bayesreg.explaining.groups.recognise import find_state_dict, weights_in
from bayesreg.explaining.groups.scale_free import scale_free_weights
from bayesreg.horizon.plan import Plan, plan_of
from bayesreg.horizon.rates import ScheduleLike
from bayesreg.optimizers import OptimizerLike, unwrap
from bayesreg.selection import parameters_of

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["Explanation", "explain"]

_COLUMNS = (
    "group", "parameters", "decay", "weight_decay", "implied prior", "mean", "std", "variance", "weights rms", "k",
    "start left",
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Explanation(Shown):
    """What an optimizer's settings mean; made by `br.explain`.

    Printed it is a table with findings under it: rich in a terminal by `.show()`, HTML in a notebook, plain in a log;
    `.to_json()` for machines.

    Attributes:
        title: Of the table.
        groups: One reading per param group (per prior and route where bayesreg has attached one).
        findings: What is worth knowing, most important first.
        loss_scale: s.
    """

    title: str
    groups: tuple[GroupReading, ...]
    findings: tuple[Finding, ...]
    loss_scale: LossScale

    def table(self) -> Table:
        """Return the table, with the findings as notes."""
        rows = [
            (g.group, in_short(g.parameters), g.decay, g.weight_decay, g.prior, g.mean, g.std, g.variance,
             g.weights_rms, None if g.horizon is None else g.horizon.decay_sum,
             None if g.horizon is None else g.horizon.share_left)
            for g in self.groups
        ]  # fmt: skip
        # Without a model there are no weights to measure.
        kept = [i for i in range(len(_COLUMNS)) if any(row[i] is not None for row in rows)]
        shown = [tuple(row[i] for i in kept) for row in rows]
        notes = (self.loss_scale.words, *(str(finding) for finding in self.findings))
        return Table(self.title, tuple(_COLUMNS[i] for i in kept), shown, notes)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, ready for JSON (infinite values stay floats)."""
        return {
            "title": self.title,
            "loss_scale": self.loss_scale.value,
            "loss": self.loss_scale.origin,
            "groups": [group.to_dict() for group in self.groups],
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def __str__(self) -> str:
        return str(self.table())

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        parts = [Text(self.loss_scale.words)]
        for finding in self.findings:
            style = "bold red" if finding.severity == "warning" else "bold cyan"
            said = (finding.severity, style), (f" [{finding.identifier}] ", "dim"), printable(finding.text)
            text = Text.assemble(*said)
            parts.append(text.append(f" {printable(finding.remedy)}", "green") if finding.remedy else text)
        return Group(replace(self.table(), notes=()).__rich__(), *parts)

    def _repr_html_(self) -> str:
        items = "".join(
            f"<li><strong>{finding.severity}</strong> <code>{finding.identifier}</code> {html.escape(finding.text)} "
            f"<em>{html.escape(finding.remedy)}</em></li>"
            for finding in self.findings
        )
        table = replace(self.table(), notes=(self.loss_scale.words,))
        return f"{table._repr_html_()}<ul>{items}</ul>" if items else table._repr_html_()


@answering
def explain(
    optimizer: Optimizer | Sequence[Optimizer] | Mapping[str, Any] | object,
    model: nn.Module | None = None,
    num_data: int | LossScale | None = None,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    schedule: ScheduleLike | None = None,
    warmup: float | None = None,
    clip_norm: float | None = None,
    optimizer_class: OptimizerLike | None = None,
) -> Explanation:
    """Say what an optimizer's weight decay, or that of training settings, means as a prior, and what is odd about it.

    For coupled decay the implied prior of a group is the Gaussian of variance s/weight_decay around 0. Decoupled decay
    (AdamW) implies no Gaussian: at rest its weights are those of a precision (weight_decay/s)(√v̂ + ε) per coordinate,
    which is read from the optimizer's state once it has stepped, with the one Gaussian that has the same penalty at
    these weights. Nothing is changed, and no data is needed.

    With the length of the run it also says what decay makes of the start: k = Σ η_t λ_t, the share of the start that is
    left, Π (1 − η_t λ_t), about e^(−k), and the memory, 1/(ηλ) steps. Where nearly all of the start is left the decay
    is off, whatever it is called; where none is, weights may be read as at rest.

    Settings are read as the library that they are of acts on them: which parameters Hugging Face's `Trainer` and timm
    leave without decay, what they clip gradients to, that Keras writes its L2 without the half.

    Args:
        optimizer: The optimizer, a list of them, an optimizer's state dict; or settings in place of one: Hugging Face's
            `TrainingArguments`, timm's arguments (a namespace or a mapping with `opt`), a Keras regularizer or
            optimizer, as an object or serialized.
        model: The model it trains; may be left out for a state dict and for settings.
        num_data: Size of the training set of a mean loss, or the `LossScale` of another. Must be given.
        batch_size: Examples per optimizer step, over all devices and accumulated batches.
        steps: Optimizer steps of the whole run, T.
        epochs: Passes over the data, in place of steps; needs `batch_size`.
        schedule: How the learning rates go: "constant" (default), "linear" or "cosine" to 0; a factory optimizer →
            torch scheduler, which is tried on a stand-in; or T learning rates, (T,) of the fastest group or
            (T, groups). Training settings bring their own.
        warmup: Of a schedule by name: steps, or a share of all.
        clip_norm: What the loop clips gradients to; with gradients at hand, the factor by which that strengthens decay
            is told. Settings that have a clip of their own need none.
        optimizer_class: For a state dict, the optimizer that wrote it, where its keys do not tell.

    Returns:
        The explanation: prints as a table with findings; `.groups`, `.findings` and `.to_dict()` for data.

    Raises:
        InvalidArgumentError: If num_data or the model is missing, they do not belong together, or what is said of the
            run does not fit.

    Example:
        >>> import torch, bayesreg as br
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=5e-4)
        >>> found = br.explain(optimizer, model, num_data=50_000)
        >>> round(found.groups[0].std, 6), [finding.identifier for finding in found.findings]
        (0.2, ['biases-decayed', 'clip-before-decay'])
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01)
        >>> found = br.explain(optimizer, model, num_data=8_000, batch_size=8, steps=1_000, schedule="linear")
        >>> horizon = found.groups[0].horizon
        >>> f"{horizon.decay_sum:.3g}", f"{horizon.share_left:.5f}", horizon.regime
        ('0.00025', '0.99975', 'off')

    References:
        Loshchilov & Hutter (2019), Decoupled Weight Decay Regularization; Xie & Li (2024), Implicit Bias of AdamW; Wang
        & Aitchison (2024), How to set AdamW's weight decay as you scale model and dataset size, section 3.
    """
    if model is not None and not isinstance(model, nn.Module):
        raise InvalidArgumentError(
            f"model: expected a module, got {type(model).__name__}; write br.explain(optimizer, model, num_data=n)."
        )
    scale = as_loss_scale(num_data)
    if clip_norm is not None:
        clip_norm = checks.positive_float("clip_norm", clip_norm)
    said: dict[str, Any] = {
        "batch_size": batch_size,
        "steps": steps,
        "epochs": epochs,
        "schedule": schedule,
        "warmup": warmup,
    }
    penalties = penalties_of(optimizer)
    if penalties is not None:
        _refuse_run(said)
        return explain_penalties(penalties, scale)
    settings = settings_of(optimizer, model)
    if settings is not None:
        own = math.inf if settings.clip_norm is None and settings.clips_known else settings.clip_norm
        clip = own if clip_norm is None else clip_norm
        plan = plan_of(scale.num_data, **run_of(settings.run, said, scale.num_data))
        return build(settings.groups, model, scale, clip, live=False, more=settings.findings, plan=plan)
    plan = plan_of(scale.num_data, **said)
    if isinstance(optimizer, str | os.PathLike):
        raise InvalidArgumentError(
            f"optimizer: expected an object, got the path {os.fspath(optimizer)!r}: read it first, with "
            f"torch.load(path, weights_only=True) or json.load, or use the command: bayesreg explain PATH."
        )
    if isinstance(optimizer, Mapping):
        weights = weights_in(optimizer) if model is None else None
        groups = facts_of_state(find_state_dict(optimizer), model, optimizer_class, weights)
    elif optimizer_class is not None:
        raise InvalidArgumentError("optimizer_class: plays no part where the optimizer itself is given; leave it out.")
    else:
        groups = _live(optimizer, model)
    return build(groups, model, scale, clip_norm, live=not isinstance(optimizer, Mapping), plan=plan)


def _refuse_run(said: Mapping[str, Any]) -> None:
    given = next((name for name, value in said.items() if value is not None), None)
    if given is not None:
        raise InvalidArgumentError(f"{given}: a penalty in the loss has no steps; leave it out.")


def _live(optimizer: object, model: nn.Module | None) -> list[GroupFacts]:
    several = list(optimizer) if isinstance(optimizer, list | tuple) else [optimizer]
    found = [one for one in map(unwrap, several) if isinstance(one, Optimizer)]
    if not found or len(found) != len(several):
        raise InvalidArgumentError(
            f"optimizer: expected a torch optimizer, a list of them, a state dict, or training settings of Hugging "
            f"Face, timm or Keras, got {type(optimizer).__name__}."
        )
    if model is None:
        raise InvalidArgumentError("model: pass the one that the optimizer trains, br.explain(optimizer, model, ...).")
    return [facts for one in found for facts in facts_of_live(one, model)]


def build(
    groups: list[GroupFacts],
    model: nn.Module | None,
    loss_scale: LossScale,
    clip_norm: float | None,
    *,
    live: bool,
    more: Sequence[Finding] = (),
    plan: Plan | None = None,
) -> Explanation:
    """Put readings and findings together; used by the command line too."""
    infos = parameters_of(model) if model is not None else []
    readings = with_horizons(groups, [read_group(facts, loss_scale) for facts in groups], plan)
    held = {p.name for facts in groups for p in facts.parameters}
    trained = [i for i in infos if i.parameter.requires_grad]
    missing = [i for i in trained if live and i.name not in held]
    grads = [i.parameter.grad for i in infos if i.parameter.grad is not None and not i.parameter.grad.is_sparse]
    situation = Situation(
        groups=groups,
        readings=readings,
        loss_scale=loss_scale,
        scale_free=scale_free_weights(model) if model is not None else {},
        gradient_norm=_norm(grads) if grads and clip_norm is not None else None,
        clip_norm=clip_norm,
        missing=[i.name for i in missing],
        missing_share=sum(i.parameter.numel() for i in missing) / max(sum(i.parameter.numel() for i in trained), 1),
        tied=[" = ".join(i.names) for i in infos if len(i.names) > 1 and i.shared],
    )
    names = list(dict.fromkeys(facts.rule.name for facts in groups)) or ["the optimizer"]
    believes = "believe" if len(names) > 1 else "believes"
    elements = sum(r.elements for r in readings)
    title = f"What {' and '.join(names)} {believes} about {f'{elements:,}' if elements else 'the'} weights"
    return Explanation(title, tuple(readings), tuple(ranked([*find(situation), *more])), loss_scale)


def explain_penalties(penalties: Mapping[str, float], loss_scale: LossScale) -> Explanation:
    """Explain Keras-style penalties, λ₁‖w‖₁ + λ₂‖w‖² added to the loss; used by the command line too."""
    reading, findings = read_penalties(penalties, loss_scale)
    written = " + ".join(f"{penalties[key]:g} {words}" for key, words in _PENALTIES.items() if key in penalties)
    return Explanation(f"What {written} in the loss believes", (reading,), tuple(ranked(findings)), loss_scale)


_PENALTIES = {"l1": "|w|", "l2": "w²"}


def _norm(grads: list[Tensor]) -> float | None:
    from bayesreg._support.sharding import gather_sum, local

    total = gather_sum((local(grad).detach().float().square().sum(), grad) for grad in grads)
    return None if total is None else math.sqrt(float(total))
