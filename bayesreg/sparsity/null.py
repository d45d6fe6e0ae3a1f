"""The weakest prior that leaves nothing: where a path of strengths begins."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bayesreg._support.calls import answering
from bayesreg.data import TrainingData, as_tensors
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.likelihoods import Likelihood
from bayesreg.likelihoods.output import tensor_output
from bayesreg.model_prior import ModelPrior
from bayesreg.model_prior.coverage import check_prior_of
from bayesreg.priors import Prior
from bayesreg.sparsity.shared import SharedFit
from bayesreg.trainer import MAPTrainer

__all__ = ["null_strength"]

_LEAST, _MOST = 1e-12, 1e12
# Of the fit of a bias: the residual to stop at, and the most steps to it.
_CLOSE, _STEPS = 1e-9, 100


@answering
def null_strength(model: nn.Module, prior: ModelPrior, likelihood: Likelihood, data: TrainingData) -> float:
    """Return the least factor on −log p at which all weights under a kink are at it: the empty model.

    With all those at their centre and everything else (biases, other priors) fitted, a weight stays if the NLL's slope
    is no more than the prior's: for L1 the factor is scale times the largest slope, scikit-learn's alpha_max in other
    units; for group lasso the largest norm of a group's slopes over the rate. `with_strength(prior, factor)` is that
    prior. For models that are convex in their weights: of a network with hidden layers, all at 0, it would be 0.

    Args:
        model: The model; its weights are as before afterwards.
        prior: Its prior.
        likelihood: From `br.likelihoods`.
        data: All inputs and targets.

    Returns:
        The factor: below 1 the prior as it is leaves nothing.

    Raises:
        CoverageError: If the prior is over another model.
        InvalidArgumentError: If no trained parameter is under a prior with a kink, or the data are no pair of arrays.
        UnsupportedError: If the slope at a kink has no bound, or there is none (L0): every strength then has the empty
            model as a local mode.

    Example:
        >>> import bayesreg as br
        >>> X, y = torch.eye(3).double(), torch.tensor([[3.0], [-1.0], [0.5]]).double()
        >>> model = nn.Linear(3, 1, bias=False).double()
        >>> prior = br.ModelPrior(model, br.Laplace(1.0))
        >>> round(br.sparsity.null_strength(model, prior, br.likelihoods.Gaussian(noise_std=1.0), (X, y)), 6)
        3.0

    References:
        Friedman, Hastie and Tibshirani (2010), Regularization Paths for Generalized Linear Models via Coordinate
        Descent, section 2.5.
    """
    check_prior_of(model, prior)
    kinked = [(entry.parameter, part) for entry, part in prior.kinked()]
    if not kinked:
        raise InvalidArgumentError("prior: expected one with a kink, such as br.Laplace, on some trained parameter.")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = [p for p in model.parameters() if p.requires_grad]
    training = {module: module.training for module in model.modules()}
    inputs, target = as_tensors(model, likelihood, data)
    try:
        _centre(kinked)
        linear = SharedFit.of(model, prior, likelihood, inputs, target)
        # So strong a prior lets nothing but the bias move, as long as the targets are no giants.
        fitted = linear is not None and linear.fit(_MOST, _CLOSE, _STEPS)
        if not fitted or not all(bool(part.at_kink(parameter).all()) for parameter, part in kinked):
            _centre(kinked)
            _fit_the_rest(model, prior, likelihood, (inputs, target), [parameter for parameter, _ in kinked])
        model.eval()
        nll = likelihood.nll(tensor_output(model, inputs), target).sum()
        slopes = torch.autograd.grad(nll, [parameter for parameter, _ in kinked], allow_unused=True)
        return max(
            _least(part, parameter.detach(), slope)
            for (parameter, part), slope in zip(kinked, slopes, strict=True)
            if slope is not None
        )
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, mode in training.items():
            module.training = mode
        model.load_state_dict(before)


@torch.no_grad()
def _centre(kinked: list[tuple[nn.Parameter, Prior]]) -> None:
    for parameter, part in kinked:
        parameter.copy_(part.centre().to(parameter).expand(parameter.shape))


def _fit_the_rest(
    model: nn.Module, prior: ModelPrior, likelihood: Likelihood, data: tuple[Tensor, Tensor], held: list[nn.Parameter]
) -> None:
    for parameter in held:
        parameter.requires_grad_(False)
    if any(p.requires_grad for p in model.parameters()):
        MAPTrainer(model, prior, likelihood, optimizer="lbfgs", progress=False, max_iterations=2000).fit(data)
    for parameter in held:
        parameter.requires_grad_(True)


def _least(prior: Prior, value: Tensor, slope: Tensor) -> float:
    """Return the least coefficient on the prior at which its value is stationary."""

    def stays(coefficient: float) -> bool:
        return not bool((prior.subdiff_distance(value, slope, coefficient) > 0).any())

    if not bool(slope.any()):
        return 0.0
    if (found := prior._rates()) is not None and bool((found[0] > 0.0).all()):
        # Of L1 terms it is known but for its last bits.
        least = float((slope.detach().abs() / found[0]).max())
        while not stays(least):
            least = math.nextafter(least, math.inf)
        return least
    if stays(_LEAST):
        raise UnsupportedError(
            f"{prior.family}: its slope at the centre has no bound (or none is needed), so that the empty model is a "
            f"local mode at every strength."
        )
    low, high = _LEAST, 1.0
    while not stays(high):
        low, high = high, 10.0 * high
        if high > _MOST:
            raise UnsupportedError(f"{prior.family}: no strength holds the weights at its kink.")
    for _ in range(200):
        middle = (low * high) ** 0.5
        if not low < middle < high:
            break
        low, high = (low, middle) if stays(middle) else (middle, high)
    return high
