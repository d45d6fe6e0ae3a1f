"""How long does the strength of a linear model take, against a solver that is asked many times?

On scikit-learn's diabetes (442 rows, 10 features), one thread, interleaved:

- choose_strength: evidence, interval, path, signals and the fit.
- RidgeCV: leave-one-out at 40 strengths, from one decomposition too.
- BayesianRidge: the evidence by MacKay's steps.
- a grid: 40 strengths by `MAPTrainer`, as a loop over a trainer does it.
"""

from __future__ import annotations

import statistics

import numpy as np
import torch
from _common import interleaved, paired_ratio, write
from sklearn.datasets import load_diabetes
from sklearn.linear_model import BayesianRidge, RidgeCV
from torch import nn

import bayesreg as br


def main() -> None:
    torch.set_num_threads(1)
    table, y = load_diabetes(return_X_y=True)
    table, y = (table - table.mean(0)) / table.std(0), (y - y.mean()) / y.std()
    data = torch.tensor(table), torch.tensor(y)[:, None]
    model, learned = nn.Linear(10, 1).double(), br.likelihoods.Gaussian("learned")

    def choose() -> None:
        br.choose_strength(model, br.Gaussian(1.0), learned, data)

    def grid() -> None:
        for scale in np.logspace(-2, 1, 40):
            fitted = nn.Linear(10, 1).double()
            trainer = br.MAPTrainer(
                fitted, br.Gaussian(scale), br.likelihoods.Gaussian(0.7), optimizer="lbfgs", progress=False
            )
            trainer.fit(data)

    variants = {
        "choose_strength": choose,
        "RidgeCV, 40 strengths": lambda: RidgeCV(np.logspace(-2, 4, 40)).fit(table, y),
        "BayesianRidge": lambda: BayesianRidge(tol=1e-10).fit(table, y),
        "40 fits by MAPTrainer": grid,
    }
    times = interleaved(variants, rounds=41, warmup=5)
    rows: list[dict[str, object]] = [
        {
            "way": name,
            "median ms": f"{1e3 * statistics.median(times[name]):.1f}",
            "fastest ms": f"{1e3 * min(times[name]):.1f}",
            "ratio": f"{paired_ratio(times, name, 'choose_strength'):.2f}",
        }
        for name in variants
    ]
    write(rows, __doc__ or "")


if __name__ == "__main__":
    main()
