"""Mistakes that a review of the families found: each would be back without its test."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.plots import plot_pair, plot_prior

ROWS = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)


class Sum(nn.Module):
    """Two parameters that get one gradient tensor from autograd."""

    def __init__(self, whole):
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(2))
        self.whole = whole

    def forward(self, x):
        both = self.a + self.b
        return (x.sum(1) * both.sum() if self.whole else x @ both)[:, None]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("solver", ["lbfgs", "proximal"])
def test_parameters_with_one_gradient_get_their_own_prior(whole, solver):
    X = torch.randn(40, 3, dtype=torch.float64)
    y = X @ torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64)
    model = Sum(whole)
    rules = {"a": br.Gaussian(1.0), "b": br.Gaussian(2.0)}
    trainer = br.MAPTrainer(model, rules, br.likelihoods.Gaussian(1.0), optimizer=solver, progress=False)
    assert trainer.fit((X, y)).converged
    # At the MAP both pulls equal the gradient of the data: a/1² = b/2².
    assert torch.allclose(model.b.detach(), 4.0 * model.a.detach(), atol=1e-7)


def test_named_centre_of_a_low_rank_gaussian_is_found():
    source, model = nn.Linear(3, 1), nn.Linear(3, 1)
    unbound = br.LowRankGaussian.centered_at(source, 0.1, torch.ones(1, 3, 1), extra="ignore")
    with pytest.raises(br.InvalidArgumentError, match="centred on named weights"):
        unbound.log_prob(torch.zeros(1, 3))
    prior = br.ModelPrior(model, {"bias": br.Flat(), "weight": unbound})
    assert torch.equal(prior["weight"].loc, source.weight.detach())
    with torch.no_grad():
        model.weight.copy_(source.weight)
    assert prior.penalty().item() == pytest.approx(0.0, abs=1e-12)


def test_several_starts_never_end_worse_than_one():
    X, y = torch.randn(30, 2, dtype=torch.float64), torch.randn(30, 1, dtype=torch.float64)

    def run(starts):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        trainer = br.MAPTrainer(
            model, br.Cauchy(3.0), br.likelihoods.Gaussian(1.0), optimizer="lbfgs", starts=starts, max_iterations=5,
            progress=False,
        )  # fmt: skip
        with pytest.warns(RuntimeWarning, match="stopped at a KKT residual"):
            return trainer.fit((X, y))

    single = run(1).objective
    several = run(6)
    assert several.objective <= single + 1e-12
    assert several.modes.unconverged == 6
    assert "No local mode was reached" in several.modes.words


def test_a_loaded_power_changes_the_density():
    prior = br.GeneralizedNormal(2.0, 1.0)
    prior.load_state_dict(br.GeneralizedNormal(0.5, 1.0).state_dict())
    assert prior.penalty(torch.tensor([4.0])).item() == pytest.approx(2.0)
    assert not prior.traits.convex


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [
    lambda s: br.StudentT(4.0, s), lambda s: br.Cauchy(s), lambda s: br.Gaussian(s), lambda s: br.Laplace(s),
    lambda s: br.Logistic(s), lambda s: br.GeneralizedNormal(1.5, s), lambda s: br.NormalGamma(2.0, s),
    lambda s: br.LowRankGaussian(s, torch.ones(3, 1)),
])  # fmt: skip
def test_narrow_hyperparameters_are_worked_on_in_float32(make, dtype):
    scale = torch.full((3,), 1.7e-4).to(dtype)
    narrow, wide = make(scale), make(scale.double())
    value = torch.tensor([1e-4, -3e-4, 2e-3], dtype=torch.float64)
    assert narrow.log_prob(value).item() == pytest.approx(wide.log_prob(value).item(), rel=1e-6)
    assert torch.allclose(narrow.curvature(value).double(), wide.curvature(value), rtol=1e-5)
    assert torch.allclose(narrow.prox(value, 1e-7), wide.prox(value, 1e-7), rtol=1e-5)


def test_autograd_has_no_nan_on_a_kink():
    for prior in (br.GeneralizedNormal(0.5, 0.1), br.GroupLaplace(1.0, "row"), br.ElasticNet(1.0, 1.0)):
        weights = torch.zeros(2, 2, requires_grad=True)
        (grad,) = torch.autograd.grad(prior.penalty(weights), weights)
        assert torch.equal(grad, torch.zeros(2, 2)), prior


@pytest.mark.parametrize("x", [1e-30, 1e22, 1e31])
def test_float32_weights_of_any_size_have_penalty_and_slope(x):
    value = torch.tensor([x, -x])
    for prior in (br.StudentT(4.0, 1.0), br.Cauchy(1.0), br.Logistic(1.0), br.GroupLaplace(1.0, "tensor")):
        grad = torch.zeros(2)
        prior.add_grad_([grad], [value], 1.0)
        wide = torch.zeros(2, dtype=torch.float64)
        prior.add_grad_([wide], [value.double()], 1.0)
        assert torch.allclose(grad.double(), wide, rtol=1e-5, atol=0), prior
        assert prior.penalty(value).item() == pytest.approx(prior.penalty(value.double()).item(), rel=1e-5, abs=1e-37)
    mixture, grad = br.ScaleMixture([0.5, 0.5], [0.1, 1.0]), torch.zeros(2)
    mixture.add_grad_([grad], [value], 1.0)
    assert torch.isfinite(grad).all()
    assert grad[0] > 0
    assert grad[1] < 0
    assert torch.isfinite(mixture.psd_curvature(value)).all()


def test_infinite_weights_are_outside_bounds():
    assert br.Uniform(-1.0, 1.0).log_prob(torch.tensor([math.inf])).item() == -math.inf


@pytest.mark.parametrize("make", [
    lambda s: br.StudentT(4.0, s), lambda s: br.Logistic(s), lambda s: br.GeneralizedNormal(1.5, s),
    lambda s: br.NormalGamma(2.0, s), lambda s: br.ElasticNet(s, s), lambda s: br.Laplace(s),
    lambda s: br.Uniform(-s, s),
])  # fmt: skip
def test_one_number_per_element_survives_every_word(make):
    prior = make(ROWS)
    with pytest.raises(br.NotEquivalentError):
        prior.weight_decay(100)
    assert prior.weight_decay_readings(100).exact is None
    model = nn.Linear(3, 1).double()
    X, y = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 1, dtype=torch.float64)
    result = br.MAPTrainer(model, prior, br.likelihoods.Gaussian(1.0), optimizer="proximal", progress=False).fit((X, y))
    assert "weight" in str(result.summary())


def test_an_infinite_curvature_is_no_reading():
    readings = br.GeneralizedNormal(1.5, 1.0).weight_decay_readings(100)
    assert readings.curvature_matched is None
    assert "inf" not in str(br.ModelPrior(nn.Linear(2, 1), br.GeneralizedNormal(1.5, 1.0)).describe(100))


def tied():
    model = nn.ModuleDict({"e": nn.Embedding(4, 3), "o": nn.Linear(3, 4, bias=False), "f": nn.Linear(3, 2, bias=False)})
    model["o"].weight = model["e"].weight
    return model


@pytest.mark.parametrize("name", ["e.weight", "o.weight"])
def test_joint_priors_know_tied_weights_by_any_name(tmp_path, name):
    model = tied()
    diag = {name: torch.ones(4, 3), "f.weight": torch.ones(2, 3)}
    factor = {n: torch.randn(*d.shape, 2) for n, d in diag.items()}
    prior = br.ModelPrior(model, {"*": br.LowRankGaussian(diag, factor)})
    prior.save(tmp_path / "p.safetensors")
    assert torch.equal(br.ModelPrior.load(tmp_path / "p.safetensors", model).log_prob(), prior.log_prob())


def test_joint_priors_refuse_both_names_of_a_tied_weight():
    diag = {n: torch.ones(4, 3) for n in ("e.weight", "o.weight")} | {"f.weight": torch.ones(2, 3)}
    factor = {n: torch.randn(*d.shape, 2) for n, d in diag.items()}
    with pytest.raises(br.ReferenceMismatchError, match=r"e\.weight and o\.weight are one tied parameter"):
        br.ModelPrior(tied(), {"*": br.LowRankGaussian(diag, factor)})


def test_shorthand_with_a_joint_prior_says_what_to_write():
    model = nn.Linear(3, 2)
    held = {n: torch.ones_like(p) for n, p in model.named_parameters()}
    with pytest.raises(br.ReferenceMismatchError, match=r"write \{'\*': prior\}"):
        br.ModelPrior(model, br.LowRankGaussian(held, {n: t[..., None] for n, t in held.items()}))


def test_empty_tensors_count_nothing():
    assert br.GroupLaplace(1.0, "row").log_prob(torch.zeros(3, 0)).item() == 0.0
    assert br.StudentT(3.0, 1.0).log_prob(torch.zeros(0)).item() == 0.0


def test_inference_mode_is_no_obstacle():
    with torch.inference_mode():
        assert math.isfinite(br.MultivariateGaussian(torch.eye(3)).log_prob(torch.zeros(3)).item())
        assert math.isfinite(br.LowRankGaussian(1.0, torch.ones(3, 1)).log_prob(torch.zeros(3)).item())


def test_one_solve_serves_all_rows_of_a_scalar_step():
    prior = br.MultivariateGaussian(torch.tensor([[1.0, 0.5], [0.5, 2.0]], dtype=torch.float64))
    value = torch.randn(5, 2, dtype=torch.float64)
    apart = prior.prox(value, torch.full((5, 2), 0.3, dtype=torch.float64))
    assert torch.allclose(prior.prox(value, 0.3), apart, rtol=1e-12)


@pytest.mark.parametrize(("words", "message"), [
    ("laplace(scale=1, scale=2)", "expected a family with numbers"),
    ("laplace(**{'scale': 1})", "expected a family with numbers"),
    (5, "expected a text such as"),
    ("student(4, 0.1)", r"student_t.*did you mean 'student_t'"),
    ("low_rank_gaussian(1.0)", "which no words can say"),
    ("laplace(variance=0.1)", "unexpected argument 'variance'; it takes scale, loc$"),
    ("gaussian(variance=0.1)", r"a variance v is scale=v\*\*0\.5"),
    ("group_laplace(5.0, group=row)", "text goes in quotes"),
])  # fmt: skip
def test_wrong_words_are_answered(words, message):
    with pytest.raises(br.InvalidArgumentError, match=message):
        br.prior_from_words(words)


@pytest.mark.parametrize(("words", "family"), [
    ("student_t(df=4, scale=0.1)", br.StudentT), ("StudentT(4, 0.1)", br.StudentT),
    ("elastic_net(1, 2)", br.ElasticNet),
    ("scale_mixture([0.5, 0.5], [0.1, 1.0])", br.ScaleMixture), ("group_laplace(5.0, group='column')", br.GroupLaplace),
    ("uniform(-1, 1)", br.Uniform), ("multivariate_gaussian([[1, 0.5], [0.5, 1]])", br.MultivariateGaussian),
    ("fan_in_gaussian(1.4)", br.FanInGaussian), ("generalized_normal(0.5, 0.1)", br.GeneralizedNormal),
])  # fmt: skip
def test_families_have_words(words, family):
    assert type(br.prior_from_words(words)) is family


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


class Stranger(br.ElementwisePrior):
    """A family that files do not know."""

    traits = br.Traits(proper=True, convex=True, smooth=True, elementwise=True, has_prox=False)

    def __init__(self, scale, *, loc=0.0):
        super().__init__(loc=loc, scale=scale)

    def offset_penalty(self, offset):
        return (offset / self.scale).square()

    def offset_slope(self, offset):
        return 2 * offset / self.scale**2

    def offset_curvature(self, offset):
        return torch.full_like(offset, 2.0) / self.scale**2

    def log_normaliser(self):
        return (self.scale * math.sqrt(math.pi)).log()

    def draw_offsets(self, like, generator):
        return self.scale * torch.randn(like.shape, generator=generator) / math.sqrt(2)


def test_unknown_families_are_refused_when_saved(tmp_path):
    with pytest.raises(br.UnsupportedError, match=r"put @br\.register_family on the class"):
        br.ModelPrior(nn.Linear(2, 2), Stranger(0.1)).save(tmp_path / "p.safetensors")
    assert not list(tmp_path.iterdir())
    with pytest.raises(br.InvalidArgumentError, match="scale: expected a value > 0"):
        Stranger(-1.0)
    with pytest.raises(br.InvalidArgumentError, match="bayesreg has a family Gaussian already"):
        br.register_family(type("Gaussian", (Stranger,), {}))


# -- pictures -------------------------------------------------------------------------------------------


def test_pictures_show_the_numbers():
    prior = br.Laplace(0.5, loc=2.0)
    axes = prior.plot()
    x, density = axes[0].lines[0].get_data()
    assert x[len(x) // 2] == pytest.approx(2.0)
    assert max(density) == pytest.approx(1.0)
    _, penalty = axes[1].lines[0].get_data()
    assert min(penalty) == 0.0
    observed, shrunk = axes[2].lines[0].get_data()
    far = observed[-1] - 2.0
    step = (far / 4) ** 2
    assert shrunk[-1] == pytest.approx(prior.prox(torch.tensor(observed[-1:]), step).item())
    assert [text.get_text() for text in axes[2].get_legend().get_texts()] == ["Laplace", "Gaussian of its variance"]
    assert len(br.Gaussian(1.0).plot()[0].lines) == 1


def test_contours_are_about_the_centre():
    ax = br.MultivariateGaussian([[1.0, 0.5], [0.5, 1.0]], loc=5.0).plot(shape=(2,))
    assert sum(ax.get_xlim()) / 2 == pytest.approx(5.0, abs=0.2)
    assert ax.get_xlabel() == "w₁"


@pytest.mark.parametrize(("draw", "message"), [
    (lambda: br.GroupLaplace(1.0).plot(), r"prior\.plot\(shape="),
    (lambda: br.FanInGaussian.he().plot(), "for_shape"),
    (lambda: br.Laplace(ROWS).plot(), "one set of numbers for all elements"),
    (lambda: br.Flat().plot(), r"plot\(reach="),
    (lambda: plot_prior(br.Laplace(1.0), reach=0.0), "reach: expected a value > 0"),
    (lambda: plot_prior(br.Laplace(1.0), [1, 2]), "expected three axes"),
    (lambda: plot_pair(br.Laplace(1.0), (3,)), "a shape of two elements"),
])  # fmt: skip
def test_what_cannot_be_drawn_says_so(draw, message):
    with pytest.raises(br.BayesRegError, match=message):
        draw()


def test_learned_scales_can_be_drawn():
    br.Laplace(nn.Parameter(torch.tensor(1.0))).plot()
    assert copy.deepcopy(br.Uniform(0.0, 1.0)).plot()[0].get_ylim()[1] > 1.0
