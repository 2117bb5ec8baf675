"""Bundles: sealed segments of one log in a folder, on a stick or a disk, complete in itself.

    noetl-edge-<box>-<log>/  000000000000.segment …   blobs/<digest>   MANIFEST.json

`MANIFEST.json` is written last and names every file with its size and digest: a folder without one was not finished,
and exporting again goes on where it stopped. Nobody has to trust the courier: segments are signed, and everything is
checked again where it arrives. Called by `edge bundle`; needs neither network nor account, and no runtime.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from edge.core.errors import LogDamaged, Misconfigured, SegmentRejected, StorageFailed, Unavailable
from edge.core.records import record
from edge.segments.manifest import Manifest
from edge.segments.sealed import SUFFIX, open_sealed
from edge.segments.sealing import manifest_of, name_of, number_of, sealed_paths
from edge.store.blobs import BlobStore
from edge.store.segment_file import flush_folder
from edge.store.whole_file import write_whole

MANIFEST: Final = "MANIFEST.json"
BLOBS: Final = "blobs"
FORMAT: Final = "noetl-edge-bundle-1"
_PIECE_BYTES: Final = 1 << 20
#: Left free on what is exported to: a full stick is read only for many a system.
_SPARE_BYTES: Final = 1 << 20

Progress = Callable[[int], None]
"""Called with the bytes that were dealt with since the last call."""


@record
class Item:
    """One file of a bundle: where it comes from, its name in the bundle, its size and digest."""

    source: Path
    name: str
    size_bytes: int
    sha256: str


@record
class Contents:
    """What a bundle of a box holds: the files in order, and the manifests of its segments."""

    items: list[Item]
    manifests: list[Manifest]

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(item.size_bytes for item in self.items)

    @property
    def folder_name(self) -> str:
        """The bundle's own name: the box and its log."""
        newest = self.manifests[-1]
        return folder_name(newest.box, newest.log_id)


def folder_name(box: str, log_id: bytes) -> str:
    """The folder of a bundle: of one box and one log."""
    return f"noetl-edge-{box}-{log_id.hex()}"


def contents(
    sealed_folder: Path, blobs: BlobStore, after: int = 0, again: Iterable[Path] = ()
) -> Contents | None:
    """What there is to be carried: segments that go beyond event `after` and their blobs. None where nothing is.

    `again` are files of segments that left the queue and are in the bundle already (`add_again`). Everything is read
    and checked before anything is copied: what is damaged or missing on the box must be known while somebody stands
    before it. Raises StorageFailed, and SegmentRejected with all that is wrong.
    """
    items: list[Item] = []
    manifests: list[Manifest] = []
    wrong: list[str] = []
    digests: dict[bytes, int] = {}
    before = -1
    for path in sorted((*sealed_paths(sealed_folder), *again), key=number_of):
        lacking, before = range(before + 1, number_of(path)), number_of(path)
        if manifests and lacking:
            wrong.append(f"{sealed_folder} lacks segments {lacking[0]} to {lacking[-1]}.")
        try:
            data = path.read_bytes()
            manifest = open_sealed(data).manifest
        except OSError as error:
            raise StorageFailed(f"{path} cannot be read: {error.strerror}.") from error
        except SegmentRejected as error:
            wrong.append(f"{path}: {error.message}")
            continue
        if manifest.last_seq <= after:
            continue
        manifests.append(manifest)
        items.append(Item(path, path.name, len(data), hashlib.sha256(data).hexdigest()))
        digests |= dict(manifest.blobs)
    for digest, size_bytes in digests.items():
        try:
            blobs.get(digest)
        except LogDamaged as error:
            wrong.append(error.message)
        items.append(Item(blobs.path(digest), f"{BLOBS}/{digest.hex()}", size_bytes, digest.hex()))
    if wrong:
        raise SegmentRejected(
            "Not all that is to be carried is whole on this box:\n  " + "\n  ".join(wrong),
            mend="Move a damaged segment out of the folder `sealed`: the next export seals it again, as far back as "
            "the journal goes.",
        )
    return Contents(items, manifests) if manifests else None


def missing(made: Contents, place: Path) -> list[Item]:
    """Files that are not in the bundle as they are on the box. Misconfigured where another history is there."""
    found = [item for item in made.items if not _is_there(item, place)]
    return [
        item
        for item in found
        if not item.name.endswith(SUFFIX) or not _stands_for(manifest_of(item.source), place / item.name)
    ]


def _is_there(item: Item, place: Path) -> bool:
    try:
        return bool(described(place / item.name)["sha256"] == item.sha256)
    except OSError:
        return False


def _stands_for(said: Manifest, target: Path) -> bool:
    """Whether a whole segment with the same events lies there. Raises Misconfigured where one with others does.

    That is never written over: its events may be nowhere else.
    """
    try:
        there = open_sealed(target.read_bytes())
        there.check()
    except (FileNotFoundError, SegmentRejected):
        return False
    if there.manifest.same_events(said):
        return True
    raise Misconfigured(
        f"{target} is whole, and of another history than this box's.",
        mend="Was a card copied, or the data folder put back? Keep that folder for the centre, and name another.",
    )


def add_again(sealed: Iterable[tuple[Manifest, bytes]], place: Path) -> list[Path]:
    """Put segments that were sealed once more into a bundle, where they do not lie in it whole; all their files.

    The bundle is to be finished by `export`. Raises Misconfigured, StorageFailed.
    """
    made = []
    for said, data in sealed:
        path = place / name_of(said.number)
        if not _stands_for(said, path):
            (place / MANIFEST).unlink(missing_ok=True)
            write_whole(path, data)
        made.append(path)
    return made


def require_room(absent: list[Item], place: Path) -> None:
    """Raises StorageFailed where what is missing does not fit."""
    folder = place if place.exists() else place.parent
    free_bytes = shutil.disk_usage(folder).free
    wanted = sum(item.size_bytes for item in absent) + _SPARE_BYTES
    if free_bytes < wanted:
        raise StorageFailed(
            f"{folder} has {free_bytes / 1e6:.1f} MB free, and {wanted / 1e6:.1f} MB are needed, 1 MB to spare.",
            mend="Make room there, or take another stick. What is copied already stays and is not copied again.",
        )


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Hold a bundle's folder, made where it is not there. Raises Unavailable where another export does."""
    try:
        (place / BLOBS).mkdir(parents=True, exist_ok=True)
        with (place / ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError as error:
        raise Unavailable(
            f"Another export writes {place}.", mend="Wait for its end, then run this again."
        ) from error
    except OSError as error:
        raise unwritten(place, error) from error


def export(made: Contents, absent: list[Item], place: Path, progress: Progress) -> None:
    """Copy what is absent, each file whole and flushed, MANIFEST.json last. Raises StorageFailed.

    What was copied before an error stays, and the same again goes on from there.
    """
    try:
        if absent:
            (place / MANIFEST).unlink(missing_ok=True)  # from here on the bundle is not what it says
        for item in absent:
            _copy(item, place / item.name, progress)
        finish(place)
    except OSError as error:
        raise unwritten(place, error) from error


_MENDS: Final = {
    errno.ENOSPC: "Make room there, or take another stick: the same command goes on where it stopped.",
    errno.EDQUOT: "Make room there, or take another stick: the same command goes on where it stopped.",
    errno.EROFS: "Is its switch for write protection on? A stick with errors is mounted read only, too: see `dmesg`.",
    errno.EACCES: "This user may not write there.",
    errno.EPERM: "This user may not write there.",
    errno.ENOTDIR: "Something of that name is no folder: move it away.",
    errno.EEXIST: "Something of that name is no folder: move it away.",
    errno.EISDIR: "A folder stands where a file should: move it away.",
}


def unwritten(place: Path, error: OSError) -> StorageFailed:
    """The error for a stick that refused a write: what a person does about it."""
    pulled = (
        "Was the stick pulled out? Put it in again and run the same command: it goes on where it stopped."
    )
    return StorageFailed(
        f"{error.filename or place} cannot be written: {error.strerror}.",
        mend=_MENDS.get(error.errno or 0, pulled),
    )


def _copy(item: Item, target: Path, progress: Progress) -> None:
    part = target.with_name(f"{target.name}.part")
    with item.source.open("rb") as source, part.open("wb") as file:
        while piece := source.read(_PIECE_BYTES):
            file.write(piece)
            progress(len(piece))
        file.flush()
        os.fsync(file.fileno())
    part.rename(target)
    flush_folder(target.parent)


def described(path: Path) -> dict[str, Any]:
    """Size and digest of a file, as MANIFEST.json has them. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _listed(place: Path) -> dict[str, Any]:
    """Every file of the bundle, those of an earlier export as well."""
    names = [path.name for path in sealed_paths(place)]
    names += [f"{BLOBS}/{path.name}" for path in sorted((place / BLOBS).iterdir()) if not path.suffix]
    return {name: described(place / name) for name in names}


def finish(place: Path) -> None:
    """Write MANIFEST.json of all segments and values that are in the folder. Raises OSError, StorageFailed."""
    found = {}
    for path in sealed_paths(place):
        with contextlib.suppress(SegmentRejected):
            found[path] = manifest_of(path)
    newest = found[max(found)]
    document = {
        "format": FORMAT,
        "box": newest.box,
        "log_id": newest.log_id.hex(),
        "key": newest.key.hex(),
        "keys": sorted({said.key.hex() for said in found.values()}),
        "through": newest.last_seq,
        "files": dict(sorted(_listed(place).items())),
    }
    write_whole(place / MANIFEST, json.dumps(document, indent=1).encode() + b"\n")
    (place / MANIFEST).chmod(0o644)
    flush_folder(place)
