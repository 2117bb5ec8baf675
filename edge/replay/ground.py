"""What a run again stands on: an execution's blueprint, what came with its request, and the outputs of its steps.

Shared by `edge.replay.rerun` and `edge.replay.whatif`. It lays out what expressions see, as the runtime does, and
makes claims. Outputs are kept by step and visit, so that a step sees those of the time it began.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from edge.core.codec import ARROW, CBOR, decode, decode_cbor_payload, decode_json_payload, encode
from edge.core.errors import CacheMiss, EdgeError
from edge.core.events import Event, ExecutionRequested, StepDone, TaskDone
from edge.core.limits import INLINE_BYTES_MAX
from edge.core.message_input import batch_bytes, content_kind, single_input
from edge.core.routing import Routed, envelope
from edge.core.scheduler import token_args
from edge.core.settling import led, led_failed
from edge.core.state import Execution
from edge.core.subscription_events import MessageReceived
from edge.core.values import BlockRef, TableRef, ValueRef
from edge.replay.batches import batches_of
from edge.replay.sandbox import SHARED, Binding, Sandbox
from edge.replay.source import Source
from edge.store.blocks import REQUEST_TABLE, request_key
from edge.tools.registry import runs_author_code
from edge.worker.claims import Callbacks, Claim, Items, Outcome, Progress, TaskRecord
from playbooks.blueprint import Blueprint
from playbooks.deferred import Deferred
from playbooks.outputs import seen_with
from playbooks.scope import build_scope
from playbooks.shape import Step
from playbooks.start import start_workload

#: Callback tokens are made with a key that never leaves the box: a run again has these in their places.
_TOKENS: Final = tuple(f"replayed-token-{number}" for number in range(64))


class Missing(EdgeError):
    """What a run again needs is not in what was shipped."""

    code = "missing_recording"
    fault = "environment"


@dataclass(slots=True)
class Ground:
    """One execution's own things. `blueprint` is what workers get: nothing in it reaches outside."""

    sandbox: Sandbox
    source: Source
    blueprint: Blueprint
    seq: int
    request: ExecutionRequested
    workload: dict[str, Any] = field(default_factory=dict)
    #: By step and visit.
    outputs: dict[tuple[str, int], bytes | BlockRef] = field(default_factory=dict)
    table: TableRef | None = None
    table_bytes: bytes | None = None
    claims: int = 0
    _workload_bytes: bytes = b""

    def begin(self) -> None:
        """Lay out the request. Raises Missing, EvaluationFailed, LogDamaged."""
        given = self._batch() if self.request.batch is not None else self._payload()
        self.workload = start_workload(self.blueprint, given, self.execution_id)
        self._workload_bytes = encode(self.workload)

    def _payload(self) -> Any:
        """What came with the request."""
        request = self.request
        payload = request.payload or b""
        if request.payload_digest is not None:
            payload = self.source.blob(request.payload_digest)
        kind = (request.content_type or "").split(";")[0].strip().lower()
        if kind == ARROW:
            self._bring_table(payload)
            return {}
        if not payload:
            return {}
        return decode_cbor_payload(payload) if kind == CBOR else decode_json_payload(payload)

    def _batch(self) -> dict[str, Any]:
        """What a subscription handed on: one message's input, or a table of many. Raises Missing."""
        batch, batches = self.request.batch, batches_of(self.source)
        assert batch is not None
        number, first, last, count = batch[:4]
        subscription, events = batches.subscription(number, self.seq), batches.messages(self.request)
        if subscription is None or len(events) != count:
            raise Missing(
                f"Execution {self.seq} took messages {first} to {last} of subscription {number}, and "
                + (f"{len(events)} of {count} are here." if subscription else "that is not here."),
                mend="They stand in segments before its own: bring the log from its beginning.",
            )
        messages = [(event, self._message(event)) for event in events]
        if subscription.table:
            data = batch_bytes(subscription, messages)
            digest = hashlib.sha256(data).digest()
            self.table = TableRef(request_key(self.seq), digest, len(data), len(messages), None)
            self.table_bytes = data
            return {}
        event, payload = messages[0]
        if content_kind(event.body.content_type) == ARROW:  # type: ignore[attr-defined]
            self._bring_table(payload)
        return single_input(subscription, event, payload)

    def _message(self, event: Event) -> bytes:
        body = event.body
        assert isinstance(body, MessageReceived)
        return (
            self.source.blob(body.payload_digest) if body.payload_digest is not None else body.payload or b""
        )

    def _bring_table(self, payload: bytes) -> None:
        key = request_key(self.seq)
        if len(payload) <= INLINE_BYTES_MAX:
            self.table = TableRef(key, hashlib.sha256(payload).digest(), len(payload), None, None)
            self.table_bytes = payload
        else:
            self.table = self.sandbox.blocks.put(self.blueprint.digest, self.seq, key, payload)

    @property
    def execution_id(self) -> str:
        """The name that blocks see: the one it had."""
        return f"{self.source.log_id.hex()}-{self.seq}"

    def restore(self, done: StepDone | TaskDone) -> None:
        """Bring a recorded block back. Raises LogDamaged, SegmentRejected where its bytes are not here."""
        ref = done.table
        if ref is not None and not self.sandbox.blocks.holds(self.blueprint.digest, ref.key):
            data = done.table_bytes if done.table_bytes is not None else self.source.blob(ref.digest)
            self.sandbox.blocks.restore(self.blueprint.digest, self.seq, ref, data)

    def end(self) -> None:
        """The blocks of the execution go."""
        self.sandbox.blocks.drop(self.seq)

    # ---- claims ------------------------------------------------------------------------------------

    def results(self, step: Step, state: Execution) -> dict[str, bytes | BlockRef]:
        """The outputs a step reads, as they were in that state. Raises Missing where one is not there."""
        made = {}
        for name in step.reads:
            known = state.steps.get(name)
            if known is None or known.status != "done":
                continue
            if (name, known.visit) not in self.outputs:
                raise Missing(f"The output of step {name} is not recorded, and could not be made again.")
            made[name] = self.outputs[name, known.visit]
        return made

    def run(
        self,
        steps: tuple[int, ...],
        visit: int,
        state: Execution,
        args: dict[str, Any] | None,
        progress: Progress | None = None,
        items: Items | None = None,
        ctx: dict[str, Any] | None = None,
    ) -> list[Outcome]:
        """Carry out a claim of steps on what they saw in a state. Raises Missing, WorkerLost."""
        taken = [self.blueprint.steps[index] for index in steps]
        made = {step.name for step in taken}
        results: dict[str, bytes | BlockRef] = {}
        for step in taken:
            results |= {
                name: value for name, value in self.results(step, state).items()
                if name not in made or name == taken[0].name
            }  # fmt: skip
        self.claims += 1
        tables = [each.key for each in results.values() if type(each) is TableRef]
        reads_workload = any(step.reads_workload for step in taken)
        table = self.table if reads_workload or (self.table and self.table.key in tables) else None
        claim = Claim(
            self.claims,
            self.blueprint.digest,
            None,
            self.seq,
            self.execution_id,
            steps,
            visit,
            1,
            self._workload_bytes if reads_workload else None,
            state.ctx if ctx is None else ctx,
            results,
            table,
            self.table_bytes if table is not None else None,
            args,
            progress,
            items,
            Callbacks("replayed", list(_TOKENS)) if taken[0].calls_back else None,
            outer=self.request.iter,
        )
        self.sandbox.blocks.require_folder(self.blueprint.digest)
        timeout_s = sum(step.timeout_ms for step in taken) / 1000
        outcomes = self.sandbox.run(claim, self.blueprint.data, self.binding(taken), timeout_s)
        for outcome in outcomes:
            if outcome.adopted is not None:
                self.table = outcome.adopted
            if outcome.table is not None:
                self.note(outcome.table)
            for record in outcome.tasks:
                if record.table is not None:
                    self.note(record.table)
        return outcomes

    def binding(self, taken: Iterable[Step]) -> Binding:
        """Which process a claim of these steps goes to."""
        taken = list(taken)
        blocks = [task for step in taken for task in step.tasks if runs_author_code(task.kind)]
        tables = any(type(each) is TableRef for each in self.outputs.values())
        if not blocks and not tables:
            return SHARED
        pure = bool(blocks) and all(task.effect == "pure" for task in blocks)
        folder = self.sandbox.blocks.folder_name(self.blueprint.digest)
        return Binding(folder, max(step.memory_mb for step in taken), pure)

    def note(self, ref: BlockRef) -> None:
        """A worker wrote a block."""
        if self.table is None or ref.key != self.table.key:
            self.sandbox.blocks.note(self.blueprint.digest, self.seq, ref.key, ref.size_bytes)

    # ---- what expressions see ------------------------------------------------------------------------

    def value(self, name: str, visit: int) -> Any:
        """A step's output as templates see it."""
        output = self.outputs[name, visit]
        if type(output) is ValueRef:
            ref = output
            return Deferred(ref.selected or {}, lambda: decode(self.block(ref)))
        step = self.blueprint.steps[self.blueprint.step_index[name]]
        return seen_with(step.output, decode(output)) if type(output) is bytes else output

    def block(self, ref: BlockRef) -> bytes:
        """A block's bytes. Raises CacheMiss."""
        return self.sandbox.blocks.read(self.blueprint.digest, ref)

    def _values(self, step: Step, state: Execution, *, own: int | None = None) -> dict[str, Any]:
        made = {}
        for name in step.reads:
            known = state.steps.get(name)
            if known is not None and (name, known.visit) in self.outputs and known.status == "done":
                made[name] = self.value(name, known.visit)
        if own is not None:
            made[step.name] = self.value(step.name, own)
        return made

    def step_scope(self, index: int, state: Execution, args: dict[str, Any] | None) -> dict[str, Any]:
        """What a step that is about to run may look at."""
        step = self.blueprint.steps[index]
        values = self._values(step, state)
        scope = build_scope(self._seen_workload(), state.ctx, values, self.execution_id, None, args)
        if step.reads_iter:
            outer = self.request.iter
            scope["iter"] = {} if outer is None else {"parent": decode(outer)}
        return scope

    def gate_scope(self, state: Execution, args: dict[str, Any] | None) -> dict[str, Any]:
        """What admission rules may look at."""
        return build_scope(self._seen_workload(), state.ctx, {}, self.execution_id, None, args)

    def _seen_workload(self) -> dict[str, Any]:
        return self.workload if self.table is None else {**self.workload, REQUEST_TABLE: self.table}

    def _routing_scope(
        self, step: Step, visit: int, state: Execution, problem: dict[str, Any] | None
    ) -> dict[str, Any]:
        values = self._values(step, state, own=None if problem is not None else visit)
        if problem is not None:
            values.pop(step.name, None)
        if step.reads_output:
            values["output"] = envelope(values.get(step.name), problem)
        args = token_args(self.blueprint, state, step.name)
        return build_scope(self._seen_workload(), state.ctx, values, self.execution_id, None, args)

    # ---- where a settled step leads --------------------------------------------------------------------

    def routed(
        self, index: int, visit: int, state: Execution, written: dict[str, Any] | None
    ) -> tuple[Routed, dict[str, Any] | None]:
        """Where a step that is done leads in a state, or why that cannot be said; `written` is its policies'."""
        step = self.blueprint.steps[index]
        try:
            return led(
                self.blueprint, step, state, written, lambda: self._routing_scope(step, visit, state, None)
            )
        except CacheMiss as error:
            raise Missing(f"Step {step.name} cannot be routed: {error.message}") from error

    def failed(
        self,
        index: int,
        visit: int,
        state: Execution,
        problem: dict[str, Any],
        written: dict[str, Any] | None,
    ) -> tuple[list[Any] | None, dict[str, Any] | None]:
        """Where a step that failed leads: `(ways, ctx patches)`, as `edge.core.events.StepFailed` has them."""
        step = self.blueprint.steps[index]
        try:
            return led_failed(
                self.blueprint, step, state, written, lambda: self._routing_scope(step, visit, state, problem)
            )
        except EdgeError:
            return None, None


def records_of(tasks: Iterable[TaskDone]) -> tuple[TaskRecord, ...]:
    """Recorded tasks as a claim carries them."""
    return tuple(
        TaskRecord(done.number, done.task, done.value, done.table, done.problem, done.duration_us)
        for done in tasks
    )
