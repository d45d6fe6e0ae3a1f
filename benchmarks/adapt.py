"""Does `br.adapt_weight_decay` keep what AdamW's decay believes? Beside the rules that people copy."""

from __future__ import annotations

import math

import torch
from _common import markdown, write
from sklearn.datasets import load_digits
from torch import nn

import bayesreg as br

# batch size, learning rate, weight decay; a linear regression with gradients of noise, and a network.
LINEAR = {"batch_size": 8, "lr": 0.02, "num_data": 4000}, 0.05
NETWORK = {"batch_size": 16, "lr": 1e-3, "num_data": 1200}, 0.3


def regression(n: int):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, generator=generator, dtype=torch.float64)
    X = torch.randn(n, 8, generator=generator, dtype=torch.float64)
    return X, X @ weight + 20.0 * torch.randn(n, generator=generator, dtype=torch.float64)


def linear(run, decay, seed, data):
    """Return the mean of the second half of a run, and its optimizer."""
    X, y = data
    generator, batch = torch.Generator().manual_seed(seed), int(run["batch_size"])
    weight = nn.Parameter(torch.zeros(X.shape[1], dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=run["lr"], weight_decay=decay)
    steps, total = int(6.0 / (run["lr"] * decay)), torch.zeros_like(weight.detach())
    for step in range(steps):
        rows = torch.randint(len(X), (batch,), generator=generator)
        weight.grad = X[rows].T @ (X[rows] @ weight.detach() - y[rows]) / batch
        optimizer.step()
        if step >= steps // 2:
            total += weight.detach()
    return total / (steps - steps // 2), optimizer


def network(run, decay, seed, data):
    """Return rms of the weights and test NLL, averaged over the last fifth of a run, and its optimizer."""
    (X, y), (X_test, y_test) = data
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    matrices, rest = [model[0].weight, model[2].weight], [model[0].bias, model[2].bias]
    groups = [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=run["lr"], weight_decay=decay)
    loss, batch = nn.CrossEntropyLoss(), int(run["batch_size"])
    steps, found = int(6.0 / (run["lr"] * decay)), []
    for step in range(steps):
        rows = torch.randint(len(X), (batch,))
        optimizer.zero_grad()
        loss(model(X[rows]), y[rows]).backward()
        optimizer.step()
        if step >= 0.8 * steps and step % 50 == 0:
            with torch.no_grad():
                square = sum(float(w.square().sum()) for w in matrices) / sum(w.numel() for w in matrices)
                found.append((math.sqrt(square), float(loss(model(X_test), y_test))))
    rms, nll = (sum(part) / len(found) for part in zip(*found, strict=True))
    return torch.tensor([rms, nll]), optimizer


def changes(run):
    batch, rate, n = run["batch_size"], run["lr"], run["num_data"]
    return {
        "batch x 4": {"batch_size": 4 * batch},
        "batch x 16": {"batch_size": 16 * batch},
        "batch x 4, lr x 2": {"batch_size": 4 * batch, "lr": 2 * rate},
        "lr x 2": {"lr": 2 * rate},
        "lr / 4": {"lr": rate / 4},
        "n x 2": {"num_data": 2 * n},
    }


def rules(optimizer, run, decay, after):
    adapted = br.adapt_weight_decay(decay, optimizer=optimizer, before=run, after=after)
    copied = adapted.copied_rules
    return {
        "belief": adapted.weight_decay,
        "memory": adapted.keeps_memory,
        "unchanged": copied["weight_decay unchanged"],
        "with batch": copied["weight_decay with batch size"],
        "lr x decay": copied["lr x weight_decay kept"],
    }


def map_of(data, precision):
    """The MAP of a regression under a Gaussian of these precisions, with the noise that it was made with."""
    X, y = data
    return torch.linalg.solve(X.T @ X / 400.0 + torch.diag(precision), X.T @ y / 400.0)


def of_regression() -> list[dict[str, object]]:
    run, decay = LINEAR
    data = regression(run["num_data"])
    first = [linear(run, decay, seed, data) for seed in range(4)]
    middle = torch.stack([mean for mean, _ in first]).mean(0)
    seeds = sum(float((mean - middle).norm() / middle.norm()) for mean, _ in first) / len(first)
    names = rules(first[0][1], run, decay, {})
    rows: list[dict[str, object]] = [{"change": "none (between seeds)", **dict.fromkeys(names, seeds)}]
    for name, after in changes(run).items():
        row: dict[str, object] = {"change": name}
        here = {**run, **after}
        other = regression(here["num_data"]) if "num_data" in after else data
        target = middle
        if "num_data" in after:
            # More data move the solution by themselves: to the MAP of the same prior with them.
            before, now = _believed(first[0][1], run, decay), map_of(other, _believed(first[0][1], run, decay))
            target = middle - map_of(data, before) + now
        for rule, other_decay in rules(first[0][1], run, decay, after).items():
            found = torch.stack([linear(here, other_decay, seed, other)[0] for seed in (10, 11, 12)]).mean(0)
            row[rule] = float((found - target).norm() / target.norm())
        rows.append(row)
    return rows


def _believed(optimizer, run, decay):
    """The precision that AdamW's decay stands for, per weight, in units of the summed NLL with noise std 20."""
    (state,) = optimizer.state.values()
    root = (state["exp_avg_sq"] / (1.0 - 0.999 ** float(state["step"]))).sqrt()
    return run["num_data"] * decay * root / 400.0


def of_network() -> list[dict[str, object]]:
    run, decay = NETWORK
    X, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    X, y = torch.as_tensor(X).float()[order] / 16.0, torch.as_tensor(y)[order]
    # A fifth of the labels at random: the gradients keep their noise.
    generator = torch.Generator().manual_seed(1)
    wrong = torch.rand(len(y), generator=generator) < 0.2
    noisy = torch.where(wrong, torch.randint(10, (len(y),), generator=generator), y)
    data = (X[: run["num_data"]], noisy[: run["num_data"]]), (X[run["num_data"] :], y[run["num_data"] :])
    first = [network(run, decay, seed, data) for seed in range(3)]
    middle = torch.stack([found for found, _ in first]).mean(0)
    spread = torch.stack([(found / middle - 1.0).abs() for found, _ in first]).mean(0)
    rows: list[dict[str, object]] = [{
        "change": "none (between seeds)", "rule": "", "weight_decay": decay, "rms moves by": float(spread[0]),
        "test NLL": float(middle[1]),
    }]  # fmt: skip
    for name in ("batch x 4", "lr x 2", "batch x 4, lr x 2"):
        after = changes(run)[name]
        seen: set[float] = set()
        for rule, other in rules(first[0][1], run, decay, after).items():
            if round(other, 6) in seen:
                continue
            seen.add(round(other, 6))
            found = torch.stack([network({**run, **after}, other, seed, data)[0] for seed in (10, 11)]).mean(0)
            rows.append({
                "change": name, "rule": rule, "weight_decay": other, "rms moves by": float(found[0] / middle[0] - 1.0),
                "test NLL": float(found[1]),
            })  # fmt: skip
    return rows


def main() -> None:
    write(of_regression(), __doc__ or "")
    print()
    print(markdown(of_network()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
