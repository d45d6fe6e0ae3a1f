"""Names of reference tensors: what wrappers put before them, and the renamings a user asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from bayesreg.errors import InvalidArgumentError, ReferenceMismatchError, nearest

__all__ = ["Rename", "plain_names", "rename_hint", "renamed", "state_dict_in"]

#: From a tensor name, a glob or a compiled regular expression to the new name, several of them, or None to leave out.
Rename: TypeAlias = Mapping["str | re.Pattern[str]", "str | Sequence[str] | None"]


def state_dict_in(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state dict inside a checkpoint dictionary."""
    for key in ("state_dict", "model_state_dict", "model"):
        inner = mapping.get(key)
        if isinstance(inner, Mapping) and any(isinstance(value, Tensor) for value in inner.values()):
            return inner
    return mapping


_WRAPPERS = re.compile(r"(?:^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_PARAMETRIZED = re.compile(r"parametrizations\.(\w+)\.original(\d*)$")


def _parametrized(match: re.Match[str]) -> str:
    """`parametrizations.weight.original` is the weight; `original0`, `original1` are parts of it."""
    return match[1] + (f".original{match[2]}" if match[2] else "")


def plain_names(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Strip the prefixes that wrappers put before every name."""
    names = {name: _PARAMETRIZED.sub(_parametrized, _WRAPPERS.sub("", str(name))) for name in mapping}
    # AveragedModel adds a counter beside the wrapped weights.
    if all(new.startswith("module.") or new == "n_averaged" for new in names.values()):
        names = {old: new.removeprefix("module.") for old, new in names.items() if new != "n_averaged"}
    if len(set(names.values())) < len(names):
        seen: dict[str, str] = {}
        twice = [f"{seen[new]} and {old}" for old, new in names.items() if seen.setdefault(new, old) != old]
        raise ReferenceMismatchError(
            f"state dict: expected one tensor per name, got two that differ only by the prefixes of wrappers: "
            f"{'; '.join(twice)}."
        )
    return {new: mapping[old] for old, new in names.items()}


def renamed(tensors: Mapping[str, Any], rules: Rename, source: str) -> tuple[dict[str, Any], list[str]]:
    """Rename tensors by rules; the first that matches a name decides.

    Args:
        tensors: By plain name.
        rules: As in `load_reference`.
        source: Where the tensors come from, for errors.

    Returns:
        The tensors by new name, and what was done, in words.

    Raises:
        InvalidArgumentError: If a rule is of another type, or its two sides have different numbers of `*`.
        ReferenceMismatchError: If a rule matches nothing, or two tensors get one name; all such cases are listed.
    """
    compiled = [(key, *_compile(key, value)) for key, value in rules.items()]
    counts = [0] * len(compiled)
    result: dict[str, Any] = {}
    origin: dict[str, str] = {}
    done: dict[int, list[str]] = {}
    left_out: list[str] = []
    problems: list[str] = []
    for name, value in tensors.items():
        new = [name]
        for index, (key, pattern, templates) in enumerate(compiled):
            match = pattern.match(name)
            if match is None:
                continue
            counts[index] += 1
            new = [_expand(key, match, template) + name[match.end() :] for template in templates]
            if new:
                done.setdefault(index, []).append(f"{name} -> {' and '.join(new)}")
            else:
                left_out.append(name)
            break
        for target in new:
            if target in result:
                problems.append(f"{origin[target]} and {name} both become {target}")
            result[target], origin[target] = value, name
    for (key, *_), count in zip(compiled, counts, strict=True):
        if not count:
            words = key if isinstance(key, str) else key.pattern
            problems.append(f"{words!r} matches no tensor that an earlier rule left{nearest(words, tensors)}")
    if problems:
        raise ReferenceMismatchError(f"rename of reference {source}: {'; '.join(problems)}.")
    said = [
        f"{'; '.join(pairs[:3])}{f' and {len(pairs) - 3} more' if len(pairs) > 3 else ''}" for pairs in done.values()
    ]
    notes = [f"renamed: {'; '.join(said)}"] if done else []
    notes += [f"left out: {', '.join(left_out)}"] if left_out else []
    return result, notes


def _expand(key: str | re.Pattern[str], match: re.Match[str], template: str) -> str:
    try:
        return match.expand(template)
    except (re.error, IndexError) as error:
        raise InvalidArgumentError(
            f"rename[{key!r}]: expected a replacement as in re.sub, got {template!r} ({error})."
        ) from error


def _compile(key: str | re.Pattern[str], value: str | Sequence[str] | None) -> tuple[re.Pattern[str], list[str]]:
    given: Any = [value] if isinstance(value, str) else [] if value is None else value
    targets = list(given) if isinstance(given, Sequence) else [given]
    if not all(isinstance(target, str) for target in targets):
        raise InvalidArgumentError(
            f"rename[{key!r}]: expected a name, several, or None to leave the tensor out, got {value!r}."
        )
    if isinstance(key, re.Pattern):
        return key, targets
    if not isinstance(key, str):
        raise InvalidArgumentError(
            f"rename: expected a mapping from names, globs or compiled patterns, got the key {key!r}."
        )
    for target in targets:
        if target.count("*") != key.count("*"):
            raise InvalidArgumentError(
                f"rename[{key!r}]: expected as many * on both sides, got {target!r}; each * keeps what it stood for."
            )
    pattern = re.compile("(.*)".join(re.escape(part) for part in key.split("*")) + r"\Z", re.DOTALL)
    return pattern, [_template(target) for target in targets]


def _template(target: str) -> str:
    parts = [part.replace("\\", r"\\") for part in target.split("*")]
    return "".join(part + (rf"\g<{i}>" if i < len(parts) else "") for i, part in enumerate(parts, 1))


def rename_hint(missing: Sequence[str], available: Sequence[str]) -> str:
    """Return the renaming under which most of the missing names would be found, as advice, or nothing."""
    found = set(available)
    for name in missing:
        longer = next((other for other in available if other.endswith(f".{name}")), None)
        if longer is not None:
            prefix = longer.removesuffix(name)
            if sum(prefix + other in found for other in missing) * 2 > len(missing):
                return f" With rename={{'{prefix}*': '*'}} the names would fit."
        shorter = next((other for other in available if name.endswith(f".{other}")), None)
        if shorter is not None:
            prefix = name.removesuffix(shorter)
            if sum(other.removeprefix(prefix) in found for other in missing) * 2 > len(missing):
                return f" With rename={{'*': '{prefix}*'}} the names would fit."
    return ""
