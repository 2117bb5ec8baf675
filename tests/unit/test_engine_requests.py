"""Requests end to end on the real homes and the real worker loop, in one process: receipts, answers, refusals."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from edge.core.codec import decode, encode
from edge.core.errors import RequestRefused
from edge.core.events import (
    CatalogRegistered,
    ExecutionFinished,
    ExecutionRequested,
    RequestRefusedNoted,
    StepDone,
    StepFailed,
    StepStarted,
)
from edge.core.limits import EXECUTIONS_OPEN_MAX, INLINE_BYTES_MAX, KIB, REFUSALS_BURST
from edge.runtime.admit import ARROW, CBOR, JSON
from edge.store.cache import stream_from_table, table_from_stream
from edge.store.journal import read_groups
from edge.testing.box import Box
from edge.testing.plain import playbook

SUM = [{"step": "sum", "tool": {"kind": "transform", "value": {"sum": "{{ workload.a + workload.b }}"}}}]


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    made = Box(tmp_path)
    yield made
    await made.close()


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
        box.engine.playbooks()[0].digest, "alice", "r1", "v5", "answers/a", b"c9", None, b'{"b": 40}'
    )


async def test_nothing_leaves_before_it_is_durable(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """When receipt and answer are handed out, the journal on the drive holds the events they speak of."""
    await box.register(playbook(SUM, workload={"a": 1, "b": 2}))
    seen: list[tuple[str, bool]] = []

    def on_drive(execution: int, kind: type) -> bool:
        return any(type(e.body) is kind and e.execution == execution for e in box.events())

    box.engine.on_answer = lambda a: seen.append(("answer", on_drive(a.execution, ExecutionFinished)))
    from edge.runtime.admit import Submission

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


@pytest.mark.xfail(
    strict=True, raises=UnicodeEncodeError, reason="BUG codec.py check_plain: lone surrogates are accepted"
)
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
    box.engine.note_counted()
    await box.settle()
    notes = [event.body for event in box.events() if isinstance(event.body, RequestRefusedNoted)]
    counted = notes[-1]
    assert counted.principal is None
    assert len(notes) < REFUSALS_BURST + 100
    assert len(notes) - 1 + counted.count == REFUSALS_BURST + 400


@pytest.mark.parametrize("content_type", [JSON, CBOR, "application/json; charset=utf-8"])
async def test_an_answer_comes_as_the_request_came(box: Box, content_type: str) -> None:
    """JSON is answered in JSON and CBOR in CBOR; bytes in JSON are base64."""
    step = {"step": "a", "tool": {"kind": "python", "code": "result = {'b': b'\\x00\\xff', 'n': n}"}}
    await box.register(playbook([{**step, "input": {"n": "{{ workload.n }}"}}]))
    payload = encode({"n": 1}) if content_type == CBOR else b'{"n": 1}'
    box.submit("t", payload, content_type=content_type)
    await box.settle()
    (answer,) = box.answers
    if content_type == CBOR:
        assert (answer.content_type, decode(answer.payload)["result"]) == (CBOR, {"b": b"\x00\xff", "n": 1})
    else:
        result = {"b": base64.b64encode(b"\x00\xff").decode(), "n": 1}
        assert (answer.content_type, json.loads(answer.payload)["result"]) == (JSON, result)


async def test_a_large_request_is_a_blob_and_survives(tmp_path: Path) -> None:
    """A payload over 64 KiB stands in a blob, the event names its digest, and a restart reads it again."""
    box = Box(tmp_path)
    await box.register(
        playbook([{"step": "n", "tool": {"kind": "transform", "value": "{{ workload.text | length }}"}}])
    )
    payload = json.dumps({"text": "x" * 100_000}).encode()
    box.submit("t", payload, request_id="r1")
    await box.gate.flushed()
    body = box.events()[-1].body
    assert isinstance(body, ExecutionRequested)
    assert (body.payload, body.payload_digest) == (None, hashlib.sha256(payload).digest())
    box.pool.waiting.clear()
    await box.close()
    box = Box(tmp_path)
    await box.settle()
    assert json.loads(box.answers[-1].payload)["result"] == 100_000
    await box.close()


async def test_a_table_goes_in_and_out(box: Box) -> None:
    """An Arrow request is handed to the worker unopened; a table as result is answered as an Arrow stream."""
    await box.register(
        playbook(
            [
                {
                    "step": "hot",
                    "tool": {
                        "kind": "arrow",
                        "table": "{{ workload.table }}",
                        "ops": [{"filter": "{{ t > 1 }}"}],
                    },
                }
            ]
        )
    )
    box.submit("t", stream_from_table(pa.table({"t": [1, 2, 3]})), content_type=ARROW)
    await box.settle()
    (answer,) = box.answers
    assert answer.content_type == ARROW
    assert table_from_stream(answer.payload).to_pydict() == {"t": [2, 3]}
    finished = box.events()[-1].body
    assert isinstance(finished, ExecutionFinished)
    assert (finished.result_kind, finished.result) == ("table", answer.payload)


async def test_a_damaged_table_fails_in_the_worker(box: Box) -> None:
    """Bytes that are no Arrow stream are found by the worker and fail the step, with the caller told why."""
    step = {
        "step": "hot",
        "tool": {"kind": "arrow", "table": "{{ workload.table }}", "ops": [{"filter": "{{ t > 1 }}"}]},
    }
    await box.register(playbook([step]))
    document = await ask(box, b"no arrow at all", content_type=ARROW)
    assert document["status"] == "failed"
    assert document["error"]["code"] == "payload_invalid"


async def test_a_step_that_fails_fails_the_execution(box: Box) -> None:
    """A failing block is a recorded outcome and a clear error to the caller; the steps after it never run."""
    steps = [
        {
            "step": "a",
            "tool": {"kind": "python", "code": "raise ValueError('no such thing')\nresult = 1"},
            "next": ["b"],
        },
        {"step": "b", "tool": {"kind": "noop"}},
    ]
    await box.register(playbook(steps))
    document = await ask(box)
    assert document["status"] == "failed"
    assert document["error"]["step"] == "a"
    assert "no such thing" in document["error"]["message"]
    kinds = [type(event.body) for event in box.engine.events_of(box.receipts[0].seq)]
    assert kinds == [ExecutionRequested, StepFailed, ExecutionFinished]


async def test_arcs_and_patches_are_recorded_as_decided(box: Box) -> None:
    """The outcome event holds the arc taken and the patches, and the fold needs nothing else."""
    steps = [
        {
            "step": "a",
            "tool": {"kind": "transform", "value": {"x": "{{ workload.x }}"}},
            "set": {"double": "{{ a.x * 2 }}"},
            "next": [{"step": "low", "when": "{{ ctx.double < 10 }}"}, {"step": "high"}],
        },
        {"step": "low", "tool": {"kind": "transform", "value": "low"}},
        {"step": "high", "tool": {"kind": "transform", "value": "{{ ctx.double }}"}},
    ]
    await box.register(playbook(steps))
    assert (await ask(box, b'{"x": 2}'))["result"] == "low"
    assert (await ask(box, b'{"x": 7}'))["result"] == 14
    done = [event.body for event in box.events() if event.step == "a"]
    assert [(body.arc, body.ctx) for body in done if isinstance(body, StepDone)] == [
        (0, {"double": 4}),
        (1, {"double": 14}),
    ]


async def test_two_small_pure_steps_cost_little(box: Box) -> None:
    """Two pure steps with 100 B of input and 64 B results: at most 4 events and 1 KB in the journal."""
    step = {"kind": "transform", "value": "{{ workload.text }}"}
    await box.register(
        playbook([{"step": "first", "tool": step, "next": ["second"]}, {"step": "second", "tool": step}])
    )
    before_events, before_bytes = len(box.events()), journal_bytes(box)
    payload = json.dumps({"text": "x" * 60}).encode().ljust(100)
    await ask(box, payload, request_id="01JD8Q2R0G5T6Y7U8I9O0PASDF", correlation=b"0123456789abcdef")
    assert len(box.events()) - before_events <= 4
    assert journal_bytes(box) - before_bytes <= 1 * KIB


async def test_two_write_steps_cost_six_events(box: Box) -> None:
    """Two write steps are request, two intents, two outcomes and the end."""
    tool = {"kind": "python", "code": "result = 1"}
    spec = {"effect": "write"}
    steps = [
        {"step": "a", "spec": spec, "tool": tool, "next": ["b"]},
        {"step": "b", "spec": spec, "tool": tool},
    ]
    await box.register(playbook(steps))
    before = len(box.events())
    await ask(box)
    kinds = [type(event.body) for event in box.events()[before:]]
    assert kinds == [ExecutionRequested, StepStarted, StepDone, StepStarted, StepDone, ExecutionFinished]


def journal_bytes(box: Box) -> int:
    """Bytes of the groups on the drive, frames included."""
    return sum(len(data) + 22 for _, _, data in read_groups(box.folder / "journal"))


async def test_a_large_value_is_answered_and_kept_out_of_the_step(box: Box) -> None:
    """A pure value over 1 KiB leaves its digest with the step and its bytes with the answer."""
    await box.register(
        playbook(
            [
                {
                    "step": "a",
                    "tool": {"kind": "python", "code": "result = 'x' * 5000"},
                    "spec": {"effect": "pure"},
                }
            ]
        )
    )
    document = await ask(box)
    assert document["result"] == "x" * 5000
    *_, done, finished = box.events()
    value = encode("x" * 5000)
    assert isinstance(done.body, StepDone)
    assert (done.body.value, done.body.digest) == (None, hashlib.sha256(value).digest())
    assert isinstance(finished.body, ExecutionFinished)
    assert finished.body.result == value


async def test_a_large_table_of_a_read_step_is_a_blob(box: Box) -> None:
    """A read step's table over 64 KiB is stored as a blob before the event that names it, and answered from it."""
    code = "import pyarrow as pa\nresult = pa.table({'n': list(range(20000))})"
    await box.register(playbook([{"step": "a", "tool": {"kind": "python", "code": code}}]))
    box.submit("t")
    await box.settle()
    done = next(event.body for event in box.events() if isinstance(event.body, StepDone))
    assert done.table is not None
    assert done.table.size_bytes > INLINE_BYTES_MAX
    assert done.table_bytes is None
    assert box.blobs.get(done.table.digest) == box.answers[0].payload
    assert not any(path.is_file() for path in box.blocks.root.rglob("*")), (
        "the execution's blocks are dropped"
    )


async def test_registering_is_recorded_once(tmp_path: Path) -> None:
    """A blueprint is put into the log once, again only where it changed, and is there after a restart."""
    box = Box(tmp_path)
    told: list[tuple[str, bool]] = []
    first, second = playbook(SUM), playbook(SUM, workload={"a": 1})
    for blueprint in (first, first, second, first):
        box.engine.register(blueprint.data, lambda path, new: told.append((path, new)))
        await box.gate.flushed()
    assert told == [("t", True), ("t", False), ("t", True), ("t", True)]
    registered = [event.body for event in box.events() if isinstance(event.body, CatalogRegistered)]
    assert [body.digest for body in registered] == [first.digest, second.digest, first.digest]
    await box.close()
    box = Box(tmp_path)
    assert [blueprint.digest for blueprint in box.engine.playbooks()] == [first.digest]
    await box.close()


@pytest.mark.xfail(
    strict=True, reason="BUG engine.py register: the same blueprint again is confirmed before it is durable"
)
async def test_registering_is_confirmed_once_durable(box: Box) -> None:
    """A blueprint registered again while the first registration is being flushed is confirmed with it, not before."""
    data = playbook(SUM).data
    told: list[int] = []
    for _ in range(2):
        box.engine.register(data, lambda path, new: told.append(box.gate.durable_seq))
    await box.gate.flushed()
    assert told == [2, 2]


@pytest.mark.parametrize("data", [b"", b"\xff", encode({}), encode({"version": 1}), os.urandom(50)])
async def test_what_is_no_blueprint_is_refused(box: Box, data: bytes) -> None:
    """Bytes that are no blueprint are refused and nothing is logged."""
    before = box.gate.next_seq
    with pytest.raises(RequestRefused, match="not a blueprint"):
        box.engine.register(data, lambda path, new: None)
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
