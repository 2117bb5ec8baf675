"""Where a folder really lies: which file system holds it, and whether that can keep a log.

Owns the one list of what the log is not kept on, and why. Asked by the runtime before it writes anything
(`require_sound`, design §4) and by `edge doctor`. It reads the kernel's mount table, and never writes, mounts or
tries out anything; where the kernel tells nothing, nothing is objected to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edge.core.errors import Misconfigured
from edge.core.records import record
from edge.core.settings import Settings

MOUNT_TABLE: Final = Path("/proc/self/mountinfo")

#: Another machine's, by the beginning of the name: LMDB's locks and shared pages do not hold there.
_NETWORK: Final = (
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "gfs2",
    "gluster",
    "lustre",
    "ncp",
    "nfs",
    "smb",
)
#: Behind a program, where a flush may end in somebody's memory.
_PROGRAMS: Final = frozenset({"fuse", "fuseblk", "virtiofs"})
#: Neither a journal of their own nor the rights of users: a cut may take whole folders with it.
_PLAIN: Final = frozenset({"exfat", "hfs", "hfsplus", "msdos", "ntfs", "ntfs3", "vfat"})
#: Gone with the power. For trials and tests it is all right, so it is said and not refused.
_MEMORY: Final = frozenset({"ramfs", "tmpfs"})
#: Options that let a flush return before the drive has written.
_UNFLUSHED: Final = ("nobarrier", "barrier=0", "fsync_mode=nobarrier", "volatile")
_MEND: Final = (
    "Put it on a drive of this machine with ext4, xfs, f2fs or btrfs (--data; for `edge run`: TMPDIR)."
)
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


@record
class Mount:
    """One row of the mount table: where, what kind, its own options and its file system's, and what is mounted."""

    folder: str
    kind: str
    options: tuple[str, ...]
    source: str

    @property
    def in_memory(self) -> bool:
        """True where all of it is gone with the power."""
        return self.kind in _MEMORY


@record
class Objection:
    """Why a folder cannot hold the log, and what to do."""

    message: str
    mend: str


def mount_id(folder: Path) -> str | None:
    """The kernel's number of the mount a folder lies on, None where it does not say.

    A folder that does not exist yet counts as its nearest ancestor that does. The number and not the longest path in
    the table decides: mounts hide one another, and a bind mount has two names.
    """
    while True:
        try:
            fd = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            break
        except (FileNotFoundError, NotADirectoryError):
            if folder == folder.parent:
                return None
            folder = folder.parent
        except OSError:
            return None
    try:
        text = Path(f"/proc/self/fdinfo/{fd}").read_text("ascii")
    except OSError:
        return None
    finally:
        os.close(fd)
    return next((line.split()[1] for line in text.splitlines() if line.startswith("mnt_id:")), None)


def mount_of(folder: Path, table: Path = MOUNT_TABLE) -> Mount | None:
    """The mount a folder lies on; None where this system does not say (proc(5), `mountinfo`)."""
    number = mount_id(folder)
    try:
        rows = table.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    for row in rows:
        own, _, of_file_system = row.partition(" - ")
        fields, more = own.split(), of_file_system.split()
        if len(fields) >= 6 and len(more) >= 2 and fields[0] == number:
            options = (*fields[5].split(","), *(more[2].split(",") if len(more) > 2 else ()))
            return Mount(_plain(fields[4]), more[0], tuple(dict.fromkeys(options)), _plain(more[1]))
    return None


def objection(folder: Path, mount: Mount) -> Objection | None:
    """Why the log may not lie there; None where it may."""
    kind = mount.kind
    where = f"{folder} lies on {mount.folder}, which is {kind}"
    if kind.startswith(_NETWORK):
        return Objection(f"{where}, another machine's drive: what it flushes may be lost.", _MEND)
    if kind in _PROGRAMS or kind.startswith("fuse."):
        return Objection(f"{where}, served by a program: what it flushes may be lost.", _MEND)
    if kind in _PLAIN:
        return Objection(f"{where}: it has no journal, and a power cut may take folders with it.", _MEND)
    if "ro" in mount.options:
        return Objection(
            f"{where} and mounted read only (`ro`).",
            "The kernel mounts a drive so after errors: see `dmesg`, check it (fsck), mount it for writing.",
        )
    lying = next((option for option in _UNFLUSHED if option in mount.options), None)
    if lying is not None:
        return Objection(
            f"{where}, mounted with `{lying}`: a flush returns before the drive has written.",
            f"Take `{lying}` out of the mount's options (/etc/fstab) and mount it again.",
        )
    return None


def homes(settings: Settings) -> Iterable[Path]:
    """Every folder that holds truth; each may be a drive of its own."""
    mirror = () if settings.mirror_folder is None else (settings.mirror_folder,)
    return (settings.data, settings.journal_folder, settings.index_folder, settings.blob_folder, *mirror)


def require_sound(settings: Settings, table: Path = MOUNT_TABLE) -> None:
    """Raises Misconfigured, with the mend, where a home of the log lies where it cannot be kept."""
    for folder in homes(settings):
        mount = mount_of(folder, table)
        found = objection(folder, mount) if mount is not None else None
        if found is not None:
            raise Misconfigured(found.message, mend=found.mend, code="file_system_unsound")


def _plain(text: str) -> str:
    """A field of the mount table with its spaces back, which the kernel writes in octal."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
