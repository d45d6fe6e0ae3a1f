"""What became of one case, and the counts of many."""

from __future__ import annotations

import signal
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import bayesreg as br

GOOD = ("same", "accepted", "refused")
BAD = ("raw", "unclear", "different", "nonsense", "hang")

#: More than this no terminal shows at once.
LONGEST = 2_500


class Hang(BaseException):
    """A case took longer than it may; no Exception, so that nothing swallows it."""


@dataclass(frozen=True)
class Verdict:
    """What became of one case.

    Attributes:
        end: One of `GOOD` or `BAD`.
        said: The message, or what was wrong.
    """

    end: str
    said: str = ""


@dataclass
class Counts:
    """The verdicts of a run, by route.

    Attributes:
        ends: How often each route came to each end.
        findings: (route, case, verdict) of the bad ones.
    """

    ends: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[tuple[str, str, Verdict]] = field(default_factory=list)

    def add(self, route: str, case: str, verdict: Verdict) -> None:
        self.ends.setdefault(route, Counter())[verdict.end] += 1
        if verdict.end in BAD:
            self.findings.append((route, case, verdict))

    @property
    def total(self) -> int:
        return sum(sum(found.values()) for found in self.ends.values())

    def __str__(self) -> str:
        columns = [*GOOD, *BAD]
        width = max([len(route) for route in self.ends], default=0)
        lines = [f"{'':{width}}  " + "  ".join(f"{name:>9}" for name in columns)]
        for route, found in self.ends.items():
            lines.append(f"{route:{width}}  " + "  ".join(f"{found[name]:>9,}" for name in columns))
        return "\n".join(lines)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `Hang` after so long, where signals can do that."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def unclear(message: str) -> str:
    """Return what keeps a message from being one clear sentence; an empty string where nothing does."""
    if not message.strip():
        return "no words"
    if len(message) > LONGEST:
        return f"{len(message):,} characters"
    if any(ord(character) < 32 or 126 < ord(character) < 160 for character in message):
        return "control characters"
    return ""


def judge(
    case: Callable[[], str],
    *,
    seconds: float = 30.0,
    clear: Callable[[str], str] = unclear,
    told: tuple[type[BaseException], ...] = (br.BayesRegError,),
) -> Verdict:
    """Run a case and say what became of it.

    Args:
        case: Does it, and returns "" for the same result, or what is different about it.
        seconds: How long it may take.
        clear: What is unclear about a message.
        told: Errors that are clear ones on this route; by default bayesreg's own.

    Returns:
        The verdict.
    """
    try:
        with warnings.catch_warnings(), within(seconds):
            warnings.simplefilter("ignore")
            odd = case()
    except told as error:
        wrong = clear(str(error))
        return Verdict("unclear", f"{wrong}: {str(error)[:300]}") if wrong else Verdict("refused", str(error))
    except Hang:
        return Verdict("hang", f"more than {seconds:g} s")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 (whatever else comes is what the fuzzer looks for)
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename.rpartition('/')[2]}:{place.lineno}"
        return Verdict("raw", f"{type(error).__name__} at {where}: {str(error)[:200]}")
    return Verdict("different", odd) if odd else Verdict("same")
