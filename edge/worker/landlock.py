"""Landlock by bare system calls: which files a process may still open, for the rest of its life.

Owns the kernel's landlock structures (Documentation/userspace-api/landlock.rst, ABI 1 to 7). Called by
edge.worker.sandbox, on a process with one thread that has set no_new_privs. Must never loosen anything:
the kernel would not let it.

What landlock does not hold: reading a file's metadata by its path, changing modes, owners, times and
extended attributes (edge.worker.seccomp refuses those), and files that were open before.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edge.core.errors import Misconfigured

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_CREATE_RULESET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1

_FS_EXECUTE: Final = 1 << 0
_FS_WRITE_FILE: Final = 1 << 1
_FS_READ_FILE: Final = 1 << 2
_FS_READ_DIR: Final = 1 << 3
_FS_REMOVE_FILE: Final = 1 << 5
_FS_MAKE_REG: Final = 1 << 8
_FS_TRUNCATE: Final = 1 << 14
_FS_IOCTL_DEV: Final = 1 << 15
#: Access kinds each ABI knows; the kernel refuses bits it does not know.
_FS_ALL_BY_ABI: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_FS_ALL_FROM_ABI_5: Final = (1 << 16) - 1
#: Binding and connecting TCP, from ABI 4; no rule ever allows a port.
_NET_ALL: Final = 0b11
#: Abstract unix sockets and signals towards processes outside, from ABI 6.
_SCOPE_ALL: Final = 0b11

_READ: Final = _FS_READ_FILE | _FS_READ_DIR
#: What a cache folder is for. No devices, pipes, sockets, links or folders: a process of root that can make
#: a device node in a folder it may open has the whole drive.
_KEEP_FILES: Final = _READ | _FS_WRITE_FILE | _FS_REMOVE_FILE | _FS_MAKE_REG | _FS_TRUNCATE
_FILE_ONLY: Final = _FS_READ_FILE | _FS_WRITE_FILE | _FS_TRUNCATE

_libc: Final = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The kernel's landlock ABI; 0 where it has none or it is switched off."""
    found = int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION))
    return max(found, 0)


def restrict(
    known_abi: int,
    *,
    read: Iterable[Path],
    write: Iterable[Path],
    devices: Iterable[Path] = (),
    controlled: Iterable[Path] = (),
    connecting: bool = False,
    execute: Iterable[Path] = (),
) -> None:
    """Shut every file but these: `read` for reading, `write` for regular files in them, `devices` both ways.

    `controlled` are devices with their control calls (ioctl), which ABI 5 holds and edge.worker.seccomp before it.
    `connecting` leaves TCP alone. `execute` are files that may be read and executed. Paths that do not exist are left
    out of `read`, `execute` and `devices`; one of `write` or `controlled` raises Misconfigured.
    """
    assert known_abi >= 1, "ask abi() first"
    handled = _FS_ALL_BY_ABI.get(known_abi, _FS_ALL_FROM_ABI_5)
    attributes = struct.pack("=Q", handled)
    if known_abi >= 4:
        attributes += struct.pack("=Q", 0 if connecting else _NET_ALL)
    if known_abi >= 6:
        attributes += struct.pack("=Q", _SCOPE_ALL)
    ruleset = _checked(
        _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0), "create a ruleset"
    )
    try:
        for path in read:
            _allow(ruleset, path, _READ & handled, required=False)
        for path in execute:
            _allow(ruleset, path, (_FS_EXECUTE | _FS_READ_FILE) & handled, required=False)
        for path in devices:
            _allow(ruleset, path, _FILE_ONLY & handled, required=False)
        for path in write:
            _allow(ruleset, path, _KEEP_FILES & handled, required=True)
        for path in controlled:
            _allow(ruleset, path, (_FILE_ONLY | _FS_IOCTL_DEV) & handled, required=True)
        _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0), "restrict itself")
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, access: int, *, required: bool) -> None:
    try:
        path_fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if not required and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            return
        raise Misconfigured(
            f"The sandbox cannot open {path}: {error.strerror}.", mend="Create the folder first."
        ) from error
    try:
        if not path.is_dir():
            access &= _FILE_ONLY | _FS_EXECUTE | _FS_IOCTL_DEV
        rule = struct.pack("=Qi", access, path_fd)
        _checked(_libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0), f"allow {path}")
    finally:
        # A rule holds an inode, and /proc makes a new one when nobody has the file open: such a handle stays.
        if not str(path).startswith("/proc/"):
            os.close(path_fd)


def _checked(result: int, what: str) -> int:
    if result < 0:
        reason = os.strerror(ctypes.get_errno())
        raise Misconfigured(f"Landlock could not {what}: {reason}.", code="sandbox_failed")
    return int(result)
