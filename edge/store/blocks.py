"""The cache as the runtime sees it: folders, files, a budget. No Arrow in here.

Blocks are written and mapped by workers through `edge.store.cache`; the runtime knows their names and sizes from the
outcomes, keeps them under the budget, and drops an execution's blocks when it ends. The cache is never
the record: any block may vanish at any moment and is made again (`edge.runtime.running.rebuild`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.core.errors import CacheMiss, Misconfigured, StorageFailed
from edge.core.limits import CACHE_BUDGET_BYTES
from edge.core.values import BlockRef, TableRef

_FOLDER_DIGITS: Final = 32
_FOLDER_NAME: Final = re.compile(rf"[0-9a-f]{{{_FOLDER_DIGITS}}}")
#: Says that a folder is a cache: nothing is removed from one without it.
MARKER: Final = ".noetl-edge-cache"
#: The workload key under which a request's Arrow payload is found.
REQUEST_TABLE: Final = "table"


def block_key(execution: int, step: str, visit: int) -> str:
    """File name of a step's output: execution and step, and the visit where a step is run again."""
    return f"{execution:x}-{step}-{visit}.arrow"


def value_key(execution: int, step: str, visit: int) -> str:
    """As `block_key`, for a large plain value."""
    return f"{execution:x}-{step}-{visit}.cbor"


def request_key(execution: int) -> str:
    """File name of the table that came with a request. No step can be named so: names have no dot."""
    return f"{execution:x}-.request.arrow"


@dataclass(frozen=True, slots=True)
class CacheStat:
    """What `edge cache stat` shows."""

    folder: str
    budget_bytes: int
    used_bytes: int
    blocks: int
    evicted: int
    missed: int


class Blocks:
    """Accounting of all blocks in one cache folder."""

    def __init__(self, root: Path, budget_bytes: int = CACHE_BUDGET_BYTES) -> None:
        """Takes over the folder and removes what an earlier runtime left in it: all of it is rebuilt where needed.

        Only a folder that is absent, empty, or marked as a cache of ours is taken, and only what a cache puts there
        is ever removed. Raises Misconfigured, StorageFailed.
        """
        self.root = root
        self._root_text = str(root)
        self.budget_bytes = budget_bytes
        self.used_bytes = self.evicted = self.missed = 0
        self._blocks: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._made: set[bytes] = set()
        self._of_execution: dict[int, list[tuple[str, str]]] = {}
        self._favoured: int | None = None
        try:
            self._take_over()
        except OSError as error:
            raise StorageFailed(f"The cache folder {root} cannot be made: {error.strerror}.") from error

    def _take_over(self) -> None:
        self.root.mkdir(parents=True, mode=0o700, exist_ok=True)
        there = set(os.listdir(self.root))
        if there and MARKER not in there:
            raise Misconfigured(
                f"The folder {self.root} is not empty, and it is no cache of this software.",
                mend="Name an absent or empty folder as `cache` in edge.toml, or leave it out.",
            )
        self._mark()
        _empty(self.root)

    def _mark(self) -> None:
        (self.root / MARKER).touch(mode=0o600)

    def folder_name(self, digest: bytes) -> str:
        """Name of a playbook's folder below the root."""
        return digest.hex()[:_FOLDER_DIGITS]

    def folder(self, digest: bytes) -> Path:
        """A playbook's folder, made if it was not yet or may be gone. Raises StorageFailed."""
        path = self.root / self.folder_name(digest)
        if digest not in self._made:
            self._make(path)
            self._made.add(digest)
        return path

    def require_folder(self, digest: bytes) -> None:
        """See to it that a playbook's folder exists; costs nothing when it is known to. Raises StorageFailed."""
        if digest not in self._made:
            self.folder(digest)

    def _make(self, path: Path) -> None:
        try:
            try:
                path.mkdir(mode=0o700, exist_ok=True)
            except FileNotFoundError:  # somebody removed the whole cache
                path.mkdir(parents=True, mode=0o700, exist_ok=True)
                self._mark()
        except OSError as error:
            raise StorageFailed(
                f"The cache folder {path} cannot be made: {error.strerror}.",
                mend=f"See what stands in its place, or give {self.root} back to the user who runs the box.",
                code="cache_unusable",
            ) from error

    def holds(self, digest: bytes, key: str) -> bool:
        """Whether a block should be there, by the books; a worker that misses it makes us look (`lost`)."""
        return (self.folder_name(digest), key) in self._blocks

    def lost(self, digest: bytes, keys: Iterable[str]) -> list[str]:
        """Those of these blocks that are gone; where all are there, one is damaged, and all count as gone.

        They are struck off the books, and removed.
        """
        asked = list(keys)
        gone = [key for key in asked if not os.path.exists(self._path(self.folder_name(digest), key))]
        for key in gone or asked:
            self._remove((self.folder_name(digest), key))
        return gone or asked

    def _path(self, folder_name: str, key: str) -> str:
        return f"{self._root_text}/{folder_name}/{key}"

    def note_miss(self) -> None:
        """Something was not there: count it, and trust no folder to exist."""
        self.missed += 1
        self._made.clear()

    def put(self, digest: bytes, execution: int, key: str, data: bytes) -> TableRef:
        """Write a table's bytes as they came from outside; a reference that workers must validate."""
        self.require_folder(digest)
        path = self._path(self.folder_name(digest), key)
        try:
            try:
                _write(path, data)
            except FileNotFoundError:
                self._made.clear()
                self.require_folder(digest)
                _write(path, data)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise StorageFailed(f"The cache has no room: {error.strerror}.") from error
        self.note(digest, execution, key, len(data))
        return TableRef(key, hashlib.sha256(data).digest(), len(data), None, None)

    def restore(self, digest: bytes, execution: int, ref: BlockRef, data: bytes) -> None:
        """Write a block again whose bytes the log holds."""
        if hashlib.sha256(data).digest() != ref.digest:
            raise CacheMiss(f"The recorded bytes of {ref.key} are not those of its digest.")
        self.put(digest, execution, ref.key, data)

    def read(self, digest: bytes, ref: BlockRef) -> bytes:
        """A block's bytes, checked. Raises CacheMiss."""
        try:
            data = (self.root / self.folder_name(digest) / ref.key).read_bytes()
        except OSError as error:
            raise CacheMiss(f"Block {ref.key} is not in the cache: {error.strerror}.") from error
        if hashlib.sha256(data).digest() != ref.digest:
            raise CacheMiss(f"Block {ref.key} does not hold what was written.")
        return data

    def note(self, digest: bytes, execution: int, key: str, size_bytes: int) -> None:
        """A block was written; older ones are evicted where the budget asks for it."""
        name = (self.folder_name(digest), key)
        self.used_bytes += size_bytes - self._blocks.pop(name, 0)
        self._blocks[name] = size_bytes
        names = self._of_execution.setdefault(execution, [])
        if name not in names:
            names.append(name)
        if self.used_bytes > self.budget_bytes:
            self._evict(name)

    def _evict(self, newest: tuple[str, str]) -> None:
        favoured = self._of_execution.get(self._favoured, []) if self._favoured is not None else []
        for name in [name for name in self._blocks if name != newest and name not in favoured]:
            if self.used_bytes <= self.budget_bytes:
                return
            self._remove(name)
            self.evicted += 1

    def favour(self, execution: int) -> bool:
        """Keep this execution's blocks from eviction until it ends; False while another has the favour.

        Where executions need more together than the budget holds, each would evict what the next one is about to
        read, and none would ever end. One at a time gets through.
        """
        if self._favoured is None:
            self._favoured = execution
        return self._favoured == execution

    def drop(self, execution: int) -> None:
        """The execution ended: its blocks go."""
        if self._favoured == execution:
            self._favoured = None
        for name in self._of_execution.pop(execution, ()):
            self._remove(name)

    def _remove(self, name: tuple[str, str]) -> None:
        size_bytes = self._blocks.pop(name, None)
        if size_bytes is None:
            return
        self.used_bytes -= size_bytes
        # Somebody emptied it, or its drive fails: a block off the books is never read, so nothing is lost by that.
        with contextlib.suppress(OSError):
            os.unlink(self._path(*name))

    def stat(self) -> CacheStat:
        """Figures for the command line."""
        return CacheStat(
            str(self.root), self.budget_bytes, self.used_bytes, len(self._blocks), self.evicted, self.missed
        )

    def close(self) -> None:
        """Remove what is ours, and the folder where nothing else is in it."""
        discard(self.root)


def discard(root: Path) -> None:
    """Remove a cache that nobody works with any more; of a folder without its mark, nothing."""
    with contextlib.suppress(OSError):
        if (root / MARKER).exists():
            _empty(root)
            (root / MARKER).unlink()
            root.rmdir()


def _empty(root: Path) -> None:
    """Remove the playbooks' folders, and nothing else that may stand there."""
    ours = [name for name in os.listdir(root) if _FOLDER_NAME.fullmatch(name)]
    if ours:
        # Half a megabyte with the compressors it knows, and after a clean stop there is nothing to remove.
        from shutil import rmtree

        for name in ours:
            rmtree(root / name, ignore_errors=True)


def _write(path: str, data: bytes) -> None:
    """Plain system calls: a file object costs three times as much for the few KB a block usually has."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
