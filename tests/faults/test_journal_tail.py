"""Power cuts and damage, at every byte: what the journal makes of a torn end and of a broken middle."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from edge.core.chain import seal_group
from edge.core.errors import LogDamaged
from edge.core.events import BootStopped, Event, Gap
from edge.core.limits import KIB
from edge.store.journal import Journal, read_groups
from edge.store.numbers import told_range
from edge.store.segment_file import Frame, SegmentReader, group_frame, segment_paths
from edge.store.verify import verify_journal
from edge.testing.history import write_group

SMALL = 2 * KIB


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal of four groups of two events in one small segment."""
    journal = Journal(tmp_path, segment_bytes=SMALL)
    for number in range(4):
        first = journal.last_seq + 1
        write_group(journal, [Event(first, Gap(number, number, "why")), Event(first + 1, BootStopped())])
    journal.close()
    return tmp_path


def only_path(folder: Path) -> Path:
    (path,) = segment_paths(folder)
    return path


def frames(path: Path) -> list[Frame]:
    return list(SegmentReader(path).frames())


def reopen(folder: Path) -> tuple[int, bytes]:
    journal = Journal(folder, segment_bytes=SMALL)
    try:
        return journal.last_seq, journal.last_link
    finally:
        journal.close()


@pytest.mark.parametrize("how", ["truncated", "zeroed", "garbled", "old bytes"])
def test_a_cut_at_every_byte_of_the_last_frame_leaves_the_prefix(folder: Path, how: str) -> None:
    """Wherever the last write was cut, reopening gives exactly the groups before it, and goes on from there."""
    path = only_path(folder)
    whole = path.read_bytes()
    last = frames(path)[-1]
    path.write_bytes(whole[: last.offset] + bytes(SMALL - last.offset))
    expected = reopen(folder)
    assert expected[0] == 6
    for cut in range(last.offset, last.end):
        kept = whole[:cut]
        rest = {
            "truncated": b"",
            "zeroed": bytes(SMALL - cut),
            "garbled": bytes([whole[cut] ^ 0xFF]) + whole[cut + 1 : last.end] + bytes(SMALL - last.end),
            "old bytes": Random(cut).randbytes(last.end - cut) + bytes(SMALL - last.end),
        }[how]
        path.write_bytes(kept + rest)
        assert reopen(folder) == expected, f"cut at byte {cut}"
        # What was torn is gone for good: the next life of this place starts from zeros.
        assert not any(path.read_bytes()[last.offset :])
    journal = Journal(folder, segment_bytes=SMALL)
    write_group(journal, [Event(7, BootStopped())])
    journal.close()
    assert reopen(folder)[0] == 7
    assert verify_journal(folder).whole


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_flipped_byte_in_any_earlier_frame_is_refused_by_name(folder: Path, which: int) -> None:
    """Damage before a sound frame is never skipped: opening and verifying name the first and last lost event."""
    path = only_path(folder)
    whole = path.read_bytes()
    frame = frames(path)[which]
    first, last = 2 * which + 1, 2 * which + 2
    for place in range(frame.offset, frame.end):
        damaged = bytearray(whole)
        damaged[place] ^= 0x04
        path.write_bytes(damaged)
        with pytest.raises(LogDamaged, match=f"{told_range(first, last)} cannot be read"):
            reopen(folder)
        (problem,) = verify_journal(folder).problems
        assert told_range(first, last) in problem
        assert path.read_bytes() == damaged, "a damaged journal is left as it is"


def test_a_lost_frame_between_two_sound_ones_is_refused(folder: Path) -> None:
    """A frame that reads well but does not follow is LogDamaged: its neighbour is missing."""
    path = only_path(folder)
    whole, found = path.read_bytes(), frames(path)
    path.write_bytes(whole[: found[1].offset] + whole[found[1].end :] + bytes(found[1].end - found[1].offset))
    with pytest.raises(LogDamaged, match="event 3 is missing before event 5"):
        reopen(folder)


def test_a_frame_with_a_right_checksum_and_a_wrong_chain_is_refused(folder: Path) -> None:
    """A group rewritten with a fitting checksum does not get past the chain."""
    path = only_path(folder)
    reader = SegmentReader(path)
    found = list(reader.frames())
    _, group, _ = next(read_groups(folder, 6))
    forged = seal_group(7, bytes(32), group.context, reader.header.epoch_key, group.parts)
    frame = group_frame(reader.header, 7, 2, forged.data)
    assert len(frame) == found[3].end - found[3].offset
    whole = path.read_bytes()
    path.write_bytes(whole[: found[3].offset] + frame + whole[found[3].end :])
    with pytest.raises(LogDamaged, match="The chain breaks at event 7"):
        reopen(folder)
    assert "The chain breaks at event 7" in verify_journal(folder).problems[0]


def test_frames_of_another_life_are_not_accepted(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Sound frames of another log, or of the same file's earlier life, count as nothing."""
    path = only_path(folder)
    whole, found = path.read_bytes(), frames(path)
    other = tmp_path_factory.mktemp("other")
    journal = Journal(other, segment_bytes=SMALL)
    for seq in range(1, 9):
        write_group(journal, [Event(seq, BootStopped())])
    journal.close()
    foreign_path = only_path(other)
    foreign = frames(foreign_path)
    stale = foreign_path.read_bytes()[foreign[6].offset : foreign[7].end]
    path.write_bytes((whole[: found[-1].end] + stale).ljust(SMALL, b"\x00"))
    assert reopen(folder)[0] == 8
    assert path.read_bytes() == whole


def test_a_torn_frame_before_foreign_frames_is_a_torn_tail(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A torn frame with stale frames of another log behind it is a torn end, not damage in the middle."""
    path = only_path(folder)
    whole, found = path.read_bytes(), frames(path)
    other = tmp_path_factory.mktemp("other")
    journal = Journal(other, segment_bytes=SMALL)
    write_group(journal, [Event(1, BootStopped())])
    journal.close()
    frame = frames(only_path(other))[0]
    stale = only_path(other).read_bytes()[frame.offset : frame.end]
    torn = bytearray(whole[: found[-1].end])
    torn[-1] ^= 1
    path.write_bytes((bytes(torn) + stale).ljust(SMALL, b"\x00"))
    assert reopen(folder)[0] == 6


def test_a_frame_inside_a_payload_is_never_taken_for_one(folder: Path) -> None:
    """A caller who knows log id and numbers cannot plant a frame in a payload that turns a torn end into damage."""
    path = only_path(folder)
    header = SegmentReader(path).header
    guess = type(header)(header.log_id, header.first_seq, bytes(32), bytes(32))
    planted = group_frame(guess, 10, 1, b"anything")
    end = frames(path)[-1].end
    whole = bytearray(path.read_bytes())
    torn_group = bytes(60) + planted + bytes(60)
    whole[end : end + len(torn_group)] = torn_group
    path.write_bytes(whole)
    assert reopen(folder)[0] == 8


@pytest.mark.parametrize("how", ["file gone", "header zeroed", "frames zeroed"])
def test_damage_in_an_earlier_segment_is_named_by_verification(tmp_path: Path, how: str) -> None:
    """A missing or emptied segment in the middle is named with the events it held."""
    journal = Journal(tmp_path, segment_bytes=SMALL)
    for seq in range(1, 61):
        write_group(journal, [Event(seq, Gap(seq, seq, "x" * 50))])
    journal.close()
    paths = segment_paths(tmp_path)
    first, after = int(paths[1].stem), int(paths[2].stem)
    data = paths[1].read_bytes()
    if how == "file gone":
        paths[1].unlink()
    elif how == "header zeroed":
        paths[1].write_bytes(bytes(64) + data[64:])
    else:
        start = SegmentReader(paths[1]).start
        paths[1].write_bytes(data[:start] + bytes(len(data) - start))
    report = verify_journal(tmp_path)
    assert any(f"{told_range(first, after - 1)} cannot be found" in problem for problem in report.problems)
    assert report.last_seq == 60


def test_a_garbled_end_of_an_earlier_segment_is_named(tmp_path: Path) -> None:
    """An earlier segment whose last frame is torn is named, and the events after it are still checked."""
    journal = Journal(tmp_path, segment_bytes=SMALL)
    for seq in range(1, 61):
        write_group(journal, [Event(seq, Gap(seq, seq, "x" * 50))])
    journal.close()
    path = segment_paths(tmp_path)[1]
    last = frames(path)[-1]
    data = bytearray(path.read_bytes())
    data[last.end - 1] ^= 1
    path.write_bytes(data)
    problems = verify_journal(tmp_path).problems
    assert any(f"{path.name} ends in bytes that are no event" in problem for problem in problems)
    assert any(f"event {last.first_seq} cannot be found" in problem for problem in problems)
