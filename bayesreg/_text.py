"""Text from elsewhere, made safe to print: no control character reaches a terminal, no name fills the screen."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["json_safe", "one_line", "printable"]

# What moves the cursor, colours, hides or reorders: controls (C0, C1), formats such as the bidirectional overrides,
# halves of surrogate pairs, line and paragraph separators, what is not assigned.
_ODD_KINDS = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_MAY_BE_ODD = re.compile(r"[^\x20-\x7e]")
# A message may list what does not fit of a large model, and ends somewhere.
_LONGEST = 20_000
_LONG_WORD = re.compile(r"\S{301,}")


def _is_odd(character: str) -> bool:
    return unicodedata.category(character) in _ODD_KINDS


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return character.encode("unicode_escape").decode("ascii") if _is_odd(character) else character


def printable(text: str) -> str:
    r"""Return the text with characters that a terminal acts on written as escapes.

    Args:
        text: Any text.

    Returns:
        The text; a line break becomes a backslash and an n.

    Example:
        >>> printable("a\x1b[2Jb"), printable("naïve 模型")
        ('a\\x1b[2Jb', 'naïve 模型')
    """
    return _MAY_BE_ODD.sub(_escape, text)


def one_line(text: str) -> str:
    r"""Return the text as one printable line: white space joined, words of more than 300 characters cut.

    Args:
        text: Any text.

    Returns:
        The line.

    Example:
        >>> one_line("two\nlines"), len(one_line("x" * 10_000))
        ('two lines', 123)
    """
    line = _LONG_WORD.sub(_cut, printable(re.sub(r"\s*[\n\r\t]\s*", " ", text[:_LONGEST].strip())))
    return line if len(text) <= _LONGEST else f"{line} ... ({len(text):,} characters)"


def _cut(match: re.Match[str]) -> str:
    word = match[0]
    return f"{word[:80]}...{word[-20:]} ({len(word):,} characters)"


def json_safe(text: str) -> str:
    r"""Return JSON with the characters that a terminal acts on as JSON's own escapes; its line breaks stay.

    Args:
        text: JSON.

    Returns:
        JSON of the same content.

    Example:
        >>> json_safe('{"a": "\x9b2J"}')
        '{"a": "\\u009b2J"}'
    """
    return _MAY_BE_ODD.sub(_escape_json, text)


def _escape_json(match: re.Match[str]) -> str:
    character = match[0]
    if character == "\n" or not _is_odd(character):
        return character
    code = ord(character)
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"
