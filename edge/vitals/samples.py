"""Samples and windows: two looks at the counters make one row, 64 rows make one request. Pure.

Called by edge.cli.vitals with what edge.vitals.sources read. Must never open a file or look at a clock: time comes
with each look. A counter that went back (it wrapped, or a drive was pulled) gives None for that row, not a rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edge.core.records import record
from edge.vitals.readings import CpuTime, Traffic

SAMPLES_PER_S: Final = 20
WINDOW_ROWS: Final = 64
WINDOW_S: Final = WINDOW_ROWS / SAMPLES_PER_S
#: Columns of a window beside `at_ms`; each is a float, null where the machine has no such sensor.
FIGURES: Final = (
    "cpu_temp_c",
    "cpu_busy_pct",
    "load_1m",
    "memory_used_pct",
    "disk_read_kb_s",
    "disk_write_kb_s",
    "net_rx_kb_s",
    "net_tx_kb_s",
)
_NS_PER_S: Final = 1_000_000_000


@record
class Look:
    """All counters at one moment. `mono_ns` orders and measures, `wall_ns` only dates."""

    mono_ns: int
    wall_ns: int
    cpu_temp_c: float | None
    cpu: CpuTime | None
    load_1m: float | None
    memory_used_pct: float | None
    disk: Traffic | None
    network: Traffic | None


@record
class Sample:
    """One row of a window: its time in ms since the Unix epoch, and FIGURES in order."""

    at_ms: int
    figures: tuple[float | None, ...]


def sample_between(before: Look, after: Look) -> Sample:
    """The row that two looks at the counters make; `after` must be later."""
    assert after.mono_ns > before.mono_ns, "looks in the wrong order"
    span_s = (after.mono_ns - before.mono_ns) / _NS_PER_S
    figures = (
        after.cpu_temp_c,
        _busy_pct(before.cpu, after.cpu),
        after.load_1m,
        _rounded(after.memory_used_pct),
        *_kb_per_s(before.disk, after.disk, span_s),
        *_kb_per_s(before.network, after.network, span_s),
    )
    assert len(figures) == len(FIGURES)
    return Sample(after.wall_ns // 1_000_000, figures)


def columns_of(samples: Sequence[Sample]) -> dict[str, list[float | None]]:
    """The figures of a window by column."""
    return {name: [sample.figures[at] for sample in samples] for at, name in enumerate(FIGURES)}


def _busy_pct(before: CpuTime | None, after: CpuTime | None) -> float | None:
    if before is None or after is None:
        return None
    total = after.total_ticks - before.total_ticks
    busy = after.busy_ticks - before.busy_ticks
    if total <= 0 or not 0 <= busy <= total:
        return None
    return _rounded(100.0 * busy / total)


def _kb_per_s(
    before: Traffic | None, after: Traffic | None, span_s: float
) -> tuple[float | None, float | None]:
    if before is None or after is None:
        return None, None
    read, written = after.in_bytes - before.in_bytes, after.out_bytes - before.out_bytes
    if read < 0 or written < 0:
        return None, None
    return _rounded(read / 1000.0 / span_s), _rounded(written / 1000.0 / span_s)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
