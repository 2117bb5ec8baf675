"""The sql kind: tables and parameters in, forms out, everything else shut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest

from edge.core.errors import ToolFailed
from edge.core.values import TableRef
from edge.testing.box import Box
from edge.testing.plain import playbook
from edge.tools import sql as sql_module
from edge.tools import sql_engine
from edge.tools.registry import tool
from playbooks.evaluate import render
from playbooks.shape import Task

REF = TableRef("t", b"", 0, 0, ())
TABLE = pa.table({"device": ["a", "b", "a"], "n": [1, 2, 3], "celsius": [20.0, None, 21.5]})


class Lent:
    execution_id = step = idempotency_key = "e"

    def __init__(self, effect: str, scope: Mapping[str, Any]) -> None:
        self.effect, self._scope = effect, scope

    def render(self, tree: Any, extra: Mapping[str, Any] | None = None) -> Any:
        return render(tree, self._scope)

    def table(self, ref: TableRef) -> pa.Table:
        return TABLE


def task(query: Any, kind: str = "sql", **keys: Any) -> Task:
    effect = {"spec": {"effect": keys.pop("effect")}} if "effect" in keys else {}
    tool_ = {"kind": kind, "query": query, **keys}
    if query is None:
        del tool_["query"]
    step = {"step": "s", "input": {"t": 1, "x": 2, "rows": 3, "name": 4}, "tool": tool_, **effect}
    return playbook([step]).steps[0].tasks[0]


def run(query: Any, kind: str = "sql", inputs: Mapping[str, Any] | None = None, **keys: Any) -> Any:
    made = task(query, kind, **keys)
    given = {"t": REF, **(inputs or {})}
    return tool("sql").run(made.config, given, Lent(made.effect, given))


def refused(query: str, **keys: Any) -> ToolFailed:
    with pytest.raises(ToolFailed) as caught:
        run(query, **keys)
    return caught.value


def test_a_table_is_read_by_its_inputs_name() -> None:
    """An input that is a table is a table of that name; the answer is a table where nothing else is asked for."""
    got = run("SELECT device, sum(n) AS n FROM t GROUP BY device ORDER BY device")
    assert got.to_pylist() == [{"device": "a", "n": 4}, {"device": "b", "n": 2}]
    assert got.schema.field("n").type == pa.int64()


def test_rows_that_are_a_list_of_maps_are_a_table_too() -> None:
    """What a transform or a request gives as rows can be queried."""
    given = {"rows": [{"k": 1}, {"k": 5}]}
    assert run("SELECT max(k) AS m FROM rows", inputs=given, output="row") == {"m": 5}


@pytest.mark.parametrize(
    ("output", "result"),
    [
        ("rows", [{"n": 1}, {"n": 2}]),
        ("result", {"columns": ["n"], "rows": [{"n": 1}, {"n": 2}], "row_count": 2}),
    ],
)
def test_forms(output: str, result: Any) -> None:
    """Rows, and the map NoETL's engine answers."""
    assert run("SELECT n FROM t WHERE n < 3 ORDER BY n", output=output) == result


def test_duckdb_is_noetls_spelling() -> None:
    """`duckdb` answers NoETL's map by itself, each row a list where asked."""
    got = run(None, "duckdb", command="SELECT 1 AS ok", as_objects=False)
    assert got == {"columns": ["ok"], "rows": [[1]], "row_count": 1}
    assert run(None, "duckdb", commands=["CREATE TABLE c AS SELECT 7 AS a", "SELECT a FROM c"])["rows"] == [
        {"a": 7}
    ]
    assert run(None, "duckdb", command_b64="U0VMRUNUIDQgQVMgYQ==", output="row") == {"a": 4}


def test_many_statements_share_one_database() -> None:
    """All statements run in order, semicolons in texts are no ends, and the last one answers."""
    query = "CREATE TABLE c(a VARCHAR); INSERT INTO c VALUES ('x;y'), ('it''s'); SELECT count(*) AS n FROM c"
    assert run(query, output="row") == {"n": 2}
    assert run("SELECT range FROM range(100000); SELECT 1 AS n", output="row") == {"n": 1}
    assert run("CREATE TABLE c(a INT); INSERT INTO c VALUES (1), (2)") == {"affected_rows": 2}


def test_parameters_are_bound() -> None:
    """By name from `params` or the inputs, by place from a list; no value becomes SQL."""
    evil = "x' OR 1=1; DROP TABLE t --"
    assert run("SELECT $name AS v", inputs={"name": evil}, output="row") == {"v": evil}
    assert run("SELECT n FROM t WHERE n > ? AND n < ?", params=[1, 3], output="row") == {"n": 2}
    assert run(
        "SELECT n FROM t WHERE n = $low", params={"low": "{{ x + 1 }}"}, inputs={"x": 1}, output="row"
    ) == {"n": 2}
    assert refused("SELECT $other").problem_code == "parameter_missing"
    assert refused("SELECT ? + ?", params=[1]).problem_code == "parameter_missing"
    assert refused("SELECT $t").problem_code == "parameter_missing"


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("SELECT {{ x }} AS v", 5),
        ("SELECT {{ x }} + 1 AS v", 6),
        ("SELECT '{{ name }}' AS v", "it's"),
        ("SELECT 'a ''b'' {{ name }} c' AS v -- {{ x }}", "a 'b' it's c"),
        ("SELECT /* {{ x }} ' */ concat('<{{ x }}|{{ name }}>', '!') AS v", "<5|it's>!"),
    ],
)
def test_templates_become_parameters(query: str, value: Any) -> None:
    """NoETL's `{{ }}` in SQL means the value, bound where it stands, in a quoted text too."""
    assert run(query, inputs={"x": 5, "name": "it's"}, output="row") == {"v": value}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "COPY (SELECT 1) TO '/tmp/edge-sql-test'",
        "ATTACH '/tmp/edge-sql-test.db'",
        "INSTALL httpfs",
        "SELECT * FROM 'https://127.0.0.1/x.parquet'",
        "SET enable_external_access = true",
        "SET threads = 4",
        "PRAGMA enable_profiling",
    ],
)
def test_nothing_outside_is_reached(query: str) -> None:
    """Files, networks, extensions and settings are shut, whatever the SQL says."""
    assert refused(query).problem_code in ("sandbox_denied", "sql_invalid")


def test_variables_of_python_are_no_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in SQL is a table of the step and nothing of the worker's own, not even where the engine is called."""
    monkeypatch.setattr(sql_module, "hidden", TABLE, raising=False)
    assert refused("SELECT * FROM hidden").problem_code == "sql_invalid"


def test_the_memory_is_bounded() -> None:
    """An engine that fills its memory says so, and what would help."""
    error = refused("CREATE TABLE big AS SELECT range, repeat('x', 1000) FROM range(1000000)")
    assert error.problem_code == "memory_exceeded"
    assert "memory_mb" in error.mend


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT now()", "now"),
        ("SELECT * FROM (SELECT current_date)", "current_date"),
        ("SELECT random()", "random"),
        ("SELECT uuid()", "uuid"),
        ("SELECT ago(INTERVAL 1 DAY)", "ago"),
        ("SELECT age(TIMESTAMP '2026-01-01')", "age"),
        ("SELECT n FROM t USING SAMPLE 1 ROWS", "chance"),
        ("SELECT * FROM duckdb_settings()", "duckdb_settings"),
        ("CREATE TABLE c(a INT)", "only SELECT"),
        ("SELECT 1; SELECT nextval('s')", "nextval"),
    ],
)
def test_pure_is_enforced(query: str, why: str) -> None:
    """A step that calls itself pure may hold no clock, no chance and nothing outside its inputs."""
    error = refused(query, effect="pure")
    assert error.problem_code == "not_pure"
    assert why in error.message


def test_pure_sql_runs() -> None:
    """What is a function of its inputs runs as pure; without the word a step is `read`."""
    query = "WITH a AS (SELECT n FROM t) SELECT list(n ORDER BY n) AS l FROM a, generate_series(1, 1)"
    assert run(query, effect="pure", output="row") == {"l": [1, 2, 3]}
    assert task("SELECT 1").effect == "read"
    assert refused("SELEC 1", effect="pure").problem_code == "sql_invalid"


def test_mistakes_are_told() -> None:
    """A wrong column and a failed cast come with the engine's own words."""
    assert "nosuch" in refused("SELECT nosuch FROM t").message
    assert refused("SELECT CAST(device AS INT) FROM t").problem_code == "sql_failed"


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A box without DuckDB says what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ToolFailed) as caught:
        sql_engine.library()
    assert caught.value.problem_code == "library_missing"
    assert "noetl-edge[sql]" in caught.value.mend


async def test_a_step_of_sql_on_a_box(box: Box) -> None:
    """SQL over an earlier step's table, its answer an output like any other."""
    code = "import pyarrow as pa\nresult = pa.table({'a': [1, 2, 3]})"
    steps: list[dict[str, Any]] = [
        {"step": "make", "tool": {"kind": "python", "code": code},
         "next": "ask"},
        {"step": "ask", "input": {"made": "{{ make }}", "least": 2},
         "tool": {"kind": "sql", "query": "SELECT count(*) AS n FROM made WHERE a >= $least", "output": "row"}},
    ]  # fmt: skip
    await box.register(playbook(steps))
    box.submit("t")
    await box.settle()
    assert box.document()["result"] == {"n": 2}
