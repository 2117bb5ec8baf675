"""Claims whose outcomes together are more than a frame may hold: they come in parts, and no worker dies over them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge.core.events import AttemptLost
from edge.core.frames import pack
from edge.core.limits import REPLY_BYTES, SEGMENT_BYTES
from edge.testing.box import Box
from edge.testing.plain import playbook
from edge.worker.claims import reply
from tests.unit.loop_rig import committed, looping, run

TEXT_BYTES = 60_000
LARGE = "{{ 'x' * 60000 }}"
COUNT = 40


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    """A box with segments of the size they have in life: what is recorded here goes in large groups."""
    made = Box(tmp_path, segment_bytes=SEGMENT_BYTES)
    yield made
    await made.close()


@pytest.fixture
def largest(box: Box) -> list[int]:
    """The sizes of all replies, in bytes."""
    sizes: list[int] = []
    work = box.pool.work

    def answer(given: Any) -> Any:
        outcomes = work(given)
        sizes.append(len(pack(reply(given.claim.number, outcomes))))
        return outcomes

    box.pool.answer = answer
    return sizes


async def test_a_straight_line_of_large_values_comes_in_parts(box: Box, largest: list[int]) -> None:
    """Forty pure steps of 60 KB: as many claims as it takes, each step run once."""
    steps: list[dict[str, Any]] = [
        {"step": f"s{n}", "tool": {"kind": "transform", "value": LARGE}, "next": [f"s{n + 1}"]}
        for n in range(COUNT)
    ]
    steps.append({"step": f"s{COUNT}", "tool": {"kind": "transform", "value": 1}})
    await box.register(playbook(steps))
    box.submit("t")
    await box.settle()
    assert box.document()["result"] == 1
    assert max(largest) < REPLY_BYTES + 2 * TEXT_BYTES
    assert sum(event.type == "step.done" for event in box.events()) == COUNT + 1
    assert not [event for event in box.events() if isinstance(event.body, AttemptLost)]


async def test_a_loop_over_pipelines_that_read_much_comes_in_parts(box: Box, largest: list[int]) -> None:
    """Items whose pipelines record 120 KB each: every item has one outcome, and no reply is larger than it may be."""
    tasks = [
        {"name": name, "kind": "python", "code": f"result = '{name}' * 60_000"} for name in ("a", "b", "c")
    ]
    tasks.append({"name": "d", "kind": "transform", "value": "{{ iter.x }}"})
    assert await run(box, looping(list(range(COUNT)), tasks)) == list(range(COUNT))
    assert max(largest) < REPLY_BYTES + 4 * TEXT_BYTES
    assert set(committed(box).values()) == {1}
    assert not [event for event in box.events() if isinstance(event.body, AttemptLost)]
