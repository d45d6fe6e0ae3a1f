"""The interface between a training and what looks on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer

from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.routes.attach import Handle

__all__ = ["Callback", "Training"]


@dataclass
class Training:
    """A training as a callback sees it.

    Attributes:
        model: The model that is trained.
        prior: The prior over it.
        likelihood: The likelihood.
        optimizer: The optimizer.
        handle: What `br.attach` returns: how the prior reaches it.
        num_data: n; None where only the loss scale is known.
        loss_scale: s, of the mean NLL.
        epoch: The epoch at work, from 1.
        step: Optimizer steps done.
        nll: Mean NLL of the last step's examples, nats.
        grad_norm: Norm of the gradient of the mean NLL, before prior and clip; None where it was not asked for.
        record: The last record of the history: of an epoch, or of `evaluate_every` steps.
        recorded: The step of the last record.
        resumed: Whether this run goes on from where another process left it, or would if there were anything.
        main: Whether this is the main of several processes, the one that writes.
        stopped: Whether a callback has asked for the end.
    """

    model: nn.Module
    prior: ModelPrior
    likelihood: Likelihood
    optimizer: Optimizer
    handle: Handle
    num_data: float | None
    loss_scale: float
    epoch: int = 1
    step: int = 0
    nll: float = float("nan")
    grad_norm: float | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    recorded: int = 0
    resumed: bool = False
    main: bool = True
    stopped: bool = False

    def stop(self) -> None:
        """End the training after this step; it is measured and kept as any other end."""
        self.stopped = True

    def prior_terms(self) -> dict[str, float]:
        """Return log p(θ), and −log p(θ) without its constant, of the whole prior and of each of its parts, in nats.

        One pass over the weights. Names are flat: `prior/log_prior`, `prior/penalty`, and for each prior on each
        param group the penalty under its family, `prior/Laplace/penalty` and `prior/Laplace 2/penalty`, in the order
        of the groups. The parts add up.

        Returns:
            The terms by name.
        """
        terms = self.handle.log()
        parts: dict[str, float] = {}
        for group in terms["groups"]:
            family = group["prior"].split(",")[0].split("(")[0].strip()
            number = sum(name.startswith(f"prior/{family}") for name in parts)
            parts[f"prior/{family}{f' {number + 1}' if number else ''}/penalty"] = group["penalty"]
        return {"prior/log_prior": terms["log_prior"], "prior/penalty": terms["penalty"], **parts}


class Callback:
    """Base class: override what is needed. An exception of a callback ends the training as any other error.

    Called in the order in which they were given, on every process. What a callback draws at random, or changes in the
    model, is part of the training.

    Example:
        >>> class Patient(Callback):
        ...     def on_epoch_end(self, training):
        ...         if training.record["running_nll"] < 0.1:
        ...             training.stop()
    """

    def on_start(self, training: Training) -> None:
        """Before the first step, or where a resumed run goes on: `training.step` says.

        Args:
            training: The training.
        """

    def on_step(self, training: Training) -> None:
        """After each optimizer step.

        Args:
            training: The training.
        """

    def on_epoch_end(self, training: Training) -> None:
        """After each record: at the end of an epoch, or after `evaluate_every` steps.

        Args:
            training: The training.
        """

    def on_end(self, training: Training) -> None:
        """When training ends, by an error or an interrupt too.

        Args:
            training: The training.
        """

    def wants_grad_norm(self, step: int) -> bool:
        """Return whether `training.grad_norm` is measured at this step, which costs a pass over the gradients.

        Args:
            step: The step, from 1.

        Returns:
            False, unless overridden.
        """
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs of this callback: numbers, strings and tensors.

        Returns:
            Nothing, unless overridden.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned.

        Args:
            state: That.
        """
