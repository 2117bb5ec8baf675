"""What waiting costs: memory, CPU and restart time of one real runtime with thousands of executions that only wait.

Run it by `python -m tests.bench.waiting [--count 10000] [--json FILE]`. Half of them wait for a callback, half for a
timer; then the runtime is started again, half are ended by their callback and half are cancelled.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge.cli.client import RemoteProblem, RuntimeClient
from edge.core.callbacks import Call, mint
from edge.core.errors import EdgeError, Unavailable
from edge.core.settings import Settings, load_settings
from edge.runtime.waiting.tokens import KEY_FILE
from playbooks.compile import compile_playbook
from tests.bench.counters import parse_schedstat, parse_smaps_rollup
from tests.bench.processes import BenchFailed, started, tail

_PATIENCE_S: Final = 300.0
_IDLE_S: Final = 5.0
_WARM: Final = 2_000
_CLIENTS: Final = 32
_PLAYBOOK: Final = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: NAME, path: bench/NAME}
workload: {site: plant-7, limit: 40}
workflow:
  - step: ask
    tool:
      - {name: told, kind: transform, value: "{{ [callback.token, workload.site] }}"}
      - {name: answer, kind: wait, callback: true, timeout: TIMEOUT}
  - step: unused
    tool: {kind: noop}
    next: [ask]
"""
_TIMER: Final = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: timer, path: bench/timer}
workload: {site: plant-7, limit: 40}
workflow:
  - step: rest
    tool: {kind: wait, duration: "{{ length }}"}
"""


@dataclass(slots=True)
class Runtime:
    """The runtime under measurement."""

    settings: Settings
    client: RuntimeClient
    start_s: float

    def status(self) -> dict[str, Any]:
        """What it says of itself."""
        return dict(self.client.call("status"))

    def memory_mb(self) -> tuple[float, float]:
        """`(private pages, anonymous ones among them)` of the runtime."""
        _, uss_mb, anon_mb = parse_smaps_rollup(
            Path(f"/proc/{self.status()['pid']}/smaps_rollup").read_text()
        )
        return uss_mb, anon_mb

    def cpu_s(self) -> dict[str, float]:
        """CPU time so far of the runtime and of all its workers."""
        status = self.status()
        workers = sum(_cpu_s(pid) for pid in status["worker_pids"])
        return {"runtime": _cpu_s(status["pid"]), "workers": workers}

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> float:
        """Seconds until its status is so. Raises BenchFailed."""
        started_s = time.monotonic()
        while not holds(status := self.status()):
            if time.monotonic() - started_s > _PATIENCE_S:
                raise BenchFailed(f"The runtime does not come so far: {status}")
            time.sleep(0.05)
        return time.monotonic() - started_s


def _cpu_s(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(parse_schedstat((task / "schedstat").read_text()) for task in tasks) / 1e9


@contextmanager
def runtime(folder: Path) -> Iterator[Runtime]:
    """A runtime on that folder, answering."""
    settings = load_settings(folder, box="bench", workers=2, cache=str(folder / "cache"))
    command = [sys.executable, "-m", "edge.runtime", "--data", str(folder), "--log-level", "warning"]
    began_s = time.monotonic()
    with started("runtime", command, folder) as process:
        while True:
            try:
                client = RuntimeClient(settings, _PATIENCE_S)
                break
            except Unavailable:
                if process.poll() is not None or time.monotonic() - began_s > _PATIENCE_S:
                    raise BenchFailed(f"The runtime did not start: {tail(folder, 'runtime')}") from None
                time.sleep(0.01)
        with client:
            yield Runtime(settings, client, time.monotonic() - began_s)


def with_clients(box: Runtime, work: Callable[[RuntimeClient, int], Any], count: int) -> list[Any]:
    """`work(client, n)` for each n below `count`, by several clients side by side; what they gave, in order."""
    places: list[list[tuple[int, Any]]] = [[] for _ in range(_CLIENTS)]

    def serve(place: int) -> None:
        with RuntimeClient(box.settings, _PATIENCE_S) as client:
            places[place] += [(n, work(client, n)) for n in range(place, count, _CLIENTS)]

    with ThreadPoolExecutor(_CLIENTS) as pool:
        for done in [pool.submit(serve, place) for place in range(_CLIENTS)]:
            done.result()
    return [
        made for _, made in sorted((each for place in places for each in place), key=lambda each: each[0])
    ]


def submit(client: RuntimeClient, playbook: str, payload: dict[str, Any]) -> int:
    """Submit one execution, again while the box is full; its number."""
    while True:
        try:
            execution_id = client.submit(playbook, json.dumps(payload).encode(), "application/json", None)
        except RemoteProblem as problem:
            if problem.problem_code != "queue_full":
                raise
            time.sleep(0.02)
            continue
        return int(execution_id.rpartition("-")[2])


def measure(folder: Path, count: int) -> dict[str, float]:
    """All figures."""
    (folder / "edge.toml").write_text(f'box = "bench"\nworkers = 2\ncache = "{folder / "cache"}"\n')
    figures: dict[str, float] = {"waiting_count": count}
    half = count // 2
    with runtime(folder) as box:
        for source in (_PLAYBOOK.replace("NAME", "call").replace("TIMEOUT", "12h"), _TIMER):
            box.client.call("register", blueprint=compile_playbook(source.encode(), "bench.yaml").data)
        with_clients(box, lambda client, n: submit(client, "bench/timer", {"length": 0.02}), _WARM)
        box.until(lambda status: not status["open"] and not status["owed"])
        time.sleep(1.0)  # the heap of the burst goes back
        before_mb = box.memory_mb()
        began_s = time.monotonic()
        calls = with_clients(box, lambda client, n: submit(client, "bench/call", {"n": n}), half)
        length = {"length": "12h"}
        timers = with_clients(box, lambda client, n: submit(client, "bench/timer", length), count - half)
        box.until(lambda status: status["waiting"] == count and not status["open"])
        figures["waiting_begun_per_s"] = count / (time.monotonic() - began_s)
        time.sleep(1.0)  # as above
        _memory(figures, "waiting", before_mb, box.memory_mb())
        cpu_s = box.cpu_s()
        time.sleep(_IDLE_S)
        for name, used_s in box.cpu_s().items():
            figures[f"waiting_{name}_cpu_percent"] = (used_s - cpu_s[name]) / _IDLE_S * 100
        log_id = bytes.fromhex(box.client.log_id) if isinstance(box.client.log_id, str) else box.client.log_id
    with runtime(folder) as box:
        figures["waiting_restart_s"] = box.start_s + box.until(lambda status: status["waiting"] == count)
        time.sleep(1.0)  # as above
        restarted_mb = box.memory_mb()
        key = (folder / KEY_FILE).read_bytes()
        began_s = time.monotonic()

        def called(client: RuntimeClient, n: int) -> None:
            token = mint(key, log_id, Call(calls[n], 0, 0, None, 0))
            client.call("callback", token=token, content_type=None, payload=b'{"ok": true}')

        with_clients(box, called, half)
        box.until(lambda status: status["waiting"] == len(timers) and not status["open"])
        figures["callbacks_per_s"] = half / (time.monotonic() - began_s)
        began_s = time.monotonic()
        with_clients(
            box,
            lambda client, n: client.call("cancel", id=str(timers[n]), by="bench", reason=None),
            len(timers),
        )
        box.until(lambda status: not status["waiting"] and not status["open"])
        figures["cancelled_per_s"] = len(timers) / (time.monotonic() - began_s)
        ends = [
            box.client.call("execution", id=str(number))["status"]
            for number in (calls[0], calls[-1], timers[0])
        ]
        if ends != ["completed", "completed", "cancelled"]:
            raise BenchFailed(f"They ended as {ends}.")
    with runtime(folder) as box:
        figures["empty_restart_s"] = box.start_s
        time.sleep(1.0)  # as above
        _memory(figures, "restarted", box.memory_mb(), restarted_mb)
    return figures


def _memory(
    figures: dict[str, float], name: str, before: tuple[float, float], after: tuple[float, float]
) -> None:
    figures[f"{name}_private_mb"] = after[0] - before[0]
    figures[f"{name}_anonymous_mb"] = after[1] - before[1]


def main() -> int:
    """Measure and report; exit code 1 where something under measurement was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="noetl-edge-waiting-"))
    try:
        figures = measure(folder, given.count)
    except (BenchFailed, EdgeError) as error:
        print(f"waiting: failed: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder)
    for name, value in figures.items():
        print(f"{name:<32} {value:>12.2f}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
