"""Grants held in real processes: what a step was granted works, and nothing beside it does."""

from __future__ import annotations

import errno
import http.server
import os
import select
import socket
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.core.access import Access
from edge.worker import landlock
from edge.worker.sandbox import Policy, lock_in
from edge.worker.zygote import kernel_lacks
from tests.process.box import Box
from tests.process.forked import forked, outcomes

pytestmark = pytest.mark.sandbox

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: grants/p}\nworkflow:\n"


def playbook(code: str, access: str, spec: str = "") -> str:
    """A playbook of one step that runs this code with these grants."""
    code = code if "result" in code else f"{code}\nresult = None"
    block = textwrap.indent(code, "        ")
    tool = f"    tool:\n      kind: python\n      code: |\n{block}\n"
    return f"{HEAD}  - step: a\n    spec: {{{spec}policy: {{access: {access}}}}}\n{tool}"


def ended(box: Box, code: str, access: str, spec: str = "") -> dict[str, Any]:
    """How one run of it ends."""
    box.register(playbook(code, access, spec))
    return box.run("grants/p")


@pytest.fixture
def web() -> Iterator[int]:
    """A small web server on loopback; its port."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"page " + self.path.encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


FETCH = "import urllib.request\nresult = urllib.request.urlopen('http://{host}:{port}/x', timeout=10).read().decode()"


@pytest.mark.parametrize(("host", "granted"), [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost")])
def test_a_granted_host_is_reached_by_name_and_by_address(
    shared_box: Box, web: int, host: str, granted: str
) -> None:
    """Python's own HTTP client works on a granted host, names resolved; the step is a write."""
    before = len(shared_box.events())
    answer = ended(shared_box, FETCH.format(host=host, port=web), f"{{hosts: ['{granted}:{web}']}}")
    assert answer["result"] == "page /x", answer
    kinds = {type(event.body).__name__ for event in shared_box.events()[before:]}
    assert "StepStarted" in kinds, "no intent: no write"


DENIED = {
    "another port": ("127.0.0.1:1", FETCH),
    "another name for the same place": ("127.0.0.1:{port}", FETCH.replace("{host}", "localhost")),
    "another address": ("127.0.0.2:{port}", FETCH),
    "a name nobody granted": ("127.0.0.1:{port}", "import socket\nresult = socket.getaddrinfo('example.org', 80)"),
    "a datagram": ("127.0.0.1:{port}", "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)"),
    "a unix socket": ("127.0.0.1:{port}", "import socket\nsocket.socket(socket.AF_UNIX)"),
    "a listener": ("127.0.0.1:{port}", "import socket\nsocket.create_server(('127.0.0.1', 0))"),
    "past Python": (
        "127.0.0.2:{port}",
        ("import ctypes, socket, struct\ns = socket.socket()\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "a = struct.pack('=H', 2) + struct.pack('!H', {port}) + bytes([127, 0, 0, 1]) + bytes(8)\n"
        "if libc.connect(s.fileno(), a, 16) < 0: raise OSError(ctypes.get_errno(), 'no')"),
    ),
    "while sending": (
        "127.0.0.2:{port}",
        "import socket\nsocket.socket().sendto(b'GET /\\r\\n\\r\\n', 0x20000000, ('127.0.0.1', {port}))",
    ),
    "by talking to the porter itself": (
        "127.0.0.2:{port}",
        ("import socket\nfrom edge.core.codec import encode, decode\nimport gc\n"
        "door = [o for o in gc.get_objects() if type(o).__name__ == 'Outside'][0]._door\ns = socket.socket()\n"
        "socket.send_fds(door, [encode(['connect', ['127.0.0.1', {port}]])], [s.fileno()])\n"
        "r = decode(door.recv(9999))\nif r[0] is False: raise PermissionError(1, r[2])"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DENIED)
def test_what_was_not_granted_is_not_reached(shared_box: Box, web: int, name: str) -> None:
    """A grant of one host opens that host and port and no other, by whatever way it is tried."""
    host, code = DENIED[name]
    code = code.replace("{port}", str(web)).replace("{host}", "127.0.0.1")
    answer = ended(shared_box, code, f"{{hosts: ['{host.format(port=web)}']}}")
    assert answer["status"] == "failed", answer
    assert answer["error"]["code"] == "sandbox_denied", answer


def test_files_open_for_reading_or_writing_as_granted(shared_box: Box, tmp_path: Path) -> None:
    """A folder to read can be read and not written, one to write both, and what lies beside them neither."""
    for name in ("in", "out", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
    access = f"{{files: [{tmp_path}/in, {{path: {tmp_path}/out, mode: write}}]}}"
    copied = (
        f"text = open('{tmp_path}/in/x').read()\nopen('{tmp_path}/out/y', 'w').write(text)\nresult = text"
    )
    assert ended(shared_box, copied, access)["result"] == "in"
    assert (tmp_path / "out" / "y").read_text() == "in"
    for code in (
        f"open('{tmp_path}/in/x', 'w')",
        f"open('{tmp_path}/other/x')",
        f"open('{tmp_path}/in/z', 'x')",
    ):
        assert ended(shared_box, code, access)["error"]["code"] == "sandbox_denied", code


def test_a_terminal_can_be_granted_and_no_other_device(shared_box: Box) -> None:
    """A granted serial line can be set up, read and written; a drive or memory cannot be granted."""
    master, slave = os.openpty()
    name = os.ttyname(slave)
    code = (
        f"import os, termios\nfd = os.open('{name}', os.O_RDWR | os.O_NOCTTY)\nold = termios.tcgetattr(fd)\n"
        "old[3] &= ~(termios.ECHO | termios.ICANON)\ntermios.tcsetattr(fd, termios.TCSANOW, old)\n"
        "os.write(fd, b'hello')\ntry:\n    import fcntl\n    fcntl.ioctl(fd, 0x5412, b'x')\n    result = 'typed'\n"
        "except OSError as error:\n    result = error.errno"
    )
    assert ended(shared_box, code, f"{{devices: [{name}]}}")["result"] == 1
    assert os.read(master, 5) == b"hello"
    os.close(master)
    os.close(slave)
    for device in ("/dev/mem", "/dev/kmsg", "/dev/fuse", "/dev/absent", "/dev/loop0", "/dev/vda"):
        assert (
            ended(shared_box, "result = 1", f"{{devices: [{device}]}}")["error"]["code"] == "access_refused"
        )


def test_the_boxs_own_folders_cannot_be_granted(shared_box: Box, tmp_path: Path) -> None:
    """Log, index, socket and cache, what holds them and what leads to them are refused with the way to mend it."""
    data, cache = shared_box.settings.data, shared_box.settings.cache_folder
    (tmp_path / "link").symlink_to(data)
    (tmp_path / "to-cache").symlink_to(cache)
    paths = [
        data,
        data / "journal",
        data / "run",
        tmp_path / "to-cache",
        data.parent,
        "/",
        tmp_path / "link",
        "/proc",
        "/proc/1/environ",
    ]
    for path in paths:
        for entry in (f"{path}", f"{{path: {path}, mode: write}}"):
            error = ended(shared_box, "result = 1", f"{{files: [{entry}]}}")["error"]
            assert error["code"] == "access_refused", (path, error)
            assert error["mend"], path


def test_a_granted_process_serves_nobody_else(shared_box: Box, web: int) -> None:
    """The same playbook's step without the grant runs in another process, which has no network."""
    fetch = FETCH.format(host="127.0.0.1", port=web).replace("\n", "\n        ")
    shared_box.register(
        HEAD + f"  - step: a\n    spec: {{policy: {{access: {{hosts: ['127.0.0.1:{web}']}}}}}}\n"
        f"    tool:\n      kind: python\n      code: |\n        {fetch}\n    next: b\n"
        f"  - step: b\n    tool:\n      kind: python\n      code: |\n        {fetch}\n"
    )
    error = shared_box.run("grants/p")["error"]
    assert (error["code"], error["step"]) == ("sandbox_denied", "b")


def test_a_porter_ends_with_its_worker(shared_box: Box, web: int) -> None:
    """No porter outlives the worker it was forked for."""
    code = "import os, socket\nresult = [os.getpid(), len(os.listdir('/usr/lib'))]"
    worker = ended(shared_box, code, f"{{hosts: ['127.0.0.1:{web}']}}")["result"][0]
    children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    assert len(children) == 1
    gone = os.pidfd_open(int(children[0]))
    os.kill(worker, 9)
    assert select.select([gone], [], [], 10)[0], "the porter is still there"
    os.close(gone)


@pytest.mark.forks
@pytest.mark.parametrize("abi", [1, 2, 4])
def test_older_kernels_hold_grants_too(abi: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what landlock was in Linux 5.13, 5.19 and 6.7, files and sockets are held as granted."""
    for name in ("cache", "granted", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
    monkeypatch.setattr(landlock, "abi", lambda: abi)
    access = Access((("localhost", 1),), (), ((f"{tmp_path}/granted", "read"),))

    def child(pipe_fd: int) -> list[Any]:
        lock_in(Policy(tmp_path / "cache", 64, keep_fds=(pipe_fd,), access=access))
        return outcomes(
            (tmp_path / "granted" / "x").read_text,
            lambda: (tmp_path / "granted" / "x").write_text("y"),
            (tmp_path / "other" / "x").read_text,
            lambda: socket.socket().connect(("127.0.0.1", 1)),
            lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        )

    assert forked(child) == ["granted", errno.EACCES, errno.EACCES, errno.EPERM, errno.EPERM]


def test_a_kernel_without_a_sandbox_says_so() -> None:
    """Where landlock or seccomp is missing, each claim is answered with that and the way to mend it."""
    problem = kernel_lacks(("landlock",))
    assert problem["code"] == "sandbox_unavailable"
    assert "no landlock" in problem["message"]
    assert problem["mend"]


def test_blocks_do_not_see_the_boxs_environment(quiet_box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker's password, which `edge up` hands on in the environment, is in no worker's."""
    monkeypatch.setenv("EDGE_BROKER", "mqtt://ada:password@127.0.0.1")
    quiet_box.kill("runtime")
    quiet_box.start("runtime")
    quiet_box.status()
    seen = ended(quiet_box, "import os\nresult = sorted(os.environ)", "{}")["result"]
    assert "PATH" in seen
    assert not [name for name in seen if name.startswith(("EDGE", "PYTEST", "PYTHONHASHSEED"))]
