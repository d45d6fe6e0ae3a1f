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
# # I have an AdamW run. What does its weight decay say?
#
# For people with `AdamW(lr=..., weight_decay=0.1)` in a script.
# At the end you can say what that number did in a run, what it must become when the batch size changes, and how to
# put a real prior in its place.

# %%
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import bayesreg as br

torch.set_num_threads(1)

# %% [markdown]
# ## Read it before it runs
#
# No data and no training are needed: the settings tell how much of the starting weights a run leaves.
# This is the recipe of a language model, and a common one for fine-tuning.

# %%
model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
runs = {
    "pretraining": {"lr": 3e-4, "weight_decay": 0.1, "steps": 100_000},
    "fine-tuning": {"lr": 5e-5, "weight_decay": 0.01, "steps": 1_000},
}
for name, run in runs.items():
    optimizer = torch.optim.AdamW(model.parameters(), lr=run["lr"], weight_decay=run["weight_decay"])
    found = br.explain(optimizer, model, num_data=10**6, batch_size=64, steps=run["steps"], schedule="cosine")
    horizon = found.groups[0].horizon
    print(f"{name}: sum of lr x decay {horizon.decay_sum:.3g}; left of the start {horizon.share_left:.1%}")

# %% [markdown]
# In the fine-tuning the decay is *off*, whatever it is called: 0.01, 0.1 or 0 give the same weights.
# In the pretraining a fifth of the start is left: how long the run is matters as much as the number.
#
# ## A run of our own
#
# Digits, 1,000 of them, one in ten with a wrong label, so that there is something to regularise.

# %%
X, y = (torch.tensor(part) for part in load_digits(return_X_y=True))
X = X.float() / 16
order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
X, y = X[order], y[order]
generator = torch.Generator().manual_seed(1)
wrong = torch.rand(1_000, generator=generator) < 0.1
labels = torch.where(wrong, torch.randint(10, (1_000,), generator=generator), y[:1_000])


def train(make, batch, epochs=60, attach=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    prior = None if attach is None else br.ModelPrior(model, attach)
    optimizer = make(model.parameters() if prior is None else prior.param_groups())
    if prior is not None:
        br.attach(optimizer, prior, num_data=1_000)
    for _ in range(epochs):
        for rows in torch.randperm(1_000).split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X[rows]), labels[rows]).backward()
            optimizer.step()
    return model, optimizer


# %% [markdown]
# After the run the optimizer's own state says more: how strongly each weight is pulled, and the one Gaussian that
# pulls about as much on these weights.

# %%
before = {"batch_size": 20, "lr": 1e-3, "num_data": 1_000, "epochs": 60}
model, optimizer = train(lambda weights: torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.3), batch=20)
br.explain(optimizer, model, num_data=1_000, batch_size=20, epochs=60)

# %% [markdown]
# ## Move it to another batch size
#
# Batches four times as large on a machine with more memory: keep the 0.3?
# `br.adapt_weight_decay` says what keeps the belief, the prior that the decay stands for when weights are at rest.

# %%
moved = br.adapt_weight_decay(0.3, optimizer=torch.optim.AdamW, before=before, after={"batch_size": 80, "lr": 2e-3})
moved

# %% [markdown]
# Is it kept?
# Three seeds would be better than one, and `benchmarks/adapt.py` has them; here is one, by the size of the weights.


# %%
def rms_of(model):
    return float(model[0].weight.detach().square().mean().sqrt())


rms = {"before: batch 20, decay 0.3": model}
for decay in (0.3, moved.weight_decay):
    name = f"batch 80, decay {decay:.2g}"
    rms[name], _ = train(lambda weights, decay=decay: torch.optim.AdamW(weights, lr=2e-3, weight_decay=decay), batch=80)
for name, trained in rms.items():
    print(f"{name:30} rms of the weights {rms_of(trained):.4f}")

# %% [markdown]
# ## Or say the belief itself
#
# AdamW's decay is another prior for each weight and each batch size.
# A prior of bayesreg is one number that no batch size, rate or schedule changes: set `weight_decay=0` and attach it.
# How wide?
# From the data.

# %%
torch.manual_seed(0)
network = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
choice = br.choose_strength(
    network, br.Gaussian(0.5), br.likelihoods.Categorical(), (X[:1_000], labels), progress=False
)
std = 0.5 * choice.scale
print(f"Gaussian of std {std:.2f}, by method {choice.method!r}; as a coupled weight_decay {1 / (1_000 * std**2):.2g}")

# %% alt="Test accuracy as bars: no decay, AdamW's decay before and after, and the chosen prior at two batch sizes"
none, _ = train(lambda weights: torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.0), batch=20)
models = {"no decay": none, **rms}
for batch, lr in ((20, 1e-3), (80, 2e-3)):
    models[f"batch {batch}, prior of std {std:.2f}"], _ = train(
        lambda weights, lr=lr: torch.optim.Adam(weights, lr=lr), batch=batch, attach=br.Gaussian(std)
    )
models["choice.model: all data at once"] = choice.model
accuracy = {name: float((m(X[1_000:]).argmax(1) == y[1_000:]).float().mean()) for name, m in models.items()}
figure, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
ax.barh(list(accuracy), list(accuracy.values()), color="#1b3a57")
ax.set(xlim=(0.9, 1.0), xlabel="accuracy on 797 test digits (labels as they are)")
ax.invert_yaxis()
plt.show()
for name, trained in models.items():
    print(
        f"{name:34} accuracy {accuracy[name]:.3f}   rms {float(trained[0].weight.detach().square().mean().sqrt()):.4f}"
    )

# %% [markdown]
# One accuracy here has a standard error of 0.8 points, so most of these differences are none.
# What is sure is the other column: the same prior gives the same weights at both batch sizes, while AdamW's decay is
# another one at each; moved, it comes nearer than unchanged.
# The model that all data were solved for at once is the one whose prior was chosen, at its optimum; 60 epochs do not
# get there.
#
# Next: [what a decay in AdamW means](../docs/adamw.md), with the sources and the tests of the rule;
# [what a run already believes](../docs/explain.md), from a checkpoint or a file of settings;
# [any prior on your own loop](../docs/routes.md).
