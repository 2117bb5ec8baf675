"""Walking a compiled expression: which nodes stand inside a node, and never what only looks like one.

Used by the compiler and by `playbooks.spoken` for what an expression mentions. Pure. The forms stand in
`playbooks.nodes` and `playbooks.passages`: the names a `for` or `set` gives are no nodes, whatever they are called.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def inside(node: Any) -> list[Any]:
    """The nodes directly inside a node, those of a template's statements among them, in order."""
    op, rest = node[0], list(node[1:])
    if op in ("const", "name", "step"):
        return []
    if op in ("attr", "envelope"):
        return rest[:1]
    if op == "dict":
        return rest[1::2]
    if op == "bin":
        return rest[1:]
    if op == "cmp":
        return [rest[0], *(part for _, part in rest[1])]
    if op == "filter":
        return [rest[1], *rest[2], *rest[3].values()]
    if op in ("test", "call"):
        return [rest[1], *rest[2]]
    if op == "range":
        return list(rest[0])
    if op == "template":
        return list(_stated(rest[0]))
    return [part for part in rest if part is not None]


def _stated(statements: Any) -> Iterator[Any]:
    """The expressions in a list of statements, in order."""
    for op, *rest in statements:
        if op in ("show", "set"):
            yield rest[-1]
        elif op == "space":
            yield from rest[1][1::2]
        elif op == "capture":
            yield from _stated(rest[1])
        elif op == "cond":
            for test, body in rest[0]:
                yield test
                yield from _stated(body)
            yield from _stated(rest[1])
        elif op == "for":
            yield from (part for part in rest[1:3] if part is not None)
            yield from _stated(rest[3])
            yield from _stated(rest[4])
        elif op == "with":
            yield from (value for _, value in rest[0])
            yield from _stated(rest[1])
