"""A log as its sealed segments have it: a bundle on a stick, a box's own queue, or the centre's shelf.

Called by the command line. It opens what it is given and nothing else; who signed it is for the caller to know (the
centre asked when it took a segment in). Never imported by a daemon of the box: it opens segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from edge.core.chain import OpenedGroup
from edge.core.errors import LogDamaged, RequestRefused, SegmentRejected
from edge.core.records import record
from edge.replay.source import Missing
from edge.segments.columns import Rows
from edge.segments.manifest import Manifest
from edge.segments.sealed import Sealed, open_sealed
from edge.segments.sealing import manifest_of, sealed_paths

#: An execution's events lie close together; so many after its request are looked at first.
_SOON_EVENTS: Final = 64

Blob = Callable[[bytes], bytes]


@record
class SealedFile:
    """One segment's file, the events in it, and when it came here (ns since 1970, by this machine's clock)."""

    path: Path
    number: int
    first_seq: int
    last_seq: int
    came_ns: int = 0


class SealedSource:
    """Segments of one log, by number."""

    def __init__(self, log_id: bytes, box: str, files: Iterable[SealedFile], blob: Blob) -> None:
        self.log_id, self.box, self._blob = log_id, box, blob
        self.files = sorted(files, key=lambda each: each.number)
        self.missing = list(_missing(self.files))

    def known_at(self, known_ns: int) -> SealedSource:
        """The same log as it was known at that time: with the segments that had come by then."""
        files = [each for each in self.files if each.came_ns <= known_ns]
        return SealedSource(self.log_id, self.box, files, self._blob)

    def groups(self, after_seq: int = 0) -> Iterator[OpenedGroup]:
        """As in `edge.replay.source.Source`. Raises SegmentRejected."""
        for each in self.files:
            if each.last_seq <= after_seq:
                continue
            sealed = self._opened(each)
            # Signature and digest of its body hold; every link of the chain was looked at when it was taken in.
            for wanted in _windows(each, after_seq):
                for group in sealed.read(wanted):
                    if group.last_seq > after_seq:
                        after_seq = group.last_seq
                        yield group

    def columns(self) -> Iterator[tuple[list[int], list[Rows]] | list[OpenedGroup]]:
        """As in `edge.replay.source.Columned`."""
        for each in self.files:
            sealed = self._opened(each)
            yield sealed.rows() or list(sealed.read())

    def _opened(self, file: SealedFile) -> Sealed:
        try:
            sealed = open_sealed(file.path.read_bytes())
        except (OSError, SegmentRejected) as error:
            why = error.message if isinstance(error, SegmentRejected) else f"{error.strerror}."
            raise SegmentRejected(
                f"{file.path}: {why}",
                mend="Its box seals it again (edge bundle export FOLDER --all there), for edge central import.",
            ) from error
        if sealed.manifest.log_id != self.log_id or sealed.manifest.number != file.number:
            raise SegmentRejected(f"{file.path} is not segment {file.number} of log {self.log_id.hex()}.")
        return sealed

    def blob(self, digest: bytes) -> bytes:
        """As in Source."""
        return self._blob(digest)


def _windows(file: SealedFile, after_seq: int) -> Iterator[range | None]:
    """What to take out of a segment at once: all of it, or first some events from the middle of it on.

    Who asks for events from the middle on wants an execution, and has it soon.
    """
    if after_seq < file.first_seq:
        yield None
        return
    middle = min(after_seq + 1 + _SOON_EVENTS, file.last_seq + 1)
    yield range(after_seq + 1, middle)
    yield range(middle, file.last_seq + 1)


def folder_source(folder: Path) -> SealedSource:
    """The segments of a bundle, or of any folder of them. Raises RequestRefused, SegmentRejected."""
    files: list[SealedFile] = []
    manifests: list[Manifest] = []
    for path in sealed_paths(folder) if folder.is_dir() else []:
        said = manifest_of(path)
        manifests.append(said)
        files.append(SealedFile(path, said.number, said.first_seq, said.last_seq, path.stat().st_mtime_ns))
    if not manifests:
        raise RequestRefused(
            f"{folder} holds no sealed segments.", mend="Name a bundle's folder noetl-edge-…, or `sealed`."
        )
    logs = {said.log_id for said in manifests}
    if len(logs) > 1:
        raise RequestRefused(f"{folder} holds segments of {len(logs)} logs.", mend="Replay them one by one.")
    newest = manifests[-1]
    return SealedSource(newest.log_id, newest.box, files, lambda digest: _blob_in(folder, digest))


def _blob_in(folder: Path, digest: bytes) -> bytes:
    try:
        return (folder / "blobs" / digest.hex()).read_bytes()
    except OSError as error:
        raise LogDamaged(
            f"The large value {digest.hex()[:16]} is not in {folder}: {error.strerror}."
        ) from error


def _missing(files: list[SealedFile]) -> Iterator[Missing]:
    """What lies between the segments that are here, and before the first."""
    expected, last_seq = 0, 0
    for each in files:
        if each.number != expected:
            lacking = f"segment {expected}" if each.number == expected + 1 else (
                f"segments {expected} to {each.number - 1}"
            )  # fmt: skip
            yield Missing(last_seq + 1, each.first_seq - 1, f"{lacking} of the log")
        expected, last_seq = each.number + 1, each.last_seq
