"""Public calls with one argument of another kind or value, or misspelt."""

from __future__ import annotations

import contextlib
import inspect
import io
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import bayesreg as br
from bayesreg._support.arguments import wrong_kind
from tests.fuzz import commands
from tests.fuzz.priors import network
from tests.fuzz.public import CALLS, model_prior, training_data
from tests.fuzz.values import odd_values
from tests.fuzz.verdict import Verdict, judge, unclear


def _names(message: str, argument: str, alias: dict[str, str]) -> bool:
    words = {argument, alias.get(argument, argument), argument.rstrip("s"), argument.replace("_", " ")}
    return any(re.search(rf"(?<![a-z]){re.escape(word)}", message, re.IGNORECASE) for word in words)


def _shows(message: str, value: Any) -> bool:
    """Return whether a message says what was given: its value, its kind, or what is odd about it."""
    tokens = {
        type(value).__name__,
        "NaN",
        "infinit",
        "got none",
        "got an empty",
        "empty",
        "beyond 1e308",
        " is not finite",
    }
    with contextlib.suppress(Exception):
        tokens |= {repr(value)[:60], str(value)[:60]}
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308:
        tokens |= {f"{value:g}", f"{value:.3g}"}
    if isinstance(value, type):
        tokens |= {f"class {value.__name__}", value.__name__}
    if isinstance(value, torch.Tensor | np.ndarray):
        tokens |= {
            str(value.dtype).removeprefix("torch."),
            str(tuple(value.shape)),
            "tensor",
            "ndarray",
            "smallest value",
        }
        if value.size == 1 if isinstance(value, np.ndarray) else value.numel() == 1 and not value.is_meta:
            with contextlib.suppress(Exception):
                tokens.add(f"{float(value):g}")
    if isinstance(value, str):
        tokens |= {repr(value), value}
    if isinstance(value, list | tuple | dict | set):
        tokens |= {f"got {len(value)}", f"{len(value)} items", *map(repr, value)}
    if callable(value):
        tokens |= {getattr(value, "__name__", "?"), "function"}
    return any(token and token in message for token in tokens)


#: What a message calls an argument.
_CALLED = {
    "words": "prior",
    "train": "data",
    "val": "data",
    "folder": "run folder",
    "value": "parameter",
    "notation": "weight_decay",
    "body_scale": "scale",
    "head_scale": "scale",
    "resized_scale": "scale",
}

#: Messages about arguments that are of no use here, or only together: their values say nothing.
_ABOUT_MORE = (
    "leave it out",
    "leave out",
    "plays no part",
    "takes none",
    "expected both or none",
    "= with it",
    ": pass the ",
    "does not fit",
    "in common with",
    "another model",
    "the optimizer holds none",
    "has no layer with",
    "decouples",
    "can never apply",
    "flat statistics: ",
    "; give it, such as ",
    "no rule covers ",
    "needs the folder of the run",
    "needs a folder",
    "needs validation data",
    "a model alone has no",
    ", not both",
    "to be counted in steps",
    "is for the schedules by name",
)

#: In place of a value that a message need not show.
_UNSAID = object()


def _wrong(argument: str, value: Any, names: list[str]) -> Callable[[str], str]:
    def clear(message: str) -> str:
        found = unclear(message)
        if found:
            return found
        if any(said in message for said in _ABOUT_MORE):
            return ""
        # A file, a function and the like are named by what they are.
        if isinstance(value, str | Path) and (str(value) in message if str(value) else ".:" in message):
            return ""
        if callable(value) and getattr(value, "__name__", "?") in message:
            return ""
        if isinstance(value, dict) and any(repr(key) in message for key in value):
            return ""
        # With two arguments changed the message is about one; another argument may be what no longer fits.
        if not any(_names(message, name, _CALLED) for name in names):
            return f"it does not name {argument}"
        return (
            ""
            if value is _UNSAID or _shows(message, value) or " got " in message
            else f"it does not say that {argument} was {type(value).__name__}"
        )

    return clear


def misspelt(name: str, dice: random.Random) -> str:
    place = dice.randrange(len(name))
    return dice.choice([name[:place] + name[place + 1 :], name + "s", name[:place] + "x" + name[place:]])


def cases(_: Path, dice: random.Random) -> Iterator[tuple[str, str, Verdict]]:
    """Yield (route, case, verdict) without end, the first when all is prepared."""
    import matplotlib

    matplotlib.use("agg")
    model_prior().save("good.safetensors")
    commands.call(["fit", "iris", "--output", "run"])
    for index in (1, 2):
        torch.save({n: t + 0.1 * index for n, t in network().state_dict().items()}, f"c{index}.pt")
    yield "calls", "prepared", Verdict("same")
    names = list(CALLS)
    while True:
        name = dice.choice(names)
        function, arguments = CALLS[name]()
        takes = inspect.signature(function).parameters
        known = list(takes)
        if arguments and dice.random() < 0.1:
            argument = dice.choice(list(arguments))
            other = misspelt(argument, dice)
            if other in takes or not other.isidentifier():
                continue
            value = arguments.pop(argument)
            arguments[other] = value
            yield "calls: misspelt", f"{name}({other}=)", _called(function, arguments, other, _UNSAID, known)
            continue
        argument = dice.choice([*known, *arguments]) if known else ""
        several = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
        if not argument or (argument in takes and takes[argument].kind in several):
            continue
        value = dice.choice(odd_values())
        if argument in ("on_epoch_end", "scheduler") and isinstance(value, nn.Module | type | br.Selector):
            continue  # a callback, whose own errors are its own
        arguments[argument] = value
        yield "calls", f"{name}({argument}={_short(value)})", _called(function, arguments, argument, value, known)


def _short(value: Any) -> str:
    return repr(value)[:60] if not isinstance(value, int) else str(value)[:60] if abs(value) < 10**60 else "10**400"


def _called(
    function: Callable[..., Any], arguments: dict[str, Any], argument: str, value: Any, known: list[str]
) -> Verdict:
    torch.manual_seed(0)
    result: list[Any] = []

    def case() -> str:
        with contextlib.redirect_stderr(io.StringIO()):
            result.append(function(**arguments))
            if isinstance(result[0], br.MAPTrainer):
                result[0].fit(training_data())
        return ""

    # A file that is not there, or a package that is not installed, is told in Python's own words.
    clear = _wrong(argument, value, [*known, *arguments])
    verdict = judge(case, seconds=20.0, clear=clear, told=(br.BayesRegError, OSError, ImportError))
    if verdict.end != "same":
        return verdict
    kind = wrong_kind(_bare(function), (), dict(arguments)) if argument in known else ""
    return Verdict("nonsense", f"accepted: {kind}") if kind.startswith(f"{argument}:") else Verdict("accepted")


def _bare(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isclass(function):
        held = function

        def stand_in(*_: Any, **__: Any) -> None: ...

        stand_in.__module__ = held.__module__
        stand_in.__signature__ = inspect.signature(held)  # type: ignore[attr-defined]
        return stand_in
    return function
