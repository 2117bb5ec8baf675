"""The decision behind a settled step's outcome: where it leads and what it leaves in `ctx`, or why nobody can say.

Pure. One rule for the runtime, which writes the decision into the outcome's event, and for `edge.replay`, which asks
it again. What expressions see is handed in as a callable, since most steps need not look at anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from edge.core.errors import CacheMiss, EdgeError
from edge.core.routing import Routed, Way, check_args, check_ctx, needs_ways, no_arc_matched, route, ways_on
from edge.core.state import Execution
from playbooks.blueprint import Blueprint
from playbooks.lookups import told_of_failed
from playbooks.shape import Step

Scope = Callable[[], Mapping[str, Any]]

NOWHERE: Final = Routed()
_ON_BY_FIRST: Final = Routed((Way(0),))


def led(
    blueprint: Blueprint, step: Step, state: Execution, written: dict[str, Any] | None, scope: Scope
) -> tuple[Routed, dict[str, Any] | None]:
    """Where a step that is done leads, and the problem where that cannot be said; `written` is its policies'.

    Raises CacheMiss where what its arcs ask for is gone.
    """
    if written is None:
        if not step.arcs and not step.set:
            return NOWHERE, None
        if step.goes_on_plainly:
            return _ON_BY_FIRST, None
    try:
        seen, ctx = scope(), state.ctx
        if written:
            ctx = {**ctx, **written}
            routed = route(step, {**seen, "ctx": ctx}, ctx)
            routed = Routed(routed.ways, {**written, **(routed.patches or {})})
        else:
            routed = route(step, seen, ctx)
        check_ctx(state.ctx, routed.patches)
        check_args(routed)
    except CacheMiss:
        raise
    except EdgeError as error:
        return NOWHERE, completed(state, error.problem())
    if step.arcs and not routed.ways and blueprint.arc_needed:
        return routed, no_arc_matched(step)
    return routed, None


def led_failed(
    blueprint: Blueprint, step: Step, state: Execution, written: dict[str, Any] | None, scope: Scope
) -> tuple[list[Any] | None, dict[str, Any] | None]:
    """Where a step that failed leads: `(ways, ctx patches)`, as `edge.core.events.StepFailed` has them.

    Raises EdgeError where its arcs cannot be asked.
    """
    borne: list[Any] | None = [] if step.best_effort else None
    if not any(arc.on_failure for arc in step.arcs):
        return borne, written or None
    ctx = {**state.ctx, **(written or {})}
    routed = route(step, {**scope(), "ctx": ctx}, ctx, failed=True)
    check_ctx(state.ctx, routed.patches)
    check_args(routed)
    if not routed.ways:
        return borne, written or None
    return ways_on(blueprint, step, routed), {**(written or {}), **(routed.patches or {})} or None


def said_ways(
    blueprint: Blueprint, step: Step, state: Execution, routed: Routed
) -> tuple[int | None, list[Any] | None]:
    """How an outcome's event says where the step leads: an arc's number where that is enough."""
    if needs_ways(state.tokens, routed):
        return None, ways_on(blueprint, step, routed)
    return (routed.ways[0].arc if routed.ways else None), None


def completed(state: Execution, problem: Mapping[str, Any]) -> dict[str, Any]:
    """What an expression failed of, with what its scope could not tell: which of the missing steps have failed."""
    if problem.get("code") != "expression_undefined":
        return dict(problem)
    known = state.steps.items()
    failed = {name: str((step.problem or {}).get("code")) for name, step in known if step.status == "failed"}
    return told_of_failed(dict(problem), failed)
