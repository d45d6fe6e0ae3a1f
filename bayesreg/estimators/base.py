"""What both estimators share."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg._support.calls import naming
from bayesreg.errors import InvalidArgumentError, UnsupportedError, kind_of
from bayesreg.estimators.fitting import LinearFit, fit_linear
from bayesreg.estimators.making import Hidden, Module, PriorLike, has_word_auto, is_linear, network, rules_of
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.times import stretched
from bayesreg.strength.choice import Choice
from bayesreg.strength.choose import choose_strength
from bayesreg.trainer import FitResult, MAPTrainer
from bayesreg.trainer.making import OptimizerFactory

__all__ = ["DTYPES", "MAPEstimator", "spread_of", "tensor_of"]

# Of X; what is computed is in float64, what is returned in that of X.
DTYPES = (np.float64, np.float32)

# Of the target's spread: where examples are no more than coefficients, the objective has no minimum in a learned noise.
_LEAST_NOISE = 1e-3

# KKT residual and iterations at most, where they are not given: a network has no use for the last digits.
_LINEAR, _NETWORK = (1e-9, 10_000), (1e-5, 1000)


def tensor_of(array: Any) -> Tensor:
    """Return an array in float64; a copy of one that may not be written to, which torch warns of."""
    return torch.as_tensor(np.require(array, np.float64, ["C", "W"]))


def spread_of(target: Tensor, weight: Tensor | None) -> float:
    """Return the standard deviation of targets, 1 where they do not differ."""
    rows = target.double().reshape(len(target), -1)
    share = torch.full((len(rows),), 1.0 / len(rows), dtype=rows.dtype) if weight is None else weight / weight.sum()
    square = share @ (rows - share @ rows).square()
    return math.sqrt(float(square.mean())) or 1.0


class MAPEstimator(BaseEstimator):  # type: ignore[misc]
    """The arguments, the fit and the look at what was fitted; see `MAPRegressor` and `MAPClassifier`."""

    @naming
    def __init__(
        self,
        prior: PriorLike = "gaussian(auto)",
        likelihood: Likelihood | None = None,
        *,
        hidden: Hidden = (),
        module: Module | None = None,
        fit_intercept: bool = True,
        optimizer: str | OptimizerFactory | None = None,
        training: Mapping[str, Any] | None = None,
        strength: Mapping[str, Any] | None = None,
        tol: float | None = None,
        max_iter: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.prior = prior
        self.likelihood = likelihood
        self.hidden = hidden
        self.module = module
        self.fit_intercept = fit_intercept
        self.optimizer = optimizer
        self.training = training
        self.strength = strength
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    # -- what was fitted -------------------------------------------------------------------------------

    @property
    def result_(self) -> FitResult:
        """The outcome: NLL and log prior apart, KKT residual, whether it converged."""
        check_is_fitted(self)
        return self._fitted.result() if isinstance(self._fitted, LinearFit) else self._fitted

    @property
    def prior_(self) -> ModelPrior:
        """The prior over the fitted model, its strength set."""
        check_is_fitted(self)
        return self._prior

    @property
    def likelihood_(self) -> Likelihood:
        """The likelihood, its noise as it was found."""
        check_is_fitted(self)
        return self._likelihood

    @property
    def choice_(self) -> Choice | None:
        """How the strength was chosen; None where the prior says it."""
        check_is_fitted(self)
        return self._choice

    @torch.no_grad()
    def _output(self, X: Any) -> Tensor:
        found: Tensor = self.model_(tensor_of(X))
        return found.reshape(len(found), -1)

    # -- fitting -----------------------------------------------------------------------------------------

    @property
    def _is_linear(self) -> bool:
        return is_linear(self.module, self.hidden)

    @property
    def _chooses(self) -> bool:
        return has_word_auto(self.prior) or self.strength is not None

    def _seed(self) -> int:
        """Check the arguments that nobody else looks at, and return the seed that the random state makes."""
        checks.flag("fit_intercept", self.fit_intercept)
        for name in ("training", "strength"):
            given = getattr(self, name)
            if not (given is None or (isinstance(given, Mapping) and all(isinstance(key, str) for key in given))):
                raise InvalidArgumentError(f"{name}: expected arguments by name, {{...}}, got {kind_of(given)}.")
        if isinstance(self.optimizer, str) and self.optimizer not in ("lbfgs", "proximal"):
            raise InvalidArgumentError(f"optimizer: expected 'lbfgs', 'proximal' or a factory, got {self.optimizer!r}.")
        if not (self.optimizer is None or callable(self.optimizer) or isinstance(self.optimizer, str)):
            raise InvalidArgumentError(
                f"optimizer: expected 'lbfgs', 'proximal' or a factory such as functools.partial(torch.optim.Adam, "
                f"lr=1e-3), got {kind_of(self.optimizer)}."
            )
        if self.random_state is None:
            return 0
        try:
            return int(check_random_state(self.random_state).randint(2**31 - 1))
        except (ValueError, TypeError) as error:
            raise InvalidArgumentError(
                f"random_state: expected an integer or a numpy RandomState, got {kind_of(self.random_state)}."
            ) from error

    @staticmethod
    def _copied(likelihood: Likelihood) -> Likelihood:
        """Return the likelihood, a copy of it where it is trained."""
        trained = any(parameter.requires_grad for parameter in likelihood.parameters())
        return copy.deepcopy(likelihood).double() if trained else likelihood

    def _weights(self, sample_weight: Any, X: Any) -> Tensor | None:
        if sample_weight is None:
            return None
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weight.sum() > 0.0:
            raise InvalidArgumentError("sample_weight: expected at least one weight > 0, got none.")
        return torch.as_tensor(weight)

    def _train(self, X: Any, target: Tensor, outputs: int, likelihood: Likelihood, weight: Tensor | None) -> None:
        """Fit; sets all that ends in an underscore but what belongs to the kind of target.

        Args:
            X: (n, d), checked.
            target: As the likelihood takes it.
            outputs: Of the model.
            likelihood: A copy that may be trained.
            weight: (n,), or None.

        Raises:
            KeyboardInterrupt: If the user stopped it; what there was is set.
        """
        features = tensor_of(X)
        if weight is not None and not bool(weight.all()):
            kept = weight > 0.0
            features, target, weight = features[kept], target[kept], weight[kept]
        seed = self._seed()
        count = len(target) if weight is None else float(weight.sum())
        rules = rules_of(self.prior, count)
        usual_tolerance, usual_iterations = _LINEAR if self._is_linear else _NETWORK
        tolerance = usual_tolerance if self.tol is None else checks.positive_float("tol", self.tol)
        max_iterations = usual_iterations if self.max_iter is None else checks.positive_int("max_iter", self.max_iter)
        scaled = target if target.is_floating_point() and likelihood.gaussian_noise_std is not None else None
        # A linear model begins at 0; forking takes as long as its fit.
        with nullcontext() if self._is_linear else torch.random.fork_rng(devices=[]):
            if not self._is_linear:
                torch.manual_seed(seed)
            model = network(self.module, self.hidden, features, outputs, bias=bool(self.fit_intercept), target=scaled)
        self._choice, prior = None, ModelPrior(model, rules)
        if has_word_auto(self.prior) and self._is_linear and scaled is not None:
            # What is believed of the scale before the data is in units of the target.
            prior = stretched(prior, spread_of(target, weight), "")
        if self._chooses:
            self._choice = choice = self._chosen(model, prior, likelihood, features, target, weight, seed)
            model, prior, likelihood = choice.model, choice.prior, choice.likelihood
        self._fitted: LinearFit | FitResult
        if self._is_linear and self.optimizer is None:
            assert isinstance(model, nn.Linear)
            self._refuse_training("a linear model without optimizer= is solved to optimality")
            learns = any(parameter.requires_grad for parameter in likelihood.parameters())
            least = _LEAST_NOISE * spread_of(target, weight) if learns else None
            self._fitted = fit_linear(
                model, prior, likelihood, features, target, weight, tolerance=tolerance,
                max_iterations=max_iterations, least_noise=least,
            )  # fmt: skip
            self.n_iter_ = max(1, self._fitted.iterations)
        else:
            how: dict[str, Any] = {"seed": seed, "tolerance": tolerance, "max_iterations": max_iterations}
            self._fitted = self._by_trainer(model, prior, likelihood, features, target, weight, how)
            self.n_iter_ = max(1, self._iterations(self._fitted))
        self.model_, self._prior, self._likelihood = model.eval(), prior, likelihood
        if isinstance(self._fitted, LinearFit) and self._fitted.no_noise:
            warnings.warn(
                f"{type(self).__name__}: the coefficients reach every target, so that a learned noise would go to 0; "
                f"it was held at {_LEAST_NOISE:g} of the target's spread. Use prior='gaussian(auto)', a stronger "
                f"prior, or likelihood=br.likelihoods.Gaussian(noise_std=...).",
                ConvergenceWarning,
                stacklevel=3,
            )
        if self._fitted.interrupted:
            raise KeyboardInterrupt(self._fitted.interrupted)
        if not self._fitted.converged and self._fitted.converged is not None:
            warnings.warn(
                f"{type(self).__name__} stopped at a KKT residual of {self.result_.kkt_residual:.1e} (asked for "
                f"{tolerance:.1e}): raise max_iter, standardise the features, or check that a minimum exists.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _refuse_training(self, why: str) -> None:
        if self.training:
            raise InvalidArgumentError(f"training: {next(iter(self.training))} plays no part, as {why}; leave it out.")

    def _chosen(
        self,
        model: nn.Module,
        prior: ModelPrior,
        likelihood: Likelihood,
        features: Tensor,
        target: Tensor,
        weight: Tensor | None,
        seed: int,
    ) -> Choice:
        if weight is not None:
            times = weight.round()
            if not torch.equal(times, weight):
                raise UnsupportedError(
                    "sample_weight: where the strength is chosen, weights are how often an example occurs, whole "
                    "numbers; give the prior a number, such as gaussian(1.0), to fit with other weights."
                )
            features, target = (part.repeat_interleave(times.long(), dim=0) for part in (features, target))
        given = dict(self.strength or {})
        own = next((name for name in ("model", "prior", "likelihood", "data") if name in given), None)
        if own is not None:
            raise InvalidArgumentError(f"strength: {own} is the estimator's own; leave it out.")
        if self.optimizer is not None and not isinstance(self.optimizer, str):
            given = {"optimizer": self.optimizer, **given}
        return choose_strength(model, prior, likelihood, (features, target), **{"seed": seed, **given})

    def _by_trainer(
        self,
        model: nn.Module,
        prior: ModelPrior,
        likelihood: Likelihood,
        features: Tensor,
        target: Tensor,
        weight: Tensor | None,
        how: dict[str, Any],
    ) -> FitResult:
        smooth = not prior.kinked()
        optimizer: Any = self.optimizer or ("lbfgs" if smooth else "proximal")
        if not isinstance(optimizer, str):
            how = {"seed": how["seed"]}
        how |= self.training or {}
        if weight is not None:
            how |= {"sample_weight": 2}
        data = (features, target) if weight is None else (features, target, weight)
        trainer = MAPTrainer(model, prior, likelihood, optimizer=optimizer, progress=False, **how)
        try:
            with warnings.catch_warnings():
                # Said once, by the estimator.
                warnings.filterwarnings("ignore", message=".*stopped at a KKT residual", category=RuntimeWarning)
                return trainer.fit(data)
        except KeyboardInterrupt:
            if trainer.result is None:
                raise
            return trainer.result

    @staticmethod
    def _iterations(result: FitResult) -> int:
        last = result.history[-1] if result.history else {}
        return int(last.get("iteration", last.get("epoch", 1)))
