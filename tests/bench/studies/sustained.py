"""Minutes of steady load: does rate, latency or memory drift? Called by `main` with `--sustained`.

A closed loop in slices of ten seconds, so that drift is seen, and the kernel's view of every process between them.
"""

from __future__ import annotations

import statistics
from typing import Any, Final

from tests.bench.counters import memory_mb
from tests.bench.phases import say
from tests.bench.processes import Bench, Box
from tests.bench.report import percentile

_SLICE_S: Final = 10.0
_IN_FLIGHT: Final = 32
#: So much of the run at either end is compared: a tenth, at least one slice.
_ENDS: Final = 10


def sustained(bench: Bench, running: Box, minutes: float) -> dict[str, Any]:
    """`sustained`: slices, and the last tenth of the run over the first."""
    slices: list[dict[str, float]] = []
    for number in range(max(2, round(minutes * 60 / _SLICE_S))):
        if number % 6 == 0:
            say(f"sustained: minute {number // 6 + 1} of {minutes:g}, {_IN_FLIGHT} in flight")
        ran = bench.load.ask("closed_loop", in_flight=_IN_FLIGHT, seconds=_SLICE_S)
        memory = [memory_mb(pid) for pid in running.pids().values()]
        slices.append(
            {
                "per_s": ran["per_s"],
                "p50_us": percentile(ran["latencies_us"], 50),
                "p99_us": percentile(ran["latencies_us"], 99),
                "anon_mb": sum(anon for _, _, anon in memory),
            }
        )
    return {"sustained": {"slices": slices, "last_over_first": _drift(slices)}}


def _drift(slices: list[dict[str, float]]) -> dict[str, float]:
    """Medians of the last tenth of the slices over those of the first; 1 where nothing drifts."""
    count = max(1, len(slices) // _ENDS)

    def middle(part: list[dict[str, float]], name: str) -> float:
        return statistics.median(each[name] for each in part)

    return {name: middle(slices[-count:], name) / middle(slices[:count], name) for name in slices[0]}
