"""Callbacks: tokens for the tools of a step that waits for one, and what comes in with them.

Owned by the engine. A token is minted for a claim and never kept; what comes in is judged by the log, recorded once
as `callback.received`, and handed to the wait or left for it in the state. It must never tell a forged token from one
of another log, and it never looks at who sends it: whoever has the token may use it, once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from edge.core import callbacks
from edge.core.callbacks import Call
from edge.core.codec import decode_cbor_payload, decode_json_payload, encode
from edge.core.errors import RequestRefused
from edge.core.events import CallbackReceived, Event
from edge.core.limits import CALLBACK_BYTES_MAX, INLINE_BYTES_MAX
from edge.core.state import Execution, fold
from edge.runtime.admit import CBOR, JSON
from edge.runtime.commit import CommitGate
from edge.runtime.live import Live
from edge.store.key_file import read_or_make_key
from edge.worker.claims import Callbacks, Items, Progress
from playbooks.blueprint import Blueprint

if TYPE_CHECKING:
    from edge.runtime.executor import Executor

KEY_FILE: Final = "callback.key"


class Tokens:
    """The tokens of one log: its key, and the topic they go below."""

    def __init__(self, key: bytes, log_id: bytes, box: str) -> None:
        self._key, self._log_id, self._topic = key, log_id, f"edge/v1/{box}/callback"

    @classmethod
    def of(cls, data: Path, log_id: bytes, box: str) -> Tokens:
        """With the key beside the log, made at the first start. Raises StorageFailed, Misconfigured.

        Where the file is lost a new key is made: tokens handed out before are unknown then, and their waits end by
        their bound.
        """
        return cls(read_or_make_key(data / KEY_FILE, callbacks.KEY_BYTES), log_id, box)

    def for_claim(
        self, live: Live, index: int, visit: int, progress: Progress | None, items: Items | None
    ) -> Callbacks | None:
        """What a claim of a step carries: a token for each round it can come to; None where it waits for none."""
        step = live.blueprint.steps[index]
        if not step.calls_back:
            return None
        calling = {task.name for task in step.tasks if task.calls_back}
        behind = sum(record.task in calling for record in (progress.recorded if progress else ()))
        item = None if items is None else items.first
        calls = (Call(live.state.seq, index, visit, item, n) for n in range(behind + 1))
        return Callbacks(self._topic, [callbacks.mint(self._key, self._log_id, call) for call in calls])

    def read(self, token: str) -> Call | None:
        """The wait a token stands for; None where it is none of this log's."""
        return callbacks.read(self._key, self._log_id, token)


def value_of(content_type: str | None, payload: bytes) -> bytes | None:
    """What a callback brings, as the event keeps it. Raises PayloadInvalid, RequestRefused."""
    kind = (content_type or JSON).split(";")[0].strip().lower()
    if kind not in (JSON, CBOR):
        raise RequestRefused(
            f"A callback cannot bring {kind!r:.80}.",
            mend=f"Send {JSON} or {CBOR}; a table goes into a request of its own.",
            code="content_type_unknown",
        )
    if not payload:
        return None
    if len(payload) <= CALLBACK_BYTES_MAX:
        value = encode(decode_cbor_payload(payload) if kind == CBOR else decode_json_payload(payload))
        if len(value) <= INLINE_BYTES_MAX:
            return value
    raise RequestRefused(
        f"A callback brings at most {INLINE_BYTES_MAX} bytes, this one {len(payload)}.",
        mend="Send less, or send the data in a request of its own.",
        code="payload_too_large",
    )


class Called(Protocol):
    """What callbacks need of the engine (`edge.runtime.engine.Engine`)."""

    @property
    def executor(self) -> Executor:
        """Who carries executions on."""

    def events_of(self, execution: int) -> list[Event]:
        """Every event of one execution. Raises RequestRefused where there is none."""

    def blueprint_of(self, state: Execution) -> Blueprint:
        """What it runs."""

    def execution_id(self, seq: int) -> str:
        """Its name outside."""


class CallbackDoor:
    """Where callbacks come in."""

    def __init__(self, engine: Called, tokens: Tokens, gate: CommitGate) -> None:
        self._engine, self._tokens, self._gate = engine, tokens, gate

    def receive(
        self, token: str, content_type: str | None, payload: bytes, received: Callable[[str], None]
    ) -> None:
        """Take a callback: `received(execution id)` once it is durable. Raises RequestRefused."""
        call = self._tokens.read(token)
        if call is None:
            raise _refused(callbacks.UNKNOWN)
        try:
            events = self._engine.events_of(call.execution)
        except RequestRefused as error:  # the log lost what the token was minted for
            raise _refused(callbacks.UNKNOWN) from error
        state = fold(events)
        step = self._engine.blueprint_of(state).steps[call.step].name
        code = callbacks.refusal(state, events, step, call)
        if code is not None:
            raise _refused(code)
        body = CallbackReceived(call.round, value_of(content_type, payload))
        live = self._engine.executor.parking.find(call.execution)
        assert live is not None, "it runs"
        iteration = () if call.item is None else (call.item,)
        seq = self._engine.executor.append(live, body, step, visit=call.visit, iteration=iteration)
        execution_id = self._engine.execution_id(call.execution)
        self._gate.after(seq, lambda _: received(execution_id))
        self._engine.executor.waits.called(live, step, call.item, body)


def _refused(code: str) -> RequestRefused:
    message, mend = _REFUSALS[code]
    return RequestRefused(message, mend=mend, code=code)


_REFUSALS: Final = {
    callbacks.UNKNOWN: (
        "This is no callback token of this box.",
        "Use the token as it was handed out, whole, in small letters.",
    ),
    callbacks.USED: (
        "This callback was received before.",
        "Nothing is to be done: a token is good for once.",
    ),
    callbacks.EXPIRED: ("Nobody waits for this callback any longer.", "Send a new request."),
    callbacks.ENDED: ("The execution that waited for this callback has ended.", "Send a new request."),
}
