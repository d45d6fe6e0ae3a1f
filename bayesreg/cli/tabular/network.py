"""The network of a table, and the noise of its target."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bayesreg.cli.tabular.data import Encoded, Tabular
from bayesreg.errors import InvalidArgumentError

if TYPE_CHECKING:
    from torch import nn

    from bayesreg.likelihoods import Likelihood

__all__ = ["likelihood_of", "network_of"]


def network_of(
    table: Tabular, encoded: Encoded, train: tuple[Any, Any], model: str, hidden: int | None, seed: int
) -> tuple[nn.Module, tuple[int, int, int]]:
    """Return the network for a table, between layers that standardise, and its sizes.

    Args:
        table: The table.
        encoded: Its features.
        train: Features and targets of the rows to train on.
        model: linear, mlp or module:function.
        hidden: Hidden units of mlp; 32 by default.
        seed: Of the initial weights.

    Returns:
        The network; inputs, outputs and hidden units.

    Raises:
        InvalidArgumentError: If there is no such network, or an option plays no part with it.
    """
    import torch

    from bayesreg.runs import build_network, imported, standardise

    if hidden is not None and model != "mlp":
        raise InvalidArgumentError(f"--hidden: plays no part with --model {model}; leave it out.")
    sizes = (len(encoded.names), _outputs(table), hidden or 32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = imported(model, *sizes[:2]) if ":" in model else model
        network = build_network(net, *sizes, table.task == "regression")
        standardise(network, *train, encoded.measured)
    return network, sizes


def likelihood_of(table: Tabular, targets: Any, noise_std: str | None) -> Likelihood:
    """Return the likelihood of a table's target.

    Args:
        table: The table.
        targets: Of the rows to train on.
        noise_std: Of a regression: a number, or learned; learned by default.

    Returns:
        The likelihood.

    Raises:
        InvalidArgumentError: If the noise is no number, or there is none.
    """
    from bayesreg.likelihoods import Bernoulli, Categorical

    if table.task == "regression":
        return _gaussian_noise(noise_std or "learned", targets)
    if noise_std is not None:
        raise InvalidArgumentError("--noise-std: a classification has no noise std; leave it out.")
    return Categorical() if len(table.classes) > 2 else Bernoulli()


def _gaussian_noise(noise_std: str, targets: Any) -> Likelihood:
    from bayesreg.likelihoods import Gaussian

    if noise_std != "learned":
        return Gaussian(noise_std=_float(noise_std))
    likelihood = Gaussian(noise_std="learned")
    likelihood.log_noise_std.data.fill_(math.log(max(float(targets.std()), 1e-12)))
    return likelihood


def _outputs(table: Tabular) -> int:
    """Return one output for two classes, as scikit-learn has: in a softmax of two a prior means half its precision."""
    return len(table.classes) if len(table.classes) > 2 else 1


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidArgumentError(f"--noise-std: expected a number or 'learned', got {text!r}.") from None
