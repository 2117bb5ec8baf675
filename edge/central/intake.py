"""What the server does with the centre's folder: one thread, one thing at a time, in the order of asking.

Called by `edge.central.http_app` through a pool of one thread, the only one that touches ledger and shelf. It
must never answer before what it says is durable (`edge.central.ingest`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from edge.central.boxes import Enrolled
from edge.central.ingest import Central
from edge.central.ledger import PARKED
from edge.central.one_time import OneTimeTokens
from edge.central.uploads import Uploads
from edge.core.errors import RequestRefused, StorageFailed, Unavailable
from edge.core.limits import INGESTS_WAITING_MAX
from edge.core.records import record

_RETRY_MS: Final = 2_000

_T = TypeVar("_T")


@record
class Parcelled:
    """Where a parcel is that has come whole: whose, and how it falls into segments."""

    box: str
    log_id: bytes
    digest: bytes
    sizes_bytes: tuple[int, ...]


class Intake:
    """A centre's folder behind one thread."""

    def __init__(self, data: Path, now_ns: Callable[[], int], *, deep: bool) -> None:
        """Raises Misconfigured, StorageFailed, and Unavailable where another process takes in there."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="intake")
        self._central = self._thread.submit(Central.open, data, now_ns, taking=True).result()
        self._deep = deep
        self._waiting = 0
        self.now_ns = now_ns
        self.boxes = self._central.boxes
        self.tokens = OneTimeTokens(data / "tokens", self.boxes)
        self.uploads = Uploads(data / "uploads")
        self.public = self._central.signer.public

    async def ask(self, call: Callable[..., _T], *given: Any) -> _T:
        """What a call gives in the thread. Raises Unavailable where too many wait already."""
        if self._waiting >= INGESTS_WAITING_MAX:
            raise Unavailable(
                "The centre has more to look at than it can.",
                mend="The box comes back by itself.",
                retry_after_ms=_RETRY_MS * self._waiting,
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call, *given)
        finally:
            self._waiting -= 1

    def state(self, box: Enrolled, log_id: bytes) -> dict[str, Any]:
        """What is here of a log: `through`, `link`, `held`, `receipt`. RequestRefused where it is another box's."""
        self._finish(box.box)
        linked = self._central.ledger.linked(log_id)
        if linked is not None and linked.box != box.box:
            raise RequestRefused(f"That log is box {linked.box}'s.", code="other_box")
        held = [each.number for each in self._central.ledger.segments(log_id, PARKED)]
        return {
            "through": linked.last_seq if linked is not None else 0,
            "link": linked.link.hex() if linked is not None else "",
            "held": held,
            "receipt": (self._central.receipt(log_id) or b"").hex(),
        }

    def _finish(self, box: str) -> None:
        """Give the verdicts that a killed server, or a full drive, owes: what came whole need not come again."""
        for digest, note in self.uploads.noted(box):
            try:
                log_id, *sizes = json.loads(note)
                self.parcel(Parcelled(box, bytes.fromhex(log_id), digest, tuple(map(int, sizes))))
            except (RequestRefused, ValueError, TypeError):
                self.uploads.done(box, digest)  # a power cut tore it: it is sent again

    def lacking(self, digests: Collection[bytes]) -> list[str]:
        """Which of these large values are not here, in hexadecimal digits."""
        return [digest.hex() for digest in digests if not self._central.shelf.has_blob(digest)]

    def value(self, box: str, digest: bytes) -> None:
        """Keep a large value that has come whole. Raises RequestRefused, SegmentRejected, StorageFailed."""
        self._central.shelf.put_blob(digest, self.uploads.whole(box, digest))
        self.uploads.done(box, digest)

    def parcel(self, said: Parcelled) -> dict[str, Any]:
        """The verdict on each segment of a parcel that has come whole, and the receipt after them.

        Raises RequestRefused where it is not what it says, StorageFailed: what got no verdict then is kept, and the
        same request with nothing in it asks again.
        """
        segments = _parts(self.uploads.whole(said.box, said.digest), said.sizes_bytes)
        note = json.dumps([said.log_id.hex(), *said.sizes_bytes]).encode()
        self.uploads.note(said.box, said.digest, note)
        made = self._central.take_all(segments, deep=self._deep)
        self.uploads.done(said.box, said.digest)
        return {
            "verdicts": [[each.number, each.verdict, each.reason] for each in made],
            "receipt": (self._central.receipt(said.log_id) or b"").hex(),
        }

    def close(self) -> None:
        """End the thread, after what it is at."""
        self._thread.submit(self._central.close).result()
        self._thread.shutdown()


def _parts(data: bytes, sizes_bytes: Sequence[int]) -> list[bytes]:
    parts, at = [], 0
    for size in sizes_bytes:
        parts.append(data[at : at + size])
        at += size
    if at != len(data):
        raise RequestRefused("The sizes of the segments do not come to the parcel's.", code="parcel_invalid")
    return parts


def storage_problem(error: OSError) -> StorageFailed:
    """A drive's error as a box is told it."""
    return StorageFailed(
        f"The centre's drive refused: {error.strerror}.", code="storage_full", retry_after_ms=300_000
    )
