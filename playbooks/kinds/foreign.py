"""Kinds of other packages, from what they declare: their keys are checked as ours are, what they do is theirs.

Called through `playbooks.kinds`. A package is asked once for each name; one that declares nonsense is as good as
none. Must never load a tool.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Final

from edge.core.access import Access
from edge.core.declared import KINDS_GROUP, DeclaredKind
from playbooks.expressions import NodeList, Resolve
from playbooks.kinds.kind import Kind
from playbooks.loader import Mapping_, Marked
from playbooks.model.parts import EDGE, Block, Key, Tree
from playbooks.model.workflow import TOOL
from playbooks.problems import Source
from playbooks.shape import EFFECTS, FOREIGN_KIND
from playbooks.templates import compile_tree

_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_KEYS_MAX: Final = 64


@cache
def foreign_kind(name: str) -> Kind | None:
    """The kind of that name of an installed package, None where there is none."""
    if not FOREIGN_KIND.fullmatch(name):
        return None
    for point in entry_points(group=KINDS_GROUP, name=name):
        declared = point.load()
        if isinstance(declared, DeclaredKind) and _is_sound(declared):
            return _kind(name, declared)
    return None


def foreign_names() -> list[str]:
    """The names that installed packages declare."""
    return sorted({point.name for point in entry_points(group=KINDS_GROUP)})


def _is_sound(declared: DeclaredKind) -> bool:
    names = [*declared.keys]
    return (
        len(names) <= _KEYS_MAX
        and all(_KEY.fullmatch(name) and name not in TOOL.names for name in names)
        and set(declared.required) <= set(names)
        and bool(declared.effects)
        and set(declared.effects) <= set(EFFECTS)
    )


def _kind(name: str, declared: DeclaredKind) -> Kind:
    keys = tuple(
        Key(key, Tree(), doc, EDGE, required=key in declared.required) for key, doc in declared.keys.items()
    )

    def read(source: Source, found: dict[str, Marked], tool: Mapping_, resolve: Resolve) -> dict[str, Any]:
        tree: NodeList = ["dict"]
        for key in declared.keys:
            if key in found:
                tree += [key, compile_tree(source, found[key], resolve)]
            elif key in declared.required:
                source.refuse(tool.start, f"The {name} tool needs `{key}`.", declared.keys[key])
        return {"keys": tree}

    def check(source: Source, found: dict[str, Marked], tool: Mapping_, access: Access) -> None:
        if declared.hosts and not access.hosts:
            mend = "Grant it in the step: spec: {policy: {access: {hosts: [name:port]}}}."
            source.refuse(tool.start, f"The {name} tool needs a host, and none is granted.", mend)

    return Kind(
        Block(name, declared.doc, keys), read, declared.effects, memory_mb=declared.memory_mb, check=check
    )
