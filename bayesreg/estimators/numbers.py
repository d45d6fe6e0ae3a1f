"""Arrays of numbers from what an estimator is given."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from bayesreg.errors import DataError

__all__ = ["numbers_of"]

_TEXT = "could not convert string to float: "


def numbers_of(estimator: BaseEstimator, *data: Any, **how: Any) -> Any:
    """Return scikit-learn's `validate_data`, which says of text what to do with it.

    Args:
        estimator: Whose data they are.
        *data: Features, and targets where there are some.
        **how: As `validate_data` takes it.

    Returns:
        The arrays.

    Raises:
        DataError: If there is text among the numbers.
        ValueError: As scikit-learn raises it, for anything else.
    """
    try:
        return validate_data(estimator, *data, **how)
    except ValueError as error:
        if _TEXT not in str(error):
            raise
        text = str(error).partition(_TEXT)[2][:60]
        raise DataError(
            f"X and y: expected numbers, got text such as {text}; where it is in columns, put a "
            f"make_column_transformer((OneHotEncoder(handle_unknown='ignore'), columns), "
            f"remainder=make_pipeline(SimpleImputer(), StandardScaler())) before {type(estimator).__name__} in a "
            f"pipeline, or use bayesreg fit; targets by name are for MAPClassifier."
        ) from error
