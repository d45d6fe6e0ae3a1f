# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---
# %% [markdown]
# # L1, L2 and beyond: sparsity and shrinkage
#
# For those who want zeros, or less shrinkage than L2's.
# At the end you know which family of priors does what to one weight, to many, and to a network.
#
# A prior does two things to a weight: it may set it to exactly zero, and it shrinks what it keeps.
# L2 does only the second, L1 does both at once, and other families do the one without the other.
# This notebook shows what each believes, what it does to one weight, to ten, to four hundred, and to a network.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import nn

import bayesreg as br

torch.set_num_threads(1)

# %% [markdown]
# ## One weight
#
# Density, penalty, and shrinkage: where a weight ends that was observed once, with noise.
# On the diagonal it stays, on the horizontal line it is set to zero.
# Dashed: the Gaussian (L2) of the same variance.

# %% alt="Density, penalty and shrinkage of a prior: the Laplace subtracts, the Student-t and MCP spare the large"
for prior in (br.Laplace(0.2), br.StudentT(df=2.0, scale=0.1), br.MCP(strength=4.0, gamma=0.15)):
    prior.plot(reach=1.0)
plt.show()

# %% [markdown]
# - **Laplace (L1)**: everything below a threshold is exactly zero, everything above it is shrunk by the same amount,
#   however large it is.
#   That is its weakness: the weights that matter are biased.
# - **Student-t**: no zeros, but large weights are left nearly alone.
# - **MCP**: zeros like L1, and from some size on no shrinkage at all.
#   Its price: it is not convex, and no density.
#
# ## Two weights
#
# Contours of likelihood and prior, and the MAP as the prior grows from weak to strong.
# L2's circles shrink both weights together.
# L1's corners are where one weight is zero, and the path runs into one.

# %% alt="Contours of likelihood and prior over two weights for three families, with their MAPs"
X, y = (torch.as_tensor(part) for part in load_diabetes(return_X_y=True))
names = load_diabetes().feature_names
X, y = (X - X.mean(0)) / X.std(0), ((y - y.mean()) / y.std())[:, None]
noise = br.likelihoods.Gaussian(noise_std=0.7)

figure, axes = plt.subplots(1, 3, figsize=(12.6, 4.9), layout="constrained")
for ax, family in zip(axes, (br.Gaussian(0.08), br.Laplace(0.03), br.ElasticNet(l1=20.0, l2=100.0)), strict=True):
    two = nn.Linear(2, 1, bias=False).double()
    br.plots.plot_contours(two, br.ModelPrior(two, family), noise, (X[:100][:, [2, 7]], y[:100]), ax)
    ax.set(xlabel=f"body mass index ({family.family})", ylabel="s4")
for ax in axes[1:]:
    ax.get_legend().remove()
plt.show()

# %% [markdown]
# ## Ten weights, all strengths
#
# From the strongest prior that leaves anything (left) to hardly any prior (right).
# L1 lets weights in one by one; L2 has all of them from the start.

# %% alt="Weights against the strength of the prior: under L1 they reach 0 one by one, under L2 they never do"
train, held_out = (X[:300], y[:300]), (X[300:], y[300:])
linear = nn.Linear(10, 1).double()
path = br.sparsity.regularization_path(
    linear, br.ModelPrior(linear, br.Laplace(0.1)), noise, train, count=25, validation=held_out
)
br.plots.plot_path(path, labels=names)

sigmas = np.logspace(-2.5, 0.5, 40)
ridge = []
for std in sigmas:
    A = train[0].T @ train[0] + 0.7**2 / std**2 * torch.eye(10).double()
    ridge.append(torch.linalg.solve(A, train[0].T @ (train[1] - train[1].mean()))[:, 0])
figure, ax = plt.subplots(figsize=(5.2, 3.2), layout="constrained")
for k, name in enumerate(names):
    (curve,) = ax.plot(1 / sigmas**2, [w[k] for w in ridge], lw=1.5, ls=("-", "--", "-.", ":")[k % 4])
    ax.annotate(name, (1 / sigmas[-1] ** 2, ridge[-1][k]), xytext=(5, 0), textcoords="offset points", fontsize=8,
                color=curve.get_color(), va="center")  # fmt: skip
ax.set(xscale="log", xlabel="L2: precision of the prior (stronger to the left)", ylabel="weight")
ax.invert_xaxis()
plt.show()

# %% [markdown]
# ## Four hundred weights, a hundred examples
#
# Ten of 400 features matter, and there are 100 examples.
# Every prior gets its own best strength by two-fold cross-validation on those examples; grey is the truth.

# %%
generator = torch.Generator().manual_seed(3)
p, count = 400, 100
truth = torch.zeros(p, dtype=torch.float64)
truth[:10] = torch.tensor([1.5, -1.5, 1.2, -1.2, 1.0, -1.0, 0.8, -0.8, 0.6, -0.6])
A = torch.randn(count, p, generator=generator, dtype=torch.float64)
b = (A @ truth + 0.5 * torch.randn(count, generator=generator, dtype=torch.float64))[:, None]
few = br.likelihoods.Gaussian(noise_std=0.5)

FAMILIES = {
    "Gaussian (L2)": lambda s: br.Gaussian(s),
    "Laplace (L1)": lambda s: br.Laplace(s),
    "spike and slab": lambda s: br.ScaleMixture.spike_and_slab(s / 20, 1.0, slab_weight=0.05),
    "MCP": lambda s: br.MCP(strength=1.0 / s, gamma=0.6 * s),  # no shrinkage from 0.6 on
}


# %% [markdown]
# Fit on some rows, and score a strength by fitting on one half and predicting the other, both ways round.


# %%
def estimate(make, s, rows):
    """The MAP from a start at zero."""
    model = nn.Linear(p, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    prior = br.ModelPrior(model, make(s))
    kinked = not make(s).traits.smooth
    br.MAPTrainer(
        model,
        prior,
        few,
        optimizer="proximal" if kinked else "lbfgs",
        tolerance=1e-3,
        max_iterations=1000,
        progress=False,
    ).fit((A[rows], b[rows]))
    return model


def score(make, s):
    total, halves = 0.0, (slice(0, 50), slice(50, 100))
    for here, there in (halves, halves[::-1]):
        model = estimate(make, s, here)
        with torch.no_grad():
            total += few.nll(model(A[there]), b[there]).mean().item()
    return total


# %% alt="Estimates of the first 40 weights as points over the true ones as bars, for four priors"
figure, axes = plt.subplots(2, 2, figsize=(9.6, 4.6), sharex=True, sharey=True, layout="constrained")
for ax, (name, make) in zip(axes.flat, FAMILIES.items(), strict=True):
    s = min((0.03, 0.1, 0.3, 1.0), key=lambda s: score(make, s))
    w = estimate(make, s, slice(None)).weight.detach()[0]
    ax.vlines(range(40), 0, truth[:40], color="0.75", lw=5)
    ax.plot(range(40), w[:40], "o", ms=3.5, color="#1b3a57")
    ax.axhline(0, color="0.6", lw=0.8)
    ax.set_title(f"{name}, scale {s}", fontsize=10)
    error = float((w - truth).norm() / truth.norm())
    found = w.abs() > 0.1
    print(f"{name:15s} relative error {error:.2f}; above 0.1: {int(found.sum())}, of the ten: {int(found[:10].sum())}")
for ax in axes[1]:
    ax.set_xlabel("first 40 of 400 features")
plt.show()

# %% [markdown]
# L2 spreads the signal over everything.
# L1 finds it, shrinks it, and lets some noise in.
# Spike and slab and MCP name the ten, and MCP, which leaves weights above 0.6 alone, also gets their size right.
# That is a clear signal and independent features.
# Both priors are not convex: where the signal is weak or features are correlated, the picture turns around;
# [docs/sparsity.md](../docs/sparsity.md) measures where.
#
# ## A network: which pixels does it look at?
#
# A group prior sets *columns* of the first layer to zero together, that is, whole input pixels.
# The stronger, the fewer.

# %% alt="Which pixels of 8 by 8 images a network still uses, for each rate of the group prior"
images, labels = load_digits(return_X_y=True)
D, t = torch.as_tensor(images / 16).float(), torch.as_tensor(labels)
figure, axes = plt.subplots(1, 5, figsize=(11, 2.6), layout="constrained")
axes[0].imshow(images.mean(0).reshape(8, 8), cmap="Greys")
axes[0].set_title("mean image", fontsize=10)
for ax, rate in zip(axes[1:], (3.0, 10.0, 30.0, 60.0), strict=True):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    prior = br.ModelPrior(
        net, {"0.weight": br.GroupLaplace(rate=rate, group="column"), br.biases: br.Flat(), "*": br.Gaussian(1.0)}
    )
    trainer = br.MAPTrainer(
        net, prior, br.likelihoods.Categorical(), max_epochs=25, progress=False, seed=0,
        optimizer=lambda groups: torch.optim.Adam(groups, lr=1e-2),
    )  # fmt: skip
    trainer.fit((D[:1000], t[:1000]))
    used = net[0].weight.detach().norm(dim=0)
    with torch.no_grad():
        accuracy = float((net(D[1000:]).argmax(1) == t[1000:]).float().mean())
    ax.imshow(used.reshape(8, 8), cmap="Greys")
    ax.set_title(f"rate {rate:g}: {int((used > 0).sum())} pixels,\naccuracy {accuracy:.3f}", fontsize=10)
for ax in axes:
    ax.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# White pixels are exactly unused: the network gives the same output whatever stands there.
# `br.sparsity.zeros(prior)` counts such groups, and `br.sparsity.compact` makes a smaller network of them.
#
# ## Take home
#
# - Zeros come from the kink of the penalty, shrinkage from its slope far out.
#   Choose a family for both.
# - L1 is convex and safe; to predict, it is hard to beat.
#   To name the right features, shrink less.
# - Gradient steps never reach the zeros: `br.attach` and the trainer take proximal steps.
