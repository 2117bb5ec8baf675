"""A commit gate over real homes, with a journal that a test can hold: for the tests of the gate."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

from edge.core.chain import Group
from edge.core.errors import StorageFailed
from edge.core.events import BootStopped, Event
from edge.core.limits import KIB
from edge.runtime.commit.gate import CommitGate
from edge.store.blobs import BlobStore
from edge.store.eventlog import EventLog
from edge.store.index_rows import IndexedGroup
from edge.store.journal import Journal, read_groups
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
