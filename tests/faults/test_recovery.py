"""A damaged journal beside another home: what either holds is kept, what neither holds is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from random import Random

import pytest

from edge.core.errors import LogDamaged, StorageFailed
from edge.core.events import Event, Gap
from edge.core.limits import KIB
from edge.store import recovery
from edge.store.journal import Journal, read_groups
from edge.store.recovery import Loss, Other, StoredGroup, carry_out, make_plan
from edge.store.segment_file import SegmentReader, group_frame, segment_paths
from edge.store.verify import verify_journal
from edge.testing.history import write_group

SMALL = 1 * KIB


def written(folder: Path, groups: int = 40) -> None:
    """A journal of groups of one to three events over many small segments, in several lives: numbers jump."""
    folder.mkdir()
    chance = Random(groups)
    journal = Journal(folder, segment_bytes=SMALL)
    for number in range(groups):
        if number % 9 == 5:
            journal.close()
            journal = Journal(folder, segment_bytes=SMALL)
            journal.begin_life(b"")
        if number == 23:
            journal.roll()  # a jump between two segments
        first = journal.next_seq
        write_group(
            journal,
            [Event(first + n, Gap(1, 1, "x" * chance.randint(1, 40))) for n in range(chance.randint(1, 3))],
        )
    journal.close()


def groups_of(folder: Path) -> list[StoredGroup]:
    return [(group.first_seq, header.epoch_key, data) for header, group, data in read_groups(folder)]


def last_of(group: StoredGroup) -> int:
    return recovery.open_group(group[0], group[2]).last_seq


def home(groups: Iterable[StoredGroup]) -> Other:
    """Another home with these groups."""
    held = sorted(groups)
    return lambda from_seq: (group for group in held if last_of(group) >= from_seq)


def sound(folder: Path) -> set[int]:
    """First numbers of all groups that can still be read in a journal, those behind damage as well."""
    found = set()
    for path in segment_paths(folder):
        try:
            found |= {frame.first_seq for frame in SegmentReader(path).all_frames()}
        except LogDamaged:
            continue
    return found


def damage(folder: Path, chance: Random) -> None:
    """One of what drives and people do to files."""
    path = chance.choice(segment_paths(folder))
    data = bytearray(path.read_bytes())
    match chance.randrange(5):
        case 0:
            path.unlink()
            return
        case 1:
            del data[chance.randrange(len(data)) :]
        case 2:
            at = chance.randrange(len(data))
            data[at : at + 256] = b"\xff" * len(data[at : at + 256])
        case 3:
            at = chance.randrange(len(data)) // 128 * 128
            data[at : at + 128] = bytes(len(data[at : at + 128]))
        case _:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def check_mended(folder: Path, expected: dict[int, StoredGroup], whole: dict[int, StoredGroup]) -> None:
    """The journal holds exactly the expected groups, every other number is named, and it can be written on."""
    report = verify_journal(folder)
    assert not report.problems
    assert {group[0]: group for group in groups_of(folder)} == expected
    missing = {seq for first in whole.keys() - expected for seq in range(first, last_of(whole[first]) + 1)}
    kept_to = max(last_of(group) for group in expected.values())
    kept_from = min(expected)
    held = {seq for first, group in expected.items() for seq in range(first, last_of(group) + 1)}

    def named(seq: int) -> bool:
        return any(first <= seq <= last for first, last in report.lost)

    assert all(named(seq) for seq in missing if kept_from < seq < kept_to)
    assert not any(named(seq) for seq in held)
    for (
        first,
        last,
    ) in report.lost:  # no loss is named where none was: beside a jump, and where the end is lost
        assert last > kept_to or any(first <= seq <= last for seq in missing), (first, last)
    journal = Journal(folder, segment_bytes=SMALL)
    assert journal.last_seq == kept_to or report.lost[-1][1] == journal.last_seq > kept_to
    write_group(journal, [Event(journal.next_seq, Gap(1, 1, "on"))])
    journal.close()
    assert not verify_journal(folder).problems


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole journal; copied by each test."""
    folder = tmp_path_factory.mktemp("whole") / "journal"
    written(folder)
    return folder


@pytest.mark.parametrize("seed", range(40))
def test_what_any_home_holds_is_kept_and_the_rest_named(seed: int, log: Path, tmp_path: Path) -> None:
    """After any damage: the union of both homes, the numbers of neither named, and nothing left to mend."""
    chance = Random(seed)
    folder = shutil.copytree(log, tmp_path / "journal")
    groups = groups_of(folder)
    whole = {group[0]: group for group in groups}
    # The index is behind the journal; sometimes it is empty, sometimes pieces of it are lost.
    held = groups[: chance.choice([0, len(groups) // 2, len(groups) - 3])]
    held = [group for group in held if chance.random() > (0.1 if seed % 3 == 0 else 0)]
    for _ in range(chance.randint(1, 4)):
        damage(folder, chance)
    log_id = SegmentReader(segment_paths(folder)[0]).header.log_id if not held and sound(folder) else None
    kept = {group[0] for group in held}
    # A header that cannot be read takes its epoch key along, unless another home knows it.
    kept |= {first for first in sound(folder) if first in whole}
    made = make_plan(folder, home(held), log_id or b"")
    carry_out(made, folder, tmp_path / "damaged")
    held_now = {group[0] for group in groups_of(folder)}
    assert kept <= held_now
    check_mended(folder, {first: whole[first] for first in held_now}, whole)
    again = make_plan(folder, home([]))
    assert (again.nothing_to_do, again.losses) == (True, [])


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("seed", [3, 8, 21])
def test_killed_anywhere_the_same_again_ends_the_same(
    seed: int, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mending that is cut off before any change to the folders is carried on by the next, with nothing more lost."""
    damaged = shutil.copytree(log, tmp_path / "damaged-before")
    chance = Random(seed)
    for _ in range(3):
        damage(damaged, chance)
    other = home(groups_of(log)[: 20 if seed % 2 else 0])
    expected = mended(damaged, other, tmp_path / "straight")
    cut_at = 0
    while True:
        cut_at += 1
        folder = shutil.copytree(damaged, tmp_path / f"cut{cut_at}" / "journal")
        with monkeypatch.context() as patched:
            if not kill_at(patched, cut_at, partial(mended_in, folder, other)):
                break
        assert mended_in(folder, other) == expected
        assert verify_journal(folder).whole
    assert cut_at > 8, "nothing was cut"


def mended(damaged: Path, other: Other, to: Path) -> dict[int, StoredGroup]:
    return mended_in(shutil.copytree(damaged, to / "journal"), other)


def mended_in(folder: Path, other: Other) -> dict[int, StoredGroup]:
    """Plan and carry out; every group that is there then."""
    carry_out(make_plan(folder, other), folder, folder.parent / "damaged")
    return {group[0]: group for group in groups_of(folder)}


def kill_at(patched: pytest.MonkeyPatch, cut_at: int, act: Callable[[], object]) -> bool:
    """Act, ending before the given call that changes a folder; whether it came so far."""
    calls = 0

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object) -> object:
            nonlocal calls
            calls += 1
            if calls == cut_at:
                raise Killed
            return real(*given)

        return call

    for name in ("link", "rename", "unlink", "open", "write"):
        patched.setattr(recovery.os, name, counted(getattr(os, name)))
    try:
        act()
    except Killed:
        return True
    return False


def test_a_changed_log_is_refused(log: Path, tmp_path: Path) -> None:
    """A chain that breaks where no number is missing is not mended: somebody changed the log."""
    folder = shutil.copytree(log, tmp_path / "journal")
    path = segment_paths(folder)[3]
    reader = SegmentReader(path)
    frame = next(reader.frames())
    changed = frame.data[:-1] + bytes([frame.data[-1] ^ 1])
    data = bytearray(path.read_bytes())
    data[frame.offset : frame.end] = group_frame(reader.header, frame.first_seq, frame.count, changed)
    path.write_bytes(data)
    with pytest.raises(LogDamaged, match="was changed by somebody"):
        make_plan(folder, home([]))
    made = make_plan(folder, home(groups_of(log)))
    assert (made.losses, made.taken) == ([], frame.count)


def test_homes_of_two_logs_are_not_mixed(log: Path, tmp_path: Path) -> None:
    """An index of another log is refused by name, and groups of another log join nothing."""
    with pytest.raises(LogDamaged, match="different logs"):
        make_plan(log, home([]), b"elsewhere")
    written(tmp_path / "elsewhere")
    folder = shutil.copytree(log, tmp_path / "journal")
    segment_paths(folder)[2].unlink()
    made = make_plan(folder, home(groups_of(tmp_path / "elsewhere")))
    assert (made.taken, len(made.losses)) == (0, 1)


def test_a_copy_that_is_damaged_itself_is_not_taken(log: Path, tmp_path: Path) -> None:
    """The index has no checksums: a changed group of it does not join what follows, and is lost, not believed."""
    folder = shutil.copytree(log, tmp_path / "journal")
    groups = groups_of(folder)
    segment_paths(folder)[2].unlink()
    gone = next(group for group in groups if group[0] not in sound(folder))
    first, key, data = gone
    changed = data[:-1] + bytes([data[-1] ^ 1])
    made = make_plan(folder, home([changed_or(group, gone, (first, key, changed)) for group in groups]))
    assert made.losses == [Loss(first, last_of(gone))]


def changed_or(group: StoredGroup, gone: StoredGroup, changed: StoredGroup) -> StoredGroup:
    return changed if group == gone else group


def test_what_cannot_be_written_is_said(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full drive ends mending with an error, and the damaged files are as they were."""
    folder = shutil.copytree(log, tmp_path / "journal")
    damage(folder, Random(3))
    before = {path.name: path.read_bytes() for path in segment_paths(folder)}
    made = make_plan(folder, home([]))

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recovery.os, "rename", full)
    with pytest.raises(StorageFailed, match="No space left"):
        carry_out(made, folder, tmp_path / "damaged")
    assert {path.name: path.read_bytes() for path in segment_paths(folder)} == before


@pytest.mark.parametrize("header_only", [False, True])
def test_a_life_that_wrote_nothing_left_no_gap(tmp_path: Path, header_only: bool) -> None:
    """Numbers jumped before the first event ever: where the chain begins, nothing before it can be lost."""
    folder = tmp_path / "journal"
    Journal(folder, segment_bytes=SMALL).close()
    journal = Journal(folder, segment_bytes=SMALL)
    journal.begin_life(b"another boot")
    first = journal.next_seq
    assert first > 1
    write_group(journal, [Event(first, Gap(1, 1, "x"))])
    log_id = journal.log_id
    journal.close()
    held = groups_of(folder)
    [path] = segment_paths(folder)
    if header_only:
        path.write_bytes(b"\xff" + path.read_bytes()[1:])
    else:
        path.unlink()
    made = make_plan(folder, home(held), log_id)
    assert all(loss.first > first for loss in made.losses), "its end may be lost, not its beginning"
    carry_out(made, folder, tmp_path / "kept")
    assert groups_of(folder) == held
    assert verify_journal(folder).problems == []
    assert make_plan(folder, home(held), log_id).nothing_to_do
