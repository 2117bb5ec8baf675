"""The history of `v1-retention`: what is carried before the log's beginning is pruned, and a drive that fills up."""

from __future__ import annotations

from typing import Final

from edge.core.carried import kept_of
from edge.core.chain import Context, encode_event
from edge.core.clock import WALL_SYNCHRONISED, Reading
from edge.core.codec import encode
from edge.core.events import (
    BootStarted,
    BootStopped,
    CatalogRegistered,
    Event,
    ExecutionFinished,
    ExecutionRequested,
    StepDone,
    StepWaiting,
)
from edge.core.retention_events import Carried, LogPruned, StorageRefusing, StorageServing
from tests.golden.entries import BLUEPRINT, DIGEST, Entry, of, of_box

CONTEXT: Final = Context(b"golden..", b"first boot id  .", Reading(5, 6, WALL_SYNCHRONISED)).encode()
ENDED: Final = [
    Event(3, ExecutionRequested(DIGEST, "alice", "r-3", payload=b'{"n": 1}'), 3),
    Event(4, StepDone(encode(7)), 3, "a"),
    Event(5, ExecutionFinished(result_step="a"), 3),
]
OPEN: Final = [
    Event(6, ExecutionRequested(DIGEST, "alice", "r-6", payload=b"{}"), 6),
    Event(7, StepWaiting(0, "t", "wait", {"for_ms": 5}), 6, "a"),
]


def _carried(event: Event) -> Entry:
    envelope, body = encode_event(event)
    return of(6, Carried(event.seq, CONTEXT, envelope, body, open=True))


PRUNED: Final[list[list[Entry]]] = [
    [
        of_box(BootStarted("0.3.0", "golden", False)),
        of_box(CatalogRegistered("demo/golden", DIGEST, BLUEPRINT)),
    ],
    [of(3, event.body, event.step) for event in ENDED],
    [of(6, event.body, event.step) for event in OPEN],
    # What ended is kept as little; what is open as it was.
    [of(3, kept_of(ENDED, CONTEXT, b"m" * 16, 9)), *[_carried(event) for event in OPEN]],
    [of_box(LogPruned(2, bytes(32), "age", 2, 8_192, 3))],
    [of_box(StorageRefusing("unsynced", 5, 6)), of_box(StorageServing(7, 8)), of_box(BootStopped())],
]
