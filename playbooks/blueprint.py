"""The compiled form of a playbook: what the log keeps and what runs.

Read by the scheduler and the workers; made by `playbooks.compile`. Its bytes are canonical CBOR and their
SHA-256 is the playbook's identity. Imports no YAML, no Jinja2, no pydantic. `Blueprint.decode` checks the
whole shape, so that nobody after it has to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from edge.core.codec import decode, encode_canonical
from edge.core.limits import (
    BLUEPRINT_BYTES_MAX,
    PLAYBOOK_PATH_BYTES_MAX,
    PLAYBOOK_STEPS_MAX,
    STEP_MEMORY_MB_MAX,
    STEP_MEMORY_MB_MIN,
    STEP_TIMEOUT_MS_MAX,
)
from playbooks.graph import back_arcs, reached
from playbooks.nodes import Prepared
from playbooks.run import Line, straight_line

VERSION: Final = 2
KINDS: Final = ("arrow", "noop", "python", "transform")
EFFECTS: Final = ("pure", "read", "write")
ON_UNKNOWN: Final = ("fail", "retry", "ask")
MODES: Final = ("exclusive", "inclusive")
NO_MATCH: Final = ("complete", "quiet")
FAILURE: Final = ("fail_fast", "best_effort")

#: Keys of a step's config that are template trees; everything else in a config is plain data.
CONFIG_TREES: Final[Mapping[str, tuple[str, ...]]] = {
    "arrow": ("table",),
    "noop": (),
    "python": (),
    "transform": ("value",),
}


@dataclass(frozen=True, slots=True)
class Arc:
    """One way on, to the step at index `target`.

    It is taken where `when` holds (None: always) after the step is done; where `on_failure`, also after it failed if
    `when_failed` holds. `set` are `(ctx name, tree)` and `args` `(name, tree)`, evaluated when it is taken. `back` is
    true where the arc closes a circle.
    """

    target: int
    when: Prepared | None
    on_failure: bool
    when_failed: Prepared | None
    set: tuple[tuple[str, Prepared], ...]
    args: tuple[tuple[str, Prepared], ...]
    back: bool


@dataclass(frozen=True, slots=True)
class AdmitRule:
    """One admission rule: `allow` where `when` holds (None: always)."""

    when: Prepared | None
    allow: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    `input` is a template tree giving a map, or None. `config` is the tool's own (trees in it are prepared:
    CONFIG_TREES). `set` are `(ctx name, tree)`, all evaluated before any is applied. Of its `arcs` the first that
    holds is taken, or all that hold where `inclusive`; `quiet` says that a branch which ends here for want of one
    gives no answer. `admit` are the rules asked before it starts (None: always), `best_effort` that its failure does
    not end the execution. `reads` are the names of the steps whose results its templates mention; `reads_workload`,
    `reads_ctx` and `reads_output` say the same of those. `run` is how many following steps one claim may carry on
    with.
    """

    name: str
    kind: str
    effect: str
    on_unknown: str
    timeout_ms: int
    memory_mb: int
    input: Prepared | None
    config: dict[str, Any]
    set: tuple[tuple[str, Prepared], ...]
    arcs: tuple[Arc, ...]
    inclusive: bool
    quiet: bool
    admit: tuple[AdmitRule, ...] | None
    best_effort: bool
    reads: tuple[str, ...]
    reads_workload: bool
    reads_ctx: bool
    reads_output: bool
    run: int

    @property
    def goes_on_plainly(self) -> bool:
        """True where nothing has to be evaluated to know that the first arc is taken, and it alone."""
        if not self.arcs or self.set:
            return False
        first = self.arcs[0]
        plain = first.when is None and not first.set and not first.args
        return plain and (not self.inclusive or len(self.arcs) == 1)


@dataclass(frozen=True, slots=True)
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
    steps: tuple[Step, ...]
    step_index: dict[str, int]
    entry: int
    final: int | None
    arc_needed: bool
    #: Bit j of element i: step i leads to step j by arcs leading forward.
    reach: tuple[int, ...]

    def leads_to(self, step: int, other: int) -> bool:
        """Whether a token at `step` can come to `other` by arcs leading forward."""
        return bool(self.reach[step] >> other & 1)

    @classmethod
    def decode(cls, data: bytes) -> Blueprint:
        """Read a blueprint's bytes. Raises ValueError where they are not one."""
        if len(data) > BLUEPRINT_BYTES_MAX:
            raise ValueError(f"a blueprint has at most {BLUEPRINT_BYTES_MAX} bytes, this has {len(data)}")
        body = decode(data)
        _expect(isinstance(body, dict) and body.get("version") in (1, VERSION), "not of a version known here")
        _expect(_canonical(body) == data, "its bytes are not canonical")
        if body["version"] == 1:
            body = _from_version_1(body)
        path, name = _field(body, "path", str), _field(body, "name", str)
        _expect(0 < len(path.encode()) <= PLAYBOOK_PATH_BYTES_MAX, "path")
        raw_steps = _field(body, "steps", list)
        _expect(0 < len(raw_steps) <= PLAYBOOK_STEPS_MAX, "number of steps")
        entry = _limited(body, "entry", 0, len(raw_steps) - 1)
        final = None if body.get("final") is None else _limited(body, "final", 0, len(raw_steps) - 1)
        targets = [_targets(raw, len(raw_steps)) for raw in raw_steps]
        back = back_arcs(targets, entry)
        steps = tuple(
            _step(raw, len(raw_steps), {arc for step, arc in back if step == position})
            for position, raw in enumerate(raw_steps)
        )
        index = {step.name: position for position, step in enumerate(steps)}
        _expect(len(index) == len(steps), "a step's name stands twice")
        lines = [line_of(step) for step in steps]
        for position, step in enumerate(steps):
            _expect(step.run == straight_line(lines, position), f"run of step {step.name}")
            _expect(all(read in index for read in step.reads), f"reads of step {step.name}")
        return cls(
            hashlib.sha256(data).digest(),
            bytes(data),
            path,
            name,
            _field(body, "workload", dict),
            steps,
            index,
            entry,
            final,
            _field(body, "arc_needed", bool),
            reached(targets, back),
        )


def line_of(step: Step) -> Line:
    """What `straight_line` wants to know of a step."""
    plain = not step.set and not any(arc.set or arc.args for arc in step.arcs)
    return Line(
        step.effect, plain, step.admit is not None, [(arc.target, arc.when is None) for arc in step.arcs]
    )


def _from_version_1(body: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had one token only: exclusive arcs without anything on them, no admission, every failure the end."""
    added = {
        "mode": "exclusive",
        "no_match": "complete",
        "failure": "fail_fast",
        "admit": None,
        "reads_output": False,
    }
    steps = _field(body, "steps", list)
    _expect(all(type(step) is dict and type(step.get("arcs")) is list for step in steps), "a step is no map")
    _expect(all(len(arc) == 2 for step in steps for arc in step["arcs"] if type(arc) is list), "arcs")
    steps = [{**step, **added, "arcs": [[*arc, False, [], []] for arc in step["arcs"]]} for step in steps]
    return {**body, "steps": steps, "entry": 0, "final": None, "arc_needed": False}


def encode_blueprint(body: Mapping[str, Any]) -> bytes:
    """Canonical bytes of a blueprint's body, as `compile` builds it."""
    return encode_canonical({"version": VERSION, **body})


def _canonical(body: Any) -> bytes:
    try:
        return encode_canonical(body)
    except TypeError as error:
        raise ValueError(f"not a blueprint: {error}") from error


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"not a blueprint: {what}")


_T = TypeVar("_T")


def _field(body: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
    value = body.get(key)
    if type(value) is not kind:
        raise ValueError(f"not a blueprint: {key} is {type(value).__name__}")
    return value


def _limited(body: Mapping[str, Any], key: str, least: int, most: int) -> int:
    value = _field(body, key, int)
    _expect(least <= value <= most, key)
    return value


def _one_of(body: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    value = _field(body, key, str)
    _expect(value in allowed, f"{key} {value!r:.40}")
    return value


def _targets(raw: Any, step_count: int) -> list[int]:
    _expect(type(raw) is dict, "a step is no map")
    targets = [arc[0] if type(arc) is list and len(arc) == 5 else None for arc in _field(raw, "arcs", list)]
    _expect(
        all(type(target) is int and 0 <= target < step_count for target in targets), "an arc leads nowhere"
    )
    return [target for target in targets if target is not None]


def _step(raw: dict[str, Any], step_count: int, back: set[int]) -> Step:
    kind = _one_of(raw, "kind", KINDS)
    config: dict[str, Any] = dict(_field(raw, "config", dict))
    for key in CONFIG_TREES[kind]:
        config[key] = Prepared(_field(config, key, list))
    return Step(
        name=_field(raw, "name", str),
        kind=kind,
        effect=_one_of(raw, "effect", EFFECTS),
        on_unknown=_one_of(raw, "on_unknown", ON_UNKNOWN),
        timeout_ms=_limited(raw, "timeout_ms", 1, STEP_TIMEOUT_MS_MAX),
        memory_mb=_limited(raw, "memory_mb", STEP_MEMORY_MB_MIN, STEP_MEMORY_MB_MAX),
        input=None if raw.get("input") is None else Prepared(_field(raw, "input", list)),
        config=config,
        set=_pairs(raw, "set", lambda name, tree: (_text(name), Prepared(tree))),
        arcs=tuple(_arc(arc, place in back) for place, arc in enumerate(_field(raw, "arcs", list))),
        inclusive=_one_of(raw, "mode", MODES) == "inclusive",
        quiet=_one_of(raw, "no_match", NO_MATCH) == "quiet",
        admit=None
        if raw.get("admit") is None
        else _pairs(raw, "admit", lambda when, allow: AdmitRule(_condition(when), _flag(allow))),
        best_effort=_one_of(raw, "failure", FAILURE) == "best_effort",
        reads=tuple(_text(name) for name in _field(raw, "reads", list)),
        reads_workload=_field(raw, "reads_workload", bool),
        reads_ctx=_field(raw, "reads_ctx", bool),
        reads_output=_field(raw, "reads_output", bool),
        run=_limited(raw, "run", 0, step_count - 1),
    )


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("not a blueprint: a name is no text")
    return value


def _flag(value: Any) -> bool:
    _expect(type(value) is bool, "neither true nor false")
    return bool(value)


def _condition(when: Any) -> Prepared | None:
    return None if when is None else Prepared(when)


def _arc(raw: list[Any], back: bool) -> Arc:
    """`[target, when, failed, set, args]`; `failed` is false, true, or the condition that holds after a failure."""
    target, when, failed, sets, args = raw
    return Arc(
        target,
        _condition(when),
        failed is not False,
        None if type(failed) is bool else Prepared(failed),
        _named_trees(sets),
        _named_trees(args),
        back,
    )


def _named_trees(raw: Any) -> tuple[tuple[str, Prepared], ...]:
    return _pairs({"set": raw}, "set", lambda name, tree: (_text(name), Prepared(tree)))


def _pairs(raw: Mapping[str, Any], key: str, build: Callable[[Any, Any], _T]) -> tuple[_T, ...]:
    made = []
    for pair in _field(raw, key, list):
        _expect(type(pair) is list and len(pair) == 2, key)
        made.append(build(pair[0], pair[1]))
    return tuple(made)
