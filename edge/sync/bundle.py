"""Bundles: sealed segments of one log in a folder, on a stick or a disk, complete in itself.

    noetl-edge-<box>-<log>/  000000000000.segment …   blobs/<digest>   MANIFEST.json

`MANIFEST.json` is written last and names every file with its size and digest: a folder without one was not finished,
and exporting again goes on where it stopped. Nobody has to trust the courier: segments are signed, and everything is
checked again where it arrives. Called by `edge bundle`; needs neither network nor account, and no runtime.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from edge.core.errors import Misconfigured, SegmentRejected, StorageFailed
from edge.core.records import record
from edge.segments.manifest import NO_SEGMENT, Manifest
from edge.segments.sealed import SUFFIX, manifest_in, open_sealed
from edge.segments.sealing import sealed_paths, write_whole
from edge.store.blobs import BlobStore
from edge.store.segment_file import flush_folder

MANIFEST: Final = "MANIFEST.json"
BLOBS: Final = "blobs"
_FORMAT: Final = "noetl-edge-bundle-1"
_PIECE_BYTES: Final = 1 << 20
_START_BYTES: Final = 128 * 1024
#: Left free on what is exported to: a full stick is read only for many a system.
_SPARE_BYTES: Final = 1 << 20

Progress = Callable[[int], None]
"""Called with the bytes that were dealt with since the last call."""


@record
class Item:
    """One file of a bundle: where it comes from, its name in the bundle, its size."""

    source: Path
    name: str
    size_bytes: int


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
        return f"noetl-edge-{newest.box}-{newest.log_id.hex()}"


def contents(sealed_folder: Path, blobs: BlobStore, after: int = 0) -> Contents | None:
    """What there is to be carried: segments that go beyond event `after` and their blobs. None where nothing is.

    Raises StorageFailed, SegmentRejected where one cannot be read.
    """
    items: list[Item] = []
    manifests: list[Manifest] = []
    seen: set[bytes] = set()
    for path in sealed_paths(sealed_folder):
        manifest = manifest_of(path)
        if manifest.last_seq <= after:
            continue
        manifests.append(manifest)
        items.append(Item(path, path.name, path.stat().st_size))
        for digest, size_bytes in manifest.blobs:
            if digest not in seen and blobs.path(digest).exists():
                seen.add(digest)
                items.append(Item(blobs.path(digest), f"{BLOBS}/{digest.hex()}", size_bytes))
    return Contents(items, manifests) if manifests else None


def manifest_of(path: Path) -> Manifest:
    """A segment file's manifest, its signature not looked at. Raises SegmentRejected, StorageFailed."""
    try:
        with path.open("rb") as file:
            raw, _, _ = manifest_in(file.read(_START_BYTES))
        return Manifest.decode(raw)
    except OSError as error:
        raise StorageFailed(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise SegmentRejected(f"{path.name} cannot be read: {error}.") from error


def missing_bytes(made: Contents, place: Path) -> int:
    """What has to be copied still: files that are not in the bundle whole."""
    return sum(item.size_bytes for item in made.items if not _is_there(item, place))


def require_room(made: Contents, place: Path) -> None:
    """Raises StorageFailed where what is missing does not fit."""
    folder = place if place.exists() else place.parent
    free_bytes, wanted = shutil.disk_usage(folder).free, missing_bytes(made, place) + _SPARE_BYTES
    if free_bytes < wanted:
        raise StorageFailed(
            f"{folder} has {free_bytes / 1e6:.1f} MB free, and {wanted / 1e6:.1f} MB are needed.",
            mend="Make room there, or take another stick. What is copied already stays and is not copied again.",
        )


def export(made: Contents, place: Path, progress: Progress) -> Iterator[str]:
    """Copy what is missing, each file whole and flushed, MANIFEST.json last; the names of what was copied.

    Raises StorageFailed: what was copied before stays, and the same again goes on from there.
    """
    try:
        (place / BLOBS).mkdir(parents=True, exist_ok=True)
        for item in made.items:
            if _is_there(item, place):
                progress(item.size_bytes)
                continue
            (place / MANIFEST).unlink(missing_ok=True)  # from here on the bundle is not what it says
            _copy(item, place / item.name, progress)
            yield item.name
        files = {item.name: _described(place / item.name) for item in made.items}
        kept = _listed(place) | files
        write_whole(place / MANIFEST, _document(made, kept))
        flush_folder(place)
    except OSError as error:
        raise StorageFailed(
            f"{place} cannot be written: {error.strerror}.",
            mend="Was the stick pulled out? Put it in again and run the same command: it goes on where it stopped.",
        ) from error


def _is_there(item: Item, place: Path) -> bool:
    try:
        return (place / item.name).stat().st_size == item.size_bytes
    except OSError:
        return False


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


def _described(path: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _listed(place: Path) -> dict[str, Any]:
    """Files of an earlier export that are in the folder still."""
    names = [path.name for path in sealed_paths(place)]
    names += [f"{BLOBS}/{path.name}" for path in sorted((place / BLOBS).iterdir()) if not path.suffix]
    return {name: _described(place / name) for name in names}


def _document(made: Contents, files: dict[str, Any]) -> bytes:
    newest = made.manifests[-1]
    document = {
        "format": _FORMAT,
        "box": newest.box,
        "log_id": newest.log_id.hex(),
        "key": newest.key.hex(),
        "through": newest.last_seq,
        "files": dict(sorted(files.items())),
    }
    return json.dumps(document, indent=1).encode() + b"\n"


# ---- looking at one ----------------------------------------------------------------------------------------


@record
class Verdict:
    """What is in a bundle and what is wrong with it; `problems` is empty where all is whole."""

    box: str
    log_id: str
    segments: int
    events: int
    first_seq: int
    last_seq: int
    blobs: int
    size_bytes: int
    problems: list[str]


def verify(place: Path, progress: Progress = lambda size_bytes: None) -> Verdict:
    """Read all of a bundle: every file against MANIFEST.json, every signature, every event against its chain.

    Raises Misconfigured where the folder is no bundle.
    """
    document = _read_document(place)
    problems: list[str] = []
    for name, said in document["files"].items():
        path = place / name
        if not path.is_file():
            problems.append(f"{name} is absent.")
            continue
        found = _described(path)
        progress(found["bytes"])
        if found["bytes"] != said["bytes"]:
            problems.append(f"{name} has {found['bytes']} bytes and should have {said['bytes']}.")
        elif found != said:
            problems.append(f"{name} was changed.")
    walk = _Walk(document, problems)
    for path in sealed_paths(place):
        if path.name not in document["files"]:
            problems.append(f"{path.name} is not named in {MANIFEST}.")
        walk.segment(path)
    problems += walk.absent_blobs(place)
    return Verdict(
        document["box"],
        document["log_id"],
        walk.segments,
        walk.events,
        walk.first_seq,
        walk.last_seq,
        len(walk.blobs),
        sum(said["bytes"] for said in document["files"].values()),
        problems,
    )


def _read_document(place: Path) -> dict[str, Any]:
    path = place / MANIFEST
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != _FORMAT or not all(
            type(said["bytes"]) is int and type(said["sha256"]) is str and _is_name(name)
            for name, said in document["files"].items()
        ):
            raise ValueError("it is of another format")
        return {
            **document,
            "box": str(document["box"]),
            "log_id": str(document["log_id"]),
            "key": str(document["key"]),
        }
    except FileNotFoundError as error:
        raise Misconfigured(
            f"{place} has no {MANIFEST}: it is no bundle, or was not finished.",
            mend="Name the folder `noetl-edge-…` itself. Where the stick was pulled out, export again: it goes on.",
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Misconfigured(f"{path} cannot be read: {error}.", mend="Export the bundle again.") from error


def _is_name(name: str) -> bool:
    """A file of a bundle lies in it: nothing that somebody wrote into MANIFEST.json leads elsewhere."""
    folder, _, file = name.rpartition("/")
    return folder in ("", BLOBS) and file not in ("", ".", "..") and "\0" not in file


class _Walk:
    """Goes along the segments of a bundle: does each follow the one before?"""

    def __init__(self, document: dict[str, Any], problems: list[str]) -> None:
        self._document, self._problems = document, problems
        self._previous: tuple[bytes, Manifest] | None = None
        self.segments = self.events = self.first_seq = self.last_seq = 0
        self.blobs: dict[bytes, int] = {}

    def segment(self, path: Path) -> None:
        """The next file."""
        try:
            sealed = open_sealed(path.read_bytes())
            for _ in sealed.groups():
                pass
        except (SegmentRejected, OSError) as error:
            self._problems.append(f"{path.name}: {error}")
            return
        said = sealed.manifest
        if path.name != f"{said.number:012d}{SUFFIX}":
            self._problems.append(f"{path.name} is segment {said.number} under another name.")
        if said.log_id.hex() != self._document["log_id"] or said.key.hex() != self._document["key"]:
            self._problems.append(f"{path.name} is of another log, or signed by another key.")
        if self._previous is not None:
            self._join(path, said)
        self._previous = sealed.id, said
        self.segments += 1
        self.events += said.events
        self.first_seq = self.first_seq or said.first_seq
        self.last_seq = said.last_seq
        self.blobs |= dict(said.blobs)

    def _join(self, path: Path, said: Manifest) -> None:
        assert self._previous is not None
        before_id, before = self._previous
        if said.number > before.number + 1:
            self._problems.append(
                f"Events {before.last_seq + 1} to {said.first_seq - 1} are absent: segments {before.number + 1} to "
                f"{said.number - 1} are not in the bundle."
            )
        elif (
            said.previous != before_id or said.link_before != before.link_after or said.previous == NO_SEGMENT
        ):
            self._problems.append(
                f"{path.name} does not follow segment {before.number}: it is of another history."
            )

    def absent_blobs(self, place: Path) -> list[str]:
        """Values that the segments name and the bundle lacks, or has changed."""
        found = []
        for digest in self.blobs:
            path = place / BLOBS / digest.hex()
            if not path.is_file():
                found.append(f"{BLOBS}/{digest.hex()} is absent: a value over 64 KiB.")
            elif _described(path)["sha256"] != digest.hex():
                found.append(f"{BLOBS}/{digest.hex()} was changed.")
        return found
