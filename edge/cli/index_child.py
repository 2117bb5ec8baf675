"""Reading an index that may be damaged: a corrupt LMDB map can end the process that reads it, so a child does.

Used by the commands that check or mend a log while no runtime serves it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edge.core.chain import open_group
from edge.core.errors import EdgeError, LogDamaged, Misconfigured
from edge.store.numbers import told_range
from edge.store.recovery import StoredGroup

_GROUPS_PER_MESSAGE = 256


class IndexChild:
    """The index of a data folder, seen through children. `damage` says what was wrong, once something was."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.damage = ""

    def log_id(self) -> bytes | None:
        """The log it belongs to; None where there is none to be read."""
        return next((value for value in self._ask(_tell_log_id)), None)

    def groups(self, from_seq: int = 0) -> Iterator[StoredGroup]:
        """Groups that end at or above a number, oldest first, up to the first that cannot be read."""
        for groups in self._ask(_tell_groups, from_seq):
            yield from groups

    def check(self, absent: list[tuple[int, int]]) -> str:
        """Read all of it and recompute its chain: what is wrong, or an empty text. It may lack what is `absent`."""
        seq, link = 0, b""
        named = dict(absent)
        try:
            for first_seq, epoch_key, data in self.groups():
                group = open_group(first_seq, data)
                if named.get(seq + 1) == first_seq - 1 and not group.follows(seq, link):
                    seq, link = first_seq - 1, group.previous
                if seq and not group.follows(seq, link):
                    return f"It lacks {told_range(seq + 1, first_seq - 1)}."
                link = group.check(link or group.previous, epoch_key)
                seq = group.last_seq
        except LogDamaged as error:
            return error.message
        return self.check_rows()

    def check_rows(self) -> str:
        """Read and check every row of every table: what is wrong, or an empty text."""
        for _ in self._ask(_tell_nothing):
            pass
        return self.damage

    def _ask(self, tell: Callable[..., None], *given: Any) -> Iterator[Any]:
        """What a child sends until it says that it is done, or ends."""
        if not (self._folder / "data.mdb").exists():
            return
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_guarded, args=(tell, theirs, self._folder, *given), daemon=True)
        child.start()
        theirs.close()
        try:
            with closing(ours):
                while (message := ours.recv()) is not None:
                    if isinstance(message, Misconfigured):
                        raise message
                    if isinstance(message, str):
                        self.damage = message
                    else:
                        yield message
        except EOFError:
            self.damage = "The index is so damaged that reading it ends the process."
        finally:
            child.kill()
            child.join()


def _guarded(tell: Callable[..., None], out: Connection, folder: Path, *given: Any) -> None:
    from edge.store.eventlog import EventLog

    try:
        log = EventLog(folder, readonly=True)
        tell(log, out, *given)
        log.close()
    except Misconfigured as error:
        out.send(error)
    except EdgeError as error:
        out.send(error.message)
    out.send(None)


def _tell_log_id(log: Any, out: Connection) -> None:
    out.send(log.log_id())


def _tell_groups(log: Any, out: Connection, from_seq: int) -> None:
    batch: list[StoredGroup] = []
    try:
        for epoch_key, group, data in log.groups(max(0, from_seq - 1)):
            batch.append((group.first_seq, epoch_key, data))
            if len(batch) == _GROUPS_PER_MESSAGE:
                out.send(batch)
                batch = []
    finally:
        out.send(batch)


def _tell_nothing(log: Any, out: Connection) -> None:
    log.read_all()
