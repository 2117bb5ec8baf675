"""Events written down and read back: every type, every default, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.circuit_events import CircuitClosed, CircuitOpened
from edge.core.codec import decode, encode
from edge.core.event_body import Body
from edge.core.event_codec import decode_event, encode_body, encode_envelope
from edge.core.events import (
    BODIES,
    AttemptLost,
    BootStarted,
    BootStopped,
    CallbackReceived,
    CatalogRegistered,
    Event,
    ExecutionCancelled,
    ExecutionDeadline,
    ExecutionFinished,
    ExecutionRequested,
    ExecutionResumed,
    Gap,
    LoopItems,
    LoopStarted,
    RequestRefusedNoted,
    ResponsesDelivered,
    StepDone,
    StepFailed,
    StepStarted,
    StepWaiting,
    TaskDone,
)
from edge.core.retention_events import (
    Carried,
    ExecutionCarried,
    LogPruned,
    StorageRefusing,
    StorageServing,
)
from edge.core.subscription_events import (
    MessageDeadLettered,
    MessageDeduplicated,
    MessageReceived,
    SubscriptionDeactivated,
    SubscriptionDraining,
    SubscriptionPaused,
    SubscriptionPosition,
    SubscriptionResumed,
    TicksMissed,
)
from edge.core.values import TableRef

TABLE = TableRef("1-a-0.arrow", b"\x01" * 32, 4096, 64, ("t", "x"))
OUTSIDE = TableRef("1-.request.arrow", b"\x02" * 32, 512, None, None)

#: Each type with only what it must have, and with every field set to something else.
LEAST: list[Body] = [
    BootStarted("0.1.0", "box"),
    CatalogRegistered("p", b"d" * 32, b"bytes"),
    ExecutionRequested(b"d" * 32, "alice"),
    RequestRefusedNoted("queue_full"),
    StepStarted(),
    StepDone(),
    StepFailed({"code": "x", "message": "y"}),
    AttemptLost("it died"),
    ExecutionResumed(),
    ExecutionFinished(),
    ResponsesDelivered(7),
    Gap(1, 2, "torn"),
    BootStopped(),
    TaskDone(0, "t"),
    LoopStarted(0),
    LoopItems(0, 1, b"\x80"),
    ExecutionCancelled("cli"),
    StepWaiting(0, "t", "wait"),
    CallbackReceived(),
    ExecutionDeadline(5),
    CircuitOpened("api.example.org:443", 5, 30_000),
    CircuitClosed("api.example.org:443", "success"),
    MessageReceived("a/b", 5),
    SubscriptionPaused("cli"),
    SubscriptionResumed("cli"),
    SubscriptionDraining("cli"),
    SubscriptionDeactivated(),
    MessageDeduplicated("id", 3),
    MessageDeadLettered(3, 5, 2, 1, {"code": "x"}),
    SubscriptionPosition(9),
    TicksMissed(4),
    Carried(3, b"c", b"e", b"b"),
    ExecutionCarried([[3, b"e", b"b"]], b"c"),
    LogPruned(9, b"l" * 32, "age", 3, 4),
    StorageRefusing("drive", 5),
    StorageServing(5),
]
MOST: list[Body] = [
    BootStarted("0.1.0", "box", False, 7),
    CatalogRegistered("p/q", b"d" * 32, b"", "subscription"),
    ExecutionRequested(
        b"d" * 32,
        "alice",
        "id-1",
        "v311",
        "answers/a",
        b"\x00",
        "application/cbor",
        b"",
        b"p" * 32,
        False,
        0,
        "00-1",
        [3, 5, 9, 2, "k", 1],
        4,
        "call",
        1,
        2,
        "sub",
        3,
        1,
        "answer",
        b"\xa0",
    ),
    RequestRefusedNoted("payload_invalid", "alice", "p", "id-1", 3),
    StepDone(b"", TABLE, b"d" * 32, b"arrow", 0, {"k": [1, {"a": None}], "t": OUTSIDE}, 12, {"code": "c"}),
    StepDone(ways=[[0, "b"], [1, "c", {"k": 1}], [2, "a", None, True]]),
    StepStarted(3),
    ExecutionCancelled("cli", "wrong box"),
    StepWaiting(3, "t", "wait", {"for_ms": 5}),
    CallbackReceived(1, b"\xf6"),
    ExecutionDeadline(5_000, "wall"),
    LoopStarted(7, b"\x80", b"d" * 32),
    LoopItems(1, 2, b"\x82\x01\xf6", {2: {"code": "x"}}, {"k": 1}, 9),
    TaskDone(2, "t", b"\x01", TABLE, b"arrow", {"code": "x"}, 5),
    StepFailed({"code": "x", "message": "y", "mend": "z"}, 1, [[0, "b"]], {"k": 1}),
    AttemptLost("it ran too long", "timeout"),
    ExecutionFinished("failed", "a", b"", b"d" * 32, "table", {"code": "x", "message": "y"}),
    ResponsesDelivered(7, [1, 2]),
    Gap(1, 2, "torn"),
    MessageReceived(
        "a", 5, b"", b"d" * 32, "text/plain", {"h": "v"}, 7, True, "k", "a/p", "id", [1, 2, 3, b"boot"]
    ),
    MessageDeadLettered(3, 5, 2, 1, {"code": "x"}, "k"),
    SubscriptionPosition(9, "paused", {"received": 3}, 2, [1, 2, 3, b"boot"]),
    Carried(3, b"c", b"e", b"b", open=True),
    ExecutionCarried([[3, b"e", b"b"]], b"c", b"m" * 16, 7),
    LogPruned(9, b"l" * 32, "thin", 3, 4, 5),
    StorageRefusing("held", 5, 6),
    StorageServing(5, 6),
]


@pytest.mark.parametrize("body", LEAST + MOST, ids=lambda body: body.TYPE)
def test_every_body_comes_back_as_it_was(body: Body) -> None:
    """A body read back equals the one written, with defaults and without."""
    event = Event(9, body)
    assert decode_event(9, encode_envelope(event), encode_body(body)) == event


def test_every_type_is_covered_here() -> None:
    """The two lists above hold every type of the closed set, and every field once at another value."""
    assert {type(body) for body in LEAST} == set(BODIES)
    for kind in BODIES:
        for field in dataclasses.fields(kind):
            if field.default is not dataclasses.MISSING:
                values = [getattr(body, field.name) for body in MOST if type(body) is kind]
                assert any(value != field.default for value in values), (kind.TYPE, field.name)


def test_type_codes_and_names_never_move() -> None:
    """Type numbers and names are part of the format: changing one makes old logs unreadable."""
    assert {body.CODE: body.TYPE for body in BODIES} == {
        1: "boot.started",
        2: "catalog.registered",
        3: "playbook.execution.requested",
        4: "request.refused",
        5: "step.started",
        6: "step.done",
        7: "step.failed",
        8: "step.attempt.lost",
        9: "execution.resumed",
        10: "playbook.execution.finished",
        11: "responses.delivered",
        12: "gap",
        13: "boot.stopped",
        14: "task.done",
        15: "loop.started",
        16: "loop.items",
        17: "execution.cancelled",
        18: "step.waiting",
        19: "callback.received",
        21: "execution.deadline",
        26: "circuit.opened",
        27: "circuit.closed",
        30: "subscription.message.received",
        31: "subscription.paused",
        32: "subscription.resumed",
        33: "subscription.draining",
        34: "subscription.deactivated",
        35: "subscription.message.deduplicated",
        36: "subscription.message.dead_lettered",
        37: "subscription.position",
        38: "subscription.ticks.missed",
        40: "carried",
        41: "execution.carried",
        42: "log.pruned",
        43: "storage.refusing",
        44: "storage.serving",
    }


def test_a_default_takes_no_room() -> None:
    """Fields at their default are not written at all."""
    assert encode_body(StepDone()) == encode({})
    assert decode(encode_body(StepDone(arc=0))) == {4: 0}
    assert decode(encode_body(ExecutionRequested(b"d", "a", deadline_ms=0))) == {0: b"d", 1: "a", 10: 0}


@pytest.mark.parametrize(
    ("event", "written"),
    [
        (Event(5, BootStopped()), [13]),
        (Event(5, ExecutionRequested(b"d", "a"), execution=5), [3, 0]),
        (Event(6, ExecutionResumed(), execution=5), [9, 5]),
        (Event(6, StepStarted(), execution=5, step="a"), [5, 5, "a"]),
        (Event(6, StepStarted(), execution=5, step="a", visit=2), [5, 5, "a", 2]),
        (Event(6, StepStarted(), execution=5, step="a", attempt=3), [5, 5, "a", 0, 3]),
        (Event(6, StepStarted(), execution=5, step="a", iteration=(0, 4)), [5, 5, "a", 0, 1, [0, 4]]),
        (Event(6, BootStopped(), cause=4), [13, None, None, 0, 1, [], 4]),
    ],
)
def test_the_envelope_is_cut_after_its_last_field_in_use(event: Event, written: list[object]) -> None:
    """Envelope fields at their default are cut from the end, and come back as they were."""
    envelope = encode_envelope(event)
    assert decode(envelope) == written
    assert decode_event(event.seq, envelope, encode_body(event.body)) == event


@given(
    st.integers(1, 2**63),
    st.none() | st.integers(1, 2**63),
    st.none() | st.text(max_size=20),
    st.integers(0, 10_000),
    st.lists(st.integers(0, 2**31), max_size=3),
    st.integers(1, 3),
    st.none() | st.integers(1, 2**63),
)
def test_any_envelope_comes_back(
    seq: int,
    execution: int | None,
    step: str | None,
    visit: int,
    iteration: list[int],
    attempt: int,
    cause: int | None,
) -> None:
    """Every combination of envelope fields survives being written and read."""
    event = Event(seq, StepStarted(), execution, step, visit, tuple(iteration), attempt, cause)
    assert decode_event(seq, encode_envelope(event), encode_body(event.body)) == event


def test_an_unknown_type_is_refused_by_name() -> None:
    """A type of a newer release is refused, naming the event."""
    with pytest.raises(ValueError, match="event 7 has no known type; a newer release wrote it"):
        decode_event(7, encode([99]), encode({}))


def test_an_unknown_body_field_is_refused_by_name() -> None:
    """A body field of a newer release is refused, naming event and type."""
    with pytest.raises(ValueError, match=r"event 7 \(gap\) has a field this release does not know"):
        decode_event(7, encode([12]), encode({0: 1, 1: 2, 2: "x", 3: "new"}))


def test_a_lacking_field_is_refused_by_name() -> None:
    """A body without a field it must have is refused, naming event and type."""
    with pytest.raises(ValueError, match=r"event 7 \(gap\) lacks a field"):
        decode_event(7, encode([12]), encode({0: 1}))


@pytest.mark.parametrize(
    ("envelope", "body"),
    [
        (b"", b"\xa0"),
        (b"\xff", b"\xa0"),
        (encode({}), encode({})),
        (encode([]), encode({})),
        (encode([5]), b"\x80"),
    ],
)
def test_nonsense_is_a_value_error(envelope: bytes, body: bytes) -> None:
    """Bytes that are no event are refused with ValueError, which is what readers catch."""
    with pytest.raises(ValueError, match=r"event|not a frame"):
        decode_event(1, envelope, body)


@pytest.mark.parametrize(
    ("envelope", "body"),
    [([[1]], {}), ([5], {"a": 1}), ([5, 1, "a", 0, 1, 5], {})],
    ids=["type is a list", "field number is a text", "iteration is a number"],
)
def test_wrong_shapes_are_a_value_error(envelope: list[object], body: dict[object, object]) -> None:
    """Parts of the wrong shape are refused with ValueError too, so that a reader can name the damage."""
    with pytest.raises(ValueError, match=r"event|not a frame"):
        decode_event(1, encode(envelope), encode(body))


def test_an_unknown_envelope_field_is_refused() -> None:
    """An envelope field of a newer release is refused, not dropped."""
    with pytest.raises(ValueError, match=r"event|not a frame"):
        decode_event(1, encode([5, 1, "a", 0, 1, [], None, "new"]), encode({}))
