"""The box beside other durable engines: the same three steps over the same table, in the same run.

Called by `main` with `--peers`. Each takes its turn, the box first and last, and what counts is the ratio of the
rates. The peers are called in their own process while the box is asked over MQTT by another one: that favours them.
Their durability stands beside their rate; a peer that flushes less by default than the box is told to flush.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.bench.phases import say
from tests.bench.processes import ROOT, Bench, BenchFailed, box

#: Made by scripts/bench from requirements-peers.lock.
PYTHON: Final = ROOT / ".venv-peers" / "bin" / "python"
PEERS: Final = {"DBOS": "dbos_sqlite", "Huey": "huey_sqlite", "litequeue": "litequeue_sqlite"}
#: Each peer gets what suits it best of these.
_IN_FLIGHT: Final = (8, 64)
_OWN_IN_FLIGHT: Final = 256
_OURS: Final = "every receipt after an fdatasync of the journal"


def peers(bench: Bench, folder: Path, seconds: float) -> dict[str, Any]:
    """`peers`: executions per second and durability by engine, and how many times as fast the box is."""
    if not PYTHON.exists():
        raise BenchFailed(f"{PYTHON.parent.parent.name} is not there; scripts/bench --peers makes it.")
    rates: dict[str, list[float]] = {name: [] for name in PEERS}
    says: dict[str, str] = {}
    own: list[float] = []
    with box(bench, folder / "beside", "beside") as running:
        own.append(_own(bench, seconds))
        for name, module in PEERS.items():
            for in_flight in _IN_FLIGHT:
                ran = _peer(module, folder / f"{module}{in_flight}", seconds, in_flight)
                rates[name].append(ran["per_s"])
                says[name] = ran["durability"]
            own.append(_own(bench, seconds))
        running.await_quiet()
    middle = statistics.median(own)
    figures: dict[str, Any] = {"this box": {"per_s": middle, "durability": _OURS}}
    for name, found in rates.items():
        figures[name] = {"per_s": max(found), "durability": says[name], "box_is_times": middle / max(found)}
    return {"peers": figures}


def _own(bench: Bench, seconds: float) -> float:
    say(f"peers: this box, {_OWN_IN_FLIGHT} in flight")
    return float(bench.load.ask("closed_loop", in_flight=_OWN_IN_FLIGHT, seconds=seconds)["per_s"])


def _peer(module: str, folder: Path, seconds: float, in_flight: int) -> dict[str, Any]:
    say(f"peers: {module}, {in_flight} in flight")
    folder.mkdir()
    command = [str(PYTHON), "-m", f"tests.bench.peers.{module}", str(folder), str(seconds), str(in_flight)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds + 120
        )
    except subprocess.TimeoutExpired as error:
        raise BenchFailed(f"The peer {module} did not end.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if done.returncode:
        raise BenchFailed(f"The peer {module} failed: {done.stderr.strip()[-600:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer
