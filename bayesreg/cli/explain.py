"""`bayesreg explain`: what flags, a checkpoint's optimizer state or a file of settings say about the weights."""

from __future__ import annotations

import functools
import importlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
import typer
import yaml

from bayesreg._support import checks
from bayesreg._support.files import check_writable, write_json
from bayesreg.cli._loss import Loss, loss_scale_of
from bayesreg.cli._options import NumData, Steps
from bayesreg.cli._output import for_json, require_no_option, say, show
from bayesreg.errors import InvalidArgumentError, kind_of, nearest
from bayesreg.explaining.explain import Explanation, build
from bayesreg.explaining.explain import explain as explain_settings
from bayesreg.explaining.formats.settings import penalties_of, settings_of
from bayesreg.explaining.formats.trainers import literals
from bayesreg.explaining.groups.facts import GroupFacts, ParameterFacts, facts_of_state
from bayesreg.explaining.groups.recognise import find_state_dict, weights_in
from bayesreg.explaining.lint import changes, failing, github_lines, identifiers, read_baseline, snapshot
from bayesreg.horizon.plan import plan_of
from bayesreg.horizon.schedules import SCHEDULES
from bayesreg.optimizers import class_of, decay_rule, decay_rule_of_group
from bayesreg.references import read_tensor_file
from bayesreg.references.files import is_prior_file

__all__ = ["explain", "probe"]

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


def explain(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="A .pt file with an optimizer's state_dict(), or .json, .yaml, .toml or .py settings of HF, timm, ..."
        ),
    ] = None,
    num_data: NumData = None,
    optimizer: Annotated[str | None, typer.Option(help="Torch optimizer, such as sgd or adamw.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Without a checkpoint: its weight_decay.")] = None,
    lr: Annotated[float | None, typer.Option(help="Its learning rate (the peak of a schedule).")] = None,
    momentum: Annotated[float | None, typer.Option(help="Its momentum.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the weights: float32, bfloat16, float16 or float64.  \\[default: float32]")
    ] = None,
    clip_norm: Annotated[float | None, typer.Option(help="What the loop clips gradients to.")] = None,
    loss: Annotated[Loss, Loss.option("The training loss.")] = Loss.mean,
    noise_std: Annotated[float | None, typer.Option(help="Noise std of squared-error losses.")] = None,
    num_outputs: Annotated[
        int | None, typer.Option(help="Outputs per example, for --loss mse.  \\[default: 1]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Examples per optimizer step: for --epochs, and --loss minibatch-sum.")
    ] = None,
    steps: Steps = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data, in place of --steps.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="How the learning rate goes: constant, linear or cosine.  \\[default: constant]")
    ] = None,
    warmup: Annotated[str | None, typer.Option(help="Steps of warm-up, or a share such as 0.1.")] = None,
    likelihood_weight: Annotated[float, typer.Option(help="How often each example counts (1/temperature).")] = 1.0,
    keras_l1: Annotated[float | None, typer.Option(help="A Keras-style L1 in the loss, the sum of |w|.")] = None,
    keras_l2: Annotated[float | None, typer.Option(help="A Keras-style L2 in the loss, the sum of w².")] = None,
    fail_on: Annotated[
        str | None, typer.Option(help="Findings, by name, with which it ends with status 3: biases-decayed,decay-off.")
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="A snapshot: says what has changed since, and ends with status 3 if anything has."),
    ] = None,
    save_baseline: Annotated[Path | None, typer.Option(help="Write a snapshot of every parameter's decay.")] = None,
    github: Annotated[bool, typer.Option("--github", help="Print annotations that GitHub shows.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what an optimizer's weight decay means as a prior, from flags, a checkpoint or a file of settings."""
    watched = _Watched(fail_on, baseline, save_baseline, github, as_json)
    penalties = {key: value for key, value in (("l1", keras_l1), ("l2", keras_l2)) if value is not None}
    if checkpoint is None and optimizer is None and not penalties:
        raise InvalidArgumentError(
            "--optimizer: name one (sgd, adam, adamw, ...), or pass a checkpoint or settings file, or --keras-l2."
        )
    flags = {"--weight-decay": weight_decay, "--lr": lr, "--momentum": momentum, "--dtype": dtype}
    given = [flag for flag, value in flags.items() if value is not None]
    if penalties and (checkpoint is not None or optimizer is not None or given or clip_norm is not None):
        raise InvalidArgumentError("--keras-l1, --keras-l2: a penalty in the loss has no optimizer; pass them alone.")
    if noise_std is not None and loss not in (Loss.mse, Loss.half_squared_error):
        raise InvalidArgumentError(f"--noise-std: it plays no part with --loss {loss.value}; leave it out.")
    run: dict[str, Any] = {
        "steps": steps, "epochs": epochs, "schedule": _one_of(schedule), "warmup": _warmup(warmup),
        "batch_size": batch_size,
    }  # fmt: skip
    summed = loss is Loss.minibatch_sum
    counts = any(run[name] is not None for name in ("steps", "epochs")) or checkpoint is not None
    scale = loss_scale_of(
        loss, num_data, noise_std, num_outputs, batch_size if summed or not counts else None, likelihood_weight
    )
    if summed and not counts:
        run["batch_size"] = None
    clip = None if clip_norm is None else checks.positive_float("--clip-norm", clip_norm)
    if penalties:
        given = [f"--{name}" for name in ("steps", "epochs", "schedule", "warmup") if run[name] is not None]
        if given:
            raise InvalidArgumentError(f"{', '.join(given)}: a penalty in the loss has no steps; leave it out.")
        _watch(explain_settings({"class_name": "L1L2", "config": penalties}, num_data=scale), None, watched)
        return
    if checkpoint is not None:
        if given:
            raise InvalidArgumentError(f"{', '.join(given)}: the file has its own; leave them out.")
        if is_prior_file(checkpoint):
            raise InvalidArgumentError(f"{checkpoint}: a prior file, no optimizer: bayesreg prior show {checkpoint}")
        if checkpoint.suffix.lower() in (".json", ".yaml", ".yml", ".toml", ".py"):
            if optimizer is not None:
                raise InvalidArgumentError("--optimizer: the settings name their own; leave it out.")
            told = explain_settings(_read_settings(checkpoint), num_data=scale, clip_norm=clip, **run)
            _watch(told, checkpoint, watched)
            return
        content = read_tensor_file(checkpoint)
        groups = facts_of_state(find_state_dict(content), None, optimizer, weights=weights_in(content))
    else:
        assert optimizer is not None
        groups = [_from_flags(optimizer, weight_decay, lr, momentum, dtype or "float32")]
    _watch(build(groups, None, scale, clip, live=False, plan=plan_of(scale.num_data, **run)), checkpoint, watched)


def _one_of(schedule: str | None) -> str | None:
    if schedule is not None and schedule not in SCHEDULES:
        raise InvalidArgumentError(
            f"--schedule: expected one of {', '.join(SCHEDULES)}, got {schedule!r}{nearest(schedule, SCHEDULES)}; for "
            f"others pass schedule= to br.explain in Python."
        )
    return schedule


def _warmup(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        number = float(text)
        return int(number) if number >= 1.0 and number == int(number) else number
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError(f"--warmup: expected a number of steps, or a share, got {text!r}.") from error


def probe(
    optimizer: Annotated[
        str, typer.Argument(help="package.module:Class, or the name of one of torch's, such as adamw.")
    ],
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the constructor, name=number; may be repeated.")
    ] = None,
    expect: Annotated[str | None, typer.Option(help="Ends with status 3 unless it is of this kind.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what an optimizer's weight_decay does, by steps on toys. Imports and runs what is named."""
    from bayesreg.optimizers.conformance import DecayKind, decay_of

    if expect is not None and expect not in get_args(DecayKind):
        known = get_args(DecayKind)
        raise InvalidArgumentError(
            f"--expect: expected one of {', '.join(known)}, got {expect!r}{nearest(expect, known)}."
        )
    report = decay_of(functools.partial(_named(optimizer), **dict(map(_setting, setting or []))))
    if as_json:
        say(report.to_json())
    else:
        show(report)
    if expect is not None and report.kind != expect:
        typer.echo(f"expected {expect}, found {report.kind}.", err=True)
        raise typer.Exit(3)


def _named(text: str) -> Any:
    module, colon, name = text.partition(":")
    if not colon:
        return class_of(text)[0]
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # Whatever importing somebody's module raises, it is told in one line.
        raise InvalidArgumentError(f"{text}: cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise InvalidArgumentError(f"{text}: expected a class of optimizers, got {kind_of(found)}.")
    return found


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value.lower() if value.lower() in ("true", "false") else value)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"--set: expected name=number, true or false, got {text!r}.") from error


class _Watched:
    """What a command line asks of an explanation besides showing it."""

    def __init__(
        self, fail_on: str | None, baseline: Path | None, save: Path | None, github: bool, as_json: bool
    ) -> None:
        self.names = () if fail_on is None else identifiers(fail_on)
        for option, path in (("--baseline", baseline), ("--save-baseline", save)):
            if path is not None:
                require_no_option(option, path)
        if github and as_json:
            raise InvalidArgumentError("--github: prints annotations, and --json JSON; leave one out.")
        if save is not None:
            check_writable(save)
        self.before = None if baseline is None else read_baseline(baseline)
        self.save, self.github, self.as_json = save, github, as_json


def _watch(explanation: Explanation, file: Path | None, watched: _Watched) -> None:
    """Show an explanation; end with status 3 where something is found that must not be, or has changed."""
    now = snapshot(explanation)
    found = failing(explanation, watched.names)
    since = [] if watched.before is None else changes(watched.before, now)
    if watched.save is not None:
        write_json(watched.save, now)
    failed = [finding.identifier for finding in found]
    if watched.as_json:
        told = explanation.to_dict()
        if watched.names or watched.before is not None:
            told |= {"failed": failed, "changes": since}
        say(for_json(told))
    elif watched.github:
        for line in github_lines(explanation.findings, since, failed, file):
            say(line)
    else:
        show(explanation)
        for line in since:
            say(f"since then {line}")
        if watched.before is not None and not since:
            say("since then nothing has changed.")
        if failed:
            say(f"failed: {', '.join(dict.fromkeys(failed))}")
    if failed or since:
        raise typer.Exit(3)


def _read_settings(path: Path) -> Any:
    """Return the mapping in a JSON, YAML or TOML file, or the plain values of a Python one, which is not run."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"{path}: cannot be read: {error}") from error
    try:
        if path.suffix.lower() == ".py":
            content: Any = literals(text)
        elif path.suffix.lower() == ".toml":
            content = tomllib.loads(text)
        else:
            content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except RecursionError as error:
        raise InvalidArgumentError(f"{path}: nested too deeply to be settings.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise InvalidArgumentError(
            f"{path}: not a {path.suffix.lower()[1:]} file: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(content, dict) or (settings_of(content, None) is None and penalties_of(content) is None):
        raise InvalidArgumentError(
            f"{path}: expected settings of Hugging Face (optim, learning_rate, weight_decay), timm (opt, "
            f"weight_decay), Keras (class_name, config), axolotl, LLaMA-Factory, nanoGPT (learning_rate, max_iters), "
            f"or an optimizer block of DeepSpeed, Hydra, Lightning or torchtitan."
        )
    return content


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
