"""What every carrier between a box and its centre must hold, as tests (`edge.sync.transport`).

A test file brings a `rig` and inherits:

    class TestFolder(TransportConformance):
        @pytest.fixture
        def rig(self, tmp_path, written): ...      # for the log of `written`, signed by SIGNER, of BOX

`carry` is what happens between the box's upload and the centre's having looked at it: nothing where the carrier
answers, a courier's way and back where it does not.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from edge.central.ledger import Ledger
from edge.core.errors import SegmentRejected
from edge.core.events import Event, StepDone
from edge.core.limits import MIB
from edge.core.retention_events import StorageRefusing
from edge.security.signing import Signer
from edge.segments.receipt import opened
from edge.segments.sealing import Sealing, sealed_paths
from edge.segments.verdicts import ALREADY, ARRIVED, FORK, LEFT, PARKED, REJECTED, STORED
from edge.store import upstream
from edge.store.blobs import BlobStore
from edge.store.journal import Journal
from edge.sync.transport import Outgoing, Parcel, Transport
from edge.testing.history import write_group

BOX = "pump-7"
SIGNER = Signer(bytes(range(32)))
SEGMENTS = 6


class Rig(Protocol):
    """One carrier, set up against a real centre where `BOX` is enrolled with SIGNER's key."""

    transport: Transport
    centre_data: Path
    centre_key: bytes

    def reopen(self) -> None:
        """Another `transport` of the same kind, as after a restart of the box's side."""
        ...

    def carry(self) -> None:
        """Bring what was left to the centre, and its word back."""
        ...


class Written:
    """A log in a folder, sealed in segments."""

    def __init__(self, folder: Path, signer: Signer = SIGNER, box: str = BOX) -> None:
        self.folder, self.signer, self._box = folder, signer, box
        journal = Journal(folder / "journal", segment_bytes=MIB)
        self.log_id = journal.log_id
        journal.close()

    def grow(self, value: int, segments: int, *, urgent: bool = False) -> list[Outgoing]:
        """Some segments more; the values make histories differ."""
        known = len(sealed_paths(self.folder / "sealed"))
        journal = Journal(self.folder / "journal", segment_bytes=MIB)
        blobs, folder, log_id = BlobStore(self.folder / "blobs"), self.folder, journal.log_id
        sealing = Sealing(
            folder / "sealed", self.signer, self._box, blobs, lambda: upstream.of_log(folder, log_id)
        )
        for _ in range(segments):
            if urgent:
                write_group(journal, [Event(journal.next_seq, StorageRefusing("drive", 0), None)])
            for _ in range(3):
                write_group(journal, [Event(journal.next_seq, StepDone(bytes([0x18, value])), 1)])
            list(sealing.seal(journal.folder, journal.last_seq, everything=True))
        journal.close()
        return [Outgoing.of(path) for path in sealed_paths(self.folder / "sealed")[known:]]


def nothing(size_bytes: int) -> None:
    """Progress that nobody looks at."""


def states(rig: Rig, log_id: bytes) -> dict[str, int]:
    """How many segments of a log the centre has in each state."""
    ledger = Ledger(rig.centre_data / "ledger.sqlite")
    rows = [row for row in ledger.everything() if row[:2] == ("segment", log_id)]
    ledger.close()
    found = [str(row[4]) for row in rows]
    return {state: found.count(state) for state in sorted(set(found))}


class BrokenOff(Exception):
    """Raised by progress: a person pressed Ctrl-C, or a budget ended."""


def breaking_after(size_bytes: int) -> Callable[[int], None]:
    """Progress that breaks the upload off once so many bytes went out."""
    left = [size_bytes]

    def progress(size: int) -> None:
        left[0] -= size
        if left[0] <= 0:
            raise BrokenOff

    return progress


class TransportConformance:
    """See the module."""

    @pytest.fixture
    def written(self, tmp_path: Path) -> Written:
        """The box's log."""
        return Written(tmp_path / "log")

    def send(self, rig: Rig, segments: Sequence[Outgoing]) -> list[str]:
        """One parcel; its verdicts."""
        made = rig.transport.send(Parcel(segments), nothing)
        assert [each.number for each in made.verdicts] == [each.manifest.number for each in segments]
        return [each.verdict for each in made.verdicts]

    def test_a_log_arrives_and_its_receipt_comes_back(self, rig: Rig, written: Written) -> None:
        """Nothing is there; all is sent; the state then reaches the end, with a receipt that the centre signed."""
        segments = written.grow(1, SEGMENTS)
        last = segments[-1].manifest
        assert rig.transport.state(last.log_id).through == 0
        assert not rig.transport.state(last.log_id).has(segments[0].manifest)
        expected = STORED if rig.transport.traits.answers else LEFT
        assert self.send(rig, segments) == [expected] * SEGMENTS
        rig.carry()
        state = rig.transport.state(last.log_id)
        assert (state.through, state.link) == (last.last_seq, last.link_after)
        assert all(state.has(each.manifest) for each in segments)
        said = opened(state.receipt, rig.centre_key)
        assert (said.log_id, said.through, said.link) == (last.log_id, last.last_seq, last.link_after)
        assert states(rig, written.log_id) == {STORED: SEGMENTS}

    def test_sending_again_changes_nothing(self, rig: Rig, written: Written) -> None:
        """The same parcel twice, and once more after a restart: each segment is there once."""
        segments = written.grow(1, SEGMENTS)
        self.send(rig, segments)
        assert set(self.send(rig, segments)) == {ALREADY}
        rig.carry()
        rig.reopen()
        assert set(self.send(rig, segments)) == {ALREADY}
        rig.carry()
        assert states(rig, written.log_id) == {STORED: SEGMENTS}

    def test_any_order_joins_in_the_end(self, rig: Rig, written: Written) -> None:
        """Newest first: they are held, the receipt does not move; when the beginning comes, it reaches the end."""
        segments = written.grow(1, SEGMENTS)
        log_id = segments[0].manifest.log_id
        assert set(self.send(rig, segments[:2:-1])) <= {PARKED, LEFT}
        rig.carry()
        state = rig.transport.state(log_id)
        assert state.through == 0
        assert [state.has(each.manifest) for each in segments] == [False] * 3 + [True] * 3
        assert set(self.send(rig, segments[:3])) <= {STORED, LEFT}
        rig.carry()
        assert rig.transport.state(log_id).through == segments[-1].manifest.last_seq
        assert states(rig, written.log_id) == {STORED: SEGMENTS}

    def test_what_broke_off_is_resumed(self, rig: Rig, written: Written) -> None:
        """Broken off inside a parcel, the box's side started again: the same parcel goes on."""
        segments = written.grow(1, SEGMENTS)
        parcel = Parcel(segments)
        with pytest.raises(BrokenOff):
            rig.transport.send(parcel, breaking_after(len(parcel.data) // 2))
        rig.reopen()
        made = rig.transport.send(parcel, nothing)
        assert made.sent_bytes <= len(parcel.data)
        assert all(each.verdict in ARRIVED for each in made.verdicts)
        rig.carry()
        assert states(rig, written.log_id) == {STORED: SEGMENTS}

    def test_a_changed_segment_is_never_believed(self, rig: Rig, written: Written) -> None:
        """One bit flipped on the way: rejected, the others go on, and the right one is taken after it."""
        segments = written.grow(1, 3)
        changed = bytearray(segments[1].data)
        changed[-1] ^= 1
        verdicts = self.send(rig, [segments[0], Outgoing(bytes(changed)), segments[2]])
        rig.carry()
        if rig.transport.traits.answers:
            assert verdicts == [STORED, REJECTED, PARKED]
        assert rig.transport.state(segments[0].manifest.log_id).through == segments[0].manifest.last_seq
        self.send(rig, [segments[1]])
        rig.carry()
        assert states(rig, written.log_id) == {STORED: 3}

    def test_a_cloned_card_is_kept_apart(self, rig: Rig, written: Written, tmp_path: Path) -> None:
        """Two boxes go on from one card: the first to come is the log, the other never replaces it."""
        begun = written.grow(1, 2)
        shutil.copytree(written.folder, tmp_path / "clone")
        own = written.grow(2, 2)
        cloned = Written(tmp_path / "clone").grow(3, 2)
        self.send(rig, begun + own)
        rig.carry()
        assert set(self.send(rig, cloned)) == {FORK}
        rig.carry()
        state = rig.transport.state(begun[0].manifest.log_id)
        assert (state.through, state.link) == (own[-1].manifest.last_seq, own[-1].manifest.link_after)

    def test_large_values_travel_apart(self, rig: Rig, tmp_path: Path) -> None:
        """What is lacking is asked, sent once, and what does not hold what it should is refused."""
        data = bytes(range(256)) * 1_000
        digest, other = hashlib.sha256(data).digest(), hashlib.sha256(b"other").digest()
        (tmp_path / "value").write_bytes(data)
        assert rig.transport.lacking([digest, other]) == {digest, other}
        with pytest.raises(SegmentRejected):
            rig.transport.send_value(other, tmp_path / "value", nothing)
        rig.transport.send_value(digest, tmp_path / "value", nothing)
        assert rig.transport.lacking([digest, other]) == {other}
