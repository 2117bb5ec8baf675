"""The kind `http`: one request, its parts as templates, its effect by its method.

Called through `playbooks.kinds`. NoETL's engines spell the parts in several ways; all of them become one tree here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from edge.core.access import Access
from edge.core.limits import STEP_TIMEOUT_MS_MAX
from playbooks.expressions import NodeList, Resolve
from playbooks.fields import choice, fields, flag, one_spelling, text, timeout_ms
from playbooks.kinds.kind import Kind
from playbooks.loader import Mapping_, Marked, Scalar
from playbooks.model.parts import EDGE, AnyOf, Block, Choice, Duration, Flag, Key, MapOf, Of, Template, Tree
from playbooks.model.policy import TIMEOUT
from playbooks.problems import Source, allowed
from playbooks.templates import compile_tree, has_template

METHODS: Final = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
#: What asks and changes nothing (RFC 9110 §9.2.1).
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
RESPONSES: Final = ("auto", "json", "text", "binary", "bytes", "table")
_BODIES: Final = ("json", "payload", "body", "form", "data")
_LENGTH: Final = Duration(STEP_TIMEOUT_MS_MAX)

_HTTP: Final = Block(
    "http",
    "One HTTP request; a step with it needs the host under `spec.policy.access.hosts`.",
    (
        Key("url", Template(), "Where to."),
        Key("endpoint", Template(), "As `url`, in NoETL's older spelling."),
        Key(
            "method",
            Choice((*METHODS, *(method.lower() for method in METHODS))),
            "GET where nothing is said.",
        ),
        Key("headers", AnyOf((MapOf(Tree()), Template())), "Request headers; what is null is left out."),
        Key("auth", Template(), "The alias of the keychain it goes by; without one it sends no credential."),
        Key("params", AnyOf((MapOf(Tree()), Template())), "Query parameters; what is null is left out."),
        Key("json", Tree(), "The body, sent as JSON."),
        Key("payload", Tree(), "As `json`."),
        Key("body", Tree(), "The body: a text as it is, a table as an Arrow stream, anything else as JSON."),
        Key("form", AnyOf((MapOf(Tree()), Template())), "The body, sent as a form."),
        Key(
            "data",
            Tree(),
            "A map `{query, body}`; else the parameters of a GET and the JSON of anything else.",
        ),
        Key("timeout", AnyOf((_LENGTH, Of("timeout"))), "How long it may take."),
        Key("timeout_seconds", _LENGTH, "As `timeout`."),
        Key("follow_redirects", Flag(), "Whether redirects are followed, to granted hosts: true by itself."),
        Key("response_type", Choice(RESPONSES), "What becomes of the body; `auto` goes by its content type."),
        Key("as", Choice(RESPONSES), "As `response_type`.", EDGE),
        Key("verify_ssl", Flag(), "Only true: servers are always verified."),
        Key("verify", Flag(), "As `verify_ssl`."),
    ),
    {
        "pagination": "it was withdrawn from NoETL; write a pipeline with rules that `jump`.",
        "credentials": "it was withdrawn from NoETL; write `auth`.",
    },
)


def _read(source: Source, found: dict[str, Marked], tool: Mapping_, resolve: Resolve) -> dict[str, Any]:
    where = one_spelling(source, found, ("url", "endpoint"))
    if where is None:
        source.refuse(tool.start, "An http tool needs `url`.", 'Write url: "https://…".')
    else:
        _check_url(source, found[where])
    method = _method(source, found.get("method"))
    body = one_spelling(source, found, _BODIES)
    if body not in (None, "data") and method in ("GET", "HEAD"):
        source.refuse(found[str(body)].start, f"A {method} has no body.", "Use `params`, or another method.")
    for key in ("verify_ssl", "verify"):
        if flag(source, found.get(key), f"`{key}`") is False:
            mend = "Put the server's certificate authority among the system's (update-ca-certificates)."
            source.refuse(found[key].start, "Servers are always verified.", mend)
    tree: NodeList = ["dict"]
    for key, node in (("url", where), ("headers", "headers"), ("params", "params"), ("body", body)):
        if node is not None and node in found:
            tree += [key, compile_tree(source, found[node], resolve)]
    connect_ms, read_ms = _timeouts(source, found)
    follow = flag(source, found.get("follow_redirects"), "`follow_redirects`")
    answer = one_spelling(source, found, ("response_type", "as"))
    return {
        "method": method,
        "request": tree,
        "body": "json" if body == "payload" else body or "",
        "connect_ms": connect_ms,
        "read_ms": read_ms,
        "redirects": follow is not False,
        "response": choice(source, found.get(answer or ""), "`response_type`", RESPONSES) or "auto",
    }


def _check_url(source: Source, node: Marked) -> None:
    """What is written out of a URL must be sound; the rest is looked at when it is known."""
    value = node.value if isinstance(node, Scalar) else None
    if not isinstance(value, str) or not value.strip():
        source.refuse(node.start, "`url` must be a text.", 'Write url: "https://…".')
        return
    if has_template(value):
        return
    parts = _parts(value)
    if parts is None:
        source.refuse(node.start, f"{value!r:.80} is no URL.", "Write http://… or https://… with a host.")
    elif parts.username is not None:
        source.refuse(node.start, "Credentials do not belong into a URL.", "Name an alias under `auth`.")


def _parts(url: str) -> SplitResult | None:
    """A URL's parts; None where it is not sound."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if sound else None


def _method(source: Source, node: Marked | None) -> str:
    value = text(source, node, "`method`")
    if value is None:
        return "GET"
    if value.upper() not in METHODS and node is not None:
        source.refuse(node.start, f"{value!r:.40} is no method.", allowed(METHODS))
    return value.upper()


def _timeouts(source: Source, found: dict[str, Marked]) -> tuple[int | None, int | None]:
    node = found.get(one_spelling(source, found, ("timeout", "timeout_seconds")) or "")
    block = found.get("spec")
    if node is None and isinstance(block, Mapping_):
        node = block.get("timeout")
    if isinstance(node, Mapping_):
        parts = fields(source, node, "`timeout`", TIMEOUT)
        return timeout_ms(source, parts.get("connect")), timeout_ms(source, parts.get("read"))
    whole_ms = timeout_ms(source, node)
    return whole_ms, whole_ms


def _natural(config: Mapping[str, Any]) -> str:
    return "read" if config["method"] in _SAFE else "write"


def _check(source: Source, found: dict[str, Marked], tool: Mapping_, access: Access) -> None:
    """The host is granted, as far as it is written out."""
    node = found.get("url") or found.get("endpoint")
    value = node.value if isinstance(node, Scalar) and isinstance(node.value, str) else ""
    grant, parts = "api.example.org:443", _parts(value)
    if node is None or (parts is None and not has_template(value)):
        return
    if parts is not None and not has_template(value):
        host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]
        if access.may_connect(host, port):
            return
        grant = f"{host}:{port}"
    elif access.hosts:
        return
    mend = f'Grant it in the step: spec: {{policy: {{access: {{hosts: ["{grant}"]}}}}}}.'
    source.refuse(node.start, "The host of this request is not granted.", mend)


HTTP: Final = Kind(
    _HTTP, _read, effects=("read", "write"), natural=_natural, check=_check, times=("connect_ms", "read_ms")
)
