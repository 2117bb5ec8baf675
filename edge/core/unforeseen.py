"""What nobody foresaw ends a daemon: it begins again from what is recorded, and leaves no work half done.

Used by the runtime's daemon and by who takes bytes for it, and by the gateway's, to which all comes again that it did
not acknowledge. Whatever a callback, a protocol or a task of the event loop raises comes here; the loop alone would
log it and turn on, and an execution whose step came back in that moment would hang for ever. A run that ends the
runtime over and over is failed by the count of its resumptions. Must never append, flush or answer anything.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, Final

logger = logging.getLogger(__name__)

_EXIT_CODE: Final = 1


class NotTheSockets(Exception):
    """An error of the system that is none of the connection's it came up through.

    An event loop takes an `OSError` from a protocol for the connection's own, closes that, and says nothing.
    """


def end_by_unforeseen(loop: asyncio.AbstractEventLoop, end: Callable[[int], object] = os._exit) -> None:
    """From now on `end(1)` follows whatever reaches the loop's top, said with its traceback."""

    def reported(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and "transport" in context:
            logger.warning("a connection broke: %s", error)
            return
        if error is None:
            # Nothing was raised: the loop complains, of a task it found unfinished as it closes.
            logger.error("%s", context.get("message"))
            return
        logger.critical(
            "%s. The process ends, to begin again from what is recorded.",
            context.get("message", "Something nobody foresaw happened"),
            exc_info=error,
        )
        end(_EXIT_CODE)

    loop.set_exception_handler(reported)


def raise_on(task: asyncio.Task[None]) -> None:
    """To be called when a task that has no end ended: what ended it comes to the loop's top."""
    if not task.cancelled():
        task.result()
