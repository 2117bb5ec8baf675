"""`loop`: a step's repetition over a list, from marked nodes to its part of the blueprint.

Called by `playbooks.steps`. A loop is a modifier of its step, no tool: the step's tools run once for each item.
"""

from __future__ import annotations

from typing import Any, Final

from edge.core.limits import EXECUTIONS_OPEN_MAX
from playbooks.arcs import CTX_NAME
from playbooks.expressions import Resolve
from playbooks.fields import choice, fields, text
from playbooks.loader import Mapping_, Marked, Scalar
from playbooks.model.workflow import LOOP, LOOP_POLICY, LOOP_SPEC
from playbooks.nodes import RESERVED_NAMES
from playbooks.problems import Source
from playbooks.shape import LOOP_MODES
from playbooks.templates import compile_tree

#: Names an iteration has beside its item's own.
ITERATION_NAMES: Final = ("iter", "_index", "_total")


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
    if isinstance(node, Mapping_):
        for key in ("in", "iterator"):
            if key not in found and node.get("cursor") is None:
                source.refuse(node.start, f"`loop` has no `{key}`.", f"Add `{key}:`.")
    name = iterator_of(source, node)
    if name is not None and (not CTX_NAME.fullmatch(name) or name in (*RESERVED_NAMES, *ITERATION_NAMES)):
        mend = "Use letters, digits and _, and no name of the language."
        source.refuse(found["iterator"].start, f"{name!r:.80} cannot be an iterator's name.", mend)
    spec = fields(source, found.get("spec"), "`loop.spec`", LOOP_SPEC)
    policy = fields(source, spec.get("policy"), "`policy`", LOOP_POLICY)
    choice(source, policy.get("exec"), "`exec`", ("local", "distributed"))
    mode = choice(source, spec.get("mode") or found.get("mode"), "`mode`", LOOP_MODES) or "sequential"
    return {
        "in": compile_tree(source, found["in"], resolve) if "in" in found else ["list"],
        "iterator": name or "item",
        "mode": mode,
        "max_in_flight": _in_flight(source, spec.get("max_in_flight")),
    }


def _in_flight(source: Source, node: Marked | None) -> int | None:
    if node is None:
        return None
    value = node.value if isinstance(node, Scalar) else None
    if type(value) is int and 1 <= value <= EXECUTIONS_OPEN_MAX:
        return value
    source.refuse(node.start, f"`max_in_flight` must be a whole number of 1 to {EXECUTIONS_OPEN_MAX}.")
    return None
