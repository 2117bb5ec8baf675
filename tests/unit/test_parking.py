"""Executions that only wait are out of memory, and come back as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.core.errors import RequestRefused
from edge.core.state import fold
from edge.replay.described import described
from edge.runtime.waiting.timers import Timers
from edge.testing.box import Box, NeverAlarm
from edge.testing.clock import ManualClock
from edge.testing.plain import playbook


def wait(**config: Any) -> dict[str, Any]:
    return {"name": "pause", "kind": "wait", **config}


def value(name: str, given: Any) -> dict[str, Any]:
    return {"name": name, "kind": "transform", "value": given}


def one(*tasks: dict[str, Any], **step: Any) -> list[dict[str, Any]]:
    return [{"step": "s", "tool": list(tasks), **step}]


async def begun(box: Box, steps: list[dict[str, Any]], payload: bytes = b"", **root: Any) -> int:
    await box.register(playbook(steps, **root))
    box.submit("t", payload)
    await box.settle()
    return box.receipts[-1].seq


async def test_what_only_waits_is_a_number_and_a_moment(box: Box) -> None:
    """Nothing of it is open, its state is told from the log, and it ends as if it had stayed."""
    quiet: list[bool] = []
    box.engine.executor.parking.on_quiet = lambda: quiet.append(True)
    seq = await begun(
        box, one(value("a", "{{ n }}"), wait(seconds=60), value("b", "{{ [a, n] }}")), b'{"n": 3}'
    )
    executor = box.engine.executor
    assert (executor.open, len(executor.parking), len(executor.timers), quiet) == ({}, 1, 1, [True])
    assert box.engine.state_of(seq).steps["s"].waiting is not None
    told = described("x", box.engine.state_of(seq), box.engine.events_of(seq), executor.waits.left_ms)
    assert ([each["left_ms"] for each in told["waits"]], told["steps"]["s"]["status"]) == (
        [60_000],
        "waiting",
    )
    await box.pass_time(60)
    assert box.document()["result"] == [3, 3]
    assert box.engine.state_of(seq) == fold(box.engine.events_of(seq))
    assert (executor.open, len(executor.parking), len(executor.timers)) == ({}, 0, 0)


async def test_a_short_wait_stays(box: Box) -> None:
    """Folding it again would cost more than keeping it for a moment."""
    await begun(box, one(wait(seconds=1), value("b", 1)))
    assert (len(box.engine.executor.open), len(box.engine.executor.parking)) == (1, 0)


async def test_a_branch_that_works_keeps_it_in_memory(box: Box) -> None:
    """Only what does nothing but wait is parked; when the other branch rests too, it is."""
    fork = {"spec": {"mode": "inclusive"}, "arcs": ["b", "c"]}
    steps = [
        {"step": "a", "tool": {"kind": "noop"}, "next": fork},
        {"step": "b", "tool": wait(seconds=60), "next": ["d"]},
        {"step": "c", "tool": {"kind": "noop"}, "next": ["d"]},
        {"step": "d", "tool": {"kind": "transform", "value": "{{ b.by }}"}},
    ]
    await box.register(playbook(steps))
    box.submit("t")
    await box.gate.flushed()
    box.pool.run()
    box.pool.run()
    await box.gate.flushed()
    assert (len(box.engine.executor.open), len(box.engine.executor.parking)) == (1, 0)
    await box.settle()
    box.engine.executor.parking.sweep()
    assert (len(box.engine.executor.open), len(box.engine.executor.parking)) == (0, 1)
    await box.pass_time(60)
    assert box.document()["result"] == "boottime"


async def test_parked_ones_leave_room(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not count as open, and have a bound of their own."""
    monkeypatch.setattr("edge.runtime.executions.engine.EXECUTIONS_OPEN_MAX", 2)
    monkeypatch.setattr("edge.runtime.executions.engine.EXECUTIONS_PARKED_MAX", 5)
    await box.register(playbook(one(wait(seconds=60), value("b", 1))))
    for _ in range(5):
        box.submit("t")
        await box.settle()
    with pytest.raises(RequestRefused, match="5 executions wait already") as refused:
        box.submit("t")
    assert refused.value.problem_code == "queue_full"
    await box.pass_time(60)
    assert len(box.answers) == 5
    box.submit("t")


async def test_thousands_that_end_at_once_take_turns(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Woken together, no more are in memory than may be open."""
    monkeypatch.setattr("edge.runtime.waiting.parking.EXECUTIONS_OPEN_MAX", 4)
    await box.register(playbook(one(wait(seconds=60), value("b", 1))))
    for _ in range(10):
        box.submit("t")
        await box.settle()
    assert isinstance(box.clock, ManualClock)
    box.clock.advance(60_000_000_000)
    box.engine.executor.timers.look()
    assert len(box.engine.executor.open) == 4
    while len(box.answers) < 10:
        await box.pass_time(0.02)
        assert len(box.engine.executor.open) <= 4


async def test_cancelling_finds_it(box: Box) -> None:
    """It is folded again to be ended."""
    seq = await begun(box, one(wait(duration="5d"), value("b", 1)))
    box.engine.cancel(seq, "ops", None, lambda status: None)
    await box.settle()
    assert box.document()["status"] == "cancelled"
    assert (len(box.engine.executor.parking), len(box.engine.executor.timers)) == (0, 0)


async def test_results_are_there_again(box: Box) -> None:
    """Values from the log, large pure ones by running their step again, tables from the cache or the log."""
    steps = [
        {"step": "small", "tool": {"kind": "transform", "value": [1, 2]}, "next": ["large"]},
        {"step": "large", "tool": {"kind": "transform", "value": "{{ range(2000) }}"}, "next": ["rows"]},
        {"step": "rows", "tool": {"kind": "python", "code": "import pyarrow as pa\nresult = pa.table({'n': [1, 2]})"},
         "next": ["rest"]},
        {"step": "rest", "tool": wait(seconds=60), "next": ["all"]},
        {"step": "all", "tool": {"kind": "transform", "value": "{{ [small, large | length, rows.rows] }}"}},
    ]  # fmt: skip
    await begun(box, steps)
    assert box.engine.executor.open == {}
    await box.pass_time(60)
    assert box.document()["result"] == [[1, 2], 2000, 2]


@pytest.mark.usefixtures("taken_up")
@pytest.mark.parametrize("restart", [False, True])
async def test_what_author_code_made_stays_bound_to_its_playbook(tmp_path: Path, restart: bool) -> None:
    """A table from author code is opened by no process that other playbooks share, also after a wait."""
    box = Box(tmp_path / "box")
    code = "import pyarrow as pa\nresult = pa.table({'n': [1, 2]})"
    steps = [
        {"step": "made", "tool": {"kind": "python", "code": code}, "next": ["rest"]},
        {"step": "rest", "tool": wait(seconds=60), "next": ["rows"]},
        {"step": "rows", "tool": {"kind": "arrow", "table": "{{ made }}", "output": "rows"}},
    ]
    await begun(box, steps)
    if restart:
        picture = box.photograph(tmp_path / "cut")
        await box.close()
        box = Box(picture, clock=box.clock)
    await box.pass_time(60)
    assert box.document()["result"] == [{"n": 1}, {"n": 2}] if not restart else box.answers
    assert box.pool.submitted[-1].author_code
    await box.close()


async def test_pauses_are_not_served_again(box: Box) -> None:
    """A pipeline that retried with pauses and then waits does not pause again when it is taken up."""
    retry = {"when": "{{ output.status == 'error' }}", "then": {"do": "retry", "attempts": 4, "delay": 7}}
    flaky = {"name": "f", "kind": "python", "code": "if n < 3: raise ValueError(n)\nresult = n",
             "input": {"n": "{{ _attempt }}"}, "spec": {"policy": {"rules": [retry]}}}  # fmt: skip
    await box.register(playbook(one(flaky, wait(seconds=60), value("b", "{{ f }}"))))
    box.submit("t")
    assert await box.settle_with_pauses() == [7_000, 7_000]
    assert box.engine.executor.open == {}
    await box.pass_time(60)
    assert box.pauses == []
    assert box.document()["result"] == 3


@pytest.mark.parametrize("restart", [False, True])
async def test_a_child_that_waits_is_parked_and_found_by_its_parent(tmp_path: Path, restart: bool) -> None:
    """The parent stays, for the child's end; cancelling it ends the child, whose answer else is the parent's."""
    box = Box(tmp_path / "box")
    child = [{"step": "rest", "tool": wait(seconds=60)}]
    await box.register(playbook(child, path="lib/child"))
    parent = await begun(box, [{"step": "call", "tool": {"kind": "playbook", "path": "lib/child"}}])
    other = await begun(box, [{"step": "call", "tool": {"kind": "playbook", "path": "lib/child"}}])
    if restart:
        picture = box.photograph(tmp_path / "cut")
        await box.close()
        box = Box(picture, clock=box.clock)
        await box.settle()
        box.engine.executor.parking.sweep()
    assert (set(box.engine.executor.open), len(box.engine.executor.parking)) == ({parent, other}, 2)
    box.engine.cancel(parent, "ops", None, lambda status: None)
    await box.settle()
    assert (set(box.engine.executor.open), len(box.engine.executor.parking)) == ({other}, 1)
    await box.pass_time(60)
    assert [answer.status for answer in box.answers] == ["cancelled", "completed"]
    await box.close()


async def test_very_many_are_looked_at_after_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are parked before anybody has folded them, and each goes on in time or when somebody speaks of it."""
    monkeypatch.setattr("edge.runtime.executions.engine._TAKEN_UP_MAX", 3)
    box = Box(tmp_path / "box")
    waits = [await begun(box, one(wait(seconds=60), value("b", 1))) for _ in range(4)]
    works = [{"step": "a", "tool": {"kind": "noop"}}]
    await box.register(playbook(works, path="works"))
    box.submit("works")
    await box.gate.flushed()
    again = Box(box.photograph(tmp_path / "cut"), clock=box.clock)
    executor, folded = again.engine.executor, list[int]()
    resume = executor.parking.resume
    assert resume is not None

    def counted(execution: int) -> None:
        folded.append(execution)
        resume(execution)

    executor.parking.resume = counted
    assert (len(executor.open), len(executor.parking), again.resumed) == (1, 4, 5)
    said: list[str] = []
    again.engine.cancel(waits[2], "ops", None, said.append)
    assert folded == [waits[2]]
    await again.settle()
    assert said == ["cancelled"]
    again.move_clock(0.01)
    assert sorted(folded) == waits
    assert (executor.open, len(executor.parking)) == ({}, 3)
    await again.pass_time(60)
    ends = {answer.execution_id: answer.status for answer in again.answers}
    assert sorted(ends.values()) == ["cancelled", "completed", "completed", "completed", "completed"]
    await again.close()
    await box.close()


def test_timers_call_in_order_and_once() -> None:
    """The earliest first, each key once, what was dropped or armed anew never for its old moment."""
    clock, called = ManualClock(), []
    timers = Timers(clock)
    timers.after_s = lambda delay_s, call: NeverAlarm()
    now_ns = clock.read().mono_ns
    for n in range(300):
        timers.arm(now_ns + (300 - n) * 1_000_000, n, called.append)
    timers.arm(now_ns + 10_000_000_000, 7, called.append)
    for n in range(100, 290):
        timers.drop(n)
    clock.advance(1_000_000_000)
    while timers.look():
        pass
    assert called == [n for n in range(299, -1, -1) if n != 7 and not 100 <= n < 290]
    assert len(timers) == 1
    clock.advance(10_000_000_000)
    assert timers.look() == 1
    assert called[-1] == 7


def test_the_alarm_is_for_the_earliest() -> None:
    """Arming something earlier winds the clock anew; something later does not."""
    clock, asked = ManualClock(), []
    timers = Timers(clock)

    def after_s(delay_s: float, call: Any) -> Any:
        asked.append(delay_s)
        return NeverAlarm()

    timers.after_s = after_s
    now_ns = clock.read().mono_ns
    for delay_s in (10, 20, 5, 500):
        timers.arm(now_ns + delay_s * 1_000_000_000, delay_s, lambda key: None)
    assert asked == [10, 5]
