"""`decide` and `route`: the next command, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from edge.core import scheduler
from edge.core.event_body import Body
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
from edge.core.limits import ATTEMPTS_MAX, RESUMES_MAX, VISITS_MAX
from edge.core.routing import Routed, Way, route
from edge.core.scheduler import Command, FailStep, Finish, Run
from edge.core.state import Execution, fold
from edge.testing.plain import playbook
from playbooks.blueprint import Blueprint
from playbooks.scope import build_scope

NOOP = {"kind": "noop"}
CODE = {"kind": "python", "code": "result = 1"}


def line(*effects: str, on_unknown: str | None = None) -> Blueprint:
    """Steps a, b, c … one after the other, with these effects."""
    steps: list[dict[str, Any]] = []
    for place, effect in enumerate(effects):
        spec = {"effect": effect}
        if effect == "write" and on_unknown:
            spec["on_unknown"] = on_unknown
        step: dict[str, Any] = {"step": "abcdef"[place], "spec": spec, "tool": CODE}
        if place + 1 < len(effects):
            step["next"] = ["abcdef"[place + 1]]
        steps.append(step)
    return playbook(steps)


def state_of(blueprint: Blueprint, *entries: tuple[Body, str | None, int, int]) -> Execution:
    events = [Event(1, ExecutionRequested(blueprint.digest, "alice"), 1)]
    events += [
        Event(seq, body, 1, step, visit, (), attempt)
        for seq, (body, step, visit, attempt) in enumerate(entries, 2)
    ]
    return fold(events)


def done(step: str, arc: int | None = 0, visit: int = 0) -> tuple[Body, str, int, int]:
    return StepDone(b"\x01", arc=arc), step, visit, 1


def lost(step: str, attempt: int = 1, code: str = "worker_lost") -> tuple[Body, str, int, int]:
    return AttemptLost("it died", code), step, 0, attempt


def decide(blueprint: Blueprint, state: Execution) -> Command | None:
    """The one command there is where an execution has one token."""
    commands = scheduler.decide(blueprint, state)
    assert len(commands) <= 1
    return commands[0] if commands else None


RESUMED = (ExecutionResumed(), None, 0, 1)


def test_it_begins_with_the_first_step() -> None:
    """A fresh execution runs its first step, first visit, first attempt."""
    blueprint = line("read", "read")
    assert decide(blueprint, state_of(blueprint)) == Run((0,), 0, 1)


def test_it_follows_the_recorded_arc() -> None:
    """The next step is where the recorded arc leads, whatever an evaluator would say today."""
    steps = [
        {"step": "a", "tool": CODE, "next": [{"step": "b", "when": "{{ a == 1 }}"}, {"step": "c"}]},
        {"step": "b", "tool": CODE},
        {"step": "c", "tool": CODE},
    ]
    blueprint = playbook(steps)
    assert decide(blueprint, state_of(blueprint, done("a", 0))) == Run((1,), 0, 1)
    assert decide(blueprint, state_of(blueprint, done("a", 1))) == Run((2,), 0, 1)
    assert decide(blueprint, state_of(blueprint, done("a", None))) == Finish("completed", "a")


def test_the_end_answers_with_the_last_step() -> None:
    """Where no arc leads on, the execution is complete and answers with the step settled last."""
    blueprint = line("read", "read")
    assert decide(blueprint, state_of(blueprint, done("a"), done("b", None))) == Finish("completed", "b")


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_finished_execution_asks_for_nothing(status: str) -> None:
    """After its end there is nothing to do."""
    blueprint = line("read")
    assert decide(blueprint, state_of(blueprint, (ExecutionFinished(status), None, 0, 1))) is None


def test_a_failed_step_ends_the_execution() -> None:
    """A step that failed for good ends the execution with its problem."""
    blueprint = line("read", "read")
    state = state_of(blueprint, (StepFailed({"code": "x", "message": "y"}), "a", 0, 1))
    assert decide(blueprint, state) == Finish("failed", None, {"code": "x", "message": "y", "step": "a"})


@pytest.mark.parametrize(
    ("effects", "steps"),
    [
        (("pure", "pure", "pure"), (0, 1, 2)),
        (("pure", "read", "pure"), (0,)),
        (("pure", "pure", "write"), (0, 1)),
        (("read", "pure", "pure"), (0,)),
        (("write", "pure"), (0,)),
    ],
)
def test_only_pure_steps_share_a_claim(effects: tuple[str, ...], steps: tuple[int, ...]) -> None:
    """A claim carries a straight line of pure steps, and a step with an effect goes alone."""
    blueprint = line(*effects)
    assert decide(blueprint, state_of(blueprint)) == Run(steps, 0, 1)


def test_a_question_or_a_patch_ends_the_line() -> None:
    """A conditional arc, two arcs or a `set` are the runtime's to answer: the line ends before them."""
    for extra in (
        {"next": [{"step": "b", "when": "{{ a == 1 }}"}]},
        {"next": [{"step": "b", "when": "{{ a == 1 }}"}, "c"]},
        {"next": ["b"], "set": {"k": 1}},
    ):
        steps = [
            {"step": "a", "tool": NOOP, **extra},
            {"step": "b", "tool": NOOP},
            {"step": "c", "tool": NOOP},
        ]
        blueprint = playbook(steps)
        assert decide(blueprint, state_of(blueprint)) == Run((0,), 0, 1)


def test_after_a_loss_or_a_restart_steps_go_alone() -> None:
    """A step that was lost, and the first after a restart, is not put in a line with others."""
    blueprint = line("pure", "pure", "pure")
    assert decide(blueprint, state_of(blueprint, lost("a"))) == Run((0,), 0, 2)
    assert decide(blueprint, state_of(blueprint, RESUMED)) == Run((0,), 0, 1)
    assert decide(blueprint, state_of(blueprint, lost("a"), done("a"))) == Run((1, 2), 0, 1)


def test_a_line_stops_before_a_step_already_visited() -> None:
    """A line never carries a step the execution knows: its visit is not the first."""
    steps = [
        {"step": "a", "tool": NOOP, "next": ["b"]},
        {"step": "b", "tool": NOOP, "next": [{"step": "a", "when": "{{ ctx.again | default(true) }}"}]},
    ]
    blueprint = playbook(steps)
    state = state_of(blueprint, done("a"), done("b"))
    assert decide(blueprint, state) == Run((0,), 1, 1)
    assert decide(blueprint, state_of(blueprint, done("a"), done("b"), done("a", 0, 1))) == Run((1,), 1, 1)


@pytest.mark.parametrize(("effect", "on_unknown"), [("pure", None), ("read", None), ("write", "retry")])
def test_three_attempts_and_no_more(effect: str, on_unknown: str | None) -> None:
    """What may be run again is run three times; then the step fails with what lost the last attempt."""
    blueprint = line(effect, on_unknown=on_unknown)
    state = state_of(blueprint, *(lost("a", number, "timeout") for number in range(1, ATTEMPTS_MAX)))
    assert decide(blueprint, state) == Run((0,), 0, ATTEMPTS_MAX)
    state = state_of(blueprint, *(lost("a", number, "timeout") for number in range(1, ATTEMPTS_MAX + 1)))
    command = decide(blueprint, state)
    assert isinstance(command, FailStep)
    assert (command.step, command.attempt, command.problem["code"]) == ("a", 3, "timeout")


@pytest.mark.parametrize("on_unknown", [None, "fail", "ask"])
@pytest.mark.parametrize("how", ["lost", "cut"])
def test_an_unknown_outcome_is_not_guessed(on_unknown: str | None, how: str) -> None:
    """A write that was lost, or whose intent alone is known after a restart, fails with outcome_unknown."""
    blueprint = line("write", on_unknown=on_unknown)
    intent = (StepStarted(), "a", 0, 1)
    state = state_of(blueprint, intent, lost("a") if how == "lost" else RESUMED)
    command = decide(blueprint, state)
    assert isinstance(command, FailStep)
    assert (command.problem["code"], command.visit, command.attempt) == ("outcome_unknown", 0, 1)


def test_an_unknown_outcome_may_be_retried_where_the_policy_says_so() -> None:
    """With on_unknown retry the next attempt follows."""
    blueprint = line("write", on_unknown="retry")
    assert decide(blueprint, state_of(blueprint, (StepStarted(), "a", 0, 1), RESUMED)) == Run((0,), 0, 2)


def test_restarts_without_progress_end() -> None:
    """Three restarts without an outcome are survived, the fourth ends it; progress starts the count over."""
    blueprint = line("read", "read")
    assert isinstance(decide(blueprint, state_of(blueprint, *[RESUMED] * RESUMES_MAX)), Run)
    command = decide(blueprint, state_of(blueprint, *[RESUMED] * (RESUMES_MAX + 1)))
    assert isinstance(command, Finish)
    assert command.problem is not None
    assert (command.status, command.problem["code"], command.problem["step"]) == (
        "failed",
        "resume_limit",
        "a",
    )
    state = state_of(blueprint, *[RESUMED] * RESUMES_MAX, done("a"), *[RESUMED] * RESUMES_MAX)
    assert decide(blueprint, state) == Run((1,), 0, 1)


def test_a_restart_after_the_last_outcome_only_finishes() -> None:
    """An execution that has everything but its end is finished, however often it was resumed."""
    blueprint = line("read")
    state = state_of(blueprint, done("a", None), *[RESUMED] * 9)
    assert decide(blueprint, state) == Finish("completed", "a")


def test_a_loop_of_arcs_ends() -> None:
    """After VISITS_MAX outcomes the execution fails instead of going on."""
    steps = [{"step": "a", "tool": NOOP, "next": [{"step": "a", "when": "{{ workload.go }}"}]}]
    blueprint = playbook(steps, workload={"go": True})
    state: Command | None = None
    events = [Event(1, ExecutionRequested(blueprint.digest, "alice"), 1)]
    events += [Event(2 + n, StepDone(arc=0), 1, "a", n) for n in range(VISITS_MAX)]
    state = decide(blueprint, fold(events[:-1]))
    assert state == Run((0,), VISITS_MAX - 1, 1)
    state = decide(blueprint, fold(events))
    assert isinstance(state, Finish)
    assert state.problem is not None
    assert state.problem["code"] == "visits_exceeded"


def test_route_takes_the_first_arc_that_holds() -> None:
    """Arcs are asked in order, after the patches, and the first that holds is taken."""
    steps = [
        {
            "step": "a",
            "tool": NOOP,
            "set": {"x": "{{ a + 1 }}", "y": "{{ ctx.x | default('none') }}"},
            "next": [{"step": "b", "when": "{{ ctx.x > 5 }}"}, {"step": "c", "when": "{{ ctx.x > 2 }}"}],
        },
        {"step": "b", "tool": NOOP},
        {"step": "c", "tool": NOOP},
    ]
    step = playbook(steps).steps[0]

    def routed(value: int) -> Routed:
        return route(step, build_scope({}, {}, {"a": value}, "id", None), {})

    assert routed(9) == Routed((Way(0),), {"x": 10, "y": "none"}), (
        "patches see ctx as it was before all of them"
    )
    assert routed(2) == Routed((Way(1),), {"x": 3, "y": "none"})
    assert routed(1) == Routed((), {"x": 2, "y": "none"})


def test_route_leaves_ctx_as_it_is() -> None:
    """Routing changes neither the scope nor the execution's ctx: the fold applies the patches."""
    blueprint = playbook(
        [{"step": "a", "tool": NOOP, "set": {"k": 2}, "next": ["b"]}, {"step": "b", "tool": NOOP}]
    )
    ctx = {"k": 1}
    scope = build_scope({}, ctx, {"a": None}, "id", None)
    assert route(blueprint.steps[0], scope, ctx) == Routed((Way(0),), {"k": 2})
    assert (ctx, scope["ctx"]) == ({"k": 1}, {"k": 1})
