"""Every public call answers a wrong argument by its name, and says what was given."""

from __future__ import annotations

import inspect
import io
import os
import subprocess
import sys
import types
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import bayesreg as br
from bayesreg._text import json_safe, one_line, printable

ROOT = Path(__file__).parent.parent

# What is returned, never made by a caller; whatever takes any keyword.
RETURNED = {
    "Adapted", "Conversion", "DecayRule", "Explanation", "FitResult", "Handle", "ParameterInfo", "Quadratic",
    "Reference", "Selector", "WeightDecayReadings", "sparsity.Compacted", "sparsity.Path", "sparsity.PathPoint",
    "transfer.Fisher", "transfer.Rehearsal", "strength.Choice", "strength.Evidence", "strength.LeaveOneOut",
    "strength.OwnScale", "strength.Step", "callbacks.Callback", "callbacks.Training", "biases", "norms", "kernels",
    "embeddings", "hyperpriors.Quantity", "Run",
}  # fmt: skip


def public_calls():
    """Yield the name of everything that can be called under `br`, and it."""

    def walk(prefix, module, names):
        for name in names:
            thing = getattr(module, name)
            if isinstance(thing, types.ModuleType):
                yield from walk(f"{name}.", thing, thing.__all__)
                continue
            if not callable(thing) or f"{prefix}{name}" in RETURNED or inspect.isabstract(thing):
                continue
            if not (isinstance(thing, type) and issubclass(thing, Exception)):
                yield f"{prefix}{name}", thing
                yield from constructors(f"{prefix}{name}", thing)

    yield from walk("", br, br.__all__)


def constructors(name, thing):
    for other in vars(thing) if isinstance(thing, type) else ():
        held = inspect.getattr_static(thing, other)
        if isinstance(held, classmethod) and not other.startswith("_") and other != "from_saved":
            yield f"{name}.{other}", getattr(thing, other)


CALLS = dict(public_calls())


def test_there_are_many():
    assert len(CALLS) > 100


@pytest.mark.parametrize("name", CALLS)
def test_a_misspelt_argument_is_named(name):
    with pytest.raises(br.InvalidArgumentError, match="no_such_argument"):
        CALLS[name](no_such_argument=1)


def net():
    return nn.Linear(2, 2)


def _attached(**more):
    prior = br.ModelPrior(net(), br.Gaussian(1.0))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    return br.attach(optimizer, prior, **{"num_data": 10, **more})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _attached(before_clip="yes"), "before_clip: expected True or False, got str 'yes'"),
        (lambda: _attached(num_dat=3), "unexpected argument 'num_dat'.*did you mean 'num_data'"),
        (
            lambda: br.MAPTrainer(net(), br.Flat(), br.likelihoods.Categorical(), max_epoch=3),
            "did you mean 'max_epochs'",
        ),
        (
            lambda: br.MAPTrainer(net(), br.Flat(), br.likelihoods.Categorical(), restore_best=3),
            "restore_best: expected",
        ),
        (lambda: br.MAPTrainer(net(), br.Flat(), br.likelihoods.Categorical(), seed=None), "seed: expected an integer"),
        (
            lambda: br.MAPTrainer(net(), br.Flat(), br.likelihoods.Categorical(), optimizer=5),
            "optimizer: expected .*int",
        ),
        (
            lambda: br.MAPTrainer(net(), br.Flat(), br.likelihoods.Categorical(), on_epoch_end=lambda: None),
            "on_epoch_end",
        ),
        (lambda: br.where("nope"), "predicate: expected a function, got str 'nope'"),
        (lambda: br.likelihoods.Categorical(ignore_index="nope"), "ignore_index: expected an integer, got str"),
        (lambda: br.likelihoods.FromLoss("nope"), "loss: expected a torch loss or a function, got str"),
        (lambda: br.Gaussian(torch.zeros(0)), "scale: expected values > 0, got an empty tensor"),
        (lambda: br.Gaussian(10**400), "scale: expected a finite number, got one beyond 1e308"),
        (lambda: br.Gaussian(np.array(["a"])), "scale: expected real numbers, got an array of dtype <U1"),
        (lambda: br.Gaussian(torch.ones(2, device="meta")), "scale: expected values, got a tensor on the meta device"),
        (lambda: br.Gaussian(1e-200), "scale: expected a value whose square is a number"),
        (lambda: br.Gaussian.from_weight_decay(torch.ones(2), 10), "weight_decay: expected one number, got a tensor"),
        (lambda: br.Laplace.from_l1(1e-300, 10), "l1_coefficient: 1e-300 stands for no width that a prior can have"),
        (lambda: br.Laplace(1.0).prox(torch.ones(2), step=-1), "step: expected a number or tensor >= 0, got int -1"),
        (lambda: br.Laplace(1.0).prox(torch.ones(2), 10**400), "step: expected a number or tensor >= 0, got int 1000"),
        (lambda: br.Laplace(1.0).prox(torch.ones(2), float("nan")), "step: expected a number or tensor >= 0"),
        (
            lambda: br.Laplace(1.0).prox(torch.ones(2), torch.ones(3)),
            r"step: expected one number or the shape of value",
        ),
        (lambda: br.Laplace(1.0).prox(torch.ones(2), torch.tensor(1j)), "step: expected real numbers"),
        (lambda: br.Laplace(1.0).prox(vale=torch.ones(2), step=1.0), "unexpected argument 'vale'.*'value'"),
        (lambda: br.Gaussian(1.0).penalty(None), "value: expected a tensor, got NoneType"),
        (lambda: br.Gaussian(1.0).curvature(np.ones(2)), "value: expected a tensor, got ndarray"),
        (lambda: br.Gaussian(1.0).log_prob(torch.tensor(True)), "value: expected real values, got bool"),
        (lambda: br.Gaussian(1.0).sample(shape="x"), "shape: expected a tuple of integers >= 0, got str x"),
        (lambda: br.Gaussian(1.0).sample((-1,)), "shape: expected a tuple of integers >= 0"),
        (lambda: br.Gaussian(1.0).sample((1,), device="x"), "device: expected one such as 'cpu'"),
        (lambda: br.Gaussian(1.0).times(-1.0), "factor: expected a value > 0, got -1"),
        (lambda: br.Gaussian(loc={}, scale=1.0), "loc: reference .*expected named tensors"),
        (
            lambda: br.ModelPrior(net(), br.Flat()).param_groups(only="nope.*"),
            "only 'nope.*': expected a rule that match",
        ),
        (lambda: br.ModelPrior(net(), br.Gaussian(1.0), notes="a"), "notes: expected a list of sentences, got str"),
        (lambda: br.detach(None), "optimizer: expected"),
        (lambda: br.MAPObjective(br.Gaussian(1.0), 10), "prior: expected a ModelPrior"),
        (lambda: br.transfer.l2_sp(net(), net(), body_scale=-1.0), "body_scale: expected a value > 0, got -1"),
        (lambda: br.transfer.l2_sp(net(), net(), body_scale={}), "body_scale: expected a scale for each rule key"),
        (lambda: br.transfer.centered_prior(net(), net(), {"*": 1}), r"body: expected a prior for '\*'.*got int"),
        (
            lambda: br.transfer.depth_graded(net(), first=1.0, last=1.0, layers="*"),
            "layers: expected a list of rule keys",
        ),
        (lambda: br.transfer.l2_sp(net(), net(), body_scale=1.0, new=[]), "new"),
        (lambda: br.LossScale(0.1, num_data="x"), "num_data: expected an integer >= 1, got str 'x'"),
        (lambda: br.LossScale.mean(10**400), "num_data: expected an integer from 1 to 1e100"),
        (lambda: br.hyperpriors.HalfCauchy(scal=1.0), "unexpected argument 'scal'.*did you mean 'scale'"),
        (lambda: br.hyperpriors.from_dict({}), "record: expected the family one of"),
        (
            lambda: br.explain(torch.optim.SGD(net().parameters()), net(), 10, optimizer_class=3),
            "optimizer_class: plays no",
        ),
    ],
)
def test_wrong_values_are_answered(call, message):
    with pytest.raises((br.InvalidArgumentError, br.PatternError, br.ReferenceMismatchError), match=message):
        call()


class Called(br.Gaussian):
    """A family of a user's, whose methods take more, or call it otherwise."""

    def log_prob(self, weights, **options):
        return super().log_prob(weights) * options.get("temperature", 1.0)

    def penalty(self, *values, **_):
        return super().penalty(*values)

    @staticmethod
    def at_kink(value):
        return torch.zeros_like(value, dtype=torch.bool)


def test_a_family_of_ones_own_may_take_what_it_likes():
    w = torch.ones(2)
    prior = Called(1.0)
    assert torch.equal(prior.log_prob(weights=w, temperature=2.0), 2.0 * br.Gaussian(1.0).log_prob(w))
    assert torch.equal(prior.penalty(w, anything=1), br.Gaussian(1.0).penalty(w))
    assert not prior.at_kink(w).any()
    with pytest.raises(br.InvalidArgumentError, match="weights: expected a tensor, got int"):
        prior.log_prob(3)


@pytest.mark.parametrize("step", [np.float32(0.5), np.int64(1), np.array(0.5), Fraction(1, 2), torch.tensor(1), 0.5])
def test_steps_are_any_numbers(step):
    assert br.Laplace(1.0).prox(torch.ones(2), step).shape == (2,)


@pytest.mark.parametrize("shape", [(np.int64(2), 3), [2, 3], range(2, 4), torch.Size((2, 3))])
def test_shapes_are_any_integers(shape):
    assert br.Gaussian(1.0).sample(shape).shape == (2, 3)


def test_a_whole_models_penalty_compiles_without_a_break():
    prior = br.ModelPrior(net(), br.Gaussian(1.0))
    compiled = torch.compile(lambda: prior.penalty(), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(), prior.penalty())


@pytest.mark.slow
def test_a_folder_called_pyro_is_not_imported(tmp_path):
    """A prior file may ask for a distribution of Pyro; what is in the current folder is no library."""
    pytest.importorskip("pyro")
    from bayesreg._support.sealed import read_sealed, write_sealed

    path = tmp_path / "prior.safetensors"
    br.ModelPrior(net(), {"*": br.FromDistribution(torch.distributions.Normal(0.0, 1.0))}).save(path)
    held = read_sealed(path)
    held.record["priors"][0]["options"]["distribution"] = "pyro.Normal"
    record = {key: value for key, value in held.record.items() if key != "checksum"}
    write_sealed(path, record, held.tensors)
    (tmp_path / "pyro").mkdir()
    for name in ("__init__", "distributions"):
        (tmp_path / "pyro" / f"{name}.py").write_text("open('trace', 'w').close()\nclass Normal: ...\n")
    done = subprocess.run(
        [sys.executable, "-m", "bayesreg", "prior", "show", "prior.safetensors"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert not (tmp_path / "trace").exists()
    assert done.returncode == 1
    assert "which is not imported" in done.stderr


def test_what_a_callback_raises_is_its_own():
    def stop(_):
        raise ZeroDivisionError("mine")

    data = torch.ones(4, 2), torch.zeros(4).long()
    trainer = br.MAPTrainer(net(), br.Flat(), br.likelihoods.Categorical(), max_epochs=1, on_epoch_end=stop)
    with pytest.raises(ZeroDivisionError, match="mine"):
        trainer.fit(data)


def test_data_that_do_not_fit_the_model_are_told_by_shape_and_dtype():
    trainer = br.MAPTrainer(net(), br.Flat(), br.likelihoods.Categorical(), max_epochs=1)
    with pytest.raises(br.DataError, match=r"Linear \(float32\) cannot take inputs of shape \(4, 2\) and dtype int64"):
        trainer.fit((torch.ones(4, 2).long(), torch.zeros(4).long()))
    with pytest.raises(br.DataError, match=r"cannot take inputs of shape \(4, 3\) and dtype float32"):
        trainer.fit((torch.ones(4, 3), torch.zeros(4).long()))


@pytest.mark.parametrize("name", ["L2", "l2", "Ridge", "Normal", "L1", "Lasso", "weight_decay"])
def test_common_names_are_answered_by_the_name_here(name):
    here = "Laplace" if name in ("L1", "Lasso") else "Gaussian"
    with pytest.raises(AttributeError, match=rf"has no attribute '{name}'; that prior is br\.{here}\(scale\)"):
        getattr(br, name)


# -- text from elsewhere -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["\x1b]0;owned\x07", "\x1b[2J", "\x9b2J", "a\u202eb", "\ud800", "a\u2028b", "\x7f", "\r"]
)
def test_what_a_terminal_acts_on_is_escaped(text):
    for shown in (printable(text), one_line(text), str(br.DataError(text)), json_safe(text)):
        assert shown.isprintable()
        shown.encode()
    assert one_line("x" * 10_000).endswith("(10,000 characters)")
    assert printable("naïve 模型 👍") == "naïve 模型 👍"


def test_a_hostile_name_is_harmless_in_tables_and_files(tmp_path):
    model = nn.Module()
    model.register_parameter("w\x1b[2J[red]", nn.Parameter(torch.ones(2, 2)))
    prior = br.ModelPrior(model, {"*": br.Gaussian(1.0)}, notes=["n\x1b[2J"])
    table = prior.describe(10, per_parameter=True)
    assert "\x1b" not in str(table)
    assert "w\\x1b[2J[red]" in str(table)
    assert "\x1b" not in table.to_json()
    prior.save(tmp_path / "p.safetensors")
    with pytest.raises(br.PriorFileError) as caught:
        br.ModelPrior.load(tmp_path / "p.safetensors", net())
    assert "\x1b" not in str(caught.value)
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(table)
    shown = console.export_text()
    assert "\x1b" not in shown
    assert "[red]" in shown
