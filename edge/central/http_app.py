"""The centre's HTTP: who asks, what of it is let in, how it is answered. What is done with it: `edge.central.intake`.

    GET  /v1/hello                             the centre's key and time; needs no box
    POST /v1/enrol                             a one-time token brings a box's key
    GET  /v1/logs/<log>                        how far a log is here
    POST /v1/values                            which of these large values are not here
    GET, PUT /v1/values/<digest>               offset and upload of a large value: ?offset=&total=
    GET, PUT /v1/logs/<log>/parcels/<digest>   offset and upload of segments, answered with a verdict for each

Each request but the first two is signed by a box (`edge.segments.box_token`), and one that is not is refused before a
byte of its body is read. Bodies and answers are JSON but for uploads. Served by `edge.central.serve`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge.central.boxes import Enrolled
from edge.central.intake import Intake, Parcelled, storage_problem
from edge.central.uploads import OFFSET
from edge.core.errors import (
    EdgeError,
    Misconfigured,
    RequestRefused,
    SegmentRejected,
    StorageFailed,
    Unavailable,
)
from edge.core.limits import (
    CENTRE_QUESTION_BYTES_MAX,
    SEGMENT_FILE_BYTES_MAX,
    UPLOAD_BYTES_MAX,
    UPLOAD_IDLE_S,
    UPLOAD_SEGMENTS_MAX,
)
from edge.segments import box_token

UPLOAD_OFFSET: Final = "upload-offset"
SEGMENT_SIZES: Final = "edge-segments"
BOX_UNKNOWN, KEY_REVOKED, TOO_LARGE = "box_unknown", "key_revoked", "too_large"
_DIGEST_BYTES: Final = 32
_LOG_ID_BYTES: Final = 8
#: What is not here stands for 400: the request makes no sense as it is.
_STATUS: Final = {
    box_token.TOKEN_INVALID: 401,
    box_token.CLOCK_SKEW: 401,
    BOX_UNKNOWN: 403,
    KEY_REVOKED: 403,
    "other_box": 403,
    "enrolment_unknown": 403,
    "enrolment_used": 403,
    "enrolment_expired": 403,
    OFFSET: 409,
    "upload_damaged": 409,
    TOO_LARGE: 413,
}
_Handler = Callable[[Request], Awaitable[Response]]


def app_of(intake: Intake) -> Starlette:
    """The ASGI application over a centre."""
    made = _App(intake)
    routes = (
        ("/v1/hello", made.hello, ["GET"]),
        ("/v1/enrol", made.enrol, ["POST"]),
        ("/v1/logs/{log}", made.state, ["GET"]),
        ("/v1/values", made.lacking, ["POST"]),
        ("/v1/values/{digest}", made.value, ["GET", "PUT"]),
        ("/v1/logs/{log}/parcels/{digest}", made.parcel, ["GET", "PUT"]),
    )
    return Starlette(
        routes=[Route(path, made.answering(handler), methods=methods) for path, handler, methods in routes]
    )


class _App:
    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def answering(self, handler: _Handler) -> _Handler:
        """The handler, its errors answered as problem documents."""

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except EdgeError as error:
                return self._problem(error)
            except (ClientDisconnect, TimeoutError):  # before OSError, which a TimeoutError is
                return Response(status_code=408, headers={"connection": "close"})
            except OSError as error:
                return self._problem(storage_problem(error))

        return answer

    def _problem(self, error: EdgeError) -> Response:
        kinds = {Unavailable: 503, StorageFailed: 507, SegmentRejected: 422, Misconfigured: 500}
        status = _STATUS.get(error.problem_code) or kinds.get(type(error), 400)
        # What is left of the body is not read: the connection ends with the answer.
        headers = {"connection": "close"}
        if error.retry_after_ms is not None:
            # Spread, so that those who were refused together do not come back together.
            wait_s = error.retry_after_ms / 1_000 * (1 + random.random())  # noqa: S311 - no secret
            headers["retry-after"] = str(max(1, round(wait_s)))
        return JSONResponse({**error.problem(), "wall_ns": self._intake.now_ns()}, status, headers)

    def _box(self, request: Request) -> Enrolled:
        """Who asks. Raises RequestRefused before anything of the body is read."""
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        header = request.headers.get("authorization", "")
        public = box_token.key_of(header, request.method, target, self._intake.now_ns())
        owner = self._intake.boxes.of_key(public)
        if owner is None:
            raise RequestRefused(
                "No box of this centre has the key that signed this request.",
                code=BOX_UNKNOWN,
                mend=f"If it is yours, at the centre: edge central enrol BOX {public.hex()}",
            )
        box, key = owner
        if key.revoked_ns:
            raise RequestRefused(
                f"The key of box {box.box} was revoked at the centre.",
                code=KEY_REVOKED,
                mend="What it had sent before is there still. Give the box a new key, and enrol that.",
            )
        return box

    async def hello(self, request: Request) -> Response:
        """Who this centre is, and its time."""
        del request
        return JSONResponse({"centre_key": self._intake.public.hex(), "wall_ns": self._intake.now_ns()})

    async def enrol(self, request: Request) -> Response:
        """A box brings its key with a one-time token."""
        said = await _document(request)
        try:
            given = (said["token"], said["box"], bytes.fromhex(said["key"]), bytes.fromhex(said["proof"]))
        except (KeyError, ValueError, TypeError) as error:
            raise RequestRefused("That is no enrolment.", code="request_invalid") from error
        box = await self._intake.ask(self._intake.tokens.redeem, *given, self._intake.now_ns())
        return JSONResponse({"box": box.box, "centre_key": self._intake.public.hex()})

    async def state(self, request: Request) -> Response:
        """How far a log is here."""
        box = self._box(request)
        made = await self._intake.ask(self._intake.state, box, _hex(request, "log", _LOG_ID_BYTES))
        return JSONResponse({**made, "wall_ns": self._intake.now_ns()})

    async def lacking(self, request: Request) -> Response:
        """Which large values are not here."""
        self._box(request)
        said = await _document(request)
        try:
            digests = [bytes.fromhex(each) for each in said["digests"]]
        except (KeyError, ValueError, TypeError) as error:
            raise RequestRefused("That is no list of digests.", code="request_invalid") from error
        return JSONResponse({"lacking": await self._intake.ask(self._intake.lacking, digests)})

    async def value(self, request: Request) -> Response:
        """Upload of a large value."""
        box, digest = self._box(request), _hex(request, "digest", _DIGEST_BYTES)
        if request.method != "PUT":
            return self._offset(box, digest)
        await self._receive(request, box, digest)
        await self._intake.ask(self._intake.value, box.box, digest)
        return JSONResponse({"stored": digest.hex()})

    async def parcel(self, request: Request) -> Response:
        """Upload of segments."""
        box, digest = self._box(request), _hex(request, "digest", _DIGEST_BYTES)
        if request.method != "PUT":
            return self._offset(box, digest)
        said = Parcelled(box.box, _hex(request, "log", _LOG_ID_BYTES), digest, _sizes(request))
        await self._receive(request, box, digest)
        made = await self._intake.ask(self._intake.parcel, said)
        return JSONResponse({**made, "wall_ns": self._intake.now_ns()})

    def _offset(self, box: Enrolled, digest: bytes) -> Response:
        offset = self._intake.uploads.offset(box.box, digest)
        return JSONResponse(
            {"offset": offset}, headers={UPLOAD_OFFSET: str(offset), "cache-control": "no-store"}
        )

    async def _receive(self, request: Request, box: Enrolled, digest: bytes) -> None:
        """Take in an upload's body, up to its whole size. Raises RequestRefused, ClientDisconnect, TimeoutError."""
        offset, total = _number(request, "offset"), _number(request, "total")
        if total > UPLOAD_BYTES_MAX or offset > total:
            raise RequestRefused(
                f"One upload is at most {UPLOAD_BYTES_MAX} bytes, and this one has {total}.", code=TOO_LARGE
            )
        with self._intake.uploads.receive(box.box, digest, offset) as receiving:
            async with asyncio.timeout(UPLOAD_IDLE_S) as patience:
                async for piece in request.stream():
                    patience.reschedule(asyncio.get_running_loop().time() + UPLOAD_IDLE_S)
                    if receiving.size_bytes + len(piece) > total:
                        raise RequestRefused("More came than was said.", code=TOO_LARGE)
                    receiving.write(piece)
            if receiving.size_bytes < total:
                raise RequestRefused(f"This upload stands at {receiving.size_bytes} bytes.", code=OFFSET)


async def _document(request: Request) -> dict[str, Any]:
    """A small JSON body. Raises RequestRefused."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > CENTRE_QUESTION_BYTES_MAX:
            raise RequestRefused("That is too long for a question.", code=TOO_LARGE)
    try:
        said = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise RequestRefused("That is no JSON.", code="request_invalid") from error
    if type(said) is not dict:
        raise RequestRefused("That is no JSON object.", code="request_invalid")
    return said


def _hex(request: Request, name: str, size_bytes: int) -> bytes:
    try:
        value = bytes.fromhex(request.path_params[name])
    except ValueError:
        value = b""
    if len(value) != size_bytes:
        raise RequestRefused(f"The {name} in the address is none.", code="request_invalid")
    return value


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise RequestRefused(f"The address needs a number {name}.", code="request_invalid")
    return int(text)


def _sizes(request: Request) -> tuple[int, ...]:
    text = request.headers.get(SEGMENT_SIZES, "").split(",")
    if not 0 < len(text) <= UPLOAD_SEGMENTS_MAX or not all(
        each.isascii() and each.isdigit() and len(each) < 10 and 0 < int(each) <= SEGMENT_FILE_BYTES_MAX
        for each in text
    ):
        raise RequestRefused(
            f"The header {SEGMENT_SIZES} names the size of each segment, at most {UPLOAD_SEGMENTS_MAX}.",
            code="request_invalid",
        )
    return tuple(map(int, text))
