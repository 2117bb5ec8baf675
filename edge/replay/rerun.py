"""One execution run again by the playbook that it is pinned to: every pure block on what it saw, in the sandbox.

Called by `edge replay --rerun` and `edge central diff`. It goes along the log: what the world gave (requests,
outcomes of `read` and `write`, lost attempts, callbacks, ends by time) is taken from it, what is pure is made again,
and each output and each decision is set beside the record. Where one differs the run goes on with what was recorded,
so that one change is one difference. The state is folded of what came out now; its digest says whether all is equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge.core.errors import EdgeError, LogDamaged, SegmentRejected
from edge.core.events import (
    Event,
    ExecutionFinished,
    ExecutionRequested,
    LoopItems,
    LoopStarted,
    StepDone,
    StepFailed,
    StepStarted,
    StepWaiting,
    TaskDone,
)
from edge.core.records import record
from edge.core.scheduler import Finish, decide
from edge.core.state import RUNNING, Execution, evolve
from edge.replay.difference import DECISION, TAIL, UNRECORDED, Difference
from edge.replay.ground import Ground, Missing
from edge.replay.reblocks import Reblocks
from edge.replay.sandbox import Sandbox
from edge.replay.shield import shielded
from edge.replay.source import Source
from edge.replay.state_digest import state_digest
from playbooks.blueprint import Blueprint

_RECORDS: Final = (StepStarted, TaskDone, StepWaiting)
#: So many events after an outcome are looked at for what the box ran straight on.
_LINE_MAX: Final = 64


@record
class Rerun:
    """What came of running an execution again.

    `blocks` were run, `taken` outcomes are the recorded ones of what reached outside; `differences` in the order of
    the log. `digest` is of the state that came out now, `recorded` of that in the log.
    """

    execution: int
    blocks: int
    taken: int
    differences: tuple[Difference, ...]
    digest: bytes
    recorded: bytes

    @property
    def same(self) -> bool:
        """Whether everything came out as recorded."""
        return self.digest == self.recorded and not any(each.kind != TAIL for each in self.differences)


def rerun(
    sandbox: Sandbox,
    source: Source,
    blueprint: Blueprint,
    events: Sequence[Event],
    tolerance: float = 0.0,
    ready: Blueprint | None = None,
) -> Rerun:
    """Run an execution again; `events` are all of its history, oldest first.

    `ready` is the blueprint shielded already. Raises LogDamaged where it cannot be folded.
    """
    request = events[0].body
    assert isinstance(request, ExecutionRequested), events[0]
    ground = Ground(sandbox, source, ready or shielded(blueprint), events[0].seq, request)
    walk = _Walk(ground, blueprint, tolerance)
    try:
        return walk.along(events)
    finally:
        ground.end()


@dataclass(slots=True)
class _Walk:
    """The state so far, twice: as recorded, and as it comes out now."""

    ground: Ground
    blueprint: Blueprint
    tolerance: float
    differences: list[Difference] = field(default_factory=list)
    #: States after each event, as recorded: what a block saw when it began.
    states: list[tuple[int, Execution]] = field(default_factory=list)
    #: After which event a visit to a step, or an item of its loop, began, where it recorded anything.
    began: dict[tuple[str, int, int | None], int] = field(default_factory=dict)

    def along(self, events: Sequence[Event]) -> Rerun:
        recorded: Execution | None = None
        now: Execution | None = None
        blocks = Reblocks(self.ground, self.tolerance)
        missing = self._begun(events[0])
        for place, event in enumerate(events):
            if recorded is not None and missing is None:
                try:
                    made = self._again(blocks, recorded, event, events[place + 1 : place + 1 + _LINE_MAX])
                except (Missing, LogDamaged, SegmentRejected) as error:
                    self._differs(event, UNRECORDED, "", error.message, None)
                    made = event
            else:
                made = event
            recorded = evolve(recorded, event)
            now = evolve(now, made)
            self.states.append((event.seq, recorded))
        assert recorded is not None
        assert now is not None
        if recorded.status == RUNNING:
            self._differs(events[-1], TAIL, "", "it has not ended, as far as the log goes", None)
        return Rerun(
            events[0].seq,
            blocks.run,
            blocks.taken,
            tuple(self.differences),
            state_digest(now),
            state_digest(recorded),
        )

    def _begun(self, event: Event) -> str | None:
        """Lay out the request; why nothing can be run again, where that is so."""
        try:
            self.ground.begin()
        except EdgeError as error:
            self._differs(event, UNRECORDED, "request", error.message, None)
            return error.message
        return None

    def _again(self, blocks: Reblocks, before: Execution, event: Event, following: Sequence[Event]) -> Event:
        """An event as it comes out now. Raises Missing, LogDamaged, SegmentRejected."""
        body = event.body
        item = event.iteration[0] if event.iteration else None
        if isinstance(body, _RECORDS) and event.step is not None:
            self.began.setdefault((event.step, event.visit, item), event.cause or event.seq - 1)
        if isinstance(body, TaskDone):
            blocks.taken += 1
            self.ground.restore(body)
            return event
        if isinstance(body, StepDone | StepFailed):
            return self._settled(blocks, before, event, following)
        if isinstance(body, LoopStarted):
            found = blocks.loop_began(before, event)
        elif isinstance(body, LoopItems):
            found = blocks.items(before, event, lambda item: self._seen(before, event, item))
        elif isinstance(body, ExecutionFinished):
            self._end(before, event)
            return event
        else:
            return event
        made, difference = found
        if difference is not None:
            self.differences.append(difference)
        return replace(event, body=made)

    def _seen(self, before: Execution, event: Event, item: int | None) -> Execution:
        """The state that a block began with."""
        key = event.step or "", event.visit, item
        seq = self.began.get(key)
        if seq is None:
            if event.cause is None:
                return before
            seq = event.cause
        return next((state for at, state in reversed(self.states) if at <= seq), before)

    def _settled(
        self, blocks: Reblocks, before: Execution, event: Event, following: Sequence[Event]
    ) -> Event:
        """An outcome: the block's output, then where that leads."""
        assert event.step is not None
        seen = self._seen(before, event, None)
        made, difference = blocks.step(before, seen, event, self._line(event, following))
        if difference is not None:
            self.differences.append(difference)
        made, changed = blocks.led_on(before, event, made)
        if changed is not None:
            self._differs(event, DECISION, "where it leads", *changed)
        return replace(event, body=made)

    def _line(self, event: Event, following: Sequence[Event]) -> tuple[int, ...]:
        """The steps that the box ran straight on after this one: the next outcomes, as the blueprint leads on."""
        steps = self.ground.blueprint.steps
        here = self.ground.blueprint.step_index[event.step or ""]
        line: list[int] = []
        for other in following[: steps[here].run]:
            target = steps[line[-1] if line else here].arcs[0].target
            plain = type(other.body) is StepDone and other.visit == 0 and other.attempt == 1
            if not plain or other.step != steps[target].name or other.cause is not None:
                break
            line.append(target)
        return tuple(line)

    def _end(self, before: Execution, event: Event) -> None:
        body = event.body
        assert isinstance(body, ExecutionFinished)
        commands = decide(self.blueprint, before)
        end = commands[0] if commands and isinstance(commands[0], Finish) else None
        if end is None:
            if body.problem is None:
                self._differs(event, DECISION, "the end", body.status, "it would not have ended here")
            return
        was, now = (body.status, body.result_step), (end.status, end.result_step)
        if was != now:
            self._differs(event, DECISION, "the end", list(was), list(now))

    def _differs(self, event: Event, kind: str, what: str, was: Any, now: Any) -> None:
        self.differences.append(
            Difference(event.seq, kind, event.step or "", event.visit, None, what, was, now)
        )
