"""What the log says about one execution: `evolve` takes one event further, `fold` a whole history.

Pure, and the same code on the box, in the tests and at the centre. It never evaluates an expression: the
decisions are in the events (design §4), so an evaluator mended in a later release cannot rewrite history.
The runtime calls `evolve` as it appends; replay calls `fold`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field, replace
from typing import Any, Final

from edge.core.errors import LogDamaged
from edge.core.events import (
    AttemptLost,
    Event,
    ExecutionFinished,
    ExecutionRequested,
    ExecutionResumed,
    StepDone,
    StepFailed,
    StepStarted,
)
from edge.core.records import record

RUNNING: Final = "running"
COMPLETED: Final = "completed"
FAILED: Final = "failed"


@record
class StepState:
    """The latest visit to one step.

    `status` is "ready" (an attempt was lost, nothing else is known), "started" (a write's intent is durable),
    "done" or "failed"; `attempts` counts those begun; `problem` says how the last one was lost or failed;
    `seq` is the event that said so.
    """

    visit: int = 0
    status: str = "ready"
    attempts: int = 0
    outcome: StepDone | None = None
    problem: dict[str, Any] | None = None
    seq: int = 0


@record
class Execution:
    """The state of one execution after some prefix of its events.

    `last_step` and `last_arc` say which step was settled last and which of its arcs was chosen; with the
    blueprint, `edge.core.scheduler.decide` knows from them what comes next. The fold itself has no blueprint
    and needs none. `resumes` counts restarts since the last progress, `visits` the outcomes so far.
    """

    seq: int
    request: ExecutionRequested
    status: str = RUNNING
    steps: dict[str, StepState] = field(default_factory=dict)
    ctx: dict[str, Any] = field(default_factory=dict)
    last_step: str | None = None
    last_arc: int | None = None
    problem: dict[str, Any] | None = None
    resumes: int = 0
    visits: int = 0
    finished: ExecutionFinished | None = None
    finished_seq: int = 0


def evolve(state: Execution | None, event: Event) -> Execution:
    """The state after one more event of the same execution. Raises LogDamaged where it cannot follow."""
    body = event.body
    kind = type(body)
    if kind is ExecutionRequested:
        if state is not None:
            raise LogDamaged(f"Execution {event.execution} is requested twice, again at event {event.seq}.")
        return Execution(event.seq, body)  # type: ignore[arg-type]
    if state is None:
        raise LogDamaged(f"Event {event.seq} ({event.type}) belongs to no request.")
    if state.status != RUNNING:
        raise LogDamaged(f"Event {event.seq} ({event.type}) comes after its execution finished.")
    rule = _RULES.get(kind)
    if rule is None:
        raise LogDamaged(f"Event {event.seq} ({event.type}) does not belong to an execution.")
    return rule(state, event)  # type: ignore[no-any-return]


def fold(events: Iterable[Event]) -> Execution:
    """The state after a whole history of one execution, oldest first. Raises LogDamaged."""
    state: Execution | None = None
    for event in events:
        state = evolve(state, event)
    if state is None:
        raise LogDamaged("There is no event of this execution.")
    return state


def _step_before(state: Execution, event: Event) -> StepState:
    """The state of the step the event speaks of, a fresh one where it is a new visit."""
    assert event.step is not None, event
    known = state.steps.get(event.step)
    if known is not None and known.visit == event.visit:
        if known.status in ("done", "failed"):
            raise LogDamaged(
                f"Step {event.step} (visit {event.visit}) has two outcomes, again at {event.seq}."
            )
        return known
    if known is not None and event.visit < known.visit:
        raise LogDamaged(
            f"Step {event.step} goes back from visit {known.visit} to {event.visit} at {event.seq}."
        )
    return StepState(event.visit)


def _with_step(state: Execution, name: str, step: StepState, **changes: Any) -> Execution:
    steps = dict(state.steps)
    steps[name] = step
    return replace(state, steps=steps, **changes)


def _started(state: Execution, event: Event) -> Execution:
    step = _step_before(state, event)
    started = replace(step, status="started", attempts=event.attempt, seq=event.seq)
    return _with_step(state, event.step or "", started)


def _done(state: Execution, event: Event) -> Execution:
    body = event.body
    assert isinstance(body, StepDone)
    step = _step_before(state, event)
    done = StepState(step.visit, "done", event.attempt, body, None, event.seq)
    steps = dict(state.steps)
    assert event.step is not None
    steps[event.step] = done
    ctx = {**state.ctx, **body.ctx} if body.ctx else state.ctx
    problem = {**body.problem, "step": event.step} if body.problem is not None else None
    return Execution(
        state.seq, state.request, RUNNING, steps, ctx, event.step, body.arc, problem, 0, state.visits + 1
    )


def _failed(state: Execution, event: Event) -> Execution:
    body = event.body
    assert isinstance(body, StepFailed)
    step = _step_before(state, event)
    failed = StepState(step.visit, "failed", event.attempt, None, body.problem, event.seq)
    return _with_step(
        state,
        event.step or "",
        failed,
        last_step=event.step,
        last_arc=None,
        problem={**body.problem, "step": event.step},
        visits=state.visits + 1,
    )


def _lost(state: Execution, event: Event) -> Execution:
    body = event.body
    assert isinstance(body, AttemptLost)
    step = _step_before(state, event)
    again = replace(
        step, attempts=event.attempt, seq=event.seq, problem={"code": body.code, "message": body.reason}
    )
    return _with_step(state, event.step or "", again)


def _resumed(state: Execution, event: Event) -> Execution:
    return replace(state, resumes=state.resumes + 1)


def _finished(state: Execution, event: Event) -> Execution:
    body = event.body
    assert isinstance(body, ExecutionFinished)
    return Execution(
        state.seq,
        state.request,
        body.status,
        state.steps,
        state.ctx,
        state.last_step,
        state.last_arc,
        body.problem,
        state.resumes,
        state.visits,
        body,
        event.seq,
    )


_RULES: Final[dict[type, Any]] = {
    StepStarted: _started,
    StepDone: _done,
    StepFailed: _failed,
    AttemptLost: _lost,
    ExecutionResumed: _resumed,
    ExecutionFinished: _finished,
}
