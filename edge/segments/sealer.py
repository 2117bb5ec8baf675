"""The process that seals: `python -m edge.segments.sealer DATA THROUGH [all]`, which ends when it has.

Started by the runtime (`edge.runtime.sealing`), whose daemon must not carry the libraries behind it, and by `edge
bundle` on a box that is stopped: then THROUGH is `end`. One at a time for each data folder. What it sealed goes to
standard output as CBOR, `[number, first event, last event, bytes]` for each segment, or a text that says why it
ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from pathlib import Path
from typing import Final

from edge.core.codec import encode
from edge.core.errors import EdgeError, StorageFailed
from edge.core.settings import Settings, load_settings
from edge.security.signing import SEED_BYTES, Signer
from edge.segments.sealing import Sealing
from edge.store import upstream
from edge.store.blobs import BlobStore
from edge.store.journal import last_seq_in
from edge.store.key_file import read_or_make_key
from edge.store.segment_file import log_id_of, segment_paths

#: Flushes of the box's own work come first.
_NICENESS: Final = 10


def sealing_of(settings: Settings) -> Sealing:
    """The sealing of a box, its log key made at the first need. Raises LogDamaged, Misconfigured, StorageFailed."""
    signer = Signer(read_or_make_key(settings.log_key_path, SEED_BYTES))
    blobs = BlobStore(settings.blob_folder)
    return Sealing(settings.sealed_folder, signer, settings.box, blobs, lambda: _receipt(settings))


def _receipt(settings: Settings) -> upstream.Receipt | None:
    """What the centre has of the journal's log."""
    return upstream.of_log(settings.data, log_id_of(settings.journal_folder))


def durable_end(journal: Path) -> int:
    """The last event that is in a journal now, made durable: a killed process may have left it in memory.

    It is read before it is flushed, so that a runtime which starts meanwhile may write on. A torn end is left as it
    is, for the runtime to judge. Raises StorageFailed.
    """
    last_seq = last_seq_in(journal)
    for path in segment_paths(journal)[-1:]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise StorageFailed(f"{path.name} could not be flushed: {error.strerror}.") from error
    return last_seq


def main() -> int:
    """Seal; 0 also where it cannot, since the reason is the answer."""
    data, through, *how = sys.argv[1:]
    # The filter of the runtime's unit forbids it: then at full priority.
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    settings = load_settings(Path(data))
    said: list[object] = []
    try:
        sealing = sealing_of(settings)
        with open(settings.sealed_folder / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            last = durable_end(settings.journal_folder) if through == "end" else int(through)
            for path, made in sealing.seal(settings.journal_folder, last, everything="all" in how):
                said.append([made.number, made.first_seq, made.last_seq, path.stat().st_size])
    except EdgeError as error:
        said.append(str(error))
    sys.stdout.buffer.write(encode(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
