"""The gate and its homes: what lies where at which moment, and look-ups the same wherever an event stands."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from edge.core.errors import StorageFailed
from edge.core.events import BootStopped, ExecutionRequested, ExecutionResumed, Gap, StepDone
from edge.core.limits import INDEX_EVENTS_PER_COMMIT, KIB
from edge.store.eventlog import EventLog
from edge.store.index_rows import IndexedGroup, payload_mark
from edge.store.segment_file import segment_paths
from edge.store.verify import compare_index, verify_journal
from tests.unit.gate_rig import Rig, SlowIndex, turns


async def test_rolling_over_keeps_order_and_chain(tmp_path: Path) -> None:
    """Bursts over many segments stay one whole log in both homes."""
    rig = Rig(tmp_path, 12 * KIB)
    for _ in range(12):
        for _ in range(10):
            event = rig.gate.append(Gap(1, 1, "x" * 100))
            rig.gate.after(event.seq, rig.note(event.seq))
        await rig.gate.flushed()
    await rig.close()
    assert rig.called == list(range(1, 121))
    assert len(segment_paths(tmp_path / "journal")) > 3
    report = verify_journal(tmp_path / "journal")
    index = EventLog(tmp_path / "index", readonly=True)
    compare_index(
        tmp_path / "journal", ((group.first_seq, key, data) for key, group, data in index.groups()), report
    )
    index.close()
    assert report.whole
    assert (report.last_seq, report.index_last_seq) == (120, 120)


async def test_a_blob_is_on_the_drive_before_the_event_that_names_it(tmp_path: Path) -> None:
    """When the group is about to be written, the blob it names is stored already."""
    rig = Rig(tmp_path)
    rig.journal.open.clear()
    rig.gate.store_blob(hashlib.sha256(b"large").digest(), b"large")
    assert rig.gate.blob(hashlib.sha256(b"large").digest()) == b"large", "also before it is written"
    rig.append()
    await rig.in_flight()
    (blob,) = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert blob.read_bytes() == b"large"
    assert rig.groups() == []
    rig.journal.open.set()
    await rig.close()


@pytest.mark.parametrize("stage", ["pending", "in flight", "overlay", "index"])
async def test_look_ups_are_the_same_at_every_stage(tmp_path: Path, stage: str) -> None:
    """A request is found by its id, and its events by execution, wherever they stand on their way."""
    rig = Rig(tmp_path)
    body = ExecutionRequested(b"d" * 32, "alice", "r1", payload=b"{}")
    if stage == "in flight":
        rig.journal.open.clear()
    request = rig.gate.append(body)
    expected = [request, rig.gate.append(StepDone(b"\x01"), execution=1, step="a")]
    rig.gate.append(StepDone(b"\x01"), execution=99, step="a")
    if stage == "in flight":
        await rig.in_flight()
    elif stage == "overlay":
        await rig.gate.flushed()
    elif stage == "index":
        await rig.close()
        rig = Rig(tmp_path)
        assert rig.gate.next_seq == 4
    assert rig.gate.find_request("alice", "r1") == (1, payload_mark(body))
    assert rig.gate.find_request("alice", "r2") is None
    assert rig.gate.find_request("bob", "r1") is None
    assert rig.gate.events_of(1) == expected
    more = rig.gate.append(ExecutionResumed(), execution=1)
    assert rig.gate.events_of(1) == [*expected, more]
    await rig.close()


async def test_nothing_is_seen_twice_while_it_moves_into_the_index(tmp_path: Path) -> None:
    """Between the index's commit and its report an event is in both places and is shown once."""
    index = SlowIndex(tmp_path / "index")
    rig = Rig(tmp_path, eventlog=index)
    rig.gate.append(ExecutionRequested(b"d" * 32, "alice", "r1"))
    for _ in range(INDEX_EVENTS_PER_COMMIT):
        rig.gate.append(BootStopped())
    last = rig.gate.append(ExecutionResumed(), execution=1)
    await rig.gate.flushed()
    assert await asyncio.to_thread(index.committed.acquire, timeout=10)
    assert [event.seq for event in rig.gate.events_of(1)] == [1, last.seq]
    index.reported.set()
    await rig.close()


async def test_closing_puts_everything_into_the_index(tmp_path: Path) -> None:
    """After closing, journal and index end at the same event with the same link."""
    rig = Rig(tmp_path)
    rig.append(5)
    await rig.gate.close()
    assert rig.eventlog.last() == (5, rig.journal.last_link)
    assert rig.called == [1, 2, 3, 4, 5]
    rig.eventlog.close()
    rig.journal.close()


async def test_the_index_never_runs_ahead_of_the_journal(tmp_path: Path) -> None:
    """While a flush is held, nothing of it is in the index, however many events wait."""
    rig = Rig(tmp_path)
    rig.journal.open.clear()
    rig.append(INDEX_EVENTS_PER_COMMIT)
    await rig.in_flight()
    await turns()
    assert rig.eventlog.last()[0] == 0
    await rig.close()


async def test_a_failed_index_ends_the_runtime_too(tmp_path: Path) -> None:
    """An index that cannot be written is reported like a journal that cannot."""

    class BrokenIndex(EventLog):
        def commit(self, groups: list[IndexedGroup], log_id: bytes) -> None:  # type: ignore[override]
            raise StorageFailed("the index broke")

    rig = Rig(tmp_path, eventlog=BrokenIndex(tmp_path / "index"))
    rig.append(INDEX_EVENTS_PER_COMMIT)
    assert (await rig.failure()).message == "the index broke"
    await rig.close()
