"""`edge central compact`, `query`, `export` and `rebuild` as a person meets them: forms, files, exit codes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from edge.cli.main import main
from tests.unit.central_rig import Centre, Pump, forged

BY_STATUS = "SELECT status, count(*) AS n FROM executions GROUP BY status"


@pytest.fixture
def pump(tmp_path: Path) -> Pump:
    return Pump(tmp_path / "pump")


@pytest.fixture
def centre(tmp_path: Path, pump: Pump) -> Centre:
    made = Centre(tmp_path / "centre")
    made.take(pump.sealed(1))
    return made


@pytest.fixture
def edge(centre: Centre, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `edge central …` on that centre: `(exit code, standard output, standard error)`."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["central", *words, "--data", str(centre.data)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_an_answer_comes_in_every_form(edge: Any, tmp_path: Path) -> None:
    """A table for people, lines of JSON, CSV and a Parquet file: the same rows."""
    assert edge("query", BY_STATUS) == (0, "status     n\ncompleted  3\n", "")
    assert json.loads(edge("query", "--json", BY_STATUS)[1]) == {"status": "completed", "n": 3}
    assert list(csv.reader(io.StringIO(edge("query", "--csv", BY_STATUS)[1]))) == [
        ["status", "n"],
        ["completed", "3"],
    ]
    file = tmp_path / "answer.parquet"
    assert edge("query", "--parquet", str(file), BY_STATUS)[1].startswith("written  1 rows")
    assert pq.read_table(file).to_pylist() == [{"status": "completed", "n": 3}]
    assert edge("query", "SELECT 1 AS a WHERE false") == (0, "a\n(no rows)\n", "")


def test_what_has_come_is_put_in_first_unless_it_is_asked_as_is(
    edge: Any, centre: Centre, pump: Pump
) -> None:
    """A question right after an import answers of it; `--as-is` of what was there."""
    edge("query", BY_STATUS)
    centre.take(pump.sealed(1))
    assert json.loads(edge("query", "--json", "--as-is", BY_STATUS)[1])["n"] == 3
    assert json.loads(edge("query", "--json", BY_STATUS)[1])["n"] == 6


def test_a_long_answer_is_cut_for_people_only(edge: Any) -> None:
    """Two hundred rows and a line that says so; programs get all."""
    table = edge("query", "SELECT range AS n FROM range(250)")[1].splitlines()
    assert len(table) == 202
    assert "--csv" in table[-1]
    assert len(edge("query", "--csv", "SELECT range AS n FROM range(250)")[1].splitlines()) == 251


def test_an_export_is_of_a_table_a_box_and_a_time(edge: Any, centre: Centre, tmp_path: Path) -> None:
    """Limits by box and time; a name with a quote in it is a name, not SQL."""
    file = tmp_path / "out.parquet"
    assert edge("export", str(file), "--table", "executions")[0] == 0
    assert pq.read_table(file).num_rows == 3
    day = centre.ask("SELECT min(began_utc)::DATE + 1 FROM executions")[0][0]
    edge("export", str(file), "--table", "executions", "--since", str(day))
    assert pq.read_table(file).num_rows == 0
    edge("export", str(file), "--box", "x' OR 'a' = 'a")
    assert pq.read_table(file).num_rows == 0
    code, _, said = edge("export", str(file), "--until", "yesterday")
    assert (code, "yesterday" in said) == (2, True)
    assert not list(tmp_path.glob("*.part"))


def test_what_is_left_out_is_said_by_everybody(edge: Any, centre: Centre, pump: Pump) -> None:
    """`compact` and `rebuild` end with 1 and name the segment; `query` answers, and names it beside."""
    centre.take([forged(pump.sealed(1)[0])])
    code, out, _ = edge("compact")
    assert (code, "left out pump-7 segment 1" in out) == (1, True)
    code, out, err = edge("query", "--json", BY_STATUS)
    assert (code, json.loads(out)["n"], "left out pump-7 segment 1" in err) == (0, 3, True)
    centre.central.close()
    code, out, _ = edge("rebuild")
    assert (code, "rebuilt  the tables" in out, "left out pump-7" in out) == (1, True, True)


def test_wrong_questions_are_refused_with_a_way_on(edge: Any, tmp_path: Path) -> None:
    """A column that is not there, too little memory, a folder that is no centre."""
    code, _, said = edge("query", "SELECT foo FROM executions")
    assert (code, "DESCRIBE events" in said) == (2, True)
    assert edge("query", "--memory-mb", "1", "SELECT 1")[0] == 2
    assert main(["central", "query", "SELECT 1", "--data", str(tmp_path / "nothing")]) == 2
    assert not (tmp_path / "nothing").exists()
