"""Segments into a folder: a stick, a share, the inbox of a centre. The carrier without network or account.

What lies there is a bundle (`edge.sync.bundle`): `edge bundle verify` and `edge central import` read it. The centre's
word comes back as the file RECEIPT in it. Each file is whole under its name or absent; MANIFEST.json is taken away
before anything changes and written by `close`. Called through `edge.sync.transport.Transport`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Final

from edge.core.errors import ReceiptRejected, SegmentRejected, StorageFailed
from edge.segments.receipt import CentreReceipt, opened
from edge.segments.sealed import Sealed, open_sealed
from edge.segments.sealing import name_of, number_of, sealed_paths
from edge.segments.verdicts import ALREADY, FORK, LEFT
from edge.store.whole_file import write_whole
from edge.sync import bundle
from edge.sync.centre import receipt_file
from edge.sync.transport import (
    Delivered,
    LogState,
    Outgoing,
    Parcel,
    Progress,
    SegmentVerdict,
    Traits,
    spans,
)

_PARCEL_BYTES_MAX: Final = 1 << 40


class FolderTransport:
    """One box's bundles below one folder. `centre_key` is what receipts must be signed by; b"" believes none."""

    traits = Traits("folder", answers=False, parcel_bytes_max=_PARCEL_BYTES_MAX)

    def __init__(self, folder: Path, box: str, log_id: bytes, centre_key: bytes = b"") -> None:
        self._place = folder / bundle.folder_name(box, log_id)
        self._log_id, self._centre_key = log_id, centre_key
        self._changed = False

    def state(self, log_id: bytes) -> LogState:
        """What lies there whole, and how far the centre's receipt in it reaches."""
        assert log_id == self._log_id, "a bundle is of one log"
        held = [number_of(path) for path in sealed_paths(self._place) if _sound(path) is not None]
        receipt, data = self._receipt()
        if receipt is None:
            return LogState(held=spans(held))
        return LogState(
            receipt.through, receipt.link, held=spans(held), wall_ns=receipt.wall_ns, receipt=data
        )

    def _receipt(self) -> tuple[CentreReceipt | None, bytes]:
        """One that is not this centre's, or of another log, says nothing here."""
        try:
            data = receipt_file(self._place).read_bytes()
            receipt = opened(data, self._centre_key)
        except (OSError, ReceiptRejected):
            return None, b""
        return (receipt, data) if receipt.log_id == self._log_id else (None, b"")

    def lacking(self, digests: Collection[bytes]) -> set[bytes]:
        """Values that do not lie there whole."""
        return {digest for digest in digests if not self._has_value(digest)}

    def _value(self, digest: bytes) -> Path:
        return self._place / bundle.BLOBS / digest.hex()

    def _has_value(self, digest: bytes) -> bool:
        with contextlib.suppress(OSError):
            return bool(bundle.described(self._value(digest))["sha256"] == digest.hex())
        return False

    def send_value(self, digest: bytes, source: Path, progress: Progress) -> None:
        """Copy one. Raises SegmentRejected where the file does not hold it, StorageFailed."""
        try:
            data = source.read_bytes()
        except OSError as error:
            raise StorageFailed(f"{source} cannot be read: {error.strerror}.") from error
        if hashlib.sha256(data).digest() != digest:
            raise SegmentRejected(f"{source} does not hold what was stored.")
        self._begin()
        write_whole(self._value(digest), data)
        progress(len(data))

    def send(self, parcel: Parcel, progress: Progress) -> Delivered:
        """Copy what does not lie there yet, each file whole. A folder's verdicts: `left`, `already`, `fork`."""
        verdicts, sent_bytes = [], 0
        for each in parcel.segments:
            verdict, size_bytes = self._leave(each)
            verdicts.append(verdict)
            sent_bytes += size_bytes
            progress(size_bytes)
        return Delivered(tuple(verdicts), self._receipt()[1], sent_bytes)

    def _leave(self, each: Outgoing) -> tuple[SegmentVerdict, int]:
        number = each.manifest.number
        path = self._place / name_of(number)
        there = _sound(path)
        if there is not None and there.id != each.id and not there.manifest.same_events(each.manifest):
            return SegmentVerdict(number, FORK, f"{path} is whole, and of another history."), 0
        if there is not None:
            return SegmentVerdict(number, ALREADY), 0
        self._begin()
        write_whole(path, each.data)
        return SegmentVerdict(number, LEFT), len(each.data)

    def _begin(self) -> None:
        """From here on the bundle is not what its MANIFEST.json says."""
        if self._changed:
            return
        try:
            (self._place / bundle.BLOBS).mkdir(parents=True, exist_ok=True)
            (self._place / bundle.MANIFEST).unlink(missing_ok=True)
        except OSError as error:
            raise bundle.unwritten(self._place, error) from error
        self._changed = True

    def close(self) -> None:
        """Write MANIFEST.json where segments lie there without one."""
        if not sealed_paths(self._place) or (not self._changed and (self._place / bundle.MANIFEST).is_file()):
            return
        try:
            bundle.finish(self._place)
        except OSError as error:
            raise bundle.unwritten(self._place, error) from error
        self._changed = False


def _sound(path: Path) -> Sealed | None:
    """A segment that is whole in a file, else None."""
    try:
        return open_sealed(path.read_bytes())
    except (OSError, SegmentRejected):
        return None
