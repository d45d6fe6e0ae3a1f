"""`bayesreg predict`: a run folder on new rows."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, Any

import typer

from bayesreg._support.files import atomic, check_writable
from bayesreg.cli._options import DecimalOption, HeaderOption, SepOption, listed
from bayesreg.cli._output import for_json, require_no_option, say
from bayesreg.errors import DataError, InvalidArgumentError

__all__ = ["predict"]


def predict(
    run: Annotated[Path, typer.Argument(help="The run folder of bayesreg fit.")],
    data: Annotated[Path, typer.Argument(help="A .csv, .parquet or .npz file with the columns that were trained on.")],
    sep: SepOption = None,
    decimal: DecimalOption = None,
    header: HeaderOption = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Columns of DATA to repeat in front of the predictions, such as an id, by commas."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="CSV to write.  \\[default: printed]")] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Import and call the function that made the model: runs code.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict the target of new rows: a number, or the likeliest class with the probability of each."""
    import bayesreg as br
    from bayesreg.cli.tabular.inputs import features_of

    if output is not None:
        require_no_option("--output", output)
        check_writable(output)
        if as_json:
            raise InvalidArgumentError("--json: is for what is printed, and --output writes a CSV; leave one out.")
    loaded = br.load_run(run, trust=trust)
    if "task" not in loaded.metrics:
        raise InvalidArgumentError(f"{run}: not a run of bayesreg fit; use br.load_run(...).predict in Python.")
    kept = list(dict.fromkeys(listed(keep) or ()))
    features, notes, repeated = features_of(loaded, data, header, sep, kept, decimal)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    columns, rows = _predictions(loaded, features)
    columns = [*kept, *columns]
    rows = [[*(column[index] for column in repeated), *row] for index, row in enumerate(rows)]
    if as_json:
        say(for_json({"columns": columns, "rows": rows, "notes": notes}))
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    if output is None:
        say(text.getvalue().rstrip("\n"))
        return
    with atomic(output) as place:
        place.write_text(text.getvalue(), encoding="utf-8")
    say(f"{len(rows)} predictions: {output}")


def _predictions(run: Any, features: Any) -> tuple[list[str], list[list[Any]]]:
    target = run.metrics.get("target", "target")
    if run.metrics["task"] == "regression":
        values = run.predict(features, kind="mean").reshape(-1).tolist()
        return [f"predicted {target}"], [[value] for value in values]
    shares = run.predict(features, kind="probabilities")
    if shares.ndim == 1 or shares.shape[1] == 1:
        likely = shares.reshape(-1)
        pairs = [[1.0 - share, share] for share in likely.tolist()]
    else:
        pairs = shares.tolist()
    names = list(run.class_names)
    if len(names) != len(pairs[0]):
        raise DataError(f"the run has {len(names)} classes, and its model {len(pairs[0])}.")
    rows = [[names[max(range(len(one)), key=one.__getitem__)], *one] for one in pairs]
    return [f"predicted {target}", *(f"P({name})" for name in names)], rows
