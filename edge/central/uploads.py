"""Uploads on their way in: bytes by digest and offset, kept over broken connections and over the server's own end.

    uploads/<box>/<digest>.part    what came of it so far
    uploads/<box>/<digest>.note    it is whole, and this is how it falls into segments

Used by `edge.central.http_app`. What lies here is nobody's yet: it is not flushed, and only what fits its digest is
ever looked at. A connection that is dead but open holds nothing up: the newest request for an upload owns it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edge.core.errors import RequestRefused, StorageFailed
from edge.core.limits import CENTRE_RESERVE_BYTES, UPLOADS_KEPT_MAX

OFFSET: Final = "upload_offset"
DAMAGED: Final = "upload_damaged"
STORAGE_FULL: Final = "storage_full"
_SUFFIX: Final = ".part"
_NOTE: Final = ".note"


class Receiving:
    """One request that brings bytes of an upload."""

    def __init__(self, uploads: Uploads, path: Path, fd: int) -> None:
        self._uploads, self.path, self._fd = uploads, path, fd

    def write(self, data: bytes) -> None:
        """Bytes more, at the end. Raises RequestRefused where a newer request took over, StorageFailed."""
        if self._uploads.owners.get(self.path) is not self:
            raise RequestRefused("A newer request goes on with this upload.", code=OFFSET)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            raise StorageFailed(
                f"The centre could not keep an upload: {error.strerror}.",
                code=STORAGE_FULL,
                mend="Make room at the centre. The box keeps all that the centre has not receipted.",
                retry_after_ms=300_000,
            ) from error

    @property
    def size_bytes(self) -> int:
        """How much of it is there."""
        return os.fstat(self._fd).st_size


class Uploads:
    """The folder of uploads."""

    def __init__(self, folder: Path, reserve_bytes: int = CENTRE_RESERVE_BYTES) -> None:
        self._folder, self._reserve_bytes = folder, reserve_bytes
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        self.owners: dict[Path, Receiving] = {}

    def path(self, box: str, digest: bytes) -> Path:
        """Where an upload is or would be."""
        return self._folder / box / f"{digest.hex()}{_SUFFIX}"

    def offset(self, box: str, digest: bytes) -> int:
        """How much of an upload is there. Who asks goes on with it: an older request, still open, writes no more."""
        path = self.path(box, digest)
        self.owners.pop(path, None)
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def receive(self, box: str, digest: bytes, offset: int) -> Iterator[Receiving]:
        """Go on with an upload. Raises RequestRefused where it does not stand at that offset, StorageFailed."""
        path = self.path(box, digest)
        self._require_room()
        path.parent.mkdir(exist_ok=True, mode=0o750)
        self._make_room(path)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise StorageFailed(
                f"An upload could not be begun: {error.strerror}.", code=STORAGE_FULL
            ) from error
        made = Receiving(self, path, fd)
        try:
            if made.size_bytes != offset:
                raise RequestRefused(f"This upload stands at {made.size_bytes} bytes.", code=OFFSET)
            self.owners[path] = made
            yield made
        finally:
            os.close(fd)
            if self.owners.get(path) is made:
                del self.owners[path]

    def _require_room(self) -> None:
        if shutil.disk_usage(self._folder).free < self._reserve_bytes:
            raise StorageFailed(
                "The centre's drive is nearly full: it takes nothing in.",
                code=STORAGE_FULL,
                mend="Make room at the centre. The box keeps all that the centre has not receipted.",
                retry_after_ms=300_000,
            )

    def _make_room(self, path: Path) -> None:
        """Of one box only so many broken uploads are kept; the oldest go."""
        kept = sorted(path.parent.glob(f"*{_SUFFIX}"), key=_changed_ns)
        others = [each for each in kept if each != path and each not in self.owners]
        for each in others[: max(0, len(kept) - UPLOADS_KEPT_MAX + 1)]:
            each.unlink(missing_ok=True)

    def whole(self, box: str, digest: bytes) -> bytes:
        """An upload that is all there. RequestRefused, and it is begun anew, where it is not what its digest says."""
        path = self.path(box, digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RequestRefused("This upload is not there: begin it anew.", code=OFFSET) from error
        if hashlib.sha256(data).digest() != digest:
            path.unlink(missing_ok=True)
            raise RequestRefused("This upload was changed on its way: begin it anew.", code=DAMAGED)
        return data

    def note(self, box: str, digest: bytes, said: bytes) -> None:
        """Write down what a whole upload is, so that its verdicts can be given without it coming again."""
        self.path(box, digest).with_suffix(_NOTE).write_bytes(said)

    def noted(self, box: str) -> list[tuple[bytes, bytes]]:
        """Digest and note of every upload of a box that came whole and is not done: it was killed, or had no room."""
        return [
            (bytes.fromhex(path.stem), path.read_bytes())
            for path in sorted((self._folder / box).glob(f"*{_NOTE}"))
        ]

    def done(self, box: str, digest: bytes) -> None:
        """What was in it has its verdicts."""
        self.path(box, digest).unlink(missing_ok=True)
        self.path(box, digest).with_suffix(_NOTE).unlink(missing_ok=True)


def _changed_ns(path: Path) -> int:
    """When a file was written last; 0 for one that another request has just ended."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
