"""The daemons as services: a real notify socket hears that they serve, live, wait and stop.

Nothing here measures time: one process that is stopped says nothing while another one is heard again and again.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.cli.client import RuntimeClient
from tests.process.box import Box
from tests.process.mosquitto import Mosquitto

PATIENCE_S = 60
#: Pulses of half this; many of them make a test, so it is short.
WATCHDOG_US = 200_000


class Ear:
    """Who listens to one daemon, as systemd would."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE_S)
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self.heard: list[str] = []

    def until(self, wanted: str) -> None:
        """Listen until this line comes."""
        while True:
            self.heard.append(self._socket.recv(4096).decode())
            if self.heard[-1] == wanted:
                return

    def queued(self) -> list[str]:
        """What came and was not listened to yet."""
        lines = []
        self._socket.setblocking(False)
        try:
            while True:
                lines.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return lines
        finally:
            self._socket.settimeout(PATIENCE_S)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def ears(tmp_path: Path) -> Iterator[dict[str, Ear]]:
    made = {name: Ear(tmp_path / f"{name}.sock") for name in ("runtime", "gateway")}
    yield made
    for ear in made.values():
        ear.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Box]:
    """A box of which nothing runs yet; nobody listens where its broker should be."""
    made = Box(tmp_path, 1)
    yield made
    for process in made.processes.values():
        process.send_signal(signal.SIGCONT)
    made.down()


def start(box: Box, name: str, ear: Ear, *, pulse: bool = False) -> None:
    """Start a daemon. A pulse fills the socket's queue where nobody listens, so only who waits for it asks for it."""
    box.environment = ear.environment | ({"WATCHDOG_USEC": str(WATCHDOG_US)} if pulse else {})
    box.start(name)


def test_the_runtime_is_ready_once_it_answers(watched: Box, ears: dict[str, Ear]) -> None:
    """At the moment of READY the socket takes the first question; then it lives, and says that it stops."""
    ear = ears["runtime"]
    start(watched, "runtime", ear, pulse=True)
    ear.until("READY=1")
    with RuntimeClient(watched.settings) as runtime:
        assert runtime.call("status")["box"] == "testbox"
    assert ear.heard == ["STATUS=opening the log", "READY=1"]
    ear.until(f"STATUS=serving box testbox from {watched.data}")
    ear.until("WATCHDOG=1")
    ear.until("WATCHDOG=1")
    process = watched.processes["runtime"]
    process.send_signal(signal.SIGTERM)
    ear.until("STOPPING=1")
    assert process.wait(timeout=PATIENCE_S) == 0
    assert not [line for line in ear.queued() if line != "WATCHDOG=1"]


def test_no_block_and_no_child_finds_the_socket(watched: Box, ears: dict[str, Ear]) -> None:
    """The zygote and the workers do not have the way to the service manager in their environment."""
    start(watched, "runtime", ears["runtime"])
    ears["runtime"].until("READY=1")
    watched.register(
        "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: look, path: look}\nworkflow:\n"
        "  - step: look\n    tool:\n      kind: python\n"
        "      code: |\n        import os\n        result = sorted(os.environ)\n"
    )
    names = watched.run("look")["result"]
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(names)


def test_a_daemon_that_is_stopped_says_nothing(watched: Box, ears: dict[str, Ear]) -> None:
    """While the gateway is heard ten times the stopped runtime is not heard once, and again when it goes on."""
    for name, ear in ears.items():
        start(watched, name, ear, pulse=True)
        ear.until("READY=1")
    process = watched.processes["runtime"]
    process.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    ears["runtime"].queued()
    for _ in range(10):
        ears["gateway"].until("WATCHDOG=1")
    assert ears["runtime"].queued() == []
    process.send_signal(signal.SIGCONT)
    ears["runtime"].until("WATCHDOG=1")


def test_the_gateway_says_whom_it_waits_for(watched: Box, ears: dict[str, Ear]) -> None:
    """Without a runtime, then without a broker, it holds nobody up and names who is away."""
    ear = ears["gateway"]
    start(watched, "gateway", ear)
    ear.until("READY=1")
    ear.until("STATUS=waiting for the runtime")
    watched.environment = {}
    watched.start("runtime")
    ear.until("STATUS=waiting for the broker at mqtt://127.0.0.1:1")
    watched.kill("runtime")
    ear.until("STATUS=waiting for the runtime")


@pytest.mark.mosquitto
def test_the_gateway_is_ready_once_it_serves(
    tmp_path: Path, mosquitto: Mosquitto, ears: dict[str, Ear]
) -> None:
    """READY comes when requests are heard; a broker that goes away and comes back is told of."""
    box, ear = Box(tmp_path, mosquitto.port), ears["gateway"]
    try:
        box.start("runtime")
        box.status()
        start(box, "gateway", ear)
        ear.until("READY=1")
        assert "There is no playbook" in box.edge("request", "no/such/playbook", check=2).stderr
        serving = f"STATUS=serving box testbox at mqtt://127.0.0.1:{mosquitto.port}"
        ear.until(serving)
        mosquitto.kill()
        ear.until(f"STATUS=waiting for the broker at mqtt://127.0.0.1:{mosquitto.port}")
        mosquitto.start()
        ear.until(serving)
        box.processes["gateway"].send_signal(signal.SIGTERM)
        ear.until("STOPPING=1")
    finally:
        box.down()
