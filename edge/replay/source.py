"""Where events come from: one interface for the box's own journal, a folder of sealed segments, the centre's shelf.

Read by everything that replays. A source gives one log's groups in order and its large values, and changes nothing.
The box's own is `edge.replay.journal_source`, that of segments `edge.replay.sealed_source`. Pure: only the interface.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from edge.core.chain import OpenedGroup
from edge.core.records import record
from edge.segments.columns import Rows


@record
class Missing:
    """Events `first` to `last` that a source does not have; `why` in a few words."""

    first: int
    last: int
    why: str


class Source(Protocol):
    """One log as somebody has it."""

    def __hash__(self) -> int:
        """Each source is itself: what is found in it may be kept beside it."""

    @property
    def log_id(self) -> bytes:
        """Which log, 8 bytes."""

    @property
    def box(self) -> str:
        """Whose, as far as the source can say."""

    @property
    def missing(self) -> list[Missing]:
        """What is not here of what lies between the events that are, oldest first."""

    def groups(self, after_seq: int = 0) -> Iterator[OpenedGroup]:
        """Groups with events above `after_seq`, oldest first. Raises LogDamaged, SegmentRejected."""

    def blob(self, digest: bytes) -> bytes:
        """A large value. Raises LogDamaged, SegmentRejected where it is not here."""


@runtime_checkable
class Columned(Source, Protocol):
    """A source that has its events as columns, too."""

    def columns(self) -> Iterator[tuple[list[int], list[Rows]] | list[OpenedGroup]]:
        """Segment by segment: rows (`edge.segments.columns.rows`), or groups where its codec has no columns.

        Raises SegmentRejected.
        """
