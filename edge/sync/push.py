"""Send all that waits, now: what `edge sync push` does, in the order and parcels of the process that ships.

Called by `edge.cli.sync_push`, with any carrier. It keeps to no budget: a person asked for it. Killed anywhere, the
same again goes on; only receipts let anything leave the queue (`edge.sync.centre`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from edge.core.clock import SystemClock
from edge.core.errors import ReceiptRejected, SegmentRejected
from edge.core.records import record
from edge.core.settings import Settings
from edge.segments.sealing import manifest_of, number_of, sealed_paths
from edge.segments.verdicts import ARRIVED, FORK
from edge.store.blobs import BlobStore
from edge.sync import centre, priority
from edge.sync.queue import Aside, SetAside
from edge.sync.transport import LogState, Outgoing, Parcel, Progress, SegmentVerdict, Transport


@record
class Backlog:
    """What is sealed and not at the centre: files by number, parcels in order, and what cannot be read."""

    paths: dict[int, Path]
    parcels: list[list[int]]
    segments_bytes: int
    values: dict[bytes, int]
    unreadable: list[str]


@record
class Pushed:
    """What came of it: verdicts counted, bytes over the wire, the last receipt's event, what needs a person."""

    verdicts: Counter[str]
    sent_bytes: int
    resumed_bytes: int
    through: int
    freed: int
    problems: list[str] = field(default_factory=list)


def backlog(settings: Settings, state: LogState) -> Backlog:
    """What the centre lacks, by its own word. Raises StorageFailed."""
    paths: dict[int, Path] = {}
    waiting: list[priority.Waiting] = []
    values: dict[bytes, int] = {}
    unreadable: list[str] = []
    for path in sealed_paths(settings.sealed_folder):
        try:
            said = manifest_of(path)
        except SegmentRejected as error:
            unreadable.append(str(error))
            continue
        if state.has(said):
            continue
        paths[said.number] = path
        waiting.append(priority.Waiting(said.number, said.priority, said.wall_max_ns, path.stat().st_size))
        values |= dict(said.blobs)
    ordered = priority.in_order(waiting)
    parcels = []
    while ordered:
        taken = priority.bundle(ordered)
        parcels.append([each.number for each in taken])
        ordered = ordered[len(taken) :]
    return Backlog(paths, parcels, sum(each.size_bytes for each in waiting), values, unreadable)


def push(settings: Settings, transport: Transport, log_id: bytes, progress: Progress) -> Pushed:
    """Send it all. Raises what the carrier raises; what was sent until then is at the centre."""
    aside, now_ns = Aside(settings.data / centre.FOLDER), SystemClock().read().wall_ns
    state = transport.state(log_id)
    due = backlog(settings, state)
    verdicts: Counter[str] = Counter()
    problems, sent_bytes, resumed_bytes, receipt = list(due.unreadable), 0, 0, state.receipt
    for digest, said in _values(settings, transport, due):
        if said:
            problems.append(said)
        else:
            transport.send_value(digest, BlobStore(settings.blob_folder).path(digest), progress)
            sent_bytes += due.values[digest]
    for numbers in due.parcels:
        made = transport.send(Parcel([Outgoing.of(due.paths[number]) for number in numbers]), progress)
        verdicts.update(each.verdict for each in made.verdicts)
        refused = [each for each in made.verdicts if each.verdict not in ARRIVED]
        problems += [_problem(each) for each in refused]
        for each in refused:  # as the process that ships does: nobody may forget it
            aside.add(SetAside(each.number, each.reason or each.verdict, now_ns, stops=each.verdict == FORK))
        sent_bytes, resumed_bytes = sent_bytes + made.sent_bytes, resumed_bytes + made.resumed_bytes
        receipt = made.receipt or receipt
    if not receipt:
        return Pushed(verdicts, sent_bytes, resumed_bytes, 0, 0, problems)
    try:
        taken, freed = centre.take_receipt(settings, receipt)
    except ReceiptRejected as error:
        if error.problem_code == centre.OTHER_HISTORY:
            oldest = min(map(number_of, sealed_paths(settings.sealed_folder)), default=0)
            aside.add(SetAside(oldest, error.message, now_ns, stops=True))
        raise
    return Pushed(verdicts, sent_bytes, resumed_bytes, taken.through, freed, problems)


def _values(settings: Settings, transport: Transport, due: Backlog) -> Iterator[tuple[bytes, str]]:
    """Large values that the centre lacks; with a text where one is on the box no more."""
    blobs = BlobStore(settings.blob_folder)
    for digest in sorted(transport.lacking(due.values)):
        absent = not blobs.path(digest).is_file()
        yield digest, f"Value {digest.hex()[:16]} is not on this box any more." if absent else ""


def _problem(each: SegmentVerdict) -> str:
    return f"Segment {each.number}: {each.verdict}. {each.reason}"
