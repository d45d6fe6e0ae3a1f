"""The command line: numbers, files, one clear line on bad input."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from torch import nn

import bayesreg as br
from tests.cli.common import answer, refusal

# -- convert -------------------------------------------------------------------------------------------


def test_convert_gives_every_convention(run):
    found = answer(run, "convert", "5e-4", "--num-data", 50_000, "--noise-std", 2.0)
    assert found == {
        "family": "Gaussian",
        "loss_scale": pytest.approx(2e-5),
        "loss": "mean NLL over 50,000 examples",
        "variance": pytest.approx(0.04),
        "std": pytest.approx(0.2),
        "precision": pytest.approx(25.0),
        "weight_decay": pytest.approx(5e-4),
        "l2_coefficient_without_half": pytest.approx(2.5e-4),
        "sklearn_logistic_C": pytest.approx(0.04),
        "sklearn_ridge_alpha": pytest.approx(100.0),
    }


@pytest.mark.parametrize(
    ("kind", "value"),
    [("variance", 0.04), ("std", 0.2), ("precision", 25.0), ("l2-coefficient", 2.5e-4), ("logistic-c", 0.04),
     ("ridge-alpha", 100.0)],
)  # fmt: skip
def test_convert_from_every_kind(run, kind, value):
    found = answer(run, "convert", value, "--from", kind, "--num-data", 50_000, "--noise-std", 2.0)
    assert found["weight_decay"] == pytest.approx(5e-4)


@pytest.mark.parametrize(("kind", "value"), [("l1-coefficient", 1e-4), ("laplace-scale", 0.2)])
def test_convert_l1(run, kind, value):
    found = answer(run, "convert", value, "--from", kind, "--num-data", 50_000)
    assert found["family"] == "Laplace"
    assert found["scale"] == pytest.approx(0.2)
    assert "weight_decay" not in found
    lasso = answer(run, "convert", 0.1, "--from", "lasso-alpha", "--num-data", 50, "--noise-std", 2.0)
    assert lasso["scale"] == pytest.approx(4.0 / (50 * 0.1))


@pytest.mark.parametrize(
    ("arguments", "scale"),
    [
        (["--loss", "sum"], 1.0),
        (["--loss", "minibatch-sum", "--num-data", 100, "--batch-size", 20], 0.2),
        (["--loss", "mse", "--num-data", 100, "--num-outputs", 2, "--noise-std", 0.5], 0.0025),
        (["--loss", "half-squared-error", "--num-data", 100, "--noise-std", 0.5], 0.0025),
        (["--loss", "tokens", "--num-data", 1000], 0.001),
        (["--num-data", 1000, "--likelihood-weight", 2.0], 0.0005),
    ],
)
def test_convert_knows_every_loss(run, arguments, scale):
    assert answer(run, "convert", 1.0, *arguments)["loss_scale"] == pytest.approx(scale)


def test_emphasis_reaches_scikit_learns_numbers(run):
    """κ·NLL + w²/(2σ²): ridge alpha = τ²/(κσ²), logistic C = κσ²."""
    more = ("--num-data", 100, "--noise-std", 3, "--likelihood-weight", 2)
    found = answer(run, "convert", 0.5, "--from", "variance", *more)
    assert found["sklearn_ridge_alpha"] == pytest.approx(9 / (2 * 0.5))
    assert found["sklearn_logistic_C"] == pytest.approx(1.0)
    for kind, value in (("ridge-alpha", 9.0), ("logistic-c", 1.0)):
        assert answer(run, "convert", value, "--from", kind, *more)["variance"] == pytest.approx(0.5)


def test_convert_prints_a_table(run):
    status, out, _ = run("convert", "5e-4", "--num-data", 50_000)
    assert status == 0
    assert re.search(r"std +0\.2\n", out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0.01", "--num-data", 100, "--optimizer", "adamw"], "AdamW decouples weight decay"),
        (["0.01", "--num-data", 100, "--optimizer", "adamw"], "bayesreg explain --optimizer adamw --weight-decay 0.01"),
        (["0.01", "--num-data", 100, "--optimizer", "sdg"], "got 'sdg'; did you mean 'sgd'"),
        (["0.01"], "--num-data: pass the size of the training set"),
        (["0.01", "--num-data", 0], "num_data: expected an integer >= 1, got 0"),
        (
            ["0", "--from", "variance", "--num-data", 10],
            "a finite width > 0, got 0.",
        ),
        (["nan", "--num-data", 10], "expected a number >= 0, got nan"),
        (["1", "--from", "ridge-alpha", "--num-data", 10], "--noise-std: ridge-alpha is relative to the noise"),
        (["1", "--loss", "mse", "--num-data", 10], "--noise-std: a squared error needs one"),
        (["1", "--loss", "minibatch-sum", "--num-data", 10], "--batch-size: pass it"),
        (["1", "--loss", "minibatch-sum", "--num-data", 10, "--batch-size", 20], "expected at most num_data = 10"),
        (["1e200", "--from", "std", "--num-data", 10], "a finite width > 0"),
        (["0", "--num-data", 10], "no penalty at all is the prior flat()"),
        (["1", "--from", "laplace-scale", "--num-data", 10, "--optimizer", "nonsense"], "got 'nonsense'"),
        (["abc", "--num-data", 10], "Invalid value"),
        (["1", "--from", "lambda", "--num-data", 10], "'lambda' is not one of"),
    ],
)
def test_convert_refuses(run, arguments, message):
    assert message in refusal(run, "convert", *arguments)


def test_help_and_version(run):
    for command in ("convert", "fit", "demo"):
        status, out, _ = run(command, "--help")
        assert status == 0
        assert f"Example: bayesreg {command}" in out
        assert "--json" in out
    assert run("--version")[1].strip() == br.__version__


# -- fit -----------------------------------------------------------------------------------------------

# A prior with a number: nothing is chosen.
NUMBER = ("--prior", "gaussian(1.0)")


def test_fit_writes_a_run_folder(run, tmp_path):
    metrics = answer(run, "fit", "breast_cancer", "--prior", "laplace(0.5)", "--output", "runs/a")
    folder = tmp_path / "runs" / "a"
    assert sorted(p.name for p in folder.iterdir()) == [
        "calibration.png", "coefficients.png", "history.json", "metrics.json", "model.safetensors",
        "prior.safetensors",
    ]  # fmt: skip
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert metrics["converged"] is True
    assert 0.1 < metrics["exact_zeros"] < 1
    assert {score["name"]: score["mean"] for score in metrics["assessment"]["scores"]}["accuracy"] > 0.9
    assert (folder / "coefficients.png").read_bytes().startswith(b"\x89PNG")
    weights = load_file(folder / "model.safetensors")
    assert set(weights) == {"standardize.mean", "standardize.std", "net.weight", "net.bias"}
    assert (weights["net.weight"] == 0).double().mean().item() == pytest.approx(metrics["exact_zeros"])
    model = nn.Sequential()
    model.add_module("net", nn.Linear(30, 1).double())
    prior = br.ModelPrior.load(folder / "prior.safetensors", model)
    assert prior["net.weight"].scale.item() == 0.5
    assert [p.name for p in tmp_path.joinpath("runs").iterdir()] == ["a"]


def test_a_run_folder_is_read_back(run, tmp_path):
    (tmp_path / "my_line.py").write_text("from torch import nn\n\nbuild = nn.Linear\n")
    for name, source, model in (("a", "diabetes", "mlp"), ("b", "iris", "linear"), ("c", "wine", "my_line:build")):
        epochs = () if model == "linear" else ("--epochs", 2)
        metrics = answer(run, "fit", source, *NUMBER, "--model", model, *epochs, "--output", name)
        loaded, prior = br.load_run(tmp_path / name, trust=":" in model)
        assert not loaded.training
        assert prior.log_prob().item() == pytest.approx(metrics["log_prior"], rel=1e-12)
        assert metrics["architecture"].startswith("Sequential(")
    X, y = load_iris(return_X_y=True)
    predicted = br.load_run(tmp_path / "b")[0](torch.as_tensor(X)).argmax(1).numpy()
    assert (predicted == y).mean() > 0.9
    (tmp_path / "b" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(br.PriorFileError, match=r"model\.safetensors: does not fit linear"):
        br.load_run(tmp_path / "b")
    with pytest.raises(br.PriorFileError, match="not a readable run folder"):
        br.load_run(tmp_path)


def test_a_centred_fit_starts_at_its_centre(run):
    source = answer(run, "fit", "iris", *NUMBER, "--model", "mlp", "--epochs", 30, "--output", "source")
    prior = "gaussian(0.1, center='source/model.safetensors')"
    more = ("--model", "mlp", "--epochs", 1, "--lr", 1e-9, "--prior", prior)
    found = answer(run, "fit", "iris", "--output", "target", *more)
    assert found["mean_nll"] == pytest.approx(source["mean_nll"], rel=1e-4)


@pytest.mark.slow
def test_the_last_epoch_can_be_kept(run):
    more = (*NUMBER, "--model", "mlp", "--epochs", 40, "--lr", 0.05)
    best = answer(run, "fit", "wine", "--output", "best", *more)
    last = answer(run, "fit", "wine", "--output", "last", "--keep-last", *more)
    assert best["val_nll"] <= last["val_nll"]
    assert last["best_epoch"] == 40
    assert best["best_epoch"] < 40
    for found, chose in ((best, True), (last, False)):
        assert ("They chose the epoch that was kept" in found["assessment"]["how"]) is chose
    _, out, _ = run("fit", "wine", "--output", "again", *more)
    assert "(--keep-last keeps the last)" in out


def test_a_prior_is_converted_even_where_its_optimizer_has_no_weight_decay_for_it(run):
    found = answer(run, "convert", 0.2, "--from", "std", "--num-data", 100, "--optimizer", "adamw")
    assert found["weight_decay"] is None
    assert found["variance"] == pytest.approx(0.04)


def test_fit_equals_scikit_learn_on_the_same_rows(run, tmp_path):
    answer(run, "fit", "iris", "--prior", "gaussian(0.7)", "--val-fraction", 0, "--output", "run")
    weights = load_file(tmp_path / "run" / "model.safetensors")
    X, y = load_iris(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    truth = LogisticRegression(C=0.49, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(X, y)
    assert np.abs(weights["net.weight"].numpy() - truth.coef_).max() < 1e-6


def test_fit_on_csv_and_npz(run, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 3))
    y = X @ [1.0, -2.0, 0.0] + 0.1 * rng.normal(size=80)
    np.savez(tmp_path / "d.npz", X=X, y=y)
    with (tmp_path / "d.csv").open("w") as file:
        file.write("a,price,b,c\n" + "\n".join(f"{r[0]},{t},{r[1]},{r[2]}" for r, t in zip(X, y, strict=True)))
    one = answer(run, "fit", "d.npz", "--output", "npz", "--prior", "gaussian(weight_decay=1e-3)")
    two = answer(run, "fit", "d.csv", "--target", "price", "--output", "csv", "--prior", "gaussian(weight_decay=1e-3)")
    assert two["features"] == ["a", "b", "c"]
    assert one["objective"] == pytest.approx(two["objective"], rel=1e-9)
    assert one["task"] == "regression"
    assert one["assessment"]["scores"][0]["name"] == "R²"
    assert one["assessment"]["scores"][0]["mean"] > 0.99
    assert one["likelihood"].startswith("Gaussian(noise_std=0.")


def test_fit_with_text_classes(run, tmp_path):
    rows = [f"{x},{'yes' if x > 0 else 'no'}" for x in np.linspace(-1, 1, 40)]
    (tmp_path / "t.csv").write_text("x,answer\n" + "\n".join(rows))
    metrics = answer(run, "fit", "t.csv", "--output", "run")
    assert metrics["classes"] == ["no", "yes"]
    assert metrics["task"] == "classification"


def test_large_labels_keep_their_names(run, tmp_path):
    rows = [f"{x},{1000001 + (x > 0)}" for x in np.linspace(-1, 1, 40)]
    (tmp_path / "t.csv").write_text("x,label\n" + "\n".join(rows))
    assert answer(run, "fit", "t.csv", "--output", "run")["classes"] == ["1000001", "1000002"]


def test_constant_columns_are_left_alone(run, tmp_path):
    rows = [f"0.1,{x},{int(x > 0)}" for x in np.linspace(-1, 1, 50)]
    (tmp_path / "c.csv").write_text("same,x,label\n" + "\n".join(rows))
    assert answer(run, "fit", "c.csv", "--output", "left")["features"] == ["x"]
    answer(run, "fit", "c.csv", "--features", "same,x", "--output", "run")
    assert load_file(tmp_path / "run" / "model.safetensors")["standardize.std"][0] == 1.0


def test_fit_other_models_and_optimizers(run, tmp_path):
    mlp = answer(
        run,
        "fit",
        "iris",
        *NUMBER,
        "--model",
        "mlp",
        "--optimizer",
        "sgd",
        "--lr",
        0.05,
        "--epochs",
        5,
        "--output",
        "a",
    )
    assert {row["route"] for row in mlp["routes"]} == {"native", "none"}
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\ndef build(inputs, outputs):\n"
        "    return nn.Sequential(nn.Linear(inputs, 7), nn.Tanh(), nn.Linear(7, outputs))\n"
    )
    mine = answer(run, "fit", "iris", "--model", "mine:build", "--epochs", 3, "--prior", "flat()", "--output", "b")
    assert mine["model"] == "mine:build"
    assert load_file(tmp_path / "b" / "model.safetensors")["net.0.weight"].shape == (7, 4)


def test_fit_centred_on_a_file(run, tmp_path):
    answer(run, "fit", "iris", "--output", "source", "--seed", 1)
    found = answer(
        run, "fit", "iris", "--output", "target", "--prior", "gaussian(0.1, center='source/model.safetensors')"
    )
    assert any("centred on model.safetensors" in row["prior"] for row in found["priors"])


def test_fit_is_reproducible(run):
    one = answer(run, "fit", "wine", *NUMBER, "--model", "mlp", "--epochs", 3, "--output", "a", "--seed", 5)
    torch.manual_seed(99)
    two = answer(run, "fit", "wine", *NUMBER, "--model", "mlp", "--epochs", 3, "--output", "b", "--seed", 5)
    assert one["objective"] == two["objective"]


BAD_FILES = {
    "text.csv": ("x,y\n1,0\ntwo,1\n", "line 3, column 'x': expected a number as in 1 of 2 rows, got 'two'"),
    "infinite.csv": ("x,y\n1,0\ninf,1\n", "line 3, column 'x': expected a number whose square is one, got 'inf'"),
    "dates.csv": ("x,y\n2024-05-01,0\n2024-05-02,1\n", "column 'x' is of dates such as '2024-05-01': a date is no"),
    "one_class.csv": ("x,y\n1,a\n2,a\n", "needs at least two classes, got only 'a'"),
    "ragged.csv": ("x,y\n1,0\n1,2,3\n", "line 3: expected 2 values, got 3"),
    "empty.csv": ("", "expected a header and at least one row"),
    "header.csv": ("x,y\n", "expected a header and at least one row"),
    "twice.csv": ("x,x\n1,0\n", "expected different column names"),
    "semicolons.csv": ("x;y\n1;0\n2;1\n", "expected columns separated by commas, got the header 'x;y'"),
    "blank_lines.csv": ("x,y\n\n\n1,0\n\ntwo,1\n", "line 6, column 'x'"),
    "one_row.csv": ("x,y\n1,0\n", "expected at least two rows, got 1"),
    "number.csv": ("x,y\n" + "\n".join(f"{i},n{i}" for i in range(50)), "this target looks like a number"),
    "only_target.csv": ("y\n1\n0\n", "at least one feature column"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_fit_refuses_bad_tables(run, tmp_path, name):
    text, message = BAD_FILES[name]
    (tmp_path / name).write_text(text)
    assert message in refusal(run, "fit", name, "--output", "run")
    assert not (tmp_path / "run").exists()


def test_fit_refuses_bad_files(run, tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not a zip")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "empty.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    np.savez(tmp_path / "pickled.npz", X=np.array([{}], dtype=object), y=np.zeros(1))
    (tmp_path / "latin.csv").write_bytes("x,y\n1,é\n".encode("latin-1"))
    for name, message in [
        ("broken.npz", "not a readable NPZ file"),
        ("other.npz", "expected arrays X and y, got a"),
        ("empty.npz", "expected arrays X and y"),
        ("array.npz", "not a readable NPZ file"),
        ("pickled.npz", "not a readable NPZ file of plain arrays"),
        ("latin.csv", "not a readable CSV file in UTF-8"),
        ("no.csv", "no such file"),
        ("iriss", "got 'iriss'; did you mean 'iris'"),
        ("table.parquet", "no such file"),
        ("table.pkl", "a pickle runs code when it is read, so it is not"),
        ("table.txt", "expected a .csv, .parquet or .npz file"),
    ]:
        assert message in refusal(run, "fit", name, "--output", "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prior", "laplac(0.1)"], "got 'laplac'; did you mean 'laplace'"),
        (["--prior", "gaussian(-1)"], "scale: expected a value > 0, got -1"),
        (["--prior", "gaussian("], "expected a family with numbers"),
        (["--prior", "__import__('os').system('x')"], "expected a family with numbers"),
        (["--prior", "gaussian(1, 2, 3)"], "gaussian(1, 2, 3)"),
        (["--prior", "laplace"], "prior 'laplace': Laplace: missing a required argument: 'scale'; it takes scale, loc"),
        (["--prior", "gaussian"], "; where it is to be chosen from the data, write auto for it, gaussian(auto)."),
        (["--task", "regresion"], "'regresion' is not one of classification, regression; did you mean 'regression'?"),
        (["--epochs", "1e2x"], "expected a whole number such as 50000, 50_000 or 5e4, got '1e2x'"),
        (["--prior", "gaussian(0.1, center=a/b.pt)"], "text goes in quotes"),
        (["--prior", "flat(3)"], "Flat takes no arguments"),
        (["--prior", "gaussian(0.1, center='no.pt')"], "no such file"),
        (["--model", "cnn"], "expected linear, mlp or module:function, got 'cnn'"),
        (["--model", "no_such:build"], "cannot be imported"),
        (["--model", ":build"], "cannot be imported"),
        (["--model", "math:sqrt"], "cannot be called with (inputs, outputs)"),
        (["--seed", "-1"], "--seed"),
        (["--hidden", "0"], "--hidden"),
        (["--lr", "nan"], "--lr: expected a finite number"),
        (["--lr", "-1"], "--lr: expected a value > 0"),
        (["--noise-std", "2"], "a classification has no noise std"),
        (["--val-fraction", "0.999"], "rows are left to train on"),
        (["--val-fraction", "1.5"], "expected a share in [0, 1)"),
        (["--task", "regression", "--noise-std", "loud"], "expected a number or 'learned', got 'loud'"),
        (["--optimizer", "lbfgs", "--prior", "laplace(1)"], "needs smooth priors"),
        (["--epochs", "0", "--model", "mlp"], "Invalid value for '--epochs'"),
        (["--lr", "0.1"], "--lr: plays no part with lbfgs, which solves on all the data to optimality"),
        (["--epochs", "5", "--batch-size", "4"], "--epochs, --batch-size: play no part with lbfgs"),
        (["--prior", "laplace(1)", "--keep-last"], "--keep-last: plays no part with proximal"),
        (["--hidden", "5"], "--hidden: plays no part with --model linear"),
        (
            ["--model", "mlp", "--optimizer", "adam", "--starts", "3"],
            "--starts: several starting points need a full-batch solver",
        ),
        (["--model", "mlp", "--keep-last", "--val-fraction", "0"], "without validation rows the last epoch is kept"),
        (["--target", "species"], "--target: is for a table with columns, and iris is none"),
        (["--no-header"], "--no-header: is for a table with columns"),
        (["--noise-std", "learned"], "a classification has no noise std"),
        (["--seed", str(10**30)], "Invalid value for '--seed'"),
        (["--batch-size", str(10**30)], "Invalid value for '--batch-size'"),
        (["--hidden", str(10**11)], "Invalid value for '--hidden'"),
    ],
)
def test_fit_refuses_bad_arguments(run, tmp_path, arguments, message):
    assert message in refusal(run, "fit", "iris", "--output", "run", *arguments)
    assert not (tmp_path / "run").exists()


def test_help_says_what_is_taken_where_nothing_is_given(run):
    _, out, _ = run("fit", "--help")
    assert "[default: 0.01]" in out
    assert "Hidden units of --model mlp.  [default: 32]" in out


def test_fit_refuses_a_folder_that_exists(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("x")
    assert "run exists already; name another folder" in refusal(run, "fit", "iris", "--output", "run")
    # What another folder would not mend comes first.
    assert "--epochs: plays no part with" in refusal(run, "fit", "iris", "--output", "run", "--epochs", "3")
    assert (tmp_path / "run" / "precious").read_text() == "x"


def test_a_failed_write_leaves_nothing(run, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("bayesreg.model_prior.ModelPrior.save", fail)
    assert "disk full" in refusal(run, "fit", "iris", "--output", "runs/a")
    assert list(tmp_path.iterdir()) == []


# -- demo ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_demo_keeps_its_promises(run, tmp_path):
    found = answer(run, "demo", "--output", "demo")
    assert json.loads((tmp_path / "demo" / "demo.json").read_text()) == found
    assert (tmp_path / "demo" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    rows = found["results"]
    methods = {row["method"] for row in rows}
    assert {"no prior", "L2", "L1", "source prior"} <= methods
    assert {row["n"] for row in rows} == {10, 20, 50, 100}
    assert len(rows) == len(methods) * 4 * 5
    assert "turned by 30 degrees" in found["shift"]
    assert "br.choose_strength" in found["strength"]
    for row in rows:
        assert 0 <= row["accuracy"] <= 1
        assert (row["exact_zeros"] is not None) == (row["method"] == "L1")
        assert row["equivalent"]
    assert all(row["converged"] for row in rows if row["method"] in ("no prior", "fine-tuning, no prior"))
    # L1 has the rehearsed strength; the others choose, and where they cannot tell that is their hyperprior's middle.
    for row in rows:
        rehearsed = found["rehearsed"].get(row["method"], {}).get(str(row["n"]), 1.0)
        per_class = row["n"] / 10
        if row["method"] == "L1":
            assert (row["chosen by"], row["scale"]) == ("rehearsal", rehearsed)
        elif row["method"] in ("L2", "source prior"):
            too_few = per_class < (5 if row["method"] == "source prior" else 2)
            assert row["chosen by"] == ("hyperprior" if too_few else "loo")
            assert (row["scale"] == pytest.approx(rehearsed, rel=1e-9)) == too_few
    means = {m: np.mean([row["accuracy"] for row in rows if row["method"] == m]) for m in methods}
    assert means["source prior"] > means["L2"] > means["no prior"]
    assert means["source prior"] > means["fine-tuning, no prior"]


def test_the_demo_tasks_share_no_image():
    from bayesreg.demo.tasks import draw, load_tasks

    tasks = load_tasks()
    sizes = [len(part[1]) for part in (tasks.source, tasks.rehearsal, tasks.target_pool, tasks.target_test)]
    assert sizes == [600, 300, 400, 497]
    assert sum(sizes) == 1797
    (x, y), (rest, _) = draw(tasks.target_pool, 20, seed=0)
    assert torch.bincount(y).tolist() == [2] * 10
    assert len(rest) == 380
    pool = {row.numpy().tobytes() for row in tasks.target_pool[0]}
    assert all(row.numpy().tobytes() in pool for row in x)
    test = {row.numpy().tobytes() for row in tasks.target_test[0]}
    assert not pool & test


RUN = ("convert", "0.1", "--optimizer", "adamw", "--from-run", "batch_size=64,lr=1e-3,num_data=1e6")


def test_a_weight_decay_for_another_run(run):
    assert answer(run, *RUN, "--to-run", "batch-size=256")["weight_decay"] == pytest.approx(0.2)
    assert "keeps the belief" in run(*RUN, "--to-run", "batch_size=256, lr=2e-3")[1]
    both = (*RUN[:3], "sgd, adamw", *RUN[4:], "--to-run", "batch-size=256")
    assert [found["weight_decay"] for found in answer(run, *both)] == pytest.approx([0.1, 0.2])
    assert "SGD's weight_decay=0.1" in run(*both)[1]
    length = f"{RUN[5]},steps=1100,schedule=linear,warmup=100"
    assert (
        "Before: over 1,100 steps k is 0.055 with weight_decay=0.1:"
        in run(*RUN[:5], length, "--to-run", "batch_size=256")[1]
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (RUN, "--to-run: pass both runs"),
        ((*RUN, "--to-run", "lr"), "--to-run: expected name=number, got 'lr'"),
        ((*RUN, "--to-run", "steps=9,schedule=cos"), "--to-run: schedule: expected 'constant', 'linear'"),
        ((*RUN, "--to-run", "lr=0"), "--to-run: lr: expected"),
        ((*RUN, "--to-run", "batch=1"), "--to-run: expected batch_size, lr"),
        ((*RUN, "--to-run", "lr=1", "--num-data", "10"), "--num-data: the runs say it"),
        ((*RUN, "--to-run", "lr=1", "--from", "std"), "--from: another run has another weight-decay"),
        ((*RUN[:2], *RUN[4:], "--to-run", "lr=1"), "--optimizer: name it"),
    ],
)
def test_runs_that_are_no_runs_are_refused(run, arguments, said):
    assert said in refusal(run, *arguments)


def test_explain_reads_the_whole_run(run):
    given = ("explain", "--optimizer", "adamw", "--lr", "3e-4", "--weight-decay", "0.1", "--num-data", "1e6")
    told = answer(run, *given, "--batch-size", "64", "--steps", "100000", "--schedule", "cosine")
    assert told["groups"][0]["horizon"]["decay_sum"] == pytest.approx(1.5, rel=1e-4)
    epochs = answer(run, *given, "--batch-size", "100", "--epochs", "3", "--warmup", "0.1")
    assert epochs["groups"][0]["horizon"]["steps"] == 30_000
    for more, said in (
        (["--steps", "5", "--schedule", "cosin"], "--schedule: expected one of constant, linear, cosine, got 'cosin'"),
        (["--steps", "5", "--warmup", "x"], "--warmup: expected a number of steps, or a share, got 'x'"),
        (["--epochs", "5"], "epochs: needs batch_size="),
        (["--batch-size", "5"], "--batch-size: it plays no part"),
    ):
        assert said in refusal(run, *given, *more)
    penalty = ("explain", "--keras-l2", "0.1", "--num-data", "10", "--steps", "5")
    assert "--steps: a penalty in the loss has no steps" in refusal(run, *penalty)


def test_an_optimizer_is_probed(run):
    assert answer(run, "probe", "torch.optim:AdamW")["kind"] == "decoupled"
    assert answer(run, "probe", "sgd", "--set", "momentum=0.9", "--set", "nesterov=True")["through_metric"] is False
    assert run("probe", "adamw", "--expect", "decoupled")[0] == 0
    status, out, err = run("probe", "adam", "--expect", "decoupled")
    assert status == 3
    assert "a Gaussian prior" in out
    assert "expected decoupled, found coupled." in err
    for arguments, said in (
        (["nope:X"], "nope:X: cannot be imported: ModuleNotFoundError"),
        (["math:pi"], "math:pi: expected a class of optimizers, got float"),
        (["adan"], "did you mean 'adam'"),
        (["adam", "--set", "lr"], "--set: expected name=number"),
        (["adam", "--set", "beta=1"], "unexpected keyword argument"),
        (["adam", "--expect", "couple"], "--expect: expected one of coupled, decoupled"),
    ):
        assert said in refusal(run, "probe", *arguments)
