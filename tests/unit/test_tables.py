"""Questions to a centre's tables: what they say, what is refused, and that two engines say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.central.tables import Tables
from edge.core.errors import RequestRefused
from tests.unit.central_rig import Centre, Pump


@pytest.fixture
def pump(tmp_path: Path) -> Pump:
    return Pump(tmp_path / "pump")


@pytest.fixture
def centre(tmp_path: Path, pump: Pump) -> Centre:
    """One execution that ended well, one that failed, one that runs."""
    made = Centre(tmp_path / "centre")
    pump.run()
    pump.end(pump.begin(), failed=True)
    pump.begin()
    made.take([pump.seal()])
    made.compact()
    return made


def test_executions_say_how_each_stands(centre: Centre, pump: Pump) -> None:
    """Status, problem, playbook and how many events; one that has no end is running."""
    found = centre.ask(
        "SELECT execution, execution_id, status, code, playbook, events, steps, linked FROM executions ORDER BY 1"
    )
    log = pump.journal.log_id.hex()
    one, two, three = pump.executions
    assert found == [
        (one, f"{log}-{one}", "completed", None, "pumps/guard", 4, 2, True),
        (two, f"{log}-{two}", "failed", "too_hot", "pumps/guard", 4, 2, True),
        (three, f"{log}-{three}", "running", None, "pumps/guard", 2, 1, True),
    ]


def test_executions_at_an_event_are_those_of_then(centre: Centre, pump: Pump) -> None:
    """Before its end was written an execution ran; one that had not begun is not there."""
    one, two, _ = pump.executions
    assert centre.ask(f"SELECT execution, status FROM executions_at({two - 2}) ORDER BY 1") == [
        (one, "running")
    ]
    assert centre.ask(f"SELECT execution, status FROM executions_at({two}) ORDER BY 1") == [
        (one, "completed"),
        (two, "running"),
    ]


def test_steps_say_what_came_of_each(centre: Centre, pump: Pump) -> None:
    """One row for each visit, with its value as JSON that can be looked into."""
    one, two, _ = pump.executions
    found = centre.ask("SELECT execution, step, status, code, duration_us, value FROM steps ORDER BY 1, 2")
    assert found[:4] == [
        (one, "read", "done", None, 40, f'{{"registers":[{one},2,3]}}'),
        (one, "write", "done", None, 7, "true"),
        (two, "read", "done", None, 40, f'{{"registers":[{two},2,3]}}'),
        (two, "write", "failed", "too_hot", None, None),
    ]
    assert centre.ask("SELECT sum((value->>'$.registers[0]')::INT) FROM steps WHERE step = 'read'") == [
        (sum(pump.executions),)
    ]


def test_an_execution_whose_request_is_missing_is_partial(centre: Centre, pump: Pump) -> None:
    """Behind a gap only its end is there: it is told from one that is whole, and it has its status all the same."""
    pump.run()
    pump.seal()
    late = pump.begin()
    pump.seal()
    pump.end(late)
    centre.take([pump.seal()])
    centre.compact()
    assert centre.ask(f"SELECT status, began_utc, linked FROM executions WHERE execution = {late}") == [
        ("completed", None, False)
    ]


def test_two_engines_find_the_same_execution(centre: Centre, pump: Pump, tmp_path: Path) -> None:
    """DuckDB and pyarrow give the same rows for every execution, and none for one that is not there."""
    other = Pump(tmp_path / "other", "pump-8")
    centre.take([*pump.sealed(3), *other.sealed(2)])
    centre.compact()
    with centre.tables() as tables:
        for log, executions in ((pump, pump.executions), (other, other.executions)):
            log_id = log.journal.log_id
            for execution in (*executions, 10**9):
                by_arrow = tables.execution_events(log_id, execution)
                by_sql = tables.query(
                    f"SELECT * FROM events WHERE log_id = '{log_id.hex()}' AND execution = {execution} ORDER BY seq"
                ).read_all()
                assert by_arrow.to_pylist() == by_sql.to_pylist()
                assert by_arrow.num_rows == (0 if execution == 10**9 else by_sql.num_rows)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT foo FROM events", "DESCRIBE events"),
        ("SELECT * FROM event", "executions: one row for each execution"),
        ("SELEC 1", "syntax error"),
        ("SELECT 1; SELECT 2", "One statement"),
        ("", "One statement"),
        ("COPY (SELECT 1) TO '/tmp/x.csv'", "only reads"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/x.csv'", "only reads"),
        ("ATTACH '/tmp/x.db'", "only reads"),
        ("INSTALL httpfs", "only reads"),
        ("LOAD httpfs", "only reads"),
        ("SET memory_limit = '90GB'", "only reads"),
        ("PRAGMA version", "only reads"),
        ("CREATE TABLE t AS SELECT 1", "only reads"),
        ("SELECT * FROM read_text('/etc/hostname')", "Only the centre's own tables"),
        ("SELECT * FROM '/etc/hostname.csv'", "Only the centre's own tables"),
        ("SELECT * FROM read_parquet('https://127.0.0.1/x.parquet')", ""),
        ("SELECT * FROM glob('/etc/*')", "Only the centre's own tables"),
        ("SELECT error('x')", ""),
    ],
)
def test_what_is_no_question_is_refused(centre: Centre, sql: str, said: str) -> None:
    """Wrong names and syntax are said with a way on; what writes, or looks elsewhere, is refused."""
    with pytest.raises(RequestRefused) as refused:
        centre.ask(sql)
    assert said in str(refused.value)


def test_other_files_of_the_centre_are_not_readable(centre: Centre) -> None:
    """Not the centre's key, not the catalog beside the tables: only the files that are the tables."""
    for path in (centre.data / "central.key", centre.data / "tables" / "catalog.sqlite"):
        assert path.exists()
        with pytest.raises(RequestRefused, match="Only the centre's own tables"):
            centre.ask(f"SELECT * FROM read_blob('{path}')")


def test_python_variables_are_no_tables(centre: Centre) -> None:
    """A name of this process is not looked up."""
    secret = [1]
    with pytest.raises(RequestRefused, match="secret"):
        centre.ask("SELECT * FROM secret")
    assert secret


def test_a_question_that_is_too_large_is_refused(centre: Centre) -> None:
    """Memory is bounded, and the refusal names the bound."""
    with pytest.raises(RequestRefused, match="more than 128 MB"):
        centre.ask("SELECT count(*) FROM (SELECT DISTINCT random() FROM range(100000000))")


def test_a_centre_without_tables_says_so(tmp_path: Path) -> None:
    """Before the first compaction there is nothing to ask; after one of nothing the tables are empty."""
    with pytest.raises(RequestRefused, match="edge central compact"):
        Tables(tmp_path, memory_mb=128)
    empty = Centre(tmp_path / "empty")
    empty.compact()
    assert empty.ask("SELECT count(*) FROM executions") == [(0,)]
    assert empty.ask("FROM steps") == []
