"""The phases of a run, each from a running box to figures. Called by `main` in its order."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench import drive, journal
from tests.bench.counters import CpuMeter, ForeignMeter, loop_us, memory_mb
from tests.bench.floor import FlushFloor
from tests.bench.processes import Bench, BenchFailed, Box, box
from tests.bench.report import IN_FLIGHT, latency_figures, percentile, with_total

_ROUND: Final = 20
#: Lone executions for the journal's figure; the middle one counts, in case a watermark falls beside one.
_LONE: Final = 3
_BROKER: Final = "mosquitto"


@dataclass(frozen=True, slots=True)
class Effort:
    """How long each phase takes."""

    warm_up_s: float
    rounds: int
    load_s: float
    idle_s: float
    drive_s: float
    cold_starts: int
    loop_rounds: int


FULL: Final = Effort(warm_up_s=3, rounds=75, load_s=8, idle_s=12, drive_s=8, cold_starts=3, loop_rounds=30)
QUICK: Final = Effort(warm_up_s=1, rounds=20, load_s=2, idle_s=3, drive_s=2.5, cold_starts=1, loop_rounds=5)


def say(text: str) -> None:
    """Progress, to stderr: stdout has only the table."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def warm_up(bench: Bench, effort: Effort) -> None:
    """Let everything be imported, opened and grown that the first executions cause."""
    bench.load.ask("closed_loop", in_flight=32, seconds=effort.warm_up_s)
    bench.load.ask("one_by_one", count=50)
    bench.load.ask("echo", count=50)


def foreign(bench: Bench, running: Box) -> ForeignMeter:
    """Watch what else the machine does from now on."""
    return ForeignMeter(lambda: {**running.pids(), _BROKER: bench.broker.pid, **bench.load.pids})


def latency(bench: Bench, running: Box, folder: Path, effort: Effort) -> dict[str, Any]:
    """Executions one at a time, echoes and flushes by turns."""
    say(f"latency and floor, {effort.rounds} rounds of {_ROUND}")
    latencies_us: list[float] = []
    receipts_us: list[float] = []
    echoes_us: list[float] = []
    flushes_us: list[float] = []
    loops_us: list[float] = []
    others = foreign(bench, running)
    flush = FlushFloor(folder)
    try:
        flush.sample_us(_ROUND)
        for _ in range(effort.rounds):
            ran = bench.load.ask("one_by_one", count=_ROUND)
            latencies_us += ran["latencies_us"]
            receipts_us += ran["receipts_us"]
            echoes_us += bench.load.ask("echo", count=_ROUND)["latencies_us"]
            flushes_us += flush.sample_us(_ROUND)
            loops_us.append(loop_us())
    finally:
        flush.close()
    figures = latency_figures(latencies_us, receipts_us, echoes_us, flushes_us)
    return {
        **figures,
        "foreign_cpu_percent_latency": others.percent(),
        "python_loop_us": [min(loops_us), percentile(loops_us, 50)],
    }


def throughput(bench: Bench, running: Box, effort: Effort) -> dict[str, Any]:
    """A closed loop at each number in flight: executions per second and the CPU they took."""
    per_s: dict[str, float] = {}
    loaded: dict[str, list[float]] = {}
    cpu: dict[str, dict[str, float]] = {}
    client: dict[str, float] = {}
    checked = 0
    others = foreign(bench, running)
    meter = CpuMeter(lambda: {**running.pids(), _BROKER: bench.broker.pid})
    for in_flight in IN_FLIGHT:
        say(f"throughput, {in_flight} in flight")
        bench.load.ask("closed_loop", in_flight=in_flight, seconds=effort.load_s / 4)
        workers = set(running.pids().values())
        before = meter.mark()
        ran = bench.load.ask("closed_loop", in_flight=in_flight, seconds=effort.load_s)
        used, _ = meter.since(before)
        if set(running.pids().values()) != workers:
            raise BenchFailed("A worker was exchanged while its CPU time was counted.")
        level = str(in_flight)
        per_s[level] = ran["per_s"]
        loaded[level] = [percentile(ran["latencies_us"], 50), percentile(ran["latencies_us"], 99)]
        cpu[level] = with_total({name: us / ran["completed"] for name, us in used.items()})
        client[level] = ran["client_cpu_us"] / ran["completed"]
        checked += ran["checked"]
    return {
        "executions_per_s": per_s,
        "loaded_latency_us": loaded,
        "cpu_us_per_execution": cpu,
        "client_cpu_us_per_execution": client,
        "results_checked": checked,
        "foreign_cpu_percent_throughput": others.percent(),
    }


def memory(bench: Bench, running: Box) -> dict[str, Any]:
    """PSS and USS of every process of the box, settled after load; the broker's beside it."""
    running.await_quiet()
    time.sleep(1)
    measured = {name: memory_mb(pid) for name, pid in running.pids().items()}
    kinds = ("pss_mb", "uss_mb", "pss_anon_mb")
    by_kind = {
        kind: with_total({name: mb[place] for name, mb in measured.items()})
        for place, kind in enumerate(kinds)
    }
    return {
        **by_kind,
        "mosquitto_pss_mb": memory_mb(bench.broker.pid)[0],
    }


def idle(bench: Bench, running: Box, effort: Effort) -> dict[str, Any]:
    """CPU of the box while nobody asks anything."""
    say(f"idle, {effort.idle_s:g} s")
    running.await_quiet()
    time.sleep(0.5)
    pids = {**running.pids(), _BROKER: bench.broker.pid}
    meter = CpuMeter(lambda: pids)  # asking the runtime for its processes would be work
    before = meter.mark()
    time.sleep(effort.idle_s)
    used, elapsed_us = meter.since(before)
    percents = {name: us * 100 / elapsed_us for name, us in used.items()}
    broker = percents.pop(_BROKER)
    return {
        "idle_cpu_percent": sum(percents.values()),
        "idle_cpu_percent_by_process": percents,
        "mosquitto_idle_cpu_percent": broker,
    }


def two_step(bench: Bench, running: Box) -> dict[str, Any]:
    """What one lone execution of the two-step playbook takes in the journal."""
    costs = []
    for _ in range(_LONE):
        running.await_quiet()
        time.sleep(0.2)
        ran = bench.load.ask("lone")
        running.await_quiet()
        costs.append(journal.cost_of(running.settings.journal_folder, ran["receipt"]["accepted"]["seq"]))
    size_bytes = statistics.median_low([size for size, _ in costs])
    return {
        "journal_bytes_two_step": size_bytes,
        "events_two_step": statistics.median_low([events for _, events in costs]),
    }


def cold_starts(bench: Bench, first: Box, folder: Path, effort: Effort) -> dict[str, Any]:
    """The median of the main box's cold start and those of a few more boxes on fresh folders."""
    starts: list[tuple[float, Mapping[str, float]]] = [(first.cold_start_s, first.cold_start_parts)]
    for number in range(1, effort.cold_starts):
        say(f"cold start {number + 1}")
        name = f"cold{number}"
        with box(bench, folder / name, name) as running:
            starts.append((running.cold_start_s, running.cold_start_parts))
    starts.sort(key=lambda start: start[0])
    middle_s, parts = starts[(len(starts) - 1) // 2]
    return {
        "cold_start_s": middle_s,
        "cold_start_parts_s": dict(parts),
        "cold_starts_s": [start_s for start_s, _ in starts],
    }


def drive_bytes(bench: Bench, folder: Path, effort: Effort) -> dict[str, Any]:
    """Bytes that reach a drive of the box's own, per execution. The figure is that of one at a time."""
    by_level: dict[str, float] = {}
    counted: dict[str, float] = {}
    with ExitStack() as stack:
        try:
            device = stack.enter_context(drive.loop_drive(folder))
        except (drive.NoDrive, OSError) as error:
            return no_drive(str(error))
        running = stack.enter_context(box(bench, device.folder / "data", "drive"))
        journal_folder = running.settings.journal_folder
        bench.load.ask("closed_loop", in_flight=32, seconds=0.5)
        for in_flight in (1, 32):
            say(f"drive bytes, {in_flight} in flight")
            running.await_quiet()
            before = drive.mark(device, journal_folder)
            ran = bench.load.ask("closed_loop", in_flight=in_flight, seconds=effort.drive_s)
            running.await_quiet()
            charged, all_bytes = drive.bytes_between(before, drive.mark(device, journal_folder))
            by_level[str(in_flight)] = charged / ran["completed"]
            counted[str(in_flight)] = all_bytes / ran["completed"]
    return {
        "drive_bytes_per_execution": by_level["1"],
        "drive_bytes_by_in_flight": by_level,
        "drive_bytes_counted": counted,
    }


def no_drive(reason: str) -> dict[str, Any]:
    """The figures where there is no device of our own."""
    return {"drive_bytes_per_execution": None, "drive_bytes_reason": reason}
