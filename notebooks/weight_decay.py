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
# # Weight decay, the Bayesian view, from scratch
#
# For those who type `weight_decay=` and want to know what it says.
# At the end you have it as a belief, as code, and as a number that depends on how much data there is.
#
# `weight_decay=5e-4` is one of the most copied numbers in deep learning.
# This notebook looks at it in three ways: as a belief about functions, as three lines of code, and as a number whose
# right value depends on how much data there is.

# %%
import copy

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import bayesreg as br

torch.set_num_threads(1)

# %% [markdown]
# ## A belief about weights is a belief about functions
#
# With a mean loss on n examples, weight decay λ is a Gaussian prior of variance 1/(nλ) on every weight
# ([why](../docs/bayesian.md)).
# What does such a prior expect?
# Draw networks from it, before any data, and look.

# %% alt="Functions of networks drawn from Gaussian priors: the wider the prior, the steeper they wind"
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(1, 50), nn.Tanh(), nn.Linear(50, 50), nn.Tanh(), nn.Linear(50, 1))
x = torch.linspace(-3, 3, 300)[:, None]

figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.8), layout="constrained")
for ax, std in zip(axes, (0.1, 0.4, 1.5), strict=True):
    prior = br.ModelPrior(net, {"*": br.Gaussian(std)})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for k in range(6):
            f = functional_call(net, prior.draw(generator=generator), x)
            ax.plot(x, f, color="#1b3a57", alpha=0.85, lw=1.2, ls=("-", "--", ":")[k % 3])
    decay = br.variance_to_weight_decay(std**2, 1000)
    ax.set_title(f"σ = {std}: λ = {decay:.2g} at n = 1,000", fontsize=9)
    ax.set_xlabel("x")
axes[0].set_ylabel("networks drawn from the prior")
plt.show()

# %% [markdown]
# Small σ (strong decay) believes in functions that are nearly constant, large σ in wild ones.
# Whoever chooses a weight decay chooses among these, knowingly or not.
# And the same `weight_decay` at another n is another one of them:

# %%
for n in (500, 5_000, 50_000, 1_281_167):
    print(f"weight_decay=5e-4 on {n:9,d} examples: sigma = {br.weight_decay_to_variance(5e-4, n) ** 0.5:.3f}")

# %% [markdown]
# ## From scratch: three ways to write it
#
# In the gradient (what torch does), in the loss (the textbook), as a log-prior (the belief).
# On handwritten digits, with momentum, all beside `torch.optim.SGD(weight_decay=...)`.

# %%
images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
X, y = torch.as_tensor(images[order] / 16), torch.as_tensor(labels[order])
train, test = slice(0, 500), slice(1000, 1797)
n, lam, rate, momentum = 500, 2e-3, 0.2, 0.9

torch.manual_seed(0)
first = nn.Sequential(nn.Linear(64, 30), nn.Tanh(), nn.Linear(30, 10)).double()


def split(model):
    """Weights, which are decayed, and biases, which are not."""
    return [p for p in model.parameters() if p.ndim > 1], [p for p in model.parameters() if p.ndim == 1]


def nll(model):
    return F.cross_entropy(model(X[train]), y[train])


# %% [markdown]
# Each way is a step that is taken 60 times from the same start; all weights are written down after each.


# %%
def path_of(model, step):
    """Return all weights after each of 60 steps."""
    path = []
    for _ in range(60):
        step()
        path.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    return torch.stack(path)


def descent(model, objective, groups):
    """Return a step of torch's SGD on an objective."""
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=momentum)

    def step():
        optimizer.zero_grad()
        objective(model).backward()
        optimizer.step()

    return step


paths = {}

# %% [markdown]
# **torch**, as the one to compare with: decay on the weights, none on the biases.

# %%
model = copy.deepcopy(first)
weights, biases = split(model)
paths["torch"] = path_of(model, descent(model, nll, [{"params": weights, "weight_decay": lam}, {"params": biases}]))

# %% [markdown]
# **In the gradient.** The gradient of (λ/2)‖w‖² is λw, so add it, before momentum sees it.
# No optimizer is needed.

# %%
model = copy.deepcopy(first)
velocity = [torch.zeros_like(p) for p in model.parameters()]


def step_by_hand():
    gradients = torch.autograd.grad(nll(model), list(model.parameters()))
    with torch.no_grad():
        for p, g, v in zip(model.parameters(), gradients, velocity, strict=True):
            v.mul_(momentum).add_(g + lam * p if p.ndim > 1 else g)
            p.sub_(rate * v)


paths["gradient"] = path_of(model, step_by_hand)

# %% [markdown]
# **In the loss**, as textbooks write it, and **as a belief**: minus the log-density of a Gaussian of variance
# 1/(nλ), divided by n.
# The second differs from the first by a constant, which moves nothing.

# %%
normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), (1 / (n * lam)) ** 0.5)


def penalised(model):
    return nll(model) + lam / 2 * sum(w.square().sum() for w in split(model)[0])


def map_objective(model):
    return nll(model) - sum(normal.log_prob(w).sum() for w in split(model)[0]) / n


for name, objective in {"penalty": penalised, "log-prior": map_objective}.items():
    model = copy.deepcopy(first)
    paths[name] = path_of(model, descent(model, objective, model.parameters()))

# %% [markdown]
# **With bayesreg**: one prior, one line, and the loop as it was.

# %%
model = copy.deepcopy(first)
prior = br.ModelPrior(model, br.Gaussian.from_weight_decay(lam, n))
optimizer = torch.optim.SGD(prior.param_groups(), lr=rate, momentum=momentum)
br.attach(optimizer, prior, num_data=n)


def step():
    optimizer.zero_grad()
    nll(model).backward()
    optimizer.step()


paths["br.attach"] = path_of(model, step)

# %%
print("step  " + "  ".join(f"{name:11}" for name in paths))
for k in (1, 2, 10, 60):
    print(f"{k:4d}  " + "  ".join(f"{float(path[k - 1, 20]):.9f}" for path in paths.values()))
gap = max(float((path - paths["torch"]).abs().max()) for path in paths.values())
print(f"largest gap anywhere: {gap:.1e}")
assert gap < 1e-12

# %% [markdown]
# One path, to the last digits.
# The penalty *is* the prior.
#
# ## Where the pull comes from
#
# After training, layer by layer: where the prior expects weights (grey) and where they are (orange).

# %% alt="Layer by layer, grey where the prior expects weights and orange where they are"
ax = prior.plot()
plt.show()

# %% [markdown]
# For two weights the whole story fits in a picture.
# The data here are two classes and two pixels.
# Solid: the likelihood; dashed: the prior; dots: the MAP from weak to strong decay.

# %% alt="Contours of likelihood and prior over two weights; the narrow prior holds the MAP near 0"
rows = torch.isin(y, torch.tensor([3, 8]))
pair = X[rows][:80][:, [18, 42]]
pair = (pair - pair.mean(0)) / pair.std(0)
is_eight = (y[rows][:80] == 8).double()[:, None]
figure, axes = plt.subplots(1, 2, figsize=(9.6, 5), layout="constrained")
for ax, std in zip(axes, (1.0, 0.3), strict=True):
    two = nn.Linear(2, 1, bias=False).double()
    br.plots.plot_contours(two, br.ModelPrior(two, br.Gaussian(std)), br.likelihoods.Bernoulli(), (pair, is_eight), ax)
    ax.set_xlabel(f"weight of pixel 18 (prior: σ = {std})")
    ax.set_ylabel("weight of pixel 42")
plt.show()

# %% [markdown]
# ## What n does: keep σ, not λ
#
# Logistic regression on n digits for many strengths, each scored on the same held-out images.
# From 50 to 800 examples the best λ of this grid falls by more than ten, while the best σ stays within a factor of
# two or so: the belief about the weights is the same whether there are 50 examples or 800.

# %%
sigmas = np.logspace(-1, 2.5, 12)
sizes = (50, 200, 800)
scores = {size: [] for size in sizes}
held_out = (X[test], y[test])
for size in sizes:
    for std in sigmas:
        linear = nn.Linear(64, 10).double()
        rules = br.ModelPrior(linear, br.Gaussian(float(std)))
        br.MAPTrainer(
            linear, rules, br.likelihoods.Categorical(), optimizer="lbfgs", tolerance=1e-5, progress=False
        ).fit((X[:size], y[:size]))
        with torch.no_grad():
            scores[size].append(F.cross_entropy(linear(held_out[0]), held_out[1]).item())

# %% alt="Held-out loss against the coefficient and against σ for several n: in σ the minima stand nearer together"
figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.4), sharey=True, layout="constrained")
for size, colour, line in zip(sizes, ("#c2571a", "#4f7a28", "#1b3a57"), (":", "--", "-"), strict=True):
    lambdas = [br.variance_to_weight_decay(float(std) ** 2, size) for std in sigmas]
    best = int(np.argmin(scores[size]))
    for ax, where in zip(axes, (lambdas, sigmas), strict=True):
        ax.plot(where, scores[size], line, color=colour, label=f"n = {size}")
        ax.plot(where[best], scores[size][best], "o", color=colour)
    print(f"n = {size:3d}: best lambda {lambdas[best]:.1e}, best sigma {sigmas[best]:.2g}")
axes[0].set(xscale="log", yscale="log", xlabel="λ", ylabel="held-out NLL")
axes[1].set(xscale="log", xlabel="σ of the prior")
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# ## And AdamW?
#
# AdamW shrinks weights beside the step.
# What that amounts to depends on the noise of the gradients, so on the batch size.
# `br.explain` reads it from the optimizer's state; here for one network, one λ, and two batch sizes.
# Each weight has a width of its own: the middle one is printed, and in brackets how far they spread.
# A weight whose gradient is nearly always 0, such as that of a pixel at the edge, is hardly pulled, so its width is
# huge.

# %%
for batch in (8, 250):
    torch.manual_seed(0)
    model = copy.deepcopy(first).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.1)
    for _ in range(12 if batch == 8 else 300):
        for rows in torch.randperm(n).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(model(X[rows].float()), y[rows]).backward()
            optimizer.step()
    found = br.explain(optimizer, model, num_data=n)
    print(f"batches of {batch}: {found.groups[0].prior}")

# %% [markdown]
# The same λ = 0.1, and two different beliefs.
# To have AdamW's steps under *one* prior: `weight_decay=0`, and `br.attach(optimizer, prior, num_data=n)`.
#
# ## Take home
#
# - λ is 1/(nσ²).
#   Write down σ; let the code work out λ.
# - Gradient, penalty, log-prior: one algorithm.
#   Use the one line that knows the optimizer.
# - AdamW's `weight_decay` is not a prior; `br.explain` says what it came to.
