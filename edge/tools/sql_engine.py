"""DuckDB, shut in: in memory, one thread, no file, no network, no extension, a bounded memory, settings locked.

Owned by the `sql` kind; the only importer of duckdb, and only when a statement runs: it is an optional part of the
installation (`noetl-edge[sql]`), costs a worker some 45 MB, and is in no other process. Must never see a Python
variable: replacement scans are off.
"""

from __future__ import annotations

import resource
from typing import Any, Final

from edge.core.errors import ToolFailed
from edge.core.limits import KIB, MIB, SQL_MEMORY_MB, SQL_WORK_MB_MIN, STEP_MEMORY_MB

#: Of what is left to the worker; the rest is for Arrow's tables of the result.
_SHARE: Final = 0.75

_SHUT: Final[dict[str, Any]] = {
    "threads": 1,
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "temp_directory": "",
}
#: Set when it is open; then nothing can be set any more.
_THEN: Final = (
    "SET python_enable_replacements = false",
    "SET TimeZone = 'UTC'",
    "SET lock_configuration = true",
)


def library() -> Any:
    """The module duckdb. Raises ToolFailed `library_missing`."""
    try:
        import duckdb
    except ImportError as error:
        raise ToolFailed(
            f"SQL needs DuckDB, and it cannot be imported here: {error}.",
            code="library_missing",
            mend="Install it on the box: pip install 'noetl-edge[sql]'.",
        ) from error
    return duckdb


def connect() -> Any:
    """A fresh database in memory. Raises ToolFailed `library_missing`, `memory_exceeded`."""
    opened = library().connect(":memory:", config={**_SHUT, "memory_limit": f"{SQL_WORK_MB_MIN}MiB"})
    try:
        # Measured when the engine is there, since its own part of the worker's limit is gone by then.
        opened.execute(f"SET memory_limit = '{_work_mb()}MiB'")
        for statement in _THEN:
            opened.execute(statement)
    except BaseException:
        opened.close()
        raise
    return opened


def _work_mb() -> int:
    """Megabytes the engine may work with: a share of what the sandbox still leaves this process."""
    limit_bytes, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit_bytes == resource.RLIM_INFINITY:
        return STEP_MEMORY_MB
    with open("/proc/self/status", "rb") as status:
        used_kib = next(int(line.split()[1]) for line in status if line.startswith(b"VmData:"))
    work_mb = int((limit_bytes - used_kib * KIB) * _SHARE) // MIB
    if work_mb < SQL_WORK_MB_MIN:
        raise ToolFailed(
            f"DuckDB has {max(work_mb, 0)} MB left to work in; it needs {SQL_WORK_MB_MIN}.",
            code="memory_exceeded",
            mend=f"Raise spec.memory_mb; {SQL_MEMORY_MB} is what a SQL step has by itself.",
        )
    return work_mb
