"""A playbook's source to its blueprint: `compile_playbook` and `check_playbook`.

Called by the CLI (register, check) and by tests; never by a daemon. The same bytes give the same blueprint.
All problems are found in one run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from edge.core.limits import (
    BLUEPRINT_BYTES_MAX,
    PLAYBOOK_PATH_BYTES_MAX,
    PLAYBOOK_STEPS_MAX,
)
from playbooks.blueprint import Blueprint, encode_blueprint, line_of
from playbooks.credentials import read_keychain
from playbooks.defaults import read_workload
from playbooks.executor import Executor, read_executor
from playbooks.fields import choice, entries, fields, items, plain, text
from playbooks.loader import Listing, Mapping_, Marked, Scalar, load
from playbooks.model.policy import SPEC
from playbooks.model.root import METADATA, PLAYBOOK
from playbooks.names import Known
from playbooks.problems import PlaybookRefused, Problem, Source, open_source
from playbooks.run import straight_line
from playbooks.spec import Spec, overlay, read_spec
from playbooks.steps import Outline, outline, read_step
from playbooks.workbook import Templates, read_workbook

_PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_NAME_LENGTH_MAX: Final = 200
_T = TypeVar("_T")


def compile_playbook(source: bytes, file_name: str) -> Blueprint:
    """The blueprint of a playbook's source. Raises PlaybookRefused (a PlaybookInvalid) with all problems."""
    blueprint, problems = _compile(source, file_name)
    if blueprint is None:
        raise PlaybookRefused(problems)
    return blueprint


def check_playbook(source: bytes, file_name: str) -> list[Problem]:
    """What is wrong with a playbook's source, in order of position; empty where it compiles."""
    return _compile(source, file_name)[1]


def compiled(
    data: bytes,
    file_name: str,
    read: Callable[[Source, Marked], dict[str, Any] | None],
    encode: Callable[[dict[str, Any]], bytes],
    decode: Callable[[bytes], _T],
) -> tuple[_T | None, list[Problem]]:
    """A document's compiled form, or what is wrong with its source, in order of position.

    `read` makes its body of the root, `encode` canonical bytes of that.
    """
    source = open_source(data, file_name)
    if isinstance(source, Problem):
        return None, [source]
    root = load(source)
    body = None if root is None else read(source, root)
    if body is None or source.problems:
        return None, source.problems
    encoded = encode(body)
    if len(encoded) > BLUEPRINT_BYTES_MAX:
        message = f"The compiled form has {len(encoded)} bytes; at most {BLUEPRINT_BYTES_MAX} are allowed."
        return None, [Problem(file_name, 1, 1, message, "Split it.")]
    return decode(encoded), []


def _compile(data: bytes, file_name: str) -> tuple[Blueprint | None, list[Problem]]:
    return compiled(data, file_name, _root, encode_blueprint, Blueprint.decode)


def _root(source: Source, root: Marked) -> dict[str, Any] | None:
    if _is_another_kind(source, root):
        return None
    found = fields(source, root, "A playbook", PLAYBOOK)
    if not isinstance(root, Mapping_):
        return None
    for key in ("apiVersion", "kind", "metadata", "workflow"):
        if root.get(key) is None:
            source.refuse(root.start, f"The playbook has no `{key}`.", f"Add `{key}:`.")
    choice(source, found.get("apiVersion"), "`apiVersion`", ("noetl.io/v2",))
    choice(source, found.get("kind"), "`kind`", ("Playbook",))
    name, path = read_metadata(source, found.get("metadata"))
    workload, worked_out = read_workload(source, found.get("workload"), _step_names(found.get("workflow")))
    executor = read_executor(source, found.get("executor"))
    defaults = overlay(read_spec(source, found.get("spec"), "The playbook's `spec`", SPEC), executor.spec)
    templates = read_workbook(source, found.get("workbook"))
    aliases = read_keychain(source, found.get("keychain"))
    steps = _steps(source, found.get("workflow"), workload, defaults, executor, templates, aliases)
    names = [step["name"] for step in steps]
    return {
        "name": name,
        "path": path,
        "workload": workload,
        **({"defaults": worked_out} if worked_out else {}),
        "steps": steps,
        "entry": executor.index(source, executor.entry, names) or 0,
        "final": executor.index(source, executor.final, names),
        "arc_needed": executor.arc_needed,
    }


def _is_another_kind(source: Source, root: Marked) -> bool:
    """Whether it is a file of ours that is no playbook: what that is and who takes it is all there is to say."""
    if not isinstance(root, Mapping_):
        return False
    kind = root.get("kind")
    if isinstance(kind, Scalar) and kind.value == "Subscription":
        mend = "`edge playbook register` takes it, and its playbook runs for what comes."
        source.refuse(kind.start, "This is a subscription, not a playbook.", mend)
        return True
    if says_cases(root):
        source.refuse(
            root.start, "This is a file of cases, not a playbook.", "`edge playbook test` runs them."
        )
        return True
    return False


def says_cases(root: Marked | None) -> bool:
    """Whether it is a file of cases (`playbooks.cases`)."""
    if not isinstance(root, Mapping_) or root.get("cases") is None:
        return False
    return all(root.get(key) is None for key in ("kind", "apiVersion", "workflow"))


def _step_names(node: Marked | None) -> frozenset[str]:
    """What the steps seem to be called, before they are read."""
    steps = node.items if isinstance(node, Listing) else ()
    names = [step.get("step") for step in steps if isinstance(step, Mapping_)]
    return frozenset(str(name.value) for name in names if isinstance(name, Scalar))


def read_metadata(source: Source, node: Marked | None) -> tuple[str, str]:
    """Name and path of a document; empty where a problem was noted."""
    found = fields(source, node, "`metadata`", METADATA)
    if isinstance(node, Mapping_):
        for key in ("name", "path"):
            if key not in found:
                source.refuse(node.start, f"`metadata` has no `{key}`.", f"Add `{key}:`.")
    for _, value in entries(source, found.get("labels"), "`labels`"):
        plain(source, value)
    text(source, found.get("description"), "`description`")
    name = text(source, found.get("name"), "`name`") or ""
    path = text(source, found.get("path"), "`path`") or ""
    if len(name) > _NAME_LENGTH_MAX:
        source.refuse(found["name"].start, f"`name` has at most {_NAME_LENGTH_MAX} characters.")
    if path and (len(path) > PLAYBOOK_PATH_BYTES_MAX or not _PATH.fullmatch(path)):
        mend = f"Write up to {PLAYBOOK_PATH_BYTES_MAX} letters, digits, _ . -, in levels parted by single /."
        source.refuse(found["path"].start, f"{path!r:.80} cannot be a path.", mend)
    return name, path


def _steps(
    source: Source,
    node: Marked | None,
    workload: dict[str, Any],
    defaults: Spec,
    executor: Executor,
    templates: Templates,
    aliases: dict[str, str],
) -> list[dict[str, Any]]:
    listed = items(source, node, "`workflow`")
    if node is not None and not listed:
        source.refuse(node.start, "The workflow has no steps.", "Begin one with `- step: name`.")
    if len(listed) > PLAYBOOK_STEPS_MAX:
        mend = "Split the playbook."
        source.refuse(
            listed[PLAYBOOK_STEPS_MAX].start, f"A playbook has at most {PLAYBOOK_STEPS_MAX} steps.", mend
        )
        return []
    outlines: dict[str, Outline] = {}
    written: list[Outline] = []
    for position, item in enumerate(listed, 1):
        made = outline(source, item, position, templates)
        if made is None:
            continue
        written.append(
            made
        )  # also one of a name that was there: what is wrong inside is said in the same run
        if outlines.setdefault(made.name, made) is not made:
            source.refuse(item.start, f"There are two steps named {made.name!r}.", "Rename one of them.")
    ctx = {name for made in written for name in made.ctx_names()}
    known = Known(tuple(outlines), ctx, frozenset(workload), aliases)
    steps = [read_step(source, made, known, defaults) for made in written]
    executor.check_final(source, outlines)
    if source.problems:
        return steps
    index = {step["name"]: position for position, step in enumerate(steps)}
    for step in steps:
        step["arcs"] = [[index[target], *rest] for target, *rest in step["arcs"]]
    lines = [line_of(step) for step in steps]
    for position, step in enumerate(steps):
        step["run"] = straight_line(lines, position)
    return steps
