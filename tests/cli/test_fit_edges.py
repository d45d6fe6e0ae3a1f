"""`bayesreg fit` at its edges: headers, tasks, two classes, run folders of others, disks."""

from __future__ import annotations

import json
import os
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from torch import nn

import bayesreg as br
from tests.cli.common import answer, refusal

ROWS = "\n".join(f"{x:.3f},{x * x:.3f},{int(x > 0)}" for x in np.linspace(-1, 1, 30))


# -- headers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    ["0.1257,-0.1321,0", "1,2,0", "5.1,3.5,setosa", "1e3,-2,y", "0,1,1", "2019,2020,y"],
)
def test_a_first_line_of_numbers_is_no_header(run, tmp_path, first):
    (tmp_path / "d.csv").write_text(f"{first}\n{ROWS}")
    assert "line 1: expected the names of the columns, got numbers" in refusal(run, "fit", "d.csv")


@pytest.mark.parametrize("names", ["a,b,y", "0,1,2", "0,1,target", "2019,b,y", "x1,x2,0"])
def test_names_are_names(run, tmp_path, names):
    (tmp_path / "d.csv").write_text(f"{names}\n{ROWS}")
    found = answer(run, "fit", "d.csv")
    assert found["features"] == names.split(",")[:2]
    assert found["num_data"] == 30


def test_one_feature_that_begins_at_0_and_labels_as_names_lose_no_row(run, tmp_path):
    (tmp_path / "d.csv").write_text("0,1.5\n1,2.6\n2,3.4\n3,4.7\n")
    assert "got numbers (0, 1.5)" in refusal(run, "fit", "d.csv")
    (tmp_path / "d.csv").write_text("0,1,2,a\n5,6,7,b\n1,2,3,a\n3,3,3,b\n")
    assert "got numbers (0, 1, 2, a)" in refusal(run, "fit", "d.csv")


def test_years_are_names_if_one_says_so(run, tmp_path):
    rows = "\n".join(f"{np.sin(i)},{np.cos(i)},{i / 7}" for i in range(20))
    (tmp_path / "d.csv").write_text(f"2019,2020,y\n{rows}")
    found = answer(run, "fit", "d.csv", "--header")
    assert (found["features"], found["task"]) == (["2019", "2020"], "regression")
    assert "is this line the names" in refusal(run, "fit", "d.csv", "--no-header", "--output", "other")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["00123", "123", "5"] * 9, "one number spelt in several ways"),
        (["1_0", "2", "3"] * 9, None),
    ],
)
def test_labels_stay_what_they_are(run, tmp_path, labels, message):
    (tmp_path / "d.csv").write_text("x,y\n" + "\n".join(f"{np.sin(i)},{label}" for i, label in enumerate(labels)))
    if message is None:
        assert answer(run, "fit", "d.csv")["classes"] == ["1_0", "2", "3"]
    else:
        assert message in refusal(run, "fit", "d.csv")


def test_large_integers_stay_apart(run, tmp_path):
    X = np.random.default_rng(0).normal(size=(20, 2))
    np.savez(tmp_path / "d.npz", X=X, y=2**53 + (X[:, 0] > 0).astype(np.int64))
    assert answer(run, "fit", "d.npz")["classes"] == ["9007199254740992", "9007199254740993"]


def test_without_a_header_every_row_counts(run, tmp_path):
    (tmp_path / "d.csv").write_text(ROWS)
    found = answer(run, "fit", "d.csv", "--no-header", "--val-fraction", 0)
    assert (found["features"], found["num_data"]) == (["x0", "x1"], 30)
    other = answer(run, "fit", "d.csv", "--no-header", "--target", "x1", "--val-fraction", 0, "--output", "other")
    assert (other["features"], other["task"]) == (["x0", "x2"], "regression")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",a,y\n0,1,0\n1,2,1\n", "column 1 has no name"),
        ("a,a,y\n0,1,0\n1,2,1\n", "got 'a' 2 times"),
        ("a,b,y\n1_000,1,0\n1,2,1\n", "column 'a': expected a number as in 1 of 2 rows, got '1_000'"),
        ("a,b,y\n١,1,0\n1,2,1\n", "column 'a': expected a number as in 1 of 2 rows, got '١'"),
        ("a,b,y\n0x10,1,0\n1,2,1\n", "column 'a': expected a number as in 1 of 2 rows, got '0x10'"),
        ("a,b,y\n1e300,1,0\n1,2,1\n", "column 'a': expected a number whose square is one, got '1e300'"),
        ("a,b,y\n1,1,0.5\n1,2,1e300\n", "column 'target' has a value of size 1e+300"),
        ("a\x1b[2J,b,y\nx,1,0\n1,2,1\n", "column 'a\\x1b[2J': expected a number as in 1 of 2 rows, got 'x'"),
    ],
)
def test_slips_in_tables_are_named(run, tmp_path, text, message):
    (tmp_path / "d.csv").write_text(text)
    assert message in refusal(run, "fit", "d.csv")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.arange(10) * 1j, "expected y of real numbers or text, got complex128"),
        (np.arange(10).astype("datetime64[D]"), "expected y of real numbers or text, got datetime64[D]"),
        (np.arange(10).astype("timedelta64[s]"), "expected y of real numbers or text, got timedelta64[s]"),
    ],
)
def test_targets_that_are_neither_numbers_nor_names_are_refused(run, tmp_path, target, message):
    np.savez(tmp_path / "d.npz", X=np.random.default_rng(0).normal(size=(10, 2)), y=target)
    assert message in refusal(run, "fit", "d.npz")


def test_bytes_are_names_too(run, tmp_path):
    X = np.linspace(-1, 1, 20)[:, None]
    np.savez(tmp_path / "d.npz", X=X, y=np.where(X[:, 0] > 0, b"up", b"down"))
    assert answer(run, "fit", "d.npz")["classes"] == ["down", "up"]


def test_an_array_that_says_to_be_enormous_is_refused(run, tmp_path):
    import io
    import zipfile

    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 2), }"
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    small = io.BytesIO()
    np.save(small, np.zeros(3))
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as file:
        file.writestr("X.npy", body)
        file.writestr("y.npy", small.getvalue())
    assert "do not fit into memory" in refusal(run, "fit", "d.npz")


# -- the task ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (range(12), [], "Task: classification into 12 classes, 0, 1, 2, 3, 4, 5, ... (the target is of 12 whole"),
        (range(12), ["--task", "regression"], "Task: regression (as asked for)."),
        (range(24), [], "Task: regression (the target is of 24 different whole numbers; --task classification"),
        ([0.5, 1, 2], [], "Task: regression (the target is of numbers with fractions)."),
        (["no", "yes"], [], "Task: classification into 2 classes, no, yes (the target is text)."),
    ],
)
def test_the_task_is_said_and_why(run, tmp_path, values, options, words):
    several = [*values] * 6
    rows = "\n".join(f"{np.sin(i):.4f},{value}" for i, value in enumerate(several[:48]))
    (tmp_path / "d.csv").write_text(f"x,y\n{rows}")
    status, out, err = run("fit", "d.csv", *options)
    assert (status, err) == (0, "")
    assert out.splitlines()[0].startswith(words)
    assert json.loads((tmp_path / "runs" / "fit" / "metrics.json").read_text())["task_why"] in out


# -- two classes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_two_classes_are_scikit_learns_logistic_regression(run, tmp_path, scale):
    answer(run, "fit", "breast_cancer", "--prior", f"gaussian({scale})", "--val-fraction", 0, "--output", "run")
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert weights["net.weight"].shape == (1, 30)
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    C = br.convert(scale, "std", num_data=len(y)).sklearn_logistic_C
    truth = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(X, y)
    assert np.abs(weights["net.weight"].numpy() - truth.coef_).max() < 1e-6
    assert np.abs(weights["net.bias"].numpy() - truth.intercept_).max() < 1e-6


def test_a_run_of_two_classes_predicts(run):
    found = answer(run, "fit", "breast_cancer", "--val-fraction", 0, "--output", "run")
    model, _ = br.load_run("run")
    X, y = load_breast_cancer(return_X_y=True)
    logits = model(torch.as_tensor(X))[:, 0]
    assert ((logits > 0).numpy() == y).mean() == pytest.approx(found["val_metric"] or 0.9, abs=0.1)
    nll = nn.functional.binary_cross_entropy_with_logits(logits, torch.as_tensor(y).double())
    assert nll.item() == pytest.approx(found["mean_nll"], rel=1e-9)


def test_a_softmax_of_two_has_twice_the_c():
    """w = w₁ − w₀ has the prior variance 2σ²: what the conversion tables say of a softmax of two outputs."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    y = (X[:, 0] + torch.randn(200, generator=generator, dtype=torch.float64) > 0).long()
    model = nn.Linear(3, 2).double()
    br.MAPTrainer(model, br.Gaussian(0.4), br.likelihoods.Categorical(), optimizer="lbfgs").fit((X, y))
    ours = (model.weight[1] - model.weight[0]).detach().numpy()
    truth = LogisticRegression(C=2 * 0.16, tol=1e-12, max_iter=10_000).fit(X.numpy(), y.numpy())
    assert np.abs(ours - truth.coef_[0]).max() < 1e-6
    note = " ".join(br.convert(0.4, "std", num_data=200).notes)
    assert "softmax of two outputs" in note


# -- run folders of others -----------------------------------------------------------------------------


@pytest.fixture
def foreign(run, tmp_path):
    """Return a run folder whose files ask for code, and the place where that would leave a trace."""
    answer(run, "fit", "iris", "--output", "theirs")
    trace = tmp_path / "trace"
    (tmp_path / "theirs" / "payload.py").write_text(f"open({str(trace)!r}, 'w').close()\n\ndef build(*sizes): ...\n")
    return tmp_path / "theirs", trace


def _ask(folder, **build):
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["build"].update(build)
    path.write_text(json.dumps(metrics))


@pytest.mark.parametrize("name", ["theirs.payload:build", "os:kill", "posix:system", "nonsense", "theirs.payload"])
def test_a_run_folder_executes_nothing(foreign, name):
    folder, trace = foreign
    _ask(folder, model=name)
    with pytest.raises(br.InvalidArgumentError) as caught:
        br.load_run(folder)
    assert name in str(caught.value)
    assert "trust=True" in str(caught.value)
    assert not trace.exists()


def test_what_is_trusted_is_called(foreign):
    folder, trace = foreign
    _ask(folder, model="theirs.payload:build")
    with pytest.raises(br.InvalidArgumentError, match="expected a torch module, got NoneType"):
        br.load_run(folder, trust=True)
    assert trace.exists()


def test_a_network_of_ones_own_takes_the_weights(run, tmp_path):
    (tmp_path / "own_net.py").write_text(
        "from torch import nn\n\ndef build(inputs, outputs):\n"
        "    return nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, outputs))\n"
    )
    answer(run, "fit", "iris", "--model", "own_net:build", "--epochs", 2, "--output", "run")
    mine = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    before = mine[0].weight.clone()
    model, prior = br.load_run("run", mine)
    trusted, _ = br.load_run("run", trust=True)
    rows = torch.randn(7, 4, dtype=torch.float64)
    assert torch.equal(model(rows), trusted(rows))
    assert len(list(prior)) == 4
    assert torch.equal(mine[0].weight, before)
    with pytest.raises(br.PriorFileError, match="does not fit own_net:build"):
        br.load_run("run", nn.Linear(4, 3))
    with pytest.raises(br.InvalidArgumentError, match="trust: plays no part where the model is given"):
        br.load_run("run", mine, trust=True)
    with pytest.raises(br.InvalidArgumentError, match="model: expected the network of the run, got int"):
        br.load_run("run", 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "build",
    [
        {"inputs": 10**6, "outputs": 10**9}, {"inputs": 50_000_000}, {"model": "mlp", "hidden": 10**8}, {"inputs": -1},
        {"inputs": 0}, {"inputs": 10**30}, {"inputs": "4"},
        {"inputs": 4.5}, {"inputs": True}, {"hidden": -5}, {"inputs": float("inf")}, {"outputs": None},
        {"model": ["linear"]}, {"model": "mlp"}, {"inputs": 5},
    ],
)  # fmt: skip
def test_odd_numbers_in_a_run_folder_are_refused(foreign, build):
    folder, _ = foreign
    _ask(folder, **build)
    with pytest.raises((br.PriorFileError, br.InvalidArgumentError)):
        br.load_run(folder)


def test_a_folder_that_lost_a_file_is_refused(foreign):
    folder, _ = foreign
    (folder / "model.safetensors").unlink()
    with pytest.raises(br.PriorFileError, match=r"model\.safetensors: no such file"):
        br.load_run(folder)


def test_the_code_of_a_model_is_not_taken_for_bayesregs(run, tmp_path):
    (tmp_path / "raises.py").write_text("def build(inputs, outputs):\n    raise ValueError('mine')\n")
    with pytest.raises(ValueError, match="mine"):
        run("fit", "iris", "--model", "raises:build", "--output", "run")
    (tmp_path / "few.py").write_text("def build(inputs):\n    return None\n")
    assert "cannot be called with (inputs, outputs)" in refusal(run, "fit", "iris", "--model", "few:build")


# -- the output ----------------------------------------------------------------------------------------


def test_the_files_of_a_run_have_one_mode(run, tmp_path):
    before = os.umask(0o022)
    try:
        answer(run, "fit", "iris", "--output", "run")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").iterdir()} == {0o644}
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755


@pytest.mark.parametrize("command", [["fit", "iris"], ["demo"]])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(run, tmp_path, monkeypatch, command):
    (tmp_path / "file").write_text("x")

    def work(*_, **__):
        raise AssertionError("worked before it asked")

    monkeypatch.setattr("bayesreg.demo.run_demo", work)
    monkeypatch.setattr("bayesreg.trainer.MAPTrainer.fit", work)
    message = refusal(run, *command, "--output", "file/run")
    assert "cannot be written" in message
    assert (tmp_path / "file").read_text() == "x"
