"""A step's pipeline: its tasks in order, each outcome led on by the task's policy.

Called by the worker's loop. The only control inside a step: continue, retry, jump, break, fail. It keeps nothing: a
pipeline that has to stop before its end (a pause before an attempt, the intent of an effect, a hosted task, whose
outcome comes from outside) says so, and whoever claims it again gives it the recorded outcomes of its `read` and
`write` tasks, which it takes in place of running them; what is pure it runs again to the same end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge.core.codec import check_plain, decode, encode
from edge.core.errors import CacheMiss, EdgeError, EvaluationFailed, PayloadInvalid, ToolFailed
from edge.core.limits import INLINE_BYTES_MAX, RETRY_DELAY_S_MAX, TASK_RUNS_MAX
from edge.core.routing import envelope
from edge.core.values import TableRef
from edge.worker.claims import TaskRecord
from playbooks.evaluate import render, truth
from playbooks.shape import HOSTED, Rule, Task

Invoke = Callable[[int, Task, Mapping[str, Any]], Any]
"""Runs one task, by number of invocation, with names on top of the step's scope; its plain value or table reference.
Raises EdgeError. Of a hosted task it gives the evaluated config."""

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
    """The pipeline's end: `value`, or the `problem` that failed it."""

    value: Any = None
    problem: dict[str, Any] | None = None


@dataclass(slots=True)
class Pipeline:
    """One run of a step's tasks."""

    tasks: tuple[Task, ...]
    base: dict[str, Any]
    ctx: dict[str, Any]
    invoke: Invoke
    #: Recorded outcomes of earlier goes, by the number of the invocation.
    recorded: dict[int, TaskRecord]
    #: Pauses that were served already.
    waited: int
    #: The invocation whose intent is durable, None where none is.
    intended: int | None
    iter: dict[str, Any] = field(default_factory=dict)
    #: What this go adds to the record, and what its rules wrote to ctx.
    records: list[TaskRecord] = field(default_factory=list)
    patches: dict[str, Any] = field(default_factory=dict)
    last_number: int = 0
    _names: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Finished | Pause:
        """Run to the end or to the next pause. Raises CacheMiss, which ends the go without an outcome."""
        place, attempt, previous, pauses = 0, 1, None, 0
        for number in range(TASK_RUNS_MAX):
            task, self.last_number = self.tasks[place], number
            hosted = task.kind in HOSTED and number not in self.recorded
            ahead = task.effect == "write" and not hosted  # the runtime sees to the intent of a hosted one
            if ahead and number not in self.recorded and self.intended != number:
                return Pause(number)
            self._names |= {"_prev": previous, "_task": task.name, "_attempt": attempt, "iter": self.iter}
            value, problem, took_ms = self._outcome(number, task)
            if hosted and problem is None:
                return Pause(number, hosted=[task.kind, task.name, value])
            try:
                do, rule = self._directive(task, value, problem, attempt, took_ms)
                if rule is not None:
                    self._write(rule)
                    delay_ms = self._delay_ms(rule, attempt) if do == "retry" else 0
            except EdgeError as error:
                return Finished(problem=error.problem())
            if do == "retry" and delay_ms:
                pauses += 1
                if pauses > self.waited:
                    return Pause(number + 1, delay_ms)
            if do == "fail":
                return Finished(problem=problem if problem is not None else _failed_by_rule(task))
            if do == "retry":
                attempt += 1
                continue
            self._names[task.name] = previous = value
            attempt = 1
            place = rule.to if do == "jump" and rule is not None else place + 1
            if do == "break" or place >= len(self.tasks):
                return Finished(value)
        return Finished(problem=_endless_problem())

    def _outcome(self, number: int, task: Task) -> tuple[Any, dict[str, Any] | None, int]:
        """A task's value or problem, and how long it took: from the record, or by running it."""
        known = self.recorded.get(number)
        if known is not None:
            if known.task != task.name:
                return None, _diverged_problem(task.name, known.task), 0
            return _value_of(known), known.problem, known.duration_us // 1000
        started_ns = time.perf_counter_ns()
        value: Any = None
        problem: dict[str, Any] | None = None
        try:
            value = self.invoke(number, task, {**self._names, "ctx": {**self.ctx, **self.patches}})
            encoded_value = None if type(value) is TableRef else encoded(value, task.name)
        except CacheMiss:
            raise
        except EdgeError as error:
            value, encoded_value, problem = None, None, error.problem()
        except MemoryError:
            value, encoded_value, problem = None, None, memory_problem(task.name)
        duration_us = (time.perf_counter_ns() - started_ns) // 1000
        if task.effect != "pure" and (problem is not None or task.kind not in HOSTED):
            table = value if type(value) is TableRef else None
            self.records.append(
                TaskRecord(number, task.name, None if problem else encoded_value, table, problem, duration_us)
            )
        return value, problem, duration_us // 1000

    def _directive(
        self, task: Task, value: Any, problem: dict[str, Any] | None, attempt: int, took_ms: int
    ) -> tuple[str, Rule | None]:
        """What the policy says to do, and the rule that says it. Raises EvaluationFailed."""
        if task.rules is None:
            return (_GO_ON if problem is None else "fail"), None
        seen = envelope(value, problem)
        seen["meta"] = {"attempt": attempt, "duration_ms": took_ms, "task": task.name}
        scope = self._scope() | {"output": seen}
        self._names["output"] = seen
        for rule in task.rules:
            if rule.when is None or truth(rule.when, scope):
                # A retry that is used up leaves the outcome as it is.
                if rule.do == "retry" and attempt >= rule.attempts:
                    return ("fail" if problem is not None else _GO_ON), None
                return rule.do, rule
        return ("fail" if task.unmatched_fails else _GO_ON), None

    def _scope(self) -> dict[str, Any]:
        return {**self.base, **self._names, "ctx": {**self.ctx, **self.patches}}

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


def _value_of(known: TaskRecord) -> Any:
    if known.problem is not None:
        return None
    return known.table if known.value is None else decode(known.value)


def encoded(output: Any, name: str) -> bytes:
    """A plain output as CBOR. Raises ToolFailed where it cannot be kept."""
    try:
        value = encode(check_plain(output))
    except PayloadInvalid as error:
        raise ToolFailed(
            f"Step {name} returned what cannot be kept: {error.message}",
            mend="Return numbers, texts, lists, maps or one table.",
            code="result_invalid",
        ) from error
    if len(value) > INLINE_BYTES_MAX:
        raise ToolFailed(
            f"Step {name} returned {len(value)} bytes; a value may have {INLINE_BYTES_MAX}.",
            mend="Return a table (pyarrow.Table), or less.",
            code="result_too_large",
        )
    return value


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
        "mend": "Let no rule of this pipeline look at a `ctx` value that other branches write meanwhile.",
    }


def _endless_problem() -> dict[str, Any]:
    return {
        "code": "pipeline_endless",
        "message": f"The pipeline ran {TASK_RUNS_MAX} tasks without an end.",
        "mend": "Give its jumps a rule that breaks.",
    }
