"""A log that is written while its drive is tried, and looked at afterwards: functions for `tests.faults.children`.

Writing goes through the real homes and the real gate. The body of event n is known from n alone, so whoever reads the
log knows what it must say; what was told to a client goes into a file as lines `told N`, when it is told.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from pathlib import Path
from random import Random
from typing import Any

from edge.cli.main import main
from edge.core.clock import SystemClock
from edge.core.errors import LogDamaged, StorageFailed
from edge.core.event_body import Body
from edge.core.events import Event, ExecutionFinished, ExecutionRequested, Gap
from edge.core.limits import KIB
from edge.core.settings import load_settings
from edge.runtime.commit import index
from edge.runtime.commit.catching_up import catch_up
from edge.runtime.commit.gate import CommitGate
from edge.store import eventlog as eventlog_module
from edge.store.blobs import BlobStore
from edge.store.eventlog import EventLog
from edge.store.index_rows import IndexedGroup, Rows, payload_mark, request_key, rows_of
from edge.store.journal import Journal
from edge.store.mirror import Mirror
from edge.store.segment_file import flush_folder, segment_paths
from edge.store.verify import compare_index, verify_journal

SEGMENT_BYTES = 64 * KIB
PRINCIPAL = "writer"
BOOT = bytes(16)
#: Of the machine after a cut.
NEXT_BOOT = b"\1" * 16
#: The index is committed oftener than in a box, so that a short life has many commits to be cut off.
EVENTS_PER_COMMIT = 100
REFUSED = 3  # exit code of a writer whose drive refused
_HERE = "tests.faults.log_on_trial"
WRITE, CHECK, SALVAGE = f"{_HERE}:write", f"{_HERE}:check", f"{_HERE}:salvage"
RECOVER = f"{_HERE}:recover"
ANSWERS = f"{_HERE}:answers"
ANSWERED = 400  # events of the log that `answers` knows


def body_of(seq: int) -> Body:
    """What event `seq` says."""
    chance = Random(seq)
    if seq % 5 == 0:
        return ExecutionRequested(bytes(32), PRINCIPAL, f"r-{seq}", payload=chance.randbytes(20))
    return Gap(seq, seq, "x" * chance.choice([5, 40, 400]))


def write(folder: str, say: str, seed: int, events: int, planted: str = "") -> int:
    """Open the log as the runtime does, append so many events in bursts, tell each once it is durable.

    The last event's number. Half of the lives end without closing anything. Exits with REFUSED, the drive's error on
    stderr, where the journal or the index cannot be written. `planted` is a bug (`_plant`, or "told too early"), or
    says "closed" or "killed": this life ends with everything closed, or nothing.
    """
    _plant(planted)
    index.INDEX_EVENTS_PER_COMMIT = EVENTS_PER_COMMIT  # type: ignore[misc]
    said = os.open(say, os.O_WRONLY | os.O_APPEND)
    try:
        return asyncio.run(_write(Path(folder), said, Random(seed), events, planted))
    except StorageFailed as error:
        _refused(error)
        raise


def _plant(bug: str) -> None:
    """Make the log work as it must not, in this process."""
    real = eventlog_module.lmdb.open

    def opened(*given: Any, **options: Any) -> Any:
        changed = {"sync": False, "metasync": False} if bug == "NOSYNC" else {"writemap": True}
        return real(*given, **(options | changed))

    def forgetful(group: IndexedGroup) -> Rows:
        rows = rows_of(group)
        rows.requests.clear()
        return rows

    if bug == "no flush":
        os.fdatasync = lambda fd: None
    elif bug in ("NOSYNC", "WRITEMAP"):
        eventlog_module.lmdb.open = opened
    elif bug == "lost dedup":
        eventlog_module.rows_of = forgetful  # type: ignore[attr-defined]


def _refused(error: StorageFailed) -> None:
    os.write(2, f"{error}\n".encode())
    os._exit(REFUSED)


async def _write(folder: Path, said: int, chance: Random, events: int, planted: str) -> int:
    journal, eventlog = _opened(folder)
    journal.begin_life(BOOT)
    os.write(said, f"log {journal.log_id.hex()}\n".encode())
    gate = CommitGate(
        journal, eventlog, BlobStore(folder / "blobs"), SystemClock(), BOOT, on_failure=_refused
    )

    def tell(seq: int) -> None:
        os.write(said, f"told {seq}\n".encode())

    # An index that nobody flushes is torn only while the kernel writes it back.
    stop = flush_now_and_then(folder, Random(chance.random()), 0.01 if planted == "NOSYNC" else 0.1)
    end = gate.next_seq + events - 1
    while gate.next_seq <= end:
        for _ in range(min(chance.choice([1, 1, 3, 20, 60]), end + 1 - gate.next_seq)):
            event = gate.append(body_of(gate.next_seq))
            if planted == "told too early":
                tell(event.seq)
        if planted != "told too early":
            gate.after(event.seq, lambda link, seq=event.seq: tell(seq))  # type: ignore[misc]
        await gate.flushed()
    assert journal.mirror_state in ("off", "written"), journal.mirror_state
    if planted == "closed" or (planted != "killed" and chance.random() < 0.5):
        await gate.close()
        eventlog.close()
        journal.close()
    stop.set()
    return end


def _opened(folder: Path) -> tuple[Journal, EventLog]:
    if not segment_paths(folder / "journal") and EventLog.there(folder / "index"):
        raise LogDamaged("The journal is gone.")
    journal = Journal(folder / "journal", segment_bytes=SEGMENT_BYTES, mirror=mirror_of(folder))
    eventlog = EventLog(folder / "index")
    catch_up(journal, eventlog)
    return journal, eventlog


def with_mirror(folder: Path) -> None:
    """Turn the mirror on for the log that will be in a folder; durable when this returns."""
    with (folder / "edge.toml").open("w") as file:
        file.write('journal_mirror = "on"\n')
        file.flush()
        os.fsync(file.fileno())
    flush_folder(folder)


def mirror_of(folder: Path) -> Mirror | None:
    """The second place of a log, where `with_mirror` asked for one."""
    place = load_settings(folder).mirror_folder
    # A busy machine is no drive that hangs: a mirror given up on would lack what the bed looks for.
    return None if place is None else Mirror(place, patience_s=60.0)


def flush_now_and_then(folder: Path, chance: Random, longest_s: float = 0.1) -> threading.Event:
    """The kernel writes back when it likes; here every few milliseconds, so that a short run has many orders."""
    stop = threading.Event()
    fd = os.open(folder, os.O_RDONLY)
    syncfs = ctypes.CDLL(None).syncfs

    def flush() -> None:
        while not stop.wait(chance.random() * longest_s):
            syncfs(fd)

    threading.Thread(target=flush, daemon=True).start()
    return stop


def check(folder: str, told: int, planted: str = "") -> dict[str, Any]:
    """Open the log as the runtime does and read all of it.

    Gives `lost` ([first, last] of each), `events` (how many there are), `untold` (how many that were told are missing
    at the end), `unproved` (whether the runtime names that end as one that nothing can tell of), `next_seq` (what a
    life in another boot of the machine begins with), and `log_id`. Raises what opening raises, LogDamaged where the
    log is not whole; fails where it says anything else than what was written. `planted` is a bug: "numbers go on".
    """
    place = Path(folder)
    journal, eventlog = _opened(place)
    known: list[int] = []

    def seen(event: Event) -> None:
        _compare(event)
        known.append(event.seq)

    report = verify_journal(place / "journal", seen)
    compare_index(
        place / "journal", ((group.first_seq, key, data) for key, group, data in eventlog.groups()), report
    )
    if not report.whole:
        raise LogDamaged(" ".join(report.problems))
    assert report.last_seq == journal.last_seq
    assert report.first_seq == 1 or report.lost, report.first_seq
    for seq in known[4::500]:
        _compare(eventlog.event(seq))
    for seq in [seq for seq in known if seq % 5 == 0][::20]:
        body = eventlog.event(seq).body
        if isinstance(body, ExecutionRequested):
            found = eventlog.find_request(request_key(PRINCIPAL, body.request_id or ""))
            assert found == (seq, payload_mark(body)), f"request {seq} would be run again: {found}"
    if planted != "numbers go on":
        journal.begin_life(NEXT_BOOT)
    eventlog.close()
    journal.close()
    return {
        "lost": report.lost,
        "untold": max(told - report.last_seq, 0),
        "unproved": journal.unproved is not None,
        "next_seq": journal.next_seq,
        "log_id": journal.log_id.hex(),
        "events": report.events,
    }


def _compare(event: Event) -> None:
    body = event.body
    # What `edge log salvage` notes.
    if isinstance(body, ExecutionFinished) or (isinstance(body, Gap) and body.cause == "damaged"):
        return
    assert body == body_of(event.seq), f"event {event.seq} says something else than what was written"


def salvage(folder: str, *, index_anew: bool = False) -> int:
    """`edge log salvage`; its exit code."""
    return main(["log", "salvage", "--data", folder, *(["--index-anew"] if index_anew else [])])


def recover(folder: str) -> int:
    """`edge log recover`; its exit code."""
    return main(["log", "recover", "--data", folder])


def answers(folder: str) -> str:
    """Open the log and ask for everything a runtime would ever ask: what that came to, the worst that was met.

    "another answer", "forgotten" (less than was written, in silence), "named" (damage, at opening or when asked), or
    "no effect".
    """
    try:
        journal, eventlog = _opened(Path(folder))
    except (LogDamaged, StorageFailed):
        return "named"
    met = {_answer(eventlog, seq) for seq in range(1, ANSWERED + 1)}
    met |= {_open_now(eventlog), _unknown(eventlog)}
    if journal.last_seq < ANSWERED or not verify_journal(Path(folder) / "journal").whole:
        met.add("named" if journal.last_seq == ANSWERED else "torn end")
    return next(
        word for word in ("another answer", "forgotten", "torn end", "named", "no effect") if word in met
    )


def _open_now(eventlog: EventLog) -> str:
    try:
        complete = eventlog.open_executions() == [seq for seq in range(1, ANSWERED + 1) if seq % 5 == 0]
    except LogDamaged:
        return "named"
    return "no effect" if complete else "forgotten"


def _unknown(eventlog: EventLog) -> str:
    """Request ids that nobody sent."""
    try:
        found = [eventlog.find_request(request_key(PRINCIPAL, f"none-{n}")) for n in range(ANSWERED)]
    except LogDamaged:
        return "named"
    return "another answer" if any(found) else "no effect"


def _answer(eventlog: EventLog, seq: int) -> str:
    body = body_of(seq)
    try:
        same = eventlog.event(seq).body == body
        if isinstance(body, ExecutionRequested):
            found = eventlog.find_request(request_key(PRINCIPAL, body.request_id or ""))
            events = [event.seq for event in eventlog.events_of(seq)]
            if found is None or not events:
                return "forgotten"
            same = same and found == (seq, payload_mark(body)) and events == [seq]
    except LogDamaged:
        return "named"
    return "no effect" if same else "another answer"


def told(say: Path) -> int:
    """The highest event that a client was told of."""
    lines = (line.split() for line in say.read_text().splitlines())
    return max((int(number) for word, number in lines if word == "told"), default=0)
