"""One whole box for tests: runtime and gateway as real processes, started, killed and started again at will."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edge.cli.client import RuntimeClient
from edge.cli.log import verify
from edge.core.errors import Unavailable
from edge.core.events import Event
from edge.core.settings import Settings, load_settings
from edge.store.journal import read_groups
from edge.store.verify import Report
from playbooks.compile import compile_playbook

EDGE = [sys.executable, "-m", "edge.cli.main"]
BOX = "testbox"
#: A playbook `p` that answers with its `n` and one more: for tests to which it matters only that something runs.
PLUS_ONE = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: p, path: p}
workflow:
  - step: a
    tool: {kind: transform, value: "{{ n + 1 }}"}
"""
START_S = 30.0
_TICKS_NS = 50_000_000


class Box:
    """Processes of one data folder. `start` returns when the runtime answers and the gateway serves."""

    def __init__(self, folder: Path, broker_port: int, *, workers: int = 2, **settings: Any) -> None:
        self.data = folder / "data"
        self.data.mkdir()
        lines = [f'box = "{BOX}"', f'broker = "mqtt://127.0.0.1:{broker_port}"', f"workers = {workers}"]
        lines += [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        (self.data / "edge.toml").write_text("\n".join(lines) + "\n")
        self.settings: Settings = load_settings(self.data)
        self.logs = {name: folder / f"{name}.log" for name in ("runtime", "gateway")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        #: What the next process started finds in its environment besides ours.
        self.environment: dict[str, str] = {}
        #: How long the runtime may take until it answers.
        self.start_s = START_S
        #: By unit: a command that starts it, as `systemd/` would.
        self.started_by: dict[str, list[str]] = {}
        self._events: list[Event] = []
        #: The journal's files when `_events` was read from them.
        self._seen: list[tuple[Path, int, int, int]] | None = None

    def start(self, name: str) -> None:
        """Start "runtime" or "gateway"; returns at once."""
        with self.logs[name].open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*self.started_by.get(name, []), *self.command(name)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )

    def command(self, name: str) -> list[str]:
        """What runs as "runtime" or "gateway"."""
        module = {"runtime": "edge.runtime", "gateway": "gateway"}[name]
        return [sys.executable, "-m", module, "--data", str(self.data)]

    def up(self) -> None:
        """Start both and wait until the runtime answers."""
        self.start("runtime")
        self.start("gateway")
        self.status()

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """End a process by a signal and wait for its end."""
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(timeout=20)

    def down(self) -> None:
        """End whatever runs."""
        for name in ("gateway", "runtime"):
            if name in self.processes:
                self.kill(name, signal.SIGTERM)

    def status(self) -> dict[str, Any]:
        """What the runtime says of itself, once it answers."""
        return dict(self.ask("status"))

    def ask(self, operation: str, **arguments: Any) -> Any:
        """Ask the runtime one thing, waiting for it to come up."""
        deadline_s = time.monotonic() + self.start_s
        while True:
            try:
                with RuntimeClient(self.settings) as runtime:
                    return runtime.call(operation, **arguments)
            except Unavailable:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.01)  # polls a process that has no way to say when it listens

    def register(self, source: str) -> None:
        """Compile and register a playbook."""
        blueprint = compile_playbook(source.encode(), "test.yaml")
        self.ask("register", blueprint=blueprint.data)

    def run(
        self, playbook: str, given: dict[str, Any] | None = None, timeout_s: float = 60
    ) -> dict[str, Any]:
        """One local execution: `{status, result | error, execution_id}`."""
        with RuntimeClient(self.settings, timeout_s) as runtime:
            runtime.submit(playbook, json.dumps(given or {}).encode(), "application/json", None)
            _, _, payload = runtime.answer()
        return dict(json.loads(payload))

    def edge(self, *arguments: str, check: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run the command line on this box."""
        environment = {**os.environ, "EDGE_DATA": str(self.data)}
        done = subprocess.run(
            [*EDGE, *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
        )
        assert check is None or done.returncode == check, (arguments, done.stdout, done.stderr)
        return done

    def verify(self) -> Report:
        """Verify the log, beside the runtime or without it."""
        return verify(self.settings)

    def events(self) -> list[Event]:
        """Every event in the journal. Asked again before anything was written, it is not read again: whoever polls
        would take the processor from the box."""
        now_ns, seen = time.time_ns(), self._journal_files()
        if seen is None or seen != self._seen:
            self._events = [
                event for _, group, _ in read_groups(self.settings.journal_folder) for event in group.events()
            ]
            # A file's time moves by ticks of the kernel's clock: within one it may be written and look the same.
            quiet = seen is not None and all(now_ns - mtime_ns > _TICKS_NS for *_, mtime_ns in seen)
            self._seen = seen if quiet else None
        return list(self._events)

    def _journal_files(self) -> list[tuple[Path, int, int, int]] | None:
        """Each file's name, inode, size and time of writing; None where one goes meanwhile."""
        try:
            found = [(path, path.stat()) for path in sorted(self.settings.journal_folder.iterdir())]
        except FileNotFoundError:
            return None
        return [(path, stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in found]

    def words(self) -> str:
        """What the processes logged."""
        return "\n".join(path.read_text(errors="replace") for path in self.logs.values() if path.exists())


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
