"""Tables as people have them: text, gaps, ids, dates; from one command to a model, from another to predictions."""

from __future__ import annotations

import ast
import csv
import importlib.util
import json

import numpy as np
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import bayesreg as br
from bayesreg.cli.tabular.data import load_tabular
from bayesreg.tables import Encoder, kind_of_column, read_table
from bayesreg.tables.kinds import Column
from tests.cli.common import answer, refusal

CITIES = {"Köln": 30e3, "Bonn": 10e3, "Aachen": -20e3, "Essen": -40e3}
HEATING = {"gas": 0.0, "oil": -8e3, "heat pump": 15e3}


def houses(path, rows=200, seed=0):
    """A table with an id, two columns of text, gaps, a constant and a price."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "city", "size", "rooms", "age", "heating", "country", "price"])
        for row in range(rows):
            city, heating = rng.choice(list(CITIES)), rng.choice(list(HEATING))
            size, age = rng.uniform(40, 200), rng.uniform(0, 80)
            rooms = max(1, int(size / 30 + rng.normal()))
            price = 5e4 + 2500 * size + 3e3 * rooms - 900 * age + CITIES[city] + HEATING[heating]
            writer.writerow([
                1000 + row, city, f"{size:.1f}", rooms, "" if rng.random() < 0.1 else f"{age:.0f}",
                "" if rng.random() < 0.05 else heating, "DE", f"{price + rng.normal(0, 25e3):.0f}",
            ])  # fmt: skip
    return path


def predicted(text):
    return list(csv.DictReader(text.splitlines()))


# -- the job that failed ---------------------------------------------------------------------------------


def test_one_command_to_a_model_that_is_as_good_as_scikit_learns_and_one_to_predictions(run, tmp_path):
    houses(tmp_path / "train.csv", 300, seed=0)
    houses(tmp_path / "test.csv", 300, seed=1)
    status, out, _ = run("fit", "train.csv", "--target", "price", "--output", "run")
    assert status == 0
    assert "Task: regression" in out
    assert "Column 'id' has another whole number in every row, and the name of one; it is left out" in out
    assert "Column 'country' has one value only; it is left out" in out
    assert "5-fold cross-validation" in out
    assert "city = Essen" in out
    status, out, err = run("predict", "run", "test.csv")
    assert status == 0
    assert err == ""
    ours = np.array([float(row["predicted price"]) for row in predicted(out)])

    def columns(name):
        table = read_table(tmp_path / name)
        numbers = [[float(v or "nan") for v in table.column(c)] for c in ("size", "rooms", "age")]
        texts = [[v or "none" for v in table.column(c)] for c in ("city", "heating")]
        price = np.array([float(v) for v in table.column("price")])
        return np.column_stack([np.array(numbers).T, np.array(texts).T.astype(object)]).astype(object), price

    scaled = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    encoder = ColumnTransformer([("n", scaled, [0, 1, 2]), ("t", OneHotEncoder(handle_unknown="ignore"), [3, 4])])
    X, price = columns("train.csv")
    X_test, truth = columns("test.csv")
    theirs = make_pipeline(encoder, RidgeCV(np.logspace(-3, 3, 25))).fit(X, price).predict(X_test)
    errors = [float(np.sqrt(((truth - guess) ** 2).mean())) for guess in (ours, theirs)]
    assert errors[0] < 1.01 * errors[1]
    assert errors[0] < 28e3


def test_what_is_measured_is_measured_on_other_rows(run, tmp_path):
    houses(tmp_path / "d.csv", 150)
    found = answer(run, "fit", "d.csv", "--target", "price", "--output", "run")
    scores = {score["name"]: score for score in found["assessment"]["scores"]}
    fresh = read_table(houses(tmp_path / "new.csv", 2000, seed=5))
    loaded = br.load_run(tmp_path / "run")
    truth = np.array([float(v) for v in fresh.column("price")])
    guess = loaded.predict(tmp_path / "new.csv", kind="mean").reshape(-1).numpy()
    assert scores["RMSE"]["mean"] == pytest.approx(float(np.sqrt(((truth - guess) ** 2).mean())), rel=0.15)
    assert scores["R²"]["mean"] == pytest.approx(1 - ((truth - guess) ** 2).mean() / truth.var(), abs=0.02)
    assert scores["R²"]["baseline"] <= 0.0 < scores["R²"]["std"]
    held = answer(run, "fit", "d.csv", "--target", "price", "--val-fraction", 0.3, "--output", "held")
    assert held["assessment"]["how"] == "On 45 rows that were held out."
    assert held["assessment"]["scores"][0]["std"] is None


def test_chance_is_not_measured_as_skill(run, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", X=rng.normal(size=(60, 30)), y=rng.normal(size=60))
    found = answer(run, "fit", "d.npz", "--prior", "flat()", "--output", "run")
    assert found["mean_nll"] < 1.2
    assert found["assessment"]["scores"][0]["mean"] < 0.0


def test_categories_and_medians_are_those_of_the_rows_that_are_learned_from(tmp_path):
    table = load_tabular(str(houses(tmp_path / "d.csv")), "price")
    some = np.arange(40)
    encoder = table.encoded(some).encoder
    ages = [float(value) for value in read_table(tmp_path / "d.csv").column("age")[:40] if value]
    assert encoder.features[encoder.names.index("age") - len(CITIES) + 1].fill == np.median(ages)
    assert len(table.encoded(some).matrix) == len(table)


def test_coefficients_are_in_the_units_of_the_columns(run, tmp_path):
    houses(tmp_path / "d.csv", 400)
    found = answer(run, "fit", "d.csv", "--target", "price", "--output", "run")
    by_name = {one["feature"]: one["per_unit"][0] for one in found["coefficients"]}
    assert by_name["size"] == pytest.approx(2500, rel=0.1)
    assert by_name["age"] == pytest.approx(-900, rel=0.2)
    assert by_name["city = Köln"] - by_name["city = Essen"] == pytest.approx(70e3, rel=0.2)
    # A prediction is the intercept and their sum.
    loaded = br.load_run(tmp_path / "run")
    features, _ = loaded.columns.encode(read_table(tmp_path / "d.csv"))
    sums = features @ [by_name[name] for name in found["features"]] + found["intercepts"][0]
    assert np.allclose(sums, loaded.predict(tmp_path / "d.csv", kind="mean").reshape(-1), rtol=1e-9)
    assert {name: value for name, (value,) in loaded.coefficients.items()} == pytest.approx(by_name, rel=1e-12)
    assert loaded.intercepts == pytest.approx(tuple(found["intercepts"]), rel=1e-12)


def test_exact_zeros_are_said_by_name(run):
    status, out, _ = run("fit", "breast_cancer", "--prior", "laplace(0.05)", "--output", "run")
    assert status == 0
    (line,) = [line for line in out.splitlines() if line.startswith("Exactly 0")]
    assert "mean symmetry" in line
    assert "log odds of 'benign' per unit" in out
    assert "always 'benign'" in out


def test_classes_are_predicted_by_name_with_their_probabilities(run, tmp_path):
    houses(tmp_path / "d.csv", 150)
    answer(run, "fit", "d.csv", "--target", "heating", "--drop", "id", "--output", "three")
    rows = predicted(run("predict", "three", "d.csv")[1])
    assert set(rows[0]) == {"predicted heating", "P(gas)", "P(heat pump)", "P(oil)"}
    assert all(sum(float(row[f"P({h})"]) for h in HEATING) == pytest.approx(1.0) for row in rows)
    assert all(float(row[f"P({row['predicted heating']})"]) >= 1 / 3 - 1e-9 for row in rows)
    answer(run, "fit", "breast_cancer", "--output", "two")
    X = br.load_run(tmp_path / "two")
    np.savez(tmp_path / "x.npz", X=np.ones((3, 30)))
    found = answer(run, "predict", "two", "x.npz")
    assert found["columns"] == ["predicted target", "P(malignant)", "P(benign)"]
    assert found["rows"][0][2] == pytest.approx(float(X.predict(torch.ones(3, 30), kind="probabilities")[0]))


# -- columns ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("a", ["1", "2.5", ""], Column("a", "number", "", 1)),
        ("a", ["x", "y", "x"], Column("a", "text", "", 0)),
        ("a", ["3", "3"], Column("a", "constant", "'a' has one value only", 0)),
        ("a", ["", ""], Column("a", "constant", "'a' has one value only", 2)),
        # A value that is there or not is one of two.
        ("a", ["x", ""], Column("a", "text", "", 1)),
        ("a", ["2024-05-01", "2024-05-02 10:30"], Column("a", "date", "'a' is of dates such as '2024-05-01'", 0)),
        ("a", ["01.05.2024", "3.5.24"], Column("a", "date", "'a' is of dates such as '01.05.2024'", 0)),
        ("a", ["5/1/2024", "6/1/2024"], Column("a", "date", "'a' is of dates such as '5/1/2024'", 0)),
        ("a", [str(i) for i in range(12)], Column("a", "number", "'a' counts the rows", 0)),
        ("a", list("abcdefghijkl"), Column("a", "id", "'a' has 12 different texts in 12 rows, like a name", 0)),
    ],
)  # fmt: skip
def test_kinds_of_columns(name, values, expected):
    assert kind_of_column(name, values) == expected


@pytest.mark.parametrize("name", ["id", "ID", "customer_id", "row number", "uuid", "No"])
def test_ids_are_known_by_name_and_values(name):
    ids = [str(number) for number in np.random.default_rng(0).permutation(50)]
    assert kind_of_column(name, ids).kind == "id"
    assert kind_of_column(name, ids[:-1] + ids[:1]).kind == "number"
    assert kind_of_column("price", ids).kind == "number"


def test_columns_are_chosen_and_dropped(run, tmp_path):
    houses(tmp_path / "d.csv")
    given = ("fit", "d.csv", "--target", "price", "--prior", "gaussian(1.0)")
    assert answer(run, *given, "--features", "size,age", "--output", "a")["features"] == [
        "size",
        "age",
        "age (missing)",
    ]
    found = answer(run, *given, "--drop", "city", "--drop", "heating,age", "--output", "b")
    assert found["features"] == ["size", "rooms"]
    kept = answer(run, *given, "--features", "id,size,country", "--output", "c")
    assert kept["features"] == ["id", "size", "country = DE"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--features", "sise"], "--features: expected a column 'sise'"),
        (["--features", "sise"], "did you mean 'size'"),
        (["--drop", "price"], "--drop: 'price' is the target"),
        (["--drop", "size", "--features", "size,age"], "--drop: 'size' is one of --features too"),
        (["--sep", ";;"], "--sep: expected one character"),
        (["--task", "classification"], "looks like a number"),
    ],
)
def test_wrong_columns_are_named(run, tmp_path, options, said):
    houses(tmp_path / "d.csv")
    assert said in refusal(run, "fit", "d.csv", "--target", "price", *options)


def test_dates_are_refused_with_a_way_on(run, tmp_path):
    (tmp_path / "d.csv").write_text(
        "sold,size,price\n" + "\n".join(f"2024-01-{i:02},{i},{i * i}" for i in range(1, 29))
    )
    said = refusal(run, "fit", "d.csv")
    assert "column 'sold' is of dates such as '2024-01-01': a date is no feature" in said
    assert "--drop 'sold'" in said
    assert run("fit", "d.csv", "--drop", "sold")[0] == 0


def test_a_slip_in_a_column_of_numbers_is_named(run, tmp_path):
    rows = [f"{i},{i % 7}.5" for i in range(40)]
    rows[7] = "12o,3.5"
    (tmp_path / "d.csv").write_text("x,y\n" + "\n".join(rows))
    said = refusal(run, "fit", "d.csv")
    assert "line 9, column 'x': expected a number as in 39 of 40 rows, got '12o'; mend it, or leave it empty" in said


def test_other_separators(run, tmp_path):
    text = "x;y\n" + "\n".join(f"{np.sin(i)};{np.cos(i)}" for i in range(30))
    (tmp_path / "d.csv").write_text(text)
    assert "say --sep ';'" in refusal(run, "fit", "d.csv")
    assert answer(run, "fit", "d.csv", "--sep", ";", "--output", "a")["features"] == ["x"]
    (tmp_path / "d.tsv").write_text(text.replace(";", "\t"))
    assert answer(run, "fit", "d.tsv", "--output", "b")["features"] == ["x"]


def in_commas(path):
    """The table of houses as a German spreadsheet writes it."""
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    for row in rows[1:]:
        row[2] = row[2].replace(".", ",")
        row[-1] = f"{int(row[-1]):,}".replace(",", ".") + ",00"
    (path.parent / "de.csv").write_text("\n".join(map(";".join, rows)), encoding="utf-8")


def test_decimal_commas_are_asked_about_and_read(run, tmp_path):
    houses(tmp_path / "d.csv")
    in_commas(tmp_path / "d.csv")
    given = ("fit", "de.csv", "--sep", ";", "--target", "price")
    said = refusal(run, *given)
    assert "line 2, column 'price': '" in said
    assert "looks like a number with a decimal comma; say --decimal ','" in said
    assert "column 'size': '" in refusal(run, "fit", "de.csv", "--sep", ";", "--target", "city", "--drop", "price")
    ours = answer(run, *given, "--decimal", ",", "--output", "de")
    theirs = answer(run, "fit", "d.csv", "--target", "price", "--output", "en")
    assert ours["coefficients"] == theirs["coefficients"]
    assert "say --decimal ','" in refusal(run, "predict", "de", "de.csv", "--sep", ";")
    told = [answer(run, "predict", *which)["rows"] for which in (
        ("de", "de.csv", "--sep", ";", "--decimal", ",", "--keep", "size"), ("en", "d.csv", "--keep", "size"),
    )]  # fmt: skip
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("row", "arguments", "said"),
    [
        ("1,5;2,0", ["--decimal", "x"], "--decimal: expected '.' or ',', got 'x'"),
        ("1.500;2,0", ["--decimal", ","], "column 'x': expected a decimal comma as in other rows, got '1.500'"),
        ("few;2", ["--decimal", ","], "column 'x': expected a number as in 12 of 13 rows, got 'few'"),
        ("few;2", [], "line 2, column 'x': '0,0' looks like a number"),
    ],
)
def test_what_of_decimal_commas_is_refused(run, tmp_path, row, arguments, said):
    rows = [f"{i // 10},{i % 10};{i}" for i in range(12)]
    (tmp_path / "d.csv").write_text("\n".join(["x;y", *rows, row]))
    assert said in refusal(run, "fit", "d.csv", "--sep", ";", *arguments)


def test_rows_without_a_target_are_left_out_and_said(run, tmp_path):
    rows = [f"{np.sin(i):.3f},{np.cos(i):.3f}" for i in range(30)]
    rows[3] = "0.5,"
    (tmp_path / "d.csv").write_text("x,y\n" + "\n".join(rows))
    found = answer(run, "fit", "d.csv")
    assert found["num_data"] == 29
    assert found["notes"] == ["1 rows without a 'y' are left out."]


def test_parquet_and_pickles(run, tmp_path):
    if importlib.util.find_spec("pyarrow") is None:
        pytest.skip("pyarrow is in the extra parquet alone")
    import pyarrow
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    x, word = rng.normal(size=60), rng.choice(["a", "b"], 60)
    columns = {
        "x": [None, *x[1:].tolist()],
        "word": word.tolist(),
        "y": (x + (word == "a") + 0.1 * rng.normal(size=60)).tolist(),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "d.parquet")
    found = answer(run, "fit", "d.parquet", "--output", "run")
    assert found["features"] == ["x", "x (missing)", "word = a", "word = b"]
    assert len(answer(run, "predict", "run", "d.parquet")["rows"]) == 60
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    assert "not a readable Parquet file" in refusal(run, "fit", "broken.parquet", "--output", "b")
    assert "is for a CSV file" in refusal(run, "fit", "d.parquet", "--sep", ";", "--output", "c")
    nested = pyarrow.table({"x": [[1], [2]], "y": [1.0, 2.5]})
    pyarrow.parquet.write_table(nested, tmp_path / "nested.parquet")
    assert "column 'x': expected numbers, text or dates" in refusal(run, "fit", "nested.parquet", "--output", "d")


def test_what_is_missing_is_named_with_how_to_get_it(run, tmp_path, monkeypatch):
    houses(tmp_path / "d.csv", 60)
    find = importlib.util.find_spec
    hidden = ("sklearn", "pyarrow")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in hidden else find(name, *a))
    said = refusal(run, "fit", "d.csv", "--target", "price")
    assert "Tables with text or missing values need sklearn: pip install 'bayesreg[sklearn]'" in said
    (tmp_path / "d.parquet").write_bytes(b"")
    assert "Parquet files need pyarrow: pip install 'bayesreg[parquet]'" in refusal(run, "fit", "d.parquet")
    # Of numbers without gaps nothing is asked.
    assert run("fit", "d.csv", "--target", "price", "--features", "size,rooms")[0] == 0


# -- encoders --------------------------------------------------------------------------------------------


def test_an_encoder_is_the_column_transformer_that_it_says(tmp_path):
    table = read_table(houses(tmp_path / "d.csv", 120))
    kinds = {"city": "text", "size": "number", "age": "number", "heating": "text"}
    encoder = Encoder.of(table, kinds)
    again = Encoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again == encoder
    features, notes = again.encode(table)
    assert notes == []
    assert features.shape == (120, len(encoder.names))
    by_name = dict(zip(encoder.names, features.T, strict=True))
    gaps = np.array([not value for value in table.column("age")])
    ages = np.array([float(value or "nan") for value in table.column("age")])
    assert np.array_equal(by_name["age (missing)"], gaps.astype(float))
    assert np.array_equal(by_name["age"], np.where(gaps, np.median(ages[~gaps]), ages))
    assert np.array_equal(by_name["city = Köln"], [float(city == "Köln") for city in table.column("city")])
    assert np.array_equal(by_name["heating = (missing)"], [float(not value) for value in table.column("heating")])
    assert encoder.measured == [name in ("size", "age") for name in encoder.names]


@pytest.mark.parametrize(
    "data",
    [
        None, {}, {"columns": []}, {"columns": [3]}, {"columns": [{"name": "a"}]},
        {"columns": [{"name": 1, "fill": 0.0}]},
        {"columns": [{"name": "a", "fill": "x", "gaps": False}]},
        {"columns": [{"name": "a", "fill": 1e400, "gaps": False}]},
        {"columns": [{"name": "a", "fill": 1.0, "gaps": 1}]}, {"columns": [{"name": "a", "categories": []}]},
        {"columns": [{"name": "a", "categories": ["x", "x"]}]}, {"columns": [{"name": "a", "categories": [1]}]},
        {"columns": [{"name": "a", "fill": 1.0, "gaps": False}] * 2},
    ],
)  # fmt: skip
def test_damaged_encoders_are_refused(data):
    with pytest.raises(br.InvalidArgumentError, match="columns: damaged"):
        Encoder.from_dict(data)


# -- predictions -----------------------------------------------------------------------------------------


@pytest.fixture
def fitted(run, tmp_path):
    houses(tmp_path / "d.csv")
    answer(run, "fit", "d.csv", "--target", "price", "--output", "run")
    return tmp_path / "run"


def test_columns_go_by_name_and_what_is_new_is_said(run, tmp_path, fitted):
    (tmp_path / "new.csv").write_text(
        "heating,age,rooms,size,city,colour\noil,10,3,100,,red\nsteam,,,100,Paris,blue\n", encoding="utf-8"
    )
    status, out, err = run("predict", "run", "new.csv")
    assert status == 0
    assert len(predicted(out)) == 2
    assert "note: 'city': Paris, not met in training: as no category." in err
    assert "note: 'heating': steam, not met in training: as no category." in err
    assert "note: 'city': 1 missing, of which there was none in training: as none." in err
    assert "note: 'rooms': 1 missing, of which there was none in training" in err
    (tmp_path / "less.csv").write_text("age,size\n1,2\n3,4\n")
    said = refusal(run, "predict", "run", "less.csv")
    assert "expected the columns that were trained on, and 'city', 'rooms', 'heating' are missing" in said
    status, out, _ = run("predict", "run", "new.csv", "--output", "p.csv")
    assert status == 0
    assert (tmp_path / "p.csv").read_text().splitlines()[0] == "predicted price"
    found = answer(run, "predict", "run", "new.csv")
    assert len(found["rows"]) == 2
    told = answer(run, "predict", "run", "new.csv", "--keep", "colour,size", "--keep", "size")
    assert told["columns"] == ["colour", "size", "predicted price"]
    assert told["rows"] == [["red", "100", *found["rows"][0]], ["blue", "100", *found["rows"][1]]]
    assert len(found["notes"]) == 4


def test_python_predicts_from_tables_and_paths(tmp_path, fitted):
    pd = pytest.importorskip("pandas", reason="pandas is in the extra third-party alone")
    loaded = br.load_run(fitted)
    one = loaded.predict(tmp_path / "d.csv", kind="mean")
    two = loaded.predict(pd.read_csv(tmp_path / "d.csv"), kind="mean")
    assert torch.equal(one, two)
    features, _ = loaded.columns.encode(read_table(tmp_path / "d.csv"))
    assert torch.equal(loaded.predict(features, kind="mean"), one)


def test_a_damaged_recipe_of_columns_is_refused(fitted):
    metrics = json.loads((fitted / "metrics.json").read_text())
    for columns in ([{"name": "a", "fill": 0.0, "gaps": False}], "x", [{"name": "size"}]):
        (fitted / "metrics.json").write_text(json.dumps({**metrics, "columns": columns}))
        with pytest.raises(br.PriorFileError, match=r"metrics\.json: .*damaged"):
            br.load_run(fitted)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "d.csv"], "not a readable run folder"),
        (["run", "nothing.csv"], "no such file"),
        (["run", "d.npz"], "trained on the columns of a table"),
        (["run", "d.csv", "--keep", "sise"], "--keep: expected a column 'sise', got"),
        (["three", "d.npz", "--keep", "id"], "--keep: its features have no names"),
        (["run", "d.csv", "--json", "--output", "p.csv"], "--json: is for what is printed"),
    ],
)
def test_predictions_that_cannot_be_made(run, tmp_path, fitted, arguments, said):
    np.savez(tmp_path / "d.npz", X=np.arange(36.0).reshape(12, 3) ** 0.5, y=np.arange(12.0) ** 2)
    if arguments[0] == "three":
        answer(run, "fit", "d.npz", "--prior", "gaussian(1.0)", "--task", "regression", "--output", "three")
    assert said in refusal(run, "predict", *arguments)


# -- run folders -----------------------------------------------------------------------------------------


def test_force_replaces_a_run_and_nothing_else(run, tmp_path, fitted, monkeypatch):
    given = ("fit", "d.csv", "--target", "price", "--output", "run")
    assert "run exists already; name another folder, or replace it by --force" in refusal(run, *given)
    before = json.loads((fitted / "metrics.json").read_text())
    assert answer(run, *given, "--features", "size", "--force")["features"] == ["size"]
    assert json.loads((fitted / "metrics.json").read_text())["features"] == ["size"] != before["features"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.csv", "run"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    assert "mine is no run folder, and is left as it is" in refusal(run, *given[:-1], "mine", "--force")
    assert (tmp_path / "mine" / "thesis.txt").exists()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bayesreg.cli.tabular.folder.write_run", full)
    assert "No space left" in refusal(run, *given, "--force")
    assert json.loads((fitted / "metrics.json").read_text())["features"] == ["size"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.csv", "mine", "run"]


def test_a_report_is_one_page_without_a_network(run, tmp_path, fitted):
    assert run("report", "run")[0] == 0
    page = (fitted / "report.html").read_text(encoding="utf-8")
    assert "http" not in page
    assert "<script" not in page
    assert page.count('src="data:image/png;base64,') == 3
    assert page.count("alt=") == 3
    for words in ("5-fold cross-validation", "city = Köln", "Ridge(alpha=", "equivalent weight_decay"):
        assert words in page
    assert answer(run, "report", "run", "--output", "other.html")["report"] == "other.html"
    assert (tmp_path / "other.html").read_text(encoding="utf-8") == page
    assert "has no metrics.json" in refusal(run, "report", ".")
    metrics = json.loads((fitted / "metrics.json").read_text())
    for damaged in (
        {"task": 3},
        [],
        {k: v for k, v in metrics.items() if k != "model"},
        {**metrics, "strength": {"scale": 1}},
    ):
        (fitted / "metrics.json").write_text(json.dumps(damaged))
        assert "not a readable run folder" in refusal(run, "report", "run")


def test_a_report_shows_names_as_text(run, tmp_path):
    rows = "\n".join(f"{np.sin(i):.3f},{'<b>' if np.sin(i) > 0 else '&'}" for i in range(40))
    (tmp_path / "d.csv").write_text(f"<script>alert(1)</script>,y\n{rows}")
    answer(run, "fit", "d.csv", "--output", "run")
    assert run("report", "run")[0] == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("data", "prior", "theirs"),
    [
        ("diabetes", "gaussian(0.2)", "Ridge(alpha="),
        ("diabetes", "laplace(0.1)", "Lasso(alpha="),
        ("diabetes", "elastic_net(l1=10, l2=5)", "ElasticNet(alpha="),
        ("diabetes", "flat()", "LinearRegression()"),
        ("breast_cancer", "gaussian(0.2)", "LogisticRegression(C=0.04)"),
        ("breast_cancer", "laplace(0.2)", "LogisticRegression(C=0.2, l1_ratio=1, solver='saga')"),
        ("diabetes", "student_t(df=3, scale=0.1)", None),
    ],
)
def test_the_setting_of_scikit_learn_is_the_same_objective(run, tmp_path, data, prior, theirs):
    import sklearn.datasets
    import sklearn.linear_model as models

    found = answer(run, "fit", data, "--prior", prior, "--output", "run", "--val-fraction", 0)
    if theirs is None:
        assert found["sklearn"] is None
        return
    assert found["sklearn"].startswith(theirs)
    X, y = getattr(sklearn.datasets, f"load_{data}")(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    if data == "diabetes":
        y = (y - y.mean()) / y.std()
    name = found["sklearn"].partition("(")[0]
    more = {"max_iter": 100_000, "tol": 1e-8} if name not in ("LinearRegression", "Ridge") else {}
    made = {one.arg: ast.literal_eval(one.value) for one in ast.parse(found["sklearn"]).body[0].value.keywords}
    fitted = getattr(models, name)(**made, **more).fit(X, y)
    weights = br.load_run(tmp_path / "run").model.net.weight.detach().numpy()
    assert np.allclose(weights, fitted.coef_.reshape(weights.shape), atol=2e-3)
