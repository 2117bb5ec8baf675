"""The mqtt kind through real runtime, gateway and mosquitto: delivered, answered, waited for, sent once."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.mqtt import BrokerAddress, Message, Settings, open_session
from tests.process.box import Box
from tests.process.mosquitto import Mosquitto

pytestmark = pytest.mark.mosquitto

SAY = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: say, path: say}
workflow:
  - step: say
    spec: {policy: {access: {topics: [site/#]}}}
    input: {door: "{{ workload.door }}"}
    tool:
      kind: mqtt
      topic: "site/{{ door }}/state"
      payload: {open: true}
      retain: true
      properties: {by: edge}
"""
ASK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: ask, path: ask}
workflow:
  - step: ask
    spec: {policy: {access: {topics: [meter/ask]}}}
    tool: {kind: mqtt, action: request, topic: meter/ask, payload: "{{ workload.q }}", timeout: 20s}
"""


@pytest.fixture
async def listener(mosquitto: Mosquitto) -> AsyncIterator[tuple[Any, asyncio.Queue[Message]]]:
    """A client that hears everything of the site and the meter."""
    heard: asyncio.Queue[Message] = asyncio.Queue()
    session = open_session(
        "codec",
        address=BrokerAddress("127.0.0.1", mosquitto.port),
        settings=Settings("listener", clean_start=True),
        on_message=lambda message: (heard.put_nowait(message), session.acknowledge(message))[1],
        on_lost=lambda _: None,
    )
    await session.connect()
    await session.subscribe([("site/#", 1), ("meter/#", 1)])
    yield session, heard
    await session.close()


async def run(box: Box, playbook: str, given: dict[str, Any]) -> dict[str, Any]:
    return await asyncio.to_thread(box.run, playbook, given)


async def test_a_message_is_delivered(box: Box, listener: Any) -> None:
    """A subscriber gets payload, properties and the task's identity; the result is the broker's word."""
    _, heard = listener
    await asyncio.to_thread(box.register, SAY)
    answer = await run(box, "say", {"door": "a"})
    assert answer["result"]["topic"] == "site/a/state"
    message = await asyncio.wait_for(heard.get(), 20)
    assert json.loads(message.payload) == {"open": True}
    assert message.content_type == "application/json"
    properties = dict(message.user_properties)
    assert properties == {"by": "edge", "idempotency-key": f"{answer['execution_id']}/say/0/say/0"}


async def test_a_request_is_answered(box: Box, listener: Any) -> None:
    """The answer to the response topic, with the correlation, becomes the value; others and late ones do not."""
    session, heard = listener
    await asyncio.to_thread(box.register, ASK)
    asked = asyncio.create_task(run(box, "ask", {"q": {"n": 7}}))
    message = await asyncio.wait_for(heard.get(), 20)
    assert json.loads(message.payload) == {"n": 7}
    assert message.response_topic is not None
    prefix, _, token = message.response_topic.rpartition("/")
    assert prefix == "edge/v1/testbox/reply"
    assert message.correlation == bytes.fromhex(token)
    await session.publish(f"{prefix}/{'0' * len(token)}", b'"wrong"', content_type="application/json")
    for value in (b"42", b"43"):
        await session.publish(
            message.response_topic, value, content_type="application/json", correlation=message.correlation
        )
    assert (await asked)["result"] == 42
    again = asyncio.create_task(run(box, "ask", {"q": 1}))
    message = await asyncio.wait_for(heard.get(), 20)
    await session.publish(message.response_topic, b"44", content_type="application/json")
    assert (await again)["result"] == 44


async def test_it_waits_for_the_broker(tmp_path: Path) -> None:
    """With the broker away a message waits, and goes out once when it is back."""
    broker = Mosquitto(tmp_path)
    broker.start()
    box = Box(tmp_path, broker.port)
    try:
        box.up()
        await asyncio.to_thread(box.register, SAY)
        assert (await run(box, "say", {"door": "a"}))["status"] == "completed"
        broker.kill()
        asked = asyncio.create_task(run(box, "say", {"door": "b"}))
        await asyncio.to_thread(_until, box, lambda: "step.started" in [e.type for e in box.events()[-2:]])
        broker.start()
        assert (await asked)["status"] == "completed"
        heard: asyncio.Queue[Message] = asyncio.Queue()
        session = open_session(
            "codec",
            address=BrokerAddress("127.0.0.1", broker.port),
            settings=Settings("late", clean_start=True),
            on_message=heard.put_nowait,
            on_lost=lambda _: None,
        )
        await session.connect()
        await session.subscribe([("site/#", 1)])
        message = await asyncio.wait_for(heard.get(), 20)
        assert (message.topic, message.retain) == ("site/b/state", True)
        await session.close()
    finally:
        box.down()
        broker.kill()


def _until(box: Box, holds: Any) -> None:
    done = threading.Event()
    for _ in range(2_000):
        if holds():
            return
        done.wait(0.01)  # polls a log that another process writes
    raise AssertionError(box.words())


async def _in_flight(box: Box, broker: Mosquitto, unknown: str) -> asyncio.Task[dict[str, Any]]:
    """A message that the gateway has sent and the broker, which stands still, has not acknowledged."""
    source = SAY.replace("{policy:", f"{{on_unknown: {unknown}, policy:")
    await asyncio.to_thread(box.register, source)
    assert (await run(box, "say", {"door": "a"}))["status"] == "completed"
    broker.freeze()
    asked = asyncio.create_task(run(box, "say", {"door": "b"}))
    await asyncio.to_thread(_until, box, lambda: [e.type for e in box.events()].count("step.started") == 2)
    return asked


@pytest.mark.parametrize("which", ["gateway", "broker"])
@pytest.mark.parametrize(("unknown", "ends"), [("fail", "outcome_unknown"), ("retry", None)])
async def test_a_crash_between_intent_and_acknowledgement(
    box: Box, mosquitto: Mosquitto, which: str, unknown: str, ends: str | None
) -> None:
    """Where the gateway or the broker dies before the acknowledgement, `on_unknown` decides, and nobody guesses."""
    asked = await _in_flight(box, mosquitto, unknown)
    if which == "gateway":
        await asyncio.to_thread(box.kill, "gateway")
        mosquitto.thaw()
        box.start("gateway")
    else:
        mosquitto.restart()
    answer = await asked
    assert (answer.get("error") or {}).get("code") == ends, answer
    assert [event.type for event in box.events()].count("step.started") == 2


async def test_a_runtime_that_dies_in_between(box: Box, mosquitto: Mosquitto) -> None:
    """The next runtime finds the intent without an outcome, and does as the playbook says."""
    asked = await _in_flight(box, mosquitto, "fail")
    await asyncio.to_thread(box.kill, "runtime")
    mosquitto.thaw()
    with pytest.raises(Exception):  # noqa: B017, PT011 - whoever asked locally has lost the runtime
        await asked
    box.start("runtime")
    await asyncio.to_thread(box.status)
    await asyncio.to_thread(
        _until, box, lambda: [e.type for e in box.events()].count("playbook.execution.finished") == 2
    )
    last = next(event for event in reversed(box.events()) if event.type == "playbook.execution.finished")
    assert (getattr(last.body, "problem", None) or {}).get("code") == "outcome_unknown"
