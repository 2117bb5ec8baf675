"""Where each character of a YAML text came from.

A problem inside an expression or a block of code is shown at its line and column in the file, although YAML
has unescaped, unfolded and unindented the text on the way. Called by the compiler when it has a problem to
place; never on a playbook that is sound.
"""

from __future__ import annotations

import re
from typing import Final

from playbooks.loader import Scalar
from playbooks.problems import Source

_ESCAPE_LENGTH: Final = {"x": 4, "u": 6, "U": 10}
_HEADER: Final = re.compile(r"[|>]([-+]?)([1-9]?)([-+]?)[^\n]*(\n|$)")


def origins(source: Source, scalar: Scalar) -> list[int]:
    """For each character of the scalar's text, and for its end, the index it has in the source."""
    if not isinstance(scalar.value, str):
        return [scalar.start]
    if scalar.style in ("|", ">"):
        return _block(source.text, scalar)
    return _flow(source.text, scalar)


def _block(text: str, scalar: Scalar) -> list[int]:
    """A literal or folded block: lines without their indentation, some line ends turned into spaces."""
    header = _HEADER.match(text, scalar.start)
    at = header.end() if header else scalar.start
    # The block may begin deeper than its indentation; what YAML left of the first line tells by how much.
    indent = max(_first_indent(text[at : scalar.end]) - _first_indent(scalar.value), 0)
    found = []
    at = _past_indent(text, at, scalar.end, indent)
    for character in scalar.value:
        while at < scalar.end and text[at] != character and not (text[at] == "\n" and character == " "):
            at = _past_indent(text, at + 1, scalar.end, indent) if text[at] == "\n" else at + 1
        found.append(min(at, scalar.end))
        at = _past_indent(text, at + 1, scalar.end, indent) if text[at : at + 1] == "\n" else at + 1
    return [*found, min(at, scalar.end)]


def _first_indent(lines: str) -> int:
    """The leading spaces of the first line that is not empty."""
    for line in lines.split("\n"):
        if line.strip(" "):
            return len(line) - len(line.lstrip(" "))
    return 0


def _past_indent(text: str, at: int, end: int, indent: int) -> int:
    stop = min(at + indent, end)
    while at < stop and text[at] == " ":
        at += 1
    return at


def _flow(text: str, scalar: Scalar) -> list[int]:
    """A plain or quoted scalar: escapes count once, a line end with the spaces around it is folded."""
    quoted = scalar.style in ("'", '"')
    at, end = scalar.start + quoted, scalar.end - quoted
    found = []
    for character in scalar.value:
        at = _past_fold(text, at, end, character, scalar.style)
        found.append(min(at, end))
        if at >= end:
            continue
        if scalar.style == '"' and text[at] == "\\":
            at += _ESCAPE_LENGTH.get(text[at + 1 : at + 2], 2)
        elif scalar.style == "'" and text.startswith("''", at):
            at += 2
        else:
            at += 1
    return [*found, min(at, end)]


def _past_fold(text: str, at: int, end: int, character: str, style: str | None) -> int:
    """Past what YAML dropped before this character: line ends, the spaces beside them, escaped line ends."""
    while at < end:
        if style == '"' and text.startswith("\\\n", at):
            at += 2
            while at < end and text[at] in " \t":
                at += 1
            continue
        here = text[at]
        if here not in " \t\n" or not _breaks(text, at, end):
            return at
        # The fold stands for one space or for the line ends after the first: all map to its beginning.
        if character in " \n":
            return at
        at += 1
    return at


def _breaks(text: str, at: int, end: int) -> bool:
    """True where a line end, or spaces around one, stand at `at`."""
    if text[at] == "\n" or "\n" in text[max(0, at - 1) : at]:
        return True
    ahead = at
    while ahead < end and text[ahead] in " \t":
        ahead += 1
    if ahead < end and text[ahead] == "\n":
        return True
    behind = at
    while behind > 0 and text[behind - 1] in " \t":
        behind -= 1
    return behind > 0 and text[behind - 1] == "\n"
