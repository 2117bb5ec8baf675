"""Where a settled step leads: its `set`, its arcs, and what the tokens on them carry.

Pure; called by the runtime when a step's outcome is recorded, and by whoever explains a log. Its answer goes into
the outcome's event, so that `fold` never evaluates anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.core.codec import check_plain, encode
from edge.core.errors import EvaluationFailed, PayloadInvalid
from edge.core.limits import INLINE_BYTES_MAX
from edge.core.records import record
from edge.core.state import Token
from playbooks.blueprint import Blueprint
from playbooks.deferred import Deferred
from playbooks.evaluate import render, truth
from playbooks.shape import Arc, Step

#: By these a result is known as a response (edge.tools.http_answer).
_RESPONSE_KEYS: Final = frozenset({"status_code", "headers", "data", "url"})


@record
class Way:
    """One arc taken: its number, and what its token carries."""

    arc: int
    args: dict[str, Any] | None = None


@record
class Routed:
    """Where a step leads and what it leaves in `ctx`: no `ways` end the branch, no `patches` change nothing."""

    ways: tuple[Way, ...] = ()
    patches: dict[str, Any] | None = None


def route(step: Step, scope: Mapping[str, Any], ctx: dict[str, Any], *, failed: bool = False) -> Routed:
    """The arcs a settled step takes, and the patches of its `set` and theirs.

    `scope` already holds the step's own result; `ctx` is the execution's, and the scope's `ctx` is the same object,
    so patches are applied to a copy by the caller. A step that failed has no `set`, and takes only arcs that ask for
    failures. Raises EvaluationFailed.
    """
    patches: dict[str, Any] = {}
    if step.set and not failed:
        patches = {name: render(tree, scope) for name, tree in step.set}
        scope = {**scope, "ctx": {**ctx, **patches}}
    matched: list[tuple[int, Arc]] = []
    for index, arc in enumerate(step.arcs):
        if (failed and not arc.on_failure) or not _holds(arc, scope, failed=failed):
            continue
        matched.append((index, arc))
        if not step.inclusive:
            break
    ways = []
    for index, arc in matched:
        ways.append(Way(index, {name: render(tree, scope) for name, tree in arc.args} or None))
        if arc.set:
            patches |= {name: render(tree, scope) for name, tree in arc.set}
            scope = {**scope, "ctx": {**ctx, **patches}}
    return Routed(tuple(ways), patches or None)


def _holds(arc: Arc, scope: Mapping[str, Any], *, failed: bool) -> bool:
    condition = arc.when_failed if failed else arc.when
    return condition is None or truth(condition, scope)


def ways_on(blueprint: Blueprint, step: Step, routed: Routed) -> list[Any]:
    """The ways as an outcome's event holds them (`edge.core.events.StepDone.ways`)."""
    noted: list[Any] = []
    for way in routed.ways:
        arc = step.arcs[way.arc]
        parts: list[Any] = [way.arc, blueprint.steps[arc.target].name]
        if way.args is not None or arc.back:
            parts.append(way.args)
        if arc.back:
            parts.append(True)
        noted.append(parts)
    return noted


def needs_ways(tokens: tuple[Token, ...], routed: Routed) -> bool:
    """Whether an outcome names its ways: not where it takes the only token and gives one that carries nothing."""
    ways = routed.ways
    return len(tokens) > 1 or len(ways) > 1 or (len(ways) == 1 and ways[0].args is not None)


def envelope(value: Any, problem: dict[str, Any] | None, parts: Mapping[str, Any] | None = None) -> Any:
    """A step's outcome as templates see it under `output` and `outcome`: NoETL's envelope.

    `{status, data, result, error}`, and the keys of a result that is a map beside them, where they are not named so;
    `parts` are further ones, such as those the playbook selected. Of a deferred result only that is fetched which is
    not at hand. Of an HTTP response `data` is its body, and `http` has `status` and `headers`, also where it failed.
    """
    parts = parts or {}
    if problem is not None:
        error = {"kind": problem.get("code", "error"), "retryable": False, **problem}
        failed = {**parts, "status": "error", "data": None, "result": None, "error": error}
        http = problem.get("http")
        return {**failed, "data": http["body"], "http": http} if type(http) is dict else failed
    if type(value) is Deferred:
        known = {**value.known, **parts, "status": "ok", "error": None}
        return Deferred(known, lambda: envelope(value.value(), None, {**value.known, **parts}))
    made = {**parts, "status": "ok", "data": value, "result": value, "error": None}
    if type(value) is not dict:
        return made
    if value.keys() >= _RESPONSE_KEYS:
        made |= {"data": value["data"], "http": {"status": value["status_code"], "headers": value["headers"]}}
    return {**value, **made}


def check_ctx(ctx: Mapping[str, Any], patches: Mapping[str, Any] | None) -> None:
    """What `set` adds must fit the event that keeps it. Raises EvaluationFailed `ctx_too_large`, `ctx_invalid`."""
    if patches:
        _check_size({**ctx, **patches}, "ctx")


def no_arc_matched(step: Step) -> dict[str, Any]:
    """The problem of a step that leads nowhere in a playbook that says every step must."""
    return {
        "code": "no_arc_matched",
        "message": f"None of the arcs of step {step.name} holds, and the playbook says one must.",
        "mend": "Add an arc without `when`, or take executor.spec.no_next_is_error out.",
    }


def check_args(routed: Routed) -> None:
    """What tokens carry must fit the event that names them. Raises EvaluationFailed `args_too_large`, …."""
    carried = [way.args for way in routed.ways if way.args]
    if carried:
        _check_size(carried, "args")


def _check_size(value: Any, what: str) -> None:
    try:
        size_bytes = len(encode(check_plain(value)))
    except PayloadInvalid as error:
        raise EvaluationFailed(
            f"`set` makes a value that cannot be kept: {error.message}",
            mend=error.mend,
            code=f"{what}_invalid",
        ) from error
    if size_bytes > INLINE_BYTES_MAX:
        raise EvaluationFailed(
            f"`set` makes {what} {size_bytes} bytes large; {INLINE_BYTES_MAX} are allowed.",
            mend="Keep large values in step results and refer to them.",
            code=f"{what}_too_large",
        )


def ctx_clash(
    step: Step, ctx: dict[str, Any], written: dict[str, Any], patches: dict[str, Any]
) -> dict[str, Any] | None:
    """Why what an item wrote cannot be taken: in a parallel loop each name is written once, or to one value.

    `written` is what items before it wrote.
    """
    assert step.loop is not None, step.name
    if step.loop.parallel:
        clash = [name for name, value in patches.items() if written.get(name, value) != value]
        if clash:
            return {
                "code": "ctx_conflict",
                "message": f"Two items of the parallel loop {step.name} write ctx.{clash[0]} differently.",
                "mend": "Return the value and collect it from the loop's results, or loop sequentially.",
            }
    try:
        check_ctx({**ctx, **written}, patches)
    except EvaluationFailed as error:
        return error.problem()
    return None
