"""What of the contract only the slow suite runs: compiling every family, three quadratures where one takes seconds."""

from __future__ import annotations

import pytest

#: One family of each base class.
COMPILED = {"TestGaussian", "TestFlat", "TestElasticNet", "TestStudentT", "TestMCP", "TestLaplaceTimesGaussian"}
#: Families without a closed form: seconds a quadrature.
COSTLY = {"TestHorseshoe", "TestRegularizedHorseshoe", "TestKinkedAndSmooth", "TestStudentTOfFewDegrees"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if not isinstance(item, pytest.Function) or item.cls is None or "tests/priors/" not in item.path.as_posix():
            continue
        family, test = item.cls.__name__, item.originalname
        compiles = test == "test_compiles_without_graph_breaks" and family not in COMPILED
        costly = test == "test_integrates_to_one" and family in COSTLY and "[0.1]" not in item.name
        if compiles or costly:
            item.add_marker(pytest.mark.slow)
