"""What training leaves behind."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bayesreg._support.drawing import draw
from bayesreg._support.tables import Table
from bayesreg.conversion import LossScale
from bayesreg.trainer.modes import Modes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FitResult", "History"]


class History(list[dict[str, Any]]):
    """One record per epoch (or solver iteration); prints as a table.

    Epochs of stochastic training keep `running_nll`, the mean over the epoch while the weights moved, and
    `running_objective`; solvers keep the exact `mean_nll` and `objective`.
    """

    @property
    def table(self) -> Table:
        """The records as a table."""
        columns = tuple(dict.fromkeys(key for record in self for key in record))
        return Table("History", columns, [tuple(record.get(c) for c in columns) for record in self])

    def column(self, name: str) -> list[Any]:
        """Return one column, None where a record lacks it.

        Args:
            name: The column.

        Returns:
            Its values.

        Raises:
            KeyError: If no record has it.
        """
        if not any(name in record for record in self):
            raise KeyError(f"no column {name!r}; there are {', '.join(self.table.columns)}")
        return [record.get(name) for record in self]

    def __str__(self) -> str:
        return str(self.table)


@dataclass(frozen=True)
class FitResult:
    """The outcome of `MAPTrainer.fit`; the weights themselves are in the model.

    Attributes:
        mean_nll: Mean NLL per training example at the final weights, nats, in evaluation mode.
        log_prior: log p(θ), nats, normalised (flat parts count 0).
        log_prior_constant: Its part that does not depend on the weights.
        objective: mean_nll − s·(log_prior − log_prior_constant), what was minimised.
        num_data: n, of examples, tokens or weights; None where only the loss scale was known.
        loss_scale: s, of the mean NLL: 1/n unless the trainer was given another.
        history: One record per epoch or solver iteration.
        routes: Which prior reached which parameters how.
        converged: Whether a full-batch solver reached its tolerance; None for stochastic training.
        kkt_residual: Largest distance of the objective's gradient (subgradient) from 0 at the final weights, per
            example; None for stochastic training.
        exact_zeros: Share of the weights under kinked priors that sit exactly at the kink; None without such priors.
        modes: The local modes found, lowest first, if several starting points were tried; None otherwise.
        multimodal: Names of the parameters whose prior is not convex: the fit may be one local mode of several.
        best_epoch: The epoch whose weights were kept; None for full-batch solvers.
        val_nll: Mean NLL per validation example at the final weights, or None.
        val_metric: The validation metric there, or None.
        metric_name: Its name.
        val_metrics: The user's own metrics there, by name.
        seconds: Wall-clock time.
        kept_record: The record of `history`, from 1, whose weights were kept; None for full-batch solvers.
        measured: Whether mean_nll (and objective) are of the final weights. False after an interrupt, and with
            `measure=False`: then it is what was met on the way in the epoch that was kept, NaN without one.
        interrupted: What stopped the training before its end, in words; empty if nothing did.
        notes: What else is to be known, in sentences.
        continued: How a further fit of the same trainer began, in words; empty for the first.
        unit: What one of n is: "example", "token", or "observation" of a likelihood that counts others within examples.
    """

    mean_nll: float
    log_prior: float
    log_prior_constant: float
    objective: float
    num_data: float | None
    history: History = field(repr=False)
    routes: Table = field(repr=False)
    converged: bool | None = None
    kkt_residual: float | None = None
    exact_zeros: float | None = None
    modes: Modes | None = field(default=None, repr=False)
    multimodal: tuple[str, ...] = ()
    best_epoch: int | None = None
    val_nll: float | None = None
    val_metric: float | None = None
    metric_name: str = ""
    val_metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    loss_scale: LossScale | None = field(default=None, repr=False)
    kept_record: int | None = field(default=None, repr=False)
    measured: bool = True
    interrupted: str = ""
    notes: tuple[str, ...] = field(default=(), repr=False)
    continued: str = field(default="", repr=False)
    unit: str = field(default="example", repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, ready for JSON."""
        names = (
            "mean_nll log_prior log_prior_constant objective num_data converged kkt_residual exact_zeros best_epoch "
            "val_nll val_metric metric_name val_metrics seconds measured interrupted"
        )
        found = {name: getattr(self, name) for name in names.split()}
        modes = None if self.modes is None else [asdict(mode) for mode in self.modes]
        return {**found, "multimodal": list(self.multimodal), "modes": modes, "continued": self.continued}

    def summary(self) -> Table:
        """Return the outcome and the routes as one table."""
        rows: list[tuple[Any, ...]] = [
            (f"objective (nats per {self.unit})", self.objective),
            ("  mean NLL" if self.measured else "  mean NLL (on the way, not of the final weights)", self.mean_nll),
            ("  penalty times loss scale", self.objective - self.mean_nll),
            ("log prior (nats, with its constant)", self.log_prior),
            (f"training {self.unit}s", self.num_data),
        ]
        if self.val_nll is not None:
            rows += [("validation mean NLL", self.val_nll), (f"validation {self.metric_name}", self.val_metric)]
            rows += [(f"validation {name}", value) for name, value in self.val_metrics.items()]
        if self.exact_zeros is not None:
            rows.append(("share of exact zeros", self.exact_zeros))
        if self.kkt_residual is not None:
            rows.append(("KKT residual", self.kkt_residual))
            rows.append(("converged", "yes" if self.converged else "no"))
        if self.best_epoch is not None:
            rows.append(("epoch kept", self.best_epoch))
        early = [self.continued] if self.continued else []
        if self.interrupted:
            early.append(f"Stopped by {self.interrupted}; the best weights before it are kept.")
        if self.modes is not None:
            early.append(self.modes.words)
        elif self.multimodal:
            early.append(
                f"The prior of {', '.join(self.multimodal[:3])}{', ...' if len(self.multimodal) > 3 else ''} is not "
                f"convex: this may be one local mode of several, and another start may end in another. A full-batch "
                f"solver (optimizer='lbfgs' or 'proximal') looks for several with starts=20."
            )
        if self.kept_record is not None and self.kept_record < len(self.history):
            kept, last = self.history[self.kept_record - 1], self.history[-1]
            what = "epoch" if kept["epoch"] != last["epoch"] else "step"
            early += [
                f"Weights of {what} {kept[what]} of {last[what]}, the best validation NLL: stopped early, not the MAP "
                f"(restore_best=False keeps the last)."
            ]
        early += self.notes
        notes = [f"{row[0]}: {row[1]}, route {row[2]}, equivalent weight_decay {row[3]}" for row in self.routes.rows]
        return Table("MAP fit", ("quantity", "value"), rows, (*early, *notes, *self.routes.notes))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw NLL and objective during training.

        Args:
            ax: Where to draw; a new figure by default.

        Returns:
            The axes.

        Raises:
            ImportError: If matplotlib is not installed (`pip install 'bayesreg[viz]'`).
        """
        return draw("plot_history", self, ax)
