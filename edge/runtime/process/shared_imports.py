"""What the runtime and its workers both run, imported once before the zygote is forked, so that they share its pages.

Called by the runtime's entry. What only one of them uses has no place here: no Arrow, no LMDB, no event loop. A test
compares what both processes load with what stands here (`tests/process/test_shared_imports.py`).
"""

from __future__ import annotations

import gc
from importlib import import_module
from typing import Final

#: The roots: each brings more along. Their names, since nothing of them is used here.
_SHARED: Final = (
    "base64",
    "datetime",
    "queue",
    "ssl",
    "edge.core.circuits",
    "edge.core.frames",
    "edge.core.loop_state",
    "edge.core.routing",
    "edge.core.scrub",
    "edge.core.state",
    "edge.store.blocks",
    "edge.tools.registry",
    "edge.worker.claims",
    "edge.worker.zygote",
    "playbooks.run",
    "playbooks.scope",
)


def settle() -> None:
    """Import it, and have no collection write into it: a page that is written to is shared no longer."""
    for name in _SHARED:
        import_module(name)
    gc.collect()
    gc.freeze()
