"""The statement the project grew from: three ways to write L2 regularisation are one, step by step."""

from __future__ import annotations

import copy

import pytest
import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.nn import functional as F

import bayesreg as br

WEIGHT_DECAY = 0.05


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_weight_decay_penalty_and_log_prior_agree_step_by_step(momentum):
    """Mean NLL + (λ/2)‖θ‖², biases left out, by SGD's weight_decay, by a penalty, by −log p(θ)/n, by br.attach."""
    X, y = (torch.as_tensor(a) for a in load_diabetes(return_X_y=True))
    X, y = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    n = len(y)
    first = nn.Sequential(nn.Linear(10, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    models = [copy.deepcopy(first) for _ in range(4)]
    # σ² = 1/(nλ): the prior that the weight decay stands for.
    variance = br.weight_decay_to_variance(WEIGHT_DECAY, n)
    assert variance == 1 / (n * WEIGHT_DECAY)

    def split(model):
        return [p for p in model.parameters() if p.ndim > 1], [p for p in model.parameters() if p.ndim == 1]

    weights, rest = split(models[0])
    groups = [{"params": weights, "weight_decay": WEIGHT_DECAY}, {"params": rest}]
    optimizers = [
        torch.optim.SGD(groups, lr=0.05, momentum=momentum),
        *(torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum) for model in models[1:3]),
    ]
    prior = br.ModelPrior(models[3], br.Gaussian.from_weight_decay(WEIGHT_DECAY, n))
    optimizers.append(torch.optim.SGD(prior.param_groups(), lr=0.05, momentum=momentum))
    br.attach(optimizers[3], prior, num_data=n)
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), variance**0.5)

    def penalty(index):
        weights, _ = split(models[index])
        if index == 1:
            return WEIGHT_DECAY / 2 * sum(w.square().sum() for w in weights)
        if index == 2:
            return -sum(normal.log_prob(w).sum() for w in weights) / n
        return 0.0

    for _ in range(100):
        for index, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            optimizer.zero_grad()
            mean_nll = 0.5 * F.mse_loss(model(X)[:, 0], y)
            (mean_nll + penalty(index)).backward()
            optimizer.step()
        for model in models[1:]:
            for one, other in zip(models[0].parameters(), model.parameters(), strict=True):
                assert torch.allclose(one, other, rtol=0, atol=1e-12)
    # The three kept to one path because they are one objective, not because nothing happened.
    assert (models[0][0].weight - first[0].weight).abs().max() > 0.05


def test_without_the_half_the_penalty_is_another_prior():
    """α‖W‖² as in many slides: the same prior needs α = λ/2."""
    n = 100
    assert br.l2_coefficient_to_variance(WEIGHT_DECAY / 2, n) == pytest.approx(
        br.weight_decay_to_variance(WEIGHT_DECAY, n)
    )


def test_the_objective_is_the_mean_nll_and_the_log_prior_over_n():
    model = nn.Linear(4, 3).double()
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    objective = br.MAPObjective(prior, num_data=50)
    nll = torch.tensor(1.2, dtype=torch.float64)
    expected = nll - (prior.log_prob() - prior.log_constant()) / 50
    assert objective(nll).item() == pytest.approx(expected.item(), rel=1e-14)
    summed = br.MAPObjective(prior, br.LossScale.sum())
    assert summed.penalty().item() == pytest.approx(50 * objective.penalty().item())
    with pytest.raises(br.InvalidArgumentError, match="num_data: pass the size of the training set"):
        br.MAPObjective(prior, None)
