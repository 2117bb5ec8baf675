"""What the sandbox is made of: its lists, its programs, and the ways it refuses to start."""

import errno
import itertools
import os
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from edge.core.errors import Misconfigured
from edge.worker import seccomp
from edge.worker.sandbox import Policy, Report, lock_in, readable_paths
from tests.process.forked import forked, outcomes

pytestmark = [pytest.mark.forks, pytest.mark.sandbox]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else to try")
def test_ordinary_user_can_lock_in() -> None:
    """No privilege is needed: an ordinary user's worker is held the same way."""
    folder = Path(f"/dev/shm/edge-test-{os.getpid()}")
    folder.mkdir(mode=0o777)
    os.chown(folder, 65534, 65534)

    def child(_pipe_fd: int) -> list[Any]:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        report = lock_in(Policy(folder, 64))
        (folder / "x").write_bytes(b"1")
        return [report.complete, outcomes(os.fork, Path("/etc/hosts").read_text, socket.socket)]

    assert forked(child) == [True, [errno.EPERM, errno.EACCES, errno.EPERM]]
    (folder / "x").unlink()
    folder.rmdir()


def test_a_process_with_threads_is_refused(tmp_path: Path) -> None:
    """Landlock holds the calling thread only, so a process that has more is not locked in by halves."""

    def child(_pipe_fd: int) -> str:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        with pytest.raises(Misconfigured):
            lock_in(Policy(tmp_path, 64))
        return "refused"

    assert forked(child) == "refused"


def test_report_says_what_is_missing() -> None:
    """The caller can tell which half a kernel lacks."""
    assert Report(7, True).complete
    assert not Report(7, True).missing
    assert Report(0, True).missing == ("landlock",)
    assert not Report(7, False).complete


def test_readable_paths_leave_homes_and_checkouts_out() -> None:
    """What a worker may read is libraries: never /, a home folder, a checkout or a folder of data."""
    paths = readable_paths()
    for shut in ("/", "/etc", "/home", "/proc", "/tmp", "/var", os.path.expanduser("~"), os.getcwd()):
        assert Path(shut) not in paths
    assert Path(pa.__file__).parent.parent in paths


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_numbers_are_the_kernels(name: str) -> None:
    """Every number in the filter's lists is the one the kernel's headers give that call."""
    if not HEADERS[name].exists():
        pytest.skip(f"no kernel headers for {name} here")
    pattern = re.compile(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b")
    known = {call: int(number) for call, number in pattern.findall(HEADERS[name].read_text())}
    listed = " ".join([*seccomp.REFUSED.values(), seccomp.JUDGED, seccomp.REFUSED_PURE])
    for call_name, number in seccomp.numbers(listed, seccomp.MACHINES[name].column).items():
        # Calls from 451 on are newer than Debian 12's headers.
        assert known.get(call_name, number if number > 450 else None) == number, call_name


def test_both_programs_are_sound() -> None:
    """Each machine's program fits the kernel's bound and ends in a verdict wherever it may jump."""
    doors = (seccomp.SHUT, seccomp.Doors(True, True, True, True, True))
    for target, open_doors in itertools.product(seccomp.MACHINES.values(), doors):
        code = seccomp.program(target, 4_321, open_doors)
        ops = [code[at : at + 8] for at in range(0, len(code), 8)]
        assert len(ops) < 4_096
        for at, op in enumerate(ops):
            if op[0] & 0x07 == 0x05:
                assert at + 1 + max(op[2], op[3]) < len(ops)
        assert ops[-1][0] == 0x06
