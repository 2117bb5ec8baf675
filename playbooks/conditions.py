"""`when`, and the rules it stands in: what holds always or never is decided while compiling.

Called by `playbooks.arcs`, `playbooks.spec` (admission) and `playbooks.policy` (tasks). Problems are noted in the
source.
"""

from __future__ import annotations

from edge.core.errors import EvaluationFailed
from playbooks.evaluate import truth
from playbooks.expressions import NodeList, Resolve
from playbooks.fields import entries, fields
from playbooks.loader import Marked
from playbooks.model.parts import Block
from playbooks.problems import Source
from playbooks.templates import compile_condition
from playbooks.walks import inside


def condition(source: Source, node: Marked, resolve: Resolve) -> NodeList | None:
    """The node of a `when`; None where it always holds; one that mentions nothing is decided here."""
    made = compile_condition(source, node, resolve)
    if made is None or _mentions(made):
        return made
    try:
        return None if truth(made, {}) else ["const", False]
    except EvaluationFailed as error:
        source.refuse(node.start, f"This `when` always fails: {error.message}", error.mend)
        return None


def read_rule(
    source: Source, node: Marked, block: Block, resolve: Resolve
) -> tuple[NodeList | None, Marked | None]:
    """A rule's condition, and what it says to do: `when` with `then`, or `else` alone, also one level further in."""
    found = fields(source, node, "A rule", block)
    other = found.get("else")
    if other is not None and len(found) > 1:
        mend = "Make `else` a rule of its own."
        source.refuse(other.start, "A rule has `when` and `then`, or `else`.", mend)
    when = condition(source, found["when"], resolve) if "when" in found else None
    then = found.get("then", other)
    inner = [value for key, value in entries(source, then, "`then`") if key.value == "then"]
    return when, inner[0] if inner else then


def _mentions(node: NodeList) -> bool:
    """Whether a node, or anything in it, is a name."""
    return node[0] in ("name", "step") or any(map(_mentions, inside(node)))
