"""Group commit and the gate: appends gather, one flush carries them, and only then may anything leave.

Owned by the runtime's loop. `append` gives an event its sequence number at once and the scheduler goes on
from it; `after` calls back when the event is durable, and receipts, answers and effects wait there (design §4,
output commit). While one flush runs the next group gathers, so nobody waits for a window. An event that nobody
waits for (a pure step's outcome) is held back for the next flush that somebody does wait for, a few
milliseconds at most: it would be the flush that the answer behind it has to wait for.

Two threads stand behind it: one owns the journal, one the LMDB write transaction (`edge.runtime.commit.index`).
They run nothing but system calls and LMDB; encoding and hashing happen here, on the loop, because a thread that
needs the interpreter lock after each flush would wait for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from edge.core.carried import COPIES
from edge.core.chain import Context, Group, encode_event, seal_group
from edge.core.clock import Clock
from edge.core.errors import StorageFailed
from edge.core.event_body import Body
from edge.core.events import URGENT_TYPES, Event, ExecutionRequested
from edge.core.limits import GROUP_BYTES_MAX, GROUP_EVENTS_MAX
from edge.core.timing import Moment
from edge.runtime.commit.index import Index
from edge.runtime.commit.threads import JobThread, unexpected
from edge.store.blobs import BlobStore
from edge.store.eventlog import EventLog
from edge.store.index_rows import IndexedGroup, blobs_of
from edge.store.journal import Journal

#: A drive whose flush took longer than this gets a linger before the next one (measured: halves latency at
#: 20 ms a flush, costs latency on a fast drive).
SLOW_FLUSH_S = 0.001
LINGER_S = 0.0003
#: Where the last flush was quicker than this and no claim is under way, the next runs on the loop itself: handing it
#: to the thread and back costs as much again (80 µs of 180 on a drive that flushes in 90).
INLINE_FLUSH_S = 0.0005
#: How long an event that nobody waits for may stay in memory only. Losing it means running its step again.
HOLD_BACK_S = 0.02
#: Room a group's frame, context and array heads may add to its events.
_GROUP_OVERHEAD_BYTES = 8 * GROUP_EVENTS_MAX + 512

_T = TypeVar("_T")

Durable = Callable[[bytes], None]
"""Called once the event is durable, with the chain's link after it."""


class CommitGate:
    """The single writer's front: append, wait for durable, look up what is not in LMDB yet."""

    def __init__(
        self,
        journal: Journal,
        eventlog: EventLog,
        blobs: BlobStore,
        clock: Clock,
        boot_id: bytes,
        *,
        on_failure: Callable[[StorageFailed], None],
        has_claims: Callable[[], bool] = lambda: True,
        commit_window_ms: int = 0,
    ) -> None:
        self._journal, self._blobs = journal, blobs
        self.clock, self._boot_id = clock, boot_id
        self._on_failure, self._has_claims = on_failure, has_claims
        self._window_s = commit_window_ms / 1000
        self._loop = asyncio.get_running_loop()
        self._next_seq = journal.next_seq
        self._link = journal.last_link
        self.durable_seq = journal.last_seq
        self._pending: deque[Event] = deque()
        self._blobs_pending: list[tuple[bytes, bytes]] = []
        self._blobs_unwritten: dict[bytes, bytes] = {}
        self._in_flight: list[Event] = []
        self._waiting: dict[int, list[Durable]] = {}
        self._flushing = self._scheduled = self._failed = False
        #: Called when an event is appended that should be known upstream soon (`edge.core.events.URGENT_TYPES`).
        self.on_urgent: Callable[[], None] = _nothing
        #: May append what is worth no flush of its own.
        self.before_flush: Callable[[], None] = _nothing
        #: Up to here somebody waits; what is appended above it may be held back.
        self._wanted_seq = journal.last_seq
        self._held_since_s = 0.0
        self._hold_timer: asyncio.TimerHandle | None = None
        self._flush_took_s = 0.0
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self._thread = JobThread("journal", self._fail)
        self._index = Index(eventlog, journal.log_id, self._fail)

    # ---- appending -------------------------------------------------------------------------------

    @property
    def next_seq(self) -> int:
        """The sequence number the next append will get."""
        return self._next_seq

    def append(self, body: Body, *, held_back: bool = False, **envelope: Any) -> Event:
        """Give an event its number and put it into the next group. `envelope` as the fields of `Event`.

        An `ExecutionRequested` gets its own number as its execution. Returns at once; not durable yet. With
        `held_back` it goes with the next event that is wanted durable, or after HOLD_BACK_S.
        """
        seq = self._next_seq
        if type(body) is ExecutionRequested:
            envelope["execution"] = seq
            if body.request_id is not None:
                self._index.requested(seq, body)
        event = Event(seq, body, **envelope)
        self._pending.append(event)
        self._next_seq = seq + 1
        if type(body) in URGENT_TYPES:
            self.on_urgent()
        if held_back:
            self._hold_back()
        else:
            self._want(seq)
        return event

    def store_blob(self, digest: bytes, data: bytes) -> None:
        """Write a blob before the next group is flushed; the event that names it is appended after this."""
        self._blobs_pending.append((digest, data))
        self._blobs_unwritten[digest] = data

    def blob(self, digest: bytes) -> bytes:
        """A blob by its SHA-256, written or still on its way. Raises LogDamaged."""
        return self._blobs_unwritten.get(digest) or self._blobs.get(digest)

    def after(self, seq: int, callback: Durable) -> None:
        """Call back once event `seq` is durable; never before, never from inside this call."""
        assert seq > self.durable_seq, "it is durable already, and its link is not kept here"
        self._waiting.setdefault(seq, []).append(callback)
        self._want(seq)

    # ---- flushing --------------------------------------------------------------------------------

    def _want(self, seq: int) -> None:
        if seq > self._wanted_seq:
            self._wanted_seq = seq
            self._schedule()

    def _hold_back(self) -> None:
        self._idle.clear()
        if len(self._pending) == 1 or self._hold_timer is None:
            self._held_since_s = self._loop.time()
        if self._hold_timer is None:
            self._hold_timer = self._loop.call_later(HOLD_BACK_S, self._held_long_enough)

    def _held_long_enough(self) -> None:
        self._hold_timer = None
        if not self._pending:
            return
        left_s = self._held_since_s + HOLD_BACK_S - self._loop.time()
        if left_s > HOLD_BACK_S / 4:  # what was held when the timer started is durable; these are newer
            self._hold_timer = self._loop.call_later(left_s, self._held_long_enough)
        else:
            self._want(self._next_seq - 1)

    def _schedule(self) -> None:
        if self._scheduled or self._flushing or self._failed:
            return
        self._scheduled = True
        self._idle.clear()
        delay_s = self._window_s
        if self._flush_took_s > SLOW_FLUSH_S and self._has_claims():
            delay_s = max(delay_s, LINGER_S)
        if delay_s:
            self._loop.call_later(delay_s, self._flush)
        else:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._flushing or self._failed or not self._pending:
            return
        self.before_flush()
        self._flushing = True
        try:
            batch, parts, size_bytes = self._take_batch()
        except (TypeError, ValueError) as error:
            # An event that cannot be written down is our mistake; going on without it would be a lie.
            self._fail(unexpected(error))
            return
        self._in_flight = batch
        if self._journal.has_room_for(size_bytes):
            self._write(batch, parts)
        else:
            self._thread.run(self._journal.roll, lambda: self._rolled(batch, parts))

    def _take_batch(self) -> tuple[list[Event], list[bytes], int]:
        """The next group's events, their encoded parts, and a bound of its size in bytes.

        Encoded only here: what an append leads to (a claim) is on its way by now.
        """
        batch: list[Event] = []
        parts: list[bytes] = []
        size_bytes = _GROUP_OVERHEAD_BYTES
        while self._pending and len(batch) < GROUP_EVENTS_MAX:
            envelope, body = encode_event(self._pending[0])
            more_bytes = len(envelope) + len(body)
            if batch and size_bytes + more_bytes > GROUP_BYTES_MAX:
                break
            batch.append(self._pending.popleft())
            parts += (envelope, body)
            size_bytes += more_bytes
        return batch, parts, size_bytes

    def _rolled(self, batch: list[Event], parts: list[bytes]) -> None:
        self._index.commit()
        self._write(batch, parts)

    def _write(self, batch: list[Event], parts: list[bytes]) -> None:
        context = Context(self._journal.log_id, self._boot_id, self.clock.read())
        epoch_key = self._journal.header.epoch_key
        group = seal_group(batch[0].seq, self._link, context, epoch_key, parts)
        self._link = group.links[-1]
        blobs, self._blobs_pending = self._blobs_pending, []
        started_s = time.monotonic()

        def write() -> None:
            for _, data in blobs:
                self._blobs.put(data)
            self._journal.write(group)

        def written() -> None:
            for digest, _ in blobs:
                self._blobs_unwritten.pop(digest, None)
            self._written(group, epoch_key, batch, time.monotonic() - started_s)

        if not blobs and 0 < self._flush_took_s < INLINE_FLUSH_S and not self._has_claims():
            self._thread.run_here(write, written)
        else:
            self._thread.run(write, written)

    def _written(self, group: Group, epoch_key: bytes, batch: list[Event], took_s: float) -> None:
        self._flush_took_s = took_s
        self.durable_seq = group.last_seq
        # What was held back went along: a flush for it would find nothing, and whoever waits for that would not wake.
        self._wanted_seq = max(self._wanted_seq, group.last_seq)
        events = tuple(batch)
        self._index.add(
            IndexedGroup(group.first_seq, group.last_seq, group.links[-1], epoch_key, group.data, events)
        )
        self._in_flight = []
        self._flushing = False
        if not self._pending:
            self._idle.set()
        elif self._wanted_seq > self.durable_seq:
            self._schedule()
        else:
            self._hold_back()
        self._call_back(
            deque(
                (callback, link)
                for seq, link in enumerate(group.links, group.first_seq)
                for callback in self._waiting.pop(seq, ())
            )
        )
        self._index.commit_if_full()

    def _call_back(self, due: deque[tuple[Durable, bytes]]) -> None:
        """Tell all who wait for a group; one whose callback fails does not take the others' away from them."""
        try:
            while due:
                callback, link = due.popleft()
                callback(link)
        finally:
            if due:
                self._loop.call_soon(self._call_back, due)

    def _fail(self, error: StorageFailed) -> None:
        self._failed = True
        self._index.stop()
        self._waiting.clear()
        self._idle.set()
        self._on_failure(error)

    # ---- looking up ------------------------------------------------------------------------------

    def now(self) -> Moment:
        """The clocks, as the next group's context will have them."""
        return Moment(self._boot_id, self.clock.read())

    def context_of(self, seq: int) -> Context:
        """What is constant over the group of a durable event: its clocks above all. Raises LogDamaged."""
        assert seq <= self.durable_seq, "its group is not written yet"
        return self._index.context_of(seq)

    def find_request(self, principal: str, request_id: str) -> tuple[int, bytes] | None:
        """Execution and payload mark of a request id, from memory first, then LMDB."""
        return self._index.find_request(principal, request_id)

    def events_of(self, execution: int, first: int = 0, last: int = 2**63) -> list[Event]:
        """All events of one execution appended so far, durable or not, oldest first; those from `first` to `last`."""
        found = self._index.events_of(execution, first, last)
        unflushed = (event for queue in (self._in_flight, self._pending) for event in queue)
        found += [
            event
            for event in unflushed
            if event.execution == execution and first <= event.seq <= last and type(event.body) not in COPIES
        ]
        return found

    def needs_blob(self, digest: bytes) -> bool:
        """Whether an event needs that blob of which LMDB does not know yet, or it is on its way."""
        unflushed = (event for queue in (self._in_flight, self._pending) for event in queue)
        return (
            digest in self._blobs_unwritten
            or self._index.needs_blob(digest)
            or any(digest in blobs_of(event.body) for event in unflushed)
        )

    # ---- pruning ---------------------------------------------------------------------------------

    async def indexed(self, seq: int) -> None:
        """Wait until event `seq` is durable and in LMDB."""
        await self.flushed()
        await self._index.reach(seq)

    async def in_index(self, job: Callable[[], _T]) -> _T:
        """Run a job on the thread that owns the LMDB write transaction; any error ends the runtime."""
        return await self._index.result_of(job)

    async def in_journal(self, job: Callable[[], _T]) -> _T:
        """Run a job on the journal's thread, behind what was given to it before; any error ends the runtime."""
        return await self._thread.result_of(job)

    async def flushed(self) -> None:
        """Wait until nothing appended is left to flush (or the journal failed)."""
        self._want(self._next_seq - 1)
        while not self._failed and (self._pending or self._flushing or self._scheduled):
            await self._idle.wait()
            self._want(self._next_seq - 1)

    async def close(self) -> None:
        """Flush all, put all into LMDB, end both threads."""
        await self.flushed()
        await self._index.close()
        await self._thread.end()


def _nothing() -> None:
    """Nobody has anything to add."""
