"""Golden states: what the logs of released versions fold to, as digests that no release may change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.core.settings import load_settings
from edge.replay.journal_source import JournalSource
from edge.replay.log_state import LogState, log_state
from edge.replay.reconstruct import reconstruct
from edge.replay.sealed_source import folder_source

HERE = Path(__file__).parent
DIGESTS = json.loads((HERE / "states.json").read_text())
LOGS = sorted(path.name for path in HERE.glob("v*") if path.is_dir())


def of_journal(log: str) -> JournalSource:
    return JournalSource(load_settings(HERE / log))


def told(state: LogState) -> list[object]:
    return [state.executions, state.open, state.thinned, state.digest.hex()]


@pytest.mark.parametrize("log", LOGS)
def test_the_state_of_a_log_is_the_same_for_ever(log: str) -> None:
    """Its digest is the one that was written down when the log was recorded."""
    assert told(log_state(of_journal(log))) == DIGESTS[log]


@pytest.mark.parametrize("log", LOGS)
def test_segments_and_journal_say_the_same(log: str) -> None:
    """Every codec's segments fold to the journal's state, whole and execution by execution, at every event."""
    journal = of_journal(log)
    whole = log_state(journal)
    for folder in sorted((HERE / "sealed").glob(f"*/{log}/*")):
        source = folder_source(folder)
        assert log_state(source) == whole
        for through in range(1, whole.through):
            assert log_state(source, through) == log_state(journal, through)
        for execution in requested(journal):
            assert reconstruct(source, execution) == reconstruct(journal, execution)


def requested(source: JournalSource) -> list[int]:
    """The executions of a log."""
    events = (event for group in source.groups() for event in group.events())
    return [event.seq for event in events if event.type == "playbook.execution.requested"]
