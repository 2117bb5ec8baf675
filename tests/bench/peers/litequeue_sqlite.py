"""litequeue: a message a step, two worker processes. `python -m … FOLDER SECONDS IN_FLIGHT`.

It has no results: the last step's answer is a message of a second queue.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

from litequeue import LiteQueue

from tests.bench.peers import steps

_FILE = Path(sys.argv[1]) / "litequeue.sqlite"
_FULL = 2
_WORKERS = 2
_PAUSE_S = 0.001
_STEPS = (steps.check, steps.aggregate, steps.verdict)


def _open(name: str) -> LiteQueue:
    queue = LiteQueue(str(_FILE), queue_name=name)
    # Its own choice (normal, with a write-ahead log) loses acknowledged messages at a power cut.
    queue.conn.execute("PRAGMA synchronous = FULL")
    return queue


def _work() -> None:
    asked, answered = _open("asked"), _open("answered")
    while True:
        message = asked.pop()
        if message is None:
            time.sleep(_PAUSE_S)
            continue
        number, step, given = json.loads(message.data)
        made = _STEPS[step](given)
        if step + 1 < len(_STEPS):
            asked.put(json.dumps([number, step + 1, made]))
        else:
            answered.put(json.dumps([number, made]))
        asked.done(message.message_id)


class _Answers:
    """Results as they come, by number."""

    def __init__(self) -> None:
        self._asked, self._answered = _open("asked"), _open("answered")
        self._come: dict[int, dict[str, Any]] = {}

    def run(self, number: int) -> int:
        """Put the first step's message in."""
        self._asked.put(json.dumps([number, 0, steps.table(number)]))
        return number

    def finish(self, number: int) -> dict[str, Any]:
        """Wait for one."""
        while number not in self._come:
            message = self._answered.pop()
            if message is None:
                time.sleep(_PAUSE_S)
                continue
            found, result = json.loads(message.data)
            self._come[found] = result
            self._answered.done(message.message_id)
        return self._come.pop(number)


def main() -> None:
    """Two workers, and this process as the one that asks."""
    answers = _Answers()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, daemon=True) for _ in range(_WORKERS)]
    for worker in workers:
        worker.start()
    try:
        steps.drive(answers.run, answers.finish, lambda: steps.durability(_FILE, _FULL))
    finally:
        for worker in workers:
            worker.kill()


if __name__ == "__main__":
    main()
