"""The history of `v1-composed`: children of executions and of items, large values, a loop over a table."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from edge.core.codec import encode
from edge.core.event_body import Body
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

BLUEPRINT: Final = encode({"version": 1, "note": "only its digest matters here"})
DIGEST: Final = hashlib.sha256(BLUEPRINT).digest()
LARGE: Final = ValueRef(
    "3-make-0.value",
    hashlib.sha256(b"large value").digest(),
    70_000,
    '{"rows": [1, 2, ',
    {"n": 9, "deep": [1, None]},
)
FRAME: Final = TableRef("14-each.0-0.arrow", hashlib.sha256(b"frame").digest(), 4_096, 100, ("n", "t"))


def _of(execution: int, body: Body, step: str | None = None, **envelope: Any) -> tuple[Body, dict[str, Any]]:
    return body, {"execution": execution, "step": step, **envelope}


def _child(parent: int, **fields: Any) -> ExecutionRequested:
    return ExecutionRequested(
        DIGEST, "alice", form="child", content_type="application/cbor", receipt=False, parent=parent, **fields
    )


COMPOSED: Final[list[list[tuple[Body, dict[str, Any]]]]] = [
    [
        (BootStarted("0.4.0", "golden", False), {}),
        (CatalogRegistered("demo/golden", DIGEST, BLUEPRINT), {}),
    ],
    # 3: a large value that is truth, then a task that begins 6, which answers.
    [
        _of(3, ExecutionRequested(DIGEST, "alice", "r-3")),
        _of(3, StepDone(table=LARGE, arc=0), "make"),
        _of(3, TaskDone(0, "before", table=LARGE), "call"),
        _of(
            6,
            _child(
                3, parent_step="call", parent_task="ask", parent_number=1, depth=1, payload=encode({"a": 1})
            ),
        ),
        _of(3, StepWaiting(1, "ask", "playbook", {"child": 6}), "call"),
    ],
    [
        _of(6, StepDone(encode(5)), "only"),
        _of(6, ExecutionFinished("completed", "only")),
        _of(3, TaskDone(1, "ask", encode(5), duration_us=900), "call"),
        _of(3, StepDone(encode(5)), "call"),
        _of(3, ExecutionFinished("completed", "call")),
    ],
    # 13: a loop over a table by frames, whose items begin children that see the iteration; one has ended.
    [
        _of(13, ExecutionRequested(DIGEST, "alice", "r-13")),
        _of(13, LoopStarted(2, None, b"t" * 32), "each"),
        _of(
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
        _of(13, StepWaiting(0, "each", "playbook", {"child": 15}), "each", iteration=(0,)),
    ],
    [
        _of(15, StepDone(table=FRAME), "named"),
        _of(15, ExecutionFinished("completed", "named")),
        _of(13, TaskDone(0, "each", table=FRAME, table_bytes=b"stands for a stream"), "each", iteration=(0,)),
        _of(13, LoopItems(0, 1, encode([FRAME])), "each"),
    ],
    [(BootStopped(), {})],
]
