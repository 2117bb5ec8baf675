"""The processes of one bench run: a private mosquitto, the box under test, the load client, the echo responder.

Everything started here ends with the `with` block that started it, and with the bench itself should that be
killed. Processes of the box are started as production starts them. Must never touch one it did not start.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge.cli.client import RuntimeClient
from edge.core.errors import Unavailable
from edge.core.settings import Settings, load_settings
from tests.bench import workload
from tests.bench.load import ECHO_TOPIC
from tests.process.mosquitto import free_port

ROOT: Final = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_START_S: Final = 20.0
_STOP_S: Final = 10.0
#: Queues wide open: a broker that drops would be measured as an error of the box.
#: As our own user: changing it would undo that mosquitto ends with the bench.
_MOSQUITTO: Final = """\
user {user}
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
persistence false
max_inflight_messages 0
max_queued_messages 100000
log_dest stderr
log_type error
log_type warning
"""


class BenchFailed(Exception):
    """The run cannot give true figures; says why."""


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@contextmanager
def started(name: str, command: Sequence[str], folder: Path, **pipes: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the block; what it writes to stderr goes to `folder/name.log`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stderr=log,
            text=True,
            bufsize=1,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # safe: the bench has no threads
            env=environment,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **pipes},
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    """End a process: politely, then not."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True, slots=True)
class Broker:
    """A running mosquitto."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        """What a gateway is given."""
        return f"mqtt://127.0.0.1:{self.port}"


@contextmanager
def mosquitto(folder: Path) -> Iterator[Broker]:
    """A mosquitto of our own on a free port. Raises BenchFailed."""
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise BenchFailed("mosquitto is not installed (apt install mosquitto).")
    port, config = free_port(), folder / "mosquitto.conf"
    config.write_text(_MOSQUITTO.format(port=port, user=getpass.getuser()))
    with started("mosquitto", [binary, "-c", str(config)], folder) as process:
        deadline_s = time.monotonic() + _START_S
        while True:
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise BenchFailed(f"mosquitto did not start: {tail(folder, 'mosquitto')}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.01)
        yield Broker(port, process.pid)


def tail(folder: Path, name: str) -> str:
    """The end of what a process said."""
    with contextlib.suppress(OSError):
        return (folder / f"{name}.log").read_text(errors="replace")[-1500:].strip()
    return ""


class LoadProcess:
    """The load client: one command at a time."""

    def __init__(self, process: subprocess.Popen[str], responder_pid: int, folder: Path) -> None:
        self._process, self._folder = process, folder
        #: The bench's own processes, whose work is not the box's.
        self.pids = {"load": process.pid, "responder": responder_pid, "main": os.getpid()}
        self._receive(_START_S)

    def ask(self, do: str, patience_s: float = 60.0, **arguments: Any) -> dict[str, Any]:
        """Run one command. Raises BenchFailed where the load client met an error."""
        self.tell(do, **arguments)
        return self._receive(patience_s)

    def tell(self, do: str, **arguments: Any) -> None:
        """Start one command; `result` waits for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()

    def result(self, patience_s: float = 60.0) -> dict[str, Any]:
        """What the command told came to. Raises BenchFailed."""
        return self._receive(patience_s)

    def _receive(self, patience_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], patience_s)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise BenchFailed(f"The load client did not answer: {tail(self._folder, 'load')}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchFailed(f"Under load: {answer['error']}")
        return answer


@contextmanager
def load_client(broker: Broker, folder: Path) -> Iterator[LoadProcess]:
    """The load client, connected, and the echo responder beside it."""
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    port = str(broker.port)
    responder = [sys.executable, "-m", "tests.bench.responder", port, ECHO_TOPIC]
    load = [sys.executable, "-m", "tests.bench.load", port]
    with (
        started("responder", responder, folder, **piped) as echo,
        started("load", load, folder, **piped) as process,
    ):
        assert echo.stdout is not None
        ready, _, _ = select.select([echo.stdout], [], [], _START_S)
        if not ready or echo.stdout.readline().strip() != "ready":
            raise BenchFailed(f"The echo responder did not start: {tail(folder, 'responder')}")
        yield LoadProcess(process, echo.pid, folder)


@dataclass(frozen=True, slots=True)
class Box:
    """A running box: gateway, runtime, zygote, workers."""

    settings: Settings
    gateway_pid: int
    cold_start_s: float
    #: Seconds from the start until the runtime listened, the playbooks were registered, the gateway was online.
    cold_start_parts: dict[str, float]
    _client: RuntimeClient

    def status(self) -> dict[str, Any]:
        """What the runtime says of itself."""
        answer: dict[str, Any] = self._client.call("status")
        return answer

    def retention(self) -> dict[str, Any]:
        """What the runtime says of its log's size and bounds."""
        answer: dict[str, Any] = self._client.call("retention")
        return answer

    def pids(self) -> dict[str, int]:
        """Every process of the box by name."""
        status = self.status()
        pids = {"gateway": self.gateway_pid, "runtime": status["pid"], "zygote": status["zygote_pid"]}
        return pids | {f"worker{n}": pid for n, pid in enumerate(status["worker_pids"], 1)}

    def await_quiet(self) -> None:
        """Wait until nothing is open or owed. Raises BenchFailed."""
        deadline_s = time.monotonic() + _STOP_S
        while (status := self.status())["open"] or status["owed"]:
            if time.monotonic() > deadline_s:
                raise BenchFailed(f"The box does not come to rest: {status}")
            time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Bench:
    """What all phases share: the broker, the load client, the payload, and how to start a gateway."""

    broker: Broker
    load: LoadProcess
    folder: Path
    payload: Path
    blueprints: tuple[bytes, ...]
    gateway_options: tuple[str, ...] = ()
    workers: int = 2
    #: Stands before the command of each of the box's daemons.
    prefix: tuple[str, ...] = ()


@contextmanager
def box(bench: Bench, data: Path, name: str, **given: int | str) -> Iterator[Box]:
    """Start a box on a data folder, register, run one execution; its cold start is measured on the way.

    `given` are settings as they stand in edge.toml.
    """
    data.mkdir(parents=True, exist_ok=True)
    lines = [
        f'box = "{name}"',
        f"workers = {bench.workers}",
        *(f"{key} = {json.dumps(value)}" for key, value in given.items()),
    ]
    (data / "edge.toml").write_text("\n".join(lines) + "\n")
    settings = load_settings(data)
    bench.load.ask("open", box=name, payload=str(bench.payload))
    shared = ["--data", str(data), "--log-level", "warning"]
    python = [*bench.prefix, sys.executable, "-m"]
    gateway = [*python, "gateway", *shared, "--broker", bench.broker.url, *bench.gateway_options]
    started_ns = time.monotonic_ns()
    try:
        with (
            started(f"{name}-runtime", [*python, "edge.runtime", *shared], bench.folder) as runtime,
            started(f"{name}-gateway", gateway, bench.folder) as gate,
        ):
            with _connected(settings, runtime, bench.folder, f"{name}-runtime") as client:
                listening_ns = time.monotonic_ns()
                for blueprint in bench.blueprints:
                    client.call("register", blueprint=blueprint)
                registered_ns = time.monotonic_ns()
                first = bench.load.ask("first")
                moments = {
                    "listening": listening_ns,
                    "registered": registered_ns,
                    "online": first["online_ns"],
                    "result": first["result_ns"],
                }
                parts = {part: (moment - started_ns) / 1e9 for part, moment in moments.items()}
                yield Box(settings, gate.pid, parts["result"], parts, client)
            if runtime.poll() is not None or gate.poll() is not None:
                raise BenchFailed(f"A process of the box ended by itself: {_said(bench.folder, name)}")
    except BenchFailed as error:
        raise BenchFailed(f"{error} {_said(bench.folder, name)}".strip()) from error
    finally:
        if settings.cache_folder.name.startswith("noetl-edge-"):
            shutil.rmtree(settings.cache_folder, ignore_errors=True)


def _connected(settings: Settings, runtime: subprocess.Popen[str], folder: Path, name: str) -> RuntimeClient:
    deadline_s = time.monotonic() + _START_S
    while True:
        try:
            return RuntimeClient(settings)
        except Unavailable as error:
            if runtime.poll() is not None or time.monotonic() > deadline_s:
                raise BenchFailed(f"The runtime did not start: {tail(folder, name)}") from error
            time.sleep(0.005)


def _said(folder: Path, name: str) -> str:
    parts = [(part, tail(folder, f"{name}-{part}")) for part in ("runtime", "gateway")]
    return " ".join(f"[{part}: {text}]" for part, text in parts if text)


def blueprints() -> tuple[bytes, ...]:
    """Both playbooks, compiled."""
    from playbooks.compile import compile_playbook

    return tuple(
        compile_playbook(path.read_bytes(), str(path)).data
        for path in (workload.THREE_STEP, workload.TWO_STEP)
    )
