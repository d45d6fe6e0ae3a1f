"""How long do the full-batch solvers take to a KKT residual of 1e-9? Beside scikit-learn and skglm."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import skglm
import torch
from _common import bootstrap, interleaved, markdown, write
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, MultiTaskLasso, PoissonRegressor, Ridge
from threadpoolctl import threadpool_limits
from torch import nn

import bayesreg as br

ROUNDS = 51
L = br.likelihoods


def standardised(loader, regression: bool):
    X, y = loader(return_X_y=True)
    spread = X.std(0)
    X = (X - X.mean(0)) / np.where(spread > 0, spread, 1.0)
    return X, (y - y.mean()) / y.std() if regression else y


def trainer(X, y, prior, likelihood, outputs: int = 1):
    """A fit by `MAPTrainer`, from a layer at 0."""
    solver = "lbfgs" if prior.traits.smooth else "proximal"

    def run():
        model = nn.Linear(X.shape[1], outputs).double()
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        result = br.MAPTrainer(model, prior, likelihood, optimizer=solver, progress=False).fit((X, y))
        run.residual = result.kkt_residual
        return result

    return run


def single_fits() -> list[dict[str, object]]:
    """Ours and scikit-learn's on the same problems."""
    diabetes, cancer = standardised(load_diabetes, True), standardised(load_breast_cancer, False)
    digits = standardised(load_digits, False)
    counts = diabetes[0], np.random.default_rng(0).poisson(np.exp(1.0 + 0.3 * diabetes[0][:, 2])).astype(float)
    n = len(diabetes[0])
    exact = {"tol": 1e-12, "max_iter": 100_000}
    problems = {
        "ridge, diabetes": (diabetes, br.Gaussian(0.1), L.Gaussian(1.0), Ridge(alpha=100.0)),
        "lasso, diabetes": (diabetes, br.Laplace(1 / (n * 0.03)), L.Gaussian(1.0), Lasso(alpha=0.03, **exact)),
        "elastic net, diabetes": (
            diabetes, br.ElasticNet(l1=n * 0.025, l2=n * 0.025), L.Gaussian(1.0), ElasticNet(alpha=0.05, **exact),
        ),
        "Poisson, diabetes": (
            counts, br.Gaussian((n * 0.1) ** -0.5), L.Poisson(),
            PoissonRegressor(alpha=0.1, tol=1e-10, max_iter=10_000),
        ),
        "L2 logistic, breast cancer": (
            cancer, br.Gaussian(1.0), L.Bernoulli(), LogisticRegression(C=1.0, tol=1e-9, max_iter=10_000),
        ),
        "L1 logistic, breast cancer": (
            cancer, br.Laplace(1.0), L.Bernoulli(),
            LogisticRegression(C=1.0, l1_ratio=1, solver="saga", tol=1e-6, max_iter=20_000),
        ),
        "softmax L2, digits": (
            digits, br.Gaussian(1.0), L.Categorical(), LogisticRegression(C=1.0, tol=1e-9, max_iter=10_000),
        ),
    }  # fmt: skip
    rows: list[dict[str, object]] = []
    for name, ((X, y), prior, likelihood, theirs) in problems.items():
        kind = br.MAPClassifier if isinstance(likelihood, L.Bernoulli | L.Categorical) else br.MAPRegressor
        made = kind(prior, likelihood)
        variants = {
            "estimator": functools.partial(made.fit, X, y),
            "theirs": functools.partial(theirs.fit, X, y),
        }
        rounds = 5 if "L1 logistic" in name else ROUNDS
        times = interleaved(variants, rounds)
        by_trainer = trainer(X, y, prior, likelihood, 10 if "digits" in name else 1)
        times |= interleaved({"trainer": by_trainer}, rounds)
        ratio, low, high = bootstrap(times, "estimator", "theirs")
        rows.append({
            "problem": name,
            "estimator ms": 1e3 * float(np.median(times["estimator"])),
            "MAPTrainer ms": 1e3 * float(np.median(times["trainer"])),
            "scikit-learn ms": 1e3 * float(np.median(times["theirs"])),
            "estimator / scikit-learn": f"{ratio:.2f} [{low:.2f}, {high:.2f}]",
            "KKT residual": made.result_.kkt_residual,
        })
    return rows


def group_lasso() -> list[dict[str, object]]:
    """Inputs that vanish from five targets at once, beside scikit-learn and skglm."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 100)) + 0.5 * rng.normal(size=(200, 1))
    X -= X.mean(0)
    Y = X[:, :10] @ rng.normal(size=(10, 5)) + rng.normal(size=(200, 5))
    Y -= Y.mean(0)
    alpha = 0.2 * float(np.linalg.norm(X.T @ Y, axis=1).max()) / 200
    made = br.MAPRegressor(br.GroupLaplace(200 * alpha, group="column"), L.Gaussian(1.0), fit_intercept=False)
    given = {"alpha": alpha, "tol": 1e-10, "fit_intercept": False}
    variants = {
        "bayesreg": functools.partial(made.fit, X, Y),
        "scikit-learn": functools.partial(MultiTaskLasso(max_iter=100_000, **given).fit, X, Y),
        "skglm": functools.partial(skglm.MultiTaskLasso(**given).fit, X, Y),
    }
    times = interleaved(variants, ROUNDS, warmup=2)
    zeros = int((made.coef_ == 0.0).all(0).sum())
    return [
        {"group lasso": name, "median ms": 1e3 * float(np.median(values)), "columns of zeros": zeros}
        for name, values in times.items()
    ]


def paths() -> list[dict[str, object]]:
    """A path of 50 strengths, begun where the last ended, beside 50 fits from 0."""
    rows: list[dict[str, object]] = []
    rng = np.random.default_rng(0)
    large = rng.normal(size=(5000, 300)) + 0.5 * rng.normal(size=(5000, 1))
    problems = {
        "lasso, diabetes": (*standardised(load_diabetes, True), L.Gaussian(1.0)),
        "L1 logistic, breast cancer": (*standardised(load_breast_cancer, False), L.Bernoulli()),
        "lasso, 5000 x 300": (large, large[:, :10] @ rng.normal(size=10) + rng.normal(size=5000), L.Gaussian(1.0)),
    }
    for name, (X, y, likelihood) in problems.items():
        data = torch.from_numpy(X), torch.from_numpy(y).double()[:, None]

        def layer(columns=X.shape[1]):
            model = nn.Linear(columns, 1).double()
            for parameter in model.parameters():
                nn.init.zeros_(parameter)
            return model

        def path(data=data, likelihood=likelihood, layer=layer):
            model = layer()
            prior = br.ModelPrior(model, br.Laplace(1.0))
            return br.sparsity.regularization_path(model, prior, likelihood, data, count=50)

        strengths = [point.strength for point in path()]

        def fits(strengths=strengths, data=data, likelihood=likelihood, layer=layer):
            for strength in strengths:
                given = {"optimizer": "proximal", "tolerance": 1e-7, "progress": False}
                br.MAPTrainer(layer(), br.Laplace(1.0 / strength), likelihood, **given).fit(data)

        times = interleaved({"path": path, "fits": fits}, 5, warmup=1)
        ratio, low, high = bootstrap(times, "path", "fits")
        rows.append({
            "50 strengths": name,
            "path ms": 1e3 * float(np.median(times["path"])),
            "50 fits ms": 1e3 * float(np.median(times["fits"])),
            "ratio": f"{ratio:.2f} [{low:.2f}, {high:.2f}]",
        })
    return rows


def main() -> None:
    warnings.simplefilter("ignore")
    write(single_fits(), __doc__ or "")
    for rows in (group_lasso(), paths()):
        print()
        print(markdown(rows))


if __name__ == "__main__":
    torch.manual_seed(0)
    # One thread for both: at these sizes more of them cost time, by how much depends on the machine's other work.
    torch.set_num_threads(1)
    with threadpool_limits(1):
        main()
