"""Clients that do what the promise asks of them: publish the same request id until it is answered.

Used by the kill tests. Each caller keeps one request open at a time, on one session of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from typing import Any

from edge.core.errors import EdgeError
from gateway.mqtt import BrokerAddress, Message, Session, Settings, open_session
from tests.process.box import BOX

AGAIN_S = 1.0


@dataclass(slots=True)
class Asked:
    """One request and all that was heard of it."""

    request_id: str
    playbook: str
    payload: bytes
    receipts: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[dict[str, Any]] = field(default_factory=list)


class Caller:
    """Asks one request after the other until told to stop, then finishes the one under way."""

    def __init__(
        self, name: str, port: int, playbooks: list[str], seed: int, username: str | None = None
    ) -> None:
        self.name, self.port, self.playbooks, self.username = name, port, playbooks, username
        self.random = random.Random(seed)
        self.asked: list[Asked] = []
        self.stopping = False
        self._heard = asyncio.Event()
        self._lost = asyncio.Event()

    async def run(self) -> None:
        """Ask until `stopping`; returns when the last request has its result."""
        while not self.stopping:
            number = len(self.asked)
            one = Asked(
                f"{self.name}-{number}",
                self.random.choice(self.playbooks),
                json.dumps({"n": number}).encode(),
            )
            self.asked.append(one)
            await self._ask(one)
        if self._session is not None:
            await self._session.close()

    _session: Session | None = None

    async def _connected(self) -> Session:
        while True:
            if self._session is not None and not self._lost.is_set():
                return self._session
            self._lost.clear()
            session = open_session(
                "codec",
                address=BrokerAddress("127.0.0.1", self.port, username=self.username),
                settings=Settings(client_id=f"caller-{self.name}", clean_start=True),
                on_message=self._received,
                on_lost=lambda reason: self._lost.set(),
            )
            try:
                await session.connect()
                await session.subscribe([(f"answers/{self.name}", 1)])
            except EdgeError:
                self._lost.set()
                await asyncio.sleep(0.05)
                continue
            self._session = session

    async def _ask(self, one: Asked) -> None:
        while not one.results:
            session = await self._connected()
            session.publish(
                f"edge/v1/{BOX}/request/{self.name}/{one.playbook}",
                one.payload,
                content_type="application/json",
                response_topic=f"answers/{self.name}",
                user_properties=(("request-id", one.request_id),),
            )
            try:
                async with asyncio.timeout(AGAIN_S):
                    while not one.results and not self._lost.is_set():
                        self._heard.clear()
                        waits = [asyncio.ensure_future(event.wait()) for event in (self._heard, self._lost)]
                        try:
                            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                        finally:
                            for wait in waits:
                                wait.cancel()
            except TimeoutError:
                continue

    def _received(self, message: Message) -> None:
        properties = dict(message.user_properties)
        document = json.loads(message.payload)
        one = next(
            (one for one in reversed(self.asked) if one.request_id == properties.get("request-id")), None
        )
        if one is not None:
            kinds = {"receipt": one.receipts, "result": one.results, "refusal": one.refusals}
            kinds[properties["kind"]].append(document)
        if self._session is not None:
            self._session.acknowledge(message)
        self._heard.set()
