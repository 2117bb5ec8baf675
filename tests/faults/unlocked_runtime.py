"""A runtime whose workers do not lock themselves in: only for an emulated processor, `python -m … --data FOLDER`.

QEMU's user mode has neither landlock nor seccomp and keeps a thread of its own in every process, so the sandbox
refuses author's blocks there, as it should. What test_other_processors.py runs are blocks of its own, and what it
looks at is what they compute. All but the lock is the product's own code.
"""

from __future__ import annotations

import sys

from edge.runtime.__main__ import main
from edge.worker import sandbox


def _left_open(policy: sandbox.Policy) -> sandbox.Report:
    """What a lock says that holds; closes what a lock would have closed."""
    if policy.keep_fds is not None:
        sandbox.close_others(policy.keep_fds)
    return sandbox.Report(landlock_abi=1, seccomp=True)


if __name__ == "__main__":
    sandbox.lock_in = _left_open
    sys.exit(main())
