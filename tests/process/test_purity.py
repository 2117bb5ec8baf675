"""Blocks declared pure, in a real worker process with its doors shut: each way to what is no input is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from edge.core.events import BootStarted
from edge.store.cache import BlockStore
from edge.tools.purity_doors import shut
from edge.tools.registry import preload
from edge.worker.sandbox import Policy, lock_in, readable_paths
from playbooks.compile import check_playbook
from tests.process.box import Box
from tests.process.forked import forked
from tests.process.test_sandbox_blocks import Lent, told

pytestmark = [pytest.mark.forks, pytest.mark.sandbox]


def pure(folder: Path, *codes: str) -> list[Any]:
    """One pure worker runs these blocks in turn; `[True, value]` or `[False, code, message]` each."""
    preload()
    folder_fd = os.open(folder, os.O_DIRECTORY)

    def worker(pipe_fd: int) -> list[Any]:
        store = BlockStore(folder_fd)
        lock_in(Policy(folder, 64, keep_fds=(folder_fd, pipe_fd), pure=True))
        lent = Lent(store, store.write("t", pa.table({"x": [1.0, 2.0]})))
        shut(tuple(str(path) for path in readable_paths()))
        return [told("python", {"code": code, "form": "result", "line": 10}, lent) for code in codes]

    try:
        return list(forked(worker))
    finally:
        os.close(folder_fd)


CLOCKS = [
    *(
        f"import time\nresult = time.{name}()"
        for name in ("time", "monotonic", "perf_counter", "process_time")
    ),
    *(
        f"import time\nresult = time.{name}_ns()"
        for name in ("time", "monotonic", "perf_counter", "thread_time")
    ),
    "import time\nresult = time.clock_gettime(time.CLOCK_BOOTTIME)",
    "import time\nresult = time.localtime()",
    "import time\nresult = time.strftime('%Y')",
    "from time import ctime as c\nresult = c()",
    "import datetime\nresult = datetime.datetime.now().isoformat()",
    "from datetime import datetime, UTC\nresult = datetime.now(UTC).isoformat()",
    "import datetime\nresult = datetime.datetime.utcnow().year",
    "import datetime\nresult = datetime.date.today().year",
    "import datetime\nclass D(datetime.datetime): pass\nresult = D.now().year",
    "import os\nresult = os.times()[4]",
    "import resource\nresult = resource.getrusage(0)[0]",
    "import uuid\nresult = str(uuid.uuid1())",
    "import timeit\nresult = timeit.timeit('1', number=1)",
    "import email.utils\nresult = email.utils.formatdate()",
    "import logging\nlogging.warning('x')\nresult = 1",
    "import signal\nresult = signal.getitimer(0)",
    "from datetime import datetime\ntry:\n    result = datetime.now().year\nexcept Exception:\n    result = 0",
]
CHANCES = [
    "import random\nresult = random.random()",
    "import random\nresult = random.choice([1, 2])",
    "from random import randint\nresult = randint(1, 6)",
    "import random\nresult = random.Random().random()",
    "import random\nrandom.seed()\nresult = random.random()",
    "import random\nresult = random.SystemRandom().random()",
    "import os\nresult = os.urandom(1)[0]",
    "import posix\nresult = posix.urandom(1)[0]",
    "import secrets\nresult = secrets.token_hex()",
    "import uuid\nresult = str(uuid.uuid4())",
    "import pyarrow.compute as pc\nresult = pc.random(1).to_pylist()",
    "import pyarrow.compute as pc\nresult = pc.call_function('random', [1]).to_pylist()",
]
ENVIRONMENT = [
    "import os\nresult = os.environ['HOME']",
    "import os\nresult = os.getenv('HOME', '')",
    "import os\nresult = dict(os.environb)",
    "import os\nresult = os.getpid()",
    "import os\nresult = os.uname().nodename",
    "import platform\nresult = platform.node()",
    "import socket\nresult = socket.gethostname()",
    "import os\nresult = os.cpu_count()",
    "import os\nresult = os.getcwd()",
    "import getpass\nresult = getpass.getuser()",
    "import ctypes\nresult = ctypes.CDLL(None).getpid()",
    "import subprocess\nresult = subprocess.run(['true']).returncode",
    "result = id(result) if 'result' in globals() else id(1)",
]
FILES = [
    "result = open('/etc/hostname').read()",
    "import pathlib\nresult = pathlib.Path('/etc/hostname').read_text()",
    "import os\nresult = os.listdir('/tmp')",
    "import os\nresult = os.path.exists('/etc/hostname')",
    "import os\nresult = os.path.getmtime('/etc')",
    "import glob\nresult = glob.glob('/etc/*')",
    "import tempfile\nresult = tempfile.mkdtemp()",
    "result = open('/dev/urandom', 'rb').read(1)[0]",
    "import pyarrow as pa\nresult = pa.OSFile('/etc/hostname').read().decode()",
    "import pyarrow as pa\nresult = pa.memory_map('/etc/hostname').read().decode()",
    "import socket\nresult = socket.socket().fileno()",
    "import urllib.request\nresult = urllib.request.urlopen('http://127.0.0.1:1').status",
]


@pytest.mark.parametrize(
    "codes", [CLOCKS, CHANCES, ENVIRONMENT, FILES], ids=["clock", "chance", "environment", "files"]
)
def test_what_is_no_input_is_refused_by_name(codes: list[str], tmp_path: Path) -> None:
    """Each way is `impure`, with the line of the block and the way to mend it, and the worker goes on."""
    *refused, after = pure(tmp_path, *codes, "result = 1")
    wrong = [
        (code, answer) for code, answer in zip(codes, refused, strict=True) if answer[:2] != [False, "impure"]
    ]
    assert not wrong
    for code, answer in zip(codes, refused, strict=True):
        assert "spec.effect: read" in answer[2] or "declared read" in answer[2], (code, answer)
        assert "of the block, line 1" in answer[2], (code, answer)
    assert after == [True, 1]


ALLOWED = {
    "import pyarrow as pa\nresult = pa.array([1, 2], pa.int64()).to_pylist()": [1, 2],
    "import pyarrow as pa\nresult = pa.table({'n': [1, 2], 'x': pa.array([0.5, 1.5])}).to_pydict()": {
        "n": [1, 2],
        "x": [0.5, 1.5],
    },
    "import random\nr = random.Random(7)\nresult = [r.randint(1, 100) for _ in range(3)]": [42, 20, 51],
    "import random\nrandom.seed('a')\nresult = random.randint(1, 10**6)": None,
    "import datetime as d\nresult = d.datetime(2026, 1, 2, tzinfo=d.UTC).timestamp()": 1767312000.0,
    "import datetime as d\nresult = d.datetime.fromtimestamp(0).isoformat()": "1970-01-01T00:00:00",
    "import time\nresult = time.strftime('%Y-%m-%d', time.gmtime(0))": "1970-01-01",
    "import uuid\nresult = str(uuid.uuid5(uuid.NAMESPACE_URL, 'x'))": None,
    "import json, re, math, statistics, decimal, collections, itertools, hashlib, copy, logging, tempfile\n"
    "result = statistics.mean([1, 3]) + len(copy.deepcopy([1]))": 3,
    "import zoneinfo, datetime as d\n"
    "result = d.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin')).isoformat()": None,
    "import pyarrow.compute as pc\nresult = pc.sum(t['x']).as_py()": 3.0,
    "import pyarrow.compute as pc\nresult = len(pc.random(2, initializer=1))": 2,
    "try:\n    1 / 0\nexcept ZeroDivisionError:\n    import traceback\n"
    "    result = len(traceback.format_exc()) > 10": True,
    "print('x')\nresult = sorted({'b', 'a'})": ["a", "b"],
    "import threading\nfound = []\nx = threading.Thread(target=lambda: found.append(2))\n"
    "x.start()\nx.join()\nresult = found": [2],
}  # fmt: skip


def test_what_is_a_function_of_the_inputs_runs(tmp_path: Path) -> None:
    """Seeded chance, given times, zones, libraries and tables are no outside."""
    answers = pure(tmp_path, *ALLOWED)
    for (code, wanted), answer in zip(ALLOWED.items(), answers, strict=True):
        assert answer[0] is True, (code, answer)
        assert wanted is None or answer[1] == wanted, (code, answer)


def test_a_seed_is_one_runs(tmp_path: Path) -> None:
    """A generator that one run seeded is refused to the next, though it still has its state."""
    first, second = pure(
        tmp_path, "import random\nrandom.seed(1)\nresult = 1", "import random\nresult = random.random()"
    )
    assert first == [True, 1]
    assert second[1] == "impure"


PURE = """apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: p, path: pure/p}
workflow:
  - step: order
    spec: {effect: pure}
    tool:
      kind: python
      code: |
        result = list({f"text {number}" for number in range(40)})
    next: clock
  - step: clock
    spec: {effect: read}
    tool:
      kind: python
      code: |
        import os, time
        result = [time.time() > 1, os.environ is not None, os.getpid()]
    next: both
  - step: both
    tool: {kind: transform, value: {order: "{{ order }}", clock: "{{ clock }}"}}
"""


def test_order_of_texts_is_the_boxs_own(quiet_box: Box) -> None:
    """Sets of texts are walked in one order on a box, restarts included; the log says by which seed."""
    quiet_box.register(PURE)
    first = quiet_box.run("pure/p")["result"]["order"]
    for _ in range(2):
        quiet_box.kill("runtime")
        quiet_box.start("runtime")
        quiet_box.status()
        assert quiet_box.run("pure/p")["result"]["order"] == first
    boots = [event.body for event in quiet_box.events() if isinstance(event.body, BootStarted)]
    assert len({boot.hash_seed for boot in boots}) == 1
    code = "print(list({f'text {number}' for number in range(40)}))"
    environment = {**os.environ, "PYTHONHASHSEED": str(boots[0].hash_seed)}
    again = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True
    )
    assert again.stdout.strip() == str(first)


def test_a_pure_process_serves_pure_blocks_only(quiet_box: Box) -> None:
    """The same playbook's other block finds clock and environment as they are, in another process."""
    quiet_box.register(PURE)
    for _ in range(3):
        assert quiet_box.run("pure/p")["result"]["clock"][:2] == [True, True]


PLANTED = """
import builtins, json, sys, types, pyarrow as pa
builtins.ascii = lambda x: 666
builtins.planted = 1
json.dumps = lambda *a: 'planted'
pa.planted = 1
sys.modules['decoy'] = types.ModuleType('decoy')
result = 1
"""
LOOKED = """
import builtins, json, sys, pyarrow as pa
result = [ascii(1), hasattr(builtins, 'planted'), json.dumps(1), hasattr(pa, 'planted'), 'decoy' in sys.modules]
"""


def test_a_planted_monkeypatch_is_not_seen_by_another_playbook(quiet_box: Box) -> None:
    """Whatever a block plants in builtins, libraries or sys.modules stays in processes of its own playbook."""
    for name, code in (("plant", PLANTED), ("look", LOOKED)):
        block = textwrap.indent(code, "        ")
        quiet_box.register(
            PURE.partition("workflow")[0].replace("pure/p", f"pure/{name}")
            + f"workflow:\n  - step: a\n    tool:\n      kind: python\n      code: |\n{block}"
        )
    for _ in range(4):
        assert quiet_box.run("pure/plant")["result"] == 1
        assert quiet_box.run("pure/look")["result"] == ["1", False, "1", False, False]


def test_pure_and_other_blocks_do_not_share_a_pipeline() -> None:
    """Declared pure beside a block that is not, or beside a grant, is refused while compiling."""
    block = "{kind: python, code: 'result = 1'"
    head = PURE.partition("workflow")[0] + "workflow:\n  - step: a\n    tool:\n"
    pure = f"      - {block}, spec: {{effect: pure}}}}\n"
    assert not check_playbook(f"{head}{pure}      - {{kind: transform, value: 1}}\n{pure}".encode(), "p")
    for other in (f"{block}}}", f"{block}, spec: {{policy: {{access: {{hosts: [a]}}}}}}}}"):
        problems = check_playbook(f"{head}{pure}      - {other}\n".encode(), "p")
        assert "a step of its own" in str(problems[0])
