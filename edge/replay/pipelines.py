"""Rules of a step's tools, asked again: a pipeline walked along its recorded outcomes.

Called by `edge.replay.explain`. What was recorded is taken from the log; what is pure of values and templates is
made again here, and where anything else would have to be run the walk ends and says so. Pure.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edge.core.codec import decode
from edge.core.errors import EvaluationFailed
from edge.core.events import Event, StepDone, StepFailed, TaskDone
from edge.core.limits import TASK_RUNS_MAX
from edge.core.loop_state import LoopState
from edge.core.routing import envelope
from edge.core.values import TableRef
from edge.replay.decisions import CHANGED, UNRECORDED, Asked, Decision, Unknown, absent, ask, not_asked
from playbooks.evaluate import evaluate, render
from playbooks.nodes import Prepared
from playbooks.outputs import accumulated, seen_with, selected
from playbooks.shape import Rule, Step, Task


def item_told(loop: LoopState, event: Event, item: int) -> Iterator[Decision]:
    """What one item of a loop came to."""
    if not 0 <= item < loop.started.total:
        return
    part = next((part for part in loop.parts if part.first <= item < part.first + part.count), None)
    if part is None:
        chosen = "no outcome"
    elif item in (part.failed or {}):
        problem = (part.failed or {})[item]
        chosen = f"failed: {problem.get('code')}: {problem.get('message')}"
    else:
        chosen = (
            f"gave {json.dumps(decode(part.results)[item - part.first], ensure_ascii=False, default=str)}"
        )
    yield Decision(event.seq, "item", event.step or "", event.visit, chosen, (), item)


class PipelineStory:
    """One step's pipeline, or that of one item of its loop, ending with `event`."""

    def __init__(self, step: Step, base: dict[str, Any], ctx: dict[str, Any], event: Event) -> None:
        self._step, self._base, self._ctx, self._event = step, base, dict(ctx), event
        self._item: int | None = None
        #: The whole pipeline's value or problem, where the log holds it.
        self._end: tuple[Any, dict[str, Any] | None] | None = None
        body = event.body
        if isinstance(body, StepDone) and body.value is not None:
            self._end = decode(body.value), None
        elif isinstance(body, StepFailed):
            self._end = None, body.problem
        self._names: dict[str, Any] = {}
        self._iter: dict[str, Any] = dict(base.get("iter") or {})

    def tell_item(self, loop: LoopState, item: int) -> Iterator[Decision]:
        """The decisions of one item; nothing where the loop has no such item or the log holds no items."""
        how = self._step.loop
        assert how is not None
        if not 0 <= item < loop.started.total or loop.started.items is None:
            return
        value = decode(loop.started.items)[item]
        self._item = item
        part = next((part for part in loop.parts if part.first <= item < part.first + part.count), None)
        self._end = None
        if part is not None:
            failed = (part.failed or {}).get(item)
            self._end = (None, failed) if failed else (decode(part.results)[item - part.first], None)
        shared = {how.iterator: value, "index": item, "_index": item, "_total": loop.started.total}
        self._iter = {**shared, **self._iter}
        self._names = {how.iterator: value, "_index": item, "_total": loop.started.total}
        yield from self.tell(loop.tasks.get(item, ()))

    def tell(self, tasks: Sequence[TaskDone]) -> Iterator[Decision]:
        """The decision after each task, as far as the log carries."""
        recorded = {task.number: task for task in tasks}
        place, attempt, previous = 0, 1, None
        try:
            self._base = {**self._seen_with(self._base, self._step.input), **self._names}
        except EvaluationFailed:
            return  # the step failed with it before any task ran
        for number in range(TASK_RUNS_MAX):
            task = self._step.tasks[place]
            self._names |= {"_prev": previous, "_task": task.name, "_attempt": attempt, "iter": self._iter}
            found = recorded.pop(number, None)
            if found is not None and found.task != task.name:
                note = f"recorded is a run of task {found.task} where now {task.name} would run"
                yield self._decision(task, "", [], CHANGED, note)
                return
            try:
                value, problem = self._outcome(task, found, last=not recorded)
                do, rule, asked = self._directive(task, value, problem, attempt)
            except Unknown as unknown:
                yield self._decision(task, "", [], UNRECORDED, f"it looks at {unknown.args[0]}")
                return
            except EvaluationFailed as error:
                yield self._decision(task, f"fails: {error.message}", [])
                return
            if task.rules is not None:
                target = f" to {self._step.tasks[rule.to].name}" if do == "jump" and rule is not None else ""
                after = f" after attempt {attempt}" if do == "retry" else ""
                yield self._decision(task, f"{do}{target}{after}", asked)
            if do == "fail":
                return
            if do == "retry":
                attempt += 1
                continue
            self._names[task.name] = previous = value if problem is None else None
            attempt = 1
            place = rule.to if do == "jump" and rule is not None else place + 1
            if do == "break" or place >= len(self._step.tasks):
                if recorded:
                    note = f"recorded are {len(recorded)} further runs of its tasks"
                    yield self._decision(task, "", [], CHANGED, note)
                return

    def _decision(
        self, task: Task, chosen: str, asked: list[Asked], status: str = "", note: str = ""
    ) -> Decision:
        step = f"{self._step.name}/{task.name}"
        event = self._event
        return Decision(
            event.seq, "rule", step, event.visit, chosen or "unknown", tuple(asked), self._item, status, note
        )

    def _outcome(
        self, task: Task, found: TaskDone | None, *, last: bool
    ) -> tuple[Any, dict[str, Any] | None]:
        """A run's value or problem: as recorded, made again, or that of the whole step. Raises Unknown."""
        if found is not None:
            if found.problem is not None:
                return None, found.problem
            if found.value is None:
                table = found.table
                return (
                    table if type(table) is TableRef else absent(f"the large result of {task.name}")
                ), None
            return seen_with(task.output, decode(found.value)), None
        if task.kind == "noop":
            return None, None
        if task.kind == "transform":
            try:
                scope = self._scope(task)
                return seen_with(task.output, render(task.config["value"], scope)), None
            except EvaluationFailed as error:
                return None, error.problem()
        # The last run has no event of its own where its outcome is the pipeline's.
        is_end = last and (task.effect != "pure" or task is self._step.tasks[-1])
        if is_end and self._end is not None:
            value, problem = self._end
            return (None if problem else seen_with(task.output, value)), problem
        raise Unknown(f"the result of task {task.name}, which is not recorded")

    def _scope(self, task: Task) -> dict[str, Any]:
        """What a task sees. Raises EvaluationFailed where its inputs cannot be evaluated."""
        return self._seen_with({**self._base, **self._names, "ctx": self._ctx}, task.input)

    def _seen_with(self, scope: dict[str, Any], tree: Prepared | None) -> dict[str, Any]:
        """A scope with these inputs in it; one that looks at what the log does not hold is absent itself."""
        if tree is None:
            return scope
        own: dict[str, Any] = {}
        for name, node in zip(tree.node[1::2], tree.node[2::2], strict=True):
            try:
                own[name] = evaluate(node, {**scope, **self._names})
            except Unknown as unknown:
                own[name] = absent(unknown.args[0])
        carried = {**scope["args"], **own}
        return {**scope, **own, "args": carried, "input": carried, "input_data": carried}

    def _directive(
        self, task: Task, value: Any, problem: dict[str, Any] | None, attempt: int
    ) -> tuple[str, Rule | None, list[Asked]]:
        """What the policy says now. Raises Unknown, EvaluationFailed."""
        how = task.output.accumulate
        if how is not None and (how.on_success if problem is None else how.on_error):
            more = value if problem is None else problem
            self._iter = {**self._iter, how.name: accumulated(how, self._iter.get(how.name), more)}
            self._names["iter"] = self._iter
        if task.rules is None:
            return ("continue" if problem is None else "fail"), None, []
        parts: Mapping[str, Any] = {"meta": {"attempt": attempt, "duration_ms": 0, "task": task.name}}
        if problem is None and type(value) is not TableRef:
            parts = {**parts, **selected(task.output, value)}
        self._names["output"] = envelope(value, problem, parts)
        scope = {**self._base, "ctx": self._ctx}
        with contextlib.suppress(EvaluationFailed):
            scope = self._scope(task)
        scope |= self._names
        asked: list[Asked] = []
        for number, rule in enumerate(task.rules):
            one, holds = ask(f"rule {number + 1}: {rule.do}", rule.when, scope)
            asked.append(one)
            if not holds:
                continue
            asked += [
                not_asked(f"rule {n + 1}: {r.do}", r.when) for n, r in enumerate(task.rules) if n > number
            ]
            if rule.do == "retry" and attempt >= rule.attempts:
                return ("fail" if problem is not None else "continue"), None, asked
            ctx = {name: render(tree, scope) for name, tree in rule.ctx}
            self._iter = {**self._iter, **{name: render(tree, scope) for name, tree in rule.iter}}
            self._ctx = {**self._ctx, **ctx}
            return rule.do, rule, asked
        return ("fail" if task.unmatched_fails else "continue"), None, asked
