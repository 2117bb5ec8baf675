"""Compiled expressions in words again, and what they look at: for people who ask why something was decided.

Called by `edge.replay`. What it gives reads like the author's text and is not it: blanks and quotes are gone. Pure;
it must never evaluate anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from playbooks.walks import inside

_UNARY: Final = {"neg": "-", "pos": "+", "not": "not "}
_PATHS: Final = ("attr", "envelope", "item")


def spoken(node: Any) -> str:
    """A node as an expression."""
    op = node[0]
    if op == "const":
        return json.dumps(node[1], ensure_ascii=False)
    if op in ("name", "step"):
        return str(node[1])
    if op == "quiet":
        return spoken(node[1])
    if _is_event(node):
        return "event"
    if op in ("attr", "envelope"):
        return f"{spoken(node[1])}.{node[2]}"
    if op == "item":
        return f"{spoken(node[1])}[{spoken(node[2])}]"
    if op == "slice":
        parts = ["" if part is None else spoken(part) for part in node[2:]]
        return f"{spoken(node[1])}[{':'.join(parts if parts[-1] else parts[:-1])}]"
    if op == "list":
        return f"[{_all(node[1:])}]"
    if op == "dict":
        pairs = zip(node[1::2], node[2::2], strict=True)
        return "{" + ", ".join(f"{json.dumps(key)}: {spoken(value)}" for key, value in pairs) + "}"
    if op == "text":
        return " ~ ".join(spoken(part) for part in node[1:])
    return _operation(op, node)


def _operation(op: str, node: Any) -> str:
    if op in _UNARY:
        return f"{_UNARY[op]}{_inner(node[1])}"
    if op in ("and", "or"):
        return f"{_inner(node[1])} {op} {_inner(node[2])}"
    if op == "bin":
        return f"{_inner(node[2])} {node[1]} {_inner(node[3])}"
    if op == "cmp":
        return _inner(node[1]) + "".join(f" {sign} {_inner(part)}" for sign, part in node[2])
    if op == "if":
        return f"{_inner(node[2])} if {_inner(node[1])} else {_inner(node[3])}"
    if op == "filter":
        return f"{_inner(node[2])} | {node[1]}{_arguments(node[3], node[4] if len(node) > 4 else {})}"
    if op == "test":
        return f"{_inner(node[2])} is {node[1]}{_arguments(node[3], {})}"
    if op == "call":
        return f"{_inner(node[2])}.{node[1]}({_all(node[3])})"
    if op == "range":
        return f"range({_all(node[1])})"
    return "{% … %}"


def _inner(node: Any) -> str:
    """A part of an operation, in brackets where it is one itself."""
    text = spoken(node)
    return f"({text})" if node[0] in ("and", "or", "bin", "cmp", "if", "filter", "test") else text


def _all(nodes: Sequence[Any]) -> str:
    return ", ".join(spoken(part) for part in nodes)


def _arguments(nodes: Sequence[Any], named: dict[str, Any]) -> str:
    parts = [spoken(part) for part in nodes] + [f"{key}={spoken(part)}" for key, part in named.items()]
    return f"({', '.join(parts)})" if parts else ""


def looked_at(node: Any) -> list[tuple[str, Any]]:
    """The names and paths an expression reads, each once: `(in words, its node)`, in order."""
    return list({spoken(each): each for each in _paths(node)}.items())


def _paths(node: Any) -> Iterator[Any]:
    if _is_path(node):
        yield node
        return
    for part in inside(node):
        yield from _paths(part)


def _is_path(node: Any) -> bool:
    """Whether it is nothing but a name and keys written out."""
    if node[0] in ("name", "step") or _is_event(node):
        return True
    return node[0] in _PATHS and (node[0] != "item" or node[2][0] == "const") and _is_path(node[1])


def _is_event(node: Any) -> bool:
    """Whether it is what the compiler puts in place of `event` (`playbooks.names`): a map with a boundary's name."""
    if node[0] == "if":
        return _is_event(node[2]) and _is_event(node[3])
    if node[0] != "dict" or node[1:2] != ["name"] or node[2][0] != "const":
        return False
    return str(node[2][1]).startswith(("step.", "loop."))
