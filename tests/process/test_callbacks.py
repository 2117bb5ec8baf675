"""Callbacks over a real broker: taken once, refused by name, held while the runtime is away, kept over kills."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import pytest

from edge.cli.client import RuntimeClient
from edge.core.codec import decode
from edge.core.events import CallbackReceived, RequestRefusedNoted, StepWaiting, TaskDone
from tests.process.box import BOX, START_S, Box
from tests.process.test_request_line import client, wait_until_serving

pytestmark = pytest.mark.mosquitto

APPROVAL = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: approval, path: demo/approval}
workflow:
  - step: approve
    tool:
      - {name: ask, kind: python, code: "result = token", input: {token: "{{ callback.token }}"}}
      - {name: answer, kind: wait, callback: true, timeout: 1h}
      - {name: told, kind: transform, value: "{{ answer.by }}"}
"""


@pytest.fixture
def serving(box: Box) -> Box:
    """A box with a playbook that waits for an approval."""
    box.register(APPROVAL)
    wait_until_serving(box)
    return box


def asked(box: Box) -> tuple[str, str]:
    """Begin an execution; `(its id, the token it handed out)` once both are on the drive and it waits."""
    with RuntimeClient(box.settings) as runtime:
        execution_id = runtime.submit("demo/approval", b"{}", "application/json", None)
    number = int(execution_id.rpartition("-")[2])
    deadline_s = time.monotonic() + START_S
    while True:
        bodies = [event.body for event in box.events() if event.execution == number]
        if any(isinstance(body, StepWaiting) for body in bodies):
            [value] = [body.value for body in bodies if isinstance(body, TaskDone)]
            assert value is not None
            return execution_id, decode(value)
        assert time.monotonic() < deadline_s, box.words()
        time.sleep(0.02)  # polls a process that nobody asked to say when it waits


def answered(box: Box, execution_id: str) -> dict[str, Any]:
    """The execution once it has ended."""
    deadline_s = time.monotonic() + START_S
    while (found := box.ask("execution", id=execution_id))["status"] == "running":
        assert time.monotonic() < deadline_s, box.words()
        time.sleep(0.02)  # as above
    return dict(found)


def publish(box: Box, token: str, payload: str) -> None:
    subprocess.run(
        [*client("mosquitto_pub", box), "-q", "1", "-t", f"edge/v1/{BOX}/callback/{token}", "-s"],
        input=payload.encode(),
        check=True,
        timeout=40,
    )


def rejected(box: Box, token: str, payload: str = "{}") -> dict[str, Any]:
    """What a caller that names a response topic hears."""
    topic = f"edge/v1/{BOX}/callback/{token}"
    done = subprocess.run(
        [
            *client("mosquitto_rr", box),
            "-q",
            "1",
            "-t",
            topic,
            "-e",
            "answers/ada",
            "-m",
            payload,
            "-W",
            "20",
        ],
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
    )
    return dict(json.loads(done.stdout))


def test_a_callback_over_the_broker_carries_the_execution_on(serving: Box) -> None:
    """Published once it is the wait's result; published again, or forged, it is refused where a response topic is."""
    execution_id, token = asked(serving)
    publish(serving, token, '{"by": "ada"}')
    found = answered(serving, execution_id)
    assert found["status"] == "completed"
    assert decode(found["steps"]["approve"]["output"]["value"]) == "ada"
    assert rejected(serving, token)["error"]["code"] == "callback_used"
    assert rejected(serving, "a" * 40)["error"]["code"] == "callback_unknown"
    _, other = asked(serving)
    assert rejected(serving, other, "{broken")["error"]["code"] == "payload_invalid"


def test_one_that_is_refused_leaves_a_trace(serving: Box) -> None:
    """Broken, forged or too large, with nobody who asked to be told: an event and a line of the gateway's each."""
    _, token = asked(serving)
    publish(serving, token, "garbage{")
    publish(serving, "x", "{}")
    publish(serving, token, "9" * 300_000)
    deadline_s = time.monotonic() + START_S
    wanted = ["payload_invalid", "callback_unknown", "payload_too_large"]
    while True:
        noted = [event.body for event in serving.events() if isinstance(event.body, RequestRefusedNoted)]
        if len(noted) >= len(wanted) and serving.words().count("a callback was refused: ") >= len(wanted):
            break
        assert time.monotonic() < deadline_s, serving.words()
        time.sleep(0.02)  # as above
    assert [(body.code, body.principal) for body in noted] == [(code, "callback") for code in wanted]
    assert token not in serving.words()


def test_it_is_kept_over_kills_and_taken_once(serving: Box) -> None:
    """Killed while it waits, published while the runtime is away: held by the gateway, taken once it is back."""
    execution_id, token = asked(serving)
    serving.kill("runtime")
    publish(serving, token, '{"by": "eve"}')
    serving.start("runtime")
    assert answered(serving, execution_id)["status"] == "completed"
    publish(serving, token, '{"by": "mallory"}')
    serving.kill("gateway")
    serving.kill("runtime")
    serving.up()
    found = answered(serving, execution_id)
    assert decode(found["steps"]["approve"]["output"]["value"]) == "eve"
    assert sum(isinstance(event.body, CallbackReceived) for event in serving.events()) == 1
    assert serving.verify().whole


def test_the_command_line_has_it_too(serving: Box) -> None:
    """`edge show` says what is waited for and until when, `edge callback` uses the token without a broker."""
    execution_id, token = asked(serving)
    told = serving.edge("show", execution_id).stdout
    assert "answer: a callback, until " in told
    serving.edge("callback", token, "--input", '{"by": "cli"}')
    assert answered(serving, execution_id)["status"] == "completed"
    refused = serving.edge("callback", token, check=2)
    assert "received before" in refused.stderr
