"""A month away, then a line of 1 Mbit/s: how long the real `edge-sync` takes to bring the log to a real centre.

Called by `main` with `--shipping`. The box is a pump guard's (`month`); between it and the centre's server stands a
relay that counts bytes as they go over the wire, TLS and all. The share of the budget is taken while there was
something to send, both ways counted as the budget does; the seconds are until the last receipt is on the box, with
what a centre takes to look at the last upload, which on a busy machine is seconds. Afterwards the same process is
looked at while it has nothing to do. Seconds are wall time here: it is the budget that is measured, not the machine.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from edge.segments.sealing import sealed_paths
from edge.sync.centre import document
from edge.sync.https import redeem
from tests.bench.counters import cpu_ns, memory_mb
from tests.bench.phases import say
from tests.bench.studies import month
from tests.process.centre import Centre

BYTES_PER_S: Final = 125_000
#: What must not be crossed (issue 5), for a month.
SECONDS_MAX: Final = 60.0
SHARE_MIN: Final = 0.98
_PATIENCE_S: Final = 600.0
_IDLE_S: Final = 30.0
_PIECE_BYTES: Final = 64 * 1024
#: The end of a connection is no upload.
_FAREWELL_BYTES: Final = 100


class Relay:
    """Passes connections on to a port of this machine and counts what goes each way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.up_bytes = self.down_bytes = 0
        #: When the last bytes went up.
        self.last_s = 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                inside, _ = self._listener.accept()
            except OSError:
                return

            outside = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._pass, args=(inside, outside), daemon=True).start()

    def _pass(self, inside: socket.socket, outside: socket.socket) -> None:
        with inside, outside, selectors.DefaultSelector() as both:
            both.register(inside, selectors.EVENT_READ)
            both.register(outside, selectors.EVENT_READ)
            while True:
                for key, _ in both.select():
                    data = key.fileobj.recv(_PIECE_BYTES)  # type: ignore[union-attr]
                    if not data:
                        return
                    if key.fileobj is inside:
                        self.up_bytes += len(data)
                        if len(data) > _FAREWELL_BYTES:
                            self.last_s = time.monotonic()
                        outside.sendall(data)
                    else:
                        self.down_bytes += len(data)
                        inside.sendall(data)

    def close(self) -> None:
        """Take no more."""
        self._listener.close()


def shipping(folder: Path, executions: int) -> dict[str, Any]:
    """`month` with the bytes, `shipping` with seconds, share of the budget, and the process when it rests."""
    say(f"{executions:,} executions of a pump guard on a box of their own")
    made = month.record(folder / "box", executions)
    return {"month": month.weight(made, executions), "shipping": shipped(folder)}


def shipped(folder: Path) -> dict[str, float]:
    """Ship what is sealed below `folder / "box"` to a centre below `folder`."""
    data, centre = folder / "box", Centre(folder)
    centre.start()
    relay = Relay(centre.port)
    try:
        _enrol(data, centre, relay)
        size_bytes = sum(path.stat().st_size for path in sealed_paths(data / "sealed"))
        say(f"{size_bytes / 1e6:.2f} MB over 1 Mbit/s")
        ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ear.bind(str(folder / "ear"))
        process = subprocess.Popen(
            [sys.executable, "-m", "edge.sync", "--data", str(data)],
            stderr=subprocess.DEVNULL,
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "ear")},
        )
        try:
            began_s = _ready_s(ear)
            _until_empty(data)
            took_s, sending_s = time.monotonic() - began_s, relay.last_s - began_s
            wire_bytes = relay.up_bytes + relay.down_bytes
            found = {
                "bytes": size_bytes,
                "wire_bytes": wire_bytes,
                "seconds": took_s,
                "sending_s": sending_s,
                "share": wire_bytes / (sending_s * BYTES_PER_S),
                "share_in_segments": size_bytes / (sending_s * BYTES_PER_S),
                "cpu_s": cpu_ns(process.pid) / 1e9,
            }
            say("the process when there is nothing to do")
            return found | _resting(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            ear.close()
    finally:
        relay.close()
        centre.stop()


def _enrol(data: Path, centre: Centre, relay: Relay) -> None:
    settings = [f'box = "{month.BOX}"', "centre = true", 'link = "ethernet"', 'budget_ethernet = "1 Mbit/s"']
    (data / "edge.toml").write_text("\n".join(settings) + "\n")
    key = data / "log.key"
    key.touch(mode=0o600)
    key.write_bytes(bytes(32))  # the key that `month` sealed with
    made = redeem(centre.enrolment(month.BOX), month.SIGNER)
    said = document(made).replace(f":{centre.port}".encode(), f":{relay.port}".encode())
    (data / "centre.json").write_bytes(said)


def _ready_s(ear: socket.socket) -> float:
    """When the process says that it is ready: since then its rate counts."""
    ear.settimeout(_PATIENCE_S)
    while ear.recv(4096) != b"READY=1":
        pass
    return time.monotonic()


def _until_empty(data: Path) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while sealed_paths(data / "sealed"):
        if time.monotonic() > deadline_s:
            raise TimeoutError("the backlog did not arrive")
        time.sleep(0.02)


def _written_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("write_bytes")))


def _resting(pid: int) -> dict[str, float]:
    time.sleep(5)
    before_ns, written_bytes = cpu_ns(pid), _written_bytes(pid)
    time.sleep(_IDLE_S)
    return {
        "idle_cpu_ms_per_s": (cpu_ns(pid) - before_ns) / 1e6 / _IDLE_S,
        "idle_written_bytes": _written_bytes(pid) - written_bytes,
        "written_bytes": written_bytes,
        "pss_mb": memory_mb(pid)[0],
    }
