"""Kill a training with SIGKILL at random moments, go on, and compare with one that was left alone.

`python -m tests.trainer.checkpoint.kill NAME KILLS FOLDER`; the names are those of `HOW` in `training.py`.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from tests.trainer.checkpoint.training import HOW, train


def child(name: str, folder: Path, done: Path, seed: int) -> None:
    """Train in this process, as a user's script that is started again and again; leave all that came out in a file."""
    how = {**HOW[name], "max_epochs": 12, "checkpoint_every": 2}
    how.pop("max_steps", None)
    weights, result = train(folder, resume=True, seed=seed, **how)
    records = [[value for key, value in record.items() if key != "seconds"] for record in result.history]
    torch.save([weights, torch.tensor(records, dtype=torch.float64), torch.tensor(result.mean_nll)], f"{done}.part")
    os.replace(f"{done}.part", done)


def forked(name: str, folder: Path, done: Path, seed: int) -> int:
    found = os.fork()
    if not found:
        # The parent's cleaning-up is not this process's.
        failed = 1
        try:
            child(name, folder, done, seed)
            failed = 0
        finally:
            if failed:
                traceback.print_exc()
            os._exit(failed)
    return found


def killed(name: str, kills: int, where: Path) -> int:
    """Return how often the training was killed at work, after which it ended as the one that was not."""
    dice = random.Random(name)
    assert os.waitpid(forked(name, where / "whole", where / "whole.pt", 1), 0)[1] == 0
    whole = torch.load(where / "whole.pt", weights_only=True)
    hits = 0
    for round_number in range(1000):
        folder, done = where / f"broken-{round_number}", where / f"broken-{round_number}.pt"
        while not done.exists():
            # As a scheduler starts a job again. Once there is a checkpoint, all that is random comes from it.
            process = forked(name, folder, done, seed=hits + 2 if list(folder.glob("step-*")) else 1)
            if hits < kills:
                time.sleep(dice.uniform(0.0, 0.3))
                os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            hits += os.WIFSIGNALED(status)
            assert os.WIFSIGNALED(status) or status == 0, f"{name}: the run could not go on after {hits} kills"
        broken = torch.load(done, weights_only=True)
        assert all(torch.equal(one, other) for one, other in zip(whole, broken, strict=True)), f"{name}: other weights"
        if hits >= kills:
            return hits
    raise AssertionError("the training ends before it can be killed")


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, count, place = sys.argv[1:]
    sys.stdout.write(f"{name}: {killed(name, int(count), Path(place))} kills, the same weights\n")
