"""Recorded effects of one execution, and who answers by them when it is run with another playbook.

First the log's own playbook is run along its record (`Recorded`): so it is known what each effect was asked. Then the
other one is (`Answers`): the same request gets the recorded response; for another one the run stops, or goes on with
what was recorded in that place (`assume`), or asks what the user says (`model`). Nothing outside is ever asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edge.core.codec import decode, encode
from edge.core.events import Event, LoopItems, StepDone, StepFailed, TaskDone
from edge.core.values import TableRef, ValueRef
from edge.replay.course import Place, Request, Stopped
from edge.replay.difference import EXTRA, REQUEST, UNRECORDED
from edge.replay.ground import Ground
from edge.worker.claims import TaskRecord

STOP, ASSUME, MODEL = "stop", "assume", "model"
MODES: Final = (STOP, ASSUME, MODEL)


@dataclass(slots=True)
class Effect:
    """One effect: where it stood, what it was asked, what it gave."""

    place: Place
    request: Request
    done: TaskDone
    used: bool = False


def recorded_tasks(events: Iterable[Event]) -> dict[tuple[str, int, int | None, int], TaskDone]:
    """Outcomes of tasks that have events of their own, by step, visit, item and number."""
    made = {}
    for event in events:
        if isinstance(event.body, TaskDone) and event.step is not None:
            item = event.iteration[0] if event.iteration else None
            made[event.step, event.visit, item, event.body.number] = event.body
    return made


def recorded_ends(events: Iterable[Event]) -> dict[tuple[str, int, int | None], TaskDone]:
    """What steps, and items of loops, came to: the last outcome of a pipeline, where that has no event of its own."""
    made: dict[tuple[str, int, int | None], TaskDone] = {}
    for event in events:
        body, step = event.body, event.step
        if (
            isinstance(body, StepDone)
            and step is not None
            and (body.value is not None or body.table is not None)
        ):
            made[step, event.visit, None] = TaskDone(0, "", body.value, body.table, body.table_bytes)
        elif isinstance(body, StepFailed) and step is not None:
            made[step, event.visit, None] = TaskDone(0, "", problem=body.problem)
        elif isinstance(body, LoopItems) and step is not None:
            for place, value in enumerate(decode(body.results)):
                item = body.first + place
                block = value if type(value) in (TableRef, ValueRef) else None
                data = None if block is not None else encode(value)
                problem = (body.failed or {}).get(item)
                done = TaskDone(0, "", problem=problem) if problem else TaskDone(0, "", data, block)
                made[step, event.visit, item] = done
    return made


class Recorded:
    """Answers from the record, place by place, and notes what was asked."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._tasks, self._ends = recorded_tasks(events), recorded_ends(events)
        self.effects: list[Effect] = []

    def answer(self, place: Place, request: Request, ground: Ground) -> TaskRecord:
        """As in `edge.replay.course.Script`."""
        done = self._tasks.get((place.step, place.visit, place.item, place.number))
        if done is None or done.task != place.task:
            done = self._ends.pop((place.step, place.visit, place.item), None) if done is None else None
        if done is None:
            raise Stopped(UNRECORDED, place, None, request.said)
        self.effects.append(Effect(place, request, done))
        return _lent(place, done, ground)


@dataclass(slots=True)
class Answers:
    """Answers another playbook by what the first was answered."""

    effects: list[Effect]
    mode: str = STOP
    #: What the user says of effects: `{step?, task?, kind?, value | problem}`, the first that fits.
    model: Sequence[Mapping[str, Any]] = ()
    #: Places where the answer is not one that was ever given to that request.
    assumed: list[Place] = field(default_factory=list)

    def answer(self, place: Place, request: Request, ground: Ground) -> TaskRecord:
        """As in `edge.replay.course.Script`."""
        free = [each for each in self.effects if not each.used]
        here = [each for each in free if _stands(each.place, place)]
        same = [each for each in (*here, *free) if each.request.digest == request.digest]
        if same:
            same[0].used = True
            return _lent(place, same[0].done, ground)
        if self.mode == MODEL:
            return self._modelled(place, request)
        if self.mode == ASSUME and here:
            here[0].used = True
            self.assumed.append(place)
            return _lent(place, here[0].done, ground)
        if here:
            raise Stopped(REQUEST, place, here[0].request.said, request.said)
        raise Stopped(EXTRA, place, None, request.said)

    def _modelled(self, place: Place, request: Request) -> TaskRecord:
        known = {"step": place.step, "task": place.task, "kind": request.kind}
        for each in self.model:
            if all(each.get(key) in (None, value) for key, value in known.items()):
                self.assumed.append(place)
                problem = each.get("problem")
                value = None if problem is not None else encode(each.get("value"))
                return TaskRecord(place.number, place.task, value, None, problem)
        raise Stopped(EXTRA, place, None, request.said)

    def unused(self) -> list[Effect]:
        """Effects that the other playbook did not ask for."""
        return [each for each in self.effects if not each.used]


def _stands(one: Place, other: Place) -> bool:
    """Whether two are of the same task in the same place of the workflow."""
    return (one.step, one.visit, one.item, one.task) == (other.step, other.visit, other.item, other.task)


def _lent(place: Place, done: TaskDone, ground: Ground) -> TaskRecord:
    if done.table is not None:
        ground.restore(done)
    return TaskRecord(place.number, place.task, done.value, done.table, done.problem)
