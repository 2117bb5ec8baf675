"""`decide` over random blueprints and random histories: total, deterministic, ending, and the same after any cut."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core import scheduler
from edge.core.events import (
    AttemptLost,
    Body,
    CallbackReceived,
    Event,
    ExecutionFinished,
    ExecutionRequested,
    ExecutionResumed,
    StepDone,
    StepFailed,
    StepStarted,
    StepWaiting,
    TaskDone,
)
from edge.core.limits import ATTEMPTS_MAX, RESUMES_MAX
from edge.core.routing import route
from edge.core.scheduler import Command, FailStep, Finish, Run, only_waits
from edge.core.state import Execution, evolve, fold
from edge.testing.plain import playbook
from playbooks.blueprint import Blueprint
from playbooks.scope import build_scope

STEPS_MAX = 6


@st.composite
def blueprints(draw: st.DrawFn, *, effects: tuple[str, ...] = ("pure", "read", "write")) -> Blueprint:
    """Up to six steps with any effects, policies, patches and arcs, back arcs included."""
    count = draw(st.integers(1, STEPS_MAX))
    steps: list[dict[str, Any]] = []
    for place in range(count):
        effect = draw(st.sampled_from(effects))
        spec = {"effect": effect}
        if effect == "write":
            spec["on_unknown"] = draw(st.sampled_from(["fail", "retry", "ask"]))
        step: dict[str, Any] = {
            "step": f"s{place}",
            "spec": spec,
            "tool": {"kind": "python", "code": "result = 1"},
        }
        if draw(st.booleans()):
            step["set"] = {"n": "{{ ctx.n | default(0) + 1 }}", "last": f"{{{{ s{place} }}}}"}
        arcs: list[Any] = [
            {"step": f"s{draw(st.integers(0, count - 1))}", "when": f"{{{{ s{place} % {modulus} == 0 }}}}"}
            for modulus in draw(st.lists(st.integers(2, 4), max_size=2))
        ]
        # An arc without a condition only leads forward: a straight circle never ends, and is refused elsewhere.
        if place + 1 < count and draw(st.booleans()):
            arcs.append(f"s{draw(st.integers(place + 1, count - 1))}")
        if arcs:
            step["next"] = arcs
        steps.append(step)
    return playbook(steps)


def decide(blueprint: Blueprint, state: Execution) -> Command | None:
    """The one command there is where an execution has one token."""
    commands = scheduler.decide(blueprint, state)
    assert len(commands) <= 1
    return commands[0] if commands else None


class World:
    """Plays runtime and workers: decides, records, and lets steps end as a random generator says.

    A pure step gives the same output at every run of the same visit, whatever the generator does.
    """

    def __init__(self, blueprint: Blueprint, chance: random.Random | None, *, waiting: bool = False) -> None:
        self.blueprint, self.chance, self.waiting = blueprint, chance, waiting
        self.events: list[Event] = []
        self.state: Execution | None = None
        self.append(ExecutionRequested(blueprint.digest, "alice"))

    def append(self, body: Body, step: str | None = None, visit: int = 0, attempt: int = 1) -> None:
        event = Event(len(self.events) + 1, body, 1, step, visit, (), attempt)
        self.events.append(event)
        self.state = evolve(self.state, event)

    def output(self, step: str, visit: int) -> int:
        return random.Random(f"{self.blueprint.digest.hex()}/{step}/{visit}").randrange(12)

    def settle(self, index: int, visit: int, attempt: int) -> None:
        assert self.state is not None
        step = self.blueprint.steps[index]
        value = self.output(step.name, visit)
        scope = build_scope({}, self.state.ctx, {step.name: value}, "id", None)
        routed = route(step, scope, self.state.ctx)
        arc = routed.ways[0].arc if routed.ways else None
        self.append(StepDone(bytes([value]), arc=arc, ctx=routed.patches), step.name, visit, attempt)

    def waits(self, run: Run) -> bool:
        """Play a step that has a hosted task in a world with waits: begin to wait, get a callback, end the wait."""
        assert self.state is not None
        name = self.blueprint.steps[run.steps[0]].name
        known = self.state.steps.get(name)
        here = known if known is not None and known.visit == run.visit else None
        if not self.waiting or self.output(name, run.visit) % 3 or (here is not None and here.tasks):
            return False
        called = self.output(name, run.visit) % 2 == 0
        if here is not None and here.waiting is not None:
            assert only_waits(self.blueprint, self.state)
            if called and not here.callbacks:
                self.append(CallbackReceived(0), name, run.visit)
            else:
                self.append(TaskDone(0, "pause", bytes([len(here.callbacks)])), name, run.visit)
        else:
            self.append(StepWaiting(0, "pause", "wait", {"for_ms": 5, "round": 0}), name, run.visit)
        return True

    def carry_out(self, run: Run) -> None:
        if self.waits(run):
            return
        step = self.blueprint.steps[run.steps[0]]
        if step.effect == "write":
            self.append(StepStarted(), step.name, run.visit, run.attempt)
        fate = self.chance.random() if self.chance else 1.0
        if fate < 0.15:
            self.append(AttemptLost("it died"), step.name, run.visit, run.attempt)
        elif fate < 0.2:
            self.append(
                StepFailed({"code": "tool_failed", "message": "no"}), step.name, run.visit, run.attempt
            )
        elif fate < 0.3:
            self.append(ExecutionResumed())
        else:
            for place, index in enumerate(run.steps):
                self.settle(index, run.visit if place == 0 else 0, run.attempt if place == 0 else 1)
                if self.chance and self.chance.random() < 0.1:
                    break  # the rest of the line came back as a miss

    def go(self, commands_max: int = 400) -> Execution:
        """Carry on until the end, or until a long history has been made."""
        for _ in range(commands_max):
            assert self.state is not None
            command = decide(self.blueprint, self.state)
            assert command == decide(self.blueprint, self.state), "the same state gives the same command"
            if command is None:
                break
            if isinstance(command, Finish):
                self.append(ExecutionFinished(command.status, command.result_step, problem=command.problem))
            elif isinstance(command, FailStep):
                self.append(StepFailed(command.problem), command.step, command.visit, command.attempt)
            else:
                self.check(command)
                self.carry_out(command)
        assert self.state is not None
        return self.state

    def check(self, run: Run) -> None:
        """What must hold of every command to run something."""
        assert self.state is not None
        assert 1 <= run.attempt <= ATTEMPTS_MAX
        assert self.state.resumes <= RESUMES_MAX
        first = self.blueprint.steps[run.steps[0]]
        known = self.state.steps.get(first.name)
        assert (
            known is None
            or (known.visit, known.attempts) < (run.visit, run.attempt)
            or known.visit < run.visit
        )
        if first.effect == "write" and first.on_unknown != "retry":
            assert run.attempt == 1
        for before, after in zip(run.steps, run.steps[1:], strict=False):
            step, following = self.blueprint.steps[before], self.blueprint.steps[after]
            assert step.effect == following.effect == "pure"
            assert not step.set
            assert [(arc.target, arc.when) for arc in step.arcs] == [(after, None)]
            assert following.name not in self.state.steps
        if len(run.steps) > 1:
            assert self.state.resumes == 0
            assert run.attempt == 1


@settings(max_examples=80, deadline=None)
@given(blueprints(), st.integers(0, 2**32))
def test_every_history_has_one_next_command_until_it_ends(blueprint: Blueprint, seed: int) -> None:
    """Whatever happens to its steps, an execution has exactly one next command, and one that is allowed."""
    world = World(blueprint, random.Random(seed))
    state = world.go()
    for name, step in state.steps.items():
        assert step.attempts <= ATTEMPTS_MAX, name
    outcomes = [
        (event.step, event.visit) for event in world.events if isinstance(event.body, StepDone | StepFailed)
    ]
    assert len(outcomes) == len(set(outcomes)), "one visit has one outcome"


@settings(max_examples=80, deadline=None)
@given(blueprints(), st.integers(0, 2**32))
def test_folding_any_prefix_is_evolving_so_far(blueprint: Blueprint, seed: int) -> None:
    """The fold of any prefix is what evolving step by step had there, and a next command follows from it."""
    events = []
    world = World(blueprint, random.Random(seed))
    world.go(60)
    state: Execution | None = None
    for event in world.events:
        state = evolve(state, event)
        events.append(event)
        assert fold(events) == state
        decide(blueprint, state)


@settings(max_examples=60, deadline=None)
@given(blueprints(effects=("pure",)), st.data())
def test_a_cut_anywhere_changes_nothing_for_pure_playbooks(blueprint: Blueprint, data: st.DataObject) -> None:
    """Cut after any event, resumed and carried on, a pure playbook ends with the same status, result and ctx."""
    whole = World(blueprint, None)
    end = whole.go(60)
    if end.finished is None:
        return
    cut = data.draw(st.integers(1, len(whole.events)), label="cut")
    again = World(blueprint, None)
    again.events, again.state = whole.events[:cut], fold(whole.events[:cut])
    if again.state.finished is None:
        again.append(ExecutionResumed())
    after = again.go(200)
    assert after.finished is not None
    assert (after.status, after.finished.result_step, after.ctx, after.visits) == (
        end.status,
        end.finished.result_step,
        end.ctx,
        end.visits,
    )
    assert {name: (step.visit, step.outcome) for name, step in after.steps.items()} == {
        name: (step.visit, step.outcome) for name, step in end.steps.items()
    }


@settings(max_examples=60, deadline=None)
@given(blueprints(effects=("pure",)), st.data())
def test_a_cut_anywhere_changes_nothing_for_playbooks_that_wait(
    blueprint: Blueprint, data: st.DataObject
) -> None:
    """With timers and callbacks: cut after any event, taken up and carried on, the state at the end is the same."""
    whole = World(blueprint, None, waiting=True)
    end = whole.go(120)
    if end.finished is None:
        return
    cut = data.draw(st.integers(1, len(whole.events)), label="cut")
    again = World(blueprint, None, waiting=True)
    again.events, again.state = whole.events[:cut], fold(whole.events[:cut])
    resumed = again.state.finished is None and not only_waits(blueprint, again.state)
    if resumed:
        again.append(ExecutionResumed())
    after = again.go(400)
    assert after.finished is not None
    assert (after.status, after.finished.result_step, after.ctx, after.visits) == (
        end.status,
        end.finished.result_step,
        end.ctx,
        end.visits,
    )
    assert {name: (step.visit, step.outcome) for name, step in after.steps.items()} == {
        name: (step.visit, step.outcome) for name, step in end.steps.items()
    }


@settings(max_examples=60, deadline=None)
@given(blueprints(), st.integers(0, 2**32))
def test_histories_with_waits_fold_by_prefix_and_waiting_is_no_try(blueprint: Blueprint, seed: int) -> None:
    """Whatever is lost meanwhile, the fold of a prefix is what evolving gave, and one that only waits may restart."""
    world = World(blueprint, random.Random(seed), waiting=True)
    world.go(120)
    state: Execution | None = None
    for place, event in enumerate(world.events, 1):
        state = evolve(state, event)
        assert fold(world.events[:place]) == state
        command = decide(blueprint, state)
        if isinstance(event.body, StepWaiting):
            assert only_waits(blueprint, state)
            assert isinstance(command, Run)
            assert (command.attempt, state.resumes) == (1, 0)


@settings(max_examples=60, deadline=None)
@given(blueprints(), st.integers(0, 2**32))
def test_without_back_arcs_every_execution_ends_soon(blueprint: Blueprint, seed: int) -> None:
    """Where arcs lead forward only, an execution ends, whatever is lost or restarted on the way."""
    if any(arc.target <= place for place, step in enumerate(blueprint.steps) for arc in step.arcs):
        return
    bound = len(blueprint.steps) * (ATTEMPTS_MAX + 1) * (RESUMES_MAX + 2) * 2
    assert World(blueprint, random.Random(seed)).go(bound).finished is not None
