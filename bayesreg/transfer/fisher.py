"""The Fisher information of a trained model, from per-example gradients: what a task says about each weight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from bayesreg._support.calls import answering
from bayesreg.curvature.outputs import output_curvature, output_slope
from bayesreg.data import as_tensors
from bayesreg.errors import DataError, InvalidArgumentError, UnsupportedError, kind_of, nearest
from bayesreg.likelihoods import Likelihood
from bayesreg.likelihoods.output import tensor_output
from bayesreg.selection import parameters_of

__all__ = ["Batches", "Fisher", "Labels", "Structure", "fisher_information"]

Labels: TypeAlias = Literal["expected", "empirical"]
Structure: TypeAlias = Literal["diagonal", "block"]
Batches: TypeAlias = "tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]"

# Elements of per-example gradients held at a time: more than a cache holds only makes it slower.
_BUDGET = 2**22


@dataclass(frozen=True, repr=False)
class Fisher:
    """The Fisher information F of one example, averaged over those of a task, at a model's weights.

    Attributes:
        values: F by parameter name, in 1/units²: of the parameter's shape ("diagonal"), or a square matrix over its
            flattened elements ("block").
        centre: The weights at which it was taken, by name.
        num_data: n, the number of examples; together they have the information n·F.
        structure: "diagonal" or "block".
        labels: "expected" or "empirical".
    """

    values: dict[str, Tensor]
    centre: dict[str, Tensor]
    num_data: int
    structure: Structure
    labels: Labels

    def __repr__(self) -> str:
        elements = sum(tensor.numel() for tensor in self.centre.values())
        return (
            f"Fisher({self.labels}, {self.structure}, {elements:,} elements in {len(self.values)} tensors, "
            f"{self.num_data:,} examples)"
        )


@answering
def fisher_information(
    model: nn.Module,
    data: Batches,
    likelihood: Likelihood,
    *,
    labels: Labels = "expected",
    structure: Structure = "diagonal",
) -> Fisher:
    """Return the mean over examples of the Fisher information of each, exactly and for any batch size.

    F = (1/n)·Σ_i J_i'·H_i·J_i with J_i the Jacobian of the i-th output in the weights and H_i the Hessian of the NLL in
    the output ("expected"), or F = (1/n)·Σ_i g_i·g_i' with g_i the gradient of the NLL of example i ("empirical").
    Squaring the gradient of a batch's mean, as many codes do, is another number, too small by about the batch size.

    Args:
        model: The trained model, evaluated in eval mode and left as it was.
        data: Inputs and targets of the task, or batches of them (a loader).
        likelihood: From `br.likelihoods`.
        labels: "expected" (default): over the model's own predictions; the observed labels play no part where the
            outputs are natural parameters (Categorical, Bernoulli, Poisson, Gaussian). "empirical": at the observed
            labels.
        structure: "diagonal" (default), or "block": a full matrix for each parameter tensor, for small ones.

    Returns:
        The information, over the trainable parameters.

    Raises:
        InvalidArgumentError: If an argument is unknown or of another type, or nothing is trainable.
        DataError: If there are no data, or an information is not finite.
        UnsupportedError: If the model cannot be evaluated example by example, or the NLL is not convex in the output.

    Example:
        >>> import bayesreg as br
        >>> model = nn.Linear(2, 1, bias=False).double()
        >>> X = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double()
        >>> found = br.transfer.fisher_information(model, (X, X.sum(1)), br.likelihoods.Gaussian(noise_std=0.5))
        >>> found.values["weight"]  # the mean of x² over 0.5²
        tensor([[20., 40.]], dtype=torch.float64)

    References:
        Kirkpatrick et al. (2017), Overcoming catastrophic forgetting in neural networks; Martens (2020), New Insights
        and Perspectives on the Natural Gradient Method, section 9.
    """
    for name, value, known in (("labels", labels, get_args(Labels)), ("structure", structure, get_args(Structure))):
        if value not in known:
            raise InvalidArgumentError(
                f"{name}: expected one of {', '.join(known)}, got {value!r}{nearest(str(value), known)}."
            )
    if not isinstance(likelihood, Likelihood):
        raise InvalidArgumentError(
            f"likelihood: expected one of br.likelihoods, such as Categorical(), got {type(likelihood).__name__}."
        )
    plain = {id(info.parameter): info.name for info in parameters_of(model)}
    parameters = {raw: p for raw, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise InvalidArgumentError(f"model: {type(model).__name__} has no trainable parameters.")
    names = {raw: plain[id(p)] for raw, p in parameters.items()}
    totals: dict[str, Tensor] = {}
    for raw, p in parameters.items():
        shape = (p.numel(), p.numel()) if structure == "block" else tuple(p.shape)
        totals[raw] = torch.zeros(shape, dtype=torch.float64, device=p.device)
    count = 0
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for x, y in _batches(model, likelihood, data):
            count += len(x)
            _add(totals, model, parameters, likelihood, x, y, labels)
    finally:
        for module, mode in training.items():
            module.training = mode
    if not count:
        raise DataError("data: expected at least one example, got none.")
    values = {names[raw]: (total / count).to(_wide(parameters[raw])) for raw, total in totals.items()}
    bad = [name for name, value in values.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise DataError(f"Fisher information of {', '.join(bad)}: expected finite numbers, got NaN or infinity.")
    centre = {names[raw]: p.detach().clone() for raw, p in parameters.items()}
    return Fisher(values, centre, count, structure, labels)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _batches(model: nn.Module, likelihood: Likelihood, data: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(data, tuple):
        yield as_tensors(model, likelihood, data)
        return
    if not isinstance(data, Iterable) or isinstance(data, Tensor | str):
        raise DataError(f"data: expected a pair of arrays or batches (inputs, targets), got {kind_of(data)}.")
    for batch in data:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise DataError(f"data: expected batches (inputs, targets), got {type(batch).__name__}.")
        yield batch[0], batch[1]


def _add(
    totals: dict[str, Tensor],
    model: nn.Module,
    parameters: dict[str, nn.Parameter],
    likelihood: Likelihood,
    x: Tensor,
    y: Tensor,
    labels: Labels,
) -> None:
    """Add the information of a batch, so many examples at a time as fit the budget."""
    held = {raw: p.detach() for raw, p in parameters.items()}

    def output(weights: dict[str, Tensor], one: Tensor) -> Tensor:
        made: Tensor = functional_call(model, weights, (one.unsqueeze(0),))
        return made.reshape(-1)

    def gradients(one: Tensor, directions: Tensor) -> dict[str, Tensor]:
        made: Any = vjp(lambda weights: output(weights, one), held)
        outputs, pull = made
        found: dict[str, Tensor] = vmap(pull)(directions.T.to(outputs.dtype))[0]
        return found

    with torch.no_grad():
        whole = tensor_output(model, x)
    if not bool(torch.isfinite(whole).all()):
        raise DataError(f"model: expected finite outputs, got NaN or infinity from {type(model).__name__}.")
    size = sum(p.numel() for p in held.values()) * max(1, whole[0].numel())
    rows = max(1, _BUDGET // size)
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        directions = _directions(likelihood, whole[part], y[part], labels)
        try:
            pulled = vmap(gradients)(x[part], directions)
        except RuntimeError as error:
            raise UnsupportedError(
                f"model: {type(model).__name__} cannot be differentiated example by example ({error})."
            ) from error
        for raw, found in pulled.items():
            # One row for every example and direction.
            rows_of = found.detach().reshape(found.shape[0] * found.shape[1], -1)
            if totals[raw].shape == held[raw].shape:
                totals[raw] += rows_of.square().sum(0, dtype=torch.float64).reshape(held[raw].shape)
            else:
                wide = rows_of.to(torch.float64)
                totals[raw] += wide.T @ wide


def _directions(likelihood: Likelihood, output: Tensor, target: Tensor, labels: Labels) -> Tensor:
    """Return a root of the information that each output has, (examples, outputs, directions)."""
    if labels == "empirical":
        return output_slope(likelihood, output, target)[1].unsqueeze(-1)
    try:
        return output_curvature(likelihood, output, target).root
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{likelihood.describe()}: its NLL is not convex in the output, so it has no expected information here; "
            f"use labels='empirical'."
        ) from error
