"""Dead letters of subscriptions, published where they belong: each until the broker has it.

Owned by the gateway's daemon. The runtime hands over one batch of them at a time and keeps it until it is told that
the broker has all; it never looks into a payload.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from edge.core.errors import EdgeError
from gateway.mqtt import REFUSED, Session

logger = logging.getLogger(__name__)


class DeadLetters:
    """The batch under way."""

    def __init__(self, session: Session, send: Callable[[list[Any]], object]) -> None:
        self._session, self._send = session, send
        self._batch: list[Any] | None = None
        self._task: asyncio.Task[None] | None = None

    def heard(self, message: list[Any]) -> None:
        """The runtime hands over a batch: `["dead", number, topic, [[payload, content type, properties]]]`."""
        self._batch = message
        self.again()

    def again(self) -> None:
        """Publish what is to be published. Called when the broker is back as well."""
        if self._task is not None:
            self._task.cancel()
        if self._batch is not None:
            self._task = asyncio.get_running_loop().create_task(self._publish(self._batch))

    async def _publish(self, batch: list[Any]) -> None:
        _, number, topic, letters = batch
        for payload, content_type, properties in letters:
            try:
                code = await self._session.publish(
                    topic,
                    payload,
                    content_type=content_type,
                    user_properties=[(name, value) for name, value in properties],
                )
            except EdgeError:
                return  # the broker is away: all of the batch goes again when it is back
            if code >= REFUSED:
                logger.error(
                    "the broker refused (0x%02x) a dead letter to %s; it stays in the log", code, topic
                )
        self._batch = None
        self._send(["dead_sent", number])
