"""Public calls with one argument, or two, of another kind or value."""

from __future__ import annotations

import contextlib
import decimal
import fractions
import inspect
import io
import math
import os
import random
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributions, nn

import bayesreg as br
from bayesreg._support.arguments import wrong_kind
from tests.fuzz import commands
from tests.fuzz.priors import network
from tests.fuzz.verdict import Counts, Plant, Verdict, judge, unclear

H = br.hyperpriors
L = br.likelihoods


class Odd:
    """An object of no use."""

    def __repr__(self) -> str:
        return "Odd()"


def odd_values() -> list[Any]:
    """Return values that few arguments take; made anew, as a call may change them."""
    return [
        None,
        True,
        0,
        -1,
        3,
        10**400,
        2.5,
        -1.0,
        0.0,
        1e-200,
        1e308,
        math.nan,
        math.inf,
        -math.inf,
        1j,
        "",
        "x",
        "nope.*",
        b"x",
        [],
        [1, 2],
        (),
        ("a", 2),
        {},
        {"x": 1},
        {1, 2},
        Odd(),
        Odd,
        lambda: None,
        lambda x: x,
        decimal.Decimal("0.1"),
        fractions.Fraction(1, 3),
        np.float32(0.5),
        np.int64(2),
        np.zeros(2),
        np.zeros((0, 3)),
        np.array(["a"]),
        np.array([None]),
        torch.tensor(0.5),
        torch.tensor(-1.0),
        torch.tensor(math.nan),
        torch.tensor(2),
        torch.tensor(True),
        torch.tensor(1j),
        torch.zeros(0),
        torch.ones(2, 2),
        torch.ones(7, 5, 3),
        torch.tensor([math.inf]),
        torch.ones(3, requires_grad=True),
        torch.ones(2, device="meta"),
        torch.float32,
        torch.Generator(),
        nn.Linear(2, 2),
        nn.Linear,
        nn.Parameter(torch.ones(2)),
        torch.optim.SGD,
        "adamw",
        br.Gaussian(1.0),
        br.Gaussian,
        br.Flat(),
        L.Categorical(),
        L.Categorical,
        br.biases,
        Path("no.pt"),
        br.LossScale.mean(10),
        range(3),
        iter([1]),
        H.HalfCauchy(1.0),
        object,
    ]


Made = tuple[Callable[..., Any], dict[str, Any]]


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(12, 3, generator=generator)
    return X, (X[:, 0] > 0).long()


def _prior(model: nn.Module | None = None) -> br.ModelPrior:
    return br.ModelPrior(network() if model is None else model, br.Gaussian(0.5))


def _attached() -> Made:
    prior = _prior()
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    return br.attach, {"optimizer": optimizer, "prior": prior, "num_data": 100, "before_clip": False}


def _trainer() -> Made:
    return br.MAPTrainer, {
        "model": network(),
        "prior": br.Gaussian(1.0),
        "likelihood": L.Categorical(),
        "max_epochs": 1,
        "batch_size": 6,
        "seed": 0,
        "accumulate": 1,
        "clip_norm": 1.0,
        "restore_best": True,
        "num_data": 12,
    }


def _solver() -> Made:
    return br.MAPTrainer, {
        "model": nn.Linear(3, 2),
        "prior": br.Gaussian(1.0),
        "likelihood": L.Categorical(),
        "optimizer": "lbfgs",
        "tolerance": 1e-3,
        "max_iterations": 5,
        "starts": 1,
    }


def _fitted() -> Made:
    trainer = br.MAPTrainer(network(), br.Gaussian(1.0), L.Categorical(), max_epochs=1, batch_size=6)
    return trainer.fit, {"train": _data(), "val": _data()}


def _swag() -> br.transfer.SWAG:
    swag = br.transfer.SWAG(network())
    for _ in range(3):
        with torch.no_grad():
            for p in swag.model.parameters():
                p.add_(0.1 * torch.randn(p.shape))
        swag.collect()
    return swag


def _null_strength() -> Made:
    model = nn.Linear(3, 2)
    prior = br.ModelPrior(model, br.Laplace(0.1))
    return br.sparsity.null_strength, {"model": model, "prior": prior, "likelihood": L.Categorical(), "data": _data()}


def _path() -> Made:
    _, arguments = _null_strength()
    return br.sparsity.regularization_path, {**arguments, "count": 3, "floor": 0.1, "tolerance": 1e-3}


def _refit() -> Made:
    _, arguments = _null_strength()
    return br.sparsity.refit, {**arguments, "tolerance": 1e-2, "max_iterations": 20}


class Adapted(nn.Module):
    """A layer with a LoRA adapter, by the usual names."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3), requires_grad=False)
        self.lora_A = nn.Parameter(torch.ones(2, 3))
        self.lora_B = nn.Parameter(torch.ones(4, 2))


def _fisher() -> Any:
    return br.transfer.fisher_information(network(), _data(), L.Categorical())


def _on_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD(network().parameters(), lr=0.1, weight_decay=1e-3)


def _explain() -> Made:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-3)
    return br.explain, {"optimizer": optimizer, "model": model, "num_data": 100, "clip_norm": 1.0}


def _source_head() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5))


def _flat_statistics() -> Made:
    size = sum(p.numel() for p in network().parameters())
    return br.transfer.flat_statistics, {
        "model": network(),
        "mean": torch.zeros(size),
        "variance": torch.ones(size),
        "deviations": torch.zeros(3, size),
    }


def _statistics() -> dict[str, Any]:
    held = {name: p.detach().clone() for name, p in network().named_parameters()}
    return {
        "mean": held,
        "variance": {name: torch.ones_like(t) for name, t in held.items()},
        "deviations": {name: torch.randn(*t.shape, 2) for name, t in held.items()},
        "scale": 1.0,
        "epsilon": 0.1,
    }


_FIVE = torch.linspace(-1, 1, 5)

#: Calls that work, by name; each is made anew for every case.
CALLS: dict[str, Callable[[], Made]] = {
    # families
    "Gaussian": lambda: (br.Gaussian, {"scale": 0.2, "loc": 0.0}),
    "Gaussian.from_weight_decay": lambda: (br.Gaussian.from_weight_decay, {"weight_decay": 5e-4, "num_data": 50_000}),
    "Gaussian.centered_at": lambda: (br.Gaussian.centered_at, {"reference": network(), "scale": 0.1}),
    "Laplace": lambda: (br.Laplace, {"scale": 0.2, "loc": 0.0}),
    "Laplace.from_l1": lambda: (br.Laplace.from_l1, {"l1_coefficient": 1e-4, "num_data": 100}),
    "StudentT": lambda: (br.StudentT, {"df": 4.0, "scale": 0.1, "loc": 0.0}),
    "Cauchy": lambda: (br.Cauchy, {"scale": 0.1}),
    "ElasticNet": lambda: (br.ElasticNet, {"l1": 1.0, "l2": 2.0}),
    "ElasticNet.from_penalties": lambda: (
        br.ElasticNet.from_penalties,
        {"l1_coefficient": 1e-4, "weight_decay": 1e-4, "num_data": 10},
    ),
    "GeneralizedNormal": lambda: (br.GeneralizedNormal, {"power": 0.5, "scale": 0.1}),
    "Logistic": lambda: (br.Logistic, {"scale": 0.1}),
    "ScaleMixture": lambda: (br.ScaleMixture, {"weights": [0.5, 0.5], "scales": [0.1, 1.0]}),
    "spike_and_slab": lambda: (
        br.ScaleMixture.spike_and_slab,
        {"spike_scale": 0.01, "slab_scale": 1.0, "slab_weight": 0.5},
    ),
    "Horseshoe": lambda: (br.Horseshoe, {"scale": 0.1}),
    "RegularizedHorseshoe": lambda: (br.RegularizedHorseshoe, {"scale": 0.1, "slab_scale": 2.0}),
    "NormalGamma": lambda: (br.NormalGamma, {"concentration": 2.0, "rate": 0.1}),
    "GroupLaplace": lambda: (br.GroupLaplace, {"rate": 1.0, "group": "row"}),
    "Uniform": lambda: (br.Uniform, {"low": -1.0, "high": 1.0}),
    "LogUniform": lambda: (br.LogUniform, {"low": 1e-3, "high": 1.0}),
    "MCP": lambda: (br.MCP, {"strength": 1.0, "gamma": 3.0}),
    "SCAD": lambda: (br.SCAD, {"strength": 1.0, "gamma": 3.7}),
    "L0": lambda: (br.L0, {"strength": 1.0}),
    "FanInGaussian": lambda: (br.FanInGaussian, {"gain": 1.4}),
    "MultivariateGaussian": lambda: (br.MultivariateGaussian, {"covariance": torch.eye(2)}),
    "MatrixGaussian": lambda: (br.MatrixGaussian, {"row_covariance": torch.eye(2), "col_covariance": torch.eye(3)}),
    "LowRankGaussian": lambda: (br.LowRankGaussian, {"diag": torch.ones(3), "factor": torch.ones(3, 1)}),
    "Mixture": lambda: (br.Mixture, {"components": [br.Gaussian(0.1), br.Laplace(1.0)], "weights": [0.5, 0.5]}),
    "Product": lambda: (br.Product, {"factors": [br.Laplace(1.0), br.Gaussian(1.0)]}),
    "HierarchicalGaussian": lambda: (br.HierarchicalGaussian, {"hyper": H.InverseGamma(2.0, 0.5), "group": "tensor"}),
    "FromDistribution": lambda: (br.FromDistribution, {"distribution": distributions.Normal(0.0, 1.0)}),
    "Flat": lambda: (br.Flat, {}),
    "prior_from_words": lambda: (br.prior_from_words, {"words": "laplace(0.1)", "num_data": 10}),
    **{
        f"hyperpriors.{name}": (lambda name=name, given=given: (getattr(H, name), dict(given)))
        for name, given in {
            "HalfCauchy": {"scale": 1.0},
            "HalfNormal": {"scale": 1.0},
            "Gamma": {"concentration": 2.0, "rate": 1.0},
            "InverseGamma": {"concentration": 2.0, "rate": 1.0},
            "from_dict": {"record": {"family": "HalfNormal", "scale": 1.0}},
        }.items()
    },
    # what a prior answers
    **{
        f"Gaussian.{name}": (lambda name=name, given=given: (getattr(br.Gaussian(0.5), name), dict(given)))
        for name, given in {
            "log_prob": {"value": _FIVE},
            "penalty": {"value": _FIVE},
            "curvature": {"value": _FIVE},
            "prox": {"value": _FIVE, "step": 0.1},
            "sample": {"shape": (3,), "generator": None, "dtype": torch.float32},
            "times": {"factor": 2.0},
            "weight_decay": {"num_data": 100, "optimizer": None},
            "same_as": {"other": br.Flat()},
            "weight_decay_readings": {"num_data": 100, "at": torch.ones(2)},
        }.items()
    },
    **{
        f"Laplace.{name}": (lambda name=name, given=given: (getattr(br.Laplace(0.5), name), dict(given)))
        for name, given in {
            "log_prob": {"value": _FIVE},
            "prox": {"value": _FIVE, "step": 0.1},
            "psd_curvature": {"value": _FIVE},
        }.items()
    },
    "GroupLaplace.prox": lambda: (br.GroupLaplace(1.0, "row").prox, {"value": torch.ones(2, 2), "step": 0.1}),
    # model priors
    "ModelPrior": lambda: (br.ModelPrior, {"model": network(), "rules": {"0.*": br.Flat(), "*": br.Gaussian(1.0)}}),
    "ModelPrior.param_groups": lambda: (_prior().param_groups, {"only": "*"}),
    "ModelPrior.describe": lambda: (_prior().describe, {"num_data": 100}),
    "ModelPrior.save": lambda: (_prior().save, {"path": "p.safetensors"}),
    "ModelPrior.load": lambda: (br.ModelPrior.load, {"path": "good.safetensors", "model": network()}),
    "ModelPrior.sample_": lambda: (_prior().sample_, {"generator": torch.Generator()}),
    "ModelPrior.same_as": lambda: (_prior().same_as, {"other": _prior()}),
    "where": lambda: (br.where, {"predicate": lambda info: True}),
    "load_reference": lambda: (br.load_reference, {"reference": network().state_dict(), "extra": "raise"}),
    # routes
    "attach": _attached,
    "detach": lambda: (br.detach, {"optimizer": _on_optimizer()}),
    "explain": _explain,
    "MAPObjective": lambda: (br.MAPObjective, {"prior": _prior(), "num_data": 100}),
    "decay_rule": lambda: (br.decay_rule, {"optimizer": torch.optim.SGD}),
    # conversion
    "convert": lambda: (br.convert, {"value": 1e-3, "notation": "weight_decay", "num_data": 100, "noise_std": 0.5}),
    "LossScale": lambda: (br.LossScale, {"value": 0.1}),
    **{
        f"LossScale.{name}": (lambda name=name, given=given: (getattr(br.LossScale, name), dict(given)))
        for name, given in {
            "mean": {"num_data": 10, "likelihood_weight": 1.0},
            "sum": {"likelihood_weight": 1.0},
            "minibatch_sum": {"num_data": 10, "batch_size": 2},
            "mse": {"num_data": 10, "num_outputs": 2, "noise_std": 0.5},
            "half_squared_error": {"num_data": 10, "noise_std": 0.5},
            "tokens": {"num_tokens": 10},
        }.items()
    },
    **{
        name: (lambda name=name, given=given: (getattr(br, name), dict(given)))
        for name, given in {
            "weight_decay_to_variance": {"weight_decay": 1e-3, "num_data": 10},
            "variance_to_weight_decay": {"variance": 1.0, "num_data": 10},
            "weight_decay_to_precision": {"weight_decay": 1e-3, "num_data": 10},
            "precision_to_weight_decay": {"precision": 1.0, "num_data": 10},
            "l2_coefficient_to_variance": {"l2_coefficient": 1e-3, "num_data": 10},
            "variance_to_l2_coefficient": {"variance": 1.0, "num_data": 10},
            "l1_to_laplace_scale": {"l1_coefficient": 1e-3, "num_data": 10},
            "laplace_scale_to_l1": {"laplace_scale": 1.0, "num_data": 10},
            "ridge_alpha_to_variance": {"ridge_alpha": 1.0, "noise_std": 0.5},
            "variance_to_ridge_alpha": {"variance": 1.0, "noise_std": 0.5},
            "lasso_alpha_to_laplace_scale": {"lasso_alpha": 1.0, "num_data": 10, "noise_std": 0.5},
            "laplace_scale_to_lasso_alpha": {"laplace_scale": 1.0, "num_data": 10, "noise_std": 0.5},
            "sklearn_to_elastic_net_rates": {
                "elastic_net_alpha": 1.0,
                "l1_ratio": 0.5,
                "num_data": 10,
                "noise_std": 0.5,
            },
            "elastic_net_rates_to_sklearn": {"l1": 1.0, "l2": 0.5, "num_data": 10, "noise_std": 0.5},
            "logistic_c_to_variance": {"logistic_c": 1.0},
            "variance_to_logistic_c": {"variance": 1.0},
            "logistic_c_to_laplace_scale": {"logistic_c": 1.0},
            "laplace_scale_to_logistic_c": {"laplace_scale": 1.0},
        }.items()
    },
    # training
    "MAPTrainer": _trainer,
    "MAPTrainer, lbfgs": _solver,
    "MAPTrainer.fit": _fitted,
    "likelihoods.Gaussian": lambda: (L.Gaussian, {"noise_std": 0.5}),
    "likelihoods.Categorical": lambda: (L.Categorical, {"ignore_index": -100}),
    "likelihoods.FromLoss": lambda: (L.FromLoss, {"loss": nn.CrossEntropyLoss()}),
    "likelihoods.Bernoulli": lambda: (L.Bernoulli, {}),
    # transfer
    "transfer.l2_sp": lambda: (
        br.transfer.l2_sp,
        {
            "model": network(),
            "reference": _source_head(),
            "body_scale": 0.1,
            "head_scale": 1.0,
            "new": "2.*",
        },
    ),
    "transfer.l1_sp": lambda: (
        br.transfer.l1_sp,
        {
            "model": network(),
            "reference": _source_head(),
            "body_scale": 0.1,
            "head_scale": 1.0,
            "new": "2.*",
        },
    ),
    "transfer.centered_prior": lambda: (
        br.transfer.centered_prior,
        {
            "model": network(),
            "reference": network(),
            "body": br.Gaussian(0.1),
        },
    ),
    "transfer.depth_graded": lambda: (
        br.transfer.depth_graded,
        {
            "model": network(),
            "first": 0.1,
            "last": 1.0,
        },
    ),
    "transfer.load_into": lambda: (br.transfer.load_into, {"model": network(), "reference": network()}),
    "transfer.fisher_information": lambda: (
        br.transfer.fisher_information,
        {
            "model": network(),
            "data": _data(),
            "likelihood": L.Categorical(),
        },
    ),
    "transfer.ewc_prior": lambda: (
        br.transfer.ewc_prior,
        {
            "model": network(),
            "fisher": _fisher(),
            "prior_precision": 1.0,
            "strength": 1.0,
        },
    ),
    "transfer.SWAG": lambda: (br.transfer.SWAG, {"model": network(), "max_rank": 5}),
    "transfer.SWAG.prior": lambda: (_swag().prior, {"scale": 1.0, "epsilon": 0.1}),
    "transfer.low_rank_prior": lambda: (br.transfer.low_rank_prior, _statistics()),
    "transfer.flat_statistics": _flat_statistics,
    "transfer.rescaled": lambda: (br.transfer.rescaled, {"prior": _prior(), "factor": 2.0}),
    # sparsity
    "sparsity.zeros": lambda: (br.sparsity.zeros, {"prior": br.ModelPrior(network(), br.Laplace(0.1))}),
    "sparsity.with_strength": lambda: (
        br.sparsity.with_strength,
        {
            "prior": br.ModelPrior(network(), br.Laplace(0.1)),
            "factor": 2.0,
        },
    ),
    "sparsity.null_strength": _null_strength,
    "sparsity.regularization_path": _path,
    "sparsity.refit": _refit,
    "FunctionPrior": lambda: (
        br.FunctionPrior,
        {
            "function": "difference",
            "prior": br.Gaussian(0.1),
            "of": ["0.weight", "1.weight"],
            "jacobian": "none",
            "base": br.Gaussian(1.0),
        },
    ),
    "AdapterGaussian": lambda: (br.AdapterGaussian, {"scale": 0.1, "factors": [("lora_B", "lora_A")]}),
    "transfer.lora_prior": lambda: (br.transfer.lora_prior, {"model": Adapted(), "scale": 0.1, "scaling": 1.0}),
    "transfer.group_lasso_sp": lambda: (
        br.transfer.group_lasso_sp,
        {"model": network(), "reference": _source_head(), "rate": 1.0, "head_scale": 1.0, "new": "2.*"},
    ),
    "transfer.SWAG.from_checkpoints": lambda: (
        br.transfer.SWAG.from_checkpoints,
        {"paths": ["c1.pt", "c2.pt"], "max_rank": 5},
    ),
    "Gaussian.plot": lambda: (br.Gaussian(1.0).plot, {"axes": None, "reach": 2.0}),
    "plots.plot_weights": lambda: (br.plots.plot_weights, {"prior": _prior(), "ax": None}),
    "plots.plot_layers": lambda: (br.plots.plot_layers, {"prior": _prior(), "limit": 3}),
    "load_run": lambda: (br.load_run, {"folder": "run", "model": None, "trust": False}),
    "register_family": lambda: (br.register_family, {"family": br.Laplace}),
}


# -- what became of it -----------------------------------------------------------------------------------------------


def _names(message: str, argument: str, alias: dict[str, str]) -> bool:
    words = {argument, alias.get(argument, argument), argument.rstrip("s"), argument.replace("_", " ")}
    return any(re.search(rf"(?<![a-z]){re.escape(word)}", message, re.IGNORECASE) for word in words)


def _shows(message: str, value: Any) -> bool:
    """Return whether a message says what was given: its value, its kind, or what is odd about it."""
    tokens = {
        type(value).__name__,
        "NaN",
        "infinit",
        "got none",
        "got an empty",
        "empty",
        "beyond 1e308",
        " is not finite",
    }
    with contextlib.suppress(Exception):
        tokens |= {repr(value)[:60], str(value)[:60]}
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308:
        tokens |= {f"{value:g}", f"{value:.3g}"}
    if isinstance(value, type):
        tokens |= {f"class {value.__name__}", value.__name__}
    if isinstance(value, torch.Tensor | np.ndarray):
        tokens |= {
            str(value.dtype).removeprefix("torch."),
            str(tuple(value.shape)),
            "tensor",
            "ndarray",
            "smallest value",
        }
        if value.size == 1 if isinstance(value, np.ndarray) else value.numel() == 1 and not value.is_meta:
            with contextlib.suppress(Exception):
                tokens.add(f"{float(value):g}")
    if isinstance(value, str):
        tokens |= {repr(value), value}
    if isinstance(value, list | tuple | dict | set):
        tokens |= {f"got {len(value)}", f"{len(value)} items", *map(repr, value)}
    if callable(value):
        tokens |= {getattr(value, "__name__", "?"), "function"}
    return any(token and token in message for token in tokens)


#: What a message calls an argument.
_CALLED = {
    "words": "prior",
    "train": "data",
    "val": "data",
    "folder": "run folder",
    "value": "parameter",
    "notation": "weight_decay",
    "body_scale": "scale",
    "head_scale": "scale",
    "resized_scale": "scale",
}

#: Messages about arguments that are of no use here, or only together: their values say nothing.
_ABOUT_MORE = (
    "leave it out",
    "leave out",
    "plays no part",
    "takes none",
    "expected both or none",
    "= with it",
    ": pass the ",
    "does not fit",
    "in common with",
    "another model",
    "the optimizer holds none",
    "has no layer with",
    "decouples",
    "can never apply",
    "flat statistics: ",
    "; give it, such as ",
    "no rule covers ",
)

#: In place of a value that a message need not show.
_UNSAID = object()


def _wrong(argument: str, value: Any, names: list[str]) -> Callable[[str], str]:
    def clear(message: str) -> str:
        found = unclear(message)
        if found:
            return found
        if any(said in message for said in _ABOUT_MORE):
            return ""
        # A file, a function and the like are named by what they are.
        if isinstance(value, str | Path) and (str(value) in message if str(value) else ".:" in message):
            return ""
        if callable(value) and getattr(value, "__name__", "?") in message:
            return ""
        if isinstance(value, dict) and any(repr(key) in message for key in value):
            return ""
        # With two arguments changed the message is about one; another argument may be what no longer fits.
        if not any(_names(message, name, _CALLED) for name in names):
            return f"it does not name {argument}"
        return (
            ""
            if value is _UNSAID or _shows(message, value) or " got " in message
            else f"it does not say that {argument} was {type(value).__name__}"
        )

    return clear


def misspelt(name: str, dice: random.Random) -> str:
    place = dice.randrange(len(name))
    return dice.choice([name[:place] + name[place + 1 :], name + "s", name[:place] + "x" + name[place:]])


def cases(dice: random.Random) -> Iterator[tuple[str, str, Verdict]]:
    """Yield (route, case, verdict) without end."""
    names = list(CALLS)
    while True:
        name = dice.choice(names)
        function, arguments = CALLS[name]()
        takes = inspect.signature(function).parameters
        known = list(takes)
        if arguments and dice.random() < 0.1:
            argument = dice.choice(list(arguments))
            other = misspelt(argument, dice)
            if other in takes or not other.isidentifier():
                continue
            value = arguments.pop(argument)
            arguments[other] = value
            yield "calls: misspelt", f"{name}({other}=)", _called(function, arguments, other, _UNSAID, known)
            continue
        argument = dice.choice([*known, *arguments]) if known else ""
        several = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
        if not argument or (argument in takes and takes[argument].kind in several):
            continue
        value = dice.choice(odd_values())
        if argument in ("on_epoch_end", "scheduler") and isinstance(value, nn.Module | type):
            continue  # a callback, whose own errors are its own
        arguments[argument] = value
        yield "calls", f"{name}({argument}={_short(value)})", _called(function, arguments, argument, value, known)


def _short(value: Any) -> str:
    return repr(value)[:60] if not isinstance(value, int) else str(value)[:60] if abs(value) < 10**60 else "10**400"


def _called(
    function: Callable[..., Any], arguments: dict[str, Any], argument: str, value: Any, known: list[str]
) -> Verdict:
    torch.manual_seed(0)
    result: list[Any] = []

    def case() -> str:
        with contextlib.redirect_stderr(io.StringIO()):
            result.append(function(**arguments))
            if isinstance(result[0], br.MAPTrainer):
                result[0].fit(_data())
        return ""

    # A file that is not there, or a package that is not installed, is told in Python's own words.
    clear = _wrong(argument, value, [*known, *arguments])
    verdict = judge(case, seconds=20.0, clear=clear, told=(br.BayesRegError, OSError, ImportError))
    if verdict.end != "same":
        return verdict
    kind = wrong_kind(_bare(function), (), dict(arguments)) if argument in known else ""
    return Verdict("nonsense", f"accepted: {kind}") if kind.startswith(f"{argument}:") else Verdict("accepted")


def _bare(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isclass(function):
        held = function

        def stand_in(*_: Any, **__: Any) -> None: ...

        stand_in.__module__ = held.__module__
        stand_in.__signature__ = inspect.signature(held)  # type: ignore[attr-defined]
        return stand_in
    return function


def run(
    counts: Counts, folder: Path, dice: random.Random, going: Callable[[], bool], plant: Plant = nullcontext
) -> None:
    import matplotlib

    matplotlib.use("agg")
    here = Path.cwd()
    os.chdir(folder)
    try:
        _prior().save("good.safetensors")
        commands.call(["fit", "iris", "--output", "run"])
        for index in (1, 2):
            torch.save({n: t + 0.1 * index for n, t in network().state_dict().items()}, f"c{index}.pt")
        with plant():
            for route, case, verdict in cases(dice):
                counts.add(route, case, verdict)
                if not going():
                    return
    finally:
        os.chdir(here)
