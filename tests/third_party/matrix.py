"""Third-party optimizers with a prior attached, against the same penalty in the loss: `python -m tests.third_party`.

Each takes the same twelve float32 steps three times: with the prior attached, with its penalty in the loss, and without
a prior. What counts is the largest gap between the first two over the largest between the last two: 0 where the prior
arrives as the penalty does, 1 where it is lost. An optimizer that amplifies rounding is judged by how far a start that
differs in the last digit takes it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

import bayesreg as br
from bayesreg.optimizers import unwrap
from bayesreg.optimizers.arrival import arrivals
from tests.third_party.stand_in import put_in_place

__all__ = ["CASES", "Case", "Row", "measured", "missing", "toy_seconds"]

STEPS, N, RATE = 12, 100, 0.01
# Above it, and above what rounding explains, a prior does not arrive as the penalty in the loss does.
TOLERANCE = 1e-3

TIMM = """
adabelief adadelta adafactor adafactorbv adagrad adam adamax adamp adamw adan adopt adoptw cadamw claprop clion
cmars csgdw laprop lamb lars lion lookahead_adam lookahead_sgd madgrad madgradw mars momentum nadam nadamw novograd
radam rmsprop rmsproptf sgd sgdp sgdw
"""
PYTORCH_OPTIMIZER = """
a2grad accsgd adabound adai adalite adam adamc adamod adamp adams adanorm adapnm adashift
adasmooth ademamix adopt aggmo aida apollodqn avagrad came diffgrad exadam fira galore gravity grams lamb laprop lars
lion madgrad mars novograd padam pid pnm qhadam qhm racs ranger rmsprop scalableshampoo sgd sgdp sgdw shampoo sm3
stablespam swats tam tiger vsgd yogi nero
"""


@dataclass(frozen=True)
class Case:
    """One optimizer, or several that share the model."""

    library: str
    name: str
    build: Callable[[nn.Module], list[Optimizer]]
    #: How a step is taken: "plain", "closure", "in backward" or "two steps".
    how: str = "plain"
    #: A word of the error where it is refused for good.
    refused: str = ""
    #: What is different from the penalty in the loss, on purpose, and how large it may be.
    apart: str = ""
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Row:
    """What became of the prior."""

    verdict: str
    gap: float | None = None
    rounding: float | None = None


def missing() -> list[str]:
    """Return the libraries that are not installed."""
    wanted = ("timm", "pytorch_optimizer", "schedulefree", "prodigyopt", "lion_pytorch")
    return [name for name in wanted if importlib.util.find_spec(name) is None]


def _timm(name: str) -> Case:
    def build(model: nn.Module) -> list[Optimizer]:
        put_in_place()
        from timm.optim import create_optimizer_v2

        return [create_optimizer_v2(list(model.parameters()), opt=name, lr=RATE, weight_decay=0.0)]

    return Case("timm", name, build)


def _pytorch_optimizer(name: str) -> Case:
    def build(model: nn.Module) -> list[Optimizer]:
        import pytorch_optimizer

        cls = pytorch_optimizer.load_optimizer(name)
        try:
            return [cls(list(model.parameters()), lr=RATE, weight_decay=0.0)]
        except TypeError:
            return [cls(list(model.parameters()), **({} if name in ("a2grad",) else {"lr": RATE}))]

    return Case("pytorch_optimizer", name, build, refused="holds the norm" if name == "nero" else "")


def _by_import(library: str, module: str, name: str, **settings: Any) -> Case:
    def build(model: nn.Module) -> list[Optimizer]:
        cls = getattr(importlib.import_module(module), name)
        return [cls(list(model.parameters()), **settings)]

    return Case(library, name, build)


def _muon_and_adamw(model: nn.Module) -> list[Optimizer]:
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    return [torch.optim.Muon(matrices, lr=RATE, weight_decay=0.0), AdamW(vectors, lr=RATE, weight_decay=0.0)]


def _one_each(model: nn.Module) -> list[Optimizer]:
    return [SGD([p], lr=RATE) for p in model.parameters()]


class TwoSteps(Optimizer):
    """Sharpness-aware minimisation by hand: a step up, gradients there, a step back, and the inner optimizer's."""

    def __init__(self, params: Any, rho: float = 0.05) -> None:
        super().__init__(params, {"rho": rho, "lr": RATE})
        self.inner = SGD(self.param_groups, lr=RATE)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            closure()
        weights = [p for group in self.param_groups for p in group["params"]]
        moves = [self.param_groups[0]["rho"] * p.grad for p in weights]
        torch._foreach_add_(weights, moves)
        with torch.enable_grad():
            loss = closure()
        torch._foreach_sub_(weights, moves)
        self.inner.step()
        return loss


def _has_muon() -> list[Case]:
    if not hasattr(torch.optim, "Muon"):
        return []
    return [Case("torch", "Muon for matrices, AdamW for vectors", _muon_and_adamw)]


CASES: list[Case] = [
    *map(_timm, TIMM.split()),
    *map(_pytorch_optimizer, PYTORCH_OPTIMIZER.split()),
    *(_by_import("schedulefree", "schedulefree", name, lr=RATE)
      for name in ("SGDScheduleFree", "AdamWScheduleFree", "RAdamScheduleFree")),
    _by_import("prodigyopt", "prodigyopt", "Prodigy", weight_decay=0.0),
    _by_import("lion_pytorch", "lion_pytorch", "Lion", lr=RATE, weight_decay=0.0),
    *_has_muon(),
    Case("torch", "SGD in backward, one per parameter", _one_each, how="in backward"),
    Case("torch", "SAM in two steps around SGD", lambda model: [TwoSteps(model.parameters())], how="closure",
         apart="its step up follows the data loss alone", tolerance=0.1),
]  # fmt: skip


class _Model(nn.Module):
    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(6, 16), nn.Linear(16, 4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(1.0 + shift)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(x)))


def _prior(model: nn.Module) -> br.ModelPrior:
    return br.ModelPrior(model, {br.biases: br.Flat(), "body.*": br.Gaussian(0.1, loc=0.2), "*": br.StudentT(3.0, 0.1)})


def _batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        yield torch.randn(32, 6, generator=generator), torch.randn(32, 4, generator=generator)


def _run(case: Case, way: str, shift: float = 0.0) -> torch.Tensor:
    model = _Model(shift)
    prior = _prior(model)
    optimizers = case.build(model)
    for optimizer in optimizers:
        train = getattr(optimizer, "train", None)
        if callable(train):
            train()
    if way == "attached":
        br.attach(optimizers, prior, num_data=N)
    torch.manual_seed(7)
    if case.how == "in backward":
        for optimizer, parameter in zip(optimizers, model.parameters(), strict=True):
            parameter.register_post_accumulate_grad_hook(lambda _, optimizer=optimizer: (optimizer.step(), None)[1])
    for x, y in _batches():

        def backward(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            model.zero_grad()
            loss = (model(x) - y).square().mean()
            if way == "loss":
                loss = loss + prior.penalty() / N
            loss.backward()
            return loss.detach()

        if case.how == "closure":
            optimizers[0].step(backward)
            continue
        backward()
        if case.how != "in backward":
            for optimizer in optimizers:
                optimizer.step()
    for optimizer in optimizers:
        evaluate = getattr(optimizer, "eval", None)
        if callable(evaluate):
            evaluate()
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


def toy_seconds(case: Case) -> float | None:
    """Return how long the trial on a toy takes at `attach`, None where the optimizer cannot be built."""
    try:
        optimizers = case.build(_Model())
    except Exception:  # noqa: BLE001 (third-party code: whatever it raises is told)
        return None
    start = time.perf_counter()
    for optimizer in optimizers:
        arrivals(unwrap(optimizer))
    return time.perf_counter() - start


def measured(case: Case) -> Row:
    """Run one case.

    Args:
        case: The optimizer.

    Returns:
        Its row: "arrives", "arrives, to rounding", "LOST", or why it is refused or cannot run.
    """
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                plain, loss = _run(case, "none"), _run(case, "loss")
                again = _run(case, "loss", shift=6e-8)
            except Exception as error:  # noqa: BLE001 (third-party code: whatever it raises is told)
                return Row(f"cannot run: {type(error).__name__}")
            try:
                attached = _run(case, "attached")
            except br.BayesRegError as error:
                return Row(f"refused: {error}")
    finally:
        logging.disable(level)
    moved = float((plain - loss).abs().max())
    gap, rounding = float((attached - loss).abs().max()) / moved, float((again - loss).abs().max()) / moved
    if gap <= case.tolerance:
        return Row(f"arrives; {case.apart}" if case.apart else "arrives", gap, rounding)
    return Row("arrives, to rounding" if gap <= 10.0 * rounding and gap < 0.5 else "LOST", gap, rounding)
