"""Strict YAML: a playbook's text to a tree of marked nodes.

The only door to PyYAML. Refused: aliases, anchors, tags, merge keys, duplicate keys, several documents,
directives, keys that are not texts, numbers that YAML 1.1 and 1.2 read differently, and anything too large
or too deep. Only `true` and `false` are booleans; dates, `yes` and `12:30` are texts. Every node keeps where
it stands. Called by `playbooks.compile` only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from edge.core.limits import PLAYBOOK_DEPTH_MAX
from edge.core.records import record
from playbooks.problems import Source


@record
class Scalar:
    """A single value; `start` and `end` bound its source, quotes included, and `style` is YAML's."""

    value: Any
    start: int
    end: int
    style: str | None


@record
class Listing:
    """A list of nodes."""

    items: tuple[Marked, ...]
    start: int


@record
class Mapping_:  # noqa: N801 (`Mapping` is the standard library's)
    """A map; its keys are texts and stand once each."""

    pairs: tuple[tuple[Scalar, Marked], ...]
    start: int

    def get(self, key: str) -> Marked | None:
        """The node under a key, or None."""
        return next((value for name, value in self.pairs if name.value == key), None)


Marked = Scalar | Listing | Mapping_


class _Unreadable(Exception):
    """Reading stopped; the problem is already noted."""


def load(source: Source) -> Marked | None:
    """The document as marked nodes; None where it cannot be read at all. Problems are noted in `source`."""
    try:
        events = _events(source)
        first = next(events, None)
        node = None if first is None else _node(source, events, first, 1)
        next(events, None)  # a second document is refused here
    except _Unreadable:
        return None
    if node is None:
        source.refuse(
            0,
            "The file holds nothing.",
            "A playbook begins with `apiVersion: noetl.io/v2`, cases with `cases:`.",
        )
    return node


def _events(source: Source) -> Iterator[yaml.Event]:
    """The events of the one document; stops with a problem at what is not allowed."""
    documents = 0
    try:
        for event in yaml.parse(source.text, Loader=yaml.CSafeLoader):
            at = _index(event.start_mark)
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    _stop(source, at, "A second document begins here.", "Keep one playbook in one file.")
                if event.version or event.tags:
                    _stop(source, at, "YAML directives (%YAML, %TAG) are not allowed.", "Take them out.")
            elif isinstance(event, yaml.AliasEvent):
                _stop(source, at, f"The alias *{event.anchor} is not allowed.", "Write the value out.")
            elif isinstance(event, yaml.NodeEvent) and event.anchor is not None:
                _stop(source, at, f"The anchor &{event.anchor} is not allowed.", "Take it out.")
            elif isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)) and event.tag is not None:
                _stop(source, at, f"The tag {event.tag} is not allowed.", "Take it out; quote a text.")
            if isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent, yaml.CollectionEndEvent)):
                yield event
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(part for part in (error.context, error.problem) if part)
        at = _index(mark)
        mend = "Indent with spaces: a tab stands here." if _after_tab(source.text, at) else ""
        _stop(source, at, f"This is not valid YAML: {said}.", mend)
    except yaml.reader.ReaderError as error:
        at = error.position if isinstance(error.position, int) else 0
        _stop(source, min(at, len(source.text)), "This character cannot stand in YAML.", "Take it out.")


def _after_tab(text: str, at: int) -> bool:
    """Whether a tab stands there, or in what the line is indented with."""
    line = text[text.rfind("\n", 0, at) + 1 :].partition("\n")[0]
    return text[at : at + 1] == "\t" or "\t" in line[: len(line) - len(line.lstrip())]


def _index(mark: Any) -> int:
    return 0 if mark is None else int(mark.index)


def _stop(source: Source, index: int, message: str, mend: str) -> None:
    source.refuse(index, message, mend)
    raise _Unreadable


def _node(source: Source, events: Iterator[yaml.Event], event: yaml.Event, depth: int) -> Marked:
    start = _index(event.start_mark)
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(source, event)
    if depth > PLAYBOOK_DEPTH_MAX:
        _stop(source, start, f"This is nested deeper than {PLAYBOOK_DEPTH_MAX}.", "Flatten it.")
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        for inner in events:
            if isinstance(inner, yaml.SequenceEndEvent):
                break
            items.append(_node(source, events, inner, depth + 1))
        return Listing(tuple(items), start)
    pairs: list[tuple[Scalar, Marked]] = []
    seen: set[str] = set()
    for inner in events:
        if isinstance(inner, yaml.MappingEndEvent):
            break
        key = _node(source, events, inner, depth + 1)
        value = _node(source, events, next(events), depth + 1)
        if _is_key(source, key, seen):
            assert isinstance(key, Scalar)
            pairs.append((key, value))
    return Mapping_(tuple(pairs), start)


def _is_key(source: Source, key: Marked, seen: set[str]) -> bool:
    if not isinstance(key, Scalar) or not isinstance(key.value, str):
        source.refuse(key.start, "A key must be a text.", "Quote it.")
        return False
    if key.value == "<<" and key.style is None:
        source.refuse(key.start, "Merge keys (<<) are not allowed.", "Write the entries out.")
        return False
    if key.value in seen:
        source.refuse(key.start, f"The key {key.value!r} stands twice in this map.", "Keep one of them.")
        return False
    seen.add(key.value)
    return True


_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
#: Read as numbers by one version of YAML and as texts or other numbers by the other.
_DOUBTFUL: Final = re.compile(
    r"[-+]?(0[0-9_]+(\.[0-9_]*)?|0[oO][0-7_]+|0[xX][0-9a-fA-F_]+|0[bB][01_]+|[1-9][0-9]*_[0-9_]*(\.[0-9_]*)?"
    r"|\.(inf|Inf|INF))|\.(nan|NaN|NAN)"
)


def _scalar(source: Source, event: yaml.ScalarEvent) -> Scalar:
    start, end, text = _index(event.start_mark), _index(event.end_mark), event.value
    style = event.style or None
    if style is not None or not event.implicit[0]:
        return Scalar(text, start, end, style)
    return Scalar(_plain(source, text, start), start, end, None)


def _plain(source: Source, text: str, start: int) -> Any:
    """What an unquoted scalar means."""
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if text[0] not in "+-.0123456789":
        return text
    if len(text) <= 40 and _INT.fullmatch(text):
        number = int(text)
        if -(2**63) <= number < 2**64:
            return number
        source.refuse(start, f"{text} does not fit in 64 bits.", "Quote it to keep it as a text.")
    elif len(text) <= 400 and _FLOAT.fullmatch(text):
        value = float(text)
        if math.isfinite(value):
            return value
        source.refuse(start, f"{text} is not a finite number.", "Quote it to keep it as a text.")
    elif len(text) <= 400 and _DOUBTFUL.fullmatch(text):
        source.refuse(
            start,
            f"{text} means different things to different YAML readers.",
            "Write a plain decimal number, or quote it to keep it as a text.",
        )
    return text
