"""The kinds `noop` and `transform`: nothing, and a tree of values.

Called through `playbooks.kinds`.
"""

from __future__ import annotations

from typing import Any, Final

from playbooks.expressions import Resolve
from playbooks.kinds.kind import Kind
from playbooks.loader import Mapping_, Marked
from playbooks.model.parts import EDGE, Block, Key, Tree
from playbooks.problems import Source
from playbooks.templates import compile_tree


def _noop(source: Source, found: dict[str, Marked], tool: Mapping_, resolve: Resolve) -> dict[str, Any]:
    return {}


def _transform(source: Source, found: dict[str, Marked], tool: Mapping_, resolve: Resolve) -> dict[str, Any]:
    if "value" not in found:
        source.refuse(
            tool.start, "A transform needs `value`.", "Write the tree of values and templates it gives."
        )
        return {"value": ["const", None]}
    return {"value": compile_tree(source, found["value"], resolve)}


NOOP: Final = Kind(
    Block("noop", "Does nothing; for steps that only wait or lead on.", ()), _noop, effects=("pure",)
)
TRANSFORM: Final = Kind(
    Block(
        "transform",
        "A tree of values and templates; its value is the result.",
        (Key("value", Tree(), "The tree.", EDGE, required=True),),
    ),
    _transform,
    effects=("pure",),
)
