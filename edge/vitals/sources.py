"""The only place that opens the kernel's files: what this machine has is found once, then read 20 times a second.

Called by edge.cli.vitals. Files are kept open and read from their start each time, which makes the kernel write them
anew. What is missing stays missing until the next start; a file that stops answering gives None for that look.
Must never interpret a text (edge.vitals.readings does) and never write.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Self

from edge.core.clock import Clock
from edge.vitals import readings
from edge.vitals.samples import Look

_READ_BYTES: Final = 64 * 1024
_PROC_FILES: Final = ("stat", "loadavg", "meminfo", "diskstats", "net/dev")


class Sources:
    """This machine's sensors. A context manager; `root` is where `proc` and `sys` are mounted."""

    def __init__(self, clock: Clock, root: Path = Path("/")) -> None:
        self._clock = clock
        self._files: dict[str, int] = {}
        for name in _PROC_FILES:
            self._open(name, root / "proc" / name)
        sensor = readings.choose_cpu_sensor(_cpu_sensors(root / "sys" / "class"))
        if sensor is not None:
            self._open("temperature", Path(sensor))
        self._drives = frozenset(
            drive.name for drive in _entries(root / "sys" / "block") if (drive / "device").exists()
        )
        self._interfaces = readings.choose_interfaces(
            {each.name: (each / "device").exists() for each in _entries(root / "sys" / "class" / "net")}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def look(self) -> Look:
        """All counters now."""
        at = self._clock.read()
        return Look(
            mono_ns=at.mono_ns,
            wall_ns=at.wall_ns,
            cpu_temp_c=readings.celsius(self._text("temperature")),
            cpu=readings.cpu_time(self._text("stat")),
            load_1m=readings.load_1m(self._text("loadavg")),
            memory_used_pct=readings.memory_used_pct(self._text("meminfo")),
            disk=readings.disk_traffic(self._text("diskstats"), self._drives),
            network=readings.network_traffic(self._text("net/dev"), self._interfaces),
        )

    def _open(self, name: str, path: Path) -> None:
        try:
            self._files[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return

    def _text(self, name: str) -> str:
        """A file's whole text now; empty where there is no such file."""
        file = self._files.get(name)
        if file is None:
            return ""
        parts: list[bytes] = []
        at_bytes = 0
        try:
            while part := os.pread(file, _READ_BYTES, at_bytes):
                parts.append(part)
                at_bytes += len(part)
        except OSError:
            return ""
        return b"".join(parts).decode("utf-8", "replace")


def _cpu_sensors(classes: Path) -> dict[str, str]:
    """`{file: kind}` of all temperatures: thermal zones by type, hwmon chips by name (their first input)."""
    found: dict[str, str] = {}
    for zone in _entries(classes / "thermal"):
        found[str(zone / "temp")] = _line(zone / "type")
    for chip in _entries(classes / "hwmon"):
        found[str(chip / "temp1_input")] = _line(chip / "name")
    return {file: kind for file, kind in found.items() if kind}


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _line(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""
