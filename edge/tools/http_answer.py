"""What becomes of an HTTP response: NoETL's map of it, a table, or a problem that keeps its body.

Called by the `http` kind with the whole body read. Must never raise for what a server says: a body that is not what
its content type promises is a text.
"""

from __future__ import annotations

import base64
import json
from codecs import lookup
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from edge.core.codec import check_plain, decode_json_payload
from edge.core.errors import PayloadInvalid, ToolFailed
from edge.core.limits import HTTP_ERROR_BODY_BYTES_MAX, HTTP_HEADERS_MAX
from edge.store.arrow_stream import table_from_stream
from edge.tools.http_request import ARROW

#: Header texts are cut here: what a policy looks at is short.
_HEADER_VALUE_MAX: Final = 1_000
_KINDS: Final = {401: "auth", 403: "auth", 404: "not_found", 408: "timeout", 429: "rate_limit"}
_CHARSETS: Final = ("ascii", "cp1252", "iso8859-1", "utf-16", "utf-8")
_RETRYABLE: Final = (408, 425, 429, 500, 502, 503, 504)


def headers_of(headers: Mapping[str, str]) -> dict[str, str]:
    """A response's headers, names in lower case, bounded."""
    return {
        name.lower()[:100]: value[:_HEADER_VALUE_MAX].encode(errors="replace").decode()
        for name, value in list(headers.items())[:HTTP_HEADERS_MAX]
    }


def value_of(
    status: int, headers: dict[str, str], url: str, elapsed_s: float, body: bytes, response: str
) -> dict[str, Any]:
    """The response as NoETL's engines give it: the body both as `data` and as `body`."""
    data = _data(body, headers.get("content-type", ""), response)
    return {
        "status_code": status,
        "headers": headers,
        "url": url,
        "elapsed": round(elapsed_s, 6),
        "data": data,
        "body": data,
    }


def table_of(headers: Mapping[str, str], body: bytes) -> pa.Table:
    """The body as a table: an Arrow stream, CSV, or a JSON list of maps. Raises ToolFailed `response_invalid`."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == ARROW:
            return table_from_stream(body)
        if kind in ("text/csv", "application/csv"):
            from pyarrow import csv

            options = csv.ReadOptions(use_threads=False)
            return csv.read_csv(pa.BufferReader(body), read_options=options)
        rows = json.loads(body)
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            return pa.Table.from_pylist(rows)
    except (PayloadInvalid, pa.ArrowInvalid, ValueError) as error:
        said = str(error).splitlines()[0]
        raise ToolFailed(
            f"The response is no table: {said}",
            code="response_invalid",
            mend="Take `response_type: table` out to see what came.",
        ) from error
    raise ToolFailed(
        f"A response of type {kind or 'nothing'!r:.60} is no table.",
        code="response_invalid",
        mend="A table is an Arrow stream, CSV, or a JSON list of maps.",
    )


def failure_of(
    method: str, host: str, status: int, headers: dict[str, str], url: str, body: bytes
) -> ToolFailed:
    """The problem of a response that is no success; policies see its status, headers and body."""
    kept: Any = _data(body, headers.get("content-type", ""), "auto")
    cut = len(body) > HTTP_ERROR_BODY_BYTES_MAX
    if cut:
        kept = body[:HTTP_ERROR_BODY_BYTES_MAX].decode(errors="replace")
    http = {"status": status, "headers": headers, "url": url, "body": kept, "body_cut": cut}
    kind = _KINDS.get(status, "server_error" if status >= 500 else "client_error")
    return ToolFailed(
        f"{method} {host} answered {status}.",
        code="http_status",
        mend="Look at output.error.http.body, or write a rule for it in the tool's spec.policy.",
        retry_after_ms=_retry_after_ms(headers),
        details={"kind": kind, "retryable": status in _RETRYABLE, "http": http},
    )


def _retry_after_ms(headers: Mapping[str, str]) -> int | None:
    said = headers.get("retry-after", "")
    return int(said) * 1_000 if said.isascii() and said.isdigit() and len(said) < 7 else None


def _data(body: bytes, content_type: str, response: str) -> Any:
    if response == "bytes":
        return body
    if response == "binary":
        return {"base64": base64.b64encode(body).decode(), "size": len(body)}
    kind = content_type.partition(";")[0].strip().lower()
    if response == "json" or (response == "auto" and (kind.endswith(("/json", "+json")))):
        try:
            return decode_json_payload(body) if body else None
        except PayloadInvalid:
            pass  # a text, as NoETL's engines have it
    return check_plain(body.decode(_charset(content_type), errors="replace"))


def _charset(content_type: str) -> str:
    for part in content_type.lower().split(";")[1:]:
        name, _, value = part.strip().partition("=")
        if name == "charset":
            try:
                named = lookup(value.strip("\"'")).name
            except LookupError:
                break
            if named in _CHARSETS:
                return named
    return "utf-8"
