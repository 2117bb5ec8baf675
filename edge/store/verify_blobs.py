"""Are the large values there? Reads every blob, and looks for those that requests and messages came with.

Called by `edge log verify`, with what the journal's events name. Reads only, and may run beside a live runtime. A
block of a pure step is named by the log and need not be kept (it is made again), so that its absence is no damage;
what came from outside is in the blob store or nowhere.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge.core.events import Event, ExecutionRequested
from edge.core.subscription_events import MessageReceived
from edge.store.segment_file import segment_paths

_PIECE_BYTES: Final = 1024 * 1024
_NAME: Final = re.compile("[0-9a-f]{64}")
_TOLD_DIGITS: Final = 16


@dataclass(slots=True)
class BlobCheck:
    """What was seen of a log's events, then of its blobs. `problems` is empty where all is whole."""

    count: int = 0
    size_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    #: What came from outside: its digest, and the event that brought it.
    _needed: dict[bytes, int] = field(default_factory=dict)

    def see(self, event: Event) -> None:
        """One event of the journal."""
        body = event.body
        if not isinstance(body, ExecutionRequested | MessageReceived):
            return
        if body.payload is None and body.payload_digest is not None:
            self._needed[body.payload_digest] = event.seq

    def look(self, folder: Path, journal: Path) -> None:
        """Read every blob; name those that are not what they were, or are gone."""
        found: set[bytes] = set()
        for path in sorted(folder.glob("??/*")):
            if not _NAME.fullmatch(path.name):
                continue  # nothing of ours
            try:
                digest, size_bytes = _digest_of(path)
            except FileNotFoundError:
                continue  # removed by retention while this was looking
            except OSError as error:
                self.problems.append(f"Blob {path.name[:_TOLD_DIGITS]} cannot be read: {error.strerror}.")
                found.add(bytes.fromhex(path.name))
                continue
            found.add(bytes.fromhex(path.name))
            self.count, self.size_bytes = self.count + 1, self.size_bytes + size_bytes
            if digest != path.name:
                self.problems.append(f"Blob {path.name[:_TOLD_DIGITS]} does not hold what was stored.")
        paths = segment_paths(journal)
        pruned_to = int(paths[0].stem) - 1 if paths else 0
        self.problems += [
            f"Blob {digest.hex()[:_TOLD_DIGITS]} is missing, which event {seq} came with."
            for digest, seq in self._needed.items()
            if digest not in found and seq > pruned_to
        ]


def _digest_of(path: Path) -> tuple[str, int]:
    """A file's SHA-256 as its name has it, and its bytes. Raises OSError."""
    made, size_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            made.update(piece)
            size_bytes += len(piece)
    return made.hexdigest(), size_bytes
