"""`bayesreg fit --resume`: interrupted, killed, and ended as if it never was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest


def fit(folder, *options, epochs=60):
    return [
        "fit", "iris", "--prior", "gaussian(1.0)", "--model", "mlp", "--optimizer", "adam", "--epochs", str(epochs),
        "--output", str(folder), *options,
    ]  # fmt: skip


def numbers(folder):
    history = json.loads((folder / "history.json").read_text())
    records = [{k: v for k, v in record.items() if k != "seconds"} for record in history]
    return (folder / "model.safetensors").read_bytes(), records


def started(folder, *options, epochs):
    # What a shell runs in the background ignores Ctrl-C, and so do its children.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from bayesreg.cli import main; main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *fit(folder, *options, epochs=epochs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_it_trains(process, folder):
    end = time.monotonic() + 120
    while not list(folder.glob("step-*")) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_fit_that_was_stopped_goes_on(run, tmp_path, number):
    # Long enough that the signal finds it at work.
    assert run(*fit(tmp_path / "whole", epochs=200))[0] == 0
    process = started(tmp_path / "run", "--resume", epochs=200)
    until_it_trains(process, tmp_path / "run.checkpoint")
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert not (tmp_path / "run").exists()
    if number == signal.SIGINT:
        assert process.returncode == 130, err
        assert err.startswith("interrupted, in epoch ")
        assert f"its state is in {tmp_path / 'run.checkpoint'}: the same command goes on from there." in err
        assert "Traceback" not in err
        assert out == ""
    else:
        assert process.returncode == -signal.SIGKILL
    assert run(*fit(tmp_path / "run", "--resume", epochs=200))[0] == 0
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["run", "whole"]


@pytest.mark.slow
def test_a_fit_that_was_not_stopped_is_the_same_with_resume(run, tmp_path):
    assert run(*fit(tmp_path / "a"))[0] == 0
    assert run(*fit(tmp_path / "b", "--resume"))[0] == 0
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_another_fit_does_not_go_on(run, tmp_path, monkeypatch):
    from bayesreg.trainer import MAPTrainer

    whole = MAPTrainer.fit

    def stopped(self, *args, **kwargs):
        def stop(record):
            if record["epoch"] == 5:
                raise KeyboardInterrupt

        object.__setattr__(self.settings, "on_epoch_end", stop)
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(MAPTrainer, "fit", stopped)
    status, _, said = run(*fit(tmp_path / "run", "--resume"))
    assert status == 130
    assert "interrupted, in epoch 5" in said
    status, _, said = run(*fit(tmp_path / "other"))
    assert status == 130
    assert "no run folder was written. With --resume a training is kept" in said
    monkeypatch.setattr(MAPTrainer, "fit", whole)
    status, _, said = run(*fit(tmp_path / "run", "--resume", "--seed", "1"))
    assert status == 1
    assert "was begun with another" in said
    assert not (tmp_path / "run").exists()


def test_an_interrupt_while_the_strength_is_chosen_ends_with_a_sentence_too(run, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("bayesreg.cli.tabular.procedure.choose_strength", stopped)
    status, out, said = run("fit", "iris", "--output", str(tmp_path / "run"))
    assert (status, out) == (130, "")
    assert said == "interrupted before the fit, while its strength was chosen; no run folder was written.\n"
    assert not (tmp_path / "run").exists()
