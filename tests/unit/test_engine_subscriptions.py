"""Subscriptions over the real engine: ranges, restarts, order, failures, repetition, states, ticks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.core.codec import decode
from edge.core.errors import RequestRefused
from edge.core.events import Event, ExecutionFinished, ExecutionRequested, StepDone
from edge.core.limits import RECEIVE_MAX
from edge.core.subscription_events import (
    MessageDeadLettered,
    MessageDeduplicated,
    MessageReceived,
    SubscriptionDeactivated,
    TicksMissed,
)
from edge.runtime.api.subscription_door import SubscriptionDoor
from edge.testing.box import Box
from edge.testing.clock import ManualClock
from edge.testing.plain import playbook
from edge.worker.claims import FAILED, VALUE, Outcome
from playbooks.documents import compile_document
from playbooks.subscription import Subscription

MEAN = playbook(
    [
        {
            "step": "rows",
            "tool": {
                "kind": "arrow",
                "table": "{{ workload.table }}",
                "ops": [{"project": {k: f"{{{{ {k} }}}}" for k in ("_seq", "_topic", "n", "_problem")}}],
                "output": "rows",
            },
        }
    ],
    "take/rows",
)
ONE = playbook([{"step": "one", "tool": {"kind": "transform", "value": "{{ workload }}"}}], "take/one")
OTHER = playbook([{"step": "two", "tool": {"kind": "transform", "value": "{{ n }}"}}], "take/other")
TABLE: dict[str, Any] = {"dispatch": {"playbook": "take/rows", "batch_dispatch": True}}


def subscription(path: str = "in/s", **spec: Any) -> Subscription:
    """A compiled subscription of topics below `a/`, one message for each execution unless said otherwise."""
    body = {"source": "mqtt", "topics": ["a/#"], "dispatch": {"playbook": "take/one"}, **spec}
    if body["source"] == "timer":
        del body["topics"]
    source = {
        "apiVersion": "noetl.io/v2",
        "kind": "Subscription",
        "metadata": {"name": "s", "path": path},
        "spec": body,
    }
    made = compile_document(json.dumps(source).encode(), "s.yaml")
    assert isinstance(made, Subscription)
    return made


def timer(**spec: Any) -> Subscription:
    """A compiled timer."""
    return subscription(**{"source": "timer", "every": "10s", **spec})


async def opened(folder: Path, **options: Any) -> Box:
    """A box with the playbooks of these tests."""
    box = Box(folder, **options)
    for each in (MEAN, ONE, OTHER):
        await box.register(each)
    return box


def requests(box: Box) -> list[ExecutionRequested]:
    """The executions of subscriptions, in order."""
    return [event.body for event in box.events() if isinstance(event.body, ExecutionRequested)]


def ranges(box: Box) -> list[list[Any]]:
    """What they took: `[first, last, count, lane, attempt]`."""
    return [request.batch[1:] for request in requests(box) if request.batch is not None]


def of_kind(box: Box, kind: type) -> list[Event]:
    """Events of one type."""
    return [event for event in box.events() if isinstance(event.body, kind)]


def outputs(box: Box) -> list[Any]:
    """The outputs of all steps, in order."""
    return [decode(event.body.value) for event in of_kind(box, StepDone)]  # type: ignore[attr-defined]


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


def assert_each_once(box: Box) -> None:
    """Every message is in exactly one range, and each range's execution completed once."""
    messages = [event.seq for event in of_kind(box, MessageReceived)]
    taken = [
        seq for first, last, count, _, _ in ranges(box) for seq in messages if first <= seq <= last and count
    ]
    assert taken == messages
    ends = [event.body.status for event in of_kind(box, ExecutionFinished)]  # type: ignore[attr-defined]
    assert ends == ["completed"] * len(ranges(box))


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


async def test_a_packet_sent_again_is_the_same_message(tmp_path: Path) -> None:
    """After a crash the broker and the gateway send again; the log has it once, and it is confirmed once more."""
    box = await opened(tmp_path / "one")
    number = await box.subscribe(subscription())
    box.message(number, "a/x", b'{"n": 1}', packet=9)
    await box.settle()
    await box.close()
    after = Box(tmp_path / "one")
    assert after.message(number, "a/x", b'{"n": 1}', packet=9, again=True)
    assert len(after.taken) == 1
    assert after.message(number, "a/x", b'{"n": 2}', packet=9, again=True)
    assert after.message(number, "a/x", b'{"n": 2}', packet=9)
    await after.settle()
    assert [output["n"] for output in outputs(after)] == [1, 2, 2]
    await after.close()


async def test_all_that_a_broker_may_have_out_is_known_after_a_restart(tmp_path: Path) -> None:
    """With an execution for each message, the oldest of a full Receive Maximum is still known as sent again."""
    box = await opened(tmp_path / "one", answer=lambda work: [Outcome(VALUE, value=b"\xf6")])
    number = await box.subscribe(subscription())
    for packet in range(1, RECEIVE_MAX + 1):
        box.message(number, "a/x", b'{"n": %d}' % packet, packet=packet)
        await box.settle()
    box.subscriptions.note_positions()
    await box.close()
    after = Box(tmp_path / "one")
    assert after.message(number, "a/x", b'{"n": 1}', packet=1, again=True)
    assert after.subscriptions.find("in/s").counts["received"] == RECEIVE_MAX
    await after.close()


async def test_an_id_inside_its_window_is_recorded_and_not_run(tmp_path: Path) -> None:
    """The directive's id goes over message-id; the window survives a restart and ends."""
    box = await opened(tmp_path / "one")
    number = await box.subscribe(
        subscription(
            dedup={"enabled": True, "window_secs": 60},
            headers={"directives": [{"header": "x-id", "controls": "idempotency_key"}]},
        )
    )
    box.message(number, "a/x", b'{"n": 1}', headers={"x-id": "A", "message-id": "M"})
    box.message(number, "a/x", b'{"n": 2}', headers={"x-id": "A"})
    box.message(number, "a/x", b'{"n": 3}', headers={"message-id": "M"})
    await box.settle()
    await box.close()
    after = Box(tmp_path / "one")
    after.message(number, "a/x", b'{"n": 4}', headers={"message-id": "M"})
    await after.settle()
    assert [output["n"] for output in outputs(after)] == [1, 3]
    assert outputs(after)[0]["idempotency_key"] == "A"
    assert [event.body.key for event in of_kind(after, MessageDeduplicated)] == ["A", "M"]  # type: ignore[attr-defined]
    await after.pass_time(61)
    after.message(number, "a/x", b'{"n": 5}', headers={"message-id": "M"})
    await after.settle()
    assert outputs(after)[-1]["n"] == 5
    await after.close()


def failing_on(bad: Callable[[Any], bool], box: Box) -> Callable[[Any], list[Outcome]]:
    """A pool that fails claims whose workload is bad."""

    def answer(work: Any) -> list[Outcome]:
        if bad(decode(work.claim.workload)):
            return [Outcome(FAILED, problem={"code": "bad", "message": "It is bad."})]
        return box.pool.work(work)

    return answer


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


async def test_paused_it_accepts_and_begins_nothing_across_a_restart(tmp_path: Path) -> None:
    """What came meanwhile runs after it is resumed, in order."""
    box = await opened(tmp_path / "one")
    number = await box.subscribe(subscription())
    states: list[str] = []
    box.subscriptions.pause(box.subscriptions.find("in/s"), "test", states.append)
    box.message(number, "a/x", b'{"n": 1}')
    await box.settle()
    await box.close()
    after = Box(tmp_path / "one")
    intake = after.subscriptions.find("in/s")
    after.message(number, "a/x", b'{"n": 2}')
    await after.pass_time(100)
    assert (intake.state, outputs(after), len(after.taken)) == ("paused", [], 1)
    after.subscriptions.resume(intake, "test", states.append)
    await after.settle()
    assert [output["n"] for output in outputs(after)] == [1, 2]
    assert states == ["paused", "active"]
    await after.close()


async def test_drained_it_takes_nothing_more_and_finishes_the_rest(tmp_path: Path) -> None:
    """The open batch does not wait for more; then the subscription rests until somebody resumes it."""
    box = await opened(tmp_path)
    number = await box.subscribe(subscription(**TABLE))
    box.message(number, "a/x", b'{"n": 1}')
    intake = box.subscriptions.find("in/s")
    box.subscriptions.drain(intake, "test", lambda state: None)
    assert not box.message(number, "a/x", b'{"n": 2}')
    await box.settle()
    assert intake.state == "deactivated"
    assert len(of_kind(box, SubscriptionDeactivated)) == 1
    assert [row["n"] for row in outputs(box)[0]] == [1]
    box.subscriptions.resume(intake, "test", lambda state: None)
    assert box.message(number, "a/x", b'{"n": 3}')
    await box.close()


async def test_full_it_takes_nothing_until_there_is_room(tmp_path: Path) -> None:
    """Above its backlog messages are left with the broker, and whoever has them is told when to send them again."""
    box = await opened(tmp_path)
    room: list[int] = []
    box.subscriptions.on_room = room.append
    number = await box.subscribe(subscription(limits={"max_backlog": 2}))
    assert [box.message(number, "a/x", b'{"n": %d}' % n) for n in range(3)] == [True, True, False]
    assert room == []
    await box.settle()
    assert room == [number]
    assert box.message(number, "a/x", b'{"n": 2}')
    await box.settle()
    assert [output["n"] for output in outputs(box)] == [0, 1, 2]
    await box.close()


async def test_a_new_version_keeps_its_number_and_what_waits(tmp_path: Path) -> None:
    """Registered again under its path it goes on; topics it no longer names are to be given up."""
    box = await opened(tmp_path / "one")
    number = await box.subscribe(subscription(**TABLE, runtime={"batch": 10}))
    box.message(number, "a/x", b'{"n": 1}')
    assert await box.subscribe(subscription(**TABLE, topics=["b/#"], runtime={"batch": 1})) == number
    await box.settle()
    assert [each[2] for each in ranges(box)] == [1]
    await box.close()
    after = Box(tmp_path / "one")
    assert after.subscriptions.find("in/s").gone == ("a/#",)
    await after.close()


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


async def test_a_timer_ticks_and_makes_up_once_for_an_absence(tmp_path: Path) -> None:
    """Each tick is one event and one execution; after a power cut the wall clock says how many were missed."""
    clock = ManualClock()
    box = await opened(tmp_path / "one", clock=clock)
    await box.subscribe(timer())
    for _ in range(3):
        await box.pass_time(10)
    assert [output["n"] for output in outputs(box)] == [1, 2, 3]
    assert outputs(box)[0]["scheduled"].endswith(":10.000Z")
    await box.close()
    later = ManualClock()
    later.advance(3_600 * 10**9)
    after = Box(tmp_path / "one", clock=later, boot_id=b"another boot id.")
    await after.settle()
    ticks = [output["n"] for output in outputs(after)]
    assert ticks[:3] == [1, 2, 3]
    assert len(ticks) == 4
    missed = of_kind(after, TicksMissed)[0].body
    assert isinstance(missed, TicksMissed)
    assert ticks[3] == 3 + missed.count + 1
    await after.pass_time(10)
    assert outputs(after)[-1]["n"] == ticks[3] + 1
    await after.close()


async def test_a_timer_keeps_its_rhythm_when_the_wall_clock_jumps(tmp_path: Path) -> None:
    """Within a boot only the time since boot counts, and a restart of the runtime changes nothing."""
    clock = ManualClock()
    box = await opened(tmp_path, clock=clock)
    await box.subscribe(timer())
    await box.pass_time(10)
    clock.set_wall(clock.now.wall_ns + 86_400 * 10**9)
    await box.pass_time(5)
    await box.close()
    after = Box(tmp_path, clock=clock)
    clock.set_wall(clock.now.wall_ns - 172_800 * 10**9)
    await after.pass_time(4.9)
    assert [output["n"] for output in outputs(after)] == [1]
    await after.pass_time(0.2)
    assert [output["n"] for output in outputs(after)] == [1, 2]
    await after.close()


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


class Wire:
    """A gateway's connection: what it was told."""

    def __init__(self) -> None:
        self.told: list[list[Any]] = []

    def send(self, message: list[Any]) -> None:
        """Keep a message."""
        self.told.append(message)

    def kinds(self, kind: str) -> list[list[Any]]:
        """What was told of one kind."""
        return [message for message in self.told if message[0] == kind]


async def test_order_holds_over_a_full_backlog(tmp_path: Path) -> None:
    """After one message was not taken, none behind it is, until it came again."""
    box = await opened(tmp_path)
    wire = Wire()
    door = SubscriptionDoor(box.subscriptions, lambda: [wire])
    number = await box.subscribe(subscription(limits={"max_backlog": 2}))
    door.welcome(wire)
    assert wire.told[-1][1] == [[number, "in/s", True, [["a/#", 1]], [], []]]

    def hand_on(token: int, packet: int = 1) -> None:
        payload = b'{"n": %d}' % token
        door.heard(wire, ["message", token, number, "a/x", payload, None, None, packet, False, False])

    for token in range(4):
        hand_on(token, token + 1)
    await box.settle()
    assert wire.kinds("room") == [["room", number]]
    hand_on(4, 5)  # it left before the gateway heard that there is room
    for token in (2, 3, 4):
        hand_on(token, token + 1)
        await box.settle()
    assert [message[1] for message in wire.kinds("taken")] == [0, 1, 2, 3, 4]
    assert [output["n"] for output in outputs(box)] == [0, 1, 2, 3, 4]
    await box.close()


async def test_a_new_session_at_the_broker_begins_anew(tmp_path: Path) -> None:
    """What was not taken comes under another number then; nothing waits for the old one."""
    box = await opened(tmp_path)
    wire = Wire()
    door = SubscriptionDoor(box.subscriptions, lambda: [wire])
    number = await box.subscribe(subscription(limits={"max_backlog": 1}))
    for token in (1, 2):
        door.heard(wire, ["message", token, number, "a/x", b"{}", None, None, token, False, False])
    await box.settle()
    door.heard(wire, ["source", number])
    door.heard(wire, ["message", 7, number, "a/x", b"{}", None, None, 2, False, True])
    await box.settle()
    assert [message[1] for message in wire.kinds("taken")] == [1, 7]
    await box.close()
