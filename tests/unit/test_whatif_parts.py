"""What-if over a box's own log: how it is cut into parts, and when a part that was answered is asked again."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from edge.cli.whatif import told
from edge.core.errors import RequestRefused
from edge.core.events import Event, ExecutionFinished, ExecutionRequested, StepDone
from edge.core.settings import load_settings
from edge.replay import derived
from edge.replay.derived import Asked, Derived, Unit, parts_of_journal
from edge.replay.journal_source import JournalSource
from edge.store.journal import Journal
from edge.testing.history import write_group
from playbooks.compile import compile_playbook

PLAYBOOK = b"""
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: p, path: p}
workflow: [{step: end, tool: {kind: transform, value: 1}}]
"""


@pytest.fixture
def asked() -> Asked:
    return Asked(compile_playbook(PLAYBOOK, "p.yaml"))


def grown(folder: Path, bodies: list[object], execution: int = 1) -> JournalSource:
    """The log of a folder with these events more, each durable by itself."""
    journal = Journal(folder / "journal")
    for body in bodies:
        write_group(journal, [Event(journal.next_seq, body, execution, "end")])  # type: ignore[arg-type]
    journal.close()
    return JournalSource(load_settings(folder))


def test_a_part_is_asked_again_where_the_log_went_on_without_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Asked
) -> None:
    """Its execution may have ended in events that are no part of their own, since nothing begins there."""
    monkeypatch.setattr(derived, "_PART_EVENTS", 1)
    request = ExecutionRequested(bytes(32), "me")
    parts, last_seq = parts_of_journal(grown(tmp_path, [request, StepDone(b"\x01")]), asked)
    assert [(part.first_seq, part.last_seq) for part in parts] == [(1, 2)]
    kept = Derived(tmp_path, asked)
    kept.begin()
    kept.write(Unit(parts[0].name, open=1, header={"open": 1, "timeless": 0, "log_through": last_seq}))
    assert kept.read(parts[0].name, last_seq) is not None
    again, last_seq = parts_of_journal(grown(tmp_path, [ExecutionFinished(), ExecutionFinished()]), asked)
    assert again == parts
    assert kept.read(parts[0].name, last_seq) is None


def test_copied_logs_that_differ_at_the_end_alone_are_told_apart(tmp_path: Path, asked: Asked) -> None:
    """The parts of two cards copied from one have the same numbers, and names of their own."""
    request = ExecutionRequested(bytes(32), "me")
    names = []
    for end in (b"\x01", b"\x02"):
        folder = tmp_path / end.hex()
        folder.mkdir()
        names.append(parts_of_journal(grown(folder, [request, StepDone(end)]), asked)[0][0].name)
    assert names[0] != names[1]


def test_a_question_about_nothing_leaves_nothing(tmp_path: Path, asked: Asked) -> None:
    """A refusal takes the folder of its results away."""
    derived = Derived(tmp_path, asked)
    derived.begin()
    with pytest.raises(RequestRefused, match="No execution"):
        told([], asked, derived, argparse.Namespace(json=False))
    assert list((tmp_path / "derived" / "whatif").iterdir()) == []


def test_a_damaged_answer_is_made_again(tmp_path: Path, asked: Asked) -> None:
    """Cut short or empty, it is as if it were not there."""
    kept = Derived(tmp_path, asked)
    kept.begin()
    for data in (b"", b'{"open": 0', b"[]\n"):
        (kept.folder / "part.jsonl").write_bytes(data)
        assert kept.read("part", 1) is None
