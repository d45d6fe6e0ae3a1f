"""The house in numbers that must not get worse: a room for every file, one fact one name, one word for n."""

from __future__ import annotations

import ast
import inspect
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.optimizers import decay as optimizers
from bayesreg.priors import FAMILIES, Belief, Prior

PACKAGE = Path(inspect.getfile(br)).parent


# -- rooms ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house():
    script = Path(__file__).parent.parent / ".ci" / "house.py"
    if not script.exists():
        pytest.skip("the script that measures the house is in a clone only")
    return SimpleNamespace(**runpy.run_path(str(script)), map=script.parent.parent / "docs" / "map.md")


def test_nothing_is_imported_upwards_or_in_a_circle_and_no_folder_is_too_full(house):
    assert house.faults(PACKAGE, house.map) == []


def test_the_map_names_every_room_and_only_those(house):
    named = house.order(house.map)
    there = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*") if p.is_dir() and any(p.glob("*.py"))}
    there |= {p.stem for p in PACKAGE.glob("*.py")} - {"__init__"}
    assert set(named) == there
    assert len(named) == len(there)


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("low/one.py", "from fake.high import three", "low imports fake.high.three, which stands above it"),
        ("low/one.py", "from fake.high.three import a", "low imports fake.high.three, which stands above it"),
        ("low/one.py", "from ..high import three", "low imports fake.high.three, which stands above it"),
        ("low/one.py", "import fake.high.three", "low imports fake.high.three, which stands above it"),
        (
            "low/one.py",
            "def f():\n    from fake.high.three import a",
            "low imports fake.high.three, which stands above",
        ),
        ("low/one.py", "if TYPE_CHECKING:\n    from fake.high.three import a", "low imports fake.high.three, which"),
        ("low/two.py", "from fake.low import one", "circle: fake.low.one -> fake.low.two -> fake.low.one"),
        ("low/two.py", "from . import one", "circle: fake.low.one -> fake.low.two -> fake.low.one"),
        ("low/two.py", "import fake as f", "low/two:1: imports the whole package"),
        ("low/two.py", "importlib.import_module('fake.high')", "low/two.py: imports the package by a string"),
        ("other.py", "from fake.low import one", "other:1: fake.other has no row"),
    ],
)
def test_the_script_sees_every_kind_of_import(house, tmp_path, file, line, fault):
    package, page = tmp_path / "fake", tmp_path / "map.md"
    page.write_text("| `low` | below |\n| `high` | above |\n")
    for name, text in {
        "low/one.py": "from fake.low.two import b\n",
        "low/two.py": "",
        "high/three.py": "import fake.low",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
        (package / name).with_name("__init__.py").touch()
    (package / "__init__.py").touch()
    assert house.faults(package, page) == []
    (package / file).write_text(f"{line}\n" + ((package / file).read_text() if (package / file).exists() else ""))
    assert any(fault in found for found in house.faults(package, page)), house.faults(package, page)


def test_the_script_counts_files(house, tmp_path):
    package, page = tmp_path / "fake", tmp_path / "map.md"
    page.write_text("| `low` | below |\n")
    (package / "low").mkdir(parents=True)
    for number in range(12):
        (package / "low" / f"_{number}.py").touch()
    assert house.faults(package, page) == []
    (package / "low" / "one_more.py").touch()
    assert house.faults(package, page) == ["fake/low: 13 files, expected at most 12"]
    for number in range(9):
        (package / f"_{number}.py").touch()
    assert "fake: 9 files, expected at most 8" in house.faults(package, page)


# -- families by name ----------------------------------------------------------------------------------


def families():
    """Every registered family, and every class between one and `Prior`."""
    classes = {
        cls for family in FAMILIES.values() if family.__module__.startswith("bayesreg.") for cls in family.__mro__
    }
    return {cls.__name__ for cls in classes if issubclass(cls, Belief) and cls not in (Belief, Prior)} - {"JointPrior"}


def asked(tree):
    """Yield line and names of every isinstance or issubclass."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "issubclass")
        ):
            names = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
            names |= {n.attr for n in ast.walk(node.args[1]) if isinstance(n, ast.Attribute)}
            yield node.lineno, names


def test_outside_priors_hardly_anybody_asks_for_a_family():
    """What a route, a table or a solver wants to know, the contract says: quadratic(), bounds(), groups(), traits."""
    known, found = families(), []
    for path in sorted(PACKAGE.rglob("*.py")):
        if "priors" not in path.relative_to(PACKAGE).parts:
            lines = asked(ast.parse(path.read_text()))
            found += [f"{path.relative_to(PACKAGE)}:{line} {names & known}" for line, names in lines if names & known]
    # Both in transfer/methods.py: a reference can only become the centre of a prior that has one.
    assert len(found) <= 2, found


def test_no_module_knows_a_family_by_a_string():
    known, found = set(FAMILIES) - {"Flat"}, []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            # What a field says of itself is no question about an object's class.
            if isinstance(node, ast.Compare) and path.relative_to(PACKAGE).as_posix() != "conversion/table.py":
                words = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
                found += [f"{path.name}:{node.lineno} {words & known}"] if words & known else []
    # torch's Normal and Laplace among them would be no families of ours.
    assert not found, found


# -- width ---------------------------------------------------------------------------------------------


def test_the_contract_is_no_wider_than_it_is():
    """41 methods before what is said in words, asked by name or joins parameters left it; two came since."""
    own = {name for name in dir(Prior) if not name.startswith("_") and name not in dir(nn.Module)}
    methods = {name for name in own if callable(getattr(Prior, name))}
    assert len(methods) <= WIDTH, sorted(methods)


WIDTH = 28


# -- optimizers are asked once -------------------------------------------------------------------------


class Own(torch.optim.Optimizer):
    """A third-party optimizer: nothing is known of it but what a trial shows."""

    def __init__(self, params, lr=0.1, weight_decay=0.0, kind="a"):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "kind": kind})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(group["lr"] * (p.grad + group["weight_decay"] * p))


@pytest.fixture
def trials(monkeypatch):
    made = []
    examine = optimizers.examine
    monkeypatch.setattr(optimizers, "examine", lambda build: made.append(1) or examine(build))
    return made


@pytest.mark.parametrize(("kinds", "expected"), [(("a",), 1), (("a", "b"), 2)])
def test_an_optimizer_is_tried_once_per_kind_of_group(trials, kinds, expected):
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(20)])
    prior = br.ModelPrior(model, br.Gaussian(0.5))
    groups = [
        {"params": [p], "kind": kinds[i % len(kinds)], "lr": 0.1 / (i + 1)} for i, p in enumerate(model.parameters())
    ]
    optimizer = Own(groups)
    br.attach(optimizer, prior, num_data=10)
    assert len(trials) == expected
    trials.clear()
    br.explain(optimizer, model, num_data=10)
    assert len(trials) == expected


def test_kinds_that_differ_are_told_apart():
    """A group that shrinks its weights by itself is found among forty that do not."""

    class Shrinks(Own):
        def step(self, closure=None):
            super().step()
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p.mul_(0.9 if group["kind"] == "b" else 1.0)

    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(20)])
    groups = [{"params": [p], "kind": "b" if i == 37 else "a"} for i, p in enumerate(model.parameters())]
    with pytest.raises(br.InvalidArgumentError, match="a decay under another name"):
        br.attach(Shrinks(groups), br.ModelPrior(model, br.Gaussian(0.5)), num_data=10)


# -- one word for n ------------------------------------------------------------------------------------

#: Calls whose n is the number of examples itself: constructors of a scale, and scikit-learn's constants.
COUNTS = {"LossScale", "lasso_alpha_to_laplace_scale", "laplace_scale_to_lasso_alpha", "sklearn_to_elastic_net_rates",
          "elastic_net_rates_to_sklearn"}  # fmt: skip
#: Things that hold an n or a scale, and take none.
HOLD = {"FitResult", "Explanation", "Conversion"}


def calls():
    """Yield every public function, constructor and method with its parameters."""
    for name in br.__all__:
        thing = getattr(br, name)
        if inspect.isclass(thing) and issubclass(thing, Exception):
            continue
        if inspect.isfunction(thing) or inspect.isclass(thing):
            yield name, inspect.signature(thing).parameters
        if inspect.isclass(thing):
            for attribute, value in inspect.getmembers(thing, callable):
                if not attribute.startswith("_") and str(getattr(value, "__module__", "")).startswith("bayesreg"):
                    yield f"{name}.{attribute}", inspect.signature(value).parameters


def test_n_is_spelled_in_one_way():
    taking = {}
    for name, parameters in calls():
        if name.split(".")[0] in COUNTS | HOLD:
            continue
        if name != "Handle":
            # Inside, s is a LossScale and called so; what people call takes num_data.
            assert "loss_scale" not in parameters, name
        if "num_data" in parameters:
            taking[name] = str(parameters["num_data"].annotation)
    assert {kind.removesuffix(" | None") for kind in taking.values()} == {"int | LossScale"}
    for name in ("attach", "explain", "convert", "MAPTrainer", "MAPObjective", "ModelPrior.describe", "Laplace.l1",
                 "weight_decay_to_variance", "Gaussian.weight_decay", "Gaussian.from_weight_decay",
                 "prior_from_words"):  # fmt: skip
        assert name in taking
    assert len(taking) >= 60


def built():
    model = nn.Linear(3, 2)
    return model, br.ModelPrior(model, br.Gaussian(0.5))


def everywhere(n):
    """Every kind of call that takes n, with it by its name, by its old name and by place."""
    model, prior = built()
    number = torch.optim.SGD(model.parameters(), lr=0.1)
    yield br.weight_decay_to_variance(5e-4, **n)
    yield br.variance_to_weight_decay(0.04, **n)
    yield br.l1_to_laplace_scale(1e-4, **n)
    yield br.laplace_scale_to_l1(0.2, **n)
    yield br.Gaussian(0.5).weight_decay(**n)
    yield br.Gaussian.from_weight_decay(5e-4, **n).scale.item()
    yield br.Laplace(0.1).l1(**n)
    yield br.ElasticNet(1.0, 2.0).penalties(**n)
    yield br.StudentT(4.0, 0.1).weight_decay_readings(**n)
    yield br.MAPObjective(prior, **n).penalty().item()
    yield str(prior.describe(**n))
    yield br.convert(5e-4, **n).variance
    yield br.prior_from_words("gaussian(weight_decay=5e-4)", **n).scale.item()
    yield br.explain(torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-3), model, **n).groups[0].variance
    br.attach(number, prior, **n)
    yield number.param_groups[0]["weight_decay"]


def test_a_number_a_scale_and_the_old_word_mean_the_same():
    torch.manual_seed(0)
    with torch.random.fork_rng():
        expected = list(everywhere({"num_data": 50}))
    for other in ({"num_data": br.LossScale.mean(50)}, {"loss_scale": 50}, {"loss_scale": br.LossScale.mean(50)}):
        torch.manual_seed(0)
        with torch.random.fork_rng():
            assert list(everywhere(other)) == expected


def test_both_words_at_once_or_none_are_refused():
    with pytest.raises(br.InvalidArgumentError, match="loss_scale= is an old name of it"):
        br.weight_decay_to_variance(5e-4, num_data=10, loss_scale=br.LossScale.sum())
    for call in (lambda: br.weight_decay_to_variance(5e-4), lambda: br.Gaussian(0.5).weight_decay(),
                 lambda: br.convert(5e-4), lambda: br.MAPObjective(built()[1]),
                 lambda: br.attach(torch.optim.SGD([torch.zeros(2)], lr=0.1), built()[1])):  # fmt: skip
        with pytest.raises(br.InvalidArgumentError, match="num_data: pass the size of the training set, num_data=n"):
            call()
    for wrong, words in (
        (0.5, "an integer, or a LossScale"),
        (nn.MSELoss(), r"LossScale\.from_loss\(MSELoss"),
        ("a", "str"),
    ):
        with pytest.raises(br.InvalidArgumentError, match=words):
            br.weight_decay_to_variance(5e-4, wrong)


@pytest.mark.parametrize(("call", "words"), [
    (lambda model, prior: br.weight_decay_to_variance(5e-4, num_dta=10), "weight_decay_to_variance: .*'num_data'"),
    (lambda model, prior: br.LossScale.mean(num_dta=10), r"LossScale\.mean: .*'num_data'"),
    (lambda model, prior: br.LossScale.mse(10, 1, noise_stdd=0.1), r"LossScale\.mse: .*'noise_std'"),
    (lambda model, prior: br.Gaussian(scal=0.1), "Gaussian: .*'scale'"),
    (lambda model, prior: br.Gaussian.centered_at(model, scale=1.0, renme={}), "Gaussian: unexpected argument 'renme'"),
    (lambda model, prior: br.Gaussian(0.1).weight_decay(10, optimiser="sgd"), "weight_decay: .*'optimizer'"),
    (lambda model, prior: br.Gaussian(0.1).sample((2,), genrator=None), "sample: .*'generator'"),
    (lambda model, prior: br.ModelPrior(model, rule=br.Flat()), "ModelPrior: .*'rules'"),
    (lambda model, prior: prior.describe(num_dat=10), r"ModelPrior\.describe: .*'num_data'"),
    (lambda model, prior: prior.log_prob(valus={}), r"ModelPrior\.log_prob: .*'values'"),
    (lambda model, prior: prior.sample_(genrator=None), r"ModelPrior\.sample_: .*'generator'"),
    (lambda model, prior: br.attach(None, prior, num_data=3, before_clp=True), "attach: .*'before_clip'"),
    (lambda model, prior: br.explain(None, modl=model, num_data=3), "explain: .*'model'"),
    (lambda model, prior: br.MAPTrainer(model, prior, None, max_epoch=3), "MAPTrainer: .*'max_epochs'"),
    (lambda model, prior: br.MAPObjective(prior, num_dat=3), "MAPObjective: .*'num_data'"),
    (lambda model, prior: br.convert(1.0, num_data=3, optimzer="sgd"), "convert: .*'optimizer'"),
    (lambda model, prior: br.load_reference(model, renme={}), "load_reference: .*'rename'"),
    (lambda model, prior: br.prior_from_words("flat()", num_dat=3), "prior_from_words: .*'num_data'"),
    (lambda model, prior: br.likelihoods.Gaussian(noise_sd=0.5), "Gaussian: .*'noise_std'"),
    (lambda model, prior: br.ModelPrior.load("p.safetensors", model, hed=br.Flat()), r"ModelPrior\.load: .*'head'"),
])  # fmt: skip
def test_misspelt_keywords_get_the_nearest_name(call, words):
    with pytest.raises(br.InvalidArgumentError, match=f"{words}"):
        call(*built())


def test_a_type_error_inside_is_not_taken_for_a_wrong_call():
    with pytest.raises(TypeError, match="unhashable"):
        br.ModelPrior(nn.Linear(2, 1), {lambda info: {[]: 1}: br.Flat()})


def test_a_shipped_family_is_exported_and_documented_by_its_name_alone():
    # What a docstring's example registers is of no module.
    shipped = {name for name, family in FAMILIES.items() if hasattr(sys.modules[family.__module__], name)
               and family.__module__.startswith("bayesreg.")}  # fmt: skip
    decorated = set()
    for path in (PACKAGE / "priors").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                marks = {ast.unparse(mark).partition("(")[0] for mark in node.decorator_list}
                decorated |= {node.name} if "register_family" in marks else set()
    assert decorated == shipped
    assert shipped <= set(br.__all__)
    page = (PACKAGE.parent / "docs" / "api.md").read_text()
    assert all(f"   bayesreg.{name}\n" in page for name in shipped)
    families = (PACKAGE.parent / "docs" / "priors.md").read_text()
    assert [name for name in sorted(shipped) if f"`{name}" not in families] == []
