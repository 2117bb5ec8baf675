"""Where callbacks come in: judged by the log, recorded once, handed to the wait or left for it in the state.

Owned by the engine, spoken to by the socket. It must never tell a forged token from one of another log, and it never
looks at who sends it: whoever has the token (`edge.runtime.waiting.tokens`) may use it, once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from edge.core import callbacks
from edge.core.codec import CBOR, JSON, decode_cbor_payload, decode_json_payload, encode
from edge.core.errors import RequestRefused
from edge.core.events import CallbackReceived, Event
from edge.core.limits import CALLBACK_BYTES_MAX, INLINE_BYTES_MAX
from edge.core.state import fold
from edge.runtime.commit.gate import CommitGate
from edge.runtime.executions.catalog import Catalog
from edge.runtime.executions.executor import Executor
from edge.runtime.requests.refusals import Refusals
from edge.runtime.waiting.tokens import Tokens

#: Stands for the principal of a refusal: a callback has none, and its token goes into no log.
CALLBACK: Final = "callback"


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
    """What callbacks need of the engine (`edge.runtime.executions.engine.Engine`)."""

    @property
    def executor(self) -> Executor:
        """Who carries executions on."""

    def events_of(self, execution: int) -> list[Event]:
        """Every event of one execution. Raises RequestRefused where there is none."""

    @property
    def catalog(self) -> Catalog:
        """What they run."""

    @property
    def refusals(self) -> Refusals:
        """Where what is refused is recorded."""

    def execution_id(self, seq: int) -> str:
        """Its name outside."""


class CallbackDoor:
    """Where callbacks come in."""

    def __init__(self, engine: Called, tokens: Tokens, gate: CommitGate) -> None:
        self._engine, self._tokens, self._gate = engine, tokens, gate

    def receive(
        self, token: str, content_type: str | None, payload: bytes, received: Callable[[str], None]
    ) -> None:
        """Take a callback: `received(execution id)` once it is durable. Raises RequestRefused, which is recorded."""
        try:
            self._receive(token, content_type, payload, received)
        except RequestRefused as error:
            self._engine.refusals.note(error.problem_code, CALLBACK, "", None)
            raise

    def _receive(
        self, token: str, content_type: str | None, payload: bytes, received: Callable[[str], None]
    ) -> None:
        call = self._tokens.read(token)
        if call is None:
            raise _refused(callbacks.UNKNOWN)
        try:
            events = self._engine.events_of(call.execution)
        except RequestRefused as error:  # the log lost what the token was minted for
            raise _refused(callbacks.UNKNOWN) from error
        state = fold(events)
        if not self._engine.catalog.holds(state):  # it ended, and its playbook was pruned with it
            raise _refused(callbacks.ENDED)
        step = self._engine.catalog.blueprint_of(state).steps[call.step].name
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
