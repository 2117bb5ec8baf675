"""The gate: numbers at once, callbacks only once durable, look-ups the same wherever an event stands."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.core.chain import Group
from edge.core.errors import StorageFailed
from edge.core.events import BootStopped, Event, ExecutionRequested, ExecutionResumed, Gap, StepDone
from edge.core.limits import GROUP_BYTES_MAX, GROUP_EVENTS_MAX, INDEX_EVENTS_PER_COMMIT, KIB, MIB
from edge.runtime.commit import CommitGate
from edge.store.blobs import BlobStore
from edge.store.eventlog import EventLog, IndexedGroup, payload_mark
from edge.store.journal import Journal, read_groups
from edge.store.segment_file import segment_paths
from edge.store.verify import compare_index, verify_journal
from edge.testing.box import BOOT_ID
from edge.testing.clock import ManualClock


class HeldJournal(Journal):
    """A journal whose every write waits until the test lets it go on."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        super().__init__(folder, segment_bytes=segment_bytes)
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)

    def write(self, group: Group) -> None:
        self.entered.release()
        assert self.open.wait(10)
        super().write(group)


class Rig:
    """A gate over real homes, with a journal that can be held."""

    def __init__(
        self, folder: Path, segment_bytes: int = 256 * KIB, eventlog: EventLog | None = None
    ) -> None:
        self.folder = folder
        self.journal = HeldJournal(folder / "journal", segment_bytes)
        self.eventlog = eventlog or EventLog(folder / "index")
        self.failed: asyncio.Future[StorageFailed] = asyncio.get_running_loop().create_future()
        self.called: list[int] = []
        self.gate = CommitGate(
            self.journal,
            self.eventlog,
            BlobStore(folder / "blobs"),
            ManualClock(),
            BOOT_ID,
            on_failure=lambda error: self.failed.done() or self.failed.set_result(error),
        )

    def append(self, count: int = 1) -> list[Event]:
        """Append events that call back with their numbers."""
        events = [self.gate.append(BootStopped()) for _ in range(count)]
        for event in events:
            self.gate.after(event.seq, self.note(event.seq))
        return events

    def note(self, seq: int) -> Callable[[bytes], None]:
        return lambda _: self.called.append(seq)

    async def in_flight(self) -> None:
        """Wait until the journal thread stands before its write."""
        assert await asyncio.to_thread(self.journal.entered.acquire, timeout=10)

    async def failure(self) -> StorageFailed:
        """The error that was reported; fails where none is."""
        async with asyncio.timeout(5):
            return await self.failed

    async def close(self) -> None:
        self.journal.open.set()
        await self.gate.close()
        self.eventlog.close()
        self.journal.close()

    def groups(self) -> list[list[int]]:
        """Numbers of the events on the drive, group by group."""
        return [
            [event.seq for event in group.events()] for _, group, _ in read_groups(self.folder / "journal")
        ]


async def turns() -> None:
    """Let the loop do whatever it could do now."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_nothing_is_called_back_before_it_is_durable(tmp_path: Path) -> None:
    """While the flush is under way no callback runs; after it all do, with the chain's link."""
    rig = Rig(tmp_path)
    rig.journal.open.clear()
    links: list[bytes] = []
    (event,) = rig.append()
    rig.gate.after(event.seq, links.append)
    await rig.in_flight()
    await turns()
    assert (rig.called, rig.gate.durable_seq, rig.groups()) == ([], 0, [])
    rig.journal.open.set()
    await rig.gate.flushed()
    assert (rig.called, rig.gate.durable_seq, rig.groups()) == ([1], 1, [[1]])
    assert links == [rig.journal.last_link]
    await rig.close()


async def test_a_callback_sees_its_event_on_the_drive(tmp_path: Path) -> None:
    """At the moment of the callback the journal's file already holds the event."""
    rig = Rig(tmp_path)
    found: list[list[list[int]]] = []
    event = rig.gate.append(BootStopped())
    rig.gate.after(event.seq, lambda _: found.append(rig.groups()))
    await rig.gate.flushed()
    assert found == [[[1]]]
    await rig.close()


async def test_callbacks_come_in_order_of_number(tmp_path: Path) -> None:
    """However they were asked for, callbacks run in the order of their events, and for one event as asked."""
    rig = Rig(tmp_path)
    events = [rig.gate.append(BootStopped()) for _ in range(5)]
    for event in reversed(events):
        rig.gate.after(event.seq, rig.note(event.seq))
    rig.gate.after(3, rig.note(33))
    await rig.gate.flushed()
    assert rig.called == [1, 2, 3, 33, 4, 5]
    await rig.close()


async def test_what_comes_while_flushing_shares_the_next_group(tmp_path: Path) -> None:
    """Events appended during a flush wait for it and then go in one group."""
    rig = Rig(tmp_path)
    rig.journal.open.clear()
    rig.append()
    await rig.in_flight()
    rig.append(4)
    await turns()
    rig.append(3)
    rig.journal.open.set()
    await rig.gate.flushed()
    assert rig.groups() == [[1], [2, 3, 4, 5, 6, 7, 8]]
    assert rig.called == list(range(1, 9))
    await rig.close()


async def test_events_of_one_turn_share_a_group(tmp_path: Path) -> None:
    """Events appended in one turn of the loop, and from their callbacks, cost one flush each time."""
    rig = Rig(tmp_path)
    rig.append(3)
    rig.gate.after(3, lambda _: rig.append(2) and None)
    await rig.gate.flushed()
    assert rig.groups() == [[1, 2, 3], [4, 5]]
    assert rig.called == [1, 2, 3, 4, 5]
    await rig.close()


async def test_groups_are_bounded_in_events_and_bytes(tmp_path: Path) -> None:
    """A burst is split into groups of at most GROUP_EVENTS_MAX events and GROUP_BYTES_MAX bytes."""
    rig = Rig(tmp_path, 4 * MIB)
    for _ in range(GROUP_EVENTS_MAX + 10):
        rig.gate.append(BootStopped())
    await rig.gate.flushed()
    assert [len(group) for group in rig.groups()] == [GROUP_EVENTS_MAX, 10]
    for _ in range(5):
        rig.gate.append(Gap(1, 1, "x" * (GROUP_BYTES_MAX // 3)))
    await rig.gate.flushed()
    sizes = [len(data) for _, _, data in read_groups(tmp_path / "journal")]
    assert max(sizes) <= GROUP_BYTES_MAX
    assert [len(group) for group in rig.groups()][2:] == [2, 2, 1]
    await rig.close()


async def test_a_callback_never_runs_inside_after(tmp_path: Path) -> None:
    """Asking for a callback never calls it, and asking for what is durable already is a programmer's error."""
    rig = Rig(tmp_path)
    rig.append()
    assert rig.called == []
    await rig.gate.flushed()
    with pytest.raises(AssertionError):
        rig.gate.after(1, rig.note(1))
    await rig.close()


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


class SlowIndex(EventLog):
    """An index whose commit is done but not yet reported."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reported = threading.Event()
        self.committed = threading.Semaphore(0)

    def commit(self, groups: list[IndexedGroup], log_id: bytes) -> None:  # type: ignore[override]
        super().commit(groups, log_id)
        self.committed.release()
        assert self.reported.wait(10)


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


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
async def test_a_failed_flush_calls_nobody_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A failed flush is reported once and no waiter of it, before or after, is ever called."""
    rig = Rig(tmp_path)
    rig.append(2)
    await rig.gate.flushed()

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fdatasync", fail)
    rig.append(3)
    error = await rig.failure()
    assert os.strerror(number) in error.message
    rig.append(2)
    await turns()
    assert (rig.called, rig.gate.durable_seq) == ([1, 2], 2)
    monkeypatch.undo()
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


async def test_waiting_for_a_flush_that_fails_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for everything to be flushed is let go when the journal fails."""
    rig = Rig(tmp_path)

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fail)
    rig.append()
    try:
        async with asyncio.timeout(0.2):
            await rig.gate.flushed()
    finally:
        monkeypatch.undo()
        rig.gate._idle.set()
        await rig.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_any_error_on_the_journal_thread_ends_the_runtime(tmp_path: Path) -> None:
    """An error nobody expected on the journal thread is reported, not swallowed with the thread."""

    class OddBlobs(BlobStore):
        def put(self, data: bytes) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    rig = Rig(tmp_path)
    rig.gate._blobs = OddBlobs(tmp_path / "blobs")
    rig.gate.store_blob(hashlib.sha256(b"x").digest(), b"x")
    rig.append()
    try:
        async with asyncio.timeout(0.2):
            await rig.failed
    finally:
        rig.eventlog.close()
        rig.journal.close()


async def test_what_nobody_waits_for_goes_with_what_somebody_does(tmp_path: Path) -> None:
    """An event that is held back is not flushed by itself; the next wanted one takes it along, in one group."""
    rig = Rig(tmp_path)
    held = rig.gate.append(BootStopped(), held_back=True)
    await turns()
    assert rig.groups() == []
    (wanted,) = rig.append()
    await rig.gate.flushed()
    assert rig.groups() == [[held.seq, wanted.seq]]
    await rig.close()


async def test_waiting_for_a_held_event_ends_its_holding(tmp_path: Path) -> None:
    """Once somebody asks to be called back, an event held back is flushed like any other."""
    rig = Rig(tmp_path)
    held = rig.gate.append(BootStopped(), held_back=True)
    rig.gate.after(held.seq, rig.note(held.seq))
    await rig.in_flight()
    await rig.gate.flushed()
    assert rig.called == [held.seq]
    await rig.close()


async def test_a_held_event_is_not_held_for_ever(tmp_path: Path) -> None:
    """With nobody waiting for anything, a held event still becomes durable by itself."""
    rig = Rig(tmp_path)
    held = rig.gate.append(BootStopped(), held_back=True)
    await rig.in_flight()
    async with asyncio.timeout(5):
        while rig.gate.durable_seq < held.seq:
            await asyncio.sleep(0)
    assert rig.groups() == [[held.seq]]
    await rig.close()


async def test_an_event_that_cannot_be_written_down_ends_the_runtime(tmp_path: Path) -> None:
    """Nothing is flushed past an event that has no bytes; it is reported like a failed drive."""
    rig = Rig(tmp_path)
    rig.gate.append(StepDone(ctx={"a": object()}), execution=1, step="s")
    rig.append()
    assert "TypeError" in (await rig.failure()).message
    assert (rig.called, rig.groups()) == ([], [])
    await rig.close()


async def test_with_nothing_under_way_a_quick_drive_is_flushed_on_the_loop(tmp_path: Path) -> None:
    """The loop's own thread writes the group where no claim is under way and the last flush was quick."""
    rig = Rig(tmp_path)
    threads: list[str] = []
    write = rig.journal.write

    def noted(group: Group) -> None:
        threads.append(threading.current_thread().name)
        write(group)

    rig.journal.write = noted  # type: ignore[method-assign]
    for busy, took_s in ((False, 0.0), (False, 0.0001), (True, 0.0001), (False, 0.1)):
        rig.gate._has_claims = lambda busy=busy: busy  # type: ignore[misc]
        rig.gate._flush_took_s = took_s
        rig.append()
        await rig.gate.flushed()
    assert threads == ["journal", "MainThread", "journal", "journal"]
    assert rig.called == [1, 2, 3, 4]
    await rig.close()


async def test_a_failure_on_the_loop_is_a_failure(tmp_path: Path) -> None:
    """An error of a flush that ran on the loop is reported like one of the thread, and nobody is called back."""
    rig = Rig(tmp_path)
    rig.gate._has_claims = lambda: False
    rig.gate._flush_took_s = 0.0001
    os.close(rig.journal._fd)
    rig.append()
    assert "flushed" in (await rig.failure()).message
    assert rig.called == []
    rig.journal._fd = -1
    await rig.close()
