"""`bayesreg report`: a run folder as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayesreg._support.files import atomic, check_writable
from bayesreg.cli._output import for_json, require_no_option, say
from bayesreg.errors import InvalidArgumentError

__all__ = ["report"]


def report(
    run: Annotated[Path, typer.Argument(help="The run folder of bayesreg fit.")],
    output: Annotated[Path | None, typer.Option(help="Where to write it.  \\[default: RUN/report.html]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write one self-contained page on a run: data, prior, strength, fit, coefficients, what it is elsewhere."""
    from bayesreg.cli.tabular.page import page_of

    if output is not None:
        require_no_option("--output", output)
    if not (run / "metrics.json").is_file():
        raise InvalidArgumentError(f"{run}: not a run folder of bayesreg fit (it has no metrics.json).")
    place = run / "report.html" if output is None else output
    check_writable(place)
    text = page_of(run)
    with atomic(place) as file:
        file.write_text(text, encoding="utf-8")
    say(for_json({"report": str(place)}) if as_json else f"Report: {place}")
