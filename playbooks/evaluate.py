"""The total evaluator: `evaluate`, `render` and `truth`.

Called by the scheduler (arcs, `set`) and by workers (inputs, tool configuration), thousands of times a
second. Total: it always ends, within its budget, with a plain value, a table reference or EvaluationFailed.
It reads no clock and no files, and never touches a Python attribute of a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.core.errors import EvaluationFailed
from edge.core.limits import PAYLOAD_BYTES_MAX
from playbooks.budget import Budget, Undefined, fail_undefined
from playbooks.nodes import Node, Prepared
from playbooks.operators import truth_of

__all__ = ["EvaluationFailed", "evaluate", "render", "truth"]


#: A value made from more names than this is measured: templates may repeat what they read.
_NAMES_UNMEASURED: Final = 16
#: What one element counts in that measure, beside the characters of texts.
_ELEMENT_BYTES: Final = 32


def evaluate(node: Prepared | Node, scope: Mapping[str, Any], budget: Budget | None = None) -> Any:
    """The value of an expression. `scope` comes from `playbooks.scope.build_scope`.

    Expressions that are worked out together share one `budget`. Raises EvaluationFailed; what it needs but is not
    there counts as failed.
    """
    prepared = node if isinstance(node, Prepared) else Prepared(node)
    value = _value(prepared, scope, Budget() if budget is None else budget)
    if type(value) is Undefined:
        fail_undefined(value)
    if prepared.names > _NAMES_UNMEASURED:
        _measure(value)
    return value


def render(tree: Prepared | Node, scope: Mapping[str, Any]) -> Any:
    """The value of a template tree: a new map, list or text with every expression in it evaluated.

    A tree is a node like any other; one budget covers all of it. Raises EvaluationFailed.
    """
    return evaluate(tree, scope)


def truth(node: Prepared | Node, scope: Mapping[str, Any]) -> bool:
    """Whether a condition holds. Raises EvaluationFailed."""
    return truth_of(_value(node if isinstance(node, Prepared) else Prepared(node), scope, Budget()))


def _value(prepared: Prepared, scope: Mapping[str, Any], budget: Budget) -> Any:
    """The value as the node gives it, which may be Undefined."""
    try:
        return prepared.run(scope, budget)
    except EvaluationFailed:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        # Nothing is known to come here; the evaluator stays total where that is wrong.
        raise EvaluationFailed(f"The expression cannot be evaluated: {error}.") from error


def _measure(value: Any) -> None:
    """Refuse a value larger than a payload may be, without walking more of it than that."""
    left, size_bytes = [value], 0
    while left:
        item = left.pop()
        kind = type(item)
        if kind is str or kind is bytes:
            size_bytes += len(item)
        elif kind is dict:
            size_bytes += _ELEMENT_BYTES * len(item)
            left.extend(item.values())
        elif kind is list or kind is tuple:
            size_bytes += _ELEMENT_BYTES * len(item)
            left.extend(item)
        if size_bytes > PAYLOAD_BYTES_MAX:
            raise EvaluationFailed(
                f"The value is larger than {PAYLOAD_BYTES_MAX} bytes.",
                mend="Repeat less of what it reads.",
                code="expression_too_large",
            )
