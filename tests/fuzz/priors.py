"""Prior files of every kind, and what is asked of one after it was read."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributions, nn

import bayesreg as br
from bayesreg.model_prior.file import describe_file
from bayesreg.references import load_reference


def network() -> nn.Sequential:
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return model


def _swag() -> br.ModelPrior:
    model, generator = network(), torch.Generator().manual_seed(2)
    swag = br.transfer.SWAG(model)
    for _ in range(3):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
        swag.collect()
    return br.ModelPrior(network(), {"*": swag.prior()})


def _ewc() -> br.ModelPrior:
    generator = torch.Generator().manual_seed(3)
    data = torch.randn(20, 3, generator=generator), torch.randint(0, 2, (20,), generator=generator)
    model = network()
    fisher = br.transfer.fisher_information(model, data, br.likelihoods.Categorical())
    return br.transfer.ewc_prior(model, fisher, prior_precision=1.0)


def _simple(rules: Callable[[], object]) -> Callable[[], br.ModelPrior]:
    return lambda: br.ModelPrior(network(), rules())


#: Every way that a file is made: elementwise, by rules, joint, learned, composed.
KINDS: dict[str, Callable[[], br.ModelPrior]] = {
    "centred": _simple(lambda: br.Gaussian.centered_at(network(), scale=0.1)),
    "rules": _simple(
        lambda: {
            br.biases: br.Flat(),
            "0.*": br.StudentT(4, 0.2),
            "*": br.Laplace(0.1, loc=0.3),
        }
    ),
    "swag": _swag,
    "ewc": _ewc,
    "mixture": _simple(lambda: br.Mixture([br.Gaussian(0.1), br.Laplace(1.0)], [0.3, 0.7])),
    "hierarchical": _simple(lambda: br.HierarchicalGaussian(br.hyperpriors.InverseGamma(2.0, 0.5))),
    "r2d2": _simple(lambda: {"*.weight": br.R2D2(1.5, 0.5), "*": br.Flat()}),
    "spike": _simple(lambda: br.ScaleMixture.spike_and_slab(0.1, 1.0)),
    "product": _simple(lambda: br.Product([br.Laplace(1.0), br.Gaussian(1.0)])),
    "distribution": _simple(lambda: br.FromDistribution(distributions.StudentT(3.0, 0.0, 0.5))),
    "groups": _simple(lambda: {"0.weight": br.GroupLaplace(2.0, group="row"), "*": br.Uniform(-5.0, 5.0)}),
    "learned": _simple(lambda: br.Gaussian(nn.Parameter(torch.tensor(0.3)))),
    "diagonal": _simple(
        lambda: {
            "*.bias": br.Gaussian(0.5),
            "0.weight": br.Gaussian(torch.full((4, 3), 0.2)),
            "*": br.Horseshoe(0.1),
        }
    ),
}


def fingerprint(path: Path) -> tuple[object, ...]:
    """Return all that a loaded prior file says: log density at fixed weights, hyper-parameters, descriptions."""
    model = network()
    prior = br.ModelPrior.load(path, model)
    held = [
        (entry.name, entry.rule, name, _bytes(value))
        for entry in prior
        if entry.prior is not None
        for name, value in entry.prior.hyperparameters().items()
    ]
    return _bytes(prior.log_prob()), held, str(prior.describe(100))


def shown(path: Path) -> tuple[object, ...]:
    """Return what `bayesreg prior show` says of a file."""
    table = describe_file(path)
    str(table), table.to_json(), table._repr_html_()
    return table.title, tuple(table.rows)


def as_reference(path: Path) -> tuple[object, ...]:
    """Return the centres of a prior file."""
    return tuple((name, _bytes(tensor)) for name, tensor in load_reference(path).items())


def _bytes(value: object) -> bytes:
    tensor = torch.as_tensor(value).detach()
    wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
    return str((tensor.dtype, tuple(tensor.shape))).encode() + wide.numpy().tobytes()


ROUTES: dict[str, Callable[[Path], tuple[object, ...]]] = {
    "load": fingerprint,
    "show": shown,
    "reference": as_reference,
}


def write_all(folder: Path, dice: random.Random) -> dict[str, Path]:
    """Write one file of every kind; in an order that differs by seed."""
    kinds = list(KINDS)
    dice.shuffle(kinds)
    paths = {}
    for kind in kinds:
        paths[kind] = folder / f"{kind}.safetensors"
        KINDS[kind]().save(paths[kind])
    return paths
