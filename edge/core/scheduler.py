"""What happens next: `decide` looks at a blueprint and a state, `route` at a step's output.

Pure and total: no clock, no randomness, no input or output; any state that `fold` can make has exactly one
next command. The runtime carries the commands out; nobody else starts a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.core.codec import check_plain, encode
from edge.core.errors import EvaluationFailed, PayloadInvalid
from edge.core.limits import ATTEMPTS_MAX, INLINE_BYTES_MAX, RESUMES_MAX, VISITS_MAX
from edge.core.records import record
from edge.core.state import COMPLETED, FAILED, RUNNING, Execution, StepState
from playbooks.blueprint import Blueprint, Step
from playbooks.evaluate import render, truth


@record
class Run:
    """Run `steps` (indices, a straight line of pure steps or just one) on one claim."""

    steps: tuple[int, ...]
    visit: int
    attempt: int


@record
class FailStep:
    """Record that `step` failed for good: `problem` is `{code, message[, mend]}`."""

    step: str
    visit: int
    attempt: int
    problem: dict[str, Any]


@record
class Finish:
    """Record that the execution ended."""

    status: str
    result_step: str | None = None
    problem: dict[str, Any] | None = None


Command = Run | FailStep | Finish

_NOT_YET: Final = StepState()


def decide(blueprint: Blueprint, state: Execution) -> Command | None:
    """The one thing to do next, given that nothing of this execution is under way. None once finished."""
    if state.status != RUNNING:
        return None
    if state.problem is not None:
        return Finish(FAILED, problem=state.problem)
    index = _next_index(blueprint, state)
    if index is None:
        return Finish(COMPLETED, result_step=state.last_step)
    step = blueprint.steps[index]
    if state.resumes > RESUMES_MAX:
        return Finish(FAILED, problem=_resume_problem(step, state))
    if state.visits >= VISITS_MAX:
        return Finish(FAILED, problem=_visits_problem(step))
    known = state.steps.get(step.name, _NOT_YET)
    if known.status == "done":
        known = StepState(known.visit + 1)
    refusal = _attempts_problem(step, known)
    if refusal is not None:
        return FailStep(step.name, known.visit, known.attempts, refusal)
    return Run(_straight_line(blueprint, state, index, known), known.visit, known.attempts + 1)


def _next_index(blueprint: Blueprint, state: Execution) -> int | None:
    if state.last_step is None:
        return 0
    if state.last_arc is None:
        return None
    arcs = blueprint.steps[blueprint.step_index[state.last_step]].arcs
    return arcs[state.last_arc].target


def _straight_line(blueprint: Blueprint, state: Execution, index: int, known: StepState) -> tuple[int, ...]:
    """The steps one claim may carry. After a lost attempt a step goes alone, so that blame falls right."""
    line = [index]
    if known.attempts == 0 and state.resumes == 0:
        for _ in range(blueprint.steps[index].run):
            target = blueprint.steps[line[-1]].arcs[0].target
            if blueprint.steps[target].name in state.steps:
                break
            line.append(target)
    return tuple(line)


def _attempts_problem(step: Step, known: StepState) -> dict[str, Any] | None:
    """Why the step may not be tried again, or None where it may."""
    if known.attempts == 0:
        return None
    reason = (known.problem or {}).get("message", "the runtime stopped while it ran")
    if step.effect == "write" and step.on_unknown != "retry":
        return {
            "code": "outcome_unknown",
            "message": f"Step {step.name} may or may not have had its effect: {reason}.",
            "mend": "Look at the effect, then send a new request; or declare spec.on_unknown: retry.",
        }
    if known.attempts < ATTEMPTS_MAX:
        return None
    code = (known.problem or {}).get("code", "worker_lost")
    return {
        "code": code,
        "message": f"Step {step.name} was lost {known.attempts} times; the last time {reason}.",
        "mend": _MENDS.get(code, ""),
    }


_MENDS: Final = {
    "timeout": "Give the step a longer spec.timeout, or make it do less.",
    "worker_lost": "Look at what the step does to its own process or to the box's memory (spec.memory_mb).",
}


def _resume_problem(step: Step, state: Execution) -> dict[str, Any]:
    return {
        "code": "resume_limit",
        "message": f"The runtime restarted {state.resumes} times while step {step.name} was next.",
        "mend": "If the step exhausts the box, lower what it needs; then send a new request.",
        "step": step.name,
    }


def _visits_problem(step: Step) -> dict[str, Any]:
    return {
        "code": "visits_exceeded",
        "message": f"The execution ran {VISITS_MAX} steps without an end; step {step.name} would be next.",
        "mend": "Give the loop of arcs a `when` that ends it.",
        "step": step.name,
    }


def route(
    step: Step, scope: Mapping[str, Any], ctx: dict[str, Any]
) -> tuple[int | None, dict[str, Any] | None]:
    """The arc a settled step takes and its `set` patches: `(arc index or None, patches or None)`.

    `scope` already holds the step's own result; `ctx` is the execution's, and the scope's `ctx` is the same
    object, so patches are applied to a copy by the caller. Raises EvaluationFailed.
    """
    patches: dict[str, Any] | None = None
    if step.set:
        patches = {name: render(tree, scope) for name, tree in step.set}
        scope = {**scope, "ctx": {**ctx, **patches}}
    for index, arc in enumerate(step.arcs):
        if arc.when is None or truth(arc.when, scope):
            return index, patches
    return None, patches


def check_ctx(ctx: Mapping[str, Any], patches: Mapping[str, Any] | None) -> None:
    """What `set` adds must fit the event that keeps it. Raises EvaluationFailed `ctx_too_large`, `ctx_invalid`."""
    if not patches:
        return
    try:
        size_bytes = len(encode(check_plain({**ctx, **patches})))
    except PayloadInvalid as error:
        raise EvaluationFailed(
            f"`set` makes a value that cannot be kept: {error.message}", mend=error.mend, code="ctx_invalid"
        ) from error
    if size_bytes > INLINE_BYTES_MAX:
        raise EvaluationFailed(
            f"`set` makes ctx {size_bytes} bytes large; {INLINE_BYTES_MAX} are allowed.",
            mend="Keep large values in step results and refer to them.",
            code="ctx_too_large",
        )
