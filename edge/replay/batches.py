"""What a subscription's execution took: its messages and the subscription as it was, found in the log again.

Called by `edge.replay.ground`. A request names its messages by number; a log is read forward once and the messages of
some time are kept, since executions are run again in their order. Reads a source and changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from edge.core.codec import encode
from edge.core.events import CatalogRegistered, Event, ExecutionRequested
from edge.core.subscription_events import MessageReceived
from edge.replay.pinned import catalog_events
from edge.replay.source import Source
from playbooks.subscription import KIND, Subscription

#: How the envelope of a message begins, behind its head.
_MESSAGE: Final = encode(MessageReceived.CODE)
#: So many messages behind the newest are kept at least: attempts come again, lanes wait for one another.
_BEHIND_MIN: Final = 50_000


class Batches:
    """One log's messages and subscriptions."""

    def __init__(self, source: Source) -> None:
        self._source = source
        #: Of each subscription, by its number: the events that registered it, in order, and what they hold.
        self._versions: dict[int, list[tuple[int, bytes]]] | None = None
        self._begin(0)

    def _begin(self, after_seq: int) -> None:
        self._from_seq, self._through = after_seq + 1, after_seq
        #: The messages that are kept, and their numbers, in order.
        self._kept: list[Event] = []
        self._seqs: list[int] = []
        self._coming = self._messages(after_seq)

    def subscription(self, number: int, seq: int) -> Subscription | None:
        """A subscription as it was registered newest before event `seq`; None where that is not here."""
        if self._versions is None:
            self._versions = {}
            for event in catalog_events(self._source.groups()):
                body = event.body
                if isinstance(body, CatalogRegistered) and body.kind == KIND and event.execution is not None:
                    self._versions.setdefault(event.execution, []).append((event.seq, body.blueprint))
        known = [data for at, data in self._versions.get(number, ()) if at <= seq]
        return Subscription.decode(known[-1]) if known else None

    def messages(self, request: ExecutionRequested) -> list[Event]:
        """Those of a request's batch that are here, in order. Raises LogDamaged, SegmentRejected."""
        assert request.batch is not None
        number, first, last, _, lane, _ = request.batch
        if first < self._from_seq:
            self._begin(first - 1)
        while self._through < last and (event := next(self._coming, None)) is not None:
            self._through = event.seq
            self._kept.append(event)
            self._seqs.append(event.seq)
        self._forget(first)
        return [
            event
            for event in self._kept[bisect_left(self._seqs, first) : bisect_right(self._seqs, last)]
            if event.execution == number
            and isinstance(event.body, MessageReceived)
            and event.body.lane == lane
        ]

    def _forget(self, first: int) -> None:
        """Let go of many at a time: a list is cut once in a while, not for each batch."""
        old = min(bisect_left(self._seqs, first), len(self._seqs) - _BEHIND_MIN)
        if old > _BEHIND_MIN:
            self._from_seq = self._seqs[old - 1] + 1
            del self._kept[:old], self._seqs[:old]

    def _messages(self, after_seq: int) -> Iterator[Event]:
        for group in self._source.groups(after_seq):
            for place in range(0, len(group.parts), 2):
                if group.parts[place][1:3] == _MESSAGE:
                    yield group.event(group.first_seq + place // 2)


@lru_cache(maxsize=1)
def batches_of(source: Source) -> Batches:
    """A log's, kept for as long as that log is run again."""
    return Batches(source)
