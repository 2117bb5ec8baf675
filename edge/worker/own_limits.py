"""The few files in which a process reads its own memory use and limits: what libraries look up as they start.

Called by `edge.worker.sandbox` in a fresh worker. DuckDB does not start without them. They say nothing of other
processes: of the control group only its limits are named, never who is in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_OWN: Final = ("/proc/self/cgroup", "/proc/self/status")
_GROUPS: Final = "/sys/fs/cgroup"
_UNIFIED: Final = ("cpu.max", "memory.max")
#: By controller, where control groups are of the first version.
_BY_CONTROLLER: Final = {
    "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "memory": ("memory.limit_in_bytes",),
}


def own_limit_files() -> list[Path]:
    """Those that there are on this kernel."""
    found = [*_OWN]
    try:
        lines = Path(_OWN[0]).read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        group = group.rstrip("/")
        if not controllers:
            found += [f"{_GROUPS}{group}/{name}" for name in _UNIFIED]
        for controller in controllers.split(","):
            named = _BY_CONTROLLER.get(controller, ())
            found += [f"{_GROUPS}/{controller}{group}/{name}" for name in named]
    return [path for path in map(Path, found) if path.exists()]
