"""Plots: Axes in, Axes out, the right numbers on them."""

from __future__ import annotations

import copy

import matplotlib.figure
import numpy as np
import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.plots import (
    plot_accuracy,
    plot_contours,
    plot_history,
    plot_layers,
    plot_pair,
    plot_path,
    plot_prior,
    plot_weights,
    save,
)


def drawn_from(prior):
    built = br.ModelPrior(nn.Linear(200, 50).double(), prior)
    built.sample_(generator=torch.Generator().manual_seed(0))
    return built


@pytest.mark.parametrize(
    "prior",
    [
        br.Gaussian(0.3, loc=0.5),
        br.Laplace(0.2),
        br.FromDistribution(torch.distributions.Normal(0.0, 0.3)),
        br.Gaussian(0.3, loc=torch.randn(50, 200)),
    ],
)
def test_weights_are_drawn_against_their_density(prior):
    ax = plot_weights(drawn_from(prior))
    x, density = ax.lines[0].get_data()
    assert np.trapezoid(density, x) == pytest.approx(1.0, abs=0.02)
    bars = np.array([bar.get_height() for bar in ax.patches])
    centres = np.array([bar.get_x() + bar.get_width() / 2 for bar in ax.patches])
    # Drawn from the prior, the histogram follows the curve.
    assert np.abs(bars - np.interp(centres, x, density)).max() < 0.25 * density.max()
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def test_weights_without_a_prior_say_so():
    ax = plot_weights(br.ModelPrior(nn.Linear(2, 2), br.Flat()))
    assert "no weights under a proper prior" in ax.texts[0].get_text()


def test_history_shows_the_penalty_between_two_curves(tmp_path):
    X = torch.randn(50, 3)
    trainer = br.MAPTrainer(nn.Linear(3, 1), br.Gaussian(0.3), br.likelihoods.Gaussian(1.0), max_epochs=4)
    result = trainer.fit((X, X.sum(1)), (X, X.sum(1)))
    axes = matplotlib.figure.Figure().add_subplot()
    assert plot_history(result, axes) is axes
    curves = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert list(curves["mean NLL"]) == result.history.column("running_nll")
    assert list(curves["validation NLL"]) == result.history.column("val_nll")
    assert (np.asarray(curves["objective = NLL + penalty"]) > np.asarray(curves["mean NLL"])).all()
    save(result.plot(), tmp_path / "h.png")
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")


def test_improper_priors_have_no_density_to_draw():
    with pytest.raises(br.UnsupportedError, match="reach="):
        br.MCP(1.0, 2.0).plot()
    density, penalty, shrinkage = br.MCP(1.0, 2.0).plot(reach=4.0)
    assert not density.lines
    assert "improper" in density.texts[0].get_text()
    x, height = penalty.lines[0].get_data()
    assert np.allclose(height[np.abs(x) >= 2.0], 1.0)
    observed, shrunk = shrinkage.lines[0].get_data()
    # Noise of reach/4 = 1: zeros to 1, and from the end of the penalty on no shrinkage.
    assert np.allclose(shrunk[np.abs(observed) < 0.99], 0.0)
    assert np.allclose(shrunk[np.abs(observed) > 2.01], observed[np.abs(observed) > 2.01])


NOISE = br.likelihoods.Gaussian(noise_std=0.8)


def two_weights(prior, *, bias=False):
    torch.manual_seed(1)
    X = torch.randn(60, 2, dtype=torch.float64)
    X[:, 1] += 0.6 * X[:, 0]
    y = (X @ torch.tensor([0.5, -0.3], dtype=torch.float64) + 0.8 * torch.randn(60, dtype=torch.float64))[:, None]
    model = nn.Linear(2, 1, bias=bias).double()
    return model, br.ModelPrior(model, prior), (X, y)


def line(ax, label):
    return next(one for one in ax.lines if one.get_label() == label)


@pytest.mark.slow
@pytest.mark.parametrize("prior", [br.Gaussian(0.2), br.Gaussian(0.2, loc=torch.tensor([[0.4, 0.1]])), br.Laplace(0.1)])
def test_contours_show_the_map_of_the_solver_at_every_strength(prior):
    model, whole, data = two_weights(prior)
    before = model.weight.detach().clone()
    strengths = [0.1, 1.0, 10.0]
    ax = plot_contours(model, whole, NOISE, data, strengths=strengths)
    assert torch.equal(model.weight, before)
    assert model.training
    path = np.array(line(ax, "MAP as λ grows").get_data()).T
    star = np.array(line(ax, "MAP under this prior").get_data()).T
    assert np.allclose(star[0], path[1], atol=2e-5)
    kinked = not prior.traits.smooth
    for strength, point in zip(strengths, path, strict=True):
        here = br.sparsity.with_strength(whole, strength)
        br.MAPTrainer(
            model, here, NOISE, optimizer="proximal" if kinked else "lbfgs", progress=False, tolerance=1e-9
        ).fit(data)
        truth = model.weight.detach().numpy()[0]
        assert np.abs(point - truth).max() < 1e-4
        assert ((point == 0) == (truth == 0)).all()


def test_the_thick_contours_touch_at_the_map():
    """Both go through the star, with opposite slopes: their level sets are of the values there."""
    model, whole, data = two_weights(br.Gaussian(0.2))
    ax = plot_contours(model, whole, NOISE, data)
    at = [float(v[0]) for v in line(ax, "MAP under this prior").get_data()]
    with torch.no_grad():
        model.weight.copy_(torch.tensor([at], dtype=torch.float64))
        expected = {float(NOISE.nll(model(data[0]), data[1]).sum()), float(whole.penalty())}
    thick = {float(c.levels[0]) for c in ax.collections if len(c.levels) == 1}
    assert sorted(thick) == pytest.approx(sorted(expected), rel=1e-9)


def test_contours_over_two_of_many_weights_hold_the_others():
    torch.manual_seed(0)
    model = nn.Linear(4, 1).double()
    X = torch.randn(30, 4, dtype=torch.float64)
    data = (X, X.sum(1, keepdim=True))
    prior = br.ModelPrior(model, br.Gaussian(1.0))
    ax = plot_contours(model, prior, NOISE, data, elements=[("weight", (0, 3)), ("bias", 0)], strengths=[1.0])
    # The MAP of those two alone, the rest at its present value: least squares with a ridge on one column.
    with torch.no_grad():
        rest = data[1] - X[:, :3] @ model.weight[:, :3].T
        A = torch.stack([X[:, 3], torch.ones(30, dtype=torch.float64)], 1)
        ridge = torch.diag(torch.tensor([0.64, 0.0], dtype=torch.float64))
        truth = torch.linalg.solve(A.T @ A + ridge, A.T @ rest)[:, 0]
    found = [float(v[0]) for v in line(ax, "MAP under this prior").get_data()]
    assert found == pytest.approx(truth.tolist(), abs=1e-4)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("weight[0, 3]", "bias[0]")


def test_contours_name_what_is_wrong():
    model = nn.Linear(4, 1).double()
    prior, data = br.ModelPrior(model, br.Gaussian(1.0)), (torch.zeros(3, 4), torch.zeros(3, 1))
    with pytest.raises(br.InvalidArgumentError, match=r"the prior is on 4 weights; name two, such as elements="):
        plot_contours(model, prior, NOISE, data)
    with pytest.raises(br.InvalidArgumentError, match="did you mean 'weight'"):
        plot_contours(model, prior, NOISE, data, elements=[("weigth", 0), ("bias", 0)])
    with pytest.raises(br.InvalidArgumentError, match=r"an index into weight of shape \(1, 4\)"):
        plot_contours(model, prior, NOISE, data, elements=[("weight", (0, 4)), ("bias", 0)])
    with pytest.raises(br.InvalidArgumentError, match="strengths"):
        plot_contours(model, prior, NOISE, data, elements=[("weight", 0), ("bias", 0)], strengths=[0.0])
    with pytest.raises(br.CoverageError):
        plot_contours(nn.Linear(4, 1).double(), prior, NOISE, data, elements=[("weight", 0), ("bias", 0)])


@pytest.mark.parametrize(
    "prior",
    [
        br.Gaussian(0.3, loc=0.5),
        br.Gaussian(0.01 + torch.rand(50, 200)),
        br.Laplace(0.2),
        br.Cauchy(0.1),
        br.FanInGaussian.he(),
        br.GroupLaplace(rate=3.0, group="row"),
    ],
)
def test_weights_drawn_from_their_prior_fill_its_band(prior):
    built = drawn_from(prior)
    ax = built.plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["weight"]
    wide, narrow = (bar for bar in ax.patches[:2])
    for bar, curve in ((wide, line(ax, "weights, 90 %")), (narrow, line(ax, "weights, 50 %"))):
        low, high = curve.get_xdata()
        assert (low, high) == pytest.approx((bar.get_x(), bar.get_x() + bar.get_width()), rel=0.15)
    with torch.no_grad():
        for entry, p in built.active():
            centre = p.centre().double().expand(entry.parameter.shape) if p.traits.proper else 0.0
            entry.parameter.copy_(centre + (entry.parameter - centre) / 10)
    again = plot_layers(built)
    low, high = line(again, "weights, 90 %").get_xdata()
    assert high - low == pytest.approx(wide.get_width() / 10, rel=0.15)


@pytest.mark.parametrize("shape", [(6, 5), (60, 50)])
@pytest.mark.parametrize("wide", [False, True])
def test_the_unit_is_the_standard_deviation_of_a_gaussian(shape, wide):
    """One deviation from its centre everywhere is an rms of 1, also where every weight has a deviation of its own."""
    model = nn.Linear(*shape).double()
    scale = torch.full((shape[1], shape[0]), 0.2) if not wide else 0.01 + torch.rand(shape[1], shape[0])
    prior = br.ModelPrior(model, br.Gaussian(scale if wide else 0.2, loc=0.5))
    with torch.no_grad():
        signs = torch.randn(shape[1], shape[0]).sign()
        model.weight.copy_(0.5 + scale * signs)
    ax = plot_layers(prior)
    rms = float(next(text.get_text() for text in ax.texts if text.get_text().startswith("rms")).split()[1])
    assert rms == pytest.approx(1.0, abs=0.1 if shape == (60, 50) or not wide else 0.35)
    band = ax.patches[0]
    assert band.get_x() + band.get_width() / 2 == pytest.approx(0.0, abs=0.5 if wide else 0.15)


def test_layers_tell_zeros_and_what_is_not_drawn():
    built = drawn_from(br.Gaussian(0.3))
    with torch.no_grad():
        next(iter(built)).parameter[:25] = 0.0
    ax = plot_layers(built)
    assert any("50% at centre" in text.get_text() for text in ax.texts)
    assert "not drawn: 1 flat or improper" in ax.get_xlabel()
    empty = plot_layers(br.ModelPrior(nn.Linear(2, 2), br.Flat()))
    assert "no weights under a proper prior" in empty.texts[0].get_text()
    with pytest.raises(br.InvalidArgumentError, match="limit"):
        plot_layers(built, limit=0)


def test_accuracy_shows_means_and_the_spread_that_it_names():
    runs = {"a": {10: [0.5, 0.6, 0.7], 100: [0.8, 0.8, 0.8]}, "b": {10: [0.4, 0.4, 0.4]}}
    from scipy import stats

    for spread, half in (("sd", 0.1), ("interval", stats.t.ppf(0.975, 2) * 0.1 / 3**0.5)):
        ax = plot_accuracy(runs, spread=spread)
        first = ax.containers[0]
        assert list(first[0].get_ydata()) == pytest.approx([0.6, 0.8])
        (low, high), _ = (segment[:, 1] for segment in first[2][0].get_segments())
        assert (low, high) == pytest.approx((0.6 - half, 0.6 + half))
        assert ("sd" in ax.get_legend().get_title().get_text()) == (spread == "sd")
        dashes = {container[0].get_linestyle() for container in ax.containers}
        assert len(dashes) == 2
    with pytest.raises(br.InvalidArgumentError, match="at least one score"):
        plot_accuracy({"a": {10: []}})
    with pytest.raises(br.InvalidArgumentError, match="'sd' or 'interval'"):
        plot_accuracy(runs, spread="se")


def test_a_path_names_its_weights_and_its_best():
    torch.manual_seed(0)
    X = torch.randn(60, 3, dtype=torch.float64)
    data = (X, X @ torch.tensor([[1.0], [0.5], [0.0]], dtype=torch.float64) + 1.0)
    model = nn.Linear(3, 1).double()
    prior = br.ModelPrior(model, br.Laplace(0.1))
    path = br.sparsity.regularization_path(model, prior, NOISE, data, count=6, validation=data)
    weights, counts = plot_path(path, labels=["one", "two", "none"])
    assert [text.get_text() for text in weights.texts] == ["none", "two", "one"]
    # The bias has no prior: it is no part of the picture.
    assert len(weights.lines) == 3 + 1
    assert list(counts.lines[0].get_ydata()) == [point.nonzero for point in path]
    assert weights.xaxis_inverted()
    with pytest.raises(br.InvalidArgumentError, match="labels: expected 3"):
        plot_path(path, labels=["one"])
    with pytest.raises(br.InvalidArgumentError, match="two axes"):
        plot_path(path, [weights])


def test_a_draw_leaves_the_model_and_follows_the_prior():
    model = nn.Linear(200, 100)
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    before = model.weight.detach().clone()
    drawn = prior.draw(generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.weight, before)
    assert set(drawn) == {"weight"}
    assert float(drawn["weight"].std()) == pytest.approx(0.3, rel=0.03)
    assert prior.sample_(generator=torch.Generator().manual_seed(0)) == ["bias"]
    assert torch.equal(model.weight, drawn["weight"])


@pytest.mark.slow
def test_contours_of_parameters_in_any_layout_leave_modules_as_they_were():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 1)).double()
    data = (torch.randn(20, 2, 3, 3, dtype=torch.float64), torch.randn(20, 1, dtype=torch.float64))
    elements = [("0.weight", (0, 1, 0, 1)), ("3.weight", (0, 2))]
    ends = []
    for model in (plain, copy.deepcopy(plain).to(memory_format=torch.channels_last)):
        model.train()
        model[1].eval()
        ax = plot_contours(
            model, br.ModelPrior(model, br.Gaussian(0.3)), NOISE, data, elements=elements, strengths=[1.0]
        )
        assert [module.training for module in model] == [True, False, True, True]
        ends.append([float(v[0]) for v in line(ax, "MAP under this prior").get_data()])
    assert ends[0] == pytest.approx(ends[1], abs=1e-6)
    assert ends[0] != pytest.approx([plain[0].weight[0, 1, 0, 1].item(), plain[3].weight[0, 2].item()], abs=1e-3)


@pytest.mark.slow
def test_the_path_turns_where_a_weight_becomes_zero():
    """Between two dots, on and off the axis, the line goes over the point where it meets it."""
    model, whole, data = two_weights(br.Laplace(0.1))
    ax = plot_contours(model, whole, NOISE, data, strengths=np.array([0.5, 30.0]))
    dots = np.array(line(ax, "MAP as λ grows").get_data()).T
    drawn = np.array(max(ax.lines, key=lambda one: len(one.get_xdata())).get_data()).T
    assert len(dots) == 2
    on_axis = drawn[(drawn == 0).any(1)]
    assert len(drawn) > 2
    # The first point on an axis is where the exact path meets it, to the precision of the bisection.
    first = on_axis[0]
    strengths = np.geomspace(0.5, 30.0, 120)
    exact = None
    for c in strengths:
        here = br.sparsity.with_strength(whole, float(c))
        br.MAPTrainer(model, here, NOISE, optimizer="proximal", progress=False, tolerance=1e-8).fit(data)
        if (model.weight == 0).any():
            exact = model.weight.detach().numpy()[0]
            break
    assert np.abs(first - exact).max() < 0.03


def test_contours_refuse_what_would_mean_nothing():
    model, whole, data = two_weights(br.Gaussian(0.2))
    for elements in ([("weight", 0), ("weight", (0, 0))], ["weight", "weight"], [("weight", 0)]):
        with pytest.raises(br.InvalidArgumentError, match="elements: expected"):
            plot_contours(model, whole, NOISE, data, elements=elements)
    with pytest.raises(br.InvalidArgumentError, match="at least one factor"):
        plot_contours(model, whole, NOISE, data, strengths=[])
    dead = (torch.zeros_like(data[0]), data[1])
    with pytest.raises(br.InvalidArgumentError, match="the likelihood does not change with"):
        plot_contours(model, whole, NOISE, dead, strengths=[1.0])
    assert plot_contours(model, whole, NOISE, data, elements=[("weight", np.int64(0)), ("weight", -1)], strengths=[1.0])


def test_weights_beyond_the_axis_are_pointed_at_and_the_centre_is_the_parameters():
    model = nn.Linear(20, 10)
    far = plot_layers(br.ModelPrior(model, br.Gaussian(0.001)))
    arrows = [one for one in far.lines if one.get_marker() in "<>" and len(one.get_xdata()) == 1]
    assert len(arrows) == 1
    assert abs(arrows[0].get_xdata()[0]) < far.get_xlim()[1]
    half = nn.Linear(20, 10).to(torch.bfloat16)
    prior = br.ModelPrior(half, br.Laplace(0.1, loc=0.3))
    with torch.no_grad():
        half.weight.fill_(0.3)
    assert any("100% at centre" in text.get_text() for text in plot_layers(prior).texts)


def test_several_axes_are_saved_and_bad_input_is_named(tmp_path):
    save(br.Gaussian(0.2).plot(), tmp_path / "three.pdf")
    assert (tmp_path / "three.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(br.InvalidArgumentError, match="expected a suffix of"):
        save(br.Gaussian(0.2).plot(), tmp_path / "three.xyz")
    for bad in ({"a": {"ten": [0.5]}}, {"a": {10: 0.5}}, {"a": [0.5]}):
        with pytest.raises(br.InvalidArgumentError, match="scores: expected"):
            plot_accuracy(bad)
    # As after a JSON round trip.
    assert plot_accuracy({"a": {"10": [0.5, 0.6]}}).get_xlabel() == "training examples n"
    many = plot_accuracy({str(k): {10: [0.5]} for k in range(12)})
    looks = {(c[0].get_color(), c[0].get_marker(), c[0].get_linestyle()) for c in many.containers}
    assert len(looks) == 12
    with pytest.raises(br.UnsupportedError, match="a part of the line only"):
        br.FromDistribution(torch.distributions.HalfNormal(1.0, validate_args=True)).plot()
    assert br.Uniform(-1.0, 1.0).plot(reach=5.0)[0].get_xlim()[1] > 5.0
    with pytest.raises(br.UnsupportedError, match="no density says how far"):
        br.MCP(1.0, 2.0).plot(shape=(2,))


ROWS = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)


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


@pytest.mark.slow
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
