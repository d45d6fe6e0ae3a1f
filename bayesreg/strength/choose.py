"""The strength of a prior from the data it is for: `br.choose_strength`."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import nn

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.data import TrainingData, as_tensors
from bayesreg.errors import InvalidArgumentError, StrengthWarning, kind_of, nearest
from bayesreg.hyperpriors import HalfCauchy, HyperPrior
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.coverage import check_prior_of
from bayesreg.priors import Belief
from bayesreg.priors.contract.asking import is_flat
from bayesreg.selection import SelectorLike
from bayesreg.strength.by_evidence import by_evidence
from bayesreg.strength.by_walk import by_walk
from bayesreg.strength.choice import Choice
from bayesreg.strength.groups import ONE, Groups
from bayesreg.strength.route import NAMES, route
from bayesreg.strength.setting import Setting
from bayesreg.strength.signals import LOUD
from bayesreg.strength.walk.settings import require_settings, stochastic_settings

__all__ = ["Method", "choose_strength"]

_STANDARD = HalfCauchy(1.0)
_OWN = ("model", "prior", "likelihood", "data", "method", "hyperprior", "groups", "seed")

Method = Literal["auto", "evidence", "loo", "gcv", "split", "folds"]


@answering
def choose_strength(
    model: nn.Module,
    prior: ModelPrior | Belief | type[Belief] | Mapping[SelectorLike, Belief],
    likelihood: Likelihood,
    data: TrainingData,
    *,
    method: Method = "auto",
    hyperprior: HyperPrior | None = _STANDARD,
    groups: Groups = ONE,
    seed: int = 0,
    **trainer: Any,
) -> Choice:
    """Choose what to multiply a prior's widths by, from the training data alone, at the price of one or two fits.

    One fit under the prior as it is; from there a walk to weaker and to stronger priors, each fit begun where the one
    before ended and scored by examples that it did not see. What is minimised over the scale t is
    Σ_i −log p(y_i | x_i, fit without i) − log p(log t), in nats, so that the hyperprior counts as one observation does.

    Args:
        model: Left as it is; the walk begins at a copy of its weights.
        prior: A `ModelPrior`, or what makes one. Its shape is kept (fan-in, centres, learned variances), and all its
            widths are multiplied by the scale.
        likelihood: From `br.likelihoods`. A Gaussian noise that is learned is estimated from held-out examples.
        data: Inputs and targets, all of them: nothing is set aside for good. A Dataset or a DataLoader is read once,
            into memory.
        method: "auto" (default), or how a fit is scored. "evidence": exactly, of models that are linear in their
            weights with Gaussian noise. "loo": leave-one-out from the one fit, of smooth priors of independent weights.
            "split": a fifth of the data held out, classes alike. "folds": each fifth in turn. "gcv": generalized
            cross-validation, where the evidence is exact.
        hyperprior: Of the scale: what is believed of it before the data. Default: half-Cauchy with median 1, at which
            the prior is as given. None: nothing.
        groups: "one" (default): one scale for all widths. A list of rules, such as ["head.*"]: after the common scale,
            one for the parameters of each, in turn (jointly, where the evidence is exact); what no rule matches keeps
            the common one. "each": one for every weight (automatic relevance determination), of linear models with
            Gaussian noise and priors.
        seed: Of the division into fifths, and of what is random in training.
        **trainer: How a fit from scratch is made, as `MAPTrainer` takes it: optimizer (a factory; default: a full-batch
            solver, and Adam for models that are random or have batch norms), scheduler, scheduler_interval, max_epochs,
            batch_size, accumulate, clip_norm, mixed_precision, cpu, progress.

    Returns:
        The choice: a model at the MAP of all the data, its prior, the scale with its interval, what was tried.

    Raises:
        CoverageError: If the prior is over another model.
        DataError: If the data cannot be used.
        InvalidArgumentError: If an argument is out of range, or nothing has a prior.
        PatternError: If a rule of `groups` matches nothing that has a prior.
        UnsupportedError: If the method cannot serve this prior, model or likelihood; the message says which can.

    Warns:
        StrengthWarning: If all weights collapsed, the best strength is at an end of what was tried, or the fit is no
            minimum. What else speaks against the choice is in `choice.warnings`.

    Example:
        >>> import torch, bayesreg as br
        >>> X = torch.linspace(-1, 1, 30).double()[:, None]
        >>> noise = torch.sin(1e4 * X)  # as good as random
        >>> choice = br.choose_strength(torch.nn.Linear(1, 1).double(), br.Gaussian(1.0),
        ...                             br.likelihoods.Gaussian("learned"), (X, 3 * X + noise))
        >>> 1.0 < choice.scale < 6.0, choice.method
        (True, 'evidence')

    References:
        docs/strength.md has the method, what it was measured to do, and where it fails. Automatic relevance
        determination: MacKay (1994), Bayesian Nonlinear Modeling for the Prediction Competition; Tipping (2001).
    """
    start = time.perf_counter()
    if method not in get_args(Method):
        raise InvalidArgumentError(
            f"method: expected one of {', '.join(get_args(Method))}, got {method!r}"
            f"{nearest(str(method), get_args(Method))}."
        )
    seed = checks.seed("seed", seed)
    require_settings(trainer, _OWN)
    given = _as_model_prior(model, prior)
    check_prior_of(model, given)
    if all(is_flat(part) for _, part in given.active()):
        raise InvalidArgumentError("prior: expected one on some trained parameter, got flat ones only.")
    copied, own = copy.deepcopy((model, given))
    inputs, targets = as_tensors(copied, likelihood, data)
    device = next(copied.parameters()).device
    inputs, targets = inputs.to(device), targets.to(device)
    copied.eval()
    training = stochastic_settings(copied, trainer)
    setting = Setting.of(copied, own, likelihood, inputs, targets, hyperprior, seed, training, groups)
    way = route(setting, method)
    found = by_evidence(setting, way.method) if way.exact else by_walk(setting, way.method)
    for name, words in found.warnings.items():
        if name in LOUD:
            warnings.warn(f"choose_strength: {words}", StrengthWarning, stacklevel=3)
    return Choice(
        model=copied,
        prior=found.prior,
        likelihood=found.likelihood,
        scale=found.scale,
        interval=found.interval,
        steps=found.steps,
        method=way.method,
        why=f"By {NAMES[way.method]}, as {way.because}. {found.why}".strip(),
        warnings=found.warnings,
        num_data=len(targets),
        evaluations=found.evaluations,
        seconds=time.perf_counter() - start,
        groups=found.own,
        sensitivity=found.sensitivity,
    )


def _as_model_prior(model: nn.Module, prior: Any) -> ModelPrior:
    if isinstance(prior, type) and issubclass(prior, Belief):
        try:
            prior = prior(1.0)
        except (TypeError, InvalidArgumentError) as error:
            raise InvalidArgumentError(
                f"prior: expected a prior such as br.{prior.__name__}(...), got {kind_of(prior)}."
            ) from error
    return prior if isinstance(prior, ModelPrior) else ModelPrior(model, prior)
