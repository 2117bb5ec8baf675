"""`edge log stat`: what it counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.cli.log_stat import count
from edge.cli.main import main
from edge.core.events import BootStopped, Event, ExecutionFinished, ExecutionRequested, Gap
from edge.store.journal import Journal, read_groups
from edge.testing.history import write_group


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder whose log holds two executions, one of them open."""
    journal = Journal(tmp_path / "journal")
    write_group(journal, [Event(1, ExecutionRequested(b"d" * 32, "a"), 1), Event(2, ExecutionFinished(), 1)])
    write_group(journal, [Event(3, ExecutionRequested(b"d" * 32, "a"), 3)])
    write_group(journal, [Event(4, Gap(1, 1, "x")), Event(5, BootStopped())])
    journal.close()
    return tmp_path


def test_events_are_counted_by_type(data: Path) -> None:
    """Groups, numbers, types with their bytes, and what is open."""
    figures = count(group for _, group, _ in read_groups(data / "journal"))
    assert (figures.first_seq, figures.last_seq, figures.groups, len(figures.boots)) == (1, 5, 3, 1)
    assert figures.open_executions == {3}
    assert figures.events_by_type["playbook.execution.requested"] == 2
    assert figures.bytes_by_type["playbook.execution.requested"] > 2 * 32
    assert sum(figures.events_by_type.values()) == 5


def test_the_command_tells_it(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people in lines, for programs as one JSON object."""
    assert main(["log", "stat", "--data", str(data)]) == 0
    said = capsys.readouterr().out
    assert "events   1 to 5 in 3 groups, 1 boots" in said
    assert "open     1 executions" in said
    assert main(["log", "stat", "--json", "--data", str(data)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["events_by_type"]["gap"] == 1
    assert document["size_bytes"]["journal"] > 0


def test_an_empty_folder_is_refused_with_the_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no log it says so."""
    assert main(["log", "stat", "--data", str(tmp_path)]) != 0
    assert "There is no log" in capsys.readouterr().err
