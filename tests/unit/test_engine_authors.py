"""What an author can write into arcs and `set`, and what the engine makes of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from edge.core.codec import encode
from edge.core.events import (
    StepDone,
)
from edge.core.limits import INLINE_BYTES_MAX
from edge.runtime.workers import Work
from edge.testing.box import Box
from edge.testing.plain import playbook
from edge.testing.pool import Lost
from edge.worker.claims import Outcome

ONE = encode(1)
#: Makes a table, passes it on, and answers with a row of it: every output but the last is in the cache only.
TABLES: list[dict[str, Any]] = [
    {
        "step": "make",
        "spec": {"effect": "pure"},
        "tool": {"kind": "python", "code": "import pyarrow as pa\nresult = pa.table({'n': [1, 2, 3]})"},
        "next": [{"step": "keep", "when": "{{ workload.go }}"}],
    },
    {
        "step": "keep",
        "tool": {"kind": "arrow", "table": "{{ make }}", "ops": [{"filter": "{{ n > 1 }}"}]},
        "next": [{"step": "use", "when": "{{ workload.go }}"}],
    },
    {"step": "use", "tool": {"kind": "arrow", "table": "{{ keep }}", "ops": [], "output": "rows"}},
]
ROWS = [{"n": 2}, {"n": 3}]


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    made = Box(tmp_path)
    yield made
    await made.close()


def one(effect: str = "read", on_unknown: str | None = None) -> list[dict[str, Any]]:
    spec = {"effect": effect, **({"on_unknown": on_unknown} if on_unknown else {})}
    return [{"step": "a", "spec": spec, "tool": {"kind": "python", "code": "result = 1"}}]


def document(box: Box) -> dict[str, Any]:
    return json.loads(box.answers[-1].payload)  # type: ignore[no-any-return]


def kinds(box: Box) -> list[str]:
    return [event.type for event in box.events() if event.execution == box.receipts[0].seq]


def losing(times: int, then: Callable[[Work], list[Outcome] | Lost], code: str = "worker_lost") -> Any:
    """An answer that loses the first claims."""
    left = [times]

    def answer(work: Work) -> list[Outcome] | Lost:
        left[0] -= 1
        return Lost(code, "it died") if left[0] >= 0 else then(work)

    return answer


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
    assert document(box)["status"] == "completed"
    visits = [event.visit for event in box.events() if isinstance(event.body, StepDone)]
    assert visits == list(range(30))
    assert box.engine.state_of(3).ctx == {"n": 30, "k": 29}


@pytest.mark.xfail(
    strict=True,
    reason="BUG executor.py _record: ctx patches are not bounded in depth; the log cannot be read again",
)
async def test_a_value_that_grows_deeper_each_visit_fails_the_execution(box: Box) -> None:
    """A `set` that nests its own earlier value fails in time; it must not write what no reader takes."""
    await box.register(playbook(loop_of('{{ {"in": ctx.k | default(0)} }}', 100)))
    box.submit("t")
    await box.settle()
    assert document(box)["status"] == "failed"
    assert len(box.events()) > 0


@pytest.mark.xfail(strict=True, reason="BUG executor.py _record: ctx patches are not bounded in size")
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
    assert document(box)["status"] == "failed"
    assert document(box)["error"]["step"] == "a"
    assert kinds(box) == ["playbook.execution.requested", "step.done", "playbook.execution.finished"]


@pytest.mark.xfail(
    strict=True,
    reason="BUG executor.py _record: a routing error is in no event until the end is durable; a cut completes it",
)
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
        batch, size_bytes = take()
        while len(batch) > 1:
            box.gate._pending.appendleft(batch.pop())
        return batch, size_bytes

    box.gate._take_batch = one_event  # type: ignore[method-assign]
    photographs: list[Path] = []
    box.pool.run()
    box.gate.after(4, lambda _: photographs.append(box.photograph(tmp_path / "b")))
    await box.settle()
    assert document(box)["status"] == "failed"
    await box.close()
    restarted = Box(photographs[0])
    await restarted.settle()
    assert document(restarted)["status"] == "failed"
    await restarted.close()
