"""Which tool kinds exist, and where each one lives.

Owns the names; asked by the runtime (which must not import pyarrow, so modules are imported only by `tool`),
by the compiler's checks and by workers. Kinds of other packages come in by entry point (group
`noetl_edge.tools`, the name is the kind, the object a `Tool`); a built-in kind can never be replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final, cast

from edge.core.declared import TOOLS_GROUP
from edge.core.errors import ToolFailed
from edge.core.records import record
from edge.tools.contract import Tool

ENTRY_POINT_GROUP: Final = TOOLS_GROUP


@record
class KindEntry:
    """One built-in kind: the module that holds its `TOOL`, and what the runtime must know without it."""

    module: str
    author_code: bool = False
    #: Run by many steps: imported once, before workers are forked. Others are imported by the worker that runs them.
    shared: bool = True


KINDS: Final[Mapping[str, KindEntry]] = MappingProxyType(
    {
        "arrow": KindEntry("edge.tools.arrow"),
        "http": KindEntry("edge.tools.http", shared=False),
        "noop": KindEntry("edge.tools.noop"),
        "python": KindEntry("edge.tools.python", author_code=True),
        "shell": KindEntry("edge.tools.shell", shared=False),
        "sql": KindEntry("edge.tools.sql", author_code=True, shared=False),
        "transform": KindEntry("edge.tools.transform"),
    }
)

_loaded: dict[str, Tool] = {}


def tool(kind: str) -> Tool:
    """The tool of a kind, imported at its first use. Raises ToolFailed `tool_unknown`."""
    found = _loaded.get(kind)
    if found is None:
        entry = KINDS.get(kind)
        found = cast("Tool", import_module(entry.module).TOOL) if entry is not None else _foreign(kind)
        _loaded[kind] = found
    return found


def runs_author_code(kind: str) -> bool:
    """Whether a worker that ran this kind may serve only the same playbook afterwards.

    A kind from elsewhere is not ours to vouch for, so it counts as author code.
    """
    entry = KINDS.get(kind)
    return entry is None or entry.author_code


def preload() -> None:
    """Import what many steps run: for the zygote, so that its children share the pages."""
    for kind, entry in KINDS.items():
        if entry.shared:
            tool(kind)


def _foreign(kind: str) -> Tool:
    # Reading the installed packages' metadata takes milliseconds; only a kind we do not have pays for it.
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINT_GROUP, name=kind):
        return cast("Tool", point.load())
    raise ToolFailed(
        f"There is no tool of kind {kind!r} on this box.",
        code="tool_unknown",
        mend=f"Use one of {', '.join(sorted(KINDS))}, or install the package that brings it.",
    )
