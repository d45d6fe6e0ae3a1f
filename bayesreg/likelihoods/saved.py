"""Likelihoods as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from bayesreg.errors import InvalidArgumentError
from bayesreg.hyperpriors import from_dict
from bayesreg.likelihoods.base import Likelihood
from bayesreg.likelihoods.bernoulli import Bernoulli
from bayesreg.likelihoods.categorical import Categorical
from bayesreg.likelihoods.gaussian import Gaussian
from bayesreg.likelihoods.poisson import Poisson
from bayesreg.likelihoods.student_t import StudentT
from bayesreg.likelihoods.tokens import Tokens

__all__ = ["likelihood_from", "settings_of"]


def settings_of(likelihood: Likelihood) -> dict[str, Any] | None:
    """Return what `likelihood_from` makes the likelihood of again, its noise as it is now.

    Args:
        likelihood: The likelihood.

    Returns:
        What JSON can hold; None where only code could make it: a loss, a class of one's own.
    """
    settings = likelihood.settings()
    return None if settings is None else {"kind": type(likelihood).__name__, **settings}


_PLAIN: dict[str, type[Likelihood]] = {cls.__name__: cls for cls in (Bernoulli, Poisson, Categorical, Tokens)}


def likelihood_from(settings: Mapping[str, Any]) -> Likelihood:
    """Return the likelihood that `settings_of` described.

    Args:
        settings: What it returned.

    Returns:
        The likelihood.

    Raises:
        InvalidArgumentError: If it is none of these, or a setting is out of range.
    """
    given = dict(settings)
    kind = given.pop("kind", None)
    try:
        if kind in _PLAIN:
            return _PLAIN[kind](**given)
        if kind == Gaussian.__name__:
            noise, prior = given["noise_std"], given["prior"]
            if not given["learned"]:
                return Gaussian(noise)
            found = Gaussian("learned", prior=None if prior is None else from_dict(prior))
            with torch.no_grad():
                found.log_noise_std.fill_(math.log(Gaussian(noise).noise_std))
            return found
        if kind == StudentT.__name__:
            scale = StudentT(given["df"], given["noise_scale"])
            if not given["learned"]:
                return scale
            robust = StudentT(given["df"], "learned")
            with torch.no_grad():
                robust.log_noise_scale.fill_(math.log(scale.noise_scale))
            return robust
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidArgumentError(f"likelihood: {kind} cannot be made of {dict(settings)} ({error}).") from error
    raise InvalidArgumentError(f"likelihood: expected a kind that bayesreg knows, got {kind!r}.")
