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
# # How strong should the prior be?
#
# For those who have a prior and do not know how wide.
# At the end you can have the width chosen, and know when not to trust the choice.
#
# A weight decay of 0.01, or of 0.0001?
# The usual answer is a grid and a validation set.
# This notebook chooses from the training data alone, and shows what the choice is sure of, what it is not, and what
# fools it.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from torch import nn
from torch.nn import functional as F

import bayesreg as br

torch.set_num_threads(1)

# %% [markdown]
# ## Linear: every strength at once
#
# With Gaussian noise, a model that is linear in its weights has its evidence, its leave-one-out error and its fit at
# every strength from one decomposition.
# Nothing is searched for: milliseconds.

# %%
X, y = (torch.tensor(part) for part in load_diabetes(return_X_y=True))
X, y = (X - X.mean(0)) / X.std(0), ((y - y.mean()) / y.std())[:, None]
choice = br.choose_strength(nn.Linear(10, 1).double(), br.Gaussian(1.0), br.likelihoods.Gaussian("learned"), (X, y))
choice

# %% alt="Held-out loss against the scale of the prior, with what the data leave open in grey"
choice.plot()
plt.show()

# %% [markdown]
# The shaded interval is what the data leave open: every scale in it is within 2 nats of the best.
# The dotted line is the share of the *hyperprior*, what is believed of the scale before there are data.
# At 442 rows it hardly matters.
#
# The same call gives every weight a scale of its own (automatic relevance determination).
# Without a hyperprior it is what scikit-learn's `ARDRegression` finds: weights that say nothing get a prior of no
# width, and are gone.

# %% alt="The chosen scale of the prior of each weight, and of one for all dashed"
each = br.choose_strength(
    nn.Linear(10, 1).double(),
    br.Gaussian(1.0),
    br.likelihoods.Gaussian("learned"),
    (X, y),
    groups="each",
    hyperprior=None,
)
names = load_diabetes().feature_names
figure, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
ax.bar(names, each.groups[0].scale[0])
ax.axhline(choice.scale, color="black", ls="--", lw=1)
ax.set_ylabel("scale of the prior")
ax.set_title("one for each weight; dashed: one for all", fontsize=11)
plt.show()

# %% [markdown]
# ## A network on fifty rows
#
# One fit under the prior as given, then a walk to weaker and stronger ones, each fit begun where the last one ended.
# What a fit says of an example without having seen it comes from the one fit of all (leave-one-out, by one Newton
# step), so that nothing is held out for good.

# %%
table, labels = load_breast_cancer(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
fit, rest = order[:50], order[50:]
table = (table - table[fit].mean(0)) / table[fit].std(0)
data, test = ((torch.tensor(table[part]), torch.tensor(labels[part])) for part in (fit, rest))
likelihood = br.likelihoods.Categorical()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 50), nn.ReLU(), nn.Linear(50, 2)).double()


def test_nll(model):
    with torch.no_grad():
        return float(F.cross_entropy(model(test[0]), test[1]))


few = br.choose_strength(network(), br.Gaussian(1.0), likelihood, data)
few

# %% [markdown]
# Beside it, what a grid on a fifth of the data would have had to go by: ten labels.
# And the test error, which nobody has.

# %%
scales = [10 ** (k / 4) for k in range(-6, 7)]
held_out, tested = [], []
for scale in scales:
    for rows, scores, judge in (
        (slice(10, None), held_out, lambda model: float(F.cross_entropy(model(data[0][:10]), data[1][:10]))),
        (slice(None), tested, test_nll),
    ):
        model = network()
        trainer = br.MAPTrainer(
            model, br.Gaussian(scale), likelihood, optimizer="lbfgs", tolerance=1e-3, progress=False
        )
        trainer.fit((data[0][rows], data[1][rows]))
        with torch.no_grad():
            scores.append(judge(model))

# %% alt="Loss against the std of the prior: on test data, on ten held-out rows, and by leave-one-out"
figure, ax = plt.subplots(figsize=(6.8, 4.0), layout="constrained")
ax.plot(scales, tested, color="black", label="test, 519 rows")
ax.plot(scales, held_out, "s:", color="#c2571a", ms=4, label="ten held-out rows")
ax.plot(
    [s.scale for s in few.steps], [s.held_out_nll for s in few.steps], "o--", color="#1b3a5c", label="leave-one-out"
)
ax.axvline(few.scale, color="#1b3a5c", lw=1)
ax.axvspan(few.interval[0] or scales[0], few.interval[1] or scales[-1], color="#1b3a5c", alpha=0.1)
ax.set(xscale="log", ylim=(0.0, 0.6), xlabel="std of the prior", ylabel="NLL, nats per example")
ax.legend(frameon=False)
plt.show()
print(
    f"test NLL: chosen {test_nll(few.model):.4f}; best of the grid on ten rows {tested[int(np.argmin(held_out))]:.4f}"
)

# %% [markdown]
# ## When the data cannot tell
#
# Labels that are noise.
# A linear model predicts best by saying nothing, whatever the strength: the score hardly differs, and the choice
# says that the hyperprior decided.

# %% alt="Held-out loss against the scale where the choice warns: no minimum stands out"
generator = torch.Generator().manual_seed(0)
noise = torch.randn(30, 2, generator=generator).double(), torch.randint(0, 2, (30,), generator=generator)
lost = br.choose_strength(nn.Linear(2, 2).double(), br.Gaussian(1.0), likelihood, noise)
for name, words in lost.warnings.items():
    print(f"{name}: {words}")
lost.plot()
plt.show()

# %% [markdown]
# ## What fools a cheap evidence
#
# Twenty points of a sine, and random features whose length is open too.
# A small length can fit anything.
# The exact evidence holds that against it; its mean-field bound, the one that variational networks maximise, does
# not, and takes most of the curve for noise (the example is that of Harvey and Hughes, 2026).

# %%
x = torch.randn(20, 1, generator=torch.Generator().manual_seed(3)).double()
target = torch.sin(3 * x) + 0.1 * torch.randn(20, 1, generator=torch.Generator().manual_seed(4)).double()
shown = torch.linspace(-2.5, 2.5, 300).double()[:, None]


class Fourier(nn.Module):
    def __init__(self, length):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.frequency = torch.randn(512, generator=generator).double() / length
        self.phase = 2 * math.pi * torch.rand(512, generator=generator).double()

    def forward(self, x):
        return math.sqrt(2 / 512) * torch.cos(x * self.frequency + self.phase)


# %% [markdown]
# Both score a length with everything else at its best: the evidence by `br.choose_strength`, the bound by hand.


# %%
def by_evidence(length):
    model = nn.Sequential(Fourier(length), nn.Linear(512, 1, bias=False).double())
    choice = br.choose_strength(model, br.Gaussian(1.0), br.likelihoods.Gaussian("learned"), (x, target))
    with torch.no_grad():
        return min(step.objective for step in choice.steps), choice.likelihood.noise_std, choice.model(shown)


def by_bound(length):
    features, found = Fourier(length)(x), []
    for ratio in np.logspace(-6, 4, 200):
        solved = torch.linalg.solve(features @ features.T + ratio * torch.eye(20), target)
        variance = ratio * float((target * solved).sum()) / 20
        bound = 10 * math.log(2 * math.pi * math.e * variance)
        bound += 0.5 * float(torch.log1p(features.square().sum(0) / ratio).sum())
        found.append((bound, math.sqrt(variance), Fourier(length)(shown) @ features.T @ solved))
    return min(found, key=lambda one: one[0])


# %% alt="Two curves with their bands over the data, one by the evidence and one by the mean-field bound"
figure, axes = plt.subplots(1, 2, figsize=(10.4, 3.6), layout="constrained", sharey=True)
for ax, way in zip(axes, (by_evidence, by_bound), strict=True):
    value, std, curve, length = min((*way(length), length) for length in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0))
    ax.plot(shown, torch.sin(3 * shown), color="0.6", lw=1)
    ax.plot(shown, curve, color="#1b3a5c")
    ax.fill_between(shown[:, 0], curve[:, 0] - 2 * std, curve[:, 0] + 2 * std, color="#1b3a5c", alpha=0.12)
    ax.plot(x, target, "o", color="#c2571a", ms=4)
    title = "evidence" if way is by_evidence else "mean-field bound"
    ax.set_title(f"{title}: length {length:g}, noise {std:.2f} (truth 0.10)", fontsize=11)
    ax.set_ylim(-2, 2)
plt.show()

# %% [markdown]
# ## In practice
#
# - Pass all the training data, the prior with the shape that you believe in, and read `choice.warnings`.
# - `choice.model` is fitted already; `choice.weight_decay(n, optimizer)` is the number for another loop.
# - A few examples per class about pretrained weights: the target cannot tell how far they travel.
#   Ask the source, with `br.transfer.rehearse`, as the transfer notebook does by hand.
