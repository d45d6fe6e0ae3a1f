"""What the benchmarks share: interleaved timing and output."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch


def interleaved(
    variants: dict[str, Callable[[], object]],
    rounds: int,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time every variant once per round, in alternating order; seconds per call.

    What a variant has as its attribute `fresh` is called before it, and not timed.
    """
    names = list(variants)
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds + warmup):
        for name in names if index % 2 else reversed(names):
            getattr(variants[name], "fresh", _nothing)()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            start = clock()
            variants[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if index >= warmup:
                times[name].append(clock() - start)
    return times


def _nothing() -> None:
    pass


def paired_ratio(times: dict[str, list[float]], name: str, base: str) -> float:
    """Median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(times[name], times[base], strict=True))


def bootstrap(times: dict[str, list[float]], name: str, base: str, draws: int = 2000) -> tuple[float, float, float]:
    """Median ratio within a round, with a 95 % bootstrap interval over rounds."""
    ratios = torch.tensor([a / b for a, b in zip(times[name], times[base], strict=True)])
    picks = torch.randint(len(ratios), (draws, len(ratios)), generator=torch.Generator().manual_seed(0))
    medians = ratios[picks].median(1).values
    low, high = torch.quantile(medians, torch.tensor([0.025, 0.975])).tolist()
    return float(ratios.median()), low, high


def machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return f"{device}; torch {torch.__version__}; Python {platform.python_version()}"


def markdown(rows: list[dict[str, object]]) -> str:
    """Return rows as a Markdown table."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " -- |" * len(columns)]
    for row in rows:
        cells = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(rows: list[dict[str, object]], description: str) -> None:
    """Print rows as a Markdown table; write them as JSON where asked."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(machine())
    print(markdown(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")
