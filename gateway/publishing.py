"""Messages that playbooks publish, and answers to those that ask: for the runtime, over the box's own session.

Owned by the gateway daemon. It hands on what the runtime says and tells what the broker says; what may be published
is the runtime's to judge. A message that is under way when the connection is lost is told as unknown and never sent a
second time by itself; one that waits for a connection is sent when there is one. An answer goes to a topic that only
this gateway hears, under a token nobody can guess; late ones are dropped.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, Final

from edge.core.errors import EdgeError
from edge.core.records import record
from gateway.mqtt import REFUSED, Message, Session
from gateway.topics import reply_prefix

_TOKEN_BYTES: Final = 16


@record
class _Waiting:
    """One message: its frame's parts, and the token of the answer it asks for."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    content_type: str | None
    properties: tuple[tuple[str, str], ...]
    token: str | None


class Publishing:
    """Everything of the runtime's that is not settled."""

    def __init__(self, session: Session, box: str, tell: Callable[[list[Any]], object]) -> None:
        self._session, self._tell = session, tell
        self._prefix = reply_prefix(box)
        self._connected = False
        self._waiting: dict[int, _Waiting] = {}
        #: Those handed to the session, whose acknowledgement is not there yet.
        self._under_way: set[int] = set()
        self._tokens: dict[str, int] = {}

    def publish(
        self,
        number: int,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        content_type: str | None,
        properties: list[list[str]],
        asks: bool,
    ) -> None:
        """Publish one message, now or when the broker is there."""
        token = secrets.token_hex(_TOKEN_BYTES) if asks else None
        pairs = tuple((str(name), str(value)) for name, value in properties)
        self._waiting[number] = _Waiting(topic, payload, qos, retain, content_type, pairs, token)
        if token is not None:
            self._tokens[token] = number
        if self._connected:
            self._send(number)

    def forget(self, number: int) -> None:
        """The runtime does not wait for it any longer."""
        waiting = self._waiting.pop(number, None)
        self._under_way.discard(number)
        if waiting is not None and waiting.token is not None:
            self._tokens.pop(waiting.token, None)

    def forget_all(self) -> None:
        """The runtime went: whoever comes next asks anew."""
        self._waiting.clear()
        self._under_way.clear()
        self._tokens.clear()

    def broker_up(self) -> None:
        """Connected and subscribed: send what waits."""
        self._connected = True
        for number in list(self._waiting):
            if number not in self._under_way:
                self._send(number)

    def broker_down(self) -> None:
        """The connection is lost; publishes under way fail by themselves."""
        self._connected = False

    def is_reply(self, topic: str) -> bool:
        """Whether a message is an answer to one of ours."""
        return topic.startswith(self._prefix)

    def reply(self, message: Message) -> None:
        """Pass an answer on; one that nobody waits for is dropped."""
        number = self._tokens.pop(message.topic[len(self._prefix) :], None)
        if number is not None:
            self.forget(number)
            self._tell(["replied", number, message.content_type, message.payload])

    def _send(self, number: int) -> None:
        waiting = self._waiting[number]
        self._under_way.add(number)
        asked = waiting.token is not None
        future = self._session.publish(
            waiting.topic,
            waiting.payload,
            qos=waiting.qos,
            retain=waiting.retain,
            content_type=waiting.content_type,
            response_topic=f"{self._prefix}{waiting.token}" if asked else None,
            correlation=bytes.fromhex(waiting.token) if waiting.token is not None else None,
            user_properties=waiting.properties,
        )
        future.add_done_callback(lambda done: self._done(number, waiting, done))

    def _done(self, number: int, waiting: _Waiting, done: asyncio.Future[int]) -> None:
        if self._waiting.get(number) is not waiting:
            return  # forgotten, or answered before the broker's own word came
        self._under_way.discard(number)
        if done.cancelled() or isinstance(done.exception(), EdgeError):
            self.forget(number)
            self._tell(["published", number, "unknown", 0])
            return
        code = done.result()
        if code >= REFUSED:
            self.forget(number)
            self._tell(["published", number, "refused", code])
            return
        if waiting.token is None:
            self.forget(number)
        else:
            self._under_way.add(number)  # acknowledged: never to be sent again, its answer is waited for
        self._tell(["published", number, "ok", code])

    def __len__(self) -> int:
        return len(self._waiting)
