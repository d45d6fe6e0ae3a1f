"""Leave-one-out from one fit: against refits, scikit-learn, and the formula with every matrix written out."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import RidgeCV
from torch import nn

import bayesreg as br
from bayesreg.curvature.hat import _in_function_space, _in_weight_space, _solved, hat_matrix
from bayesreg.curvature.jacobian import model_jacobian
from bayesreg.curvature.outputs import output_curvature
from bayesreg.curvature.precision import diagonal_precision


def fit(model, prior, likelihood, data, tolerance=1e-9):
    prior = prior if isinstance(prior, br.ModelPrior) else br.ModelPrior(model, prior)
    br.MAPTrainer(model, prior, likelihood, optimizer="lbfgs", tolerance=tolerance, progress=False).fit(data)
    return prior


def diabetes(n=120, features=None):
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:n] / X.std(0), y[:n, None] / y.std()
    if features:
        X = np.cos(X @ np.random.default_rng(0).normal(size=(10, features)))
    return torch.tensor(X), torch.tensor(y)


@pytest.mark.parametrize("features", [None, 300])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ridge", [0.3, 30.0])
def test_linear_gaussian_is_ridge_cv(features, bias, ridge):
    X, y = diabetes(features=features)
    model = nn.Linear(X.shape[1], 1, bias=bias).double()
    noise = 0.7
    likelihood = br.likelihoods.Gaussian(noise)
    prior = br.ModelPrior(model, br.Gaussian(noise / ridge**0.5))
    weights = RidgeCV([ridge], fit_intercept=bias, store_cv_results=True).fit(X.numpy(), y.numpy()[:, 0])
    with torch.no_grad():
        A = torch.cat([X, torch.ones(len(X), int(bias)).double()], 1)
        P = torch.diag(torch.tensor([ridge] * X.shape[1] + [0.0] * bias, dtype=torch.float64))
        solution = torch.linalg.solve(A.T @ A + P, A.T @ y)[:, 0]
        model.weight.copy_(solution[: X.shape[1]])
        if bias:
            model.bias.copy_(solution[X.shape[1] :])
    found = br.strength.loo(model, prior, likelihood, (X, y))
    assert found.exact
    errors = (y - found.output)[:, 0].square()
    np.testing.assert_allclose(errors, weights.cv_results_[:, 0], rtol=1e-9)
    assert found.noise_std**2 == pytest.approx(weights.cv_results_.mean(), rel=1e-11)


@pytest.mark.slow
def test_logistic_regression_is_near_its_refits():
    X, y = load_breast_cancer(return_X_y=True)
    X, y = X[:50], torch.tensor(y[:50])
    X = torch.tensor((X - X.mean(0)) / X.std(0))
    likelihood = br.likelihoods.Categorical()
    model = nn.Linear(30, 2).double()
    found = br.strength.loo(model, fit(model, br.Gaussian(1.0), likelihood, (X, y)), likelihood, (X, y))
    refits = []
    for i in range(50):
        kept = torch.arange(50) != i
        again = nn.Linear(30, 2).double()
        again.load_state_dict(model.state_dict())
        fit(again, br.Gaussian(1.0), likelihood, (X[kept], y[kept]), 1e-8)
        refits.append(float(likelihood.nll(again(X[i : i + 1]), y[i : i + 1]).detach()))
    assert not found.exact
    assert found.mean_nll == pytest.approx(np.mean(refits), abs=1e-3)
    assert np.corrcoef(found.nll, refits)[0, 1] > 0.998


def test_two_classes_are_one_logit():
    X, y = load_breast_cancer(return_X_y=True)
    X, y = torch.tensor((X[:60] - X[:60].mean(0)) / X[:60].std(0)), torch.tensor(y[:60])
    two, one = nn.Linear(30, 2).double(), nn.Linear(30, 1).double()
    softmax, sigmoid = br.likelihoods.Categorical(), br.likelihoods.Bernoulli()
    # The difference of two weights has twice the variance of each.
    a = br.strength.loo(two, fit(two, br.Gaussian(1.0), softmax, (X, y)), softmax, (X, y))
    b = br.strength.loo(one, fit(one, br.Gaussian(2.0**0.5), sigmoid, (X, y[:, None])), sigmoid, (X, y[:, None]))
    torch.testing.assert_close(a.nll, b.nll, atol=1e-6, rtol=1e-6)
    assert a.effective_parameters == pytest.approx(b.effective_parameters, rel=1e-6)


class Odd(nn.Module):
    """Layers of all kinds: in-place, convolution, norm, embedding, tied, and a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.LayerNorm(12)
        self.places = nn.Linear(4, 2)
        self.slope = nn.Parameter(torch.tensor(0.3))
        self.first = nn.Linear(6, 6)
        self.again = nn.Linear(6, 6)
        self.again.weight = self.first.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        h = self.relu(self.conv(x)).flatten(1)
        h = self.norm(h).reshape(-1, 3, 4)
        h = torch.tanh(self.places(h)).flatten(1) * self.slope
        return self.head(torch.tanh(self.again(torch.tanh(self.first(h)))))


def test_the_jacobian_of_any_layer():
    torch.manual_seed(0)
    model = Odd().double()
    x = torch.randn(5, 1, 4, 4).double()
    prior = br.ModelPrior(model, {"*": br.Gaussian(1.0)})
    infos = [entry.info for entry, _ in prior.active()]
    found = model_jacobian(model, infos, x)
    held = {info.raw[0]: info.parameter.detach() for info in infos}
    wanted = torch.func.jacrev(lambda w: torch.func.functional_call(model, w, (x,)))(held)
    for info, block in zip(infos, found.blocks, strict=True):
        torch.testing.assert_close(block.matrix(), wanted[info.raw[0]].reshape(15, -1), msg=info.name)
        J, width = block.matrix(), torch.rand_like(info.parameter.detach()) + 0.1
        torch.testing.assert_close(block.gram(0.7), 0.7 * J @ J.T)
        torch.testing.assert_close(block.gram(width), J @ torch.diag(width.reshape(-1)) @ J.T)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def written_out(model, precision, likelihood, X, y, prior):
    """Return shifts, hats and log det with every matrix formed; flat parameters by a precision of nearly 0."""
    infos = [entry.info for entry, _ in prior.active()]
    J = torch.cat([b.matrix() for b in model_jacobian(model, infos, X).blocks], 1)
    n, k = len(X), J.shape[0] // len(X)
    output = model(X).detach().requires_grad_()
    r = torch.autograd.grad(likelihood.nll(output, y).sum(), output)[0]
    H = torch.stack([
        torch.autograd.functional.hessian(
            lambda o, i=i: likelihood.nll(o[None], y[i : i + 1]).sum(), output[i].detach()
        )
        for i in range(n)
    ])
    P = torch.cat([torch.full((info.parameter.numel(),), float(precision[info.name])) for info in infos]).double()
    whole = J.T @ torch.block_diag(*H) @ J + torch.diag(P)
    S = [J[i * k : (i + 1) * k] @ torch.linalg.solve(whole, J[i * k : (i + 1) * k].T) for i in range(n)]
    eye = torch.eye(k).double()
    shift = torch.stack([s @ torch.linalg.solve(eye - h @ s, g) for s, h, g in zip(S, H, r, strict=True)])
    traces = torch.stack([torch.trace(h @ s) for s, h in zip(S, H, strict=True)])
    return shift, traces, float(torch.logdet(whole) - P[P > 0].log().sum())


@pytest.mark.parametrize(
    ("kind", "flat"), [("classes", False), ("classes", True), ("counts", False), ("counts", True), ("huber", False)]
)
def test_both_spaces_are_the_formula(kind, flat):
    model = network()
    X = torch.randn(9, 4, generator=torch.Generator().manual_seed(1)).double()
    y = torch.arange(9) % 3
    likelihood = br.likelihoods.Categorical()
    if kind != "classes":
        y = torch.poisson(torch.ones(9, 3), generator=torch.Generator().manual_seed(2)).double()
        # Where it is linear a Huber loss has a slope and no curvature.
        likelihood = br.likelihoods.Poisson() if kind == "counts" else br.likelihoods.FromLoss(nn.HuberLoss(delta=0.4))
    rules = {br.biases: br.Flat(), "*": br.Gaussian(0.8)} if flat else {"*": br.Gaussian(0.8)}
    prior = br.ModelPrior(model, rules)
    precision = diagonal_precision(prior)
    jacobian = model_jacobian(model, [entry.info for entry, _ in prior.active()], X)
    curvature = output_curvature(likelihood, jacobian.output, y)
    assert kind == "huber" or curvature.root.shape[2] == (2 if kind == "classes" else 3)
    nearly = {name: value or 1e-9 for name, value in precision.items()}
    shift, traces, log_det = written_out(model, nearly, likelihood, X, y, prior)
    coordinates = curvature.coordinates()
    assert (coordinates is None) == (kind == "huber")
    for solve in (_in_function_space, _in_weight_space):
        solved = solve(jacobian, curvature.root, precision, True)
        hessian = curvature.root @ curvature.root.mT
        rest = torch.eye(3).double() - hessian @ solved.whole
        found = (solved.whole @ _solved(rest, curvature.slope.unsqueeze(-1))).squeeze(-1)
        tolerance = 1e-5 if flat else 1e-10
        if kind == "classes":
            # A common shift of all logits is free, and no prediction.
            found, shift = found - found.mean(1, keepdim=True), shift - shift.mean(1, keepdim=True)
        torch.testing.assert_close(found, shift, atol=tolerance, rtol=tolerance)
        if coordinates is not None:
            short = (solved.carried @ torch.linalg.solve(solved.rest, coordinates.unsqueeze(-1))).squeeze(-1)
            short = short - short.mean(1, keepdim=True) if kind == "classes" else short
            torch.testing.assert_close(short, found, atol=1e-9, rtol=1e-9)
        hats = solved.rest.shape[-1] - solved.rest.diagonal(dim1=-2, dim2=-1).sum(-1)
        torch.testing.assert_close(hats, traces, atol=tolerance, rtol=tolerance)
        if not flat:
            assert solved.log_det == pytest.approx(log_det, abs=1e-9)
    hat = hat_matrix(jacobian, curvature, precision)
    torch.testing.assert_close(hat.leverage, traces / curvature.root.shape[2], atol=tolerance, rtol=tolerance)
    whole = hat.shift
    whole = whole - whole.mean(1, keepdim=True) if kind == "classes" else whole
    torch.testing.assert_close(whole, shift, atol=tolerance, rtol=tolerance)
    both = [
        solve(jacobian, curvature.root, precision, False).log_det for solve in (_in_function_space, _in_weight_space)
    ]
    assert both[0] == pytest.approx(both[1], abs=1e-8)


def test_order_and_state_play_no_part():
    model = nn.Sequential(*network(), nn.Dropout(0.5))
    X, y = torch.randn(12, 4).double(), torch.arange(12) % 3
    prior, likelihood = br.ModelPrior(model, br.Gaussian(1.0)), br.likelihoods.Categorical()
    model.train()
    before = torch.get_rng_state()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    one = br.strength.loo(model, prior, likelihood, (X, y))
    order = torch.arange(11, -1, -1)
    other = br.strength.loo(model, prior, likelihood, (X[order], y[order]))
    torch.testing.assert_close(one.nll[order], other.nll)
    assert torch.equal(before, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_what_is_no_minimum_says_so():
    model = network()
    X, y = torch.randn(12, 4).double(), torch.arange(12) % 3
    found = br.strength.loo(model, br.ModelPrior(model, br.Gaussian(1.0)), br.likelihoods.Categorical(), (X, y))
    assert found.gradient > 3e-3
    assert any("no MAP" in words for words in found.warnings)
    assert "no MAP" in str(found.summary())


def test_an_example_alone_in_its_direction_has_leverage_one():
    X = torch.diag(torch.tensor([1.0, 1.0, 100.0])).double()[[0, 1, 0, 1, 2]]
    y = torch.tensor([[1.0], [2.0], [1.1], [2.1], [5.0]]).double()
    model, likelihood = nn.Linear(3, 1, bias=False).double(), br.likelihoods.Gaussian(1.0)
    found = br.strength.loo(model, fit(model, br.Gaussian(1.0), likelihood, (X, y)), likelihood, (X, y))
    assert found.leverage[4] == pytest.approx(1e4 / (1e4 + 1))
    assert found.output[4, 0] == pytest.approx(0.0, abs=1e-7)
    assert any("leverage" in words for words in found.warnings)


@pytest.mark.parametrize(
    ("prior", "match"),
    [
        (br.Laplace(1.0), "expected a smooth prior"),
        (br.MultivariateGaussian(torch.eye(15).double()), "joins|independent"),
        (br.StudentT(df=1.0, scale=1e-3), "not convex"),
    ],
)
def test_priors_it_cannot_serve(prior, match):
    model = nn.Sequential(nn.Linear(5, 3)).double()
    model_prior = br.ModelPrior(model, {br.biases: br.Flat(), "*": prior})
    X, y = torch.randn(6, 5).double(), torch.arange(6) % 3
    with pytest.raises(br.UnsupportedError, match=match):
        br.strength.loo(model, model_prior, br.likelihoods.Categorical(), (X, y))


def test_an_nll_that_is_not_convex_is_refused():
    def cauchy(output, target):
        return torch.log1p((output - target).square()).sum(1)

    model = nn.Linear(2, 1).double()
    X = torch.randn(6, 2).double()
    with pytest.raises(br.UnsupportedError, match="convex in the output"):
        br.strength.loo(
            model, br.ModelPrior(model, br.Gaussian(1.0)), br.likelihoods.FromLoss(cauchy), (X, 9 + X[:, :1])
        )


def test_examples_that_see_each_other_are_refused():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2).double()

        def forward(self, x):
            return self.layer(x - x.mean(0))

    model = Centred()
    X, y = torch.randn(6, 2).double(), torch.arange(6) % 2
    with pytest.raises(br.UnsupportedError, match="not to depend on the others"):
        br.strength.loo(model, br.ModelPrior(model, br.Gaussian(1.0)), br.likelihoods.Categorical(), (X, y))


def test_standard_error_and_table():
    X, y = diabetes(40)
    model, likelihood = nn.Linear(10, 1).double(), br.likelihoods.Gaussian(0.7)
    found = br.strength.loo(model, fit(model, br.Gaussian(1.0), likelihood, (X, y)), likelihood, (X, y))
    assert found.error == pytest.approx(float(found.nll.std()) / math.sqrt(40))
    assert {row[0]: row[1] for row in found.summary().rows}["leave-one-out"] == "exact"
