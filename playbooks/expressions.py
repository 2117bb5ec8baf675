"""`{{ … }}` to a node: Jinja2's lexer and parser, then our own whitelist.

The only door to Jinja2. Its parser recurses and its nodes know only lines, so the text is lexed first,
counted and measured, and handed to the parser as tokens whose line number is the token's *offset*: every
node and every complaint then knows its exact place. Called by `playbooks.templates` and `playbooks.columns`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from jinja2 import Environment, TemplateSyntaxError
from jinja2 import nodes as jinja
from jinja2.lexer import TokenStream
from jinja2.parser import Parser

from edge.core.limits import EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX, EXPRESSION_TOKENS_MAX
from playbooks.nodes import ENVELOPE_KEYS
from playbooks.refusal import NodeList, OutcomeNode, Refused, Resolve
from playbooks.signatures import check_filter, check_method, check_test, function_refused, refuse_stars

__all__ = ["NODE_DEPTH_MAX", "NodeList", "OutcomeNode", "Refused", "Resolve", "compile_expression"]

_ENVIRONMENT: Final = Environment(autoescape=False)  # noqa: S701 (nothing is rendered with it)
#: The spaces keep a sign beside the brackets from being read as white-space control.
_OPEN: Final = "{{ "
_CLOSE: Final = " }}"
#: Levels of lists in one tree of nodes. A blueprint adds nine levels; the codec reads 64.
NODE_DEPTH_MAX: Final = 48


def compile_expression(
    inner: str, resolve: Resolve, depth: int = 0, places: dict[int, int] | None = None
) -> NodeList:
    """The node of the text between `{{` and `}}`. Raises Refused with an offset into that text.

    `depth` is how deep the node will stand in its tree. `places`, where given, is filled with the offset of
    every node made, by `id`.
    """
    tree = _parse(inner)
    try:
        return _Converter(resolve, {} if places is None else places).convert(tree, depth)
    except RecursionError as error:
        raise Refused(0, "The expression is nested too deeply.", "Split it over steps.") from error


def _parse(inner: str) -> jinja.Node:
    if len(inner.encode()) > EXPRESSION_BYTES_MAX:
        raise Refused(0, f"An expression has at most {EXPRESSION_BYTES_MAX} bytes.", "Split it over steps.")
    if "\r" in inner:
        raise Refused(inner.index("\r"), "A carriage return stands in an expression.", "Take it out.")
    tokens = list(_tokens(inner))
    try:
        parser = Parser(_ENVIRONMENT, "")
        parser.stream = TokenStream(_ENVIRONMENT.lexer.wrap(iter(tokens), None, None), None, None)
        parser.stream.expect("variable_begin")
        if parser.stream.current.test("variable_end"):
            raise Refused(0, "The expression is empty.", "Write a value between {{ and }}.")
        tree = parser.parse_tuple(with_condexpr=True)
        ended = parser.stream.current.test("variable_end") and parser.stream.look().test("eof")
        if not ended:
            at = parser.stream.current.lineno
            raise Refused(at, "The expression should end here.", "Look for a missing operator or comma.")
    except TemplateSyntaxError as error:
        raise Refused(max(error.lineno, 0), f"This is no expression: {_sentence(error)}.") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise Refused(0, f"This is no expression: {error}.") from error
    return tree


def _sentence(error: TemplateSyntaxError) -> str:
    said = str(error.message or "unexpected text").rstrip(".")
    said = said.replace("unexpected 'end of print statement'", "it ends too early")
    return said.replace("end of print statement", "its end")


def _tokens(inner: str) -> Iterator[tuple[int, str, str]]:
    """Jinja2's tokens with offsets in place of lines; refuses too many, and brackets too deep."""
    at, count, depth = -len(_OPEN), 0, 0
    lexed = _ENVIRONMENT.lexer.tokeniter(f"{_OPEN}{inner}{_CLOSE}", None)
    while True:
        here = min(max(at, 0), len(inner))
        try:
            token = next(lexed, None)
        except TemplateSyntaxError as error:
            said = _sentence(error).partition(" at ")[0]
            raise Refused(here, f"This is no expression: {said}.") from error
        if token is None:
            return
        _, kind, value = token
        if kind != "whitespace":
            count += 1
        if count > EXPRESSION_TOKENS_MAX + 2:  # the brackets around it are not the author's
            mend = "Split it over steps."
            raise Refused(here, f"An expression has at most {EXPRESSION_TOKENS_MAX} tokens.", mend)
        if kind == "operator" and value in "([{":
            depth += 1
            if depth > EXPRESSION_DEPTH_MAX:
                raise Refused(here, f"Brackets are nested deeper than {EXPRESSION_DEPTH_MAX}.")
        elif kind == "operator" and value in ")]}":
            depth -= 1
        yield here, kind, value
        at += len(value)


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
            return list(self._resolve(node.name, node.lineno))
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
            if isinstance(node.node, jinja.Name) and node.attr in ENVELOPE_KEYS:
                named = self._resolve(node.node.name, node.node.lineno)
                if isinstance(named, OutcomeNode):
                    return ["envelope", list(named), node.attr]
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
