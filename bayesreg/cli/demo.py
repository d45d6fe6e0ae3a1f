"""`bayesreg demo`: the whole story in a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayesreg.cli._output import for_json, require_no_option, say, show

__all__ = ["demo"]


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the figure and the JSON.")] = Path("bayesreg-demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Train on few rotated digits without a prior, with L2, L1, and with a prior centred on a source model."""
    from bayesreg._support.files import check_writable, write_json
    from bayesreg._support.optional import require
    from bayesreg.demo import run_demo
    from bayesreg.demo.picture import draw_accuracy

    # Asked before the work, not after it.
    require("matplotlib", "demo", "the pictures of the demo")
    require_no_option("--output", output)
    check_writable(output / "demo.json")
    typer.echo("A source model, 8 rehearsals, 60 small fits and 40 choices: about a minute.", err=True)
    result = run_demo()
    output.mkdir(parents=True, exist_ok=True)
    draw_accuracy(result, output / "accuracy.png")
    write_json(output / "demo.json", result.to_dict())
    if as_json:
        say(for_json(result.to_dict()))
        return
    show(result.accuracy_table())
    say("")
    show(result.table())
    say(f"{result.seconds:.0f} s. Figure: {output / 'accuracy.png'}. All numbers: {output / 'demo.json'}.")
