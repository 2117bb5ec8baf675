"""What an error of the system means to the person who reads it: the drive's, the machine's, or a path's.

Called by the runtime's entry for what came up to it. Pure. Must never blame the drive for what it has no part in: who
is sent to look after a sound card loses an afternoon, and the box stays as it was.
"""

from __future__ import annotations

import errno
from typing import Final

#: The drive refused, or is not what it was.
DRIVE: Final = frozenset(
    {
        errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENODEV, errno.ENXIO, errno.EUCLEAN, errno.EBADMSG,
        errno.ESTALE, errno.ENOMEDIUM, errno.EREMOTEIO, errno.ETIMEDOUT, errno.EFBIG,
    }
)  # fmt: skip
#: The machine has no more of something; it may have again in a moment.
SCARCE: Final = {
    errno.EMFILE: "open files of this process (LimitNOFILE, `ulimit -n`)",
    errno.ENFILE: "open files of the machine",
    errno.ENOMEM: "memory",
    errno.EAGAIN: "processes, or memory for one (TasksMax, `ulimit -u`)",
    errno.ENOBUFS: "memory for sockets",
}
#: Something else stands where a file or folder of ours is to be.
IN_THE_WAY: Final = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOTEMPTY,
    }
)

_PASSES: Final = 1
_STAYS: Final = 2


def told(error: OSError) -> tuple[str, int] | None:
    """`(what is wrong and how to mend it, the exit code)`: 1 where a new start may help, 2 where somebody has to.

    None for an error that says nothing of drive, machine or path: a mistake of our own, most likely.
    """
    what = error.filename or "Something in the data folder"
    if isinstance(error, PermissionError):
        return (
            f"{what} may not be used by this user: {error.strerror}. Give it to the user who runs the box.",
            _STAYS,
        )
    if error.errno in DRIVE:
        return (
            f"{what} cannot be used: {error.strerror}. Look after the drive; what was accepted is safe.",
            _PASSES,
        )
    if error.errno in SCARCE:
        return (
            f"There are no more {SCARCE[error.errno]}: {error.strerror}. Give the box more, or run less.",
            _PASSES,
        )
    if error.errno in IN_THE_WAY and error.filename:
        return f"{what} cannot be used: {error.strerror}. See what stands in its place.", _STAYS
    return None
