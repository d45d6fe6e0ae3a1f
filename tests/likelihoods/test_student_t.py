"""Student-t noise: its density by SciPy, its derivatives by autograd, what is saved of it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from scipy import stats

import bayesreg as br
from bayesreg.likelihoods.saved import likelihood_from, settings_of

L = br.likelihoods


@pytest.mark.parametrize("df", [0.5, 1.0, 4.0, 300.0])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_nll_is_scipys(df, scale):
    output, target = torch.randn(7, 2, dtype=torch.float64), 3.0 * torch.randn(7, 2, dtype=torch.float64)
    expected = -stats.t.logpdf(target.numpy(), df, output.numpy(), scale).sum(1)
    assert torch.allclose(L.StudentT(df, scale).nll(output, target), torch.from_numpy(expected), rtol=1e-10)


@pytest.mark.parametrize("df", [1.0, 4.0])
def test_slope_and_curvature_are_autograds(df):
    likelihood = L.StudentT(df, 0.7)
    output = torch.linspace(-3, 3, 9, dtype=torch.float64)[:, None].requires_grad_()
    target = torch.zeros(9, 1, dtype=torch.float64)
    (slope,) = torch.autograd.grad(likelihood.nll(output, target).sum(), output, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), output)
    local = likelihood._local(output.detach(), target)
    assert torch.allclose(local.slope, slope.detach())
    assert torch.allclose(local.diagonal, curvature)
    assert local.outer is None


def test_the_middle_is_there_where_no_mean_is():
    output = torch.tensor([[1.0], [2.0]])
    assert torch.equal(L.StudentT(1.0, 1.0)._middle(output), output)
    assert torch.isnan(L.StudentT(1.0, 1.0).predictive(output).mean).all()
    assert torch.equal(L.StudentT(1.0, 1.0).metric(output, torch.zeros(2, 1)), torch.tensor([1.0, 4.0]))


@pytest.mark.parametrize("made", [L.StudentT(3.0, 0.2), L.StudentT(3.0), L.Gaussian(0.3), L.Gaussian("learned")])
def test_it_is_copied_pickled_and_saved_whole(made):
    for parameter in made.parameters():
        parameter.data.fill_(-1.5)
    output, target = torch.randn(5, 1, dtype=torch.float64), torch.randn(5, 1, dtype=torch.float64)
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), likelihood_from(settings_of(made))):
        assert type(again) is type(made)
        assert repr(again) == repr(made)
        assert torch.allclose(again.nll(output, target), made.nll(output, target), rtol=1e-14)
        assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in made.parameters()]
    assert pickle.dumps(made) == pickle.dumps(copy.deepcopy(made))


def test_a_learned_scale_is_found_by_the_trainer():
    generator = torch.Generator().manual_seed(0)
    noise = torch.distributions.StudentT(4.0)
    torch.manual_seed(0)
    x = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    y = 2.0 * x + 0.5 * noise.sample((4000, 1)).double()
    model, likelihood = torch.nn.Linear(1, 1).double(), L.StudentT(4.0)
    result = br.MAPTrainer(model, br.Gaussian(10.0), likelihood, optimizer="lbfgs", progress=False).fit((x, y))
    assert result.converged
    assert likelihood.noise_scale == pytest.approx(0.5, rel=0.05)
    assert model.weight.item() == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"df": 0.0}, "df: expected a value > 0"),
        ({"noise_scale": -1.0}, "noise_scale: expected a value > 0"),
        ({"noise_scale": "loud"}, "noise_scale: expected a number > 0 or 'learned'"),
        ({"noise_std": 1.0}, "did you mean 'noise_scale'"),
    ],
)
def test_bad_arguments_are_named(arguments, said):
    with pytest.raises(br.InvalidArgumentError, match=said):
        L.StudentT(**arguments)
