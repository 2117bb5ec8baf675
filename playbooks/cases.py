"""A playbook's cases: from `NAME.test.yaml` to plain values.

Called by the command line for `edge playbook test`. Strict like a playbook: all problems are found in one run, each
with its place. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

from edge.core.limits import LOOP_ITEMS_MAX, VISITS_MAX
from edge.core.records import record
from playbooks.fields import choice, entries, fields, items, text, whole
from playbooks.loader import Listing, Mapping_, Marked, load
from playbooks.model.cases import CASE, CASES, EFFECT, EXPECT, PROBLEM, STATUS, STEP, STEP_STATUS
from playbooks.problems import PlaybookRefused, Problem, Source, open_source

ENDING: Final = ".test.yaml"
_COUNTED: Final = {"visit": VISITS_MAX, "item": LOOP_ITEMS_MAX}
_PROBLEM_SAYS: Final = ("code", "message", "mend", "retryable", "status")


@record
class Case:
    """One case: `effects` as `{step, task, visit, item, value | problem}`, `expect` by the keys of the model.

    `keychain` holds the fields of credentials by alias.
    """

    name: str
    line: int
    input: dict[str, Any]
    table: list[dict[str, Any]] | None
    keychain: dict[str, dict[str, str]]
    effects: list[dict[str, Any]]
    expect: dict[str, Any]


@record
class Cases:
    """A whole file: its cases, and the playbook's file where it names one."""

    playbook: str | None = None
    cases: list[Case] = field(default_factory=list)


def read_cases(data: bytes, file_name: str) -> Cases:
    """The cases of a file. Raises PlaybookRefused with all problems."""
    source = open_source(data, file_name)
    if isinstance(source, Problem):
        raise PlaybookRefused([source])
    root = load(source)
    made = Cases() if root is None else _cases(source, root)
    if source.problems:
        raise PlaybookRefused(source.problems)
    return made


def _cases(source: Source, root: Marked) -> Cases:
    found = fields(source, root, "A file of cases", CASES)
    listed = items(source, found.get("cases"), "`cases`")
    if not listed and isinstance(root, Mapping_):
        source.refuse(root.start, "There is no case.", "Begin one with `- case: what it shows`.")
    made = [_case(source, node) for node in listed]
    names: set[str] = set()
    for node, case in zip(listed, made, strict=True):
        if case.name in names:
            source.refuse(node.start, f"There are two cases named {case.name!r:.80}.", "Rename one of them.")
        names.add(case.name)
    return Cases(text(source, found.get("playbook"), "`playbook`"), made)


def _case(source: Source, node: Marked) -> Case:
    found = fields(source, node, "A case", CASE)
    for key in ("case", "expect"):
        if key not in found and isinstance(node, Mapping_):
            source.refuse(node.start, f"This case has no `{key}`.", f"Add `{key}:`.")
    effects = [_effect(source, each) for each in items(source, found.get("effects"), "`effects`")]
    return Case(
        text(source, found.get("case"), "`case`") or "",
        source.position(node.start)[0],
        _map(source, found.get("input"), "`input`"),
        _table(source, found),
        _keychain(source, found.get("keychain")),
        effects,
        _expect(source, found.get("expect")),
    )


def _table(source: Source, found: Mapping[str, Marked]) -> list[dict[str, Any]] | None:
    """The rows of a request that is a table; None where it is none."""
    node = found.get("table")
    if node is None:
        return None
    if "input" in found:
        source.refuse(node.start, "A case has `input` or `table`.", "Take one of them out.")
    rows = [_map(source, each, "A row") for each in items(source, node, "`table`")]
    if not rows:
        source.refuse(node.start, "This table has no row, so nobody knows its columns.", "Write one.")
    return rows


def _keychain(source: Source, node: Marked | None) -> dict[str, dict[str, str]]:
    """The fields of credentials, by alias."""
    return {
        alias.value: {
            key.value: text(source, value, "A credential's field") or ""
            for key, value in entries(source, fields_of, f"The alias {alias.value}")
        }
        for alias, fields_of in entries(source, node, "`keychain`")
    }


def _effect(source: Source, node: Marked) -> dict[str, Any]:
    found = fields(source, node, "An effect", EFFECT)
    said = [key for key in ("value", "problem") if key in found]
    if isinstance(node, Mapping_) and len(said) != 1:
        source.refuse(node.start, "An effect has either `value` or `problem`.", "Write one of them.")
    if isinstance(node, Mapping_) and "step" not in found:
        source.refuse(node.start, "This effect does not say of which step.", "Add `step:`.")
    made: dict[str, Any] = {key: text(source, found.get(key), f"`{key}`") for key in ("step", "task")}
    made |= {key: whole(source, found.get(key), f"`{key}`", 0, most) for key, most in _COUNTED.items()}
    if "problem" in found:
        problem = fields(source, found["problem"], "`problem`", PROBLEM)
        text(source, problem.get("code"), "`code`")
        if "code" not in problem:
            source.refuse(found["problem"].start, "This problem has no `code`.", "Add `code:`.")
        told = {key: value_of(problem[key]) for key in _PROBLEM_SAYS if key in problem}
        made["problem"] = {"message": "as the case says", **told}
    elif "value" in found:
        made["value"] = value_of(found["value"])
    return made


def _expect(source: Source, node: Marked | None) -> dict[str, Any]:
    found = fields(source, node, "`expect`", EXPECT)
    if isinstance(node, Mapping_) and not found:
        source.refuse(node.start, "This expects nothing.", "Write status, result, path, ctx or steps.")
    made = _outcome(source, found, STATUS)
    if "path" in found:
        path = [text(source, each, "A step's name") for each in items(source, found["path"], "`path`")]
        made["path"] = [name for name in path if name is not None]
    if "ctx" in found:
        made["ctx"] = _map(source, found["ctx"], "`ctx`")
    if "steps" in found:
        made["steps"] = {
            key.value: _outcome(
                source, fields(source, each, f"Step {key.value}", STEP), (*STEP_STATUS, "absent")
            )
            for key, each in entries(source, found["steps"], "`steps`")
        }
    return made


def _outcome(source: Source, found: Mapping[str, Marked], statuses: tuple[str, ...]) -> dict[str, Any]:
    """What is said of an outcome, a step's or the run's."""
    made: dict[str, Any] = {}
    if "status" in found:
        made["status"] = choice(source, found["status"], "`status`", statuses)
    if "problem" in found:
        made["problem"] = text(source, found["problem"], "`problem`")
    for key in ("result", "result_has"):
        if key in found:
            made[key] = value_of(found[key])
    return made


def _map(source: Source, node: Marked | None, what: str) -> dict[str, Any]:
    return {key.value: value_of(value) for key, value in entries(source, node, what)}


def value_of(node: Marked) -> Any:
    """A node as it stands: nothing in a case is a template."""
    if isinstance(node, Listing):
        return [value_of(item) for item in node.items]
    if isinstance(node, Mapping_):
        return {key.value: value_of(value) for key, value in node.pairs}
    return node.value
