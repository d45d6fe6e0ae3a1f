"""From columns of text and numbers to features: a scikit-learn `ColumnTransformer` that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from bayesreg._support.optional import require
from bayesreg.errors import DataError, InvalidArgumentError
from bayesreg.tables.kinds import numbers_in
from bayesreg.tables.table import Table, few

__all__ = ["Encoder", "Feature"]

Matrix = npt.NDArray[np.float64]

#: What a missing text is called, as one category more.
_GAP = "(missing)"


@dataclass(frozen=True)
class Feature:
    """What is made of one column.

    Attributes:
        name: Of the column.
        fill: Of a number: what stands for a missing one, the median; None of a text.
        gaps: Of a number: whether there is a feature more that says where one was missing.
        categories: Of a text: its words, one feature each; "(missing)" is one where some were.
    """

    name: str
    fill: float | None = None
    gaps: bool = False
    categories: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Of the features that it becomes."""
        if self.fill is not None:
            return [self.name, f"{self.name} {_GAP}"] if self.gaps else [self.name]
        return [f"{self.name} = {word}" for word in self.categories]


@dataclass(frozen=True)
class Encoder:
    """What is made of the columns, in order.

    Attributes:
        features: One for each column.
    """

    features: tuple[Feature, ...]

    @classmethod
    def of(cls, table: Table, kinds: Mapping[str, str]) -> Self:
        """Learn medians and categories.

        Args:
            table: The rows to learn from.
            kinds: "number" or "text" by column name, of those that are features.

        Returns:
            The encoder.
        """
        found = []
        for name, kind in kinds.items():
            column = table.column(name)
            gaps = not all(column)
            if kind == "number":
                there = [value for value in numbers_in(table, name) if value == value]
                found.append(Feature(name, fill=float(median(there)) if there else 0.0, gaps=gaps))
            else:
                words = sorted({text for text in column if text})
                found.append(Feature(name, categories=(*words, *([_GAP] if gaps else []))))
        return cls(tuple(found))

    @property
    def names(self) -> list[str]:
        """Of all features, in order."""
        return [name for feature in self.features for name in feature.names]

    @property
    def measured(self) -> list[bool]:
        """Which features are numbers that are measured, and are to be standardised; the others are 0 or 1."""
        return [
            feature.fill is not None and index == 0
            for feature in self.features
            for index, _ in enumerate(feature.names)
        ]

    @property
    def plain(self) -> bool:
        """Whether the columns are the features, as they are."""
        return all(feature.fill is not None and not feature.gaps for feature in self.features)

    def transformer(self) -> Any:
        """Return the scikit-learn `ColumnTransformer` that this is, fitted; it takes an object array of the columns.

        Returns:
            The transformer.

        Raises:
            ImportError: If scikit-learn is not installed.
        """
        require("sklearn", "sklearn", "Tables with text or missing values")
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import OneHotEncoder

        parts: list[Any] = []
        # Two rows that have all there is to know: a value, and a gap where there is a feature for one.
        seen = np.empty((2, len(self.features)), dtype=object)
        for at, feature in enumerate(self.features):
            if feature.fill is not None:
                imputer = SimpleImputer(strategy="constant", fill_value=feature.fill, add_indicator=feature.gaps)
                parts.append((f"{at}", imputer, [at]))
                seen[:, at] = [feature.fill, np.nan if feature.gaps else feature.fill]
            else:
                words = np.array(feature.categories, dtype=object)
                encoder = OneHotEncoder(categories=[words], handle_unknown="ignore", sparse_output=False)
                parts.append((f"{at}", encoder, [at]))
                seen[:, at] = feature.categories[0]
        made = ColumnTransformer(parts, sparse_threshold=0.0)
        made.fit(seen)
        return made

    def encode(self, table: Table) -> tuple[Matrix, list[str]]:
        """Return the features of a table, and what is to be said of it.

        Args:
            table: Rows with all these columns, by name.

        Returns:
            (n, features), and notes on values that were not met before.

        Raises:
            DataError: If a column is missing, or holds what it may not.
            ImportError: If it takes scikit-learn and that is not installed.
        """
        missing = [feature.name for feature in self.features if feature.name not in table.names]
        if missing:
            raise DataError(
                f"{table.path}: expected the columns that were trained on, and {few([repr(m) for m in missing])} "
                f"{'is' if len(missing) == 1 else 'are'} missing."
            )
        columns, notes = [], []
        for feature in self.features:
            column, note = self._column(table, feature)
            columns.append(column)
            notes += note
        if self.plain and not any(np.isnan(column.astype(np.float64)).any() for column in columns):
            return np.column_stack(columns).astype(np.float64), notes
        found = self.transformer().transform(np.column_stack(columns).astype(object))
        return np.asarray(found, dtype=np.float64), notes

    def _column(self, table: Table, feature: Feature) -> tuple[npt.NDArray[Any], list[str]]:
        if feature.fill is not None:
            numbers = np.array(numbers_in(table, feature.name), dtype=object)
            gaps = sum(value != value for value in numbers)
            note = f"{feature.name!r}: {gaps} missing, of which there was none in training: {feature.fill:g} instead."
            return numbers, [note] if gaps and not feature.gaps else []
        words = table.column(feature.name)
        known = set(feature.categories)
        new = sorted({word for word in words if word and word not in known})
        notes = [f"{feature.name!r}: {few(new)}, not met in training: as no category."] if new else []
        if "" in words and _GAP not in known:
            notes.append(f"{feature.name!r}: {words.count('')} missing, of which there was none in training: as none.")
        return np.array([word or _GAP for word in words], dtype=object), notes

    # -- as JSON -----------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "columns": [
                {"name": f.name, "fill": f.fill, "gaps": f.gaps}
                if f.fill is not None
                else {"name": f.name, "categories": list(f.categories)}
                for f in self.features
            ]
        }

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Return the encoder that `to_dict` described.

        Args:
            data: What it returned.

        Returns:
            The encoder.

        Raises:
            InvalidArgumentError: If it is damaged.
        """
        try:
            columns: Sequence[Any] = data["columns"]  # type: ignore[index]
            found = tuple(map(_feature, columns))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InvalidArgumentError(f"columns: damaged ({type(error).__name__}: {error}).") from error
        if not found or len({feature.name for feature in found}) < len(found):
            raise InvalidArgumentError("columns: damaged, expected at least one, each once.")
        return cls(found)


def _feature(given: Mapping[str, Any]) -> Feature:
    name = given["name"]
    if "categories" in given:
        words = tuple(given["categories"])
        if not words or not all(isinstance(word, str) for word in (name, *words)) or len(set(words)) < len(words):
            raise ValueError(f"categories of {name!r}")
        return Feature(name, categories=words)
    fill, gaps = given["fill"], given["gaps"]
    if not isinstance(name, str) or not isinstance(gaps, bool) or not abs(float(fill)) < 1e300:
        raise ValueError(f"fill or gaps of {name!r}")
    return Feature(name, fill=float(fill), gaps=gaps)
