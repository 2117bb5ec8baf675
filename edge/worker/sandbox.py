"""A worker locks itself in: files by landlock, system calls by seccomp, memory by limits, and no way back.

Owns the order in which the doors shut. Called once by a freshly forked worker, before its first claim; after
`lock_in` the process reads its libraries and one cache folder, talks over what it had open, touches what its step
was granted, and nothing else.
Must never run author code first, and must run while the process has a single thread.

Needs no privilege and keeps the user it runs as, root included (running the box as its own user is the
service unit's part); capabilities are dropped. It leaves the process dumpable, so that the runtime can read its
memory use; core files are off. Not held: processor time (the runtime's timeout kills), reading files'
metadata by path, and what the worker may say over its own socket.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Final

import edge
from edge.core.access import NOTHING, Access
from edge.core.errors import Misconfigured
from edge.core.limits import KIB, MIB, WORKER_FILE_BYTES_MAX, WORKER_OPEN_FILES_MAX, WORKER_STACK_BYTES
from edge.core.records import record
from edge.worker import landlock, seccomp
from edge.worker.own_limits import own_limit_files

_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITY_VERSION_3: Final = 0x2008_0522
#: Address space beyond the memory limit: mapped blocks, thread stacks and malloc's arenas reserve, not use.
_ADDRESS_SPARE_BYTES: Final = 4 * 1024 * MIB
#: A thread's stack counts as its memory in full; Python's own default of 8 MiB would be a block's whole limit.
_THREAD_STACK_BYTES: Final = 1 * MIB

#: Shared objects and time zones, wherever the distribution keeps them.
_SYSTEM_READ: Final = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/urandom",
)
_DEVICES: Final = ("/dev/null",)
#: Who may vouch for a server, for TLS of a step with hosts; private keys lie elsewhere in /etc/ssl.
CERTIFICATES: Final = (
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
)

_libc: Final = ctypes.CDLL(None, use_errno=True)


@record
class Policy:
    """What a worker keeps.

    `cache_folder` is read and written, `memory_mb` is private memory on top of what the process has now,
    `read_paths` are further files or folders to read. `keep_fds`, where given, are the only handles kept. `access`
    is opened as `edge.worker.grants` found it sound; hosts are reached through a porter only (edge.worker.porter).
    A `pure` process will run pure blocks only, and is held closer.
    """

    cache_folder: Path
    memory_mb: int
    read_paths: tuple[Path, ...] = ()
    keep_fds: tuple[int, ...] | None = None
    access: Access = NOTHING
    pure: bool = False


@record
class Report:
    """What now holds. `landlock_abi` is 0 and `seccomp` False where the kernel has none."""

    landlock_abi: int
    seccomp: bool

    @property
    def complete(self) -> bool:
        """Whether author code may run here: both files and system calls are held."""
        return self.landlock_abi > 0 and self.seccomp

    @property
    def missing(self) -> tuple[str, ...]:
        """What the kernel does not have, by name."""
        held = {"landlock": self.landlock_abi > 0, "seccomp": self.seccomp}
        return tuple(name for name, there in held.items() if not there)


def lock_in(policy: Policy) -> Report:
    """Shut every door that `policy` does not name; irrevocable. The caller judges the report.

    Raises Misconfigured where the cache folder is not there, the process has threads, or the kernel refuses
    what it says it has. Whatever was raised, the process must end: it may be half shut.
    """
    if len(os.listdir("/proc/self/task")) != 1:
        raise Misconfigured("A worker must lock itself in before it starts threads.", code="sandbox_failed")
    if policy.keep_fds is not None:
        close_others(policy.keep_fds)
    _set_limits(policy.memory_mb)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise Misconfigured("The kernel refused no_new_privs.", code="sandbox_failed")
    abi = landlock.abi()
    access = policy.access
    if abi:
        landlock.restrict(
            abi,
            read=[
                *readable_paths(),
                *own_limit_files(),
                *policy.read_paths,
                *(Path(path) for path, mode in access.files if mode == "read"),
                *(Path(path) for path in (CERTIFICATES if access.hosts else ())),
            ],
            write=[policy.cache_folder, *(Path(path) for path, mode in access.files if mode == "write")],
            devices=[Path(path) for path in _DEVICES],
            controlled=[Path(path) for path in access.devices],
        )
    drop_capabilities()
    # Last: the filter refuses what the lines above did.
    target = seccomp.machine()
    doors = seccomp.Doors(sockets=bool(access.hosts), devices=bool(access.devices), pure=policy.pure)
    filtered = target is not None and seccomp.install(target, os.getpid(), doors)
    return Report(abi, filtered)


def prepare() -> None:
    """Work out ahead what every worker needs: for the zygote, before it forks (2 of 5 ms saved a worker)."""
    readable_paths()
    target = seccomp.machine()
    if target is not None:
        seccomp.fixed_part(target, seccomp.SHUT)


@cache
def readable_paths() -> tuple[Path, ...]:
    """The interpreter's libraries, our own packages and the system's shared objects; existing ones only.

    Of `sys.path` only what lies in the interpreter's own trees: an entry may be a checkout, a home folder
    or wherever somebody started us.
    """
    trees = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, "/usr"}
    entries = [entry for entry in sys.path if any(entry.startswith(f"{tree}/") for tree in trees)]
    assert edge.__file__ is not None
    own = Path(edge.__file__).parent
    named = [*entries, str(own), str(own.parent / "playbooks"), *_SYSTEM_READ]
    return tuple(Path(path) for path in dict.fromkeys(named) if os.path.exists(path))


def _set_limits(memory_mb: int) -> None:
    """Hard limits of this process; the filter then refuses to change them."""
    sizes = _memory_kib()
    data_bytes = sizes["VmData"] * KIB + memory_mb * MIB
    limits = (
        (resource.RLIMIT_DATA, data_bytes),
        (resource.RLIMIT_AS, sizes["VmSize"] * KIB + memory_mb * MIB + _ADDRESS_SPARE_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, WORKER_OPEN_FILES_MAX),
        (resource.RLIMIT_FSIZE, WORKER_FILE_BYTES_MAX),
        (resource.RLIMIT_STACK, WORKER_STACK_BYTES),
    )
    for limit, wanted in limits:
        _, hard = resource.getrlimit(limit)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(limit, (most, most))
    threading.stack_size(_THREAD_STACK_BYTES)


def _memory_kib() -> dict[str, int]:
    with open("/proc/self/status", "rb") as status:
        pairs = (line.split(b":", 1) for line in status if line.startswith(b"Vm"))
        return {name.decode(): int(value.split()[0]) for name, value in pairs}


def close_others(keep_fds: tuple[int, ...]) -> None:
    """Close every handle but these and the three standard ones: nothing inherited by accident stays."""
    lowest = 3
    for kept in sorted(fd for fd in set(keep_fds) if fd >= lowest):
        os.closerange(lowest, kept)
        lowest = kept + 1
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))


def drop_capabilities() -> None:
    """Root without capabilities is an ordinary user that owns root's files."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise Misconfigured("The kernel refused to drop capabilities.", code="sandbox_failed")
