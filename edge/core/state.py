"""What the log says about one execution: `evolve` takes one event further, `fold` a whole history.

Pure, and the same code on the box, in the tests and at the centre. It never evaluates an expression: the
decisions are in the events (design §4), so an evaluator mended in a later release cannot rewrite history.
The runtime calls `evolve` as it appends; replay calls `fold`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field, replace
from typing import Any, Final

from edge.core import loop_state
from edge.core.endings import problem_of, what_counts
from edge.core.errors import LogDamaged
from edge.core.events import (
    AttemptLost,
    CallbackReceived,
    Event,
    ExecutionCancelled,
    ExecutionDeadline,
    ExecutionFinished,
    ExecutionRequested,
    ExecutionResumed,
    LoopItems,
    LoopStarted,
    StepDone,
    StepFailed,
    StepStarted,
    StepWaiting,
    TaskDone,
)
from edge.core.records import record

RUNNING: Final = "running"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"


@record
class Token:
    """A unit of control on its way to a step.

    `target` is that step's name, or None for the only token there is: then the arc says where it leads. It came
    out of `source` by its arc number `arc` (None at the start), carries `args`, and closes a circle where `back`.
    """

    target: str | None
    source: str | None = None
    arc: int = 0
    args: dict[str, Any] | None = None
    back: bool = False


START: Final = (Token(None),)


@record
class StepState:
    """The latest visit to one step.

    `status` is "ready" (an attempt was lost, nothing else is known), "started" (a write's intent is durable),
    "done" or "failed"; `attempts` counts those begun; `problem` says how the last one was lost or failed;
    `seq` is the event that said so, `cause` the one it names as what the step had seen last, where it names one.
    `tasks` are the recorded outcomes of its pipeline, `intended` is the invocation whose intent is durable and whose
    outcome is not known, `waiting` the hosted task its pipeline waits for, `callbacks` what came for it.
    """

    visit: int = 0
    status: str = "ready"
    attempts: int = 0
    outcome: StepDone | None = None
    problem: dict[str, Any] | None = None
    seq: int = 0
    cause: int | None = None
    tasks: tuple[TaskDone, ...] = ()
    intended: int | None = None
    loop: loop_state.LoopState | None = None
    waiting: loop_state.Waiting | None = None
    callbacks: tuple[CallbackReceived, ...] = ()


@record
class Execution:
    """The state of one execution after some prefix of its events.

    `tokens` say which steps are next or under way, oldest first: a step takes its tokens when its outcome is
    recorded (`taken`). With the blueprint, `edge.core.scheduler.decide` knows from them what to do; the fold itself
    has no blueprint and needs none. `resumes` counts restarts since the last progress, `visits` the outcomes so far,
    `problem` is what ends the execution.
    """

    seq: int
    request: ExecutionRequested
    status: str = RUNNING
    steps: dict[str, StepState] = field(default_factory=dict)
    ctx: dict[str, Any] = field(default_factory=dict)
    tokens: tuple[Token, ...] = START
    last_step: str | None = None
    problem: dict[str, Any] | None = None
    resumes: int = 0
    visits: int = 0
    #: The status that `problem` ends it with.
    ending: str = FAILED
    finished: ExecutionFinished | None = None
    finished_seq: int = 0


def taken(tokens: tuple[Token, ...], step: str) -> tuple[Token, ...]:
    """The tokens one run of a step takes.

    All that came by arcs leading forward make one run together, because the step waited for them; one that closes a
    circle makes a run of its own. Whichever came first decides.
    """
    mine = [token for token in tokens if token.target is None or token.target == step]
    if mine and mine[0].back:
        return (mine[0],)
    return tuple(token for token in mine if not token.back)


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
    for event in what_counts(list(events)):
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
    body = event.body
    assert isinstance(body, StepStarted)
    step = _step_before(state, event)
    if event.iteration:
        loop = loop_state.item_intended(step.loop, event, body)
        return _with_step(state, event.step or "", replace(step, seq=event.seq, loop=loop))
    started = replace(step, status="started", attempts=event.attempt, seq=event.seq, intended=body.number)
    return _with_step(state, event.step or "", started)


def _task_done(state: Execution, event: Event) -> Execution:
    """Progress: what was recorded stays, and the attempts at what comes next are counted anew."""
    body = event.body
    assert isinstance(body, TaskDone)
    step = _step_before(state, event)
    if event.iteration:
        loop = loop_state.item_task_done(step.loop, event, body)
        return _with_step(state, event.step or "", replace(step, seq=event.seq, loop=loop), resumes=0)
    if any(known.number == body.number for known in step.tasks):
        raise LogDamaged(
            f"Task {body.number} of step {event.step} (visit {event.visit}) has two outcomes, again at {event.seq}."
        )
    intended = None if step.intended == body.number else step.intended
    known = replace(
        step,
        status="started" if intended is not None else "ready",
        attempts=0,
        problem=None,
        seq=event.seq,
        tasks=(*step.tasks, body),
        intended=intended,
        waiting=None,
    )
    return _with_step(state, event.step or "", known, resumes=0)


def _waiting(state: Execution, event: Event) -> Execution:
    """Progress: a pipeline came so far that only the outside can carry it on."""
    body = event.body
    assert isinstance(body, StepWaiting)
    step = _step_before(state, event)
    if event.iteration:
        loop = loop_state.item_waiting(step.loop, event, body)
        return _with_step(state, event.step or "", replace(step, seq=event.seq, loop=loop), resumes=0)
    waiting = loop_state.Waiting(event.seq, body)
    known = replace(step, attempts=0, problem=None, seq=event.seq, waiting=waiting)
    return _with_step(state, event.step or "", known, resumes=0)


def _called(state: Execution, event: Event) -> Execution:
    """A callback came, whether its wait has begun or not."""
    body = event.body
    assert isinstance(body, CallbackReceived)
    step = _step_before(state, event)
    if event.iteration:
        return _with_step(
            state, event.step or "", replace(step, loop=loop_state.item_called(step.loop, event, body))
        )
    return _with_step(state, event.step or "", replace(step, callbacks=(*step.callbacks, body)))


def _loop_started(state: Execution, event: Event) -> Execution:
    body = event.body
    assert isinstance(body, LoopStarted)
    step = _step_before(state, event)
    if step.loop is not None:
        raise LogDamaged(
            f"The loop of step {event.step} (visit {event.visit}) begins twice, again at {event.seq}."
        )
    begun = replace(step, seq=event.seq, cause=event.cause, loop=loop_state.LoopState(body))
    return _with_step(state, event.step or "", begun, resumes=0)


def _loop_items(state: Execution, event: Event) -> Execution:
    """Items have their outcome: each once. What their policies wrote is applied."""
    body = event.body
    assert isinstance(body, LoopItems)
    step = _step_before(state, event)
    further = loop_state.items_settled(step.loop, event, body)
    ctx = {**state.ctx, **body.ctx} if body.ctx else state.ctx
    return _with_step(state, event.step or "", replace(step, seq=event.seq, loop=further), ctx=ctx, resumes=0)


def _done(state: Execution, event: Event) -> Execution:
    body = event.body
    assert isinstance(body, StepDone)
    step = _step_before(state, event)
    done = StepState(step.visit, "done", event.attempt, body, None, event.seq, event.cause, loop=step.loop)
    steps = dict(state.steps)
    assert event.step is not None
    steps[event.step] = done
    ctx = {**state.ctx, **body.ctx} if body.ctx else state.ctx
    problem = state.problem
    if body.problem is not None and problem is None:
        problem = {**body.problem, "step": event.step}
    tokens = state.tokens
    if len(tokens) == 1 and body.ways is None and tokens[0].target is None:
        tokens = () if body.arc is None else (Token(None, event.step, body.arc),)
    else:
        tokens = _moved(tokens, event, body.arc, body.ways)
    return Execution(
        state.seq,
        state.request,
        RUNNING,
        steps,
        ctx,
        tokens,
        event.step,
        problem,
        0,
        state.visits + 1,
        state.ending,
    )


def _failed(state: Execution, event: Event) -> Execution:
    body = event.body
    assert isinstance(body, StepFailed)
    step = _step_before(state, event)
    failed = StepState(step.visit, "failed", event.attempt, None, body.problem, event.seq)
    problem = state.problem
    if body.ways is None and problem is None:
        problem = {**body.problem, "step": event.step}
    return _with_step(
        state,
        event.step or "",
        failed,
        ctx={**state.ctx, **body.ctx} if body.ctx else state.ctx,
        tokens=_moved(state.tokens, event, None, body.ways),
        last_step=event.step,
        problem=problem,
        visits=state.visits + 1,
    )


def _moved(
    tokens: tuple[Token, ...], event: Event, arc: int | None, ways: list[Any] | None
) -> tuple[Token, ...]:
    """The tokens after an outcome: without those it took, with those it gave."""
    step = event.step
    assert step is not None, event
    if len(tokens) == 1 and ways is None and tokens[0].target in (None, step):
        return () if arc is None else (Token(None, step, arc),)
    mine = taken(tokens, step)
    if tokens and not mine:
        raise LogDamaged(f"Step {step} has an outcome at event {event.seq}, and nothing led to it.")
    left = [token for token in tokens if not any(token is each for each in mine)]
    if arc is not None:
        left.append(Token(None, step, arc))
    left.extend(_token(step, way, event) for way in ways or ())
    if len(left) > 1 and any(token.target is None for token in left):
        raise LogDamaged(f"Event {event.seq} leaves several tokens and does not say where one of them leads.")
    return tuple(left)


def _token(step: str, way: Any, event: Event) -> Token:
    if type(way) is not list or not 2 <= len(way) <= 4 or type(way[0]) is not int or type(way[1]) is not str:
        raise LogDamaged(f"Event {event.seq} has a way on that is none: {way!r:.80}")
    args = way[2] if len(way) > 2 else None
    return Token(way[1], step, way[0], args, len(way) > 3 and way[3] is True)


def _lost(state: Execution, event: Event) -> Execution:
    body = event.body
    assert isinstance(body, AttemptLost)
    step = _step_before(state, event)
    if event.iteration:
        loop = loop_state.items_lost(step.loop, event)
        problem = {"code": body.code, "message": body.reason}
        return _with_step(state, event.step or "", replace(step, seq=event.seq, problem=problem, loop=loop))
    again = replace(
        step, attempts=event.attempt, seq=event.seq, problem={"code": body.code, "message": body.reason}
    )
    return _with_step(state, event.step or "", again)


def _resumed(state: Execution, event: Event) -> Execution:
    return replace(state, resumes=state.resumes + 1)


def _to_end(state: Execution, event: Event) -> Execution:
    """Nothing more begins. A failure that came before stays what ends it."""
    if state.problem is not None:
        return state
    ending = CANCELLED if type(event.body) is ExecutionCancelled else FAILED
    return replace(state, problem=problem_of(event.body), ending=ending)


def _finished(state: Execution, event: Event) -> Execution:
    body = event.body
    assert isinstance(body, ExecutionFinished)
    return Execution(
        state.seq,
        state.request,
        body.status,
        state.steps,
        state.ctx,
        state.tokens,
        state.last_step,
        body.problem,
        state.resumes,
        state.visits,
        state.ending,
        body,
        event.seq,
    )


_RULES: Final[dict[type, Any]] = {
    StepStarted: _started,
    TaskDone: _task_done,
    StepWaiting: _waiting,
    CallbackReceived: _called,
    LoopStarted: _loop_started,
    LoopItems: _loop_items,
    StepDone: _done,
    StepFailed: _failed,
    AttemptLost: _lost,
    ExecutionResumed: _resumed,
    ExecutionCancelled: _to_end,
    ExecutionDeadline: _to_end,
    ExecutionFinished: _finished,
}

#: What belongs to an execution; whatever else the log says is told of the box.
EXECUTION_BODIES: Final[frozenset[type]] = frozenset({ExecutionRequested, *_RULES})
