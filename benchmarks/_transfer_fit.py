"""One fit of one method, and the ways of choosing a setting."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from _transfer_learned import EPSILON, FISHER, SOURCE_PRECISION, SWAG, WHOLE, Statistics
from _transfer_tasks import Pool, Task
from torch import Tensor, nn

import bayesreg as br

STEPS, BATCH, MOMENTUM = 60, 16, 0.9
#: Width of the prior on a new head, the same for every method that has a prior.
HEAD_SCALE = 1.0

Setting = tuple[float | None, float | None]


def prior_of(task: Task, method: str, scale: float | None, model: nn.Module, pool: Pool) -> br.ModelPrior:
    """Return the prior of a method; a learned one with all its standard deviations times `scale`."""
    reference = pool.reference
    if scale is None:
        return br.ModelPrior(model, {"*": br.Flat()})
    if method == SWAG:
        mean, variance, deviations = _body(task, model, pool)
        learned = br.transfer.low_rank_prior(mean, variance, deviations, scale=scale**2, epsilon=EPSILON)
        rules: dict[Any, Any] = {} if task.new is None else {task.new: br.Gaussian(HEAD_SCALE)}
        return br.ModelPrior(model, {**rules, "*": learned})
    if method in (FISHER, WHOLE):
        fisher = pool.learned().fisher
        if method == FISHER and fisher.structure == "block":
            values = {
                name: value.diagonal().reshape(fisher.centre[name].shape) for name, value in fisher.values.items()
            }
            fisher = dataclasses.replace(fisher, values=values, structure="diagonal")
        return br.transfer.ewc_prior(
            model,
            fisher,
            prior_precision=SOURCE_PRECISION / scale**2,
            strength=1.0 / scale**2,
            new=task.new,
            head=None if task.new is None else br.Gaussian(HEAD_SCALE),
            rename=None if task.new is None else {task.new: None},
        )
    if method == "pretrained-centred prior":
        head = None if task.new is None else HEAD_SCALE
        return br.transfer.l2_sp(model, reference, body_scale=scale, head_scale=head, new=task.new, covered="all")
    head_rule: dict[Any, Any] = {} if task.new is None else {task.new: br.Gaussian(HEAD_SCALE)}
    return br.ModelPrior(model, {**head_rule, "*": br.Gaussian(scale)})


def _body(task: Task, model: nn.Module, pool: Pool) -> Statistics:
    """Return SWAG's statistics without those of the source's own head."""
    swag = pool.learned().swag
    assert swag is not None
    if task.new is None:
        return swag
    mean, variance, deviations = swag
    fresh = br.selection.as_selector(task.new)
    kept = [info.name for info in br.selection.parameters_of(model) if not fresh(info)]
    return {n: mean[n] for n in kept}, {n: variance[n] for n in kept}, {n: deviations[n] for n in kept}


def fit(task: Task, method: str, setting: Setting, pool: Pool, train: np.ndarray, seed: int) -> nn.Module:
    """Train on the examples `train` of a pool; the prior's variance does not depend on how many they are."""
    scale, rate = setting
    x, y = pool.x[train], pool.y[train]
    torch.manual_seed(seed)
    model = task.network(int(pool.y.max()) + 1)
    if method != "standard prior, from scratch":
        # Each starts at its own centre.
        start = _body(task, model, pool)[0] if method == SWAG else pool.reference
        br.transfer.load_into(model, start, new=task.new)
    prior = prior_of(task, method, scale, model, pool)
    if task.convex:
        likelihood = br.likelihoods.Bernoulli()
        with warnings.catch_warnings():
            # Without a prior the optimum lies at infinity: the solver stops early and says so.
            warnings.simplefilter("ignore", RuntimeWarning)
            trainer = br.MAPTrainer(
                model, prior, likelihood, optimizer="lbfgs", tolerance=1e-7, max_iterations=300, progress=False
            )
            trainer.fit((x, y))
        return model
    assert rate is not None
    optimizer = torch.optim.SGD(prior.param_groups(), lr=rate, momentum=MOMENTUM)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    br.attach(optimizer, prior, num_data=len(x))
    batches = _batches(len(x), seed)
    for _ in range(STEPS):
        batch = next(batches)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        schedule.step()
    return model


def _batches(n: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    while True:
        while len(order) < min(n, BATCH):
            order = torch.cat([order, torch.randperm(n, generator=generator)])
        yield order[:BATCH]
        order = order[BATCH:]


@torch.no_grad()
def score(task: Task, model: nn.Module, pool: Pool, which: np.ndarray) -> dict[str, float]:
    """Return accuracy and mean NLL in nats; a diverged network scores an infinite NLL."""
    output, y = model(pool.x[which]), pool.y[which]
    if task.convex:
        nll = nn.functional.binary_cross_entropy_with_logits(output, y)
        right = (output > 0) == (y > 0.5)
    else:
        nll = nn.functional.cross_entropy(output, y)
        right = output.argmax(1) == y
    return {"accuracy": right.double().mean().item(), "nll": nll.item() if math.isfinite(nll.item()) else math.inf}


def run_job(task: Task, stage: str, n: int, seed: int, method: str, folds: int = 0) -> list[dict[str, Any]]:
    """Fit all settings of one method on one draw.

    On the "target" each is also fitted without a fifth of the examples, which validate it (the plain split), and, where
    asked for, in cross-validation.
    """
    pool = task.rehearsal() if stage == "rehearsal" else task.target()
    train, test = pool.draw(n, seed, task.test_size)
    order = np.random.default_rng(seed).permutation(train)
    rows = []
    for setting in task.grids[method]:
        row: dict[str, Any] = {"setting": setting}
        row["test"] = score(task, fit(task, method, setting, pool, train, seed), pool, test)
        if stage == "target":
            row["split"] = _held_out(task, method, setting, pool, [order[: n // 5]], order, seed)
        if folds:
            parts = [order[k::folds] for k in range(folds)]
            row["folds"] = _held_out(task, method, setting, pool, parts, order, seed)
        rows.append(row)
    return rows


def _held_out(
    task: Task, method: str, setting: Setting, pool: Pool, parts: list[np.ndarray], order: np.ndarray, seed: int
) -> dict[str, float]:
    """Return scores on held-out parts, weighed by their sizes, each with a fit on the rest."""
    total = {"accuracy": 0.0, "nll": 0.0}
    for part in parts:
        model = fit(task, method, setting, pool, order[~np.isin(order, part)], seed)
        for name, value in score(task, model, pool, part).items():
            total[name] += value * len(part) / sum(map(len, parts))
    return total


def best(rows: list[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> dict[str, Any]:
    """Return the row with the lowest value; of equal ones the first, of the tightest prior and lowest rate."""
    return min(rows, key=lambda row: math.inf if math.isnan(value(row)) else value(row))
