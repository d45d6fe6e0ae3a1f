"""Names of reference tensors: what wrappers put before them, and the renamings a user asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from bayesreg.errors import InvalidArgumentError, ReferenceMismatchError, nearest

__all__ = ["Rename", "missing_words", "plain_names", "rename_hint", "renamed", "require_tensors", "state_dict_in"]

#: From a tensor name, a glob or a compiled regular expression to the new name, several of them, or None to leave out.
Rename: TypeAlias = Mapping["str | re.Pattern[str]", "str | Sequence[str] | None"]


def state_dict_in(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state dict inside a checkpoint dictionary; refuse to choose where it has two (plain and EMA)."""
    held = [key for key in ("state_dict", "model_state_dict", "model") if _has_tensors(mapping.get(key))]
    if len(held) == 1:
        own = _shapes(mapping[held[0]])
        held += [str(key) for key, value in mapping.items() if key != held[0] and _has_twins(value, own)]
    if len(held) > 1:
        raise ReferenceMismatchError(
            f"reference: expected one state dict in the checkpoint, got {' and '.join(held)}; choose one, "
            f"{' or '.join(f'torch.load(path, weights_only=True)[{key!r}]' for key in held[:2])}."
        )
    found: Mapping[str, Any] = mapping[held[0]] if held else mapping
    return found


def _shapes(mapping: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors, under names without what wrappers put before them."""
    named = {str(name): tuple(value.shape) for name, value in mapping.items() if isinstance(value, Tensor)}
    return {_PARAMETRIZED.sub(_parametrized, _WRAPPERS.sub("", name)).removeprefix("module."): shape
            for name, shape in named.items()}  # fmt: skip


def _has_twins(value: Any, own: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether a mapping holds other values for most of the tensors of a state dict."""
    if not _has_tensors(value):
        return False
    other = _shapes(value)
    return 2 * sum(other.get(name) == shape for name, shape in own.items()) > len(own)


def _has_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(inner, Tensor) for inner in value.values())


def require_tensors(mapping: Mapping[str, Any], source: str) -> None:
    """Raise unless all values are tensors, saying where the tensors may be."""
    others = [str(name) for name, value in mapping.items() if not isinstance(value, Tensor)]
    if mapping and not others:
        return
    inside = [str(name) for name, value in mapping.items() if _has_tensors(value)]
    if inside:
        cure = f"; weights may be in {' or '.join(inside)}: torch.load(path, weights_only=True)[{inside[0]!r}]"
    else:
        cure = "; rename={name: None} leaves one out" if others else ""
    held = f"entries that are not tensors: {', '.join(others)}" if others else "no tensors"
    raise ReferenceMismatchError(f"reference {source}: expected named tensors, found {held}{cure}.")


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


def missing_words(shapes: Mapping[str, tuple[int, ...]], available: Mapping[str, Tensor]) -> list[str]:
    """Return "missing NAME" for each, with near names of the same shape where they are few."""
    words = []
    for name, shape in shapes.items():
        like = [other for other, tensor in available.items() if tuple(tensor.shape) == shape]
        words.append(f"missing {name}{nearest(name, like) if len(shapes) <= 5 else ''}")
    return words


def rename_hint(missing: Sequence[str], available: Iterable[str]) -> str:
    """Return the renaming under which most of the missing names would be found, as advice, or nothing."""
    fronts: dict[str, list[str]] = {}
    for other in available:
        for start in _starts(other):
            fronts.setdefault(other[start:], []).append(other[:start])
    counts: dict[tuple[str, str], int] = {}
    for name in missing:
        for start in _starts(name):
            for front in fronts.get(name[start:], []):
                counts[front, name[:start]] = counts.get((front, name[:start]), 0) + 1
    # Of equally many the shortest: it says most.
    best = max(counts, key=lambda pair: (counts[pair], -len(pair[0]) - len(pair[1])), default=None)
    if best is None or counts[best] * 2 <= len(missing) or best[0] == best[1]:
        return ""
    return f" with rename={{'{best[0]}*': '{best[1]}*'}} {counts[best]} of {len(missing)} missing names would fit;"


def _starts(name: str) -> list[int]:
    """Return where the name's components start, but for the last: a lone 'weight' would fit everywhere."""
    ends = [index + 1 for index, letter in enumerate(name) if letter == "."]
    return [0, *ends[:-1]]
