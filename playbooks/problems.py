"""Where something stands in a playbook's source, and what is wrong there.

Used by every part of the compiler. All problems of a source are collected and shown together, in order of
position; nothing is raised for the first one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from edge.core.errors import PlaybookInvalid
from edge.core.limits import PLAYBOOK_BYTES_MAX

#: Beyond this many problems an author mends the first ones first; it also bounds the message.
PROBLEMS_MAX: Final = 50


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong: where (line and column count from 1), what, and how to mend it."""

    file: str
    line: int
    column: int
    message: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message} {self.mend}".rstrip()


class PlaybookRefused(PlaybookInvalid):
    """The playbook cannot be compiled; `problems` says why, in order of position."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class Source:
    """The text of a playbook and the problems found in it. Positions are indices into `text`."""

    def __init__(self, text: str, file_name: str) -> None:
        self.text = text
        self.file_name = file_name
        self._starts = [0]
        index = text.find("\n")
        while index >= 0:
            self._starts.append(index + 1)
            index = text.find("\n", index + 1)
        self._problems: set[Problem] = set()

    def position(self, index: int) -> tuple[int, int]:
        """Line and column of an index, both from 1."""
        row = bisect_right(self._starts, index) - 1
        return row + 1, index - self._starts[row] + 1

    def index(self, line: int, column: int) -> int:
        """The index of a line and column, both from 1."""
        return self._starts[min(line, len(self._starts)) - 1] + column - 1

    def refuse(self, index: int, message: str, mend: str = "") -> None:
        """Note a problem at an index."""
        self._problems.add(Problem(self.file_name, *self.position(index), message, mend))

    @property
    def problems(self) -> list[Problem]:
        """What was noted so far, in order of position, at most PROBLEMS_MAX."""
        found = sorted(self._problems)
        if len(found) <= PROBLEMS_MAX:
            return found
        last = found[PROBLEMS_MAX - 1]
        more = Problem(
            last.file, last.line, last.column, f"{len(found) - PROBLEMS_MAX} further problems are not shown."
        )
        return [*found[:PROBLEMS_MAX], more]


def open_source(data: bytes, file_name: str) -> Source | Problem:
    """A file's text, ready to be read, or why it cannot be."""
    if len(data) > PLAYBOOK_BYTES_MAX:
        message = f"A file has at most {PLAYBOOK_BYTES_MAX} bytes; this has {len(data)}."
        return Problem(file_name, 1, 1, message, "Split it.")
    try:
        text_of_file = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        return Problem(file_name, line, column, "The file is not UTF-8 here.", "Save it as UTF-8.")
    return Source(text_of_file.replace("\r\n", "\n").replace("\r", "\n"), file_name)


def allowed(names: Iterable[str]) -> str:
    """A sentence that lists what is allowed."""
    return f"Allowed: {', '.join(names)}."


def suggest(word: str, names: Iterable[str]) -> str:
    """`Did you mean x?` with a space before it, or nothing where no name is close."""
    close = get_close_matches(word[:80], list(names), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
