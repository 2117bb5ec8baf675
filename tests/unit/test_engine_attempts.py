"""How often an effect is tried where the runtime dies over it again and again, while all beside it goes well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.core.events import LoopItems, StepStarted
from edge.core.limits import ATTEMPTS_MAX
from edge.core.state import fold
from edge.runtime.workers.work import Work
from edge.testing.box import Box
from edge.testing.plain import playbook

WRITE: dict[str, Any] = {"name": "act", "kind": "python", "code": "result = 1", "spec": {"effect": "write"}}
BEFORE: dict[str, Any] = {"name": "look", "kind": "python", "code": "result = 0", "spec": {"effect": "read"}}
RETRY = {"on_unknown": "retry", "policy": {"failure": "best_effort"}}


def loop(tool: Any, mode: str) -> list[dict[str, Any]]:
    over = {"in": "{{ range(20) | list }}", "iterator": "x", "spec": {"mode": mode, "max_in_flight": 2}}
    return [{"step": "each", "loop": over, "spec": RETRY, "tool": tool}]


def beside(tool: Any) -> list[dict[str, Any]]:
    """The effect in one branch, and a step that arcs lead back to in another: progress without an end."""
    fork = {"spec": {"mode": "inclusive"}, "arcs": [{"step": "each"}, {"step": "busy"}]}
    again = [{"step": "busy", "when": "{{ ctx.n < 30 }}"}]
    busy = {"kind": "python", "code": "result = 0"}
    return [
        {"step": "fork", "next": fork},
        {"step": "each", "spec": RETRY, "tool": tool},
        {"step": "busy", "tool": busy, "set": {"n": "{{ ctx.n | default(0) + 1 }}"}, "next": again},
    ]


def acts(work: Work) -> bool:
    """Whether a claim is about to have the effect in question: that of `each`, of item 0 where it is a loop."""
    claim = work.claim
    if (claim.items is None and claim.steps != (1,)) or (claim.items is not None and claim.items.first != 0):
        return False
    return claim.progress is None or claim.progress.intended is not None


async def one_life(box: Box, claims: int, acted: Callable[[], None]) -> None:
    """Carry out some claims; one that has the effect has it, and never comes to say so."""
    for _ in range(claims):
        await box.gate.flushed()
        while box.pool.waiting and acts(box.pool.waiting[0]):
            box.pool.waiting.popleft()
            acted()
        box.pool.run()
    await box.gate.flushed()


@pytest.mark.parametrize(
    "steps",
    [
        loop(WRITE, "parallel"),
        loop([BEFORE, WRITE], "parallel"),
        loop([BEFORE, WRITE], "sequential"),
        beside(WRITE),
        beside([BEFORE, WRITE]),
    ],
    ids=["loop", "loop of pipelines", "one by one", "step", "pipeline"],
)
async def test_an_effect_is_tried_three_times_at_most(tmp_path: Path, steps: list[dict[str, Any]]) -> None:
    """Each life of the runtime counts, also where other branches or items made progress meanwhile."""
    box, tried = Box(tmp_path / "0"), []
    await box.register(playbook(steps))
    box.submit("t")
    await box.gate.flushed()
    execution = box.receipts[0].seq
    for life in range(1, 8):
        await one_life(box, 4, lambda: tried.append(life))  # noqa: B023 - called in this round only
        picture = box.photograph(tmp_path / f"{life}")
        await box.close()
        box = Box(picture)
    await box.settle()
    state, events = box.engine.state_of(execution), box.engine.events_of(execution)
    assert len(tried) == ATTEMPTS_MAX, tried
    started = [event for event in events if isinstance(event.body, StepStarted) and event.step == "each"]
    attempts = [event.attempt for event in started if event.iteration in ((), (0,))]
    assert attempts == list(range(1, ATTEMPTS_MAX + 1))
    assert state == fold(events)
    failed = [
        event.body.failed for event in events if isinstance(event.body, LoopItems) and event.body.failed
    ]
    problem = failed[0][0] if failed else state.steps["each"].problem
    assert problem["code"] == "worker_lost"
    await box.close()
