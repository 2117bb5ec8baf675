"""Texts with `{{ }}` in them, and trees of such texts, to nodes.

A text that is one whole `{{ expression }}` keeps the expression's own type; anything else with `{{ }}` in it
becomes a text. What has statements, comments or white-space control goes to `playbooks.statements`. Called by the
compiler for inputs, `set`, arcs and tool configurations.
"""

from __future__ import annotations

import re
from typing import Any, Final

from edge.core.records import record
from playbooks.expressions import NODE_DEPTH_MAX, compile_expression
from playbooks.loader import Listing, Marked, Scalar
from playbooks.problems import Source
from playbooks.refusal import NodeList, Refused, Resolve
from playbooks.scalars import origins
from playbooks.statements import compile_template

_MARK: Final = re.compile(r"\{[{%#]")
#: What `{{ }}` alone cannot say: statements, comments, white-space control.
_STATEMENTS: Final = re.compile(r"\{[%#]|\{\{[-+]|[-+]\}\}")
_IN_HOLE: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|['\"{}]", re.DOTALL)


@record
class Hole:
    """One `{{ … }}`: what stands between, and the offset of that in its text."""

    inner: str
    offset: int


def split_template(text: str) -> list[str | Hole]:
    """Texts and holes in order. Raises Refused with an offset into the text."""
    parts: list[str | Hole] = []
    at = 0
    while True:
        mark = _MARK.search(text, at)
        if mark is None:
            break
        start = mark.start()
        if mark.group() != "{{":
            mend = "Write one `{{ expression }}`, or make the value in a step before."
            raise Refused(start, f"`{mark.group()}` cannot stand here.", mend)
        end = _end_of_hole(text, start + 2)
        inner = text[start + 2 : end]
        if inner[:1] in ("-", "+") or inner[-1:] in ("-", "+"):
            mend = "Take the sign away, or put a space between it and the brackets."
            raise Refused(start, "White-space control (`{{-`, `-}}`) cannot stand here.", mend)
        if start > at:
            parts.append(text[at:start])
        parts.append(Hole(inner, start + 2))
        at = end + 2
    if at < len(text):
        parts.append(text[at:])
    return parts


def _end_of_hole(text: str, start: int) -> int:
    """Where the `}}` stands that closes a `{{`, past texts in quotes and maps."""
    depth, at = 0, start
    while True:
        found = _IN_HOLE.search(text, at)
        if found is None:
            break
        here = found.group()
        if here == "{":
            depth += 1
        elif here == "}":
            if depth == 0:
                if text.startswith("}}", found.start()):
                    return found.start()
                raise Refused(found.start(), "A `}` stands alone here.", "An expression ends with `}}`.")
            depth -= 1
        elif here in ("'", '"'):
            raise Refused(found.start(), "A text is opened here and never closed.", f"Add {here}.")
        at = found.end()
    raise Refused(start - 2, "`{{` is opened here and never closed.", "Add `}}`.")


def has_template(text: Any) -> bool:
    """Whether a value is a text with `{{`, `{%` or `{#` in it."""
    return isinstance(text, str) and _MARK.search(text) is not None


def compile_tree(source: Source, node: Marked, resolve: Resolve, depth: int = 0) -> NodeList:
    """The node of a tree of values and templates. Problems are noted in `source`; then part of it is missing."""
    if depth > NODE_DEPTH_MAX:
        source.refuse(node.start, "This is nested too deeply.", "Flatten it.")
        return ["const", None]
    if isinstance(node, Scalar):
        return compile_scalar(source, node, resolve, depth)
    if isinstance(node, Listing):
        return ["list", *[compile_tree(source, item, resolve, depth + 1) for item in node.items]]
    made: NodeList = ["dict"]
    for key, value in node.pairs:
        if has_template(key.value):
            source.refuse(key.start, "A key cannot be a template.", "Write the key out.")
        made += [key.value, compile_tree(source, value, resolve, depth + 1)]
    return made


def compile_scalar(source: Source, scalar: Scalar, resolve: Resolve, depth: int = 0) -> NodeList:
    """The node of one value, a template or not."""
    if not has_template(scalar.value):
        return ["const", scalar.value]
    assert isinstance(scalar.value, str)
    try:
        if _STATEMENTS.search(scalar.value):
            return compile_template(scalar.value, resolve, depth)
        # As Jinja2 does: the line end that a block (`|`) ends with is nobody's, and one expression keeps its type.
        parts = split_template(scalar.value.removesuffix("\n"))
    except Refused as refused:
        place(source, scalar, refused, 0)
        return ["const", None]
    whole = len(parts) == 1
    made = [compile_part(source, scalar, part, resolve, depth if whole else depth + 1) for part in parts]
    return made[0] if whole else ["text", *made]


def compile_condition(source: Source, node: Marked, resolve: Resolve) -> NodeList | None:
    """The node of a `when`: one whole `{{ expression }}`, statements that make true or false, or one of these.

    None where it is always true.
    """
    if isinstance(node, Scalar) and isinstance(node.value, bool):
        return None if node.value else ["const", False]
    if not isinstance(node, Scalar) or not isinstance(node.value, str):
        source.refuse(node.start, "`when` must be one expression.", 'Write "{{ … }}".')
        return None
    try:
        if _STATEMENTS.search(node.value):
            made = compile_template(node.value.strip(), resolve)
            if made[0] not in ("text", "const"):
                return made
        parts = [] if _STATEMENTS.search(node.value) else split_template(node.value)
    except Refused as refused:
        place(source, node, refused, 0)
        return None
    holes = [part for part in parts if not isinstance(part, str) or part.strip()]
    if len(holes) != 1 or isinstance(holes[0], str):
        source.refuse(node.start, "`when` must be one whole expression.", 'Write "{{ … }}" around all of it.')
        return None
    return compile_part(source, node, holes[0], resolve, 0)


def compile_part(
    source: Source, scalar: Scalar, part: str | Hole, resolve: Resolve, depth: int = 0
) -> NodeList:
    """The node of one part of a split text. A problem is noted at its place."""
    if isinstance(part, str):
        return ["const", part]
    try:
        return compile_expression(part.inner, resolve, depth)
    except Refused as refused:
        place(source, scalar, refused, part.offset)
        return ["const", None]


def place(source: Source, scalar: Scalar, refused: Refused, offset: int) -> None:
    """Note a refusal at its place in the file."""
    where = origins(source, scalar)
    source.refuse(where[min(offset + refused.offset, len(where) - 1)], refused.message, refused.mend)
