"""The compiled form of a playbook: what the log keeps and what runs.

Read by the scheduler and the workers; made by `playbooks.compile`. Its bytes are canonical CBOR and their
SHA-256 is the playbook's identity. Imports no YAML, no Jinja2, no pydantic. `Blueprint.decode` checks the
whole shape, so that nobody after it has to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from edge.core.codec import decode, encode_canonical
from edge.core.limits import (
    BLUEPRINT_BYTES_MAX,
    PLAYBOOK_PATH_BYTES_MAX,
    PLAYBOOK_STEPS_MAX,
)
from edge.core.records import record
from playbooks.blueprint_fields import expect, field_of, limited
from playbooks.graph import back_arcs, reached
from playbooks.nodes import Prepared
from playbooks.run import Line, straight_line
from playbooks.shape import CHILD, Step, is_pipeline, step_of, targets_of

VERSION: Final = 3


@record
class Blueprint:
    """A compiled playbook. `digest` is SHA-256 of `data`; `step_index` finds a step by name.

    The step at index `entry` starts, the one at `final` runs at the end (None: nothing does). Where `arc_needed`, a
    step none of whose arcs holds fails the execution.
    """

    digest: bytes
    data: bytes
    path: str
    name: str
    workload: dict[str, Any]
    #: Templates of the workload, which has none in their places: where each stands, and its node.
    defaults: tuple[tuple[tuple[str | int, ...], Prepared], ...]
    steps: tuple[Step, ...]
    step_index: dict[str, int]
    entry: int
    final: int | None
    arc_needed: bool
    #: Bit j of element i: step i leads to step j by arcs leading forward.
    reach: tuple[int, ...]
    #: Any of its steps looks at the iteration, which may be one of the execution above.
    reads_iter: bool
    #: Any of its tasks begins another playbook.
    begins_others: bool

    def leads_to(self, step: int, other: int) -> bool:
        """Whether a token at `step` can come to `other` by arcs leading forward."""
        return bool(self.reach[step] >> other & 1)

    @classmethod
    def decode(cls, data: bytes) -> Blueprint:
        """Read a blueprint's bytes. Raises ValueError where they are not one."""
        if len(data) > BLUEPRINT_BYTES_MAX:
            raise ValueError(f"a blueprint has at most {BLUEPRINT_BYTES_MAX} bytes, this has {len(data)}")
        body = decode(data)
        expect(
            isinstance(body, dict) and body.get("version") in (1, 2, VERSION), "not of a version known here"
        )
        expect(_canonical(body) == data, "its bytes are not canonical")
        if body["version"] == 1:
            body = _from_version_1(body)
        if body["version"] == 2:
            body = _from_version_2(body)
        path, name = field_of(body, "path", str), field_of(body, "name", str)
        expect(0 < len(path.encode()) <= PLAYBOOK_PATH_BYTES_MAX, "path")
        raw_steps = field_of(body, "steps", list)
        expect(0 < len(raw_steps) <= PLAYBOOK_STEPS_MAX, "number of steps")
        entry = limited(body, "entry", 0, len(raw_steps) - 1)
        final = None if body.get("final") is None else limited(body, "final", 0, len(raw_steps) - 1)
        targets = [targets_of(raw, len(raw_steps)) for raw in raw_steps]
        back = back_arcs(targets, entry)
        steps = tuple(
            step_of(raw, len(raw_steps), {arc for step, arc in back if step == position})
            for position, raw in enumerate(raw_steps)
        )
        index = {step.name: position for position, step in enumerate(steps)}
        expect(len(index) == len(steps), "a step's name stands twice")
        lines = [line_of(raw) for raw in raw_steps]
        for position, step in enumerate(steps):
            expect(step.run == straight_line(lines, position), f"run of step {step.name}")
            expect(all(read in index for read in step.reads), f"reads of step {step.name}")
        return cls(
            hashlib.sha256(data).digest(),
            bytes(data),
            path,
            name,
            field_of(body, "workload", dict),
            _defaults_of(body),
            steps,
            index,
            entry,
            final,
            field_of(body, "arc_needed", bool),
            reached(targets, back),
            any(step.reads_iter for step in steps),
            any(task.kind == CHILD for step in steps for task in step.tasks),
        )


def _defaults_of(body: dict[str, Any]) -> tuple[tuple[tuple[str | int, ...], Prepared], ...]:
    """The workload's templates. Raises ValueError where one stands nowhere, or is no node."""
    found = []
    for entry in field_of(body, "defaults", list) if "defaults" in body else ():
        expect(
            type(entry) is list and len(entry) == 2 and type(entry[0]) is list and len(entry[0]) > 0,
            "defaults",
        )
        at: Any = body["workload"]
        for key in entry[0]:
            inside = (type(at) is dict and type(key) is str and key in at) or (
                type(at) is list and type(key) is int and 0 <= key < len(at)
            )
            expect(inside, "the place of a default")
            at = at[key]
        expect(at is None, "a default stands where there is a value")
        found.append((tuple(entry[0]), Prepared(entry[1])))
    return tuple(found)


def line_of(step: Mapping[str, Any]) -> Line:
    """What `straight_line` wants to know of a step, as a blueprint holds it."""
    pipeline = is_pipeline([(task["kind"], task.get("rules") is not None) for task in step["tasks"]])
    apart = pipeline or step.get("loop") is not None or step.get("deadline_ms") is not None
    plain = not step["set"] and not apart and not any(sets or args for _, _, _, sets, args in step["arcs"])
    targets = [(target, when is None) for target, when, *_ in step["arcs"]]
    return Line(step["effect"], plain, step.get("admit") is not None or apart, targets)


def _from_version_1(body: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had one token only: exclusive arcs without anything on them, no admission, every failure the end."""
    added = {
        "mode": "exclusive",
        "no_match": "complete",
        "failure": "fail_fast",
        "admit": None,
        "reads_output": False,
        "loop": None,
    }
    task = {"input": None, "rules": None, "unmatched_fails": False}
    steps = field_of(body, "steps", list)
    expect(all(type(step) is dict and type(step.get("arcs")) is list for step in steps), "a step is no map")
    expect(all(len(arc) == 2 for step in steps for arc in step["arcs"] if type(arc) is list), "arcs")
    made = [
        {
            **{key: value for key, value in step.items() if key not in ("kind", "config")},
            **added,
            "tasks": [{**task, **{key: step.get(key) for key in ("name", "kind", "effect", "config")}}],
            "arcs": [[*arc, False, [], []] for arc in step["arcs"]],
        }
        for step in steps
    ]
    return {**body, "version": 2, "steps": made, "entry": 0, "final": None, "arc_needed": False}


def _from_version_2(body: dict[str, Any]) -> dict[str, Any]:
    """What version 3 added, at the values that mean what version 2 meant."""
    task: dict[str, Any] = {"access": None, "auth": None}
    steps = field_of(body, "steps", list)
    expect(all(type(step) is dict and type(step.get("tasks")) is list for step in steps), "a step is no map")
    made = [
        {**step, "tasks": [{**each, **task} if type(each) is dict else each for each in step["tasks"]]}
        for step in steps
    ]
    return {**body, "version": VERSION, "steps": made}


def encode_blueprint(body: Mapping[str, Any]) -> bytes:
    """Canonical bytes of a blueprint's body, as `compile` builds it."""
    return encode_canonical({"version": VERSION, **body})


def _canonical(body: Any) -> bytes:
    try:
        return encode_canonical(body)
    except TypeError as error:
        raise ValueError(f"not a blueprint: {error}") from error
