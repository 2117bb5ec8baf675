"""One subscription's own session at the broker: asks for its topics, hands messages on, acknowledges in order.

Owned by `gateway.sources`. Apart from the session for requests, so that a subscription whose messages are not taken
at the moment (the runtime is away, or its backlog is full) holds up neither requests nor other subscriptions: its
broker stops at our Receive Maximum and keeps the rest. It never looks into a payload.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from edge.core.errors import Misconfigured, Unavailable
from edge.core.limits import HEADERS_BYTES_MAX, PAYLOAD_BYTES_MAX, RECEIVE_MAX
from edge.core.records import record
from gateway.complaints import Complaints
from gateway.mqtt import ONCE, BrokerAddress, Message, Session, Settings, open_session
from gateway.reconnects import Reconnects

logger = logging.getLogger(__name__)

_SESSION_EXPIRY_S: Final = 7 * 24 * 3600
#: A broker that refuses a topic is asked again this often: somebody may mend its access list.
_REFUSED_RETRY_S: Final = 60.0


@dataclass(slots=True, eq=False)
class _Held:
    """A message that is not acknowledged yet."""

    message: Message
    token: int
    settled: bool = False


@record
class Asked:
    """What the runtime wants of a subscription: its topics, the ones to give up, the properties that may pass."""

    path: str
    taking: bool
    topics: tuple[tuple[str, int], ...]
    gone: tuple[str, ...]
    headers: frozenset[str]

    @classmethod
    def from_row(cls, row: list[Any]) -> Asked:
        """From the runtime's table (`edge.runtime.api.subscription_door`)."""
        _, path, taking, topics, gone, headers = row
        return cls(path, taking, tuple((f, qos) for f, qos in topics), tuple(gone), frozenset(headers))


class Source:
    """One subscription at the broker."""

    def __init__(
        self,
        implementation: str,
        address: BrokerAddress,
        box: str,
        number: int,
        send: Callable[[list[Any]], object],
        token: Callable[[], int],
        reconnects: Reconnects,
        complaints: Complaints,
    ) -> None:
        self._implementation, self._address, self._complaints = implementation, address, complaints
        self._client_id = f"edge-gateway-{box}-{number}"
        self._number, self._send, self._token = number, send, token
        self._asked: Asked | None = None
        self._held: deque[_Held] = deque()
        self._by_token: dict[int, _Held] = {}
        self._news: asyncio.Event = asyncio.Event()
        self._reconnects = reconnects
        self._connected = False
        #: When the connection was made that `_lost` is told of, and how long to stay away after it.
        self._connected_s: float | None = None
        self._wait_s = 0.0
        #: Why it is not at the broker; None where it is.
        self._absent: str | None = "The gateway has not connected for it yet."
        self._session = self._open(clean=False)

    def _open(self, *, clean: bool) -> Session:
        return open_session(
            self._implementation,
            address=self._address,
            settings=Settings(
                client_id=self._client_id,
                clean_start=clean,
                session_expiry_s=0 if clean else _SESSION_EXPIRY_S,
                receive_maximum=RECEIVE_MAX,
            ),
            on_message=self._received,
            on_lost=self._lost,
        )

    # ---- from the runtime ----------------------------------------------------------------------------

    def ask(self, asked: Asked) -> None:
        """The runtime says what it wants from now on."""
        if asked != self._asked:
            self._asked = asked
            self._reconnects.what = f"of subscription {asked.path}"
            self._news.set()

    def taken(self, token: int) -> None:
        """A message is in the log: acknowledge in order of arrival, as far as all before it are (MQTT 5 §4.6)."""
        held = self._by_token.pop(token, None)
        if held is None:
            return
        held.settled = True
        while self._held and self._held[0].settled:
            self._session.acknowledge(self._held.popleft().message)

    def again(self) -> None:
        """The runtime is there again, or has room again: send what it did not confirm."""
        for held in self._held:
            if not held.settled:
                self._hand_on(held.message, held.token, again=True)

    def tell(self) -> None:
        """Let the runtime know whether it is at the broker, or why not."""
        self._send(["attending", self._number, self._absent])

    def _tell_absent(self, why: str) -> None:
        self._absent = why
        self.tell()

    # ---- at the broker -------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Be connected as long as messages are wanted; returns never."""
        while True:
            self._news.clear()
            asked = self._asked
            try:
                if asked is None:
                    pass
                elif not asked.taking:
                    await self._leave()
                else:
                    await self._attend(asked)
            except Unavailable as error:
                self._connected = False  # whatever had been made is of no more use
                if not self._wait_s:
                    wait_s = self._reconnects.away()
                    self._tell_absent(error.message)
                    logger.warning("subscription %s: %s Trying again in %.1f s.", self._path, error, wait_s)
                    await self._pause(wait_s)
                    continue
            except Misconfigured as error:
                logger.error("subscription %s: %s", self._path, error)
                self._tell_absent(error.message)
                await self._session.close()
                self._connected = False
                await self._pause(_REFUSED_RETRY_S)
                continue
            await self._news.wait()
            if self._wait_s:
                self._news.clear()
                wait_s, self._wait_s = self._wait_s, 0.0
                await self._pause(wait_s)

    async def _attend(self, asked: Asked) -> None:
        if not self._connected:
            # What comes from here on comes in order; the runtime need not wait for what an earlier connection owes.
            self._send(["source", self._number])
            self._connected_s = None
            await self._session.connect()
            self._connected = True
            self._connected_s = asyncio.get_running_loop().time()
        if asked.gone:
            await self._session.unsubscribe(asked.gone)
        await self._session.subscribe(asked.topics, retained=ONCE)
        if self._reconnects.level > logging.DEBUG:
            logger.info("subscription %s is at the broker", asked.path)
        self._absent = None
        self.tell()

    async def _leave(self) -> None:
        """Give the session up with all it holds: nothing more is wanted."""
        self._tell_absent("It takes no messages at the moment.")
        await self.close()
        leaving = self._open(clean=True)
        await leaving.connect()
        await leaving.close()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        """Go away for now; the broker keeps the session."""
        self._connected = False
        self._held.clear()
        self._by_token.clear()
        await self._session.close()

    @property
    def _path(self) -> str:
        return self._asked.path if self._asked is not None else str(self._number)

    def _lost(self, reason: str) -> None:
        # What was not acknowledged comes again on the next connection.
        self._connected = False
        self._held.clear()
        self._by_token.clear()
        now_s = asyncio.get_running_loop().time()
        lasted_s = 0.0 if self._connected_s is None else now_s - self._connected_s
        logger.log(self._reconnects.level, "subscription %s: the broker is away: %s", self._path, reason)
        self._wait_s = self._reconnects.lost(lasted_s, now_s, reason)
        self._tell_absent(f"The connection to the broker at {self._address} was lost: {reason}.")
        self._news.set()

    def _received(self, message: Message) -> None:
        if len(message.payload) > PAYLOAD_BYTES_MAX:
            self._too_large(message)
            return
        token = self._token()
        if message.qos:
            held = _Held(message, token)
            self._held.append(held)
            self._by_token[token] = held
        self._hand_on(message, token, again=message.duplicate)

    def _too_large(self, message: Message) -> None:
        """It will never fit: it is refused, and that is recorded."""
        self._complaints.say(
            "messages too large",
            logging.ERROR,
            "subscription %s: a message of %d bytes is refused",
            self._path,
            len(message.payload),
        )
        self._send(["refusal", "payload_too_large", "subscription", self._path, None])
        if message.qos:
            held = _Held(message, self._token())
            self._held.append(held)
            self._by_token[held.token] = held
            self.taken(held.token)

    def _hand_on(self, message: Message, token: int, *, again: bool) -> None:
        self._send(
            [
                "message",
                token,
                self._number,
                message.topic,
                message.payload,
                message.content_type,
                self._passing(message),
                message.packet_id,
                message.retain,
                again,
            ]
        )

    def _passing(self, message: Message) -> dict[str, str] | None:
        """The user properties that may pass, as far as they fit; of one name the last."""
        if self._asked is None or not self._asked.headers or not message.user_properties:
            return None
        found: dict[str, str] = {}
        left_bytes = HEADERS_BYTES_MAX
        for name, value in message.user_properties:
            left_bytes -= len(name.encode()) + len(value.encode())
            if name in self._asked.headers and left_bytes >= 0:
                found[name] = value
        return found or None
