"""Tool kinds: what each takes under `tool:`, and what becomes of it in the blueprint.

Called by `playbooks.steps` only. Each reader gets the tool's entries and gives the step's `config`; problems
are noted in the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from playbooks.blocks import code_form, first_line, is_module_name
from playbooks.columns import compile_aggregate, compile_column
from playbooks.expressions import Resolve
from playbooks.fields import choice, entries, fields, items, text
from playbooks.loader import Mapping_, Marked, Scalar
from playbooks.problems import Source, allowed
from playbooks.templates import compile_tree

_COLUMN_NAME_BYTES_MAX: Final = 200
_OPS_MAX: Final = 64
_WINDOW_ROWS_MAX: Final = 1_000_000
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Read = Callable[[Source, dict[str, Marked], Mapping_, Resolve], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One tool kind: its keys beside `kind` and the inputs, how it is read, whether it is pure by nature."""

    keys: tuple[str, ...]
    read: Read
    always_pure: bool


#: Published kinds that come with a later issue.
LATER_KINDS: Final = frozenset(
    {
        "agent",
        "artifact",
        "device",
        "duckdb",
        "http",
        "iterator",
        "mcp",
        "model",
        "mqtt",
        "playbook",
        "playbooks",
        "provider",
        "result_fetch",
        "rhai",
        "script",
        "secrets",
        "shell",
        "sql",
        "subscription",
        "task_sequence",
        "wait",
        "wasm",
    }
)
#: Published kinds that stay in a data centre.
CENTRE_KINDS: Final = frozenset(
    {
        "clickhouse",
        "container",
        "ducklake",
        "gateway",
        "gcs",
        "mysql",
        "nats",
        "postgres",
        "snowflake",
        "snowflake_transfer",
        "transfer",
    }
)


def _noop(source: Source, found: dict[str, Marked], tool: Mapping_, resolve: Resolve) -> dict[str, Any]:
    return {}


def _transform(source: Source, found: dict[str, Marked], tool: Mapping_, resolve: Resolve) -> dict[str, Any]:
    if "value" not in found:
        source.refuse(
            tool.start, "A transform needs `value`.", "Write the tree of values and templates it gives."
        )
        return {"value": ["const", None]}
    return {"value": compile_tree(source, found["value"], resolve)}


def _python(source: Source, found: dict[str, Marked], tool: Mapping_, resolve: Resolve) -> dict[str, Any]:
    code = found.get("code")
    libs: dict[str, str] = {}
    for alias, module in entries(source, found.get("libs"), "`libs`"):
        name = text(source, module, f"The module of lib {alias.value!r}")
        if not _IDENTIFIER.fullmatch(alias.value):
            source.refuse(alias.start, f"{alias.value!r} cannot be a name in Python.")
        elif name is not None and not is_module_name(name):
            source.refuse(module.start, f"{name!r} is no module name.", "Write it as in `import a.b`.")
        elif name is not None:
            libs[alias.value] = name
    if code is None:
        source.refuse(tool.start, "A python tool needs `code`.", "Write the code under `code: |`.")
        return {}
    if not isinstance(code, Scalar) or not isinstance(code.value, str) or not code.value.strip():
        source.refuse(code.start, "`code` must be a text of Python.", "Write it under `code: |`.")
        return {}
    form = code_form(source, code)
    return {"code": code.value, "form": form or "result", "libs": libs, "line": first_line(source, code)}


def _arrow(source: Source, found: dict[str, Marked], tool: Mapping_, resolve: Resolve) -> dict[str, Any]:
    table: list[Any] = ["const", None]
    if "table" not in found:
        source.refuse(tool.start, "An arrow tool needs `table`.", 'Write table: "{{ workload.table }}".')
    else:
        table = compile_tree(source, found["table"], resolve)
        if table[0] == "text" or table[0] == "const":
            mend = 'Write one whole expression, such as "{{ workload.table }}".'
            source.refuse(found["table"].start, "`table` must be an expression that gives a table.", mend)
    listed = items(source, found.get("ops"), "`ops`")
    if len(listed) > _OPS_MAX:
        source.refuse(listed[_OPS_MAX].start, f"An arrow tool has at most {_OPS_MAX} ops.", "Use two steps.")
    ops = [op for node in listed if (op := _op(source, node)) is not None]
    output = choice(source, found.get("output"), "`output`", ("table", "rows", "row")) or "table"
    return {"table": table, "ops": ops, "output": output}


def _op(source: Source, node: Marked) -> list[Any] | None:
    found = fields(source, node, "An op", tuple(_OPS), {})
    if not isinstance(node, Mapping_):
        return None
    if len(node.pairs) != 1:
        source.refuse(node.start, "An op is one key.", f"{allowed(_OPS)} Begin each op with `- `.")
        return None
    return next((_OPS[name](source, value) for name, value in found.items()), None)


def _filter(source: Source, node: Marked) -> list[Any]:
    return ["filter", compile_column(source, node)]


def _project(source: Source, node: Marked) -> list[Any]:
    columns = _named(source, node, "`project`")
    return ["project", [[name, compile_column(source, value)] for name, value in columns]]


def _aggregate(source: Source, node: Marked) -> list[Any]:
    found = fields(source, node, "`aggregate`", ("by", "values"), {})
    return ["aggregate", _columns(source, found.get("by")), _values(source, found, node, "`aggregate`")]


def _window(source: Source, node: Marked) -> list[Any]:
    found = fields(source, node, "`window`", ("by", "order", "rows", "values"), {})
    rows = found.get("rows")
    count = rows.value if isinstance(rows, Scalar) and type(rows.value) is int else 0
    if not 1 <= count <= _WINDOW_ROWS_MAX:
        at = rows.start if rows is not None else node.start
        source.refuse(at, f"`window` needs `rows`, a whole number of 1 to {_WINDOW_ROWS_MAX}.")
    by, order = _columns(source, found.get("by")), _columns(source, found.get("order"))
    return ["window", by, order, count, _values(source, found, node, "`window`")]


def _values(source: Source, found: dict[str, Marked], node: Marked, what: str) -> list[Any]:
    if "values" not in found:
        source.refuse(node.start, f"{what} needs `values`.", 'Write values: {name: "{{ column | mean }}"}.')
        return []
    named = _named(source, found["values"], f"`values` of {what}")
    return [[name, *compile_aggregate(source, value)] for name, value in named]


def _named(source: Source, node: Marked, what: str) -> list[tuple[str, Marked]]:
    """Column names with their expressions, in order."""
    pairs = entries(source, node, what)
    if not pairs and isinstance(node, (Mapping_, Scalar)):
        source.refuse(node.start, f"{what} needs at least one column.")
    for key, _ in pairs:
        _column_name(source, key)
    return [(key.value, value) for key, value in pairs]


def _columns(source: Source, node: Marked | None) -> list[str]:
    names = []
    for item in items(source, node, "A list of columns"):
        name = text(source, item, "A column's name")
        if name is not None and isinstance(item, Scalar) and _column_name(source, item):
            names.append(name)
    return names


def _column_name(source: Source, scalar: Scalar) -> bool:
    if 0 < len(scalar.value.encode()) <= _COLUMN_NAME_BYTES_MAX:
        return True
    source.refuse(scalar.start, f"A column's name has 1 to {_COLUMN_NAME_BYTES_MAX} bytes.")
    return False


_OPS: Final[dict[str, Callable[[Source, Marked], list[Any]]]] = {
    "filter": _filter,
    "project": _project,
    "aggregate": _aggregate,
    "window": _window,
}

KINDS: Final[dict[str, Kind]] = {
    "arrow": Kind(("table", "ops", "output"), _arrow, always_pure=True),
    "noop": Kind((), _noop, always_pure=True),
    "python": Kind(("code", "libs"), _python, always_pure=False),
    "transform": Kind(("value",), _transform, always_pure=True),
}
