"""The workload an execution starts with: default values, the request's over them, templates worked out.

Called by the runtime when it takes a request and when it takes an execution up again. A function of the blueprint,
the request and the execution's id, all of which are in the log: it gives the same however often it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge.core.errors import EvaluationFailed
from playbooks.blueprint import Blueprint
from playbooks.budget import Budget
from playbooks.evaluate import evaluate
from playbooks.outputs import deep_merged
from playbooks.scope import build_scope


def start_workload(blueprint: Blueprint, given: Mapping[str, Any], execution_id: str) -> dict[str, Any]:
    """The workload, frozen from now on. Raises EvaluationFailed where a template cannot be worked out.

    What the request gives is a value and never a template, whatever it looks like. All templates share one budget.
    """
    workload = deep_merged(blueprint.workload, given)
    budget = Budget()
    for path, node in blueprint.defaults:
        if _replaced(path, blueprint.workload, given):
            continue
        try:
            value = evaluate(node, build_scope(workload, {}, {}, execution_id, None), budget)
        except EvaluationFailed as error:
            where = ".".join(map(str, path))
            raise EvaluationFailed(
                f"`workload.{where}`: {error.message}", mend=error.mend, code=error.problem_code
            ) from error
        workload = _placed(workload, path, value)
    return workload


def _replaced(path: Sequence[str | int], defaults: Any, given: Any) -> bool:
    """Whether the request put something in the place of a default value, or of a map or list it stands in."""
    for key in path:
        if key not in given:
            return False
        defaults, given = defaults[key], given[key]
        if not (isinstance(defaults, dict) and isinstance(given, dict)):
            return True
    return True


def _placed(container: Any, path: Sequence[str | int], value: Any) -> Any:
    """A copy of maps and lists along the path with the value at its end; nothing else is copied."""
    if not path:
        return value
    made = container.copy()
    made[path[0]] = _placed(container[path[0]], path[1:], value)
    return made
