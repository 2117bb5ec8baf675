"""Root's commands act for the user whose data folder it is: what they write there is the box's to read and to change.

Called by `edge.cli.main` before a command runs. A technician says `sudo edge …` on a box whose services have a user
of their own; a key, a receipt or a segment that root left there would stop them. Root's rights stay, so that a stick
that only root may write is written. It must never change whose a file is that was there before.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: <linux/prctl.h>, <linux/securebits.h>: keep the capabilities over a change of the user (capabilities(7)).
_PR_SET_SECUREBITS: Final = 28
_SECBIT_NO_SETUID_FIXUP: Final = 1 << 2


def act_for_owner(data: Path) -> None:
    """Become the owner of a data folder, root's rights kept; processes that are begun have the owner's alone.

    Nothing where the caller is not root, where the folder is root's or not there, and where the kernel does not let
    rights be kept (a container without CAP_SETPCAP): then all is as root does it.
    """
    if os.geteuid() != 0:
        return
    try:
        found = data.stat()
    except OSError:
        return
    if found.st_uid == 0 or not _keep_rights():
        return
    try:
        import pwd  # not built everywhere

        os.initgroups(pwd.getpwuid(found.st_uid).pw_name, found.st_gid)
    except (ImportError, KeyError):
        os.setgroups([found.st_gid])
    os.setresgid(found.st_gid, found.st_gid, found.st_gid)
    os.setresuid(found.st_uid, found.st_uid, found.st_uid)


def _keep_rights() -> bool:
    import ctypes  # a megabyte, for root alone

    return bool(ctypes.CDLL(None).prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0) == 0)
