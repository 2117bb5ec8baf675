"""Checks of where the log is kept: file systems, flushes, free space, the log's own files.

Asked by `edge doctor`, beside a running box or without one. It writes one nameless file into the data folder, gone
when it is closed, to see what a flush takes; of the log it reads the newest segment only.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge.core.chain import OpenedGroup, open_group
from edge.core.errors import LogDamaged
from edge.core.limits import FLUSH_HONEST_US, FLUSH_SLOW_US, KIB, MIB
from edge.core.settings import HOLD, Settings
from edge.doctor.findings import Finding, fail, ok, warn
from edge.store import filesystem
from edge.store.mirror import another_logs, end_of
from edge.store.reserve import Reserve
from edge.store.segment_file import SegmentReader, files_bytes, segment_paths

#: As large as a full group of small events, and as often as it takes for a middle that means something.
_FLUSH_BYTES: Final = 8 * KIB
_FLUSHES: Final = 25
#: From here on somebody should look: a log grows, and so do others' files beside it.
_RESERVES_SOON: Final = 4
_INODES_MIN: Final = 1_000
_BUDGET_SOON_PERCENT: Final = 80
_MIRROR_MEND: Final = (
    "See that its drive is there and has room; the box takes it up again with its next start."
)


def file_systems(settings: Settings, table: Path = filesystem.MOUNT_TABLE) -> list[Finding]:
    """One finding for each mount that holds a part of the log."""
    found: dict[filesystem.Mount | None, Finding] = {}
    for folder in filesystem.homes(settings):
        mount = filesystem.mount_of(folder, table)
        if mount not in found:
            found[mount] = _file_system(folder, mount)
    return list(found.values())


def _file_system(folder: Path, mount: filesystem.Mount | None) -> Finding:
    subject = "file system"
    if mount is None:
        return warn(
            subject,
            f"what {folder} lies on is not known: this system does not say.",
            "Make sure that it is ext4, xfs, f2fs or btrfs on a drive of this machine.",
        )
    objection = filesystem.objection(folder, mount)
    if objection is not None:
        return fail(subject, objection.message, objection.mend)
    if mount.in_memory:
        return warn(
            subject,
            f"{folder} lies on {mount.kind}, in memory: a power cut takes all of it.",
            "That will do for a trial; for a box put it on a drive (--data).",
        )
    if mount.kind == "overlay":
        return warn(
            subject,
            f"{folder} lies on a container's own layer, which goes with the container.",
            "Give the container a volume for it.",
        )
    return ok(subject, f"{folder} lies on {mount.kind} ({mount.source}){_spared(mount)}.")


def _spared(mount: filesystem.Mount) -> str:
    """What an ext4 mounted as usual writes for nothing but a file's times: 12 KiB every 5 s in which it changed."""
    seldom = any(option.startswith("commit=") for option in mount.options)
    if mount.kind != "ext4" or seldom:
        return ""
    return "; mounted with `commit=60` a quiet box writes a third less to it"


def flush(settings: Settings, table: Path = filesystem.MOUNT_TABLE) -> Finding:
    """Whether a flush takes the time that a drive needs for one."""
    folder = settings.data
    if not folder.is_dir():
        return ok("flush", f"not tried: {folder} is not there yet.")
    mount = filesystem.mount_of(folder, table)
    if mount is not None and mount.in_memory:
        return ok("flush", f"not tried: {folder} is in memory.")
    return judge_flush(flush_us(folder))


def flush_us(folder: Path, flush_file: Callable[[int], None] = os.fdatasync) -> float:
    """The middle of what one flush of 8 KiB takes, written as the journal writes: over zeros that are there."""
    took_ns = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        fd = file.fileno()
        os.pwrite(fd, bytes(_FLUSHES * _FLUSH_BYTES), 0)
        os.fsync(fd)
        for number in range(_FLUSHES):
            os.pwrite(fd, os.urandom(_FLUSH_BYTES), number * _FLUSH_BYTES)
            started_ns = time.perf_counter_ns()
            flush_file(fd)
            took_ns.append(time.perf_counter_ns() - started_ns)
    return statistics.median(took_ns) / 1000


def judge_flush(took_us: float) -> Finding:
    """What a flush's time says of the drive."""
    subject = "flush"
    if took_us < FLUSH_HONEST_US:
        return warn(
            subject,
            f"8 KiB are flushed in {took_us:.0f} µs: a drive that quick most likely ignores flushes.",
            "Unless a battery stands behind it, a power cut takes what was acknowledged: use another drive.",
        )
    if took_us > FLUSH_SLOW_US:
        return warn(
            subject,
            f"8 KiB are flushed in {took_us / 1000:.0f} ms, and each receipt waits for that.",
            "Use a quicker drive (an SSD, a card of class A2), and see whether something else keeps it busy.",
        )
    return ok(subject, f"8 KiB are flushed in {took_us:.0f} µs, which takes a drive that does it.")


def space(settings: Settings, look: Callable[[Path], os.statvfs_result] = os.statvfs) -> list[Finding]:
    """Free space against the reserve, for each drive that holds a part of the log."""
    found: dict[int, Finding] = {}
    for folder in filesystem.homes(settings):
        place = next(path for path in (folder, *folder.parents) if path.exists())
        drive = place.stat().st_dev
        if drive not in found:
            held = Reserve(settings.data, settings.index_folder / "data.mdb", settings.reserve_mb * MIB // 2)
            held_mb = held.held_bytes // MIB if folder == settings.journal_folder else 0
            found[drive] = _space(folder, look(place), settings.reserve_mb, held_mb)
    return list(found.values())


def _space(folder: Path, drive: os.statvfs_result, reserve_mb: int, held_mb: int) -> Finding:
    subject = "free space"
    free_mb = drive.f_bavail * drive.f_frsize // MIB + held_mb
    held = f", {held_mb} of them held by the box itself" if held_mb else ""
    says = f"{free_mb} MB are free for {folder}, of which {reserve_mb} MB are the reserve{held}."
    mend = "Make room on that drive, or put the data folder on a larger one."
    if free_mb < reserve_mb:
        return fail(subject, f"{says} Requests are refused with `storage_full`.", mend)
    if free_mb < _RESERVES_SOON * reserve_mb:
        return warn(subject, says, mend)
    if drive.f_files and drive.f_favail < _INODES_MIN:
        return warn(subject, f"{drive.f_favail} more files fit on the drive of {folder}.", mend)
    return ok(subject, says)


def log(settings: Settings) -> Finding:
    """How much log there is. Raises LogDamaged where its end is damaged, Misconfigured where we may not look."""
    segments = segment_paths(settings.journal_folder)
    if not segments and (settings.index_folder / "data.mdb").exists():
        return fail(
            "log",
            f"the journal in {settings.journal_folder} is gone, and an index is there.",
            "Put the journal back, or run `edge log recover`.",
        )
    if not segments:
        return ok("log", "none yet.")
    size_mb = sum(path.stat().st_blocks * 512 for path in segments) / 1e6
    newest = newest_group(settings)
    ends = f"ends at event {newest.last_seq}" if newest is not None else "holds no event yet"
    says = f"{len(segments)} segments, {size_mb:.0f} MB, {ends}; `edge log verify` tells whether it is whole."
    return ok("log", says)


def budget(settings: Settings) -> list[Finding]:
    """Where the log may only grow so far: whether it comes near to that, and what happens then."""
    if not settings.retain_mb:
        return []
    subject = "log's size"
    homes = (settings.journal_folder, settings.index_folder, settings.blob_folder)
    size_mb = sum(map(files_bytes, homes)) // MIB
    says = f"{size_mb} MB of the {settings.retain_mb} it may take (retain_mb)"
    if not settings.centre and settings.retain_policy != HOLD:
        return [ok(subject, f"{says}; the oldest is pruned then.")]
    if size_mb * 100 < settings.retain_mb * _BUDGET_SOON_PERCENT:
        return [ok(subject, f"{says}.")]
    waits = "what the centre has not receipted" if settings.centre else "what is not old enough"
    return [
        warn(
            subject,
            f"{says}; then requests are refused with `storage_full`, since {waits} is held.",
            "See that the box reaches its centre, or raise retain_mb."
            if settings.centre
            else "Raise retain_mb, or set retain_days or retain_policy.",
        )
    ]


def mirror(settings: Settings) -> list[Finding]:
    """Whether the journal's mirror, where there is one, keeps up with it and lies where it helps most."""
    folder = settings.mirror_folder
    if folder is None:
        return []
    try:
        # In this order: a running box writes the journal first.
        newest = newest_group(settings)
        end = end_of(folder)
        same_drive = folder.stat().st_dev == settings.journal_folder.stat().st_dev
    except OSError as error:
        return [fail("mirror", f"{folder} cannot be used: {error.strerror}.", _MIRROR_MEND)]
    if newest is None:
        return [ok("mirror", f"{folder}; the log holds no event yet.")]
    if end is not None and end.log_id != newest.context.log_id:
        other = another_logs(folder)
        return [fail("mirror", other.message, other.mend)]
    if end is None or end.last_seq < newest.first_seq - 1:
        ends = "is empty" if end is None else f"ends at event {end.last_seq}"
        says = f"{folder} {ends}, the journal goes to {newest.last_seq}: it is not written."
        return [fail("mirror", says, _MIRROR_MEND)]
    if same_drive and settings.journal_mirror != "on":
        says = f"{folder} is on the journal's own drive."
        return [warn("mirror", says, "Is the drive mounted that it was meant for?")]
    return [ok("mirror", f"{folder} goes to event {end.last_seq}.")]


def newest_group(settings: Settings) -> OpenedGroup | None:
    """The last events written, None where there are none. Raises LogDamaged, Misconfigured."""
    for path in reversed(segment_paths(settings.journal_folder)):
        reader, last = SegmentReader(path), None
        for frame in reader.frames():
            last = frame
        beyond = reader.sound_frame_after()
        if beyond is not None:
            raise LogDamaged(
                f"{path.name} is damaged before event {beyond.first_seq}.",
                mend="Stop the box and run `edge log recover`: it takes what is damaged from the other home.",
            )
        if last is not None:
            return open_group(last.first_seq, last.data)
    return None
