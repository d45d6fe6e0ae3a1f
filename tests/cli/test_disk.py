"""Full disks, killed processes, writers at once: what is there is whole, and nothing else is left."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg._support.files import atomic, atomic_folder, check_writable, write_json

ROOT = Path(__file__).parent.parent.parent

# No file may be longer than this; safetensors and Python say it each in their own words.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from bayesreg.cli import main
sys.argv = ["bayesreg", *sys.argv[2:]]
main()
"""


def _prior(size=60):
    generator = torch.Generator().manual_seed(0)
    centre = {"weight": torch.randn(size, size, generator=generator), "bias": torch.zeros(size)}
    return br.ModelPrior(nn.Linear(size, size), br.Gaussian.centered_at(centre, 0.1))


def _one_clear_line(done, path):
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert path in lines[0]
    assert "cannot be written: " in lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("limit", [500, 1_500, 4_000, 20_000])
def test_a_file_that_cannot_grow_is_one_clear_line(tmp_path, limit):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), "fit", "iris", "--output", "run"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    _one_clear_line(done, "run")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """Return a function that mounts a disk of so many kB; the tests skip where nobody may mount."""
    mounted = []

    def mount(size):
        folder = tmp_path_factory.mktemp("disk")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("a small disk cannot be mounted here: it takes root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("free", [1, 4, 8, 12])
def test_a_full_disk_keeps_the_prior_that_was_there(small_disk, free):
    """A file of 15 kB is there already, and as good as no room for its successor."""
    folder = small_disk(20 + free)
    path = folder / "prior.safetensors"
    _prior().save(path)
    before = path.read_bytes()
    with pytest.raises(OSError, match=r"prior\.safetensors: cannot be written: No space left on device; nothing was"):
        _prior(64).save(path)
    assert path.read_bytes() == before
    assert [item.name for item in folder.iterdir()] == ["prior.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, 8, 16, 32, 64])
def test_a_run_on_a_small_disk_is_whole_or_one_clear_line(small_disk, size):
    folder = small_disk(size)
    done = subprocess.run(
        [sys.executable, "-m", "bayesreg", "fit", "iris", "--output", "run"],
        cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if done.returncode == 0:
        br.load_run(folder / "run")
        return
    _one_clear_line(done, "run")
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_kill_leaves_nothing_half_written_and_the_next_run_clears_up(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.model_prior.kill", str(tmp_path), "25"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "save: " in done.stdout
    assert "fit: " in done.stdout


# -- the hidden folders ------------------------------------------------------------------------------------


def test_what_a_killed_process_left_is_cleared_and_what_others_have_is_not(tmp_path):
    left = tmp_path / ".prior.safetensors.bayesreg-tmp-abcdefgh"
    left.mkdir()
    (left / "prior.safetensors").write_text("half")
    (left / ".tmpAb3dE9").write_text("what safetensors was writing")
    others = [
        tmp_path / name
        for name in (
            ".prior.safetensors",
            ".bayesreg",
            ".x.bayesreg-short",
            ".notes.bayesreg-20240501",
            "a.bayesreg-abcdefgh",
        )
    ]
    for path in others:
        path.mkdir()
    own = tmp_path / ".notes.bayesreg-tmp-20240501"
    own.mkdir()
    (own / "thesis.txt").write_text("mine")
    write_json(tmp_path / "a.json", {"x": 1})
    assert (own / "thesis.txt").read_text() == "mine"
    assert not left.exists()
    assert all(path.is_dir() for path in others)


def test_the_place_of_a_writer_at_work_is_left_alone(tmp_path):
    with atomic(tmp_path / "a.txt") as one:
        one.write_text("one")
        with atomic(tmp_path / "b.txt") as other:
            other.write_text("other")
        assert one.read_text() == "one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_many_writers_of_one_file_leave_one_whole(tmp_path):
    problems = []

    def write(number):
        try:
            for _ in range(30):
                write_json(tmp_path / "a.json", [number] * 1_000)
        except BaseException as error:  # noqa: BLE001 (told below, whatever it is)
            problems.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_file_that_is_rewritten_in_place_while_it_is_loaded_is_read_or_refused(tmp_path):
    """As cp and editors do; a mapped file would end the process."""
    path, prior = tmp_path / "prior.safetensors", _prior(200)
    prior.save(path)
    whole, going = path.read_bytes(), threading.Event()
    going.set()

    def rewrite():
        while going.is_set():
            with path.open("r+b") as file:
                file.truncate(0)
                for start in range(0, len(whole), 4_096):
                    file.write(whole[start : start + 4_096])

    writer = threading.Thread(target=rewrite)
    writer.start()
    ends = []
    try:
        for _ in range(60):
            try:
                ends.append(br.ModelPrior.load(path, nn.Linear(200, 200)).same_as(prior))
            except br.PriorFileError:
                ends.append(None)
    finally:
        going.clear()
        writer.join()
    assert False not in ends
    assert br.ModelPrior.load(path, nn.Linear(200, 200)).same_as(prior)


def test_a_failure_leaves_no_folder_that_was_not_there(tmp_path):
    def fail():
        with atomic_folder(tmp_path / "a" / "b" / "run") as folder:
            (folder / "x").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_replaced_is_there_until_the_new_one_is(tmp_path, monkeypatch):
    run = tmp_path / "run"

    def replaced(text):
        with atomic_folder(run, replace=True) as folder:
            (folder / "x").write_text(text)

    replaced("first")
    rename = Path.rename

    def at_the_last_moment(path, target):
        if "bayesreg-tmp" in str(path):
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", at_the_last_moment)
    with pytest.raises(OSError, match="No space left"):
        replaced("second")
    assert (run / "x").read_text() == "first"
    monkeypatch.undo()
    replaced("third")
    assert (run / "x").read_text() == "third"
    assert list(tmp_path.iterdir()) == [run]


def test_asking_whether_it_can_be_written_leaves_nothing(tmp_path):
    check_writable(tmp_path / "a" / "b" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"file.a\.json: cannot be written: (File exists|Not a dir.*); noth"):
        write_json(tmp_path / "file" / "a.json", {})


def test_what_was_at_the_path_keeps_its_mode_and_its_links(tmp_path):
    real = tmp_path / "real.json"
    real.write_text("{}")
    real.chmod(0o600)
    (tmp_path / "link.json").symlink_to(real)
    write_json(tmp_path / "link.json", [1])
    assert (tmp_path / "link.json").is_symlink()
    assert real.read_text() == "[\n  1\n]\n"
    assert real.stat().st_mode & 0o777 == 0o600
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe: cannot be written"):
        write_json(tmp_path / "pipe", [1])


@pytest.mark.parametrize("name", ["é" * 120 + ".json", "x" * 250 + ".json", "a b\n.json", ".json"])
def test_any_name_that_a_file_can_have_is_one(tmp_path, name):
    write_json(tmp_path / name, [1])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_parent_that_another_writer_takes_back_is_made_again(tmp_path, monkeypatch):
    original, taken = tempfile.mkdtemp, []

    def late(*arguments, **keywords):
        if not taken:
            taken.append((tmp_path / "runs").rmdir())
        return original(*arguments, **keywords)

    monkeypatch.setattr(tempfile, "mkdtemp", late)
    write_json(tmp_path / "runs" / "a.json", [1])
    assert taken
    assert (tmp_path / "runs" / "a.json").is_file()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system in which nobody makes folders")
def test_where_no_folder_can_be_made_is_said_and_not_tried_for_ever():
    with pytest.raises(OSError, match=r"/proc/a\.json: cannot be written"):
        write_json("/proc/a.json", [1])


def test_no_umask_is_touched(tmp_path, monkeypatch):
    def refuse(_):
        raise AssertionError("the umask of a process is one for all its threads")

    monkeypatch.setattr(os, "umask", refuse)
    write_json(tmp_path / "a.json", {"x": 1})
    _prior().save(tmp_path / "prior.safetensors")


def test_the_mode_is_that_of_any_other_file(tmp_path):
    before = os.umask(0o027)
    try:
        (tmp_path / "other").write_text("x")
        _prior().save(tmp_path / "prior.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "prior.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
