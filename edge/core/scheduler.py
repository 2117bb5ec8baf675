"""What happens next: `decide` looks at a blueprint and a state.

Pure and total: no clock, no randomness, no input or output; for any state that `fold` can make, and any set of
steps under way, it gives the same commands. The runtime carries them out; nobody else starts a step. How a settled
step's arcs are chosen stands in `edge.core.routing`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from edge.core.limits import ATTEMPTS_MAX, RESUMES_MAX, VISITS_MAX
from edge.core.records import record
from edge.core.state import COMPLETED, FAILED, RUNNING, Execution, StepState, Token, taken
from playbooks.blueprint import Blueprint
from playbooks.shape import Step


@record
class Run:
    """Run `steps` (indices, a straight line of pure steps or just one) on one claim.

    `args` is what the tokens that led there carry.
    """

    steps: tuple[int, ...]
    visit: int
    attempt: int
    args: dict[str, Any] | None = None


@record
class RunLoop:
    """Run the step at index `step` once for each item of its loop, or go on where it stopped."""

    step: int
    visit: int
    args: dict[str, Any] | None = None


@record
class Admit:
    """Ask the admission rules of the step at index `step`; `args` as in Run."""

    step: int
    args: dict[str, Any] | None = None


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


Command = Run | RunLoop | Admit | FailStep | Finish

_NOT_YET: Final = StepState()
_NOTHING: Final[frozenset[str]] = frozenset()


def decide(
    blueprint: Blueprint,
    state: Execution,
    under_way: Collection[str] = _NOTHING,
    admitted: Collection[str] = _NOTHING,
    denied: Collection[str] = _NOTHING,
) -> tuple[Command, ...]:
    """All that is to be done now, besides what is under way; empty where that has to settle first, or at the end.

    `under_way` names steps whose claims are out, `admitted` and `denied` those whose admission rules were asked and
    would say the same now.
    """
    if state.status != RUNNING:
        return ()
    if state.problem is not None:
        return () if under_way else (Finish(state.ending, problem=state.problem),)
    tokens = state.tokens
    if not tokens:
        return () if under_way else (_at_rest(blueprint, state),)
    if len(tokens) == 1 and not denied:
        index = _target(blueprint, tokens[0])
        step = blueprint.steps[index]
        if step.name in under_way:
            return ()
        if step.admit is None or step.name in admitted:
            return (_start(blueprint, state, index, tokens[0].args),)
        return (Admit(index, tokens[0].args),)
    return _decide_many(blueprint, state, under_way, admitted, denied)


def _decide_many(
    blueprint: Blueprint,
    state: Execution,
    under_way: Collection[str],
    admitted: Collection[str],
    denied: Collection[str],
) -> tuple[Command, ...]:
    """`decide` where there are several tokens, or one that is not let in."""
    where = {_target(blueprint, token): None for token in state.tokens}
    commands: list[Command] = []
    for index in _free(blueprint, where):
        step = blueprint.steps[index]
        if step.name in under_way or step.name in denied:
            continue
        commands.append(_let_in(blueprint, state, index, admitted))
    if commands or under_way:
        return _one_end(commands, under_way)
    # Only steps that are not let in, and what waits for them: those go first now, the first of them alone.
    for index in where:
        if blueprint.steps[index].name not in denied:
            return (_let_in(blueprint, state, index, admitted),)
    return (_at_rest(blueprint, state),)


def _free(blueprint: Blueprint, where: dict[int, None]) -> Iterator[int]:
    """Steps that wait for nobody: no token elsewhere can still come to them by arcs leading forward."""
    for index in where:
        if not any(blueprint.leads_to(other, index) for other in where if other != index):
            yield index


def _let_in(blueprint: Blueprint, state: Execution, index: int, admitted: Collection[str]) -> Command:
    step = blueprint.steps[index]
    args = token_args(blueprint, state, step.name)
    if step.admit is None or step.name in admitted:
        return _start(blueprint, state, index, args)
    return Admit(index, args)


def _one_end(commands: list[Command], under_way: Collection[str]) -> tuple[Command, ...]:
    """An end stands alone, and waits for what is under way."""
    ends = [command for command in commands if isinstance(command, Finish)]
    if not ends:
        return tuple(commands)
    return () if under_way else (ends[0],)


def token_args(blueprint: Blueprint, state: Execution, step: str) -> dict[str, Any] | None:
    """What the tokens a run of `step` takes carry together; the arc written later in the playbook wins."""
    tokens = state.tokens
    if len(tokens) == 1:
        return tokens[0].args
    mine = [token for token in taken(tokens, step) if token.args]
    if len(mine) <= 1:
        return mine[0].args if mine else None
    index = blueprint.step_index
    mine.sort(key=lambda token: (index[token.source] if token.source else -1, token.arc))
    merged: dict[str, Any] = {}
    for token in mine:
        merged.update(token.args or {})
    return merged


def _target(blueprint: Blueprint, token: Token) -> int:
    if token.target is not None:
        return blueprint.step_index[token.target]
    if token.source is None:
        return blueprint.entry
    return blueprint.steps[blueprint.step_index[token.source]].arcs[token.arc].target


def _at_rest(blueprint: Blueprint, state: Execution) -> Command:
    """No token can go on: the final step where there is one and it has not run, else the end."""
    final, wanted = blueprint.final, state.request.result_step
    if wanted is not None and (final is None or blueprint.steps[final].name in state.steps):
        known = state.steps.get(wanted, _NOT_YET)
        return Finish(COMPLETED, result_step=wanted if known.status == "done" else None)
    if final is None:
        return Finish(COMPLETED, result_step=_result_step(blueprint, state))
    name = blueprint.steps[final].name
    known = state.steps.get(name, _NOT_YET)
    if known.status == "done":
        return Finish(COMPLETED, result_step=name)
    if known.status == "failed":
        return Finish(COMPLETED, result_step=_result_step(blueprint, state))
    return _start(blueprint, state, final, summary(state))


def summary(state: Execution) -> dict[str, Any]:
    """What the final step is told: how many steps were done, which failed and how."""
    failed = [
        {"step": name, "error": step.problem} for name, step in state.steps.items() if step.status == "failed"
    ]
    done = sum(step.status == "done" for step in state.steps.values())
    return {"done": done, "failed": sorted(failed, key=lambda each: str(each["step"]))}


def _result_step(blueprint: Blueprint, state: Execution) -> str | None:
    """Whose output answers: of the steps where a branch ended, the one written last in the playbook.

    Where branches run side by side, which settled last is chance, and an answer must not be.
    """
    last = state.last_step
    if last is not None and _ended(blueprint, state, last) and len(state.steps) == 1:
        return last
    ends = [name for name in state.steps if _ended(blueprint, state, name)]
    return max(ends, key=blueprint.step_index.__getitem__, default=None)


def _ended(blueprint: Blueprint, state: Execution, name: str) -> bool:
    outcome = state.steps[name].outcome
    if state.steps[name].status != "done" or outcome is None or outcome.arc is not None or outcome.ways:
        return False
    step = blueprint.steps[blueprint.step_index[name]]
    return not (step.quiet and step.arcs)


def _start(blueprint: Blueprint, state: Execution, index: int, args: dict[str, Any] | None) -> Command:
    step = blueprint.steps[index]
    if state.resumes > RESUMES_MAX:
        return Finish(FAILED, problem=_resume_problem(step, state))
    if state.visits >= VISITS_MAX:
        return Finish(FAILED, problem=_visits_problem(step))
    known = state.steps.get(step.name)
    if step.loop is not None:
        visit = 0 if known is None else known.visit + (known.status in ("done", "failed"))
        return RunLoop(index, visit, args)
    if known is None:
        return Run(_straight_line(blueprint, state, index, _NOT_YET), 0, 1, args)
    if known.status in ("done", "failed"):
        known = StepState(known.visit + 1)
    refusal = _attempts_problem(step, known)
    if refusal is not None:
        return FailStep(step.name, known.visit, known.attempts, refusal)
    return Run(_straight_line(blueprint, state, index, known), known.visit, known.attempts + 1, args)


def ready_since(state: Execution, step: str) -> int:
    """The event since which a step could run: the outcome, or the request, that gave the last token it waited for."""
    led = [token.source for token in taken(state.tokens, step)]
    sources = [state.steps[source].seq for source in led if source is not None and source in state.steps]
    if not led:  # the final step: everything had come to rest
        sources = [each.seq for name, each in state.steps.items() if name != step]
    return max(sources, default=state.seq)


def only_waits(blueprint: Blueprint, state: Execution) -> bool:
    """Whether all there is to do is to wait for what comes from outside: then a restart is no try at anything."""
    commands = decide(blueprint, state)
    return bool(commands) and all(_waits(blueprint, state, command) for command in commands)


def _waits(blueprint: Blueprint, state: Execution, command: Command) -> bool:
    if not isinstance(command, Run | RunLoop):
        return False
    step = blueprint.steps[command.steps[0] if isinstance(command, Run) else command.step]
    known = state.steps.get(step.name)
    if known is None or known.visit != command.visit:
        return False
    if isinstance(command, Run):
        return known.waiting is not None
    if known.loop is None or step.loop is None:
        return False
    left = known.loop.started.total - known.loop.settled
    return 0 < min(left, step.loop.in_flight_max) <= len(known.loop.waiting)


def _straight_line(blueprint: Blueprint, state: Execution, index: int, known: StepState) -> tuple[int, ...]:
    """The steps one claim may carry. After a lost attempt a step goes alone, so that blame falls right."""
    if not blueprint.steps[index].run:
        return (index,)
    line = [index]
    if known.attempts == 0 and state.resumes == 0 and len(state.tokens) == 1:
        for _ in range(blueprint.steps[index].run):
            target = blueprint.steps[line[-1]].arcs[0].target
            if blueprint.steps[target].name in state.steps:
                break
            line.append(target)
    return tuple(line)


def _attempts_problem(step: Step, known: StepState) -> dict[str, Any] | None:
    """Why the step may not be tried again, or None where it may."""
    if known.waiting is not None or (known.attempts == 0 and known.intended is None):
        return None
    reason = (known.problem or {}).get("message", "the runtime stopped while it ran")
    if known.intended is not None and step.on_unknown != "retry":
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
