"""Verification: a whole log is whole, and every kind of damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.core.errors import LogDamaged
from edge.core.events import Event, Gap
from edge.core.limits import KIB
from edge.core.retention_events import LogPruned
from edge.store.journal import Journal, read_groups
from edge.store.segment_file import SegmentReader, segment_paths
from edge.store.verify import Report, compare_index, verify_journal
from edge.testing.history import write_group

Groups = list[tuple[int, bytes, bytes]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty events in groups of two over several segments."""
    journal = Journal(tmp_path, segment_bytes=2 * KIB)
    for seq in range(1, 61, 2):
        write_group(journal, [Event(seq, Gap(1, 1, "x" * 20)), Event(seq + 1, Gap(1, 1, "y" * 20))])
    journal.close()
    return tmp_path


def index_of(folder: Path) -> Groups:
    return [(group.first_seq, header.epoch_key, data) for header, group, data in read_groups(folder)]


def test_a_whole_log_is_whole(folder: Path) -> None:
    """Every segment, group and event is counted, each event is shown in order, the ends are the journal's."""
    seen: list[int] = []
    report = verify_journal(folder, lambda event: seen.append(event.seq))
    journal = Journal(folder, segment_bytes=2 * KIB)
    assert report == Report(
        len(segment_paths(folder)), 30, 60, 1, 60, journal.last_link, log_id=journal.log_id
    )
    assert report.whole
    assert seen == list(range(1, 61))
    journal.close()


def test_no_journal_is_a_problem(tmp_path: Path) -> None:
    """An empty folder is not a whole log."""
    assert verify_journal(tmp_path).problems == [f"There is no journal in {tmp_path}."]


def test_a_torn_end_is_no_damage(folder: Path) -> None:
    """A torn last group was never acknowledged: the log before it is whole."""
    path = segment_paths(folder)[-1]
    last = list(SegmentReader(path).frames())[-1]
    data = bytearray(path.read_bytes())
    data[last.end - 1] ^= 1
    path.write_bytes(data)
    report = verify_journal(folder)
    assert (report.whole, report.last_seq) == (True, 58)


def test_a_pruned_log_is_whole_where_it_says_so(folder: Path) -> None:
    """A log whose oldest segments are gone is whole where it says that they were pruned, and with which link."""
    paths = segment_paths(folder)
    header = SegmentReader(paths[1]).header
    through = header.first_seq - 1
    paths[0].unlink()
    (problem,) = verify_journal(folder).problems
    assert problem == f"Events 1 to {through} are missing, and the log does not say that they were pruned."
    journal = Journal(folder, segment_bytes=2 * KIB)
    write_group(journal, [Event(61, LogPruned(through, b"another link", "age", 1, 1))])
    (problem,) = verify_journal(folder).problems
    assert "and begins from" in problem
    write_group(journal, [Event(62, LogPruned(through, header.previous, "age", 1, 1))])
    journal.close()
    report = verify_journal(folder)
    assert (report.whole, report.first_seq, report.last_seq) == (True, through + 1, 62)
    assert report.pruned is not None
    assert report.pruned.through == through


def test_a_segment_of_another_log_is_named(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A segment that belongs to another log is named, and so is what it does not continue."""
    other = tmp_path_factory.mktemp("other")
    journal = Journal(other, segment_bytes=2 * KIB)
    for seq in range(1, 61, 2):
        write_group(journal, [Event(seq, Gap(1, 1, "x" * 20)), Event(seq + 1, Gap(1, 1, "y" * 20))])
    journal.close()
    mine, theirs = segment_paths(folder)[1], segment_paths(other)[1]
    assert mine.name == theirs.name
    mine.write_bytes(theirs.read_bytes())
    problems = verify_journal(folder).problems
    assert f"{mine.name} belongs to another log." in problems
    assert any("does not follow" in problem for problem in problems)


def test_both_homes_agree(folder: Path) -> None:
    """An index that holds the journal's groups, all or a first part of them, agrees with it."""
    for count in (30, 7, 0):
        report = verify_journal(folder)
        compare_index(folder, index_of(folder)[:count], report)
        assert report.whole
        assert report.index_last_seq == (2 * count or None)


@pytest.mark.parametrize("what", ["bytes", "key"])
def test_a_group_that_differs_is_named(folder: Path, what: str) -> None:
    """A group whose bytes or key differ between the homes is named by its first event."""
    report, groups = verify_journal(folder), index_of(folder)
    first, key, data = groups[4]
    groups[4] = (first, bytes(32), data) if what == "key" else (first, key, data[:-1] + bytes([data[-1] ^ 1]))
    compare_index(folder, groups, report)
    assert report.problems == [f"Journal and index disagree about the group at event {first}."]


def test_what_a_live_runtime_added_is_not_compared(folder: Path) -> None:
    """Groups above what was verified are left alone: a runtime may be writing."""
    report = verify_journal(folder)
    groups = index_of(folder)
    report.last_seq = 20
    first, key, data = groups[-1]
    compare_index(folder, [*groups[:-1], (first, key, data)], report, live=True)
    assert report.whole


def test_a_hole_in_the_index_is_named(folder: Path) -> None:
    """A group missing in the middle of the index is named."""
    report, groups = verify_journal(folder), index_of(folder)
    del groups[4]
    compare_index(folder, groups, report)
    assert not report.whole


def test_a_journal_that_lost_its_end_is_named(folder: Path) -> None:
    """An index that holds events above the end of a journal nobody writes means that the journal lost them."""
    groups = index_of(folder)
    path = segment_paths(folder)[-1]
    start = SegmentReader(path).start
    data = path.read_bytes()
    path.write_bytes(data[:start] + bytes(len(data) - start))
    report = verify_journal(folder)
    compare_index(folder, groups, report)
    assert not report.whole


def test_all_that_is_damaged_is_named_and_the_rest_is_read(folder: Path) -> None:
    """Each damaged place is named with its events, what stands behind is checked, the index adds one line each."""
    groups = index_of(folder)
    path = segment_paths(folder)[1]
    frames = list(SegmentReader(path).frames())
    data = bytearray(path.read_bytes())
    for frame in (frames[1], frames[4]):
        data[frame.end - 1] ^= 1
    path.write_bytes(data)
    report = verify_journal(folder)
    damaged = [f"events {f.first_seq} to {f.first_seq + 1}" for f in (frames[1], frames[4])]
    assert [problem.partition(": ")[2] for problem in report.problems] == [
        f"{events} cannot be read." for events in damaged
    ]
    assert (report.events, report.last_seq) == (56, 60)
    compare_index(folder, groups, report)
    assert report.problems[2:] == [f"The journal lost {events}, which the index has." for events in damaged]


def test_reading_never_ends_before_the_end_in_silence(folder: Path) -> None:
    """Whoever reads groups gets those before the damage, and then an error that names what cannot be read."""
    path = segment_paths(folder)[1]
    frame = list(SegmentReader(path).frames())[2]
    data = bytearray(path.read_bytes())
    data[frame.end - 1] ^= 1
    path.write_bytes(data)
    seen = []
    with pytest.raises(LogDamaged, match=f"events {frame.first_seq} to {frame.first_seq + 1} cannot be read"):
        seen += [group.last_seq for _, group, _ in read_groups(folder)]
    segment_paths(folder)[1].unlink()
    with pytest.raises(LogDamaged, match="cannot be read"):
        list(read_groups(folder))
