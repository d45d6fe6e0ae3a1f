"""Classification with a prior, as scikit-learn has it."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError
from bayesreg.estimators.base import DTYPES, MAPEstimator
from bayesreg.estimators.from_sklearn import classifier_arguments
from bayesreg.estimators.numbers import numbers_of
from bayesreg.estimators.to_sklearn import classifier_of
from bayesreg.likelihoods import Bernoulli, Categorical, Likelihood

__all__ = ["MAPClassifier"]


class MAPClassifier(ClassifierMixin, MAPEstimator):  # type: ignore[misc]
    r"""Classification with any prior: minimise NLL(θ) − log p(θ), as a scikit-learn estimator.

    Linear by default: of two classes the log odds are intercept + X·coef (one output, `br.likelihoods.Bernoulli`), of
    three and more each class has its own, through a softmax. The intercepts are flat. `prior="gaussian(1.0)"` is
    `LogisticRegression(C=1.0)`. The prior is in units of the coefficients, so put a `StandardScaler` before it where
    features have different units.

    Args:
        prior: As of `MAPRegressor`.
        likelihood: `br.likelihoods.Bernoulli` (default for two classes) or `Categorical` (one output for each class).
        hidden: Sizes of hidden layers; default none.
        module: The model instead: a torch module, or a function of (features, outputs) that makes one; it returns
            logits.
        fit_intercept: Whether layers have biases.
        optimizer: As of `MAPRegressor`.
        training: As of `MAPRegressor`.
        strength: As of `MAPRegressor`.
        tol: KKT residual at which a solver stops, nats per example. Default 1e-9; of networks 1e-5.
        max_iter: Iterations of a solver at most. Default 10,000; of networks 1,000.
        random_state: Of initial weights, of the order of batches, and of divisions.

    Attributes:
        classes_: The labels, sorted.
        coef_: (1, features) of two classes, (classes, features) of more; of linear models.
        intercept_: (1,) or (classes,); of linear models.
        model_: The torch module, in float64.
        prior_: The `ModelPrior` over it.
        likelihood_: The likelihood.
        choice_: The `br.strength.Choice`; None where the prior said its scale.
        result_: The `br.FitResult`.
        n_iter_: Iterations, or epochs.
        n_features_in_: Features.
        feature_names_in_: Their names, where X had some.

    Example:
        >>> import numpy as np
        >>> X = np.array([[-2.0], [-1.0], [1.0], [2.0]])
        >>> model = MAPClassifier(prior="gaussian(1.0)").fit(X, ["no", "no", "yes", "yes"])
        >>> model.predict([[1.5]]).tolist(), model.predict_proba([[0.0]]).round(3).tolist()
        (['yes'], [[0.5, 0.5]])

    References:
        docs/sklearn.md: the settings of LogisticRegression in these terms.
    """

    @classmethod
    @answering
    def from_sklearn(cls, estimator: Any) -> Self:
        """Return the estimator with the objective of scikit-learn's `LogisticRegression`.

        Args:
            estimator: A LogisticRegression, fitted or not.

        Returns:
            The estimator, not fitted.

        Raises:
            UnsupportedError: If it is another, or a setting of it has no counterpart, as class weights.

        Example:
            >>> from sklearn.linear_model import LogisticRegression
            >>> MAPClassifier.from_sklearn(LogisticRegression(C=4.0)).prior
            Gaussian(scale=2, loc=0)
        """
        return cls(**classifier_arguments(estimator))

    @answering
    def to_sklearn(self) -> Any:
        """Return the fitted model as a `LogisticRegression`, which predicts the same without torch.

        Returns:
            It, fitted, with the C that this prior is.

        Raises:
            NotEquivalentError: If there is none.

        Example:
            >>> import numpy as np
            >>> fitted = MAPClassifier("laplace(0.5)").fit(np.array([[-2.0], [-1.0], [1.0], [2.0]]), [0, 0, 1, 1])
            >>> fitted.to_sklearn()
            LogisticRegression(C=0.5, l1_ratio=1.0, solver='saga')
        """
        check_is_fitted(self)
        return classifier_of(self)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MAPClassifier:
        """Fit.

        Args:
            X: (n, features), numbers; an array or a table.
            y: (n,), labels of any kind.
            sample_weight: (n,), how often each example counts, in the NLL and in n; 0 leaves it out.

        Returns:
            The estimator.

        Raises:
            InvalidArgumentError: If an argument is out of range.
            UnsupportedError: If the prior has no MAP, or no solver or method serves it.
            ValueError: If X or y cannot be used.
        """
        X, y = numbers_of(self, X, y, dtype=DTYPES)
        check_classification_targets(y)
        weight = self._weights(sample_weight, X)
        self.classes_, codes = np.unique(y, return_inverse=True)
        counted = self.classes_ if weight is None else self.classes_[np.unique(codes[weight.numpy() > 0.0])]
        if len(counted) < 2:
            raise InvalidArgumentError(
                f"y: expected at least two classes (of examples with a weight), got one class: {counted[0]!r}."
            )
        likelihood = self._likelihood_for(len(self.classes_))
        self._dtype = X.dtype
        one = isinstance(likelihood, Bernoulli)
        target = torch.as_tensor(codes.reshape(-1).astype(np.float64 if one else np.int64))
        try:
            self._train(X, target[:, None] if one else target, 1 if one else len(self.classes_), likelihood, weight)
        finally:
            if self._is_linear and hasattr(self, "model_"):
                self._read_off()
        return self

    def _likelihood_for(self, classes: int) -> Likelihood:
        given = self.likelihood
        if given is None:
            return Bernoulli() if classes == 2 else Categorical()
        if not isinstance(given, Bernoulli | Categorical):
            raise InvalidArgumentError(
                f"likelihood: expected br.likelihoods.Bernoulli() or Categorical(), got {given!r}; numbers are "
                f"br.MAPRegressor's."
            )
        if isinstance(given, Bernoulli) and classes > 2:
            raise InvalidArgumentError(
                f"likelihood: Bernoulli() is of two classes, and y has {classes}; use Categorical()."
            )
        return self._copied(given)

    def _read_off(self) -> None:
        layer: Any = self.model_
        bias = layer.bias
        self.coef_ = layer.weight.detach().numpy().astype(self._dtype)
        shift = np.zeros(len(self.coef_)) if bias is None else bias.detach().numpy()
        self.intercept_ = shift.astype(self._dtype)

    def decision_function(self, X: Any) -> Any:
        """Return the log odds of two classes, (n,), or the logits of each class, (n, classes).

        Args:
            X: (n, features).
        """
        check_is_fitted(self)
        X = numbers_of(self, X, reset=False, dtype=DTYPES)
        output = self._output(X).numpy().astype(X.dtype)
        if output.shape[1] == 1:
            return output[:, 0]
        return output[:, 1] - output[:, 0] if output.shape[1] == 2 else output

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class, (n, classes), in the order of `classes_`; float64 for any X.

        Args:
            X: (n, features).
        """
        check_is_fitted(self)
        X = numbers_of(self, X, reset=False, dtype=DTYPES)
        output = self._output(X)
        if output.shape[1] == 1:
            # 1 − p would round where p is nearly 1.
            found = torch.cat([torch.sigmoid(-output), torch.sigmoid(output)], 1)
        else:
            found = output.softmax(1)
        return found.numpy()

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithms of `predict_proba`, which do not underflow.

        Args:
            X: (n, features).
        """
        check_is_fitted(self)
        X = numbers_of(self, X, reset=False, dtype=DTYPES)
        output = self._output(X)
        log = torch.nn.functional.logsigmoid
        found = torch.cat([log(-output), log(output)], 1) if output.shape[1] == 1 else output.log_softmax(1)
        return found.numpy()

    def predict(self, X: Any) -> Any:
        """Return the likeliest class of each row, (n,).

        Args:
            X: (n, features).
        """
        scores = self.decision_function(X)
        return self.classes_[(scores > 0.0).astype(int) if scores.ndim == 1 else scores.argmax(1)]
