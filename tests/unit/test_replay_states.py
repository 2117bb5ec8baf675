"""States folded again: at any event, over gaps and pruned beginnings, and which event a moment means."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from edge.core.carried import kept_of
from edge.core.chain import Context, OpenedGroup, encode_event
from edge.core.clock import WALL_IMPLAUSIBLE, WALL_SYNCHRONISED, WALL_UNCONFIRMED, Reading
from edge.core.errors import LogDamaged, RequestRefused
from edge.core.events import Event, ExecutionFinished, ExecutionRequested, StepDone
from edge.core.retention_events import Carried
from edge.core.state import fold
from edge.replay.instants import Instant, instant
from edge.replay.log_state import log_state
from edge.replay.reconstruct import events_of, reconstruct
from edge.replay.sealed_source import SealedSource, folder_source
from edge.replay.source import Missing
from edge.replay.state_digest import state_digest
from edge.security.signing import Signer
from edge.segments.sealing import Sealing, sealed_paths
from edge.store.blobs import BlobStore
from edge.store.journal import Journal
from edge.testing.history import write_group

SECOND_NS = 1_000_000_000
TEN_NS = 1_790_000_000 * SECOND_NS
BOOTS = (bytes(16), bytes([1]) * 16)


def history(first: int) -> list[Event]:
    """An execution of two steps: four events, numbered from `first` on."""
    return [
        Event(first, ExecutionRequested(bytes(32), "me"), first),
        Event(first + 1, StepDone(b"\x01", arc=0), first, "a"),
        Event(first + 2, StepDone(b"\x02"), first, "b"),
        Event(first + 3, ExecutionFinished(result_step="b"), first),
    ]


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """Four segments of one execution and a half each, and a last one that has not ended."""
    journal = Journal(tmp_path / "journal")
    sealing = Sealing(tmp_path / "sealed", Signer(bytes(32)), "pump", BlobStore(tmp_path / "blobs"))
    events = [event for number in range(6) for event in history(1 + 4 * number)][:-1]
    for start in range(0, len(events), 6):
        write_group(journal, events[start : start + 6])
        list(sealing.seal(journal.folder, journal.last_seq, everything=True))
    journal.close()
    return tmp_path / "sealed"


def test_at_every_event_it_is_what_was_folded_of_them(sealed: Path) -> None:
    """The state after event N is the fold of the execution's events up to it, and its digest is that state's."""
    source = folder_source(sealed)
    events = list(events_of(source))
    for execution in (1, 5, 21):
        own = [event for event in events if event.execution == execution]
        for event in own:
            made = reconstruct(source, execution, event.seq)
            expected = fold(each for each in own if each.seq <= event.seq)
            assert (made.state, made.digest) == (expected, state_digest(expected))
    whole = log_state(source)
    assert (whole.executions, whole.open, whole.through, whole.lacks) == (6, 1, 23, "")
    assert log_state(source, 12).executions == 3


def test_a_changed_value_is_another_digest(sealed: Path) -> None:
    """Two executions that differ in one output differ in their digests; the same one never does."""
    events = history(1)
    other = [*events[:2], Event(3, StepDone(b"\x03"), 1, "b"), events[3]]
    assert state_digest(fold(events)) == state_digest(fold(history(1)))
    assert state_digest(fold(events)) != state_digest(fold(other))


def test_what_is_missing_is_named(sealed: Path) -> None:
    """Of a log with a hole the state before it is told; an execution that may have events in it is not guessed."""
    sealed_paths(sealed)[1].unlink()
    source = folder_source(sealed)
    assert source.missing == [Missing(7, 12, "segment 1 of the log")]
    assert log_state(source).through == 6
    assert "segment 1 of the log not here" in log_state(source).lacks
    assert reconstruct(source, 1).state.status == "completed"
    assert reconstruct(source, 13).state.status == "completed"
    with pytest.raises(LogDamaged, match="some may be execution 5's"):
        reconstruct(source, 5)
    assert reconstruct(source, 5, 6).state.status == "running"
    with pytest.raises(RequestRefused, match="began among events that are not here"):
        reconstruct(source, 9)
    with pytest.raises(RequestRefused, match="There is no execution 14"):
        reconstruct(source, 14)
    with pytest.raises(RequestRefused, match="had not begun at event 4"):
        reconstruct(source, 5, 4)


def test_as_it_was_known(sealed: Path) -> None:
    """With the segments that had come by a time, the log ends where they end."""
    source = folder_source(sealed)
    assert log_state(source.known_at(0), None).executions == 0
    came = [each.came_ns for each in source.files]
    assert log_state(source.known_at(max(came))) == log_state(source)


def test_no_segments_are_refused_in_words(tmp_path: Path) -> None:
    """An empty folder, and one of two logs."""
    with pytest.raises(RequestRefused, match="holds no sealed segments"):
        folder_source(tmp_path)


class Groups:
    """A log of given groups."""

    log_id, box = bytes(8), "pump"
    missing: list[Missing] = []

    def __init__(self, groups: list[tuple[int, list[Event]]]) -> None:
        self._groups = groups

    def groups(self, after_seq: int = 0) -> Any:
        for first, events in self._groups:
            parts = [part for event in events for part in encode_event(event)]
            group = OpenedGroup(first, Context(bytes(8), bytes(16), Reading(0, 0, 0)), b"", parts, b"")
            if group.last_seq > after_seq:
                yield group

    def blob(self, digest: bytes) -> bytes:
        raise LogDamaged


def test_a_pruned_beginning_is_told_by_what_was_carried() -> None:
    """Of an open execution all is there; of one that ended what was kept, and it says so; the rest is refused."""
    open_one, ended, gone = history(1)[:2], history(5), history(9)
    carried = [
        Event(101 + n, Carried(each.seq, b"", *encode_event(each), True), 1)
        for n, each in enumerate(open_one)
    ]
    kept = Event(103, kept_of([ended[0], ended[2], ended[3]], b"", b"", 0), 103)
    source = Groups([(101, [*carried, kept]), (104, [Event(104, StepDone(b"\x02"), 1, "b")])])
    whole = Groups([(1, open_one), (104, [Event(104, StepDone(b"\x02"), 1, "b")])])
    assert reconstruct(source, 1).digest == reconstruct(whole, 1).digest
    assert reconstruct(source, 1, 2).digest == reconstruct(whole, 1, 2).digest
    made = reconstruct(source, 5)
    assert (made.thinned, made.state.status) == (True, "completed")
    assert (log_state(source).executions, log_state(source).thinned) == (2, 1)
    with pytest.raises(RequestRefused, match="execution 9 was pruned"):
        reconstruct(source, gone[0].seq)


def group(seq: int, boot: int, mono_s: float, wall_s: float, trust: int) -> OpenedGroup:
    at = Reading(round(mono_s * SECOND_NS), TEN_NS + round(wall_s * SECOND_NS), trust)
    return OpenedGroup(seq, Context(bytes(8), BOOTS[boot], at), b"", [b"", b""] * 10, b"")


def at(seconds: float, *groups: OpenedGroup) -> Instant:
    return instant(groups, TEN_NS + round(seconds * SECOND_NS))


def test_a_moment_by_synchronised_clocks() -> None:
    """The last group written by then; where a group lies at the moment itself the clock's width is said."""
    log = [group(1 + 10 * n, 0, n, n, WALL_SYNCHRONISED) for n in range(5)]
    found = at(2.5, *log)
    assert (found.seq, found.first, found.last, found.words) == (30, 30, 30, "after event 30")
    near = at(2.0, *log)
    assert (near.seq, near.first, near.last) == (30, 20, 30)
    assert "may be wrong by 0.1 s" in near.words
    with pytest.raises(RequestRefused, match="came after that moment"):
        at(-5, *log)


def test_a_clock_that_was_set_later_is_read_backwards() -> None:
    """What was written before the clock was set is placed by the set clock of the same boot."""
    woke = group(1, 0, 10, -1_000_000, WALL_IMPLAUSIBLE)
    found = at(15, woke, group(11, 0, 20, 20, WALL_SYNCHRONISED))
    assert (found.seq, found.last) == (10, 10)


def test_a_boot_that_no_clock_placed_lies_anywhere_between() -> None:
    """A boot whose clock was never set is told as the range in which the moment may lie."""
    log = [
        group(1, 0, 0, 0, WALL_SYNCHRONISED),
        group(11, 1, 5, -1_000_000, WALL_IMPLAUSIBLE),
        group(21, 0, 100, 100, WALL_SYNCHRONISED),
    ]
    found = at(50, *log)
    assert (found.seq, found.first, found.last) == (10, 10, 20)
    with pytest.raises(RequestRefused, match="no event of it has a time"):
        at(50, log[1])


def test_an_unconfirmed_clock_says_how_little_it_knows() -> None:
    """Set by nobody: an hour either way, however close the reading is."""
    found = at(5_000, *[group(1 + 10 * n, 0, n * 1_000, n * 1_000, WALL_UNCONFIRMED) for n in range(20)])
    assert (found.seq, found.first, found.last) == (60, 20, 90)


def test_segments_of_two_logs_are_refused(sealed: Path, tmp_path: Path) -> None:
    """A folder tells one log."""
    journal = Journal(tmp_path / "other")
    write_group(journal, history(1))
    sealing = Sealing(tmp_path / "sealed2", Signer(bytes(32)), "pump", BlobStore(tmp_path / "blobs"))
    list(sealing.seal(journal.folder, journal.last_seq, everything=True))
    journal.close()
    shutil.copy(sealed_paths(tmp_path / "sealed2")[0], sealed / "000000000009.segment")
    with pytest.raises(RequestRefused, match="holds segments of 2 logs"):
        folder_source(sealed)
    source = folder_source(tmp_path / "sealed2")
    wrong = SealedSource(bytes(8), "pump", source.files, source.blob)
    with pytest.raises(Exception, match="is not segment 0 of log"):
        list(wrong.groups())


def test_a_part_of_a_segment_is_that_part_of_it(tmp_path: Path) -> None:
    """From any event on, groups come whole, once and in order, whatever part of the segment is put together first."""
    journal = Journal(tmp_path / "journal")
    events = [event for number in range(60) for event in history(1 + 4 * number)]
    for start in range(0, len(events), 7):
        write_group(journal, events[start : start + 7])
    sealing = Sealing(tmp_path / "sealed", Signer(bytes(32)), "pump", BlobStore(tmp_path / "blobs"))
    list(sealing.seal(journal.folder, journal.last_seq, everything=True))
    journal.close()
    source = folder_source(tmp_path / "sealed")
    whole = [(group.first_seq, group.parts) for group in source.groups()]
    for after in range(len(events)):
        expected = [each for each in whole if each[0] + len(each[1]) // 2 - 1 > after]
        assert [(group.first_seq, group.parts) for group in source.groups(after)] == expected
