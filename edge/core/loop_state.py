"""How far a step's loop is, and how its events carry it on: the part of the fold that speaks of items.

Pure; called by `edge.core.state` for events that name an item or several. Each item gets its outcome once.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import Any

from edge.core.errors import LogDamaged
from edge.core.events import (
    CallbackReceived,
    Event,
    LoopItems,
    LoopStarted,
    StepStarted,
    StepWaiting,
    TaskDone,
)
from edge.core.records import record


@record
class Waiting:
    """A hosted task waits, since event `seq`."""

    seq: int
    body: StepWaiting


@record
class LoopState:
    """How far a step's loop is.

    `parts` are the committed outcomes in the order of the log. By index of items without one: `lost` is how many
    attempts were lost, `intended` the invocation whose effect was intended and whose outcome is not known, `tasks`
    what was recorded of the item's pipeline, `waiting` the hosted task it waits for, `callbacks`
    what came for it, `again` which attempt the last intent began, where it was not the first.
    """

    started: LoopStarted
    parts: tuple[LoopItems, ...] = ()
    lost: dict[int, int] = field(default_factory=dict)
    intended: dict[int, int] = field(default_factory=dict)
    tasks: dict[int, tuple[TaskDone, ...]] = field(default_factory=dict)
    waiting: dict[int, Waiting] = field(default_factory=dict)
    callbacks: dict[int, tuple[CallbackReceived, ...]] = field(default_factory=dict)
    again: dict[int, int] = field(default_factory=dict)

    def attempts(self, index: int) -> int:
        """How many attempts at an item have begun since its last progress, as far as the log knows.

        One that was lost with its worker is an event; one lost with the runtime is known by its intent alone.
        """
        begun = self.again.get(index, 1) if index in self.intended else 0
        return max(begun, self.lost.get(index, 0))

    @property
    def settled(self) -> int:
        """How many items have their outcome."""
        return sum(part.count for part in self.parts)


def item_intended(loop: LoopState | None, event: Event, body: StepStarted) -> LoopState:
    """An item's effect is intended."""
    known, index = _begun(loop, event), event.iteration[0]
    intended = {**known.intended, index: body.number}
    if event.attempt == 1:
        return replace(known, intended=intended)
    return replace(known, intended=intended, again={**known.again, index: event.attempt})


def item_task_done(loop: LoopState | None, event: Event, body: TaskDone) -> LoopState:
    """A task of one item's pipeline: progress of that item, whose attempts are counted anew."""
    known, index = _begun(loop, event), event.iteration[0]
    tasks = known.tasks.get(index, ())
    if any(done.number == body.number for done in tasks):
        raise LogDamaged(
            f"Task {body.number} of item {index} of step {event.step} has two outcomes, at {event.seq}."
        )
    mine = range(index, index + 1)
    return replace(
        known,
        lost=_without(known.lost, mine),
        intended=_without(known.intended, mine)
        if known.intended.get(index) == body.number
        else known.intended,
        tasks={**known.tasks, index: (*tasks, body)},
        waiting=_without(known.waiting, mine),
        again=_without(known.again, mine),
    )


def item_waiting(loop: LoopState | None, event: Event, body: StepWaiting) -> LoopState:
    """An item's hosted task waits: progress of that item, whose attempts are counted anew."""
    known, index = _begun(loop, event), event.iteration[0]
    mine = range(index, index + 1)
    waiting = {**known.waiting, index: Waiting(event.seq, body)}
    return replace(known, lost=_without(known.lost, mine), waiting=waiting, again=_without(known.again, mine))


def item_called(loop: LoopState | None, event: Event, body: CallbackReceived) -> LoopState:
    """A callback came for an item."""
    known, index = _begun(loop, event), event.iteration[0]
    return replace(known, callbacks={**known.callbacks, index: (*known.callbacks.get(index, ()), body)})


def items_lost(loop: LoopState | None, event: Event) -> LoopState:
    """An attempt at neighbouring items was lost."""
    known = _begun(loop, event)
    first, count = event.iteration
    more = {index: known.lost.get(index, 0) + 1 for index in range(first, first + count)}
    return replace(known, lost={**known.lost, **more})


def items_settled(loop: LoopState | None, event: Event, body: LoopItems) -> LoopState:
    """Items have their outcome. Raises LogDamaged where one has it already."""
    known = _begun(loop, event)
    end = body.first + body.count
    if not 0 <= body.first < end <= known.started.total:
        raise LogDamaged(
            f"Event {event.seq} speaks of items {body.first} to {end - 1} of {known.started.total}."
        )
    if any(part.first < end and body.first < part.first + part.count for part in known.parts):
        raise LogDamaged(
            f"An item of step {event.step} (visit {event.visit}) has two outcomes, at {event.seq}."
        )
    mine = range(body.first, end)
    return LoopState(
        known.started,
        (*known.parts, body),
        _without(known.lost, mine),
        _without(known.intended, mine),
        _without(known.tasks, mine),
        _without(known.waiting, mine),
        _without(known.callbacks, mine),
        _without(known.again, mine),
    )


def _begun(loop: LoopState | None, event: Event) -> LoopState:
    if loop is None:
        raise LogDamaged(f"Event {event.seq} speaks of items of step {event.step}, whose loop has not begun.")
    return loop


def _without(by_index: dict[int, Any], settled: range) -> dict[int, Any]:
    if not by_index or not any(index in by_index for index in settled):
        return by_index
    return {index: value for index, value in by_index.items() if index not in settled}
