"""`bayesreg prior`: learn, look into and change prior files, without the model's code."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bayesreg._support.files import check_writable
from bayesreg.cli._options import Word
from bayesreg.cli._output import for_json, require_no_option, say, show
from bayesreg.errors import InvalidArgumentError, PatternError, nearest
from bayesreg.model_prior.file import describe_file

__all__ = ["prior"]


class Convention(Word):
    """The conventions of `br.transfer.low_rank_prior`."""

    stated = "stated"
    shwartz_ziv = "shwartz_ziv"
    harvey = "harvey"
    data_emphasized_elbo = "data_emphasized_elbo"


prior = typer.Typer(help="Learn, look into and change prior files.", no_args_is_help=True)

Output = Annotated[Path, typer.Option("--output", "-o", help="The prior file to write, .safetensors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Factor = Annotated[
    float, typer.Option("--variance-factor", help="λ: what variances are multiplied by (stds by its root).")
]
Only = Annotated[list[str] | None, typer.Option(help="Glob of the parameters to keep; may be repeated.")]
Rename = Annotated[list[str] | None, typer.Option(help="OLD=NEW, names or globs; NEW empty: leave out. Repeatable.")]


@prior.command("show", epilog="Example: bayesreg prior show prior.safetensors")
def show_file(
    file: Annotated[Path, typer.Argument(help="What ModelPrior.save wrote, or the run folder of `bayesreg fit`.")],
    as_json: AsJson = False,
) -> None:
    """Say which parameter has which prior, where it comes from, and when it was written."""
    table = describe_file(file / "prior.safetensors" if file.is_dir() else file)
    if as_json:
        say(for_json(table.to_dict()))
    else:
        show(table)


@prior.command("fit", epilog="Example: bayesreg prior fit run/checkpoint-*/ --output prior.safetensors")
def fit_file(
    checkpoints: Annotated[list[Path], typer.Argument(help="Two or more, in the order of training.")],
    output: Output,
    rank: Annotated[
        int | None, typer.Option(help="How many of the last deviations to keep. Default: up to 20.")
    ] = None,
    factor: Factor = 1.0,
    epsilon: Annotated[float, typer.Option(help="Added to every variance (times --variance-factor).")] = 0.0,
    only: Only = None,
    as_json: AsJson = False,
) -> None:
    """Learn a SWAG prior from the checkpoints of a training run, in the order of the numbers in their names."""
    import bayesreg as br
    from bayesreg.references.skeleton import skeleton

    _refuse_output(output, checkpoints)
    if rank is not None and not 2 <= rank <= len(checkpoints):
        raise InvalidArgumentError(f"--rank: expected 2 to {len(checkpoints)}, the number of checkpoints, got {rank}.")
    ordered = _in_order(checkpoints)
    if len(set(map(str, ordered))) < len(ordered):
        raise InvalidArgumentError("checkpoints: expected each once, got one several times.")
    swag = br.transfer.SWAG.from_checkpoints(ordered, max_rank=rank or 20)
    learned = swag.prior(scale=factor, epsilon=epsilon, only=only)
    model = skeleton({name: tensor for name, tensor in swag.model.named_parameters() if _kept(name, only)})
    made = br.ModelPrior(model, {"*": learned})
    names = [path.name for path in ordered]
    shown = names if len(names) <= 6 else [*names[:3], "...", *names[-2:]]
    made.notes += (f"Learned from {len(names)} checkpoints, in this order: {', '.join(shown)}.",)
    made.save(output)
    show_file(output, as_json)


@prior.command(
    "convert", epilog="Example: bayesreg prior convert source.safetensors --variance-factor 100 -o target.safetensors"
)
def convert_file(
    source: Annotated[Path, typer.Argument(help="A prior file; with --variance and --deviations: the flat mean, .pt.")],
    output: Output,
    factor: Factor = 1.0,
    only: Only = None,
    rename: Rename = None,
    variance: Annotated[Path | None, typer.Option(help="Flat variances, .pt.")] = None,
    deviations: Annotated[Path | None, typer.Option(help="Flat deviations, K rows, .pt.")] = None,
    like: Annotated[Path | None, typer.Option(help="Weights of the same model, .pt: names, shapes, order.")] = None,
    convention: Annotated[Convention | None, Convention.option("What the statistics' covariance is.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="As the convention means it; of flat statistics.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a prior file's strength, names and parts, or make one of published SWAG statistics."""
    import bayesreg as br
    from bayesreg.references.skeleton import skeleton

    flat = {"--variance": variance, "--deviations": deviations, "--like": like}
    missing = [option for option, given in flat.items() if given is None]
    _refuse_output(output, [source])
    if len(missing) == len(flat):
        if convention is not None or epsilon is not None:
            raise InvalidArgumentError(
                f"--convention, --epsilon: are for flat statistics ({', '.join(flat)}); a file has its own."
            )
        made = _changed(source, factor, only, _rules(rename))
    elif missing:
        raise InvalidArgumentError(f"{', '.join(missing)}: flat statistics need all of {', '.join(flat)}.")
    else:
        if rename:
            raise InvalidArgumentError("--rename: is for prior files; flat statistics take their names from --like.")
        assert variance is not None
        assert deviations is not None
        assert like is not None
        model = _skeleton_of(like)
        whole = br.transfer.flat_statistics(model, mean=source, variance=variance, deviations=deviations)
        _require_globs(only, whole[0], like.name)
        mean, spread, columns = ({n: t for n, t in part.items() if _kept(n, only)} for part in whole)
        learned = br.transfer.low_rank_prior(
            mean,
            spread,
            columns,
            scale=factor,
            epsilon=epsilon or 0.0,
            convention=(convention or Convention.stated).value,
            source=source.name,
        )
        made = br.ModelPrior(skeleton(mean), {"*": learned})
    made.save(output)
    show_file(output, as_json)


def _changed(source: Path, factor: float, only: list[str] | None, rename: dict[Any, Any] | None) -> Any:
    import torch

    import bayesreg as br
    from bayesreg.model_prior.file import read_prior_file
    from bayesreg.references.names import renamed
    from bayesreg.references.skeleton import skeleton

    rows = read_prior_file(source).rows
    names = rows if rename is None else renamed(dict(rows), rename, source.name)[0]
    kept = {name: row for name, row in names.items() if _kept(name, only)}
    if not names:
        raise PatternError(f"--rename: leaves nothing of {source.name}.")
    _require_globs(only, names, source.name)
    empty = {name: torch.empty(row.shape, dtype=getattr(torch, row.dtype)) for name, row in kept.items()}
    model = skeleton(empty, parameters=True)
    for name, parameter in model.named_parameters():
        # What was frozen at the source has no prior, and needs none.
        parameter.requires_grad_(parameter.requires_grad and kept[name].prior is not None)
    loaded = br.ModelPrior.load(source, model, rename=rename, extra="raise" if only is None else "ignore")
    return loaded if factor == 1.0 else br.transfer.rescaled(loaded, factor)


def _require_globs(only: list[str] | None, names: Iterable[str], source: str) -> None:
    known = list(names)
    for glob in only or []:
        if not fnmatch.filter(known, glob):
            hint = nearest(glob, [*known, *{f"{name.rpartition('.')[0]}.*" for name in known}])
            raise PatternError(f"--only {glob!r}: expected a glob that matches a parameter of {source}, got none{hint}")


def _refuse_output(output: Path, sources: Sequence[Path]) -> None:
    require_no_option("--output", output)
    # Asked before the work, not after it.
    check_writable(output)
    if any(output.resolve() == source.resolve() for source in sources):
        raise InvalidArgumentError(f"--output: expected another file than the source, got {output}.")


def _in_order(paths: Sequence[Path]) -> list[Path]:
    """Sort by the numbers in the names where these are all they differ in; a shell sorts 1000 before 200."""
    if len({re.sub(r"\d+", "#", str(path)) for path in paths}) > 1:
        return list(paths)
    return sorted(paths, key=lambda path: [int(number) for number in re.findall(r"\d+", str(path))])


def _kept(name: str, only: list[str] | None) -> bool:
    return not only or any(fnmatch.fnmatchcase(name, glob) for glob in only)


def _rules(given: list[str] | None) -> dict[Any, Any] | None:
    if not given:
        return None
    odd = [rule for rule in given if "=" not in rule]
    if odd:
        raise InvalidArgumentError(f"--rename: expected OLD=NEW, got {odd[0]!r}.")
    pairs = [rule.split("=", 1) for rule in given]
    return {old: new or None for old, new in pairs}


def _skeleton_of(weights: Path) -> Any:
    import bayesreg as br
    from bayesreg.references.skeleton import skeleton

    if weights.suffix == ".safetensors":
        raise InvalidArgumentError(
            "--like: expected a torch file (.pt, .pth, .bin): safetensors files do not keep the order of parameters, "
            "in which flat statistics are."
        )
    return skeleton(dict(br.load_reference(weights)))
