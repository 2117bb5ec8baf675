"""What a command does to the processes it starts so that none outlives it, however it ends itself.

Used by `edge up` and by the scratch folders of `edge run` and `edge playbook test`.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Final

#: What ends a command that is told to end.
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG: Final = 1
#: Found before any fork: between fork and exec nothing may be looked up.
_libc: Final = ctypes.CDLL(None, use_errno=True)


def ends_with_us(number: signal.Signals) -> Callable[[], None]:
    """To be called between fork and exec: the kernel sends the child this signal when the thread that forks it ends.

    So it must be forked by the main thread. It lasts over exec, but not where the program is set-user-id.
    """
    parent_pid = os.getpid()

    def before_exec() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent_pid:
            os._exit(1)  # it had ended before the kernel was asked
        # Signals that the command holds back while it starts a process are not held back from that process.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)

    return before_exec
