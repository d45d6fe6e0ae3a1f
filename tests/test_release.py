"""What a release says of itself in several files is one thing, and what CI runs is what people are told to run."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import yaml

import bayesreg as br

ROOT = Path(__file__).parent.parent
if not (ROOT / "Makefile").is_file():
    pytest.skip("these files are in a clone only", allow_module_level=True)


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_one_everywhere():
    citation = yaml.safe_load(text("CITATION.cff"))
    released = re.search(r"^## \[(\d\S*)\] - (\S+)$", text("CHANGELOG.md"), re.M)
    assert released.groups() == (br.__version__, str(citation["date-released"]))
    assert citation["version"] == br.__version__


def test_make_test_is_the_readmes_command_and_the_workflow_calls_ci():
    (command,) = re.findall(r"^python3 -m venv .*(pytest.*)$", text("README.md"), re.M)
    assert f"$(BIN){command}" in text("Makefile")
    workflow = yaml.safe_load(text(".github/workflows/ci.yml"))
    steps = workflow["jobs"]["everything"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"]


def test_ci_tells_what_is_quickest_first():
    stages = re.findall(r'^stage "([^":]+)', text(".ci/run"), re.M)
    assert stages == [
        "install",
        "lint, types, the house",
        "wheel and sdist",
        "tests",
        "slow tests",
        "fuzz",
        "docs, and the notebooks in them",
    ]


def test_hooks_run_what_ci_runs():
    hooks = {
        hook["entry"] for repo in yaml.safe_load(text(".pre-commit-config.yaml"))["repos"] for hook in repo["hooks"]
    }
    assert {entry.split()[0] for entry in hooks} == {"ruff", "python", "mypy"}
    assert "python .ci/house.py" in hooks


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        ("bayesreg/priors/elementwise/laplace.py", ["tests/priors/elementwise/test_laplace.py"]),
        ("bayesreg/priors/words.py", ["tests/priors/test_words.py"]),
        ("bayesreg/priors/numerics/roots.py", ["tests/priors/test_pickles.py", "tests/priors/test_words.py"]),
        ("bayesreg/priors/__init__.py", ["tests/test_public_api.py"]),
        ("bayesreg/errors.py", ["tests/test_public_api.py"]),
        ("tests/routes/test_life.py", ["tests/routes/test_life.py"]),
        ("tests/routes/common.py", []),
        ("README.md", []),
    ],
)
def test_a_changed_file_names_its_tests(file, tests):
    tests_of = runpy.run_path(str(ROOT / ".ci" / "changed.py"))["tests_of"]
    assert tests_of(file) == [ROOT / test for test in tests]


def test_without_tests_of_its_own_a_file_has_those_beside_it():
    tests_of = runpy.run_path(str(ROOT / ".ci" / "changed.py"))["tests_of"]
    assert tests_of("bayesreg/routes/watches/overshoot.py") == sorted((ROOT / "tests" / "routes").glob("test_*.py"))


def test_every_kind_of_test_folder_mirrors_the_package():
    package = {p.relative_to(ROOT / "bayesreg") for p in (ROOT / "bayesreg").rglob("*") if any(p.glob("*.py"))}
    tests = {p.relative_to(ROOT / "tests") for p in (ROOT / "tests").rglob("*") if any(p.glob("test_*.py"))}
    assert tests - package == set()


def prose():
    """Yield place, line and the line with code, formulas and links blanked; tables and code are left out."""
    markdown = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks" / "README.md"]
    for page in [*markdown, *ROOT.glob("notebooks/*.py")]:
        fenced = False
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            if page.suffix == ".py":
                if not line.startswith("# ") or line.startswith("# %%"):
                    continue
                line = line[2:]
            if re.match(r"\s*(```|\$\$)", line) and "{glossary}" not in line:
                fenced = not fenced
            if not fenced and not line.lstrip().startswith("|"):
                held = r"`[^`]*`|\$[^$]*\$|\[[^]]*\]\([^)]*\)"
                yield f"{page.name}:{number}", line, re.sub(held, lambda part: "_" * len(part[0]), line)


def test_markdown_is_wrapped():
    # A line that holds together (one link, one formula) may be wider.
    assert [place for place, line, blank in prose() if len(line) > 120 and " " in blank.strip()[2:120]] == []


def test_markdown_has_one_sentence_a_line():
    ends = re.compile(r"(?<!\d)(?<!\b[A-Z])(?<!e\.g)(?<!i\.e)[.!?] +[A-Z]")
    assert [
        f"{place}: {line}" for place, line, blank in prose() if ends.search(blank) and not blank.startswith("#")
    ] == []


def test_every_page_says_first_whom_it_is_for():
    for page in sorted((ROOT / "docs").glob("*.md")):
        body = re.split(r"^# .*$", page.read_text(encoding="utf-8"), maxsplit=1, flags=re.M)
        if page.stem not in ("index", "changelog"):
            assert body[1].lstrip().startswith("For "), page.name
