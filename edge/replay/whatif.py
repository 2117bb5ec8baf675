"""What an execution would have been with another playbook: both run on what was recorded, then set side by side.

Called by `edge.replay.derived` for each execution. The log's playbook is run first, so that what each effect was
asked is known, and the comparison is between two runs of one kind; where that run is not what was recorded, it says
so and compares nothing. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from edge.core.codec import decode
from edge.core.errors import EdgeError
from edge.core.events import Event, ExecutionRequested, StepDone, StepFailed
from edge.core.records import record
from edge.core.state import Execution, fold
from edge.core.values import TableRef
from edge.replay.course import Course, Place, Stopped
from edge.replay.difference import ABSENT, DECISION, SAME, TAIL, UNRECORDED, VARIES, Output, classified
from edge.replay.effects import STOP, Answers, Recorded
from edge.replay.ground import Ground
from edge.replay.sandbox import Sandbox
from edge.replay.source import Source
from playbooks.blueprint import Blueprint

#: Ends that the box or the world brought about: what the playbook would have come to is not known.
_OF_THE_WORLD: Final = frozenset(
    {"cancelled", "deadline_exceeded", "history_lost", "resume_limit", "worker_lost"}
)
_FIELDS_MAX: Final = 1_000


@record
class WhatIf:
    """What came of one execution.

    `kind` is "" where nothing changed, "changed" where both came to an end and something did, else the class of
    difference that it stopped at. `first` is the first block that differs, `{step, visit, item, class, was, now}`;
    `fields` are what changed at the end, by path `[was, now]`; `assumed` answers were given to other requests.
    """

    execution: int
    kind: str
    first: dict[str, Any] | None
    fields: dict[str, list[Any]]
    assumed: int

    def plain(self) -> dict[str, Any]:
        """As JSON would have it."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@record
class Pair:
    """Two playbooks, shielded: the log's own and the other one."""

    own: Blueprint
    other: Blueprint


def whatif(
    sandbox: Sandbox,
    source: Source,
    pair: Pair,
    events: Sequence[Event],
    mode: str = STOP,
    model: Sequence[Mapping[str, Any]] = (),
) -> WhatIf:
    """One execution, by both playbooks. Raises nothing that one execution is to blame for."""
    recorded = fold(events)
    seq = events[0].seq
    code = (recorded.problem or {}).get("code")
    if recorded.finished is None or code in _OF_THE_WORLD:
        why = "it has not ended" if recorded.finished is None else f"it ended by {code}"
        return WhatIf(seq, TAIL, _note(why), {}, 0)
    order = {
        (event.step, event.visit): event.seq
        for event in events
        if event.step is not None and isinstance(event.body, StepDone | StepFailed)
    }
    request = events[0].body
    assert isinstance(request, ExecutionRequested)
    script = Recorded(events)
    own = Course(Ground(sandbox, source, pair.own, seq, request), script, order)
    try:
        own_state = own.run()
    except Stopped as stopped:
        return _stopped(seq, stopped, UNRECORDED)
    except EdgeError as error:
        return WhatIf(seq, UNRECORDED, _note(error.message), {}, 0)
    finally:
        own.ground.end()
    if strayed := _strayed(recorded, own_state):
        return WhatIf(seq, VARIES, _note(f"by its own playbook it comes out otherwise: {strayed}"), {}, 0)
    return _other(sandbox, source, pair, seq, own, order, Answers(script.effects, mode, model), request)


def _other(
    sandbox: Sandbox, source: Source, pair: Pair, seq: int, own: Course,
    order: Mapping[tuple[str, int], int], answers: Answers, request: ExecutionRequested,
) -> WhatIf:  # fmt: skip
    asked = replace(request, digest=pair.other.digest)
    other = Course(Ground(sandbox, source, pair.other, seq, asked), answers, order)
    try:
        other.run()
    except Stopped as stopped:
        return _stopped(seq, stopped, stopped.kind, len(answers.assumed), _first(own, other))
    except EdgeError as error:
        return WhatIf(seq, UNRECORDED, _first(own, other) or _note(error.message), {}, len(answers.assumed))
    finally:
        other.ground.end()
    first = _first(own, other)
    unused = answers.unused()
    if first is None and unused:
        first = {**_placed(unused[0].place), "class": ABSENT, "was": unused[0].request.said, "now": None}
    fields = dict(_changed("", _end_of(own), _end_of(other)))
    kind = "changed" if fields or first is not None else ""
    return WhatIf(seq, kind, first, fields, len(answers.assumed))


def _note(text: str) -> dict[str, Any]:
    return {"class": "", "what": text}


def _stopped(
    seq: int, stopped: Stopped, kind: str, assumed: int = 0, first: dict[str, Any] | None = None
) -> WhatIf:
    at = {**_placed(stopped.place), "class": kind, "was": stopped.was, "now": stopped.now}
    return WhatIf(seq, kind, {**at, "after": first} if first is not None else at, {}, assumed)


def _placed(place: Place) -> dict[str, Any]:
    return {"step": place.step, "visit": place.visit, "item": place.item, "task": place.task}


def _strayed(recorded: Execution, now: Execution) -> str:
    """How a run by the log's own playbook is not what was recorded; "" where it is."""
    if recorded.status != now.status:
        return f"{recorded.status} is recorded, {now.status} came"
    if recorded.ctx != now.ctx:
        return "ctx"
    for name, step in recorded.steps.items():
        known = now.steps.get(name)
        if known is None or known.status != step.status or known.visit != step.visit:
            return f"step {name}"
        if step.outcome is not None and known.outcome is not None:
            was, is_ = (Output(each.value, each.digest, each.table) for each in (step.outcome, known.outcome))
            if classified(was, is_) != SAME:
                return f"the output of step {name}"
    return ""


def _first(own: Course, other: Course) -> dict[str, Any] | None:
    """The first block that differs, in the order in which the other playbook ran."""
    for (step, visit, item), now in other.blocks.items():
        at: dict[str, Any] = {"step": step, "visit": visit, "item": item}
        was = own.blocks.get((step, visit, item))
        if was is None:
            return {**at, "class": DECISION, "was": "it was not run", "now": now.plain()}
        kind = classified(was, now)
        if kind != SAME:
            return {**at, "class": kind, "was": was.plain(), "now": now.plain()}
    left = next((key for key in own.blocks if key not in other.blocks), None)
    if left is None:
        return None
    at = dict(zip(("step", "visit", "item"), left, strict=True))
    return {**at, "class": DECISION, "was": own.blocks[left].plain(), "now": "it is not run"}


def _end_of(course: Course) -> dict[str, Any]:
    """What an execution came to: status, answer, ctx."""
    state = course.state
    assert state is not None
    assert state.finished is not None
    name = state.finished.result_step
    result: Any = None
    if name is not None:
        output = course.ground.outputs.get((name, state.steps[name].visit))
        if isinstance(output, bytes):
            result = decode(output)
        elif type(output) is TableRef:
            result = {"table": {"rows": output.rows, "digest": output.digest.hex()[:16]}}
        elif output is not None:
            result = {"large": output.digest.hex()[:16]}
    problem = (state.problem or {}).get("code")
    return {"status": state.status, "problem": problem, "result": result, "ctx": state.ctx}


def _changed(path: str, was: Any, now: Any) -> Iterator[tuple[str, list[Any]]]:
    """Every leaf that differs, by its path; elements of lists share one, so that lists of any length compare."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *(key for key in now if key not in was)][:_FIELDS_MAX]:
            yield from _changed(f"{path}.{key}" if path else str(key), was.get(key), now.get(key))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for one, other in zip(was[:_FIELDS_MAX], now[:_FIELDS_MAX], strict=True):
            yield from _changed(f"{path}[]", one, other)
    elif was != now or type(was) is not type(now):
        yield path, [was, now]
