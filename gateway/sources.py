"""All subscriptions of the gateway: one session at the broker each, as the runtime's table says.

Owned by the gateway's daemon, which passes on what the runtime says of them. It keeps nothing of its own: the table
comes again with every connection to the runtime.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.complaints import Complaints
from gateway.mqtt import BrokerAddress
from gateway.reconnects import Clash, Reconnects
from gateway.source import Asked, Source


class Sources:
    """Every source by its subscription's number."""

    def __init__(
        self,
        implementation: str,
        address: BrokerAddress,
        box: str,
        send: Callable[[list[Any]], object],
        clash: Clash,
        complaints: Complaints,
    ) -> None:
        self._implementation, self._address, self._box, self._send = implementation, address, box, send
        self._clash, self._complaints = clash, complaints
        self._sources: dict[int, Source] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._last = 0
        #: Ended by what no source may survive; the daemon waits for it.
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def heard(self, message: list[Any]) -> bool:
        """Something the runtime said; False where it is not about subscriptions."""
        kind = message[0]
        if kind == "subscriptions":
            for row in message[1]:
                self._source(row[0]).ask(Asked.from_row(row))
        elif kind == "taken":
            self._source(message[2]).taken(message[1])
        elif kind == "room":
            self._source(message[1]).again()
        else:
            return False
        return True

    def again(self) -> None:
        """The runtime is there again."""
        for source in self._sources.values():
            source.tell()
            source.again()

    def _source(self, number: int) -> Source:
        source = self._sources.get(number)
        if source is None:
            source = self._sources[number] = Source(
                self._implementation,
                self._address,
                self._box,
                number,
                self._send,
                self._token,
                Reconnects(f"of subscription number {number}", self._clash),
                self._complaints,
            )
            self._tasks[number] = task = asyncio.get_running_loop().create_task(source.keep())
            task.add_done_callback(self._ended)
        return source

    def _token(self) -> int:
        self._last += 1
        return self._last

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self.failed.done() and (error := task.exception()) is not None:
            self.failed.set_exception(error)

    async def close(self) -> None:
        """Go away; the broker keeps every session."""
        for task in self._tasks.values():
            task.cancel()
        for source in self._sources.values():
            await source.close()
