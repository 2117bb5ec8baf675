"""The embedded broker's pure parts: sessions, retained messages, openings."""

from __future__ import annotations

import pytest

from gateway.embedded_broker.opening import refusal_of
from gateway.embedded_broker.retained import RETAINED_MAX, RetainedMessages
from gateway.embedded_broker.session import (
    QUEUED_BYTES_MAX,
    ClientSession,
    Delivery,
    Publication,
    Subscription,
    delivery_for,
)


def publication(topic: str = "t", payload: bytes = b"x", *, expires_at_s: float | None = None) -> Publication:
    return Publication(topic, payload, 1, True, 0, expires_at_s, None, None, None, ())


def delivery(payload: bytes = b"x", *, expires_at_s: float | None = None) -> Delivery:
    return Delivery(publication(payload=payload, expires_at_s=expires_at_s), 1, False, ())


def filled(count: int, *, queued_max: int = 100) -> ClientSession:
    session = ClientSession("c", queued_max=queued_max)
    for number in range(count):
        session.queue(delivery(b"%d" % number))
    return session


def test_the_window_holds_back() -> None:
    session = filled(5)
    sent = [session.next(2, 0), session.next(2, 0)]
    assert session.next(2, 0) is None
    assert sent[0] is not None
    assert session.acknowledged(sent[0].packet_id) is True
    assert session.acknowledged(sent[0].packet_id) is False
    third = session.next(2, 0)
    assert third is not None
    assert third.delivery.publication.payload == b"2"
    assert session.queued == 4


def test_after_a_loss_the_same_ids_go_first() -> None:
    session = filled(3)
    first, second = session.next(2, 0), session.next(2, 0)
    assert first is not None
    assert second is not None
    session.connection_lost()
    again = [session.next(10, 0) for _ in range(3)]
    assert [sending.packet_id for sending in again if sending][:2] == [first.packet_id, second.packet_id]
    assert [sending.duplicate for sending in again if sending] == [True, True, False]
    assert session.next(10, 0) is None


def test_a_smaller_window_holds_for_what_comes_again() -> None:
    session = filled(3)
    sent = [session.next(10, 0) for _ in range(3)]
    session.connection_lost()
    first = session.next(1, 0)
    assert first is not None
    assert session.next(1, 0) is None, "MQTT 5 §4.9: the new connection's Receive Maximum counts"
    session.acknowledged(first.packet_id)
    second = session.next(1, 0)
    assert second is not None
    assert sent[1] is not None
    assert second.packet_id == sent[1].packet_id


def test_room_ends_by_count_and_by_bytes() -> None:
    session = filled(3, queued_max=3)
    assert not session.has_room([publication()])
    sending = session.next(1, 0)
    assert sending is not None
    session.acknowledged(sending.packet_id)
    assert session.has_room([publication()])
    assert not session.has_room([publication(), publication()])
    assert not session.has_room([publication(payload=b"x" * QUEUED_BYTES_MAX)])


def test_expired_messages_are_left_out_and_counted() -> None:
    session = ClientSession("c")
    session.queue(delivery(expires_at_s=10))
    session.queue(delivery(b"fresh"))
    sending = session.next(1, 10)
    assert sending is not None
    assert sending.delivery.publication.payload == b"fresh"
    assert session.expired == 1


def test_packet_ids_go_round() -> None:
    session = ClientSession("c")
    seen = []
    for _ in range(65_540):
        session.queue(delivery())
        sending = session.next(1, 0)
        assert sending is not None
        seen.append(sending.packet_id)
        session.acknowledged(sending.packet_id)
    assert seen[65_534:65_537] == [65_535, 1, 2]


def test_overlapping_filters_are_one_delivery() -> None:
    found = [Subscription("a/#", 0, False, False, 3), Subscription("a/+", 1, False, True, 2)]
    made = delivery_for(publication("a/b"), found)
    assert (made.qos, made.retain, made.subscription_ids) == (1, True, (2, 3))


def test_retained_messages() -> None:
    kept = RetainedMessages()
    kept.keep(publication("a/b"))
    kept.keep(publication("a/b", b"2"))
    kept.keep(publication("$SYS/x"))
    kept.keep(publication("old", expires_at_s=5))
    assert [p.payload for p in kept.matching("a/+", 0)] == [b"2"]
    assert [p.topic for p in kept.matching("#", 6)] == ["a/b"]
    assert len(kept) == 2
    kept.keep(publication("a/b", b""))
    assert kept.matching("#", 0) == []
    kept.keep(publication("never", b""))
    assert len(kept) == 1


def test_retained_messages_are_bounded_and_never_evicted() -> None:
    kept = RetainedMessages()
    for number in range(RETAINED_MAX):
        kept.keep(publication(f"t/{number}"))
    assert not kept.has_room(publication("one/more"))
    assert kept.has_room(publication("t/0", b"another"))
    assert kept.has_room(publication("one/more", b""))
    kept.keep(publication("t/0", b""))
    assert kept.has_room(publication("one/more"))


@pytest.mark.parametrize(
    ("opening", "answer", "said"),
    [
        ("100d00044d5154540402003c000161", "20020001", "3.1.1"),
        ("100f00064d51497364700302003c000161", "20020001", "3.1;"),
        ("10ff0100044d5154540402003c", "20020001", "3.1.1"),
        ("100d00044d5154540602003c000161", "2003008400", "level 6"),
    ],
)
def test_other_versions_are_told(opening: str, answer: str, said: str) -> None:
    refusal = refusal_of(bytes.fromhex(opening))
    assert refusal is not None
    assert refusal.answer.hex() == answer
    assert said in refusal.text


@pytest.mark.parametrize(
    "opening", [b"", b"\x10", b"\x10\xff\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n", b"\x10\x0d\x00\x04MQTT\x05"]
)
def test_no_opinion_about_anything_else(opening: bytes) -> None:
    assert refusal_of(opening) is None
