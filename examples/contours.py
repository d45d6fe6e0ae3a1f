"""Draw docs/images/contours.png: likelihood, prior and the MAP between them: python examples/contours.py."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib import pyplot
from sklearn.datasets import load_diabetes

import bayesreg as br


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/images/contours.png"))
    output = parser.parse_args().output
    X, y = (torch.as_tensor(part) for part in load_diabetes(return_X_y=True))
    X, y = (X - X.mean(0)) / X.std(0), ((y - y.mean()) / y.std())[:, None]
    few = X[:100][:, [2, 7]], y[:100]
    families = {
        "L2: Gaussian about 0": br.Gaussian(0.08),
        "L1: Laplace about 0": br.Laplace(0.035),
        "a memory: Gaussian elsewhere": br.Gaussian(0.08, loc=torch.tensor([[0.1, 0.4]])),
    }
    _, axes = pyplot.subplots(1, 3, figsize=(13.2, 4.7), layout="constrained")
    for index, (ax, (title, family)) in enumerate(zip(axes, families.items(), strict=True)):
        model = torch.nn.Linear(2, 1, bias=False).double()
        br.plots.plot_contours(model, br.ModelPrior(model, family), br.likelihoods.Gaussian(0.75), few, ax)
        ax.set(xlabel=f"body mass index ({title})", ylabel="blood value s4")
        if index:
            ax.get_legend().remove()
    br.plots.save(axes[0], output)


if __name__ == "__main__":
    main()
