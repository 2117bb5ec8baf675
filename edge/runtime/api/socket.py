"""The runtime's unix socket: the gateway and the command line speak to the engine through it.

Owned by the daemon. Frames of `edge.core.frames`; the first element of a message says what it is.

From a peer: `["hello", role]`; `["submit", token, playbook, principal, request id, form, response topic,
correlation, content type, receipt, deadline ms, traceparent, payload]`; `["delivered", execution]`;
`["refusal", code, principal, playbook, request id]` (the gateway refused by itself); `["admitted", version]`;
`["callback", token, callback token, content type, payload]`; `["call", token, operation, arguments]`.
`["published", number, how, code]`, `["replied", number, content type, payload]` (what playbooks publish).
To a peer: `["welcome", box, log id]`; `["admission", {path: {}}, version]`; `["accepted", token, execution id, seq,
link, duplicate]`; `["received", token, execution id]` (a callback); `["refused", token, problem]`;
`["publish", number, …]`, `["forget", number]` (`edge.runtime.downstreams.mqtt`); `["answer", …fields of Answer]`;
`["reply", token, value]`; `["error", token, problem]`.
What is said of subscriptions stands in `edge.runtime.api.subscription_door`.

It must never let one peer's nonsense end the daemon: a peer that breaks the protocol (`edge.runtime.api.shapes`) is
hung up on. What goes wrong behind that is the daemon's own, and ends it, but for looks, which change nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from edge.core.errors import EdgeError, LogDamaged, RequestRefused, Unavailable
from edge.core.frames import FrameBuffer, FrameOutbox
from edge.core.unforeseen import NotTheSockets
from edge.runtime.api.shapes import check_shape
from edge.runtime.api.subscription_door import SubscriptionDoor
from edge.runtime.executions.engine import Engine, Receipt
from edge.runtime.requests.admit import Submission
from edge.runtime.requests.answers import Answer, unless_lost
from edge.runtime.subscriptions.messages import FORM

logger = logging.getLogger(__name__)

Operation = Callable[[dict[str, Any], "Reply"], None]
"""One call of the command line: arguments in, `reply(value)` now or later, or an EdgeError raised."""
Reply = Callable[[Any], None]

GATEWAY: Final = "gateway"
LOCAL_FORM: Final = "local"
#: Operations that change nothing: one that fails of our own mistake takes nobody else down with it.
_LOOKS: Final = frozenset(
    {"playbooks", "execution", "indexed", "circuits", "cache", "status", "subscriptions", "subscription"}
)
#: How long a registration waits for the gateways to take up the new table; one that is stuck is not waited for.
_TAKE_UP_S: Final = 2.0


class Api:
    """All peers of the socket."""

    def __init__(self, engine: Engine, box: str, log_id: bytes, operations: dict[str, Operation]) -> None:
        self._engine, self._box, self._log_id = engine, box, log_id
        self.operations = operations
        self._peers: set[Peer] = set()
        self._asked_locally: dict[int, Peer] = {}
        self._server: asyncio.Server | None = None
        self._admission_version = 0
        #: Who is told once all gateways have taken up a version of the admission table.
        self._taken_up: list[tuple[int, Callable[[], None]]] = []
        #: Where messages of subscriptions go.
        self.door: SubscriptionDoor | None = None
        engine.on_answer = self._send_answer
        engine.catalog.on_change = self._send_admission
        self._mqtt = engine.executor.mqtt
        self._mqtt.box, self._mqtt.send = box, self._to_gateway

    async def listen(self, path: Path) -> None:
        """Open the socket, in place of one that a dead runtime left."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Peer(self), str(path))
        os.chmod(path, 0o660)

    def close(self) -> None:
        """Stop listening and hang up on everybody."""
        if self._server is not None:
            self._server.close()
        for peer in list(self._peers):
            peer.hang_up()

    # ---- towards peers -----------------------------------------------------------------------------

    def gateways(self) -> list[Peer]:
        """Every gateway that is connected."""
        return [peer for peer in self._peers if peer.role == GATEWAY]

    def _to_gateway(self, message: list[Any]) -> bool:
        """Hand a frame to one gateway; False where there is none."""
        peer = next(iter(self.gateways()), None)
        if peer is not None:
            peer.send(message)
        return peer is not None

    def _send_admission(self, taken_up: Callable[[], None]) -> None:
        """Tell the gateways what there is; `taken_up()` once they know, so that a request may follow."""
        self._admission_version += 1
        for peer in self.gateways():
            peer.send(self._admission())
        self._taken_up.append((self._admission_version, taken_up))
        self._tell_taken_up()
        if self._taken_up:
            asyncio.get_running_loop().call_later(_TAKE_UP_S, self._tell_taken_up, self._admission_version)

    def _admission(self) -> list[Any]:
        table: dict[str, dict[str, Any]] = {
            blueprint.path: {} for blueprint in self._engine.catalog.playbooks()
        }
        return ["admission", table, self._admission_version]

    def _tell_taken_up(self, at_least: int = 0) -> None:
        """Call back for every version that all gateways have, or that is not waited for any longer."""
        known = min((peer.admitted for peer in self.gateways()), default=self._admission_version)
        while self._taken_up and self._taken_up[0][0] <= max(known, at_least):
            self._taken_up.pop(0)[1]()

    def _send_answer(self, answer: Answer) -> None:
        if answer.form == LOCAL_FORM:
            peer = self._asked_locally.pop(answer.execution, None)
            if peer is not None:
                peer.send(_answer_message(answer))
            self._engine.delivered(answer.execution)
            return
        for peer in self.gateways():
            peer.send(_answer_message(answer))

    # ---- from peers --------------------------------------------------------------------------------

    def joined(self, peer: Peer) -> None:
        """A peer connected."""
        self._peers.add(peer)

    def left(self, peer: Peer) -> None:
        """A peer went away; its local requests run on, their answers stay in the log."""
        self._peers.discard(peer)
        if peer.role == GATEWAY:
            self._mqtt.gateway_down()
            self._mqtt.gateway_up()  # another one may be there
        if self.door is not None:
            self.door.left(peer)
        self._tell_taken_up()
        self._asked_locally = {seq: p for seq, p in self._asked_locally.items() if p is not peer}

    def heard(self, peer: Peer, message: list[Any]) -> None:
        """One message, of a shape that its kind has."""
        kind = message[0]
        if kind == "submit":
            self._submit(peer, message[1], Submission(*message[2:]))
        elif kind == "callback":
            self._callback(peer, *message[1:])
        elif kind == "delivered":
            self._engine.delivered(message[1])
        elif kind == "published":
            self._mqtt.published(*message[1:])
        elif kind == "replied":
            self._mqtt.replied(*message[1:])
        elif kind == "call":
            self._call(peer, *message[1:])
        elif kind == "refusal":
            self._engine.refusals.note(*message[1:])
        elif kind == "admitted":
            peer.admitted = message[1]
            self._tell_taken_up()
        elif kind == "hello":
            self._welcome(peer, message[1])
        elif self.door is not None:
            self.door.heard(peer, message)

    def _welcome(self, peer: Peer, role: str) -> None:
        peer.role = role
        peer.send(["welcome", self._box, self._log_id])
        if role != GATEWAY:
            return
        peer.send(self._admission())
        self._mqtt.gateway_up()
        if self.door is not None:
            self.door.welcome(peer)
        for execution in self._engine.owed:
            with unless_lost(execution):
                answer = self._engine.answer(execution)
                if answer.form in (LOCAL_FORM, FORM):
                    self._engine.delivered(execution)
                else:
                    peer.send(_answer_message(answer))

    def _submit(self, peer: Peer, token: int, submission: Submission) -> None:
        def accepted(receipt: Receipt) -> None:
            link = receipt.link
            peer.send(["accepted", token, receipt.execution_id, receipt.seq, link, receipt.duplicate])
            if receipt.finished is not None:
                peer.send(_answer_message(receipt.finished, submission))
            elif submission.form == LOCAL_FORM:
                self._asked_locally[receipt.seq] = peer

        try:
            self._engine.submit(submission, accepted)
        except (RequestRefused, LogDamaged) as error:
            peer.send(["refused", token, error.problem()])

    def _callback(
        self, peer: Peer, token: int, callback_token: str, content_type: str | None, payload: bytes
    ) -> None:
        try:
            self._engine.callbacks.receive(
                callback_token,
                content_type,
                payload,
                lambda execution_id: peer.send(["received", token, execution_id]),
            )
        except (RequestRefused, LogDamaged) as error:
            peer.send(["refused", token, error.problem()])

    def _call(self, peer: Peer, token: int, operation: str, arguments: dict[str, Any]) -> None:
        run = self.operations.get(operation)
        try:
            if run is None:
                raise RequestRefused(f"The runtime knows no operation {operation!r}.", mend="Update it.")
            run(arguments, lambda value: peer.send(["reply", token, value]))
        except EdgeError as error:
            peer.send(["error", token, error.problem()])
        except Exception as error:
            if operation not in _LOOKS:
                raise
            logger.exception("the operation %r failed", operation)
            failed = Unavailable(
                f"The runtime could not tell: {type(error).__name__}: {error}.",
                mend="Its own log has the whole story; `edge log show` and `edge explain` read the log without it.",
            )
            peer.send(["error", token, failed.problem()])


def _answer_message(answer: Answer, asked_by: Submission | None = None) -> list[Any]:
    """An answer as a message; one asked for again goes where it was asked from this time."""
    again = asked_by if asked_by is not None else answer
    return [
        "answer",
        answer.execution,
        answer.execution_id,
        again.form,
        answer.principal,
        answer.request_id,
        again.response_topic,
        again.correlation,
        answer.status,
        answer.content_type,
        answer.payload,
    ]


class Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._buffer = FrameBuffer()
        self._transport: asyncio.WriteTransport | None = None
        self._outbox: FrameOutbox | None = None
        self.role = ""
        #: Version of the admission table that this gateway works by.
        self.admitted = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's are no subclasses
        self._outbox = FrameOutbox(self._write, asyncio.get_running_loop().call_soon)
        self._api.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self._transport = None
        self._api.left(self)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        try:
            messages = self._buffer.feed(data)
        except ValueError as error:
            self._breaks_protocol(error)
            return
        for message in messages:
            try:
                check_shape(message)
            except ValueError as error:
                self._breaks_protocol(error)
                return
            try:
                self._api.heard(self, message)
            except OSError as error:
                raise NotTheSockets(f"A {message[0]!r} could not be carried out") from error

    def _breaks_protocol(self, error: ValueError) -> None:
        logger.warning("a %s broke the protocol and is hung up on: %s", self.role or "peer", error)
        self.hang_up()

    def send(self, message: list[Any]) -> None:
        """Send one message; dropped where the peer is gone (answers stay owed)."""
        if self._transport is not None and self._outbox is not None:
            self._outbox.send(message)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def hang_up(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()
