"""What pruning costs whoever asks meanwhile: a lone request's latency beside a box that prunes nothing.

Called by `main` with `--pruning`. Both boxes run on equal logs at the same time and are asked by turns; one may keep
little of its log and prunes all the while. Every request in it has an id that is still remembered, so each execution
that is pruned is written again in short: the dearest there is.
"""

from __future__ import annotations

import shutil
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from edge.core.limits import RETAIN_MB_MIN
from edge.store.segment_file import segment_paths
from tests.bench.phases import say
from tests.bench.processes import Bench, BenchFailed, Box, box
from tests.bench.report import percentile
from tests.bench.studies.past import lengthen

EVENTS: Final = 300_000
_A_TURN: Final = 20
_PATIENCE_S: Final = 30.0


def pruning(bench: Bench, folder: Path) -> dict[str, Any]:
    """`pruning`: latencies of both boxes in µs, their ratios, and how many turns were counted."""
    say(f"pruning: writing two logs of {EVENTS:,} events")
    with box(bench, folder / "rests", "rests") as running:
        bench.load.ask("lone")
        running.await_quiet()
        settings = running.settings
    lengthen(settings, EVENTS)
    shutil.copytree(folder / "rests", folder / "prunes", ignore=shutil.ignore_patterns("*.sock", "*.lock"))
    with ExitStack() as stack:
        rests = stack.enter_context(box(bench, folder / "rests", "rests"))
        given: dict[str, int | str] = {"retain_mb": RETAIN_MB_MIN, "retain_policy": "oldest"}
        prunes = stack.enter_context(box(bench, folder / "prunes", "prunes", **given))
        return {"pruning": _turns(bench, rests, prunes)}


def _turns(bench: Bench, rests: Box, prunes: Box) -> dict[str, Any]:
    """Ask by turns as long as pruning goes on; it ends before all was gone through, where requests are refused."""
    end = int(segment_paths(prunes.settings.journal_folder)[-2].stem)
    _wait_until_it_prunes(prunes)
    say("pruning: asking by turns while it goes on")
    pairs: list[tuple[list[float], list[float]]] = []
    while prunes.retention()["oldest"][0] < end:
        latencies = {}
        for running in (rests, prunes) if len(pairs) % 2 else (prunes, rests):
            bench.load.ask("open", box=running.settings.box, payload=str(bench.payload))
            latencies[running.settings.box] = bench.load.ask("one_by_one", count=_A_TURN)["latencies_us"]
        pairs.append((latencies["rests"], latencies["prunes"]))
    return _figures(pairs)


def _figures(pairs: list[tuple[list[float], list[float]]]) -> dict[str, Any]:
    ratios = [statistics.median(with_) / statistics.median(without) for without, with_ in pairs]
    without, with_ = ([each for pair in pairs for each in pair[side]] for side in (0, 1))
    return {
        "turns": len(pairs),
        "rests_p50_us": percentile(without, 50),
        "rests_p99_us": percentile(without, 99),
        "prunes_p50_us": percentile(with_, 50),
        "prunes_p99_us": percentile(with_, 99),
        "p50_ratio": statistics.median(ratios),
        "p99_ratio": percentile(with_, 99) / percentile(without, 99),
    }


def _is_pruning(running: Box) -> bool:
    """As of the last segment that went."""
    told = running.retention()
    return bool(told["log_bytes"] > told["budget_bytes"])


def _wait_until_it_prunes(running: Box) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not _is_pruning(running):
        if time.monotonic() > deadline_s:
            raise BenchFailed(f"The box does not begin to prune: {running.retention()}")
        time.sleep(0.05)
