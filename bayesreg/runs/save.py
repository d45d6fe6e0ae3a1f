"""A trained model into a folder."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg._support.files import atomic_folder
from bayesreg._version import __version__
from bayesreg.data import BatchFormat
from bayesreg.errors import InvalidArgumentError, kind_of
from bayesreg.likelihoods import Likelihood
from bayesreg.likelihoods.saved import settings_of
from bayesreg.model_prior import ModelPrior
from bayesreg.runs.names import names_from
from bayesreg.trainer import FitResult, MAPTrainer

__all__ = ["is_run", "save_run", "write_run"]


@answering
def save_run(
    folder: str | os.PathLike[str],
    model: nn.Module | MAPTrainer,
    prior: ModelPrior | None = None,
    likelihood: Likelihood | None = None,
    *,
    result: FitResult | None = None,
    class_names: Sequence[str] = (),
    feature_names: Sequence[str] = (),
    replace: bool = False,
) -> Path:
    """Write a trained model, its prior, its likelihood and what is known of both to a folder, whole or not at all.

    Weights and prior are safetensors, the rest is JSON; nothing is pickled. Scaling that is done by layers of the model
    is in its weights.

    Args:
        folder: The folder; must not exist, or be empty, unless `replace`.
        model: The model; or the trainer that trained it, which has prior, likelihood and result too.
        prior: Its prior.
        likelihood: Its likelihood; the noise that was learned is kept.
        result: What `fit` returned, for its numbers and history.
        class_names: Of the classes, in the order of the outputs.
        feature_names: Of the inputs, in order.
        replace: Whether a run folder that is there is replaced, once the new one is whole.

    Returns:
        The folder.

    Raises:
        InvalidArgumentError: If something is missing, or names are not words.
        OSError: If the folder is not empty (with `replace`: and no run folder), or cannot be written.

    Example:
        >>> import torch, tempfile, bayesreg as br
        >>> model = torch.nn.Linear(2, 2)
        >>> trainer = br.MAPTrainer(model, br.Gaussian(1.0), br.likelihoods.Categorical(), max_epochs=1, progress=False)
        >>> _ = trainer.fit((torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])))
        >>> with tempfile.TemporaryDirectory() as place:
        ...     folder = br.save_run(f"{place}/a", trainer, class_names=["cat", "dog"])
        ...     run = br.load_run(folder, torch.nn.Linear(2, 2))
        >>> run.class_names, len(run.predict(torch.zeros(3, 2), kind="names"))
        (('cat', 'dog'), 3)
    """
    if not (prior is None or isinstance(prior, ModelPrior)):
        raise InvalidArgumentError(f"prior: expected a ModelPrior, got {kind_of(prior)}.")
    if not (likelihood is None or isinstance(likelihood, Likelihood)):
        raise InvalidArgumentError(f"likelihood: expected one of br.likelihoods, got {kind_of(likelihood)}.")
    if not (result is None or isinstance(result, FitResult)):
        raise InvalidArgumentError(f"result: expected what fit() returned, got {kind_of(result)}.")
    output, form = None, BatchFormat()
    if isinstance(model, MAPTrainer):
        trainer = model
        if prior is not None or likelihood is not None:
            raise InvalidArgumentError("save_run: a trainer has its prior and its likelihood; leave them out.")
        model, prior, likelihood, output = trainer.model, trainer.prior, trainer.likelihood, trainer.output
        result = trainer.result if result is None else result
        form, feature_names = trainer.form, feature_names or [str(name) for name in trainer.feature_names or ()]
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model: expected a torch module or a MAPTrainer, got {kind_of(model)}.")
    if prior is None or likelihood is None:
        missing = " and no ".join(n for n, v in (("prior", prior), ("likelihood", likelihood)) if v is None)
        raise InvalidArgumentError(
            f"save_run: a model alone has no {missing}; pass prior and likelihood, or the trainer."
        )
    metrics = {
        "bayesreg": __version__,
        "build": None,
        "class": type(model).__name__,
        "architecture": str(model),
        "classes": list(names_from("class_names", class_names)),
        "features": list(names_from("feature_names", feature_names)),
        "output": output if isinstance(output, str | int) else None,
        "batch": {"target": form.target, "sample_weight": form.sample_weight},
        **({} if result is None else result.to_dict()),
    }
    target, replace = Path(folder), checks.flag("replace", replace)
    if target.is_dir() and any(target.iterdir()):
        if not replace:
            raise OSError(f"{target}: is not empty; name another folder, or replace a run that is there: replace=True.")
        if not is_run(target):
            raise OSError(f"{target}: is no run folder, and is left as it is; name another one.")
    with atomic_folder(target, replace=replace) as temporary:
        write_run(temporary, model, prior, likelihood, metrics, [] if result is None else result.history)
    return target


def is_run(folder: Path) -> bool:
    """Return whether a folder holds what `save_run` or `bayesreg fit` wrote."""
    return (folder / "metrics.json").is_file() and (folder / "model.safetensors").is_file()


def write_run(
    folder: Path,
    model: nn.Module,
    prior: ModelPrior,
    likelihood: Likelihood,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
) -> None:
    """Write the files of a run into a folder that is there.

    Args:
        folder: The folder.
        model: The model.
        prior: Its prior.
        likelihood: Its likelihood.
        metrics: What JSON can hold.
        history: The records of the fit.
    """
    from safetensors.torch import save_model

    said = {**metrics, "likelihood": likelihood.describe(), "likelihood_settings": settings_of(likelihood)}
    save_model(model, str(folder / "model.safetensors"))
    prior.save(folder / "prior.safetensors")
    (folder / "metrics.json").write_text(_json(said), encoding="utf-8")
    (folder / "history.json").write_text(_json([dict(record) for record in history]), encoding="utf-8")


def _json(data: Any) -> str:
    return json.dumps(_plain(data), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """Return what JSON can hold: None for a number that is none."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
