"""The `arrow` kind: filter, project, aggregate and window over one table, then a table, rows or one row. Pure.

Called by workers through the registry. Runs the compiled operations one after the other; columns come from
arrow_columns, groups from arrow_groups, windows from arrow_window. Must never start a thread, use numpy, or let
the way a table is cut into chunks show in a result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from edge.core.errors import ToolFailed
from edge.core.values import TableRef
from edge.tools.arrow_columns import Columns, Plans
from edge.tools.arrow_groups import aggregate, aggregate_row
from edge.tools.arrow_window import window
from edge.tools.contract import ToolContext
from edge.tools.table_output import as_output, checked

#: Steps whose prepared expressions are kept; a worker keeps 32 blueprints.
_PROGRAMS_MAX: Final = 128


class ArrowTool:
    """Runs compiled column operations on one table."""

    kind: Final = "arrow"
    author_code: Final = False

    def __init__(self) -> None:
        self._programs: dict[int, tuple[Mapping[str, Any], Plans]] = {}

    def run(self, config: Mapping[str, Any], inputs: Mapping[str, Any], context: ToolContext) -> Any:
        """Run the operations of `config` and return a table, a list of maps, or one map.

        `config`: `table` (a node or prepared node giving a table), `ops` and `output` ("table", "rows",
        "row"). Raises ToolFailed: `table_expected`, `column_unknown`, `column_type`, `overflow`,
        `aggregate_unknown`, `window_too_large`, `rows_too_many`, `row_expected`.
        """
        table = _table(config["table"], context)
        plans = self._plans_of(config)
        output = config.get("output", "table")
        operations = config.get("ops") or ()
        for place, operation in enumerate(operations, 1):
            try:
                columns = Columns(table, inputs, context, plans)
                if output == "row" and place == len(operations) and _is_one_row(operation):
                    _check_unique([name for name, _, _ in operation[2]])
                    return checked(aggregate_row(columns, operation[2]))
                table = _apply(operation, columns)
            except pa.ArrowException as error:
                raise ToolFailed(
                    f"Operation {place} ({operation[0]}) cannot be done: {str(error).splitlines()[0]}.",
                    code="column_type",
                    mend="Check the types of the columns it works on.",
                ) from error
            except ToolFailed as error:
                raise ToolFailed(
                    f"Operation {place} ({operation[0]}): {error.message}",
                    code=error.problem_code,
                    mend=error.mend,
                ) from error
        return as_output(table, output)

    def _plans_of(self, config: Mapping[str, Any]) -> Plans:
        """What was prepared for this config. It is kept with the config, so that no id can stand for two."""
        known = self._programs.get(id(config))
        if known is None:
            if len(self._programs) >= _PROGRAMS_MAX:
                self._programs.clear()
            known = self._programs[id(config)] = (config, {})
        return known[1]


TOOL: Final = ArrowTool()


def _table(node: Any, context: ToolContext) -> pa.Table:
    value = context.render(node)
    if isinstance(value, TableRef):
        return context.table(value)
    if isinstance(value, pa.Table):
        return value
    if isinstance(value, list) and value and all(isinstance(each, TableRef) for each in value):
        return _joined([context.table(each) for each in value], context)
    raise ToolFailed(
        f"`table` of step {context.step!r} is {_kind_name(value)}, not a table.",
        code="table_expected",
        mend="Name a step that answers a table, or `workload.table` of a request that brings one.",
    )


def _joined(tables: list[pa.Table], context: ToolContext) -> pa.Table:
    """Tables that a loop collected, one after the other; nothing is copied."""
    try:
        return pa.concat_tables(tables)
    except pa.ArrowInvalid as error:
        raise ToolFailed(
            f"The tables of step {context.step!r} cannot be joined: {str(error)[:300]}",
            code="tables_differ",
            mend="Let every item give the same columns.",
        ) from error


def _apply(operation: Sequence[Any], columns: Columns) -> pa.Table:
    name, *parts = operation
    if name == "filter":
        return _filter(columns, parts[0])
    if name == "project":
        return _project(parts[0], columns)
    if name == "aggregate":
        by, wanted = parts
        _check_unique([*by, *(each[0] for each in wanted)])
        return aggregate(columns, by, wanted)
    if name == "window":
        by, order, rows, wanted = parts
        _check_unique([each[0] for each in wanted])
        return window(columns, by, order, rows, wanted)
    raise ToolFailed(f"There is no table operation {name!r}.", code="tool_failed")


def _is_one_row(operation: Sequence[Any]) -> bool:
    return operation[0] == "aggregate" and not operation[1]


def _filter(columns: Columns, node: Any) -> pa.Table:
    mask = columns.mask(node, "the condition")
    if not isinstance(mask, pa.ChunkedArray) or mask.num_chunks == 1:
        only = mask.chunk(0) if isinstance(mask, pa.ChunkedArray) else mask
        if only.null_count == 0 and only.true_count == len(only):
            return columns.table  # nothing to leave out: the usual case of a check, and a copy saved
    return columns.table.filter(mask)


def _project(wanted: Sequence[Sequence[Any]], columns: Columns) -> pa.Table:
    _check_unique([name for name, _ in wanted])
    made = [columns.full(node, f"column {name!r}") for name, node in wanted]
    return pa.table(made, names=[name for name, _ in wanted])


def _check_unique(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ToolFailed(
            f"Two columns would be called {twice[0]!r}.", code="column_twice", mend="Give each its own name."
        )


def _kind_name(value: Any) -> str:
    if value is None:
        return "none"
    return {"dict": "a map", "list": "a list", "str": "a text"}.get(type(value).__name__, "a plain value")
