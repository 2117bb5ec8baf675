"""Why an execution went as it went: each decision, evaluated again from the log alone.

Called by the command line. It walks the events of one execution, folds them, and asks again what was asked:
admission, rules of recorded tasks, arcs, fan-in. What comes out otherwise than recorded is marked `decision-changed`:
the log is right about what happened, and the evaluator of today would decide otherwise. Pure: no clock, no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edge.core.beginnings import state_seen, with_items_before
from edge.core.codec import decode, encode
from edge.core.errors import EvaluationFailed
from edge.core.events import Event, ExecutionFinished, StepDone, StepFailed
from edge.core.loop_state import Waiting
from edge.core.loops import collected
from edge.core.routing import Routed, envelope, route
from edge.core.scheduler import Admit, decide, token_args
from edge.core.state import RUNNING, Execution, evolve
from edge.core.values import TableRef
from edge.replay.decisions import (
    CHANGED,
    NOT_ASKED,
    UNRECORDED,
    Asked,
    Decision,
    Unknown,
    absent,
    ask,
    not_asked,
)
from edge.replay.pipelines import PipelineStory, item_told
from playbooks.blueprint import Blueprint
from playbooks.outputs import seen_with
from playbooks.scope import build_scope
from playbooks.shape import Arc, Step


def explain(
    blueprint: Blueprint,
    events: Sequence[Event],
    workload: Mapping[str, Any],
    execution_id: str,
    *,
    item: int | None = None,
) -> list[Decision]:
    """Every decision of one execution, in order; rules of a loop's items only for `item` where one is named.

    `workload` is the playbook's with the request's input over it.
    """
    return list(_Story(blueprint, dict(workload), execution_id, item).tell(events))


class _Story:
    """The walk along the events: state so far, and results as far as the log holds them."""

    def __init__(
        self, blueprint: Blueprint, workload: dict[str, Any], execution_id: str, item: int | None
    ) -> None:
        self._blueprint, self._workload = blueprint, workload
        self._execution_id, self._item = execution_id, item
        self._results: dict[str, Any] = {}
        self._admitted: dict[str, tuple[bool, int]] = {}
        self._waits: dict[str, str] = {}
        self._events: Sequence[Event] = ()

    def tell(self, events: Sequence[Event]) -> Iterator[Decision]:
        self._events = events
        state: Execution | None = None
        for event in events:
            if state is not None:
                yield from self._asked_before(state, event.seq)
                yield from self._began_unasked(event)
            before, state = state, evolve(state, event)
            if before is not None and event.step is not None:
                yield from self._settled(before, state, event)
            if isinstance(event.body, ExecutionFinished):
                yield self._end(event)
        if state is not None and state.status == RUNNING:
            yield from self._now(state, events[-1].seq)

    def _now(self, state: Execution, seq: int) -> Iterator[Decision]:
        """What an execution that has not ended waits for."""
        yield from self._asked_before(state, seq)
        for name, step in state.steps.items():
            waiting: dict[int | None, Waiting] = {} if step.waiting is None else {None: step.waiting}
            if step.loop is not None:
                waiting.update(step.loop.waiting.items())
            for item, each in waiting.items():
                chosen = f"waits since event {each.seq}: {each.body.kind} of task {each.body.task}"
                yield Decision(seq, "wait", name, step.visit, chosen, (), item)

    # ---- before an event: who was let in, who waited ---------------------------------------------------

    def _asked_before(self, state: Execution, seq: int) -> Iterator[Decision]:
        if state.status != RUNNING or state.problem is not None:
            return
        yield from self._fan_in(state, seq)
        for command in decide(self._blueprint, state):
            if isinstance(command, Admit):
                yield from self._admission(state, seq, command)

    def _began_unasked(self, event: Event) -> Iterator[Decision]:
        """A step with an outcome whose admission says no now."""
        name = event.step
        if isinstance(event.body, StepDone) and name in self._admitted and not self._admitted[name][0]:
            note = f"step {name} began although its admission says no now"
            yield Decision(event.seq, "admission", name, event.visit, "let in", status=CHANGED, note=note)
            del self._admitted[name]

    def _fan_in(self, state: Execution, seq: int) -> Iterator[Decision]:
        """Steps whose token is there and that wait for others that can still come."""
        names = {token.target for token in state.tokens if token.target is not None}
        index = self._blueprint.step_index
        for name in sorted(names, key=index.__getitem__):
            others = [
                other
                for other in names
                if other != name and self._blueprint.leads_to(index[other], index[name])
            ]
            came = sorted({token.source or "the start" for token in state.tokens if token.target == name})
            said = f"{', '.join(came)} / {', '.join(sorted(others))}"
            if others and self._waits.get(name) != said:
                chosen = f"waits: {', '.join(came)} has come, {', '.join(sorted(others))} can still lead here"
                yield Decision(seq, "wait", name, _visit(state, name), chosen)
            if others:
                self._waits[name] = said
            else:
                self._waits.pop(name, None)

    def _admission(self, state: Execution, seq: int, command: Admit) -> Iterator[Decision]:
        step = self._blueprint.steps[command.step]
        visit = _visit(state, step.name)
        known = self._admitted.get(step.name)
        scope = build_scope(self._workload, state.ctx, {}, self._execution_id, None, command.args)
        asked: list[Asked] = []
        allow = True
        try:
            for number, rule in enumerate(step.admit or (), 1):
                what = f"rule {number}: {'let in' if rule.allow else 'not yet'}"
                one, holds = ask(what, rule.when, scope)
                asked.append(one)
                if holds:
                    allow = rule.allow
                    break
        except EvaluationFailed as error:
            yield Decision(seq, "admission", step.name, visit, f"fails: {error.message}", tuple(asked))
            return
        if known != (allow, visit):
            self._admitted[step.name] = allow, visit
            chosen = "let in" if allow else "not let in; asked again after the next outcome"
            yield Decision(seq, "admission", step.name, visit, chosen, tuple(asked))

    # ---- an outcome: rules, then arcs ------------------------------------------------------------------

    def _settled(self, before: Execution, after: Execution, event: Event) -> Iterator[Decision]:
        body, name = event.body, event.step
        assert name is not None
        step = self._blueprint.steps[self._blueprint.step_index[name]]
        if not isinstance(body, StepDone | StepFailed):
            return
        args = token_args(self._blueprint, before, name)
        known = before.steps.get(name)
        if step.pipeline and known is not None and known.visit == event.visit:
            began = self._began(before, step, event)
            story = PipelineStory(step, self._scope(began, step, args), began.ctx, event)
            if step.loop is None:
                yield from story.tell(known.tasks)
            elif self._item is not None and known.loop is not None:
                yield from story.tell_item(known.loop, self._item)
        loop = after.steps[name].loop or (known.loop if known is not None else None)
        if loop is not None and self._item is not None:
            yield from item_told(loop, event, self._item)
        if isinstance(body, StepDone):
            self._results[name] = self._result(after, step, body)
        else:
            self._results.pop(name, None)
        if step.arcs or step.set:
            yield self._arcs(before, step, event, args)

    def _began(self, before: Execution, step: Step, event: Event) -> Execution:
        """The state that a pipeline, or that of the item that is asked about, went by: it was then when it began."""
        item = None if step.loop is None else self._item
        began = state_seen(self._events, step.name, event.visit, item)
        if began is None:
            return before
        loop = before.steps[step.name].loop
        if item is not None and loop is not None and step.loop is not None and not step.loop.parallel:
            return replace(began, ctx=with_items_before(began.ctx, loop, item))
        return began

    def _scope(self, state: Execution, step: Step, args: dict[str, Any] | None) -> dict[str, Any]:
        seen = {name for name, known in state.steps.items() if known.outcome is not None}
        results = {name: self._results[name] for name in step.reads if name in self._results and name in seen}
        scope = build_scope(self._workload, state.ctx, results, self._execution_id, None, args)
        if step.access.keychain:
            scope["keychain"] = absent("the keychain, of which no log holds anything")
        if step.calls_back:
            scope["callback"] = absent("a callback token, which no log holds")
        if step.reads_iter:
            outer = state.request.iter
            scope["iter"] = {} if outer is None else {"parent": decode(outer)}
        return scope

    def _result(self, state: Execution, step: Step, body: StepDone) -> Any:
        """A step's result as templates saw it, or what stands for one that the log does not hold."""
        known = state.steps[step.name]
        if known.loop is not None and body.value is None and body.table is None:
            return decode(encode(collected(known.loop)))
        if type(body.table) is TableRef:
            return body.table
        if body.value is None:
            return absent(f"the result of step {step.name}, of which the log holds the digest alone")
        return seen_with(step.output, decode(body.value))

    def _arcs(self, state: Execution, step: Step, event: Event, args: dict[str, Any] | None) -> Decision:
        body = event.body
        assert isinstance(body, StepDone | StepFailed)
        failed = isinstance(body, StepFailed)
        recorded = _recorded(body)
        chosen = self._chosen(step, recorded, body)
        asked: list[Asked] = []
        made = Decision(event.seq, "arcs", step.name, event.visit, chosen)
        names = {*step.reads, step.name} & self._results.keys()
        values = {name: self._results[name] for name in names}
        problem = body.problem if failed else None
        if step.reads_output:
            values["output"] = envelope(values.get(step.name), problem)
        written = _by_rules(step, body.ctx or {})
        ctx = {**state.ctx, **written}
        scope = build_scope(self._workload, ctx, values, self._execution_id, None, args)
        try:
            asked = list(self._asked(step, scope, failed=failed))
            routed = route(step, scope, ctx, failed=failed)
        except Unknown as unknown:
            return _with(made, asked, UNRECORDED, f"it looks at {unknown.args[0]}")
        except EvaluationFailed as error:
            same = not failed and isinstance(body, StepDone) and body.problem is not None
            return _with(made, asked, "" if same else CHANGED, f"now it fails: {error.message}")
        note = _difference(step, routed, written, recorded, body)
        return _with(made, asked, CHANGED if note else "", note)

    def _asked(self, step: Step, scope: Mapping[str, Any], *, failed: bool) -> Iterator[Asked]:
        over = False
        for number, arc in enumerate(step.arcs, 1):
            what = f"arc {number} to {self._target(arc)}"
            when = arc.when_failed if failed else arc.when
            if failed and not arc.on_failure:
                yield Asked(what, "only after success", NOT_ASKED, {})
            elif over:
                yield not_asked(what, when)
            else:
                one, holds = ask(what, when, scope)
                yield one
                over = holds and not step.inclusive

    def _target(self, arc: Arc) -> str:
        return self._blueprint.steps[arc.target].name

    def _chosen(self, step: Step, recorded: list[int] | None, body: StepDone | StepFailed) -> str:
        if recorded is None:
            return "the execution fails"
        if isinstance(body, StepDone) and body.problem is not None:
            return f"no way on could be decided: {body.problem.get('message')}"
        if not recorded:
            return "the branch ends"
        return ", ".join(f"arc {number + 1} to {self._target(step.arcs[number])}" for number in recorded)

    def _end(self, event: Event) -> Decision:
        body = event.body
        assert isinstance(body, ExecutionFinished)
        why = f": {body.problem.get('code')}: {body.problem.get('message')}" if body.problem else ""
        chosen = f"{body.status}{why}"
        if body.result_step is not None:
            chosen += f", answers with the result of {body.result_step}"
        return Decision(event.seq, "end", "", 0, chosen)


def _visit(state: Execution, name: str) -> int:
    known = state.steps.get(name)
    return 0 if known is None else known.visit + (known.status in ("done", "failed"))


def _recorded(body: StepDone | StepFailed) -> list[int] | None:
    """The numbers of the arcs that were taken; None where the failure ended the execution."""
    if body.ways is not None:
        return [way[0] for way in body.ways]
    if isinstance(body, StepFailed):
        return None
    return [] if body.arc is None else [body.arc]


def _by_rules(step: Step, ctx: dict[str, Any]) -> dict[str, Any]:
    """Of what was written to ctx, what the rules of the step's tools wrote before its own `set`."""
    names = {name for task in step.tasks for rule in task.rules or () for name, _ in rule.ctx}
    return {name: value for name, value in ctx.items() if name in names}


def _difference(
    step: Step,
    routed: Routed,
    written: dict[str, Any],
    recorded: list[int] | None,
    body: StepDone | StepFailed,
) -> str:
    """How a decision that was made again differs from the recorded one; "" where it does not."""
    now = [way.arc for way in routed.ways]
    if isinstance(body, StepDone) and body.problem is not None:
        return "" if not now else "now a way on is found"
    if now != (recorded or []):
        said = ", ".join(f"arc {number + 1}" for number in now) or "no arc"
        return f"now it takes {said}"
    if step.loop is None and {**written, **(routed.patches or {})} != (body.ctx or {}):
        return f"now it writes {routed.patches or {}} into ctx, recorded is {body.ctx or {}}"
    args = {way[0]: way[2] for way in body.ways or () if len(way) > 2}
    if any(way.args != args.get(way.arc) for way in routed.ways):
        return "now the arcs carry something else"
    return ""


def _with(made: Decision, asked: list[Asked], status: str, note: str) -> Decision:
    return Decision(made.seq, made.kind, made.step, made.visit, made.chosen, tuple(asked), None, status, note)
