"""Events written straight into a journal, without a runtime: for tests of the homes of the log."""

from __future__ import annotations

from collections.abc import Sequence

from edge.core.chain import Context, encode_event, seal_group
from edge.core.clock import Clock
from edge.core.events import Event
from edge.store.index_rows import IndexedGroup
from edge.store.journal import Journal
from edge.testing.box import BOOT_ID
from edge.testing.clock import ManualClock


def write_group(
    journal: Journal, events: Sequence[Event], clock: Clock | None = None, boot_id: bytes = BOOT_ID
) -> IndexedGroup:
    """Write events, numbered from the journal's next number on, as one durable group; what the index gets of it."""
    assert [event.seq for event in events] == list(range(journal.next_seq, journal.next_seq + len(events)))
    context = Context(journal.log_id, boot_id, (clock or ManualClock()).read())
    parts = [part for event in events for part in encode_event(event)]
    size_bytes = sum(map(len, parts)) + 16 * len(parts) + 256
    if not journal.has_room_for(size_bytes):
        journal.roll()
    group = seal_group(events[0].seq, journal.last_link, context, journal.header.epoch_key, parts)
    journal.write(group)
    return IndexedGroup(
        group.first_seq, group.last_seq, group.links[-1], journal.header.epoch_key, group.data, tuple(events)
    )
