"""Equal priors are equal pickles and hash alike, and stay two; `same_as` compares them."""

from __future__ import annotations

import copy
import io
import pickle

import joblib
import pytest
import torch
from torch import nn

import bayesreg as br

CENTRE = {"w": torch.randn(3, 2, generator=torch.Generator().manual_seed(0))}
PRIORS = {
    "gaussian": lambda: br.Gaussian(0.5),
    "one each": lambda: br.Gaussian(torch.full((3, 2), 0.5)),
    "half": lambda: br.Gaussian(0.5, loc=torch.full((3, 2), 0.5, dtype=torch.bfloat16)),
    "flat rows": lambda: br.Gaussian(torch.tensor([[1.0], [float("inf")], [2.0]])),
    "centred": lambda: br.Gaussian.centered_at({name: held.clone() for name, held in CENTRE.items()}, scale=0.1),
    "laplace": lambda: br.Laplace(0.1),
    "student": lambda: br.StudentT(3.0, 0.1),
    "mixture": lambda: br.ScaleMixture(torch.tensor([0.5, 0.5]), torch.tensor([0.1, 1.0])),
    "groups": lambda: br.GroupLaplace(1.0, group="row"),
    "hierarchical": lambda: br.HierarchicalGaussian(br.hyperpriors.InverseGamma(2.0, 0.1)),
    "r2d2": lambda: br.R2D2(1.5, 0.5),
    "low rank": lambda: br.LowRankGaussian(diag=torch.ones(3, 2), factor=torch.ones(3, 2, 1)),
    "multivariate": lambda: br.MultivariateGaussian(torch.eye(6)),
    "matrix": lambda: br.MatrixGaussian(torch.eye(3), torch.eye(2)),
    "distribution": lambda: br.FromDistribution(torch.distributions.Cauchy(0.0, 1.0)),
    "product": lambda: br.Product([br.Gaussian(1.0), br.Laplace(0.3)]),
    "mixture of two": lambda: br.Mixture([br.Gaussian(1.0), br.Laplace(0.3)], weights=[0.5, 0.5]),
    "flat": br.Flat,
    "fan-in": br.FanInGaussian.he,
    "uniform": lambda: br.Uniform(-9.0, 9.0),
    "MCP": lambda: br.MCP(1.0, 3.0),
}


@pytest.mark.parametrize("name", PRIORS)
def test_equal_priors_are_equal_pickles_and_stay_two(name):
    one, other = PRIORS[name](), PRIORS[name]()
    read = pickle.loads(pickle.dumps(one))
    copied, shallow = copy.deepcopy(one), copy.copy(one)
    assert len({joblib.hash(prior) for prior in (one, other, read, copied, shallow)}) == 1
    assert all(one.same_as(prior) for prior in (other, read, copied, shallow))
    assert one != other
    assert hash(one) != hash(other)
    assert len(nn.ModuleList([one, other])) == 2
    if one.reference is None:
        value = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
        assert torch.equal(read.log_prob(value), one.log_prob(value))
    file = io.BytesIO()
    torch.save(one, file)
    file.seek(0)
    assert torch.load(file, weights_only=False).same_as(one)


@pytest.mark.parametrize("name", PRIORS)
def test_another_prior_is_not_the_same(name):
    one = PRIORS[name]()
    assert not any(one.same_as(make()) for other, make in PRIORS.items() if other != name)
    assert joblib.hash(one) not in {joblib.hash(make()) for other, make in PRIORS.items() if other != name}
    assert not one.same_as("prior")
    stronger = one.times(2.0)
    if stronger is not None and name != "flat":
        assert not one.same_as(stronger)


def test_centres_and_learned_scales_are_compared_by_their_values():
    other = {"w": CENTRE["w"] + 1.0}
    assert not PRIORS["centred"]().same_as(br.Gaussian.centered_at(other, scale=0.1))
    learned = [br.Gaussian(nn.Parameter(torch.tensor(value))) for value in (0.5, 0.5, 0.7)]
    assert learned[0].same_as(learned[1])
    assert not learned[0].same_as(learned[2])
    assert pickle.loads(pickle.dumps(learned[0])).same_as(learned[0])
    twice = copy.deepcopy(nn.ModuleList([br.Gaussian(learned[0].scale), br.Laplace(learned[0].scale)]))
    assert twice[0].scale is twice[1].scale


def test_a_distribution_that_cannot_be_rebuilt_is_compared_by_its_values():
    one, other, third = (br.FromDistribution(torch.distributions.Gumbel(0.0, scale)) for scale in (1.0, 1.0, 2.0))
    assert one.same_as(other)
    assert one.same_as(pickle.loads(pickle.dumps(one)))
    assert not one.same_as(third)


def test_what_numbers_do_not_tell_is_compared_too():
    assert not br.GroupLaplace(1.0, "row").same_as(br.GroupLaplace(1.0, "column"))
    product = br.Product([br.Laplace(1.0), br.Gaussian(1.0)])
    assert product.same_as(br.Product([br.Laplace(1.0), br.Gaussian(1.0)]))
    assert not product.same_as(br.Product([br.Laplace(2.0), br.Gaussian(1.0)]))
    mixed = br.Mixture([br.Laplace(1.0), br.Gaussian(1.0)], [0.5, 0.5])
    assert not mixed.same_as(br.Mixture([br.Laplace(1.0), br.Gaussian(2.0)], [0.5, 0.5]))


def test_a_prior_over_fewer_parameters_is_another():
    small = br.ModelPrior(nn.Sequential(nn.Linear(3, 4)), br.Gaussian(0.5))
    large = br.ModelPrior(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), br.Gaussian(0.5))
    assert not small.same_as(large)
    assert not large.same_as(small)


def test_priors_of_models_are_compared_by_name():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    rules = {"0.*": br.Gaussian(0.5), "*": br.Laplace(0.1)}
    prior = br.ModelPrior(model, rules)
    assert prior.same_as(br.ModelPrior(copy.deepcopy(model), dict(rules)))
    assert prior.same_as(pickle.loads(pickle.dumps(prior)))
    assert not prior.same_as(br.ModelPrior(model, {**rules, "0.*": br.Gaussian(0.6)}))
    assert not prior.same_as(br.ModelPrior(nn.Linear(3, 4), br.Gaussian(0.5)))
    assert not prior.same_as(rules)


def attached():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    prior = br.ModelPrior(model, br.Gaussian(0.5))
    return model, optimizer, prior, br.attach(optimizer, prior, num_data=10)


@pytest.mark.parametrize("way", [copy.deepcopy, copy.copy, lambda held: pickle.loads(pickle.dumps(held))])
def test_a_copied_handle_is_one_of_nothing_and_says_so(way):
    handle = attached()[3]
    other = way(handle)
    assert repr(other) == "Handle(a copy of Handle(SGD, s=0.1))"
    other.remove()
    for use in (other.apply_, other.penalty, other.describe, other.log, lambda: other.clipped(1.0, 1.0)):
        with pytest.raises(br.InvalidArgumentError, match=r"this is a copy of Handle\(SGD, s=0.1\), which copying"):
            use()
    # The first one is as it was.
    assert handle.log()["loss_scale"] == 0.1


def test_what_keeps_a_handle_can_be_pickled_and_its_optimizer_speaks_up():
    model, optimizer, prior, handle = attached()
    model.handle = handle
    model, optimizer, prior, handle = pickle.loads(pickle.dumps((model, optimizer, prior, handle)))
    model(torch.ones(1, 3)).sum().backward()
    with pytest.raises(br.InvalidArgumentError, match="the prior is not attached to it"):
        optimizer.step()
    br.attach(optimizer, prior, num_data=10)
    optimizer.step()
