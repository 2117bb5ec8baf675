"""A blueprint of which nothing can reach outside: every task that reads or writes is a hosted one in it.

Called by whoever runs an execution again. The outcome of a hosted task is never brought about by a worker: its
pipeline stops there, says what was asked with every template evaluated, and goes on with what it is given.
Credentials are masked and grants are taken away, so there is nothing to reach outside with. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from edge.core.codec import decode, encode_canonical
from playbooks.blueprint import Blueprint, encode_blueprint, line_of
from playbooks.run import straight_line
from playbooks.shape import CHILD, CONFIG_TREES, FOREIGN_TREES

#: Key of what stands in for a task's config, in the place where a child playbook is named.
MARK: Final = "stand_in_for"
_KEYCHAIN: Final = ["name", "keychain"]

Which = Callable[[Mapping[str, Any], Mapping[str, Any]], bool]
"""Whether a task, the second, of a step, the first, is made a hosted one; both as a blueprint holds them."""


def every_effect(step: Mapping[str, Any], task: Mapping[str, Any]) -> bool:
    """All that is not pure."""
    return bool(task["effect"] != "pure")


def shielded(blueprint: Blueprint, which: Which = every_effect) -> Blueprint:
    """The blueprint with those tasks hosted, and no grant left in it."""
    body = dict(decode(blueprint.data))
    steps = [_step(step, which) for step in body["steps"]]
    lines = [line_of(step) for step in steps]
    body["steps"] = [{**step, "run": straight_line(lines, place)} for place, step in enumerate(steps)]
    del body["version"]
    return Blueprint.decode(encode_blueprint(body))


def _step(step: dict[str, Any], which: Which) -> dict[str, Any]:
    tasks = [_hosted(task) if which(step, task) else {**task, "access": None} for task in step["tasks"]]
    return {**step, "tasks": tasks, "input": masked(step["input"])}


def _hosted(task: dict[str, Any]) -> dict[str, Any]:
    trees = CONFIG_TREES.get(task["kind"], FOREIGN_TREES)
    said: list[Any] = ["dict"]
    plain = {}
    for key, value in task["config"].items():
        if key in trees and value is not None:
            said += [key, masked(value)]
        else:
            plain[key] = value
    # What is no template of it can be long (a block's code): its digest is as good for telling two apart.
    rest = hashlib.sha256(encode_canonical([task["effect"], plain])).hexdigest()
    path = ["dict", MARK, ["const", task["kind"]], "config", said, "rest", ["const", rest]]
    config = {"path": path, "payload": None}
    return {
        **task, "kind": CHILD, "config": config, "input": masked(task["input"]),
        "auth": None, "access": None, "breaker": None,
    }  # fmt: skip


def masked(tree: Any) -> Any:
    """A template tree with `***alias***` where it reads a credential."""
    if isinstance(tree, dict):
        return {key: masked(part) for key, part in tree.items()}
    if not isinstance(tree, list):
        return tree
    if len(tree) == 3 and isinstance(tree[1], list) and tree[1][1:2] == [_KEYCHAIN]:
        alias = tree[1][2]  # a name, or the node of one that is written out
        return ["const", f"***{alias if isinstance(alias, str) else alias[1]}***"]
    return [masked(part) for part in tree]
