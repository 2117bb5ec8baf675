"""Is a bundle whole? Reads every file, every signature and every event of it.

Called by `edge bundle verify` and by a centre's import. It needs no box and changes nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge.core.errors import Misconfigured, SegmentRejected
from edge.core.records import record
from edge.segments.manifest import NO_SEGMENT, Manifest
from edge.segments.sealed import open_sealed
from edge.segments.sealing import name_of, sealed_paths
from edge.sync.bundle import BLOBS, FORMAT, MANIFEST, Progress, described


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
    keys: list[str]
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
        found = described(path)
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
    problems += walk.blob_problems(place)
    if walk.last_seq < document["through"]:
        problems.append(
            f"Events after {walk.last_seq} are absent: the bundle should go to event {document['through']}."
        )
    return Verdict(
        document["box"],
        document["log_id"],
        walk.segments,
        walk.events,
        walk.first_seq,
        walk.last_seq,
        len(walk.blobs),
        sum(said["bytes"] for said in document["files"].values()),
        document["keys"],
        list(dict.fromkeys(problems)),
    )


def _read_document(place: Path) -> dict[str, Any]:
    path = place / MANIFEST
    if not place.is_dir():
        raise Misconfigured(f"{place} is no folder.", mend="Is the stick mounted? `lsblk` shows where.")
    if not path.is_file():
        below = sorted(each.parent.name for each in place.glob(f"noetl-edge-*/{MANIFEST}"))
        raise Misconfigured(
            f"{place} has no {MANIFEST}: it is no bundle, or was not finished.",
            mend=f"Name the folder in it: {', '.join(below)}."
            if below
            else "Where the stick was pulled out, export again: it goes on where it stopped.",
        )
    try:
        document = json.loads(path.read_bytes())
        if document.get("format") != FORMAT or not all(
            type(said["bytes"]) is int and type(said["sha256"]) is str and _is_name(name)
            for name, said in document["files"].items()
        ):
            raise ValueError("it is of another format")
        said = {name: str(document[name]) for name in ("box", "log_id", "key")}
        keys = [str(key) for key in document["keys"]]
        return {"files": document["files"], "through": int(document["through"]), "keys": keys, **said}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Misconfigured(
            f"{path} cannot be read ({error or type(error).__name__}).",
            mend="Export the bundle again, into this folder.",
        ) from error


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
            sealed.check()
        except (SegmentRejected, OSError) as error:
            self._problems.append(f"{path.name}: {error}")
            return
        said = sealed.manifest
        if path.name != name_of(said.number):
            self._problems.append(f"{path.name} is segment {said.number} under another name.")
        if said.log_id.hex() != self._document["log_id"]:
            self._problems.append(f"{path.name} is of another log.")
        if said.key.hex() not in self._document["keys"]:
            self._problems.append(f"{path.name} is signed by a key that {MANIFEST} does not name.")
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
        elif said.previous == NO_SEGMENT or not said.follows(before_id, before.last_seq, before.link_after):
            self._problems.append(
                f"{path.name} does not follow segment {before.number}: it is of another history."
            )

    def blob_problems(self, place: Path) -> list[str]:
        """Values that the segments name and the bundle lacks or has changed, and files that no segment needs."""
        found = []
        for digest in self.blobs:
            path = place / BLOBS / digest.hex()
            if not path.is_file():
                found.append(f"{BLOBS}/{digest.hex()} is absent.")
            elif described(path)["sha256"] != digest.hex():
                found.append(f"{BLOBS}/{digest.hex()} was changed.")
        needed = {f"{BLOBS}/{digest.hex()}" for digest in self.blobs}
        return found + [
            f"{name} is needed by no segment that is here."
            for name in self._document["files"]
            if name.startswith(f"{BLOBS}/") and name not in needed
        ]
