"""`loop`: a step's repetition over a list, from marked nodes to its part of the blueprint.

Called by `playbooks.steps`. A loop is a modifier of its step, no tool: the step's tools run once for each item.
"""

from __future__ import annotations

from typing import Any, Final

from edge.core.limits import EXECUTIONS_OPEN_MAX, LOOP_FRAME_ROWS_MAX, STEP_TIMEOUT_MS_MAX
from playbooks.arcs import CTX_NAME
from playbooks.expressions import Resolve
from playbooks.fields import choice, fields, flag, length_ms, text, whole
from playbooks.loader import Mapping_, Marked, Scalar
from playbooks.model.workflow import (
    CURSOR_KINDS,
    LEASE_MS_MAX,
    LOOP,
    LOOP_CURSOR,
    LOOP_FRAME,
    LOOP_POLICY,
    LOOP_SPEC,
)
from playbooks.nodes import RESERVED_NAMES
from playbooks.problems import Source
from playbooks.shape import LOOP_MODES
from playbooks.templates import compile_tree

#: Names an iteration has beside its item's own.
ITERATION_NAMES: Final = ("iter", "loop", "_index", "_total")


def iterator_of(source: Source, node: Marked | None) -> str | None:
    """The name a loop gives its item; None where there is no loop, or it is not said."""
    if not isinstance(node, Mapping_):
        return None
    return text(source, node.get("iterator"), "`iterator`")


def read_loop(source: Source, node: Marked | None, resolve: Resolve) -> dict[str, Any] | None:
    """The loop's part of the blueprint; None where the step has none."""
    if node is None:
        return None
    found = fields(source, node, "`loop`", LOOP)
    if isinstance(node, Mapping_) and "iterator" not in found:
        source.refuse(node.start, "`loop` has no `iterator`.", "Add `iterator:`.")
    name = iterator_of(source, node)
    if name is not None and (not CTX_NAME.fullmatch(name) or name in (*RESERVED_NAMES, *ITERATION_NAMES)):
        mend = "Use letters, digits and _, and no name of the language."
        source.refuse(found["iterator"].start, f"{name!r:.80} cannot be an iterator's name.", mend)
    spec = fields(source, found.get("spec"), "`loop.spec`", LOOP_SPEC)
    policy = fields(source, spec.get("policy"), "`policy`", LOOP_POLICY)
    choice(source, policy.get("exec"), "`exec`", ("local", "distributed"))
    mode = choice(source, spec.get("mode") or found.get("mode"), "`mode`", LOOP_MODES) or "sequential"
    over = _over(source, node, found, mode)
    frames = (
        {"frames": _frames(source, spec.get("frame"), mode)} if "frame" in spec or mode == "cursor" else {}
    )
    return {
        "in": compile_tree(source, over, resolve) if over is not None else ["list"],
        "iterator": name or "item",
        "mode": mode,
        "max_in_flight": whole(source, spec.get("max_in_flight"), "`max_in_flight`", 1, EXECUTIONS_OPEN_MAX),
        **frames,
    }


def _over(source: Source, node: Marked, found: dict[str, Marked], mode: str) -> Marked | None:
    """What the loop runs over: `in`, or the table of its `cursor`."""
    cursor = found.get("cursor")
    if cursor is None:
        if "in" not in found and isinstance(node, Mapping_):
            source.refuse(node.start, "`loop` has no `in`.", "Add `in:`.")
        return found.get("in")
    if "in" in found:
        source.refuse(cursor.start, "`loop` has `in` or `cursor`.", "Take one of them out.")
    if mode != "cursor":
        source.refuse(
            cursor.start, "A loop over a cursor has the mode `cursor`.", "Write spec: {mode: cursor}."
        )
    kind = cursor.get("kind") if isinstance(cursor, Mapping_) else None
    if isinstance(kind, Scalar) and kind.value not in CURSOR_KINDS:
        message = f"A cursor over {kind.value!r:.40} claims its rows in a data centre, not on the edge."
        source.refuse(kind.start, message, 'Write cursor: {kind: arrow, table: "{{ step }}"}.')
        return None
    parts = fields(source, cursor, "`cursor`", LOOP_CURSOR)
    for key in ("kind", "table"):
        if key not in parts and isinstance(cursor, Mapping_):
            source.refuse(cursor.start, f"`cursor` has no `{key}`.", f"Add `{key}:`.")
    return parts.get("table")


def _frames(source: Source, node: Marked | None, mode: str) -> list[Any]:
    """`[rows, bytes, seconds, whether a frame is one item]`."""
    found = fields(source, node, "`frame`", LOOP_FRAME)
    rows = whole(source, found.get("max_rows"), "`max_rows`", 1, LOOP_FRAME_ROWS_MAX)
    size_bytes = whole(source, found.get("max_bytes"), "`max_bytes`", 1, 2**40)
    milliseconds = length_ms(source, found.get("max_seconds"), "`max_seconds`", STEP_TIMEOUT_MS_MAX)
    as_table = choice(source, found.get("process"), "`process`", ("row", "frame")) == "frame"
    if mode != "cursor" and (as_table or size_bytes is not None):
        at = found.get("process") or found.get("max_bytes")
        assert at is not None
        source.refuse(at.start, "Only a table comes in frames.", "Write mode: cursor, and give a table.")
    for key in ("lease_seconds", "heartbeat_seconds"):
        length_ms(source, found.get(key), f"`{key}`", LEASE_MS_MAX, least_ms=0)
    whole(source, found.get("row_concurrency"), "`row_concurrency`", 1, 2**31)
    flag(source, found.get("verify_ipc"), "`verify_ipc`")
    return [rows, size_bytes, None if milliseconds is None else milliseconds / 1_000, as_table]
