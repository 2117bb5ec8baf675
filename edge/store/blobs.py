"""Large values that are truth: requests and `read`/`write` outcomes over 64 KiB, by content address.

The runtime writes one before the event that names it, flushed with its folder, so an event never names what a
power cut can take (design §4). Readers check the digest. Nothing here is ever changed; what no event of the log
needs any longer is removed by retention, on the journal's thread, so that no blob goes while it is written again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from edge.core.errors import LogDamaged, StorageFailed
from edge.store.segment_file import files_bytes, flush_folder

#: Ends the name of a blob that is being written. All lie in the store's own folder, where a start finds them.
_PART: Final = ".part"


class BlobStore:
    """Files named by the SHA-256 of their bytes, in 256 folders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: Asked for room when the drive is full, in bytes; whether there is some now (`edge.store.reserve`).
        self.make_room: Callable[[int], bool] = lambda size_bytes: False
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)

    def begin_life(self) -> None:
        """Remove what was half written when the last writer ended: no event names it. Only for who writes the log."""
        for made in self._folder.glob(f"*{_PART}"):
            made.unlink(missing_ok=True)

    def path(self, digest: bytes) -> Path:
        """Where a blob is or would be."""
        name = digest.hex()
        return self._folder / name[:2] / name

    def put(self, data: bytes) -> bytes:
        """Store bytes, durable when this returns; their digest. Raises StorageFailed."""
        digest = hashlib.sha256(data).digest()
        try:
            self._put(digest, data)
        except StorageFailed:
            if not self.make_room(len(data)):
                raise
            self._put(digest, data)
        return digest

    def _put(self, digest: bytes, data: bytes) -> None:
        path = self.path(digest)
        part = self._folder / f"{digest.hex()}{_PART}"
        try:
            if path.exists():
                flush_folder(path.parent)
                return
            if not path.parent.exists():
                path.parent.mkdir(mode=0o750)
                flush_folder(self._folder)
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            part.rename(path)
            flush_folder(path.parent)
        except OSError as error:
            with contextlib.suppress(
                OSError
            ):  # a drive that fails may fail here too: the first error is told
                part.unlink(missing_ok=True)
            raise StorageFailed(f"A blob could not be written: {error.strerror}.") from error

    def remove(self, digests: Iterable[bytes]) -> None:
        """Remove blobs, durably; those that are gone are no matter. Raises StorageFailed."""
        folders: set[Path] = set()
        try:
            for digest in digests:
                path = self.path(digest)
                if path.exists():
                    path.unlink()
                    folders.add(path.parent)
            for folder in folders:
                flush_folder(folder)
        except OSError as error:
            raise StorageFailed(f"A blob could not be removed: {error.strerror}.") from error

    def used_bytes(self) -> int:
        """What all blobs take. Looks at every file; for whoever asks seldom."""
        return files_bytes(self._folder)

    def get(self, digest: bytes) -> bytes:
        """The bytes of a blob. Raises LogDamaged where they are missing or not what was stored."""
        try:
            data = self.path(digest).read_bytes()
        except OSError as error:
            raise LogDamaged(f"Blob {digest.hex()[:16]} cannot be read: {error.strerror}.") from error
        if hashlib.sha256(data).digest() != digest:
            raise LogDamaged(f"Blob {digest.hex()[:16]} does not hold what was stored.")
        return data
