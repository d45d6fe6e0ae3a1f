"""The public surface: documented, lazily loaded, as cheap to import as torch allows."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import operator
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bayesreg as br
from bayesreg.priors import FAMILIES

NAMES = [name for name in br.__all__ if name not in ("__version__", "likelihoods", "transfer")]
NAMES += [f"hyperpriors.{name}" for name in ("BetaPrime", "Gamma", "HalfCauchy", "HalfNormal", "InverseGamma")]
NAMES += [f"transfer.{name}" for name in br.transfer.__all__]
NAMES += [f"sparsity.{name}" for name in br.sparsity.__all__]
NAMES += [f"plots.{name}" for name in br.plots.__all__]


def test_every_name_is_there_once():
    assert len(set(br.__all__)) == len(br.__all__)
    assert set(br.__all__) <= set(dir(br))
    for name in br.__all__:
        assert getattr(br, name) is getattr(br, name)


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(AttributeError, match="no attribute 'Gausian'; did you mean 'Gaussian'"):
        _ = br.Gausian


def test_type_checkers_see_the_names_that_are_loaded():
    text = Path(inspect.getfile(br)).with_suffix(".pyi").read_text()
    seen = set(re.findall(r"import (\w+) as \1", text))
    assert seen == set(br.__all__) - {"__version__"}


@pytest.mark.parametrize("name", NAMES)
def test_every_public_symbol_is_documented(name):
    thing = operator.attrgetter(name)(br)
    documentation = inspect.getdoc(thing) or ""
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return
    assert documentation.split("\n")[0].endswith((".", ":")), name
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return
    target = thing.__init__ if inspect.isclass(thing) else thing
    own = inspect.isfunction(thing) or "__init__" in vars(thing)
    arguments = [p for p in inspect.signature(target).parameters if p not in ("self", "args", "kwargs")] if own else []
    for argument in arguments:
        assert re.search(rf"^\s*\**{argument}: ", documentation, re.M), f"{name}: {argument} is not documented"
    if inspect.isfunction(thing):
        if inspect.signature(thing).return_annotation != "None":
            assert "Returns:" in documentation, name
        assert ">>>" in documentation, f"{name} has no example"


@pytest.mark.parametrize("name", [*(name for name in FAMILIES if name in br.__all__), "LossScale", "ModelPrior",
                                  "MAPTrainer", "MAPObjective", "WeightDecayReadings"])  # fmt: skip
def test_public_classes_show_an_example(name):
    assert ">>>" in inspect.getdoc(getattr(br, name))


def test_modules_declare_their_names_as_strings():
    for info in pkgutil.walk_packages(br.__path__, "bayesreg."):
        framework = info.name.removeprefix("bayesreg.interop.")
        if framework in dir(br.interop) and importlib.util.find_spec(framework) is None:
            with pytest.raises(ImportError, match=r"pip install 'bayesreg\["):
                importlib.import_module(info.name)
            continue
        module = importlib.import_module(info.name)
        if info.name == "bayesreg._version":
            continue
        assert all(isinstance(name, str) for name in module.__all__), info.name
        assert all(hasattr(module, name) for name in module.__all__), info.name


def fresh(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.slow
def test_heavy_packages_load_on_use():
    loaded = fresh(
        "import sys, torch; before = set(sys.modules); import bayesreg\n"
        "new = {m.split('.')[0] for m in set(sys.modules) - before}\n"
        "print(' '.join(sorted(new)))"
    )
    assert loaded == "bayesreg"
    using = fresh(
        "import sys, bayesreg as br, torch\n"
        "br.ModelPrior(torch.nn.Linear(2, 2), br.Gaussian(0.1)).log_prob()\n"
        "print(*[m for m in ('scipy', 'pyro', 'accelerate', 'matplotlib', 'typer', 'rich', 'sklearn') "
        "if m in sys.modules])"
    )
    assert using == ""


@pytest.mark.slow
def test_importing_everything_changes_no_global_state():
    code = (
        "import warnings; warnings.simplefilter('error', UserWarning)\n"
        # scikit-learn's metrics draw from Python's own generator when they are imported.
        "import logging, random, sklearn.metrics, torch, numpy as np\n"
        "before = (torch.get_default_dtype(), torch.initial_seed(), torch.get_rng_state().sum().item(), "
        "logging.getLogger().level, random.getstate(), torch.get_num_threads())\n"
        "import bayesreg as br\n"
        "[getattr(br, name) for name in br.__all__]\n"
        "after = (torch.get_default_dtype(), torch.initial_seed(), torch.get_rng_state().sum().item(), "
        "logging.getLogger().level, random.getstate(), torch.get_num_threads())\n"
        "print(before == after)"
    )
    assert fresh(code) == "True"


def test_nothing_prints():
    root = Path(inspect.getfile(br)).parent
    for path in root.rglob("*.py"):
        if "cli" in path.parts:
            continue
        assert not re.search(r"^\s*print\(", path.read_text(), re.M), path
