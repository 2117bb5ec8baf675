"""`edge log stat`: what it counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.cli.log_stat import count
from edge.cli.main import main
from edge.core.chain import Context, encode_event
from edge.core.events import BootStopped, Event, ExecutionFinished, ExecutionRequested, Gap
from edge.core.retention_events import Carried, LogPruned
from edge.store.journal import Journal, read_groups
from edge.testing.clock import ManualClock
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
    assert "events   1 to 5 in 3 groups, 1 boot" in said
    assert "open     1 execution" in said
    assert main(["log", "stat", "--json", "--data", str(data)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["events_by_type"]["gap"] == 1
    assert document["size_bytes"]["journal"] > 0


def test_it_tells_what_is_kept_and_what_was_pruned(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The settings of retention, up to where the log was pruned and why, and what is carried."""
    journal = Journal(data / "journal")
    original = Event(3, ExecutionRequested(b"d" * 32, "a"), 3)
    envelope, body = encode_event(original)
    copy = Carried(3, Context(b"l" * 8, b"b" * 16, ManualClock().read()).encode(), envelope, body, open=True)
    write_group(journal, [Event(6, copy, 3), Event(7, LogPruned(2, b"l" * 32, "age", 2, 9, 1))])
    journal.close()
    (data / "edge.toml").write_text('retain_days = 30\nretain_mb = 500\nretain_policy = "oldest"\n')
    assert main(["log", "stat", "--data", str(data)]) == 0
    said = capsys.readouterr().out
    assert "kept     30 days, 500 MB, oldest, no centre; ids for 7 days" in said
    assert "pruned   up to event 2, last by age; 1 event carried" in said
    assert main(["log", "stat", "--json", "--data", str(data)]) == 0
    kept = json.loads(capsys.readouterr().out)["retention"]
    assert (kept["pruned_through"], kept["now"]) == (2, None)
    assert main(["log", "show", "--data", str(data)]) == 0
    said = capsys.readouterr().out
    assert "carried of 3  event 3 playbook.execution.requested" in said
    assert "log.pruned  up to event 2 by age, 2 events, 1 events carried" in said


def test_an_empty_folder_is_refused_with_the_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no log it says so."""
    assert main(["log", "stat", "--data", str(tmp_path)]) != 0
    assert "There is no log" in capsys.readouterr().err
