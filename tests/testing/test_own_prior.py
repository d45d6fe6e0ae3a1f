"""The page "Add your own prior": its code, word for word, makes a family that passes, and a wrong one that does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent.parent / "docs" / "own_prior.md"


def blocks():
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(found) == 2
    return found


def run(folder, family, test, *options):
    (folder / "sech.py").write_text(family)
    (folder / "test_sech.py").write_text(test)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", *options, "test_sech.py"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip


def test_the_example_is_short():
    family, test = blocks()
    code = [line for line in family.splitlines() if line.strip()]
    assert len(code) <= 40
    assert len([line for line in test.splitlines() if line.strip()]) <= 10


@pytest.mark.slow
def test_the_example_passes_the_contract(tmp_path):
    done = run(tmp_path, *blocks())
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong", "caught_by"),
    [
        ("(math.pi * self.scale).log()", "torch.tensor(math.pi).double().log()", "test_integrates_to_one"),
        ("tanh() / self.scale", "tanh()", "test_gradient_is_autograds"),
        ("** 2) / self.scale**2", "** 2) / self.scale", "test_curvature_is_the_second_derivative"),
        ("self.scale * (math.pi", "0.9 * self.scale * (math.pi", "test_samples_follow_the_density"),
    ],
)
def test_a_mistake_in_it_is_caught(tmp_path, right, wrong, caught_by):
    family, test = blocks()
    assert right in family
    done = run(tmp_path, family.replace(right, wrong), test, "-k", caught_by)
    assert done.returncode == 1, done.stdout[-2000:]


@pytest.mark.slow
def test_it_trains_and_is_named_in_files_and_words(tmp_path):
    family, _ = blocks()
    code = (
        f"{family}\n"
        "model = torch.nn.Linear(3, 1)\n"
        "prior = br.ModelPrior(model, br.prior_from_words('sech(0.5)'))\n"
        f"prior.save({str(tmp_path / 'p.safetensors')!r})\n"
        f"again = br.ModelPrior.load({str(tmp_path / 'p.safetensors')!r}, model)\n"
        "assert again.log_prob() == prior.log_prob()\n"
        "optimizer = torch.optim.Adam(prior.param_groups())\n"
        "print(br.attach(optimizer, prior, num_data=10).describe())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Sech" in done.stdout
    assert "gradient" in done.stdout
