"""The launcher: a small process beside a worker with programs, which alone starts them.

Forked by the worker before it locks itself in. A worker's filter lets it make no process; it asks its launcher, which
starts what the step was granted and nothing else, each run in a process group of its own, locked in more tightly than
the worker: the program, the shared libraries, the granted files, no network, and no way out of its group. When the
run ends, when its time is up, or when the worker goes, all of its group is killed.
What it must never do: run author code in itself, pass on a handle or a name of the environment that was not asked
for, or let anything of a run outlive it.

Frames (edge.core.frames): to it `[argv, environment, input bytes, timeout ms]`; from it
`[how, number, stdout, stderr]`, where `how` is "exit", "signal", "timeout", "output", "denied" or "failed" (then
stderr is the reason).
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import socket
import time
from contextlib import suppress
from glob import glob
from io import FileIO
from pathlib import Path
from typing import Any, Final, NoReturn

from edge.core.access import Access
from edge.core.frames import FrameBuffer, pack
from edge.core.limits import KIB, MIB, PROGRAM_OUTPUT_BYTES_MAX, WORKER_FILE_BYTES_MAX, WORKER_OPEN_FILES_MAX
from edge.worker import landlock, seccomp
from edge.worker.sandbox import close_others, drop_capabilities

_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_RECEIVE_BYTES: Final = 64 * 1024
_PIPE_BYTES: Final = 64 * 1024
#: What is allocated between the limit and the program's start.
_START_BYTES: Final = 8 * MIB
#: From here on landlock keeps signals within a run.
_SCOPES_FROM_ABI: Final = 6
#: What starts a program that is linked dynamically; the kernel asks for the right to execute it too.
_LOADERS: Final = (
    "/lib*/ld-linux*.so*",
    "/lib/*/ld-linux*.so*",
    "/lib/ld-musl-*.so*",
    "/usr/lib*/ld-linux*.so*",
)
_READS: Final = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/locale",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/urandom",
)
_DEVICES: Final = ("/dev/null",)

_libc: Final = ctypes.CDLL(None, use_errno=True)


def fork_launcher(access: Access, memory_mb: int) -> socket.socket:
    """Start the launcher of this process; the worker's end of their socket. Before threads, before lock-in."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        try:
            close_others((theirs.fileno(),))
            # Programs that lose their parent come to it, so that it can end them all.
            _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            drop_capabilities()
            serve(theirs, access, memory_mb)
        finally:
            os._exit(1)
    theirs.close()
    return ours


def serve(door: socket.socket, access: Access, memory_mb: int) -> NoReturn:
    """Start programs when asked to, one at a time, until the worker is gone."""
    buffer = FrameBuffer()
    while data := door.recv(_RECEIVE_BYTES):
        for argv, environment, given, timeout_ms in buffer.feed(data):
            answer = _run(door, access, memory_mb, argv, environment, given, timeout_ms)
            door.sendall(pack(answer))
    os._exit(0)


def _run(
    door: socket.socket,
    access: Access,
    memory_mb: int,
    argv: list[str],
    environment: dict[str, str],
    given: bytes,
    timeout_ms: int,
) -> list[Any]:
    """One run from start to end: `[how, number, stdout, stderr]`."""
    if argv[0] not in access.programs:
        return ["denied", 0, b"", b"it is not granted"]
    ends = [os.pipe2(os.O_CLOEXEC) for _ in range(4)]
    (in_read, in_write), (out_read, out_write), (err_read, err_write), (why_read, why_write) = ends
    feed = open(in_write, "wb", buffering=0)  # noqa: SIM115 - closed below, maybe earlier
    pid = os.fork()
    if pid == 0:
        _become(argv, environment, access, memory_mb, (in_read, out_write, err_write), why_write)
    for fd in (in_read, out_write, err_write, why_write):
        os.close(fd)
    try:
        with suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)  # also done by the child: whoever comes first
        why = os.read(why_read, 4_096)
        if why:
            os.waitpid(pid, 0)
            return ["failed", 0, b"", why]
        return _watch(door, pid, given, feed, (out_read, err_read), timeout_ms)
    finally:
        _end_group(pid)
        feed.close()
        for fd in (out_read, err_read, why_read):
            os.close(fd)


def _become(
    argv: list[str],
    environment: dict[str, str],
    access: Access,
    memory_mb: int,
    ends: tuple[int, int, int],
    why_fd: int,
) -> NoReturn:
    """The child's side: a group of its own, the three ends as its streams, the doors shut, the program."""
    try:
        os.setpgid(0, 0)
        for number, fd in enumerate(ends):
            os.dup2(fd, number)
        os.dup2(why_fd, 3)
        os.set_inheritable(3, False)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        why_fd = 3
        os.chdir("/")
        os.umask(0o077)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        _set_limits(memory_mb)
        _lock_in(access)
        os.execve(argv[0], argv, environment)  # noqa: S606 - by argument list
    except OSError as error:
        os.write(why_fd, (error.strerror or "it cannot be started").encode())
    finally:
        # Whatever else went wrong, no word of it is left: the program would have replaced this process.
        with suppress(OSError):
            os.write(why_fd, b"it could not be prepared")
        os._exit(127)


def _set_limits(memory_mb: int) -> None:
    """Hard limits of the program; its memory's leaves this process, which is still Python, room to start it."""
    with open("/proc/self/status", "rb") as status:
        own_kib = next(int(line.split()[1]) for line in status if line.startswith(b"VmData:"))
    for limit, most in (
        (resource.RLIMIT_DATA, max(memory_mb * MIB, own_kib * KIB + _START_BYTES)),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, WORKER_OPEN_FILES_MAX),
        (resource.RLIMIT_FSIZE, WORKER_FILE_BYTES_MAX),
    ):
        resource.setrlimit(limit, (most, most))


def _lock_in(access: Access) -> None:
    abi = landlock.abi()
    loaders = [path for pattern in _LOADERS for path in glob(pattern)]
    landlock.restrict(
        abi,
        read=[Path(path) for path in (*_READS, *(path for path, mode in access.files if mode == "read"))],
        write=[Path(path) for path, mode in access.files if mode == "write"],
        devices=[Path(path) for path in _DEVICES],
        controlled=[Path(path) for path in access.devices],
        execute=[Path(path) for path in (*access.programs, *loaders)],
    )
    target = seccomp.machine()
    doors = seccomp.Doors(devices=bool(access.devices), processes=True, signals=abi >= _SCOPES_FROM_ABI)
    assert target is not None, "a worker with programs was locked in, so this machine has a filter"
    seccomp.install(target, os.getpid(), doors)


def _watch(
    door: socket.socket, pid: int, given: bytes, feed: FileIO, ends: tuple[int, int], timeout_ms: int
) -> list[Any]:
    """Feed it and read it until it has ended, its time is up, it says too much, or the worker is gone."""
    out_read, err_read = ends
    said = {out_read: bytearray(), err_read: bytearray()}
    pidfd = os.pidfd_open(pid)
    try:
        how = _pump(door, pidfd, memoryview(given), feed, said, time.monotonic() + timeout_ms / 1_000)
    finally:
        os.close(pidfd)
    if how != "end":
        return [how, 0, bytes(said[out_read]), bytes(said[err_read])]
    _, status = os.waitpid(pid, 0)
    # What it left in the pipes; whatever of its group still holds their other ends is not waited for.
    for fd, held in said.items():
        os.set_blocking(fd, False)
        while len(held) <= PROGRAM_OUTPUT_BYTES_MAX and (part := _read(fd)):
            held.extend(part)
    how, number = (
        ("signal", os.WTERMSIG(status)) if os.WIFSIGNALED(status) else ("exit", os.WEXITSTATUS(status))
    )
    if any(len(held) > PROGRAM_OUTPUT_BYTES_MAX for held in said.values()):
        how = "output"
    return [how, number, bytes(said[out_read]), bytes(said[err_read])]


def _pump(
    door: socket.socket,
    pidfd: int,
    given: memoryview,
    feed: FileIO,
    said: dict[int, bytearray],
    until_s: float,
) -> str:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(door.fileno(), select.POLLRDHUP)
    for fd in said:
        poll.register(fd, select.POLLIN)
    to_fd = feed.fileno()
    os.set_blocking(to_fd, False)
    if given:
        poll.register(to_fd, select.POLLOUT)
    else:
        feed.close()
    while True:
        left_ms = (until_s - time.monotonic()) * 1_000
        if left_ms <= 0:
            return "timeout"
        for fd, _ in poll.poll(left_ms):
            if fd == pidfd:
                return "end"
            if fd == door.fileno():
                return "timeout"  # nobody is there to hear how it ended
            if fd == to_fd:
                given = given[_write(fd, given) :]
                if not given:
                    poll.unregister(fd)
                    feed.close()
                continue
            part = _read(fd)
            said[fd] += part
            if not part:
                poll.unregister(fd)
            elif len(said[fd]) > PROGRAM_OUTPUT_BYTES_MAX:
                return "output"


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _PIPE_BYTES)
    except BlockingIOError:
        return b""


def _write(fd: int, given: memoryview) -> int:
    try:
        return os.write(fd, given[:_PIPE_BYTES])
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        return len(given)  # it wants no more


def _end_group(pid: int) -> None:
    """Kill all that is left of a run, and wait for it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    while True:
        try:
            os.waitpid(-pid, 0)
        except ChildProcessError:
            return
