"""Restarts: what was open goes on, what is owed is sent again, nothing loops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.core.events import (
    ExecutionResumed,
    ResponsesDelivered,
)
from edge.core.limits import RESUMES_MAX
from edge.core.state import evolve, fold
from edge.runtime.requests.answers import Owed
from edge.runtime.requests.delivery_notes import ALONE_S, ALONG_S, DeliveryNotes
from edge.runtime.workers.work import Work
from edge.store.journal import read_groups
from edge.store.verify import verify_journal
from edge.testing.box import Box
from edge.testing.plain import playbook
from edge.testing.pool import Lost
from edge.worker.claims import Outcome

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


def one(effect: str = "read", on_unknown: str | None = None) -> list[dict[str, Any]]:
    spec = {"effect": effect, **({"on_unknown": on_unknown} if on_unknown else {})}
    return [{"step": "a", "spec": spec, "tool": {"kind": "python", "code": "result = 1"}}]


def losing(times: int, then: Callable[[Work], list[Outcome] | Lost], code: str = "worker_lost") -> Any:
    """An answer that loses the first claims."""
    left = [times]

    def answer(work: Work) -> list[Outcome] | Lost:
        left[0] -= 1
        return Lost(code, "it died") if left[0] >= 0 else then(work)

    return answer


@pytest.mark.parametrize("claims_run", [0, 1, 2])
async def test_a_restart_resumes_what_was_open(tmp_path: Path, claims_run: int) -> None:
    """After a power cut at any step the execution goes on from the log and ends with the same result."""
    box = Box(tmp_path / "a")
    await box.register(playbook(TABLES, workload={"go": True}))
    box.submit("t", request_id="r1")
    for _ in range(claims_run):
        box.pool.run()
    await box.gate.flushed()
    restarted = Box(box.photograph(tmp_path / "b"))
    box.pool.waiting.clear()
    await box.close()
    assert restarted.resumed == 1
    await restarted.settle()
    assert restarted.document()["result"] == ROWS
    types = [event.type for event in restarted.engine.events_of(3)]
    assert types.count("execution.resumed") == 1
    assert types.count("step.done") == 3
    await restarted.close()
    assert verify_journal(tmp_path / "b" / "journal").whole


async def test_nothing_is_dispatched_before_the_resumption_is_durable(tmp_path: Path) -> None:
    """A resumed execution's claim comes only after its `execution.resumed` is on the drive."""
    box = Box(tmp_path)
    await box.register(playbook(one()))
    box.submit("t")
    await box.gate.flushed()
    box.pool.waiting.clear()
    await box.close()
    box = Box(tmp_path)
    assert box.pool.submitted == []
    await box.gate.flushed()
    assert len(box.pool.submitted) == 1
    assert isinstance(box.events()[-1].body, ExecutionResumed)
    await box.settle()
    await box.close()


@pytest.mark.parametrize(("on_unknown", "status"), [(None, "failed"), ("retry", "completed")])
async def test_a_write_cut_by_a_restart_follows_its_policy(
    tmp_path: Path, on_unknown: str | None, status: str
) -> None:
    """A write whose intent is durable and whose outcome is not is unknown after a restart."""
    box = Box(tmp_path)
    await box.register(playbook(one("write", on_unknown)))
    box.submit("t")
    await box.gate.flushed()
    assert len(box.pool.waiting) == 1
    box.pool.waiting.clear()
    await box.close()
    box = Box(tmp_path)
    await box.settle()
    assert box.document()["status"] == status
    if status == "failed":
        assert box.document()["error"]["code"] == "outcome_unknown"
        assert box.pool.submitted == []
    else:
        assert [work.claim.attempt for work in box.pool.submitted] == [2]
    await box.close()


async def test_a_block_that_brings_the_box_down_does_not_loop(tmp_path: Path) -> None:
    """An execution that is next at every restart survives three of them and fails at the fourth."""
    box = Box(tmp_path)
    await box.register(playbook(one()))
    box.submit("t")
    restarts = 0
    while not box.answers and restarts < 20:
        restarts += 1
        await box.gate.flushed()
        box.pool.waiting.clear()
        await box.close()
        box = Box(tmp_path)
        await box.gate.flushed()
    assert restarts == RESUMES_MAX + 1
    assert box.document()["error"]["code"] == "resume_limit"
    assert box.pool.submitted == []
    await box.close()


async def test_owed_answers_are_known_after_a_restart(tmp_path: Path) -> None:
    """An answer not yet acknowledged is owed after a restart, with the same bytes; an acknowledged one is not."""
    box = Box(tmp_path)
    await box.register(playbook(one()))
    for _ in range(3):
        box.submit("t")
    await box.settle()
    executions = [answer.execution for answer in box.answers]
    box.engine.delivered(executions[1])
    box.engine.note_watermark()
    await box.close()
    again = Box(tmp_path)
    assert sorted(again.engine.owed) == [executions[0], executions[2]]
    assert again.engine.answer(executions[2]) == box.answers[2]
    again.engine.delivered(executions[0])
    again.submit("t")
    await again.settle()
    again.engine.delivered(again.answers[-1].execution)
    again.engine.note_watermark()
    await again.close()
    third = Box(tmp_path)
    assert list(third.engine.owed) == [executions[2]]
    await third.close()


async def box_that_answered(folder: Path, now: list[float]) -> tuple[Box, DeliveryNotes]:
    """A box whose one answer was delivered and is not noted yet, on the clock `now`."""
    box = Box(folder)
    await box.register(playbook(one()))
    notes = DeliveryNotes(box.engine.owed, box.engine.note_watermark, lambda: now[0])
    box.gate.before_flush = notes.along
    box.submit("t")
    await box.settle()
    box.engine.delivered(box.answers[0].execution)
    return box, notes


async def test_what_was_delivered_is_noted_with_the_next_flush(tmp_path: Path) -> None:
    """A note costs no flush of its own: it goes with the next request, at most every few seconds."""
    now = [100.0]
    box, notes = await box_that_answered(tmp_path, now)
    now[0] += ALONE_S - 1
    notes.alone()
    await box.gate.flushed()
    assert delivery_notes(box) == []
    box.submit("t")
    await box.settle()
    assert len(delivery_notes(box)) == 1
    box.engine.delivered(box.answers[1].execution)
    now[0] += ALONG_S - 1
    box.submit("t")
    await box.settle()
    assert len(delivery_notes(box)) == 1
    await box.close()


async def test_a_box_that_is_asked_no_more_notes_its_last_answer_alone(tmp_path: Path) -> None:
    """Else a crash after weeks of rest would answer again what was answered weeks ago."""
    now = [100.0]
    box, notes = await box_that_answered(tmp_path, now)
    for _ in range(3):
        notes.alone()
        now[0] += ALONE_S / 2
    notes.alone()
    await box.gate.flushed()
    assert [note.but for note in delivery_notes(box)] == [None]
    await box.close()


def delivery_notes(box: Box) -> list[ResponsesDelivered]:
    """Every watermark in the journal, oldest first."""
    bodies = (event.body for _, group, _ in read_groups(box.folder / "journal") for event in group.events())
    return [body for body in bodies if isinstance(body, ResponsesDelivered)]


async def test_without_a_watermark_every_answer_is_owed(tmp_path: Path) -> None:
    """What was delivered and never noted is sent again: at least once, not at most."""
    box = Box(tmp_path)
    await box.register(playbook(one()))
    box.submit("t")
    await box.settle()
    box.engine.delivered(box.answers[0].execution)
    await box.close()
    box = Box(tmp_path)
    assert len(box.engine.owed) == 1
    await box.close()


def test_the_watermark_is_written_seldom() -> None:
    """A watermark is noted only where something changed; many exceptions lower it instead of filling it."""
    owed = Owed(0)
    assert owed.watermark() is None
    owed.add(5, 9)
    assert owed.watermark() == ResponsesDelivered(9, [5])
    assert owed.watermark() is None
    owed.add(6, 12)
    owed.settle(6)
    assert owed.watermark() == ResponsesDelivered(12, [5])
    for number in range(300):
        owed.add(100 + number, 1000 + number)
    assert owed.watermark() == ResponsesDelivered(8)


def test_the_last_exceptions_delivery_is_noted() -> None:
    """When the last owed answer under a watermark is delivered, a new note says so."""
    owed = Owed(0)
    owed.add(5, 9)
    owed.watermark()
    owed.settle(5)
    assert owed.watermark() == ResponsesDelivered(9)


async def test_the_live_state_is_the_folded_one(box: Box) -> None:
    """What the runtime holds in memory after each event is what folding the log gives."""
    box.pool.answer = losing(1, box.pool.work)
    await box.register(playbook(TABLES, workload={"go": True}))
    box.submit("t")
    while box.engine.executor.open:
        live = box.engine.executor.open[3].state
        assert live == fold(box.gate.events_of(3))
        assert box.pool.run()
        await box.gate.flushed()
    state = None
    for event in (event for event in box.events() if event.execution == 3):
        state = evolve(state, event)
    assert state == box.engine.state_of(3)
