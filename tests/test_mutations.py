"""The list of mutations is about the code as it is; running it is `python -m tests.mutations`."""

from __future__ import annotations

from collections import Counter

import pytest

import bayesreg as br
from bayesreg.priors import FAMILIES
from tests.mutations import MUTATIONS, ROOT, caught


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.file}-{m.old[:30]}")
def test_every_mutation_changes_one_place(mutation):
    text = (ROOT / "bayesreg" / mutation.file).read_text()
    assert text.count(mutation.old) == 1
    assert mutation.old != mutation.new
    assert (ROOT / "tests" / mutation.tests).is_file()


def test_every_family_has_some():
    files = Counter(mutation.file for mutation in MUTATIONS)
    own = {cls.__module__.removeprefix("bayesreg.").replace(".", "/") for name, cls in FAMILIES.items()
           if name in br.__all__ and name not in ("Flat", "FromDistribution")}  # fmt: skip
    shared = {"priors/correlated/low_rank_gaussian": "priors/correlated/low_rank_algebra"}
    assert all(files[f"{shared.get(name, name)}.py"] for name in own)


@pytest.mark.slow
def test_the_script_tells_caught_from_survived():
    harmless = MUTATIONS[0]._replace(new=f"{MUTATIONS[0].old}  ", tests="priors/elementwise/test_fan_in.py")
    assert caught(MUTATIONS[0])
    assert not caught(harmless._replace(old="# In half precision two", new="# In half precision 2"))
