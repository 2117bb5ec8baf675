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
from playbooks.nodes import Prepared
from playbooks.run import straight_line

VERSION: Final = 1
KINDS: Final = ("arrow", "noop", "python", "transform")
EFFECTS: Final = ("pure", "read", "write")
ON_UNKNOWN: Final = ("fail", "retry", "ask")

#: Keys of a step's config that are template trees; everything else in a config is plain data.
CONFIG_TREES: Final[Mapping[str, tuple[str, ...]]] = {
    "arrow": ("table",),
    "noop": (),
    "python": (),
    "transform": ("value",),
}


@dataclass(frozen=True, slots=True)
class Arc:
    """One way on: to the step at index `target`, where `when` holds (None: always)."""

    target: int
    when: Prepared | None


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    `input` is a template tree giving a map, or None. `config` is the tool's own (trees in it are prepared:
    CONFIG_TREES). `set` are `(ctx name, tree)`, all evaluated before any is applied. `reads` are the names of
    the steps whose results its templates mention; `reads_workload` and `reads_ctx` say the same of those two.
    `run` is how many following steps one claim may carry on with.
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
    reads: tuple[str, ...]
    reads_workload: bool
    reads_ctx: bool
    run: int


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A compiled playbook. `digest` is SHA-256 of `data`; `step_index` finds a step by name."""

    digest: bytes
    data: bytes
    path: str
    name: str
    workload: dict[str, Any]
    steps: tuple[Step, ...]
    step_index: dict[str, int]

    @classmethod
    def decode(cls, data: bytes) -> Blueprint:
        """Read a blueprint's bytes. Raises ValueError where they are not one."""
        if len(data) > BLUEPRINT_BYTES_MAX:
            raise ValueError(f"a blueprint has at most {BLUEPRINT_BYTES_MAX} bytes, this has {len(data)}")
        body = decode(data)
        _expect(isinstance(body, dict) and body.get("version") == VERSION, "not a blueprint of this version")
        _expect(_canonical(body) == data, "its bytes are not canonical")
        path, name = _field(body, "path", str), _field(body, "name", str)
        _expect(0 < len(path.encode()) <= PLAYBOOK_PATH_BYTES_MAX, "path")
        raw_steps = _field(body, "steps", list)
        _expect(0 < len(raw_steps) <= PLAYBOOK_STEPS_MAX, "number of steps")
        steps = tuple(_step(raw, len(raw_steps)) for raw in raw_steps)
        index = {step.name: position for position, step in enumerate(steps)}
        _expect(len(index) == len(steps), "a step's name stands twice")
        lines = [
            (step.effect, bool(step.set), [(arc.target, arc.when is None) for arc in step.arcs])
            for step in steps
        ]
        for position, step in enumerate(steps):
            _expect(step.run == straight_line(lines, position), f"run of step {step.name}")
            _expect(all(read in index for read in step.reads), f"reads of step {step.name}")
        digest = hashlib.sha256(data).digest()
        return cls(digest, bytes(data), path, name, _field(body, "workload", dict), steps, index)


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


def _step(raw: Any, step_count: int) -> Step:
    _expect(type(raw) is dict, "a step is no map")
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
        arcs=_pairs(raw, "arcs", lambda target, when: _arc(target, when, step_count)),
        reads=tuple(_text(name) for name in _field(raw, "reads", list)),
        reads_workload=_field(raw, "reads_workload", bool),
        reads_ctx=_field(raw, "reads_ctx", bool),
        run=_limited(raw, "run", 0, step_count - 1),
    )


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("not a blueprint: a name is no text")
    return value


def _arc(target: Any, when: Any, step_count: int) -> Arc:
    _expect(type(target) is int and 0 <= target < step_count, "an arc leads nowhere")
    return Arc(target, None if when is None else Prepared(when))


def _pairs(raw: Mapping[str, Any], key: str, build: Callable[[Any, Any], _T]) -> tuple[_T, ...]:
    made = []
    for pair in _field(raw, key, list):
        _expect(type(pair) is list and len(pair) == 2, key)
        made.append(build(pair[0], pair[1]))
    return tuple(made)
