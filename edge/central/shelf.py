"""The centre's files: segments by log and number, large values by digest. They are the truth, all else is made of it.

    segments/<log>/000000000042-<id>.segment     kept for ever, linked or parked
    forks/<log>/000000000042-<id>.segment        of another history than what was here when they came
    blobs/<digest>                               values over 64 KiB
    refused/<time>-<reason>.segment              what could not be taken, for a person to look at

A file is whole under its name or absent, and durable before anybody is told of it. Called by ingest and by whoever
reads the store.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.core.errors import SegmentRejected
from edge.segments.sealed import SUFFIX, Sealed, open_sealed
from edge.store.segment_file import flush_folder
from edge.store.whole_file import write_whole

_ID_DIGITS: Final = 16
_REFUSED_MAX: Final = 10_000


class Shelf:
    """The folders below one data folder of a centre."""

    def __init__(self, data: Path) -> None:
        self._segments, self._forks = data / "segments", data / "forks"
        self._blobs, self._refused = data / "blobs", data / "refused"
        for folder in (self._segments, self._forks, self._blobs, self._refused):
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)

    def path(self, log_id: bytes, number: int, segment: bytes, *, fork: bool = False) -> Path:
        """Where a segment is or would be."""
        folder = self._forks if fork else self._segments
        return folder / log_id.hex() / f"{number:012d}-{segment.hex()[:_ID_DIGITS]}{SUFFIX}"

    def put(
        self, log_id: bytes, number: int, segment: bytes, data: bytes, *, fork: bool, instead_of: bytes = b""
    ) -> None:
        """Keep a segment, durable when this returns, in place of a file that no longer holds it. StorageFailed.

        `instead_of` is the id of a damaged one with the same events; its file goes.
        """
        path = self.path(log_id, number, segment, fork=fork)
        before = self.path(log_id, number, instead_of) if instead_of else path
        was = before.stat() if before.exists() else None
        if _read(path) != data:
            if not path.parent.exists():
                path.parent.mkdir(mode=0o750)
                flush_folder(path.parent.parent)
            if before != path:
                before.unlink(missing_ok=True)
            write_whole(path, data)
            if was is not None:  # it came when it first did: by that it is known since
                os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))

    def read(self, log_id: bytes, number: int, segment: bytes) -> Sealed | None:
        """A segment that is kept, signature and digests checked; None where its file is not here, or damaged."""
        data = _read(self.path(log_id, number, segment))
        try:
            sealed = open_sealed(data or b"")
        except SegmentRejected:
            return None
        return sealed if sealed.id == segment else None

    def drop(self, log_id: bytes, number: int, segment: bytes) -> None:
        """Let go of a parked segment's file."""
        self.path(log_id, number, segment).unlink(missing_ok=True)

    def segments(self) -> Iterator[Path]:
        """Every segment that is kept, linked or not, by log and number."""
        return _below(self._segments)

    def forks(self) -> Iterator[Path]:
        """Every segment of another history."""
        return _below(self._forks)

    def has_blob(self, digest: bytes) -> bool:
        """Whether a large value is here."""
        return (self._blobs / digest.hex()).exists()

    def put_blob(self, digest: bytes, data: bytes) -> None:
        """Keep a large value, durable when this returns. SegmentRejected where it is another one, StorageFailed."""
        if hashlib.sha256(data).digest() != digest:
            raise SegmentRejected(f"The value {digest.hex()[:16]} was changed on its way.")
        if _read(self._blobs / digest.hex()) != data:
            write_whole(self._blobs / digest.hex(), data)

    def blob(self, digest: bytes) -> bytes:
        """A large value. Raises SegmentRejected where it is not here, or not what was stored."""
        try:
            data = (self._blobs / digest.hex()).read_bytes()
        except OSError as error:
            raise SegmentRejected(
                f"The value {digest.hex()[:16]} cannot be read: {error.strerror}."
            ) from error
        if hashlib.sha256(data).digest() != digest:
            raise SegmentRejected(f"The value {digest.hex()[:16]} does not hold what was stored.")
        return data

    def refuse(self, now_ns: int, code: str, data: bytes) -> None:
        """Keep what was refused for a person to look at; the oldest go where there are very many."""
        kept = sorted(self._refused.glob(f"*{SUFFIX}"))
        for path in kept[: max(0, len(kept) - _REFUSED_MAX + 1)]:
            path.unlink(missing_ok=True)
        digest = hashlib.sha256(data).hexdigest()[:_ID_DIGITS]
        if not any(path.stem.endswith(digest) for path in kept):
            write_whole(self._refused / f"{now_ns:020d}-{code}-{digest}{SUFFIX}", data)


def _read(path: Path) -> bytes | None:
    """What a file holds, None where it is absent or the drive does not give it."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def _below(folder: Path) -> Iterator[Path]:
    for each in sorted(folder.iterdir()):
        yield from sorted(each.glob(f"*{SUFFIX}"))
