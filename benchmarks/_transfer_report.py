"""From fits to chosen settings, tables and the figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _common import machine
from _transfer_fit import best

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
    tasks = dict.fromkeys(job[0] for job in done)
    summary: dict[str, Any] = {"machine": machine(), "tasks": {}}
    for task in tasks:
        results: list[dict[str, Any]] = []
        rules: dict[str, dict[str, Any]] = {}
        here = [job for job in done if job[0] == task]
        for n in dict.fromkeys(job[2] for job in here):
            for method in dict.fromkeys(job[4] for job in here):
                rehearsed = [done[j] for j in here if j[1:3] == ("rehearsal", n) and j[4] == method]
                means = [
                    {"setting": rows[0]["setting"], "nll": statistics.fmean(row["test"]["nll"] for row in rows)}
                    for rows in zip(*rehearsed, strict=True)
                ]
                rule = best(means, lambda row: row["nll"])["setting"]
                rules.setdefault(method, {})[str(n)] = rule
                for job in here:
                    if job[1:3] != ("target", n) or job[4] != method:
                        continue
                    rows = done[job]
                    chosen = {
                        "rule": next(row for row in rows if list(row["setting"]) == list(rule)),
                        "split": best(rows, lambda row: row["split"]["nll"]),
                        "oracle": best(rows, lambda row: row["test"]["nll"]),
                    }
                    if "folds" in rows[0]:
                        chosen["folds"] = best(rows, lambda row: row["folds"]["nll"])
                    results += [
                        {"method": method, "n": n, "seed": job[3], "way": way, "setting": row["setting"], **row["test"]}
                        for way, row in chosen.items()
                    ]
        summary["tasks"][task] = {"rule": rules, "results": results}
    return summary


def _cells(results: list[dict[str, Any]], method: str, n: int, way: str, what: str) -> list[float]:
    rows = [row for row in results if (row["method"], row["n"], row["way"]) == (method, n, way)]
    return [row[what] for row in sorted(rows, key=lambda row: row["seed"])]


def difference(
    results: list[dict[str, Any]], other: str, n: int, way: str, what: str = "accuracy"
) -> tuple[float, float]:
    """Return the paired difference of the centred prior and another method, in points of accuracy or in nats."""
    pairs = zip(_cells(results, CENTRED, n, way, what), _cells(results, other, n, way, what), strict=True)
    return interval([(100.0 if what == "accuracy" else 1.0) * (a - b) for a, b in pairs])


def tables(summary: dict[str, Any]) -> str:
    lines = [summary["machine"]]
    for task, content in summary["tasks"].items():
        results = content["results"]
        methods = list(dict.fromkeys(row["method"] for row in results))
        sizes = list(dict.fromkeys(row["n"] for row in results))
        ways = [way for way in WAYS if any(row["way"] == way for row in results)]
        seeds = len({row["seed"] for row in results})
        head = [f"n = {n}" for n in sizes]
        lines += ["", f"### {task}: accuracy in %, mean and 95 % interval over {seeds} seeds (mean NLL in nats), rule"]
        lines += _rows(
            ["method", *head], [[method, *(_accuracy(results, method, n, "rule") for n in sizes)] for method in methods]
        )
        lines += ["", f"### {task}: ways of choosing, accuracy in %"]
        lines += _rows(
            ["method", "chosen by", *head],
            [
                [
                    method,
                    way,
                    *(f"{100 * statistics.fmean(_cells(results, method, n, way, 'accuracy')):.1f}" for n in sizes),
                ]
                for method in methods
                for way in ways
            ],
        )
        lines += ["", f"### {task}: {CENTRED} minus each other, points of accuracy, paired, 95 % interval"]
        lines += _rows(
            ["minus", "chosen by", *head],
            [
                [method, way, *("{:+.1f} ± {:.1f}".format(*difference(results, method, n, way)) for n in sizes)]
                for method in methods
                if method != CENTRED
                for way in ways
            ],
        )
        lines += ["", f"### {task}: the rule's settings (prior scale, learning rate)"]
        lines += _rows(
            ["method", *head],
            [[method, *(_setting(content["rule"][method][str(n)]) for n in sizes)] for method in methods],
        )
    return "\n".join(lines)


def _percent(results: list[dict[str, Any]], method: str, n: int, way: str) -> str:
    return f"{100 * statistics.fmean(_cells(results, method, n, way, 'accuracy')):.1f}"


def _accuracy(results: list[dict[str, Any]], method: str, n: int, way: str) -> str:
    mean, half = interval([100 * value for value in _cells(results, method, n, way, "accuracy")])
    return f"{mean:.1f} ± {half:.1f} ({statistics.fmean(_cells(results, method, n, way, 'nll')):.2f})"


def _setting(setting: Sequence[float | None]) -> str:
    return ", ".join(f"{value:g}" for value in setting if value is not None) or "none"


def _rows(head: list[str], rows: list[list[str]]) -> list[str]:
    return [" | ".join(["", *cells, ""]).strip() for cells in (head, ["---"] * len(head), *rows)]


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
    }
    drawing, axes = plt.subplots(
        2, len(tasks), figsize=(4.2 * len(tasks), 6.2), height_ratios=(2, 1), squeeze=False, layout="constrained"
    )
    for (top, bottom), (task, content) in zip(axes.T, tasks.items(), strict=True):
        results = content["results"]
        methods = list(dict.fromkeys(row["method"] for row in results))
        sizes = list(dict.fromkeys(row["n"] for row in results))
        for method in methods:
            points = [interval([100 * v for v in _cells(results, method, n, "rule", "accuracy")]) for n in sizes]
            marker = "o" if method == CENTRED else "s"
            top.errorbar(
                sizes, [p[0] for p in points], [p[1] for p in points], label=method, color=colours[method],
                marker=marker, capsize=3, linewidth=2 if method == CENTRED else 1.3,
            )  # fmt: skip
        top.set(title=titles[task], xscale="log", xticks=sizes, ylabel="accuracy, %")
        base = "standard prior" if "standard prior" in methods else "standard prior, pretrained start"
        gains = [difference(results, base, n, "rule") for n in sizes]
        bottom.axhline(0.0, color="black", linewidth=0.8)
        bottom.errorbar(
            sizes, [g[0] for g in gains], [g[1] for g in gains], color=colours[CENTRED], marker="o", capsize=3
        )
        bottom.set(xscale="log", xticks=sizes, xlabel="training examples n", ylabel="centred − standard,\npoints")
        for axis in (top, bottom):
            axis.set_xticks(sizes, [str(n) for n in sizes])
            axis.minorticks_off()
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.25)
    handles, labels = axes[0][0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=130)
    plt.close(drawing)
