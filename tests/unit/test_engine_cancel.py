"""Cancelling: durable, nothing more begins, what is under way is recorded, the caller hears of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.core.errors import RequestRefused
from edge.core.events import LoopItems, StepDone, StepStarted
from edge.testing.box import Box
from edge.testing.plain import playbook


def value(name: str, given: Any, **more: Any) -> dict[str, Any]:
    return {"step": name, "tool": {"kind": "transform", "value": given}, **more}


async def begun(box: Box, steps: list[dict[str, Any]], claims: int = 0) -> int:
    """Submit, run so many claims; the execution's number."""
    await box.register(playbook(steps))
    box.submit("t")
    await box.gate.flushed()
    for _ in range(claims):
        box.pool.run()
    return box.receipts[0].seq


FORK = [
    value("a", 1, next={"spec": {"mode": "inclusive"}, "arcs": ["b", "c"]}),
    value("b", 2, next=["d"]),
    value("c", 3, next=["d"]),
    value("d", 4),
]


async def test_what_is_under_way_is_recorded_and_nothing_more_begins(box: Box) -> None:
    """Two branches are out when the execution is cancelled: both outcomes stand in the log, the join never runs."""
    said: list[str] = []
    seq = await begun(box, FORK, claims=1)
    box.engine.cancel(seq, "ops", "wrong box", said.append)
    await box.settle()
    assert said == ["cancelled"]
    assert box.document()["status"] == "cancelled"
    assert box.document()["error"] == {
        "code": "cancelled",
        "message": "ops cancelled the execution: wrong box.",
    }
    assert [e.step for e in box.engine.events_of(seq) if isinstance(e.body, StepDone)] == ["a", "b", "c"]


async def test_a_paused_pipeline_does_not_go_on(box: Box) -> None:
    """A pipeline between two attempts is not waited for; when its pause is over nothing happens."""
    rule = {"else": {"then": {"do": "retry", "attempts": 3, "delay": 60}}}
    tool = {"kind": "python", "code": "result = 1", "spec": {"policy": {"rules": [rule]}}}
    seq = await begun(box, [{"step": "a", "tool": tool}], claims=1)
    box.engine.cancel(seq, "ops", None, lambda status: None)
    await box.settle()
    assert box.document()["status"] == "cancelled"
    assert await box.settle_with_pauses() == [60_000]
    assert (box.document()["status"], len(box.pool.submitted)) == ("cancelled", 1)


async def test_a_loop_begins_no_further_item(box: Box) -> None:
    """Items that are out are committed, no other begins."""
    loop = {"in": "{{ range(1000) }}", "iterator": "x", "spec": {"mode": "parallel"}}
    seq = await begun(box, [value("a", "{{ x }}", loop=loop)], claims=2)
    out = len(box.pool.waiting)
    box.engine.cancel(seq, "ops", None, lambda status: None)
    await box.settle()
    assert box.document()["status"] == "cancelled"
    bodies = [e.body for e in box.engine.events_of(seq) if isinstance(e.body, LoopItems)]
    assert len(bodies) == 2 + out


async def test_an_intended_effect_still_gets_its_outcome(box: Box) -> None:
    """A write whose intent is on its way runs: the log never says `started` of what never was."""
    step = {"step": "a", "spec": {"effect": "write"}, "tool": {"kind": "python", "code": "result = 1"}}
    await box.register(playbook([step]))
    box.submit("t")
    seq = box.gate.next_seq - 2
    box.engine.cancel(seq, "ops", None, lambda status: None)
    await box.settle()
    kinds = [type(e.body) for e in box.engine.events_of(seq)]
    assert (StepStarted in kinds) == (StepDone in kinds) == True  # noqa: E712
    assert box.document()["status"] == "cancelled"


async def test_it_is_durable(tmp_path: Path) -> None:
    """Cut right after, a restart does not take the execution up again: it ends it."""
    box = Box(tmp_path / "box")
    seq = await begun(box, FORK, claims=1)
    box.engine.cancel(seq, "ops", None, lambda status: None)
    await box.gate.flushed()
    picture = box.photograph(tmp_path / "cut")
    await box.close()
    again = Box(picture)
    await again.settle()
    assert again.engine.state_of(seq).status == "cancelled"
    assert again.pool.submitted == []
    await again.close()


async def test_what_has_ended_stays_as_it_is(box: Box) -> None:
    """Cancelling what is over says how it ended; an unknown execution is refused."""
    said: list[str] = []
    seq = await begun(box, [value("a", 1)])
    await box.settle()
    box.engine.cancel(seq, "ops", None, said.append)
    assert said == ["completed"]
    with pytest.raises(RequestRefused):
        box.engine.cancel(999, "ops", None, said.append)
