"""The history of `v1-composed`: children of executions and of items, large values, a loop over a table."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from edge.core.codec import encode
from edge.core.events import (
    BootStarted,
    BootStopped,
    CatalogRegistered,
    ExecutionFinished,
    ExecutionRequested,
    LoopItems,
    LoopStarted,
    StepDone,
    StepWaiting,
    TaskDone,
)
from edge.core.values import TableRef, ValueRef
from tests.golden.entries import BLUEPRINT, DIGEST, Entry, of

LARGE: Final = ValueRef(
    "3-make-0.value",
    hashlib.sha256(b"large value").digest(),
    70_000,
    '{"rows": [1, 2, ',
    {"n": 9, "deep": [1, None]},
)
FRAME: Final = TableRef("14-each.0-0.arrow", hashlib.sha256(b"frame").digest(), 4_096, 100, ("n", "t"))


def _child(parent: int, **fields: Any) -> ExecutionRequested:
    return ExecutionRequested(
        DIGEST, "alice", form="child", content_type="application/cbor", receipt=False, parent=parent, **fields
    )


COMPOSED: Final[list[list[Entry]]] = [
    [
        (BootStarted("0.4.0", "golden", False), {}),
        (CatalogRegistered("demo/golden", DIGEST, BLUEPRINT), {}),
    ],
    # 3: a large value that is truth, then a task that begins 6, which answers.
    [
        of(3, ExecutionRequested(DIGEST, "alice", "r-3")),
        of(3, StepDone(table=LARGE, arc=0), "make"),
        of(3, TaskDone(0, "before", table=LARGE), "call"),
        of(
            6,
            _child(
                3, parent_step="call", parent_task="ask", parent_number=1, depth=1, payload=encode({"a": 1})
            ),
        ),
        of(3, StepWaiting(1, "ask", "playbook", {"child": 6}), "call"),
    ],
    [
        of(6, StepDone(encode(5)), "only"),
        of(6, ExecutionFinished("completed", "only")),
        of(3, TaskDone(1, "ask", encode(5), duration_us=900), "call"),
        of(3, StepDone(encode(5)), "call"),
        of(3, ExecutionFinished("completed", "call")),
    ],
    # 13: a loop over a table by frames, whose items begin children that see the iteration; one has ended.
    [
        of(13, ExecutionRequested(DIGEST, "alice", "r-13")),
        of(13, LoopStarted(2, None, b"t" * 32), "each"),
        of(
            15,
            _child(
                13,
                parent_step="each",
                parent_item=0,
                parent_task="each",
                depth=1,
                result_step="named",
                iter=encode({"row": {"n": 1}, "index": 0, "parent": {"city": "Oslo"}}),
            ),
        ),
        of(13, StepWaiting(0, "each", "playbook", {"child": 15}), "each", iteration=(0,)),
    ],
    [
        of(15, StepDone(table=FRAME), "named"),
        of(15, ExecutionFinished("completed", "named")),
        of(13, TaskDone(0, "each", table=FRAME, table_bytes=b"stands for a stream"), "each", iteration=(0,)),
        of(13, LoopItems(0, 1, encode([FRAME])), "each"),
    ],
    [(BootStopped(), {})],
]
