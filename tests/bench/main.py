"""Entry of `scripts/bench`: the order of the phases, and a clean machine afterwards whatever happens.

Figures are of two shared cores as often as not: read ratios (multiples of the floor measured in the same run),
not lone times. Exit code 0: measured; 1: something under measurement was wrong; 3: measured, and the budget of
`--check` is crossed; 130: interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edge.core.errors import EdgeError
from tests.bench import budget, hotspots, phases, workload
from tests.bench.chart import charts
from tests.bench.drive import NoDrive
from tests.bench.loops import loops
from tests.bench.processes import ROOT, Bench, BenchFailed, blueprints, box, load_client, mosquitto
from tests.bench.report import document, rounded, table
from tests.bench.studies.again import again
from tests.bench.studies.beside import peers
from tests.bench.studies.central import central
from tests.bench.studies.growth import growth
from tests.bench.studies.large_table import large_table
from tests.bench.studies.limits import limits
from tests.bench.studies.lines import studies
from tests.bench.studies.pruning import pruning
from tests.bench.studies.shipping import shipping
from tests.bench.studies.sustained import sustained
from tests.bench.studies.wear import wear
from tests.bench.subscription import subscription

#: By how much `--quick` shortens the runs of `--wear`; at the lowest rate only a few events are left then.
_HURRY = 6.0


def main() -> int:
    """Measure and report."""
    given = _arguments()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _interrupted)
    started_s = time.monotonic()
    try:
        figures = _measure(given)
    except (BenchFailed, EdgeError, NoDrive) as error:
        print(f"bench: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything it started is gone", file=sys.stderr)
        return 130
    figures["run_s"] = time.monotonic() - started_s
    if given.central or given.shipping or given.again:
        print("\n".join(studies(figures)))
        _write(given.json, rounded(figures))
        return 0
    if "executions_per_s" not in figures:
        return 0
    print("\n".join([table(figures), *studies(figures)]))
    print(_caveat(figures))
    made = document(figures)
    _write(given.json, made)
    if given.svg:
        given.svg.mkdir(parents=True, exist_ok=True)
        for name, text in charts(made).items():
            (given.svg / name).write_text(text)
    return _checked(made) if given.check else 0


def _write(path: Path | None, made: Any) -> None:
    if path is not None:
        path.write_text(json.dumps(made, indent=2) + "\n")


def _checked(made: dict[str, Any]) -> int:
    """Say what of the budget is crossed; 3 where something is."""
    verdict = budget.judge(made, budget.load())
    for sentence in verdict.crossed:
        print(f"bench: over budget: {sentence}", file=sys.stderr)
    if verdict.unjudged:
        print(f"bench: not measured, so not judged: {', '.join(verdict.unjudged)}", file=sys.stderr)
    return 3 if verdict.crossed else 0


def _caveat(figures: dict[str, Any]) -> str:
    latency, load = figures["foreign_cpu_percent_latency"], figures["foreign_cpu_percent_throughput"]
    best_us, median_us = figures["python_loop_us"]
    return (
        f"\n{figures['machine']}; 10,000 additions take {best_us:.0f} µs at best, {median_us:.0f} µs in the middle."
        f"\nRead ratios, not lone times: other work took {latency:.0f} % of all cores beside the latencies, "
        f"{load:.0f} % beside the throughput."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="end within 50 s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--skip-drive", action="store_true", help="do not count the drive's bytes")
    parser.add_argument("--svg", type=Path, metavar="FOLDER", help="draw the figures there, as charts")
    parser.add_argument(
        "--check", action="store_true", help="end with 3 where tests/bench/budget.toml is crossed"
    )
    more = parser.add_argument_group("more, none of it quick")
    more.add_argument(
        "--growth", type=_lengths, metavar="EVENTS,…", help="logs of these lengths, such as 10000,1000000"
    )
    more.add_argument(
        "--waiting", type=int, default=0, help="with --growth: a box with so many waiting as well"
    )
    more.add_argument(
        "--wear", action="store_true", help="bytes to the drive by rate and window, 10 min (root)"
    )
    more.add_argument("--pruning", action="store_true", help="lone latency while the log is pruned, 3 min")
    more.add_argument(
        "--central",
        type=int,
        metavar="EXECUTIONS",
        help="only a centre: a month of a pump guard is 43200, and what it weighs; no broker is needed",
    )
    more.add_argument(
        "--again",
        type=int,
        metavar="EXECUTIONS",
        help="only a log folded and run again: a month of a pump guard is 43200; no broker is needed",
    )
    more.add_argument(
        "--shipping",
        type=int,
        metavar="EXECUTIONS",
        help="only the upload of a backlog at 1 Mbit/s, by the real processes; a month is 43200",
    )
    more.add_argument("--limits", action="store_true", help="less memory and fewer cores (root)")
    more.add_argument("--table", action="store_true", help="steps over a cached table of a million rows")
    more.add_argument("--peers", action="store_true", help="DBOS, Huey and litequeue beside the box")
    more.add_argument("--sustained", type=float, metavar="MINUTES", help="steady load for so long")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument(
        "--mqtt", choices=("paho", "codec"), help="the gateway's MQTT (default: its own choice)"
    )
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="PY_SPY",
        help="only profile each process under load with this py-spy; stacks go to --profile-to",
    )
    parser.add_argument("--profile-to", type=Path, default=Path("/tmp/bench-profile"))
    parser.add_argument("--in-flight", type=int, default=256, help="in flight while profiling")
    return parser.parse_args()


def _lengths(text: str) -> tuple[int, ...]:
    return tuple(sorted(int(part) for part in text.split(",")))


def _interrupted(number: int, frame: object) -> None:
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # tidying up is not interrupted
    raise KeyboardInterrupt


def _measure(given: argparse.Namespace) -> dict[str, Any]:
    effort = phases.QUICK if given.quick else phases.FULL
    figures: dict[str, Any] = {
        "quick": given.quick,
        "workers": given.workers,
        "machine": f"{os.cpu_count()} × {platform.machine()}, Linux {platform.release()}, "
        f"Python {platform.python_version()}",
        "load_average": round(os.getloadavg()[0], 2),
    }
    if given.central:
        with _scratch() as folder:
            return figures | central(folder, given.central)
    if given.again:
        with _scratch() as folder:
            return figures | again(folder, given.again)
    if given.shipping:
        with _scratch() as folder:
            return figures | shipping(folder, given.shipping)
    with _scratch() as folder, ExitStack() as stack:
        broker = stack.enter_context(mosquitto(folder))
        load = stack.enter_context(load_client(broker, folder))
        payload = folder / "table.arrow"
        payload.write_bytes(workload.arrow_payload())
        figures["payload_bytes"] = payload.stat().st_size
        options = ("--mqtt", given.mqtt) if given.mqtt else ()
        bench = Bench(broker, load, folder, payload, blueprints(), options, given.workers)
        with box(bench, folder / "data", "bench") as running:
            phases.warm_up(bench, effort)
            if given.profile:
                hotspots.profile(bench, running, given)
                return figures
            figures |= phases.latency(bench, running, folder, effort)
            figures |= phases.throughput(bench, running, effort)
            figures |= phases.memory(bench, running)
            figures |= phases.two_step(bench, running)
            figures |= loops(running, effort.loop_rounds)
            figures |= subscription(bench, running, effort)
            if given.table:
                figures |= large_table(running)
            if given.sustained:
                figures |= sustained(bench, running, given.sustained)
            figures |= phases.idle(bench, running, effort)
            first = running
        figures |= phases.cold_starts(bench, first, folder, effort)
        figures |= (
            phases.no_drive("skipped") if given.skip_drive else phases.drive_bytes(bench, folder, effort)
        )
        figures |= _more(bench, folder, effort, given)
    return figures


def _more(bench: Bench, folder: Path, effort: phases.Effort, given: argparse.Namespace) -> dict[str, Any]:
    """What was asked for beside the usual, each on boxes of its own."""
    figures: dict[str, Any] = {}
    if given.growth:
        figures |= growth(bench, folder, given.growth, given.waiting, effort.rounds)
    if given.wear:
        figures |= wear(bench, folder, _HURRY if given.quick else 1.0)
    if given.pruning:
        figures |= pruning(bench, folder)
    if given.limits:
        figures |= limits(bench, folder, effort.load_s)
    if given.peers:
        figures |= peers(bench, folder, effort.load_s * 2)
    return figures


@contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder on the same drive as the checkout, removed afterwards."""
    here = ROOT.stat().st_dev
    parent = next(
        (path for path in (Path(tempfile.gettempdir()), Path("/var/tmp")) if path.stat().st_dev == here),
        ROOT / "scratch",
    )
    parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="noetl-bench-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
