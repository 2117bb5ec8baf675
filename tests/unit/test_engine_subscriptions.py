"""Subscriptions over the real engine: each message in exactly one range, each range run once, whatever restarts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.core.errors import RequestRefused
from edge.core.subscription_events import (
    MessageReceived,
)
from edge.testing.box import Box
from tests.unit.subscription_rig import (
    ONE,
    OTHER,
    TABLE,
    assert_each_once,
    of_kind,
    opened,
    outputs,
    ranges,
    requests,
    subscription,
    timer,
)


async def test_a_batch_becomes_one_table_of_one_execution(tmp_path: Path) -> None:
    """Rows close it; the request event names the range, and the worker makes the table, bad payloads included."""
    box = await opened(tmp_path)
    number = await box.subscribe(subscription(**TABLE, runtime={"batch": 3}))
    box.message(number, "a/x", b'{"n": 1}')
    box.message(number, "a/y", b"not json")
    await box.settle()
    assert requests(box) == []
    box.message(number, "a/x", b'{"n": 3}')
    await box.settle()
    first = of_kind(box, MessageReceived)[0].seq
    assert ranges(box) == [[first, first + 2, 3, None, 1]]
    assert requests(box)[0].payload is None
    rows = outputs(box)[0]
    assert [(row["_seq"], row["_topic"], row["n"]) for row in rows] == [
        (first, "a/x", 1),
        (first + 1, "a/y", None),
        (first + 2, "a/x", 3),
    ]
    assert [row["_problem"] is None for row in rows] == [True, False, True]
    assert len(box.taken) == 3
    assert box.answers == []
    await box.close()


async def test_alarms_do_not_pile_up(tmp_path: Path) -> None:
    """However many messages wait, and however often it is looked around, one alarm of a kind is set."""
    armed: list[int] = []
    box = await opened(tmp_path)
    timers = box.engine.executor.timers
    arm = timers.arm

    def counted(due_ns: int, key: Any, call: Any) -> None:
        armed.append(due_ns)
        arm(due_ns, key, call)

    timers.arm = counted  # type: ignore[method-assign]
    number = await box.subscribe(subscription(**TABLE, runtime={"batch": 500, "timeout_ms": 60_000}))
    await box.subscribe(timer(path="in/t", every="1h"))
    for n in range(100):
        box.message(number, "a/x", b'{"n": %d}' % n)
        box.subscriptions.look()
    assert len(armed) == 2
    await box.pass_time(61)
    assert [each[2] for each in ranges(box)] == [100]
    await box.pass_time(3_600)
    assert len(ranges(box)) == 2
    await box.close()


async def test_time_closes_a_batch(tmp_path: Path) -> None:
    """A batch that does not fill up goes when its first message has waited long enough."""
    box = await opened(tmp_path)
    number = await box.subscribe(subscription(**TABLE, runtime={"batch": 100, "timeout_ms": 2000}))
    box.message(number, "a/x", b'{"n": 1}')
    await box.pass_time(1.9)
    assert requests(box) == []
    await box.pass_time(0.2)
    assert [each[2] for each in ranges(box)] == [1]
    await box.close()


async def test_without_batches_each_message_is_an_input(tmp_path: Path) -> None:
    """NoETL's envelope stands under `message`; a map's entries stand at the top, anything else under `body`."""
    box = await opened(tmp_path)
    number = await box.subscribe(subscription(headers={"keep": ["unit"]}))
    box.message(number, "a/x", b'{"n": 7, "message": "mine"}', headers={"unit": "C"}, retain=True)
    box.message(number, "a/y", b"23.5 C", content_type="text/plain")
    await box.settle()
    first, second = outputs(box)
    assert (first["n"], first["message"]["data"]["n"], first["subscription"]) == (7, 7, "in/s")
    assert first["message"]["headers"] == {"unit": "C"}
    assert first["message"]["metadata"]["topic"] == "a/x"
    assert first["message"]["metadata"]["retained"] is True
    assert (second["body"], second["message"]["data"]) == ("23.5 C", "23.5 C")
    assert [each[2] for each in ranges(box)] == [1, 1]
    await box.close()


@pytest.mark.parametrize("claims", range(5))
async def test_a_restart_anywhere_runs_each_range_once(tmp_path: Path, claims: int) -> None:
    """Cut after any claim: what was dispatched is resumed, what waited is dispatched, nothing is twice or lost."""
    box = await opened(tmp_path / "one")
    number = await box.subscribe(subscription(**TABLE, runtime={"batch": 2, "timeout_ms": 1000}))
    for n in range(7):
        box.message(number, "a/x", json.dumps({"n": n}).encode())
    await box.gate.flushed()
    for _ in range(claims):
        box.pool.run()
        await box.gate.flushed()
    after = Box(box.photograph(tmp_path / "two"))
    await after.settle()
    await after.pass_time(2)
    assert_each_once(after)
    assert [row["n"] for rows in outputs(after) for row in rows] == list(range(7))
    await after.close()
    await box.close()


async def test_what_is_far_behind_is_not_read_again(tmp_path: Path) -> None:
    """A noted position bounds what a restart reads; totals go on from it."""
    box = await opened(tmp_path / "one")
    number = await box.subscribe(subscription())
    for n in range(5):
        box.message(number, "a/x", b'{"n": %d}' % n)
    await box.settle()
    box.subscriptions.note_positions()
    box.message(number, "a/x", b'{"n": 5}')
    await box.settle()
    await box.close()
    after = Box(tmp_path / "one")
    intake = after.subscriptions.find("in/s")
    assert intake.counts == {"received": 6, "deduplicated": 0, "executions": 6, "dead": 0}
    assert intake.lanes.backlog == 0
    after.message(number, "a/x", b'{"n": 6}')
    await after.settle()
    assert_each_once(after)
    await after.close()


async def test_a_directive_chooses_among_named_playbooks(tmp_path: Path) -> None:
    """Only an allowed value steers, and in a batch neighbours of different playbooks part."""
    box = await opened(tmp_path)
    rule = {"header": "x-route", "controls": "dispatch.playbook", "allowed": ["take/other"]}
    trace = {"propagate": "w3c"}
    number = await box.subscribe(subscription(headers={"directives": [rule], "trace": trace}))
    box.message(number, "a/x", b'{"n": 1}', headers={"x-route": "take/other", "traceparent": "00-1"})
    box.message(number, "a/x", b'{"n": 2}', headers={"x-route": "take/rows"})
    await box.settle()
    assert [request.digest for request in requests(box)] == [OTHER.digest, ONE.digest]
    assert requests(box)[0].traceparent == "00-1"
    assert outputs(box)[0] == 1
    with pytest.raises(RequestRefused, match="no playbook 'take/nobody'"):
        await box.subscribe(subscription("in/t", dispatch={"playbook": "take/nobody"}))
    await box.close()


async def test_large_payloads_go_into_blobs_and_stay_alone(tmp_path: Path) -> None:
    """A message over 64 KiB is a batch of its own, read back from its blob."""
    box = await opened(tmp_path / "one")
    number = await box.subscribe(subscription(**TABLE, runtime={"batch": 10, "timeout_ms": 100}))
    large = json.dumps({"n": 2, "text": "x" * 70_000}).encode()
    for payload in (b'{"n": 1}', large, b'{"n": 3}'):
        box.message(number, "a/x", payload, packet=4)
    await box.gate.flushed()
    after = Box(box.photograph(tmp_path / "two"))
    assert after.message(number, "a/x", b'{"n": 3}', packet=4, again=True)
    for _ in range(3):
        await after.pass_time(1)
    assert [[row["n"] for row in rows] for rows in outputs(after)] == [[1], [2], [3]]
    await after.close()
    await box.close()
