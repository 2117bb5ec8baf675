"""An HTTP request from its rendered parts: method, address, headers and body, checked before anything is sent.

Called by the `http` kind. Must never open a connection, and never put a credential where an error could show it.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit, urlunsplit

import pyarrow as pa

from edge import VERSION
from edge.core.errors import ToolFailed
from edge.core.limits import HTTP_HEADERS_MAX, HTTP_REQUEST_BYTES_MAX
from edge.core.records import record
from edge.core.values import Credential, TableRef
from edge.store.arrow_stream import stream_from_table

ARROW: Final = "application/vnd.apache.arrow.stream"
_PORTS: Final = {"http": 80, "https": 443}
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_NOT_IN_A_HEADER: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
#: What must not follow a redirect to another host (RFC 9110 §15.4).
_SECRET_HEADERS: Final = ("authorization", "cookie", "proxy-authorization")


@record
class Request:
    """One request ready to be sent: `headers` in the spelling of the author, `body` None for none."""

    method: str
    url: str
    host: str
    port: int
    headers: dict[str, str]
    body: bytes | None
    #: The header its credential stands in, lower case.
    secret_header: str = "authorization"  # noqa: S105 - a header's name

    @property
    def tls(self) -> bool:
        """Whether it goes over TLS."""
        return self.url.startswith("https:")

    def going_by(self, credential: Credential | None) -> Request:
        """The request with a credential, over what its headers say. Raises ToolFailed `request_invalid`."""
        if credential is None:
            return self
        fields = credential.fields
        if credential.kind == "bearer":
            name, value = "Authorization", f"Bearer {fields['token']}"
        elif credential.kind == "basic":
            pair = f"{fields['username']}:{fields['password']}".encode()
            name, value = "Authorization", f"Basic {b64encode(pair).decode()}"
        elif credential.kind == "api_key":
            name, value = fields["header"], fields["api_key"]
        else:
            raise _invalid(
                f"A request cannot go by a credential of kind {credential.kind}.",
                "Use one of kind bearer, basic or api_key; or write keychain.alias.field in `headers`.",
            )
        if not _HEADER.fullmatch(name) or _NOT_IN_A_HEADER.search(value):
            raise _invalid("The credential cannot stand in a header.", "Set it again: edge keychain set.")
        headers = {each: said for each, said in self.headers.items() if each.lower() != name.lower()}
        return replace(self, headers={**headers, name: value}, secret_header=name.lower())

    def redirected(self, status: int, location: str) -> Request:
        """The request a redirect asks for. Raises ToolFailed where it is no address."""
        url, host, port = address_of(urljoin(self.url, location))
        method, body, headers = self.method, self.body, dict(self.headers)
        if status == 303 or (status in (301, 302) and method == "POST"):
            method, body = "HEAD" if method == "HEAD" else "GET", None
            headers = {
                name: value for name, value in headers.items() if not name.lower().startswith("content-")
            }
        if (host, port, url[:6]) != (self.host, self.port, self.url[:6]):
            secret = (*_SECRET_HEADERS, self.secret_header)
            headers = {name: value for name, value in headers.items() if name.lower() not in secret}
        return Request(method, url, host, port, headers, body, self.secret_header)


def build(
    method: str,
    body_kind: str,
    parts: Mapping[str, Any],
    key: str | None,
    table: Callable[[TableRef], pa.Table],
) -> Request:
    """The request of a tool's rendered `parts`; `key` is its idempotency key, None where it changes nothing.

    Raises ToolFailed `request_invalid`.
    """
    params = dict(_map(parts.get("params"), "params"))
    given, content_type, body = parts.get("body"), None, None
    if body_kind == "data":
        body_kind, given, more = _unified(method, given)
        params |= more
    if given is not None and body_kind:
        body, content_type = _body(body_kind, given, table)
    url, host, port = address_of(str(parts.get("url", "")), params)
    headers = {"User-Agent": f"noetl-edge/{VERSION}", "Accept-Encoding": "gzip"}
    if content_type is not None:
        headers["Content-Type"] = content_type
    if key is not None:
        headers["Idempotency-Key"] = key
    own = _headers(_map(parts.get("headers"), "headers"))
    said = {name.lower() for name in own}
    return Request(
        method, url, host, port, {**{n: v for n, v in headers.items() if n.lower() not in said}, **own}, body
    )


def address_of(url: str, params: Mapping[str, Any] | None = None) -> tuple[str, str, int]:
    """`(url, host, port)` of an address, with more query parameters. Raises ToolFailed `request_invalid`."""
    try:
        split = urlsplit(url)
        port = split.port or _PORTS.get(split.scheme, 0)
        host = (split.hostname or "").rstrip(".")
    except ValueError as error:
        raise _invalid(f"{url!r:.100} is no URL: {error}.") from error
    if split.scheme not in _PORTS or not host:
        raise _invalid(f"{url!r:.100} is no URL of http or https with a host.")
    if split.username is not None:
        raise _invalid("Credentials do not belong into a URL.", "Name an alias under `auth`.")
    query = urlencode(_pairs(params or {}))
    joined = "&".join(part for part in (split.query, query) if part)
    return urlunsplit(SplitResult(split.scheme, split.netloc, split.path or "/", joined, "")), host, port


def _pairs(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, _text(each))
        for name, value in params.items()
        for each in (value if isinstance(value, list) else [value])
        if each is not None
    ]


def _text(value: Any) -> str:
    """A value as NoETL's engine puts it into a header or a query."""
    return value if isinstance(value, str) else _json(value).decode()


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except TypeError as error:
        raise _invalid("A table or bytes cannot be sent as JSON.", "Send it as `body`.") from error


def _map(value: Any, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _invalid(f"`{what}` is no map.", "Let it give a map of names and values.")
    return value


def _headers(given: Mapping[str, Any]) -> dict[str, str]:
    if len(given) > HTTP_HEADERS_MAX:
        raise _invalid(f"A request has at most {HTTP_HEADERS_MAX} headers.")
    made = {}
    for name, value in given.items():
        if value is None:
            continue
        text = _text(value)
        if not _HEADER.fullmatch(name) or _NOT_IN_A_HEADER.search(text):
            raise _invalid(f"The header {name!r:.60} cannot be sent: it holds what no header may.")
        made[name] = text
    return made


def _unified(method: str, given: Any) -> tuple[str, Any, Mapping[str, Any]]:
    """NoETL's `data`: `(kind of body, body, query)`."""
    if isinstance(given, dict) and given and set(given) <= {"query", "body"}:
        return ("json" if "body" in given else ""), given.get("body"), _map(given.get("query"), "data.query")
    if method in ("GET", "HEAD"):
        return "", None, _map(given, "data")
    return "json", given, {}


def _body(kind: str, given: Any, table: Callable[[TableRef], pa.Table]) -> tuple[bytes, str | None]:
    body: bytes
    if isinstance(given, TableRef):
        body, content_type = stream_from_table(table(given)), ARROW
    elif kind == "form":
        body = urlencode(_pairs(_map(given, "form"))).encode()
        content_type = "application/x-www-form-urlencoded"
    elif kind == "body" and isinstance(given, str):
        body, content_type = given.encode(), "text/plain; charset=utf-8"
    elif kind == "body" and isinstance(given, bytes):
        body, content_type = given, "application/octet-stream"
    else:
        body, content_type = _json(given), "application/json"
    if len(body) > HTTP_REQUEST_BYTES_MAX:
        raise _invalid(f"The body has {len(body)} bytes; {HTTP_REQUEST_BYTES_MAX} may be sent.", "Send less.")
    return body, content_type


def _invalid(message: str, mend: str = "Look at the parts of the request.") -> ToolFailed:
    return ToolFailed(message, code="request_invalid", mend=mend)
