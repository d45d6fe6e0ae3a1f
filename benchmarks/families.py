"""What does the gradient of each family cost, hand-derived, against torch.distributions with autograd?

One tensor of float32 weights, interleaved in one process. The proximal column is one step with one step size per
weight, as under Adam.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from _common import bootstrap, interleaved, write
from torch import distributions as d

import bayesreg as br

SHAPE = (500, 500)
ROUNDS = 15


def spd(n: int) -> torch.Tensor:
    a = torch.randn(n, n, generator=torch.Generator().manual_seed(0))
    return 0.01 * (a @ a.mT / n + torch.eye(n))


SMALL = spd(10)
MIX = d.MixtureSameFamily(d.Categorical(torch.tensor([0.9, 0.1])), d.Normal(torch.zeros(2), torch.tensor([0.01, 1.0])))

# (prior, the same density in torch, shape)
CASES: list[tuple[br.Prior, d.Distribution | None, tuple[int, ...]]] = [
    (br.Gaussian(0.1), d.Normal(0.0, 0.1), SHAPE),
    (br.Laplace(0.1), d.Laplace(0.0, 0.1), SHAPE),
    (br.ElasticNet(10.0, 10.0), None, SHAPE),
    (br.StudentT(4.0, 0.1), d.StudentT(4.0, 0.0, 0.1), SHAPE),
    (br.Cauchy(0.1), d.Cauchy(0.0, 0.1), SHAPE),
    (br.Logistic(0.1), None, SHAPE),
    (br.GeneralizedNormal(0.5, 0.1), None, SHAPE),
    (br.ScaleMixture.spike_and_slab(0.01, 1.0, 0.1), MIX, SHAPE),
    (br.GroupLaplace(10.0, "row"), None, SHAPE),
    (br.Uniform(-1.0, 1.0), None, SHAPE),
    (br.MultivariateGaussian(SMALL), d.MultivariateNormal(torch.zeros(10), SMALL), (25_000, 10)),
    (br.MatrixGaussian(spd(500), spd(500)), None, SHAPE),
]


def by_hand(prior: br.Prior, value: torch.Tensor) -> Callable[[], object]:
    grad = torch.zeros_like(value)
    return lambda: prior.add_grad_([grad], [value], 1e-3)


def by_autograd(density: Callable[[torch.Tensor], torch.Tensor], value: torch.Tensor) -> Callable[[], object]:
    weights, grad = value.clone().requires_grad_(), torch.zeros_like(value)

    def step() -> None:
        (slope,) = torch.autograd.grad(-density(weights).sum(), weights)
        grad.add_(slope, alpha=1e-3)

    return step


def main() -> None:
    rows = []
    for prior, other, shape in CASES:
        value = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
        variants = {"hand": by_hand(prior, value), "own autograd": by_autograd(prior.log_prob, value)}
        if other is not None:
            variants["torch"] = by_autograd(other.log_prob, value)
        steps = 1e-3 * (0.5 + torch.rand(shape))
        if not prior.traits.smooth:
            variants["prox"] = lambda prior=prior, value=value, steps=steps: prior.prox(value, steps)  # type: ignore[misc]
        times = interleaved(variants, ROUNDS)
        middle = {name: 1e3 * sorted(found)[ROUNDS // 2] for name, found in times.items()}

        def ratio(name: str, times: dict[str, list[float]] = times) -> str:
            if name not in times:
                return ""
            median, low, high = bootstrap(times, name, "hand")
            return f"{median:.1f} ({low:.1f} to {high:.1f})"

        rows.append({
            "prior": prior.describe().split(", centred")[0],
            "gradient, ms": middle["hand"],
            "own log_prob by autograd ÷": ratio("own autograd"),
            "torch.distributions by autograd ÷": ratio("torch"),
            "proximal step, ms": middle.get("prox", ""),
        })
    write(rows, __doc__ or "")


if __name__ == "__main__":
    main()
