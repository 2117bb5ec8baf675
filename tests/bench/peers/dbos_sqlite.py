"""DBOS on SQLite: a workflow of three steps, each recorded before the next.

`python -m … FOLDER SECONDS IN_FLIGHT`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSConfig

from tests.bench.peers import steps

_FILE = Path(sys.argv[1]) / "dbos.sqlite"


@DBOS.step()  # type: ignore[untyped-decorator]
def check(given: steps.Table) -> steps.Table:
    """Step 1."""
    return steps.check(given)


@DBOS.step()  # type: ignore[untyped-decorator]
def aggregate(given: steps.Table) -> dict[str, float]:
    """Step 2."""
    return steps.aggregate(given)


@DBOS.step()  # type: ignore[untyped-decorator]
def verdict(given: dict[str, float]) -> dict[str, Any]:
    """Step 3."""
    return steps.verdict(given)


@DBOS.workflow()  # type: ignore[untyped-decorator]
def three_steps(given: steps.Table) -> dict[str, Any]:
    """All three."""
    return verdict(aggregate(check(given)))


def main() -> None:
    """Run it as its own documentation does: a local thread pool, the database beside."""
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": f"sqlite:///{_FILE}",
        "run_admin_server": False,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    try:
        steps.drive(
            lambda number: DBOS.start_workflow(three_steps, steps.table(number)),
            lambda handle: handle.get_result(polling_interval_sec=0.001),
            lambda: steps.durability(_FILE),
        )
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    main()
