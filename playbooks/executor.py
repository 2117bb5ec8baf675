"""`executor`: where a playbook begins and ends, and what it asks of the runtime.

Called by `playbooks.compile`. A box is one runtime: profiles are read and mean nothing here, and what is required and
not there is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.core.records import record
from playbooks.fields import choice, entries, fields, flag, items, plain, text
from playbooks.kinds import all_kinds, kind_of
from playbooks.loader import Marked
from playbooks.model.root import EXECUTOR, EXECUTOR_SPEC, REQUIRES
from playbooks.problems import Source, allowed, suggest
from playbooks.spec import Spec, read_spec
from playbooks.steps import Outline

_PROFILES: Final = ("local", "distributed", "auto")
_NOTHING_SAID: Final = Spec()


@record
class Executor:
    """What the block says; `entry` and `final` are the nodes that name steps."""

    entry: Marked | None = None
    final: Marked | None = None
    arc_needed: bool = False
    spec: Spec = _NOTHING_SAID

    def index(self, source: Source, node: Marked | None, names: list[str]) -> int | None:
        """The place of the step a node names; a problem is noted where there is none."""
        name = text(source, node, "A step's name")
        if name is None or node is None:
            return None
        if name not in names:
            source.refuse(
                node.start, f"There is no step {name!r:.80}.{suggest(name, names)}", allowed(names[:20])
            )
            return None
        return names.index(name)

    def check_final(self, source: Source, outlines: Mapping[str, Outline]) -> None:
        """Nothing follows the final step."""
        name = text(source, self.final, "`final_step`")
        made = outlines.get(name or "")
        if made is not None and made.next.arcs:
            mend = "Take its `next` out, or name a step of its own as `final_step`."
            source.refuse(
                made.next.arcs[0].node.start, f"{name!r} is the final step; nothing follows it.", mend
            )


def read_executor(source: Source, node: Marked | None) -> Executor:
    """The block `executor`."""
    found = fields(source, node, "`executor`", EXECUTOR)
    choice(source, found.get("profile"), "`profile`", _PROFILES)
    text(source, found.get("version"), "`version`")
    _requires(source, found.get("requires"))
    block = found.get("spec")
    own: dict[str, Any] = {key.value: value for key, value in entries(source, block, "`spec`")}
    return Executor(
        own.get("entry_step"),
        own.get("final_step"),
        flag(source, own.get("no_next_is_error"), "`no_next_is_error`") or False,
        read_spec(source, block, "The executor's `spec`", EXECUTOR_SPEC),
    )


def _requires(source: Source, node: Marked | None) -> None:
    found = fields(source, node, "`requires`", REQUIRES)
    for item in items(source, found.get("tools"), "`tools`"):
        kind = text(source, item, "A tool kind")
        if kind is not None and kind_of(kind) is None:
            message = f"This playbook requires {kind!r:.80}, and there is no such tool here."
            source.refuse(item.start, message, allowed(all_kinds()))
    for item in items(source, found.get("features"), "`features`"):
        feature = plain(source, item)
        source.refuse(
            item.start,
            f"The feature {feature!r:.80} is not known here.",
            "Take it out if it can be done without.",
        )
