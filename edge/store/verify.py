"""Is the log whole? Reads every frame, recomputes the chain, compares the two homes.

Called by `edge log verify` and by the tests. Reads only, and may run beside a live runtime: it then ends at the last
whole group. Damage is reported by name, never skipped in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge.core.chain import GENESIS, open_group
from edge.core.errors import LogDamaged
from edge.core.events import Event
from edge.core.retention_events import LogPruned
from edge.store.numbers import told_range
from edge.store.segment_file import SPARE, SegmentReader, nameless, segment_paths

Seen = Callable[[Event], None]


@dataclass(slots=True)
class Report:
    """What verification found. `problems` is empty where all is whole."""

    segments: int = 0
    groups: int = 0
    events: int = 0
    first_seq: int = 0
    last_seq: int = 0
    last_link: bytes = GENESIS
    first_previous: bytes = GENESIS
    log_id: bytes = b""
    index_last_seq: int | None = None
    mirror_last_seq: int | None = None
    #: Large values that were read, and what they take.
    blobs: int = 0
    blobs_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    #: `(first, last)` of numbers that are lost and named as lost: no problem any more.
    lost: list[tuple[int, int]] = field(default_factory=list)
    #: The newest `log.pruned`: what the log says of where it begins.
    pruned: LogPruned | None = None
    #: `(first, last)` of numbers that no event ever had: left out after an end that was not in order.
    skipped: list[tuple[int, int]] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """True where nothing is wrong."""
        return not self.problems

    @property
    def absent(self) -> list[tuple[int, int]]:
        """Numbers that no event has and about which nothing is wrong: lost, skipped, or one behind the other."""
        found: list[tuple[int, int]] = []
        for first, last in sorted(self.lost + self.skipped):
            joins = bool(found) and found[-1][1] == first - 1
            found.append((found.pop()[0] if joins else first, last))
        return found


def verify_journal(folder: Path, seen: Seen = lambda event: None) -> Report:
    """Check every segment of a journal; `seen` gets each event in order."""
    report = Report()
    paths = segment_paths(folder)
    if not paths:
        report.problems.append(f"There is no journal in {folder}.")
        return report
    beginnings: dict[int, LogPruned] = {}

    def noted(event: Event) -> None:
        if isinstance(event.body, LogPruned):
            beginnings[event.body.through] = report.pruned = event.body
        seen(event)

    for place, path in enumerate(paths):
        try:
            _verify_segment(path, report, noted, is_last=place == len(paths) - 1)
        except FileNotFoundError:
            if report.segments:
                report.problems.append(f"{path.name} was pruned while it was looked at: verify again.")
        except LogDamaged as error:
            report.problems.append(error.message)
    if (held := nameless(folder)) is not None:
        report.problems.append(
            f"{SPARE} holds events from {held.header.first_seq} on: a segment that lost its name."
        )
    _check_beginning(report, beginnings)
    return report


def _check_beginning(report: Report, beginnings: dict[int, LogPruned]) -> None:
    """A log that does not begin with its first event says itself what was pruned, and with which link."""
    if report.first_previous == GENESIS:
        return  # where the chain begins there was nothing before, though numbers may
    through = report.first_seq - 1
    # Numbers may jump between what was pruned and what is left: the link says that nothing stood between.
    joining = (each for at, each in beginnings.items() if at < through and each.link == report.first_previous)
    found = beginnings.get(through) or next(joining, None)
    if through < 1 or (found is None and (1, through) in report.lost):
        return
    if found is None:
        report.problems.append(
            f"Events 1 to {through} are missing, and the log does not say that they were pruned."
        )
    elif found.link != report.first_previous:
        report.problems.append(
            f"The log was pruned up to event {through}, where its chain was at {found.link.hex()[:16]}, "
            f"and begins from {report.first_previous.hex()[:16]}."
        )
    else:  # what was lost just before has been pruned with the rest
        report.lost = [lost for lost in report.lost if lost[1] != through]


def _verify_segment(path: Path, report: Report, seen: Seen, *, is_last: bool) -> None:
    reader = SegmentReader(path)
    header = reader.header
    if report.segments == 0:
        report.first_seq, report.last_seq = header.first_seq, header.first_seq - 1 - header.lost
        report.last_link = report.first_previous = header.previous
        report.log_id = header.log_id
    report.segments += 1
    if header.log_id != report.log_id:
        report.problems.append(f"{path.name} belongs to another log.")
    if header.lost and header.first_seq - header.lost == report.last_seq + 1:
        report.lost.append((report.last_seq + 1, header.first_seq - 1))
        report.last_seq = header.first_seq - 1
        report.last_link = header.previous
    if header.first_seq > report.last_seq + 1 and header.previous == report.last_link:
        _skip(report, header.first_seq)
    if header.first_seq != report.last_seq + 1 or header.previous != report.last_link:
        report.problems.append(
            f"{path.name} does not follow: {told_range(report.last_seq + 1, header.first_seq - 1)} cannot be found."
        )
        report.last_seq, report.last_link = header.first_seq - 1, header.previous
    end = reader.start
    for frame in reader.all_frames():
        group = open_group(frame.first_seq, frame.data)
        if frame.first_seq != report.last_seq + 1 and group.follows(report.last_seq, report.last_link):
            _skip(report, frame.first_seq)
        if frame.first_seq != report.last_seq + 1:
            where = f"is damaged from byte {end} to {frame.offset}" if frame.offset > end else "has a hole"
            missing = told_range(report.last_seq + 1, frame.first_seq - 1)
            report.problems.append(f"{path.name} {where}: {missing} cannot be read.")
            report.last_link = group.previous
        report.last_link = group.check(report.last_link, header.epoch_key)
        for event in group.events():
            seen(event)
        report.groups += 1
        report.events += frame.count
        report.last_seq, end = group.last_seq, frame.end
    if not is_last and not reader.tail_is_clean():
        report.problems.append(f"{path.name} ends in bytes that are no event.")


def require_beginning(folder: Path, through: int, link: bytes) -> None:
    """See that a log begins where it says: `through` and `link` are those of its newest `log.pruned`, 0 for none.

    Raises LogDamaged where the oldest segments are gone that were not pruned. A log may still hold what it says is
    pruned: it was stopped in the middle of that.
    """
    first = next(iter(segment_paths(folder)), None)
    if first is None or int(first.stem) <= max(1, through):
        return
    header = SegmentReader(first).header
    before = header.first_seq - 1
    if header.previous == GENESIS:
        return  # numbers jumped before the first event
    if header.lost < before and not (before >= through and header.previous == link):
        raise LogDamaged(
            f"The journal begins with event {header.first_seq}; the log does not say that it was pruned up to there.",
            mend="Put back what is gone from the journal's folder, or run `edge log recover`.",
        )


def _skip(report: Report, first_seq: int) -> None:
    """Numbers jump here, and the chain joins: no event was lost.

    A jump over the head of an empty segment counts once.
    """
    if report.skipped and report.skipped[-1][1] == report.last_seq:
        report.skipped[-1] = (report.skipped[-1][0], first_seq - 1)
    else:
        report.skipped.append((report.last_seq + 1, first_seq - 1))
    report.last_seq = first_seq - 1


def compare_index(
    folder: Path, groups: Iterable[tuple[int, bytes, bytes]], report: Report, *, live: bool = False
) -> None:
    """Compare groups of the index (`first seq, epoch key, bytes`, oldest first) with the journal's, byte for byte.

    The index may lack the journal's end, never its middle. Beside a `live` runtime it may hold what was appended
    after the journal was verified; otherwise that means that the journal lost its end.
    """
    frames = _sound_frames(folder)
    journal = next(frames, None)
    expected: int | None = None
    absent = dict(report.absent)
    only_here: list[list[int]] = []
    for first_seq, epoch_key, data in groups:
        if expected is not None and first_seq != expected and absent.get(expected) != first_seq - 1:
            report.problems.append(f"The index lacks {told_range(expected, first_seq - 1)}.")
        last_seq = report.index_last_seq = open_group(first_seq, data).last_seq
        expected = last_seq + 1
        while journal is not None and journal[0] < first_seq:
            journal = next(frames, None)
        if journal is None or journal[0] != first_seq:
            if live and first_seq > report.last_seq:
                continue
            if only_here and only_here[-1][1] == first_seq - 1:
                only_here[-1][1] = last_seq
            else:
                only_here.append([first_seq, last_seq])
        elif journal != (first_seq, epoch_key, data):
            report.problems.append(f"Journal and index disagree about the group at event {first_seq}.")
    through = int(paths[0].stem) - 1 if live and (paths := segment_paths(folder)) else 0
    report.problems += [
        f"The journal lost {told_range(first, last)}, which the index has."
        for first, last in only_here
        if last > through  # pruned meanwhile
    ]


def _sound_frames(folder: Path) -> Iterator[tuple[int, bytes, bytes]]:
    """Every group that can be read, as the index has them: those behind damage as well."""
    for path in segment_paths(folder):
        try:
            reader = SegmentReader(path)
        except (LogDamaged, FileNotFoundError):
            continue  # named when the journal was verified, or pruned since
        for frame in reader.all_frames():
            yield frame.first_seq, reader.header.epoch_key, frame.data
