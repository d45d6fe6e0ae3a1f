"""What of the contract only the slow suite runs: compiling every family, three quadratures where one takes seconds."""

from __future__ import annotations

import pytest

#: One family of each base class.
COMPILED = {"TestGaussian", "TestFlat", "TestElasticNet", "TestStudentT", "TestMCP", "TestLaplaceTimesGaussian"}
#: Families without a closed form: seconds a quadrature.
COSTLY = {"TestKinkedAndSmooth", "TestStudentTOfFewDegrees"}
#: And those whose density is held to forty digits elsewhere.
EXACT = {"TestHorseshoe", "TestRegularizedHorseshoe"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if not isinstance(item, pytest.Function) or item.cls is None or "tests/priors/" not in item.path.as_posix():
            continue
        family, test = item.cls.__name__, item.originalname
        compiles = test == "test_compiles_without_graph_breaks" and family not in COMPILED
        costly = family in EXACT or (family in COSTLY and "[0.1]" not in item.name)
        if compiles or (costly and test == "test_integrates_to_one"):
            item.add_marker(pytest.mark.slow)
