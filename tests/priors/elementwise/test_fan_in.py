"""FanInGaussian: the widths of torch.nn.init, and one exact weight decay per layer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import bayesreg as br

CASES = [
    (br.FanInGaussian.he, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
    (br.FanInGaussian.glorot, nn.init.xavier_normal_),
    (br.FanInGaussian.neal, lambda w: nn.init.kaiming_normal_(w, nonlinearity="linear")),
    (lambda: br.FanInGaussian(math.sqrt(2.0), "fan_out"),
     lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu")),
]  # fmt: skip


@pytest.mark.parametrize(("make", "init"), CASES)
@pytest.mark.parametrize("shape", [(300, 200), (64, 32, 5, 5)])
def test_width_is_that_of_the_initialisation(make, init, shape):
    weights = torch.empty(shape)
    init(weights)
    assert math.sqrt(make().variance(shape)) == pytest.approx(weights.std().item(), rel=0.02)


def test_is_the_gaussian_of_each_shape():
    prior, w = br.FanInGaussian.he(), torch.randn(4, 8, dtype=torch.float64)
    gaussian = br.Gaussian(0.5)
    assert prior.log_prob(w).item() == pytest.approx(gaussian.log_prob(w).item(), rel=1e-13)
    grads = [torch.zeros(4, 8, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)]
    prior.add_grad_(grads, [w, torch.ones(2, 2, dtype=torch.float64)], 0.1)
    assert torch.allclose(grads[0], 0.1 * w / 0.25)
    assert torch.allclose(grads[1], torch.full((2, 2), 0.1 / 1.0, dtype=torch.float64))
    assert torch.allclose(prior.prox(w, 0.3), gaussian.prox(w, 0.3))
    assert torch.allclose(prior.curvature(w), gaussian.curvature(w))
    draws = [p.sample((4, 8), generator=torch.Generator().manual_seed(0)) for p in (prior, gaussian)]
    assert torch.allclose(*draws)
    assert prior.weight_decay_readings(100, at=w).exact == pytest.approx(0.04)
    assert prior.weight_decay_readings(100).exact is None
    assert torch._dynamo.explain(prior.log_prob)(w).graph_break_count == 0


def test_every_layer_gets_its_own_native_weight_decay():
    model = nn.Sequential(nn.Linear(50, 200), nn.ReLU(), nn.Linear(200, 10))
    prior = br.ModelPrior(model, br.FanInGaussian.he())
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    handle = br.attach(optimizer, prior, num_data=1000)
    decays = sorted(group["weight_decay"] for group in optimizer.param_groups)
    assert decays == pytest.approx([0.0, 0.001 * 50 / 2, 0.001 * 200 / 2])
    assert "native" in str(handle.describe())
    assert {type(entry.prior) for entry in prior} == {br.Gaussian, br.Flat}


def test_may_be_centred_on_a_reference(tmp_path):
    source, model = nn.Linear(8, 4), nn.Linear(8, 4)
    prior = br.ModelPrior(
        model, {"bias": br.Flat(), "*": br.FanInGaussian.centered_at(source, gain=1.0, extra="ignore")}
    )
    assert torch.equal(prior["weight"].loc, source.weight.detach())
    assert prior["weight"].describe() == "Gaussian, std 0.3536, centred on Linear (1/√fan_in, fan 8)"
    prior.save(tmp_path / "p.safetensors")
    assert torch.equal(br.ModelPrior.load(tmp_path / "p.safetensors", model).log_prob(), prior.log_prob())


@pytest.mark.parametrize(("build", "message"), [
    (lambda: br.FanInGaussian(1.0, "fan"), "fan: expected one of fan_in, fan_out, fan_avg"),
    (lambda: br.FanInGaussian(0.0), "gain: expected a value > 0"),
    (lambda: br.FanInGaussian.he().log_prob(torch.ones(3)), r"two or more dimensions, got shape \(3,\)"),
    (lambda: br.ModelPrior(nn.Linear(2, 2), {"*": br.FanInGaussian.he()}), "parameter 'bias'.*rule of its own"),
])  # fmt: skip
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(br.InvalidArgumentError, match=message):
        build()


def test_one_number_cannot_say_it():
    with pytest.raises(br.NotEquivalentError, match=r"br\.ModelPrior and br\.attach put each in its place"):
        br.FanInGaussian.he().weight_decay(100)
