"""`br.convert`: every notation at once, as the functions one by one have it and the command line prints it."""

from __future__ import annotations

import math

import pytest
import torch

import bayesreg as br
from tests.cli.common import answer
from tests.cli.conftest import run  # noqa: F401 (a fixture)

N, TAU = 50_000, 0.7
SCALES = {
    "a number": N,
    "mean": br.LossScale.mean(N),
    "tempered": br.LossScale.mean(N, likelihood_weight=4.0),
    "squared error": br.LossScale.mse(N, 3, noise_std=TAU),
    "by hand": br.LossScale(3e-4),
}
GAUSSIAN = ("weight_decay", "variance", "std", "precision", "l2_coefficient", "ridge_alpha", "logistic_c")
LAPLACE = ("l1_coefficient", "laplace_scale", "lasso_alpha")
FIELD = {
    "l2_coefficient": "l2_coefficient_without_half",
    "ridge_alpha": "sklearn_ridge_alpha",
    "logistic_c": "sklearn_logistic_C",
    "laplace_scale": "scale",
    "lasso_alpha": "sklearn_lasso_alpha",
}


def fields(found):
    return {name: value for name, value in found.to_dict().items() if isinstance(value, float)}


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("family", [GAUSSIAN, LAPLACE], ids=["Gaussian", "Laplace"])
def test_every_notation_leads_back_to_all_others(family, scale):
    family = [name for name in family if name != "lasso_alpha" or (br.convert(1.0, "std", num_data=scale) and (
        isinstance(scale, int) or scale.num_data is not None))]  # fmt: skip
    first = br.convert(0.04, family[1], num_data=scale, noise_std=TAU)
    for name in family:
        value = getattr(first, FIELD.get(name, name))
        again = br.convert(value, name, num_data=scale, noise_std=TAU)
        assert fields(again) == pytest.approx(fields(first), rel=1e-12)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_the_numbers_are_those_of_the_functions(scale):
    found = br.convert(5e-4, "weight_decay", num_data=scale, noise_std=TAU)
    variance = br.weight_decay_to_variance(5e-4, scale)
    assert (found.variance, found.std, found.weight_decay) == (variance, math.sqrt(variance), pytest.approx(5e-4))
    assert found.l2_coefficient_without_half == br.variance_to_l2_coefficient(variance, scale)
    emphasis = getattr(scale, "likelihood_weight", 1.0)
    assert found.sklearn_ridge_alpha == pytest.approx(br.variance_to_ridge_alpha(variance, TAU / emphasis**0.5))
    assert found.sklearn_logistic_C == pytest.approx(br.variance_to_logistic_c(variance) * emphasis)
    sparse = br.convert(1e-4, "l1_coefficient", num_data=scale)
    assert (sparse.scale, sparse.std) == (br.l1_to_laplace_scale(1e-4, scale), math.sqrt(2.0) * sparse.scale)
    assert sparse.weight_decay is None
    stated = getattr(scale, "noise_std", None)
    if stated is None:
        assert sparse.sklearn_lasso_alpha is None
    else:
        lasso_alpha = br.laplace_scale_to_lasso_alpha(sparse.scale, N, stated)
        assert sparse.sklearn_lasso_alpha == pytest.approx(lasso_alpha)


def test_the_command_line_prints_the_same(run):  # noqa: F811
    for arguments, keywords in (
        (("5e-4",), {"notation": "weight_decay"}),
        (("0.2", "--from", "laplace-scale", "--noise-std", "0.7"), {"notation": "laplace_scale", "noise_std": 0.7}),
        (("0.04", "--from", "variance", "--optimizer", "adamw"), {"notation": "variance", "optimizer": "adamw"}),
    ):
        mine = br.convert(float(arguments[0]), num_data=N, **keywords)
        assert answer(run, "convert", *arguments, "--num-data", N) == mine.to_dict()


def test_optimizers_are_taken_in_every_form():
    given = ("sgd", torch.optim.SGD, torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
    expected = br.convert(0.04, "variance", num_data=N)
    for optimizer in given:
        assert br.convert(0.04, "variance", num_data=N, optimizer=optimizer).to_dict() == expected.to_dict()
    decoupled = br.convert(0.04, "variance", num_data=N, optimizer=torch.optim.AdamW)
    assert decoupled.weight_decay is None
    assert "No weight_decay of AdamW means this prior" in str(decoupled)
    assert br.convert(0.04, "variance", num_data=N, optimizer="asgd").weight_decay == pytest.approx(4e-4)
    with pytest.raises(br.NotEquivalentError, match="AdamW decouples"):
        br.convert(5e-4, num_data=N, optimizer="adamw")


@pytest.mark.parametrize(("arguments", "keywords", "words"), [
    ((5e-4, "weight-deca"), {"num_data": 10}, "notation: expected one of weight_decay, .*did you mean 'weight_decay'"),
    ((-1.0,), {"num_data": 10}, "weight_decay: expected a number >= 0, got -1"),
    ((0.0,), {"num_data": 10}, "a finite width > 0, got 0"),
    ((float("nan"),), {"num_data": 10}, "value: expected a finite number"),
    ((torch.ones(2),), {"num_data": 10}, "value: expected one number"),
    ((1.0, "ridge_alpha"), {"num_data": 10}, "noise_std: ridge_alpha is relative to the noise"),
    ((1.0, "lasso_alpha"), {"num_data": br.LossScale(0.1), "noise_std": 1.0}, "num_data: lasso_alpha depends on the"),
    ((0.0, "laplace_scale"), {"num_data": 10}, "laplace_scale: expected a finite number > 0"),
    ((1.0,), {"num_data": 10, "optimizer": "addam"}, "optimizer: expected a torch optimizer"),
    ((1.0,), {"num_data": 0}, "num_data: expected an integer >= 1"),
])  # fmt: skip
def test_what_cannot_be_converted_is_refused(arguments, keywords, words):
    with pytest.raises(br.InvalidArgumentError, match=words):
        br.convert(*arguments, **keywords)


def test_it_shows_itself():
    found = br.convert(5e-4, num_data=N)
    assert "weight decay" in str(found)
    assert "<table>" in found._repr_html_()
    assert '"variance": 0.04' in found.to_json()
    assert found.__rich__() is not None


def test_the_noise_is_stated_once():
    told = br.LossScale.mse(100, 1, noise_std=0.5)
    assert br.convert(2.0, "ridge_alpha", num_data=told) == br.convert(2.0, "ridge_alpha", num_data=told, noise_std=0.5)
    assert br.convert(2.0, "ridge_alpha", num_data=told).variance == pytest.approx(0.5**2 / 2.0)
    with pytest.raises(br.InvalidArgumentError, match=r"noise_std: the loss scale was made with 0\.5, got 5;"):
        br.convert(2.0, "ridge_alpha", num_data=told, noise_std=5.0)


def test_a_decay_that_is_more_than_its_number_is_noted():
    more = "ASGD shrinks by more than its weight_decay; the other rows count all of it."
    assert more in br.convert(5e-4, "weight_decay", num_data=N, optimizer="asgd").notes
    assert more.replace("ASGD", "SGD") not in br.convert(5e-4, "weight_decay", num_data=N, optimizer="sgd").notes


def test_a_gaussian_says_which_logistic_regression_its_c_is_of():
    assert any("a softmax of two outputs has C = 2 x variance" in note for note in br.convert(1.0, num_data=N).notes)
    # Of a Laplace it is b either way: |w₁| + |w₀| is least where one of them is 0.
    assert br.convert(1.0, "laplace_scale", num_data=N).notes == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (50_000.0, r"got 50000\.0; write int\(num_data\)\."),
        (2e-5, r"a scale given by hand is br\.LossScale\(2e-05\)\."),
        ([1, 2], r"got list; write len\(dataset\)"),
        (torch.utils.data.TensorDataset(torch.zeros(3)), r"got TensorDataset; write len\(dataset\)"),
    ],
)
def test_a_size_that_is_none_is_answered_by_what_to_write(given, message):
    with pytest.raises(br.InvalidArgumentError, match=message):
        br.weight_decay_to_variance(5e-4, given)


def test_n_is_called_num_data():
    with pytest.raises(br.InvalidArgumentError, match=r"unexpected argument 'n'.*did you mean 'num_data'"):
        br.convert(5e-4, "weight_decay", n=N)
