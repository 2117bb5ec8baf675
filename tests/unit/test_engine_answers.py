"""Answers: how results, tables, failures and decisions come back, and what they cost in the journal."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from edge.core.codec import ARROW, CBOR, JSON, decode, encode
from edge.core.events import (
    ExecutionFinished,
    ExecutionRequested,
    StepDone,
    StepFailed,
    StepStarted,
)
from edge.core.limits import INLINE_BYTES_MAX, KIB
from edge.store.arrow_stream import stream_from_table, table_from_stream
from edge.store.journal import read_groups
from edge.testing.box import Box
from edge.testing.plain import playbook


async def ask(box: Box, payload: bytes = b"", **fields: Any) -> Any:
    """Submit to playbook t, run everything, the last answer's document."""
    box.submit("t", payload, **fields)
    await box.settle()
    return json.loads(box.answers[-1].payload)


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
    assert not any(path.is_file() for path in box.blocks.root.rglob("*.arrow")), (
        "the execution's blocks are dropped"
    )
