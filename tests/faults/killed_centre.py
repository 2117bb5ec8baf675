"""`edge central serve` that is struck: `python -m tests.faults.killed_centre FAULT central serve …`.

A step is whatever changes a file below the centre's folder for a segment, its verdict or the end of an upload: files
opened for writing, renamed, removed. FAULT is `kill:N`, kill -9 before step N; `full:N`, a full drive at step N and
the three after it; `none`.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from itertools import count
from typing import Any

from edge.cli.main import main

_PLACES = ("/segments/", "/forks/", "/refused/")
_FULL_STEPS = 4


def _is_step(event: str, given: tuple[Any, ...]) -> bool:
    if event == "os.remove" and "/uploads/" in str(given[0]):
        return True
    if event not in ("open", "os.rename") or not any(place in str(given[0]) for place in _PLACES):
        return False
    return event == "os.rename" or bool(given[2] & (os.O_WRONLY | os.O_RDWR))


def _watch(kind: str, place: int) -> None:
    steps = count(1)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if not _is_step(event, given):
            return
        step = next(steps)
        if kind == "kill" and step == place:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "full" and event == "open" and place <= step < place + _FULL_STEPS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sys.addaudithook(hook)


if __name__ == "__main__":
    kind, _, place = sys.argv[1].partition(":")
    if kind != "none":
        _watch(kind, int(place))
    sys.argv = ["edge", *sys.argv[2:]]
    sys.exit(main())
