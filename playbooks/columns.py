"""Column expressions of the arrow tool: the same grammar, fewer nodes, and aggregates on the outside.

A bare name is a column or an input; which, the tool decides when it has the table. Nodes stay plain data:
edge.tools.arrow translates them. Called by `playbooks.kinds.arrow` only.
"""

from __future__ import annotations

from typing import Any, Final

from playbooks.expressions import compile_expression
from playbooks.loader import Marked, Scalar
from playbooks.problems import Source, allowed, suggest
from playbooks.refusal import NodeList, Refused
from playbooks.templates import Hole, place, split_template

ROW_FILTERS: Final = ("abs", "round", "float", "int", "string")
AGGREGATES: Final = {
    "count": "count",
    "sum": "sum",
    "mean": "mean",
    "avg": "mean",
    "min": "min",
    "max": "max",
    "first": "first",
    "last": "last",
    "stddev": "stddev",
    "variance": "variance",
    "median": "median",
}
_ROW_OPERATORS: Final = ("+", "-", "*", "/", "%")
_COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=")


def compile_column(source: Source, node: Marked) -> NodeList:
    """The node of a column expression. Problems are noted in `source`."""
    try:
        hole = _hole(source, node)
        if hole is None:
            return ["const", node.value if isinstance(node, Scalar) else None]
        assert isinstance(node, Scalar)
        return _row(hole)
    except Refused as refused:
        assert isinstance(node, Scalar)
        place(source, node, refused, 0)
        return ["const", None]


def compile_aggregate(source: Source, node: Marked) -> list[Any]:
    """`[function, node]` of `{{ column expression | function }}`. Problems are noted in `source`."""
    nothing: list[Any] = ["count", ["const", None]]
    try:
        hole = _hole(source, node)
        if hole is None:
            source.refuse(node.start, "An aggregate is an expression.", 'Write "{{ column | mean }}".')
            return nothing
        assert isinstance(node, Scalar)
        head, bar, tail = hole.inner.rpartition("|")
        name = tail.strip()
        if not bar or name not in AGGREGATES:
            message = f"The outermost filter must be an aggregate.{suggest(name, AGGREGATES)}"
            raise Refused(hole.offset, message, allowed(sorted(AGGREGATES)))
        return [AGGREGATES[name], _row(Hole(head, hole.offset))]
    except Refused as refused:
        assert isinstance(node, Scalar)
        place(source, node, refused, 0)
        return nothing


def _hole(source: Source, node: Marked) -> Hole | None:
    """The one expression of a text; None for a plain number, boolean or none."""
    if not isinstance(node, Scalar):
        source.refuse(node.start, "A column expression is one text.", 'Write "{{ column }}".')
        return None
    if not isinstance(node.value, str):
        return None
    parts = [part for part in split_template(node.value) if not isinstance(part, str) or part.strip()]
    if len(parts) == 1 and isinstance(parts[0], Hole):
        return parts[0]
    source.refuse(
        node.start, "A column expression is one whole `{{ … }}`.", "Write text inside it, in quotes."
    )
    return None


def _row(hole: Hole) -> NodeList:
    """A row expression. Raises Refused with an offset into the scalar's text."""
    try:
        places: dict[int, int] = {}
        node = compile_expression(hole.inner, lambda name, offset: ["name", name], places=places)
        _check(node, places)
    except Refused as refused:
        raise Refused(hole.offset + refused.offset, refused.message, refused.mend) from refused
    return node


def _check(node: NodeList, places: dict[int, int]) -> None:
    """Refuse what cannot be worked out over whole columns."""
    op, at = node[0], places.get(id(node), 0)
    if op in ("const", "name"):
        return
    inner: list[NodeList]
    if op == "attr":
        if node[1][0] != "name" or node[1][1] not in ("args", "input", "input_data"):
            raise Refused(at, f"`.{node[2]}` cannot be used on a column.", "Name an input with `args.x`.")
        return
    if op == "bin" and node[1] in _ROW_OPERATORS:
        inner = node[2:]
    elif op in ("and", "or", "not", "neg", "pos", "if"):
        inner = node[1:]
    elif op == "cmp":
        inner = [node[1], *[part for _, part in node[2]]]
        symbols = {symbol for symbol, _ in node[2]}
        if not symbols <= set(_COMPARISONS):
            raise Refused(at, "`in` cannot be used on columns.", "Compare with == and `or`.")
    elif op == "test" and node[1] == "none":
        inner = [node[2]]
    elif op == "filter":
        _check_filter(node, at)
        inner = [node[2]]
    else:
        mend = "Allowed: names, numbers, + - * / %, comparisons, and, or, not, `is none`, if-else, "
        what = f"`{node[1]}`" if op in ("bin", "test", "call") else f"{op!r}"
        raise Refused(at, f"A column expression cannot hold {what}.", mend + ", ".join(ROW_FILTERS) + ".")
    for part in inner:
        _check(part, places)


def _check_filter(node: NodeList, at: int) -> None:
    name, args, named = node[1], node[3], node[4]
    if name not in ROW_FILTERS:
        mend = "An aggregate stands outermost, in aggregate and window only." if name in AGGREGATES else ""
        raise Refused(at, f"The filter {name!r} cannot be used on a column.", mend or allowed(ROW_FILTERS))
    if named or (args and name != "round"):
        raise Refused(at, f"The filter {name!r} takes no arguments on a column.")
    if len(args) > 1 or (args and (args[0][0] != "const" or type(args[0][1]) is not int)):
        raise Refused(at, "`round` takes one whole number on a column.")
