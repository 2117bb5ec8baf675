"""A centre as a process of its own, for tests: `edge central serve` on a free port of loopback, TLS and all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from edge.central.boxes import Boxes
from edge.central.certificates import authority_of
from edge.central.ingest import Central
from edge.central.one_time import OneTimeTokens
from edge.segments.sealed import open_sealed
from edge.sync.centre import Enrolment

NAME = "127.0.0.1"


class Centre:
    """One folder, and the server on it while it runs."""

    def __init__(self, folder: Path, *more: str, command: tuple[str, ...] = ("-m", "edge.cli.main")) -> None:
        self.data, self._more, self.command = folder / "centre", more, command
        central = Central.open(self.data, time.time_ns)
        self.key = central.signer.public
        central.close()
        self.boxes = Boxes(self.data / "boxes")
        self.process: subprocess.Popen[str] | None = None
        self.port = 0
        #: What its process finds in its environment beside ours.
        self.environment: dict[str, str] = {}

    def start(self) -> None:
        """Start it and wait until it serves; on the same port as before, so that a box finds it again."""
        assert self.comes_up(), "the centre did not start"

    def comes_up(self) -> bool:
        """Start it; False where it ended before it served."""
        words = ["central", "serve", "--data", str(self.data), "--port", str(self.port), "--name", NAME]
        self.process = subprocess.Popen(
            [sys.executable, *self.command, *words, *self._more],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **self.environment},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.stop()
            return False
        assert line.startswith("serving  http"), f"the centre did not start: {line!r}"
        self.port = int(line.split(",")[0].rpartition(":")[2])
        return True

    def stop(self, signal: int = 15) -> int:
        """End it; what it ended with."""
        if self.process is None:
            return 0
        self.process.send_signal(signal)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://{NAME}:{self.port}"

    def enrolment(self, box: str, *, valid_s: float = 600.0, at_s: float | None = None) -> Enrolment:
        """An enrolment with a one-time token, as `edge central enrol` makes it."""
        now_s = time.time() if at_s is None else at_s
        tokens = OneTimeTokens(self.data / "tokens", self.boxes)
        token = tokens.make(box, int(now_s * 1e9), int(valid_s * 1e9))
        authority = authority_of(self.data, time.time()).decode()
        return Enrolment(self.key, box, self.url, authority, int(now_s), token)

    def kept(self, log_id: bytes) -> dict[int, bytes]:
        """Every segment of a log's own history in the folder, by number."""
        found: dict[int, bytes] = {}
        for path in sorted((self.data / "segments" / log_id.hex()).glob("*.segment")):
            data = path.read_bytes()
            number = open_sealed(data).manifest.number
            assert number not in found, f"segment {number} is there twice"
            found[number] = data
        return found
