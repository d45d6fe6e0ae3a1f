"""Does the Gaussian that `br.explain` names for an AdamW run pull about as much? Both are trained, norms compared."""

from __future__ import annotations

import torch
from _common import write
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import bayesreg as br

EPOCHS, BATCH, TRAIN = 60, 32, 1200


def data() -> tuple[torch.Tensor, torch.Tensor]:
    X, y = load_digits(return_X_y=True)
    return torch.as_tensor(X).float() / 16, torch.as_tensor(y)


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "softmax regression":
        return nn.Linear(64, 10)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def train(name: str, weight_decay: float, scale: float | None) -> tuple[float, float, float | None]:
    """Return the norm of the weights, the test NLL, and the Gaussian's scale that explain names."""
    X, y = data()
    model = network(name)
    weights = [p for p in model.parameters() if p.ndim > 1]
    biases = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    if scale is not None:
        br.attach(optimizer, br.ModelPrior(model, br.Gaussian(scale)), num_data=TRAIN)
    steps = EPOCHS * (TRAIN // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for rows in torch.randperm(TRAIN, generator=order).split(BATCH)[: TRAIN // BATCH]:
            optimizer.zero_grad()
            F.cross_entropy(model(X[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    norm = sum(float(p.detach().square().sum()) for p in weights) ** 0.5
    with torch.no_grad():
        nll = float(F.cross_entropy(model(X[TRAIN:]), y[TRAIN:]))
    implied = br.explain(optimizer, model, num_data=TRAIN).groups[0].implied if weight_decay else None
    return norm, nll, implied.matched**-0.5 if implied is not None and implied.matched else None


def main() -> None:
    rows: list[dict[str, object]] = []
    for name in ("softmax regression", "one hidden layer"):
        norm, nll, _ = train(name, 0.0, None)
        rows.append({"model": name, "AdamW weight_decay": 0.0, "its |w|": norm, "its test NLL": nll,
                     "Gaussian(scale)": "", "its |w| ": "", "its test NLL ": ""})  # fmt: skip
        for weight_decay in (0.01, 0.1, 0.3, 1.0):
            norm, nll, scale = train(name, weight_decay, None)
            assert scale is not None
            other_norm, other_nll, _ = train(name, 0.0, scale)
            rows.append({"model": name, "AdamW weight_decay": weight_decay, "its |w|": norm, "its test NLL": nll,
                         "Gaussian(scale)": scale, "its |w| ": other_norm, "its test NLL ": other_nll})  # fmt: skip
    write(rows, __doc__ or "")


if __name__ == "__main__":
    main()
