"""Segments over HTTPS to the box's centre, and the redeeming of an enrolment there.

Every request is signed by the log key (`edge.segments.box_token`), and the server is believed only with a certificate
of the authority that the enrolment named: no other authority counts, whatever the system trusts. Uploads go on at the
offset that the centre has. Called through `edge.sync.transport.Transport` by the command line and by whatever ships.

Python's own HTTP client: one connection, one request at a time, bodies in small pieces. It must never send to another
host than the enrolment names, nor follow a redirect.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edge.core.clock import Clock
from edge.core.errors import SegmentRejected, StorageFailed, Unavailable
from edge.core.limits import UPLOAD_BYTES_MAX
from edge.security.signing import Signer
from edge.segments import box_token
from edge.sync.centre import Enrolment
from edge.sync.https_connection import Answer, Connection, refused
from edge.sync.transport import Delivered, LogState, Parcel, Progress, SegmentVerdict, Traits, spans

_OFFSET_CODES: Final = ("upload_offset", "upload_damaged")
#: The centre's offset and ours can differ once: an older request of ours was still under way.
_TRIES: Final = 3


class HttpsTransport:
    """One box's way to its centre. `clock` gives the box's own time, which may be wrong by any amount."""

    traits = Traits("https", answers=True, parcel_bytes_max=UPLOAD_BYTES_MAX)

    def __init__(self, enrolment: Enrolment, signer: Signer, clock: Clock | None = None) -> None:
        """Raises Misconfigured where the enrolment names no centre that can be reached."""
        self._connection = Connection(
            enrolment, time.time if clock is None else lambda: clock.read().wall_ns / 1e9
        )
        self._signer = signer
        self._base = urlsplit(enrolment.url).path.rstrip("/")
        #: How much the centre's clock is ahead of ours, as far as it has told us.
        self._ahead_ns = 0
        #: Of which uploads the centre may have some: those that did not end well, and any before the first that did.
        self._begun: set[str] = set()
        self._first = True

    def _asked(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        progress: Progress | None = None,
    ) -> Answer:
        """A signed request's answer, whatever its status. A clock that the centre calls wrong is set right once."""
        path = self._base + target
        answer = self._once(method, path, body, headers or {}, progress)
        if answer.status == 401 and answer.code == box_token.CLOCK_SKEW:
            self._ahead_ns = answer.wall_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            answer = self._once(method, path, body, headers or {}, progress)
        return answer

    def _once(
        self, method: str, path: str, body: bytes, headers: dict[str, str], progress: Progress | None
    ) -> Answer:
        signed = box_token.authorization(self._signer, method, path, self._now_ns())
        return self._connection.ask(method, path, body, {"Authorization": signed, **headers}, progress)

    def _now_ns(self) -> int:
        """The centre's time where it told us, counted on by a clock that nobody sets; else the box's own."""
        if self._ahead_ns:
            return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self._ahead_ns
        return self._connection.wall_ns()

    def _document(self, method: str, target: str, body: bytes = b"") -> dict[str, Any]:
        answer = self._asked(method, target, body)
        if answer.status != 200:
            raise refused(answer)
        return answer.document

    def state(self, log_id: bytes) -> LogState:
        """What the centre has of a log."""
        said = self._document("GET", f"/v1/logs/{log_id.hex()}")
        try:
            return LogState(
                int(said["through"]),
                bytes.fromhex(said["link"]),
                spans(map(int, said["held"])),
                int(said["wall_ns"]),
                bytes.fromhex(said["receipt"]),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise _not_understood(error) from error

    def lacking(self, digests: Collection[bytes]) -> set[bytes]:
        """Which large values the centre does not have."""
        if not digests:
            return set()
        asked = json.dumps({"digests": [digest.hex() for digest in sorted(digests)]}).encode()
        said = self._document("POST", "/v1/values", asked)
        try:
            return {bytes.fromhex(each) for each in said["lacking"]}
        except (KeyError, ValueError, TypeError) as error:
            raise _not_understood(error) from error

    def send_value(self, digest: bytes, source: Path, progress: Progress) -> None:
        """Upload one. Raises SegmentRejected where the file does not hold it."""
        try:
            data = source.read_bytes()
        except OSError as error:
            raise StorageFailed(f"{source} cannot be read: {error.strerror}.") from error
        if hashlib.sha256(data).digest() != digest:
            raise SegmentRejected(f"{source} does not hold what was stored.")
        self._upload(f"/v1/values/{digest.hex()}", data, {}, progress)

    def send(self, parcel: Parcel, progress: Progress) -> Delivered:
        """Upload a parcel, going on at the offset that the centre has of it."""
        sizes = ",".join(str(len(each.data)) for each in parcel.segments)
        target = f"/v1/logs/{parcel.log_id.hex()}/parcels/{parcel.digest.hex()}"
        said, sent_bytes, offset = self._upload(target, parcel.data, {"Edge-Segments": sizes}, progress)
        try:
            verdicts = tuple(
                SegmentVerdict(each.manifest.number, str(verdict), str(reason))
                for each, (_, verdict, reason) in zip(parcel.segments, said["verdicts"], strict=True)
            )
            return Delivered(verdicts, bytes.fromhex(said["receipt"]), sent_bytes, offset)
        except (KeyError, ValueError, TypeError) as error:
            raise _not_understood(error) from error

    def _upload(
        self, target: str, data: bytes, headers: dict[str, str], progress: Progress
    ) -> tuple[dict[str, Any], int, int]:
        """`(the answer, bytes sent, offset at first)`. Raises as `Transport` says."""
        sent_bytes, first = 0, -1

        def count(size_bytes: int) -> None:
            nonlocal sent_bytes
            sent_bytes += size_bytes
            progress(size_bytes)

        for _ in range(_TRIES):
            offset = min(self._offset(target), len(data)) if self._first or target in self._begun else 0
            first = offset if first < 0 else first
            self._begun.add(target)
            place = f"{target}?offset={offset}&total={len(data)}"
            answer = self._asked("PUT", place, data[offset:], headers, count)
            if answer.status == 200:
                self._first = False
                self._begun.discard(target)
                return answer.document, sent_bytes, first
            if answer.code not in _OFFSET_CODES:
                raise refused(answer)
        raise Unavailable("The centre and this box do not agree how much of an upload is there.")

    def _offset(self, target: str) -> int:
        said = self._document("GET", target)
        if type(said.get("offset")) is not int or said["offset"] < 0:
            raise _not_understood(ValueError("no offset"))
        return int(said["offset"])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def redeem(enrolment: Enrolment, signer: Signer) -> Enrolment:
    """Bring the log's key to the centre with the enrolment's one-time token; what the box keeps of it.

    Raises RequestRefused with the centre's reason, Unavailable, Misconfigured.
    """
    connection = Connection(enrolment, time.time)
    said = {
        "token": enrolment.token,
        "box": enrolment.box,
        "key": signer.public.hex(),
        "proof": box_token.enrolment_proof(signer, enrolment.token, enrolment.box).hex(),
    }
    path = urlsplit(enrolment.url).path.rstrip("/") + "/v1/enrol"
    try:
        answer = connection.ask("POST", path, json.dumps(said).encode(), {}, None)
    finally:
        connection.close()
    if answer.status != 200:
        raise refused(answer)
    if answer.document.get("centre_key") != enrolment.key.hex():
        raise Unavailable("The centre that answered is not the one of this enrolment.")
    return Enrolment(enrolment.key, enrolment.box, enrolment.url, enrolment.authority, enrolment.made_s)


def _not_understood(error: Exception) -> Unavailable:
    return Unavailable(
        f"The centre's answer is not understood ({error}).", mend="Is the centre of an older release?"
    )
