"""`next`: a step's arcs, from their marked nodes to their part of the blueprint.

Called by `playbooks.steps`, in two goes: `outline_next` finds what the arcs write, before any template is read, and
`read_arcs` compiles their conditions and values. Problems are noted in the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from edge.core.records import record
from playbooks.conditions import condition
from playbooks.expressions import NodeList, Resolve
from playbooks.fields import choice, entries, fields, text
from playbooks.loader import Listing, Mapping_, Marked, Scalar
from playbooks.model.workflow import ARC, NEXT, NEXT_SPEC
from playbooks.names import Known
from playbooks.problems import Source, allowed, suggest
from playbooks.shape import MODES, NO_MATCH
from playbooks.templates import compile_tree
from playbooks.walks import inside

CTX_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

#: Gives the resolver of names for a boundary event of that name.
ResolveAt = Callable[[str], Resolve]


@record
class ArcOutline:
    """One arc before its templates are read."""

    node: Marked
    target: Marked | None
    when: Marked | None
    ctx: list[tuple[str, Marked]]
    args: list[tuple[str, Marked]]


@dataclass(slots=True)
class NextOutline:
    """A step's `next` before its templates are read."""

    mode: str = "exclusive"
    no_match: str = "complete"
    arcs: list[ArcOutline] = field(default_factory=list)


def outline_next(source: Source, node: Marked | None) -> NextOutline:
    """A router `{spec, arcs}`, or a list of arcs and names, or one of them."""
    made = NextOutline()
    if isinstance(node, Mapping_) and node.get("step") is None:
        router = fields(source, node, "`next`", NEXT)
        spec = fields(source, router.get("spec"), "`next.spec`", NEXT_SPEC)
        made.mode = choice(source, spec.get("mode"), "`mode`", MODES) or "exclusive"
        made.no_match = choice(source, spec.get("on_no_match"), "`on_no_match`", NO_MATCH) or "complete"
        node = router.get("arcs")
    listed = node.items if isinstance(node, Listing) else () if node is None else (node,)
    made.arcs = [_outline_arc(source, item) for item in listed]
    return made


def _outline_arc(source: Source, node: Marked) -> ArcOutline:
    if isinstance(node, Scalar):
        return ArcOutline(node, node, None, [], [])
    found = fields(source, node, "An arc", ARC)
    if "step" not in found and isinstance(node, Mapping_):
        source.refuse(node.start, "This arc leads nowhere.", "Write `step: name`.")
    ctx, args = scoped_writes(source, found.get("set"), step_scope=True)
    for key, value in entries(source, found.get("args"), "`args`"):
        if _is_new_name(source, key, key.value, args, "`args`"):
            args.append((key.value, value))
    return ArcOutline(node, found.get("step"), found.get("when"), ctx, args)


def scoped_writes(
    source: Source, node: Marked | None, *, step_scope: bool
) -> tuple[list[tuple[str, Marked]], list[tuple[str, Marked]]]:
    """What a `set` writes: `(to ctx, to the next step's args)`. Names without a scope mean ctx, as in NoETL."""
    ctx: list[tuple[str, Marked]] = []
    args: list[tuple[str, Marked]] = []
    for key, value in entries(source, node, "`set`"):
        scope, dot, rest = key.value.partition(".")
        name, into = (rest, args if scope == "step" else ctx) if dot else (key.value, ctx)
        if dot and scope not in (("ctx", "step") if step_scope else ("ctx",)):
            mend = "Write `name:` or `ctx.name:`" + (
                ", or `step.name:` for the next step alone." if step_scope else "."
            )
            source.refuse(key.start, f"`set` cannot write {key.value!r:.80} here.", mend)
        elif _is_new_name(source, key, name, into, "`set`"):
            into.append((name, value))
    return ctx, args


def _is_new_name(source: Source, key: Scalar, name: str, known: list[tuple[str, Marked]], what: str) -> bool:
    if not CTX_NAME.fullmatch(name):
        mend = "Use up to 64 letters, digits and _, not beginning with a digit."
        source.refuse(key.start, f"{what} cannot write {key.value!r:.80}.", mend)
    elif name in (each for each, _ in known):
        source.refuse(key.start, f"{what} writes {name!r} twice.", "Take one of them out.")
    else:
        return True
    return False


def read_arcs(
    source: Source, outline: NextOutline, known: Known, resolve_at: ResolveAt, done_event: str
) -> list[list[Any]]:
    """`[target name, when, failed, set, args]` in order (`playbooks.blueprint`); names are turned into indices later.

    `when` is compiled for each boundary event an arc may be asked at, so that a comparison of `event.name` is decided
    here and not while running.
    """
    arcs = [_read_arc(source, arc, known, resolve_at, done_event) for arc in outline.arcs]
    after_success = after_failure = False
    for made, arc in zip(arcs, outline.arcs, strict=True):
        if made is None:
            continue
        _, when, failed, _, _ = made
        if outline.mode == "exclusive" and after_success and (failed is False or after_failure):
            message = "This arc is never taken: one before it always is."
            source.refuse(arc.node.start, message, "Give that one a `when`.")
        after_success |= when is None
        after_failure |= failed is True
    return [made for made in arcs if made is not None]


def _read_arc(
    source: Source, arc: ArcOutline, known: Known, resolve_at: ResolveAt, done_event: str
) -> list[Any] | None:
    when: NodeList | None = None
    failed: NodeList | bool = False
    if arc.when is not None:
        when, failed = _conditions(source, arc.when, resolve_at, done_event)
    resolve = resolve_at(_light(when, failed, done_event))
    sets = [[name, compile_tree(source, node, resolve)] for name, node in arc.ctx]
    args = [[name, compile_tree(source, node, resolve)] for name, node in arc.args]
    name = text(source, arc.target, "An arc's `step`")
    if name is None or arc.target is None:
        return None
    if name not in known.steps:
        did = suggest(name, known.steps)
        mend = allowed(list(known.steps)[:20])
        source.refuse(arc.target.start, f"There is no step {name!r:.80}.{did}", mend)
    return [name, when, failed, sets, args]


def _conditions(
    source: Source, node: Marked, resolve_at: ResolveAt, done_event: str
) -> tuple[NodeList | None, NodeList | bool]:
    """An arc's condition after success and after failure; an arc that does not ask about failures is not for them."""
    asked = Asked(resolve_at(done_event))
    when = condition(source, node, asked.resolve)
    if done_event == "loop.done" and asked.event:
        other = condition(source, node, resolve_at("step.done"))
        when = _either(when, other)
    if not asked.event and (when is None or not _asks_how_it_ended(when)):
        return when, False
    failed = condition(source, node, resolve_at("step.failed"))
    if failed == ["const", False]:
        return when, False
    return when, True if failed is None else failed


def _light(when: NodeList | None, failed: NodeList | bool, done_event: str) -> str:
    """The boundary event at which what an arc carries is evaluated: `step.ended` where it may be either."""
    if failed is False:
        return done_event
    return "step.failed" if when == ["const", False] else "step.ended"


def _either(one: NodeList | None, other: NodeList | None) -> NodeList | None:
    if one is None or other is None:
        return None
    if one == ["const", False]:
        return other
    return one if other == ["const", False] else ["or", one, other]


class Asked:
    """Passes names on and notes whether the boundary event is asked for."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self.event = False

    def resolve(self, name: str, offset: int) -> NodeList:
        """As the resolver it stands before. Raises Refused."""
        node = self._resolve(name, offset)
        self.event |= name == "event" and node[0] == "dict"
        return node


def _asks_how_it_ended(node: NodeList) -> bool:
    """Whether a condition looks at `output.status` or `output.error`."""
    if node[:2] == ["attr", ["name", "output"]] and node[2:] in (["status"], ["error"]):
        return True
    return any(map(_asks_how_it_ended, inside(node)))
