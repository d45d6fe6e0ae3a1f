"""Tables of pandas as training data."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import bayesreg as br

pandas = pytest.importorskip("pandas", reason="needs pandas")
pytestmark = pytest.mark.slow
L = br.likelihoods


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return pandas.DataFrame({
        "age": rng.integers(20, 60, 40), "height": rng.normal(1.7, 0.1, 40), "married": rng.random(40) > 0.5,
        "price": rng.normal(size=40), "kind": rng.integers(0, 3, 40), "w": rng.random(40),
    })  # fmt: skip


def trained(data, likelihood=None, outputs=1, **how):
    torch.manual_seed(0)
    model = nn.Linear(3, outputs).double()
    trainer = br.MAPTrainer(
        model, br.Gaussian(1.0), likelihood or L.Gaussian(1.0), optimizer=partial(torch.optim.SGD, lr=1e-4),
        max_epochs=2, progress=False, **how,
    )  # fmt: skip
    trainer.fit(data)
    return trainer


def test_a_table_is_the_matrix_of_its_columns(frame):
    X = frame[["age", "height", "married"]].to_numpy(dtype=float)
    expected = trained((X, frame["price"].to_numpy())).model.weight
    whole = frame[["age", "height", "married", "price"]]
    for given, how in (
        ((frame[["age", "height", "married"]], frame["price"]), {}),
        ([frame[["age", "height", "married"]], frame["price"]], {}),
        (whole, {"target": "price"}),
        (whole.convert_dtypes(), {"target": "price"}),
        (whole.iloc[::-1].iloc[::-1], {"target": "price"}),
    ):
        assert torch.equal(trained(given, **how).model.weight, expected)


def test_weights_and_classes_are_columns_too(frame):
    given = frame[["age", "height", "married", "kind", "w"]]
    found = trained(given, L.Categorical(), 3, target="kind", sample_weight="w")
    X = frame[["age", "height", "married"]].to_numpy(dtype=float)
    expected = trained((X, frame["kind"].to_numpy(), frame["w"].to_numpy()), L.Categorical(), 3, sample_weight=2)
    assert torch.equal(found.model.weight, expected.model.weight)
    assert found.result.num_data == pytest.approx(frame["w"].sum())


def test_predictions_are_of_the_same_columns(frame):
    trainer = trained(frame[["age", "height", "married", "price"]], target="price")
    X = frame[["age", "height", "married"]]
    assert torch.equal(trainer.predict(X, kind="mean"), trainer.predict(X.to_numpy(dtype=float), kind="mean"))
    assert set(trainer.evaluate(frame[["age", "height", "married", "price"]])) == {"nll", "mse"}


def test_what_does_not_fit_is_told_by_column(frame):
    with_text = frame.assign(city="Ulm")
    missing = frame.assign(height=frame["height"].where(frame["height"] > 1.7))
    for given, how, said in (
        (frame, {}, "expected one of the table's columns as target=, got nothing"),
        (frame, {"target": "prise"}, "got 'prise'; did you mean 'price'"),
        (frame, {"target": "price", "sample_weight": "weight"}, "as sample_weight=, got 'weight'"),
        (with_text, {"target": "price"}, "expected numbers in column 'city', got dtype"),
        (missing, {"target": "price"}, r"column 'height' has \d+ missing values; drop or impute them first"),
        (frame[["price"]], {"target": "price"}, "expected columns of features beside the target"),
        ((with_text, frame["price"]), {}, "column 'city'"),
    ):
        with pytest.raises(br.DataError, match=said):
            trained(given, **how)


def test_columns_are_known_by_their_names(frame, tmp_path):
    trainer = trained(frame[["age", "height", "married", "price"]], target="price")
    X = frame[["married", "age", "height"]]
    as_trained = frame[["age", "height", "married"]].to_numpy(dtype=float)
    assert torch.equal(trainer.predict(X, kind="mean"), trainer.predict(as_trained, kind="mean"))
    with pytest.raises(br.DataError, match="expected the columns that were trained on, and 'height' is missing"):
        trainer.predict(frame[["age", "married", "kind"]])
    br.save_run(tmp_path / "run", trainer)
    assert br.load_run(tmp_path / "run", nn.Linear(3, 1).double()).feature_names == ("age", "height", "married")


def test_whole_numbers_alone_are_numbers_too(frame):
    whole = pandas.DataFrame({name: frame["age"] + shift for shift, name in enumerate("abc")})
    assert torch.equal(
        trained((whole, frame["price"])).model.weight,
        trained((whole.to_numpy(dtype=float), frame["price"].to_numpy())).model.weight,
    )


def test_a_column_twice_is_told(frame):
    twice = frame[["age", "age", "price"]]
    with pytest.raises(br.DataError, match="expected every column of the table once, got 'age' twice"):
        trained(twice, target="price")
