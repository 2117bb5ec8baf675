"""A task's policy: from `spec.policy.rules` to its part of the blueprint.

Called by `playbooks.tasks`. The only home of control inside a step: which outcome goes on, is tried again, leads to
another task, ends the pipeline or fails it. Problems are noted in the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from edge.core.limits import RETRY_ATTEMPTS_MAX, RETRY_DELAY_S_MAX
from playbooks.arcs import CTX_NAME
from playbooks.conditions import read_rule
from playbooks.expressions import NodeList, Resolve
from playbooks.fields import choice, entries, fields, items, text, whole
from playbooks.loader import Mapping_, Marked, Scalar
from playbooks.model.policy import RULE, TASK_POLICY, THEN
from playbooks.problems import Source, allowed, suggest
from playbooks.shape import BACKOFF, DIRECTIVES
from playbooks.templates import compile_tree, has_template

#: How often a retry runs its task in all where the rule does not say; NoETL's engines use the same.
ATTEMPTS: Final = 3


def policy_writes(spec: Marked | None) -> set[str]:
    """The ctx names a task's rules write; problems are noted when the rules are read."""
    names: set[str] = set()
    for then in _all_then(spec):
        for key, block in then.pairs:
            if key.value in ("set", "set_ctx") and isinstance(block, Mapping_):
                for name, _ in block.pairs:
                    scope, dot, rest = str(name.value).partition(".")
                    if key.value == "set_ctx" or not dot or scope == "ctx":
                        names.add(rest if dot and scope == "ctx" else str(name.value))
    return {name for name in names if CTX_NAME.fullmatch(name)}


def _all_then(node: Marked | None) -> list[Mapping_]:
    """Every `then` below a node, however deep: for names only."""
    found: list[Mapping_] = []
    left: list[Marked | None] = [node]
    while left:
        here = left.pop()
        if isinstance(here, Mapping_):
            for key, value in here.pairs:
                if key.value in ("then", "else") and isinstance(value, Mapping_):
                    found.append(value)
                left.append(value)
        elif here is not None and not isinstance(here, Scalar):
            left.extend(here.items)
    return found


#: What a task's policy may hold without saying what follows an outcome.
NO_CONTROL: Final = ("access", "breaker")


def has_control(policy: Marked | None) -> bool:
    """Whether a task's policy says what follows its outcome; grants and a breaker alone do not."""
    if isinstance(policy, Mapping_):
        return not policy.pairs or any(key.value not in NO_CONTROL for key, _ in policy.pairs)
    return policy is not None


def read_policy(
    source: Source, node: Marked | None, labels: Sequence[str], resolve: Resolve
) -> tuple[list[dict[str, Any]] | None, bool]:
    """`(rules, whether an outcome that no rule matches fails)`; rules are None where nothing is controlled."""
    if not has_control(node):
        return None, False
    found = fields(source, node, "A task's `policy`", TASK_POLICY)
    choice(source, found.get("mode"), "`mode`", ("exclusive",))
    unmatched = choice(source, found.get("on_unmatched"), "`on_unmatched`", ("continue", "fail"))
    if "rules" not in found and isinstance(node, Mapping_):
        source.refuse(
            node.start, "A task's policy has no `rules`.", "Write rules: [{when: …, then: {do: …}}]."
        )
    rules = [_rule(source, item, labels, resolve) for item in items(source, found.get("rules"), "`rules`")]
    return rules, unmatched == "fail"


def _rule(source: Source, node: Marked, labels: Sequence[str], resolve: Resolve) -> dict[str, Any]:
    when, then = read_rule(source, node, RULE, resolve)
    return {"when": when, **_then(source, node, then, labels, resolve)}


def _then(
    source: Source, rule: Marked, node: Marked | None, labels: Sequence[str], resolve: Resolve
) -> dict[str, Any]:
    found = fields(source, node, "`then`", THEN)
    do = choice(source, found.get("do"), "`do`", DIRECTIVES)
    if "do" not in found:
        mend = f"Write then: {{do: …}}. {allowed(DIRECTIVES)}"
        source.refuse(rule.start, "This rule does not say what to do.", mend)
    for key, only in (("to", "jump"), ("attempts", "retry"), ("backoff", "retry"), ("delay", "retry")):
        if key in found and do not in (only, None):
            source.refuse(found[key].start, f"`{key}` means nothing with do: {do}.", "Take it out.")
    ctx, iteration = _writes(source, found, resolve)
    return {
        "do": do or "continue",
        "attempts": whole(source, found.get("attempts"), "`attempts`", 1, RETRY_ATTEMPTS_MAX) or ATTEMPTS,
        "backoff": choice(source, found.get("backoff"), "`backoff`", BACKOFF) or "none",
        "delay": _delay(source, found.get("delay"), resolve),
        "to": _target(source, found, rule, do, labels),
        "ctx": ctx,
        "iter": iteration,
    }


def _delay(source: Source, node: Marked | None, resolve: Resolve) -> NodeList | None:
    if node is None:
        return None
    value = node.value if isinstance(node, Scalar) else None
    if has_template(value):
        return compile_tree(source, node, resolve)
    if type(value) in (int, float) and 0 <= value <= RETRY_DELAY_S_MAX:  # type: ignore[operator]
        return ["const", value] if value else None
    source.refuse(
        node.start, f"`delay` must be seconds, 0 to {RETRY_DELAY_S_MAX}, or a template giving them."
    )
    return None


def _target(
    source: Source, found: dict[str, Marked], rule: Marked, do: str | None, labels: Sequence[str]
) -> int:
    name = text(source, found.get("to"), "`to`")
    if do == "jump" and "to" not in found:
        source.refuse(rule.start, "A jump needs to say where.", f"Write to: name. {allowed(labels)}")
    if name is None or name not in labels:
        if name is not None:
            did = suggest(name, labels)
            source.refuse(found["to"].start, f"This step has no task {name!r:.80}.{did}", allowed(labels))
        return 0
    return labels.index(name)


def _writes(
    source: Source, found: dict[str, Marked], resolve: Resolve
) -> tuple[list[list[Any]], list[list[Any]]]:
    """What a rule sets: `(ctx, iter)` as `[name, tree]`. Both spellings: scoped `set`, and `set_ctx`, `set_iter`."""
    made: dict[str, list[list[Any]]] = {"ctx": [], "iter": []}
    for block, default in (("set", "ctx"), ("set_ctx", "ctx"), ("set_iter", "iter")):
        for key, value in entries(source, found.get(block), f"`{block}`"):
            scope, dot, rest = key.value.partition(".")
            name, into = (rest, scope) if dot and block == "set" else (key.value, default)
            if into not in made or not CTX_NAME.fullmatch(name):
                mend = "Write `ctx.name:` or `iter.name:`."
                source.refuse(key.start, f"`{block}` cannot write {key.value!r:.80}.", mend)
            elif name in (each[0] for each in made[into]):
                source.refuse(key.start, f"This rule writes {into}.{name} twice.", "Take one of them out.")
            else:
                made[into].append([name, compile_tree(source, value, resolve)])
    return made["ctx"], made["iter"]
