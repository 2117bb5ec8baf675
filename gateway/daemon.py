"""The gateway process: hears requests, admits or refuses, passes on, answers, acknowledges in order.

Started by `gateway.__main__`. It owns the broker session and nothing else: it cannot import pyarrow or lmdb, opens
neither log nor cache nor keychain, and never looks into a payload. A message is acknowledged to the broker when its
request event is durable (or its refusal was sent), in arrival order, so what a crash cuts off is delivered again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from edge.core.errors import Misconfigured, RequestRefused, Unavailable
from edge.core.limits import HELD_UNASKED_MAX, RECEIVE_MAX
from edge.core.service import Service
from edge.core.settings import Settings
from edge.core.unforeseen import end_by_unforeseen
from gateway import topics
from gateway.admission import Admitted, Called, Refused, admit
from gateway.complaints import Complaints
from gateway.dead_letters import DeadLetters
from gateway.mqtt import NEVER, BrokerAddress, Message, Will, open_session
from gateway.mqtt import Settings as SessionSettings
from gateway.probe import require_access_list
from gateway.publishing import Publishing
from gateway.reconnects import Clash, Reconnects
from gateway.responses import Responses, result_from
from gateway.runtime_link import RuntimeLink
from gateway.sources import Sources

logger = logging.getLogger(__name__)

_SESSION_EXPIRY_S: Final = 7 * 24 * 3600
_ONLINE: Final = json.dumps({"online": True}).encode()
_OFFLINE: Final = json.dumps({"online": False}).encode()


@dataclass(slots=True, eq=False)
class _Held:
    """A message that is not acknowledged yet. `token` is None where it was refused here."""

    message: Message
    token: int | None
    settled: bool = False


class Gateway:
    """One box's gatekeeper."""

    def __init__(self, settings: Settings, implementation: str = "codec") -> None:
        self._box, self._implementation = settings.box, implementation
        self._service = Service.of_environment()
        self._serving = False
        self._address = BrokerAddress.parse(settings.broker)
        self._table: dict[str, Any] | None = None
        self._table_known: asyncio.Event = asyncio.Event()
        self._stop: asyncio.Event = asyncio.Event()
        self._lost: asyncio.Event = asyncio.Event()
        #: The broker's words, or the socket's, for the last loss.
        self._lost_for = ""
        self._held: deque[_Held] = deque()
        #: Submissions the runtime has not answered, by token.
        self._submitted: dict[int, tuple[Admitted | Called, _Held]] = {}
        self._token = 0
        self._session = open_session(
            implementation,
            address=self._address,
            settings=SessionSettings(
                client_id=f"edge-gateway-{settings.box}",
                clean_start=False,
                session_expiry_s=_SESSION_EXPIRY_S,
                receive_maximum=RECEIVE_MAX,
                will=Will(topics.status_topic(settings.box), _OFFLINE, qos=1, retain=True),
            ),
            on_message=self._received,
            on_lost=self._broker_lost,
        )
        self._link = RuntimeLink(
            settings.socket_path,
            on_message=self._heard_runtime,
            on_up=self._runtime_up,
            on_down=self._runtime_down,
            on_absent=self._tell,
        )
        self._dead_letters = DeadLetters(self._session, self._link.send)
        clash = Clash(self._address, settings.box)
        self._reconnects = Reconnects("for requests", clash)
        self._complaints = Complaints(logger, lambda s, call: asyncio.get_running_loop().call_later(s, call))
        self._sources = Sources(
            implementation, self._address, settings.box, self._link.send, clash, self._complaints
        )
        self._responses = Responses(self._session, self._complaints, on_delivered=self._delivered)
        self._publishing = Publishing(self._session, settings.box, self._link.send)

    # ---- life ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until stopped. Raises Misconfigured where the broker cannot be used as configured."""
        loop = asyncio.get_running_loop()
        end_by_unforeseen(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._service.watch(loop.call_later)
        link = loop.create_task(self._link.keep())
        broker = loop.create_task(self._keep_broker())
        stop = loop.create_task(self._stop.wait())
        try:
            waited: set[asyncio.Future[Any]] = {link, broker, stop, self._sources.failed}
            done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            # Each is asked, or the loop would call one that nobody asked unforeseen.
            errors = [error for task in done - {stop} if (error := task.exception()) is not None]
            if errors:
                raise errors[0]
        finally:
            self._service.stopping()
            for task in (link, broker, stop):
                task.cancel()
            if not self._lost.is_set() and self._table is not None:
                self._session.publish(topics.status_topic(self._box), _OFFLINE, qos=0, retain=True)
            await self._sources.close()
            await self._session.close()
            self._link.close()

    async def _keep_broker(self) -> None:
        await self._table_known.wait()
        loop = asyncio.get_running_loop()
        probed = False
        while True:
            self._lost.clear()
            connected_s = None
            try:
                if not probed:
                    await require_access_list(self._implementation, self._box, self._address)
                    probed = True
                await self._session.connect()
                connected_s = loop.time()
                # A request kept by the broker would run again at every connection.
                await self._session.subscribe(topics.request_filters(self._box), retained=NEVER)
                await self._session.publish(topics.status_topic(self._box), _ONLINE, retain=True)
            except Unavailable as error:
                if not self._lost.is_set():
                    wait_s = self._reconnects.away()
                    logger.warning("%s Trying again in %.1f s.", error, wait_s)
                    self._tell()
                    await asyncio.sleep(wait_s)
                    continue
            else:
                if self._reconnects.level > logging.DEBUG:
                    logger.info("serving box %s at %s", self._box, self._address)
                self._serving = True
                self._tell()
                self._responses.again()
                self._dead_letters.again()
                self._publishing.broker_up()
                await self._lost.wait()
            now_s = loop.time()
            lasted_s = 0.0 if connected_s is None else now_s - connected_s
            await asyncio.sleep(self._reconnects.lost(lasted_s, now_s, self._lost_for))

    def _tell(self) -> None:
        """Say how it goes to who started us. Ready is also who has nobody to serve for the moment.

        A broker that is away for days must not hold up the machine's own start, which waits for what is not ready.
        """
        if not self._link.up:
            self._service.ready("waiting for the runtime")
        elif not self._serving:
            self._service.ready(f"waiting for the broker at {self._address}")
        else:
            self._service.ready(f"serving box {self._box} at {self._address}")

    def _broker_lost(self, reason: str) -> None:
        # What was not acknowledged comes again on the next connection; acknowledging it now would be void.
        self._held.clear()
        if not self._link.up:
            # Nor was it submitted: kept here, it would be twice as much with every connection.
            self._submitted = {
                token: each for token, each in self._submitted.items() if not each[1].message.qos
            }
        self._publishing.broker_down()
        self._lost.set()
        self._lost_for = reason
        self._serving = False
        self._tell()
        logger.log(self._reconnects.level, "the broker is away: %s", reason)

    # ---- from the broker -----------------------------------------------------------------------------

    def _received(self, message: Message) -> None:
        if self._publishing.is_reply(message.topic):
            held = _Held(message, None)
            self._held.append(held)
            self._publishing.reply(message)
            self._settle(held)
            return
        decided = admit(self._box, message, self._table or {})
        if not message.qos and not isinstance(decided, Refused) and self._holds_enough():
            decided = Refused(_full(), decided.reply_to)
        if isinstance(decided, Refused):
            held = _Held(message, None)
            self._held.append(held)
            self._refuse(decided)
            self._settle(held)
            return
        self._token += 1
        held = _Held(message, self._token)
        self._held.append(held)
        self._submitted[self._token] = (decided, held)
        self._link.send(decided.submission(self._token))

    def _holds_enough(self) -> bool:
        """Whether one more request that no broker keeps for us would be too many, the runtime being away."""
        return not self._link.up and len(self._submitted) >= HELD_UNASKED_MAX

    def _refuse(self, refused: Refused) -> None:
        to = refused.reply_to
        if refused.playbook == topics.PROBE_PLAYBOOK:
            return
        principal = "callback" if refused.callback else to.principal if to is not None else ""
        request_id = to.request_id if to is not None else None
        self._link.send(["refusal", refused.error.problem_code, principal, refused.playbook, request_id])
        if refused.callback:
            self._complaints.say(
                "refused callbacks", logging.WARNING, "a callback was refused: %s", refused.error.message
            )
        elif to is None:
            self._complaints.say(
                "requests without a usable topic",
                logging.WARNING,
                "a request without a usable topic was refused: %s",
                refused.error.message,
            )
        if to is not None:
            self._responses.refusal(to, refused.error.problem())

    def _settle(self, held: _Held) -> None:
        """Acknowledge in arrival order, as far as everything before is settled too (MQTT 5 §4.6)."""
        held.settled = True
        while self._held and self._held[0].settled:
            self._session.acknowledge(self._held.popleft().message)

    # ---- from the runtime ------------------------------------------------------------------------------

    def _runtime_up(self) -> None:
        for token, (admitted, _) in self._submitted.items():
            self._link.send(admitted.submission(token))
        self._sources.again()
        if self._serving:
            self._tell()

    def _runtime_down(self) -> None:
        self._publishing.forget_all()
        self._tell()

    def _heard_runtime(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == "accepted":
            self._accepted(*message[1:])
        elif kind == "answer":
            self._responses.result(result_from(self._box, message[1:]))
        elif kind == "refused":
            self._refused(message[1], message[2])
        elif kind == "received":
            known = self._submitted.pop(message[1], None)
            if known is not None:
                self._settle(known[1])
        elif kind == "publish":
            self._publishing.publish(*message[1:])
        elif kind == "forget":
            self._publishing.forget(message[1])
        elif kind == "admission":
            self._table = message[1]
            self._table_known.set()
            self._link.send(["admitted", message[2]])
        elif kind == "dead":
            self._dead_letters.heard(message)
        elif kind != "welcome" and not self._sources.heard(message):
            raise ValueError(f"a message of unknown kind {kind!r}")

    def _accepted(self, token: int, execution_id: str, seq: int, link: bytes | None, duplicate: bool) -> None:
        known = self._submitted.pop(token, None)
        if known is None:
            return
        admitted, held = known
        if isinstance(admitted, Admitted) and admitted.receipt:
            self._responses.receipt(admitted.reply_to, execution_id, seq, link, duplicate=duplicate)
        self._settle(held)

    def _refused(self, token: int, problem: dict[str, Any]) -> None:
        known = self._submitted.pop(token, None)
        if known is None:
            return
        asked, held = known
        if isinstance(asked, Called):  # never its token: it may still be good
            self._complaints.say(
                "refused callbacks", logging.WARNING, "a callback was refused: %s", problem.get("message")
            )
        if asked.reply_to is not None:
            self._responses.refusal(asked.reply_to, problem)
        self._settle(held)

    def _delivered(self, execution: int) -> None:
        self._link.send(["delivered", execution])


def _full() -> RequestRefused:
    return RequestRefused(
        f"The runtime is away, and {HELD_UNASKED_MAX} requests wait for it.",
        mend="Send it again later, or at QoS 1: then the broker keeps it.",
        code="queue_full",
        retry_after_ms=1_000,
    )


async def serve(settings: Settings, implementation: str = "codec") -> None:
    """Run a gateway. Raises Misconfigured."""
    if not settings.broker:
        raise Misconfigured(
            "No broker is configured.",
            mend='Set broker = "mqtt://127.0.0.1:1883" in edge.toml, or use `edge up`.',
        )
    await Gateway(settings, implementation).run()
