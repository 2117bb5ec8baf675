"""One connection to a centre: TLS with the enrolment's authority alone, requests in pieces, errors in words.

Owned by `edge.sync.https`. The certificate's dates are not looked at while the box's clock stands before the day of
its enrolment: that clock is wrong, and a box that woke up in 1970 must still reach its centre.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import field
from typing import Any, Final
from urllib.parse import urlsplit

from edge.core.errors import (
    EdgeError,
    Misconfigured,
    RequestRefused,
    SegmentRejected,
    StorageFailed,
    Unavailable,
)
from edge.core.records import record
from edge.sync.centre import Enrolment
from edge.sync.transport import Progress

_CONNECT_S: Final = 10.0
#: The centre looks at every event before it answers, and may be busy.
_ANSWER_S: Final = 120.0
_PIECE_BYTES: Final = 16 * 1024
_ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
#: X509_V_FLAG_NO_CHECK_TIME of OpenSSL (x509_vfy.h), for which Python has no name.
_NO_CHECK_TIME: Final = 0x200000
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
#: X509_V_ERR_CERT_NOT_YET_VALID, _CERT_HAS_EXPIRED, _HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH.
_NOT_YET, _EXPIRED, _NAMES = 9, 10, (62, 64)


@record
class Answer:
    """What came back; `document` is the JSON of its body, empty where that is none."""

    status: int
    headers: dict[str, str]
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """Of the problem document."""
        return str(self.document.get("code", ""))

    @property
    def wall_ns(self) -> int:
        """The centre's time, 0 where it did not say."""
        value = self.document.get("wall_ns", 0)
        return value if type(value) is int else 0


class Connection:
    """See the module. `now_s` is the box's own clock."""

    def __init__(self, enrolment: Enrolment, now_s: Callable[[], float]) -> None:
        """Raises Misconfigured where the enrolment has no usable address."""
        try:
            parts = urlsplit(enrolment.url)
            self._host, self._port = parts.hostname or "", parts.port or 443
        except ValueError:
            parts, self._host = urlsplit(""), ""
        if not self._host or parts.scheme not in ("https", "http"):
            raise Misconfigured(
                f"The enrolment names no centre that can be reached ({enrolment.url or 'no address'}).",
                mend="Make one at the centre with its address: edge central enrol BOX --url https://… --out FILE.",
            )
        if parts.scheme == "http" and self._host not in _LOOPBACK:
            raise Misconfigured(
                f"{enrolment.url} is not https.", mend="Without TLS a centre is reached on this machine only."
            )
        self._tls = parts.scheme == "https"
        self._enrolment, self._now_s = enrolment, now_s
        self._open: http.client.HTTPConnection | None = None
        self._used = False

    def wall_ns(self) -> int:
        """The box's own time."""
        return int(self._now_s() * 1e9)

    def ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str], progress: Progress | None
    ) -> Answer:
        """One request's answer. Raises Unavailable, Misconfigured; what `progress` raises ends the connection."""
        answered = False
        try:
            try:
                made = self._ask(method, path, body, headers, progress)
            except (http.client.RemoteDisconnected, ConnectionError):
                # A connection that rested may be gone on the other side: once more on a new one. All requests may be
                # repeated, and a body that had begun goes on where the centre's offset says.
                if not self._used or body:
                    raise
                self.close()
                made = self._ask(method, path, body, headers, progress)
            answered = True
            return made
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            if not answered:
                self.close()

    def _ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str], progress: Progress | None
    ) -> Answer:
        self._used = self._open is not None
        connection = self._open or self._connect()
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if method in ("PUT", "POST"):
            connection.putheader("Content-Length", str(len(body)))
        broken: OSError | None = None
        try:
            connection.endheaders()
            for at in range(0, len(body), _PIECE_BYTES):
                piece = body[at : at + _PIECE_BYTES]
                connection.send(piece)
                if progress is not None:
                    progress(len(piece))
        except (BrokenPipeError, ConnectionResetError) as error:
            broken = error  # the centre may have answered before it had all: that answer says why
        try:
            response = connection.getresponse()
            data = response.read(_ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException):
            if broken is not None:
                raise broken from None
            raise
        made = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, _json(data))
        if response.will_close or broken is not None or not response.isclosed():
            self.close()
        return made

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls:
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=_CONNECT_S, context=self._context()
            )
        else:
            made = http.client.HTTPConnection(self._host, self._port, timeout=_CONNECT_S)
        made.connect()
        made.sock.settimeout(_ANSWER_S)
        self._open = made
        return made

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(cadata=self._enrolment.authority)
        except (ssl.SSLError, ValueError) as error:
            raise Misconfigured(
                "The enrolment names no authority for the centre's certificate.",
                mend="Enrol the box again, with a file from `edge central enrol BOX --url … --out FILE`.",
            ) from error
        if self._now_s() < self._enrolment.made_s:
            context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
        return context

    def _unreachable(self, error: Exception) -> EdgeError:
        where = f"{self._host}, port {self._port}"
        if isinstance(error, ssl.SSLCertVerificationError):
            if error.verify_code in (_NOT_YET, _EXPIRED):
                what = "has expired" if error.verify_code == _EXPIRED else "is not valid yet"
                return Unavailable(
                    f"The certificate of {where} {what}; this box's clock says {_date(self._now_s())}.",
                    mend="Is the clock right? If so, start the centre's server again: it renews its certificate.",
                )
            if error.verify_code in _NAMES:
                return Misconfigured(
                    f"The certificate of {where} is for another name.",
                    mend=f"Start the centre's server with --name {self._host}.",
                )
            return Misconfigured(
                f"{where} is not the centre of this box: its certificate is from another authority.",
                mend="Is it another server, or is somebody between? Nothing was sent. After a change enrol anew.",
            )
        if isinstance(error, ssl.SSLError):
            why = f"TLS failed ({error.reason or error})"
        else:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unavailable(
            f"The centre at {where} could not be reached: {why}.",
            mend="Nothing is lost: the same command goes on where it stopped.",
        )

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._open is not None:
            self._open.close()
            self._open = None


def refused(answer: Answer) -> EdgeError:
    """The error for an answer that is no success, in the centre's own words."""
    message = str(answer.document.get("message", "")) or f"The centre answered with status {answer.status}."
    mend = str(answer.document.get("mend", ""))
    wait = answer.headers.get("retry-after", "")
    retry_ms = int(wait) * 1_000 if wait.isascii() and wait.isdigit() else None
    if answer.status in (408, 409, 429, 502, 503, 504) or (answer.status == 401 and "skew" in answer.code):
        return Unavailable(message, mend=mend, retry_after_ms=retry_ms, code=answer.code)
    if answer.status == 507:
        return Unavailable(
            f"The centre takes nothing in: {message}", mend=mend, retry_after_ms=retry_ms, code=answer.code
        )
    if answer.status == 422:
        return SegmentRejected(message, mend=mend, code=answer.code)
    if answer.status >= 500:
        return StorageFailed(message, mend=mend, code=answer.code)
    return RequestRefused(message, mend=mend, code=answer.code)


def _json(data: bytes) -> dict[str, Any]:
    try:
        said = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        return {}
    return said if type(said) is dict else {}


def _date(wall_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(wall_s))
