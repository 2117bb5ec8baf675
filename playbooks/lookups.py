"""Names in a scope: what a bare name and a step's result are, and how deferred values come in.

Used by `playbooks.nodes` only. A scope may hold `Deferred` values; nothing but this file and the node that asks for a
key of one ever sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from playbooks.budget import Budget, Undefined
from playbooks.deferred import Deferred

Run = Callable[[Mapping[str, Any], Budget], Any]

#: Names every scope of a tool has, which no message lists.
_UNLISTED: Final = ("args", "input", "input_data")


def raw_name(node: Sequence[Any]) -> Run:
    """Looks a bare name up: inputs and results first, then ctx, then workload. May give a Deferred."""
    name: str = node[1]

    def run(scope: Mapping[str, Any], budget: Budget) -> Any:
        if name in scope:
            return scope[name]
        ctx = scope.get("ctx")
        if ctx and name in ctx:
            return ctx[name]
        workload = scope.get("workload")
        if workload and name in workload:
            return workload[name]
        return Undefined(name, "names", _names(scope))

    return run


def _names(scope: Mapping[str, Any]) -> Iterator[str]:
    """The bare names there are; looked through only when a message needs it."""
    yield from (name for name in scope if name not in _UNLISTED)
    yield from scope.get("ctx") or ()
    yield from scope.get("workload") or ()


def raw_step(node: Sequence[Any]) -> Run:
    """Looks a step's result up and nothing else. May give a Deferred."""
    name: str = node[1]

    def run(scope: Mapping[str, Any], budget: Budget) -> Any:
        if name in scope:
            return scope[name]
        return Undefined(without_result(name), quiet=True)

    return run


def without_result(step: str) -> str:
    """How messages speak of a step without a result, as far as a scope can tell."""
    return f"{step} (a step that has not run)"


def told_of_failed(problem: dict[str, Any], failed: Mapping[str, str]) -> dict[str, Any]:
    """A problem of an expression, by one who knows which steps have failed: their problems' codes by name."""
    message = str(problem.get("message", ""))
    for step, code in failed.items():
        if without_result(step) in message:
            said = message.replace(without_result(step), f"{step} (a step that failed: {code})")
            mend = f"A step that failed has no result: hand its error on by `set` of the arc from {step}, such as "
            return {**problem, "message": said, "mend": f'{mend}set: {{why: "{{{{ error.message }}}}"}}.'}
    return problem


RAW: Final[Mapping[str, Callable[[Sequence[Any]], Run]]] = {"name": raw_name, "step": raw_step}


def whole(node: Sequence[Any]) -> Run:
    """A name's or step's value, fetched where it is deferred."""
    raw = RAW[node[0]](node)

    def run(scope: Mapping[str, Any], budget: Budget) -> Any:
        value = raw(scope, budget)
        return value.value() if type(value) is Deferred else value

    return run


def asked_for(value: Deferred, key: Any) -> Any:
    """What `key` is to be looked for in: what is known of a deferred value where that has it, else the whole."""
    return value.known if key in value.known else value.value()
