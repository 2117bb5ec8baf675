"""Batches that fail: tried again, counted over restarts, dead letters in the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.core.errors import RequestRefused
from edge.core.subscription_events import (
    MessageDeadLettered,
)
from edge.testing.box import Box
from tests.unit.subscription_rig import (
    OTHER,
    failing_on,
    of_kind,
    opened,
    outputs,
    ranges,
    requests,
    subscription,
)


async def test_a_failing_key_blocks_only_itself(tmp_path: Path) -> None:
    """Its batch rests and runs again, then is a dead letter with the reason; the other keys go on meanwhile."""
    box = await opened(tmp_path)
    number = await box.subscribe(
        subscription(ordering_key="device", retry={"attempts": 2, "delay": "5s"}, limits={"max_in_flight": 2})
    )
    box.pool.answer = failing_on(lambda given: given["n"] == 1, box)
    for n, device in [(1, "A"), (2, "A"), (3, "B"), (4, "B")]:
        box.message(number, "a/x", json.dumps({"n": n, "device": device}).encode())
    await box.settle()
    assert [output["n"] for output in outputs(box)] == [3, 4]
    await box.pass_time(4.9)
    assert of_kind(box, MessageDeadLettered) == []
    await box.pass_time(0.2)
    dead = of_kind(box, MessageDeadLettered)[0].body
    assert isinstance(dead, MessageDeadLettered)
    assert (dead.count, dead.attempts, dead.lane, dead.problem["code"]) == (1, 2, "A", "bad")
    assert [output["n"] for output in outputs(box)] == [3, 4, 2]
    assert [each[3:] for each in ranges(box)] == [["A", 1], ["B", 1], ["B", 1], ["A", 2], ["A", 1]]
    assert box.subscriptions.find("in/s").lanes.backlog == 0
    await box.close()


async def test_attempts_are_counted_on_over_a_restart(tmp_path: Path) -> None:
    """A failure before the cut counts; a dead letter from before the cut stays one."""
    box = await opened(tmp_path / "one")
    number = await box.subscribe(subscription(retry={"attempts": 2, "delay": "5s"}))
    box.pool.answer = failing_on(lambda given: True, box)
    box.message(number, "a/x", b'{"n": 1}')
    await box.settle()
    after = Box(box.photograph(tmp_path / "two"))
    after.pool.answer = failing_on(lambda given: True, after)
    await after.settle()
    await after.pass_time(6)
    assert [each[4] for each in ranges(after)] == [1, 2]
    assert len(of_kind(after, MessageDeadLettered)) == 1
    third = Box(after.photograph(tmp_path / "three"))
    await third.pass_time(60)
    assert len(ranges(third)) == 2
    assert third.subscriptions.find("in/s").counts["dead"] == 1
    for each in (box, after, third):
        await each.close()


async def test_a_later_attempt_runs_what_the_directive_chose(tmp_path: Path) -> None:
    """The playbook stands with the messages, so a restart between two attempts does not lose it."""
    rule = {"header": "x-route", "controls": "dispatch.playbook", "allowed": ["take/other"]}
    box = await opened(tmp_path / "one")
    number = await box.subscribe(
        subscription(headers={"directives": [rule]}, retry={"attempts": 2, "delay": "1s"})
    )
    box.pool.answer = failing_on(lambda given: True, box)
    box.message(number, "a/x", b'{"n": 1}', headers={"x-route": "take/other"})
    await box.settle()
    after = Box(box.photograph(tmp_path / "two"))
    await after.pass_time(2)
    assert [request.digest for request in requests(after)] == [OTHER.digest] * 2
    with pytest.raises(RequestRefused, match="no execution"):
        after.engine.state_of(number)
    await after.close()
    await box.close()


async def test_dead_letters_are_owed_until_the_broker_has_them(tmp_path: Path) -> None:
    """They are handed over one batch at a time, again after a restart, and not once it is known that they arrived."""
    box = await opened(tmp_path / "one")
    frames: list[list[Any]] = []
    box.subscriptions.dead_letters.send = lambda frame: frames.append(frame) or True
    number = await box.subscribe(subscription(dead_letter={"topic": "dead/a"}))
    box.pool.answer = failing_on(lambda given: True, box)
    for n in range(2):
        box.message(number, "a/x", b'{"n": %d}' % n, content_type="application/json")
    await box.settle()
    assert len(frames) == 1
    _, first, topic, letters = frames[0]
    payload, content_type, properties = letters[0]
    assert (topic, payload, content_type) == ("dead/a", b'{"n": 0}', "application/json")
    assert dict(properties)["code"] == "bad"
    assert dict(properties)["topic"] == "a/x"
    box.subscriptions.dead_letters.sent(first)
    assert [frame[3][0][0] for frame in frames] == [b'{"n": 0}', b'{"n": 1}']
    box.subscriptions.note_positions()
    await box.close()
    after = Box(tmp_path / "one")
    again: list[list[Any]] = []
    after.subscriptions.dead_letters.send = lambda frame: again.append(frame) or True
    after.subscriptions.dead_letters.go_on()
    assert [frame[3][0][0] for frame in again] == [b'{"n": 1}']
    after.subscriptions.dead_letters.sent(again[0][1])
    after.subscriptions.note_positions()
    await after.settle()
    await after.close()
    third = Box(tmp_path / "one")
    third.subscriptions.dead_letters.send = lambda frame: again.append(frame) or True
    third.subscriptions.dead_letters.go_on()
    assert len(again) == 1
    await third.close()
