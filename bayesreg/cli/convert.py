"""`bayesreg convert`: one regularisation constant, every other way to say it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any

import typer

from bayesreg._support import checks
from bayesreg.cli._loss import Loss, loss_scale_of
from bayesreg.cli._options import NumData, Word
from bayesreg.cli._output import say, show
from bayesreg.conversion import table
from bayesreg.errors import InvalidArgumentError, NotEquivalentError
from bayesreg.horizon.adapting import adapt_weight_decay

__all__ = ["convert"]


class Kind(Word):
    """What the number is."""

    weight_decay = "weight-decay"
    variance = "variance"
    std = "std"
    precision = "precision"
    l2_coefficient = "l2-coefficient"
    ridge_alpha = "ridge-alpha"
    logistic_c = "logistic-c"
    l1_coefficient = "l1-coefficient"
    laplace_scale = "laplace-scale"
    lasso_alpha = "lasso-alpha"


# What people write for them.
_SHORT = {
    "wd": "weight-decay",
    "sd": "std",
    "sigma": "std",
    "c": "logistic-c",
    "b": "laplace-scale",
    "lambda_": "precision",
}


def _kind(text: str) -> Kind:
    return Kind.parse(_SHORT.get(str(text).lower(), text))


def convert(
    value: Annotated[float, typer.Argument(help="The number to convert.")],
    kind: Annotated[
        Kind, typer.Option("--from", parser=_kind, metavar="NOTATION", help=f"What the number is: {', '.join(Kind)}.")
    ] = Kind.weight_decay,
    num_data: NumData = None,
    loss: Annotated[Loss, Loss.option("The training loss.")] = Loss.mean,
    optimizer: Annotated[str | None, typer.Option(help="Torch optimizer in use, such as sgd or adamw.")] = None,
    noise_std: Annotated[float | None, typer.Option(help="Noise std of squared-error losses, ridge and lasso.")] = None,
    num_outputs: Annotated[
        int | None, typer.Option(help="Outputs per example, for --loss mse.  \\[default: 1]")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="For --loss minibatch-sum.")] = None,
    likelihood_weight: Annotated[float, typer.Option(help="How often each example counts (1/temperature).")] = 1.0,
    from_run: Annotated[
        str | None, typer.Option(help="A weight_decay's run, such as batch_size=64,lr=1e-3,num_data=1e6.")
    ] = None,
    to_run: Annotated[str | None, typer.Option(help="What is different in the run that it is wanted for.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Convert a regularisation constant to a prior, to every other convention, or to another run."""
    if from_run is not None or to_run is not None:
        given = {
            "--num-data": num_data, "--noise-std": noise_std, "--num-outputs": num_outputs, "--batch-size": batch_size,
        }  # fmt: skip
        _refuse_beside_runs([name for name, one in given.items() if one is not None], kind)
        _to_run(value, optimizer, from_run, to_run, as_json)
        return
    scale = loss_scale_of(loss, num_data, noise_std, num_outputs, batch_size, likelihood_weight)
    if not value >= 0:
        raise InvalidArgumentError(f"{kind.value}: expected a number >= 0, got {value:g}.")
    if kind is Kind.lasso_alpha and num_data is None:
        raise InvalidArgumentError(f"--num-data: {kind.value} depends on the size of the training set; pass it.")
    if kind in (Kind.ridge_alpha, Kind.lasso_alpha) and noise_std is None:
        raise InvalidArgumentError(f"--noise-std: {kind.value} is relative to the noise; pass its standard deviation.")
    if noise_std is not None:
        checks.positive_float("--noise-std", noise_std)
    notation: Any = kind.value.replace("-", "_")
    told = replace(scale, num_data=num_data)
    try:
        found = table.convert(value, notation, num_data=told, optimizer=optimizer, noise_std=noise_std)
    except NotEquivalentError as error:
        if kind is not Kind.weight_decay or optimizer is None:
            raise
        raise NotEquivalentError(
            f"{error} Here: bayesreg explain --optimizer {optimizer} --weight-decay {value:g} --num-data ... --lr ... "
            f"says what it does over a run, and bayesreg convert {value:g} --optimizer {optimizer} --from-run ... "
            f"--to-run ... what it becomes in another."
        ) from error
    if as_json:
        say(found.to_json())
    else:
        show(found.table())


def _refuse_beside_runs(given: list[str], kind: Kind) -> None:
    if given:
        raise InvalidArgumentError(f"{', '.join(given)}: the runs say it, --from-run batch_size=64,num_data=1e6,...")
    if kind is not Kind.weight_decay:
        raise InvalidArgumentError(f"--from: another run has another weight-decay; of {kind.value} nothing changes.")


def _to_run(value: float, optimizer: str | None, before: str | None, after: str | None, as_json: bool) -> None:
    if before is None or after is None:
        missing = "--from-run" if before is None else "--to-run"
        raise InvalidArgumentError(f"{missing}: pass both runs, such as --from-run batch_size=64,lr=1e-3,num_data=1e6.")
    if optimizer is None:
        raise InvalidArgumentError("--optimizer: name it (sgd, adamw, ...), as each means another thing by its decay.")
    runs = {"before": _settings("--from-run", before), "after": _settings("--to-run", after)}
    try:
        names = [name.strip() for name in optimizer.split(",")]
        found = adapt_weight_decay(value, optimizer=names, **runs)
    except InvalidArgumentError as error:
        # In the words of the command line.
        name, _, rest = str(error).partition(" " if str(error).split(":")[0] not in runs else ":")
        option = {"before": "--from-run", "after": "--to-run"}.get(name)
        raise (error if option is None else InvalidArgumentError(f"{option}: {rest.strip()}")) from error
    if as_json:
        say(found[0].to_json() if len(found) == 1 else json.dumps([one.to_dict() for one in found], indent=2))
        return
    for one in found:
        show(one)


def _settings(option: str, text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        name = name.strip().replace("-", "_")
        try:
            found[name] = value.strip() if name == "schedule" else float(value)
        except ValueError as error:
            raise InvalidArgumentError(f"{option}: expected name=number, got {part!r}.") from error
        if name == "warmup" and found[name] >= 1.0 and found[name].is_integer():
            found[name] = int(found[name])
    return found
