"""The only door to Jinja2: its lexer and its parser, never anything of it that runs.

Its parser recurses and its nodes know only lines, so a text is lexed first, counted and measured, and handed to the
parser as tokens whose line number is the token's *offset*: every node and every complaint then knows its exact
place. Called by `playbooks.expressions` and `playbooks.statements`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from jinja2 import Environment, TemplateSyntaxError
from jinja2 import nodes as jinja
from jinja2.lexer import TokenStream
from jinja2.parser import Parser

from edge.core.limits import (
    EXPRESSION_BYTES_MAX,
    EXPRESSION_DEPTH_MAX,
    EXPRESSION_TOKENS_MAX,
    TEMPLATE_BYTES_MAX,
    TEMPLATE_TOKENS_MAX,
)
from playbooks.refusal import Refused

_ENVIRONMENT: Final = Environment(autoescape=False)  # noqa: S701 (nothing is rendered with it)
#: The spaces keep a sign beside the brackets from being read as white-space control.
_OPEN: Final = "{{ "
_CLOSE: Final = " }}"

_HALF: Final = re.compile("[\ud800-\udfff]")
_NO_FILES: Final = "A playbook stands alone: write the text here, or take it from `workload`."
_NO_MACRO: Final = "Write it out where it is needed, or make the text in a python step."
#: Statements of Jinja2 that are not ours, and what to write instead.
_TAGS_ELSEWHERE: Final[Mapping[str, str]] = {
    "macro": _NO_MACRO,
    "call": _NO_MACRO,
    "include": _NO_FILES,
    "import": _NO_FILES,
    "from": _NO_FILES,
    "extends": _NO_FILES,
    "block": _NO_FILES,
    "filter": "Write `{% set part %}…{% endset %}{{ part | filter }}`.",
    "autoescape": "Nothing is escaped here: take it out, or use `| e`.",
    "do": "An expression changes nothing: write `{% set x = … %}`.",
    "break": "Choose the elements first: `{% for x in items if … %}`.",
    "continue": "Choose the elements first: `{% for x in items if … %}`.",
    "debug": "Look at the execution with `edge show`.",
    "trans": "Write the text out.",
}
_TAGS: Final = "Allowed: if, elif, else, for, set, with, raw and what ends them."


def parse_template(text: str) -> list[jinja.Node]:
    """The statements of a whole template, with offsets in place of lines. Raises Refused with an offset."""
    size_bytes = len(text.encode(errors="surrogatepass"))
    if size_bytes > TEMPLATE_BYTES_MAX:
        raise Refused(
            0, f"A template has at most {TEMPLATE_BYTES_MAX} bytes; this has {size_bytes}.", "Split it."
        )
    if "\r" in text:
        raise Refused(text.index("\r"), "A carriage return stands in a template.", "Take it out.")
    half = _HALF.search(text)
    if half is not None:
        raise Refused(half.start(), "A text holds half a character (a surrogate).", "Write it whole.")
    tokens = list(_tokens(text, 0))
    _refuse_tags(tokens)
    try:
        parser = Parser(_ENVIRONMENT, "")
        parser.stream = TokenStream(_ENVIRONMENT.lexer.wrap(iter(tokens), None, None), None, None)
        return list(parser.subparse(None))
    except TemplateSyntaxError as error:
        at = min(max(error.lineno, 0), len(text))
        raise Refused(at, f"This is no template: {_sentence(error)}.", _TAGS) from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise Refused(0, f"This is no template: {error}.", "Split it over steps.") from error


def _refuse_tags(tokens: list[tuple[int, str, str]]) -> None:
    """Refuse by name what Jinja2 has besides, before its parser meets it."""
    begun = False
    for at, kind, value in tokens:
        if kind == "whitespace":
            continue
        if begun and kind == "name" and value in _TAGS_ELSEWHERE:
            raise Refused(at, f"`{{% {value} %}}` cannot stand in a template.", _TAGS_ELSEWHERE[value])
        begun = kind == "block_begin"


def parse_expression(inner: str) -> jinja.Node:
    """The tree of the text between `{{` and `}}`. Raises Refused with an offset into that text."""
    if len(inner.encode(errors="surrogatepass")) > EXPRESSION_BYTES_MAX:
        raise Refused(0, f"An expression has at most {EXPRESSION_BYTES_MAX} bytes.", "Split it over steps.")
    if "\r" in inner:
        raise Refused(inner.index("\r"), "A carriage return stands in an expression.", "Take it out.")
    tokens = list(_tokens(inner, len(_OPEN)))
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


def _tokens(text: str, shift: int) -> Iterator[tuple[int, str, str]]:
    """Jinja2's tokens with offsets in place of lines; refuses too many, and brackets too deep.

    With a `shift` the text stands alone between brackets of so many characters: it is one expression.
    """
    whole = f"{_OPEN}{text}{_CLOSE}" if shift else text
    at, count, depth, total = 0, 0, 0, 0
    lexed = _ENVIRONMENT.lexer.tokeniter(whole, None)
    while True:
        here = min(max(at - shift, 0), len(text))
        try:
            token = next(lexed, None)
        except TemplateSyntaxError as error:
            said = _sentence(error).partition(" at ")[0]
            what = "expression" if shift else "template"
            raise Refused(here, f"This is no {what}: {said}.", "" if shift else _TAGS) from error
        if token is None:
            return
        _, kind, value = token
        if not whole.startswith(value, at):
            at = whole.find(value, at)  # white space before `{%-` is dropped without a token
            here = min(max(at - shift, 0), len(text))
        if kind.endswith("_begin"):
            count, depth = 0, 0
        if kind != "whitespace":
            count, total = count + 1, total + 1
        if (
            count > EXPRESSION_TOKENS_MAX + 2 or total > TEMPLATE_TOKENS_MAX
        ):  # the brackets are not the author's
            whose = ("An expression", EXPRESSION_TOKENS_MAX)
            what, most = whose if count > EXPRESSION_TOKENS_MAX else ("A template", TEMPLATE_TOKENS_MAX)
            raise Refused(here, f"{what} has at most {most} tokens.", "Split it over steps.")
        if kind == "operator" and value in "([{":
            depth += 1
            if depth > EXPRESSION_DEPTH_MAX:
                raise Refused(here, f"Brackets are nested deeper than {EXPRESSION_DEPTH_MAX}.")
        elif kind == "operator" and value in ")]}":
            depth -= 1
        yield here, kind, value
        at += len(value)
