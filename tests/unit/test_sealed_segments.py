"""Sealed segments: made from a journal, one after the other, and refused in words where a byte is another."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from edge.core.chain import GENESIS
from edge.core.errors import LogDamaged, Misconfigured, SegmentRejected, StorageFailed
from edge.core.events import BootStarted, Event, ExecutionRequested, Gap, StepDone
from edge.core.limits import MIB, SEALED_EVENTS
from edge.security.signing import Signer, fingerprint, signed_by
from edge.segments.cuts import Cuts
from edge.segments.manifest import NO_SEGMENT, URGENT, Manifest
from edge.segments.packing import PLAIN
from edge.segments.sealed import open_sealed, sealed_bytes
from edge.segments.sealing import Sealing, sealed_paths
from edge.store.blobs import BlobStore
from edge.store.journal import Journal, read_groups
from edge.store.recovery import carry_out, make_plan
from edge.store.segment_file import SegmentReader, segment_paths
from edge.store.upstream import Receipt
from edge.testing.history import write_group

SIGNER = Signer(bytes(range(32)))
ALL = 2**62


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal", segment_bytes=MIB)


def write(journal: Journal, groups: int, events_each: int = 5) -> None:
    for _ in range(groups):
        first = journal.next_seq
        write_group(
            journal, [Event(first + n, StepDone(b"\x18\x2a", arc=0), first) for n in range(events_each)]
        )


def sealing(folder: Path, signer: Signer = SIGNER) -> Sealing:
    return Sealing(folder / "sealed", signer, "box-1", BlobStore(folder / "blobs"))


def seal(folder: Path, through: int = ALL, *, everything: bool = True) -> list[Manifest]:
    return [made for _, made in sealing(folder).seal(folder / "journal", through, everything=everything)]


def stored(folder: Path) -> list[bytes]:
    return [data for _, _, data in read_groups(folder / "journal")]


def unsealed(folder: Path) -> list[bytes]:
    return [
        each.stored.data
        for path in sealed_paths(folder / "sealed")
        for each in open_sealed(path.read_bytes()).groups()
    ]


def test_every_group_is_in_one_segment(journal: Journal, tmp_path: Path) -> None:
    """Segments follow one another by number, id, event and link, and hold the journal's groups byte for byte."""
    write(journal, 450)
    made = seal(tmp_path)
    assert [each.number for each in made] == [0, 1, 2]
    assert [each.events for each in made] == [SEALED_EVENTS, SEALED_EVENTS, 250]
    assert made[0].previous == NO_SEGMENT
    assert made[0].link_before == GENESIS
    ids = [open_sealed(path.read_bytes()).id for path in sealed_paths(tmp_path / "sealed")]
    assert [each.previous for each in made[1:]] == ids[:2]
    assert [each.first_seq for each in made[1:]] == [each.last_seq + 1 for each in made[:2]]
    assert [each.link_before for each in made[1:]] == [each.link_after for each in made[:2]]
    assert made[-1].link_after == journal.last_link
    assert unsealed(tmp_path) == stored(tmp_path)


def test_what_is_not_flushed_is_not_sealed(journal: Journal, tmp_path: Path) -> None:
    """Nothing above the number that is given leaves the journal, be it written or not."""
    write(journal, 10)
    assert [each.last_seq for each in seal(tmp_path, through=42)] == [40]
    assert [(each.first_seq, each.last_seq) for each in seal(tmp_path, through=50)] == [(41, 50)]
    assert seal(tmp_path) == []


def test_a_segment_waits_until_it_is_full_or_urgent(journal: Journal, tmp_path: Path) -> None:
    """Fewer events than a segment's worth stay, unless one of them is urgent."""
    write(journal, 10)
    assert seal(tmp_path, everything=False) == []
    write_group(journal, [Event(journal.next_seq, Gap(1, 1, "damaged"))])
    assert [(each.events, each.priority) for each in seal(tmp_path, everything=False)] == [(51, URGENT)]


def test_it_goes_on_where_it_was_when_the_queue_is_empty(journal: Journal, tmp_path: Path) -> None:
    """Sync takes segments away; the next one has the next number and names the one before."""
    write(journal, 10)
    (first,) = seal(tmp_path)
    (path,) = sealed_paths(tmp_path / "sealed")
    segment = open_sealed(path.read_bytes())
    path.unlink()
    write(journal, 10)
    has = Receipt(first.log_id, first.last_seq, first.link_after)
    more = Sealing(tmp_path / "sealed", SIGNER, "box-1", BlobStore(tmp_path / "blobs"), lambda: has)
    ((_, second),) = more.seal(tmp_path / "journal", ALL, everything=True)
    assert (second.number, second.previous, second.link_before) == (1, segment.id, first.link_after)


def test_killed_between_a_cut_and_its_segment(journal: Journal, tmp_path: Path) -> None:
    """The cut stands before the segment has its name: it is made then, after what is new."""
    write(journal, 10)
    seal(tmp_path)
    write(journal, 10)
    seal(tmp_path)
    newest = sealed_paths(tmp_path / "sealed")[-1]
    newest.rename(newest.with_name("000000000001.segment.part"))
    write(journal, 10)
    assert [each.number for each in seal(tmp_path)] == [2, 1]
    assert unsealed(tmp_path) == stored(tmp_path)


def test_the_same_history_is_sealed_to_the_same_bytes(journal: Journal, tmp_path: Path) -> None:
    """Sealing is a function of the log and the key, so that a lost queue can be made again."""
    write(journal, 300)
    seal(tmp_path)
    once = [path.read_bytes() for path in sealed_paths(tmp_path / "sealed")]
    for path in (tmp_path / "sealed").iterdir():
        path.unlink()
    Cuts(tmp_path / "sealed").path.unlink()
    seal(tmp_path)
    assert [path.read_bytes() for path in sealed_paths(tmp_path / "sealed")] == once


def test_another_history_is_not_sealed(journal: Journal, tmp_path: Path) -> None:
    """A journal put back from an older copy, or of another log, does not go on from what was sealed: refused."""
    write(journal, 10)
    seal(tmp_path)
    write(journal, 10)
    journal.close()
    (tmp_path / "journal").rename(tmp_path / "away")
    other = Journal(tmp_path / "journal", segment_bytes=MIB)
    write(other, 20)
    with pytest.raises(Misconfigured, match="The sealed segments are of log"):
        seal(tmp_path)
    head = sealing(tmp_path).head()
    assert head is not None
    Cuts(tmp_path / "sealed").add([(None, replace(head, log_id=other.log_id))])
    with pytest.raises(LogDamaged, match="it is another history"):
        seal(tmp_path)


def test_blueprints_blobs_and_losses_are_named(journal: Journal, tmp_path: Path) -> None:
    """The manifest names what belongs to the segment and is not in it."""
    digest = BlobStore(tmp_path / "blobs").put(b"x" * 70_000)
    events = [
        Event(1, BootStarted("1", "box-1")),
        Event(2, ExecutionRequested(b"\1" * 32, "p", payload_digest=digest), 2),
        Event(3, ExecutionRequested(b"\1" * 32, "p", payload_digest=b"\2" * 32), 3),
    ]
    write_group(journal, events)
    (made,) = seal(tmp_path)
    assert made.blueprints == (b"\1" * 32,)
    assert made.blobs == ((digest, 70_000),)
    assert made.losses == ()


def test_a_changed_byte_anywhere_is_named(journal: Journal, tmp_path: Path) -> None:
    """Each byte of a segment, changed, or the file cut there: refused, in words."""
    write(journal, 3)
    seal(tmp_path)
    whole = sealed_paths(tmp_path / "sealed")[0].read_bytes()
    list(open_sealed(whole).groups())
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x20
        for data in (bytes(changed), whole[:place]):
            with pytest.raises(SegmentRejected, match=r"segment|Segment"):
                open_sealed(data)


def resigned(whole: bytes, **changed: object) -> bytes:
    """The segment with a manifest that says something else, signed all the same."""
    segment = open_sealed(whole)
    body = changed.pop("body", segment.body)
    assert isinstance(body, bytes)
    told = replace(
        segment.manifest, body_digest=hashlib.sha256(body).digest(), body_bytes=len(body), **changed
    )  # type: ignore[arg-type]
    raw = told.encode()
    return sealed_bytes(raw, SIGNER.sign(raw), body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("link_after", b"\1" * 32), ("link_before", b"\1" * 32), ("log_id", b"another!"), ("groups", 2),
        ("events", 14), ("last_seq", 16), ("first_seq", 2), ("wall_min_ns", 1), ("wall_max_ns", 1), ("trust_min", 0),
        ("boots", 2), ("codec", "later-9"), ("codec", PLAIN), ("unpacked_bytes", 9_999), ("body", b"\0" * 40),
    ],
)  # fmt: skip
def test_a_signed_lie_is_found_when_the_events_are_read(
    journal: Journal, tmp_path: Path, field: str, value: object
) -> None:
    """Whoever holds the key can sign what it likes; what it says is held against the events, kept or not."""
    write(journal, 3)
    seal(tmp_path)
    lie = resigned(sealed_paths(tmp_path / "sealed")[0].read_bytes(), **{field: value})
    with pytest.raises(SegmentRejected) as read:
        list(open_sealed(lie).groups())
    with pytest.raises(SegmentRejected) as looked_at:
        open_sealed(lie).check()
    assert str(looked_at.value) == str(read.value)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({0: 2}, "version"), ({3: 0}, "cannot be"), ({2: -1}, "number"), ({1: b"short"}, "log_id"),
        ({23: 7}, "blueprints"), ({25: [[1]]}, "losses"), ({20: "x" * 300}, "box"), ({10: None}, "lacks a field"),
    ],
)  # fmt: skip
def test_a_manifest_of_nonsense_is_refused(
    journal: Journal, tmp_path: Path, changed: dict[int, object], words: str
) -> None:
    """A field of another type or size, or one that is missing, is named."""
    from edge.core.codec import decode, encode_canonical

    write(journal, 3)
    (made,) = seal(tmp_path)
    fields = decode(made.encode()) | changed
    with pytest.raises(ValueError, match=words):
        Manifest.decode(encode_canonical({key: value for key, value in fields.items() if value is not None}))


def test_a_field_of_a_later_release_is_left_alone(journal: Journal, tmp_path: Path) -> None:
    """A newer box may say more; the older reader keeps the bytes, and with them the id."""
    from edge.core.codec import decode, encode_canonical

    write(journal, 3)
    (made,) = seal(tmp_path)
    assert Manifest.decode(encode_canonical(decode(made.encode()) | {99: "more"})) == made


def test_a_full_drive_leaves_nothing_half(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a segment cannot be written nothing of it is named, and the next try makes it."""
    write(journal, 10)

    def full(fd: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageFailed, match="No space left"):
        seal(tmp_path)
    monkeypatch.undo()
    assert sealed_paths(tmp_path / "sealed") == []
    assert [each.number for each in seal(tmp_path)] == [0]


def test_signatures() -> None:
    """RFC 8032's second test vector; another text or key, or one that is none, is not signed."""
    signer = Signer(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert signer.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    signature = signer.sign(b"\x72")
    assert signature.hex().startswith("92a009a9f0d4cab8720e820b5f642540")
    assert signed_by(signer.public, signature, b"\x72")
    assert not signed_by(signer.public, signature, b"\x73")
    assert not signed_by(SIGNER.public, signature, b"\x72")
    assert not signed_by(b"none", signature, b"\x72")
    assert len(fingerprint(signer.public).split()) == 8


@pytest.mark.parametrize("sealed_before", [0, 20, 55, 60])
def test_a_loss_that_the_log_names_is_sealed_over(
    journal: Journal, tmp_path: Path, sealed_before: int
) -> None:
    """The chain begins anew behind it: a segment ends before, the next one names the loss, and both join."""
    write(journal, 20, 3)
    if sealed_before:
        seal(tmp_path, through=sealed_before)
    journal.close()
    (path,) = segment_paths(tmp_path / "journal")
    frames = list(SegmentReader(path).frames())
    data = bytearray(path.read_bytes())
    data[frames[16].offset : frames[17].offset] = b"\xff" * (frames[17].offset - frames[16].offset)
    path.write_bytes(data)
    made = make_plan(tmp_path / "journal", lambda seq: iter(()))
    assert [(loss.first, loss.last) for loss in made.losses] == [(49, 51)]
    carry_out(made, tmp_path / "journal", tmp_path / "damaged")
    seal(tmp_path)
    manifests = [open_sealed(path.read_bytes()).manifest for path in sealed_paths(tmp_path / "sealed")]
    for before, after in pairwise(manifests):
        assert after.joins(before.last_seq, before.link_after)
    assert manifests[-1].last_seq == 60
    losses = [each for manifest in manifests for each in manifest.losses]
    assert losses == ([] if sealed_before > 51 else [(49, 51)])
    for path in sealed_paths(tmp_path / "sealed"):
        list(open_sealed(path.read_bytes()).groups())
