"""Secrets planted in every place a step can put them: no file, no answer and no message of the box holds one."""

from __future__ import annotations

import base64
import http.server
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.process.box import EDGE, Box

pytestmark = pytest.mark.sandbox

SECRET = "canary/7f3a9c+e1=d5 b8"
PASSWORD = "canary:pass/word 42+x"
FORMS = (
    SECRET,
    PASSWORD,
    quote(SECRET, safe=""),
    base64.b64encode(SECRET.encode()).decode()[:-4],
    base64.b64encode(f"ada:{PASSWORD}".encode()).decode()[8:-4],
    SECRET.encode().hex(),
)
HEAD = """apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: p, path: secret/p}
keychain: [{name: api}, {name: meter, kind: basic}]
spec: {policy: {access: {keychain: [api, meter]}}}
workflow:
"""


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A running box whose keychain holds two aliases. All tests share it: a secret that leaks stays found."""
    quiet_box = Box(tmp_path_factory.mktemp("keyed"), 1)
    quiet_box.start("runtime")
    quiet_box.status()
    for arguments, value in (
        (["api"], SECRET),
        (["meter", "--kind", "basic", "--username", "ada"], PASSWORD),
    ):
        done = subprocess.run(
            [*EDGE, "keychain", "set", *arguments, "--data", str(quiet_box.data)],
            input=f"{value}\n",
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert value not in done.stdout + done.stderr
    yield quiet_box
    quiet_box.down()


def found_in(box: Box) -> list[str]:
    """Every place of the box, and every process's words, where a form of a secret stands."""
    places = []
    for folder in (box.data, box.settings.cache_folder):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_socket():
                data = path.read_bytes()
                places += [f"{path.name}: {form}" for form in FORMS if form.encode() in data]
    return places + [f"words: {form}" for form in FORMS if form in box.words()]


def run(box: Box, steps: str) -> dict[str, Any]:
    box.register(HEAD + textwrap.dedent(steps))
    return box.run("secret/p")


def block(code: str) -> str:
    """A step whose block gets both secrets."""
    given = "{k: '{{ keychain.api.token }}', u: '{{ keychain.meter.username }}', p: '{{ keychain.meter.password }}'}"
    body = textwrap.indent(code if "result" in code else f"{code}\nresult = 1", "      ")
    return f"- step: a\n  tool:\n    kind: python\n    input: {given}\n    code: |\n{body}\n"


PLANTED = {
    "the result": "result = [k, {k: p}, 'x ' + k + ' y']",
    "encoded": "import base64, urllib.parse as q\n"
    "result = [base64.b64encode(k.encode()).decode(), q.quote(k, safe=''), k.encode().hex(), "
    "base64.b64encode(f'{u}:{p}'.encode()).decode(), k.encode()]",
    "an exception": "raise ValueError('no ' + k + p)",
    "what is printed": "print('debug', k, p)\nraise ValueError('x')",
    "a large value": "result = [k + str(i) for i in range(5000)]",
    "a table": "import pyarrow as pa\nresult = pa.table({'c': [k, p] * 10})",
    "a table's list": "import pyarrow as pa\nresult = pa.table({'c': [[k]]})",
    "a table's metadata": "import pyarrow as pa\nresult = pa.table({'c': [1]}).replace_schema_metadata({'m': k})",
    "a key": "result = {k: 1}",
    "what cannot be kept": "class K:\n    pass\nresult = {k: K()}",
}


def test_a_planted_secret_is_nowhere(keyed: Box) -> None:
    """Wherever a block puts its secrets, answers, log, index, blobs, cache and words hold the alias's mark."""
    for name, code in PLANTED.items():
        more = "  next: b\n- step: b\n  tool: {kind: transform, value: {size: '{{ a.rows }}'}}\n"
        answer = run(keyed, block(code) + (more if "table" in name else ""))
        assert not [form for form in FORMS if form in str(answer)], (name, answer)
        if name in ("the result", "encoded", "an exception", "what is printed", "a key"):
            assert "***api***" in str(answer), (name, answer)
        assert not found_in(keyed), name
        execution = answer["execution_id"].rpartition("-")[2]
        shown = keyed.edge("show", execution).stdout
        assert not [form for form in FORMS if form in shown], name
    log = keyed.edge("log", "show").stdout
    assert not [form for form in FORMS if form in log]
    keyed.kill("runtime")
    assert not found_in(keyed)
    keyed.start("runtime")
    keyed.status()


def test_ctx_tasks_and_later_steps_hold_no_secret(keyed: Box) -> None:
    """What a pipeline's tasks, a policy's ctx and a step after it get is clean already."""
    answer = run(
        keyed,
        """
        - step: a
          tool:
            - one:
                kind: python
                input: {k: "{{ keychain.api.token }}"}
                code: "result = k"
                spec: {policy: {rules: [{then: {do: continue, set: {ctx.kept: "{{ output.data }}"}}}]}}
            - two:
                kind: python
                input: {seen: "{{ one }}"}
                code: "result = seen"
          set: {also: "{{ output.data }}"}
          next: b
        - step: b
          tool: {kind: transform, value: {a: "{{ a }}", kept: "{{ ctx.kept }}", also: "{{ ctx.also }}"}}
        """,
    )
    assert answer["result"] == dict.fromkeys(("a", "kept", "also"), "***api***"), answer
    assert not found_in(keyed)


@pytest.fixture
def web() -> Iterator[tuple[int, list[str]]]:
    """A server that notes and returns the credential it was sent."""
    seen: list[str] = []

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = self.headers.get("Authorization") or ""
            seen.append(said)
            self.send_response(200 if self.path == "/" else 403)
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], seen
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("auth", "sent"),
    [
        ("auth: api", f"Bearer {SECRET}"),
        ("auth: meter", "Basic " + base64.b64encode(f"ada:{PASSWORD}".encode()).decode()),
        ("auth: '{{ workload.which }}'", f"Bearer {SECRET}"),
        ("headers: {Authorization: 'Bearer {{ keychain.api.token }}'}", f"Bearer {SECRET}"),
        ("headers: {Authorization: 'Bearer {{ keychain.api }}'}", f"Bearer {SECRET}"),
    ],
)
@pytest.mark.parametrize("path", ["", "denied"])
def test_a_request_goes_by_its_alias(
    keyed: Box, web: tuple[int, list[str]], auth: str, sent: str, path: str
) -> None:
    """The server gets the credential; an answer or an error that echoes it does not bring it back."""
    port, seen = web
    steps = f"""
        - step: a
          spec: {{policy: {{access: {{hosts: ["127.0.0.1:{port}"]}}}}}}
          tool: {{kind: http, url: "http://127.0.0.1:{port}/{path}", response_type: text, {auth}}}
        """
    keyed.register(HEAD.replace("workflow:", "workload: {which: api}\nworkflow:") + textwrap.dedent(steps))
    answer = keyed.run("secret/p")
    assert seen == [sent]
    assert "***" in str(answer), answer
    assert not [form for form in FORMS if form in str(answer)]
    assert not found_in(keyed)


def test_an_alias_that_is_not_there_fails_its_step(quiet_box: Box) -> None:
    """The step names the alias and the command that sets it; set while the box runs, it works at once."""
    error = run(quiet_box, block("result = len(k)"))["error"]
    assert error["code"] == "secret_missing"
    assert "edge keychain set" in error["mend"]
    for alias, more in (("api", []), ("meter", ["--kind", "basic", "--username", "ada"])):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "edge.cli.main",
                "keychain",
                "set",
                alias,
                *more,
                "--data",
                str(quiet_box.data),
            ],
            input=SECRET,
            text=True,
            check=True,
            capture_output=True,
        )
    assert run(quiet_box, block("result = len(k)"))["result"] == len(SECRET)


def test_the_keychain_can_be_granted_to_no_block(keyed: Box) -> None:
    """Its folder is the box's own, and a block without the grant gets no secret."""
    folder = keyed.settings.keychain_folder
    code = f"open('{folder}/key', 'rb').read()\nresult = None"
    assert run(keyed, block(code))["error"]["code"] == "sandbox_denied"
    spec = f"spec: {{policy: {{access: {{files: [{folder}]}}}}}}"
    assert (
        run(keyed, f"- step: a\n  {spec}\n  tool: {{kind: python, code: result = 1}}\n")["error"]["code"]
        == "access_refused"
    )
    assert Path(folder, "key").stat().st_mode & 0o077 == 0


def test_the_runtime_does_not_carry_the_library(keyed: Box) -> None:
    """Only the child that opened the keychain loaded it."""
    run(keyed, block("result = 1"))
    maps = Path(f"/proc/{keyed.status()['pid']}/maps").read_text()
    assert "cryptography" not in maps
