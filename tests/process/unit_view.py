"""Shows a process what one of our units lets it see of files and users, without systemd and without any right.

Used by `unit_confinement` before it shuts the doors. In a user namespace of its own (PrivateUsers=) and a mount
namespace, whose mounts reach nobody else: ProtectSystem=strict with the data folder as StateDirectory=, or
TemporaryFileSystem= with BindReadOnlyPaths=, or ReadWritePaths= less ReadOnlyPaths= and InaccessiblePaths=. Not held:
PrivateTmp=, ProtectHome=, PrivateDevices= and ProcSubset=, since the tests, their Python and their box live in what
these hide.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

STATE = "/var/lib/edge"
_CLONE_NEWNS, _CLONE_NEWUSER = 0x0002_0000, 0x1000_0000
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def _called(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _mount(source: str, target: Path, kind: str, flags: int) -> None:
    told = (source.encode(), str(target).encode(), kind.encode(), ctypes.c_ulong(flags), None)
    _called(_libc.mount(*told), f"mount {source} on {target}")


def _own_namespaces() -> None:
    user, group = os.getuid(), os.getgid()
    _called(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount("none", Path("/"), "", _PRIVATE | _RECURSIVE)


def see(unit: dict[str, list[str]], data: Path) -> None:
    """Change what this process sees, with `data` in the place of the box's folder."""
    assert unit["PrivateUsers"] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]
    _own_namespaces()
    if "StateDirectory" in unit:
        assert f"/var/lib/{unit['StateDirectory'][0]}" == STATE
        _mount(str(data), data, "", _BIND)
    if "ReadWritePaths" in unit:
        assert unit["ReadWritePaths"] == [STATE]
        _mount(str(data), data, "", _BIND)
        for path in _there(unit["ReadOnlyPaths"], data):
            _mount(str(path), path, "", _BIND)
            _mount("none", path, "", _REMOUNT | _BIND | _READ_ONLY)
        for path in _there(unit["InaccessiblePaths"], data):
            _mount("tmpfs", path, "tmpfs", _READ_ONLY)
    for place in unit.get("TemporaryFileSystem", []):
        assert place == f"{STATE}:ro"
        _empty_but_for(data, [path.removeprefix("-") for path in unit["BindReadOnlyPaths"][0].split()])
    _mount("none", Path("/"), "", _REMOUNT | _BIND | _READ_ONLY)


def _there(said: list[str], data: Path) -> list[Path]:
    """Paths of a directive, each with a `-` before it, that are there."""
    places = [data / Path(path.removeprefix("-")).relative_to(STATE) for path in said[0].split()]
    return [place for place in places if place.exists()]


def _empty_but_for(data: Path, kept: list[str]) -> None:
    """An empty folder in the place of `data`, with these of it, none of which can be written."""
    opened = {path: os.open(data / Path(path).relative_to(STATE), os.O_PATH) for path in kept}
    _mount("tmpfs", data, "tmpfs", 0)
    for path, fd in opened.items():
        place = data / Path(path).relative_to(STATE)
        source = f"/proc/self/fd/{fd}"
        place.mkdir() if Path(source).is_dir() else place.touch()
        _mount(source, place, "", _BIND)
        _mount("none", place, "", _REMOUNT | _BIND | _READ_ONLY)
        os.close(fd)
    _mount("none", data, "", _REMOUNT | _BIND | _READ_ONLY)
