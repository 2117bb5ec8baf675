"""How a box stands with its centre, from its own files: for people, for scripts, for monitoring.

Called by `edge sync status`. Read-only; needs no daemon, no runtime and no network.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from edge.core.clock import WALL_IMPLAUSIBLE, SystemClock, boot_id
from edge.core.errors import LogDamaged, Misconfigured, SegmentRejected
from edge.core.records import record
from edge.core.settings import Settings
from edge.segments.cuts import read_head
from edge.segments.sealed import open_sealed
from edge.segments.sealing import manifest_of
from edge.store import upstream
from edge.store.journal import last_seq_in
from edge.store.segment_file import log_id_of
from edge.sync import centre
from edge.sync.budget import DAY_NS, METERED, S_NS, Budget
from edge.sync.link import link_of
from edge.sync.meter import Left, Meter, budgets_of
from edge.sync.queue import Aside, Queue, SetAside


@record
class Status:
    """See the fields. Bytes and seconds; None where nobody can tell.

    `receipted`: the last event that the centre has receipted; `waiting_values_bytes`: large values that waiting
    segments name, of which the centre may have some; `unsealed`: events at the log's end that are not sealed yet;
    `gaps`: events `[first, last]` that neither the centre nor the queue has; `eta_s`: how long the backlog takes at
    the budget, None where that sets no bound; `daemon`: what `edge-sync` said last, "" where it never did;
    `problems`: what a person must look at.
    """

    log_id: str
    enrolled: bool
    receipted: int
    sealed_through: int
    waiting_segments: int
    waiting_bytes: int
    waiting_values_bytes: int
    unsealed: int
    oldest_age_s: float | None
    gaps: list[tuple[int, int]]
    aside: list[SetAside]
    link: str
    budget: Budget
    left: Left
    eta_s: float | None
    daemon: str
    problems: list[str]


def status_of(settings: Settings) -> Status:
    """Look at the box's files. Raises Misconfigured, LogDamaged, StorageFailed."""
    clock = SystemClock()
    now = clock.read()
    head, queue = read_head(settings.sealed_folder), Queue(settings.sealed_folder)
    receipt = upstream.of_log(settings.data, log_id_of(settings.journal_folder))
    queue.look()
    through = receipt.through if receipt is not None else 0
    waiting = sorted(
        (each for each in queue.segments.values() if each.last_seq > through), key=lambda each: each.number
    )
    aside = Aside(settings.data / centre.FOLDER).all()
    gaps = list(_gaps(queue, receipt, head.last_seq if head is not None else 0))
    budgets = budgets_of(settings)
    link = link_of(settings) or METERED
    left = Meter(budgets, settings.data / centre.FOLDER, clock, boot_id()).left(link)
    waiting_bytes = sum(each.size_bytes for each in waiting)
    values_bytes = sum(each.values_bytes for each in waiting)
    sealed_through = head.last_seq if head is not None else 0
    believed = now.wall_trust != WALL_IMPLAUSIBLE and waiting
    said = _note(settings)
    return Status(
        log_id=head.log_id.hex() if head is not None else "",
        enrolled=_enrolled(settings),
        receipted=through,
        sealed_through=sealed_through,
        waiting_segments=len(waiting),
        waiting_bytes=waiting_bytes,
        waiting_values_bytes=values_bytes,
        unsealed=max(0, last_seq_in(settings.journal_folder) - sealed_through),
        oldest_age_s=max((now.wall_ns - waiting[0].wall_max_ns) / S_NS, 0.0) if believed else None,
        gaps=gaps,
        aside=aside,
        link=link,
        budget=budgets[link],
        left=left,
        eta_s=eta_s(waiting_bytes + values_bytes, budgets[link], left),
        daemon=str(said.get("said", "")),
        problems=[*_odd_receipt(settings), *_problems(queue, aside, gaps, str(said.get("trouble", "")))],
    )


def _gaps(queue: Queue, receipt: upstream.Receipt | None, head_seq: int) -> Iterator[tuple[int, int]]:
    """Numbers of events may jump inside a log; segments' numbers do not, and each says where it goes on from."""
    last_seq = receipt.through if receipt is not None else 0
    number: int | None = None
    for each in (queue.segments[number] for number in sorted(queue.segments)):
        if each.last_seq <= last_seq:
            number = each.number
            continue
        if number is None:
            joins = each.number == 0 or (
                receipt is not None and manifest_of(each.path).joins(receipt.through, receipt.link)
            )
        else:
            joins = each.number == number + 1
        if not joins:
            yield last_seq + 1, each.first_seq - 1
        number, last_seq = each.number, each.last_seq
    if head_seq > last_seq:
        yield last_seq + 1, head_seq


def eta_s(waiting_bytes: int, budget: Budget, left: Left) -> float | None:
    """How long a backlog takes where nothing but the budget holds it up; None where that sets no bound. Pure."""
    if budget.closed and waiting_bytes:
        return None
    waits = [waiting_bytes / budget.bytes_per_s] if budget.bytes_per_s else []
    for bound, there, length_ns in (
        (budget.day_bytes, left.day_bytes, DAY_NS),
        (budget.month_bytes, left.month_bytes, 30 * DAY_NS),
    ):
        if bound and there is not None:
            waits.append(-(-max(waiting_bytes - there, 0) // bound) * length_ns / S_NS)
    return max(waits) if waits else None


def _enrolled(settings: Settings) -> bool:
    try:
        centre.centre_of(settings)
    except Misconfigured:
        return False
    return True


def _note(settings: Settings) -> dict[str, Any]:
    """What the daemon wrote; a file that is absent or half there says nothing.

    A trouble that it had before the newest receipt came, perhaps by a person's hand, is over.
    """
    path = settings.data / "run" / "sync.json"
    try:
        said = json.loads(path.read_text("utf-8"))
        if not isinstance(said, dict):
            return {}
        with contextlib.suppress(FileNotFoundError):
            if centre.newest_receipt_path(settings).stat().st_mtime_ns > path.stat().st_mtime_ns:
                said.pop("trouble", None)
    except (OSError, ValueError):
        return {}
    return said


def _odd_receipt(settings: Settings) -> Iterator[str]:
    try:
        receipt = upstream.read(settings.data)
    except LogDamaged as error:
        yield str(error)
        return
    log_id = log_id_of(settings.journal_folder)
    if receipt is not None and log_id is not None and receipt.log_id != log_id:
        yield (
            f"the receipt is of log {receipt.log_id.hex()}, and this box has begun a new one, {log_id.hex()}. "
            f"Remove {settings.data / upstream.FILE_NAME}, so that new receipts count"
        )


def _problems(
    queue: Queue, aside: list[SetAside], gaps: list[tuple[int, int]], trouble: str
) -> Iterator[str]:
    for each in aside:
        what = "the upload is STOPPED at" if each.stops else "set aside:"
        yield f"{what} segment {each.number}: {each.reason}"
    noted = {each.number for each in aside}
    for number, queued in queue.segments.items():
        try:
            open_sealed(queued.path.read_bytes())
        except FileNotFoundError:
            continue  # a receipt came meanwhile
        except (OSError, SegmentRejected) as error:
            if number not in noted:
                yield f"segment {number} is damaged on the box: {error} Move that file away: it is sealed again"
    for number, why in queue.unreadable.items():
        if number not in noted:
            yield f"segment {number} cannot be read on the box: {why} Move that file away: it is sealed again"
    for first, last in gaps:
        yield f"events {first} to {last} are neither at the centre nor in the queue"
    if trouble and not aside:
        yield trouble
