"""Where the CPU goes: py-spy on every process of the box under load, and the functions that lead. Not part of a run.

`scripts/bench --profile PATH_TO_PY_SPY`. py-spy is not a dependency: `pip install py-spy` into any environment.
Stacks come with their native frames, because only those tell a thread that waits from one that works.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.phases import say
from tests.bench.processes import Bench, BenchFailed, Box

_SECONDS: Final = 8
_RATE: Final = 250
_TOP: Final = 30
#: A stack with one of these in it waits: for a lock, for news on a socket, for the drive.
_WAITING: Final = re.compile(
    r"(?:^|;)(?:\S*epoll_p?wait|PyThread_acquire_lock_timed|take_gil|sock_recv_guts|\S*fdatasync|\S*futex\S*) "
)
_PYTHON: Final = re.compile(r"\.py:\d+\)$|\.pyx:\d+\)$|^<module>")


@dataclass(slots=True)
class Counted:
    """Samples by function: of the innermost frame, of the innermost Python frame, and of any frame."""

    samples: int = 0
    waiting: int = 0
    own: Counter[str] = field(default_factory=Counter)
    own_python: Counter[str] = field(default_factory=Counter)
    cumulative: Counter[str] = field(default_factory=Counter)


def profile(bench: Bench, running: Box, given: argparse.Namespace) -> None:
    """Sample each process in turn, so that samplers do not fight for the cores; print what leads."""
    given.profile_to.mkdir(parents=True, exist_ok=True)
    for name, pid in running.pids().items():
        if name in ("zygote", "worker2"):
            continue
        say(f"profiling {name}")
        out = given.profile_to / f"{name}.stacks"
        command = [str(given.profile), "record", "--pid", str(pid), "--duration", str(_SECONDS)]
        command += ["--rate", str(_RATE), "--format", "raw", "--output", str(out), "--native", "--idle"]
        bench.load.tell("closed_loop", in_flight=given.in_flight, seconds=_SECONDS + 3)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        bench.load.result()
        if done.returncode:
            raise BenchFailed(f"py-spy failed: {done.stderr[-500:]}")
        print(f"\n== {name} ==\n{summary(out.read_text())}", flush=True)


def count(stacks: str) -> Counted:
    """Count collapsed stacks (`a;b;c 12`), leaving out those that wait."""
    counted = Counted()
    for line in stacks.splitlines():
        stack, _, number = line.rpartition(" ")
        frames, hits = stack.split(";"), int(number)
        if _WAITING.search(stack):
            counted.waiting += hits
            continue
        counted.samples += hits
        counted.own[_function(frames[-1])] += hits
        innermost = next((frame for frame in reversed(frames) if _PYTHON.search(frame)), frames[-1])
        counted.own_python[_function(innermost)] += hits
        for name in {_function(frame) for frame in frames}:
            counted.cumulative[name] += hits
    return counted


def _function(frame: str) -> str:
    """A frame without its line: lines of one function count together."""
    name, _, place = frame.partition(" (")
    path = Path(place.partition(":")[0].rstrip(")"))
    return f"{name} ({'/'.join(path.parts[-2:])})" if place else name


def summary(stacks: str) -> str:
    """The functions that lead."""
    counted = count(stacks)
    share = 100 / max(counted.samples, 1)
    lines = [f"{counted.samples} samples at work, {counted.waiting} waiting (all threads)"]
    for title, counter, top in (
        ("innermost frame", counted.own, _TOP),
        ("innermost Python frame (with the C below it)", counted.own_python, _TOP),
        ("cumulative", counted.cumulative, 2 * _TOP),
    ):
        lines.append(f"  -- {title}")
        lines += [f"{hits * share:>8.1f} %  {name}" for name, hits in counter.most_common(top)]
    return "\n".join(lines)
