"""Regression with a prior, as scikit-learn has it."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.estimators.base import DTYPES, MAPEstimator, spread_of, tensor_of
from bayesreg.estimators.fitting import LinearFit
from bayesreg.estimators.from_sklearn import regressor_arguments
from bayesreg.estimators.numbers import numbers_of
from bayesreg.estimators.spread import Spread
from bayesreg.estimators.to_sklearn import regressor_of
from bayesreg.hyperpriors import InverseGamma
from bayesreg.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood, Poisson, Tokens

__all__ = ["MAPRegressor"]

# Of the target's spread: about which noise the weak prior on a learned one is.
_NOISE = 0.05


class MAPRegressor(RegressorMixin, MAPEstimator):  # type: ignore[misc]
    r"""Regression with any prior: minimise NLL(θ) − log p(θ), as a scikit-learn estimator.

    Linear by default, y = intercept + X·coef + noise, the intercept flat. The prior is in units of the coefficients, so
    put a `StandardScaler` before it where features have different units.

    Args:
        prior: Words ("laplace(0.1)", "ridge(alpha=1, noise_std=1)"; "gaussian(auto)", the default, has its scale
            chosen by `br.choose_strength`, which begins at the target's spread), a prior such as `br.Laplace(0.1)`, or
            rules from selectors to either.
        likelihood: `br.likelihoods.Gaussian`, `StudentT`, `Poisson`, or one of your own. Default: Gaussian, its noise
            learned, under a prior that is worth two examples (inverse gamma about a twentieth of the target's spread),
            without which there is no MAP where the coefficients can reach every target; where the strength is chosen,
            with the evidence's noise.
        hidden: Sizes of hidden layers; default none. With them the last layer is in units of the target's mean and
            spread.
        module: The model instead: a torch module, or a function of (features, outputs) that makes one.
        fit_intercept: Whether layers have biases.
        optimizer: "lbfgs", "proximal", or a factory such as `functools.partial(torch.optim.Adam, lr=1e-3)`. Default: a
            solver on all the data that goes to optimality; of a linear model Newton's method.
        training: Further arguments of `br.MAPTrainer` for such an optimizer: `{"max_epochs": 50, "batch_size": 64}`.
        strength: Further arguments of `br.choose_strength`, which is asked where this or the word auto is given.
        tol: KKT residual at which a solver stops, nats per example. Default 1e-9; of networks 1e-5.
        max_iter: Iterations of a solver at most. Default 10,000; of networks 1,000.
        random_state: Of initial weights, of the order of batches, and of divisions.

    Attributes:
        coef_: (features,), or (targets, features) of several targets; of linear models.
        intercept_: A number, or (targets,); of linear models.
        model_: The torch module, in float64.
        prior_: The `ModelPrior` over it.
        likelihood_: The likelihood, with its noise.
        choice_: The `br.strength.Choice`; None where the prior said its scale.
        result_: The `br.FitResult`.
        n_iter_: Iterations, or epochs.
        n_features_in_: Features.
        feature_names_in_: Their names, where X had some.

    Example:
        >>> import numpy as np
        >>> X = np.arange(6.0)[:, None]
        >>> model = MAPRegressor(prior="gaussian(1.0)", likelihood=Gaussian(noise_std=1.0)).fit(X, 2.0 * X[:, 0])
        >>> model.coef_.round(4)  # Σ(x−x̄)(y−ȳ) / (Σ(x−x̄)² + 1²/1²) = 35/18.5
        array([1.8919])

    References:
        docs/sklearn.md: the settings of Ridge, Lasso, ElasticNet, PoissonRegressor and BayesianRidge in these terms.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.positive_only = isinstance(self.likelihood, Poisson)
        return tags

    @classmethod
    @answering
    def from_sklearn(cls, estimator: Any) -> Self:
        """Return the estimator with the objective of one of scikit-learn's: the same coefficients after `fit`.

        Args:
            estimator: LinearRegression, Ridge, Lasso, ElasticNet, PoissonRegressor or BayesianRidge, fitted or not. The
                first four say nothing of the noise: a noise of std 1 goes with the prior that they then stand for.

        Returns:
            The estimator, not fitted.

        Raises:
            UnsupportedError: If it is another, or a setting of it has no counterpart.

        Example:
            >>> from sklearn.linear_model import Ridge
            >>> MAPRegressor.from_sklearn(Ridge(alpha=4.0)).prior
            Gaussian(scale=0.5, loc=0)
        """
        return cls(**regressor_arguments(estimator))

    @answering
    def to_sklearn(self) -> Any:
        """Return the fitted model as one of scikit-learn's, which predicts the same without torch.

        Returns:
            A fitted Ridge, Lasso, ElasticNet, LinearRegression or PoissonRegressor, with the constants that this prior
            and this noise are there.

        Raises:
            NotEquivalentError: If there is none.

        Example:
            >>> import numpy as np
            >>> X = np.arange(6.0)[:, None]
            >>> fitted = MAPRegressor("gaussian(0.5)", Gaussian(noise_std=1.0)).fit(X, 2.0 * X[:, 0])
            >>> fitted.to_sklearn()
            Ridge(alpha=4.0)
        """
        check_is_fitted(self)
        return regressor_of(self)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MAPRegressor:
        """Fit.

        Args:
            X: (n, features), numbers; an array or a table.
            y: (n,) or (n, targets).
            sample_weight: (n,), how often each example counts, in the NLL and in n; 0 leaves it out.

        Returns:
            The estimator.

        Raises:
            InvalidArgumentError: If an argument is out of range.
            UnsupportedError: If the prior has no MAP, or no solver or method serves it.
            ValueError: If X or y cannot be used.
        """
        # One example has no spread, which a learned noise begins at.
        X, y = numbers_of(self, X, y, dtype=DTYPES, multi_output=True, y_numeric=True, ensure_min_samples=2)
        weight = self._weights(sample_weight, X)
        self._flat_target = y.ndim == 1
        target = tensor_of(y).reshape(len(y), -1)
        likelihood = self._likelihood_for(target, weight)
        self._dtype = X.dtype
        try:
            self._train(X, target, target.shape[1], likelihood, weight)
        finally:
            if self._is_linear and hasattr(self, "model_"):
                self._read_off()
        return self

    def _likelihood_for(self, target: Tensor, weight: Tensor | None) -> Likelihood:
        given = self.likelihood
        if given is None:
            # Where the coefficients can reach every target the objective has no minimum in a noise without a prior; the
            # evidence, which integrates over them, has one.
            own = (
                None
                if self._chooses and self._is_linear
                else InverseGamma(1.0, (_NOISE * spread_of(target, weight)) ** 2)
            )
            given = Gaussian("learned", prior=own)
        if not isinstance(given, Likelihood) or isinstance(given, Bernoulli | Categorical | Tokens):
            raise InvalidArgumentError(
                f"likelihood: expected one of numbers, such as br.likelihoods.Gaussian('learned'), StudentT() or "
                f"Poisson(), got {given!r}; classes are br.MAPClassifier's."
            )
        made = self._copied(given)
        # A learned noise begins at the spread of the target.
        for name in ("log_noise_std", "log_noise_scale"):
            held = getattr(made, name, None)
            if held is not None and held.requires_grad:
                held.data.fill_(math.log(spread_of(target, weight)))
        return made

    def _read_off(self) -> None:
        layer: Any = self.model_
        bias = layer.bias
        coef = layer.weight.detach().numpy().astype(self._dtype)
        shift = np.zeros(len(coef)) if bias is None else bias.detach().numpy()
        self.coef_ = coef[0] if self._flat_target else coef
        self.intercept_: Any = self._dtype.type(shift[0]) if self._flat_target else shift.astype(self._dtype)

    def _spread(self) -> Spread | None:
        fitted = self._fitted
        if not isinstance(fitted, LinearFit):
            return None
        return Spread.of(fitted.layer, fitted.prior, fitted.likelihood, fitted.sums)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return the mean of the target.

        Args:
            X: (n, features).
            return_std: Whether its standard deviation is returned too: that of the noise and of what the data leave
                open about the coefficients; of linear models with Gaussian noise and Gaussian priors.

        Returns:
            (n,) or (n, targets), and the standard deviations of the same shape if asked for.

        Raises:
            UnsupportedError: If the standard deviation of such a model is not known exactly.
        """
        check_is_fitted(self)
        X = numbers_of(self, X, reset=False, dtype=DTYPES)
        spread = self._spread() if return_std else None
        if return_std and spread is None:
            families = ", ".join(sorted({belief.family for _, belief in self._prior.active()}))
            raise UnsupportedError(
                f"return_std: exact for linear models of at most 3,000 features with Gaussian noise and Gaussian (or "
                f"flat) priors alone, got {self.n_features_in_} features, {self._likelihood.describe()} and {families}."
            )
        found = self._likelihood._middle(self._output(X)).reshape(len(X), -1).numpy().astype(X.dtype)
        found = found[:, 0] if self._flat_target else found
        if spread is None:
            return found
        std = spread(np.asarray(X, dtype=np.float64)).astype(X.dtype)
        return found, std[:, 0] if self._flat_target else std
