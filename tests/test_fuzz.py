"""A short run of the fuzzer finds nothing, and finds every fault that is planted; the long one is a stage of CI."""

from __future__ import annotations

import time

import pytest

from tests.fuzz.__main__ import fuzz, main
from tests.fuzz.planted import FAULTS
from tests.fuzz.rooms import ROOMS, go_through
from tests.fuzz.verdict import Counts, Verdict, judge, unclear


@pytest.mark.slow
@pytest.mark.parametrize(("room", "cases"), [("files", 400), ("commands", 20), ("calls", 500)])
def test_a_short_run_finds_nothing(room, cases, tmp_path):
    counts = Counts()
    go_through(room, counts, tmp_path, "0", lambda: counts.total < cases)
    assert counts.total == cases
    assert counts.findings == []


def test_the_rooms_are_gone_through_for_a_time():
    assert set(fuzz(0, list(ROOMS), seconds=0.0).ends) >= {"files: load", "calls"}


def test_the_rooms_are_gone_through_for_a_number_of_cases():
    counts = fuzz(0, ["files", "calls"], cases=40)
    # By the shares of the two.
    assert [
        sum(counts.ends[name].total() for name in counts.ends if name.startswith(room)) for room in ("files", "calls")
    ] == [25, 15]


def test_there_are_twenty_faults():
    assert len(FAULTS) == 20


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, tmp_path):
    room, plant = FAULTS[fault]
    counts = Counts()
    # A number of cases and no time: how many a busy machine goes through in a minute says nothing of the fuzzer.
    go_through(room, counts, tmp_path, fault, lambda: not counts.findings and counts.total < 3_000, plant)
    assert counts.findings, f"{counts.total} cases, and {fault} was not seen"


def test_every_end_is_told():
    import bayesreg as br

    def refuses(message):
        def case():
            raise br.DataError(message)

        return case

    def slow():
        time.sleep(5.0)

    def raw():
        raise KeyError("x")

    assert judge(lambda: "").end == "same"
    assert judge(lambda: "0.1 in place of 0.2") == Verdict("different", "0.1 in place of 0.2")
    assert judge(refuses("data: expected one, got none.")).end == "refused"
    assert judge(refuses("")).end == "unclear"
    assert judge(raw).end == "raw"
    assert "test_fuzz.py" in judge(raw).said
    assert judge(slow, seconds=0.1).end == "hang"
    assert unclear("x " * 2_000)
    assert unclear("a\x1b[2J")
    assert not unclear("scale: expected a value > 0, got -1.")


def test_a_finding_ends_the_command_with_1(monkeypatch, capsys):
    def find(*_):
        yield "calls", "prepared", Verdict("same")
        yield "calls", "f(x=1)", Verdict("raw", "KeyError at f.py:1: 'x'")

    monkeypatch.setitem(ROOMS, "calls", find)
    assert main(["--only", "calls", "--seconds", "0"]) == 1
    assert "raw: calls: f(x=1)\n    KeyError at f.py:1: 'x'" in capsys.readouterr().out
