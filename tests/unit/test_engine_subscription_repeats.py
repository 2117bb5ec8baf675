"""Messages that come again: known by packet or by id, after a restart too, and run once."""

from __future__ import annotations

from pathlib import Path

from edge.core.limits import DELIVERIES_MAX, RECEIVE_MAX
from edge.core.subscription_events import (
    MessageDeduplicated,
)
from edge.testing.box import Box
from edge.worker.claims import VALUE, Outcome
from tests.unit.subscription_rig import of_kind, opened, outputs, subscription


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
    """With an execution for each message, the oldest of all it may have out is still known as sent again."""
    box = await opened(tmp_path / "one", answer=lambda work: [Outcome(VALUE, value=b"\xf6")])
    number = await box.subscribe(subscription())
    for packet in range(1, DELIVERIES_MAX + 1):
        box.message(number, "a/x", b'{"n": %d}' % packet, packet=packet)
        await box.settle()
    box.subscriptions.note_positions()
    await box.close()
    after = Box(tmp_path / "one")
    assert after.message(number, "a/x", b'{"n": 1}', packet=1, again=True)
    assert after.subscriptions.find("in/s").counts["received"] == DELIVERIES_MAX
    await after.close()


async def test_a_backlog_that_overran_our_receive_maximum_comes_again_as_a_whole(tmp_path: Path) -> None:
    """A broker that has a few more out than it may, and sends all of it again, doubles none of it."""
    box = await opened(tmp_path / "one")
    number = await box.subscribe(subscription())
    for again in (False, True):
        for packet in range(1, RECEIVE_MAX + 3):
            box.message(number, "a/x", b'{"n": %d}' % packet, packet=packet, again=again)
        await box.settle()
    assert box.subscriptions.find("in/s").counts["received"] == RECEIVE_MAX + 2
    await box.close()


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


async def test_a_subscription_registered_twice_is_confirmed_once_it_is_durable(tmp_path: Path) -> None:
    """The second who asks hears nothing before the first: what is confirmed must survive a power cut."""
    box = await opened(tmp_path)
    told: list[bool] = []
    for _ in range(2):
        box.subscriptions.register(subscription().data, lambda path, new: told.append(new))
    assert told == []
    await box.gate.flushed()
    assert told == [True, False]
    box.subscriptions.register(subscription().data, lambda path, new: told.append(new))
    assert told == [True, False, False]
    await box.close()
