"""The log prior of a model is a float64 scalar: in float32 one nat is lost where there are 1e7 weights."""

import pytest
import torch
from torch import nn

import bayesreg as br
from tests.sampling import cells

FAMILIES = {
    "gaussian": br.Gaussian(0.02), "laplace": br.Laplace(0.02), "student": br.StudentT(4.0, 0.02),
    "mixture": br.ScaleMixture(torch.tensor([0.5, 0.5]), torch.tensor([0.01, 0.1])), "logistic": br.Logistic(0.02),
    "fan-in": br.FanInGaussian.he(), "group": br.GroupLaplace(10.0, group="row"),
}  # fmt: skip


@pytest.mark.parametrize("family", cells(FAMILIES.keys(), keep=lambda f: f in (0, 6)))
def test_one_weight_among_many_is_seen(family):
    torch.manual_seed(0)
    model = nn.Linear(1000, 3000, bias=False)
    nn.init.normal_(model.weight, std=0.02)
    prior = br.ModelPrior(model, FAMILIES[family])
    before, exact = prior.log_prob(), FAMILIES[family].log_prob(model.weight.detach().double())
    assert before.dtype == prior.penalty().dtype == torch.float64
    assert before.item() == pytest.approx(exact.item(), rel=1e-7)  # elements are in float32, their sum is not
    with torch.no_grad():
        model.weight[0, 0] += 0.005
    moved = FAMILIES[family].log_prob(model.weight.detach().double()) - exact
    assert (prior.log_prob() - before).item() == pytest.approx(moved.item(), abs=2e-3)
    prior.penalty().backward()
    assert model.weight.grad.dtype == torch.float32


def test_nothing_trained_counts_nothing():
    model = nn.Linear(3, 2).requires_grad_(False)
    log_prob = br.ModelPrior(model, br.Gaussian(1.0)).log_prob()
    assert log_prob.dtype == torch.float64
    assert log_prob.item() == 0.0
