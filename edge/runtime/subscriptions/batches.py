"""Executions that take a batch of a subscription's messages: begun here, and taken up again after a restart.

Used by `edge.runtime.subscriptions.flow` and, for restarts, by the engine. What an execution takes is always made of
the messages in the log, so a copy of them is in no event.
"""

from __future__ import annotations

import hashlib
from typing import Any

from edge.core.codec import ARROW
from edge.core.errors import LogDamaged, RequestRefused, StorageFailed
from edge.core.events import Event, ExecutionRequested
from edge.core.lanes import Batch
from edge.core.limits import INLINE_BYTES_MAX
from edge.core.message_input import batch_bytes, content_kind, single_input
from edge.core.state import Execution
from edge.core.subscription_events import MessageReceived
from edge.core.values import TableRef
from edge.runtime.commit.gate import CommitGate
from edge.runtime.executions.engine import Engine
from edge.runtime.requests.admit import started_workload
from edge.runtime.running.live import Live
from edge.runtime.subscriptions.intake import Intake, batch_of
from edge.runtime.subscriptions.messages import FORM
from edge.store.blocks import Blocks, request_key
from playbooks.blueprint import Blueprint


class Batches:
    """Begins executions and lays out what they take."""

    def __init__(self, engine: Engine, gate: CommitGate, blocks: Blocks) -> None:
        self._engine, self._gate, self._blocks = engine, gate, blocks

    def begin(self, intake: Intake, batch: Batch) -> int:
        """Append the request of a batch and start its execution; its number. Raises LogDamaged."""
        subscription = intake.subscription
        events = intake.take_held(batch) if batch.attempt == 1 else None
        events = events or self.messages(intake.number, batch)
        first = events[0].body
        assert isinstance(first, MessageReceived)
        # A batch is of one playbook; it stands with its messages, so that a later attempt has it too.
        blueprint = self._engine.catalog.playbook(first.playbook or subscription.playbook)
        headers = first.headers or {}
        body = ExecutionRequested(
            blueprint.digest,
            f"subscription:{subscription.path}",
            form=FORM,
            receipt=False,
            traceparent=headers.get("traceparent") if subscription.trace else None,
            batch=[intake.number, batch.first, batch.last, batch.count, batch.lane, batch.attempt],
        )
        live = self._live(blueprint, Execution(self._gate.next_seq, body), intake, events)
        seq = self._gate.append(body).seq
        self._engine.executor.open[seq] = live
        self._engine.executor.advance(live)
        return seq

    def again(self, blueprint: Blueprint, state: Execution, intake: Intake) -> Live:
        """The execution of a batch as it was before a restart. Raises LogDamaged."""
        return self._live(blueprint, state, intake, self.messages(intake.number, batch_of(state.request)))

    def messages(self, number: int, batch: Batch) -> list[Event]:
        """The messages of a batch, from the log. Raises LogDamaged where they are not all there."""
        found = [
            event
            for event in self._gate.events_of(number, batch.first, batch.last)
            if isinstance(event.body, MessageReceived) and event.body.lane == batch.lane
        ]
        if len(found) != batch.count:
            raise LogDamaged(
                f"The batch of messages {batch.first} to {batch.last} has {len(found)} of {batch.count} messages."
            )
        return found

    def payload_of(self, event: Event) -> bytes:
        """A message's payload. Raises LogDamaged."""
        body = event.body
        assert isinstance(body, MessageReceived)
        return (
            self._gate.blob(body.payload_digest) if body.payload_digest is not None else body.payload or b""
        )

    def _live(self, blueprint: Blueprint, state: Execution, intake: Intake, events: list[Event]) -> Live:
        seq = state.seq
        live = Live(self._engine.execution_id(seq), blueprint, state, {}, self._blocks.read, last_seq=seq)
        messages = [(event, self.payload_of(event)) for event in events]
        if intake.subscription.table:
            data = batch_bytes(intake.subscription, messages)
            key = request_key(seq)
            self._start(live, {})
            live.request_table = TableRef(key, hashlib.sha256(data).digest(), len(data), len(messages), None)
            live.request_table_bytes = data
            return live
        event, payload = messages[0]
        self._start(live, single_input(intake.subscription, event, payload))
        if content_kind(event.body.content_type) == ARROW:  # type: ignore[attr-defined]
            self._bring_stream(live, payload)
        return live

    @staticmethod
    def _start(live: Live, given: dict[str, Any]) -> None:
        """Lay out the workload; the messages were accepted, so where that fails the execution does."""
        try:
            live.workload = started_workload(live.blueprint, given, live.execution_id)
        except RequestRefused as error:
            live.doomed = error.problem()

    def _bring_stream(self, live: Live, payload: bytes) -> None:
        """A message that is an Arrow stream: its table stands where a request's stands."""
        seq, digest = live.state.seq, hashlib.sha256(payload).digest()
        if len(payload) <= INLINE_BYTES_MAX:
            live.request_table = TableRef(request_key(seq), digest, len(payload), None, None)
            live.request_table_bytes = payload
            return
        try:
            live.request_table = self._blocks.put(live.blueprint.digest, seq, request_key(seq), payload)
        except StorageFailed as error:
            live.doomed = {**error.problem(), "code": "cache_full"}
