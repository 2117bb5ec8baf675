"""Requests end to end on the real homes and the real worker loop, in one process: receipts, answers, refusals."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from edge.core.codec import CBOR, JSON, encode
from edge.core.errors import RequestRefused
from edge.core.events import (
    CatalogRegistered,
    ExecutionFinished,
    ExecutionRequested,
    RequestRefusedNoted,
)
from edge.core.limits import EXECUTIONS_OPEN_MAX, REFUSALS_BURST
from edge.store.journal import read_groups
from edge.testing.box import Box
from edge.testing.plain import playbook

SUM = [{"step": "sum", "tool": {"kind": "transform", "value": {"sum": "{{ workload.a + workload.b }}"}}}]


async def ask(box: Box, payload: bytes = b"", **fields: Any) -> Any:
    """Submit to playbook t, run everything, the last answer's document."""
    box.submit("t", payload, **fields)
    await box.settle()
    return json.loads(box.answers[-1].payload)


async def test_a_request_gets_receipt_and_answer(box: Box) -> None:
    """The receipt names execution, event and link; the answer carries the result and where to send it."""
    await box.register(playbook(SUM, workload={"a": 1, "b": 2}))
    document = await ask(box, b'{"b": 40}', request_id="r1", correlation=b"c9", response_topic="answers/a")
    (receipt,), (answer,) = box.receipts, box.answers
    assert receipt.execution_id == f"{box.journal.log_id.hex()}-{receipt.seq}"
    assert (receipt.duplicate, receipt.finished) == (False, None)
    assert document == {"execution_id": receipt.execution_id, "status": "completed", "result": {"sum": 41}}
    assert (answer.execution, answer.form, answer.principal, answer.request_id) == (
        receipt.seq,
        "v5",
        "alice",
        "r1",
    )
    assert (answer.correlation, answer.response_topic, answer.content_type) == (b"c9", "answers/a", JSON)
    request = box.engine.events_of(receipt.seq)[0]
    assert request.body == ExecutionRequested(
        box.engine.catalog.playbooks()[0].digest, "alice", "r1", "v5", "answers/a", b"c9", None, b'{"b": 40}'
    )


async def test_nothing_leaves_before_it_is_durable(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """When receipt and answer are handed out, the journal on the drive holds the events they speak of."""
    await box.register(playbook(SUM, workload={"a": 1, "b": 2}))
    seen: list[tuple[str, bool]] = []

    def on_drive(execution: int, kind: type) -> bool:
        return any(type(e.body) is kind and e.execution == execution for e in box.events())

    box.engine.on_answer = lambda a: seen.append(("answer", on_drive(a.execution, ExecutionFinished)))
    from edge.runtime.requests.admit import Submission

    box.engine.submit(
        Submission("t", "alice", None, "v5", None, None, None, True, None, None, b""),
        lambda r: seen.append(("receipt", on_drive(r.seq, ExecutionRequested))),
    )
    await box.settle()
    assert seen == [("receipt", True), ("answer", True)]


async def test_a_pure_request_runs_ahead_of_the_flush(box: Box) -> None:
    """Request, steps and end of a pure playbook share one group when the worker is quick: one flush, not four."""
    two = [
        {"step": "a", "tool": {"kind": "noop"}, "next": [{"step": "b"}]},
        {"step": "b", "tool": {"kind": "noop"}},
    ]
    await box.register(playbook(two))
    box.submit("t")
    assert box.pool.run()
    assert (box.receipts, box.answers) == ([], [])
    await box.settle()
    groups = [[event.seq for event in group.events()] for _, group, _ in read_groups(box.folder / "journal")]
    assert groups[-1] == [3, 4, 5, 6]
    assert (len(box.receipts), len(box.answers)) == (1, 1)


@pytest.mark.parametrize("when", ["pending", "running", "finished", "after a restart"])
async def test_the_same_request_id_is_the_same_execution(tmp_path: Path, when: str) -> None:
    """A repeated request is not run again; once it has an answer the repetition gets the recorded one."""
    box = Box(tmp_path)
    await box.register(playbook(SUM, workload={"a": 1, "b": 2}))
    box.submit("t", b"{}", request_id="r1")
    if when != "pending":
        await box.gate.flushed()
    if when in ("finished", "after a restart"):
        await box.settle()
    if when == "after a restart":
        await box.close()
        box = Box(tmp_path)
    box.submit("t", b"{}", request_id="r1")
    await box.settle()
    again = box.receipts[-1]
    assert (again.execution_id, again.seq, again.duplicate) == (box.engine.execution_id(3), 3, True)
    if when in ("finished", "after a restart"):
        assert again.finished is not None
        assert json.loads(again.finished.payload)["result"] == {"sum": 3}
    else:
        assert again.finished is None
        assert len(box.answers) == 1
    requests = [event for event in box.events() if isinstance(event.body, ExecutionRequested)]
    assert len(requests) == 1
    assert len(box.pool.submitted) == (0 if when == "after a restart" else 1)
    await box.close()


async def test_the_same_id_with_another_payload_is_refused(box: Box) -> None:
    """A request id may not be used for another payload or playbook; other principals have their own ids."""
    await box.register(playbook(SUM, workload={"a": 1, "b": 2}))
    await box.register(playbook(SUM, "u", workload={"a": 1, "b": 2}))
    box.submit("t", b"{}", request_id="r1")
    for path, payload in (("t", b'{"a": 2}'), ("u", b"{}")):
        with pytest.raises(RequestRefused) as refused:
            box.submit(path, payload, request_id="r1")
        assert refused.value.problem_code == "request_id_reused"
    box.submit("t", b'{"a": 2}', request_id="r1", principal="bob")
    await box.settle()
    assert len(box.answers) == 2


async def test_without_an_id_every_request_runs(box: Box) -> None:
    """Without a request id the same request twice is two executions."""
    await box.register(playbook(SUM, workload={"a": 1, "b": 2}))
    box.submit("t")
    box.submit("t")
    await box.settle()
    assert len({answer.execution for answer in box.answers}) == 2


@pytest.mark.parametrize(
    ("payload", "content_type", "code"),
    [
        (b"{", JSON, "payload_invalid"),
        (b"[1]", None, "payload_invalid"),
        (b'{"a": NaN}', JSON, "payload_invalid"),
        (b"\xff", CBOR, "payload_invalid"),
        (b"\xa1\x01\x02", CBOR, "payload_invalid"),
        (encode({}) + b"\x00", CBOR, "payload_invalid"),
        (b"{}", "text/plain", "content_type_unknown"),
        (b'"' + b"x" * (1 << 20) + b'"', JSON, "payload_too_large"),
    ],
)
async def test_broken_payloads_are_refused_and_noted(
    box: Box, payload: bytes, content_type: str | None, code: str
) -> None:
    """A payload that is not what it says is refused with a code, noted in the log, and starts nothing."""
    await box.register(playbook(SUM))
    with pytest.raises(RequestRefused) as refused:
        box.submit("t", payload, content_type=content_type, request_id="r1")
    assert refused.value.problem()["code"] == code
    await box.settle()
    assert box.events()[-1].body == RequestRefusedNoted(code, "alice", "t", "r1")
    assert (box.pool.submitted, box.engine.executor.open) == ([], {})
    # The id was not used up by it.
    box.submit("t", b'{"a": 1, "b": 1}', request_id="r1")
    await box.settle()
    assert box.receipts[-1].duplicate is False


async def test_half_a_character_is_refused_before_anything_is_logged(box: Box) -> None:
    """A JSON text that no encoder takes is refused; it must not be logged and then raise at every restart."""
    await box.register(playbook(SUM))
    with pytest.raises(RequestRefused):
        box.submit("t", b'{"a": "\\ud800"}')


async def test_an_unknown_playbook_is_refused_and_noted(box: Box) -> None:
    """A request for a playbook the box does not have is refused with the way to add one."""
    with pytest.raises(RequestRefused, match="no playbook 'nope'") as refused:
        box.submit("nope")
    assert refused.value.problem()["code"] == "playbook_unknown"
    await box.settle()
    assert box.events()[-1].body == RequestRefusedNoted("playbook_unknown", "alice", "nope", None)


async def test_a_full_queue_refuses_and_forgets_nothing(box: Box) -> None:
    """Above the bound a request is refused with a time to come back; repeated ones and later ones are served."""
    await box.register(playbook(SUM, workload={"a": 1, "b": 2}))
    for number in range(EXECUTIONS_OPEN_MAX):
        box.submit("t", request_id=f"r{number}")
    with pytest.raises(RequestRefused) as refused:
        box.submit("t", request_id="one more")
    assert refused.value.problem()["code"] == "queue_full"
    assert refused.value.problem()["retry_after_ms"] == 1000
    box.submit("t", request_id="r5")
    box.pool.run()
    box.submit("t", request_id="one more")
    await box.gate.flushed()
    accepted = [receipt for receipt in box.receipts if not receipt.duplicate]
    assert len(accepted) == EXECUTIONS_OPEN_MAX + 1
    box.pool.waiting.clear()


async def test_a_full_drive_refuses_new_requests_only(tmp_path: Path) -> None:
    """Below the reserve new requests are refused with storage_full; a repeated one still gets its answer."""
    box = Box(tmp_path)
    await box.register(playbook(SUM, workload={"a": 1, "b": 2}))
    await ask(box, request_id="r1")
    await box.close()
    box = Box(tmp_path, reserve_bytes=2**62)
    with pytest.raises(RequestRefused) as refused:
        box.submit("t", request_id="r2")
    assert refused.value.problem()["code"] == "storage_full"
    box.submit("t", request_id="r1")
    assert box.receipts[-1].finished is not None
    await box.close()


async def test_a_flood_of_refusals_is_counted(box: Box) -> None:
    """After a burst, refusals are only counted, and the count is noted in one event."""
    for _ in range(REFUSALS_BURST + 400):
        with pytest.raises(RequestRefused):
            box.submit("nope")
    box.engine.refusals.note_counted()
    await box.settle()
    notes = [event.body for event in box.events() if isinstance(event.body, RequestRefusedNoted)]
    counted = notes[-1]
    assert counted.principal is None
    assert len(notes) < REFUSALS_BURST + 100
    assert len(notes) - 1 + counted.count == REFUSALS_BURST + 400


async def test_registering_is_recorded_once(tmp_path: Path) -> None:
    """A blueprint is put into the log once, again only where it changed, and is there after a restart."""
    box = Box(tmp_path)
    told: list[tuple[str, bool]] = []
    first, second = playbook(SUM), playbook(SUM, workload={"a": 1})
    for blueprint in (first, first, second, first):
        box.engine.catalog.register(blueprint.data, lambda path, new: told.append((path, new)))
        await box.gate.flushed()
    assert told == [("t", True), ("t", False), ("t", True), ("t", True)]
    registered = [event.body for event in box.events() if isinstance(event.body, CatalogRegistered)]
    assert [body.digest for body in registered] == [first.digest, second.digest, first.digest]
    await box.close()
    box = Box(tmp_path)
    assert [blueprint.digest for blueprint in box.engine.catalog.playbooks()] == [first.digest]
    await box.close()


async def test_registering_is_confirmed_once_durable(box: Box) -> None:
    """A blueprint registered again while the first registration is being flushed is confirmed with it, not before."""
    data = playbook(SUM).data
    told: list[int] = []
    for _ in range(2):
        box.engine.catalog.register(data, lambda path, new: told.append(box.gate.durable_seq))
    await box.gate.flushed()
    assert told == [2, 2]


@pytest.mark.parametrize("data", [b"", b"\xff", encode({}), encode({"version": 1}), bytes(range(7, 57))])
async def test_what_is_no_blueprint_is_refused(box: Box, data: bytes) -> None:
    """Bytes that are no blueprint are refused and nothing is logged."""
    before = box.gate.next_seq
    with pytest.raises(RequestRefused, match="not a blueprint"):
        box.engine.catalog.register(data, lambda path, new: None)
    assert box.gate.next_seq == before


@pytest.mark.parametrize("name", ["", "x", "-", "0123456789abcdef-3", "3-"])
async def test_ids_of_other_logs_are_refused(box: Box, name: str) -> None:
    """Only ids of this log, or bare numbers, name an execution."""
    with pytest.raises(RequestRefused):
        box.engine.execution_seq(name)
    assert box.engine.execution_seq(box.engine.execution_id(42)) == 42


async def test_many_requests_at_once_each_get_their_own_answer(box: Box) -> None:
    """Two hundred requests in flight are answered each with its own result, in a handful of flushes."""
    await box.register(playbook(SUM, workload={"a": 1}))
    for number in range(200):
        box.submit("t", json.dumps({"b": number}).encode(), request_id=f"r{number}")
    await asyncio.sleep(0)
    await box.settle()
    got = {answer.request_id: json.loads(answer.payload)["result"]["sum"] for answer in box.answers}
    assert got == {f"r{number}": number + 1 for number in range(200)}


@pytest.mark.parametrize("text", ["99999999999999999999999", "²", "", "x-1", "1.5"])
async def test_what_is_no_execution_id_is_refused(box: Box, text: str) -> None:
    """A number too large, in other digits or of another log is refused like any unknown execution."""
    with pytest.raises(RequestRefused) as refused:
        box.engine.execution_seq(text)
    assert refused.value.problem_code == "execution_unknown"
