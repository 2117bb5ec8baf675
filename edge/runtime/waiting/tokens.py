"""Tokens for the tools of a step that waits for a callback: minted for a claim, read when one comes back.

Owned by the daemon, given to the dispatcher (which hands them out) and to the engine's door
(`edge.runtime.executions.callback_door`, which reads them). A token is never kept; it must tell nothing of a forged
one but that it is none of this log's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edge.core import callbacks
from edge.core.callbacks import Call
from edge.runtime.running.live import Live
from edge.store.key_file import read_or_make_key
from edge.worker.claims import Callbacks, Items, Progress

KEY_FILE: Final = "callback.key"


class Tokens:
    """The tokens of one log: its key, and the topic they go below."""

    def __init__(self, key: bytes, log_id: bytes, box: str) -> None:
        self._key, self._log_id, self._topic = key, log_id, f"edge/v1/{box}/callback"

    @classmethod
    def of(cls, data: Path, log_id: bytes, box: str) -> Tokens:
        """With the key beside the log, made at the first start. Raises StorageFailed, Misconfigured.

        Where the file is lost a new key is made: tokens handed out before are unknown then, and their waits end by
        their bound.
        """
        return cls(read_or_make_key(data / KEY_FILE, callbacks.KEY_BYTES), log_id, box)

    def for_claim(
        self, live: Live, index: int, visit: int, progress: Progress | None, items: Items | None
    ) -> Callbacks | None:
        """What a claim of a step carries: a token for each round it can come to; None where it waits for none."""
        step = live.blueprint.steps[index]
        if not step.calls_back:
            return None
        calling = {task.name for task in step.tasks if task.calls_back}
        behind = sum(record.task in calling for record in (progress.recorded if progress else ()))
        item = None if items is None else items.first
        calls = (Call(live.state.seq, index, visit, item, n) for n in range(behind + 1))
        return Callbacks(self._topic, [callbacks.mint(self._key, self._log_id, call) for call in calls])

    def read(self, token: str) -> Call | None:
        """The wait a token stands for; None where it is none of this log's."""
        return callbacks.read(self._key, self._log_id, token)
