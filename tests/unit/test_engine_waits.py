"""Waiting without a slot on the real engine: timers over restarts and clock jumps, in loops, policies, cancelled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.core.clock import WALL_IMPLAUSIBLE, WALL_UNCONFIRMED
from edge.core.events import ExecutionResumed, LoopItems, StepWaiting, TaskDone
from edge.core.limits import CLOCK_GRACE_S, RESUMES_MAX
from edge.core.state import fold
from edge.testing.box import Box
from edge.testing.clock import START_WALL_NS, ManualClock
from edge.testing.plain import playbook

S = 1_000_000_000
OTHER_BOOT = b"b" * 16


def wait(**config: Any) -> dict[str, Any]:
    return {"name": "pause", "kind": "wait", **config}


def value(name: str, given: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "transform", "value": given, **more}


def one(*tasks: dict[str, Any], **step: Any) -> list[dict[str, Any]]:
    return [{"step": "s", "tool": list(tasks) if len(tasks) > 1 else tasks[0], **step}]


async def begun(box: Box, steps: list[dict[str, Any]], payload: bytes = b"", **root: Any) -> int:
    await box.register(playbook(steps, **root))
    box.submit("t", payload)
    await box.settle()
    return box.receipts[-1].seq


def types(box: Box, seq: int) -> list[str]:
    return [event.type for event in box.engine.events_of(seq)][1:]


async def restarted(box: Box, folder: Path, clock: ManualClock | None = None, **given: Any) -> Box:
    """A box on what is durable now; the first one is closed."""
    await box.gate.flushed()
    picture = box.photograph(folder)
    await box.close()
    again = Box(picture, clock=clock if clock is not None else box.clock, **given)
    await again.settle()
    return again


async def test_a_wait_holds_no_worker_and_ends_in_time(box: Box) -> None:
    """One claim before it, none while it lasts, one after; the log has the wait and how it was judged to be over."""
    seq = await begun(box, one(value("a", 1), wait(seconds=5), value("b", "{{ [a, _prev.by] }}")))
    assert (len(box.pool.submitted), box.answers) == (1, [])
    await box.pass_time(4.9)
    assert box.answers == []
    await box.pass_time(0.2)
    assert box.document()["result"] == [1, "boottime"]
    assert types(box, seq) == ["step.waiting", "task.done", "step.done", "playbook.execution.finished"]
    assert len(box.pool.submitted) == 2


@pytest.mark.parametrize(
    ("config", "length_s"),
    [
        ({"seconds": 90}, 90),
        ({"duration": "1.5h"}, 5_400),
        ({"seconds": "500ms"}, 0.5),
        ({"seconds": "{{ workload.n * 2 }}"}, 6),
        ({"duration": "{{ workload.text }}"}, 120),
        ({"duration": "7d"}, 7 * 86_400),
        ({"until": "2026-01-01T00:01:00Z"}, 60),
        ({"until": "2026-01-01 01:01:00+01:00"}, 60),
        ({"until": "{{ workload.at }}"}, 30),
    ],
)
async def test_how_long_is_said_in_many_ways(box: Box, config: dict[str, Any], length_s: float) -> None:
    """Seconds, texts with a unit, instants, templates giving any of them."""
    workload = {"n": 3, "text": "2m", "at": START_WALL_NS // S + 30}
    await begun(box, one(wait(**config)), workload=workload)
    await box.pass_time(length_s - 0.1)
    assert box.answers == []
    await box.pass_time(0.2)
    assert box.document()["status"] == "completed"


@pytest.mark.parametrize("given", [-1, "soon", None, [1]])
async def test_a_time_that_is_none_fails_the_task(box: Box, given: Any) -> None:
    """What a template gives is checked when the wait begins; the policy sees the problem like any other."""
    rule = {"when": "{{ output.error.code == 'wait_invalid' }}", "then": {"do": "continue"}}
    tasks = wait(seconds="{{ workload.n }}", spec={"policy": {"rules": [rule]}}), value("b", "went on")
    await begun(box, one(*tasks), json.dumps({"n": given}).encode())
    assert box.document()["result"] == "went on"


async def test_a_wait_of_nothing_is_over_at_once(box: Box) -> None:
    """No event says that it waits."""
    seq = await begun(box, one(wait(seconds=0)))
    assert types(box, seq) == ["task.done", "step.done", "playbook.execution.finished"]


async def test_a_wait_beyond_the_bound_is_refused(box: Box) -> None:
    """Nobody waits for years by mistake."""
    await begun(box, one(wait(until="2036-01-01T00:00:00Z")))
    assert box.document()["error"]["code"] == "wait_too_long"


@pytest.mark.parametrize("wall_ns", [0, START_WALL_NS - 315_360_000 * S, START_WALL_NS + 315_360_000 * S])
async def test_clock_jumps_do_not_touch_it(box: Box, wall_ns: int) -> None:
    """1970, ten years back, ten years ahead: the length of a wait is CLOCK_BOOTTIME's."""
    assert isinstance(box.clock, ManualClock)
    await begun(box, one(wait(seconds=60)))
    box.clock.set_wall(wall_ns, WALL_IMPLAUSIBLE if wall_ns == 0 else WALL_UNCONFIRMED)
    await box.pass_time(59)
    assert box.answers == []
    await box.pass_time(1)
    assert box.document()["status"] == "completed"


async def test_it_goes_on_over_a_restart_within_a_boot(tmp_path: Path) -> None:
    """What passed while the runtime was away counts; nothing is claimed again, nothing counts as a try."""
    box = Box(tmp_path / "box")
    seq = await begun(box, one(value("a", 1), wait(seconds=60), value("b", "{{ a }}")))
    for n in range(RESUMES_MAX + 2):
        assert isinstance(box.clock, ManualClock)
        box.clock.advance(10 * S)
        box = await restarted(box, tmp_path / f"cut{n}")
        assert (box.resumed, box.pool.submitted, box.answers) == (1, [], [])
    await box.pass_time(9.9)
    assert box.answers == []
    await box.pass_time(0.2)
    assert box.document()["result"] == 1
    events = box.engine.events_of(seq)
    assert not [event for event in events if isinstance(event.body, ExecutionResumed)]
    assert box.engine.state_of(seq) == fold(events)
    await box.close()


@pytest.mark.parametrize(
    ("away_s", "left_s"), [(1_000, 2_600), (3_590, 10), (3_600, 0), (10 * 365 * 86_400, 0)]
)
async def test_over_a_power_cut_the_wall_clock_says_what_passed(
    tmp_path: Path, away_s: int, left_s: int
) -> None:
    """Synchronised before and after: the difference is taken off."""
    box = Box(tmp_path / "box")
    await begun(box, one(wait(duration="1h")))
    clock = ManualClock()
    clock.set_wall(START_WALL_NS + away_s * S)
    again = await restarted(box, tmp_path / "cut", clock, boot_id=OTHER_BOOT)
    if left_s:
        await again.pass_time(left_s - 1)
        assert again.answers == []
        await again.pass_time(1)
    assert again.document()["result"]["by"] == "wall"
    await again.close()


@pytest.mark.parametrize("policy", ["fire", "restart", "fail"])
async def test_without_a_clock_the_playbook_decides(tmp_path: Path, policy: str) -> None:
    """After a cut into 1970 it is given a moment to be set; then fire, restart or fail, and the log says which."""
    box = Box(tmp_path / "box")
    seq = await begun(box, one(wait(duration="1h", after_power_loss=policy)))
    clock = ManualClock()
    clock.set_wall(0, WALL_IMPLAUSIBLE)
    again = await restarted(box, tmp_path / "cut", clock, boot_id=OTHER_BOOT)
    await again.pass_time(60)
    assert again.answers == []
    await again.pass_time(CLOCK_GRACE_S)
    if policy == "fire":
        assert again.document()["result"]["by"] == "after_power_loss"
    elif policy == "fail":
        assert again.document()["error"]["code"] == "wait_lost"
    else:
        assert again.answers == []
        assert types(again, seq).count("step.waiting") == 2
        third = await restarted(again, tmp_path / "again", boot_id=OTHER_BOOT)
        await third.pass_time(3_599)
        assert third.answers == []
        await third.pass_time(1)
        assert third.document()["result"]["by"] == "boottime"
        again = third
    await again.close()


async def test_a_clock_set_in_time_is_believed(tmp_path: Path) -> None:
    """Woken in 1970, then set by the network within its moment: the trusted difference counts after all."""
    box = Box(tmp_path / "box")
    await begun(box, one(wait(duration="1h", after_power_loss="fail")))
    clock = ManualClock()
    clock.set_wall(0, WALL_IMPLAUSIBLE)
    again = await restarted(box, tmp_path / "cut", clock, boot_id=OTHER_BOOT)
    await again.pass_time(40)
    clock.set_wall(START_WALL_NS + 3_500 * S)
    await again.pass_time(60)
    assert again.answers == []
    await again.pass_time(40)
    assert again.document()["result"]["by"] == "wall"
    await again.close()


async def test_an_instant_follows_a_clock_that_is_set(box: Box) -> None:
    """`until` is over when the wall clock has come there, also by a jump."""
    assert isinstance(box.clock, ManualClock)
    await begun(box, one(wait(until="2026-01-08T00:00:00Z")))
    await box.pass_time(60)
    assert box.answers == []
    box.clock.set_wall(START_WALL_NS + 8 * 86_400 * S)
    await box.pass_time(60)
    assert box.document()["result"]["by"] == "wall"


async def test_a_cancelled_execution_does_not_wait(box: Box) -> None:
    """What waits is dropped at once, in a pipeline and in a loop, and its time comes to nothing."""
    loop = {"in": [1, 2, 3], "iterator": "x", "spec": {"mode": "parallel"}}
    for steps in (one(wait(seconds=9)), one(wait(seconds=9), loop=loop)):
        seq = await begun(box, steps)
        box.engine.cancel(seq, "ops", None, lambda status: None)
        await box.settle()
        assert box.document()["status"] == "cancelled"
        assert len(box.engine.executor.timers) == 0
    await box.pass_time(10)
    assert len(box.answers) == 2


async def test_a_failure_elsewhere_does_not_wait_either(box: Box) -> None:
    """A branch fails the execution while another waits for days: it ends at once."""
    steps = [
        {"step": "a", "tool": {"kind": "noop"}, "next": {"spec": {"mode": "inclusive"}, "arcs": ["b", "c"]}},
        {"step": "b", "tool": wait(duration="5d")},
        {"step": "c", "tool": [wait(seconds=1), {"name": "x", "kind": "python", "code": "result = 1 / 0"}]},
    ]
    await begun(box, steps)
    await box.pass_time(1)
    assert box.document()["error"]["code"] == "python_raised"
    assert len(box.engine.executor.timers) == 0


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
async def test_items_of_a_loop_wait_each_for_itself(box: Box, mode: str) -> None:
    """Side by side in a parallel loop, one after the other in a sequential one; results in order."""
    loop = {"in": [3, 1, 2], "iterator": "x", "spec": {"mode": mode}}
    await begun(box, one(wait(seconds="{{ x }}"), value("b", "{{ iter.x * 10 }}"), loop=loop))
    passed = 0
    while not box.answers:
        await box.pass_time(1)
        passed += 1
    assert (box.document()["result"], passed) == ([30, 10, 20], 3 if mode == "parallel" else 6)


async def test_a_loop_that_waits_goes_on_over_a_restart(tmp_path: Path) -> None:
    """Items whose wait was over stay settled, the others go on waiting; each has one outcome."""
    box = Box(tmp_path / "box")
    loop = {"in": [10, 20, 30], "iterator": "x", "spec": {"mode": "parallel"}}
    seq = await begun(box, one(wait(seconds="{{ x }}"), value("b", "{{ iter.x }}"), loop=loop))
    await box.pass_time(15)
    box = await restarted(box, tmp_path / "cut")
    assert box.pool.submitted == []
    await box.pass_time(5)
    await box.pass_time(10)
    assert box.document()["result"] == [10, 20, 30]
    bodies = [event.body for event in box.engine.events_of(seq)]
    assert sum(body.count for body in bodies if isinstance(body, LoopItems)) == 3
    assert sum(isinstance(body, StepWaiting) for body in bodies) == 3
    assert not any(isinstance(body, ExecutionResumed) for body in bodies)
    await box.close()


async def test_an_item_that_fails_lets_nobody_wait(box: Box) -> None:
    """A loop that has failed does not wait for the items that still do."""
    loop = {"in": [1, 500], "iterator": "x", "spec": {"mode": "parallel"}}
    fails = {"name": "b", "kind": "python", "code": "result = 1 / 0"}
    await begun(box, one(wait(seconds="{{ x }}"), fails, loop=loop))
    await box.pass_time(1)
    assert box.document()["error"]["code"] == "python_raised"


async def test_a_policy_leads_on_from_a_wait(box: Box) -> None:
    """Polling: a jump back over a wait, as often as it takes; each wait has its own outcome."""
    rules = [
        {"when": "{{ iter.n < 3 }}", "then": {"do": "jump", "to": "pause"}},
        {"else": {"then": {"do": "break"}}},
    ]

    def sets(n: Any) -> dict[str, Any]:
        return {"policy": {"rules": [{"else": {"then": {"do": "continue", "set": {"iter.n": n}}}}]}}

    init, pause = value("init", 0, spec=sets(0)), wait(seconds=5, spec=sets("{{ iter.n + 1 }}"))
    tasks = init, pause, value("look", "{{ iter.n }}", spec={"policy": {"rules": rules}})
    seq = await begun(box, one(*tasks))
    for _ in range(3):
        assert box.answers == []
        await box.pass_time(5)
    assert box.document()["result"] == 3
    numbers = [event.body.number for event in box.engine.events_of(seq) if isinstance(event.body, TaskDone)]
    assert numbers == [1, 3, 5]


async def test_every_cut_leads_to_the_same_end(tmp_path: Path) -> None:
    """Cut after any event, restarted and carried on, a pipeline with waits ends with the same result."""
    steps = one(
        {"name": "a", "kind": "python", "code": "result = 7"}, wait(seconds=5),
        {"name": "c", "kind": "python", "code": "result = 8"},
        {**wait(seconds=5), "name": "again"}, value("e", "{{ [a, c] }}"),
    )  # fmt: skip
    box = Box(tmp_path / "box")
    await box.register(playbook(steps))
    box.submit("t")
    cuts = []
    for _ in range(40):
        await box.gate.flushed()
        cuts.append(box.photograph(tmp_path / f"cut{len(cuts)}"))
        if box.answers:
            break
        if not box.pool.run():
            await box.pass_time(2.5)
    await box.close()
    assert len(cuts) > 5
    for cut in cuts:
        again = Box(cut)
        for _ in range(12):
            await again.settle()
            await again.pass_time(2.5)
        seq = next(event.seq for event in again.events() if event.type == "playbook.execution.requested")
        state = again.engine.state_of(seq)
        assert state.status == "completed"
        assert json.loads(again.engine.answer(seq).payload)["result"] == [7, 8]
        assert state == fold(again.engine.events_of(seq))
        await again.close()
