"""Starts a program as one of our units confines it, as far as that needs no systemd: `… UNIT DATA COMMAND…`.

Reads the unit's own lines, so that a test on a box started by it fails when a directive and the box disagree. Held
are SystemCallFilter=, SystemCallErrorNumber=, RestrictAddressFamilies=, MemoryDenyWriteExecute= (by the kernel's own
switch, Linux 6.3), NoNewPrivileges=, CapabilityBoundingSet=, UMask= and LimitCORE=, and the view of `unit_view`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.process.unit_view import see

FOLDER = Path(__file__).parents[2] / "systemd"
LIBRARY = ctypes.util.find_library("seccomp")
_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000
_EQUAL = 4
_PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE, _PR_CAPBSET_DROP = 38, 65, 24


class _Comparison(ctypes.Structure):
    _fields_ = [
        ("argument", ctypes.c_uint),
        ("how", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


def directives(unit: Path) -> dict[str, list[str]]:
    """Every directive of a unit with all its values, in order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def _members(name: str) -> Iterator[str]:
    """The system calls of a set, by what this machine's systemd says of it."""
    if not name.startswith("@"):
        yield name
        return
    said = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    )
    for line in said.stdout.splitlines():
        if line.startswith("    ") and not line.strip().startswith("#"):
            yield from _members(line.strip())


def allowed_calls(lines: list[str]) -> set[str]:
    """What an allow-list of SystemCallFilter= comes to: each line adds, one with ~ takes away."""
    allowed = set(_members("@default"))
    for line in lines:
        named = {call for name in line.removeprefix("~").split() for call in _members(name)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed


def _filter(unit: dict[str, list[str]]) -> None:
    library = ctypes.CDLL(LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    refuse = _ERRNO | getattr(errno, unit["SystemCallErrorNumber"][0])
    context = ctypes.c_void_p(library.seccomp_init(refuse))
    for call in sorted(allowed_calls(unit["SystemCallFilter"])):
        number = library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:  # another machine's
            continue
        if call != "socket":
            assert library.seccomp_rule_add_array(context, _ALLOW, number, 0, None) == 0, call
            continue
        for family in unit["RestrictAddressFamilies"][0].split():
            rule = _Comparison(0, _EQUAL, int(getattr(socket, family)), 0)
            assert library.seccomp_rule_add_array(context, _ALLOW, number, 1, ctypes.byref(rule)) == 0
    assert library.seccomp_load(context) == 0


def confine(unit: dict[str, list[str]]) -> None:
    """Shut the doors of this process, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.umask(int(unit["UMask"][0], 8))
    resource.setrlimit(resource.RLIMIT_CORE, (int(unit["LimitCORE"][0]),) * 2)
    assert unit["CapabilityBoundingSet"] == [""]
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    assert unit["NoNewPrivileges"] == unit["MemoryDenyWriteExecute"] == ["yes"]
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0)
    _filter(unit)


if __name__ == "__main__":
    described = directives(FOLDER / sys.argv[1])
    see(described, Path(sys.argv[2]))
    confine(described)
    os.execv(sys.argv[3], sys.argv[3:])
