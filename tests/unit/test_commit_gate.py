"""The gate: numbers at once, callbacks only once durable, groups bounded, failures the end."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest

from edge.core.chain import Group
from edge.core.events import BootStopped, Gap, StepDone
from edge.core.limits import GROUP_BYTES_MAX, GROUP_EVENTS_MAX, MIB
from edge.store.blobs import BlobStore
from edge.store.journal import read_groups
from tests.unit.gate_rig import Rig, turns


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


async def test_a_callback_that_fails_takes_nothing_from_the_others(tmp_path: Path) -> None:
    """Whoever waits for the same group is told all the same, and the failure is reported."""
    rig = Rig(tmp_path)
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, about: reported.append(str(about["exception"]))
    )

    def fails(link: bytes) -> None:
        raise RuntimeError("planted")

    for event in [rig.gate.append(BootStopped()) for _ in range(3)]:
        rig.gate.after(event.seq, fails if event.seq == 1 else rig.note(event.seq))
    rig.gate.after(1, rig.note(11))
    await rig.gate.flushed()
    await turns()
    assert (rig.called, reported) == ([11, 2, 3], ["planted"])
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


async def test_what_was_held_back_and_went_along_leaves_nothing_to_wait_for(tmp_path: Path) -> None:
    """`flushed` comes to its end also where the last event was flushed with others before anybody wanted it."""
    rig = Rig(tmp_path)
    rig.append()
    rig.gate.append(BootStopped(), held_back=True)
    while rig.gate.durable_seq < 2:
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await rig.gate.flushed()
    await rig.close()
