"""Public calls that work, each made anew for every case: a new one is a row here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import distributions, nn

import bayesreg as br
from tests.fuzz.priors import network

H = br.hyperpriors
L = br.likelihoods

Made = tuple[Callable[..., Any], dict[str, Any]]


def training_data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(12, 3, generator=generator)
    return X, (X[:, 0] > 0).long()


def model_prior(model: nn.Module | None = None) -> br.ModelPrior:
    return br.ModelPrior(network() if model is None else model, br.Gaussian(0.5))


def _attached() -> Made:
    prior = model_prior()
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    return br.attach, {"optimizer": optimizer, "prior": prior, "num_data": 100, "before_clip": False}


def _estimated_numbers(**arguments: Any) -> Any:
    """Fit; the constructor itself looks at nothing, as scikit-learn has it."""
    X, _ = training_data()
    return br.MAPRegressor(**arguments).fit(X.numpy(), X[:, 0].numpy() + 0.1 * X[:, 1].numpy() ** 2)


def _estimated_classes(**arguments: Any) -> Any:
    X, y = training_data()
    return br.MAPClassifier(**arguments).fit(X.numpy(), y.numpy())


for _one, _cls in ((_estimated_numbers, br.MAPRegressor), (_estimated_classes, br.MAPClassifier)):
    _one.__signature__ = inspect.signature(_cls)  # type: ignore[attr-defined]


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
    return trainer.fit, {"train": training_data(), "val": training_data()}


def _by_schedule() -> Made:
    return br.MAPTrainer, {
        "model": network(),
        "prior": br.Gaussian(1.0),
        "likelihood": L.Categorical(),
        "max_steps": 3,
        "evaluate_every": 2,
        "scheduler": "cosine",
        "warmup": 0.5,
        "metrics": {"size": lambda output, target: len(target)},
        "average": "ema",
        "measure": False,
        "deterministic": True,
        "callbacks": [br.callbacks.Log(lambda step, values: None, every=1)],
    }


def _saved() -> Made:
    model = network()
    parts = {"model": model, "prior": model_prior(model), "likelihood": L.Categorical()}
    return br.save_run, {"folder": "saved", **parts, "class_names": ["a", "b"], "feature_names": ["x", "y", "z"]}


def _weighted() -> Made:
    X, y = training_data()
    how = {"sample_weight": 2, "weights_are": "relative", "max_epochs": 1, "batch_size": 6}
    trainer = br.MAPTrainer(network(), br.Gaussian(1.0), L.Categorical(), **how)
    return trainer.fit, {"train": (X, y, torch.rand(12)), "val": None, "resume": False}


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
    return br.sparsity.null_strength, {
        "model": model,
        "prior": prior,
        "likelihood": L.Categorical(),
        "data": training_data(),
    }


def _path() -> Made:
    _, arguments = _null_strength()
    return br.sparsity.regularization_path, {**arguments, "count": 3, "floor": 0.1, "tolerance": 1e-3}


def _choose() -> Made:
    model = nn.Linear(3, 2)
    return br.choose_strength, {
        "model": model,
        "prior": br.Gaussian(1.0),
        "likelihood": L.Categorical(),
        "data": training_data(),
        "method": "loo",
        "hyperprior": H.HalfCauchy(1.0),
        "seed": 0,
    }


def _rehearse() -> Made:
    _, arguments = _choose()
    X, y = training_data()
    wanted = {name: arguments[name] for name in ("model", "prior", "likelihood")}
    return br.transfer.rehearse, {**wanted, "data": (X, y), "num_data": 6, "draws": 2, "validation": 4, "seed": 0}


def _loo() -> Made:
    _, arguments = _choose()
    return br.strength.loo, {
        "model": arguments["model"],
        "prior": br.ModelPrior(arguments["model"], br.Gaussian(1.0)),
        "likelihood": L.Categorical(),
        "data": training_data(),
    }


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
    return br.transfer.fisher_information(network(), training_data(), L.Categorical())


def _on_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD(network().parameters(), lr=0.1, weight_decay=1e-3)


def _explain() -> Made:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-3)
    return br.explain, {
        "optimizer": optimizer,
        "model": model,
        "num_data": 100,
        "clip_norm": 1.0,
        "steps": 50,
        "batch_size": 4,
    }


def _adapt() -> Made:
    before = {"batch_size": 8, "lr": 0.1, "num_data": 100}
    given = {"weight_decay": 0.1, "optimizer": torch.optim.AdamW, "before": before, "after": {"batch_size": 16}}
    return br.adapt_weight_decay, given


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
    "R2D2": lambda: (br.R2D2, {"concentration": 1.5, "tail": 0.5, "scale": 1.0}),
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
    "ModelPrior.param_groups": lambda: (model_prior().param_groups, {"only": "*"}),
    "ModelPrior.describe": lambda: (model_prior().describe, {"num_data": 100}),
    "ModelPrior.save": lambda: (model_prior().save, {"path": "p.safetensors"}),
    "ModelPrior.load": lambda: (br.ModelPrior.load, {"path": "good.safetensors", "model": network()}),
    "ModelPrior.sample_": lambda: (model_prior().sample_, {"generator": torch.Generator()}),
    "ModelPrior.same_as": lambda: (model_prior().same_as, {"other": model_prior()}),
    "where": lambda: (br.where, {"predicate": lambda info: True}),
    "load_reference": lambda: (br.load_reference, {"reference": network().state_dict(), "extra": "raise"}),
    # routes
    "attach": _attached,
    "detach": lambda: (br.detach, {"optimizer": _on_optimizer()}),
    "explain": _explain,
    "adapt_weight_decay": _adapt,
    "MAPObjective": lambda: (br.MAPObjective, {"prior": model_prior(), "num_data": 100}),
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
    "MAPTrainer, by schedule": _by_schedule,
    "MAPTrainer.fit, weighted": _weighted,
    "MAPTrainer.predict": lambda: (
        _fitted()[0].__self__.predict,
        {"data": training_data()[0], "kind": "probabilities"},
    ),
    "MAPTrainer.evaluate": lambda: (_fitted()[0].__self__.evaluate, {"data": training_data(), "batch_size": 5}),
    "WeightAverage": lambda: (br.WeightAverage, {"kind": "ema", "decay": 0.9, "start": 1, "keep_zeros": True}),
    "callbacks.Log": lambda: (br.callbacks.Log, {"sink": print, "every": 10}),
    "callbacks.JSONLines": lambda: (br.callbacks.JSONLines, {"path": "log.jsonl", "every": 10, "overwrite": False}),
    "callbacks.Profile": lambda: (br.callbacks.Profile, {"profiler": torch.profiler.profile()}),
    "likelihoods.Tokens": lambda: (L.Tokens, {"ignore_index": -100, "shift": True}),
    "likelihoods.Gaussian": lambda: (L.Gaussian, {"noise_std": "learned", "prior": H.HalfNormal(1.0)}),
    "likelihoods.Categorical": lambda: (L.Categorical, {"ignore_index": -100}),
    "likelihoods.FromLoss": lambda: (L.FromLoss, {"loss": nn.CrossEntropyLoss()}),
    "likelihoods.StudentT": lambda: (L.StudentT, {"df": 4.0, "noise_scale": 0.5}),
    "MAPRegressor": lambda: (
        _estimated_numbers,
        {
            "prior": "gaussian(1.0)",
            "likelihood": L.Gaussian(0.5),
            "hidden": (),
            "fit_intercept": True,
            "optimizer": None,
            "strength": {"seed": 1},
            "tol": 1e-6,
            "max_iter": 50,
            "random_state": 0,
        },
    ),
    "MAPClassifier": lambda: (
        _estimated_classes,
        {
            "prior": {"*": br.Laplace(1.0)},
            "likelihood": L.Categorical(),
            "module": None,
            "training": None,
            "tol": 1e-6,
        },
    ),
    "MAPRegressor.from_sklearn": lambda: (br.MAPRegressor.from_sklearn, {"estimator": Ridge(alpha=2.0)}),
    "MAPClassifier.from_sklearn": lambda: (br.MAPClassifier.from_sklearn, {"estimator": LogisticRegression(C=2.0)}),
    "likelihoods.Bernoulli": lambda: (L.Bernoulli, {}),
    # strength
    "choose_strength": _choose,
    "strength.loo": _loo,
    "strength.evidence": lambda: (br.strength.evidence, _loo()[1]),
    # transfer
    "transfer.rehearse": _rehearse,
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
            "data": training_data(),
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
    "transfer.rescaled": lambda: (br.transfer.rescaled, {"prior": model_prior(), "factor": 2.0}),
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
    "plots.plot_weights": lambda: (br.plots.plot_weights, {"prior": model_prior(), "ax": None}),
    "plots.plot_layers": lambda: (br.plots.plot_layers, {"prior": model_prior(), "limit": 3}),
    "load_run": lambda: (br.load_run, {"folder": "run", "model": None, "trust": False}),
    "save_run": _saved,
    "register_family": lambda: (br.register_family, {"family": br.Laplace}),
}
