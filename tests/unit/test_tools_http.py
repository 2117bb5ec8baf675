"""The http kind against a real server on loopback: what is sent, what comes back, and every way it can go wrong."""

from __future__ import annotations

import gzip
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from edge.core.access import Access
from edge.core.errors import ToolFailed
from edge.core.limits import HTTP_ERROR_BODY_BYTES_MAX, HTTP_RESPONSE_BYTES_MAX
from edge.core.values import Credential, TableRef
from edge.store.arrow_stream import stream_from_table, table_from_stream
from edge.testing.box import Box
from edge.testing.loopback import Handler, Server, serving
from edge.testing.plain import playbook
from edge.tools.registry import tool
from playbooks.evaluate import render
from playbooks.shape import Task

REF = TableRef("t", b"", 0, 0, ())
TABLE = pa.table({"a": [1, 2]})


class Lent:
    execution_id = step = "e"
    idempotency_key = "c0-1/s/0/s/0"

    def __init__(self, task: Task, scope: dict[str, Any]) -> None:
        self.effect, self.access, self._scope = task.effect, task.access, scope

    def render(self, tree: Any, extra: Any = None) -> Any:
        return render(tree, self._scope)

    def table(self, ref: TableRef) -> pa.Table:
        return TABLE

    def credential(self) -> Credential | None:
        return None

    def downstream(self, name: str) -> Any:
        return nullcontext()


def compiled(url: str, hosts: list[str] | None = None, **keys: Any) -> Task:
    access = {"policy": {"access": {"hosts": hosts or ["127.0.0.1"]}}}
    step = {
        "step": "s",
        "input": {"x": 1, "t": 1},
        "spec": access,
        "tool": {"kind": "http", "url": url, **keys},
    }
    return playbook([step]).steps[0].tasks[0]


def ask(url: str, inputs: dict[str, Any] | None = None, **keys: Any) -> Any:
    task = compiled(url, **keys)
    return tool("http").run(task.config, inputs or {}, Lent(task, {"t": REF, **(inputs or {})}))


def refused(url: str, **keys: Any) -> ToolFailed:
    with pytest.raises(ToolFailed) as caught:
        ask(url, **keys)
    return caught.value


def echo(handler: Handler) -> None:
    handler.say(200, b'{"items": [1, 2], "more": false}', "application/json; charset=utf-8", X_Page="7")


@pytest.fixture
def server() -> Iterator[Server]:
    answers = {
        "/json": echo,
        "/text": lambda h: h.say(200, "größe".encode("latin-1"), "text/plain; charset=latin-1"),
        "/broken.json": lambda h: h.say(200, b"{nope", "application/json"),
        "/bytes": lambda h: h.say(200, b"\x00\xff", "application/octet-stream"),
        "/gzip": lambda h: h.say(200, gzip.compress(b"[1]"), "application/json", Content_Encoding="gzip"),
        "/bomb": lambda h: h.say(
            200, gzip.compress(bytes(HTTP_RESPONSE_BYTES_MAX + 1)), Content_Encoding="gzip"
        ),
        "/huge": lambda h: h.say(200, bytes(HTTP_RESPONSE_BYTES_MAX + 1)),
        "/arrow": lambda h: h.say(200, stream_from_table(TABLE), "application/vnd.apache.arrow.stream"),
        "/csv": lambda h: h.say(200, b"a,b\n1,x\n2,y\n", "text/csv"),
        "/rows": lambda h: h.say(200, b'[{"a": 1}, {"a": 2}]', "application/json"),
        "/busy": lambda h: h.say(429, b'{"why": "slow down"}', "application/json", Retry_After="3"),
        "/down": lambda h: h.say(503, b"x" * (HTTP_ERROR_BODY_BYTES_MAX + 1)),
        "/who": lambda h: h.say(401, b""),
        "/hop": lambda h: h.say(302, b"", Location="/json"),
        "/see": lambda h: h.say(303, b"", Location="/json"),
        "/keep": lambda h: h.say(307, b"", Location="/json"),
        "/round": lambda h: h.say(302, b"", Location="/round"),
        "/away": lambda h: h.say(302, b"", Location="http://localhost:1/x"),
        "/cut": cut,
    }
    with serving(answers) as made:
        yield made


def cut(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"only this")


def test_the_response_as_noetl_has_it(server: Server) -> None:
    """Status, headers, address, time and the body, under both names that published playbooks read."""
    got = ask(server.url("/json"))
    assert (got["status_code"], got["url"]) == (200, server.url("/json"))
    assert got["data"] == got["body"] == {"items": [1, 2], "more": False}
    assert got["headers"]["x-page"] == "7"
    assert got["elapsed"] >= 0


@pytest.mark.parametrize(
    ("path", "keys", "data"),
    [
        ("/text", {}, "größe"),
        ("/broken.json", {}, "{nope"),
        ("/json", {"response_type": "text"}, '{"items": [1, 2], "more": false}'),
        ("/bytes", {"response_type": "bytes"}, b"\x00\xff"),
        ("/bytes", {"response_type": "binary"}, {"base64": "AP8=", "size": 2}),
        ("/gzip", {}, [1]),
        ("/hop", {}, {"items": [1, 2], "more": False}),
        ("/json", {"method": "HEAD"}, None),
    ],
)
def test_bodies(server: Server, path: str, keys: dict[str, Any], data: Any) -> None:
    """A body becomes what its content type says, or what was asked for; what it is not is a text."""
    assert ask(server.url(path), **keys)["data"] == data


@pytest.mark.parametrize("path", ["/arrow", "/rows"])
def test_tables(server: Server, path: str) -> None:
    """An Arrow stream, CSV or a list of maps becomes a table where one is asked for."""
    assert ask(server.url(path), response_type="table").equals(TABLE)
    assert ask(server.url("/csv"), response_type="table").to_pylist() == [
        {"a": 1, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    assert refused(server.url("/text"), response_type="table").problem_code == "response_invalid"


def test_what_is_sent(server: Server) -> None:
    """Parameters, headers and bodies, with nulls left out, numbers written as JSON does, lists repeated."""
    ask(
        server.url("/json?z=1"),
        {"x": 5},
        method="post",
        params={"page": "{{ x }}", "on": True, "none": None, "tag": ["a", "b c"]},
        headers={"X-N": "{{ x }}", "Skip": None},
        json={"a": ["{{ x }}", "ü"]},
    )
    method, path, headers, body = server.seen[-1]
    assert (method, path) == ("POST", "/json?z=1&page=5&on=true&tag=a&tag=b+c")
    assert (headers["X-N"], headers["Content-Type"], body.decode()) == (
        "5",
        "application/json",
        '{"a":[5,"ü"]}',
    )
    assert "Skip" not in headers
    assert headers["Idempotency-Key"] == Lent.idempotency_key


@pytest.mark.parametrize(
    ("keys", "query", "kind", "body"),
    [
        ({"payload": {"a": 1}}, "", "application/json", b'{"a":1}'),
        ({"body": "raw {{ x }}"}, "", "text/plain; charset=utf-8", b"raw 5"),
        ({"body": {"a": 1}}, "", "application/json", b'{"a":1}'),
        ({"form": {"a": 1, "b": "x y"}}, "", "application/x-www-form-urlencoded", b"a=1&b=x+y"),
        ({"data": {"query": {"q": 1}, "body": [2]}}, "?q=1", "application/json", b"[2]"),
        ({"data": {"a": 1}}, "", "application/json", b'{"a":1}'),
        ({"data": {"a": 1}, "method": "GET"}, "?a=1", None, b""),
        ({"body": "x", "headers": {"content-type": "text/x"}}, "", "text/x", b"x"),
    ],
)
def test_bodies_in_noetls_spellings(
    server: Server, keys: dict[str, Any], query: str, kind: str | None, body: bytes
) -> None:
    """Each of the spellings of a body that engines and playbooks use."""
    ask(server.url("/json"), {"x": 5}, **{"method": "PUT", **keys})
    _, path, headers, sent = server.seen[-1]
    given = {name.lower(): value for name, value in headers.items()}
    assert (path, given.get("content-type"), sent) == (f"/json{query}", kind, body)


def test_a_table_is_sent_as_an_arrow_stream(server: Server) -> None:
    """A body that is a table goes out as the stream it is."""
    ask(server.url("/json"), method="PUT", body="{{ t }}")
    assert table_from_stream(server.seen[-1][3]).equals(TABLE)


def test_reads_carry_no_idempotency_key_and_writes_may_bring_their_own(server: Server) -> None:
    """The key goes with writes only, and an author's own wins."""
    ask(server.url("/json"))
    assert "Idempotency-Key" not in server.seen[-1][2]
    ask(server.url("/json"), method="POST", headers={"idempotency-key": "mine"})
    assert server.seen[-1][2]["idempotency-key"] == "mine"


@pytest.mark.parametrize(
    ("path", "kind", "retryable", "body", "retry_after_ms"),
    [
        ("/busy", "rate_limit", True, {"why": "slow down"}, 3_000),
        ("/down", "server_error", True, "x" * HTTP_ERROR_BODY_BYTES_MAX, None),
        ("/who", "auth", False, "", None),
        ("/nowhere", "not_found", False, "nothing here", None),
    ],
)
def test_no_success_keeps_its_body(
    server: Server, path: str, kind: str, retryable: bool, body: Any, retry_after_ms: int | None
) -> None:
    """A status that is no success fails with its body, bounded, and what policies ask for."""
    problem = refused(server.url(path)).problem()
    assert (problem["code"], problem["kind"], problem["retryable"]) == ("http_status", kind, retryable)
    assert problem["http"]["body"] == body
    assert problem["http"]["body_cut"] is (path == "/down")
    assert problem.get("retry_after_ms") == retry_after_ms


def test_redirects(server: Server) -> None:
    """303 becomes a GET, 307 stays what it was; circles end; nothing is followed where it is switched off."""
    ask(server.url("/see"), method="POST", json=1)
    assert [(method, body) for method, _, _, body in server.seen] == [("POST", b"1"), ("GET", b"")]
    ask(server.url("/keep"), method="PUT", json=1)
    assert [(method, body) for method, _, _, body in server.seen[-2:]] == [("PUT", b"1")] * 2
    assert refused(server.url("/round")).problem_code == "too_many_redirects"
    assert refused(server.url("/hop"), follow_redirects=False).problem()["http"]["status"] == 302


def test_a_redirect_reaches_only_granted_hosts(server: Server) -> None:
    """A server cannot send us where the playbook may not go."""
    error = refused(server.url("/away"))
    assert error.problem_code == "access_denied"
    assert '"localhost:1"' in error.mend


def test_secrets_do_not_follow_to_another_host(server: Server) -> None:
    """Credentials of the first host are not shown to the second."""
    with serving({"/json": echo}) as other:
        server.answers["/off"] = lambda h: h.say(302, b"", Location=other.url("/json"))
        ask(server.url("/off"), headers={"Authorization": "Bearer s3cret", "X-Own": "1"})
        assert server.seen[-1][2]["Authorization"] == "Bearer s3cret"
        assert "Authorization" not in other.seen[-1][2]
        assert other.seen[-1][2]["X-Own"] == "1"


@pytest.mark.parametrize("path", ["/huge", "/bomb"])
def test_a_response_is_bounded(server: Server, path: str) -> None:
    """A body beyond the bound is cut off while it is read, also one that unpacks to that."""
    assert refused(server.url(path)).problem_code == "response_too_large"


def test_slow_and_broken_servers(server: Server) -> None:
    """One that does not answer in time, or breaks off, or is not there, each by name."""
    hold = threading.Event()
    server.answers["/slow"] = lambda h: (hold.wait(10), None)[1]
    try:
        slow = refused(server.url("/slow"), timeout="100ms")
        cut_off = refused(server.url("/cut"))
    finally:
        hold.set()
    assert (slow.problem_code, slow.details) == ("http_timeout", {"kind": "timeout", "retryable": True})
    assert (cut_off.problem_code, cut_off.details["kind"]) == ("http_unreachable", "connection")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        error = refused(f"http://127.0.0.1:{nobody.getsockname()[1]}/")
    assert (error.problem_code, error.details["retryable"]) == ("http_unreachable", True)


def test_a_drip_ends_at_the_deadline(server: Server) -> None:
    """A server that sends a little now and then does not hold a worker beyond its time."""
    stop = threading.Event()

    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not stop.wait(0.02):
            handler.wfile.write(b".")
            handler.wfile.flush()

    server.answers["/drip"] = drip
    try:
        assert refused(server.url("/drip"), timeout="200ms").problem_code == "http_timeout"
    finally:
        stop.set()


def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate nobody vouches for is refused; one whose authority the system knows is not."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    with serving({"/json": echo}, tls) as server:
        error = refused(server.url("/json"))
        assert (error.problem_code, error.details["kind"]) == ("http_tls", "tls")
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        assert ask(server.url("/json"))["status_code"] == 200


@pytest.mark.parametrize(
    ("url", "keys"),
    [
        ("{{ x }}", {}),
        ("http://a:b@127.0.0.1:{{ x }}/", {}),
        ("http://127.0.0.1:{{ x }}/", {"headers": {"A b": "1"}}),
        ("http://127.0.0.1:{{ x }}/", {"headers": {"A": "1\r\nB: 2"}}),
        ("http://127.0.0.1:{{ x }}/", {"params": "{{ x }}"}),
        ("http://127.0.0.1:{{ x }}/", {"method": "PUT", "json": {"t": "{{ t }}"}}),
    ],
)
def test_what_cannot_be_sent(url: str, keys: dict[str, Any]) -> None:
    """A request that is none is refused before anything is opened."""
    assert refused(url, inputs={"x": 1}, **keys).problem_code == "request_invalid"


def test_only_granted_hosts(server: Server) -> None:
    """A host or port that is not granted is not reached, and the refusal says what to grant."""
    error = refused("http://127.0.0.1:{{ x }}/", hosts=[f"127.0.0.1:{server.port}"], inputs={"x": 1})
    assert error.problem_code == "access_denied"
    assert "127.0.0.1:1" in error.mend
    assert server.seen == []


@pytest.mark.parametrize(
    ("method", "effect"), [("GET", "read"), ("head", "read"), ("POST", "write"), ("DELETE", "write")]
)
def test_the_method_says_the_effect(method: str, effect: str) -> None:
    """What asks is `read`, what changes is `write`, unless the playbook says otherwise."""
    assert compiled("http://127.0.0.1/", method=method).effect == effect
    assert compiled("http://127.0.0.1/", method="POST", spec={"effect": "read"}).effect == "read"
    assert compiled("http://127.0.0.1/").access == Access(hosts=(("127.0.0.1", 0),))


async def test_policies_see_status_and_body(box: Box, server: Server) -> None:
    """Rules look at `outcome.http.status`, kinds and the body, as NoETL's playbooks do; a body is `output.data`."""
    rule = {"when": "{{ outcome.status == 'error' and outcome.http.status in [429] and _attempt < 2 }}",
            "then": {"do": "retry", "attempts": 2, "delay": 1.0}}  # fmt: skip
    last = {"else": {"then": {"do": "continue", "set": {
        "ctx.seen": "{{ [output.error.kind, output.error.retryable, output.data.why] }}"}}}}  # fmt: skip
    good = {"else": {"then": {"do": "continue", "set": {"ctx.more": "{{ output.data.more }}"}}}}
    spec = {"policy": {"access": {"hosts": ["127.0.0.1"]}}}
    tools = [
        {
            "name": "busy",
            "kind": "http",
            "url": server.url("/busy"),
            "spec": {"policy": {"rules": [rule, last]}},
        },
        {"name": "good", "kind": "http", "url": server.url("/json"), "spec": {"policy": {"rules": [good]}}},
        {
            "name": "end",
            "kind": "transform",
            "value": "{{ [ctx.seen, ctx.more, good.data.more, good.body.items[1]] }}",
        },
    ]
    await box.register(playbook([{"step": "s", "spec": spec, "tool": tools}]))
    box.submit("t")
    assert await box.settle_with_pauses() == [1000]
    assert box.document()["result"] == [["rate_limit", True, "slow down"], False, False, 2]
    assert [path for _, path, _, _ in server.seen] == ["/busy", "/busy", "/json"]
