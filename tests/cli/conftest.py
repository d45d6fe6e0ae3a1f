"""The command line in an empty folder."""

from __future__ import annotations

import sys

import pytest

from bayesreg.cli import main


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run `bayesreg ...` in an empty folder; return (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    # Wide, so that messages are not wrapped.
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["bayesreg", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call
