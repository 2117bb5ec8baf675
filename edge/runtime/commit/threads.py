"""A thread that runs the jobs it is given, one after another, and tells the loop how each went.

Owned by the gate (the journal's thread) and the index (LMDB's). Jobs are system calls and LMDB only; what is to be
done with their outcome is done on the loop. Must never let an error pass: whatever it is, the runtime ends by it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from edge.core.errors import StorageFailed

_T = TypeVar("_T")


class JobThread:
    """One such thread; `failed` is called on the loop with the error of a job."""

    def __init__(self, name: str, failed: Callable[[StorageFailed], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._failed = failed
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def run(self, job: Callable[[], None], then: Callable[[], None]) -> None:
        """Run a job on the thread and go on here; any error ends the runtime."""

        def work() -> None:
            try:
                job()
            except StorageFailed as error:
                self._tell(self._failed, error)
            except Exception as error:  # noqa: BLE001 - the thread's top: whatever it is, nothing more is flushed
                self._tell(self._failed, unexpected(error))
            else:
                self._tell(then)

        self._jobs.put(work)

    def _tell(self, then: Callable[..., None], *given: StorageFailed) -> None:
        """Go on in the loop; where that has ended, the runtime is ending, and nobody waits for it."""
        try:
            self._loop.call_soon_threadsafe(then, *given)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    async def result_of(self, job: Callable[[], _T]) -> _T:
        """Run a job on the thread and wait for what it gives; any error ends the runtime."""
        made: list[_T] = []
        done = self._loop.create_future()
        self.run(lambda: made.append(job()), lambda: None if done.done() else done.set_result(None))
        await done
        return made[0]

    def run_here(self, job: Callable[[], None], then: Callable[[], None]) -> None:
        """Run a job on the loop's own thread: no hand-over to and fro, where nothing else is to be done.

        Only while no job is on the thread.
        """
        try:
            job()
        except StorageFailed as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - as on the thread: whatever it is, nothing more is flushed
            self._failed(unexpected(error))
        else:
            then()

    async def end(self) -> None:
        """Let it finish what it was given, then end it."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)


def unexpected(error: Exception) -> StorageFailed:
    """An error that nobody foresaw, as the one that ends the runtime."""
    return StorageFailed(f"Writing the log ended with {type(error).__name__}: {error}.")
