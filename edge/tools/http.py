"""The `http` kind: one request to a host the step was granted, its redirects, its answer or its problem.

Called by workers bound to a step with hosts; what they may reach is held by the worker's porter, and asked of the
grants here too, so that a refusal names the mend. urllib3 is imported when the first request is made and lives in no
other process. Must never switch verification off, put a credential into a message, or keep a connection for the next
run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from edge.core.clock import out_of_time
from edge.core.errors import ToolFailed
from edge.core.limits import HTTP_REDIRECTS_MAX, HTTP_RESPONSE_BYTES_MAX
from edge.tools.contract import ToolContext
from edge.tools.http_answer import failure_of, headers_of, table_of, value_of
from edge.tools.http_request import Request, build

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_CHUNK_BYTES: Final = 64 * 1024
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_CAUSES_MAX: Final = 8


class HttpTool:
    """Sends one request and follows its redirects."""

    kind: Final = "http"
    author_code: Final = False

    def run(self, config: Mapping[str, Any], inputs: Mapping[str, Any], context: ToolContext) -> Any:
        """Send it; the response as NoETL's map, or a table.

        `config`: `method`, `request` (a tree giving `url`, `headers`, `params`, `body`), `body` (its kind),
        `connect_ms`, `read_ms`, `redirects`, `response`. Raises ToolFailed: `http_status` (with the response),
        `http_timeout`, `http_unreachable`, `http_tls`, `access_denied`, `request_invalid`, `response_invalid`,
        `response_too_large`, `too_many_redirects`.
        """
        key = context.idempotency_key if context.effect == "write" else None
        request = build(
            config["method"], config["body"], context.render(config["request"]), key, context.table
        )
        request = request.going_by(context.credential())
        started_s = time.monotonic()
        read_ms = config["read_ms"]
        deadline_s = started_s + read_ms / 1_000
        connect_s = config["connect_ms"] / 1_000
        for _ in range(HTTP_REDIRECTS_MAX + 1):
            _check_granted(request, context)
            with context.downstream(f"{request.host}:{request.port}"):
                status, headers, body = _exchange(request, connect_s, deadline_s)
                if status >= 500:
                    raise failure_of(request.method, request.host, status, headers, request.url, body)
            where = headers.get("location")
            if not config["redirects"] or status not in _REDIRECTS or where is None:
                break
            request = request.redirected(status, where)
        else:
            raise ToolFailed(
                f"{request.host} redirects more than {HTTP_REDIRECTS_MAX} times.",
                code="too_many_redirects",
                mend="Name the last address itself.",
            )
        if not 200 <= status < 300:
            raise failure_of(request.method, request.host, status, headers, request.url, body)
        if config["response"] == "table":
            return table_of(headers, body)
        elapsed_s = time.monotonic() - started_s
        return value_of(status, headers, request.url, elapsed_s, body, config["response"])


TOOL: Final = HttpTool()


def _check_granted(request: Request, context: ToolContext) -> None:
    if not context.access.may_connect(request.host, request.port):
        raise _denied(request)


def _denied(request: Request) -> ToolFailed:
    return ToolFailed(
        f"The step may not reach {request.host}, port {request.port}.",
        code="access_denied",
        mend=f'Grant it: spec.policy.access.hosts: ["{request.host}:{request.port}"].',
    )


def _exchange(request: Request, connect_s: float, deadline_s: float) -> tuple[int, dict[str, str], bytes]:
    """One request and its whole answer: `(status, headers, body)`. Raises ToolFailed."""
    import ssl

    import urllib3
    from urllib3.exceptions import HTTPError

    left_s = _left_s(request, deadline_s)
    timeout = urllib3.Timeout(connect=min(connect_s, left_s), read=left_s)
    context = ssl.create_default_context() if request.tls else None
    with urllib3.PoolManager(num_pools=1, maxsize=1, ssl_context=context) as pool:
        try:
            response = pool.request(
                request.method,
                request.url,
                body=request.body,
                headers=request.headers,
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=False,
            )
            with response:
                return response.status, headers_of(response.headers), _body(request, response, deadline_s)
        except (HTTPError, OSError, ValueError) as error:
            raise _unreachable(request, error) from None


def _body(request: Request, response: BaseHTTPResponse, deadline_s: float) -> bytes:
    """The body, decoded, up to its bound and the deadline."""
    parts: list[bytes] = []
    size_bytes = 0
    while part := response.read1(_CHUNK_BYTES, decode_content=True):
        size_bytes += len(part)
        if size_bytes > HTTP_RESPONSE_BYTES_MAX:
            raise ToolFailed(
                f"{request.host} answered more than {HTTP_RESPONSE_BYTES_MAX} bytes.",
                code="response_too_large",
                mend="Ask for less at a time: pages, or a filter.",
            )
        parts.append(part)
        _left_s(request, deadline_s)
    return b"".join(parts)


def _left_s(request: Request, deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise _timed_out(request)
    return left_s


def _timed_out(request: Request) -> ToolFailed:
    return ToolFailed(
        f"{request.method} {request.host} did not end in time.",
        code="http_timeout",
        mend="Try again later, or raise the tool's `timeout`.",
        details={"kind": "timeout", "retryable": True},
    )


def _unreachable(request: Request, error: Exception) -> ToolFailed:
    """What a library's error comes to; its text may hold addresses, never the request."""
    import ssl

    from urllib3 import exceptions

    causes = _causes(error)
    if any(isinstance(cause, PermissionError) for cause in causes):
        return _denied(request)
    # urllib3 counts every connection that fails among its time-outs.
    late = [cause for cause in causes if isinstance(cause, (TimeoutError, exceptions.TimeoutError))]
    if any(not isinstance(cause, exceptions.NewConnectionError) for cause in late):
        return _timed_out(request)
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if tls is not None:
        why = (getattr(tls, "verify_message", "") or tls.reason or str(tls)).rstrip(".")
        clock = out_of_time(getattr(tls, "verify_code", 0))
        return ToolFailed(
            f"{request.host} could not be trusted: {why}{clock and '; ' + clock}.",
            code="http_tls",
            mend="Mend its certificate, or put its authority among the system's (update-ca-certificates).",
            details={"kind": "tls", "retryable": bool(clock)},
        )
    if isinstance(error, (exceptions.LocationParseError, ValueError)):
        return ToolFailed(
            f"The request to {request.host} cannot be sent: {str(error)[:200]}.",
            code="request_invalid",
            mend="Look at its address and headers.",
        )
    why = type(causes[-1]).__name__ if not isinstance(causes[-1], OSError) else str(causes[-1])[:200]
    return ToolFailed(
        f"{request.host}, port {request.port}, could not be reached: {why}.",
        code="http_unreachable",
        mend="Is it up, and the name right? A rule may try again: output.error.retryable.",
        details={"kind": "connection", "retryable": True},
    )


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and len(found) < _CAUSES_MAX:
        found.append(current)
        reason = getattr(current, "reason", None)
        inner = reason if isinstance(reason, BaseException) else None
        current = (
            current.__cause__ or inner or next((a for a in current.args if isinstance(a, Exception)), None)
        )
        if current in found:
            break
    return found
