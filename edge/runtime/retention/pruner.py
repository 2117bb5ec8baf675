"""Pruning one segment: carry, say so in the log, take it out of the index, then out of the journal.

Driven by `edge.runtime.retention.keeper`. Each step is durable before the next one begins, so a process that is
killed anywhere leaves a whole log, and `finish` goes on where it was. It must never run twice at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.core.chain import OpenedGroup
from edge.core.limits import PRUNE_EVENTS_PER_COMMIT
from edge.core.records import record
from edge.core.retention_events import LogPruned
from edge.runtime.commit.gate import CommitGate
from edge.runtime.executions.engine import Engine
from edge.runtime.retention.carrier import Carrier, Wanted
from edge.runtime.retention.needed import needed_now
from edge.runtime.retention.on_time import OnTime
from edge.runtime.retention.terms import Terms
from edge.runtime.subscriptions.flow import Subscriptions
from edge.store.blobs import BlobStore
from edge.store.eventlog import EventLog
from edge.store.index_prune import acquit, clocks_of, condemned_of, prune, pruned_of
from edge.store.journal import Journal
from edge.store.segment_file import header_of, segment_paths

#: The loop is held for so long at most before others have their turn.
_SLICE_S: Final = 0.002
#: Events that are carried and not flushed yet: memory, and what an answer may have to wait behind.
_UNFLUSHED_MAX: Final = 512
_GROUPS_AT_ONCE: Final = 8
_BLOBS_AT_ONCE: Final = 256


@record
class Segment:
    """One file of the journal that is closed: its events up to `last_seq`; the chain's link after it is `link`."""

    path: Path
    first_seq: int
    last_seq: int
    link: bytes
    size_bytes: int


def oldest_closed(folder: Path) -> Segment | None:
    """The journal's oldest segment, where it is not the one that is being written. Raises LogDamaged."""
    paths = segment_paths(folder)
    if len(paths) < 2:
        return None
    following = header_of(paths[1])
    size_bytes = paths[0].stat().st_size
    return Segment(paths[0], int(paths[0].stem), following.first_seq - 1, following.previous, size_bytes)


@record
class Homes:
    """Where the log and what it names are kept."""

    journal: Journal
    eventlog: EventLog
    blobs: BlobStore


class Pruner:
    """Prunes segment by segment."""

    def __init__(self, gate: CommitGate, homes: Homes, engine: Engine, subscriptions: Subscriptions) -> None:
        self._gate, self.homes = gate, homes
        self._journal, self._eventlog, self._blobs = homes.journal, homes.eventlog, homes.blobs
        self._engine, self._subscriptions = engine, subscriptions
        self._since_s = 0.0

    def on_time(self) -> OnTime:
        """Ages as of now."""
        return OnTime(clocks_of(self._eventlog), self._gate.now())

    async def prune(self, segment: Segment, terms: Terms, cause: str) -> int:
        """Prune a segment; how many events of it were carried."""
        await self._gate.indexed(segment.last_seq)
        await self._gate.flushed()
        carrier = await self._carry(segment, terms, cause)
        body = LogPruned(
            segment.last_seq, segment.link, cause, carrier.seen, segment.size_bytes, carrier.carried
        )
        seq = self._gate.append(body).seq
        await self._gate.indexed(seq)
        await self.finish()
        return carrier.carried

    async def finish(self) -> None:
        """Take out whatever the log says is pruned, where that was not done to its end."""
        through, _ = pruned_of(self._eventlog)
        more = True
        while more:
            more = await self._gate.in_index(lambda: prune(self._eventlog, through, PRUNE_EVENTS_PER_COMMIT))
            await asyncio.sleep(_SLICE_S)  # commits of what comes in have their turn
        for path in segment_paths(self._journal.folder)[:-1]:
            segment = oldest_closed(self._journal.folder)
            if segment is None or segment.last_seq > through:
                break
            assert segment.path == path, (segment.path, path)
            await asyncio.to_thread(self._journal.retire, path)
        await self._remove_blobs()

    # ---- inside ------------------------------------------------------------------------------------------

    async def _carry(self, segment: Segment, terms: Terms, cause: str) -> Carrier:
        needed = needed_now(self._engine, self._subscriptions, self._eventlog)
        wanted = Wanted(terms, cause, segment.last_seq)
        carrier = Carrier(self._gate, self._eventlog, needed, wanted, self.on_time(), self._is_open)
        after = segment.first_seq - 1
        self._since_s = time.monotonic()
        while groups := self._groups(after, segment.last_seq):
            for group in groups:
                await self._gently(carrier.take(group))
                after = group.last_seq
        await self._gently(carrier.rest())
        return carrier

    def _groups(self, after: int, through: int) -> list[OpenedGroup]:
        """Some groups at a time: a read transaction that stays open keeps every page since."""
        found = self._eventlog.groups(after, _GROUPS_AT_ONCE)
        return [group for _, group, _ in found if group.last_seq <= through]

    async def _gently(self, work: Iterator[None]) -> None:
        for _ in work:
            await self._give_way()
        await self._give_way()

    async def _give_way(self) -> None:
        if self._gate.next_seq - self._gate.durable_seq > _UNFLUSHED_MAX:
            await self._gate.flushed()
        elif time.monotonic() - self._since_s > _SLICE_S:
            await asyncio.sleep(_SLICE_S)
        else:
            return
        self._since_s = time.monotonic()

    def _is_open(self, execution: int) -> bool:
        executor = self._engine.executor
        return execution in executor.open or execution in executor.parking

    async def _remove_blobs(self) -> None:
        while True:
            gone, needed = condemned_of(self._eventlog, _BLOBS_AT_ONCE)
            if not gone and not needed:
                return
            # Nothing may come between this look and the job: what is stored afterwards is written behind it.
            going = [digest for digest in gone if not self._gate.needs_blob(digest)]
            await self._gate.in_journal(lambda going=going: self._blobs.remove(going))  # type: ignore[misc]
            await self._gate.in_index(lambda all_of=(*gone, *needed): acquit(self._eventlog, all_of))  # type: ignore[misc]
