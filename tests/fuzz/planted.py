"""Twenty faults, each put into the package for a moment: the fuzzer must find every one."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import bayesreg as br
from bayesreg import cli
from bayesreg._support import checks, sealed
from bayesreg.cli.tabular import data as tabular
from bayesreg.model_prior import file, file_binding
from bayesreg.tables import encoder

Fault = tuple[str, Callable[[], Any]]


def _raises(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def _rounded(path: Path, number: int, row: Any, tensors: Any, learned: Any) -> Any:
    return _REBUILD(path, number, row, {name: tensor * (1 + 1e-6) for name, tensor in tensors.items()}, learned)


_REBUILD = file._rebuild


def _read_without_checksum(path: Path) -> sealed.Sealed:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as held:
        record = json.loads((held.metadata() or {})["bayesreg"])
        return sealed.Sealed(record, {name: held.get_tensor(name) for name in held.keys()}, True)  # noqa: SIM118


def _any_positive(name: str, value: Any) -> Any:
    return value


def _long_message(self: BaseException) -> str:
    return "x" * 10_000


def _nameless(self: BaseException) -> str:
    return "bad value"


def _raw_escapes(self: BaseException) -> str:
    return f"{self.args[0] if self.args else ''}\x1b[2J"


def _as_floats(table: Any, name: str) -> list[float]:
    return [float(text or "nan") for text in table.column(name)]


def _half_written(*_: Any, **__: Any) -> Any:
    Path(f"half-written-{time.monotonic_ns()}").write_text("x")
    raise br.InvalidArgumentError("--output: expected another, got this.")


def _prints_first(*arguments: Any, **keywords: Any) -> Any:
    print("Task: unknown")
    raise br.InvalidArgumentError("data: expected another, got this.")


@contextmanager
def _patched(target: Any, name: str, new: Any) -> Iterator[None]:
    with mock.patch.object(target, name, new):
        yield


@contextmanager
def _uncaught() -> Iterator[None]:
    """The command line that catches nothing."""

    def bare() -> None:
        cli.app()

    with mock.patch.object(sys.modules["tests.fuzz.commands"], "main", bare):
        yield


def _unpatch(cls: type, name: str) -> Any:
    return getattr(cls, name).__wrapped__


#: What is wrong, in which room it shows, and how it is put in.
FAULTS: dict[str, Fault] = {
    # files
    "a value is rounded on the way": ("files", lambda: _patched(file, "_rebuild", _rounded)),
    "nothing is checked": ("files", lambda: _patched(file, "read_sealed", _read_without_checksum)),
    "damage is a KeyError": ("files", lambda: _patched(sealed, "_damaged", _raises(KeyError("damaged")))),
    "a KeyError of a record passes": ("files", lambda: _patched(file, "_DAMAGED", (ZeroDivisionError,))),
    "a row is read that is none": ("files", lambda: _patched(file, "_row", _raises(ZeroDivisionError("row")))),
    "a message without end": ("files", lambda: _patched(br.BayesRegError, "__str__", _long_message)),
    "escapes reach the terminal": ("files", lambda: _patched(br.BayesRegError, "__str__", _raw_escapes)),
    "a file of the wrong kind is an OSError": (
        "files",
        lambda: _patched(file_binding, "read_prior_file", _raises(AttributeError("record"))),
    ),
    # command lines
    "errors are not caught": ("commands", _uncaught),
    "words raise what they like": (
        "commands",
        lambda: _patched(sys.modules["bayesreg.priors.words"], "_parse", _raises(RecursionError("deep"))),
    ),
    "settings are taken as they are": (
        "commands",
        lambda: _patched(sys.modules["bayesreg.explaining.groups.facts"], "require_sound", lambda _: None),
    ),
    "a column that is no number": ("commands", lambda: _patched(encoder, "numbers_in", _as_floats)),
    "a refusal leaves a file": (
        "commands",
        lambda: _patched(sys.modules["bayesreg.cli.fit"], "check_writable", _half_written),
    ),
    "a refusal prints first": ("commands", lambda: _patched(tabular, "load_tabular", _prints_first)),
    "JSON that is none": (
        "commands",
        lambda: _patched(sys.modules["bayesreg.conversion.table"].Conversion, "to_json", lambda _: "{NaN}"),
    ),
    # calls
    "any scale is positive": ("calls", lambda: _patched(checks, "positive", _any_positive)),
    "messages name nothing": ("calls", lambda: _patched(br.BayesRegError, "__str__", _nameless)),
    "a value is not looked at": ("calls", lambda: _patched(br.Gaussian, "penalty", _unpatch(br.Gaussian, "penalty"))),
    "a number from a text": ("calls", lambda: _patched(checks, "finite", lambda _, value: float(value))),
    "kinds are not compared": (
        "calls",
        lambda: _patched(sys.modules["bayesreg._support.calls"], "wrong_kind", lambda *_, **__: ""),
    ),
}
