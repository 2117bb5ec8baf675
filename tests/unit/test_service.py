"""What a service manager is told, on a real socket; and when the runtime's watchdog is told nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.core.service import Service
from edge.runtime.process.progress import Progress
from tests.unit.gate_rig import Rig


class Manager:
    """The other end: a socket by path or in the abstract namespace, and a loop whose time is a list of calls."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address[0] == "@" else address)
        self.socket.setblocking(False)
        self.due: list[tuple[float, Callable[[], None]]] = []

    def said(self) -> list[str]:
        """Everything said since it was asked last."""
        lines = []
        while True:
            try:
                lines.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return lines

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.due.append((delay, callback))


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@edge-test-{os.getpid()}")
    yield made
    made.socket.close()


def test_a_life_is_told_in_order(manager: Manager) -> None:
    """Ready is said once, a status when it is a new one, and nothing but the pulse after stopping."""
    service = Service(manager.address, 8.0)
    service.status("opening")
    service.ready("serving")
    service.ready("serving")
    service.ready("waiting")
    assert manager.said() == ["STATUS=opening", "READY=1", "STATUS=serving", "STATUS=waiting"]
    service.stopping()
    service.ready("serving")
    service.watch(manager.call_later)
    assert manager.said() == ["STATUS=stopping", "STOPPING=1", "WATCHDOG=1"]


def test_the_pulse_comes_twice_in_each_interval_while_something_moves(manager: Manager) -> None:
    """Half the interval lies between two pulses; while nothing moves none is sent, and it is asked again."""
    moves = True
    Service(manager.address, 8.0).watch(manager.call_later, lambda: moves)
    assert manager.said() == ["WATCHDOG=1"]
    moves = False
    (delay_s, again), *others = manager.due
    assert (delay_s, others) == (4.0, [])
    again()
    assert manager.said() == []
    moves = True
    manager.due[1][1]()
    assert manager.said() == ["WATCHDOG=1"]


def test_a_status_cannot_say_anything_else(manager: Manager) -> None:
    """Line breaks in what a broker said stay within the status, and it does not grow without bound."""
    Service(manager.address).status("the broker said 'x\nREADY=1\r\nMAINPID=1'" + "y" * 1_000)
    (line,) = manager.said()
    assert line.startswith("STATUS=the broker said 'x READY=1 MAINPID=1'")
    assert len(line) < 250


def test_the_environment_is_read_and_taken_out(manager: Manager) -> None:
    """The three variables are used where they are meant for this process, and no child inherits them."""
    environment = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "500000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    service = Service.of_environment(environment)
    service.ready("serving")
    assert (service.watchdog_s, environment) == (0.5, {"HOME": "/"})
    assert manager.said() == ["READY=1", "STATUS=serving"]
    other = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}
    assert Service.of_environment(other).watchdog_s == 0


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234", "/"])
def test_where_nobody_asks_nothing_is_said(address: str) -> None:
    """Without a socket of a kind that is known nothing is sent and no timer started."""
    service = Service.of_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "500000"})
    service.ready("serving")
    service.watch(lambda delay, callback: pytest.fail("a timer"))
    service.stopping()


def test_a_manager_that_is_gone_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the socket is not there any more it is said in the log, and the daemon goes on."""
    Service(str(tmp_path / "gone")).ready("serving")
    assert "could not be told READY=1" in caplog.text


@dataclass
class Numbers:
    next_seq: int = 1
    durable_seq: int = 0


def test_a_stuck_drive_is_seen_and_a_quiet_or_slow_one_is_not() -> None:
    """Stuck is what was on its way at the last look already; idle, new and slowly moving are not."""
    log = Numbers()
    progress = Progress(log)
    assert progress()
    assert progress(), "an idle box"
    log.next_seq = 5
    assert progress(), "on its way since just now"
    log.durable_seq = 2
    assert progress(), "slow, but it moves"
    assert not progress(), "nothing became durable since the last look"
    log.next_seq = 9
    assert not progress(), "more that waits does not help"
    log.durable_seq = 8
    assert progress()
    assert progress()


async def test_a_thread_that_hangs_in_a_flush_takes_the_pulse(manager: Manager, tmp_path: Path) -> None:
    """While the journal hangs the loop turns and nothing is said; once it goes on the pulse is back."""
    rig = Rig(tmp_path / "log")
    Service(manager.address, 8.0).watch(manager.call_later, Progress(rig.gate))
    rig.journal.open.clear()
    rig.append()
    await rig.in_flight()
    pulses = []
    for _ in range(3):
        manager.due.pop()[1]()
        pulses.append(len(manager.said()))
    assert pulses == [2, 0, 0], "the first of the two was sent before the event"
    rig.journal.open.set()
    await rig.gate.flushed()
    manager.due.pop()[1]()
    assert manager.said() == ["WATCHDOG=1"]
    await rig.close()
