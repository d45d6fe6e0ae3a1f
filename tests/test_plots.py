"""Plots: Axes in, Axes out, the right numbers on them."""

from __future__ import annotations

import matplotlib.figure
import numpy as np
import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.plots import plot_history, plot_weights, save


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
