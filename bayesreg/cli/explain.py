"""`bayesreg explain`: what flags or a checkpoint's optimizer state say about the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bayesreg import _checks
from bayesreg._explain import Explanation, build
from bayesreg._tables import Table
from bayesreg.cli._loss import Loss, loss_scale_of
from bayesreg.cli._output import for_json, say, show
from bayesreg.errors import InvalidArgumentError, nearest
from bayesreg.explaining.facts import GroupFacts, ParameterFacts, facts_of_state
from bayesreg.explaining.recognise import find_state_dict, weights_in
from bayesreg.optimizers import class_of, decay_rule, decay_rule_of_group
from bayesreg.references import read_tensor_file
from bayesreg.references.files import is_prior_file

__all__ = ["explain"]

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


def explain(
    checkpoint: Annotated[Path | None, typer.Argument(help="A .pt file with an optimizer's state_dict().")] = None,
    num_data: Annotated[int | None, typer.Option(help="Size of the training set (tokens for --loss tokens).")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Torch optimizer, such as sgd or adamw.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Without a checkpoint: its weight_decay.")] = None,
    lr: Annotated[float | None, typer.Option(help="Its learning rate (the peak of a schedule).")] = None,
    momentum: Annotated[float | None, typer.Option(help="Its momentum.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights: float32, bfloat16, float16 or float64.")] = "float32",
    clip_norm: Annotated[float | None, typer.Option(help="What the loop clips gradients to.")] = None,
    loss: Annotated[Loss, typer.Option(help="The training loss.")] = Loss.mean,
    noise_std: Annotated[float | None, typer.Option(help="Noise std of squared-error losses.")] = None,
    num_outputs: Annotated[int, typer.Option(help="Outputs per example, for --loss mse.")] = 1,
    batch_size: Annotated[int | None, typer.Option(help="For --loss minibatch-sum.")] = None,
    likelihood_weight: Annotated[float, typer.Option(help="How often each example counts (1/temperature).")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what an optimizer's weight decay means as a prior, from flags or from a checkpoint."""
    if checkpoint is None and optimizer is None:
        raise InvalidArgumentError("--optimizer: name one (sgd, adam, adamw, ...), or pass a checkpoint file.")
    scale = loss_scale_of(loss, num_data, noise_std, num_outputs, batch_size, likelihood_weight)
    clip = None if clip_norm is None else _checks.positive_float("--clip-norm", clip_norm)
    if checkpoint is not None:
        flags = {"--weight-decay": weight_decay, "--lr": lr, "--momentum": momentum}
        given = [flag for flag, value in flags.items() if value is not None]
        if given:
            raise InvalidArgumentError(f"{', '.join(given)}: the checkpoint has its own; leave them out.")
        if is_prior_file(checkpoint):
            raise InvalidArgumentError(f"{checkpoint}: a prior file, no optimizer: bayesreg prior show {checkpoint}")
        content = read_tensor_file(checkpoint)
        groups = facts_of_state(find_state_dict(content), None, optimizer, weights=weights_in(content))
    else:
        assert optimizer is not None
        groups = [_from_flags(optimizer, weight_decay, lr, momentum, dtype)]
    explanation = build(groups, None, scale, clip, live=False)
    if as_json:
        say(for_json(explanation.to_dict()))
    else:
        show(_without_empty_columns(explanation))


def _from_flags(
    optimizer: str, weight_decay: float | None, lr: float | None, momentum: float | None, dtype: str
) -> GroupFacts:
    if dtype not in _DTYPES:
        raise InvalidArgumentError(
            f"--dtype: expected one of {', '.join(_DTYPES)}, got {dtype!r}{nearest(dtype, _DTYPES)}"
        )
    cls: Any = class_of(optimizer)[0]
    made = cls([torch.nn.Parameter(torch.zeros(2, 2))])
    settings: dict[str, Any] = {key: value for key, value in made.param_groups[0].items() if key != "params"}
    given = {"weight_decay": weight_decay, "lr": lr, "momentum": momentum}
    for key, value in given.items():
        if value is None:
            continue
        flag = f"--{key.replace('_', '-')}"
        if key not in settings:
            raise InvalidArgumentError(f"{flag}: {cls.__name__} has no such setting.")
        if not 0.0 <= value < float("inf"):
            raise InvalidArgumentError(f"{flag}: expected a number >= 0, got {value:g}.")
        settings[key] = value
    if settings.get("momentum", 0.0) >= 1.0:
        raise InvalidArgumentError(f"--momentum: expected a number below 1, got {settings['momentum']:g}.")
    rule = decay_rule_of_group(made, settings, decay_rule(cls))
    weights = ParameterFacts("all weights", "weight", (0,), _DTYPES[dtype], None, {})
    return GroupFacts(0, cls, rule, settings, [weights])


def _without_empty_columns(explanation: Explanation) -> Table:
    """Leave out columns with nothing in them: without a model there are no weights to measure."""
    table = explanation.table()
    kept = [i for i in range(len(table.columns)) if any(row[i] is not None for row in table.rows)]
    title = table.title if any(reading.elements for reading in explanation.groups) else "What these settings believe"
    columns = tuple(table.columns[i] for i in kept)
    return Table(title, columns, [tuple(row[i] for i in kept) for row in table.rows], table.notes)
