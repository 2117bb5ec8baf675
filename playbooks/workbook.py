"""`workbook`: named tools that steps use by name, put in their place while compiling.

Called by `playbooks.compile` and `playbooks.tasks`. A blueprint knows no workbook: what a step uses is its own tool.
Read are the published forms: a map of names, the same under `tasks`, and a list of `{name, tool}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from playbooks.fields import entries, text
from playbooks.loader import Listing, Mapping_, Marked, Scalar
from playbooks.problems import Source, allowed, suggest

WORKBOOK: Final = "workbook"
#: Where a step's tool names the template; in a pipeline `name` is the task's own.
_NAMED_BY: Final = ("task", "name")

Templates = Mapping[str, Mapping_]


def read_workbook(source: Source, node: Marked | None) -> dict[str, Mapping_]:
    """The templates by name."""
    if isinstance(node, Mapping_) and [key.value for key, _ in node.pairs] == ["tasks"]:
        node = node.get("tasks")
    found: dict[str, Mapping_] = {}
    if isinstance(node, Listing):
        for item in node.items:
            name = text(source, item.get("name"), "A template's name") if isinstance(item, Mapping_) else None
            if name is None or not isinstance(item, Mapping_):
                mend = "Write `- {name: …, tool: {kind: …}}`."
                source.refuse(item.start, "A template is a map with a `name`.", mend)
                continue
            tool = item.get("tool")
            _add(source, found, name, tool if tool is not None else _without(item, ("name",)))
        return found
    for key, value in entries(source, node, "`workbook`"):
        _add(source, found, key.value, value)
    return found


def _add(source: Source, found: dict[str, Mapping_], name: str, tool: Marked) -> None:
    if not isinstance(tool, Mapping_) or tool.get("kind") is None:
        source.refuse(tool.start, f"The template {name!r:.80} is no tool.", "Write name: {kind: …}.")
    elif name in found:
        source.refuse(tool.start, f"There are two templates named {name!r:.80}.", "Rename one of them.")
    else:
        found[name] = tool


def put_in_place(source: Source, tool: Mapping_, templates: Templates) -> Mapping_ | None:
    """The template a tool of kind `workbook` names, with what the tool says over it; None where there is none."""
    where = next((tool.get(key) for key in _NAMED_BY if tool.get(key) is not None), None)
    if where is None:
        source.refuse(tool.start, "This tool does not say which template it is.", "Write task: name.")
        return None
    name = text(source, where, "A template's name")
    if name is None:
        return None
    template = templates.get(name)
    if template is None:
        did = suggest(name, templates)
        source.refuse(where.start, f"The workbook has no template {name!r:.80}.{did}", allowed(templates))
        return None
    kind = template.get("kind")
    if isinstance(kind, Scalar) and kind.value == WORKBOOK:
        source.refuse(kind.start, "A template cannot be made of another.", "Write the tool out.")
        return None
    return _over(
        template, _without(tool, ("kind", "task") if tool.get("task") is not None else ("kind", "name"))
    )


def _without(node: Mapping_, keys: tuple[str, ...]) -> Mapping_:
    return Mapping_(tuple(pair for pair in node.pairs if pair[0].value not in keys), node.start)


def _over(template: Marked, own: Marked) -> Mapping_:
    """One map over another, maps in it merged, as specs are layered."""
    assert isinstance(template, Mapping_)
    assert isinstance(own, Mapping_)
    merged: list[tuple[Scalar, Marked]] = []
    for key, value in template.pairs:
        mine = own.get(key.value)
        if isinstance(mine, Mapping_) and isinstance(value, Mapping_):
            merged.append((key, _over(value, mine)))
        else:
            merged.append((key, value if mine is None else mine))
    known = {key.value for key, _ in template.pairs}
    merged += [pair for pair in own.pairs if pair[0].value not in known]
    return Mapping_(tuple(merged), own.start)
