"""Traps of strength, sparsity and the life of an optimizer."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

import bayesreg as br
from tests.traps.base import (
    DECAY,
    SCALE,
    STEPS,
    Measured,
    N,
    P,
    attached,
    loss_of,
    model_of,
    naive_hook,
    prior_of,
    problem,
    said,
    sgd,
    strength,
    train,
    trap,
)  # fmt: skip

# -- the strength is another one ------------------------------------------------------------------------------------


@trap("missing-half", "λ‖w‖² in the loss, taken for `weight_decay=λ`", "`br.l2_coefficient_to_variance` knows the ½")
def missing_half():
    def by_hand(coefficient):
        model = model_of()
        optimizer = sgd(model)
        for _ in range(STEPS):
            optimizer.zero_grad()
            (loss_of(model) + coefficient * model.weight.square().sum()).backward()
            optimizer.step()
        return strength(model)

    return Measured(by_hand(DECAY), by_hand(br.variance_to_l2_coefficient(SCALE**2, N)))


@trap("decoupled-decay", "`AdamW(weight_decay=λ)`, full batches",
      "Adam's decay, by the group's flag; a decay of its own is refused")  # fmt: skip
def decoupled_decay():
    model = model_of()
    train(model, torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=DECAY))
    return Measured(strength(model), attached(lambda m: torch.optim.AdamW(m.parameters(), lr=0.05, weight_decay=0.0)))


@trap("decoupled-momentum", "SGD with momentum 0.9, weights shrunk by 1 − lr·λ beside the step",
      "native decay; the decoupled route only by name, and it says what it is")  # fmt: skip
def decoupled_momentum():
    model = model_of()
    optimizer = sgd(model, momentum=0.9)

    def shrink():
        with torch.no_grad():
            model.weight.mul_(1.0 - optimizer.param_groups[0]["lr"] * DECAY)

    return Measured(strength(train(model, optimizer, before_step=shrink)), attached(lambda m: sgd(m, momentum=0.9)))


@trap("hidden-lambd", "`ASGD(weight_decay=1e-4)`: its default `lambd=1e-4` is a second decay",
      "until `lambd=0`; `explain` counts both")  # fmt: skip
def hidden_lambd():
    model = model_of()
    optimizer = torch.optim.ASGD(model.parameters(), weight_decay=1e-4)
    found = br.explain(optimizer, model, num_data=N).groups[0].weight_decay
    raised = said(lambda: br.attach(torch.optim.ASGD(model.parameters()), prior_of(model), num_data=N))
    # Measured, not read: the decay per step at a zero gradient, relative to lr · weight_decay.
    with torch.no_grad():
        model.weight.fill_(1.0)
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    shrunk = (1.0 - model.weight[0, 0].item()) / (0.01 * 1e-4)
    assert abs(found / 1e-4 - shrunk) < 1e-3
    return Measured(shrunk, raised=raised)


@trap("clip-before-decay", "`clip_grad_norm_(…, 0.1)`, then native `weight_decay`",
      "`before_clip=True` and `handle.apply_()`: prior first, then the clip")  # fmt: skip
def clip_before_decay():
    def clipped(model):
        return lambda: nn.utils.clip_grad_norm_(model.parameters(), 0.1)

    one, two = model_of(), model_of()
    train(one, sgd(one, weight_decay=DECAY), before_step=clipped(one))
    optimizer = sgd(two)
    handle = br.attach(optimizer, prior_of(two), num_data=N, before_clip=True)

    def prior_then_clip():
        handle.apply_()
        nn.utils.clip_grad_norm_(two.parameters(), 0.1)

    return Measured(strength(one), strength(train(two, optimizer, before_step=prior_then_clip)))


@trap("amp-scaled-gradients", "a pre-step hook, a fused optimizer, a GradScaler: gradients are still scaled by 65536",
      "the prior is scaled alike")  # fmt: skip
def amp_scaled_gradients():
    def run(attach):
        model = model_of()
        optimizer = sgd(model, fused=True)
        attach(model, optimizer)
        scaler = torch.amp.GradScaler("cpu", growth_interval=10**6)
        for _ in range(STEPS):
            optimizer.zero_grad()
            scaler.scale(loss_of(model)).backward()
            scaler.step(optimizer)
            scaler.update()
        return strength(model)

    return Measured(run(lambda _, o: naive_hook(o)), run(lambda m, o: br.attach(o, prior_of(m), num_data=N)))


@trap("closure", "a pre-step hook and `step(closure)`, as Lightning calls it: the closure makes new gradients after it",
      "the closure is wrapped")  # fmt: skip
def closure():
    def run(attach):
        model = model_of()
        optimizer = sgd(model)
        attach(model, optimizer)

        def make():
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()
            return loss

        for _ in range(STEPS):
            optimizer.step(make)
        return strength(model)

    return Measured(run(lambda _, o: naive_hook(o)), run(lambda m, o: br.attach(o, prior_of(m), num_data=N)))


@trap("line-search-value", "L-BFGS with the prior's gradient in the closure, but not its value", "value and gradient",
      "distance to the MAP, worst of 5 starts")  # fmt: skip
def line_search_value():
    """The search compares values along a line on which only the gradient knows of the prior, and stops anywhere."""
    X, y = problem()
    strong = 10 * DECAY
    exact = torch.linalg.solve(X.T @ X / N + strong * torch.eye(P).double(), X.T @ y / N)

    def run(by_bayesreg, start):
        torch.manual_seed(start)
        model = nn.Linear(P, 1, bias=False).double()
        tight = {"tolerance_grad": 1e-12, "tolerance_change": 0.0}
        optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe", max_iter=20, **tight)
        if by_bayesreg:
            br.attach(optimizer, br.ModelPrior(model, {"*": br.Gaussian.from_weight_decay(strong, N)}), num_data=N)

        def make():
            optimizer.zero_grad()
            loss = loss_of(model)
            (loss if by_bayesreg else loss + 0.5 * strong * model.weight.square().sum()).backward()
            return loss

        for _ in range(10):
            optimizer.step(make)
        return float((model.weight.detach()[0] - exact).norm() / exact.norm())

    return Measured(*(max(run(by_bayesreg, start) for start in range(5)) for by_bayesreg in (False, True)), right=0.0)


@trap("maximize", "a pre-step hook with `maximize=True`", "the sign follows the optimizer")
def maximize():
    model = model_of()
    optimizer = sgd(model, maximize=True)
    naive_hook(optimizer)
    train(model, optimizer, sign=-1.0)
    return Measured(strength(model), attached(lambda m: sgd(m, maximize=True), sign=-1.0))


@trap("accumulation", "a `register_post_accumulate_grad_hook`, 4 micro-batches per step", "once per step")
def accumulation():
    def run(attach):
        model = model_of()
        optimizer = sgd(model)
        attach(model, optimizer)
        for _ in range(STEPS):
            optimizer.zero_grad()
            for part in range(4):
                (loss_of(model, slice(part * 15, part * 15 + 15)) / 4).backward()
            optimizer.step()
        return strength(model)

    def naive(model, _):
        def hook(p):
            with torch.no_grad():
                p.grad.add_(p, alpha=DECAY)

        model.weight.register_post_accumulate_grad_hook(hook)

    return Measured(run(naive), run(lambda m, o: br.attach(o, prior_of(m), num_data=N)))


@trap("ignored-decay", "`weight_decay` in a param group of Rprop or L-BFGS, which never look at it",
      "the gradient route; the key is refused")  # fmt: skip
def ignored_decay():
    model = model_of()
    group = [{"params": list(model.parameters()), "weight_decay": DECAY}]
    train(model, torch.optim.Rprop(group), schedule=False, steps=300)
    with_ = attached(lambda m: torch.optim.Rprop(m.parameters()), schedule=False, steps=300)
    return Measured(strength(model), with_)


@trap("decay-on-top", "a prior in the loss and `weight_decay=λ` in the optimizer", "at `attach`")
def decay_on_top():
    model = model_of()
    optimizer = sgd(model, weight_decay=DECAY)
    naive_hook(optimizer)
    train(model, optimizer)
    return Measured(
        strength(model),
        raised=said(lambda: br.attach(sgd(model, weight_decay=DECAY), prior_of(model), num_data=N)),
    )


@trap("tied-twice", "a loop over `named_parameters(remove_duplicate=False)` on tied weights", "tied weights count once",
      "share of the true log-prior")  # fmt: skip
def tied_twice():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).double()
    model[1].weight = model[0].weight
    true = 0.5 * (model[0].weight / SCALE).square().sum()
    naive = sum(0.5 * (p / SCALE).square().sum() for _, p in model.named_parameters(remove_duplicate=False))
    true, naive = true.detach(), naive.detach()
    return Measured(float(naive / true), float(prior_of(model).penalty().detach() / true))


@trap("biases-decayed", "`weight_decay` on `model.parameters()`", "a prior for a model is flat on biases and norms",
      "strength of the prior on the bias")  # fmt: skip
def biases_decayed():
    def run(make):
        model = model_of(bias=True)
        optimizer = make(model)
        X, y = problem()
        for _ in range(STEPS):
            optimizer.zero_grad()
            (0.5 * (model(X)[:, 0] - y - 3.0).square().mean()).backward()
            optimizer.step()
        slope = torch.autograd.grad(0.5 * (model(X)[:, 0] - y - 3.0).square().mean(), [model.bias])[0]
        return float(-slope / (DECAY * model.bias.detach()))

    def with_prior(model):
        prior = br.ModelPrior(model, br.Gaussian(SCALE))
        optimizer = torch.optim.SGD(prior.param_groups(), lr=0.05)
        br.attach(optimizer, prior, num_data=N)
        return optimizer

    return Measured(run(lambda m: sgd(m, weight_decay=DECAY)), run(with_prior), right=0.0)


@trap("scale-invariant", "reading `weight_decay` in front of a batch-norm as a belief about the function",
      "`explain` names the weights", "change of the output when the weights are tripled")  # fmt: skip
def scale_invariant():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(P, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)).double()
    X, _ = problem()
    with torch.no_grad():
        before = model(X)
        model[0].weight.mul_(3.0)
        change = float((model(X) - before).abs().max() / before.abs().max())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=DECAY)
    found = [f for f in br.explain(optimizer, model, num_data=N).findings if f.identifier == "scale-invariant"]
    return Measured(change, raised=str(found[0]), right=1.0)


@trap("rounding", "bfloat16 weights, lr·λ = 5e-6, 1000 steps with a zero gradient", "`br.RoundingWarning`",
      "share of the decay that happens")  # fmt: skip
def rounding():
    weights = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = torch.optim.SGD([weights], lr=1e-2, weight_decay=5e-4)
    for _ in range(1000):
        weights.grad = torch.zeros_like(weights)
        optimizer.step()

    def with_prior():
        model = nn.Linear(4, 1, bias=False).bfloat16()
        fresh = torch.optim.SGD(model.parameters(), lr=1e-2)
        br.attach(fresh, br.ModelPrior(model, br.Gaussian.from_weight_decay(5e-4, N)), num_data=N)
        for _ in range(3):
            model.weight.grad = torch.zeros_like(model.weight)
            fresh.step()

    return Measured(float((1.0 - weights.detach()[0]) / (1.0 - (1.0 - 5e-6) ** 1000)), raised=said(with_prior))


# -- sparsity ----------------------------------------------------------------------------------------------------------


def sparse_problem():
    g = torch.Generator().manual_seed(4)
    X = torch.randn(50, 12, generator=g, dtype=torch.float64)
    truth = torch.tensor([2.0, -1.0, 0.8] + 9 * [0.0], dtype=torch.float64)
    return X, X @ truth + 0.5 * torch.randn(50, generator=g, dtype=torch.float64)


L1 = 0.2


def sparse_run(make, after=None, *, before=None, clip=None, steps=4000):
    """Train lasso by hand (`after` is called after each step) or with bayesreg; return weights and the exact ones."""
    from sklearn.linear_model import Lasso

    X, y = sparse_problem()
    exact = torch.as_tensor(Lasso(alpha=L1, fit_intercept=False, tol=1e-14, max_iter=10**6).fit(X, y).coef_)
    torch.manual_seed(0)
    model = nn.Linear(12, 1, bias=False).double()
    optimizer = make(model)
    handle = None
    if after is None:
        prior = br.ModelPrior(model, {"*": br.Laplace(1.0 / (50 * L1))})
        handle = br.attach(optimizer, prior, num_data=50, before_clip=clip is not None)
    cooling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-6)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = 0.5 * (model(X)[:, 0] - y).square().mean()
        (loss + before(model) if before else loss).backward()
        if clip is not None:
            if handle is not None:
                handle.apply_()
            norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
            if handle is not None:
                handle.clipped(norm, clip)
        optimizer.step()
        if after:
            with torch.no_grad():
                after(model.weight, optimizer.param_groups[0])
        cooling.step()
    return model.weight.detach()[0], exact


def soft(weight, group):
    weight.copy_(F.softshrink(weight, group["lr"] * L1))


def distance(pair):
    found, exact = pair
    return float((found - exact).norm() / exact.norm())


@trap("subgradient", "λ‖w‖₁ in the loss", "proximal steps", "exact zeros, of 9")
def subgradient():
    naive, exact = sparse_run(lambda m: sgd(m), lambda *_: None, before=lambda m: L1 * m.weight.abs().sum())
    found, _ = sparse_run(lambda m: sgd(m))
    zeros = int((exact == 0).sum())
    return Measured(int((naive == 0).sum()), int((found == 0).sum()), right=zeros)


@trap("prox-step-size", "soft-thresholding by lr·λ after SGD with momentum 0.9",
      "the threshold follows the optimizer's real step", "distance to the lasso")  # fmt: skip
def prox_step_size():
    make = lambda m: sgd(m, momentum=0.9)  # noqa: E731
    return Measured(distance(sparse_run(make, soft)), distance(sparse_run(make)), right=0.0)


@trap("prox-adaptive", "soft-thresholding by lr·λ after Adam", "one threshold per coordinate, in Adam's metric",
      "distance to the lasso")  # fmt: skip
def prox_adaptive():
    make = lambda m: torch.optim.Adam(m.parameters(), lr=0.02)  # noqa: E731
    return Measured(distance(sparse_run(make, soft)), distance(sparse_run(make)), right=0.0)


@trap("prox-clip", "soft-thresholding after a clipped step",
      "`handle.clipped()` shrinks the threshold alike, else it raises",
      "distance to the lasso")  # fmt: skip
def prox_clip():
    return Measured(
        distance(sparse_run(lambda m: sgd(m), soft, clip=0.1)),
        distance(sparse_run(lambda m: sgd(m), clip=0.1)),
        right=0.0,
    )


@trap("prox-first-step", "the exact proximal step lr/(√v̂+ε) of Adam where no gradient has come yet",
      "capped at ten learning rates", "share of pretrained weights wiped by one step")  # fmt: skip
def prox_first_step():
    torch.manual_seed(0)
    table = nn.Embedding(100, 4)
    optimizer = torch.optim.Adam(table.parameters(), lr=1e-3)
    br.attach(optimizer, br.ModelPrior(table, {"*": br.Laplace(1.0)}), num_data=100_000)
    table(torch.arange(8)).square().sum().backward()
    naive = F.softshrink(table.weight.detach(), 1e-3 / 1e-8 / 100_000)
    optimizer.step()
    return Measured(float((naive[8:] == 0).float().mean()), float((table.weight[8:] == 0).float().mean()), right=0.0)


@trap("skipped-step", "a proximal step in a post-step hook, when a GradScaler skips a fused step for an overflow",
      "skipped too", "weights moved by the skipped step")  # fmt: skip
def skipped_step():
    def run(attach):
        model = model_of().float()
        optimizer = sgd(model, fused=True)
        attach(model, optimizer)
        before = model.weight.detach().clone()
        scaler = torch.amp.GradScaler("cpu")
        scaler.scale(model(torch.full((1, P), float("inf"))).sum()).backward()
        scaler.step(optimizer)
        return int((model.weight != before).sum())

    def naive(model, optimizer):
        def hook(*_):
            with torch.no_grad():
                model.weight.copy_(F.softshrink(model.weight, 0.05 * DECAY))

        optimizer.register_step_post_hook(hook)

    def ours(model, optimizer):
        br.attach(optimizer, br.ModelPrior(model, {"*": br.Laplace(1.0 / (N * DECAY))}), num_data=N)

    return Measured(run(naive), run(ours), right=0)


# -- the life of an optimizer ------------------------------------------------------------------------------------


@trap("lost-hooks", "`copy.deepcopy(optimizer)` (or a pickle) with a hook on it", "the copy does, at its next step")
def lost_hooks():
    model = model_of()
    optimizer = sgd(model)
    naive_hook(optimizer)
    model_copy, optimizer_copy = copy.deepcopy((model, optimizer))
    train(model_copy, optimizer_copy)

    def with_prior():
        fresh = model_of()
        attached_optimizer = sgd(fresh)
        br.attach(attached_optimizer, prior_of(fresh), num_data=N)
        copy.deepcopy((fresh, attached_optimizer))[1].step()

    return Measured(strength(model_copy), raised=said(with_prior))


@trap("resume-old-decay", "`load_state_dict` of a run on half the data brings its `weight_decay` back",
      "derived again from the prior that is attached")  # fmt: skip
def resume_old_decay():
    old = sgd(model_of(), weight_decay=2 * DECAY).state_dict()
    model = model_of()
    optimizer = sgd(model, weight_decay=DECAY)
    optimizer.load_state_dict(copy.deepcopy(old))
    train(model, optimizer)

    def make(fresh):
        made = sgd(fresh)
        br.attach(made, prior_of(fresh), num_data=N)
        made.load_state_dict(copy.deepcopy(old))
        return made

    with_model = model_of()
    return Measured(strength(model), strength(train(with_model, make(with_model))))


@trap("late-group", "`add_param_group` after a hook was set on the parameters", "the new group gets its prior")
def late_group():
    def run(attach):
        model = model_of()
        model.weight.requires_grad_(False)
        placeholder = nn.Parameter(torch.zeros(1).double())
        holder = nn.ModuleDict({"layer": model})
        holder.register_parameter("other", placeholder)
        optimizer = torch.optim.SGD([placeholder], lr=0.05)
        attach(holder, optimizer)
        model.weight.requires_grad_(True)
        optimizer.add_param_group({"params": [model.weight]})
        return strength(train(model, optimizer))

    return Measured(
        run(lambda _, o: naive_hook(o, params=list(o.param_groups[0]["params"]))),
        run(lambda m, o: br.attach(o, prior_of(m), num_data=N)),
    )


@trap("replaced-parameters", "`load_state_dict(assign=True)` after the optimizer was built: it trains unused tensors",
      "at the next step", "share of the weights that training still moves")  # fmt: skip
def replaced_parameters():
    def run(attach):
        model = model_of()
        optimizer = sgd(model)
        attach(model, optimizer)
        model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
        before = model.weight.detach().clone()
        loss_of(model).backward()
        optimizer.step()
        return float((model.weight != before).float().mean())

    return Measured(run(lambda *_: None), raised=said(lambda: run(lambda m, o: br.attach(o, prior_of(m), num_data=N))))


@trap("two-optimizers", "a hook on one of two optimizers that share a model (Muon and AdamW)",
      "`br.attach([first, second], prior, …)`; one alone is refused",
      "share of the tensors with their prior")  # fmt: skip
def two_optimizers():
    model = nn.Sequential(nn.Linear(P, 3), nn.Linear(3, 1)).double()
    prior = br.ModelPrior(model, {"*": br.Gaussian(SCALE)})
    first, second = torch.optim.SGD(model[0].parameters(), lr=0.1), torch.optim.Adam(model[1].parameters())
    seen = []
    naive_hook(first)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    before = [p.detach().clone() for p in model.parameters()]
    for optimizer in (first, second):
        optimizer.step()
    seen = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    raised = said(lambda: br.attach(first, prior, num_data=N))
    assert raised
    handle = br.attach([first, second], prior, num_data=N)
    counted = sum(len(g["parameters"]) for g in handle.log()["groups"] if g["route"] != "none")
    return Measured(sum(seen) / len(seen), counted / len(seen))


@trap("sparse-gradients", "a pre-step hook on an embedding with `sparse=True`",
      "at `attach`, with the layer's name",
      "steps taken before torch fails")  # fmt: skip
def sparse_gradients():
    model = nn.Embedding(5, 3, sparse=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    naive_hook(optimizer)
    model(torch.tensor([1])).sum().backward()
    taken = 0
    try:
        optimizer.step()
        taken += 1
    except RuntimeError:
        pass
    fresh = torch.optim.SGD(model.parameters(), lr=0.1)
    return Measured(taken, raised=said(lambda: br.attach(fresh, br.ModelPrior(model, br.Gaussian(1.0)), num_data=N)))
