"""What a long log costs: restart, latency, CPU and memory of boxes whose logs differ only in their length.

One more box may hold very many executions that wait.

Called by `main` with `--growth`. All boxes run at the same time and are asked by turns, a few executions each, so
that whatever else the machine does falls on all of them: their ratios are the figures, not their times.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge.cli.client import RuntimeClient
from playbooks.compile import compile_playbook
from tests.bench.counters import CpuMeter, memory_mb
from tests.bench.phases import say
from tests.bench.processes import Bench, Box, box
from tests.bench.report import percentile
from tests.bench.studies.past import hold_open, lengthen

_A_TURN: Final = 20
_WARM: Final = 100
#: Restarts of each box; the middle one counts.
_RESTARTS: Final = 3
_WAITING: Final = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: waiting, path: waiting}
workflow:
  - step: rest
    tool: {kind: wait, duration: 12h}
"""


@dataclass(slots=True)
class _Subject:
    """One box and what was measured on it."""

    name: str
    running: Box
    restarts_s: list[float]
    latencies_us: list[list[float]] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


def growth(bench: Bench, folder: Path, lengths: tuple[int, ...], waiting: int, rounds: int) -> dict[str, Any]:
    """Figures by length of the log, the shortest first, and ratios to it; last the box with so many `waiting`."""
    names = [_prepare(bench, folder, events) for events in lengths]
    if waiting:
        names.append(_prepare(bench, folder, lengths[0], waiting))
    with ExitStack() as stack:
        subjects = [_start(bench, folder, name, stack) for name in names]
        say(f"growth: {rounds} rounds of {_A_TURN} over logs of {', '.join(names)} events")
        for subject in subjects:
            _aim(bench, subject.running)
            bench.load.ask("one_by_one", count=_WARM)
        for number in range(rounds):
            for subject in subjects if number % 2 else reversed(subjects):
                _turn(bench, subject)
        return {"growth": {subject.name: _figures(subject, subjects[0]) for subject in subjects}}


def _prepare(bench: Bench, folder: Path, events: int, waiting: int = 0) -> str:
    """Write a log; its name, and that of its box."""
    name = f"{events}-{waiting}-waiting" if waiting else str(events)
    say(f"growth: writing a log of {events:,} events" + (f", {waiting:,} waiting" if waiting else ""))
    with box(bench, folder / name, name) as running:
        bench.load.ask("lone")
        if waiting:
            with RuntimeClient(running.settings) as client:
                client.call("register", blueprint=compile_playbook(_WAITING.encode(), "waiting.yaml").data)
                client.submit("waiting", b"{}", "application/json", None)
        running.await_quiet()
        settings = running.settings
    lengthen(settings, events)
    if waiting:
        hold_open(settings, waiting)
    return name


def _start(bench: Bench, folder: Path, name: str, stack: ExitStack) -> _Subject:
    """Start it a few times, and leave it running."""
    starts_s = []
    for _ in range(_RESTARTS - 1):
        with box(bench, folder / name, name) as running:
            starts_s.append(running.cold_start_parts["listening"])
    running = stack.enter_context(box(bench, folder / name, name))
    return _Subject(name, running, [*starts_s, running.cold_start_parts["listening"]])


def _aim(bench: Bench, running: Box) -> None:
    bench.load.ask("open", box=running.settings.box, payload=str(bench.payload))


def _turn(bench: Bench, subject: _Subject) -> None:
    _aim(bench, subject.running)
    pids = subject.running.pids()
    meter = CpuMeter(lambda: pids)
    before = meter.mark()
    subject.latencies_us.append(bench.load.ask("one_by_one", count=_A_TURN)["latencies_us"])
    used, _ = meter.since(before)
    subject.cpu_us.append(sum(used.values()) / _A_TURN)


def _figures(subject: _Subject, base: _Subject) -> dict[str, Any]:
    """One box's figures; ratios are medians over the rounds, each to the shortest log's turn beside it."""
    middles = [statistics.median(turn) for turn in subject.latencies_us]
    beside = [statistics.median(turn) for turn in base.latencies_us]
    subject.running.await_quiet()
    time.sleep(1)
    measured = [memory_mb(pid) for pid in subject.running.pids().values()]
    return {
        "restart_s": statistics.median(subject.restarts_s),
        "p50_us": percentile([each for turn in subject.latencies_us for each in turn], 50),
        "p50_ratio": statistics.median(own / other for own, other in zip(middles, beside, strict=True)),
        "cpu_us_per_execution": statistics.median(subject.cpu_us),
        "cpu_ratio": statistics.median(
            own / other for own, other in zip(subject.cpu_us, base.cpu_us, strict=True)
        ),
        "pss_mb": sum(pss for pss, _, _ in measured),
        "pss_anon_mb": sum(anon for _, _, anon in measured),
        "data_mb": _size_mb(subject.running.settings.data),
    }


def _size_mb(folder: Path) -> float:
    blocks = sum(path.lstat().st_blocks for path in folder.rglob("*") if path.is_file())
    return blocks * 512 / 1024**2
