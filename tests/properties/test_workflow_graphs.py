"""Random workflow graphs: whatever settles first, wherever it is cut, they end as the reference interpreter says."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.events import (
    Body,
    Event,
    ExecutionFinished,
    ExecutionRequested,
    ExecutionResumed,
    StepDone,
    StepFailed,
)
from edge.core.routing import envelope, needs_ways, route, ways_on
from edge.core.scheduler import Admit, FailStep, Finish, Run, decide
from edge.core.state import RUNNING, Execution, evolve, fold
from edge.testing.plain import playbook
from playbooks.blueprint import Blueprint
from playbooks.scope import build_scope
from tests.properties import reference

STEPS_MAX = 7
COMMANDS_MAX = 1_500


@st.composite
def graphs(draw: st.DrawFn) -> reference.Graph:
    """Up to seven steps: forks, joins, circles, failures borne or not, steps that are never let in."""
    count = draw(st.integers(1, STEPS_MAX))
    graph: reference.Graph = {}
    for place in range(count):
        fails = draw(st.sampled_from([None, None, 2, 3]))
        arcs: list[tuple[str, int | None]] = []
        for _ in range(draw(st.integers(0, 3))):
            target = draw(st.integers(0, count - 1))
            modulus = draw(st.sampled_from([1, 2, 3, -1, -2] if fails else [1, 2, 3]))
            # An arc without a condition leads forward only: a straight circle never ends.
            if target > place and draw(st.booleans()):
                arcs.append((f"s{target}", None))
                break
            arcs.append((f"s{target}", modulus if target > place or modulus != 1 else 2))
        graph[f"s{place}"] = {
            "mode": draw(st.sampled_from(["exclusive", "inclusive"])),
            "arcs": arcs,
            "fails": fails,
            "best_effort": draw(st.booleans()),
            "deny": place > 0 and draw(st.integers(0, 9)) == 0,
        }
    return graph


def compiled(graph: reference.Graph) -> Blueprint:
    """The graph as a playbook."""
    steps = []
    for name, step in graph.items():
        policy: dict[str, Any] = {"failure": {"mode": "best_effort" if step["best_effort"] else "fail_fast"}}
        if step["deny"]:
            policy["admit"] = {"rules": [{"else": {"allow": False}}]}
        arcs: list[Any] = []
        for target, modulus in step["arcs"]:
            if modulus is None:
                arcs.append({"step": target})
            elif modulus < 0:
                when = f"{{{{ event.name == 'step.failed' and event.error.n % {-modulus} == 0 }}}}"
                arcs.append({"step": target, "when": when})
            else:
                arcs.append({"step": target, "when": f"{{{{ {name} % {modulus} == 0 }}}}"})
        made: dict[str, Any] = {
            "step": name,
            "spec": {"effect": "read", "policy": policy},
            "tool": {"kind": "python", "code": "result = 1"},
        }
        if arcs:
            made["next"] = {"spec": {"mode": step["mode"]}, "arcs": arcs}
        steps.append(made)
    return playbook(steps)


class Game:
    """Plays runtime and workers with branches side by side; what settles next is chance."""

    def __init__(self, graph: reference.Graph, seed: int, cut: float) -> None:
        self.graph, self.blueprint, self.chance, self.cut = graph, compiled(graph), random.Random(seed), cut
        self.events: list[Event] = []
        self.state: Execution | None = None
        self.under_way: dict[str, Run] = {}
        self.denied: set[str] = set()
        self.append(ExecutionRequested(self.blueprint.digest, "alice"))

    def append(self, body: Body, step: str | None = None, visit: int = 0, attempt: int = 1) -> None:
        event = Event(len(self.events) + 1, body, 1, step, visit, (), attempt)
        self.events.append(event)
        self.state = evolve(self.state, event)

    def settle(self, name: str) -> None:
        state = self.state
        assert state is not None
        run = self.under_way.pop(name)
        step = self.blueprint.steps[run.steps[0]]
        value = output(name, run.visit)
        fails = self.graph[name]["fails"]
        problem = {"code": "x", "message": "y", "n": value} if fails and value % fails == 0 else None
        scope = build_scope({}, state.ctx, {} if problem else {name: value}, "id", None)
        scope["output"] = envelope(value, problem)
        routed = route(step, scope, state.ctx, failed=problem is not None)
        ways = ways_on(self.blueprint, step, routed)
        if problem is not None:
            body: Body = StepFailed(problem, 0, ways or ([] if step.best_effort else None))
        elif needs_ways(state.tokens, routed):
            body = StepDone(bytes([value]), ways=ways)
        else:
            body = StepDone(bytes([value]), arc=routed.ways[0].arc if routed.ways else None)
        self.append(body, name, run.visit, run.attempt)
        self.denied.clear()

    def carry_out(self, command: Run | Admit | FailStep | Finish) -> None:
        if isinstance(command, Finish):
            self.append(ExecutionFinished(command.status, command.result_step, problem=command.problem))
        elif isinstance(command, Admit):
            self.denied.add(self.blueprint.steps[command.step].name)
        else:
            assert isinstance(command, Run), command
            name = self.blueprint.steps[command.steps[0]].name
            assert name not in self.under_way
            self.under_way[name] = command

    def go(self) -> Execution:
        for _ in range(COMMANDS_MAX):
            assert self.state is not None
            if self.state.status != RUNNING:
                break
            if self.chance.random() < self.cut:
                self.under_way.clear()
                self.denied.clear()
                self.append(ExecutionResumed())
            asked = (self.blueprint, self.state, set(self.under_way), set(), self.denied)
            commands = decide(*asked)
            assert commands == decide(*asked), "the same state gives the same commands"
            assert commands or self.under_way, "it stands still"
            for command in commands:
                self.carry_out(command)
            if self.under_way and self.state.status == RUNNING:
                self.settle(self.chance.choice(sorted(self.under_way)))
        assert self.state is not None
        return self.state


def output(name: str, visit: int) -> int:
    """What a step gives at a visit: the same in every run."""
    return random.Random(f"{name}/{visit}").randrange(12)


@settings(max_examples=300, deadline=None)
@given(graphs(), st.integers(0, 2**32), st.sampled_from([0.0, 0.2]))
def test_every_graph_ends_as_the_reference_says(graph: reference.Graph, seed: int, cut: float) -> None:
    """Status, visits and the answering step do not depend on which branch settles first, nor on restarts."""
    said = reference.run(graph, output)
    if said.status is None:
        return
    game = Game(graph, seed, cut)
    state = game.go()
    assert state.status == said.status
    if said.status == "completed":
        assert {name: step.visit for name, step in state.steps.items()} == said.visits
        assert state.finished is not None
        assert state.finished.result_step == said.answer
    assert fold(game.events) == state


@settings(max_examples=100, deadline=None)
@given(graphs(), st.integers(0, 2**32))
def test_one_visit_has_one_outcome(graph: reference.Graph, seed: int) -> None:
    """Branches side by side and restarts never settle the same visit twice."""
    game = Game(graph, seed, 0.2)
    game.go()
    settled = [
        (event.step, event.visit) for event in game.events if isinstance(event.body, StepDone | StepFailed)
    ]
    assert len(settled) == len(set(settled))
