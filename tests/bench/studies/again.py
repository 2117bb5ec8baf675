"""What folding a log again and running it again cost, on one processor, beside the box that recorded it.

Called by `main` with `--again`. The log is a month of a pump guard (`month`), or a part of it. All times are CPU
seconds, those of the sandbox's processes included, the best of some rounds, since others work on the same machine;
the box recorded it with engine, homes and workers in one process, without a gateway: its own rate is flattered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge.central.ingest import Central
from edge.central.ledger import STORED, Linked
from edge.cli.central_sources import OneSource
from edge.core.events import Event
from edge.replay.log_state import log_state
from edge.replay.pinned import Pinned
from edge.replay.reconstruct import events_of, histories, reconstruct
from edge.replay.rerun import rerun
from edge.replay.sandbox import Sandbox
from edge.replay.sealed_source import SealedSource, folder_source
from edge.replay.shield import shielded
from edge.segments.sealed import open_sealed
from tests.bench.phases import say
from tests.bench.studies import month

_ROUNDS: Final = 3
_LOOKUPS: Final = 100
#: So many executions are run again; each costs the same.
_AGAIN_MAX: Final = 2_000
#: Ten million events are what the issue asks about: so many segments stand in the ledger.
_SEGMENTS: Final = 10_000


def again(folder: Path, executions: int) -> dict[str, Any]:
    """`again`: rates of groups, events, states and runs, and the milliseconds one execution takes at a centre."""
    say(f"{executions:,} executions of a pump guard on a box of their own")
    before_s = time.process_time()
    month.record(folder / "box", executions)
    recorded_s = time.process_time() - before_s
    source = folder_source(folder / "box" / "sealed")
    events = log_state(source).events
    say(f"folding {events:,} events")
    figures: dict[str, Any] = {
        "events": events,
        "groups_per_s": events / _best(lambda: sum(len(group.parts) // 2 for group in source.groups())),
        "events_per_s": events / _best(lambda: sum(1 for _ in events_of(source))),
        "reconstruct_per_s": events / _best(lambda: log_state(source)),
        "box_executions_per_s": executions / recorded_s,
    }
    say("running them again")
    figures |= _run_again(source)
    say(f"one execution of {_SEGMENTS:,} segments")
    figures |= _one(folder, source, executions)
    return {"again": figures}


def _best(call: Callable[[], object]) -> float:
    runs = []
    for _ in range(_ROUNDS):
        before_s = time.process_time()
        call()
        runs.append(time.process_time() - before_s)
    return min(runs)


def _run_again(source: SealedSource) -> dict[str, float]:
    """Executions run again a second, all processes together."""
    pinned = Pinned()

    def met() -> Iterator[Event]:
        for event in events_of(source):
            pinned.meet(event)
            yield event

    before_s = time.process_time()
    runs, blocks, same = 0, 0, 0
    with Sandbox(1) as sandbox:
        started_s = _used_s(sandbox)
        ready = None
        for history in histories(met()):
            blueprint = pinned.blueprint(history[0].body.digest)  # type: ignore[attr-defined]
            ready = ready or shielded(blueprint)
            made = rerun(sandbox, source, blueprint, history, ready=ready)
            runs, blocks, same = runs + 1, blocks + made.blocks, same + made.same
            if runs == _AGAIN_MAX:
                break
        took_s = time.process_time() - before_s + _used_s(sandbox) - started_s
    return {"rerun_per_s": runs / took_s, "rerun_blocks_per_s": blocks / took_s, "rerun_same": same / runs}


def _used_s(sandbox: Sandbox) -> float:
    """CPU seconds of the sandbox's processes so far, to the kernel's tick."""
    ticks = 0
    for pid in sandbox.processes():
        ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _one(folder: Path, source: SealedSource, executions: int) -> dict[str, float]:
    """Milliseconds to find and fold one execution at a centre whose ledger names ten million events."""
    data = folder / "centre"
    made = Central.open(data, time.time_ns)
    made.boxes.enrol(month.BOX, month.SIGNER.public, 1)
    for each in source.files:
        assert made.take(each.path.read_bytes(), deep=False).verdict == STORED
    said = open_sealed(source.files[0].path.read_bytes()).manifest
    with made.ledger.change():
        for number in range(_SEGMENTS - len(source.files)):
            log = (number // 250 + 1).to_bytes(8, "big")
            other = replace(said, log_id=log, number=number % 250)
            made.ledger.note(number.to_bytes(32, "big"), STORED, other, 8_000)
            made.ledger.link(Linked(log, month.BOX, number % 250, bytes(32), 250_000, bytes(32), 250_000))
    made.close()
    requests = list(_requests(source))[:: max(1, executions // _LOOKUPS)]
    times_s = []
    for seq in requests:
        before_s = time.process_time()
        one = OneSource(data, f"{source.log_id.hex()}-{seq}")
        found = reconstruct(one, seq)
        one.close()
        times_s.append(time.process_time() - before_s)
        assert found.state.finished is not None
    times_s.sort()
    return {"one_ms": times_s[len(times_s) // 2] * 1e3, "one_p95_ms": times_s[int(len(times_s) * 0.95)] * 1e3}


def _requests(source: SealedSource) -> Iterator[int]:
    return (event.seq for event in events_of(source) if event.type == "playbook.execution.requested")
