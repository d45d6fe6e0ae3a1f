"""From fits to chosen settings, tables and the figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _common import machine
from _transfer_fit import best
from _transfer_learned import FISHER, METHODS, SWAG, WHOLE

CENTRED = "pretrained-centred prior"
WAYS = ("rule", "split", "folds", "oracle")


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval (Student's t)."""
    from scipy.stats import t

    if len(values) < 2 or not all(map(math.isfinite, values)):
        return statistics.fmean(values), math.nan
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), float(half)


def summarise(done: dict[tuple[Any, ...], list[dict[str, Any]]]) -> dict[str, Any]:
    """Choose a setting for every task, n, method, seed and way of choosing; collect test scores."""
    summary: dict[str, Any] = {"machine": machine(), "tasks": {}}
    for task in dict.fromkeys(job[0] for job in done):
        cells: list[dict[str, Any]] = []
        rules: dict[str, dict[str, Any]] = {}
        here = [job for job in done if job[0] == task]
        for method in dict.fromkeys(job[4] for job in here):
            for n in dict.fromkeys(job[2] for job in here):
                rehearsed = [done[j] for j in here if j[1:3] == ("rehearsal", n) and j[4] == method]
                means = [
                    {"setting": rows[0]["setting"], "nll": statistics.fmean(row["test"]["nll"] for row in rows)}
                    for rows in zip(*rehearsed, strict=True)
                ]
                rule = list(best(means, lambda row: row["nll"])["setting"])
                rules.setdefault(method, {})[str(n)] = rule
                fits = {j[3]: done[j] for j in here if j[1:3] == ("target", n) and j[4] == method}
                for way in WAYS:
                    chosen = {seed: row for seed, rows in sorted(fits.items()) if (row := _choose(rows, way, rule))}
                    if chosen:
                        cells.append(_cell(method, n, way, chosen))
        summary["tasks"][task] = {"rule": rules, "cells": cells}
    return summary


def _choose(rows: list[dict[str, Any]], way: str, rule: list[float | None]) -> dict[str, Any] | None:
    if way == "rule":
        return next(row for row in rows if list(row["setting"]) == rule)
    measure = "test" if way == "oracle" else way
    return best(rows, lambda row: row[measure]["nll"]) if measure in rows[0] else None


def _cell(method: str, n: int, way: str, chosen: dict[int, dict[str, Any]]) -> dict[str, Any]:
    scores = {what: [round(row["test"][what], 6) for row in chosen.values()] for what in ("accuracy", "nll")}
    settings = [list(row["setting"]) for row in chosen.values()]
    return {"method": method, "n": n, "way": way, "seeds": list(chosen), **scores, "settings": settings}


def _values(cells: list[dict[str, Any]], method: str, n: int, way: str, what: str) -> list[float]:
    return next(cell[what] for cell in cells if (cell["method"], cell["n"], cell["way"]) == (method, n, way))


def difference(
    cells: list[dict[str, Any]], other: str, n: int, way: str, what: str = "accuracy", method: str = CENTRED
) -> tuple[float, float]:
    """Return the paired difference of a method (the centred prior) and another, in points of accuracy or in nats."""
    pairs = zip(_values(cells, method, n, way, what), _values(cells, other, n, way, what), strict=True)
    return interval([(100.0 if what == "accuracy" else 1.0) * (a - b) for a, b in pairs])


def tables(summary: dict[str, Any]) -> str:
    """Return every table as Markdown."""
    parts = [summary["machine"]]
    for task, content in summary["tasks"].items():
        parts += [f"### {task}, {len(content['cells'][0]['seeds'])} seeds"]
        parts += [f"{TITLES[name]}\n\n{table(content, name, summary['protocol']['grids'][task])}" for name in TITLES]
    return "\n\n".join(parts)


TITLES = {
    "accuracy": "Accuracy in %, mean and 95 % interval over seeds (mean NLL in nats), chosen by the rule",
    "ways": "Ways of choosing, all of them by NLL, and the accuracy in % that comes of it",
    "gains": f"{CENTRED} minus each other, points of accuracy, paired, 95 % interval",
    "rules": "What the rule chose: prior scale, learning rate; * where one of them is at the edge of its grid",
}


def table(content: dict[str, Any], name: str, summary_grids: dict[str, Any] | None = None) -> str:
    """Return one table of a task as Markdown; the grids of its methods mark what was chosen at their edge."""
    cells = content["cells"]
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    sizes = list(dict.fromkeys(cell["n"] for cell in cells))
    ways = [way for way in WAYS if any(cell["way"] == way for cell in cells)]
    head = [f"n = {n}" for n in sizes]
    if name == "accuracy":
        rows = [[method, *(_accuracy(cells, method, n, "rule") for n in sizes)] for method in methods]
        return _rows(["method", *head], rows)
    if name == "rules":
        grids = summary_grids or {}
        rows = [
            [method, *(_setting(content["rule"][method][str(n)], grids.get(method, [])) for n in sizes)]
            for method in methods
        ]
        return _rows(["method", *head], rows)
    rows = [
        [
            method,
            way,
            *(_percent(cells, method, n, way) if name == "ways" else _gain(cells, method, n, way) for n in sizes),
        ]
        for method in methods
        if name == "ways" or method != CENTRED
        for way in ways
    ]
    return _rows(["method" if name == "ways" else "minus", "chosen by", *head], rows)


def _gain(cells: list[dict[str, Any]], method: str, n: int, way: str) -> str:
    mean, half = difference(cells, method, n, way)
    return f"{mean:+.1f} ± {half:.1f}"


def _percent(cells: list[dict[str, Any]], method: str, n: int, way: str) -> str:
    return f"{100 * statistics.fmean(_values(cells, method, n, way, 'accuracy')):.1f}"


def _accuracy(cells: list[dict[str, Any]], method: str, n: int, way: str) -> str:
    half = interval([100 * value for value in _values(cells, method, n, way, "accuracy")])[1]
    nll = statistics.fmean(_values(cells, method, n, way, "nll"))
    return f"{_percent(cells, method, n, way)} ± {half:.1f} ({nll:.2f})"


def _setting(setting: Sequence[float | None], grid: Sequence[Sequence[float | None]]) -> str:
    words = []
    for index, value in enumerate(setting):
        if value is not None:
            known = sorted({other[index] for other in grid if other[index] is not None})  # type: ignore[type-var]
            words.append(f"{value:g}{'*' if len(known) > 1 and value in (known[0], known[-1]) else ''}")
    return ", ".join(words) or "none"


def _rows(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["--"] * len(head), *rows))


def figure(summary: dict[str, Any], path: Path) -> None:
    """Draw accuracy against n and, below, the paired difference to the standard prior from the same start."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    tasks = summary["tasks"]
    titles = {
        "digits": "MNIST CNN → 8×8 digits",
        "sentences": "IMDb + Amazon → Yelp, linear",
        "fashion": "Fashion-MNIST, other classes",
    }
    colours = {
        "no prior, pretrained start": "#999999",
        "standard prior, from scratch": "#e69f00",
        "standard prior, pretrained start": "#56b4e9",
        "standard prior": "#56b4e9",
        CENTRED: "#0072b2",
        SWAG: "#009e73",
        FISHER: "#cc79a7",
        WHOLE: "#d55e00",
    }
    about = (CENTRED, *METHODS)
    drawing, axes = plt.subplots(
        2, len(tasks), figsize=(4.2 * len(tasks), 6.2), height_ratios=(2, 1), squeeze=False, layout="constrained"
    )
    for (top, bottom), (task, content) in zip(axes.T, tasks.items(), strict=True):
        cells = content["cells"]
        methods = list(dict.fromkeys(cell["method"] for cell in cells))
        sizes = list(dict.fromkeys(cell["n"] for cell in cells))
        base = "standard prior" if "standard prior" in methods else "standard prior, pretrained start"
        bottom.axhline(0.0, color="black", linewidth=0.8)
        for place, method in enumerate(methods):
            style = {
                "color": colours[method], "marker": "o" if method in about else "s", "capsize": 3,
                "linewidth": 2 if method == CENTRED else 1.3, "markersize": 4.5,
            }  # fmt: skip
            # Side by side, so that no interval hides another.
            x = [n * 1.03 ** (place - len(methods) / 2) for n in sizes]
            points = [interval([100 * v for v in _values(cells, method, n, "rule", "accuracy")]) for n in sizes]
            top.errorbar(x, [p[0] for p in points], [p[1] for p in points], label=method, **style)
            if method in about:
                gains = [difference(cells, base, n, "rule", method=method) for n in sizes]
                bottom.errorbar(x, [g[0] for g in gains], [g[1] for g in gains], **style)
        top.set(title=titles[task], xscale="log", ylabel="accuracy, %")
        bottom.set(xscale="log", xlabel="training examples n", ylabel="minus standard,\npoints")
        for axis in (top, bottom):
            axis.set_xticks(sizes, [str(n) for n in sizes])
            axis.minorticks_off()
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.25)
    shown = {}
    for axis in axes[0]:
        shown.update(dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True)))
    drawing.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=130)
    plt.close(drawing)
