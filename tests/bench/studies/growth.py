"""What a long log costs: restart, latency, CPU and memory of boxes whose logs differ only in their length.

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

from tests.bench.counters import CpuMeter, memory_mb
from tests.bench.phases import say
from tests.bench.processes import Bench, Box, box
from tests.bench.report import percentile
from tests.bench.studies.past import lengthen

_A_TURN: Final = 20
_WARM: Final = 100
#: Restarts of each box; the middle one counts.
_RESTARTS: Final = 3


@dataclass(slots=True)
class _Subject:
    """One box and what was measured on it."""

    events: int
    running: Box
    restarts_s: list[float]
    latencies_us: list[list[float]] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


def growth(bench: Bench, folder: Path, lengths: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Figures by length of the log, the shortest first, and ratios to it."""
    for events in lengths:
        _prepare(bench, folder, events)
    with ExitStack() as stack:
        subjects = [_start(bench, folder, events, stack) for events in lengths]
        say(
            f"growth: {rounds} rounds of {_A_TURN} over logs of {', '.join(f'{n:,}' for n in lengths)} events"
        )
        for subject in subjects:
            _aim(bench, subject.running)
            bench.load.ask("one_by_one", count=_WARM)
        for number in range(rounds):
            for subject in subjects if number % 2 else reversed(subjects):
                _turn(bench, subject)
        return {"growth": {str(subject.events): _figures(subject, subjects[0]) for subject in subjects}}


def _prepare(bench: Bench, folder: Path, events: int) -> None:
    say(f"growth: writing a log of {events:,} events")
    with box(bench, folder / f"log{events}", f"log{events}") as running:
        bench.load.ask("lone")
        running.await_quiet()
        settings = running.settings
    lengthen(settings, events)


def _start(bench: Bench, folder: Path, events: int, stack: ExitStack) -> _Subject:
    """Start it a few times, and leave it running."""
    starts_s = []
    for _ in range(_RESTARTS - 1):
        with box(bench, folder / f"log{events}", f"log{events}") as running:
            starts_s.append(running.cold_start_parts["listening"])
    running = stack.enter_context(box(bench, folder / f"log{events}", f"log{events}"))
    return _Subject(events, running, [*starts_s, running.cold_start_parts["listening"]])


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
