"""The total evaluator: `evaluate`, `render` and `truth`.

Called by the scheduler (arcs, `set`) and by workers (inputs, tool configuration), thousands of times a
second. Total: it always ends, within its budget, with a plain value, a table reference or EvaluationFailed.
It reads no clock and no files, and never touches a Python attribute of a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge.core.errors import EvaluationFailed
from playbooks.budget import Budget, Undefined, fail_undefined
from playbooks.nodes import Node, Prepared, prepare
from playbooks.operators import truth_of

__all__ = ["EvaluationFailed", "evaluate", "render", "truth"]


def evaluate(node: Prepared | Node, scope: Mapping[str, Any]) -> Any:
    """The value of an expression. `scope` comes from `playbooks.scope.build_scope`.

    Raises EvaluationFailed; what it needs but is not there counts as failed.
    """
    run = node.run if type(node) is Prepared else prepare(node)  # type: ignore[arg-type]
    try:
        value = run(scope, Budget())
    except EvaluationFailed:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise EvaluationFailed(f"The expression cannot be evaluated: {error}.") from error
    if type(value) is Undefined:
        fail_undefined(value)
    return value


def render(tree: Prepared | Node, scope: Mapping[str, Any]) -> Any:
    """The value of a template tree: a new map, list or text with every expression in it evaluated.

    A tree is a node like any other; one budget covers all of it. Raises EvaluationFailed.
    """
    return evaluate(tree, scope)


def truth(node: Prepared | Node, scope: Mapping[str, Any]) -> bool:
    """Whether a condition holds. Raises EvaluationFailed."""
    return truth_of(evaluate(node, scope))
