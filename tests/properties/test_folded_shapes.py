"""A log that is folded by shapes says what it says folded event by event, whatever its executions went through."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.chain import OpenedGroup, encode_event
from edge.core.codec import encode
from edge.core.event_body import Body
from edge.core.events import (
    AttemptLost,
    BootStarted,
    CallbackReceived,
    Event,
    ExecutionCancelled,
    ExecutionDeadline,
    ExecutionFinished,
    ExecutionRequested,
    ExecutionResumed,
    LoopItems,
    LoopStarted,
    StepDone,
    StepFailed,
    StepStarted,
    StepWaiting,
    TaskDone,
)
from edge.core.retention_events import Carried
from edge.core.values import TableRef
from edge.replay import log_state as log_states
from edge.replay import shapes
from edge.replay.log_state import log_state
from edge.replay.sealed_source import SealedSource, folder_source
from edge.security.signing import Signer
from edge.segments.sealing import Sealing
from edge.store.blobs import BlobStore
from edge.store.journal import Journal
from edge.testing.history import write_group

Told = tuple[Body, dict[str, Any]]
Way = Callable[[random.Random, random.Random], list[Told]]
"""What an execution goes through: the first chance decides which way, the second what it says there."""


class OneByOne:
    """The same log without its columns."""

    def __init__(self, source: SealedSource) -> None:
        self._source = source
        self.log_id, self.box, self.missing = source.log_id, source.box, source.missing

    def groups(self, after_seq: int = 0) -> Iterator[OpenedGroup]:
        return self._source.groups(after_seq)

    def blob(self, digest: bytes) -> bytes:
        return self._source.blob(digest)


def some(s: random.Random, r: random.Random) -> Any:
    """A value as steps give them, now and then one that looks like another's."""
    made = [
        r.randrange(-300, 1 << 34),
        r.random(),
        "%b",
        "x" * r.randrange(30),
        True,
        None,
        [r.random(), {"k": 2}],
    ]
    return s.choice([*made, b"\x80", table(r)])


def plain(s: random.Random, r: random.Random) -> bytes:
    value = some(s, r)
    return encode(None if isinstance(value, TableRef) else value)


def table(r: random.Random) -> TableRef:
    return TableRef("t" * r.randrange(1, 9), r.randbytes(32), r.randrange(9999), r.randrange(500), ("a", "b"))


def request(s: random.Random, r: random.Random) -> Told:
    body = ExecutionRequested(
        bytes(32),
        r.choice(["me", "you"]),
        s.choice([None, f"r-{r.randrange(999)}"]),
        payload=encode({"n": r.random()}),
        deadline_ms=s.choice([None, r.randrange(5_000)]),
        batch=s.choice([None, None, [r.randrange(99), 2, 3, 1, "lane", 1]]),
    )
    return body, {}


def straight(s: random.Random, r: random.Random) -> list[Told]:
    ctx = {"b": some(s, r), "a": some(s, r)}
    return [
        request(s, r),
        (StepDone(plain(s, r), arc=0, ctx=ctx, duration_us=r.randrange(3)), {"step": "a"}),
        (
            StepDone(table=table(r), table_bytes=r.randbytes(5), arc=s.randrange(2)),
            {"step": "b", "cause": True},
        ),
        (StepDone(digest=r.randbytes(32), ctx={"a": some(s, r)}, duration_us=40), {"step": s.choice("cd")}),
        (ExecutionFinished(result_step="b", result=s.choice([None, r.randbytes(3)])), {}),
    ]


def retried(s: random.Random, r: random.Random) -> list[Told]:
    return [
        request(s, r),
        (StepStarted(), {"step": "w"}),
        (AttemptLost(f"it died of {r.random()}", s.choice(["worker_lost", "too_slow"])), {"step": "w"}),
        (ExecutionResumed(), {}),
        (TaskDone(0, "ask", plain(s, r), duration_us=r.randrange(9)), {"step": "w", "attempt": 2}),
        (
            TaskDone(1, "tell", problem={"code": "no", "message": f"{r.random()}"}),
            {"step": "w", "attempt": 2},
        ),
        (StepDone(plain(s, r)), {"step": "w", "attempt": 2}),
        (ExecutionFinished(), {}),
    ]


def looped(s: random.Random, r: random.Random) -> list[Told]:
    ctx = {"last": some(s, r)}
    return [
        request(s, r),
        (LoopStarted(2, encode([r.random(), 1])), {"step": "l", "cause": True}),
        (StepStarted(0), {"step": "l", "iteration": (0,)}),
        (LoopItems(0, 1, encode([r.random()]), ctx=ctx, duration_us=r.randrange(999)), {"step": "l"}),
        (LoopItems(1, 1, encode([None]), {1: {"code": "no", "message": f"{r.random()}"}}), {"step": "l"}),
        (StepDone(encode([r.random()])), {"step": "l"}),
        (ExecutionFinished(), {}),
    ]


def waiting(s: random.Random, r: random.Random) -> list[Told]:
    ending = [(StepDone(plain(s, r)), {"step": "s"}), (ExecutionFinished(), {})]
    return [
        request(s, r),
        (StepWaiting(0, "sleep", "wait", {"until_ns": r.randrange(1 << 60)}), {"step": "s"}),
        (CallbackReceived(value=plain(s, r)), {"step": "s"}),
        *(ending if s.random() < 0.7 else []),
    ]  # type: ignore[list-item]


def failing(s: random.Random, r: random.Random) -> list[Told]:
    problem = {"code": r.choice(["bad", "history_lost"]), "message": f"at {r.random()}", "mend": "Look."}
    return [
        request(s, r),
        (StepFailed(problem, r.randrange(5), ctx={"why": some(s, r)}), {"step": "f"}),
        (ExecutionFinished("failed", problem={**problem, "step": "f"}), {}),
    ]


def stopped(s: random.Random, r: random.Random) -> list[Told]:
    why = ExecutionCancelled(f"user {r.randrange(4)}", s.choice([None, "late"]))
    body = s.choice([why, ExecutionDeadline(r.randrange(1, 4))])
    problem = {"code": "cancelled", "message": f"{r.random()}"}
    return [request(s, r), (body, {}), (ExecutionFinished("cancelled", problem=problem), {})]


WAYS: list[Way] = [straight, retried, looped, waiting, failing, stopped]


def written(r: random.Random, executions: int) -> list[Event]:
    """A log in which some executions go on side by side, and some events were carried."""
    events: list[Event] = [Event(1, BootStarted("1", "pump"))]
    going: list[tuple[int, list[Told]]] = []
    left = executions
    while going or left:
        seq = len(events) + 1
        if left and ((len(going) < 3 and r.random() < 0.6) or not going):
            left -= 1
            going.append((seq, r.choice(WAYS)(random.Random(r.randrange(3)), r)))
            number = len(going) - 1
        else:
            number = r.randrange(len(going))
        execution, told = going[number]
        body, said = told.pop(0)
        cause = events[-1].seq if said.pop("cause", False) else None
        event = Event(seq, body, execution, cause=cause, **said)
        events.append(event)
        if not told:
            del going[number]
        if r.random() < 0.02 and not isinstance(body, ExecutionFinished):
            events.append(Event(seq + 1, Carried(seq, b"", *encode_event(event), True), execution))
    return events


def sealed(folder: Path, r: random.Random, events: list[Event]) -> SealedSource:
    journal = Journal(folder / "journal")
    sealing = Sealing(folder / "sealed", Signer(bytes(32)), "pump", BlobStore(folder / "blobs"))
    first = 0
    while first < len(events):
        for _ in range(r.randrange(1, 40)):
            count = r.choice([1, 1, 2, 5])
            if group := events[first : first + count]:
                write_group(journal, group)
                first += count
        list(sealing.seal(journal.folder, journal.last_seq, everything=True))
    journal.close()
    return folder_source(folder / "sealed")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_by_shapes_it_is_the_same(seed: int) -> None:
    """State by state and in all counts, with retries, loops, waits, failures, references, copies, cut anywhere."""
    r = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        source = sealed(Path(folder), r, written(r, r.choice([5, 60])))
        assert log_state(source) == log_state(OneByOne(source))


def test_what_goes_the_same_way_is_folded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two hundred executions that go one way a handful are folded; one that says more in its end is, too."""
    r = random.Random(1)
    events: list[Event] = []
    for number in range(200):
        first = len(events) + 1
        more = {"result": b"\x01"} if number == 100 else {}
        events += [
            Event(first, ExecutionRequested(bytes(32), "me", f"{number}"), first),
            Event(first + 1, StepDone(encode({"n": number})), first, "a"),
            Event(first + 2, ExecutionFinished(**more), first),  # type: ignore[arg-type]
        ]
    source = sealed(tmp_path, r, events)
    folded: list[int] = []
    real = log_states.fold
    monkeypatch.setattr(log_states, "fold", lambda history: folded.append(history[0].seq) or real(history))
    made = log_state(source)
    assert made.executions == 200
    assert len(folded) == 2 + 8 + 1, "two to know the way, eight powers of two, one that says more"
    assert made == log_state(OneByOne(source))


def test_a_field_called_kept_that_is_looked_at_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the number of an invocation taken for what the fold never looks at, no digest would come of it."""
    for kind in (StepStarted, TaskDone):
        monkeypatch.setitem(shapes._KEPT, kind, shapes._KEPT.get(kind, frozenset()) | {"number"})
    events: list[Event] = []
    for first in range(1, 16, 4):
        events += [
            Event(first, ExecutionRequested(bytes(32), "me"), first),
            Event(first + 1, StepStarted(1), first, "w"),
            Event(first + 2, TaskDone(1, "ask", b"\x01"), first, "w"),
            Event(first + 3, ExecutionFinished(), first),
        ]
    with pytest.raises(AssertionError, match="does not fold as its shapes do"):
        log_state(sealed(tmp_path, random.Random(1), events))


def test_every_kept_field_that_has_a_default_is_watched_for_it() -> None:
    """A default is left out of a state; so a field that the fold keeps may hold one only where that is looked for."""
    for kind, names in shapes._KEPT.items():
        known = {each.name: each for each in fields(kind)}
        assert names <= known.keys()
        has_one = {name for name in names if known[name].default not in (None, MISSING)}
        assert has_one <= shapes._COUNTED, kind
