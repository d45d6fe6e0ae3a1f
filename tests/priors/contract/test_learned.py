"""Hyper-parameters that are learned: shared ones stay one, what cannot be learned is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bayesreg as br


def test_a_shared_learned_scale_stays_one(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    scale = nn.Parameter(torch.tensor(0.3))
    prior = br.ModelPrior(model, {"*": br.Laplace.centered_at(model, scale)})
    assert len(list(prior.parameters())) == 1
    prior.save(tmp_path / "p.safetensors")
    again = br.ModelPrior.load(tmp_path / "p.safetensors", model)
    assert [p.dtype for p in again.parameters()] == [torch.float32]
    assert torch.equal(again.log_prob(), prior.log_prob())


def test_what_cannot_be_learned_is_refused():
    learned = nn.Parameter(torch.tensor(1.0))
    for build in (
        lambda: br.FanInGaussian(learned),
        lambda: br.ScaleMixture.spike_and_slab(learned, 2.0),
        lambda: br.GeneralizedNormal(learned, 1.0),
        lambda: br.StudentT(4.0, torch.tensor(0.1, requires_grad=True)),
        lambda: br.Gaussian(torch.tensor([0.1, 0.2], requires_grad=True) * 2.0),
    ):
        with pytest.raises(br.InvalidArgumentError, match=r"requires a gradient|one fixed number"):
            build()


def test_raw_errors_became_sentences():
    with pytest.raises(br.InvalidArgumentError, match="value: expected a tensor, got float"):
        br.Gaussian(0.1).log_prob(0.3)
    with pytest.raises(br.InvalidArgumentError, match="at: expected the tensor of one parameter"):
        br.StudentT(4.0, 1.0).weight_decay_readings(10, at=nn.Linear(2, 2))
    with pytest.raises(br.InvalidArgumentError, match=r"loc: expected a shape that broadcasts"):
        br.MultivariateGaussian(torch.eye(3), loc=torch.zeros(4)).log_prob(torch.zeros(3))
    with pytest.raises(br.InvalidArgumentError, match=r"l2: expected a value > 0, got 0; without it .* br\.Laplace"):
        br.ElasticNet(1.0, 0)
    with pytest.raises(br.InvalidArgumentError, match=r"parameter 'bias' of 2 or more dimensions.*br\.Flat"):
        br.ModelPrior(nn.Linear(2, 2), {"*": br.GroupLaplace(1.0, "column")})
    with pytest.raises(br.InvalidArgumentError, match=r"factor: expected shape \(2, 3, 1\).*got \(6, 1\)"):
        br.ModelPrior(nn.Linear(3, 2), br.LowRankGaussian(1.0, torch.ones(6, 1)))
    assert br.GeneralizedNormal(0.01, 1.0).variance() is None
