"""How long do the full-batch solvers take to a KKT residual of 1e-9? Beside scikit-learn on the same problems."""

from __future__ import annotations

import statistics
import warnings

import numpy as np
import torch
from _common import interleaved, write
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from threadpoolctl import threadpool_limits
from torch import nn

import bayesreg as br

ROUNDS = 7


def standardised(loader, regression: bool):
    X, y = loader(return_X_y=True)
    spread = X.std(0)
    X = (X - X.mean(0)) / np.where(spread > 0, spread, 1.0)
    return X, (y - y.mean()) / y.std() if regression else y


def ours(X, y, prior, likelihood, outputs: int, solver: str):
    def run():
        model = nn.Linear(X.shape[1], outputs).double()
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        result = br.MAPTrainer(model, prior, likelihood, optimizer=solver, progress=False).fit((X, y))
        RESIDUALS[id(run)] = result.kkt_residual
        return result

    return run


RESIDUALS: dict[int, float | None] = {}


def main() -> None:
    warnings.simplefilter("ignore")
    L = br.likelihoods
    diabetes, cancer = standardised(load_diabetes, True), standardised(load_breast_cancer, False)
    digits = standardised(load_digits, False)
    problems = {
        "ridge, diabetes": (
            ours(*diabetes, br.Gaussian(0.1), L.Gaussian(1.0), 1, "lbfgs"),
            lambda: Ridge(alpha=100.0).fit(*diabetes),
        ),
        "lasso, diabetes": (
            ours(*diabetes, br.Laplace(0.075), L.Gaussian(1.0), 1, "proximal"),
            lambda: Lasso(alpha=0.03, tol=1e-12, max_iter=100_000).fit(*diabetes),
        ),
        "L2 logistic, breast cancer": (
            ours(*cancer, br.Gaussian(1.0), L.Bernoulli(), 1, "lbfgs"),
            lambda: LogisticRegression(C=1.0, tol=1e-9, max_iter=10_000).fit(*cancer),
        ),
        "L1 logistic, breast cancer": (
            ours(*cancer, br.Laplace(1.0), L.Bernoulli(), 1, "proximal"),
            lambda: LogisticRegression(C=1.0, l1_ratio=1, solver="saga", tol=1e-6, max_iter=20_000).fit(*cancer),
        ),
        "softmax L2, digits": (
            ours(*digits, br.Gaussian(1.0), L.Categorical(), 10, "lbfgs"),
            lambda: LogisticRegression(C=1.0, tol=1e-9, max_iter=10_000).fit(*digits),
        ),
    }
    rows: list[dict[str, object]] = []
    for name, (mine, theirs) in problems.items():
        times = interleaved({"bayesreg": mine, "scikit-learn": theirs}, ROUNDS, warmup=1)
        rows.append({
            "problem": name,
            "bayesreg median ms": 1e3 * statistics.median(times["bayesreg"]),
            "KKT residual": RESIDUALS[id(mine)],
            "scikit-learn median ms": 1e3 * statistics.median(times["scikit-learn"]),
        })
    write(rows, __doc__ or "")


if __name__ == "__main__":
    torch.manual_seed(0)
    # One thread for both: at these sizes more of them cost time, by how much depends on the machine's other work.
    torch.set_num_threads(1)
    with threadpool_limits(1):
        main()
