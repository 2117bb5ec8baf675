"""A sequence number is given to one event only, whatever was lost with a cut, by a drive that lies, or by damage."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from edge.core.clock import Reading, SystemClock
from edge.core.errors import LogDamaged
from edge.core.events import BootStarted, BootStopped, Event, Gap
from edge.core.limits import KIB, NUMBERS_SKIPPED_MIN
from edge.runtime.commit.gate import CommitGate
from edge.runtime.daemon import catch_up
from edge.store.blobs import BlobStore
from edge.store.eventlog import EventLog
from edge.store.journal import Journal, read_groups
from edge.store.recovery import carry_out, make_plan
from edge.store.segment_file import SegmentReader, segment_paths
from edge.store.verify import compare_index, verify_journal
from edge.testing.box import BOOT_ID
from edge.testing.history import write_group

SMALL = 4 * KIB
OTHER_BOOT = bytes(16)


def life(folder: Path, events: int, boot: bytes = BOOT_ID, *, in_order: bool = False) -> list[int]:
    """One life of a journal, `events` written in groups of one; their numbers."""
    journal = Journal(folder, segment_bytes=SMALL)
    journal.begin_life(boot)
    numbers = []
    for _ in range(events):
        numbers.append(journal.next_seq)
        write_group(journal, [Event(journal.next_seq, Gap(1, 1, "x" * 30))])
    if in_order:
        numbers.append(journal.next_seq)
        write_group(journal, [Event(journal.next_seq, BootStopped())])
    journal.close()
    return numbers


def next_number(folder: Path, boot: bytes = BOOT_ID) -> int:
    """What a start would go on with; nothing is written."""
    journal = Journal(folder, segment_bytes=SMALL)
    journal.begin_life(boot)
    journal.close()
    return journal.next_seq


def test_numbers_go_on_only_after_an_end_in_order_in_this_boot(tmp_path: Path) -> None:
    """A fresh log begins at 1; a boot goes on after its own end in order, any other end is followed by a jump."""
    folder = tmp_path / "journal"
    assert life(folder, 2, in_order=True) == [1, 2, 3]
    assert next_number(folder) == 4
    assert next_number(folder, OTHER_BOOT) > NUMBERS_SKIPPED_MIN
    assert life(folder, 1) == [4]
    assert next_number(folder) == 2_000_001


def test_a_torn_end_is_not_given_again(tmp_path: Path) -> None:
    """Whatever a frame that was cut off carried, no start gives its numbers to others."""
    folder = tmp_path / "journal"
    life(folder, 5, in_order=True)
    (path,) = segment_paths(folder)
    last = list(SegmentReader(path).frames())[-1]
    whole = path.read_bytes()
    for cut in range(last.offset + 1, last.end):
        path.write_bytes(whole[:cut] + bytes(len(whole) - cut))
        assert next_number(folder) > last.first_seq + NUMBERS_SKIPPED_MIN / 2


def test_a_log_nobody_wrote_into_is_not_begun_again(tmp_path: Path) -> None:
    """A log that is there and has no event may have lost all of them: it does not begin at 1 again."""
    folder = tmp_path / "journal"
    Journal(folder, segment_bytes=SMALL).close()
    assert next_number(folder) > NUMBERS_SKIPPED_MIN


def test_a_jump_is_no_loss(tmp_path: Path) -> None:
    """Numbers that jump are whole for reading, verification, the index and mending; an event gone there is named."""
    folder = tmp_path / "journal"
    given = [seq for boot in (BOOT_ID, BOOT_ID, OTHER_BOOT, BOOT_ID) for seq in life(folder, 30, boot)]
    assert len(set(given)) == len(given) == 120
    assert [event.seq for _, group, _ in read_groups(folder) for event in group.events()] == given
    report = verify_journal(folder)
    assert (report.problems, report.events, report.lost, len(report.skipped)) == ([], 120, [], 3)
    assert report.skipped[0] == (given[29] + 1, given[30] - 1)
    journal, index = Journal(folder, segment_bytes=SMALL), EventLog(tmp_path / "index")
    assert catch_up(journal, index) == 120
    assert [index.event(seq).seq for seq in given] == given
    groups = [(group.first_seq, key, data) for key, group, data in index.groups()]
    compare_index(folder, groups, report)
    assert report.whole
    assert make_plan(folder, lambda _: []).nothing_to_do
    assert make_plan(folder, lambda seq: [g for g in groups if g[0] >= seq]).nothing_to_do
    index.close()
    journal.close()


def frame_gone(folder: Path, first_seq: int) -> None:
    """Take one frame out, and close the room: no byte says that it was there."""
    for path in segment_paths(folder):
        data = path.read_bytes()
        for frame in SegmentReader(path).frames():
            if frame.first_seq == first_seq:
                kept = data[: frame.offset] + data[frame.end :]
                path.write_bytes(kept.ljust(len(data), b"\0"))


@pytest.mark.parametrize("place", [9, 10])
def test_an_event_gone_beside_a_jump_is_named(tmp_path: Path, place: int) -> None:
    """The last event before a jump, or the first after it, is gone: opening, reading, verifying, mending see it."""
    folder = tmp_path / "journal"
    given = [*life(folder, 10), *life(folder, 10)]
    frame_gone(folder, given[place])
    with pytest.raises(LogDamaged, match="missing"):
        Journal(folder, segment_bytes=SMALL)
    with pytest.raises(LogDamaged, match="cannot be read"):
        list(read_groups(folder))
    (problem,) = verify_journal(folder).problems
    assert "has a hole" in problem
    (loss,) = make_plan(folder, lambda _: []).losses
    assert loss.first <= given[place] <= loss.last


def test_a_last_segment_that_is_destroyed_is_a_loss(tmp_path: Path) -> None:
    """Nobody knows how much it held: it is named as lost with room beyond, and the log goes on above it."""
    folder = tmp_path / "journal"
    given = life(folder, 60)
    path = segment_paths(folder)[-1]
    first = int(path.stem)
    path.write_bytes(b"\xff" * SMALL)
    made = make_plan(folder, lambda _: [])
    (loss,) = made.losses
    assert (loss.first, loss.last > given[-1] + NUMBERS_SKIPPED_MIN / 2) == (first, True)
    carry_out(made, folder, tmp_path / "damaged")
    report = verify_journal(folder)
    assert (report.problems, report.lost) == ([], [(loss.first, loss.last)])
    assert make_plan(folder, lambda _: []).nothing_to_do
    assert min(life(folder, 3)) > loss.last


@pytest.mark.parametrize("kept", [0, 3, 17])
def test_a_drive_that_lies_gets_no_number_given_twice(tmp_path: Path, kept: int) -> None:
    """Acknowledged events that a lying drive dropped at a cut: the next life gives none of their numbers again."""
    box = tmp_path / "box"
    told = _gate_life(box, kept + 1, copy_after=kept + 1, copy=tmp_path / "drive", boot=BOOT_ID)
    told += _gate_life(box, 40, boot=BOOT_ID)
    again = _gate_life(tmp_path / "drive", 60, boot=OTHER_BOOT)
    assert not {seq for seq, _ in told} & {seq for seq, _ in again}
    assert verify_journal(tmp_path / "drive" / "journal").whole


class _Still(SystemClock):
    def read(self) -> Reading:
        return Reading(1, 1, 0)


def _gate_life(
    folder: Path, events: int, *, boot: bytes, copy_after: int = 0, copy: Path | None = None
) -> list[tuple[int, bytes]]:
    """A life of real homes that is ended by a signal: what was told of each event, its number and link."""
    told: list[tuple[int, bytes]] = []

    async def live() -> None:
        journal, index = Journal(folder / "journal", segment_bytes=SMALL), EventLog(folder / "index")
        catch_up(journal, index)
        journal.begin_life(boot)
        gate = CommitGate(
            journal, index, BlobStore(folder / "blobs"), _Still(), boot, on_failure=lambda error: None
        )
        for number in range(events):
            event = gate.append(BootStarted("x", f"{boot.hex()}-{number}"))
            gate.after(event.seq, lambda link, seq=event.seq: told.append((seq, link)))  # type: ignore[misc]
            await gate.flushed()
            if number + 1 == copy_after and copy is not None:
                shutil.copytree(folder / "journal", copy / "journal")
        await gate.close()
        index.close()
        journal.close()

    asyncio.run(live())
    return told
