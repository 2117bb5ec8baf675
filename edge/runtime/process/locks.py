"""Two locks on the data folder: one runtime at a time, and no worker of an earlier one still at work.

Taken by the runtime's entry before anything is opened. Kernel locks: they end with the last process that holds
the file, whatever killed it.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import Final

from edge.core.errors import Unavailable
from edge.core.settings import Settings

_WORKERS_WAIT_S: Final = 10.0
_POLL_S: Final = 0.005


def lock_alone(settings: Settings) -> int:
    """Hold the data folder alone. Raises Unavailable where another runtime does."""
    settings.lock_path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    fd = os.open(settings.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise Unavailable(
            f"Another runtime already serves {settings.data}.",
            mend="Stop it first, or use another data folder (--data).",
        ) from error
    return fd


def hold_workers_lock(settings: Settings) -> int:
    """A descriptor for the zygote and its workers to inherit, once no earlier worker holds the lock.

    Workers die with their runtime (the kernel sees to it), so this is a matter of milliseconds. Raises
    Unavailable after ten seconds.
    """
    fd = os.open(settings.workers_lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    deadline_s = time.monotonic() + _WORKERS_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                os.close(fd)
                raise Unavailable(
                    f"Workers of an earlier runtime still hold {settings.workers_lock_path}.",
                    mend="End the processes that `fuser` names for this file.",
                ) from None
            time.sleep(_POLL_S)
        else:
            fcntl.flock(fd, fcntl.LOCK_SH)
            return fd
