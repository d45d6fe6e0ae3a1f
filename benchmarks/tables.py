"""Are the estimators' automatic priors as good as scikit-learn's cross-validated models, and what do they cost?

Each data set is divided at random into two thirds to train on and a third to test on, ten times; features are
standardised on the training rows. Nothing is chosen on test rows.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
import torch
from _common import write
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_wine,
    make_friedman1,
    make_regression,
)
from sklearn.linear_model import ARDRegression, BayesianRidge, LassoCV, LogisticRegressionCV, RidgeCV
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import bayesreg as br

SPLITS = 10

REGRESSORS = {
    "MAPRegressor()": br.MAPRegressor,
    "MAPRegressor('laplace(auto)')": lambda: br.MAPRegressor("laplace(auto)"),
    "RidgeCV": lambda: RidgeCV(np.logspace(-3, 4, 50)),
    "LassoCV": LassoCV,
    "BayesianRidge": BayesianRidge,
    "ARDRegression": ARDRegression,
}
CLASSIFIERS = {
    "MAPClassifier()": br.MAPClassifier,
    "MAPClassifier('laplace(auto)')": lambda: br.MAPClassifier("laplace(auto)"),
    "LogisticRegressionCV": lambda: LogisticRegressionCV(
        Cs=10, scoring="neg_log_loss", max_iter=5000, l1_ratios=(0.0,), use_legacy_attributes=False
    ),
}
DATA = {
    "diabetes (442 x 10)": lambda: load_diabetes(return_X_y=True),
    "friedman1 (150 x 20)": lambda: make_friedman1(150, 20, noise=1.0, random_state=0),
    "dense (120 x 60)": lambda: make_regression(120, 60, n_informative=60, noise=100.0, random_state=0),
    "sparse (120 x 200)": lambda: make_regression(120, 200, n_informative=8, noise=20.0, random_state=0),
    "breast cancer (569 x 30)": lambda: load_breast_cancer(return_X_y=True),
    "wine (178 x 13)": lambda: load_wine(return_X_y=True),
    "digits (1797 x 64)": lambda: load_digits(return_X_y=True),
}


def main() -> None:
    warnings.simplefilter("ignore")
    rows: list[dict[str, object]] = []
    for name, load in DATA.items():
        X, y = load()
        classes = np.issubdtype(y.dtype, np.integer)
        models = CLASSIFIERS if classes else REGRESSORS
        scores: dict[str, list[float]] = {model: [] for model in models}
        hits: dict[str, list[float]] = {model: [] for model in models}
        seconds: dict[str, list[float]] = {model: [] for model in models}
        for seed in range(SPLITS if "digits" not in name else 3):
            parts = train_test_split(X, y, test_size=1 / 3, random_state=seed, stratify=y if classes else None)
            X_train, X_test, y_train, y_test = parts
            for model, make in models.items():
                start = time.perf_counter()
                fitted = make_pipeline(StandardScaler(), make()).fit(X_train, y_train)
                seconds[model].append(time.perf_counter() - start)
                # Not score(), which the one of LogisticRegressionCV takes from its scoring=.
                hits[model].append((accuracy_score if classes else r2_score)(y_test, fitted.predict(X_test)))
                if classes:
                    scores[model].append(log_loss(y_test, fitted.predict_proba(X_test), labels=fitted.classes_))
        for model in models:
            rows.append({
                "data": name,
                "model": model,
                "R² or accuracy": f"{np.mean(hits[model]):.3f} ± {np.std(hits[model], ddof=1):.3f}",
                "NLL": f"{np.mean(scores[model]):.3f} ± {np.std(scores[model], ddof=1):.3f}" if classes else "",
                "seconds": f"{np.median(seconds[model]):.3f}",
            })
            print(rows[-1], flush=True)
    write(rows, __doc__ or "")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with threadpool_limits(1):
        main()
