"""Words of a playbook that promise more than this version does: allowed, kept for later, and said beside the work.

Called by the command line (check, register, run) for a playbook that compiles. `on_unknown: ask` is one: nobody can
be asked yet, so a write whose outcome nobody knows fails, as with `fail`, for a person to look at its effect.
"""

from __future__ import annotations

from collections.abc import Iterator

from playbooks.blueprint import Blueprint
from playbooks.loader import Listing, Mapping_, Marked, Scalar, load
from playbooks.problems import Problem, open_source

_MEND = "Write `fail`, which says what happens, or `retry`, where doing it twice does no harm."


def unasked(data: bytes, file_name: str, blueprint: Blueprint) -> list[Problem]:
    """A warning for each `on_unknown: ask` of a playbook with writes, where it stands; `data` is its source."""
    if all(step.on_unknown != "ask" for step in blueprint.steps):
        return []
    source = open_source(data, file_name)
    root = None if isinstance(source, Problem) else load(source)
    if isinstance(source, Problem) or root is None:
        return []
    message = "Nobody can be asked yet: a write whose outcome is unknown fails, as with `fail`."
    return [Problem(file_name, *source.position(start), message, _MEND) for start in _asking(root)]


def _asking(node: Marked) -> Iterator[int]:
    """Where the word stands, at any depth."""
    if isinstance(node, Mapping_):
        for key, value in node.pairs:
            if key.value == "on_unknown" and isinstance(value, Scalar) and value.value == "ask":
                yield value.start
            else:
                yield from _asking(value)
    elif isinstance(node, Listing):
        for item in node.items:
            yield from _asking(item)
