"""A locked-in worker, in real forked processes: each denied thing is denied, each needed thing works."""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from edge.core.limits import MIB
from edge.store.cache import BlockStore
from edge.worker import landlock, seccomp
from edge.worker.sandbox import Policy, lock_in
from tests.process.forked import forked

pytestmark = [pytest.mark.forks, pytest.mark.sandbox]

libc = ctypes.CDLL(None, use_errno=True)
PARENT = os.getpid()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache" / "one"
    folder.mkdir(parents=True)
    (tmp_path / "cache" / "other").mkdir()
    (tmp_path / "cache" / "other" / "block").write_bytes(b"another playbook's")
    return folder


def locked(cache: Path, act: Callable[[], Any], **settings: Any) -> Any:
    """Fork, lock in, act; what came back, or the OSError's errno, or the other exception's name."""

    def child(_pipe_fd: int) -> list[Any]:
        try:
            # As the zygote has it. An allocator that reserved its arena before is not held by the limit.
            pa.set_memory_pool(pa.system_memory_pool())
            lock_in(Policy(cache_folder=cache, **{"memory_mb": 64, **settings}))
            return ["ok", act()]
        except OSError as error:
            return ["errno", error.errno]
        except BaseException as error:
            return ["raised", type(error).__name__]

    return forked(child)


def system_call(number: int, *arguments: Any) -> None:
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def call(name: str, *arguments: Any) -> Callable[[], None]:
    """A raw system call by its name in the filter's own lists."""
    target = seccomp.machine()
    assert target is not None
    listed = " ".join([*seccomp.REFUSED.values(), seccomp.JUDGED])
    number = seccomp.numbers(listed, target.column)[name]
    return lambda: system_call(number, *arguments)


def in_network() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM)


DENIED: dict[str, tuple[Callable[[], Any], int]] = {
    "fork": (os.fork, errno.EPERM),
    "exec": (lambda: os.execv("/bin/true", ["true"]), errno.EPERM),
    "a subprocess": (lambda: subprocess.run(["/bin/true"]), errno.EPERM),
    "a shell": (lambda: os.posix_spawn("/bin/sh", ["sh"], {}), errno.EPERM),
    "a TCP socket": (in_network, errno.EPERM),
    "a unix socket": (lambda: socket.socket(socket.AF_UNIX), errno.EPERM),
    "a socket pair": (socket.socketpair, errno.EPERM),
    "a netlink socket": (lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), errno.EPERM),
    "reading /etc/passwd": (Path("/etc/passwd").read_text, errno.EACCES),
    "listing /": (lambda: os.listdir("/"), errno.EACCES),
    "listing the home folder": (lambda: os.listdir(os.path.expanduser("~")), errno.EACCES),
    "listing the checkout": (lambda: os.listdir(Path(__file__).parent), errno.EACCES),
    "reading another process": (Path(f"/proc/{PARENT}/environ").read_text, errno.EACCES),
    "writing /tmp": (lambda: Path("/tmp/edge-sandbox-probe").write_text(""), errno.EACCES),
    "writing a library": (lambda: os.open(pa.__file__, os.O_WRONLY), errno.EACCES),
    "deleting a library": (lambda: os.unlink(pa.__file__), errno.EACCES),
    "running a program of its own": (lambda: os.execv(sys.executable, ["python"]), errno.EPERM),
    "killing its parent": (lambda: os.kill(PARENT, signal.SIGTERM), errno.EPERM),
    "probing its parent": (lambda: os.kill(os.getppid(), 0), errno.EPERM),
    "killing its group": (lambda: os.kill(0, 0), errno.EPERM),
    "killing everybody": (lambda: os.kill(-1, 0), errno.EPERM),
    "a handle on its parent": (lambda: os.pidfd_open(PARENT), errno.EPERM),
    "queueing a signal": (call("rt_sigqueueinfo", PARENT, 0, None), errno.EPERM),
    "ptrace": (call("ptrace", 16, PARENT, None, None), errno.EPERM),
    "reading foreign memory": (call("process_vm_readv", PARENT, None, 0, None, 0, 0), errno.EPERM),
    "surviving the runtime": (call("prctl", 1, 0, 0, 0, 0), errno.EPERM),
    "emptying a library": (lambda: os.open(pa.__file__, os.O_RDONLY | os.O_TRUNC), errno.EPERM),
    "openat2": (call("openat2", -100, b"/etc/hosts", None, 24), errno.ENOSYS),
    "undoing an inherited lock": (lambda: fcntl.flock(1, fcntl.LOCK_UN), errno.EPERM),
    "hiding its memory": (call("prctl", 4, 0, 0, 0, 0), errno.EPERM),
    "its own session": (os.setsid, errno.EPERM),
    "mount": (call("mount", b"none", b"/", b"tmpfs", 0, None), errno.EPERM),
    "unshare": (call("unshare", 0x1000_0000), errno.EPERM),
    "setns": (call("setns", 0, 0), errno.EPERM),
    "chroot": (lambda: os.chroot("/"), errno.EPERM),
    "chmod": (lambda: os.chmod("/etc/hosts", 0o777), errno.EPERM),
    "chown": (lambda: os.chown("/etc/hosts", 0, 0), errno.EPERM),
    "touching times": (lambda: os.utime("/etc/hosts"), errno.EPERM),
    "setuid": (lambda: os.setuid(65534), errno.EPERM),
    "bpf": (call("bpf", 0, None, 0), errno.EPERM),
    "keyctl": (call("keyctl", 0, 0, 0, 0, 0), errno.EPERM),
    "perf events": (call("perf_event_open", None, 0, 0, 0, 0), errno.EPERM),
    "io_uring": (call("io_uring_setup", 1, None), errno.EPERM),
    "userfaultfd": (call("userfaultfd", 0), errno.EPERM),
    "clone3": (call("clone3", None, 0), errno.ENOSYS),
    "a call newer than the list": (lambda: system_call(seccomp.UNKNOWN_FROM), errno.ENOSYS),
    "memory without a count": (lambda: mmap.mmap(-1, MIB), errno.EPERM),
    "memory files": (lambda: os.memfd_create("x"), errno.EPERM),
    "setting the clock": (lambda: time.clock_settime(time.CLOCK_REALTIME, 0), errno.EPERM),
    "real-time priority": (lambda: os.sched_setscheduler(0, 1, os.sched_param(1)), errno.EPERM),
}


@pytest.mark.parametrize("name", DENIED)
def test_denied(name: str, cache: Path) -> None:
    """A locked-in worker is refused this, with the errno a block's author can make sense of."""
    act, expected = DENIED[name]
    assert locked(cache, act) == ["errno", expected], name


@pytest.mark.parametrize("limit", [resource.RLIMIT_DATA, resource.RLIMIT_AS, resource.RLIMIT_NOFILE])
def test_limits_stay(limit: int, cache: Path) -> None:
    """A worker reads its limits and cannot set them, not even to what they are, root or not."""
    most = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    for wanted in (lambda: most, lambda: resource.getrlimit(limit)):
        assert locked(cache, lambda w=wanted: resource.setrlimit(limit, w()))[0] != "ok"
        assert locked(cache, lambda w=wanted: resource.prlimit(0, limit, w()))[0] != "ok"
    assert locked(cache, lambda: resource.getrlimit(limit)[1])[0] == "ok"


def test_other_cache_folders_are_shut(cache: Path) -> None:
    """A worker neither reads, lists, writes nor fills another playbook's cache folder."""
    other = cache.parent / "other"
    assert locked(cache, lambda: (other / "block").read_bytes()) == ["errno", errno.EACCES]
    assert locked(cache, lambda: os.listdir(other)) == ["errno", errno.EACCES]
    assert locked(cache, lambda: (other / "mine").write_bytes(b"")) == ["errno", errno.EACCES]
    assert locked(cache, lambda: os.rename(cache / "x", other / "x"))[0] == "errno"
    link = cache / "link"
    link.symlink_to(other / "block")
    assert locked(cache, link.read_bytes) == ["errno", errno.EACCES]


def test_cache_folder_holds_regular_files_only(cache: Path) -> None:
    """Nothing but regular files can be made in the cache folder: no link, pipe, folder or device node."""
    assert locked(cache, lambda: os.symlink("/etc/passwd", cache / "l")) == ["errno", errno.EACCES]
    assert locked(cache, lambda: os.mkdir(cache / "d")) == ["errno", errno.EACCES]
    assert locked(cache, lambda: os.mkfifo(cache / "p")) == ["errno", errno.EPERM]
    assert locked(cache, lambda: os.mknod(cache / "n", 0o600 | 0o060000, os.makedev(8, 0)))[0] == "errno"
    assert list(cache.iterdir()) == []


def test_blocks_work(cache: Path) -> None:
    """A worker writes a block through the folder's handle and maps it back."""
    folder_fd = os.open(cache, os.O_DIRECTORY)

    def act() -> list[Any]:
        store = BlockStore(folder_fd)
        ref = store.write("block", pa.table({"x": [1.0, 2.0, None]}))
        return [store.read(ref)["x"].to_pylist(), pc.sum(store.read(ref)["x"]).as_py()]

    assert locked(cache, act) == ["ok", [[1.0, 2.0, None], 3.0]]
    os.close(folder_fd)


def test_blocks_over_one_file_limit_of_tables(cache: Path) -> None:
    """A step may hold more tables at once than it may hold files."""
    folder_fd = os.open(cache, os.O_DIRECTORY)

    def act() -> Any:
        store = BlockStore(folder_fd)
        refs = [store.write(f"b{at}", pa.table({"x": pa.repeat(at, 5_000)})) for at in range(200)]
        return sum(table["x"][0].as_py() for table in [store.read(ref) for ref in refs])

    assert locked(cache, act) == ["ok", sum(range(200))]
    os.close(folder_fd)


def imports_late() -> list[Any]:
    for name in [
        name for name in sys.modules if name.split(".")[0] in ("statistics", "colorsys", "zoneinfo")
    ]:
        del sys.modules[name]
    import colorsys
    import statistics
    import zoneinfo

    return [
        statistics.median([3, 1, 2]),
        colorsys.rgb_to_hsv(0, 0, 0)[0],
        zoneinfo.ZoneInfo("Europe/Berlin").key,
    ]


def runs_a_thread() -> int:
    seen: list[int] = []
    threads = [threading.Thread(target=seen.append, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(seen)


def computes() -> float:
    table = pa.table({"k": ["a", "b", "a"], "x": [1.0, 2.0, 4.0]})
    grouped = table.group_by("k", use_threads=False).aggregate([("x", "sum")]).sort_by("k")
    return float(grouped["x_sum"][0].as_py())


def signals_itself() -> int:
    got: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR1)
    return len(got)


def prints() -> str:
    with open(os.devnull, "w") as null:
        print("x", file=null)
    return f"{os.urandom(4).hex():.0}{time.strftime('%Y', time.gmtime(0))}"


NEEDED: dict[str, tuple[Callable[[], Any], Any]] = {
    "imports": (imports_late, [2, 0.0, "Europe/Berlin"]),
    "threads": (runs_a_thread, 4),
    "arrow": (computes, 5.0),
    "own signals": (signals_itself, 2),
    "devnull and clocks": (prints, "1970"),
    "json": (lambda: json.loads(json.dumps({"a": [1.5]})), {"a": [1.5]}),
    "private memory maps": (
        lambda: len(mmap.mmap(-1, MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)),
        MIB,
    ),
}


@pytest.mark.parametrize("name", NEEDED)
def test_needed(name: str, cache: Path) -> None:
    """What ordinary Python and Arrow need goes on working inside."""
    act, expected = NEEDED[name]
    assert locked(cache, act) == ["ok", expected]


def test_open_sockets_go_on_working(cache: Path) -> None:
    """The socket a worker was given keeps sending and receiving, in every way a socket can."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def act() -> list[str]:
        theirs.send(b"one")
        theirs.sendmsg([b"two"])
        return [theirs.recv(10).decode(), theirs.recvmsg(10)[0].decode()]

    ours.send(b"un")
    ours.send(b"deux")
    assert locked(cache, act) == ["ok", ["un", "deux"]]
    assert [ours.recv(10), ours.recv(10)] == [b"one", b"two"]
    ours.close()
    theirs.close()


def test_kept_handles_only(cache: Path) -> None:
    """Where handles to keep are named, every other inherited one is closed."""
    inherited = os.open("/etc/passwd", os.O_RDONLY)
    kept = os.open("/etc/passwd", os.O_RDONLY)
    # The pipe the harness answers through must stay: keep everything but `inherited`.
    everything = tuple(fd for fd in range(3, 256) if fd != inherited)
    assert locked(cache, lambda: len(os.read(kept, 1)), keep_fds=everything) == ["ok", 1]
    assert locked(cache, lambda: os.read(inherited, 1), keep_fds=everything) == ["errno", errno.EBADF]
    os.close(inherited)
    os.close(kept)


def fills_with(make: Callable[[], Any]) -> Callable[[], int]:
    def act() -> int:
        held = []
        for _ in range(1_000):
            held.append(make())
        return len(held)

    return act


FILLS: dict[str, Callable[[], Any]] = {
    "one large block": lambda: bytearray(512 * MIB),
    "many strings": fills_with(lambda: b"x" * MIB),
    "many small objects": fills_with(lambda: [object() for _ in range(50_000)]),
    "arrow buffers": fills_with(lambda: pa.array(range(100_000))),
    "an arrow buffer": lambda: pa.allocate_buffer(512 * MIB),
    "arrow compute": lambda: pc.binary_repeat(pa.array(["x" * 1000]), 1_000_000),
}


@pytest.mark.parametrize("name", FILLS)
def test_memory_is_bounded(name: str, cache: Path) -> None:
    """Asking for more private memory than the step's limit raises MemoryError; nothing crashes."""
    kind, what = locked(cache, FILLS[name], memory_mb=32)
    assert kind == "raised"
    assert what in ("MemoryError", "ArrowMemoryError")


def test_memory_within_the_limit_is_there(cache: Path) -> None:
    """A block gets what its policy says, on top of what the process had."""
    assert locked(cache, lambda: len(bytearray(48 * MIB)), memory_mb=64) == ["ok", 48 * MIB]


def test_memory_comes_back(cache: Path) -> None:
    """After a MemoryError the same process goes on."""

    def act() -> int:
        for _ in range(20):
            try:
                bytearray(512 * MIB)
            except MemoryError:
                continue
        return len(bytearray(16 * MIB))

    assert locked(cache, act, memory_mb=32) == ["ok", 16 * MIB]


def test_large_files_are_refused(cache: Path) -> None:
    """No single file outgrows the bound; the worker sees an error, not a signal."""

    def act() -> None:
        file_fd = os.open(cache / "large", os.O_CREAT | os.O_RDWR)
        os.ftruncate(file_fd, 1 << 40)

    assert locked(cache, act) == ["errno", errno.EFBIG]


def test_no_way_back(cache: Path) -> None:
    """Locking in a second time for another folder does not open it."""
    other = cache.parent / "other"

    def act() -> bytes:
        landlock.restrict(landlock.abi(), read=[other], write=[other])
        return (other / "block").read_bytes()

    assert locked(cache, act)[0] != "ok"


def test_capabilities_are_gone(cache: Path) -> None:
    """A worker of root's has no capability left."""

    def act() -> str:
        return Path("/proc/thread-self/status").read_text()

    answer = locked(cache, act, read_paths=(Path("/proc"),))
    assert answer[0] == "ok"
    assert re.search(r"^CapEff:\t0+$", answer[1], re.MULTILINE)
    assert "NoNewPrivs:\t1" in answer[1]
    assert "Seccomp:\t2" in answer[1]
