"""What an author can write into arcs and `set`, and what the engine makes of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from edge.core.codec import encode
from edge.core.events import (
    StepDone,
)
from edge.core.limits import INLINE_BYTES_MAX, SEGMENT_BYTES
from edge.testing.box import Box
from edge.testing.plain import playbook


def kinds(box: Box) -> list[str]:
    return [event.type for event in box.events() if event.execution == box.receipts[0].seq]


def loop_of(patch: str, rounds: int) -> list[dict[str, Any]]:
    return [
        {
            "step": "a",
            "tool": {"kind": "noop"},
            "set": {"n": "{{ ctx.n | default(0) + 1 }}", "k": patch},
            "next": [{"step": "a", "when": f"{{{{ ctx.n < {rounds} }}}}"}],
        }
    ]


async def test_a_loop_of_arcs_ends_where_it_says(box: Box) -> None:
    """A back arc is a new visit each time, and the loop ends by its own condition."""
    await box.register(playbook(loop_of("{{ ctx.n | default(0) }}", 30)))
    box.submit("t")
    await box.settle()
    assert box.document()["status"] == "completed"
    visits = [event.visit for event in box.events() if isinstance(event.body, StepDone)]
    assert visits == list(range(30))
    assert box.engine.state_of(3).ctx == {"n": 30, "k": 29}


async def test_a_value_that_grows_deeper_each_visit_fails_the_execution(box: Box) -> None:
    """A `set` that nests its own earlier value fails in time; it must not write what no reader takes."""
    await box.register(playbook(loop_of('{{ {"in": ctx.k | default(0)} }}', 100)))
    box.submit("t")
    await box.settle()
    assert box.document()["status"] == "failed"
    assert len(box.events()) > 0


async def test_a_value_that_doubles_each_visit_fails_the_execution(box: Box) -> None:
    """A `set` that doubles its own earlier value fails in time; events stay within a group."""
    await box.register(playbook(loop_of("{{ [ctx.k | default('x'), ctx.k | default('x')] }}", 16)))
    box.submit("t")
    await box.settle()
    sizes = [len(encode(event.body.ctx)) for event in box.events() if isinstance(event.body, StepDone)]
    assert max(sizes) <= INLINE_BYTES_MAX


async def test_a_routing_error_fails_the_execution(box: Box) -> None:
    """An arc that cannot be evaluated fails the execution after the outcome was recorded."""
    steps = [
        {
            "step": "a",
            "tool": {"kind": "transform", "value": 1},
            "next": [{"step": "b", "when": "{{ a.x.y }}"}],
        },
        {"step": "b", "tool": {"kind": "noop"}},
    ]
    await box.register(playbook(steps))
    box.submit("t")
    await box.settle()
    assert box.document()["status"] == "failed"
    assert box.document()["error"]["step"] == "a"
    assert kinds(box) == ["playbook.execution.requested", "step.done", "playbook.execution.finished"]


async def test_a_routing_error_is_the_same_after_a_power_cut(tmp_path: Path) -> None:
    """A cut between the outcome and the end of an execution whose arc failed does not turn it into completed."""
    box = Box(tmp_path / "a")
    steps = [
        {
            "step": "a",
            "tool": {"kind": "transform", "value": 1},
            "next": [{"step": "b", "when": "{{ a.x.y }}"}],
        },
        {"step": "b", "tool": {"kind": "noop"}},
    ]
    await box.register(playbook(steps))
    box.submit("t")
    await box.gate.flushed()
    # The next group is cut between its two events, as a group of GROUP_EVENTS_MAX events would be.
    take = box.gate._take_batch

    def one_event() -> Any:
        batch, parts, size_bytes = take()
        while len(batch) > 1:
            box.gate._pending.appendleft(batch.pop())
        return batch, parts[:2], size_bytes

    box.gate._take_batch = one_event  # type: ignore[method-assign]
    photographs: list[Path] = []
    box.pool.run()
    box.gate.after(4, lambda _: photographs.append(box.photograph(tmp_path / "b")))
    await box.settle()
    assert box.document()["status"] == "failed"
    await box.close()
    restarted = Box(photographs[0])
    await restarted.settle()
    assert restarted.document()["status"] == "failed"
    await restarted.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_patches_larger_than_a_segment_fail_the_execution(tmp_path: Path) -> None:
    """Patches that no group can hold fail the execution; they must not end the journal thread and hang the box."""
    box = Box(tmp_path, segment_bytes=SEGMENT_BYTES)
    steps = [
        {
            "step": "a",
            "tool": {"kind": "noop"},
            "set": {f"k{number}": "{{ workload.big }}" for number in range(10)},
            "next": ["b"],
        },
        {"step": "b", "tool": {"kind": "noop"}},
    ]
    await box.register(playbook(steps))
    box.submit("t", json.dumps({"big": "x" * 1_000_000}).encode())
    try:
        async with asyncio.timeout(1):
            await box.settle()
        assert box.document()["status"] == "failed"
        await box.gate.close()
    finally:
        box.eventlog.close()
        box.journal.close()
        box.blocks.close()
