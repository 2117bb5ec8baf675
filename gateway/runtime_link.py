"""The gateway's connection to the runtime: submits, hears receipts and answers, comes back after every loss.

Owned by the gateway daemon. It knows frames, not meanings; it never opens anything of the runtime's but the socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from edge.core.frames import FrameBuffer, FrameOutbox

logger = logging.getLogger(__name__)

_RETRY_S: Final = 0.1
_RETRY_S_MAX: Final = 2.0

Heard = Callable[[list[Any]], None]


class RuntimeLink(asyncio.Protocol):
    """A connection that is opened again whenever it is lost."""

    def __init__(
        self,
        path: Path,
        *,
        on_message: Heard,
        on_up: Callable[[], None],
        on_down: Callable[[], None],
        on_absent: Callable[[], None],
    ) -> None:
        """`on_up` and `on_down` are told of a connection made and lost, `on_absent` that none could be made."""
        self._path = path
        self._on_message, self._on_up, self._on_down = on_message, on_up, on_down
        self._on_absent = on_absent
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = FrameBuffer()
        self._outbox: FrameOutbox | None = None
        self._lost: asyncio.Event = asyncio.Event()
        self._closing = False

    @property
    def up(self) -> bool:
        """True while the runtime is there."""
        return self._transport is not None

    async def keep(self) -> None:
        """Connect, stay connected, connect again; returns after `close`."""
        loop = asyncio.get_running_loop()
        retry_s = _RETRY_S
        while not self._closing:
            self._lost.clear()
            try:
                await loop.create_unix_connection(lambda: self, str(self._path))
            except OSError:
                self._on_absent()
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 1.5, _RETRY_S_MAX)
                continue
            retry_s = _RETRY_S
            await self._lost.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's are no subclasses
        self._buffer = FrameBuffer()
        self._outbox = FrameOutbox(self._write, asyncio.get_running_loop().call_soon)
        self.send(["hello", "gateway"])
        self._on_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self._transport = None
        self._lost.set()
        if not self._closing:
            logger.warning("the runtime is away; requests are held until it is back")
        self._on_down()

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        try:
            messages = self._buffer.feed(data)
        except ValueError as error:
            logger.error("the runtime talks nonsense and is hung up on: %s", error)
            self.hang_up()
            return
        # What one of them leads to is not the connection's: it would come again with the next one, over and over.
        for message in messages:
            self._on_message(message)

    def send(self, message: list[Any]) -> bool:
        """Send one message; False where the runtime is away."""
        if self._transport is None or self._outbox is None:
            return False
        self._outbox.send(message)
        return True

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def hang_up(self) -> None:
        """Drop the connection; it is made again."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Drop the connection for good."""
        self._closing = True
        self.hang_up()
        self._lost.set()
