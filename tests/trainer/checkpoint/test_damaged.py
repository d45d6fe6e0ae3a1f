"""Damaged checkpoints: never a wrong load, never a lost good one."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import warnings

import pytest
import torch

import bayesreg as br
from bayesreg.trainer.checkpoint import RunFolder
from tests.trainer.checkpoint.training import HOW, train


def state(step):
    generator = torch.Generator().manual_seed(step)
    return {
        "step": step,
        "weights": torch.randn(40, 5, generator=generator),
        "half": torch.randn(7, generator=generator).bfloat16(),
        "history": [{"epoch": 1, "nll": 0.1 + step, "bad": float("inf")}],
    }


def alike(one, other):
    return (
        one.keys() == other.keys()
        and all(torch.equal(one[k], other[k]) and one[k].dtype == other[k].dtype for k in ("weights", "half"))
        and one["history"] == other["history"]
    )


def truncated(content, dice):
    return content[: dice.randrange(len(content))]


def flipped(content, dice):
    made = bytearray(content)
    made[dice.randrange(len(made))] ^= 1 << dice.randrange(8)
    return bytes(made)


def zeroed(content, dice):
    made, where = bytearray(content), dice.randrange(len(content))
    made[where : where + 64] = bytes(len(made[where : where + 64]))
    return bytes(made)


def shuffled(content, dice):
    made = list(content)
    first = dice.randrange(len(made))
    part = made[first : first + 40]
    dice.shuffle(part)
    made[first : first + 40] = part
    return bytes(made)


def longer(content, dice):
    return content + bytes(dice.randrange(256) for _ in range(dice.randrange(1, 50)))


def noise(content, dice):
    return bytes(dice.randrange(256) for _ in range(len(content)))


DAMAGES = [truncated, flipped, zeroed, shuffled, longer, noise]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_two_hundred_and_more_damages(tmp_path, damage):
    dice = random.Random(damage.__name__)
    whole = tmp_path / "whole"
    folder = RunFolder(whole)
    for step in (10, 20):
        folder.save(step, state(step))
    folder.close()
    met = {"the one before": 0, "harmless": 0}
    for number in range(50):
        here = tmp_path / str(number)
        shutil.copytree(whole, here)
        newest = here / "step-000000000020.safetensors"
        newest.write_bytes(damage(newest.read_bytes(), dice))
        again = RunFolder(here)
        if newest.read_bytes() == (whole / newest.name).read_bytes():
            again.close()
            continue
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = again.newest()
        again.close()
        assert alike(found, state(found["step"]))
        met["harmless" if found["step"] == 20 else "the one before"] += 1
        if found["step"] == 10:
            (warning,) = told
            assert "step-000000000020.safetensors" in str(warning.message)
            assert (here / "step-000000000020.safetensors.damaged").exists()
            assert (here / "step-000000000010.safetensors").exists()
    assert met["the one before"] >= 40


def test_all_damaged_is_said_and_nothing_is_removed(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (1, 2):
        folder.save(step, state(step))
    for file in folder.found():
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(
        br.CheckpointError, match=r"no checkpoint in .* can be read.*step-000000000002.*step-000000000001"
    ):
        folder.newest()
    assert len(folder.found()) == 2


@pytest.mark.parametrize("kind", ["another step's", "a folder", "a link to nothing", "a pickle", "a prior"])
def test_what_is_no_checkpoint_is_not_taken_for_one(tmp_path, kind):
    folder = RunFolder(tmp_path, keep=3)
    for step in (1, 2):
        folder.save(step, state(step))
    fake = tmp_path / "step-000000000003.safetensors"
    if kind == "another step's":
        shutil.copy(tmp_path / "step-000000000001.safetensors", fake)
    elif kind == "a folder":
        fake.mkdir()
    elif kind == "a link to nothing":
        fake.symlink_to(tmp_path / "gone")
    elif kind == "a pickle":
        torch.save({"step": 3}, fake)
    else:
        br.ModelPrior(torch.nn.Linear(2, 2), br.Gaussian(1.0)).save(fake)
    with pytest.warns(br.CheckpointWarning, match="step-000000000003"):
        assert alike(folder.newest(), state(2))


def test_a_later_version_is_not_guessed(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.save(1, state(1))
    monkeypatch.setattr("bayesreg.trainer.checkpoint.folder._FORMAT", 2)
    folder.save(2, state(2))
    monkeypatch.undo()
    with pytest.raises(br.CheckpointError, match="later than this one"):
        folder.newest()


def test_the_newest_few_stay(tmp_path):
    folder = RunFolder(tmp_path)
    for step in range(1, 8):
        folder.save(step, state(step))
    assert [file.name for file in folder.found()] == [f"step-{step:012d}.safetensors" for step in (7, 6)]
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_a_good_one_is_not_rotated_away_for_damaged_ones(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (1, 2):
        folder.save(step, state(step))
    folder.found()[0].write_bytes(b"damaged")
    with pytest.warns(br.CheckpointWarning):
        assert folder.newest()["step"] == 1
    # The run goes over the same ground again, and until it has written two the good one stays.
    folder.save(2, state(2))
    assert [alike(folder.newest(), state(2)), len(folder.found())] == [True, 2]


def test_training_goes_on_from_the_one_before_a_damaged_one(tmp_path):
    how = {**HOW["plain"], "checkpoint_every": 4}
    whole = train(tmp_path / "whole", **how)
    train(tmp_path / "broken", stop_at=150, **how)
    newest, before = sorted((tmp_path / "broken").glob("step-*"), reverse=True)
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(br.CheckpointWarning, match=f"goes on from the one before it, {before.name}"):
        weights, _ = train(tmp_path / "broken", resume=True, seed=4, **how)
    assert torch.equal(weights, whole[0])


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of a file")
def test_a_full_disk_ends_the_run_and_keeps_what_was_there(tmp_path):
    import resource
    import signal

    how = {**HOW["plain"], "checkpoint_every": 4}
    whole = train(tmp_path / "whole", **how)
    train(tmp_path / "broken", stop_at=150, **how)
    before = {file.name: file.read_bytes() for file in (tmp_path / "broken").glob("step-*")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(OSError, match=r"cannot be written: .*; nothing was changed"):
            train(tmp_path / "broken", resume=True, **how)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {file.name: file.read_bytes() for file in (tmp_path / "broken").glob("step-*")} == before
    assert [name for name in os.listdir(tmp_path / "broken") if name.startswith(".")] == []
    weights, _ = train(tmp_path / "broken", resume=True, seed=6, **how)
    assert torch.equal(weights, whole[0])


def test_checkpoints_hold_no_code(tmp_path):
    train(tmp_path, **HOW["plain"])
    (newest, *_) = sorted(tmp_path.glob("step-*"), reverse=True)
    content = newest.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert set(header["__metadata__"]) == {"bayesreg", "bayesreg.sha256"}
    assert b"cbuiltins" not in content
