"""The folder as a carrier: it holds what every carrier holds, and what lies there is a bundle like any other."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edge.central.ingest import Central
from edge.core.errors import SegmentRejected, StorageFailed
from edge.security.signing import Signer
from edge.segments.receipt import CentreReceipt, signed
from edge.segments.sealing import sealed_paths
from edge.store.whole_file import write_whole
from edge.sync import bundle, bundle_check
from edge.sync.centre import receipt_file
from edge.sync.folder import FolderTransport
from edge.sync.transport import Outgoing, Parcel, spans
from edge.testing.transport_conformance import BOX, SIGNER, TransportConformance, Written, nothing


class FolderRig:
    """A stick, and a courier who carries it to a centre and back."""

    def __init__(self, folder: Path, log_id: bytes) -> None:
        self.centre_data = folder / "centre"
        central = Central.open(self.centre_data, time.time_ns)
        central.boxes.enrol(BOX, SIGNER.public, 1)
        self.centre_key = central.signer.public
        central.close()
        self.stick, self._log_id = folder / "stick", log_id
        self.reopen()

    def reopen(self) -> None:
        self.transport = FolderTransport(self.stick, BOX, self._log_id, self.centre_key)

    def carry(self) -> None:
        self.transport.close()
        central = Central.open(self.centre_data, time.time_ns)
        for place in self.stick.glob("noetl-edge-*"):
            bundle_check.verify(place)
            for path in sealed_paths(place):
                made = central.take(path.read_bytes(), deep=True)
                if made.log_id and (receipt := central.receipt(made.log_id)) is not None:
                    write_whole(receipt_file(place), receipt)
        central.close()


class TestFolder(TransportConformance):
    @pytest.fixture
    def rig(self, tmp_path: Path, written: Written) -> FolderRig:
        return FolderRig(tmp_path, written.log_id)

    def test_what_lies_there_is_a_bundle(self, rig: FolderRig, written: Written) -> None:
        """After `close` every file is named, and verifying finds the whole log; a changed file is written anew."""
        segments = written.grow(1, 3)
        rig.transport.send(Parcel(segments), nothing)
        (place,) = rig.stick.glob("noetl-edge-*")
        assert not (place / bundle.MANIFEST).exists()
        rig.transport.close()
        verdict = bundle_check.verify(place)
        assert (verdict.problems, verdict.segments, verdict.log_id) == ([], 3, written.log_id.hex())
        (place / "000000000001.segment").write_bytes(b"cut")
        assert not rig.transport.state(written.log_id).has(segments[1].manifest)
        rig.transport.send(Parcel(segments), nothing)
        rig.transport.close()
        assert bundle_check.verify(place).problems == []

    def test_a_receipt_of_another_centre_says_nothing(self, rig: FolderRig, written: Written) -> None:
        """Whatever lies there as RECEIPT: only what the box's own centre signed for this log moves the state."""
        segments = written.grow(1, 1)
        rig.transport.send(Parcel(segments), nothing)
        (place,) = rig.stick.glob("noetl-edge-*")
        for data in (
            b"",
            b"x" * 140,
            signed(CentreReceipt(written.log_id, 3, bytes(32), 1), Signer(bytes(32))),
        ):
            (place / "RECEIPT").write_bytes(data)
            assert rig.transport.state(written.log_id).through == 0


def test_spans() -> None:
    """Numbers that follow one another are told together."""
    assert spans([]) == ()
    assert spans([5, 1, 2, 2, 9, 3]) == ((1, 3), (5, 5), (9, 9))


def test_what_is_no_segment_does_not_go_out(tmp_path: Path) -> None:
    """A file that is absent or does not begin like a segment is named."""
    with pytest.raises(StorageFailed, match="cannot be read"):
        Outgoing.of(tmp_path / "absent")
    with pytest.raises(SegmentRejected, match="does not begin like one"):
        Outgoing(b"nothing of the kind")
