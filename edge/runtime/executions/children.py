"""The kind `playbook`: another playbook as an execution of its own, begun and awaited by a task.

Called through `edge.runtime.waiting.hosted`; owned by the engine, which says when an execution ends and when all are
taken up after a restart. A child's request names the invocation it stands for, so that it is found again whatever was
lost: there is one child for each invocation. It must never answer anybody but that invocation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from edge.core.codec import ARROW, CBOR, check_plain, decode, encode
from edge.core.errors import CacheMiss, EdgeError, LogDamaged, PayloadInvalid, RequestRefused, StorageFailed
from edge.core.events import CallbackReceived, Event, ExecutionRequested
from edge.core.limits import CHILD_DEPTH_MAX, CHILDREN_OPEN_MAX, INLINE_BYTES_MAX, VALUE_BYTES_MAX
from edge.core.loop_state import Waiting
from edge.core.records import record
from edge.core.state import COMPLETED, RUNNING, Execution
from edge.core.values import TableRef, ValueRef
from edge.runtime.commit.gate import CommitGate
from edge.runtime.executions.executor import Executor
from edge.runtime.requests.answers import output_of
from edge.runtime.running.live import Live, Place
from edge.runtime.waiting.hosted import HostedOutcome
from edge.store.blocks import REQUEST_TABLE, Blocks, block_key, value_key
from playbooks.blueprint import Blueprint
from playbooks.outputs import selected
from playbooks.shape import CHILD

KIND: Final = CHILD
#: How a child was asked for; nobody outside is owed its answer.
FORM: Final = "child"


@record
class Surroundings:
    """What children need of the engine: playbooks by path, an execution's name and state, and how one is laid out."""

    find: Callable[[str], Blueprint | None]
    execution_id: Callable[[int], str]
    state_of: Callable[[int], Execution]
    lay_out: Callable[[Blueprint, Execution, dict[str, Any] | None, bytes], Live]


class Children:
    """All sub-executions of one runtime."""

    def __init__(self, executor: Executor, gate: CommitGate, blocks: Blocks, around: Surroundings) -> None:
        self._executor, self._hosted = executor, executor.hosted
        self._gate, self._blocks, self._around = gate, blocks, around
        #: The invocations that wait, by child.
        self._waiting: dict[int, Place] = {}
        #: Children whose invocation has not said yet that it waits: a power cut came between.
        self._unclaimed: dict[Place, int] = {}
        executor.hosted.kinds[KIND] = self
        executor.on_end = self.ended

    # ---- from pipelines -------------------------------------------------------------------------------

    def begin(self, live: Live, place: Place, config: Mapping[str, Any]) -> None:
        """Begin a child with the evaluated input, or take the one that was begun for this invocation before."""
        known = self._unclaimed.pop(place._replace(attempt=1), None)
        if known is not None:
            self._wait_for(place, known, self._around.state_of(known))
            return
        try:
            child, body, payload = self._request(live, place, config)
        except EdgeError as error:
            if isinstance(error, CacheMiss):
                self._executor.outputs.forget_absent(live)
            self._hosted.settle(place, HostedOutcome(problem=error.problem()))
            return
        if body.payload_digest is not None:
            self._gate.store_blob(body.payload_digest, payload)
        event = self._gate.append(body)
        self._executor.open[event.seq] = child
        self._wait_for(place, event.seq, child.state)
        self._executor.advance(child)

    def _wait_for(self, place: Place, child: int, state: Execution) -> None:
        self._hosted.waits(place, KIND, {"child": child})
        if state.status == RUNNING:
            self._waiting[child] = place
        else:
            self._settle(place, state)

    def take_up(self, live: Live, place: Place, waiting: Waiting) -> None:
        """Go on waiting for the child that the log names."""
        child: int = (waiting.body.detail or {})["child"]
        state = self._around.state_of(child)
        if state.status == RUNNING:
            self._waiting[child] = place
        else:
            self._settle(place, state)

    def due(self, waiting: Waiting, callbacks: tuple[CallbackReceived, ...]) -> None:
        """Whoever waits for a child stays in memory: its end comes at any time, and its answer is laid there."""

    def drop(self, place: Place) -> None:
        """The invocation's execution is to end: so is the child."""
        for child, waits in list(self._waiting.items()):
            if waits == place:
                del self._waiting[child]
                self._cancel(child, place.execution)

    # ---- from the engine ------------------------------------------------------------------------------

    def ended(self, live: Live) -> None:
        """An execution's end is recorded; where it is a child, its invocation goes on."""
        place = self._waiting.pop(live.state.seq, None)
        if place is not None:
            self._settle(place, live.state)

    def taken_up(self) -> None:
        """Every open execution was taken up after a restart: see to children that nobody waits for yet."""
        for child, live in list(self._executor.open.items()):
            request = live.state.request
            if request.parent is None:
                continue
            self._executor.parking.read(request.parent)
            if child in self._waiting:
                continue
            parent = self._executor.open.get(request.parent)
            if parent is None or parent.ending:
                self._cancel(child, request.parent)
            else:
                self._unclaimed[_place_of(request)] = child

    def _cancel(self, child: int, parent: int) -> None:
        live = self._executor.parking.find(child)
        if live is not None and not live.ending:
            by = f"execution {self._around.execution_id(parent)}"
            self._executor.cancel(live, by, "it does not wait for it any longer")

    # ---- the request ----------------------------------------------------------------------------------

    def _request(
        self, live: Live, place: Place, config: Mapping[str, Any]
    ) -> tuple[Live, ExecutionRequested, bytes]:
        """The child laid out, its request event, and its payload. Raises RequestRefused, StorageFailed."""
        blueprint = self._blueprint(live, config)
        given = {**(config.get("payload") or {}), **(config.get("input") or {})}
        payload, content_type = self._payload(live, given)
        large = len(payload) > INLINE_BYTES_MAX
        request = live.state.request
        body = ExecutionRequested(
            digest=blueprint.digest,
            principal=request.principal,
            form=FORM,
            content_type=content_type,
            payload=None if large else payload,
            payload_digest=hashlib.sha256(payload).digest() if large else None,
            receipt=False,
            traceparent=request.traceparent,
            parent=place.execution,
            parent_step=place.step,
            parent_visit=place.visit,
            parent_item=place.item,
            parent_task=place.task,
            parent_number=place.number,
            depth=request.depth + 1,
            result_step=config.get("return_step"),
            iter=_iteration(blueprint, config),
        )
        state = Execution(self._gate.next_seq, body)
        values = None if content_type == ARROW else given
        return self._around.lay_out(blueprint, state, values, payload), body, payload

    def _blueprint(self, live: Live, config: Mapping[str, Any]) -> Blueprint:
        """The playbook registered under the path now: the child is pinned to it. Raises RequestRefused."""
        path, step = config.get("path"), config.get("return_step")
        blueprint = self._around.find(path) if type(path) is str else None
        if blueprint is None:
            raise RequestRefused(
                f"There is no playbook {path!r:.200} on this box.",
                mend="Register it with `edge playbook register`; with `edge run` name its file by --with.",
                code="playbook_unknown",
            )
        if step is not None and step not in blueprint.step_index:
            raise RequestRefused(
                f"The playbook {path} has no step {step!r:.80} to return.",
                mend="Name one of its steps as `return_step`, or leave it out.",
                code="return_step_unknown",
            )
        if live.state.request.depth >= CHILD_DEPTH_MAX:
            raise RequestRefused(
                f"The playbook {path} would be the {CHILD_DEPTH_MAX + 1}th below one request; "
                f"{CHILD_DEPTH_MAX} are allowed.",
                mend=f"Let a condition end the circle through {live.blueprint.path}.",
                code="playbook_too_deep",
            )
        if len(self._executor.open) >= CHILDREN_OPEN_MAX:
            raise RequestRefused(
                f"{CHILDREN_OPEN_MAX} executions are open already.",
                mend="Lower the loop's max_in_flight, or let a policy retry with a delay.",
                code="queue_full",
            )
        return blueprint

    def _payload(self, live: Live, given: dict[str, Any]) -> tuple[bytes, str]:
        """The child's input as a request's payload: a map as CBOR, or a lone table as its stream."""
        table = given.get(REQUEST_TABLE)
        if type(table) is TableRef and len(given) == 1:
            return self._executor.outputs.block_bytes(live, table), ARROW
        try:
            payload = encode(check_plain(given))
        except PayloadInvalid as error:
            raise RequestRefused(
                f"The input of a playbook cannot be handed over: {error.message}",
                mend="Hand over values, or one table alone, as `table`.",
                code="input_invalid",
            ) from error
        if len(payload) > VALUE_BYTES_MAX:
            raise RequestRefused(
                f"The input of a playbook has {len(payload)} bytes; {VALUE_BYTES_MAX} are allowed.",
                mend="Hand over less, or one table alone, as `table`.",
                code="input_too_large",
            )
        return payload, CBOR

    # ---- the answer -----------------------------------------------------------------------------------

    def _settle(self, place: Place, state: Execution) -> None:
        """The child's answer, or its failure, is the invocation's outcome."""
        try:
            outcome = self._outcome(place, state)
        except (CacheMiss, LogDamaged, StorageFailed) as error:
            outcome = HostedOutcome(problem=error.problem())
        self._hosted.settle(place, outcome)

    def _outcome(self, place: Place, state: Execution) -> HostedOutcome:
        execution_id = self._around.execution_id(state.seq)
        if state.status != COMPLETED:
            return HostedOutcome(problem=_problem_of(execution_id, state))
        answer = output_of(state, self._gate.blob)
        if answer.table is None and len(answer.data) <= INLINE_BYTES_MAX:
            return HostedOutcome(decode(answer.data) if answer.data else None)
        return HostedOutcome(table=self._copied(place, answer.data, answer.table))

    def _copied(self, place: Place, data: bytes, table: TableRef | None) -> TableRef | ValueRef:
        """A child's block in the folder of the playbook that waits for it."""
        live = self._executor.open[place.execution]
        label = (
            f"{place.step}.{place.number}"
            if place.item is None
            else f"{place.step}.{place.item}.{place.number}"
        )
        name = block_key if table is not None else value_key
        key = name(place.execution, label, place.visit)
        put = self._blocks.put(live.blueprint.digest, place.execution, key, data)
        if table is not None:
            return TableRef(key, put.digest, put.size_bytes, table.rows, table.columns)
        step = live.blueprint.steps[live.blueprint.step_index[place.step]]
        parts = selected(step.output, decode(data)) if step.output.select else None
        return ValueRef(key, put.digest, put.size_bytes, "", parts)


def is_owed(request: Event) -> bool:
    """Whether somebody outside is owed the answer to this request: not those of children and of batches."""
    body = request.body
    return isinstance(body, ExecutionRequested) and body.parent is None and body.batch is None


def _place_of(request: ExecutionRequested) -> Place:
    """The invocation a child stands for."""
    assert request.parent is not None
    return Place(
        request.parent,
        request.parent_step or "",
        request.parent_visit,
        request.parent_number,
        request.parent_task or "",
        request.parent_item,
    )


def _iteration(blueprint: Blueprint, config: Mapping[str, Any]) -> bytes | None:
    """The iteration that begins the child, where that looks at one or may hand it on. Raises RequestRefused."""
    iteration: bytes | None = config.get("iter")
    if not blueprint.reads_iter:
        return iteration or None if blueprint.begins_others else None
    if iteration == b"":
        raise RequestRefused(
            f"The iteration cannot be handed to {blueprint.path}: it holds a table, or more than "
            f"{INLINE_BYTES_MAX} bytes.",
            mend="Hand over what it needs as `input`, and let it look at `workload` in place of `iter.parent`.",
            code="iter_too_large",
        )
    return iteration


def _problem_of(execution_id: str, state: Execution) -> dict[str, Any]:
    """Why a child did not complete: its own words once, and behind them the executions they came up through.

    `{code, message[, mend], execution, through}`: `through` are the executions from this child to that of the cause.
    """
    problem = state.problem or {"code": state.status, "message": f"It is {state.status}."}
    below: list[str] = problem.get("through") or []
    cause = str(problem.get("message")).removesuffix(_came_through(below))
    through = [execution_id, *below]
    made = {"code": problem.get("code", state.status), "message": cause + _came_through(through)}
    if problem.get("mend"):
        made["mend"] = problem["mend"]
    return {**made, "execution": execution_id, "through": through}


def _came_through(executions: list[str]) -> str:
    """Where a cause lies, behind its message; of those above only the numbers, which `edge show` takes too."""
    if not executions:
        return ""
    *above, last = executions
    numbers = " → ".join(each.rpartition("-")[2] for each in above)
    return f" (In execution {last}{f', below {numbers}' if numbers else ''}.)"
