"""What the kernel counts: CPU time from schedstat, memory from smaps_rollup, sectors of a block device.

Parsers are pure; readers take a pid or a device. Used by every phase.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_KB_PER_MB: Final = 1024
SECTOR_BYTES: Final = 512


def parse_schedstat(text: str) -> int:
    """Nanoseconds on a CPU: the first of the three numbers of one thread's schedstat."""
    return int(text.split(maxsplit=1)[0])


def parse_smaps_rollup(text: str) -> tuple[float, float, float]:
    """`(PSS, USS, PSS of anonymous pages)` in MB; USS is what no other process shares.

    PSS and USS count pages of mapped files, LMDB's among them, which grow with the log and which the kernel takes
    back when it needs them; anonymous pages do not.
    """
    kb = {}
    for line in text.splitlines()[1:]:
        name, value, *_ = line.split()
        kb[name.rstrip(":")] = int(value)
    uss_kb = kb["Private_Clean"] + kb["Private_Dirty"]
    return kb["Pss"] / _KB_PER_MB, uss_kb / _KB_PER_MB, kb["Pss_Anon"] / _KB_PER_MB


def parse_sectors_written(text: str) -> int:
    """Sectors written, from /sys/block/<device>/stat (the seventh number, Documentation/block/stat.rst)."""
    return int(text.split()[6])


def parse_busy_ticks(text: str) -> int:
    """Ticks in which any core worked, from the first line of /proc/stat (idle and iowait left out)."""
    user, nice, system, _, _, irq, softirq, steal = (int(part) for part in text.split()[1:9])
    return user + nice + system + irq + softirq + steal


def busy_us() -> float:
    """CPU time of everything on the machine since it started."""
    return parse_busy_ticks(Path("/proc/stat").read_text()) * 1e6 / os.sysconf("SC_CLK_TCK")


def loop_us() -> float:
    """How long this core takes for 10,000 additions in Python now: to compare CPU times of two runs by.

    Two virtual CPUs are often one core's two threads: with work on the other, this takes nearly twice as long.
    """
    started_ns = time.monotonic_ns()
    total = 0
    for number in range(10_000):
        total += number
    return (time.monotonic_ns() - started_ns) / 1000


def cpu_ns(pid: int) -> int:
    """CPU time of all threads that live now."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            total += parse_schedstat(Path(f"/proc/{pid}/task/{task}/schedstat").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that just ended
    return total


def memory_mb(pid: int) -> tuple[float, float, float]:
    """`(PSS, USS, PSS of anonymous pages)` of a process in MB."""
    return parse_smaps_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())


def sectors_written(device: str) -> int:
    """Sectors that reached a block device (`loop0`) since it was attached."""
    return parse_sectors_written(Path(f"/sys/block/{device}/stat").read_text())


@dataclass(frozen=True, slots=True)
class CpuMark:
    """CPU time of named processes at one moment."""

    at_ns: int
    by_pid: dict[int, int]


class CpuMeter:
    """CPU time of named processes between two marks; a process that came in between counts from its start."""

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        self._pids = pids

    def mark(self) -> CpuMark:
        """Read all counters now."""
        by_pid = {pid: cpu_ns(pid) for pid in self._pids().values()}
        return CpuMark(time.monotonic_ns(), by_pid)

    def since(self, mark: CpuMark) -> tuple[dict[str, float], float]:
        """`({name: CPU µs}, elapsed µs)`, workers summed as `workers`."""
        used: dict[str, float] = {}
        now_ns = time.monotonic_ns()
        for name, pid in self._pids().items():
            part = "workers" if name.startswith("worker") else name
            used[part] = used.get(part, 0.0) + (cpu_ns(pid) - mark.by_pid.get(pid, 0)) / 1000
        return used, (now_ns - mark.at_ns) / 1000


class ForeignMeter:
    """The share of the machine's CPU that went to anybody but the named processes."""

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        self._meter = CpuMeter(pids)
        self._mark = self._meter.mark()
        self._busy_us = busy_us()

    def percent(self) -> float:
        """Percent of all cores since this was made."""
        used, elapsed_us = self._meter.since(self._mark)
        foreign_us = busy_us() - self._busy_us - sum(used.values())
        return max(0.0, foreign_us * 100 / elapsed_us / (os.cpu_count() or 1))
