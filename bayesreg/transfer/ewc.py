"""Elastic weight consolidation: what earlier tasks said about the weights, as the prior of the next one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.errors import InvalidArgumentError, ReferenceMismatchError, UnsupportedError, kind_of
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Gaussian, MultivariateGaussian, Prior
from bayesreg.references import Reference, Rename
from bayesreg.references.names import renamed
from bayesreg.selection import Selection, SelectorLike, any_of, parameters_of, where
from bayesreg.transfer.fisher import Fisher
from bayesreg.transfer.methods import centered_prior

__all__ = ["ewc_prior"]


@answering
def ewc_prior(
    model: nn.Module,
    fisher: Fisher | Sequence[Fisher],
    *,
    prior_precision: float,
    strength: float = 1.0,
    discount: float = 1.0,
    new: Selection | None = None,
    head: Prior | None = None,
    rename: Rename | None = None,
    extra: Literal["raise", "ignore"] = "raise",
) -> ModelPrior:
    """Return the Laplace approximation of earlier tasks' posterior, the prior of the next task.

    N(w*, 1/P) with P = prior_precision + strength·Σ_t discount^(T−t)·n_t·F_t: the information of all examples of all
    tasks, on top of the prior that they were trained under, about the weights w* after the last.

    Args:
        model: The model to be trained on the next task.
        fisher: What `fisher_information` returned after the task; or several, in the order of the tasks (online EWC).
        prior_precision: Precision > 0 of the Gaussian prior, about 0, of the first task, in 1/units²; the precision of
            weights on which the tasks say nothing.
        strength: > 0; 1 (default) is the Bayesian choice. The λ of EWC, in a penalty (λ/2)·ΣF(w − w*)² beside a
            training loss s·NLL, is strength = λ/(s·n_t); codes without the ½ have half that λ.
        discount: In (0, 1]: how much of an earlier task's information is kept at each later one. Default 1.
        new: Rule key, or a list of them, of layers that the earlier tasks did not have.
        head: The prior of those.
        rename: From names in the earlier model to names in this one; `{"fc.*": None}` leaves a head out.
        extra: "raise" (default) or "ignore": information on parameters that this model does not have.

    Returns:
        The prior.

    Raises:
        InvalidArgumentError: If a number is out of range, there is no information, or the kinds differ.
        ReferenceMismatchError: If the information is of other parameters than the model's; all are listed.
        UnsupportedError: If blocks are of parameters with several rows.

    Example:
        >>> import bayesreg as br
        >>> model, X = nn.Linear(1, 1, bias=False).double(), torch.ones(10, 1).double()
        >>> learned = br.transfer.fisher_information(model, (X, X), br.likelihoods.Gaussian(noise_std=1.0))
        >>> prior = br.transfer.ewc_prior(model, learned, prior_precision=6.0)
        >>> round(prior["weight"].variance().item(), 4)  # 1/(6 + 10)
        0.0625

    References:
        Kirkpatrick et al. (2017), Overcoming catastrophic forgetting in neural networks, equation 3; Schwarz et al.
        (2018), Progress and Compress, section 3 (online EWC); Huszár (2018), Note on the quadratic penalties in elastic
        weight consolidation (one centre, not one per task).
    """
    tasks = [fisher] if isinstance(fisher, Fisher) else list(fisher) if isinstance(fisher, list | tuple) else []
    prior_precision = checks.positive_float("prior_precision", prior_precision)
    strength = checks.positive_float("strength", strength)
    discount = checks.finite_float("discount", discount)
    if not 0.0 < discount <= 1.0:
        raise InvalidArgumentError(f"discount: expected a number in (0, 1], got {discount!r}.")
    if not tasks or not all(isinstance(task, Fisher) for task in tasks):
        raise InvalidArgumentError(
            f"fisher: expected what br.transfer.fisher_information returns, or a list of them, got {kind_of(fisher)}."
        )
    last = tasks[-1]
    if any(task.structure != last.structure for task in tasks):
        raise InvalidArgumentError("fisher: expected one structure for all tasks, got 'diagonal' and 'block'.")
    _require_same(tasks)
    values = [task.values if rename is None else renamed(task.values, rename, "fisher")[0] for task in tasks]
    centres = last.centre if rename is None else renamed(last.centre, rename, "fisher")[0]
    fresh = None if new is None else any_of(new, "new")
    infos = parameters_of(model)
    taken = {name for info in infos if fresh is not None and fresh(info) for name in info.names}
    body: dict[SelectorLike, Prior] = {}
    for name, centre in centres.items():
        if name in taken:
            continue
        total = torch.zeros_like(values[-1][name], dtype=torch.float64)
        for age, (task, value) in enumerate(zip(reversed(tasks), reversed(values), strict=True)):
            total += discount**age * task.num_data * value[name].to(total)
        if last.structure == "diagonal":
            prior: Prior = Gaussian(scale=(prior_precision + strength * total).rsqrt().to(centre))
        else:
            prior = _block(name, centre, prior_precision, strength * total)
        body[where(lambda info, name=name: name in info.names, name)] = prior  # type: ignore[misc]
    lacking = [info for info in infos if not (set(centres) | taken) & set(info.names)]
    if any(info.parameter.requires_grad for info in lacking):
        # So that the reference reports them with whatever else does not fit.
        body["*"] = Gaussian(1.0 / math.sqrt(prior_precision))
    tasks_done = f"{len(tasks)} task{'s' if len(tasks) > 1 else ''}, {sum(task.num_data for task in tasks)} examples"
    reference = Reference(centres, f"the weights after {tasks_done}")
    return centered_prior(model, reference, body, new=new, head=head, extra=extra)


def _require_same(tasks: Sequence[Fisher]) -> None:
    first = {name: tuple(value.shape) for name, value in tasks[0].values.items()}
    for number, task in enumerate(tasks[1:], 2):
        here = {name: tuple(value.shape) for name, value in task.values.items()}
        if here != first:
            odd = sorted(name for name in {*first, *here} if first.get(name) != here.get(name))
            raise ReferenceMismatchError(
                f"fisher: expected the same parameters for all tasks, but task {number} differs from the first in "
                f"{', '.join(odd)}."
            )


def _block(name: str, centre: Tensor, prior_precision: float, information: Tensor) -> MultivariateGaussian:
    if centre.ndim and centre.numel() != centre.shape[-1]:
        raise UnsupportedError(
            f"{name}: blocks are of parameters with one row, this one has shape {tuple(centre.shape)}; use "
            f"structure='diagonal'."
        )
    eye = torch.eye(len(information), dtype=information.dtype, device=information.device)
    precision = information + prior_precision * eye
    return MultivariateGaussian(torch.cholesky_inverse(torch.linalg.cholesky(precision)).to(centre))
