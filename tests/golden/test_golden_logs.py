"""Golden logs: what released versions wrote, this release reads to the same state, for ever."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge.core.chain import GENESIS, link_of
from edge.core.events import BODIES, BootStopped, Event
from edge.core.state import fold
from edge.runtime.commit.catching_up import catch_up
from edge.store.eventlog import EventLog
from edge.store.journal import Journal, read_groups
from edge.store.segment_file import segment_paths
from edge.store.verify import verify_journal
from edge.testing.history import write_group
from edge.testing.plain import plain

HERE = Path(__file__).parent
VERSIONS = sorted(path.name for path in HERE.iterdir() if path.is_dir() and path.name.startswith("v"))


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Path:
    """The folder of one released version."""
    return HERE / str(request.param)


def expected_of(version: Path) -> dict[str, Any]:
    return json.loads((version / "expected.json").read_text("utf-8"))  # type: ignore[no-any-return]


def events_of(version: Path) -> list[Event]:
    return [event for _, group, _ in read_groups(version / "journal") for event in group.events()]


def test_there_is_a_golden_log() -> None:
    """At least version 1 is there."""
    assert "v1" in VERSIONS


def test_the_chain_still_verifies(version: Path) -> None:
    """Every segment, group and link of the log is whole, and the links are those recorded."""
    expected = expected_of(version)
    report = verify_journal(version / "journal")
    assert report.problems == []
    assert (report.log_id.hex(), report.events, report.groups) == (
        expected["log_id"],
        expected["events"],
        expected["groups"],
    )
    links, link = [], GENESIS
    for header, group, _ in read_groups(version / "journal"):
        for place in range(0, len(group.parts), 2):
            seq, envelope, body = group.first_seq + place // 2, group.parts[place], group.parts[place + 1]
            link = link_of(link, group.context_bytes, header.epoch_key, seq, envelope, body)
            links.append(link.hex())
    assert links == expected["links"]


def test_every_execution_folds_to_the_same_state(version: Path) -> None:
    """The fold of every execution is, byte for byte as JSON, what it was when the log was recorded."""
    expected, events = expected_of(version), events_of(version)
    assert [event.seq for event in events] == expected["seqs"]
    assert [event.type for event in events] == expected["types"]
    for execution, state in expected["executions"].items():
        made = plain(fold(event for event in events if event.execution == int(execution)))
        assert json.dumps(made, sort_keys=True) == json.dumps(state, sort_keys=True), execution


def test_every_type_of_the_version_is_in_it() -> None:
    """Version 1 holds every event type there is; a new type needs a new golden log."""
    types = {event.type for version in VERSIONS for event in events_of(HERE / version)}
    assert types == {body.TYPE for body in BODIES}


def test_the_box_can_go_on_from_it(version: Path, tmp_path: Path) -> None:
    """A journal of that version opens, fills an index, and takes more events."""
    expected = expected_of(version)
    shutil.copytree(version / "journal", tmp_path / "journal")
    journal = Journal(
        tmp_path / "journal", segment_bytes=segment_paths(tmp_path / "journal")[0].stat().st_size
    )
    index = EventLog(tmp_path / "index")
    assert catch_up(journal, index) == expected["events"]
    for execution, state in expected["executions"].items():
        assert plain(fold(index.events_of(int(execution)))) == state
    open_ones = sorted(int(seq) for seq, state in expected["executions"].items() if "status" not in state)
    assert index.open_executions() == open_ones
    write_group(journal, [Event(journal.last_seq + 1, BootStopped())])
    assert catch_up(journal, index) == 1
    index.close()
    journal.close()
    assert verify_journal(tmp_path / "journal").whole


def test_this_release_still_writes_the_same(version: Path, tmp_path: Path) -> None:
    """Recording again gives the same bytes: nothing about the format changed without a new version."""
    spec = importlib.util.spec_from_file_location("record", HERE / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = tmp_path / version.name
    module.record(made)
    recorded = {path.relative_to(version): path.read_bytes() for path in version.rglob("*.*")}
    again = {path.relative_to(made): path.read_bytes() for path in made.rglob("*.*")}
    assert again == recorded


def test_it_is_small() -> None:
    """Golden logs stay in the repository for ever: under 200 KB in all, their segments and tables apart."""
    assert (
        sum(
            path.stat().st_size
            for path in HERE.rglob("*")
            if path.is_file() and not {"__pycache__", "sealed", "tables"} & set(path.parts)
        )
        < 200_000
    )
