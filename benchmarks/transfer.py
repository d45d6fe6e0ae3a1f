"""Does a prior about pretrained weights help on few examples, and how is its strength chosen? The protocol, in small.

    BAYESREG_DATA=... python benchmarks/transfer.py --json docs/data/transfer.json --figure docs/images/transfer.png

Every method trains on n examples with every setting of its grid (at most 12), on 20 fixed seeds. Three ways of choosing
the setting are reported side by side, all by NLL and none but the oracle with test data:

- rule: by rehearsal. Source data alone make a small transfer task, n of its examples train, 500 others validate, and
  the mean over five draws decides, once for each method and n. Frozen on other seeds: see --first-seed and --folds.
- split: a fifth of the n examples validate, the published way; then all n train with the prior's variance kept.
- oracle: by the test data of each seed, which nobody has.

Finished fits are kept in --out, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import _transfer_fit
import _transfer_learned
import torch
from _transfer_report import figure, summarise, tables
from _transfer_tasks import SIZES, TASKS

REHEARSALS = tuple(range(1000, 1005))

Job = tuple[str, str, int, int, str]


def jobs_of(names: list[str], seeds: list[int], sizes: list[int], methods: list[str] | None) -> list[Job]:
    """Return (task, stage, n, seed, method) of everything to be run, the rehearsals first."""
    stages = [("rehearsal", REHEARSALS), ("target", seeds)]
    return [
        (name, stage, n, seed, method)
        for stage, chosen in stages
        for name in names
        for n in sizes
        for seed in chosen
        for method in TASKS[name].grids
        if methods is None or method in methods
    ]


def work(job: Job, folds: int) -> tuple[Job, list[dict[str, Any]]]:
    torch.set_num_threads(1)
    name, stage, n, seed, method = job
    return job, _transfer_fit.run_job(TASKS[name], stage, n, seed, method, folds if stage == "target" else 0)


def protocol(folds: int) -> dict[str, Any]:
    """Return what must be the same for kept results to be used again."""
    return {
        "grids": {name: {m: [list(s) for s in grid] for m, grid in task.grids.items()} for name, task in TASKS.items()},
        "steps": _transfer_fit.STEPS,
        "batch": _transfer_fit.BATCH,
        "momentum": _transfer_fit.MOMENTUM,
        "head_scale": _transfer_fit.HEAD_SCALE,
        "learned": _transfer_learned.SETTINGS,
        "rehearsals": list(REHEARSALS),
        "folds": folds,
    }


def _continues(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Return whether the protocol is the same, but for methods and their settings that were added."""
    grids = all(
        grid == now["grids"].get(task, {}).get(method)
        for task, methods in before["grids"].items()
        for method, grid in methods.items()
    )
    return grids and all(now.get(name) == value for name, value in before.items() if name != "grids")


def kept(path: Path, folds: int) -> dict[Job, list[dict[str, Any]]]:
    """Read finished jobs; a last line cut by an interruption is dropped."""
    if not path.exists():
        path.write_text(json.dumps({"protocol": protocol(folds)}) + "\n")
        return {}
    lines = path.read_text().splitlines()
    now = protocol(folds)
    if not _continues(json.loads(lines[0])["protocol"], now):
        raise SystemExit(f"{path} holds results of another protocol; give another folder with --out.")
    done: dict[Job, list[dict[str, Any]]] = {}
    whole = [json.dumps({"protocol": now})]
    for line in lines[1:]:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        whole.append(line)
        done[tuple(record["job"])] = record["rows"]  # type: ignore[index]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("\n".join(whole) + "\n")
    temporary.replace(path)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--methods", nargs="+", help="some of them, by name")
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--folds", type=int, default=0, help="also choose by cross-validation with so many folds")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "bayesreg-transfer")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    os.environ["BAYESREG_TRANSFER_CACHE"] = str(arguments.out)
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    path = arguments.out / "fits.jsonl"
    done = kept(path, arguments.folds)
    seeds = list(range(arguments.first_seed, arguments.first_seed + arguments.seeds))
    wanted = jobs_of(arguments.tasks, seeds, arguments.sizes, arguments.methods)
    rest = [job for job in wanted if job not in done]
    start = time.perf_counter()
    for name in dict.fromkeys(job[0] for job in rest):
        # Once, not in every process.
        for pool in (TASKS[name].target(), TASKS[name].rehearsal()):
            if any(job[0] == name and job[4] in _transfer_learned.METHODS for job in rest):
                pool.learned()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as workers, path.open("a") as file:
        for count, future in enumerate(as_completed([workers.submit(work, job, arguments.folds) for job in rest]), 1):
            job, rows = future.result()
            done[job] = rows
            file.write(json.dumps({"job": job, "rows": rows}) + "\n")
            file.flush()
            if count % 20 == 0 or count == len(rest):
                print(f"{count} of {len(rest)} jobs, {time.perf_counter() - start:.0f} s", flush=True)

    summary = summarise({job: done[job] for job in wanted})
    summary["protocol"] = protocol(arguments.folds)
    summary["seconds of this run"] = round(time.perf_counter() - start)
    print(tables(summary))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(summary) + "\n")
    if arguments.figure:
        figure(summary, arguments.figure)


if __name__ == "__main__":
    main()
