"""The kinds `sql` and `duckdb`: statements over tables, parameters bound.

Called through `playbooks.kinds`. `duckdb` is how NoETL spells it; both run as `sql` and differ in what they answer
where nothing is said: `sql` a table, `duckdb` the map NoETL's engine answers.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from edge.core.limits import SQL_MEMORY_MB
from playbooks.expressions import NodeList, Resolve
from playbooks.fields import choice, flag
from playbooks.kinds.kind import Kind
from playbooks.kinds.sql_text import bind_templates
from playbooks.loader import Listing, Mapping_, Marked, Scalar
from playbooks.model.parts import EDGE, NOETL, AnyOf, Block, Choice, Flag, Key, ListOf, Template, Text, Tree
from playbooks.problems import Source
from playbooks.templates import compile_tree, has_template

#: NoETL's names for the statements; each may be a text or a list of texts.
_SOURCES: Final = ("query", "queries", "command", "commands", "cmd", "cmds", "sql")
_ENCODED: Final = ("query_b64", "command_b64", "commands_b64")
OUTPUTS: Final = ("table", "rows", "row", "result")
_TEXTS: Final = AnyOf((Template(), ListOf(Template())))

Takes = Callable[[str], str | None]


def _read(
    source: Source, found: dict[str, Marked], tool: Mapping_, resolve: Resolve, *, output: str
) -> dict[str, Any]:
    named = [key for key in (*_SOURCES, *_ENCODED) if key in found]
    statements: list[str] = []
    bound: dict[str, NodeList] = {}
    if len(named) != 1:
        what = "A SQL tool needs `query`." if not named else f"Both {named[0]} and {named[1]} hold SQL."
        source.refuse((found[named[1]] if named else tool).start, what, "Write it under one of them.")
    for scalar in _texts(source, found[named[0]]) if len(named) == 1 else ():
        if named[0] in _ENCODED:
            statements.append(_decoded(source, scalar))
            continue
        text, more = bind_templates(source, scalar, resolve, len(bound))
        statements.append(text)
        bound |= more
    params = found.get("params")
    as_objects = flag(source, found.get("as_objects"), "`as_objects`")
    return {
        "sql": ";\n".join(statements),
        "params": ["const", None] if params is None else compile_tree(source, params, resolve),
        "bound": ["dict", *[part for pair in bound.items() for part in pair]],
        "output": choice(source, found.get("output"), "`output`", OUTPUTS) or output,
        "as_objects": as_objects is not False,
    }


def _texts(source: Source, node: Marked) -> list[Scalar]:
    nodes = node.items if isinstance(node, Listing) else (node,)
    found = []
    for each in nodes:
        if isinstance(each, Scalar) and isinstance(each.value, str) and each.value.strip():
            found.append(each)
        else:
            source.refuse(each.start, "SQL must be a text.", "Write it under `query: |`.")
    return found


def _decoded(source: Source, scalar: Scalar) -> str:
    try:
        text = base64.b64decode(scalar.value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        text = "{{"
    if has_template(text) or has_template(scalar.value):
        source.refuse(scalar.start, "This is no SQL in base64.", "Write the SQL itself under `query: |`.")
    return text


def _block(name: str, doc: str, origin: str) -> Block:
    sources = [Key(key, _TEXTS, "As `query`.", origin) for key in _SOURCES if key != "query"]
    encoded = [
        Key(key, AnyOf((Text(), ListOf(Text()))), "As `query`, in base64.", origin) for key in _ENCODED
    ]
    return Block(
        name,
        doc,
        (
            Key("query", _TEXTS, "The statements; `{{ }}` in them becomes a bound parameter.", origin),
            *sources,
            *encoded,
            Key(
                "params",
                Tree(),
                "A list for `?`, or a map for `$name`; inputs are parameters too.",
                origin,
            ),
            Key("output", Choice(OUTPUTS), "What it answers of the last statement.", EDGE),
            Key("as_objects", Flag(), "In a `result`, whether each row is a map (else a list).", origin),
        ),
        {
            "script": "scripts from elsewhere are not fetched here; write `query`.",
            "auth": "it reads no file and no network; only tables of this execution.",
            "db_path": "it works in memory; hand tables on from step to step.",
            "database": "it works in memory; hand tables on from step to step.",
        },
    )


def _kind(block: Block, output: str) -> Kind:
    return Kind(
        block, partial(_read, output=output), effects=("read", "pure"), runs_as="sql", memory_mb=SQL_MEMORY_MB
    )


SQL: Final = _kind(
    _block(
        "sql", "SQL over the inputs that are tables; the result is a table where nothing else is said.", EDGE
    ),
    "table",
)
DUCKDB: Final = _kind(
    _block("duckdb", "As `sql`, as NoETL spells it; the result is `{columns, rows, row_count}`.", NOETL),
    "result",
)
