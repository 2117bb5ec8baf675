"""The queue of sealed segments on the box, and what of it was set aside. Read-only on the segments.

Owned by `edge-sync`; `edge sync status` reads it too. A segment leaves the queue by a receipt alone
(`edge.sync.centre.take_receipt`). One that the centre will never take stays where it is, with its reason in one small
file, until a person has looked (`edge sync retry`): it must not hold up the others, and nobody may forget it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from edge.core.codec import decode, encode
from edge.core.errors import SegmentRejected, StorageFailed
from edge.core.records import record
from edge.segments.manifest import URGENT
from edge.segments.sealing import manifest_of, number_of, sealed_paths
from edge.store.whole_file import write_whole
from edge.sync.priority import Waiting

ASIDE_FILE: Final = "aside"
_VERSION: Final = 1


@record
class Queued:
    """One segment that waits: its place in the log, for the order, and what it weighs; nothing of its content."""

    path: Path
    log_id: bytes
    number: int
    first_seq: int
    last_seq: int
    priority: int
    wall_max_ns: int
    size_bytes: int
    #: Of the large values that it names; the centre may have some of them.
    values_bytes: int

    @property
    def urgent(self) -> bool:
        """Whether it goes before all others."""
        return self.priority == URGENT

    @property
    def waiting(self) -> Waiting:
        """As far as its order goes."""
        return Waiting(self.number, self.priority, self.wall_max_ns, self.size_bytes)


class Queue:
    """The folder of sealed segments, looked at again where it changed; a backlog of a year is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen_ns = -1
        self.segments: dict[int, Queued] = {}
        #: Files whose beginning cannot be read: number and why.
        self.unreadable: dict[int, str] = {}

    def look(self) -> bool:
        """Whether something came or went since the last look. Raises StorageFailed."""
        try:
            changed_ns = os.stat(self._folder).st_mtime_ns
        except FileNotFoundError:
            changed_ns = 0
        except OSError as error:
            raise StorageFailed(f"{self._folder} cannot be read: {error.strerror}.") from error
        if changed_ns == self._seen_ns:
            return False
        paths = {number_of(path): path for path in sealed_paths(self._folder)}
        for gone in self.segments.keys() - paths.keys():
            del self.segments[gone]
        self.unreadable = {number: why for number, why in self.unreadable.items() if number in paths}
        for number in paths.keys() - self.segments.keys():
            try:
                self.segments[number] = _queued(paths[number])
                self.unreadable.pop(number, None)
            except (SegmentRejected, StorageFailed) as error:
                self.unreadable[number] = str(error)
        self._seen_ns = changed_ns
        return True

    @property
    def newest(self) -> Queued | None:
        """The segment with the highest number."""
        return self.segments[max(self.segments)] if self.segments else None


def _queued(path: Path) -> Queued:
    said = manifest_of(path)
    size_bytes = path.stat().st_size
    return Queued(
        path,
        said.log_id,
        said.number,
        said.first_seq,
        said.last_seq,
        said.priority,
        said.wall_max_ns,
        size_bytes,
        sum(value_bytes for _, value_bytes in said.blobs),
    )


@record
class SetAside:
    """A segment that is not sent any more, and why. `stops`: the log goes no further before a person has looked."""

    number: int
    reason: str
    wall_ns: int
    stops: bool = False


class Aside:
    """What was set aside, in one small file; written only when that changes."""

    def __init__(self, folder: Path) -> None:
        """`folder` is sync's own. Raises StorageFailed."""
        self._path = folder / ASIDE_FILE
        self._noted = {each.number: each for each in _read(self._path)}

    def __contains__(self, number: int) -> bool:
        return number in self._noted

    def all(self) -> list[SetAside]:
        """By number."""
        return [self._noted[number] for number in sorted(self._noted)]

    @property
    def stop(self) -> SetAside | None:
        """What stops the whole log, None where nothing does."""
        return next((each for each in self.all() if each.stops), None)

    def add(self, made: SetAside) -> None:
        """Durable when this returns. Raises StorageFailed."""
        if self._noted.get(made.number) != made:
            self._noted[made.number] = made
            self._write()

    def clear(self) -> int:
        """Forget all: how many there were. Raises StorageFailed."""
        count = len(self._noted)
        if count:
            self._noted = {}
            self._write()
        return count

    def drop_up_to(self, through: int, queue: Queue) -> None:
        """Forget those that left the queue: the centre has them after all."""
        gone = [number for number in self._noted if number not in queue.segments | queue.unreadable]
        if through and gone:
            for number in gone:
                del self._noted[number]
            self._write()

    def _write(self) -> None:
        said = [[each.number, each.reason, each.wall_ns, each.stops] for each in self.all()]
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        write_whole(self._path, encode([_VERSION, said]))


def _read(path: Path) -> list[SetAside]:
    try:
        version, said = decode(path.read_bytes())
        if version != _VERSION:
            raise ValueError("it is of another release")
        return [SetAside(int(number), str(why), int(at), bool(stops)) for number, why, at, stops in said]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise StorageFailed(
            f"{path} cannot be read: {error}.", mend="Remove it: what was set aside is then tried once more."
        ) from error
