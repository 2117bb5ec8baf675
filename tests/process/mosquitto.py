"""A private mosquitto on a free loopback port, to be killed and started again at will."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

BINARY = shutil.which("mosquitto") or next(
    (path for path in ("/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto") if os.path.exists(path)), None
)
CLIENTS = {name: shutil.which(name) for name in ("mosquitto_pub", "mosquitto_sub", "mosquitto_rr")}

#: Why tests marked `mosquitto` cannot run, or an empty string where they can.
MISSING = ", ".join(
    ["mosquitto"] * (BINARY is None) + [name for name, path in CLIENTS.items() if path is None]
)

# Started by root, mosquitto becomes the user of its package, who cannot read pytest's folders.
CONFIG = (
    ("user root\n" if os.geteuid() == 0 else "")
    + """\
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
persistence false
max_inflight_messages 1024
max_queued_messages 20000
max_keepalive 600
log_dest file {log}
log_type all
"""
)


def free_port() -> int:
    """A port nobody listens on at the moment.

    Below those that Linux gives to clients: among these another's connection may take it before it is used, and who
    looks whether somebody listens there may, once in some ten thousand times, meet himself.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port


class Mosquitto:
    """One broker process. `start` returns when it accepts connections; state dies with the process."""

    def __init__(self, folder: Path, *, extra: str = "", config: str = CONFIG) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "mosquitto.log"
        self.config = folder / "mosquitto.conf"
        self._extra = extra
        self._template = config
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert BINARY is not None
        assert self._process is None
        self.config.write_text(self._template.format(port=self.port, log=self.log) + self._extra)
        self._process = subprocess.Popen(
            [BINARY, "-c", str(self.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"mosquitto ended: {self.log.read_text() if self.log.exists() else ''}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)  # the one poll: mosquitto has no way to say that it listens
            else:
                return
        raise RuntimeError("mosquitto did not listen within 20 s")

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kill it and start it again on the same port, with nothing remembered."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Stop its process so that it neither reads nor writes, sockets left open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        process.wait(timeout=20)
