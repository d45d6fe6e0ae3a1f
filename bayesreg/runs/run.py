"""A trained model with all that it takes to use it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.data import BatchFormat, Kind, Reading, predicted
from bayesreg.data.columns import is_table
from bayesreg.errors import DataError, InvalidArgumentError
from bayesreg.likelihoods import Likelihood
from bayesreg.likelihoods.output import OutputPick
from bayesreg.model_prior import ModelPrior
from bayesreg.runs.coefficients import coefficients_of
from bayesreg.tables import Encoder, Table, read_table

__all__ = ["Run"]


@dataclass(frozen=True)
class Run:
    """What `br.load_run` reads back; `model, prior = run` works too.

    Attributes:
        model: The trained model, in evaluation mode.
        prior: Its prior.
        likelihood: Its likelihood, with the noise that was learned; None where only code could make it.
        class_names: Of the classes, in the order of the outputs; empty where they have none.
        feature_names: Of the inputs, in order; empty where they have none.
        output: Which output of the model the likelihood takes; None: what it returns.
        form: Which entry of a batch is the target, which the weights.
        metrics: All numbers that were kept with it.
        columns: What makes the features of a table's columns; None where the features are the inputs.
    """

    model: nn.Module
    prior: ModelPrior
    likelihood: Likelihood | None = None
    class_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    output: OutputPick | None = None
    form: BatchFormat = field(default_factory=BatchFormat, repr=False)
    metrics: dict[str, Any] = field(default_factory=dict, repr=False)
    columns: Encoder | None = field(default=None, repr=False)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.prior))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return (self.model, self.prior)[index]

    @property
    def noise_std(self) -> float | None:
        """The standard deviation of Gaussian noise, in the units of the target; None for other likelihoods."""
        return None if self.likelihood is None else self.likelihood.gaussian_noise_std

    @property
    def scaling(self) -> dict[str, tuple[Tensor, Tensor]]:
        """(mean, std) with which layers inside the model standardise its "features" and, of a number, its "target"."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for name, layer in (("features", "standardize"), ("target", "unstandardize")):
            held: Any = getattr(self.model, layer, None)
            if isinstance(held, nn.Module):
                found[name] = (cast(Tensor, held.mean), cast(Tensor, held.std))
        return found

    @property
    def coefficients(self) -> dict[str, tuple[float, ...]]:
        """By feature, what one unit of it more adds to each output; empty for a network that is not linear."""
        found = coefficients_of(self.model, self.feature_names)
        return {} if found is None else {one.feature: one.per_unit for one in found[0]}

    @property
    def intercepts(self) -> tuple[float, ...]:
        """Of the outputs, where all features are 0; empty for a network that is not linear."""
        found = coefficients_of(self.model, self.feature_names)
        return () if found is None else tuple(found[1])

    @answering
    def predict(
        self, data: Any, *, kind: Kind | Literal["names"] = "distribution", batch_size: int = 1024
    ) -> Distribution | Tensor | list[str]:
        """Return what the model predicts, as `MAPTrainer.predict` does.

        Args:
            data: Raw inputs, as in training: an array, tensor or table, a loader or dataset. Of a run of `bayesreg fit`
                on a table also that table's columns: a pandas one with text and gaps, or the path of a CSV.
            kind: "distribution" (default), "mean", "probabilities", "classes", "output", or "names", the likeliest
                class by its name.
            batch_size: For arrays and datasets.

        Returns:
            For all inputs in their order: a torch distribution, a tensor, or the names.

        Raises:
            InvalidArgumentError: If there is no likelihood, no names are known, or the kind is none of these.
            DataError: If the data cannot be used.
            UnsupportedError: If the likelihood has no such prediction.

        Example:
            >>> import bayesreg as br
            >>> run = br.load_run("runs/cancer")  # doctest: +SKIP
            >>> run.predict(X, kind="names")[:2]  # doctest: +SKIP
            ['benign', 'malignant']
        """
        if self.likelihood is None and kind != "output":
            raise InvalidArgumentError(
                "predict: the run's likelihood is code, which its folder cannot hold; br.load_run(folder, "
                "likelihood=...), or ask for kind='output'."
            )
        if kind == "names" and not self.class_names:
            raise InvalidArgumentError("kind: the classes of this run have no names; ask for 'classes'.")
        reading = Reading(_Unknown() if self.likelihood is None else self.likelihood, form=self.form, pick=self.output)
        data = self._encoded(data)
        of_classes: Kind = "classes" if kind == "names" else kind
        found = predicted(self.model, reading, data, of_classes, checks.positive_int("batch_size", batch_size))
        if kind == "names" and isinstance(found, Tensor):
            if int(found.max()) >= len(self.class_names):
                raise InvalidArgumentError(
                    f"kind: the run has {len(self.class_names)} names, and its model more classes; ask for 'classes'."
                )
            return [self.class_names[index] for index in found.reshape(-1).tolist()]
        return found

    def _encoded(self, data: Any) -> Any:
        """Return a table's columns as features; anything else as it is."""
        if isinstance(data, str | os.PathLike):
            data = read_table(Path(data))
        elif is_table(data) and self.columns is not None:
            data = Table.of(data)
        if not isinstance(data, Table):
            return data
        if self.columns is None:
            raise DataError("data: this run's inputs are features, not columns of a table; pass an array.")
        matrix, _ = self.columns.encode(data)
        return torch.as_tensor(matrix)


class _Unknown(Likelihood):
    """Stands for a likelihood that is not known, where only outputs are asked for."""

    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError

    def predictive(self, output: Tensor) -> torch.distributions.Distribution:
        raise NotImplementedError
