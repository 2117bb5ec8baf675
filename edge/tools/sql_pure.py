"""Whether SQL is a function of its tables and parameters: what a step that calls itself `pure` may contain.

Called by the `sql` kind for pure steps, before anything runs. Looks at DuckDB's own syntax tree, not at the text.
Only SELECT is pure; refused in it are the clock, chance, whatever DuckDB calls volatile, samples, and table functions
but those that make rows of their arguments. Not covered: the order of rows without ORDER BY, which is the same in
every run of one release of DuckDB and may differ in the next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from edge.core.errors import ToolFailed

#: The clock and the session: DuckDB calls them constant within one query.
_CLOCK_AND_SESSION: Final = frozenset(
    {
        "current_database",
        "current_date",
        "current_localtime",
        "current_localtimestamp",
        "current_setting",
        "current_time",
        "current_timestamp",
        "get_current_time",
        "get_current_timestamp",
        "getvariable",
        "localtime",
        "localtimestamp",
        "now",
        "today",
        "transaction_timestamp",
        "txid_current",
        "version",
    }
)
_TABLE_FUNCTIONS: Final = frozenset(
    {"generate_series", "json_each", "json_tree", "range", "repeat", "unnest"}
)
_WORD: Final = re.compile(r"[a-z_][a-z0-9_]*")
_MEND: Final = "Hand such values in as inputs, or take `effect: pure` out."

_volatile: frozenset[str] | None = None


def check_pure(opened: Any, statement: str) -> None:
    """Raises ToolFailed `not_pure` where a statement is not a function of its inputs."""
    rows = opened.execute("SELECT json_serialize_sql($sql)", {"sql": statement}).fetchall()
    tree = json.loads(rows[0][0])
    if tree["error"]:
        if tree["error_type"] == "not implemented":
            raise _refused(
                "only SELECT is pure", "Write one SELECT (WITH … SELECT), or take `effect: pure` out."
            )
        return  # it does not parse, and will say so better when it runs
    volatile = _volatile_names(opened)
    for node in _maps(tree):
        if node.get("sample"):
            raise _refused("a sample is chance", _MEND)
        name = node.get("function_name")
        if node.get("class") == "COLUMN_REF" and len(node.get("column_names", ())) == 1:
            name = node["column_names"][0] if node["column_names"][0].lower() in _CLOCK_AND_SESSION else None
        if isinstance(name, str) and name.lower() in volatile:
            raise _refused(f"{name} does not depend on the inputs alone", _MEND)
        if isinstance(name, str) and name.lower() == "age" and len(node.get("arguments", ())) == 1:
            raise _refused("age of one argument counts from today", _MEND)
        if node.get("type") == "TABLE_FUNCTION":
            called = str(node.get("function", {}).get("function_name", "")).lower()
            if called not in _TABLE_FUNCTIONS:
                raise _refused(f"the table function {called} looks outside the inputs", _MEND)


def _refused(why: str, mend: str) -> ToolFailed:
    return ToolFailed(f"The step calls itself pure, but {why}.", code="not_pure", mend=mend)


def _maps(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _volatile_names(opened: Any) -> frozenset[str]:
    """What must not be called, macros that stand for such calls included: as this release of DuckDB says."""
    global _volatile
    if _volatile is None:
        rows = opened.execute(
            "SELECT function_name, stability = 'VOLATILE', macro_definition FROM duckdb_functions()"
        ).fetchall()
        names = {name for name, volatile, _ in rows if volatile} | _CLOCK_AND_SESSION
        names |= {
            name for name, _, macro in rows if macro and names.intersection(_WORD.findall(macro.lower()))
        }
        _volatile = frozenset(names)
    return _volatile
