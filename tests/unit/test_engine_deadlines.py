"""Deadlines on the real engine: of executions and of steps, with claims out, waits, pauses, loops, over restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.core.clock import WALL_IMPLAUSIBLE
from edge.core.events import ExecutionDeadline, LoopItems, StepDone, StepFailed
from edge.core.limits import CLOCK_GRACE_S
from edge.core.state import fold
from edge.testing.box import Box
from edge.testing.clock import START_WALL_NS, ManualClock
from edge.testing.plain import playbook

S = 1_000_000_000


def wait(**config: Any) -> dict[str, Any]:
    return {"name": "pause", "kind": "wait", **config}


def value(name: str, given: Any, **more: Any) -> dict[str, Any]:
    return {"step": name, "tool": {"kind": "transform", "value": given}, **more}


def bounded(deadline: Any, **step: Any) -> dict[str, Any]:
    return {"step": "s", "spec": {"policy": {"lifecycle": {"deadline_s": deadline}}}, **step}


async def begun(
    box: Box, steps: list[dict[str, Any]], deadline_ms: int | None = None, claims: int = -1
) -> int:
    await box.register(playbook(steps))
    box.submit("t", deadline_ms=deadline_ms)
    if claims < 0:
        await box.settle()
    else:
        await box.gate.flushed()
        for _ in range(claims):
            box.pool.run()
    return box.receipts[-1].seq


def problem(box: Box) -> tuple[str, str | None]:
    error = box.document()["error"]
    return error["code"], error.get("step")


async def test_an_execution_that_waits_ends_at_its_deadline(box: Box) -> None:
    """The request's deadline ends it, with a wait of days under way, parked; the log says so."""
    seq = await begun(box, [{"step": "s", "tool": wait(duration="5d")}], 90_000)
    assert box.engine.executor.open == {}
    await box.pass_time(89)
    assert box.answers == []
    await box.pass_time(1)
    assert problem(box) == ("deadline_exceeded", None)
    bodies = [event.body for event in box.engine.events_of(seq)]
    assert [body for body in bodies if isinstance(body, ExecutionDeadline)] == [ExecutionDeadline(90_000)]
    assert box.engine.state_of(seq) == fold(box.engine.events_of(seq))
    assert len(box.engine.executor.timers) == 0


async def test_what_is_under_way_is_recorded_and_nothing_more_begins(box: Box) -> None:
    """A claim that is out when the deadline passes gets its outcome; the step after it never runs."""
    seq = await begun(box, [value("a", 1, set={"n": 1}, next=["b"]), value("b", 2)], 5_000, claims=0)
    box.move_clock(6)
    assert box.answers == []
    await box.settle()
    assert problem(box)[0] == "deadline_exceeded"
    assert [event.step for event in box.engine.events_of(seq) if isinstance(event.body, StepDone)] == ["a"]


async def test_one_that_ends_in_time_is_left_alone(box: Box) -> None:
    """Nothing of its deadline is left behind."""
    await begun(box, [value("a", 1)], 5_000)
    assert box.document()["result"] == 1
    assert len(box.engine.executor.timers) == 0
    await box.pass_time(10)
    assert len(box.answers) == 1


@pytest.mark.parametrize(("away_s", "over"), [(30, False), (61, True)])
async def test_it_holds_over_a_restart(tmp_path: Path, away_s: int, over: bool) -> None:
    """What passed while the runtime was away counts, by CLOCK_BOOTTIME and by the trusted wall clock."""
    for boot_id in (None, b"b" * 16):
        box = Box(tmp_path / f"box{boot_id}")
        await begun(box, [{"step": "s", "tool": wait(duration="5d")}], 60_000)
        picture = box.photograph(tmp_path / f"cut{boot_id}")
        await box.close()
        clock = ManualClock()
        if boot_id is None:
            clock.advance(away_s * S)
            again = Box(picture, clock=clock)
        else:
            clock.set_wall(START_WALL_NS + away_s * S)
            again = Box(picture, clock=clock, boot_id=boot_id)
        await again.settle()
        assert bool(again.answers) is over
        await again.pass_time(60)
        assert problem(again)[0] == "deadline_exceeded"
        await again.close()


async def test_without_a_clock_it_counts_as_passed(tmp_path: Path) -> None:
    """After a power cut into 1970 the clock is given a moment; then nobody waits for what may be long over."""
    box = Box(tmp_path / "box")
    seq = await begun(box, [{"step": "s", "tool": wait(duration="5d")}], 3_600_000)
    picture = box.photograph(tmp_path / "cut")
    await box.close()
    clock = ManualClock()
    clock.set_wall(0, WALL_IMPLAUSIBLE)
    again = Box(picture, clock=clock, boot_id=b"b" * 16)
    await again.pass_time(60)
    assert again.answers == []
    await again.pass_time(CLOCK_GRACE_S)
    assert problem(again)[0] == "deadline_exceeded"
    [body] = [
        event.body for event in again.engine.events_of(seq) if isinstance(event.body, ExecutionDeadline)
    ]
    assert body.by == "after_power_loss"
    await again.close()


async def test_a_step_that_waits_too_long_fails(box: Box) -> None:
    """`deadline_s` covers all of a step's gos and waits, from when it could begin."""
    await begun(box, [bounded(60, tool=[wait(seconds=40), {**wait(seconds=40), "name": "more"}])])
    await box.pass_time(40)
    assert box.answers == []
    await box.pass_time(20)
    assert problem(box) == ("deadline_exceeded", "s")
    assert len(box.engine.executor.timers) == 0


async def test_an_arc_may_take_it(box: Box) -> None:
    """It fails the step, not the execution: the failure leads on where an arc asks for it."""
    late = {
        "step": "late",
        "when": "{{ event.name == 'step.failed' and event.error.code == 'deadline_exceeded' }}",
    }
    await begun(box, [bounded("1m", tool=wait(duration="1h"), next=[late]), value("late", "went on")])
    await box.pass_time(60)
    assert box.document()["result"] == "went on"


async def test_a_pause_between_attempts_counts(box: Box) -> None:
    """The deadline passes while a retry pauses: no further attempt."""
    rule = {"else": {"then": {"do": "retry", "attempts": 9, "delay": 60}}}
    tool = {"kind": "python", "code": "result = 1 / 0", "spec": {"policy": {"rules": [rule]}}}
    await begun(box, [bounded(30, tool=tool)])
    await box.pass_time(30)
    assert problem(box) == ("deadline_exceeded", "s")
    await box.settle_with_pauses()
    assert len(box.pool.submitted) == 1


async def test_a_claim_that_is_out_may_finish(box: Box) -> None:
    """Late is not lost: an outcome that comes after the deadline is recorded as it is; a pause is not waited for."""
    await begun(box, [bounded(5, tool={"kind": "transform", "value": 7})], claims=0)
    box.move_clock(6)
    await box.settle()
    assert box.document()["result"] == 7
    await begun(
        box, [bounded(5, tool=[{"name": "a", "kind": "transform", "value": 7}, wait(seconds=60)])], claims=0
    )
    box.move_clock(6)
    await box.settle()
    assert problem(box) == ("deadline_exceeded", "s")


async def test_a_loop_ends_at_its_steps_deadline(box: Box) -> None:
    """Items that are settled stay so, no other begins, what waits is dropped."""
    loop = {"in": [1, 2, 90, 91], "iterator": "x", "spec": {"mode": "parallel"}}
    seq = await begun(box, [bounded(10, tool=wait(seconds="{{ x }}"), loop=loop)])
    await box.pass_time(2)
    await box.pass_time(8)
    assert problem(box) == ("deadline_exceeded", "s")
    bodies = [event.body for event in box.engine.events_of(seq) if isinstance(event.body, LoopItems)]
    assert sum(body.count for body in bodies) == 2
    assert len(box.engine.executor.timers) == 0


async def test_a_step_is_counted_from_when_it_could_begin(tmp_path: Path) -> None:
    """Over a restart too: from the outcome that led to it, not from when it was taken up."""
    box = Box(tmp_path / "box")
    steps = [{"step": "a", "tool": wait(seconds=100), "next": ["s"]}, bounded(60, tool=wait(duration="1h"))]
    await begun(box, steps)
    await box.pass_time(100)
    await box.pass_time(30)
    picture = box.photograph(tmp_path / "cut")
    await box.close()
    again = Box(picture, clock=box.clock)
    await again.pass_time(29)
    assert again.answers == []
    await again.pass_time(1)
    assert problem(again) == ("deadline_exceeded", "s")
    await again.close()


async def test_a_step_that_is_overdue_before_it_begins_does_not(tmp_path: Path) -> None:
    """The box was away over the whole deadline: the step fails without a claim."""
    box = Box(tmp_path / "box")
    seq = await begun(
        box, [value("a", 1, next=["s"]), bounded(60, tool={"kind": "python", "code": "result = 1"})], claims=1
    )
    await box.gate.flushed()
    picture = box.photograph(tmp_path / "cut")
    await box.close()
    clock = ManualClock()
    clock.advance(61 * S)
    again = Box(picture, clock=clock)
    await again.settle()
    assert problem(again) == ("deadline_exceeded", "s")
    assert again.pool.submitted == []
    assert any(isinstance(event.body, StepFailed) for event in again.engine.events_of(seq))
    await again.close()


@pytest.mark.parametrize("given", [0, -1, "soon", "{{ 5 }}", 32 * 86_400, None, [1]])
def test_a_deadline_is_a_length_of_time(given: Any) -> None:
    """Refused while compiling."""
    with pytest.raises(Exception, match="deadline_s"):
        playbook([bounded(given, tool={"kind": "noop"})])
