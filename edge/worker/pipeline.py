"""A step's pipeline: its tasks in order, each outcome led on by the task's policy.

Called by the worker's loop. The only control inside a step: continue, retry, jump, break, fail. It keeps nothing: a
pipeline that has to stop before its end (a pause before an attempt, the intent of an effect, a hosted task, whose
outcome comes from outside) says so, and whoever claims it again gives it the recorded outcomes of its `read` and
`write` tasks, which it takes in place of running them; what is pure it runs again to the same end.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge.core.codec import decode
from edge.core.errors import CacheMiss, EdgeError, EvaluationFailed, ToolFailed
from edge.core.limits import ACCUMULATED_BYTES_MAX, PIPELINE_BYTES_MAX, RETRY_DELAY_S_MAX, TASK_RUNS_MAX
from edge.core.routing import envelope
from edge.core.values import BlockRef, TableRef, ValueRef
from edge.worker.claims import Callbacks, TaskRecord
from edge.worker.keeping import encoded
from playbooks.deferred import Deferred
from playbooks.evaluate import render, truth
from playbooks.outputs import accumulated, seen_with, selected
from playbooks.shape import HOSTED, Rule, Task

Invoke = Callable[[int, Task, Mapping[str, Any]], Any]
"""Runs one task, by number of invocation, with names on top of the step's scope; its plain value or table reference.
Raises EdgeError. Of a hosted task it gives the evaluated config."""

Keep = Callable[[int, Task, Any], "bytes | BlockRef"]
"""Puts a plain value that is to be recorded where it belongs. Raises EdgeError."""

_GO_ON: Final = "continue"


@dataclass(slots=True)
class Pause:
    """The pipeline stops before invocation `number`: for `wait_ms`, or (None) until its intent is durable.

    Where that is of a `hosted` task, `[kind, name, evaluated config]`: until the runtime has its outcome.
    """

    number: int
    wait_ms: int | None = None
    hosted: list[Any] | None = None


@dataclass(slots=True)
class Finished:
    """The pipeline's end: `value`, or the `problem` that failed it; `held` is the value's block where it has one."""

    value: Any = None
    problem: dict[str, Any] | None = None
    held: BlockRef | None = None


@dataclass(slots=True)
class _Outcome:
    """One invocation's value or problem, how long it took, and where a recorded value is kept."""

    value: Any = None
    problem: dict[str, Any] | None = None
    took_ms: int = 0
    held: bytes | BlockRef | None = None


@dataclass(slots=True)
class Pipeline:
    """One run of a step's tasks."""

    tasks: tuple[Task, ...]
    base: dict[str, Any]
    ctx: dict[str, Any]
    invoke: Invoke
    keep: Keep
    #: A large value that was recorded, as templates see it.
    fetch_later: Callable[[ValueRef], Deferred]
    #: Recorded outcomes of earlier goes, by the number of the invocation.
    recorded: dict[int, TaskRecord]
    #: Pauses before invocations up to this number were served; so were those before what is recorded.
    waited: int
    #: The invocation whose intent is durable, None where none is.
    intended: int | None
    iter: dict[str, Any] = field(default_factory=dict)
    callbacks: Callbacks | None = None
    #: What this go adds to the record, and what its rules wrote to ctx.
    records: list[TaskRecord] = field(default_factory=list)
    patches: dict[str, Any] = field(default_factory=dict)
    last_number: int = 0
    _names: dict[str, Any] = field(default_factory=dict)
    #: The inputs of the task whose rules are asked.
    _own: dict[str, Any] = field(default_factory=dict)
    _accumulated_bytes: int = 0
    _recorded_bytes: int = 0

    def run(self) -> Finished | Pause:
        """Run to the end or to the next pause. Raises CacheMiss, which ends the go without an outcome."""
        place, attempt, previous, calls = 0, 1, None, 0
        self._recorded_bytes = sum([known.size_bytes for known in self.recorded.values()])
        for number in range(TASK_RUNS_MAX):
            task, self.last_number = self.tasks[place], number
            hosted = task.kind in HOSTED and number not in self.recorded
            ahead = task.effect == "write" and not hosted  # the runtime sees to the intent of a hosted one
            if ahead and number not in self.recorded and self.intended != number:
                return Pause(number)
            self._names |= {"_prev": previous, "_task": task.name, "_attempt": attempt, "iter": self.iter}
            self._name_callback(calls)
            self._own = {}
            made = self._outcome(number, task)
            problem = made.problem
            # Also where its config could not be evaluated: every outcome of a hosted task comes from one side.
            if hosted:
                config = made.value if problem is None else {"problem": problem}
                return Pause(number, hosted=[task.kind, task.name, {**config, "round": calls}])
            if self._recorded_bytes > PIPELINE_BYTES_MAX:
                return Finished(problem=_too_much_problem(task.name))
            try:
                if task.output.accumulate is not None:
                    self._accumulate(task, made)
                do, rule = self._directive(task, made, attempt)
                if rule is not None:
                    self._write(rule)
                    delay_ms = self._delay_ms(rule, attempt) if do == "retry" else 0
            except EdgeError as error:
                return Finished(problem=error.problem())
            if do == "retry" and delay_ms:
                served = number < self.waited or number < max(self.recorded, default=0)
                if not served:
                    return Pause(number + 1, delay_ms)
            if do == "fail":
                return Finished(problem=problem if problem is not None else _failed_by_rule(task))
            if do == "retry":
                attempt += 1
                continue
            calls += task.calls_back
            value = made.value
            self._names[task.name] = previous = (
                value if type(value) is Deferred else seen_with(task.output, value)
            )
            attempt = 1
            place = rule.to if do == "jump" and rule is not None else place + 1
            if do == "break" or place >= len(self.tasks):
                return Finished(value, held=None if isinstance(made.held, bytes) else made.held)
        return Finished(problem=_endless_problem())

    def _name_callback(self, calls: int) -> None:
        """The token of the next wait for a callback, by the number of those left behind."""
        if self.callbacks is not None:
            token = self.callbacks.tokens[calls]
            self._names["callback"] = {"token": token, "topic": f"{self.callbacks.topic}/{token}"}

    def _outcome(self, number: int, task: Task) -> _Outcome:
        """A task's value or problem: from the record, or by running it."""
        known = self.recorded.get(number)
        if known is not None:
            if known.task != task.name:
                return _Outcome(problem=_diverged_problem(task.name, known.task))
            held = known.table if known.value is None else known.value
            return _Outcome(self._value_of(known), known.problem, known.duration_us // 1000, held)
        started_ns = time.perf_counter_ns()
        made = _Outcome()
        try:
            value = self.invoke(number, task, {**self._names, "ctx": {**self.ctx, **self.patches}})
            if type(value) is TableRef:
                made.held = value
            elif task.kind in HOSTED:
                made.held = encoded(_without_tables(value), task.name)
            elif task.effect == "pure":
                made.held = encoded(value, task.name)
            else:
                made.held = self.keep(number, task, value)
            made.value = value
        except CacheMiss:
            raise
        except EdgeError as error:
            made.problem = error.problem()
        except MemoryError:
            made.problem = memory_problem(task.name)
        duration_us = (time.perf_counter_ns() - started_ns) // 1000
        made.took_ms = duration_us // 1000
        if task.effect != "pure" and task.kind not in HOSTED:
            held = made.held
            data, block = (held, None) if isinstance(held, bytes) else (None, held)
            record = TaskRecord(number, task.name, data, block, made.problem, duration_us)
            self.records.append(record)
            self._recorded_bytes += record.size_bytes
        return made

    def _value_of(self, known: TaskRecord) -> Any:
        if known.problem is not None:
            return None
        if type(known.table) is ValueRef:
            return self.fetch_later(known.table)
        return known.table if known.value is None else decode(known.value)

    def _accumulate(self, task: Task, made: _Outcome) -> None:
        """Add an outcome to what the task accumulates in `iter`. Raises ToolFailed."""
        how = task.output.accumulate
        assert how is not None, task.name
        if not (how.on_success if made.problem is None else how.on_error):
            return
        value = made.value if made.problem is None else made.problem
        if type(value) is TableRef:
            raise ToolFailed(
                f"Task {task.name} accumulates values, and was given a table.",
                mend="Return rows (output: rows), or collect tables by a loop.",
                code="accumulate_failed",
            )
        held = made.held
        self._accumulated_bytes += len(held) if isinstance(held, bytes) else getattr(held, "size_bytes", 0)
        if self._accumulated_bytes > ACCUMULATED_BYTES_MAX:
            raise ToolFailed(
                f"Task {task.name} accumulates more than {ACCUMULATED_BYTES_MAX} bytes.",
                mend="Keep less of each result, or end earlier.",
                code="accumulate_failed",
            )
        whole = value.value() if type(value) is Deferred else value
        self.iter = {**self.iter, how.name: accumulated(how, self.iter.get(how.name), whole)}

    def _directive(self, task: Task, made: _Outcome, attempt: int) -> tuple[str, Rule | None]:
        """What the policy says to do, and the rule that says it. Raises EvaluationFailed."""
        problem = made.problem
        if task.rules is None:
            return (_GO_ON if problem is None else "fail"), None
        parts = {"meta": {"attempt": attempt, "duration_ms": made.took_ms, "task": task.name}}
        if problem is None and type(made.value) not in (Deferred, TableRef):
            parts |= selected(task.output, made.value)
        if task.input is not None:
            with contextlib.suppress(
                EvaluationFailed
            ):  # then it is the outcome that the rules are asked about
                self._own = render(task.input, self._scope())
        self._names["output"] = envelope(made.value, problem, parts)
        scope = self._scope()
        for rule in task.rules:
            if rule.when is None or truth(rule.when, scope):
                # A retry that is used up leaves the outcome as it is.
                if rule.do == "retry" and attempt >= rule.attempts:
                    return ("fail" if problem is not None else _GO_ON), None
                return rule.do, rule
        return ("fail" if task.unmatched_fails else _GO_ON), None

    def _scope(self) -> dict[str, Any]:
        """What a rule sees: all its tool saw, and the outcome."""
        scope = {**self.base, **self._own, **self._names, "ctx": {**self.ctx, **self.patches}}
        if self._own:
            scope["args"] = scope["input"] = scope["input_data"] = {**self.base["args"], **self._own}
        return scope

    def _write(self, rule: Rule) -> None:
        """Apply what a rule sets; all of it is evaluated before any is applied."""
        if not rule.ctx and not rule.iter:
            return
        scope = self._scope()
        ctx = {name: render(tree, scope) for name, tree in rule.ctx}
        self.iter = self.iter | {name: render(tree, scope) for name, tree in rule.iter}
        self.patches |= ctx

    def _delay_ms(self, rule: Rule, attempt: int) -> int:
        """The pause before the next attempt: grown with each as the rule says. Raises EvaluationFailed."""
        if rule.delay is None:
            return 0
        delay_s: Any = render(rule.delay, self._scope())
        if type(delay_s) not in (int, float) or not delay_s >= 0:
            raise EvaluationFailed(
                f"The delay of a retry is {delay_s!r:.40}, not a number of seconds.", mend="Let it give one."
            )
        factor = {"none": 1, "linear": attempt, "exponential": 2 ** min(attempt - 1, 30)}[rule.backoff]
        pause_s: float = min(delay_s * factor, RETRY_DELAY_S_MAX)
        return round(pause_s * 1000)


def memory_problem(name: str) -> dict[str, Any]:
    """Why a step or task that ran out of memory failed."""
    return {
        "code": "memory_exceeded",
        "message": f"Step {name} needed more memory than it may have.",
        "mend": "Raise spec.memory_mb, or work on less at a time.",
    }


def _without_tables(config: Any) -> Any:
    """A hosted task's config but for the tables among its inputs, which stand for themselves."""
    given = config.get("input")
    if type(given) is not dict:
        return config
    return {**config, "input": {name: value for name, value in given.items() if type(value) is not TableRef}}


def _failed_by_rule(task: Task) -> dict[str, Any]:
    return {
        "code": "failed_by_policy",
        "message": f"A rule of task {task.name} says that this outcome fails.",
        "mend": "Look at the task's spec.policy.rules.",
    }


def _diverged_problem(task: str, recorded: str) -> dict[str, Any]:
    return {
        "code": "pipeline_diverged",
        "message": f"Task {task} was to run where the log has the outcome of task {recorded}.",
        "mend": "Find the pure task whose value varies and declare it spec.effect: read; then send a new request.",
    }


def _too_much_problem(task: str) -> dict[str, Any]:
    return {
        "code": "pipeline_too_large",
        "message": f"With task {task} one run of the pipeline has more than {PIPELINE_BYTES_MAX} bytes of values.",
        "mend": "Let its tasks give less, or tables; or collect by a loop, whose items are recorded one by one.",
    }


def _endless_problem() -> dict[str, Any]:
    return {
        "code": "pipeline_endless",
        "message": f"The pipeline ran {TASK_RUNS_MAX} tasks without an end.",
        "mend": "Give its jumps a rule that breaks.",
    }
