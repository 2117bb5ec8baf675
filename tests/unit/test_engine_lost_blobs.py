"""Blobs that are gone or damaged: what needed one ends and says so, and nothing else is held up."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from edge.core.subscription_events import MessageDeadLettered
from edge.testing.box import Box
from edge.testing.plain import playbook
from tests.unit.subscription_rig import OTHER, of_kind, opened, outputs, subscription

LARGE = json.dumps({"text": "x" * 100_000}).encode()
ECHO = playbook(
    [{"step": "s", "tool": {"kind": "transform", "value": "{{ workload.text | length }}"}}], "echo"
)
GIVES = playbook([{"step": "s", "tool": {"kind": "python", "code": "result = 'x' * 200_000"}}], "gives")


def damage(folder: Path) -> None:
    """Flip every blob."""
    found = [path for path in (folder / "blobs").rglob("*") if path.is_file()]
    assert found, "there is no blob"
    for path in found:
        path.write_bytes(b"damaged")


async def test_a_request_whose_payload_is_lost_fails_and_does_not_hold_up_the_start(
    box: Box, tmp_path: Path
) -> None:
    """An open execution whose large payload cannot be read ends with the reason; the box starts, and serves."""
    await box.register(ECHO)
    box.submit("echo", LARGE, request_id="r-1")
    await box.gate.flushed()
    folder = box.photograph(tmp_path / "cut")
    damage(folder)
    after = Box(folder)
    await after.settle()
    assert after.document()["error"]["code"] == "log_damaged"
    after.submit("echo", b'{"text": "abc"}')
    await after.settle()
    assert after.document()["result"] == 3
    await after.close()


async def test_an_answer_that_is_lost_says_so_to_who_asks_again(box: Box) -> None:
    """A recorded answer whose blob is damaged: the same request id gets the execution, its end, and the damage."""
    await box.register(GIVES)
    box.submit("gives", b"{}", request_id="r-1")
    await box.settle()
    assert len(box.document()["result"]) == 200_000
    damage(box.folder)
    box.submit("gives", b"{}", request_id="r-1")
    answer = box.receipts[-1].finished
    assert answer is not None
    document = json.loads(answer.payload)
    assert (document["status"], document["error"]["code"]) == ("completed", "log_damaged")


async def test_a_message_that_is_lost_is_a_dead_letter_and_those_behind_it_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch whose message cannot be read any more is given up by name; its lane is not blocked by it."""
    box = await opened(tmp_path)
    made = subscription(dispatch={"playbook": OTHER.path}, ordering="global", dead_letter={"topic": "a/dead"})
    number = await box.subscribe(made)
    intake = box.subscriptions.find("in/s")
    box.subscriptions.pause(intake, "test", lambda state: None)
    box.message(number, "a/x", LARGE)
    box.message(number, "a/x", b'{"n": 2}')
    await box.gate.flushed()
    damage(tmp_path)
    with caplog.at_level(logging.ERROR):
        box.subscriptions.resume(intake, "test", lambda state: None)
        await box.settle()
    (dead,) = of_kind(box, MessageDeadLettered)
    assert dead.body.problem["code"] == "log_damaged"  # type: ignore[attr-defined]
    assert outputs(box) == [2]
    assert intake.lanes.backlog == 0
    assert "dead letters of in/s" in caplog.text
    await box.close()
