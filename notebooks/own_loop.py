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
# # Your own training loop: one line, and what every trap looks like
#
# For those with a training loop of their own.
# At the end it has a prior that is exactly the one you wrote, and you know what would have made it another.
#
# `br.attach(optimizer, prior, num_data=n)` puts a prior on a loop you already have.
# This notebook shows the line, what it reports, how to keep and resume it, and then goes through the ways in which a
# prior, written by hand or left to `weight_decay`, silently becomes another one: each is run, measured, and run
# again with the line in it.

# %%
import tempfile
import textwrap
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import bayesreg as br

torch.set_num_threads(1)

images, labels = load_digits(return_X_y=True)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
X, y = torch.as_tensor(images / 16).float()[order], torch.as_tensor(labels)[order]
train, test = slice(0, 1000), slice(1000, 1797)
n = 1000


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))


# %% [markdown]
# ## What does the loop you have believe?

# %%
model = network()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
br.explain(optimizer, model, num_data=n)

# %% [markdown]
# Findings come in the order of how much of the prior they change.
# The decay is a Gaussian of standard deviation 1.4 on everything, biases and batch-norm scales too, and it is far
# wider than the weights.
# Say what you mean instead:

# %%
prior = br.ModelPrior(
    model,
    {
        br.biases | br.norms: br.Flat(),
        "0.weight": br.Laplace(0.1),  # few pixels should matter to a unit
        "*": br.Gaussian(0.3),
    },
)
prior.describe(num_data=n)

# %% [markdown]
# ## The line
#
# The loop stays as it is: accumulation, schedulers, GradScaler and compiled models work as before.
# Only a loop that clips gradients has a word more to say, which is below among the traps.

# %%
optimizer = torch.optim.Adam(prior.param_groups(), lr=3e-3)
handle = br.attach(optimizer, prior, num_data=n)  # <- the line
history = []
for _ in range(30):
    for rows in torch.randperm(n).split(100):
        optimizer.zero_grad()
        F.cross_entropy(model(X[train][rows]), y[train][rows]).backward()
        optimizer.step()
    history.append(handle.log()["penalty_in_loss"])
handle.describe()

# %% [markdown]
# The Laplace prior goes by proximal steps in Adam's own metric, so its zeros are exact; the Gaussian by the
# optimizer's own decay.
# Where the weights are now, against what was believed of them:

# %% alt="Layer by layer, grey where the prior expects weights and orange where they are"
ax = prior.plot()
plt.show()

# %% alt="The prior's share of the loss over thirty epochs"
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.plot(range(1, 31), history, color="#1b3a57", marker="o", ms=3)
ax.set(xlabel="epoch", ylabel="prior's share of the loss, nats")
print(br.sparsity.zeros(prior))

# %% [markdown]
# ## Keep it, and resume
#
# A prior is saved by itself; the optimizer's state needs nothing special.
# After a restart: build, attach, load.

# %%
folder = Path(tempfile.mkdtemp())
prior.save(folder / "prior.safetensors")
torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "checkpoint.pt")

resumed = network()
resumed_prior = br.ModelPrior.load(folder / "prior.safetensors", resumed)
resumed_optimizer = torch.optim.Adam(resumed_prior.param_groups(), lr=3e-3)
br.attach(resumed_optimizer, resumed_prior, num_data=n)
checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
resumed.load_state_dict(checkpoint["model"])
resumed_optimizer.load_state_dict(checkpoint["optimizer"])
print("same log-prior after the restart:", bool(torch.equal(resumed_prior.log_prob(), prior.log_prob())))

# %% [markdown]
# ## Every trap, measured
#
# A small regression whose MAP is known.
# At the MAP the gradient of the loss balances the prior, g = −λw, so −g·w/(λ w·w) says which multiple of the prior
# is really in effect: 1 is right, 0 means that it was lost.

# %%
generator = torch.Generator().manual_seed(2)
A = torch.randn(60, 4, generator=generator, dtype=torch.float64)
b = A @ torch.tensor([2.0, -1.0, 0.7, 0.1]).double() + torch.randn(60, generator=generator, dtype=torch.float64)
LAM = 0.3
SIGMA = br.weight_decay_to_variance(LAM, len(b)) ** 0.5


def loss(model, rows=slice(None)):
    return 0.5 * (model(A[rows])[:, 0] - b[rows]).square().mean()


def strength(model):
    (g,) = torch.autograd.grad(loss(model), [model.weight])
    w = model.weight.detach()
    return float(-(g * w).sum() / (LAM * (w * w).sum()))


# %% [markdown]
# A loop in three pieces: what is built, a step, and 1,500 of them.
# Each trap changes one of the pieces, and is run twice: as people write it, and with the prior attached.

# %%
results = {}


def fresh(make, *, attach=False, **options):
    """Return a model, its optimizer, and the handle of a prior on it."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1, bias=False).double()
    optimizer = make(model.parameters())
    prior = br.ModelPrior(model, br.Gaussian(SIGMA))
    return model, optimizer, br.attach(optimizer, prior, num_data=len(b), **options) if attach else None


def plain(model, optimizer, _):
    optimizer.zero_grad()
    loss(model).backward()
    optimizer.step()


def settled(built, step=plain, steps=1_500):
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(built[1], steps, eta_min=1e-6)
    for _ in range(steps):
        step(*built)
        schedule.step()
    return strength(built[0])


def sgd(parameters, **keywords):
    return torch.optim.SGD(parameters, lr=0.05, **keywords)


# %% [markdown]
# `weight_decay` in SGD is right.
# A penalty without its ½ is twice as strong.


# %%
def with_penalty(model, optimizer, _):
    optimizer.zero_grad()
    (loss(model) + LAM * model.weight.square().sum()).backward()
    optimizer.step()


attached = settled(fresh(sgd, attach=True))
results["weight_decay in SGD"] = settled(fresh(lambda p: sgd(p, weight_decay=LAM))), attached
results["λ‖w‖² in the loss, without the ½"] = settled(fresh(sgd), with_penalty), attached

# %% [markdown]
# Two optimizers whose decay is another one: AdamW's is no Gaussian, and ASGD has a second, hidden decay, `lambd`.

# %%
results["AdamW, full batches"] = (
    settled(fresh(lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=LAM))),
    settled(fresh(lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.0), attach=True)),
)
results["ASGD, lambd beside weight_decay"] = (
    settled(fresh(lambda p: torch.optim.ASGD(p, lr=0.05, weight_decay=LAM, lambd=LAM, t0=10**9))),
    settled(fresh(lambda p: torch.optim.ASGD(p, lr=0.05, lambd=0.0, t0=10**9), attach=True)),
)


# %% [markdown]
# Clipping before the decay shrinks the data's share and not the prior's.
# With `before_clip=True` and `handle.apply_()` the prior comes first.


# %%
def clipping(model, optimizer, handle):
    optimizer.zero_grad()
    loss(model).backward()
    if handle is not None:
        handle.apply_()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()


results["clip to 0.1, then weight_decay"] = (
    settled(fresh(lambda p: sgd(p, weight_decay=LAM)), clipping, 4_000),
    settled(fresh(sgd, attach=True, before_clip=True), clipping, 4_000),
)


# %% [markdown]
# A hook that adds λw before the step is lost where a closure makes the gradients inside the step.


# %%
def hand_written_hook(parameters):
    optimizer = sgd(list(parameters))

    @torch.no_grad()
    def hook(*_):
        for p in optimizer.param_groups[0]["params"]:
            if p.grad is not None:
                p.grad.add_(p, alpha=LAM)

    optimizer.register_step_pre_hook(hook)
    return optimizer


def with_closure(model, optimizer, _):
    def gradients():
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        return value

    optimizer.step(gradients)


results["a hook and step(closure)"] = (
    settled(fresh(hand_written_hook), with_closure), settled(fresh(sgd, attach=True), with_closure)
)  # fmt: skip


# %% [markdown]
# A hook on the gradient adds λw once for every micro-batch.


# %%
def gradient_hook(parameters):
    def hook(p):
        p.grad.add_(p.detach(), alpha=LAM)

    parameters = list(parameters)
    for p in parameters:
        p.register_post_accumulate_grad_hook(hook)
    return sgd(parameters)


def four_pieces(model, optimizer, _):
    optimizer.zero_grad()
    for piece in range(4):
        (loss(model, slice(piece, None, 4)) / 4).backward()
    optimizer.step()


results["a gradient hook, 4 micro-batches"] = (
    settled(fresh(gradient_hook), four_pieces), settled(fresh(sgd, attach=True), four_pieces)
)  # fmt: skip

# %% [markdown]
# And all of them side by side.

# %%
print(f"{'':38s}{'as written':>12s}{'with attach':>13s}")
for name, (without, with_it) in results.items():
    print(f"{name:38s}{without:12.2f}{with_it:13.2f}")
    assert abs(with_it - 1) < 1e-3

# %% alt="For each way of writing the loop, the strength in effect: bars as written, diamonds with br.attach at 1"
figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
for row, (without, with_it) in enumerate(results.values()):
    ax.barh(row, max(without, 1e-2), color="#c2571a", height=0.55, hatch="//" if abs(without - 1) > 0.05 else "")
    ax.plot(with_it, row, "D", color="#1b3a57", ms=7)
ax.axvline(1.0, color="0.4", lw=1, ls=":")
ax.set_yticks(range(len(results)), list(results))
ax.invert_yaxis()
ax.set(xscale="log", xlabel="strength of the prior in effect (bar: as written; diamond: with br.attach)")
plt.show()

# %% [markdown]
# Others do not end in a number, they end in an error that says what to write.
# Three of them:

# %%
model = nn.Linear(4, 1).double()
prior = br.ModelPrior(model, br.Gaussian(SIGMA))
attempts = {
    "decay on top of the prior": lambda: br.attach(sgd(model.parameters(), weight_decay=LAM), prior, num_data=60),
    "a parameter in no group": lambda: br.attach(sgd([model.bias]), prior, num_data=60),
    "converting AdamW's decay": lambda: br.weight_decay_to_variance(0.01, 60, optimizer="adamw"),
}
for name, attempt in attempts.items():
    try:
        attempt()
    except br.BayesRegError as error:
        print(f"{name}:\n{textwrap.fill(str(error), 100, initial_indent='    ', subsequent_indent='    ')}\n")

# %% [markdown]
# And one that is only a matter of numbers: half precision.
# lr·λ = 5e-6 is less than bfloat16 can resolve, so the decay alone never moves a weight.
# bayesreg warns; mixed precision by autocast, which keeps float32 weights, is fine.

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    half = nn.Linear(4, 1, bias=False).bfloat16()
    optimizer = torch.optim.SGD(half.parameters(), lr=0.01)
    br.attach(optimizer, br.ModelPrior(half, br.Gaussian.from_weight_decay(5e-4, 60)), num_data=60)
    before = half.weight.detach().clone()
    for _ in range(1000):
        half.weight.grad = torch.zeros_like(half.weight)
        optimizer.step()
print("moved by 1,000 steps of decay:", float((half.weight.detach() - before).abs().max()))
print(textwrap.fill(str(caught[0].message), 100))

# %% [markdown]
# All traps, with the numbers of a plain attempt and of the same with bayesreg, are in
# [docs/traps.md](../docs/traps.md), and each is a test.
#
# ## Take home
#
# - `br.explain` before, `br.attach` after.
#   The loop does not change.
# - `handle.describe()` says by which route, `handle.log()` what the prior costs, `prior.plot()` where the weights are.
# - Clip after the prior: `before_clip=True` and `handle.apply_()`.
