"""Has the log sealed: after so many events, after so long, at once where something is urgent, and at the end.

Owned by the daemon, which calls `look` every few seconds on a box that has a centre. Sealing itself is done by a
short-lived process (`edge.segments.sealer`): signatures cost up to 10 MB, which a daemon must not carry. It
is told up to which event it may seal, the last one that is durable: nothing leaves the box before that.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from edge.core.codec import decode
from edge.core.limits import SEAL_AFTER_S, SEAL_PATIENCE_S, SEALED_EVENTS
from edge.core.records import record
from edge.core.settings import Settings
from edge.core.unforeseen import raise_on

logger = logging.getLogger(__name__)

Run = Callable[[list[str]], Awaitable[bytes]]
"""Run a Python module with arguments and give what it wrote."""


@record
class Sealed:
    """What became of one run: the last event that is sealed, how many segments, or why it ended."""

    last_seq: int
    segments: int
    problem: str = ""


class Sealer:
    """See the module. `told` is for whoever asks the socket."""

    def __init__(
        self,
        settings: Settings,
        durable_seq: Callable[[], int],
        now_s: Callable[[], float],
        run: Run | None = None,
    ) -> None:
        """`now_s` is a clock that goes on while the box sleeps. Without a centre nothing is ever due."""
        self._settings, self._durable_seq, self._now_s = settings, durable_seq, now_s
        self._run = run if run is not None else run_module
        #: Events up to here are sealed, or were looked at and are too few.
        self._looked_at = 0
        self._since_s = now_s()
        self._urgent = False
        self._last = Sealed(0, 0)
        self._asked: set[asyncio.Task[None]] = set()

    def urgent(self) -> None:
        """Something in the log should be known upstream before the quarter of an hour is over."""
        self._urgent = True

    async def look(self) -> None:
        """Seal what is due. Not to be called while it runs."""
        durable_seq = self._durable_seq()
        news = durable_seq - self._looked_at if self._settings.centre else 0
        if not news:
            self._since_s = self._now_s()  # it counts from the first event, not from a quiet night
        late = self._now_s() - self._since_s >= SEAL_AFTER_S
        if news >= SEALED_EVENTS or (news and (late or self._urgent)):
            await self._seal(durable_seq, everything=late or self._urgent)

    def on_request(self, _: dict[str, Any], reply: Callable[[dict[str, Any]], None]) -> None:
        """Somebody wants a bundle: seal all there is, and reply with what `told` says then."""
        task = asyncio.get_running_loop().create_task(self._seal(self._durable_seq(), everything=True))
        task.add_done_callback(raise_on)
        task.add_done_callback(lambda _: reply(self.told()))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def finish(self) -> None:
        """Seal all there is: the box stops."""
        if self._settings.centre:
            await self._seal(self._durable_seq(), everything=True)

    async def _seal(self, through: int, *, everything: bool) -> None:
        """Seal now. What goes wrong is said, and tried again when something is due next."""
        self._urgent = False
        self._looked_at = through
        if everything:
            self._since_s = self._now_s()
        arguments = [
            "edge.segments.sealer",
            str(self._settings.data),
            str(through),
            *(["all"] if everything else []),
        ]
        try:
            said = decode(await self._run(arguments))
        except (OSError, ValueError, TimeoutError) as error:
            said = [f"its process failed: {error or type(error).__name__}"]
        self._last = _heard(said, self._last.last_seq)
        if self._last.problem:
            logger.error("The log could not be sealed: %s", self._last.problem)
        elif self._last.segments:
            logger.info("sealed up to event %d: %d segments", self._last.last_seq, self._last.segments)

    def told(self) -> dict[str, Any]:
        """For whoever asks the box: up to which event the log is sealed, and what is wrong with it."""
        return {"through": self._last.last_seq, "problem": self._last.problem}


def _heard(said: Any, before: int) -> Sealed:
    problem = next((each for each in said if isinstance(each, str)), "")
    made = [each for each in said if not isinstance(each, str)]
    return Sealed(made[-1][2] if made else before, len(made), problem)


_STDERR_BYTES: Final = 2_000


async def run_module(arguments: list[str]) -> bytes:
    """What a module of ours wrote to standard output. Raises OSError, TimeoutError; ValueError where it failed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(SEAL_PATIENCE_S):
            written, errors = await process.communicate()
    except (TimeoutError, asyncio.CancelledError):
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        last = errors[-_STDERR_BYTES:].decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise ValueError(f"it ended with {process.returncode}: {last}")
    return written
