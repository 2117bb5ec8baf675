"""Long logs: one execution's events, written again and again under new numbers into the homes of a stopped box.

Used by `growth`, which asks what a box costs that has run for months, or waits for very many things. Goes through the
store's own doors (journal, then index), so what a runtime finds is what a runtime would have left. Must never touch a
box that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from edge.core.chain import Context, encode_event, seal_group
from edge.core.clock import SystemClock, boot_id
from edge.core.events import Event, ExecutionFinished, ExecutionRequested, ResponsesDelivered
from edge.core.settings import Settings
from edge.store.eventlog import EventLog, IndexedGroup
from edge.store.journal import Journal
from tests.bench.processes import BenchFailed

#: A box under some load flushes a few executions together.
_EXECUTIONS_A_GROUP: Final = 4
_GROUPS_A_COMMIT: Final = 1_000


def lengthen(settings: Settings, events: int) -> None:
    """Bring the log of a stopped box to so many events. Raises BenchFailed where it holds no ended execution."""

    def ended(index: EventLog) -> int | None:
        newest: int | None = None
        for _, group, _ in index.groups():
            for event in group.events():
                if isinstance(event.body, ExecutionFinished):
                    newest = event.execution
        return newest

    _repeat(settings, ended, lambda written, last_seq: last_seq >= events)


def hold_open(settings: Settings, count: int) -> None:
    """Give a stopped box so many more executions as its oldest open one is. Raises BenchFailed where none is open."""
    _repeat(
        settings,
        lambda index: next(iter(index.open_executions()), None),
        lambda written, last_seq: written >= count,
    )


def _repeat(
    settings: Settings, pattern_of: Callable[[EventLog], int | None], enough: Callable[[int, int], bool]
) -> None:
    """Write an execution's events again; `enough(executions written, last number)` ends it."""
    journal, index = Journal(settings.journal_folder), EventLog(settings.index_folder)
    try:
        execution = pattern_of(index)
        if execution is None:
            raise BenchFailed("The log to be lengthened holds no execution to be repeated.")
        pattern, written = index.events_of(execution), 0
        gathered: list[IndexedGroup] = []
        while not enough(written, journal.last_seq):
            gathered.append(_write(journal, list(_copies(pattern, journal.last_seq + 1))))
            written += _EXECUTIONS_A_GROUP
            if len(gathered) >= _GROUPS_A_COMMIT:
                index.commit(gathered, journal.log_id)
                gathered = []
        # Without this a runtime would hold every answer for undelivered.
        gathered.append(_write(journal, [Event(journal.last_seq + 1, ResponsesDelivered(journal.last_seq))]))
        index.commit(gathered, journal.log_id)
    finally:
        index.close()
        journal.close()


def _copies(pattern: list[Event], first_seq: int) -> Iterator[Event]:
    """A few executions like `pattern`, one after another, numbered from `first_seq` on."""
    for number in range(_EXECUTIONS_A_GROUP):
        execution = first_seq + number * len(pattern)
        moved = {event.seq: execution + place for place, event in enumerate(pattern)}
        for event in pattern:
            body = event.body
            if isinstance(body, ExecutionRequested):
                body = replace(body, request_id=f"past-{execution:x}")
            cause = None if event.cause is None else moved[event.cause]
            yield replace(event, seq=moved[event.seq], execution=execution, cause=cause, body=body)


def _write(journal: Journal, events: list[Event]) -> IndexedGroup:
    context = Context(journal.log_id, boot_id(), SystemClock().read())
    parts = [part for event in events for part in encode_event(event)]
    if not journal.has_room_for(sum(map(len, parts)) + 16 * len(parts) + 256):
        journal.roll()
    epoch_key = journal.header.epoch_key
    group = seal_group(events[0].seq, journal.last_link, context, epoch_key, parts)
    journal.write(group)
    return IndexedGroup(
        group.first_seq, group.last_seq, group.links[-1], epoch_key, group.data, tuple(events)
    )
