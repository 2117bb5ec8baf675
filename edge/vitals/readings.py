"""What the kernel's text files say: each function takes a file's text and gives numbers. Pure.

Called by edge.vitals.samples and edge.vitals.sources. A figure that a text does not hold is None, never a guess and
never zero: a machine without that sensor must show as such. Must never open a file or look at a clock.

Formats: proc(5) (/proc/stat, loadavg, meminfo, net/dev), the kernel's Documentation/admin-guide/iostats.rst
(diskstats, in sectors of 512 bytes whatever the drive has) and Documentation/hwmon/sysfs-interface.rst
(temperatures in thousandths of a degree).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

SECTOR_BYTES: Final = 512
#: Thermal zones and hwmon chips that mean the processor, best first; a board's or a drive's sensor is none of it.
CPU_SENSORS: Final = (
    "cpu-thermal",
    "cpu_thermal",
    "x86_pkg_temp",
    "coretemp",
    "k10temp",
    "zenpower",
    "soc-thermal",
    "soc_thermal",
    "cpu0-thermal",
    "bcm2835_thermal",
)
#: Outside this a sensor is broken or switched off (many say 0 or -273 then).
_CELSIUS_MIN: Final = -55.0
_CELSIUS_MAX: Final = 150.0


class CpuTime(NamedTuple):
    """Time of all processors since boot, in ticks of unknown length: only ratios of differences mean anything."""

    busy_ticks: int
    total_ticks: int


class Traffic(NamedTuple):
    """Bytes since boot, towards this machine and away from it (a drive: read and written)."""

    in_bytes: int
    out_bytes: int


def cpu_time(stat: str) -> CpuTime | None:
    """Of /proc/stat: waiting for a drive is idle; guest time stands in user time already."""
    for line in stat.splitlines():
        if line.startswith("cpu "):
            ticks = [int(field) for field in line.split()[1:9]]
            if len(ticks) < 4:
                return None
            idle = ticks[3] + (ticks[4] if len(ticks) > 4 else 0)
            return CpuTime(sum(ticks) - idle, sum(ticks))
    return None


def load_1m(loadavg: str) -> float | None:
    """Of /proc/loadavg: processes that ran or waited for a drive, averaged over a minute."""
    fields = loadavg.split()
    return float(fields[0]) if fields else None


def memory_used_pct(meminfo: str) -> float | None:
    """Of /proc/meminfo: what could not be had without swapping, in percent of all."""
    found: dict[str, int] = {}
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            found[name] = int(rest.split()[0])
    total, available = found.get("MemTotal"), found.get("MemAvailable")
    if not total or available is None:
        return None
    return 100.0 * (total - available) / total


def disk_traffic(diskstats: str, drives: Collection[str]) -> Traffic | None:
    """Of /proc/diskstats, summed over `drives` (whole ones: a partition's traffic stands in its drive's)."""
    read = written = 0
    seen = False
    for line in diskstats.splitlines():
        fields = line.split()
        if len(fields) >= 10 and fields[2] in drives:
            seen = True
            read += int(fields[5]) * SECTOR_BYTES
            written += int(fields[9]) * SECTOR_BYTES
    return Traffic(read, written) if seen else None


def network_traffic(net_dev: str, interfaces: Collection[str]) -> Traffic | None:
    """Of /proc/net/dev, summed over `interfaces`."""
    received = sent = 0
    seen = False
    for line in net_dev.splitlines():
        name, colon, rest = line.partition(":")
        fields = rest.split()
        if colon and name.strip() in interfaces and len(fields) >= 9:
            seen = True
            received += int(fields[0])
            sent += int(fields[8])
    return Traffic(received, sent) if seen else None


def celsius(millidegrees: str) -> float | None:
    """Of a sensor's file: degrees Celsius; None where it says what no processor survives."""
    try:
        value = int(millidegrees) / 1000.0
    except ValueError:
        return None
    return value if _CELSIUS_MIN < value < _CELSIUS_MAX and value != 0 else None


def choose_cpu_sensor(sensors: Mapping[str, str]) -> str | None:
    """Of `{file: kind}`, the file that tells the processor's temperature; None where none does."""
    ranked = sorted((CPU_SENSORS.index(kind), file) for file, kind in sensors.items() if kind in CPU_SENSORS)
    return ranked[0][1] if ranked else None


def choose_interfaces(interfaces: Mapping[str, bool]) -> frozenset[str]:
    """Of `{name: is a device}`, those to count: real devices, else (in a container) all but loopback.

    Bridges and tunnels carry a real device's bytes a second time.
    """
    real = {name for name, is_device in interfaces.items() if is_device}
    return frozenset(real or set(interfaces) - {"lo"})
