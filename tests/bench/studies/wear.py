"""Wear: bytes that reach the drive per event, by the rate of events and by the window in which flushes are gathered.

Called by `main` with `--wear`. Each box has a block device of its own, so a figure holds everything: frames, the file
system's own journal, the index. What comes seldom is charged by use, since a short run at a low rate meets it by luck
or not at all: zero-filled segments by the bytes used of them (`drive.bytes_between`), a commit of the index, whose
cost is counted alone afterwards, by the events it takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge.core.limits import INDEX_EVENTS_PER_COMMIT
from edge.store.eventlog import EventLog, IndexedGroup
from edge.store.journal import read_groups
from tests.bench import drive, journal
from tests.bench.counters import SECTOR_BYTES, sectors_written
from tests.bench.phases import no_drive, say
from tests.bench.processes import Bench, Box, box

#: Events per second, and seconds for which each is kept up.
RATES: Final[dict[float, float]] = {0.1: 120.0, 1.0: 40.0, 10.0: 20.0, 100.0: 12.0, 1_000.0: 8.0}
WINDOWS_MS: Final = (0, 20, 200)
#: What README advises for a quiet box's drive: ext4 then writes its own journal once a minute, not every 5 s.
SELDOM: Final = "commit=60"
#: Of the two-step playbook, which is what is sent.
_EVENTS_AN_EXECUTION: Final = 4


@dataclass(frozen=True, slots=True)
class _Run:
    """What one steady run cost, and how many events the index took meanwhile."""

    charged_bytes: int
    events: int
    indexed: int


def wear(bench: Bench, folder: Path, hurry: float = 1.0) -> dict[str, Any]:
    """`drive_bytes_per_event` by window and rate; each run is kept up for its time divided by `hurry`.

    The last row is without a window again, on a drive mounted as README advises.
    """
    by_window: dict[str, dict[str, float]] = {}
    for window_ms, options in (*((window_ms, "") for window_ms in WINDOWS_MS), (0, SELDOM)):
        name = f"{window_ms}-{options.replace('=', '')}" if options else str(window_ms)
        place = folder / f"wear{name}"
        place.mkdir()
        try:
            with drive.loop_drive(place, options) as device:
                data = device.folder / "data"
                with box(bench, data, f"wear{name}", commit_window_ms=window_ms) as running:
                    runs = {rate: _steady(bench, running, device, rate, hurry) for rate in RATES}
                each = _commit_bytes(device, running.settings.journal_folder) / INDEX_EVENTS_PER_COMMIT
                by_window[name] = {f"{rate:g}": _per_event(run, each) for rate, run in runs.items()}
        except (drive.NoDrive, OSError) as error:
            return no_drive(str(error))
    return {"drive_bytes_per_event": by_window}


def _per_event(run: _Run, indexed_bytes: float) -> float:
    """The index's commits that fell into the run are taken out, and each event's share of one put in."""
    return (run.charged_bytes - run.indexed * indexed_bytes) / run.events + indexed_bytes


def _steady(bench: Bench, running: Box, device: drive.Drive, rate: float, hurry: float) -> _Run:
    say(f"wear: window {running.settings.commit_window_ms} ms, {rate:g} events/s")
    settings, seconds = running.settings, RATES[rate] / hurry
    running.await_quiet()
    before = drive.mark(device, settings.journal_folder)
    first, indexed = journal.last_seq(settings.journal_folder), _indexed(settings.index_folder)
    bench.load.ask("paced", seconds + 60, per_s=rate / _EVENTS_AN_EXECUTION, seconds=seconds)
    running.await_quiet()
    charged, _ = drive.bytes_between(before, drive.mark(device, settings.journal_folder))
    events = journal.last_seq(settings.journal_folder) - first
    return _Run(charged, events, _indexed(settings.index_folder) - indexed)


def _indexed(folder: Path) -> int:
    log = EventLog(folder, readonly=True)
    try:
        return log.last()[0]
    finally:
        log.close()


def _commit_bytes(device: drive.Drive, journal_folder: Path) -> float:
    """Bytes that one commit of the index brings to the drive: the log's own events, indexed once more."""
    log = EventLog(device.folder / "again")
    batch: list[IndexedGroup] = []
    log_id, commits, gathered = b"", 0, 0
    device.settle()
    before = sectors_written(device.device)
    try:
        for header, group, data in read_groups(journal_folder):
            log_id = header.log_id
            link = group.check(group.previous, header.epoch_key)
            events = tuple(group.events())
            batch.append(IndexedGroup(group.first_seq, group.last_seq, link, header.epoch_key, data, events))
            gathered += len(events)
            if gathered >= INDEX_EVENTS_PER_COMMIT:
                log.commit(batch, log_id)
                commits, gathered, batch = commits + 1, 0, []
    finally:
        log.close()
    device.settle()
    return (sectors_written(device.device) - before) * SECTOR_BYTES / max(1, commits)
