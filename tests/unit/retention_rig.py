"""Pruning a box's log whole: what the tests of retention share."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge.runtime.retention.pruner import oldest_closed
from edge.runtime.retention.terms import Terms
from edge.store.eventlog import EventLog
from edge.store.verify import compare_index, verify_journal
from edge.testing.box import Box

DAY_S = 86_400


async def prune_all(box: Box, terms: Terms | None = None, cause: str = "oldest") -> int:
    """Close the segment that is written, and prune every one that is closed by then; how many events were carried."""
    await box.gate.flushed()
    box.journal.roll()
    box.gate.append(box.engine.owed.standing())
    await box.gate.flushed()
    carried, through = 0, box.journal.last_seq - 1
    while (segment := oldest_closed(box.folder / "journal")) is not None and segment.last_seq <= through:
        carried += await box.pruner.prune(segment, terms if terms is not None else box.keeper.terms, cause)
    return carried


async def again(box: Box, folder: Path, *, with_index: bool = True, **given: object) -> Box:
    """A box on what is durable now, from the journal alone where its index is left behind; the first is closed."""
    await box.gate.flushed()
    picture = box.photograph(folder)
    await box.close()
    if not with_index:
        shutil.rmtree(picture / "index")
    made = Box(picture, **{"clock": box.clock, **given})  # type: ignore[arg-type]
    await made.settle()
    return made


async def check_whole(box: Box) -> None:
    """Close a box and verify its log as `edge log verify` does."""
    await box.gate.flushed()
    await box.close()
    report = verify_journal(box.folder / "journal")
    index = EventLog(box.folder / "index")
    groups = ((group.first_seq, key, data) for key, group, data in index.groups())
    compare_index(box.folder / "journal", groups, report)
    index.close()
    assert report.whole, report.problems
