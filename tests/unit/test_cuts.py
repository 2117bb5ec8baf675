"""Where a log was cut is known beside the queue: what was lost is sealed again as it was."""

from __future__ import annotations

import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from edge.core.codec import encode
from edge.core.errors import LogDamaged, Misconfigured, StorageFailed
from edge.core.events import Event, StepDone
from edge.core.limits import MIB
from edge.security.signing import Signer
from edge.segments import cuts, sealing
from edge.segments.cuts import RECORD_BYTES, Cut, Cuts, read_head
from edge.segments.manifest import Manifest
from edge.segments.sealed import open_sealed
from edge.segments.sealing import Sealing, name_of, sealed_paths
from edge.store.blobs import BlobStore
from edge.store.journal import Journal
from edge.store.segment_file import segment_paths
from edge.store.upstream import Receipt
from edge.testing.history import write_group

SIGNER = Signer(bytes(range(32)))
ALL = 2**62


class Log:
    """A box's journal and its queue, sealed by hand at odd moments."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.queue = folder, folder / "sealed"
        self.journal = Journal(folder / "journal", segment_bytes=MIB)
        self.receipt: Receipt | None = None

    def sealing(self) -> Sealing:
        return Sealing(self.queue, SIGNER, "box-1", BlobStore(self.folder / "blobs"), lambda: self.receipt)

    def seal(self) -> list[Manifest]:
        made = self.sealing().seal(self.journal.folder, self.journal.last_seq, everything=True)
        return [manifest for _, manifest in made]

    def grow(self, segments: int) -> dict[str, bytes]:
        """So many segments more, of one to five events each; every file of the queue."""
        for number in range(segments):
            for _ in range(1 + number % 5):
                write_group(self.journal, [Event(self.journal.next_seq, StepDone(b"\x18\x2a"), 1)])
            assert len(self.seal()) == 1
        return self.files()

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sealed_paths(self.queue)}

    def receive(self, number: int) -> None:
        """The centre has everything up to that segment; what it has leaves the queue."""
        cut = Cuts(self.queue).all()[number]
        self.receipt = Receipt(cut.log_id, cut.last_seq, cut.link, cut.number, cut.id)
        for path in sealed_paths(self.queue)[: number + 1]:
            path.unlink()


def paired(cuts: list[Cut]) -> list[tuple[Cut | None, Cut]]:
    """Each with the one before it."""
    return list(zip((None, *cuts[:-1]), cuts, strict=True))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_a_lost_queue_is_sealed_again_to_the_same_bytes(log: Log) -> None:
    """Cuts by time are in no journal: without them the same events would be other segments under the same numbers."""
    before = log.grow(7)
    shutil.rmtree(log.queue)
    assert [each.number for each in log.seal()] == list(range(7))
    assert log.files() == before
    (log.queue / name_of(3)).unlink()
    (log.queue / name_of(6)).unlink()
    assert [each.number for each in log.seal()] == [3, 6]
    assert log.files() == before
    assert log.seal() == []


def test_new_events_go_on_after_what_was_lost(log: Log) -> None:
    """The queue is gone and there is news: the new segment has the next number, and names the one before it."""
    before = log.grow(4)
    shutil.rmtree(log.queue)
    write_group(log.journal, [Event(log.journal.next_seq, StepDone(b"\x01"), 1)])
    assert [each.number for each in log.seal()] == [4, 0, 1, 2, 3]
    after = log.files()
    newest = open_sealed(after.pop(name_of(4))).manifest
    assert after == before
    assert newest.previous == open_sealed(before[name_of(3)]).id


def test_what_is_receipted_while_it_is_sealed_is_not_sealed_again(log: Log) -> None:
    """Sync takes files away between the look at the folder and the sealing of what is lost: nothing is lost."""
    log.grow(4)
    sealing = log.sealing()
    write_group(log.journal, [Event(log.journal.next_seq, StepDone(b"\x01"), 1)])
    made = sealing.seal(log.journal.folder, log.journal.last_seq, everything=True)
    assert next(made)[1].number == 4
    log.receive(3)
    assert list(made) == []
    assert sorted(log.files()) == [name_of(4)]


def test_a_new_log_is_not_sealed_behind_an_old_one(log: Log, tmp_path: Path) -> None:
    """A new journal beside the old queue is said at once, not when its numbers have passed the old ones."""
    log.grow(9)
    log.journal.close()
    shutil.rmtree(tmp_path / "journal")
    log.journal = Journal(tmp_path / "journal", segment_bytes=MIB)
    write_group(log.journal, [Event(1, StepDone(b"\x01"), 1)])
    with pytest.raises(Misconfigured, match="The sealed segments are of log"):
        log.seal()


def test_what_was_delivered_stays_away_and_can_be_had(log: Log) -> None:
    """A receipted segment is not lost; who asks for it has it as it was, and the queue is left alone."""
    before = log.grow(6)
    log.receive(3)
    assert log.seal() == []
    assert sorted(log.files()) == [name_of(4), name_of(5)]
    made = {name_of(said.number): data for said, data in log.sealing().seal_delivered(log.journal.folder)}
    assert made == {name: data for name, data in before.items() if name < name_of(4)}
    assert sorted(log.files()) == [name_of(4), name_of(5)]


def test_what_the_journal_no_longer_has_is_not_made_up(tmp_path: Path) -> None:
    """Pruned up to the middle of a segment: that one and all before it are gone, those behind are sealed again."""
    log = Log(tmp_path)
    log.journal = Journal(tmp_path / "journal", segment_bytes=4096)
    before = log.grow(60)
    first, *rest = segment_paths(log.journal.folder)
    assert rest
    first.unlink()
    begin = int(rest[0].stem)
    whole = [name for name, data in before.items() if open_sealed(data).manifest.first_seq >= begin]
    shutil.rmtree(log.queue)
    log.seal()
    assert sorted(log.files()) == whole
    assert all(log.files()[name] == before[name] for name in whole)
    assert log.seal() == []


def test_another_release_seals_the_same_events_under_another_id(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name stands in the manifest. What follows names the new id, and the cut is known by it from then on."""
    before = log.grow(3)
    (log.queue / name_of(1)).unlink()
    monkeypatch.setattr(sealing, "VERSION", "9.9.9")
    assert [each.number for each in log.seal()] == [1]
    anew = open_sealed(log.files()[name_of(1)])
    old = open_sealed(before[name_of(1)])
    assert anew.id != old.id
    assert anew.manifest.same_events(old.manifest)
    assert Cuts(log.queue).all()[1].id == anew.id
    after = open_sealed(before[name_of(2)]).manifest
    assert after.follows(anew.id, anew.manifest.last_seq, anew.manifest.link_after)
    assert log.seal() == []


def test_a_journal_of_other_events_is_not_sealed_under_old_cuts(log: Log) -> None:
    """The chain's link stands in each cut: events that do not lead there are nobody's lost segment."""
    log.grow(3)
    shutil.rmtree(log.queue)
    wrong = [replace(cut, link=bytes(32)) for cut in Cuts(log.queue).all().values() if cut.number < 2]
    Cuts(log.queue).add([(None, cut) for cut in wrong])
    assert log.seal() == []
    assert log.files() == {}


@pytest.mark.parametrize("left", ["queue", "receipt", "head"])
def test_lost_cuts_are_found_elsewhere(log: Log, left: str) -> None:
    """The queue's own files, the receipt, or the note of an older release: sealing goes on after what they say."""
    before = log.grow(5)
    end = read_head(log.queue)
    assert end is not None
    if left == "receipt":
        log.receive(4)
    if left == "head":
        log.queue.joinpath(cuts.OLD_HEAD_FILE).write_bytes(
            encode([end.log_id, end.number, end.id, end.last_seq, end.link])
        )
        for path in sealed_paths(log.queue):
            path.unlink()
    Cuts(log.queue).path.unlink()
    assert (read_head(log.queue) == end) == (left == "head")
    assert log.seal() == []
    assert read_head(log.queue) == end
    log.grow(1)
    assert open_sealed(log.files()[name_of(5)]).manifest.previous == open_sealed(before[name_of(4)]).id
    assert not log.queue.joinpath(cuts.OLD_HEAD_FILE).exists()


@pytest.mark.parametrize("kept", range(RECORD_BYTES))
def test_a_torn_cut_was_never_there(tmp_path: Path, kept: int) -> None:
    """Any part of a record at the end, or one that was not flushed whole, is left out and written over."""
    mine = Cuts(tmp_path / "sealed")
    made = [Cut(b"l" * 8, number, bytes([number]) * 32, 10 * number, b"k" * 32) for number in range(3)]
    mine.add(paired(made)[:2])
    data = mine.path.read_bytes()
    mine.path.write_bytes(data[: RECORD_BYTES + kept])
    assert list(mine.all().values()) == made[:1]
    mine.add(paired(made)[2:])
    assert list(mine) == [made[0], made[2]]
    assert list(mine.all().values()) == made, "the last one names the one before it"
    assert mine.path.stat().st_size == 2 * RECORD_BYTES
    mine.path.write_bytes(data[: RECORD_BYTES + kept] + bytes(RECORD_BYTES - kept))
    assert list(mine.all().values()) == made[:1]


@pytest.mark.parametrize("rotten", range(5))
@pytest.mark.parametrize("lost", ["one", "all"])
def test_a_cut_that_rots_is_known_by_the_next(log: Log, rotten: int, lost: str) -> None:
    """Any record but the last: the segment is sealed again as it was, and so are its neighbours."""
    before = log.grow(6)
    path = Cuts(log.queue).path
    data = bytearray(path.read_bytes())
    data[rotten * RECORD_BYTES + 20] ^= 1
    path.write_bytes(data)
    for each in sealed_paths(log.queue):
        if lost == "all" or each.name == name_of(rotten):
            each.unlink()
    log.seal()
    assert log.files() == before


def test_the_layout_of_a_record_stays(tmp_path: Path) -> None:
    """164 bytes that a later release must read: the cut, the one before it, and a CRC-32 of both, little-endian."""
    before = Cut(b"log-id-8", 6, b"\6" * 32, 690, b"\x66" * 32)
    cut = Cut(b"log-id-8", 7, b"\7" * 32, 777, b"\x77" * 32)
    mine = Cuts(tmp_path / "sealed")
    mine.add([(before, cut)])
    body = (
        b"log-id-8" + (7).to_bytes(8, "little") + (777).to_bytes(8, "little") + b"\7" * 32 + b"\x77" * 32
        + (690).to_bytes(8, "little") + b"\6" * 32 + b"\x66" * 32
    )  # fmt: skip
    assert mine.path.read_bytes() == body + zlib.crc32(body).to_bytes(4, "little")
    assert mine.path.name == "sealed.cuts"
    assert mine.all() == {6: before, 7: cut}


def test_cuts_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    """A folder in its place is said so, and nothing is taken for an empty log."""
    mine = Cuts(tmp_path / "sealed")
    mine.path.mkdir()
    with pytest.raises(LogDamaged, match="cannot be read"):
        mine.all()
    with pytest.raises(StorageFailed, match="could not be written"):
        mine.add([(None, Cut(b"l" * 8, 0, bytes(32), 1, bytes(32)))])


def test_what_is_long_pruned_is_forgotten(tmp_path: Path) -> None:
    """Once there are very many, those below the journal's first event go but for the last; few are left alone."""
    mine = Cuts(tmp_path / "sealed")
    made = [Cut(b"l" * 8, number, bytes(32), 10 * number + 9, b"k" * 32) for number in range(4000)]
    mine.add(paired(made)[:100])
    mine.forget_before(900)
    assert len(mine.all()) == 100
    mine.add(paired(made)[100:])
    mine.forget_before(15_000)
    assert len(mine.all()) == 4000
    mine.forget_before(30_000)
    assert list(mine.all().values()) == made[2999:]
