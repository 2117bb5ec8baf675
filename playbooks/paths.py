"""Paths such as `check.rows`: how messages write them, and what they find in things that are not maps.

Used by `playbooks.nodes`. A path never reaches a Python attribute: maps have keys, tables have three names,
and nothing else has any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from edge.core.values import TableRef
from playbooks.budget import Undefined, failed, kind_name


def path_of(node: Sequence[Any]) -> str:
    """The node as an author would write it, as far as it is a path; for messages."""
    op = node[0]
    if op in ("name", "step"):
        return str(node[1])
    if op == "quiet":
        return path_of(node[1])
    if op in ("attr", "envelope"):
        return f"{path_of(node[1])}.{node[2]}"
    if op == "item":
        inner = repr(node[2][1]) if node[2][0] == "const" else "…"
        return f"{path_of(node[1])}[{inner}]"
    return "(…)"


#: The names Jinja2 has for the two parts of what `groupby` gives.
_GROUP: Final = ("grouper", "list")
_TABLE_ATTRIBUTES: Final = ("rows", "columns", "size_bytes")


def of_no_map(value: Any, key: str, path: str) -> Any:
    """What `.key` finds in a value that is not a map. Raises EvaluationFailed."""
    if type(value) is Undefined:
        return value
    if type(value) is TableRef:
        if key not in _TABLE_ATTRIBUTES:
            raise failed(
                f"`{path}`: this is a table; only its rows, columns and size_bytes can be asked for.",
                "Use an arrow step to work on it.",
            )
        if key == "size_bytes":
            return value.size_bytes
        found = value.rows if key == "rows" else value.columns
        if found is None:
            raise failed(
                f"`{path}` is not known until a step has opened this table.", "Ask after its first step."
            )
        return list(found) if isinstance(found, tuple) else found
    if value is None:
        return Undefined(f"{path} (there is none before .{key})")
    if type(value) in (list, tuple) and len(value) == 2 and key in _GROUP:
        return value[_GROUP.index(key)]
    raise failed(f"`{path}`: {kind_name(value)} has no keys.", "Only a map has keys.")


def item_of(value: Any, key: Any, path: str) -> Any:
    """What `[key]` finds in a value. Raises EvaluationFailed."""
    kind = type(value)
    if kind is dict:
        if type(key) is str:
            return value[key] if key in value else Undefined(path, "keys", value)
        raise failed(f"`{path}`: the keys of a map are texts, not {kind_name(key)}.")
    if kind in (list, tuple, str):
        if type(key) is not int:
            raise failed(f"`{path}`: an element is asked for by a whole number, not {kind_name(key)}.")
        if -len(value) <= key < len(value):
            return value[key]
        return Undefined(f"{path} (there are {len(value)} elements)")
    if type(key) is str:
        return of_no_map(value, key, path)
    if kind is Undefined:
        return value
    raise failed(f"`{path}`: {kind_name(value)} has no elements.")
