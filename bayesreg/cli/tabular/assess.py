"""How good a model of a table is on rows that it did not see, beside predicting the mean or the commonest class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bayesreg._support.tables import Table
from bayesreg.cli.tabular.data import Rows, Tabular
from bayesreg.cli.tabular.numbers import readable, spread
from bayesreg.cli.tabular.procedure import Fitted, Recipe, fit_rows
from bayesreg.data import in_evaluation

__all__ = ["Assessment", "Score", "cross_validated", "on_rows"]

Numbers = npt.NDArray[np.float64]

_FOLDS = 5


@dataclass(frozen=True)
class Score:
    """One number, over several divisions of the rows.

    Attributes:
        name: What it is.
        mean: Its mean.
        std: Its standard deviation over the divisions; None of one.
        baseline: What the mean, or the commonest class, reaches.
    """

    name: str
    mean: float
    std: float | None
    baseline: float


@dataclass(frozen=True)
class Assessment:
    """What was measured on rows that were not trained on.

    Attributes:
        scores: The numbers.
        how: On which rows, in words.
        baseline: What it is compared with, in words.
        rows: The rows that were predicted.
        predicted: Of each: the mean, or the probabilities of the classes.
    """

    scores: tuple[Score, ...]
    how: str
    baseline: str
    rows: Rows
    predicted: Numbers

    @property
    def table(self) -> Table:
        """The scores as a table."""
        rows = [(s.name, spread(s.mean, s.std), readable(s.baseline)) for s in self.scores]
        return Table("On rows that were not trained on", ("score", "model", self.baseline), rows, (self.how,))

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON."""
        return {"how": self.how, "baseline": self.baseline, "scores": [asdict(score) for score in self.scores]}


def cross_validated(table: Tabular, recipe: Recipe, fitted: Fitted) -> Assessment:
    """Fit on four fifths and measure on the other, for each fifth, the strength as it was chosen from all.

    Args:
        table: The table.
        recipe: How models are made.
        fitted: That of all rows.

    Returns:
        The scores.
    """
    n = len(fitted.train)
    folds = min(_FOLDS, n // 2)
    place = _places(table, fitted.train, folds, recipe.seed)
    scale = None if fitted.choice is None else fitted.choice.scale
    predicted = np.empty((n, max(len(table.classes), 1)))
    parts: list[list[float]] = []
    base: list[list[float]] = []
    for fold in range(folds):
        here, rest = np.flatnonzero(place == fold), fitted.train[place != fold]
        with warnings.catch_warnings():
            # Of all rows it has been said.
            warnings.simplefilter("ignore")
            one = fit_rows(table, recipe, rest, scale=scale)
        predicted[here] = _predicted(table, one, fitted.train[here])
        parts.append(_scores(table, predicted[here], fitted.train[here], one))
        base.append(_baseline(table, rest, fitted.train[here]))
    how = f"{folds}-fold cross-validation: mean ± standard deviation over the folds"
    how += ", at the strength that was chosen from all rows." if scale is not None else "."
    return _assessment(table, parts, base, how, fitted.train, predicted)


def on_rows(table: Tabular, fitted: Fitted, rows: Rows) -> Assessment:
    """Measure a model on rows that it did not see.

    Args:
        table: The table.
        fitted: The model.
        rows: The rows.

    Returns:
        The scores.
    """
    predicted = _predicted(table, fitted, rows)
    parts, base = [_scores(table, predicted, rows, fitted)], [_baseline(table, fitted.train, rows)]
    said = f"On {len(rows)} rows that were held out."
    if fitted.result.kept_record is not None and fitted.result.kept_record < len(fitted.result.history):
        said += " They chose the epoch that was kept, so new rows will be predicted a little worse (--keep-last)."
    return _assessment(table, parts, base, said, rows, predicted)


def _places(table: Tabular, rows: Rows, folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the fold of each row: at random, classes alike."""
    generator = np.random.default_rng(seed)
    place = np.empty(len(rows), dtype=np.int64)
    order = generator.permutation(len(rows))
    if table.task == "classification":
        order = order[np.argsort(table.target[rows][order], kind="stable")]
    place[order] = np.arange(len(rows)) % folds
    return place


@torch.no_grad()
def _predicted(table: Tabular, fitted: Fitted, rows: Rows) -> Numbers:
    with in_evaluation(fitted.network):
        output = fitted.network(torch.as_tensor(fitted.encoded.matrix[rows]))
    if table.task == "regression":
        return np.asarray(output.reshape(-1, 1).double().numpy())
    if output.shape[1] == 1:
        output = torch.cat([torch.zeros_like(output), output], 1)
    return np.asarray(output.double().softmax(1).numpy())


def _scores(table: Tabular, predicted: Numbers, rows: Rows, fitted: Fitted) -> list[float]:
    target = table.target[rows]
    if table.task == "classification":
        shares = np.clip(predicted[np.arange(len(rows)), target.astype(int)], 1e-300, 1.0)
        return [float((predicted.argmax(1) == target).mean()), float(-np.log(shares).mean())]
    error = target.astype(np.float64) - predicted[:, 0]
    square = float((error**2).mean())
    spread = float(target.astype(np.float64).var())
    noise = fitted.likelihood.gaussian_noise_std or 1.0
    nll = 0.5 * square / noise**2 + np.log(noise) + 0.5 * np.log(2.0 * np.pi)
    return [1.0 - square / spread if spread else float("nan"), square**0.5, float(nll)]


def _baseline(table: Tabular, train: Rows, rows: Rows) -> list[float]:
    known, target = table.target[train], table.target[rows]
    if table.task == "classification":
        counts = np.bincount(known.astype(int), minlength=len(table.classes)) + 1e-300
        shares = counts / counts.sum()
        return [float((target == counts.argmax()).mean()), float(-np.log(shares[target.astype(int)]).mean())]
    numbers, seen = target.astype(np.float64), known.astype(np.float64)
    square = float(((numbers - seen.mean()) ** 2).mean())
    spread, noise = float(numbers.var()), float(seen.std()) or 1.0
    nll = 0.5 * square / noise**2 + np.log(noise) + 0.5 * np.log(2.0 * np.pi)
    return [1.0 - square / spread if spread else float("nan"), square**0.5, float(nll)]


def _assessment(
    table: Tabular, parts: Sequence[Sequence[float]], base: Sequence[Sequence[float]], how: str, rows: Rows,
    predicted: Numbers,
) -> Assessment:  # fmt: skip
    names = ("R²", "RMSE", "NLL") if table.task == "regression" else ("accuracy", "NLL")
    scores = tuple(
        Score(
            name, float(np.mean(ours)), float(np.std(ours, ddof=1)) if len(ours) > 1 else None, float(np.mean(theirs))
        )
        for name, ours, theirs in zip(names, zip(*parts, strict=True), zip(*base, strict=True), strict=True)
    )
    baseline = "the mean" if table.task == "regression" else f"always {_commonest(table, rows)!r}"
    return Assessment(scores, how, baseline, rows, predicted)


def _commonest(table: Tabular, rows: Rows) -> str:
    return table.classes[int(np.bincount(table.target[rows].astype(int)).argmax())]
