"""The zygote: one small process with everything imported, from which each worker is forked in 2 ms.

Forked by the runtime before the runtime has threads or LMDB, and told over a socket when to fork. Arrow is
imported with numpy kept out (8 MB and 40 ms saved for each process) and all memory is frozen out of the garbage
collector, so that workers share its pages: 3.6 MB of its own for each worker against 20 MB spawned
(research/feasibility §1). It never opens LMDB, never runs a claim, and dies with the runtime.

Messages (datagrams of CBOR): to it `[slot, bound folder or "", memory MB, grants, pure]` with the worker's socket
attached (grants as `edge.core.access.Access.parts`); from it `["ready"]`, `["forked", slot, pid]`,
`["exited", pid, wait status]`.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import socket
from pathlib import Path
from typing import Any, Final, NoReturn

from edge.core.access import NOTHING, Access
from edge.core.codec import decode, encode
from edge.core.errors import Misconfigured
from edge.core.limits import KIB
from edge.store.mapped_pages import release_heap, release_libraries

_PR_SET_PDEATHSIG: Final = 1
#: What libraries look for, by beginning; the rest is the box's own.
_ENVIRONMENT_KEPT: Final = ("PATH", "HOME", "LANG", "LC_", "TZ", "TMPDIR", "SSL_CERT_", "ARROW_", "OPENBLAS_")
#: The kernel's out-of-memory killer takes a worker before the runtime or the gateway.
_OOM_SCORE_ADJ: Final = b"600"
#: Room for every grant of a step at its longest.
_MESSAGE_BYTES_MAX: Final = 128 * KIB


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, even by SIGKILL."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(0)


def serve(
    control: socket.socket, cache_root: Path, data: Path, runtime_pid: int, workers_lock_fd: int
) -> NoReturn:
    """Fork workers when told to, report their ends, end when the runtime does.

    Workers keep `workers_lock_fd` open, and of everything else only what they need. Nothing in `cache_root`, `data`
    or systemd's folder of credentials can be granted to one, and none sees the box's own environment.
    """
    die_with_parent(runtime_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    from edge.worker.arrow_import import import_arrow

    import_arrow()
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    folders = cache_root, data, *((Path(credentials),) if credentials else ())
    _forget_environment()
    gc.collect()
    gc.freeze()
    release_heap()
    release_libraries()
    try:
        control.send(encode(["ready"]))
    except OSError:
        os._exit(0)  # the runtime stopped while Arrow was being imported
    watched: dict[int, int] = {}
    poller = select.poll()
    poller.register(control, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            if fd == control.fileno():
                pidfd, pid = _fork_on_request(control, folders, workers_lock_fd)
                watched[pidfd] = pid
                poller.register(pidfd, select.POLLIN)
            else:
                poller.unregister(fd)
                os.close(fd)
                pid = watched.pop(fd)
                _, status = os.waitpid(pid, 0)
                _tell(control, ["exited", pid, status])


def _tell(control: socket.socket, message: list[Any]) -> None:
    try:
        control.send(encode(message))
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)  # the runtime is gone


def _fork_on_request(
    control: socket.socket, folders: tuple[Path, ...], workers_lock_fd: int
) -> tuple[int, int]:
    try:
        data, fds, _, _ = socket.recv_fds(control, _MESSAGE_BYTES_MAX, 1)
    except ConnectionResetError:
        data, fds = b"", []
    if not data:
        os._exit(0)  # the runtime is gone
    slot, *order = decode(data)
    zygote_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_worker(zygote_pid, fds[0], workers_lock_fd, folders, order)
    os.close(fds[0])
    _tell(control, ["forked", slot, pid])
    return os.pidfd_open(pid), pid


def _become_worker(
    zygote_pid: int, socket_fd: int, workers_lock_fd: int, folders: tuple[Path, ...], order: list[Any]
) -> NoReturn:
    """The child's side: lock in, serve, leave without running the zygote's exit handlers."""
    code = 1
    words_fd = os.dup(2)
    try:
        die_with_parent(zygote_pid)
        _silence()
        _write_oom_score()
        runtime = socket.socket(fileno=socket_fd)
        _serve_locked_in(runtime, workers_lock_fd, words_fd, folders, order)
        code = 0
    finally:
        os._exit(code)


def _serve_locked_in(
    runtime: socket.socket, workers_lock_fd: int, words_fd: int, folders: tuple[Path, ...], order: list[Any]
) -> None:
    from edge.worker import loop
    from edge.worker.sandbox import Policy, lock_in, readable_paths

    folder, memory_mb, grants, pure = order
    access = Access.of(grants)
    refused = None
    if access:
        from edge.worker.grants import refusal

        refused = refusal(access, folders)
    if refused is not None:
        access = NOTHING  # every claim is answered with the refusal; nothing runs here
    root = folders[0] / folder
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    keep_fds = [0, 1, 2, runtime.fileno(), root_fd, workers_lock_fd, words_fd]
    # Imported where they are wanted, which is seldom: no other process pays for them.
    door = launcher = None
    if access.hosts:
        from edge.worker.outside import Outside
        from edge.worker.porter import fork_porter

        door = fork_porter(access)
        keep_fds.append(door.fileno())
    if access.programs:
        from edge.worker import programs
        from edge.worker.launcher import fork_launcher

        launcher = fork_launcher(access, memory_mb)
        keep_fds.append(launcher.fileno())
        programs.use(launcher)
    if pure:
        from edge.tools.purity_doors import shut
    policy = Policy(root, memory_mb, keep_fds=tuple(keep_fds), access=access, pure=pure)
    try:
        report = lock_in(policy)
    except Misconfigured as error:
        # It ends before it could answer a claim, and the runtime hears an exit code only.
        os.write(words_fd, f"worker: a worker could not lock itself in: {error}\n".encode())
        raise
    os.close(words_fd)
    if folder and not report.complete:
        refused = kernel_lacks(report.missing)
    if door is not None:
        Outside(door).open()
    if pure:
        shut(tuple(str(path) for path in readable_paths()))
    loop.run(runtime, root_fd, bound=bool(folder), refusal=refused)


def kernel_lacks(missing: tuple[str, ...]) -> dict[str, Any]:
    """Why no author's code runs on this kernel."""
    return {
        "code": "sandbox_unavailable",
        "message": f"This kernel has no {' and no '.join(missing)}: a block could not be held in its sandbox.",
        # A container's filter of system calls looks no different from in here (systemd-nspawn's knows no landlock).
        "mend": "Use a kernel of Linux 5.13 or newer with landlock switched on (lsm=…,landlock) and seccomp; in a "
        "container its filter of system calls must let landlock_* pass.",
    }


def _forget_environment() -> None:
    """Take out of the environment what blocks have no business with: it may hold the broker's password."""
    for name in [name for name in os.environ if not name.startswith(_ENVIRONMENT_KEPT)]:
        del os.environ[name]


def _silence() -> None:
    """What a block writes past Python's own streams goes nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)


def _write_oom_score() -> None:
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    try:
        os.write(fd, _OOM_SCORE_ADJ)
    finally:
        os.close(fd)


def recv_message(control: socket.socket) -> list[Any]:
    """One message of the zygote's, on the runtime's side. Empty when it is gone."""
    data = control.recv(_MESSAGE_BYTES_MAX)
    return decode(data) if data else []
