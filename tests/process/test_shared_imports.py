"""What the runtime and its workers both load is loaded before they part."""

from __future__ import annotations

import subprocess
import sys

_BEFORE = (
    "import edge.runtime.__main__, edge.runtime.process.locks, edge.runtime.process.mending\n"
    "from edge.runtime.process.shared_imports import settle; settle()\n"
)
_RUNTIME = "import asyncio, uvloop, edge.runtime.daemon"
_ZYGOTE = "from edge.worker.arrow_import import import_arrow; import_arrow()"


def _after(statement: str) -> set[str]:
    """Names of the modules that `statement` adds to those loaded before the fork."""
    code = (
        f"import sys\n{_BEFORE}before = set(sys.modules)\n{statement}\n"
        "print(*(name for name, module in sys.modules.items() if module and name not in before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_nothing_is_loaded_by_both_after_the_fork() -> None:
    """Each module that the runtime and the zygote both have lies in pages they share."""
    runtime, zygote = _after(_RUNTIME), _after(_ZYGOTE)
    assert "uvloop" in runtime
    assert "pyarrow" in zygote
    # Cython's own two are made by the first extension of that kind, and hold next to nothing.
    both = {name for name in runtime & zygote if "cython" not in name}
    assert not both


def test_what_is_loaded_before_the_fork_is_not_one_side_alone() -> None:
    """No library of one side is in the pages of both."""
    code = f"import sys\n{_BEFORE}print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pyarrow", "lmdb", "uvloop", "asyncio"} & set(done.stdout.split())
