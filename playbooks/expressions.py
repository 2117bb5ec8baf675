"""`{{ … }}` to a node: what `playbooks.parse` read, through our own whitelist.

Called by `playbooks.templates`, `playbooks.statements` and `playbooks.columns`.
"""

from __future__ import annotations

from typing import Final

from jinja2 import nodes as jinja

from playbooks.nodes import ENVELOPE_KEYS
from playbooks.parse import parse_expression
from playbooks.refusal import NodeList, OutcomeNode, Refused, Resolve, SpaceNode
from playbooks.signatures import check_filter, check_method, check_test, function_refused, refuse_stars

__all__ = ["NODE_DEPTH_MAX", "NodeList", "OutcomeNode", "Refused", "Resolve", "compile_expression"]

#: Levels of lists in one tree of nodes. A blueprint adds nine levels; the codec reads 64.
NODE_DEPTH_MAX: Final = 48


def compile_expression(
    inner: str, resolve: Resolve, depth: int = 0, places: dict[int, int] | None = None
) -> NodeList:
    """The node of the text between `{{` and `}}`. Raises Refused with an offset into that text.

    `depth` is how deep the node will stand in its tree. `places`, where given, is filled with the offset of
    every node made, by `id`.
    """
    return convert_expression(parse_expression(inner), resolve, depth, places)


def convert_expression(
    tree: jinja.Node, resolve: Resolve, depth: int, places: dict[int, int] | None = None
) -> NodeList:
    """The node of a parsed expression. Raises Refused."""
    try:
        return _Converter(resolve, {} if places is None else places).convert(tree, depth)
    except RecursionError as error:
        raise Refused(0, "The expression is nested too deeply.", "Split it over steps.") from error


_BINARY: Final = {
    jinja.Add: "+",
    jinja.Sub: "-",
    jinja.Mul: "*",
    jinja.Div: "/",
    jinja.FloorDiv: "//",
    jinja.Mod: "%",
    jinja.Pow: "**",
}
_COMPARE: Final = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "lteq": "<=",
    "gt": ">",
    "gteq": ">=",
    "in": "in",
    "notin": "not in",
}


#: What an outcome has only after an error, or of one kind of tool.
_HELPERS: Final = ("error", "http", "pg", "py", "meta")


class _Converter:
    """One walk over one parsed expression."""

    def __init__(self, resolve: Resolve, places: dict[int, int]) -> None:
        self._resolve, self._places = resolve, places

    def convert(self, node: jinja.Node, depth: int) -> NodeList:
        """Our node for Jinja2's. Raises Refused."""
        if depth > NODE_DEPTH_MAX:
            raise Refused(node.lineno, "This is nested too deeply.", "Split it over `set` or over steps.")
        made = self._simple(node, depth)
        if made is None:
            made = self._complex(node, depth)
        if made is None:
            kind = type(node).__name__
            raise Refused(node.lineno, f"Expressions cannot hold this ({kind}).", "See playbooks/DESIGN.md.")
        self._places[id(made)] = _start(node)
        return made

    def _simple(self, node: jinja.Node, depth: int) -> NodeList | None:
        below = depth + 1
        if isinstance(node, jinja.Const):
            return _const(node)
        if isinstance(node, jinja.Name):
            made = self._resolve(node.name, node.lineno)
            if isinstance(made, SpaceNode):
                mend = f"Write `{node.name}.key`."
                raise Refused(node.lineno, "A namespace is only good for what stands in it.", mend)
            return list(made)
        if isinstance(node, jinja.BinExpr) and type(node) in _BINARY:
            parts = self.convert(node.left, below), self.convert(node.right, below)
            return ["bin", _BINARY[type(node)], *parts]
        if isinstance(node, (jinja.And, jinja.Or)):
            op = "and" if isinstance(node, jinja.And) else "or"
            return [op, self.convert(node.left, below), self.convert(node.right, below)]
        if isinstance(node, jinja.Not):
            return ["not", self.convert(node.node, below)]
        if isinstance(node, jinja.Neg):
            inner = self.convert(node.node, below)
            if inner[0] == "const" and type(inner[1]) in (int, float):
                return ["const", -inner[1]]
            return ["neg", inner]
        if isinstance(node, jinja.Pos):
            return ["pos", self.convert(node.node, below)]
        if isinstance(node, (jinja.List, jinja.Tuple)):
            return ["list", *[self.convert(item, below) for item in node.items]]
        if isinstance(node, jinja.Concat):
            return ["text", *[self.convert(item, below) for item in node.nodes]]
        return None

    def _complex(self, node: jinja.Node, depth: int) -> NodeList | None:
        below = depth + 1
        if isinstance(node, jinja.Getattr):
            if isinstance(node.node, jinja.Name):
                named = self._resolve(node.node.name, node.node.lineno)
                if isinstance(named, SpaceNode):
                    return ["name", f"{node.node.name}.{node.attr}"]
            if node.attr in ENVELOPE_KEYS and self._is_outcome(node.node):
                return ["envelope", self.convert(node.node, below), node.attr]
            if self._is_helper(node):
                return ["quiet", ["attr", self.convert(node.node, below + 1), node.attr]]
            return ["attr", self.convert(node.node, below), node.attr]
        if isinstance(node, jinja.Getitem):
            return self._item(node, below)
        if isinstance(node, jinja.Compare):
            chain = [[_COMPARE[part.op], self.convert(part.expr, depth + 3)] for part in node.ops]
            return ["cmp", self.convert(node.expr, below), chain]
        if isinstance(node, jinja.CondExpr):
            if node.expr2 is None:
                raise Refused(
                    node.lineno, "A conditional expression needs `else`.", "Write `a if test else b`."
                )
            return ["if", *[self.convert(part, below) for part in (node.test, node.expr1, node.expr2)]]
        if isinstance(node, jinja.Dict):
            return self._dict(node, below)
        if isinstance(node, jinja.Filter):
            return self._filter(node, depth)
        if isinstance(node, jinja.Test):
            return self._test(node, depth)
        if isinstance(node, jinja.Call):
            return self._call(node, depth)
        return None

    def _is_outcome(self, node: jinja.Node) -> bool:
        """Whether the node is a result or inside its envelope: `a`, `a.data`, `a.result.data`, `output.result`."""
        if isinstance(node, jinja.Name):
            return isinstance(self._resolve(node.name, node.lineno), OutcomeNode)
        if not isinstance(node, jinja.Getattr) or node.attr not in ("data", "result", "results"):
            return False
        if isinstance(node.node, jinja.Name) and self._resolve(node.node.name, node.lineno) == [
            "name",
            "output",
        ]:
            return True
        return self._is_outcome(node.node)

    def _is_helper(self, node: jinja.Node) -> bool:
        """Whether the node is `output.http`, below `output.error`, or their kin: absent for most outcomes."""
        if isinstance(node, jinja.Getattr) and node.attr == "error" and isinstance(node.node, jinja.Name):
            return False  # there always, and none where nothing went wrong
        while isinstance(node, jinja.Getattr):
            if isinstance(node.node, jinja.Name) and node.attr in _HELPERS:
                return self._resolve(node.node.name, node.node.lineno) == ["name", "output"]
            node = node.node
        return False

    def _item(self, node: jinja.Getitem, below: int) -> NodeList:
        inner = self.convert(node.node, below)
        if not isinstance(node.arg, jinja.Slice):
            return ["item", inner, self.convert(node.arg, below)]
        parts = (node.arg.start, node.arg.stop, node.arg.step)
        return ["slice", inner, *[None if part is None else self.convert(part, below) for part in parts]]

    def _dict(self, node: jinja.Dict, below: int) -> NodeList:
        made: NodeList = ["dict"]
        for pair in node.items:
            if not isinstance(pair.key, jinja.Const) or not isinstance(pair.key.value, str):
                raise Refused(pair.lineno, "A map's key must be a text in quotes.")
            if pair.key.value in made[1::2]:
                raise Refused(pair.lineno, f"The key {pair.key.value!r} stands twice.", "Keep one of them.")
            made += [pair.key.value, self.convert(pair.value, below)]
        return made

    def _filter(self, node: jinja.Filter, depth: int) -> NodeList:
        check_filter(node)
        assert node.node is not None
        inner = self.convert(node.node, depth + 1)
        args = [self.convert(part, depth + 2) for part in node.args]
        named = {str(part.key): self.convert(part.value, depth + 2) for part in node.kwargs}
        return ["filter", node.name, inner, args, named]

    def _test(self, node: jinja.Test, depth: int) -> NodeList:
        check_test(node)
        inner = self.convert(node.node, depth + 1)
        return ["test", node.name, inner, [self.convert(part, depth + 2) for part in node.args]]

    def _call(self, node: jinja.Call, depth: int) -> NodeList:
        refuse_stars(node)
        called = node.node
        if isinstance(called, jinja.Name) and called.name == "dict" and not node.args:
            made: NodeList = ["dict"]
            for pair in node.kwargs:
                made += [str(pair.key), self.convert(pair.value, depth + 1)]
            return made
        if node.kwargs:
            raise Refused(node.lineno, "Calls take no named arguments.", "Give them in order.")
        if isinstance(called, jinja.Getattr) and called.attr == "cycle" and node.args:
            values: NodeList = ["list", *[self.convert(part, depth + 2) for part in node.args]]
            turn: NodeList = ["attr", self.convert(called.node, depth + 3), "index0"]
            return ["item", values, ["bin", "%", turn, ["const", len(node.args)]]]
        if isinstance(called, jinja.Getattr):
            check_method(called.attr, len(node.args), node.lineno)
            args = [self.convert(part, depth + 2) for part in node.args]
            return ["call", called.attr, self.convert(called.node, depth + 1), args]
        name = called.name if isinstance(called, jinja.Name) else "(…)"
        if name != "range":
            raise function_refused(name, node.lineno)
        if not 1 <= len(node.args) <= 3:
            raise Refused(node.lineno, "range() takes one to three numbers.")
        return ["range", [self.convert(part, depth + 2) for part in node.args]]


def _start(node: jinja.Node) -> int:
    """Where a node begins: the parser notes for an operator where its right side ends."""
    while isinstance(node, (jinja.BinExpr, jinja.Compare)):
        node = node.left if isinstance(node, jinja.BinExpr) else node.expr
    return node.lineno


def _const(node: jinja.Const) -> NodeList:
    value = node.value
    if type(value) is int and not -(2**63) <= value < 2**64:
        raise Refused(node.lineno, "A whole number does not fit in 64 bits.")
    if type(value) is float and not abs(value) < float("inf"):
        raise Refused(node.lineno, "A number is not finite.")
    if type(value) is str and any("\ud800" <= character <= "\udfff" for character in value):
        raise Refused(node.lineno, "A text holds half a character (a surrogate).", "Write it whole.")
    return ["const", value]
