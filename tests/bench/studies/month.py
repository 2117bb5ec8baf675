"""Thirty days of a pump guard, offline: what its log weighs when it goes upstream.

Called by `main` with `--central`, and by a test with fewer executions: bytes are the same on every machine, times are
nobody's. Each execution reads eight registers, decides, and writes a set-point: two effects, six events. Clocks drift
and jitter as a box's do, and no two readings are alike.
"""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any, Final

from edge.security.signing import Signer
from edge.segments.manifest import Manifest
from edge.segments.sealing import Sealing
from edge.store.blobs import BlobStore
from edge.testing.box import Box
from edge.testing.clock import ManualClock
from edge.testing.plain import playbook

#: One a minute for thirty days, and what of it must not be crossed (issue 5).
EXECUTIONS: Final = 43_200
MONTH_BYTES_MAX: Final = 6_500_000
EXECUTION_BYTES_MAX: Final = 150.0
BOX: Final = "pump-guard"
SIGNER: Final = Signer(bytes(32))
_MINUTE_NS: Final = 60 * 10**9
_READ: Final = """\
import random
result = {"registers": [random.Random(n * 8 + i).randrange(2000, 2400) for i in range(8)]}
"""
_STEPS: Final[list[dict[str, Any]]] = [
    {
        "step": "read",
        "spec": {"effect": "read"},
        "tool": {"kind": "python", "code": _READ},
        "input": {"n": "{{ workload.n }}"},
        "next": "decide",
    },
    {
        "step": "decide",
        "tool": {"kind": "transform", "value": {"speed": "{{ read.registers[0] - 2000 }}"}},
        "next": "write",
    },
    {
        "step": "write",
        "spec": {"effect": "write"},
        "tool": {"kind": "python", "code": "result = {'ok': True, 'register': 12, 'value': s}"},
        "input": {"s": "{{ decide.speed }}"},
    },
]


def record(folder: Path, executions: int) -> list[tuple[Path, Manifest]]:
    """Run so many executions on a box of its own, and seal its log."""
    asyncio.run(_run(folder, executions))
    sealing = Sealing(folder / "sealed", SIGNER, BOX, BlobStore(folder / "blobs"))
    return list(sealing.seal(folder / "journal", 2**62, everything=True))


async def _run(folder: Path, executions: int) -> None:
    chance = random.Random(1)
    clock = ManualClock()
    box = Box(folder, clock=clock)
    await box.register(playbook(_STEPS))
    real = box.pool.answer

    def answer(work: Any) -> Any:
        out = real(work)
        clock.advance(chance.randrange(800_000, 9_000_000))
        clock.set_wall(clock.now.wall_ns + chance.randrange(-400, 400))
        return out

    box.pool.answer = answer
    for number in range(executions):
        clock.advance(_MINUTE_NS - chance.randrange(0, 40_000_000))
        clock.set_wall(clock.now.wall_ns + chance.randrange(-20_000, 20_000))
        box.submit("t", json.dumps({"n": number}).encode(), request_id=f"t-{number}")
        await box.settle()
    await box.close()


def weight(made: list[tuple[Path, Manifest]], executions: int) -> dict[str, float]:
    """What the segments weigh: manifest, signature and all."""
    size_bytes = sum(path.stat().st_size for path, _ in made)
    events = sum(manifest.events for _, manifest in made)
    return {
        "executions": executions,
        "events": events,
        "segments": len(made),
        "bytes": size_bytes,
        "bytes_per_event": size_bytes / events,
        "bytes_per_execution": size_bytes / executions,
        "month_mb": size_bytes / executions * EXECUTIONS / 1e6,
    }
