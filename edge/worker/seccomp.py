"""A seccomp filter, assembled here: which system calls a process may still make, for the rest of its life.

Owns the list of what author code has no business calling, for x86-64 and aarch64, and the small BPF program
made of it. Called by edge.worker.sandbox, last of all. Everything not listed stays allowed: blocks are
ordinary Python with ordinary libraries. Refusals are errors, not death, so that a block's failure can be told
to its author.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from functools import cache
from typing import Final

from edge.core.errors import Misconfigured
from edge.core.records import record

#: Calls refused whatever their arguments, as name=x86-64/aarch64, grouped by why.
REFUSED: Final = {
    "new processes": "fork=57/- vfork=58/- execve=59/221 execveat=322/281",
    "networks": "socket=41/198 socketpair=53/199 connect=42/203 bind=49/200 listen=50/201 accept=43/202 "
    "accept4=288/242",
    "other processes": "ptrace=101/117 process_vm_readv=310/270 process_vm_writev=311/271 "
    "process_madvise=440/440 process_mrelease=448/448 kcmp=312/272 pidfd_open=434/434 pidfd_getfd=438/438 "
    "pidfd_send_signal=424/424 sched_setaffinity=203/122 sched_setscheduler=144/119 sched_setparam=142/118 "
    "sched_setattr=314/274 setpriority=141/140 ioprio_set=251/30 migrate_pages=256/238 move_pages=279/239",
    # Memory that RLIMIT_DATA does not count, and ways to meet other processes.
    "uncounted memory and queues": "memfd_create=319/279 memfd_secret=447/447 shmget=29/194 shmat=30/196 "
    "shmctl=31/195 semget=64/190 semop=65/193 semtimedop=220/192 semctl=66/191 msgget=68/186 msgsnd=69/189 "
    "msgrcv=70/188 msgctl=71/187 mq_open=240/180 mq_unlink=241/181",
    # Landlock does not hold metadata: without these, a block of root's could chmod /etc/shadow.
    "files' metadata": "chmod=90/- fchmod=91/52 fchmodat=268/53 fchmodat2=452/452 chown=92/- fchown=93/55 "
    "lchown=94/- fchownat=260/54 setxattr=188/5 lsetxattr=189/6 fsetxattr=190/7 setxattrat=463/463 "
    "removexattr=197/14 lremovexattr=198/15 fremovexattr=199/16 removexattrat=466/466 utime=132/- "
    "utimes=235/- futimesat=261/- utimensat=280/88 file_setattr=469/469 truncate=76/45 mknod=133/- "
    "mknodat=259/33",
    "other ways to files": "open_by_handle_at=304/265 name_to_handle_at=303/264 inotify_add_watch=254/27 "
    "fanotify_init=300/262 fanotify_mark=301/263 chroot=161/51 sync=162/81 syncfs=306/267 "
    "flock=73/32",
    "mounts": "mount=165/40 umount2=166/39 pivot_root=155/41 open_tree=428/428 open_tree_attr=467/467 "
    "move_mount=429/429 fsopen=430/430 fsconfig=431/431 fsmount=432/432 fspick=433/433 mount_setattr=442/442 "
    "statmount=457/457 listmount=458/458 swapon=167/224 swapoff=168/225 quotactl=179/60 quotactl_fd=443/443 "
    "sysfs=139/- ustat=136/-",
    "identity and limits": "setuid=105/146 setgid=106/144 setreuid=113/145 setregid=114/143 setresuid=117/147 "
    "setresgid=119/149 setfsuid=122/151 setfsgid=123/152 setgroups=116/159 capset=126/91 setrlimit=160/164 "
    "personality=135/92 unshare=272/97 setns=308/268 setpgid=109/154 setsid=112/157",
    "the kernel": "bpf=321/280 perf_event_open=298/241 io_uring_setup=425/425 io_uring_enter=426/426 "
    "io_uring_register=427/427 userfaultfd=323/282 init_module=175/105 finit_module=313/273 "
    "delete_module=176/106 kexec_load=246/104 kexec_file_load=320/294 reboot=169/142 add_key=248/217 "
    "request_key=249/218 keyctl=250/219 syslog=103/116 acct=163/89 vhangup=153/58 iopl=172/- ioperm=173/- "
    "modify_ldt=154/- lookup_dcookie=212/18 uselib=134/- nfsservctl=180/42",
    "clock and name": "settimeofday=164/170 clock_settime=227/112 adjtimex=159/171 clock_adjtime=305/266 "
    "sethostname=170/161 setdomainname=171/162",
}
#: Refused too where only pure blocks run: the second line behind `edge.tools.purity_doors`. The clock itself is
#: read without a call (vDSO), and the worker measures with it; chance is left to libraries that seed themselves.
REFUSED_PURE: Final = (
    "times=100/153 getrusage=98/165 uname=63/160 sysinfo=99/179 gettimeofday=96/169 "
    "getitimer=36/102 timer_create=222/107 timerfd_create=283/85"
)
#: Calls refused for some of their arguments; `_argument_rules` and `program` say which.
JUDGED: Final = (
    "socket=41/198 sendto=44/206 sendmsg=46/211 sendmmsg=307/269 "
    "clone=56/220 clone3=435/435 kill=62/129 tkill=200/130 tgkill=234/131 rt_sigqueueinfo=129/138 "
    "rt_tgsigqueueinfo=297/240 prlimit64=302/261 prctl=157/167 fcntl=72/25 ioctl=16/29 mmap=9/222 open=2/- "
    "openat=257/56 openat2=437/437"
)
#: The first number this list has not judged (file_setattr is the last of Linux 6.17): answered with ENOSYS.
UNKNOWN_FROM: Final = 470

_SIGNAL_CALLS: Final = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
_CLONE_THREAD: Final = 0x0001_0000
_CLONE_NAMESPACES: Final = 0x7E02_0000
_MAP_SHARED: Final = 0x01
_MAP_ANONYMOUS: Final = 0x20
_O_TRUNC: Final = 0o1000
_O_ACCMODE: Final = 0b11
#: PR_SET_PDEATHSIG (a block must not outlive the runtime), PR_SET_DUMPABLE (its memory stays visible), PR_SET_MM.
_PRCTL_REFUSED: Final = (1, 4, 35)
#: F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to others by way of a file. F_OFD_SETLK and F_OFD_SETLKW, F_SETLEASE,
#: F_NOTIFY: holding up, or watching, who else uses a file; like flock, which would undo a lock it inherited.
_FCNTL_REFUSED: Final = (8, 10, 15, 37, 38, 1024, 1026)
#: TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, TCGETS2: what ordinary file objects ask.
_IOCTL_ALLOWED: Final = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x802C_542A)

#: Kinds of control calls of devices that can be granted, by the second byte of their number: terminals, I2C, SPI,
#: GPIO, HID, video, input, clocks, watchdogs, IIO, sound. Files, drives and networks have others.
_DEVICE_IOCTLS: Final = (0x54, 0x07, 0x6B, 0xB4, 0x48, 0x56, 0x45, 0x70, 0x57, 0x69, 0x41)
#: TIOCSCTTY, TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD: typing into, or taking over, terminals of others.
_DEVICE_IOCTLS_REFUSED: Final = (0x540E, 0x5412, 0x541C, 0x541D, 0x5423)
_INET: Final = (2, 10)
_SOCK_STREAM: Final = 1
_SOCK_TYPE: Final = 0xF
_TCP: Final = (0, 6)
_MSG_FASTOPEN: Final = 0x2000_0000

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_ALLOW: Final = 0x7FFF_0000
_REFUSE: Final = 0x0005_0000 | errno.EPERM
_ABSENT: Final = 0x0005_0000 | errno.ENOSYS
#: Offsets in struct seccomp_data; arguments are 64 bits wide and both machines are little-endian.
_AT_NUMBER: Final = 0
_AT_ARCH: Final = 4
_AT_ARGUMENTS: Final = 16

_SET_MODE_FILTER: Final = 1
_FLAG_TSYNC: Final = 1


@record
class Machine:
    """One kind of processor: its column in the lists, its audit name, its `seccomp` call."""

    column: int
    audit_arch: int
    seccomp_number: int
    #: First number of a second call table behind the same arch (x32), or None.
    second_table: int | None


MACHINES: Final = {
    "x86_64": Machine(0, 0xC000_003E, 317, 0x4000_0000),
    "aarch64": Machine(1, 0xC000_00B7, 277, None),
}


def machine() -> Machine | None:
    """This processor, or None where the lists do not cover it."""
    return MACHINES.get(platform.machine()) if struct.calcsize("P") == 8 else None


def numbers(listed: str, column: int) -> dict[str, int]:
    """Name to number of a list's calls that exist on a machine."""
    found = {}
    for entry in listed.split():
        name, _, columns = entry.partition("=")
        number = columns.split("/")[column]
        if number != "-":
            found[name] = int(number)
    return found


@record
class Doors:
    """What differs from process to process: a granted step's filter leaves open making TCP sockets (never connecting
    them) and control of devices, a pure one's shuts more.

    `processes` is for programs that a launcher starts: they may start others, in their own group. `signals` leaves
    signals to landlock, which holds them from ABI 6 on.
    """

    sockets: bool = False
    devices: bool = False
    processes: bool = False
    signals: bool = False
    pure: bool = False


SHUT: Final = Doors()


def program(target: Machine, own_pid: int, doors: Doors = SHUT) -> bytes:
    """The filter as struct sock_filter[]: refuse other machines, then the lists, then by argument."""
    judged = numbers(JUDGED, target.column)
    allow = _op(_RETURN, _ALLOW)
    if doors.signals:
        return fixed_part(target, doors) + allow
    to_itself = [_argument(0), *_unless_equal(own_pid, _REFUSE), allow]
    signals = [_rule(judged[name], to_itself) for name in _SIGNAL_CALLS]
    return b"".join([fixed_part(target, doors), *signals, allow])


@cache
def fixed_part(target: Machine, doors: Doors) -> bytes:
    """All of the filter that does not depend on the process: worked out once, before forking."""
    code: list[bytes] = [_op(_LOAD, _AT_ARCH), *_unless_equal(target.audit_arch, _REFUSE)]
    code.append(_op(_LOAD, _AT_NUMBER))
    if target.second_table is not None:
        code += [_op(_AT_LEAST, target.second_table, 0, 1), _op(_RETURN, _REFUSE)]
    code += [_op(_AT_LEAST, UNKNOWN_FROM, 0, 1), _op(_RETURN, _ABSENT)]
    # First what is called often: the kernel remembers the verdicts of the rest by number.
    judged = numbers(JUDGED, target.column)
    rules = dict(_argument_rules())
    if doors.sockets:
        rules |= _socket_rules()
    if doors.devices:
        rules["ioctl"] = _device_rule()
    if doors.processes:
        rules["clone"] = _process_rule()
    code += [_rule(judged[name], rule) for name, rule in rules.items() if name in judged]
    for why, listed in {**REFUSED, **({"pure": REFUSED_PURE} if doors.pure else {})}.items():
        if doors.processes and why == "new processes":
            continue
        for number in numbers(listed, target.column).values():
            code += [_op(_EQUAL, number, 0, 1), _op(_RETURN, _REFUSE)]
    return b"".join(code)


def _rule(number: int, rule: list[bytes]) -> bytes:
    # A rule ends in a verdict on every path, so that nothing after it has to load the number again.
    assert rule[-1][:2] == struct.pack("=H", _RETURN)
    return b"".join([_op(_EQUAL, number, 0, len(rule)), *rule])


def install(target: Machine, own_pid: int, doors: Doors = SHUT) -> bool:
    """Put the filter on every thread of this process; False where the kernel has no seccomp filters."""
    code = program(target, own_pid, doors)
    buffer = ctypes.create_string_buffer(code, len(code))
    description = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(target.seccomp_number, _SET_MODE_FILTER, _FLAG_TSYNC, description)
    if result == 0:
        return True
    reason = ctypes.get_errno()
    if reason in (errno.ENOSYS, errno.EINVAL):
        return False
    raise Misconfigured(f"The seccomp filter was refused: {os.strerror(reason)}.", code="sandbox_failed")


def _argument_rules() -> Iterator[tuple[str, list[bytes]]]:
    allow = _op(_RETURN, _ALLOW)
    # Threads are the only children; without clone3, whose flags a filter cannot see, libc falls back to clone.
    yield "clone", [_argument(0), _op(_AND, _CLONE_THREAD), *_unless_equal(_CLONE_THREAD, _REFUSE), allow]
    yield "clone3", [_op(_RETURN, _ABSENT)]
    # Asking for limits is fine (glibc does), setting them is not: both halves of the pointer must be zero.
    yield (
        "prlimit64",
        [_argument(2), *_unless_equal(0, _REFUSE), _argument_high(2), *_unless_equal(0, _REFUSE), allow],
    )
    yield "prctl", [_argument(0), *_if_among(_PRCTL_REFUSED, _REFUSE), allow]
    yield "fcntl", [_argument(1), *_if_among(_FCNTL_REFUSED, _REFUSE), allow]
    yield "ioctl", [_argument(1), *_if_among(_IOCTL_ALLOWED, _ALLOW), _op(_RETURN, _REFUSE)]
    # Opening for reading with O_TRUNC empties a file, and landlock before ABI 3 (Linux 6.2) lets it.
    for name, flags in (("open", 1), ("openat", 2)):
        cut = [_op(_AND, _O_TRUNC | _O_ACCMODE), *_if_among((_O_TRUNC,), _REFUSE)]
        yield name, [_argument(flags), *cut, allow]
    yield "openat2", [_op(_RETURN, _ABSENT)]  # its flags stand in memory, where a filter cannot look
    # Shared anonymous memory is not counted by RLIMIT_DATA.
    shared = _MAP_SHARED | _MAP_ANONYMOUS
    yield "mmap", [_argument(3), _op(_AND, shared), *_if_among((shared,), _REFUSE), allow]


def _process_rule() -> list[bytes]:
    """New processes, but no new namespaces: in one of users a process has every capability."""
    return [_argument(0), _op(_AND, _CLONE_NAMESPACES), *_unless_equal(0, _REFUSE), _op(_RETURN, _ALLOW)]


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _argument(index: int) -> bytes:
    return _op(_LOAD, _AT_ARGUMENTS + 8 * index)


def _argument_high(index: int) -> bytes:
    return _op(_LOAD, _AT_ARGUMENTS + 8 * index + 4)


def _unless_equal(value: int, verdict: int) -> list[bytes]:
    return [_op(_EQUAL, value, 1, 0), _op(_RETURN, verdict)]


def _if_among(values: tuple[int, ...], verdict: int) -> list[bytes]:
    return [op for value in values for op in (_op(_EQUAL, value, 0, 1), _op(_RETURN, verdict))]


def _socket_rules() -> dict[str, list[bytes]]:
    """TCP sockets may be made; `connect` stays refused, and so is sending that connects by itself."""
    allow = _op(_RETURN, _ALLOW)
    making = [_argument(0), *_one_of(_INET), _argument(1), _op(_AND, _SOCK_TYPE), *_one_of((_SOCK_STREAM,))]
    making += [_argument(2), *_one_of(_TCP), allow]
    places = {"sendto": 3, "sendmsg": 2, "sendmmsg": 3}
    sending = {
        name: [_argument(place), _op(_AND, _MSG_FASTOPEN), *_unless_equal(0, _REFUSE), allow]
        for name, place in places.items()
    }
    return {"socket": making, **sending}


def _device_rule() -> list[bytes]:
    allow = _op(_RETURN, _ALLOW)
    code = [_argument(1), *_if_among(_DEVICE_IOCTLS_REFUSED, _REFUSE), *_if_among(_IOCTL_ALLOWED, _ALLOW)]
    kinds = tuple(kind << 8 for kind in _DEVICE_IOCTLS)
    return [*code, _op(_AND, 0xFF00), *_one_of(kinds), allow]


def _one_of(values: tuple[int, ...]) -> list[bytes]:
    """Go on where the loaded value is one of these, else refuse."""
    count = len(values)
    return [
        *(_op(_EQUAL, value, count - place, 0) for place, value in enumerate(values)),
        _op(_RETURN, _REFUSE),
    ]
