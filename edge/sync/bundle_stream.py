"""A bundle through a pipe: from a box or a stick into a folder of bundles, over ssh or on one machine.

    {"format": "noetl-edge-stream-1", "folder": "noetl-edge-pump7-…", "files": 3, "bytes": 4711}
    {"name": "000000000042.segment", "bytes": 4000, "sha256": "…"}   and then so many bytes, for each file
    {"end": true}

The receiver says before what it has, so that the same again sends what is missing; it writes each file whole, by its
digest, and `MANIFEST.json` last. Called by `edge bundle stream|receive`. It needs no room on the box, and takes
nothing off it. What arrives is believed no more than a stick: names are checked, signatures by whoever imports.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, Final

from edge.core.errors import SegmentRejected, StorageFailed, Unavailable
from edge.core.records import record
from edge.segments.sealed import SUFFIX
from edge.segments.sealing import manifest_of, sealed_paths
from edge.store.whole_file import write_whole
from edge.sync import bundle

FORMAT: Final = "noetl-edge-stream-1"
_LINE_BYTES_MAX: Final = 4_096
#: Larger than any segment or value there is.
_FILE_BYTES_MAX: Final = 64 << 20
_FOLDER: Final = re.compile(r"noetl-edge-[A-Za-z0-9][A-Za-z0-9_-]{0,62}-[0-9a-f]{16}")
_NAME: Final = re.compile(rf"[0-9]{{12}}{re.escape(SUFFIX)}|{bundle.BLOBS}/[0-9a-f]{{64}}")
_AGAIN: Final = "Run the same again: it goes on from there."


@record
class Received:
    """A bundle that came: its folder (None: there was nothing to carry), how many files were new, how many bytes."""

    place: Path | None
    files: int
    size_bytes: int


def held(folder: Path) -> list[str]:
    """What a folder of bundles has: `bundle/name`, one for each file."""
    names = []
    for place in sorted(folder.glob("noetl-edge-*")):
        names += [f"{place.name}/{path.name}" for path in sealed_paths(place)]
        values = place / bundle.BLOBS
        names += [
            f"{place.name}/{bundle.BLOBS}/{path.name}" for path in sorted(values.glob("*")) if not path.suffix
        ]
    return names


def of_folder(place: Path) -> bundle.Contents:
    """A bundle that lies somewhere as what there is to be carried. Raises SegmentRejected, StorageFailed."""
    paths = sealed_paths(place)
    if not paths:
        raise SegmentRejected(f"{place} holds no segments.", mend="Name the folder noetl-edge-… of a bundle.")
    values = sorted(path for path in (place / bundle.BLOBS).glob("*") if not path.suffix)
    items = []
    for path in [*paths, *values]:
        try:
            said = bundle.described(path)
        except OSError as error:
            raise StorageFailed(f"{path} cannot be read: {error.strerror}.") from error
        items.append(bundle.Item(path, str(path.relative_to(place)), said["bytes"], said["sha256"]))
    return bundle.Contents(items, [manifest_of(paths[-1])])


def write(made: bundle.Contents, has: Collection[str], out: BinaryIO) -> int:
    """Write what the other side has not got; how many files that were. Raises OSError where nobody reads."""
    folder = made.folder_name
    absent = [item for item in made.items if f"{folder}/{item.name}" not in has]
    size_bytes = sum(item.size_bytes for item in absent)
    _say(out, {"format": FORMAT, "folder": folder, "files": len(absent), "bytes": size_bytes})
    for item in absent:
        data = item.source.read_bytes()
        _say(out, {"name": item.name, "bytes": len(data), "sha256": item.sha256})
        out.write(data)
    _say(out, {"end": True})
    out.flush()
    return len(absent)


def write_nothing(out: BinaryIO) -> None:
    """Say that the centre has all that is sealed."""
    _say(out, {"format": FORMAT, "nothing": True})
    out.flush()


def _say(out: BinaryIO, said: dict[str, Any]) -> None:
    out.write(json.dumps(said).encode() + b"\n")


def receive(stream: BinaryIO, folder: Path, progress: bundle.Progress = lambda _: None) -> Received:
    """Take a stream into a folder of bundles. What came before it broke off stays.

    Raises Unavailable where it broke off, SegmentRejected where it is not what it should be, StorageFailed.
    """
    said = _line(stream)
    if said.get("format") == FORMAT and said.get("nothing"):
        return Received(None, 0, 0)
    name = str(said.get("folder"))
    if said.get("format") != FORMAT or not _FOLDER.fullmatch(name):
        raise SegmentRejected("This is no stream of a bundle.", mend="`edge bundle stream` makes one.")
    place = folder / name
    files = size_bytes = 0
    with bundle.alone(place):
        if said["files"]:
            (place / bundle.MANIFEST).unlink(missing_ok=True)  # from here on the bundle is not what it says
        while "end" not in (said := _line(stream)):
            data = _file(stream, said)
            write_whole(place / said["name"], data)
            progress(len(data))
            files, size_bytes = files + 1, size_bytes + len(data)
        if sealed_paths(place):
            bundle.finish(place)
    return Received(place, files, size_bytes)


def _line(stream: BinaryIO) -> dict[str, Any]:
    line = stream.readline(_LINE_BYTES_MAX)
    if not line.endswith(b"\n"):
        raise Unavailable("The stream broke off.", mend=_AGAIN)
    try:
        said = json.loads(line)
    except ValueError as error:
        raise SegmentRejected(
            f"The stream has a line that is none of its own: {line[:80]!r}.",
            mend="Does the other side's shell greet whoever logs in? Nothing may stand before the stream.",
        ) from error
    return said if isinstance(said, dict) else {}


def _file(stream: BinaryIO, said: dict[str, Any]) -> bytes:
    name, size_bytes = str(said.get("name")), said.get("bytes")
    if not _NAME.fullmatch(name) or type(size_bytes) is not int or not 0 <= size_bytes <= _FILE_BYTES_MAX:
        raise SegmentRejected(f"The stream has a file {name[:80]!r}, which no bundle has.")
    data = stream.read(size_bytes)
    if len(data) < size_bytes:
        raise Unavailable("The stream broke off.", mend=_AGAIN)
    if hashlib.sha256(data).hexdigest() != said.get("sha256"):
        raise SegmentRejected(f"{name} was changed on its way.", mend=_AGAIN)
    return data
