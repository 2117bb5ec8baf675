"""What a pipeline goes by while other branches go on: the `ctx` and the results it began with, to its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.core.events import Event, TaskDone
from edge.core.state import COMPLETED, fold
from edge.replay.explain import explain
from edge.store.journal import read_groups
from edge.testing.box import Box
from edge.testing.plain import playbook
from edge.testing.pool import Lost
from playbooks.blueprint import Blueprint

READ = {"kind": "python", "code": "result = 1", "spec": {"effect": "read"}}
WRITE = {"kind": "python", "code": "result = 1", "spec": {"effect": "write", "on_unknown": "retry"}}
REST = {"name": "rest", "kind": "wait", "seconds": 20}
#: Where a rule leads depends on what another branch writes or gives.
LATE = "{{ ctx.mode | default('early') == 'late' or other.mode | default('early') == 'late' }}"
FORK = {"spec": {"mode": "inclusive"}, "arcs": [{"step": "pause"}, {"step": "s"}]}
SEES = "{{ [ctx.mode | default('early'), other.mode | default('early')] }}"


def rule(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"policy": {"rules": list(rules)}}


def tasks(first: dict[str, Any], rest: dict[str, Any] = REST) -> list[dict[str, Any]]:
    """Goes on by what it sees of the other branch, rests while that changes it, and says it again."""
    skip = {"when": LATE, "then": {"do": "jump", "to": "end"}}
    return [
        {"name": "gate", "kind": "noop", "spec": rule(skip, {"else": {"then": {"do": "continue"}}})},
        {
            **first,
            "name": "look",
            "spec": {**first["spec"], **rule(skip, {"else": {"then": {"do": "continue"}}})},
        },
        rest,
        {**READ, "name": "after"},
        {"name": "end", "kind": "transform", "value": SEES},
    ]


def steps(first: dict[str, Any] = READ, **more: Any) -> list[dict[str, Any]]:
    """A pipeline beside a branch that writes `ctx.mode` and gives a result while the pipeline rests."""
    return [
        {"step": "fork", "next": FORK},
        {"step": "pause", "tool": {"kind": "wait", "seconds": 10}, "next": ["other"]},
        {"step": "other", "tool": {"kind": "transform", "value": {"mode": "late"}}, "set": {"mode": "late"}},
        {"step": "s", "tool": tasks(first), "input": {"seen": SEES}, **more},
    ]


OVER = {"in": ["a", "b"], "iterator": "x"}
LOOPS = {mode: steps(loop={**OVER, "spec": {"mode": mode}}) for mode in ("sequential", "parallel")}


def outcome(box: Box, execution: int) -> Any:
    """What the pipeline gave."""
    state = box.engine.state_of(execution)
    assert state.status == COMPLETED, state.problem
    assert state == fold(box.engine.events_of(execution))
    return json.loads(box.engine.answer(execution).payload)["result"]


def recorded(events: list[Event]) -> list[str]:
    return [event.body.task for event in events if isinstance(event.body, TaskDone) and event.step == "s"]


async def begun(box: Box, workflow: list[dict[str, Any]]) -> tuple[int, Blueprint]:
    blueprint = await box.register(playbook(workflow))
    box.submit("t")
    await box.settle()
    return box.receipts[-1].seq, blueprint


async def carried_on(box: Box, seconds: int = 60) -> None:
    for _ in range(seconds // 5):
        await box.settle()
        await box.pass_time(5)


EARLY = ["early", "early"]


@pytest.mark.parametrize("first", [READ, WRITE], ids=["read", "write"])
async def test_it_goes_by_what_it_began_with(box: Box, first: dict[str, Any]) -> None:
    """Another branch writes `ctx` and gives a result meanwhile: rules and tasks see what they saw."""
    execution, _ = await begun(box, steps(first))
    await carried_on(box)
    assert outcome(box, execution) == EARLY
    assert recorded(box.engine.events_of(execution)) == ["look", "rest", "after"]
    assert box.engine.state_of(execution).ctx == {"mode": "late"}


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
async def test_an_item_goes_by_what_it_began_with(box: Box, mode: str) -> None:
    """Each item sees what there was when it began: in a sequential loop the second one sees the news."""
    execution, _ = await begun(box, LOOPS[mode])
    await carried_on(box)
    assert outcome(box, execution) == ([EARLY, ["late", "late"]] if mode == "sequential" else [EARLY, EARLY])


@pytest.mark.parametrize(
    "workflow", [steps(), steps(WRITE), *LOOPS.values()], ids=["read", "write", "sequential", "parallel"]
)
async def test_every_cut_leads_along_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workflow: list[dict[str, Any]]
) -> None:
    """Cut after any event it completes with what it saw at its beginning, if that had left anything in the log."""
    monkeypatch.setattr("edge.runtime.commit.gate.GROUP_EVENTS_MAX", 1)
    box = Box(tmp_path / "whole")
    execution, _ = await begun(box, workflow)
    await carried_on(box)
    wanted = outcome(box, execution)
    await box.gate.flushed()
    (file,) = sorted((box.folder / "journal").iterdir())
    data = file.read_bytes()
    ends = {group.first_seq: data.index(frame) + len(frame) for _, group, frame in read_groups(file.parent)}
    events = box.engine.events_of(execution)
    await box.close()
    for seq, end in ends.items():
        if seq < execution:
            continue
        before = [event for event in events if event.seq <= seq]
        folder = box.folder.parent / f"cut{seq}"
        (folder / "journal").mkdir(parents=True)
        (folder / "journal" / file.name).write_bytes(data[:end] + bytes(len(data) - end))
        again = Box(folder)
        await carried_on(again)
        state = again.engine.state_of(execution)
        assert state.status == COMPLETED, (seq, state.problem)
        ended = outcome(again, execution)  # one that had recorded nothing may begin with the news
        assert ended == wanted or "look" not in recorded(before), seq
        await again.close()


async def test_a_lost_attempt_that_recorded_nothing_may_see_the_news(box: Box) -> None:
    """Nothing binds it: a fresh beginning. One that had recorded something goes on with what it saw."""
    lost: list[str] = []

    def answer(work: Any) -> Any:
        claim = work.claim
        behind = {record.task for record in claim.progress.recorded} if claim.progress else set()
        if "rest" in behind and "lost" not in lost:
            lost.append("lost")
            return Lost()
        return box.pool.work(work)

    box.pool.answer = answer
    execution, _ = await begun(box, steps())
    await carried_on(box)
    assert lost == ["lost"]
    assert outcome(box, execution) == EARLY


async def test_what_an_item_wrote_is_there_for_the_next_one(box: Box, tmp_path: Path) -> None:
    """Pinned is what the items before wrote too: over a restart in the middle, sequential items count on."""
    count = {
        "when": "{{ true }}",
        "then": {"do": "continue", "set": {"ctx.n": "{{ ctx.n | default(0) + 1 }}"}},
    }
    loop = {"in": ["a", "b", "c"], "iterator": "x", "spec": {"mode": "sequential"}}
    tool = [{**READ, "name": "look", "spec": {**READ["spec"], **rule(count)}}, REST,
            {"name": "end", "kind": "transform", "value": "{{ ctx.n }}"}]  # fmt: skip
    workflow = [*steps()[:3], {"step": "s", "loop": loop, "tool": tool}]
    execution, _ = await begun(box, workflow)
    for _ in range(6):
        await box.pass_time(5)
    again = Box(box.photograph(tmp_path / "cut"), clock=box.clock)
    await carried_on(again, 120)
    assert outcome(again, execution) == [1, 2, 3]
    await again.close()


async def test_the_step_that_led_here_may_run_again_meanwhile(box: Box, tmp_path: Path) -> None:
    """Where arcs lead back to the step before, its second outcome is news: over a restart the first counts."""
    both = {
        "spec": {"mode": "inclusive"},
        "arcs": [{"step": "s", "when": "{{ ctx.n == 1 }}"}, {"step": "again"}],
    }
    workflow = [
        {"step": "a", "tool": {"kind": "noop"}, "set": {"n": "{{ ctx.n | default(0) + 1 }}"}, "next": both},
        {
            "step": "again",
            "tool": {"kind": "wait", "seconds": 10},
            "next": [{"step": "a", "when": "{{ ctx.n < 2 }}"}],
        },
        {
            "step": "s",
            "tool": [
                {**READ, "name": "look"},
                REST,
                {"name": "end", "kind": "transform", "value": "{{ ctx.n }}"},
            ],
        },
    ]
    execution, _ = await begun(box, workflow)
    await box.pass_time(12)
    assert box.engine.state_of(execution).ctx == {"n": 2}
    again = Box(box.photograph(tmp_path / "cut"), clock=box.clock)
    await carried_on(again)
    assert outcome(again, execution) == 1
    await again.close()


async def test_explaining_it_finds_the_same_rules(box: Box) -> None:
    """`edge explain` asks the rules about what the pipeline began with, not about what its end found."""
    execution, blueprint = await begun(box, steps())
    await carried_on(box)
    made = explain(blueprint, box.engine.events_of(execution), {}, box.engine.execution_id(execution))
    rules = [decision for decision in made if decision.kind == "rule"]
    assert [decision.status for decision in rules] == ["", ""]
    assert [decision.chosen for decision in rules] == ["continue", "continue"]


async def test_what_is_alone_names_no_cause(box: Box) -> None:
    """Where nothing happens beside it, the log says not a byte more than before."""
    execution, _ = await begun(box, [{"step": "s", "tool": tasks(READ)}])
    await carried_on(box)
    events = box.engine.events_of(execution)
    assert recorded(events) == ["look", "rest", "after"]
    assert [event.cause for event in events] == [None] * len(events)
