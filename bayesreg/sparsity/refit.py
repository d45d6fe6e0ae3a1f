"""The weights that a sparse prior has kept, fitted anew without its shrinkage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.data import TrainingData
from bayesreg.errors import InvalidArgumentError, UnsupportedError, kind_of
from bayesreg.likelihoods import Likelihood
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.coverage import check_prior_of
from bayesreg.priors import Belief, Flat, Prior
from bayesreg.priors.contract.asking import has_one_set
from bayesreg.trainer import FitResult, MAPTrainer

__all__ = ["refit"]


class _OnSupport(nn.Module):
    """A model as a function of those of its weights that are free; the others stay where they are."""

    def __init__(self, model: nn.Module, free: dict[str, Tensor], whole: dict[str, nn.Parameter]) -> None:
        super().__init__()
        self.inside = [model]  # in a list, so that its own parameters are not registered
        self.free = free
        held = dict(model.named_parameters())
        self.fixed = {name: held[name].detach().clone() for name in free}
        # Names of parameters have no dots.
        self.kept = nn.ParameterDict({_key(name): nn.Parameter(self.fixed[name][free[name]]) for name in free})
        self.whole = nn.ParameterDict({_key(name): parameter for name, parameter in whole.items()})
        self.train(model.training)

    def train(self, mode: bool = True) -> _OnSupport:
        super().train(mode)
        self.inside[0].train(mode)
        return self

    def full(self) -> dict[str, Tensor]:
        """Return the parameters whose elements are only partly free, whole."""
        return {name: self.fixed[name].masked_scatter(mask, self.kept[_key(name)]) for name, mask in self.free.items()}

    def forward(self, *inputs: Any) -> Any:
        return functional_call(self.inside[0], self.full(), inputs)


def _key(name: str) -> str:
    return name.replace(".", "/")


@answering
def refit(
    model: nn.Module,
    prior: ModelPrior,
    likelihood: Likelihood,
    data: TrainingData,
    *,
    on_support: Prior | None = None,
    tolerance: float = 1e-9,
    max_iterations: int = 10_000,
) -> FitResult:
    """Fit the weights that are off their prior's kink once more, without its pull; the others stay exactly at it.

    Sparse MAPs of L1 kind are biased: what chooses the weights also shrinks those it keeps. Refitting on the support
    takes the shrinkage away (the relaxed lasso at its far end, post-lasso least squares) and keeps the choice.

    Args:
        model: The trained model, in float64; refitted in place.
        prior: The prior that it was trained with. Parameters under a smooth prior keep that prior.
        likelihood: From `br.likelihoods`.
        data: All inputs and targets.
        on_support: A smooth prior with one set of numbers for the kept weights. Default: `br.Flat()`, which leaves the
            maximum likelihood on the support; it is unique where the support is smaller than the data can tell.
        tolerance: KKT residual, per example, at which to stop. Default 1e-9.
        max_iterations: At most. Default 10,000.

    Returns:
        The result of the fit; its prior is `on_support`.

    Raises:
        CoverageError: If the prior is over another model.
        InvalidArgumentError: If no trained parameter is under a prior with a kink, or `on_support` has a kink itself.
        UnsupportedError: If a density over several parameters is part of the prior, or one with bounds.

    Example:
        >>> import bayesreg as br
        >>> _ = torch.manual_seed(3)  # the start; it has no say in the result but for the sign of a zero
        >>> X, y = torch.eye(3).double(), torch.tensor([[3.0], [-1.0], [0.5]]).double()
        >>> model, noise = nn.Linear(3, 1, bias=False).double(), br.likelihoods.Gaussian(noise_std=1.0)
        >>> prior = br.ModelPrior(model, br.Laplace(1.0))
        >>> _ = br.MAPTrainer(model, prior, noise, optimizer="proximal").fit((X, y))
        >>> model.weight.detach().round(decimals=6)
        tensor([[2., 0., 0.]], dtype=torch.float64)
        >>> _ = br.sparsity.refit(model, prior, noise, (X, y))
        >>> model.weight.detach().round(decimals=6)
        tensor([[3., 0., 0.]], dtype=torch.float64)

    References:
        Meinshausen (2007), Relaxed Lasso, section 2; Belloni and Chernozhukov (2013), Least Squares after Model
        Selection in High-Dimensional Sparse Models.
    """
    check_prior_of(model, prior)
    checks.positive_float("tolerance", tolerance)
    checks.positive_int("max_iterations", max_iterations)
    kept = Flat() if on_support is None else on_support
    if not isinstance(kept, Prior) or not kept.traits.smooth or not has_one_set(kept):
        raise InvalidArgumentError(
            f"on_support: expected a smooth prior with one set of numbers, such as br.Gaussian(10.0), got "
            f"{kind_of(on_support)}."
        )
    free: dict[str, Tensor] = {}
    whole: dict[str, nn.Parameter] = {}
    rules: dict[Any, Belief] = {}
    # Names as this very model has them, compiled or wrapped; `functional_call` sees to tied ones.
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for entry, part in prior.active():
        name = names[id(entry.parameter)]
        if not isinstance(part, Prior):
            raise UnsupportedError(f"{entry.name}: {part.family} joins several parameters, which refit does not do.")
        if part.traits.smooth:
            whole[name], rules[f"whole.{_key(name)}"] = entry.parameter, part
            continue
        bounded = [one.family for one in part.parts if one.bounds() is not None]
        if bounded:
            raise UnsupportedError(
                f"{entry.name}: {bounded[0]} has bounds, which a fit without the prior would leave; refit it by hand."
            )
        free[name] = ~part.at_kink(entry.parameter.detach())
        rules[f"kept.{_key(name)}"] = kept
    if not free:
        raise InvalidArgumentError("prior: expected one with a kink, such as br.Laplace, on some trained parameter.")
    inside = _OnSupport(model, free, whole)
    trainer = MAPTrainer(
        inside, ModelPrior(inside, rules), likelihood, optimizer="lbfgs", tolerance=tolerance,
        max_iterations=max_iterations, progress=False,
    )  # fmt: skip
    training = {module: module.training for module in model.modules()}
    try:
        result = trainer.fit(data)
    finally:
        for module, mode in training.items():
            module.training = mode
    with torch.no_grad():
        parameters = dict(model.named_parameters())
        for name, found in inside.full().items():
            parameters[name].copy_(found)
    return result
