"""The parts of a blueprint: steps, tasks, arcs and rules, and how each is read from plain data.

Owned by `playbooks.blueprint`, which reads the whole; the compiler takes the closed sets of words from here. Every
part is checked in full when it is read, so that nobody after it has to. Imports no YAML, no Jinja2, no pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from edge.core.access import NOTHING, Access, union
from edge.core.circuits import Breaker
from edge.core.limits import (
    EXECUTIONS_OPEN_MAX,
    LOOP_IN_FLIGHT,
    RETRY_ATTEMPTS_MAX,
    STEP_MEMORY_MB_MAX,
    STEP_MEMORY_MB_MIN,
    STEP_TASKS_MAX,
    STEP_TIMEOUT_MS_MAX,
    WAIT_S_MAX,
)
from edge.core.records import record
from playbooks.blueprint_fields import expect, field_of, limited, one_of, optional, text_value
from playbooks.frames import Frames, frames_of
from playbooks.nodes import Prepared
from playbooks.outputs import Accumulate, Output, output_of, together

#: The kind that begins another playbook.
CHILD: Final = "playbook"
#: Kinds whose outcome comes from outside the workers, and whether they are told the task's inputs
#: (`edge.runtime.waiting.hosted`). A step with such a task is always a pipeline.
HOSTED: Final[Mapping[str, bool]] = {"mqtt": False, CHILD: True, "wait": False}
EFFECTS: Final = ("pure", "read", "write")
ON_UNKNOWN: Final = ("fail", "retry", "ask")
MODES: Final = ("exclusive", "inclusive")
NO_MATCH: Final = ("complete", "quiet")
FAILURE: Final = ("fail_fast", "best_effort")

LOOP_MODES: Final = ("sequential", "parallel", "cursor")
DIRECTIVES: Final = ("continue", "retry", "jump", "break", "fail")
BACKOFF: Final = ("none", "linear", "exponential")

#: Keys of a step's config that are template trees, null where they are left out and may be; everything else in a
#: config is plain data.
CONFIG_TREES: Final[Mapping[str, tuple[str, ...]]] = {
    "arrow": ("table",),
    "http": ("request",),
    "mqtt": ("message",),
    "noop": (),
    "playbook": ("path", "payload"),
    "python": (),
    "shell": ("request",),
    "sql": ("params", "bound"),
    "transform": ("value",),
    "wait": ("seconds", "until"),
}
KINDS: Final = tuple(CONFIG_TREES)
#: Kinds of other packages: what they may be called, and the one tree of their config.
FOREIGN_KIND: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")
FOREIGN_TREES: Final = ("keys",)
#: Of those, the ones that may be left out.
CONFIG_OPTIONAL: Final[Mapping[str, tuple[str, ...]]] = {
    "playbook": ("payload",),
    "wait": ("seconds", "until"),
}
AFTER_POWER_LOSS: Final = ("fire", "restart", "fail")


@record
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


@record
class AdmitRule:
    """One admission rule: `allow` where `when` holds (None: always)."""

    when: Prepared | None
    allow: bool


@record
class Rule:
    """One rule of a task's policy: what to do where `when` holds (None: always).

    `do` is one of DIRECTIVES. A retry runs the task up to `attempts` times in all, `delay` (a tree giving seconds, or
    None) apart, more with each attempt as `backoff` says. `to` is the task a jump goes to. `ctx` and `iter` are
    `(name, tree)`, what the rule writes.
    """

    when: Prepared | None
    do: str
    attempts: int
    backoff: str
    delay: Prepared | None
    to: int
    ctx: tuple[tuple[str, Prepared], ...]
    iter: tuple[tuple[str, Prepared], ...]


@record
class Task:
    """One tool of a step's pipeline.

    `input` is a template tree giving a map that goes over the step's own, or None. `config` is the tool's own (trees
    in it are prepared: CONFIG_TREES). `access` is what it may touch outside, `auth` a tree that names an alias of the
    keychain, or None. `rules` are its policy, None where it has none: then success goes on and failure fails. Where
    no rule holds the pipeline goes on, or fails where `unmatched_fails`. `output` says what becomes of its result.
    """

    name: str
    kind: str
    effect: str
    input: Prepared | None
    config: dict[str, Any]
    rules: tuple[Rule, ...] | None
    unmatched_fails: bool
    output: Output
    access: Access
    #: The circuit breaker around its calls: failures in a row that open it, milliseconds until one may try.
    breaker: Breaker | None
    auth: Prepared | None

    @property
    def calls_back(self) -> bool:
        """Whether it waits for a callback."""
        return self.kind == "wait" and self.config.get("callback") is True


@record
class Loop:
    """A step's repetition: `items` is a tree giving a list, `iterator` what its tools call an item.

    Where not `parallel`, an item begins when the one before it has its outcome; `max_in_flight` bounds the claims out
    at once, None leaves that to the runtime. A `cursor` runs over a table, by `frames`.
    """

    items: Prepared
    iterator: str
    parallel: bool
    max_in_flight: int | None
    cursor: bool
    frames: Frames

    @property
    def in_flight_max(self) -> int:
        """How many items may be under way at once, those that rest included."""
        return (self.max_in_flight or LOOP_IN_FLIGHT) if self.parallel else 1


@record
class Step:
    """One step.

    `input` is a template tree giving a map, or None; `tasks` are its tools, in order, run once or for each item of
    its `loop`. Its `effect` is the strongest of theirs; `timeout_ms` and `memory_mb` are for one claim, `deadline_ms`
    for all of it. `set` are `(ctx name, tree)`, all evaluated before any is applied. Of its `arcs` the first that
    holds is taken, or all that hold where `inclusive`; `quiet` says that a branch which ends here for want of one
    gives no answer. `admit` are the rules asked before it starts (None: always), `best_effort` that its failure does
    not end the execution. `reads` are the names of the steps whose results its templates mention; `reads_workload`,
    `reads_ctx`, `reads_output`, `reads_iter` say it of those. `run` is how many following steps one claim
    may carry on with.
    """

    name: str
    effect: str
    on_unknown: str
    timeout_ms: int
    deadline_ms: int | None
    memory_mb: int
    input: Prepared | None
    tasks: tuple[Task, ...]
    loop: Loop | None
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
    reads_iter: bool
    run: int
    #: What its tasks are granted together: one process runs them all.
    access: Access
    #: More than one tool runs, a policy says what follows an outcome, or that comes from outside the workers.
    pipeline: bool
    #: A pipeline that may have to stop before its end: for an effect's intent, a pause, a hosted task.
    may_pause: bool
    #: One of its tasks waits for a callback, so its tools get a token for it.
    calls_back: bool
    #: Nothing has to be evaluated to know that the first arc is taken, and it alone.
    goes_on_plainly: bool
    #: What its tools say of its result.
    output: Output
    #: Its result is truth: the log or the blob store holds it.
    kept: bool
    #: How the results of its loop's items become one, None where they stay a list.
    joins: Accumulate | None


_T = TypeVar("_T")


def targets_of(raw: Any, step_count: int) -> list[int]:
    """Where a raw step's arcs lead, before the step is read. Raises ValueError."""
    expect(type(raw) is dict, "a step is no map")
    targets = [arc[0] if type(arc) is list and len(arc) == 5 else None for arc in field_of(raw, "arcs", list)]
    expect(
        all(type(target) is int and 0 <= target < step_count for target in targets), "an arc leads nowhere"
    )
    return [target for target in targets if target is not None]


def step_of(raw: dict[str, Any], step_count: int, back: set[int]) -> Step:
    """One step from plain data; `back` are its arcs that close circles. Raises ValueError."""
    raw_tasks = field_of(raw, "tasks", list)
    expect(0 < len(raw_tasks) <= STEP_TASKS_MAX, "number of tasks")
    tasks = tuple(_task(task, len(raw_tasks)) for task in raw_tasks)
    arcs = tuple(_arc(arc, place in back) for place, arc in enumerate(field_of(raw, "arcs", list)))
    sets = _pairs(raw, "set", lambda name, tree: (text_value(name), Prepared(tree)))
    inclusive = one_of(raw, "mode", MODES) == "inclusive"
    pipeline = is_pipeline([(task.kind, task.rules is not None) for task in tasks])
    output = together(tuple(task.output for task in tasks))
    first = arcs[0] if arcs and not sets and (not inclusive or len(arcs) == 1) else None
    return Step(
        name=field_of(raw, "name", str),
        effect=one_of(raw, "effect", EFFECTS),
        on_unknown=one_of(raw, "on_unknown", ON_UNKNOWN),
        timeout_ms=limited(raw, "timeout_ms", 1, STEP_TIMEOUT_MS_MAX),
        deadline_ms=optional(raw, "deadline_ms", WAIT_S_MAX * 1_000),
        memory_mb=limited(raw, "memory_mb", STEP_MEMORY_MB_MIN, STEP_MEMORY_MB_MAX),
        input=_tree(raw, "input"),
        tasks=tasks,
        loop=_loop(raw.get("loop")),
        set=sets,
        arcs=arcs,
        inclusive=inclusive,
        quiet=one_of(raw, "no_match", NO_MATCH) == "quiet",
        admit=None
        if raw.get("admit") is None
        else _pairs(raw, "admit", lambda when, allow: AdmitRule(_condition(when), _flag(allow))),
        best_effort=one_of(raw, "failure", FAILURE) == "best_effort",
        reads=tuple(text_value(name) for name in field_of(raw, "reads", list)),
        reads_workload=field_of(raw, "reads_workload", bool),
        reads_ctx=field_of(raw, "reads_ctx", bool),
        reads_output=field_of(raw, "reads_output", bool),
        reads_iter=raw.get("reads_iter") is True,
        run=limited(raw, "run", 0, step_count - 1),
        access=union(task.access for task in tasks),
        pipeline=pipeline,
        calls_back=any(task.calls_back for task in tasks),
        may_pause=pipeline and any(_may_pause(task) for task in tasks),
        goes_on_plainly=first is not None and first.when is None and not first.set and not first.args,
        output=output,
        joins=None if pipeline else tasks[0].output.accumulate,
        kept=output.recorded or raw.get("effect") != "pure",
    )


def is_pipeline(tasks: Sequence[tuple[str, bool]]) -> bool:
    """Whether tools, given as `(kind, has rules)`, are run as a pipeline."""
    return len(tasks) > 1 or tasks[0][1] or tasks[0][0] in HOSTED


def _may_pause(task: Task) -> bool:
    return (
        task.effect == "write"
        or task.kind in HOSTED
        or any(rule.delay is not None for rule in task.rules or ())
    )


def _loop(raw: Any) -> Loop | None:
    if raw is None:
        return None
    expect(type(raw) is dict, "a loop is no map")
    return Loop(
        Prepared(field_of(raw, "in", list)),
        field_of(raw, "iterator", str),
        one_of(raw, "mode", LOOP_MODES) != "sequential",
        optional(raw, "max_in_flight", EXECUTIONS_OPEN_MAX),
        raw.get("mode") == "cursor",
        frames_of(raw.get("frames")),
    )


def _task(raw: Any, task_count: int) -> Task:
    expect(type(raw) is dict, "a task is no map")
    kind = field_of(raw, "kind", str)
    expect(kind in CONFIG_TREES or FOREIGN_KIND.fullmatch(kind) is not None, f"kind {kind!r:.40}")
    config: dict[str, Any] = dict(field_of(raw, "config", dict))
    for key in CONFIG_TREES.get(kind, FOREIGN_TREES):
        if config.get(key) is not None or key not in CONFIG_OPTIONAL.get(kind, ()):
            config[key] = Prepared(field_of(config, key, list))
    expect(kind not in HOSTED or raw.get("effect") != "pure", "a hosted task that is pure")
    return Task(
        name=field_of(raw, "name", str),
        kind=kind,
        effect=one_of(raw, "effect", EFFECTS),
        input=_tree(raw, "input"),
        config=config,
        rules=None
        if raw.get("rules") is None
        else tuple(_rule(rule, task_count) for rule in field_of(raw, "rules", list)),
        unmatched_fails=field_of(raw, "unmatched_fails", bool),
        output=output_of(raw.get("output")),
        access=NOTHING if raw.get("access") is None else Access.of(raw["access"]),
        breaker=None if raw.get("breaker") is None else Breaker.of(raw["breaker"]),
        auth=_tree(raw, "auth"),
    )


def _rule(raw: Any, task_count: int) -> Rule:
    expect(type(raw) is dict, "a rule is no map")
    return Rule(
        when=_tree(raw, "when"),
        do=one_of(raw, "do", DIRECTIVES),
        attempts=limited(raw, "attempts", 1, RETRY_ATTEMPTS_MAX),
        backoff=one_of(raw, "backoff", BACKOFF),
        delay=_tree(raw, "delay"),
        to=limited(raw, "to", 0, task_count - 1),
        ctx=_named_trees(raw.get("ctx")),
        iter=_named_trees(raw.get("iter")),
    )


def _tree(raw: Mapping[str, Any], key: str) -> Prepared | None:
    return None if raw.get(key) is None else Prepared(field_of(raw, key, list))


def _flag(value: Any) -> bool:
    expect(type(value) is bool, "neither true nor false")
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
    return _pairs({"set": raw}, "set", lambda name, tree: (text_value(name), Prepared(tree)))


def _pairs(raw: Mapping[str, Any], key: str, build: Callable[[Any, Any], _T]) -> tuple[_T, ...]:
    made = []
    for pair in field_of(raw, key, list):
        expect(type(pair) is list and len(pair) == 2, key)
        made.append(build(pair[0], pair[1]))
    return tuple(made)
