"""Kill what writes, at many moments, and look at what is left: `python -m tests.model_prior.kill FOLDER MOMENTS`."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import bayesreg as br
from bayesreg._support import files
from bayesreg.cli import main as command


def killed(work: Callable[[], None], wait: Callable[[int], None]) -> bool:
    """Fork, let the child work, kill it when `wait` returns; return whether it was still at work."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        original = files._workplace
        # Tells the parent when the writing begins.
        files._workplace = lambda target: (os.write(write, b"w"), original(target))[1]
        try:
            work()
        finally:
            os._exit(0)
    os.close(write)
    wait(read)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(read)
    return os.WIFSIGNALED(status)


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def model() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    made = nn.Linear(60, 60)
    with torch.no_grad():
        made.weight.copy_(torch.randn(60, 60, generator=generator))
    return made


def saves(folder: Path, moments: int, dice: random.Random) -> tuple[int, int]:
    """Kill `ModelPrior.save`; return how often it was at work, and the most that it left."""
    path, prior = folder / "prior.safetensors", br.ModelPrior(model(), br.Gaussian.centered_at(model(), 0.1))
    prior.save(path)
    hits, most = 0, 0

    def wait(pipe: int) -> None:
        os.read(pipe, 1)
        time.sleep(dice.random() * 4e-3)

    def work() -> None:
        while True:
            prior.save(path)

    for _ in range(moments):
        hits += killed(work, wait)
        most = max(most, len(hidden(folder)))
        # Whole, whichever save it is of.
        assert br.ModelPrior.load(path, model()).same_as(prior)
    prior.save(path)
    assert hidden(folder) == [], hidden(folder)
    return hits, most


def fits(folder: Path, moments: int, dice: random.Random) -> tuple[int, int]:
    """Kill `bayesreg fit`, half the times while it writes; return how often it was at work, and the most it left."""
    os.chdir(folder)
    sys.argv = ["bayesreg", "fit", "iris", "--output", "run"]
    hits, most = 0, 0
    for moment in range(moments):

        def wait(pipe: int, moment: int = moment) -> None:
            if moment % 2:
                # The first is the question whether it can be written, the second the writing.
                os.read(pipe, 1)
                os.read(pipe, 1)
                time.sleep(dice.random() * 0.5)
            else:
                time.sleep(dice.random() * 0.6)

        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            hits += killed(command, wait)
        most = max(most, len(hidden(folder)))
        if (folder / "run").exists():
            assert sorted(os.listdir("run")) == [
                "history.json", "history.png", "metrics.json", "model.safetensors", "prior.safetensors", "weights.png",
            ]  # fmt: skip
            br.load_run("run")
            for path in (folder / "run").iterdir():
                path.unlink()
            (folder / "run").rmdir()
    with contextlib.suppress(SystemExit):
        command()
    assert sorted(os.listdir(folder)) == ["run"], os.listdir(folder)
    return hits, most


if __name__ == "__main__":
    where, count = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    for name, kill in (("save", saves), ("fit", fits)):
        (where / name).mkdir()
        told = os.dup(1)
        at_work, left = kill(where / name, count, random.Random(0))
        os.dup2(told, 1)
        sys.stdout.write(
            f"{name}: {at_work} of {count} killed at work, at most {left} hidden folders before the next\n"
        )
