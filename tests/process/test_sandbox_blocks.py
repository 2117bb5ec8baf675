"""Author code inside the sandbox: what a block may not do comes back as a failure its author can read."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from edge.core.errors import ToolFailed
from edge.core.values import TableRef
from edge.store.cache import BlockStore
from edge.tools.registry import preload, tool
from edge.worker.sandbox import Policy, lock_in
from playbooks.evaluate import render
from tests.process.forked import forked

pytestmark = [pytest.mark.forks, pytest.mark.sandbox]


class Lent:
    execution_id = step = idempotency_key = "e"

    def __init__(self, store: BlockStore, ref: TableRef) -> None:
        self._store, self.ref = store, ref

    def render(self, tree: Any, extra: Mapping[str, Any] | None = None) -> Any:
        return render(tree, {"t": self.ref})

    def table(self, ref: TableRef) -> pa.Table:
        return self._store.read(ref)


def locked(folder: Path, kind: str, *configs: dict[str, Any], memory_mb: int = 64) -> list[Any]:
    """One worker: lock in, run each config in turn; `[True, value]` or `[False, code, message]` each."""
    preload()
    folder_fd = os.open(folder, os.O_DIRECTORY)

    def worker(pipe_fd: int) -> list[Any]:
        # As the zygote has it: mimalloc tries for seconds before it admits that there is no memory.
        pa.set_memory_pool(pa.system_memory_pool())
        store = BlockStore(folder_fd)
        lock_in(Policy(folder, memory_mb, keep_fds=(folder_fd, pipe_fd)))
        lent = Lent(store, store.write("t", pa.table({"g": ["a", "b", "a"], "x": [1.0, 2.0, 4.0]})))
        return [told(kind, config, lent) for config in configs]

    try:
        return list(forked(worker))
    finally:
        os.close(folder_fd)


def told(kind: str, config: dict[str, Any], lent: Lent) -> list[Any]:
    """`[True, value]` or `[False, code, message]` of one block."""
    try:
        return [True, tool(kind).run(config, {"t": lent.ref}, lent)]
    except ToolFailed as problem:
        return [False, problem.problem_code, str(problem)]


def block(code: str) -> dict[str, Any]:
    return {"code": code, "form": "result"}


ESCAPES = {
    "a shell": "import os\nif os.system('true') != 0: os.fork()",
    "a subprocess": "import subprocess\nsubprocess.run(['true'])",
    "a pool of processes": "import multiprocessing as m\nm.Process(target=print).start()",
    "a web request": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:1')",
    "a name": "import socket\nsocket.create_connection(('localhost', 1))",
    "a unix socket": "import socket\nsocket.socket(socket.AF_UNIX).connect('/run/x')",
    "a password file": "open('/etc/passwd')",
    "a file in /tmp": "open('/tmp/edge-block', 'w')",
    "its parent": "import os\nos.kill(os.getppid(), 9)",
    "an event loop": "import asyncio\nasyncio.run(asyncio.sleep(0))",
    "foreign memory by ctypes": (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.ptrace(16, os.getppid(), 0, 0) < 0: raise OSError(ctypes.get_errno(), 'no')"
    ),
}


@pytest.mark.parametrize("name", ESCAPES)
def test_escapes_are_told_to_the_author(name: str, tmp_path: Path) -> None:
    """Each way out is a `sandbox_denied` failure naming the policy, and the worker goes on."""
    denied, after = locked(tmp_path, "python", block(ESCAPES[name]), block("result = 1"))
    assert denied[:2] == [False, "sandbox_denied"], denied
    assert "spec.policy" in denied[2]
    assert after == [True, 1]


def test_memory_is_a_failure_and_the_worker_goes_on(tmp_path: Path) -> None:
    """A block over its memory fails as `memory_exceeded`, and its process can still answer.

    Not that the next block has all of it: what was freed is in pieces. Such a worker is best replaced.
    """
    greedy = [
        block("x = []\nwhile True: x.append(bytearray(1 << 20))"),
        block("x = {}\nwhile True: x[len(x)] = 'text %d' % len(x)"),
        block("import pyarrow as pa\nx = [pa.array(range(100000)) for _ in range(10000)]"),
        block(
            "def f(n): return [n] + f(n + 1)\ntry:\n    f(0)\nexcept RecursionError:\n    x = 'y' * (1 << 40)"
        ),
    ]
    *failed, after = locked(
        tmp_path, "python", *greedy, block("result = len(bytearray(1 << 20))"), memory_mb=48
    )
    assert [answer[:2] for answer in failed] == [[False, "memory_exceeded"]] * 4, failed
    assert after == [True, 1 << 20]


def test_blocks_compute_with_arrow(tmp_path: Path) -> None:
    """A table of the cache comes in mapped, and Arrow works on it, inside."""
    code = "import pyarrow.compute as pc\nresult = [t.num_rows, pc.sum(t['x']).as_py()]"
    assert locked(tmp_path, "python", block(code)) == [[True, [3, 7.0]]]


def test_the_arrow_tool_works_inside(tmp_path: Path) -> None:
    """The built-in kind runs in the same sandbox, on one thread."""
    ops = [["aggregate", ["g"], [["s", "sum", ["name", "x"]], ["m", "median", ["name", "x"]]]]]
    config = {"table": ["name", "t"], "ops": ops, "output": "rows"}
    expected = [{"g": "a", "s": 5.0, "m": 2.5}, {"g": "b", "s": 2.0, "m": 2.0}]
    assert locked(tmp_path, "arrow", config) == [[True, expected]]


def test_sudden_death_is_only_the_workers(tmp_path: Path) -> None:
    """A block that ends its process takes nobody with it; the runtime sees a lost attempt."""
    with pytest.raises(AssertionError, match="without an answer"):
        locked(tmp_path, "python", block("import os\nos._exit(0)"))
