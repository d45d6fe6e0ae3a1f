"""From rows of a table to a trained model: features, strength, fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bayesreg.cli.tabular.data import Encoded, Rows, Tabular
from bayesreg.cli.tabular.network import likelihood_of, network_of
from bayesreg.errors import InvalidArgumentError
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Belief
from bayesreg.priors.auto import asks_to_choose, at_scale_one
from bayesreg.priors.words import prior_from_words
from bayesreg.strength.choice import Choice
from bayesreg.strength.choose import choose_strength
from bayesreg.trainer import FitResult, MAPTrainer

__all__ = ["Fitted", "Recipe", "fit_rows"]

_Rows = tuple[Any, Any]


@dataclass(frozen=True)
class Recipe:
    """How a model is made of rows; the fields are options of `bayesreg fit`.

    Attributes:
        model: linear, mlp or module:function.
        hidden: Hidden units of mlp.
        prior: In words.
        noise_std: Of a regression: a number, or learned.
        optimizer: auto, lbfgs, proximal, adam or sgd.
        lr: Of adam and sgd.
        epochs: Of adam and sgd.
        batch_size: Of adam and sgd.
        starts: Of lbfgs and proximal.
        keep_last: Whether the last epoch is kept, not the best on validation.
        seed: Of initial weights and order.
    """

    model: str
    hidden: int | None
    prior: str
    noise_std: str | None
    optimizer: str
    lr: float | None
    epochs: int | None
    batch_size: int | None
    starts: int
    keep_last: bool
    seed: int

    @property
    def chooses(self) -> bool:
        """Whether the strength is chosen."""
        return asks_to_choose(self.prior)

    def solver(self, family: Belief) -> str:
        """Return the optimizer's name, decided where it is auto."""
        if self.optimizer != "auto":
            return self.optimizer
        in_batches = self.keep_last or any(given is not None for given in (self.lr, self.epochs, self.batch_size))
        # Where it ends at a minimum a strength is chosen by leave-one-out.
        if self.model != "linear" and (in_batches or not self.chooses):
            return "adam"
        return "lbfgs" if family.traits.smooth else "proximal"

    def planned(self, n: int, *, validated: bool) -> tuple[Any, str, dict[str, Any]]:
        """Return the prior (of scale 1 where that is to be chosen), the optimizer's name and its arguments.

        Args:
            n: Rows to train on.
            validated: Whether there are rows to validate on.

        Raises:
            InvalidArgumentError: If the prior is none, or an option plays no part.
        """
        try:
            family: Any = prior_from_words(at_scale_one(self.prior) if self.chooses else self.prior, n)
        except InvalidArgumentError as error:
            name, _, rest = self.prior.partition("(")
            # The scale alone is missing, and it comes first.
            if "argument: 'scale'" not in str(error) or rest.strip(" )"):
                raise
            raise InvalidArgumentError(
                f"{error}; where it is to be chosen from the data, write auto for it, {name.strip()}(auto)."
            ) from error
        name = self.solver(family)
        how = self.how(name, validated=validated)
        if self.chooses and self.starts > 1:
            raise InvalidArgumentError("--starts: plays no part where the strength is chosen; leave it out.")
        return family, name, how

    def how(self, name: str, *, validated: bool) -> dict[str, Any]:
        """Return arguments of `MAPTrainer` for an optimizer of this name, refusing those that play no part.

        Args:
            name: Of the optimizer.
            validated: Whether there are rows to validate on.

        Raises:
            InvalidArgumentError: If an option plays no part.
        """
        if name in ("lbfgs", "proximal"):
            stochastic = {
                "--lr": self.lr, "--epochs": self.epochs, "--batch-size": self.batch_size,
                "--keep-last": self.keep_last or None,
            }  # fmt: skip
            given = [option for option, value in stochastic.items() if value is not None]
            if given:
                raise InvalidArgumentError(
                    f"{', '.join(given)}: {'plays' if len(given) == 1 else 'play'} no part with {name}, which solves "
                    f"on all the data to optimality; leave it out, or choose --optimizer adam or sgd."
                )
            return {"starts": self.starts}
        if self.starts > 1:
            raise InvalidArgumentError(
                f"--starts: several starting points need a full-batch solver, --optimizer lbfgs or proximal, got "
                f"{name}."
            )
        if self.keep_last and not validated:
            raise InvalidArgumentError("--keep-last: without validation rows the last epoch is kept; leave it out.")
        return {
            "max_epochs": self.epochs or 100, "batch_size": self.batch_size or 32, "restore_best": not self.keep_last,
        }  # fmt: skip


@dataclass(frozen=True)
class Fitted:
    """A model trained on rows of a table.

    Attributes:
        network: The model.
        sizes: Its inputs, outputs and hidden units.
        trainer: What trained it.
        result: The outcome.
        encoded: The features.
        choice: How the strength was chosen, or None.
        train: The rows that it was trained on.
    """

    network: nn.Module
    sizes: tuple[int, int, int]
    trainer: MAPTrainer
    result: FitResult
    encoded: Encoded
    choice: Choice | None
    train: Rows = field(repr=False)

    @property
    def prior(self) -> ModelPrior:
        """The prior."""
        return self.trainer.prior

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood."""
        return self.trainer.likelihood


def fit_rows(
    table: Tabular,
    recipe: Recipe,
    train: Rows,
    val: Rows | None = None,
    *,
    scale: float | None = None,
    checkpoint: Path | None = None,
    trained: Callable[[MAPTrainer, _Rows, _Rows | None], FitResult] | None = None,
) -> Fitted:
    """Learn features from rows, choose the strength where it is to be chosen, and fit.

    Args:
        table: The table.
        recipe: How.
        train: The rows to train on.
        val: Those to validate on, or None.
        scale: What a choice on other rows has found: taken in place of another choice.
        checkpoint: Where the trainer keeps its state.
        trained: Runs the trainer; default its `fit`.

    Returns:
        The model.

    Raises:
        InvalidArgumentError: If an option is out of range or plays no part.
        DataError: If the data cannot be used.
    """
    encoded = table.encoded(train)
    rows = (encoded.matrix[train], table.target[train])
    held = None if val is None else (encoded.matrix[val], table.target[val])
    network, sizes = network_of(table, encoded, rows, recipe.model, recipe.hidden, recipe.seed)
    likelihood = likelihood_of(table, rows[1], recipe.noise_std)
    family, name, how = recipe.planned(len(train), validated=val is not None)
    optimizer = _optimizer(name, 1e-2 if recipe.lr is None else recipe.lr)
    choice, rules = None, family
    if recipe.chooses and scale is not None:
        rules = _scaled(family, scale, network)
    elif recipe.chooses:
        choice = _chosen(network, family, likelihood, rows, recipe.seed, optimizer, how)
        network, rules, likelihood = choice.model, choice.prior, choice.likelihood
        if isinstance(optimizer, str) and recipe.model != "linear":
            # As far as it is worth to take a network; the residual is in the summary.
            how = {"tolerance": 1e-3}
    trainer = MAPTrainer(
        network, rules, likelihood, optimizer=optimizer, seed=recipe.seed, checkpoint=checkpoint, **how
    )
    if choice is None:
        _start_at_centre(family, trainer.prior)
    result = trainer.fit(rows, held) if trained is None else trained(trainer, rows, held)
    return Fitted(network, sizes, trainer, result, encoded, choice, train)


def _scaled(family: Belief, scale: float, network: nn.Module) -> ModelPrior:
    from bayesreg.model_prior.times import stretched

    return stretched(ModelPrior(network, family), scale, "")


def _chosen(
    network: nn.Module,
    family: Belief,
    likelihood: Likelihood,
    train: _Rows,
    seed: int,
    optimizer: Any,
    how: Mapping[str, Any],
) -> Choice:
    """Choose the strength, with the same solver or optimizer that the fit has."""
    given: dict[str, Any] = {"optimizer": optimizer}
    if not isinstance(optimizer, str):
        given |= {"max_epochs": how["max_epochs"], "batch_size": how["batch_size"]}
    return choose_strength(network, family, likelihood, train, seed=seed, **given)


def _start_at_centre(family: Belief, prior: ModelPrior) -> None:
    """Begin at the weights a prior is centred on, biases too: far from them the first steps would only lead back."""
    if family.reference is None:
        return
    for entry in prior:
        if entry.name in family.reference:
            with torch.no_grad():
                entry.parameter.copy_(family.reference[entry.name])


def _optimizer(name: str, lr: float) -> Any:
    if name == "adam":
        return partial(torch.optim.Adam, lr=lr)
    if name == "sgd":
        return partial(torch.optim.SGD, lr=lr, momentum=0.9)
    return name


def split(table: Tabular, val_fraction: float, seed: int) -> tuple[Rows, Rows | None]:
    """Return rows to train on and rows to validate on, at random.

    Args:
        table: The table.
        val_fraction: Share of the rows.
        seed: Of the division.

    Returns:
        Both; None without validation rows.

    Raises:
        InvalidArgumentError: If fewer than two rows are left.
    """
    n = len(table)
    held = round(n * val_fraction)
    if n - held < 2:
        raise InvalidArgumentError(f"--val-fraction: {n - held} of {n} rows are left to train on, 2 are needed.")
    order = np.random.default_rng(seed).permutation(n)
    return order[held:], order[:held] if held else None
