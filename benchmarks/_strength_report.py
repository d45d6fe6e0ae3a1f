"""From draws to the tables, the figure and the misses of `strength.py`."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["COLUMNS", "costs", "draw_figure", "misses", "scores"]

COLUMNS = ("choose", "grid", "grid and hyperprior", "five", "default", "oracle")
NAMES = {
    "choose": "choose_strength",
    "grid": "grid",
    "grid and hyperprior": "grid, hyperprior",
    "five": "five, stopped early",
    "default": "N(0, 1)",
    "oracle": "oracle",
}
_WAY = {
    "loo": "leave-one-out",
    "split": "a fifth",
    "folds": "folds",
    "centre": "hyperprior",
    "evidence": "evidence",
}

Draws = Sequence[dict[str, Any]]


def _settings(draws: Draws) -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    for name, n in dict.fromkeys((d["name"], d["n"]) for d in draws):
        yield name, n, [d for d in draws if (d["name"], d["n"]) == (name, n)]


def _mean(here: Draws, column: str, what: str = "nll") -> float:
    return statistics.fmean(d[column][what] for d in here)


def _against(here: Draws, column: str) -> list[float]:
    return [d["choose"]["nll"] - d[column]["nll"] for d in here]


def scores(draws: Draws) -> list[dict[str, object]]:
    """Return mean test NLLs, a row per setting, the best but for the oracle in bold."""
    rows = []
    for name, n, here in _settings(draws):
        means = {column: _mean(here, column) for column in COLUMNS}
        least = min(means[column] for column in COLUMNS if column != "oracle")
        row: dict[str, object] = {"setting": name, "n": n, "draws": len(here)}
        for column, mean in means.items():
            text = f"{mean:.3f}"
            row[NAMES[column]] = f"**{text}**" if column != "oracle" and mean == least else text
        row["worst − grid"] = f"{max(_against(here, 'grid')):+.3f}"
        rows.append(row)
    return rows


def costs(draws: Draws) -> list[dict[str, object]]:
    """Return how many times as much the grid takes, and accuracy where there is one."""
    rows = []
    for name, n, here in _settings(draws):
        row: dict[str, object] = {"setting": name, "n": n}
        row["scored by"] = ", ".join(_WAY[by] for by in sorted({d["choose"]["method"] for d in here}))
        row["evaluations"] = f"{_mean(here, 'choose', 'evaluations'):.0f}"
        row["seconds"] = f"{_mean(here, 'choose', 'seconds'):.1f}"
        for what in ("evaluations", "seconds"):
            row[f"grid's {what}"] = f"{_mean(here, 'grid', what) / _mean(here, 'choose', what):.1f} ×"
        if all("metric" in d["choose"] for d in here) and "noise" not in name:
            row["accuracy"], row["grid's"] = (f"{_mean(here, c, 'metric'):.3f}" for c in ("choose", "grid"))
        rows.append(row)
    return rows


def misses(draws: Draws) -> Iterator[str]:
    """Yield where what was set out to be reached is not, in words."""
    settings = list(_settings(draws))
    chosen = statistics.fmean(_mean(here, "choose") for *_, here in settings)
    grid, penalised = (
        statistics.fmean(_mean(here, c) for *_, here in settings) for c in ("grid", "grid and hyperprior")
    )
    yield f"Mean over settings: chosen {chosen:.4f}, grid {grid:.4f}, grid and hyperprior {penalised:.4f}."
    for name, n, here in settings:
        where, by = f"{name}, n = {n}", here[0]["choose"]["method"]
        over = statistics.fmean(_against(here, "grid and hyperprior"))
        if over > 0.02:
            yield f"{where}: {over:+.3f} on average against the grid with the hyperprior."
        if statistics.fmean(_against(here, "grid")) > 0.0:
            yield f"{where}: {statistics.fmean(_against(here, 'grid')):+.3f} on average against the grid."
        for d, worse in zip(here, _against(here, "grid"), strict=True):
            if worse > 0.05:
                yield f"{where}, seed {d['seed']}: {worse:+.3f} against the grid ({d['choose']['method']})."
        evaluations, seconds = (_mean(here, "grid", w) / _mean(here, "choose", w) for w in ("evaluations", "seconds"))
        if evaluations < (6.0 if n <= 50 else 10.0):
            yield f"{where}: 1/{evaluations:.1f} of the grid's evaluations."
        if seconds < (2.0 if by == "loo" else 5.0):
            yield f"{where}: 1/{seconds:.1f} of the grid's seconds ({by})."


def draw_figure(draws: Draws, path: Path) -> None:
    """Draw how far each way is from the oracle, a row per setting, and write it."""
    from matplotlib.figure import Figure

    settings = list(_settings(draws))
    figure = Figure(figsize=(9.6, 0.36 * len(settings) + 1.5), layout="constrained")
    ax = figure.add_subplot()
    marks = {
        "default": ("x", "0.6", "N(0, 1), no choice"),
        "five": ("v", "0.45", "five strengths, stopped early"),
        "grid": ("s", "#c2571a", "40 strengths, the best on a fifth"),
        "grid and hyperprior": ("D", "#4b8b2b", "the same with the hyperprior"),
        "choose": ("o", "#1b3a5c", "choose_strength"),
    }
    for column, (mark, colour, label) in marks.items():
        apart = [max(_mean(here, column) - _mean(here, "oracle"), 1e-4) for *_, here in settings]
        ax.plot(apart, range(len(settings)), mark, color=colour, label=label, ms=8 if column == "choose" else 6)
    ax.set_yticks(range(len(settings)), [f"{name}, n = {n:,}" for name, n, _ in settings])
    ax.invert_yaxis()
    ax.set(
        xscale="log",
        xlim=(None, 3.0),
        xlabel="test NLL over that of the best strength of all (nats per example, log scale)",
    )
    ax.grid(axis="y", color="0.9")
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)
