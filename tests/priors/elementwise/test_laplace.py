"""Laplace: the contract, kinks, conversions."""

from __future__ import annotations

import pytest
import scipy.stats
import torch
from torch import nn

import bayesreg as br
from bayesreg.testing import PriorContract


class TestLaplace(PriorContract):
    def make(self, scale):
        return br.Laplace(scale)

    def logpdf(self, scale):
        return scipy.stats.laplace(0, scale).logpdf


class TestCentredLaplace(PriorContract):
    centre = -0.4

    def make(self, scale):
        return br.Laplace(scale, loc=-0.4)

    def logpdf(self, scale):
        return scipy.stats.laplace(-0.4, scale).logpdf


def test_prox_puts_small_values_exactly_on_the_centre():
    loc = torch.tensor([0.1, -0.2, 0.3])
    prior = br.Laplace(1.0, loc=loc)
    x = prior.prox(loc + torch.tensor([0.01, -0.01, 2.0]), step=0.5)
    assert x[0] == loc[0]
    assert x[1] == loc[1]
    assert x[2].item() == pytest.approx(1.8)
    assert prior.at_kink(x).tolist() == [True, True, False]


def test_prox_with_a_diagonal_metric_is_coordinatewise():
    prior = br.Laplace(torch.tensor([0.5, 2.0], dtype=torch.float64))
    v, step = torch.tensor([3.0, -3.0], dtype=torch.float64), torch.tensor([0.25, 4.0], dtype=torch.float64)
    assert prior.prox(v, step).tolist() == [2.5, -1.0]


def test_certificate_at_the_kink_is_zero_inside_the_threshold():
    prior = br.Laplace(0.5)
    value = torch.zeros(3, dtype=torch.float64)
    grad = torch.tensor([0.1, -0.2, 0.5], dtype=torch.float64)
    # Threshold s/b = 0.1/0.5 = 0.2.
    assert torch.allclose(prior.subdiff_distance(value, grad, 0.1), torch.tensor([0.0, 0.0, 0.3], dtype=torch.float64))


def test_a_step_over_the_kink_ends_on_it():
    prior = br.Laplace(1.0, loc=0.5)
    before = torch.tensor([1.0, 1.0, 0.0, 0.5])
    after = torch.tensor([0.9, 0.2, 0.7, 0.6])
    assert torch.equal(prior._kept_on_side(before, after), torch.tensor([0.9, 0.5, 0.5, 0.6]))


def test_no_weight_decay_but_an_l1_coefficient():
    prior = br.Laplace.from_l1(1e-4, 50_000)
    assert prior.scale.item() == pytest.approx(0.2)
    assert prior.l1(50_000) == pytest.approx(1e-4)
    with pytest.raises(br.NotEquivalentError, match=r"No weight_decay is equivalent .* L1 coefficient of 0\.0001"):
        prior.weight_decay(50_000)
    with pytest.raises(br.InvalidArgumentError, match=r"no penalty at all is br\.Flat"):
        br.Laplace.from_l1(0.0, 10)


def test_centred_on_a_reference():
    source = nn.Linear(3, 2)
    prior = br.ModelPrior(nn.Linear(3, 2), {"*": br.Laplace.centered_at(source, 0.1)})
    assert torch.equal(prior["weight"].loc, source.weight.detach())


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_bad_scales_are_refused(scale):
    with pytest.raises(br.InvalidArgumentError, match="scale: expected"):
        br.Laplace(scale)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_can_sit_on_a_centre_given_in_a_wider_dtype(dtype):
    model = nn.Linear(3, 2).to(dtype)
    prior = br.ModelPrior(model, {"*": br.Laplace.centered_at(nn.Linear(3, 2).double(), 0.1)})
    pulled = prior["weight"].prox(model.weight.detach(), 1e6)
    assert prior["weight"].at_kink(pulled).all()
