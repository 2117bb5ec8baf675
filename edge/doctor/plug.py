"""The plug test: does the drive still have, after its power was cut, what it said it had flushed?

Two halves, run by `edge doctor --drive-test` and `--drive-check`. The first writes small numbered records, flushes
each as the journal does, and only then tells its number to a second machine, which notes it; somebody pulls the plug.
The second half is given the last number that machine has, and looks for every record up to it. What a machine
remembers of its own drive proves nothing; so the number comes from outside. It must never touch the log.
"""

from __future__ import annotations

import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from edge.core.errors import Misconfigured, StorageFailed, Unavailable
from edge.core.limits import KIB, MIB
from edge.core.records import record
from edge.doctor.findings import Finding, fail, ok, warn

FILE_NAME: Final = "drive-test.bin"
#: Small ones share blocks: a drive that tears a block while it writes one record takes older ones along.
RECORD_BYTES: Final = 512
FILE_BYTES: Final = 16 * MIB
RECORDS: Final = FILE_BYTES // RECORD_BYTES
_MAGIC: Final = b"NEpt"
_HEAD: Final = struct.Struct(">4s8sQ")
_SUM_BYTES: Final = 4
_SEND_S: Final = 10.0
_SUBJECT: Final = "drive"


def record_of(run: bytes, number: int) -> bytes:
    """Record `number` (from 1) of the run with that id (8 bytes): head, a filling that depends on both, CRC-32."""
    head = _HEAD.pack(_MAGIC, run, number)
    filling = (number * 0x9E3779B97F4A7C15 & (2**64 - 1)).to_bytes(8, "big")
    body = head + (filling * (RECORD_BYTES // 8 + 1))[: RECORD_BYTES - len(head) - _SUM_BYTES]
    return body + zlib.crc32(body).to_bytes(_SUM_BYTES, "big")


def number_in(data: bytes) -> tuple[bytes, int] | None:
    """Run and number of a record that is whole; None for anything else."""
    if len(data) != RECORD_BYTES or zlib.crc32(data[:-_SUM_BYTES]) != int.from_bytes(
        data[-_SUM_BYTES:], "big"
    ):
        return None
    magic, run, number = _HEAD.unpack_from(data)
    return (run, number) if magic == _MAGIC and number else None


def write_until_cut(folder: Path, tell: Callable[[int], None]) -> Iterator[int]:
    """Write, flush, tell; the number of each record told. Goes on for ever. Raises StorageFailed, Unavailable.

    `tell` gets the number of a record that the drive says it has, and raises Unavailable where nobody notes it.
    """
    path = folder / FILE_NAME
    try:
        fd = _room(path)
    except OSError as error:
        raise StorageFailed(
            f"{path} cannot be made: {error.strerror}.", mend="Make room for 16 MB."
        ) from error
    try:
        run, number = os.urandom(8), 0
        while True:
            number += 1
            offset = (number - 1) % RECORDS * RECORD_BYTES
            try:
                os.pwrite(fd, record_of(run, number), offset)
                os.fdatasync(fd)
            except OSError as error:
                raise StorageFailed(f"{path} cannot be flushed: {error.strerror}.") from error
            tell(number)
            yield number
    finally:
        os.close(fd)


def _room(path: Path) -> int:
    """The file, filled with zeros that are on the drive, so that no flush changes its size: as in the journal."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        zeros = bytes(64 * KIB)
        for _ in range(FILE_BYTES // len(zeros)):
            if os.write(fd, zeros) != len(zeros):
                raise StorageFailed(f"There is no room for {path}.", mend="Make room for 16 MB.")
        os.fsync(fd)
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    except (OSError, StorageFailed):
        os.close(fd)
        path.unlink(missing_ok=True)
        raise
    return fd


class Teller:
    """The line to the machine that notes: one decimal number a line over TCP, so `nc -l PORT` can be at its end."""

    def __init__(self, host: str, port: int) -> None:
        """Connect. Raises Unavailable."""
        try:
            self._socket = socket.create_connection((host, port), timeout=_SEND_S)
        except OSError as error:
            raise Unavailable(
                f"Nobody notes at {host}:{port}: {error.strerror or error}.",
                mend=f"On the other machine run `nc -l {port} | tee acks` first.",
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def tell(self, number: int) -> None:
        """Say one number. Raises Unavailable where it cannot be said any more."""
        try:
            self._socket.sendall(b"%d\n" % number)
        except OSError as error:
            raise Unavailable(
                f"The machine that notes is gone: {error.strerror or error}. It may lack the last numbers.",
                mend="Begin again: `--drive-check` needs the last number it noted before the cut.",
            ) from error

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@record
class Found:
    """What is on the drive of a run: its highest number, and which of those up to the told one are not."""

    highest: int
    missing: tuple[int, ...]


def look(folder: Path, told: int) -> Found:
    """Read every record and compare with the last number that was told. Raises Misconfigured, StorageFailed."""
    path = folder / FILE_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise Misconfigured(
            f"There is no {path}: no plug test was run on this folder, or its drive lost even that.",
            mend="Run `--drive-test` first; if you did, use another drive.",
        ) from error
    except OSError as error:
        raise StorageFailed(f"{path} cannot be read: {error.strerror}.") from error
    places = [number_in(data[at : at + RECORD_BYTES]) for at in range(0, len(data), RECORD_BYTES)]
    newest = _newest(places)
    if newest is None and not told:
        raise Misconfigured(f"{path} holds no record, and none was told.", mend="Run `--drive-test` again.")
    run, highest = newest if newest is not None else (b"", 0)
    there = {found[1] for found in places if found is not None and found[0] == run}
    # The file goes round: where the oldest was a newer one may stand, or have been under way when the power went.
    first = max(1, max(told, highest) + 2 - RECORDS)
    missing = tuple(number for number in range(first, told + 1) if number not in there)
    return Found(highest, missing)


def _newest(places: list[tuple[bytes, int] | None]) -> tuple[bytes, int] | None:
    """The run that most places are of, and its highest number: a file is made anew for each run."""
    runs: dict[bytes, list[int]] = {}
    for found in places:
        if found is not None:
            runs.setdefault(found[0], []).append(found[1])
    if not runs:
        return None
    run = max(runs, key=lambda each: len(runs[each]))
    return run, max(runs[run])


def judge(found: Found, told: int) -> Finding:
    """What that says of the drive."""
    if not found.missing:
        beyond = found.highest - told
        return ok(
            _SUBJECT, f"all {told} records that were told are there, and {beyond} more: it keeps its word."
        )
    first, count = found.missing[0], len(found.missing)
    if found.highest < first:
        return fail(
            _SUBJECT,
            f"it lost the last {count} of {told} records that it said it had flushed, from {first} on.",
            "It ignores flushes: what the box acknowledges may be lost at a power cut. Use another drive.",
        )
    return fail(
        _SUBJECT,
        f"{count} of {told} records that it said it had flushed are gone, the first is {first}, "
        f"though {found.highest} is there.",
        "It tears blocks that were whole: use another drive, or set `journal_mirror` to a place on another one.",
    )


def unjudged(written: int) -> Finding:
    """The test was stopped by hand."""
    return warn(
        _SUBJECT,
        f"stopped after {written} records without a cut: nothing is shown by that.",
        "Run it again and pull the plug while it runs.",
    )
