"""The bench's load on a smaller machine: memory and cores limited by a control group that holds the whole box.

Called by `main` with `--limits`. Needs root, and control groups of either version. The broker and the load client
stay outside. What counts beside the rate is whether the box thrashes: pages read again from the drive (major faults).
Always removes its groups again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.bench.phases import say
from tests.bench.processes import Bench, BenchFailed, box
from tests.bench.report import percentile

_ROOT: Final = Path("/sys/fs/cgroup")
_MB: Final = 1024**2
_CPU_PERIOD_US: Final = 100_000
#: `(MB of memory, cores)`; the first is a machine without limits worth naming, to compare the others with.
SIZES: Final = ((1_024, 2.0), (512, 2.0), (256, 2.0), (192, 2.0), (128, 2.0), (256, 0.5))
_IN_FLIGHT: Final = 256
#: Joins the group, then becomes the program: whatever that allocates is charged there.
_JOIN: Final = 'for group in $GROUPS_TO_JOIN; do echo $$ > "$group/cgroup.procs" || exit 9; done; exec "$@"'


class NoGroups(Exception):
    """No control group can be made; says why."""


@dataclass(frozen=True, slots=True)
class Group:
    """A control group of both controllers: two folders in version 1, one in version 2."""

    memory: Path
    cpu: Path
    version: int

    def prefix(self) -> tuple[str, ...]:
        """What stands before a command that is to run inside."""
        folders = " ".join(dict.fromkeys((str(self.memory), str(self.cpu))))
        return ("env", f"GROUPS_TO_JOIN={folders}", "sh", "-c", _JOIN, "sh")

    def peak_mb(self) -> float:
        """The most memory that was charged at once."""
        name = "memory.max_usage_in_bytes" if self.version == 1 else "memory.peak"
        return int((self.memory / name).read_text()) / _MB

    def major_faults(self) -> int:
        """Pages that had to be read from a drive while somebody waited."""
        lines = (line.split() for line in (self.memory / "memory.stat").read_text().splitlines())
        counted = {name: int(value) for name, value in lines}
        return counted.get("total_pgmajfault", counted.get("pgmajfault", 0))


@contextmanager
def limited(memory_mb: int, cores: float) -> Iterator[Group]:
    """A group of that size, empty. Raises NoGroups."""
    name = f"noetl-bench-{os.getpid()}"
    version = 2 if (_ROOT / "cgroup.controllers").exists() else 1
    memory = _ROOT / ("memory" if version == 1 else "") / name
    cpu = _ROOT / ("cpu" if version == 1 else "") / name
    quota_us = int(cores * _CPU_PERIOD_US)
    try:
        if version == 2:
            (_ROOT / "cgroup.subtree_control").write_text("+memory +cpu")
        for folder in dict.fromkeys((memory, cpu)):
            folder.mkdir()
        if version == 1:
            (memory / "memory.limit_in_bytes").write_text(str(memory_mb * _MB))
            (cpu / "cpu.cfs_period_us").write_text(str(_CPU_PERIOD_US))
            (cpu / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (memory / "memory.max").write_text(str(memory_mb * _MB))
            (cpu / "cpu.max").write_text(f"{quota_us} {_CPU_PERIOD_US}")
        yield Group(memory, cpu, version)
    except OSError as error:
        raise NoGroups(f"no control group can be made ({error})") from error
    finally:
        for folder in dict.fromkeys((memory, cpu)):
            _remove(folder)


def _remove(folder: Path) -> None:
    """The kernel lets a group go once its last process is reaped."""
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):
            try:
                folder.rmdir()
            except OSError:
                time.sleep(0.05)
                continue
        return


def limits(bench: Bench, folder: Path, seconds: float) -> dict[str, Any]:
    """Rate, latency, peak memory and major faults by size; a box that the kernel killed says so in `failed`."""
    figures: dict[str, Any] = {}
    for memory_mb, cores in SIZES:
        name = f"{memory_mb}mb-{cores:g}cores".replace(".", "_")
        say(f"limits: {memory_mb} MB, {cores:g} cores")
        try:
            with limited(memory_mb, cores) as group:
                figures[name] = _loaded(
                    replace(bench, prefix=group.prefix()), folder / name, name, group, seconds
                )
        except NoGroups as error:
            return {"limits": None, "limits_reason": str(error)}
        except BenchFailed as error:
            figures[name] = {"failed": str(error)[:300]}
    return {"limits": figures}


def _loaded(bench: Bench, folder: Path, name: str, group: Group, seconds: float) -> dict[str, Any]:
    with box(bench, folder, name) as running:
        bench.load.ask("closed_loop", in_flight=32, seconds=1)
        faults, started_s = group.major_faults(), time.monotonic()
        ran = bench.load.ask("closed_loop", seconds + 120, in_flight=_IN_FLIGHT, seconds=seconds)
        took_s = time.monotonic() - started_s
        lone = bench.load.ask("one_by_one", 120, count=40)
        running.await_quiet()
        return {
            "executions_per_s": ran["per_s"],
            "lone_p50_us": percentile(lone["latencies_us"], 50),
            "peak_mb": group.peak_mb(),
            "major_faults_per_s": (group.major_faults() - faults) / took_s,
        }
