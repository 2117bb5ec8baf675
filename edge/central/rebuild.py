"""The ledger made again from the folder of segments alone: what is a projection can be thrown away.

Used by `edge central rebuild`, and by the tests, which hold it equal to the ledger that was written live. Which
segment of two with one number came first, and is therefore the log's, stands in the folder that each lies in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from edge.central.ingest import note, place_of
from edge.central.ledger import FORK, Ledger
from edge.central.shelf import Shelf
from edge.core.errors import SegmentRejected, StorageFailed
from edge.segments.sealed import open_sealed


def rebuild(shelf: Shelf, path: Path) -> int:
    """Write a ledger of all that is kept, in place of the one at `path`; how many segments.

    Nobody may take in meanwhile. Raises SegmentRejected, StorageFailed.
    """
    made = path.with_name(f"{path.name}.part")
    made.unlink(missing_ok=True)
    try:
        ledger = Ledger(made)
        with ledger.change():
            count = _fill(ledger, shelf.segments(), fork=False) + _fill(ledger, shelf.forks(), fork=True)
        ledger.close()
    except sqlite3.Error as error:
        raise StorageFailed(
            f"The centre's ledger could not be made again: {error}.",
            mend="Make room; the old one is as it was.",
        ) from error
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
    made.rename(path)
    return count


def _fill(ledger: Ledger, paths: Iterable[Path], *, fork: bool) -> int:
    count = 0
    for path in paths:
        data = path.read_bytes()
        try:
            sealed = open_sealed(data)
        except SegmentRejected as error:
            raise SegmentRejected(
                f"{path}: {error.message} The old ledger stays.",
                mend="Bring that segment again (edge bundle export FOLDER --all on its box, edge central import), or "
                "move the file away: what follows it is then parked.",
            ) from error
        state = FORK if fork else place_of(sealed.manifest, ledger.linked(sealed.manifest.log_id))[0]
        note(ledger, sealed, state, len(data))
        count += 1
    return count
