"""The journal: append, reopen, roll over, and what it refuses."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge.core.chain import GENESIS
from edge.core.errors import LogDamaged, StorageFailed
from edge.core.event_body import Body
from edge.core.events import BootStopped, Event, Gap, StepDone
from edge.core.limits import KIB
from edge.store import segment_file
from edge.store.journal import Journal, read_groups
from edge.store.segment_file import SegmentReader, segment_paths
from edge.testing.history import write_group

SMALL = 4 * KIB


def put(journal: Journal, *bodies: Body) -> None:
    write_group(journal, [Event(seq, body) for seq, body in enumerate(bodies, journal.last_seq + 1)])


def seqs(folder: Path, after: int = 0) -> list[int]:
    return [event.seq for _, group, _ in read_groups(folder, after) for event in group.events()]


def test_a_fresh_journal_is_empty_and_has_a_name(tmp_path: Path) -> None:
    """A new journal ends at 0, starts from GENESIS and gets a random id of 8 bytes."""
    first, second = Journal(tmp_path / "a", segment_bytes=SMALL), Journal(tmp_path / "b", segment_bytes=SMALL)
    assert (first.last_seq, first.last_link, len(first.log_id)) == (0, GENESIS, 8)
    assert first.log_id != second.log_id
    first.close()
    second.close()


def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    """Number, link, id and events are the same after closing and opening again, and it goes on from there."""
    journal = Journal(tmp_path, segment_bytes=SMALL)
    put(journal, Gap(1, 2, "a"), BootStopped())
    put(journal, Gap(3, 4, "b"))
    before = (journal.last_seq, journal.last_link, journal.log_id)
    journal.close()
    journal = Journal(tmp_path, segment_bytes=SMALL)
    assert (journal.last_seq, journal.last_link, journal.log_id) == before
    put(journal, BootStopped())
    journal.close()
    assert seqs(tmp_path) == [1, 2, 3, 4]
    assert Journal(tmp_path, segment_bytes=SMALL).last_seq == 4


def test_reading_begins_above_a_number(tmp_path: Path) -> None:
    """Groups that end at or below the number given are left out, whole segments of them unread."""
    journal = Journal(tmp_path, segment_bytes=SMALL)
    for number in range(120):
        put(journal, Gap(number, number, "x" * 50))
    journal.close()
    paths = segment_paths(tmp_path)
    assert len(paths) > 3
    paths[0].write_bytes(b"")
    last_start = int(paths[-1].stem)
    assert seqs(tmp_path, last_start) == list(range(last_start + 1, 121))
    with pytest.raises(LogDamaged):
        seqs(tmp_path)


def test_rolling_over_many_segments_keeps_one_chain(tmp_path: Path) -> None:
    """Segments follow each other without a hole, each chained to the one before, each under its own key."""
    journal = Journal(tmp_path, segment_bytes=SMALL)
    for number in range(200):
        put(journal, Gap(number, number, "x" * 50))
    journal.close()
    readers = [SegmentReader(path) for path in segment_paths(tmp_path)]
    assert len(readers) > 5
    link, seq, keys = GENESIS, 0, set()
    for reader in readers:
        assert (reader.header.first_seq, reader.header.previous) == (seq + 1, link)
        keys.add(reader.header.epoch_key)
        assert reader.path.stat().st_size == SMALL
        for frame in reader.frames():
            _, group, _ = next(read_groups(tmp_path, frame.first_seq - 1))
            link, seq = group.check(link, reader.header.epoch_key), group.last_seq
    assert (seq, len(keys)) == (200, len(readers))
    reopened = Journal(tmp_path, segment_bytes=SMALL)
    assert (reopened.last_seq, reopened.last_link) == (200, link)
    reopened.close()


def test_a_group_must_follow(tmp_path: Path) -> None:
    """A group that does not begin at the next number is a programmer's error, and nothing is written."""
    journal = Journal(tmp_path, segment_bytes=SMALL)
    put(journal, BootStopped())
    with pytest.raises(AssertionError):
        write_group(journal, [Event(3, BootStopped())])
    journal.close()
    assert seqs(tmp_path) == [1]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("call", ["fdatasync", "pwrite"])
def test_after_a_failed_write_or_flush_it_is_closed_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    """A failed write or flush is StorageFailed, and so is every write after it, though the drive is well again."""
    journal = Journal(tmp_path, segment_bytes=SMALL)
    put(journal, BootStopped())

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(StorageFailed, match=os.strerror(number)):
            put(journal, BootStopped())
    assert journal.last_seq == 1
    with pytest.raises(StorageFailed, match="takes nothing more"):
        put(journal, BootStopped())
    journal.close()


@pytest.mark.parametrize("call", ["fdatasync", "pwrite"])
def test_a_place_that_refuses_still_is_left_for_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Where the next start cannot write there either, what is sound goes to a new file before anybody is told."""
    journal = Journal(tmp_path, segment_bytes=SMALL)
    put(journal, BootStopped())
    put(journal, Gap(1, 2, "unflushed"))
    journal.close()
    (path,) = segment_paths(tmp_path)
    before, old = path.read_bytes(), path.stat().st_ino
    real = getattr(os, call)

    def refused(fd: int, *given: object) -> object:
        if os.fstat(fd).st_ino == old:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, *given)

    monkeypatch.setattr(os, call, refused)
    journal = Journal(tmp_path, segment_bytes=SMALL)
    put(journal, BootStopped())
    journal.close()
    assert path.stat().st_ino != old
    assert path.read_bytes()[: len(before.rstrip(b"\0"))] == before.rstrip(b"\0")
    assert seqs(tmp_path) == [1, 2, 3]


def test_where_nothing_can_be_written_the_start_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drive that takes nothing at all ends the start by name, and the file is as it was."""
    journal = Journal(tmp_path, segment_bytes=SMALL)
    put(journal, BootStopped())
    journal.close()
    (path,) = segment_paths(tmp_path)
    before = path.read_bytes()

    def refused(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for call in ("fdatasync", "fsync"):
        monkeypatch.setattr(os, call, refused)
    with pytest.raises(StorageFailed, match="Input/output error"):
        Journal(tmp_path, segment_bytes=SMALL)
    assert path.read_bytes() == before


def test_a_short_write_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that took only part of the group does not count as durable; reopening gives the prefix."""
    journal = Journal(tmp_path, segment_bytes=SMALL)
    put(journal, BootStopped())
    real = os.pwrite
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:-3], offset))
        with pytest.raises(StorageFailed, match="bytes were written"):
            put(journal, Gap(1, 2, "lost"))
    journal.close()
    reopened = Journal(tmp_path, segment_bytes=SMALL)
    assert reopened.last_seq == 1
    reopened.close()


def test_every_group_costs_one_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fdatasync for each group, after its bytes were written."""
    journal = Journal(tmp_path, segment_bytes=64 * KIB)
    calls: list[str] = []
    write, flush = os.pwrite, os.fdatasync
    monkeypatch.setattr(os, "pwrite", lambda *a: (calls.append("write"), write(*a))[1])
    monkeypatch.setattr(os, "fdatasync", lambda fd: (calls.append("flush"), flush(fd))[1])
    put(journal, BootStopped(), BootStopped())
    put(journal, BootStopped())
    assert calls == ["write", "flush"] * 2
    journal.close()


def test_a_full_drive_when_rolling_over_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no room can be made for the next segment, rolling over is StorageFailed and leaves no half file."""
    journal = Journal(tmp_path, segment_bytes=SMALL)
    put(journal, BootStopped())

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StorageFailed, match="No space left"):
            journal.roll()
    journal.close()
    assert [path.name for path in tmp_path.iterdir()] == [segment_file.segment_name(1)]
    reopened = Journal(tmp_path, segment_bytes=SMALL)
    assert reopened.last_seq == 1
    reopened.close()


def test_after_a_failed_roll_it_is_closed_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a segment could not be started nothing may be written: the old descriptor may be another file's."""
    journal = Journal(tmp_path / "j", segment_bytes=SMALL)
    put(journal, BootStopped())

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", fail)
        with pytest.raises(StorageFailed):
            journal.roll()
    fds = [os.open(tmp_path / f"bystander{n}", os.O_RDWR | os.O_CREAT) for n in range(4)]
    try:
        with pytest.raises(StorageFailed):
            put(journal, BootStopped())
        assert all(os.fstat(fd).st_size == 0 for fd in fds), "the group went into another file"
    finally:
        for fd in fds:
            os.close(fd)


def test_a_spare_of_another_size_is_made_anew(tmp_path: Path) -> None:
    """A half-made spare, left by a power cut, is not used as a segment."""
    journal = Journal(tmp_path, segment_bytes=SMALL)
    put(journal, BootStopped())
    (tmp_path / "next.spare").write_bytes(b"\xff" * 100)
    (tmp_path / "next.spare.part").write_bytes(b"\xff" * 100)
    journal.roll()
    put(journal, BootStopped())
    journal.close()
    assert segment_paths(tmp_path)[-1].stat().st_size == SMALL
    assert seqs(tmp_path) == [1, 2]


def test_what_a_spare_held_before_is_never_read(tmp_path: Path) -> None:
    """A spare full of another segment's frames gives an empty segment: stale frames do not pass."""
    journal = Journal(tmp_path, segment_bytes=SMALL)
    for _ in range(5):
        put(journal, StepDone(b"\x01"))
    first = segment_paths(tmp_path)[0]
    (tmp_path / "next.spare").write_bytes(first.read_bytes())
    journal.roll()
    journal.close()
    assert len(segment_paths(tmp_path)) == 2
    reopened = Journal(tmp_path, segment_bytes=SMALL)
    assert reopened.last_seq == 5
    put(reopened, BootStopped())
    reopened.close()
    assert seqs(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_segment_under_a_wrong_name_is_refused(tmp_path: Path) -> None:
    """A segment renamed to another first number is LogDamaged."""
    journal = Journal(tmp_path, segment_bytes=SMALL)
    put(journal, BootStopped())
    journal.close()
    segment_paths(tmp_path)[0].rename(tmp_path / segment_file.segment_name(2))
    with pytest.raises(LogDamaged, match="belongs to another file"):
        Journal(tmp_path, segment_bytes=SMALL)


def test_the_header_is_checked(tmp_path: Path) -> None:
    """A segment whose header was changed anywhere is LogDamaged, naming the file."""
    Journal(tmp_path, segment_bytes=SMALL).close()
    path = segment_paths(tmp_path)[0]
    whole = path.read_bytes()
    end = SegmentReader(path).start
    for place in range(end):
        if place in (20, 21):
            continue  # the count of a header frame is not used
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(LogDamaged, match=r"The header of 0+1\.journal"):
            Journal(tmp_path, segment_bytes=SMALL)


@pytest.mark.parametrize("left", [0, 1, segment_file.FRAME_OVERHEAD_BYTES - 1])
def test_a_file_cut_within_its_header_is_named(tmp_path: Path, left: int) -> None:
    """A journal cut to less than a header says so, in words."""
    Journal(tmp_path, segment_bytes=SMALL).close()
    path = segment_paths(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(LogDamaged, match=f"was cut to {left} bytes"):
        Journal(tmp_path, segment_bytes=SMALL)
