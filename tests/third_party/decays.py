"""The decays in docs/third_party.md: `python -m tests.third_party.decays` prints them, `--write` puts them there."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch

from bayesreg.errors import InvalidArgumentError
from bayesreg.testing import DecayReport, decay_of
from tests.third_party.__main__ import PAGE
from tests.third_party.stand_in import put_in_place

__all__ = ["KINDS", "LIBRARIES", "reports", "section"]

MARKS = ("<!-- decays -->", "<!-- end of decays -->")
RATE, PARTS = 0.05, (", matrices only", ", vectors only")
KINDS = (
    "coupled",
    "decoupled",
    "decoupled, by lr²",
    "cautious",
    "held",
    "hidden",
    "none",
    "other",
    "unknown",
    "not run",
)


def _torch() -> dict[str, Callable[[Any], Any]]:
    names = (
        "SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adagrad", "Adadelta", "Adamax", "RMSprop", "ASGD", "Rprop",
        "Adafactor", "Muon", "LBFGS", "SparseAdam",
    )  # fmt: skip
    return {name: getattr(torch.optim, name) for name in names if hasattr(torch.optim, name)}


def _timm() -> dict[str, Callable[[Any], Any]]:
    put_in_place()
    from timm.optim import create_optimizer_v2, list_optimizers

    def maker(name: str) -> Callable[[Any], Any]:
        return lambda weights: create_optimizer_v2(list(weights), opt=name, lr=RATE, weight_decay=0.0)

    return {name: maker(name) for name in list_optimizers()}


def _pytorch_optimizer() -> dict[str, Callable[[Any], Any]]:
    import pytorch_optimizer

    def maker(name: str) -> Callable[[Any], Any]:
        return lambda weights: pytorch_optimizer.load_optimizer(name)(list(weights), lr=RATE)

    return {name: maker(name) for name in sorted(pytorch_optimizer.get_supported_optimizers())}


LIBRARIES = {"torch": _torch, "timm": _timm, "pytorch_optimizer": _pytorch_optimizer}


def reports(library: str) -> dict[str, DecayReport | None]:
    """Return the report of each optimizer of a library; None where it cannot be made of a list of parameters."""
    found: dict[str, DecayReport | None] = {}
    for name, make in LIBRARIES[library]().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found[name] = decay_of(make)
            except InvalidArgumentError:
                found[name] = None
    return found


def row_of(report: DecayReport | None) -> str:
    """Return which row of the table an optimizer belongs to."""
    if report is None:
        return "not run"
    if report.hidden:
        return "hidden"
    kind = "decoupled, by lr²" if report.scales_with == "lr²" else report.kind
    return kind if report.applies_to in ("all", None) else f"{kind}, {report.applies_to} only"


def section() -> str:
    """Return the tables in Markdown."""
    parts = []
    for library in LIBRARIES:
        rows: dict[str, list[str]] = {f"{kind}{of}": [] for kind in KINDS for of in ("", *PARTS)}
        for name, report in reports(library).items():
            rows[row_of(report)].append(name)
        lines = [f"| {library} | its optimizers |", "| -- | -- |"]
        lines += [f"| {kind} | {', '.join(names)} |" for kind, names in rows.items() if names]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main(words: list[str]) -> int:
    """Print the tables, or write them into the page."""
    made = section()
    print(made)
    if "--write" in words:
        text = PAGE.read_text(encoding="utf-8")
        head, rest = text.split(MARKS[0])
        PAGE.write_text(f"{head}{MARKS[0]}\n\n{made}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
