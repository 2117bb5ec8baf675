"""Whether this machine can keep what a step was granted, asked before the worker locks itself in.

Called once by a freshly forked worker that has grants. It only looks; `edge.worker.sandbox` opens. The box's own
folders (log, index, keychain, run socket, the cache of others) can never be granted, nor can a path that leads to
them: a block that reads the journal reads everybody's requests, one that writes it writes history.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from edge.core.access import Access

#: Character devices by their class in /sys: what sensors, serial ports and controllers are. Drives, memory, tunnels,
#: virtual machines and raw access to disks (sg, nvme, mtd, fuse) are other classes.
_CLASSES: Final = frozenset(
    {
        "tty",
        "i2c-dev",
        "spidev",
        "gpio",
        "hidraw",
        "video4linux",
        "input",
        "iio",
        "rtc",
        "pps",
        "lirc",
        "sound",
    }
)
#: Terminals made by programs (Documentation/admin-guide/devices.txt); they stand nowhere in /sys.
_PSEUDO_TERMINALS: Final = range(136, 144)


def refusal(access: Access, protected: Iterable[Path]) -> dict[str, Any] | None:
    """The problem of the first grant that cannot be kept here, None where all can."""
    own = _identities(protected)
    for path, _ in access.files:
        said = _file_refusal(path, own)
        if said is not None:
            return _problem(f"The file grant {path}: {said[0]}", said[1])
    for path in access.devices:
        said = _device_refusal(path)
        if said is not None:
            return _problem(f"The device grant {path}: {said[0]}", said[1])
    return None


def _problem(message: str, mend: str) -> dict[str, Any]:
    return {"code": "access_refused", "message": message, "mend": mend}


def _file_refusal(path: str, own: tuple[frozenset[tuple[int, int]], frozenset[tuple[int, int]]]) -> Any:
    try:
        real = os.path.realpath(path, strict=True)
        kind = os.stat(real).st_mode
        line = _line(real)
    except OSError as error:
        return f"it cannot be used: {error.strerror}.", "Create it before the step runs, or correct the path."
    inside, above = own
    if not inside.isdisjoint(line) or line[0] in above:
        return (
            "the box's own folders cannot be granted, nor a folder that holds them.",
            "Grant a folder of its own, outside the data and cache folders.",
        )
    if real == "/proc" or (real.startswith("/proc/") and not stat.S_ISREG(kind)) or _of_a_process(real):
        return "processes are not files.", "Grant single files such as /proc/loadavg."
    if real.startswith("/dev/") or not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        return "it is no ordinary file or folder.", "Grant a device under `devices`."
    return None


def _of_a_process(real: str) -> bool:
    parts = real.split("/")
    return (
        parts[1] == "proc" and len(parts) > 2 and (parts[2].isdigit() or parts[2] in ("kcore", "kmsg", "sys"))
    )


def _device_refusal(path: str) -> tuple[str, str] | None:
    try:
        real = os.path.realpath(path, strict=True)
        found = os.stat(real)
    except OSError as error:
        return f"it cannot be used: {error.strerror}.", "Plug the device in, or correct the path."
    mend = "Serial ports, I2C, SPI, GPIO, HID, video, input, IIO, clocks and sound can be granted."
    if not stat.S_ISCHR(found.st_mode):
        return "only single character devices can be granted.", mend
    if os.major(found.st_rdev) in _PSEUDO_TERMINALS:
        return None
    try:
        kind = os.path.basename(os.readlink(f"/sys/dev/char/{_number(found.st_rdev)}/subsystem"))
    except OSError:
        kind = "unknown"
    if kind in _CLASSES:
        return None
    return f"devices of the class {kind} are not for blocks.", mend


def _number(rdev: int) -> str:
    return f"{os.major(rdev)}:{os.minor(rdev)}"


def _line(real: str) -> list[tuple[int, int]]:
    """A path and all folders above it, as device and inode: a second mount of a folder is the same folder."""
    path = Path(real)
    found = [os.stat(each) for each in (path, *path.parents)]
    return [(each.st_dev, each.st_ino) for each in found]


def _identities(
    protected: Iterable[Path],
) -> tuple[frozenset[tuple[int, int]], frozenset[tuple[int, int]]]:
    """`(the protected folders, all folders above them)`; what is not there protects nothing."""
    inside: set[tuple[int, int]] = set()
    above: set[tuple[int, int]] = set()
    for folder in protected:
        try:
            line = _line(os.path.realpath(folder, strict=True))
        except OSError:
            continue
        inside.add(line[0])
        above.update(line[1:])
    return frozenset(inside), frozenset(above)
