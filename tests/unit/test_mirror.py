"""The journal's mirror: the same bytes in a second place, and a journal that goes on without it where it must."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.core.errors import LogDamaged, Misconfigured
from edge.core.events import BootStopped, Event, Gap
from edge.core.limits import KIB
from edge.store import mirror, segment_file
from edge.store.journal import Journal, read_groups
from edge.store.mirror import Mirror
from edge.store.recovery import carry_out, make_plan
from edge.store.segment_file import SegmentReader, segment_paths
from edge.store.verify import verify_journal
from edge.testing.history import write_group

SMALL = 4 * KIB


def write(journal: Journal, events: int) -> None:
    for _ in range(events):
        write_group(journal, [Event(journal.next_seq, Gap(1, 1, "x" * 50))])


def open_journal(folder: Path, patience_s: float = 20.0) -> Journal:
    return Journal(
        folder / "journal", segment_bytes=SMALL, mirror=Mirror(folder / "mirror", patience_s=patience_s)
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in segment_paths(folder)}


def same(folder: Path) -> bool:
    return files(folder / "journal") == files(folder / "mirror")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = open_journal(tmp_path)
    yield made
    made.close()


def test_it_has_the_same_bytes_over_many_segments(journal: Journal, tmp_path: Path) -> None:
    """After each write both places are the same, to the last byte, over changes of segment as well."""
    for _ in range(60):
        write(journal, 1)
        assert same(tmp_path)
    assert (journal.mirror_state, len(files(tmp_path / "mirror")) > 2) == ("written", True)
    assert mirror.differences(tmp_path / "journal", tmp_path / "mirror", journal.last_seq) == (
        [],
        journal.last_seq,
    )


def test_the_two_places_are_never_written_at_once(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each place is flushed before the other is written: a block torn under one leaves the other as it was."""
    calls: list[str] = []
    pwrite, fdatasync = os.pwrite, os.fdatasync

    def place(fd: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{fd}")).parent.name

    monkeypatch.setattr(
        os, "pwrite", lambda fd, *given: (calls.append(f"write {place(fd)}"), pwrite(fd, *given))[1]
    )
    monkeypatch.setattr(os, "fdatasync", lambda fd: (calls.append(f"flush {place(fd)}"), fdatasync(fd))[1])
    write(journal, 2)
    assert calls == ["write journal", "flush journal", "write mirror", "flush mirror"] * 2


def test_it_is_brought_up_to_date_at_a_start(tmp_path: Path) -> None:
    """A mirror that is empty, or stopped anywhere behind, is the same again after the next start."""
    journal = open_journal(tmp_path)
    write(journal, 30)
    old = shutil.copytree(tmp_path / "mirror", tmp_path / "old")
    write(journal, 60)
    journal.close()
    for behind in (None, old):
        shutil.rmtree(tmp_path / "mirror")
        if behind is not None:
            shutil.copytree(behind, tmp_path / "mirror")
        journal = open_journal(tmp_path)
        assert same(tmp_path)
        write(journal, 1)
        assert same(tmp_path)
        journal.close()


@pytest.mark.parametrize("how", ["missing", "full", "hangs"])
def test_the_journal_goes_on_without_it_and_says_so(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mirror that is gone, full or hangs: every event is in the journal, the reason is said once.

    It comes back with a new segment, and is the same again.
    """
    journal = open_journal(tmp_path, patience_s=0.2 if how == "hangs" else 20.0)
    write(journal, 5)
    go_on = threading.Event()
    fdatasync, fsync = os.fdatasync, os.fsync

    def struck(fd: int, real: object) -> None:
        if "mirror" in os.readlink(f"/proc/self/fd/{fd}"):
            if how == "hangs":
                go_on.wait(20)
            else:
                raise OSError(28 if how == "full" else 5, os.strerror(28 if how == "full" else 5))
        real(fd)  # type: ignore[operator]

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", lambda fd: struck(fd, fdatasync))
        patched.setattr(os, "fsync", lambda fd: struck(fd, fsync))
        write(journal, 60)
        assert journal.last_seq == 65
        expected = {"missing": "Input/output", "full": "No space left", "hangs": "0.2 s|up to date"}[how]
        assert any(word in journal.mirror_state for word in expected.split("|")), journal.mirror_state
        go_on.set()
    said = [record.message for record in caplog.records if "not written any more" in record.message]
    assert len(said) == 1
    tries = 0
    while journal.mirror_state != "written":  # what hung may still be ending
        write(journal, 40)
        tries += 1
        assert tries < 1_000
    assert same(tmp_path)
    assert any("written again" in record.message for record in caplog.records)
    journal.close()
    assert verify_journal(tmp_path / "journal").whole


def test_a_place_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    """Where the folder above it is missing (a drive that is not mounted) nothing is made, and the box goes on."""
    place = tmp_path / "drive" / "mirror"
    journal = Journal(tmp_path / "journal", segment_bytes=SMALL, mirror=Mirror(place))
    write(journal, 3)
    assert journal.mirror_state == "No such file or directory"
    assert not place.parent.exists()
    place.parent.mkdir()
    journal.roll()
    write(journal, 3)
    assert journal.mirror_state == "written"
    assert files(place) == files(tmp_path / "journal")
    journal.close()


def test_a_journal_shorter_than_its_mirror_has_lost_its_end(tmp_path: Path) -> None:
    """What looks like a torn end is damage where the mirror has more: refused by name, then taken from there."""
    journal = open_journal(tmp_path)
    write(journal, 30)
    journal.close()
    path = segment_paths(tmp_path / "journal")[-1]
    frames = list(SegmentReader(path).frames())
    data = path.read_bytes()
    path.write_bytes(data[: frames[-3].offset] + b"\xff" * (len(data) - frames[-3].offset))
    with pytest.raises(LogDamaged, match=r"ends at event 27, its mirror at 30: the journal lost its end"):
        open_journal(tmp_path)
    made = make_plan(tmp_path / "journal", lambda seq: mirror.groups(tmp_path / "mirror", seq))
    assert (made.losses, made.taken) == ([], 3)
    carry_out(made, tmp_path / "journal", tmp_path / "damaged")
    journal = open_journal(tmp_path)
    assert (journal.last_seq, same(tmp_path)) == (30, True)
    journal.close()


@pytest.mark.parametrize(
    "what", ["whole", "gone", "emptied", "newest head", "no folder", "same boot", "in order"]
)
def test_an_end_that_no_mirror_can_tell_of_is_unproved(tmp_path: Path, what: str) -> None:
    """After a power cut the mirror says whether the journal lost its end; where it cannot be read, that is named."""
    journal = open_journal(tmp_path)
    write(journal, 30)
    if what == "in order":
        write_group(journal, [Event(31, BootStopped())])
    boot = next(read_groups(tmp_path / "journal"))[1].context.boot_id
    journal.close()
    if what == "newest head":
        newest = segment_paths(tmp_path / "mirror")[-1]
        newest.write_bytes(b"\xff" * 64 + newest.read_bytes()[64:])
    elif what != "whole":
        shutil.rmtree(tmp_path / "mirror")
    if what == "emptied":
        (tmp_path / "mirror").mkdir()
    elif what == "no folder":
        (tmp_path / "mirror").write_text("a file")
    journal = open_journal(tmp_path)
    journal.begin_life(boot if what == "same boot" else b"\1" * 16)
    proved = what in ("whole", "same boot", "in order")
    assert journal.unproved == (None if proved else (31, journal.next_seq - 1))
    journal.close()


@pytest.mark.parametrize("name", ["next.spare", "next.spare.part"])
@pytest.mark.parametrize("where", ["journal", "mirror", "journal mirror"])
def test_a_segment_that_lost_its_name_gets_it_back(tmp_path: Path, where: str, name: str) -> None:
    """A torn block of the file system's own may undo a rename that was durable: the spare file tells what it was."""
    journal = open_journal(tmp_path)
    write(journal, 30)
    journal.close()
    before = files(tmp_path / "journal")
    for place in where.split():
        segment_paths(tmp_path / place)[-1].rename(tmp_path / place / name)
    report = verify_journal(tmp_path / "journal")
    assert ("a segment that lost its name" in " ".join(report.problems)) == ("journal" in where)
    journal = open_journal(tmp_path)
    assert (journal.last_seq, files(tmp_path / "journal"), same(tmp_path)) == (30, before, True)
    write(journal, 30)
    journal.close()
    assert (verify_journal(tmp_path / "journal").problems, same(tmp_path)) == ([], True)


@pytest.mark.parametrize("what", ["zeros", "head", "older", "another log", "torn"])
def test_a_spare_that_is_no_segment_gets_no_name(tmp_path: Path, what: str) -> None:
    """A new file, one with a head and no group, one of a retired segment, of another log, or torn stays a spare."""
    journal = open_journal(tmp_path)
    write(journal, 30)
    journal.close()
    other = Journal(tmp_path / "other", segment_bytes=SMALL)
    write(other, 60)
    other.close()
    paths = segment_paths(tmp_path / "journal")
    newest = paths[-1].read_bytes()
    start = SegmentReader(paths[-1]).start
    if what in ("head", "torn"):
        paths[-1].unlink()
    held = {
        "zeros": bytes(SMALL),
        "head": newest[:start] + bytes(SMALL - start),
        "older": paths[0].read_bytes(),
        "another log": segment_paths(tmp_path / "other")[-1].read_bytes(),
        "torn": newest[: start + 5] + b"\xff" + newest[start + 6 :],
    }[what]
    (tmp_path / "journal" / "next.spare").write_bytes(held)
    before = segment_paths(tmp_path / "journal")
    assert segment_file.name_again(tmp_path / "journal") == ""
    assert segment_paths(tmp_path / "journal") == before


def test_a_mirror_of_another_log_is_not_touched(tmp_path: Path) -> None:
    """Two boxes' mirrors exchanged: a start refuses, and not a byte of the other log is changed."""
    for name in ("one", "other"):
        journal = open_journal(tmp_path / name)
        write(journal, 5)
        journal.close()
    before = files(tmp_path / "other" / "mirror")
    with pytest.raises(Misconfigured, match="another log's"):
        Journal(
            tmp_path / "one" / "journal", segment_bytes=SMALL, mirror=Mirror(tmp_path / "other" / "mirror")
        )
    fresh = Journal(tmp_path / "fresh", segment_bytes=SMALL, mirror=Mirror(tmp_path / "other" / "mirror"))
    assert "another log" in fresh.mirror_state
    fresh.close()
    assert files(tmp_path / "other" / "mirror") == before


def test_damage_in_the_mirror_is_named_and_mended(journal: Journal, tmp_path: Path) -> None:
    """A changed byte in an older file of the mirror is found by comparing, and made good from the journal."""
    write(journal, 60)
    path = segment_paths(tmp_path / "mirror")[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (problem,), end = mirror.differences(tmp_path / "journal", tmp_path / "mirror", journal.last_seq)
    assert path.name in problem
    assert end == journal.last_seq
    (tmp_path / "mirror" / f"{7:020d}.journal").write_bytes(data)
    assert mirror.restore(tmp_path / "journal", tmp_path / "mirror") == 2
    assert same(tmp_path)


def test_what_was_pruned_goes_from_the_mirror_too(journal: Journal, tmp_path: Path) -> None:
    """Segments that the journal let go are let go with the next change of segment."""
    write(journal, 60)
    segment_paths(tmp_path / "journal")[0].unlink()
    journal.roll()
    assert sorted(files(tmp_path / "mirror")) == sorted(files(tmp_path / "journal"))
