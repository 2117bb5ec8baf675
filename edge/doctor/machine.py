"""Checks of the machine: clock, power, memory, kernel, serial devices, versions.

Asked by `edge doctor`. Each takes what it judges as arguments, or the folder in which `proc`, `sys` and `dev` are, so
that any machine can be judged. It starts one program, the Raspberry Pi's own, where there is one; it changes nothing.
"""

from __future__ import annotations

import grp
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from edge import VERSION
from edge.core.clock import TIMESYNC_MARK, WALL_IMPLAUSIBLE, WALL_SYNCHRONISED, Reading, SystemClock
from edge.core.limits import BOX_MEMORY_MB, STEP_MEMORY_MB
from edge.core.settings import Settings
from edge.doctor.findings import Finding, fail, ok, warn
from edge.worker import landlock, seccomp

#: What the processes of a box import, by the names of the packages.
LIBRARIES: Final = ("lmdb", "pyarrow", "cbor2", "mqtt5", "paho-mqtt", "uvloop", "urllib3", "cryptography")
_ROOT: Final = Path("/")
_UNDER_VOLTAGE: Final = (
    "Use the power supply made for this board, a short thick cable, and fewer USB devices."
)
_NOW: Final = 1 << 0
_SINCE_START: Final = 1 << 16
_PROGRAM_S: Final = 5.0
#: Clocks are set by a little all the time.
_BEHIND_S: Final = 60
#: The first ABI that also holds device control calls; before it seccomp does that.
_LANDLOCK_WHOLE: Final = 5


def clock(
    first: Reading | None = None, second: Reading | None = None, log_ended: Reading | None = None
) -> Finding:
    """Whether the clocks can be gone by: two readings, one after the other, and the one the log ends with."""
    source = SystemClock()
    first = first or source.read()
    second = second or source.read()
    subject = "clock"
    if second.mono_ns < first.mono_ns or first.mono_ns <= 0:
        return fail(
            subject,
            "the time since boot runs backwards: timers cannot be kept.",
            "Boot another kernel; a virtual machine may need another clock source.",
        )
    set_it = "Let it be set over the network (`timedatectl set-ntp true`), or give the board a battery-backed clock."
    if second.wall_trust == WALL_IMPLAUSIBLE:
        return warn(
            subject, f"the wall clock was never set: it says {second.wall_ns // 10**9} s since 1970.", set_it
        )
    behind_s = (log_ended.wall_ns - second.wall_ns) // 10**9 if log_ended is not None else 0
    if behind_s > _BEHIND_S:
        return warn(
            subject,
            f"the wall clock is {behind_s} s behind the end of the log: it was set back, or the board forgot it.",
            set_it,
        )
    if second.wall_trust != WALL_SYNCHRONISED:
        return warn(
            subject,
            f"nobody says that the wall clock is right ({TIMESYNC_MARK} is not there): waits that a power cut "
            "interrupts go by their `after_power_loss`.",
            set_it,
        )
    return ok(subject, "the wall clock is synchronised, and the time since boot goes on.")


def power(root: Path = _ROOT) -> Finding:
    """Whether the board has enough voltage; known of a Raspberry Pi only."""
    subject = "power"
    flags = _throttled(root)
    if flags is None:
        return ok(subject, "not known: this machine does not say whether its voltage is enough.")
    if flags & _NOW:
        return fail(subject, "the voltage is too low now: cards are damaged by that.", _UNDER_VOLTAGE)
    if flags & _SINCE_START:
        return warn(subject, "the voltage was too low since the last start.", _UNDER_VOLTAGE)
    return ok(subject, "the voltage is enough.")


def _throttled(root: Path) -> int | None:
    """The firmware's bits (bit 0: too low now, bit 16: was too low), from whichever place there is."""
    text = _text(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    if not text:
        for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
            if _text(chip / "name") == "rpi_volt" and (alarm := _text(chip / "in0_lcrit_alarm")):
                return _NOW if alarm != "0" else 0
        text = _vcgencmd(root / "usr/bin/vcgencmd")
    try:
        return int(text.rpartition("=")[2], 16)
    except ValueError:
        return None


def _vcgencmd(program: Path) -> str:
    if not program.exists():
        return ""
    try:
        done = subprocess.run(
            [str(program), "get_throttled"], capture_output=True, text=True, timeout=_PROGRAM_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def memory(settings: Settings, *, serving: bool, root: Path = _ROOT) -> Finding:
    """Whether what is available holds a box, or what a box that is `serving` may still ask for."""
    subject = "memory"
    lines = (line.partition(":") for line in _text(root / "proc/meminfo").splitlines())
    available_kib = next((rest.split()[0] for name, _, rest in lines if name == "MemAvailable"), "")
    if not available_kib.isdigit():
        return ok(subject, "not known: the kernel does not say what is available.")
    available_mb = int(available_kib) // 1024
    base_mb = 0 if serving else BOX_MEMORY_MB
    wanted_mb = base_mb + settings.workers * STEP_MEMORY_MB + settings.cache_mb
    says = f"{available_mb} MB are available; a box may {'still ' if serving else ''}want {wanted_mb} MB."
    mend = "End other programs, or set fewer `workers` and a smaller `cache_mb` in edge.toml."
    if available_mb < base_mb:
        return fail(subject, says, mend)
    return warn(subject, says, mend) if available_mb < wanted_mb else ok(subject, says)


def kernel(abi: int | None = None, root: Path = _ROOT) -> Finding:
    """Whether this kernel can hold a block in its sandbox."""
    abi = landlock.abi() if abi is None else abi
    lacks = [] if abi else ["landlock"]
    if "\nSeccomp:" not in _text(root / "proc/self/status"):
        lacks.append("seccomp")
    if seccomp.machine() is None:
        lacks.append("a processor whose system calls are known (x86-64, aarch64)")
    if lacks:
        return fail(
            "kernel",
            f"{os.uname().release} lacks {' and '.join(lacks)}: no code of a playbook is run on it.",
            "Use Linux 5.13 or newer with landlock switched on (lsm=…,landlock) and seccomp; in a container its "
            "filter of system calls must let landlock_* pass.",
        )
    by = "landlock and seccomp" if abi >= _LANDLOCK_WHOLE else "an older landlock, with more left to seccomp"
    return ok("kernel", f"{os.uname().release} holds blocks by {by} (landlock ABI {abi}).")


def _may_use(device: Path) -> bool:
    return os.access(device, os.R_OK | os.W_OK)


def serial(root: Path = _ROOT, may_use: Callable[[Path], bool] = _may_use) -> Iterator[Finding]:
    """Each serial device that was plugged in: may this user read and write it?"""
    devices = sorted([*root.glob("dev/ttyUSB*"), *root.glob("dev/ttyACM*")])
    if not devices:
        yield ok("serial", "no serial device is plugged in.")
    for device in devices:
        if may_use(device):
            yield ok("serial", f"{device} may be read and written.")
            continue
        group = _group(device)
        yield warn(
            "serial",
            f"{device} may not be read and written by this user.",
            f"Add the user to the group {group} (`sudo usermod -aG {group} USER`) and log in again.",
        )


def _group(device: Path) -> str:
    number = device.stat().st_gid
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def versions(libraries: tuple[str, ...] = LIBRARIES) -> Finding:
    """What runs here."""
    found, missing = [f"edge {VERSION}", f"Python {sys.version.split()[0]}"], []
    for name in libraries:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return fail(
            "versions",
            f"not installed: {', '.join(missing)}.",
            "Install the package anew: pip install --force-reinstall noetl-edge.",
        )
    return ok("versions", ", ".join(found) + ".")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip(" \n\0")
    except OSError:
        return ""
