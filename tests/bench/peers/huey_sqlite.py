"""Huey on SQLite: a pipeline of three tasks, two worker processes. `python -m … FOLDER SECONDS IN_FLIGHT`."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from pathlib import Path
from typing import Any

from huey import SqliteHuey

from tests.bench.peers import steps

_FILE = Path(sys.argv[1]) / "huey.sqlite"
#: With its default (fsync off) a power cut may take what was acknowledged.
_HUEY = SqliteHuey("bench", filename=str(_FILE), fsync=True)
_FULL = 2
_PATIENCE_S = 60
_WORKERS = 2


@_HUEY.task()  # type: ignore[untyped-decorator]
def check(given: steps.Table) -> steps.Table:
    """Step 1."""
    return steps.check(given)


@_HUEY.task()  # type: ignore[untyped-decorator]
def aggregate(**given: Any) -> dict[str, float]:
    """Step 2: a pipeline hands a mapping on as keywords."""
    return steps.aggregate(given)


@_HUEY.task()  # type: ignore[untyped-decorator]
def verdict(**given: Any) -> dict[str, Any]:
    """Step 3."""
    return steps.verdict(given)


def _consume() -> None:
    consumer = _HUEY.create_consumer(
        workers=1, worker_type="thread", initial_delay=0.001, max_delay=0.01, periodic=False
    )
    with contextlib.suppress(KeyboardInterrupt):
        consumer.run()


def main() -> None:
    """Two consumers, and this process as the one that asks."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_consume, daemon=True) for _ in range(_WORKERS)]
    for worker in workers:
        worker.start()
    try:
        steps.drive(
            lambda number: _HUEY.enqueue(check.s(steps.table(number)).then(aggregate).then(verdict)),
            lambda results: results.get(blocking=True, timeout=_PATIENCE_S, backoff=1, max_delay=0.002)[-1],
            lambda: steps.durability(_FILE, _FULL),
        )
    finally:
        for worker in workers:
            worker.kill()


if __name__ == "__main__":
    main()
