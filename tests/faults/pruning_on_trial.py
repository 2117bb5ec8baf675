"""A log that is pruned while its drive is tried: one to begin with, the process that prunes, what must hold after.

`python -m tests.faults.pruning_on_trial FOLDER` opens the box in a folder, prunes all that is closed, and ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any, Final

from edge.core.limits import INLINE_BYTES_MAX, KIB
from edge.core.state import fold
from edge.store.eventlog import EventLog
from edge.store.verify import compare_index, verify_journal
from edge.testing.box import Box
from edge.testing.plain import playbook
from tests.unit.retention_rig import prune_all
from tests.unit.subscription_rig import ONE, subscription

SEGMENT_BYTES: Final = 64 * KIB
REFUSED: Final = 3  # exit code of a box whose drive refused
LARGE: Final = b'{"n": "' + b"x" * INLINE_BYTES_MAX + b'"}'
WAITS: Final[list[dict[str, Any]]] = [
    {
        "step": "s",
        "tool": [
            {"name": "a", "kind": "transform", "value": "{{ workload.n }}"},
            {"name": "pause", "kind": "wait", "seconds": 3_600},
        ],
    }
]
SHORT: Final[list[dict[str, Any]]] = [
    {"step": "a", "tool": {"kind": "transform", "value": "{{ workload.n }}"}}
]


async def begin(folder: Path) -> None:
    """A log of several segments: executions that wait, answers that are remembered, blobs, messages."""
    box = Box(folder, segment_bytes=SEGMENT_BYTES)
    await box.register(playbook(WAITS, "waits"))
    await box.register(playbook(SHORT, "short"))
    await box.register(ONE)
    number = await box.subscribe(subscription())
    for place in range(24):
        payload = b'{"n": %d, "pad": "%s"}' % (place, b"y" * 4_000)
        box.submit("short", payload, request_id=f"r-{place}" if place % 2 else None)
        if place % 8 == 0:
            box.submit("waits", LARGE if place == 8 else payload, request_id=f"w-{place}")
        box.message(number, "a/x", b"%d" % place, packet=place + 1)
        await box.settle()
        box.engine.delivered(box.receipts[-1].seq)
    box.submit("short", LARGE)
    await box.settle()
    box.engine.delivered(box.receipts[-1].seq)
    await box.gate.indexed(box.gate.next_seq - 1)
    await box.close()


async def _prune(folder: Path) -> None:
    box = Box(folder, segment_bytes=SEGMENT_BYTES)
    # As the daemon does: whatever the drive refuses ends the process.
    box.gate._on_failure = lambda error: os._exit(REFUSED)
    await box.settle()
    await prune_all(box)
    await box.close()


async def known(folder: Path, *, go_on: bool) -> dict[str, Any]:
    """All that must hold, whenever pruning ended; with `go_on` it is finished first. The log is whole."""
    check_homes(folder)
    box = Box(folder, segment_bytes=SEGMENT_BYTES)
    await box.settle()
    if go_on:
        await box.keeper.look()
        await prune_all(box)
        await prune_all(box)
        events = box.events()
    executor = box.engine.executor
    told: dict[str, Any] = {
        "open": {
            number: fold(box.engine.events_of(number)).steps
            for number in sorted({*executor.open, *executor.parking.numbers()})
        },
        "catalog": [blueprint.digest for blueprint in box.engine.catalog.playbooks()],
        "messages": [(i.lanes.backlog, i.counts["received"]) for i in box.subscriptions.all()],
        "answers": {},
    }
    for number in told["open"]:
        digest = fold(box.engine.events_of(number)).request.payload_digest
        assert digest is None or box.blobs.get(digest) == LARGE
    for place in range(1, 24, 2):
        payload = b'{"n": %d, "pad": "%s"}' % (place, b"y" * 4_000)
        box.submit("short", payload, request_id=f"r-{place}")
        assert box.receipts[-1].duplicate, place
        told["answers"][place] = box.receipts[-1].finished
    if go_on:
        for number, steps in told["open"].items():
            mine = [event for event in events if event.execution == number]
            assert fold(mine).steps == steps, "the journal's files say something else"
    await box.gate.flushed()
    await box.close()
    check_homes(folder)
    return told


def check_homes(folder: Path) -> None:
    """As `edge log verify` does."""
    report = verify_journal(folder / "journal")
    index = EventLog(folder / "index", readonly=True)
    try:
        compare_index(
            folder / "journal", ((group.first_seq, key, data) for key, group, data in index.groups()), report
        )
    finally:
        index.close()
    assert report.whole, report.problems


if __name__ == "__main__":
    asyncio.run(_prune(Path(sys.argv[1])))
