"""The `sql` kind: statements over the step's tables, then a table, rows, one row, or NoETL's map.

Called by workers that serve one playbook: its author's SQL runs in an engine that was shut (`sql_engine`), in a
sandbox. Inputs that are tables are tables of the same name, read where they are mapped; every other input is a
parameter. Must never put a value into the text of a statement, and keeps nothing between two runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from edge.core.errors import ToolFailed
from edge.core.values import TableRef
from edge.tools.contract import ToolContext
from edge.tools.sql_engine import connect, library
from edge.tools.sql_pure import check_pure
from edge.tools.table_output import as_output, rows_of

#: An engine's message is cut here; beyond it stand candidate lists.
_MESSAGE_MAX: Final = 400


class SqlTool:
    """Runs SQL in an engine of its own for each run."""

    kind: Final = "sql"
    author_code: Final = True

    def run(self, config: Mapping[str, Any], inputs: Mapping[str, Any], context: ToolContext) -> Any:
        """Run all statements and answer what the last one gave.

        `config`: `sql` (text), `bound` (a tree: parameters made of templates), `params` (a tree: a list or map of
        parameters, or none), `output` ("table", "rows", "row", "result"), `as_objects`. Raises ToolFailed:
        `library_missing`, `sql_invalid`, `sql_failed`, `memory_exceeded`, `not_pure`, `parameter_missing`, and those
        of the output.
        """
        params = context.render(config["params"])
        named = {**inputs, **context.render(config["bound"])}
        database = library()
        opened = connect()
        try:
            for name, value in inputs.items():
                table = _table(value, context)
                if table is not None:
                    opened.register(name, table)
            return _run_all(opened, config, params, named, context.effect == "pure")
        except database.Error as error:
            raise _failure(error, database) from None
        finally:
            opened.close()


TOOL: Final = SqlTool()


def _table(value: Any, context: ToolContext) -> pa.Table | None:
    """An input as a table: one of the cache, or a list of maps."""
    if isinstance(value, TableRef):
        return context.table(value)
    if isinstance(value, list) and value and all(type(row) is dict for row in value):
        try:
            return pa.Table.from_pylist(value)
        except pa.ArrowInvalid:
            return None  # its rows do not fit together: it can still be a parameter
    return None


def _run_all(
    opened: Any,
    config: Mapping[str, Any],
    params: Any,
    named: Mapping[str, Any],
    pure: bool,
) -> Any:
    statements = opened.extract_statements(config["sql"])
    if not statements:
        raise ToolFailed("There is no SQL statement.", code="sql_invalid", mend="Write one under `query`.")
    if pure:
        for statement in statements:
            check_pure(opened, statement.query)
    for statement in statements[:-1]:
        opened.execute(statement, _parameters(statement, params, named)).complete()
    last = statements[-1]
    output = config["output"]
    relation = opened.sql(last, params=_parameters(last, params, named) or None)
    if relation is None:
        return {"affected_rows": 0}
    table = _narrowed(relation.to_arrow_table())
    if len(last.expected_result_type) > 1 and table.column_names == ["Count"]:
        return {"affected_rows": sum(table.column(0).to_pylist())}
    return _noetl_result(table, config["as_objects"]) if output == "result" else as_output(table, output)


def _parameters(statement: Any, params: Any, named: Mapping[str, Any]) -> Any:
    """What one statement asks for: a list where it counts its parameters, else a map by name."""
    asked = statement.named_parameters
    if not asked:
        return {}
    if all(name.isdigit() for name in asked):
        given = params if isinstance(params, list) else []
        if len(given) < len(asked):
            raise ToolFailed(
                f"The SQL asks for {len(asked)} parameters and `params` has {len(given)}.",
                code="parameter_missing",
                mend="Write `params: [...]` with one for each `?`.",
            )
        return [_plain_parameter(str(place), value) for place, value in enumerate(given[: len(asked)], 1)]
    known = {**named, **params} if isinstance(params, dict) else named
    for name in sorted(asked):
        if name not in known:
            raise ToolFailed(
                f"The SQL asks for ${name}, and there is no such parameter or input.",
                code="parameter_missing",
                mend="Write it under `params` or `input`.",
            )
    return {name: _plain_parameter(name, known[name]) for name in asked}


def _plain_parameter(name: str, value: Any) -> Any:
    if isinstance(value, TableRef):
        raise ToolFailed(
            f"The parameter {name} is a table.",
            code="parameter_missing",
            mend=f"Write FROM {name} without $.",
        )
    return value


def _narrowed(table: pa.Table) -> pa.Table:
    """Whole numbers as such: DuckDB's sums have 128 bits and come as decimals, which rows would show as texts."""
    for place, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type) and field.type.scale == 0:
            try:
                column = pc.cast(table.column(place), pa.int64())
            except pa.ArrowInvalid:
                continue  # one of them needs more than 64 bits
            table = table.set_column(place, field.name, column)
    return table


def _noetl_result(table: pa.Table, as_objects: bool) -> dict[str, Any]:
    """What NoETL's engine answers: `{columns, rows, row_count}`, each row a map, or a list."""
    rows = as_output(table, "rows")
    listed = rows if as_objects else [list(row.values()) for row in rows_of(table)]
    return {"columns": table.column_names, "rows": listed, "row_count": table.num_rows}


def _failure(error: Exception, database: Any) -> ToolFailed:
    text = str(error).strip()[:_MESSAGE_MAX]
    if isinstance(error, database.OutOfMemoryException):
        return ToolFailed(
            f"The SQL needs more memory than it may have: {text.splitlines()[0]}.",
            code="memory_exceeded",
            mend="Raise spec.memory_mb, or work on less at a time.",
        )
    if isinstance(error, database.PermissionException):
        return ToolFailed(
            f"SQL here works on the step's tables only: {text.splitlines()[0]}.",
            code="sandbox_denied",
            mend="Hand the data in as an input; files, networks and extensions are shut.",
        )
    if isinstance(error, database.ProgrammingError):
        return ToolFailed(f"The SQL cannot be run: {text}", code="sql_invalid", mend="Mend the SQL.")
    return ToolFailed(f"The SQL failed: {text}", code="sql_failed", mend="Check the values it works on.")
