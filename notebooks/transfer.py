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
# # A prior that remembers the pretrained weights
#
# For those who fine-tune with few labels.
# At the end you have one transfer from pretrained weights, and know where the prior helped and where it did not.
#
# You have a network that was trained on plenty of data, and a new task with a handful of examples.
# Plain fine-tuning starts at the pretrained weights and then forgets them; weight decay even pulls them to zero.
# A prior *about the pretrained weights* says what you believe: the new weights are near the old ones, this near:
#
# $$\log p(w) = -\tfrac{1}{2}\,\lVert w - w^0\rVert^2 / \sigma^2 + \text{const}$$
#
# This notebook does one such transfer from start to end in ten minutes of reading: pretrain, save, start the new
# model at the file, put the prior about it, choose σ without looking at the new task, and see where it helps and
# where it does not.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from safetensors.torch import save_file
from scipy.ndimage import rotate
from sklearn.datasets import load_digits
from torch import nn

import bayesreg as br

torch.set_num_threads(1)

# %% [markdown]
# ## The two tasks
#
# Source: 600 upright handwritten digits.
# Target: other images of the same digits, turned by 30°, of which we may label 10 to 100.


# %% alt="Eight by eight images of the source task above and of the target task below"
def turned(images, degrees):
    grid = images.reshape(-1, 8, 8)
    return np.clip(rotate(grid, degrees, axes=(1, 2), reshape=False, order=1), 0, 1).reshape(len(grid), 64)


images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
images, labels = images[order] / 16, labels[order]
source = images[:600], labels[:600]
rehearsal = turned(images[600:900], -30), labels[600:900]  # source images too, turned the other way
pool = turned(images[900:1300], 30), labels[900:1300]
test = turned(images[1300:], 30), labels[1300:]

figure, axes = plt.subplots(2, 6, figsize=(6, 2.2), layout="constrained")
for row, (title, (x, _)) in zip(axes, {"source": source, "target": pool}.items(), strict=True):
    row[0].set_ylabel(title)
    for axis, image in zip(row, x, strict=False):
        axis.imshow(image.reshape(8, 8), cmap="Greys")
        axis.set(xticks=[], yticks=[])

# %% [markdown]
# ## Pretrain, and keep the weights in a file
#
# A small network in float64, so that the full-batch solver can go to the optimum.
# Any model, loop and optimizer would do.


# %%
def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).double()


def fit(model, prior, data):
    likelihood = br.likelihoods.Categorical()
    return br.MAPTrainer(
        model, prior, likelihood, optimizer="lbfgs", tolerance=3e-4, max_iterations=300, progress=False
    ).fit(data)


@torch.no_grad()
def accuracy(model, data):
    x, y = data
    return (model(torch.as_tensor(x)).argmax(1).numpy() == y).mean()


pretrained = network()
fit(pretrained, br.Gaussian(0.3), source)
path = Path(tempfile.mkdtemp()) / "pretrained.safetensors"
save_file(pretrained.state_dict(), path)
print(f"source network on upright test digits: {accuracy(pretrained, (images[1300:], labels[1300:])):.3f}")
print(f"on the target, untrained:              {accuracy(pretrained, test):.3f}")

# %% [markdown]
# ## The prior
#
# One line starts the new model at the file, one puts the prior about it.
# Nothing is guessed: a layer that the file lacks, a tensor of another shape or a name that differs raises, with all
# mismatches in one message, until an argument says what to do with it (`new=`, `resized=`, `rename=`, `extra=`).

# %%
model = network(seed=1)
br.transfer.load_into(model, path)
prior = br.transfer.l2_sp(model, path, body_scale=3.0, covered="all")
prior.describe(num_data=20)

# %% [markdown]
# `weight_decay` in the last column is the strength of the pull *toward the centre* for this n: no optimizer's own
# `weight_decay` can express it, which is why `br.attach` or a trainer puts it in.
# The model's output layer is kept here because the classes are the same.
# With other classes it would be new:

# %%
with_new_head = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 3)).double()
left = br.transfer.load_into(with_new_head, path, new="2.*")
print("keep their initialisation:", left)
br.transfer.l2_sp(with_new_head, path, body_scale=3.0, head_scale=1.0, new="2.*").describe(num_data=20)

# %% [markdown]
# ## How strong? Rehearse on what you have
#
# With 10 labelled examples a validation split holds two of them, and chooses badly.
# But source images can be had in plenty.
# So rehearse: make a transfer task of *source* data, here by turning some the other way, draw n of them, train with
# every σ, and validate on the rest.
# The variance chosen belongs to the belief, not to n, and is kept.


# %%
def draw(data, n, seed):
    """Return n examples, as many of each digit, and the rest."""
    x, y = data
    order = np.random.default_rng(seed).permutation(len(y))
    chosen = np.concatenate([order[y[order] == digit][: n // 10] for digit in range(10)])
    rest = np.setdiff1d(order, chosen)
    return (x[chosen], y[chosen]), (x[rest], y[rest])


def start(kind, seed):
    model = network(seed)
    if kind != "standard prior, from scratch":
        br.transfer.load_into(model, path)
    return model


def prior_of(kind, model, scale):
    if kind == "about the pretrained weights":
        return br.transfer.l2_sp(model, path, body_scale=scale, covered="all")
    return br.ModelPrior(model, {"*": br.Gaussian(scale)})


# %% [markdown]
# Three ways to use the source network: not at all, as a start, and as what the prior is about.

# %%
KINDS = ["standard prior, from scratch", "standard prior, pretrained start", "about the pretrained weights"]
SCALES = [0.3, 1.0, 3.0, 10.0]
SIZES = [10, 30, 100]


@torch.no_grad()
def nll(model, data):
    x, y = torch.as_tensor(data[0]), torch.as_tensor(data[1])
    return nn.functional.cross_entropy(model(x), y).item()


def rehearse(kind, n, scale):
    scores = []
    for seed in (100, 101):
        train, validation = draw(rehearsal, n, seed)
        model = start(kind, seed)
        fit(model, prior_of(kind, model, scale), train)
        scores.append(nll(model, validation))
    return np.mean(scores)


rehearsed = {(kind, n): [rehearse(kind, n, scale) for scale in SCALES] for kind in KINDS for n in SIZES}
chosen = {key: SCALES[int(np.argmin(scores))] for key, scores in rehearsed.items()}
for kind in KINDS:
    print(f"{kind:34}", {n: chosen[kind, n] for n in SIZES})

# %% [markdown]
# ## What it buys
#
# Five draws of n target examples; the strength comes from the rehearsal, and the 497 test images are used for
# nothing else.

# %%
results = {(kind, n): [] for kind in KINDS for n in SIZES}
for seed in range(5):
    for n in SIZES:
        train, _ = draw(pool, n, seed)
        for kind in KINDS:
            model = start(kind, seed)
            fit(model, prior_of(kind, model, chosen[kind, n]), train)
            results[kind, n].append(accuracy(model, test))

# %% alt="Accuracy against the number of target examples for each kind of prior"
figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for kind, colour in zip(KINDS, ("#e69f00", "#56b4e9", "#0072b2"), strict=True):
    means = [np.mean(results[kind, n]) for n in SIZES]
    spreads = [np.std(results[kind, n], ddof=1) for n in SIZES]
    axis.errorbar(SIZES, means, spreads, label=kind, color=colour, marker="o", capsize=3)
axis.axhline(accuracy(pretrained, test), color="grey", linestyle=":", label="pretrained, untrained")
axis.set(xscale="log", xlabel="labelled target examples", ylabel="test accuracy, mean ± sd of 5 draws")
axis.set_xticks(SIZES, map(str, SIZES))
axis.legend(frameon=False)
for n in SIZES:
    gain = 100 * np.subtract(results[KINDS[2], n], results[KINDS[1], n])
    print(
        f"n = {n:3}: minus the standard prior from the same start {gain.mean():+.1f} points (sd {gain.std(ddof=1):.1f})"
    )

# %% [markdown]
# ## When it does not help
#
# The prior is a claim: *the solution is near these weights*.
# Here the reference is a network trained on the same source digits with shuffled pixels, which knows nothing of the
# target.
# Held tight, it is far worse than no memory at all; held loosely, a wrong claim does little harm.
# And the rehearsal tells the two references apart without a single target label: its validation NLL is on the right.

# %%
shuffle = np.random.default_rng(1).permutation(64)
unrelated = network()
fit(unrelated, br.Gaussian(0.3), (source[0][:, shuffle], source[1]))


def about(reference, scale, data, seed):
    train, rest = draw(data, 10, seed)
    model = network(seed)
    br.transfer.load_into(model, reference)
    fit(model, br.transfer.l2_sp(model, reference, body_scale=scale, covered="all"), train)
    return (accuracy(model, test), nll(model, rest))


# %% alt="Accuracy and loss against the width of the prior about the reference"
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for name, reference, colour in (("related", pretrained, "#0072b2"), ("unrelated", unrelated, "#d55e00")):
    scores = [np.mean([about(reference, scale, pool, seed)[0] for seed in range(3)]) for scale in SCALES]
    left.plot(SCALES, scores, marker="o", color=colour, label=f"about the {name} network")
    scores = [np.mean([about(reference, scale, rehearsal, seed)[1] for seed in (100, 101)]) for scale in SCALES]
    right.plot(SCALES, scores, marker="o", color=colour)
level = np.mean(results["standard prior, from scratch", 10])
left.axhline(level, color="#e69f00", label="standard prior, from scratch")
left.set(ylabel="test accuracy, n = 10")
right.set(ylabel="rehearsal NLL, n = 10", yscale="log")
for axis in (left, right):
    axis.set(xscale="log", xlabel="σ about the reference")
    axis.set_xticks(SCALES, map(str, SCALES))
left.legend(frameon=False)
plt.show()

# %% [markdown]
# Three more cases where little or nothing is gained: more target examples (above, only n = 10 gains), a small
# learning rate with few steps (fine-tuning that hardly leaves the pretrained weights is a prior about them, only one
# that depends on the schedule), and a target whose new head must learn nearly everything.
# The benchmark in [docs/transfer.md](../docs/transfer.md) measures them.
#
# ## Take home
#
# - `br.transfer.load_into(model, path, new="head.*")` starts at the reference;
#   `br.transfer.l2_sp(model, path, body_scale=..., head_scale=..., new="head.*")` is the prior about it, for any
#   optimizer (`br.attach`) or trainer.
# - σ is a belief about the weights.
#   Keep it when n changes, not the `weight_decay`.
# - Choose σ by rehearsal on source data; a validation split of a tiny target is a coin toss.
