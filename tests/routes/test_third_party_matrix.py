"""Third-party optimizers: the prior arrives as the penalty in the loss does, or is refused; none is lost."""

from __future__ import annotations

import re

import pytest

from tests.third_party.__main__ import PAGE
from tests.third_party.matrix import CASES, measured, missing
from tests.versions import HAS_MUON

NEEDED = "pip install 'bayesreg[third-party]', and timm with --no-deps"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.library}-{case.name}")
def test_the_prior_arrives_as_the_penalty_in_the_loss_does(case):
    if case.library in missing():
        pytest.skip(f"{case.library} is not installed: {NEEDED}")
    row = measured(case)
    if case.refused:
        assert row.verdict.startswith("refused: ")
        assert case.refused in row.verdict
    else:
        assert row.verdict.startswith("arrives"), row


def test_the_page_has_a_row_for_every_optimizer_and_none_is_lost():
    if not PAGE.is_file():
        pytest.skip("the docs are not beside the tests")
    rows = dict(re.findall(r"^\| `(.+?)` \| \w+ \| (.+?) \|", PAGE.read_text(encoding="utf-8"), re.M))
    without = set() if HAS_MUON else {"Muon for matrices, AdamW for vectors"}
    assert set(rows) - without == {case.name for case in CASES}
    assert len(CASES) >= 40
    assert all(verdict.startswith(("arrives", "refused")) for verdict in rows.values())
