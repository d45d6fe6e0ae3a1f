"""Prior files with bits, bytes, entries and words changed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save

import bayesreg as br
from bayesreg._support.sealed import _digest
from tests.fuzz.priors import ROUTES, write_all
from tests.fuzz.verdict import Verdict, judge

# -- bytes -----------------------------------------------------------------------------------------------------------


def _header_length(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def flip_in_header(data: bytes, dice: random.Random) -> bytes:
    return _flipped(data, dice.randrange(_header_length(data)), dice)


def flip_in_body(data: bytes, dice: random.Random) -> bytes:
    return _flipped(data, dice.randrange(_header_length(data), len(data)), dice)


def _flipped(data: bytes, place: int, dice: random.Random) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :]


def truncate(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def append(data: bytes, dice: random.Random) -> bytes:
    return data + dice.randbytes(dice.choice([1, 8, 100]))


def splice(data: bytes, dice: random.Random) -> bytes:
    start, length = dice.randrange(len(data)), dice.randrange(1, 64)
    return data[:start] + dice.randbytes(dice.randrange(64)) + data[start + length :]


def header_length(data: bytes, dice: random.Random) -> bytes:
    length = dice.choice([0, 1, 2**31, 2**63, 2**64 - 1, dice.randrange(2**16), len(data)])
    return length.to_bytes(8, "little") + data[8:]


def other_format(data: bytes, dice: random.Random) -> bytes:
    return dice.choice([
        b"",
        b"\x00" * 64,
        b"PK\x03\x04" + data,
        b"\x80\x04\x95" + data,
        b"{}",
        b"\xff\xfe" + data,
        data[8:],
        (2).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"null",
        (2).to_bytes(8, "little") + b"[]",
    ])


# -- what the header says --------------------------------------------------------------------------------------------


def _edited(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    end = _header_length(data)
    header = json.loads(data[8:end])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[end:]


def _tensor_names(header: dict[str, Any]) -> list[str]:
    return [name for name in header if name != "__metadata__"]


def relabel_dtype(data: bytes, dice: random.Random) -> bytes:
    def change(header: dict[str, Any]) -> None:
        name = dice.choice(_tensor_names(header))
        held = header[name]
        held["dtype"] = dice.choice(["F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "C64", "F8_E4M3", "X"])
        size = held["data_offsets"][1] - held["data_offsets"][0]
        width = {"F64": 8, "I64": 8, "C64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2}.get(held["dtype"], 1)
        if dice.random() < 0.7:
            held["shape"] = [size // width]

    return _edited(data, change)


def reshape(data: bytes, dice: random.Random) -> bytes:
    def change(header: dict[str, Any]) -> None:
        name = dice.choice(_tensor_names(header))
        held = header[name]["shape"]
        header[name]["shape"] = dice.choice([held[::-1], [1, *held], [*held, 1], [*held, 0], [2**63], [-1], ["a"], 5])

    return _edited(data, change)


def offsets(data: bytes, dice: random.Random) -> bytes:
    def change(header: dict[str, Any]) -> None:
        held = header[dice.choice(_tensor_names(header))]["data_offsets"]
        held[dice.randrange(2)] += dice.choice([1, -1, 4, 8, 10**12, -(10**12)])

    return _edited(data, change)


def swap_tensors(data: bytes, dice: random.Random) -> bytes:
    def change(header: dict[str, Any]) -> None:
        names = _tensor_names(header)
        one, two = dice.choice(names), dice.choice(names)
        header[one], header[two] = header[two], header[one]

    return _edited(data, change)


def drop_or_rename(data: bytes, dice: random.Random) -> bytes:
    def change(header: dict[str, Any]) -> None:
        name = dice.choice(_tensor_names(header))
        held = header.pop(name)
        if dice.random() < 0.5:
            header[dice.choice([name + "x", name[:-1], "prior.99.scale", "\ud800", ""])] = held

    return _edited(data, change)


def duplicate_in_header(data: bytes, dice: random.Random) -> bytes:
    end = _header_length(data)
    header = json.loads(data[8:end])
    name = dice.choice(list(header))
    text = (json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}").encode()
    return len(text).to_bytes(8, "little") + text + data[end:]


def metadata(data: bytes, dice: random.Random) -> bytes:
    def change(header: dict[str, Any]) -> None:
        held = header["__metadata__"]
        key = dice.choice(list(held))
        action = dice.randrange(5)
        if action == 0:
            del held[key]
        elif action == 1:
            held[key + "x"] = held.pop(key)
        elif action == 2:
            held[key] = dice.choice(["", "{", "[]", "null", "1", "[" * 5_000, '{"a": 1, "a": 2}', "NaN", "\x00"])
        elif action == 3:
            held[key] = dice.choice([1, None, ["a"], {}])
        else:
            header["__metadata__"] = dice.choice([None, [], "x", {}])

    return _edited(data, change)


# -- what the record says: sealed again, as one who forges a file would ----------------------------------------------

_ODD = [
    None,
    True,
    -1,
    0,
    1.5,
    1e308,
    10**400,
    "",
    "x",
    "\x1b[2J",
    "\ud800",
    "a" * 10_000,
    [],
    {},
    [[]],
    ["x"],
    {"x": 1},
    float("inf"),
    float("nan"),
    "__import__('os')",
    "0.weight",
]


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from _places(inner, (*path, key))


def forge(data: bytes, dice: random.Random) -> bytes:
    """Change the record, and the tensors too now and then, and write a checksum that is right."""
    from safetensors.torch import load

    end = _header_length(data)
    record = json.loads(json.loads(data[8:end])["__metadata__"]["bayesreg"])
    tensors = load(data)
    for _ in range(dice.choice([1, 1, 1, 2, 4])):
        path = dice.choice([p for p in _places(record) if p])
        holder = record
        for key in path[:-1]:
            holder = holder[key]
        action = dice.randrange(4)
        if action == 0 and isinstance(holder, dict):
            del holder[path[-1]]
            break
        if action == 1 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[path[-1]]))
            break
        holder[path[-1]] = copy.deepcopy(dice.choice(_ODD))
        if not isinstance(record, dict):
            break
    if dice.random() < 0.3:
        name = dice.choice(list(tensors))
        tensor = tensors[name]
        odd = [0.0, -1.0, 1e-45, 3e38, float("nan"), float("inf"), 5e-324, 1e308]
        tensors[name] = dice.choice([
            tensor * 0 + dice.choice(odd),
            tensor.reshape(-1),
            tensor.long(),
            tensor[None],
            tensor.bool(),
        ])
    text = json.dumps(record)
    return save(tensors, metadata={"bayesreg": text, "bayesreg.sha256": _digest(text, tensors)})


BYTES = (
    flip_in_header,
    flip_in_body,
    truncate,
    append,
    splice,
    header_length,
    other_format,
    relabel_dtype,
    reshape,
    offsets,
    swap_tensors,
    drop_or_rename,
    duplicate_in_header,
    metadata,
)


def cases(folder: Path, dice: random.Random) -> Iterator[tuple[str, str, Verdict]]:
    """Yield (route, case, verdict) without end; the first when all is prepared."""
    paths = write_all(folder, dice)
    good: dict[tuple[str, str], object] = {}
    for kind, path in paths.items():
        for route, ask in ROUTES.items():
            try:
                good[kind, route] = ask(path)
            except br.PriorFileError:
                # A prior about no weights is no reference.
                assert route == "reference", kind
    damaged = folder / "damaged.safetensors"
    yield "files: load", "as they were written", Verdict("same")
    while True:
        kind = dice.choice(list(paths))
        damage = dice.choice([*BYTES, forge, forge, forge])
        whole = paths[kind].read_bytes()
        try:
            changed = damage(whole, dice)
        except (KeyError, TypeError, IndexError, ValueError, AttributeError):
            continue  # nothing left to change there
        if changed == whole:
            continue
        damaged.write_bytes(changed)
        for route, ask in ROUTES.items():
            if (kind, route) not in good:
                continue
            same = good[kind, route]

            def case(ask: Callable[[Path], object] = ask, same: object = same, forged: bool = damage is forge) -> str:
                found = ask(damaged)
                # What is forged well is another prior; of everything else a byte of the value must count.
                return "" if forged or found == same else f"{found!r}"[:300]

            yield f"files: {route}", f"{kind}, {damage.__name__}", judge(case)
