"""A decay that is watched: what must not be found, and what has changed since a snapshot."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bayesreg._support.tables import in_short
from bayesreg._text import one_line
from bayesreg.errors import InvalidArgumentError, kind_of, nearest
from bayesreg.explaining.explain import Explanation
from bayesreg.explaining.findings.finding import IDENTIFIERS, Finding

__all__ = ["changes", "failing", "github_lines", "identifiers", "read_baseline", "snapshot"]

_FORMAT = "bayesreg decay"
_VERSION = 1
_ROLES = {"weight": "weights", "bias": "biases", "norm": "norms", "vector": "vectors", "embedding": "embeddings"}


def identifiers(text: str) -> tuple[str, ...]:
    """Return the findings that a list of names stands for.

    Args:
        text: Names with commas between them.

    Raises:
        InvalidArgumentError: If there is no such finding.
    """
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in found:
        if name not in IDENTIFIERS:
            raise InvalidArgumentError(
                f"--fail-on: expected findings such as biases-decayed, got {name!r}{nearest(name, IDENTIFIERS)}; all "
                f"are {', '.join(IDENTIFIERS)}."
            )
    if not found:
        raise InvalidArgumentError(f"--fail-on: expected findings ({', '.join(IDENTIFIERS)}), got none.")
    return found


def failing(explanation: Explanation, names: Iterable[str]) -> list[Finding]:
    """Return the findings that must not be there.

    Args:
        explanation: The explanation.
        names: Of these findings.
    """
    wanted = set(names)
    return [finding for finding in explanation.findings if finding.identifier in wanted]


def snapshot(explanation: Explanation) -> dict[str, Any]:
    """Return what is held against later runs: the decay of every parameter, and what was found.

    Args:
        explanation: The explanation.
    """
    parameters: dict[str, Any] = {}
    for group in explanation.groups:
        roles = group.parameter_roles or ("weight",) * len(group.parameters)
        for name, role in zip(group.parameters, roles, strict=True):
            held = {"decay": group.decay, "weight_decay": group.weight_decay, "role": role, "prior": _kept(group)}
            parameters[name] = held
    found = sorted({finding.identifier for finding in explanation.findings if finding.severity == "warning"})
    return {"format": _FORMAT, "version": _VERSION, "parameters": parameters, "findings": found}


def _kept(group: Any) -> str | None:
    """Return the prior in words, where it is one that bayesreg attached: it does not follow from the decay."""
    return group.prior if group.decay == "prior" else None


def read_baseline(path: Path) -> dict[str, Any]:
    """Return a snapshot from a file.

    Args:
        path: The file.

    Raises:
        InvalidArgumentError: If it holds none.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"--baseline: {path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"--baseline: {path} is no JSON file.") from error
    parameters = held.get("parameters") if isinstance(held, Mapping) else None
    sound = isinstance(parameters, Mapping) and all(_is_sound(one) for one in parameters.values())
    if not sound or held.get("format") != _FORMAT or not isinstance(held.get("findings"), list):
        raise InvalidArgumentError(
            f"--baseline: {path}: expected a snapshot that --save-baseline wrote, got {kind_of(held)}."
        )
    if held.get("version") != _VERSION:
        raise InvalidArgumentError(
            f"--baseline: {path}: expected version {_VERSION} of the format, got {held.get('version')!r}; write it "
            f"anew."
        )
    return dict(held)


def _is_sound(one: object) -> bool:
    if not isinstance(one, Mapping) or not isinstance(one.get("decay"), str):
        return False
    decay = one.get("weight_decay")
    return decay is None or (isinstance(decay, int | float) and not isinstance(decay, bool))


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what is different since a snapshot, a sentence for each kind of change.

    Args:
        before: The snapshot.
        now: Another one.

    Returns:
        Sentences; none where nothing is different.
    """
    old, new = before["parameters"], now["parameters"]
    kinds: dict[str, list[str]] = {}
    for name in new:
        said = "new" if name not in old else _change(old[name], new[name])
        if said:
            kinds.setdefault(said, []).append(name)
    for name in old:
        if name not in new:
            kinds.setdefault("gone", []).append(name)
    lines = [f"{said}: {_counted(names)}." for said, names in kinds.items()]
    lines += [f"found: {name}." for name in now["findings"] if name not in before["findings"]]
    return lines + [f"not found any more: {name}." for name in before["findings"] if name not in now["findings"]]


def _change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    role = _ROLES.get(str(new.get("role")), "parameters")
    was, is_now = old.get("weight_decay"), new.get("weight_decay")
    if is_now and not was:
        return f"{role} are decayed"
    if was and not is_now:
        return f"{role} are not decayed any more"
    if old["decay"] != new["decay"] and is_now:
        return f"decay is {new['decay']}, was {old['decay']}"
    if was and is_now and was != is_now:
        return f"weight_decay is {is_now:g}, was {was:g}"
    if old.get("prior") != new.get("prior"):
        return f"the prior is {new.get('prior') or 'none'}, was {old.get('prior') or 'none'}"
    return ""


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} parameter{'' if len(names) == 1 else 's'} ({in_short(list(names))})"


def github_lines(
    findings: Iterable[Finding], differences: Iterable[str], failed: Iterable[str], file: Path | None
) -> Iterator[str]:
    """Yield lines that GitHub shows beside a change.

    Args:
        findings: What was found.
        differences: Since the snapshot.
        failed: Findings that must not be there.
        file: Of the settings.
    """
    errors = set(failed)
    where = "" if file is None else f"file={_property(str(file))},"
    for finding in findings:
        level = "error" if finding.identifier in errors else "warning" if finding.severity == "warning" else "notice"
        text = f"{finding.text} {finding.remedy}".strip()
        yield f"::{level} {where}title=bayesreg {finding.identifier}::{_message(text)}"
    for line in differences:
        yield f"::error {where}title=bayesreg decay changed::{_message(line)}"


def _message(text: str) -> str:
    return one_line(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
