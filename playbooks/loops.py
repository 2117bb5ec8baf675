"""`loop`: a step's repetition over a list, from marked nodes to its part of the blueprint.

Called by `playbooks.steps`. A loop is a modifier of its step, no tool: the step's tools run once for each item.
"""

from __future__ import annotations

from typing import Any, Final

from edge.core.limits import EXECUTIONS_OPEN_MAX, LOOP_FRAME_ROWS_MAX
from playbooks.arcs import CTX_NAME
from playbooks.expressions import Resolve
from playbooks.fields import choice, fields, flag, text, timeout_ms
from playbooks.loader import Mapping_, Marked, Scalar
from playbooks.model.workflow import CURSOR_KINDS, LOOP, LOOP_CURSOR, LOOP_FRAME, LOOP_POLICY, LOOP_SPEC
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
        "max_in_flight": _in_flight(source, spec.get("max_in_flight")),
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
    rows = _count(source, found.get("max_rows"), "`max_rows`", LOOP_FRAME_ROWS_MAX)
    size_bytes = _count(source, found.get("max_bytes"), "`max_bytes`", 2**40)
    milliseconds = timeout_ms(source, found.get("max_seconds"))
    whole = choice(source, found.get("process"), "`process`", ("row", "frame")) == "frame"
    if mode != "cursor" and (whole or size_bytes is not None):
        at = found.get("process") or found.get("max_bytes")
        assert at is not None
        source.refuse(at.start, "Only a table comes in frames.", "Write mode: cursor, and give a table.")
    for key in ("lease_seconds", "heartbeat_seconds", "row_concurrency"):
        _count(source, found.get(key), f"`{key}`", 2**31)
    flag(source, found.get("verify_ipc"), "`verify_ipc`")
    return [rows, size_bytes, None if milliseconds is None else milliseconds / 1_000, whole]


def _count(source: Source, node: Marked | None, what: str, most: int) -> int | None:
    if node is None:
        return None
    value = node.value if isinstance(node, Scalar) else None
    if type(value) in (int, float) and 1 <= value <= most:  # type: ignore[operator]
        return int(value)  # type: ignore[arg-type]
    source.refuse(node.start, f"{what} must be a number of 1 to {most}.")
    return None


def _in_flight(source: Source, node: Marked | None) -> int | None:
    if node is None:
        return None
    value = node.value if isinstance(node, Scalar) else None
    if type(value) is int and 1 <= value <= EXECUTIONS_OPEN_MAX:
        return value
    source.refuse(node.start, f"`max_in_flight` must be a whole number of 1 to {EXECUTIONS_OPEN_MAX}.")
    return None
