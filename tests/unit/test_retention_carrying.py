"""What is carried before the log's beginning is pruned: all that a restart, a caller or a person still needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.cli.log_stat import count
from edge.core.errors import RequestRefused
from edge.core.events import CatalogRegistered, ExecutionRequested
from edge.core.limits import INLINE_BYTES_MAX, KIB
from edge.core.retention_events import Carried, ExecutionCarried, LogPruned
from edge.replay.doubt import in_doubt
from edge.runtime.retention.terms import Terms
from edge.store.journal import read_groups
from edge.testing.box import Box
from edge.testing.clock import ManualClock
from edge.testing.plain import playbook
from tests.unit.retention_rig import DAY_S, again, check_whole, prune_all

OTHER_BOOT = b"b" * 16
WAITS: list[dict[str, Any]] = [
    {
        "step": "s",
        "tool": [
            {"name": "a", "kind": "python", "code": "result = 1"},
            {"name": "pause", "kind": "wait", "seconds": 3_600},
            {"name": "b", "kind": "transform", "value": "{{ [a, workload.n] }}"},
        ],
    }
]
ONE: list[dict[str, Any]] = [{"step": "a", "tool": {"kind": "transform", "value": "{{ workload.n }}"}}]


@pytest.fixture
async def box(tmp_path: Path) -> Box:
    made = Box(tmp_path / "box", segment_bytes=64 * KIB)
    await made.register(playbook(WAITS, "waits"))
    await made.register(playbook(ONE, "one"))
    return made


async def test_what_goes_on_is_carried_as_it_was(box: Box, tmp_path: Path) -> None:
    """An execution that waits has the same history and state after pruning, and ends in time after a restart."""
    box.submit("waits", b'{"n": 5}', request_id="r")
    await box.settle()
    seq = box.receipts[0].seq
    events, state = box.engine.events_of(seq), box.engine.state_of(seq)
    for _ in range(3):  # what was carried is carried again
        assert await prune_all(box) > len(events)
        assert box.engine.events_of(seq) == events
        assert box.engine.state_of(seq) == state
    assert box.events()[0].seq > events[-1].seq
    for place, with_index in enumerate((True, False)):
        box = await again(box, tmp_path / str(place), with_index=with_index)
        assert box.resumed == 1
        assert box.engine.events_of(seq)[: len(events)] == events
    await box.pass_time(3_600)
    assert box.document()["result"] == [1, 5]
    await check_whole(box)


async def test_a_carried_wait_keeps_its_clock(box: Box, tmp_path: Path) -> None:
    """A wait that was carried ends when it would have ended, not an hour after it was carried."""
    box.submit("waits", b'{"n": 5}')
    await box.settle()
    await box.pass_time(3_000)
    await prune_all(box)
    box = await again(box, tmp_path / "b", with_index=False)
    await box.pass_time(590)
    assert not box.answers
    await box.pass_time(20)
    assert box.answers
    await check_whole(box)


async def test_a_remembered_request_gives_its_recorded_answer(box: Box, tmp_path: Path) -> None:
    """Within the window the same request id gives the same execution and answer; another payload is refused."""
    box.submit("one", b'{"n": 7}', request_id="r")
    await box.settle()
    first, answer = box.receipts[0], box.answers[0]
    box.engine.delivered(first.seq)
    await prune_all(box)
    assert any(isinstance(event.body, ExecutionCarried) for event in box.events())
    for with_index in (True, False):
        box = await again(box, tmp_path / str(with_index), with_index=with_index)
        assert not box.answers
        box.submit("one", b'{"n": 7}', request_id="r")
        assert box.receipts[0].duplicate
        assert (box.receipts[0].execution_id, box.receipts[0].finished) == (first.execution_id, answer)
        with pytest.raises(RequestRefused) as refused:
            box.submit("one", b'{"n": 8}', request_id="r")
        assert refused.value.problem_code == "request_id_reused"
        await prune_all(box)
    await check_whole(box)


async def test_after_its_window_a_request_is_new(box: Box, tmp_path: Path) -> None:
    """Once the window has passed and its events are pruned, the same request id begins a new execution."""
    box.submit("one", b'{"n": 7}', request_id="r")
    await box.settle()
    first = box.receipts[0].seq
    box.engine.delivered(first)
    await box.pass_time(4 * DAY_S)
    await prune_all(box)
    assert isinstance(box.engine.events_of(first)[0].body, ExecutionRequested)
    await box.pass_time(4 * DAY_S)
    await prune_all(box)
    assert not any(isinstance(event.body, ExecutionCarried) for event in box.events())
    with pytest.raises(RequestRefused) as refused:
        box.engine.events_of(first)
    assert refused.value.problem_code == "execution_pruned"
    box.submit("one", b'{"n": 9}', request_id="r")
    await box.settle()
    assert not box.receipts[-1].duplicate
    assert box.document()["result"] == 9
    await check_whole(box)


async def test_time_the_box_was_off_does_not_count(box: Box, tmp_path: Path) -> None:
    """The window is counted in the box's own time: a wall clock ten years on, or weeks without power, end nothing."""
    box.submit("one", b'{"n": 7}', request_id="r")
    await box.settle()
    box.engine.delivered(box.receipts[0].seq)
    await box.pass_time(6 * DAY_S)
    await prune_all(box)
    clock = ManualClock()
    clock.set_wall(clock.now.wall_ns + 3_650 * DAY_S * 10**9)
    box = await again(box, tmp_path / "b", clock=clock, boot_id=OTHER_BOOT)
    await prune_all(box)
    box.submit("one", b'{"n": 7}', request_id="r")
    assert box.receipts[-1].duplicate
    await box.pass_time(1.5 * DAY_S)
    await prune_all(box)
    box.submit("one", b'{"n": 7}', request_id="r")
    await box.settle()
    assert not box.receipts[-1].duplicate
    await check_whole(box)


async def test_an_owed_answer_is_sent_after_pruning(box: Box, tmp_path: Path) -> None:
    """An answer that the broker does not have yet is owed still after pruning and a restart, with its addresses."""
    box.submit("one", b'{"n": 7}', correlation=b"c9")
    await box.settle()
    answer = box.answers[0]
    await prune_all(box)
    for with_index in (True, False):
        box = await again(box, tmp_path / str(with_index), with_index=with_index)
        (owed,) = box.engine.owed
        assert box.engine.answer(owed) == answer
    box.engine.delivered(owed)
    await prune_all(box)
    assert not any(isinstance(event.body, ExecutionCarried) for event in box.events())
    await check_whole(box)


async def test_an_execution_that_ends_between_two_prunings(box: Box, tmp_path: Path) -> None:
    """Carried while it waited, it ended since: its copies go, its answer stays."""
    box.submit("waits", b'{"n": 5}', request_id="r")
    await box.settle()
    await prune_all(box)
    await box.pass_time(3_600)
    answer = box.answers[0]
    box.engine.delivered(box.receipts[0].seq)
    await prune_all(box)
    assert not any(isinstance(e.body, Carried) and e.execution == answer.execution for e in box.events())
    box = await again(box, tmp_path / "b", with_index=False)
    assert box.resumed == 0
    box.submit("waits", b'{"n": 5}', request_id="r")
    assert box.receipts[0].finished == answer
    await check_whole(box)


async def test_blobs_go_with_the_last_event_that_needs_them(box: Box) -> None:
    """A blob stays while an event needs it, goes when none does, and is there again when it is stored again."""
    payload = b'{"n": "' + b"x" * INLINE_BYTES_MAX + b'"}'
    box.submit("one", payload, request_id="r1")
    box.submit("waits", payload, request_id="r2")
    await box.settle()
    box.engine.delivered(box.receipts[0].seq)
    body = box.engine.events_of(box.receipts[1].seq)[0].body
    assert isinstance(body, ExecutionRequested)
    assert body.payload_digest is not None
    path = box.blobs.path(body.payload_digest)
    await box.pass_time(3_590)
    await prune_all(box, Terms(remember_s=0))
    assert path.exists()
    await box.pass_time(20)
    box.engine.delivered(box.receipts[1].seq)
    await prune_all(box, Terms(remember_s=0))
    assert not path.exists()
    box.submit("one", payload)
    await box.settle()
    assert path.exists()
    await check_whole(box)


async def test_what_is_kept_of_an_execution_keeps_no_payload(box: Box, tmp_path: Path) -> None:
    """The blob of a large request goes with the request, though its id is remembered; also after an end between."""
    payload = b'{"n": 1, "pad": "' + b"x" * INLINE_BYTES_MAX + b'"}'
    box.submit("one", payload, request_id="r1")
    await box.settle()
    box.engine.delivered(box.receipts[0].seq)
    body = box.engine.events_of(box.receipts[0].seq)[0].body
    assert isinstance(body, ExecutionRequested)
    assert body.payload_digest is not None
    box.pruner._remove_blobs = never  # type: ignore[method-assign]
    await prune_all(box)
    assert box.blobs.path(body.payload_digest).exists()
    box = await again(box, tmp_path / "b")
    await box.keeper.look()
    assert not box.blobs.path(body.payload_digest).exists()
    box.submit("one", payload, request_id="r1")
    assert box.receipts[-1].duplicate
    await check_whole(box)


async def never() -> None:
    """The process ends before it comes to this."""


async def test_playbooks_are_carried(box: Box, tmp_path: Path) -> None:
    """The newest version of each playbook is there after pruning; an older one only while something waits in it."""
    box.submit("waits", b'{"n": 5}')
    await box.settle()
    await box.register(playbook([{"step": "other", "tool": {"kind": "noop"}}], "waits"))
    await prune_all(box)
    box = await again(box, tmp_path / "b", with_index=False)
    assert [b.steps[0].name for b in box.engine.catalog.playbooks()] == ["a", "other"]
    await box.pass_time(3_600)
    assert box.document()["result"] == [1, 5]
    box.engine.delivered(box.answers[-1].execution)
    await prune_all(box)
    box = await again(box, tmp_path / "c", with_index=False)
    assert len(box.eventlog.catalog()) == 2
    await check_whole(box)


async def test_files_alone_tell_the_same(box: Box) -> None:
    """Who reads the journal's files knows of open executions, doubts and blueprints as the index does."""
    box.submit("waits", b'{"n": 5}')
    box.submit("one", b'{"n": 7}', request_id="r")
    await box.settle()
    waits, _ = (receipt.seq for receipt in box.receipts)
    await prune_all(box)
    figures = count(group for _, group, _ in read_groups(box.folder / "journal"))
    assert figures.open_executions == {waits} == set(box.eventlog.open_executions())
    assert isinstance(figures.pruned, LogPruned)
    assert in_doubt(box.events(), 0) == []
    assert in_doubt(box.events(), waits) == [waits]
    without = [e for e in box.events() if not (isinstance(e.body, Carried) and b"waits" in e.body.body)]
    assert len(without) < len(box.events())
    assert in_doubt(without, 0) == [waits]
    assert not any(isinstance(event.body, CatalogRegistered) for event in box.events())
    await check_whole(box)
