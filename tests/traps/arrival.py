"""Traps between the prior and the weights: gradients taken elsewhere, clips, rounding, other optimizers, odd models."""

from __future__ import annotations

import contextlib
import copy
import math
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer
from torch.utils.data import DataLoader, Sampler, TensorDataset

import bayesreg as br
from tests.traps.base import (
    DECAY,
    SCALE,
    Measured,
    N,
    P,
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


def attach(model, optimizer, **how):
    return br.attach(optimizer, prior_of(model), num_data=N, **how)


# -- the pull does not arrive ------------------------------------------------------------------------------------


@trap("centre-rounding", "λθ and −λθ₀ added to the gradient one after the other, AdamW, weights on their centre θ₀",
      "the difference first: 0 to the bit", "move of a weight in one step without data, in learning rates")  # fmt: skip
def centre_rounding():
    def run(ours):
        torch.manual_seed(0)
        model = nn.Linear(50, 40, bias=False)
        centre = model.weight.detach().clone()
        optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
        model.weight.grad = torch.zeros_like(model.weight)
        if ours:
            prior = br.ModelPrior(model, {"*": br.Gaussian.centered_at({"weight": centre}, scale=0.005)})
            br.attach(optimizer, prior, num_data=1234)
        else:
            strong = 1.0 / (1234 * 0.005**2)
            model.weight.grad.add_(centre, alpha=-strong).add_(model.weight.detach(), alpha=strong)
        optimizer.step()
        return float((model.weight.detach() - centre).abs().max() / 1e-3)

    return Measured(run(False), run(True), right=0.0)


class TakesGradientsInBackward(Optimizer):
    """Takes each gradient as it is accumulated."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, {"lr": lr})
        self.taken = {}
        for p in self.param_groups[0]["params"]:
            p.register_post_accumulate_grad_hook(lambda p: self.taken.update({p: p.grad.clone()}))

    @torch.no_grad()
    def step(self, closure=None):
        for p, grad in self.taken.items():
            p.add_(grad, alpha=-self.param_groups[0]["lr"])


class OnSphere(torch.optim.SGD):
    """Holds the norm of matrices."""

    @torch.no_grad()
    def step(self, closure=None):
        weights = self.param_groups[0]["params"]
        norms = [p.norm() for p in weights]
        super().step(closure)
        for p, norm in zip(weights, norms, strict=True):
            p.mul_(norm / p.norm())


@trap("gradients-before-step", "a pre-step hook on an optimizer that takes its gradients before `step()`, as IVON does",
      "at `attach` or at the first step, with the way on")  # fmt: skip
def gradients_before_step():
    model = model_of()
    optimizer = TakesGradientsInBackward(list(model.parameters()))
    naive_hook(optimizer)
    train(model, optimizer)
    fresh = model_of()
    return Measured(
        strength(model), raised=said(lambda: attach(fresh, TakesGradientsInBackward(list(fresh.parameters()))))
    )


@trap("held-norm", "a pre-step hook on an optimizer that holds the norm of matrices fixed",
      "at `attach`; where the loop does it, `br.HeldNormWarning`",
      "share of the shrinkage that λ asks for that is left")  # fmt: skip
def held_norm():
    model = model_of()
    before = float(model.weight.detach().norm())
    optimizer = OnSphere(model.parameters(), lr=0.05)
    naive_hook(optimizer)
    for _ in range(200):
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step()
    left = math.log(float(model.weight.detach().norm()) / before) / (200 * math.log1p(-0.05 * DECAY))
    fresh = model_of()
    return Measured(left, raised=said(lambda: attach(fresh, OnSphere(fresh.parameters(), lr=0.05))))


@trap("averaged-zeros", "soft-thresholding in the step, and weights averaged between steps (Lookahead)",
      "`br.ZerosLostWarning`", "exact zeros, of 9")  # fmt: skip
def averaged_zeros():
    g = torch.Generator().manual_seed(4)
    X = torch.randn(50, 12, generator=g, dtype=torch.float64)
    truth = torch.tensor([2.0, -1.0, 0.8] + 9 * [0.0], dtype=torch.float64)
    y = X @ truth + 0.5 * torch.randn(50, generator=g, dtype=torch.float64)
    model = nn.Linear(12, 1, bias=False).double()

    def run():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        br.attach(optimizer, br.ModelPrior(model, {"*": br.Laplace(1.0 / (50 * 0.2))}), num_data=50)
        slow = model.weight.detach().clone()
        for step in range(400):
            optimizer.zero_grad()
            (0.5 * (model(X)[:, 0] - y).square().mean()).backward()
            optimizer.step()
            if step % 5 == 4:
                slow.lerp_(model.weight.detach(), 0.5)
                model.weight.data.copy_(slow)

    raised = said(run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run()
    return Measured(int((model.weight == 0).sum()), raised=raised, right=9)


def _half(prior, **how):
    """Return the mean move in 200 bfloat16 steps with a zero gradient."""
    torch.manual_seed(0)
    model = nn.Linear(40, 40, bias=False)
    nn.init.normal_(model.weight, std=0.3)
    if not how.pop("wide", False):
        model.bfloat16()
    before = model.weight.detach().float().clone()
    whole = br.ModelPrior(model, {"*": prior})
    optimizer = torch.optim.SGD(whole.param_groups(), lr=0.1)
    br.attach(optimizer, whole, num_data=50_000, **how)
    for _ in range(200):
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step()
    return float((model.weight.detach().float() - before).abs().mean())


@trap("half-precision", "a Student-t in bfloat16: its pull is smaller than the weights can resolve",
      "`br.RoundingWarning`; `float32_master=True` lets it arrive", "share of the move in float32")  # fmt: skip
def half_precision():
    prior = br.StudentT(4.0, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lost = _half(prior) / _half(prior, wide=True)
    kept = _half(prior, float32_master=True) / _half(prior, wide=True)
    assert 0.95 < kept < 1.05
    return Measured(lost, raised=said(lambda: _half(prior)))


@trap("float16-overflow", "a strong centred Gaussian on float16 weights: λ(θ − θ₀) is more than 65504",
      "at the first step", "share of the weights that become NaN")  # fmt: skip
def float16_overflow():
    def run(ours):
        model = nn.Linear(8, 8, bias=False).half()
        optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
        model.weight.grad = torch.zeros_like(model.weight)
        if ours:
            br.attach(
                optimizer, br.ModelPrior(model, {"*": br.Gaussian((1.0 / (100 * 6e4)) ** 0.5, loc=2.0)}), num_data=100
            )
        else:
            model.weight.grad.add_(model.weight.detach() - 2.0, alpha=6e4)
        optimizer.step()
        return float(model.weight.isnan().float().mean())

    return Measured(run(False), raised=said(lambda: run(True)), right=0.0)


# -- the loop ----------------------------------------------------------------------------------------------------


@trap("unnoticed-clip", "`clip_grad_norm_(…, 0.1)` between `backward()` and a pre-step hook",
      "`br.ClipAfterPriorWarning`, once, with the level found")  # fmt: skip
def unnoticed_clip():
    def run(put):
        model = model_of()
        optimizer = sgd(model)
        put(model, optimizer)
        return strength(train(model, optimizer, before_step=lambda: nn.utils.clip_grad_norm_(model.parameters(), 0.1)))

    return Measured(run(lambda _, optimizer: naive_hook(optimizer)), raised=said(lambda: run(attach)))


@trap("failed-step", "a pre-step hook, a step that fails (out of memory) and is tried again on the same gradients",
      "the prior is in them already", "how often the prior is in that step")  # fmt: skip
def failed_step():
    def run(put):
        model = model_of()
        optimizer = sgd(model)
        put(model, optimizer)
        failing = [True]

        def fail(*_):
            if failing[0]:
                raise MemoryError

        optimizer.register_step_pre_hook(fail)
        before = model.weight.detach().clone()
        model.weight.grad = torch.zeros_like(model.weight)
        for failing[0] in (True, False):
            with contextlib.suppress(MemoryError):
                optimizer.step()
        moved = (before - model.weight.detach()) / (0.05 * DECAY * before)
        return float(moved.mean())

    def ours(model, optimizer):
        attach(model, optimizer, route="gradient")

    return Measured(run(lambda _, optimizer: naive_hook(optimizer)), run(ours))


@trap("unfrozen", "layers frozen when the optimizer was built from the trainable ones, and unfrozen later",
      "at the step, with the line that adds them", "share of the unfrozen weights that move")  # fmt: skip
def unfrozen():
    def run(put):
        model = nn.Sequential(nn.Linear(P, 3), nn.Linear(3, 1)).double()
        model[0].requires_grad_(False)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
        put(model, optimizer)
        model[0].requires_grad_(True)
        before = model[0].weight.detach().clone()
        loss_of(model).backward()
        optimizer.step()
        return float((before != model[0].weight).double().mean())

    return Measured(run(lambda *_: None), raised=said(lambda: run(attach)))


@trap("rebuilt-optimizer", "a framework builds the optimizer again (skorch's `fit`), without the hook",
      "`br.OtherOptimizerWarning`; in turns with the first one it raises")  # fmt: skip
def rebuilt_optimizer():
    def run(put):
        model = model_of()
        first = sgd(model)
        put(model, first)
        return strength(train(model, sgd(model)))

    return Measured(run(lambda _, optimizer: naive_hook(optimizer)), raised=said(lambda: run(attach)))


@trap("resume-other-rules", "`load_state_dict` where other rules made the param groups: states go by position",
      "they go by name", "share of the moments on their own parameters")  # fmt: skip
def resume_other_rules():
    def made(pattern, ours):
        torch.manual_seed(0)
        model = nn.ModuleDict({name: nn.Linear(P, P, bias=False) for name in "abcd"}).double()
        prior = br.ModelPrior(model, {pattern: br.Gaussian(SCALE), "*": br.Gaussian(2.0 * SCALE)})
        optimizer = Adam(prior.param_groups(), lr=1e-3)
        if ours:
            br.attach(optimizer, prior, num_data=N)
        return model, optimizer

    def run(ours):
        model, optimizer = made("[ab].*", ours)
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, float(number + 1))
        optimizer.step()
        other, resumed = made("[ac].*", ours)
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        pairs = zip(model.parameters(), other.parameters(), strict=True)
        right = [torch.equal(optimizer.state[p]["exp_avg"], resumed.state[q]["exp_avg"]) for p, q in pairs]
        return sum(right) / len(right)

    return Measured(run(False), run(True))


class HalfOfThem(Sampler):
    """Batches of one's own that leave half of the examples out."""

    def __iter__(self):
        return iter([[index, index + 1] for index in range(0, N // 2, 2)])

    def __len__(self):
        return N // 4


@trap("batch-sampler", "`num_data=len(dataset)` where a batch sampler uses a part of it",
      "asks for `num_data` there", "n taken, of the examples that are used")  # fmt: skip
def batch_sampler():
    X, y = problem()
    loader = DataLoader(TensorDataset(X, y[:, None]), batch_sampler=HalfOfThem())
    used = len({index for batch in HalfOfThem() for index in batch})
    trainer = br.MAPTrainer(
        model_of(), {"*": br.Gaussian(SCALE)}, br.likelihoods.Gaussian(1.0), max_epochs=1, progress=False
    )
    return Measured(len(loader.dataset) / used, raised=said(lambda: trainer.fit(loader)))


# -- what the prior is on ------------------------------------------------------------------------------------------


class HandWrittenNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(P).double())

    def forward(self, x):
        return x * x.square().mean(-1, keepdim=True).add(1e-6).rsqrt() * self.gain


@trap("hand-written-norm", "`weight_decay` on all but torch's own norms and what is called bias",
      "one prior for a model is on matrices and kernels",
      "strength of the prior on the gain of an RMSNorm")  # fmt: skip
def hand_written_norm():
    def pull(model, optimizer):
        before = model[0].gain.detach().clone()
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        return float(((before - model[0].gain.detach()) / (0.05 * DECAY * before)).mean())

    plain = nn.Sequential(HandWrittenNorm(), model_of(bias=True))
    decayed = [p for name, p in plain.named_parameters() if not name.endswith("bias")]
    without = pull(plain, torch.optim.SGD(decayed, lr=0.05, weight_decay=DECAY))
    ours = nn.Sequential(HandWrittenNorm(), model_of(bias=True))
    optimizer = sgd(ours)
    br.attach(optimizer, br.ModelPrior(ours, br.Gaussian(SCALE)), num_data=N)
    return Measured(without, pull(ours, optimizer), right=0.0)


@trap("frozen-rows", "rows of an embedding frozen by a mask on the gradient, and `weight_decay`",
      "a tensor `scale` that is inf there is flat there", "strength of the prior on the frozen rows")  # fmt: skip
def frozen_rows():
    def run(ours):
        table = nn.Embedding(5, 3).double()
        optimizer = torch.optim.SGD(table.parameters(), lr=0.05, weight_decay=0.0 if ours else DECAY)
        if ours:
            scale = torch.full((5, 1), SCALE, dtype=torch.float64)
            scale[:4] = math.inf
            br.attach(optimizer, br.ModelPrior(table, {"*": br.Gaussian(scale)}), num_data=N)
        before = table.weight.detach().clone()
        table.weight.grad = torch.ones_like(table.weight)
        table.weight.grad[:4] = 0.0
        optimizer.step()
        return float(((before - table.weight.detach()) / (0.05 * DECAY * before))[:4].mean())

    return Measured(run(False), run(True), right=0.0)


@trap("tied-by-data", "weights tied by `b.weight.data = a.weight.data`: two parameters, one memory",
      "when the prior is made", "share of the true penalty")  # fmt: skip
def tied_by_data():
    model = nn.Sequential(nn.Linear(P, P, bias=False), nn.Linear(P, P, bias=False))
    model[1].weight.data = model[0].weight.data
    true = float(0.5 * model[0].weight.detach().square().sum())
    counted = sum(float(0.5 * p.detach().square().sum()) for p in model.parameters())
    return Measured(counted / true, raised=said(lambda: br.ModelPrior(model, br.Gaussian(1.0))))


@trap("two-sets-of-weights", "a checkpoint with plain and averaged (EMA) weights, as timm writes it, as the centre",
      "and names both", "distance of the centre from the averaged weights")  # fmt: skip
def two_sets_of_weights():
    state = model_of().state_dict()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "both.pt")
        torch.save({"state_dict": state, "state_dict_ema": {name: held + 1 for name, held in state.items()}}, path)
        read = torch.load(path, weights_only=True)["state_dict"]
        away = max(float((held - (state[name] + 1)).abs().max()) for name, held in read.items())
        return Measured(away, raised=said(lambda: br.load_reference(path)), right=0.0)


@trap("inputs-first", "He's variance 2/shape[1] on a layer that stores (inputs, outputs), as transposed ones do",
      "the layer is asked", "variance, relative to 2/inputs")  # fmt: skip
def inputs_first():
    layer = nn.ConvTranspose1d(8, 32, 1)
    prior = br.ModelPrior(layer, br.FanInGaussian.he())
    return Measured((2 / layer.weight.shape[1]) / (2 / 8), float(prior["weight"].variance()) / (2 / 8))


@trap("large-sum", "log p of ten million weights summed in float32",
      "summed in float64", "smallest change of it that is seen, in nats")  # fmt: skip
def large_sum():
    torch.manual_seed(0)
    model = nn.Linear(2500, 4000, bias=False)
    nn.init.normal_(model.weight, std=0.02)
    plain = 0.5 * (model.weight.detach() / 0.02).square().sum()
    ours = br.ModelPrior(model, br.Gaussian(0.02)).penalty().detach()
    above = [float(torch.nextafter(held, torch.full_like(held, math.inf)) - held) for held in (plain, ours)]
    return Measured(*above, right=0.0)
