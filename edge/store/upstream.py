"""What the centre has of this log: one small durable record, the receipt of the newest segment that was stored there.

Sync writes it (`write`) once it holds a receipt that it has checked; the runtime's retention reads it (`read`) and
prunes nothing above it where a centre is configured. It is one file, replaced whole, flushed with its folder before
`write` returns. It must never go back, and it is believed only as far as the log's own chain agrees (`link`): a
record of another log, or of a history that this log does not have, lets nothing go.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edge.core.codec import decode, encode
from edge.core.errors import LogDamaged
from edge.core.records import record
from edge.store.whole_file import write_whole

FILE_NAME: Final = "receipt"
_VERSION: Final = 2
#: Version 1 ended with the link.
_PARTS: Final = {1: 4, 2: 6}


@record
class Receipt:
    """The centre has every event of log `log_id` up to `through`; the chain's link after that one is `link`.

    `number` and `segment` are the number and id of the segment that ends there, b"" where that is not known.
    """

    log_id: bytes
    through: int
    link: bytes
    number: int = 0
    segment: bytes = b""


def read(folder: Path) -> Receipt | None:
    """The newest receipt in a data folder; None where there is none. Raises LogDamaged where it cannot be read."""
    path = folder / FILE_NAME
    try:
        parts = decode(path.read_bytes())
        version, *said = parts
        if (
            len(parts) != _PARTS.get(version)
            or list(map(type, said)) != [bytes, int, bytes, int, bytes][: len(said)]
        ):
            raise ValueError("its fields are not those of a receipt")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise LogDamaged(
            f"The receipt in {path} cannot be read: {error}.",
            mend="The next receipt replaces it (edge sync receipt, or edge-sync). Until then nothing is pruned.",
        ) from error
    return Receipt(*said)


def of_log(folder: Path, log_id: bytes | None) -> Receipt | None:
    """The newest receipt of that log; None also where the record is of another one, or cannot be read.

    For whoever carries the log: what the centre may have already is carried once more, and nothing is let go.
    """
    try:
        receipt = read(folder)
    except LogDamaged:
        return None
    return receipt if receipt is not None and receipt.log_id == log_id else None


def write(folder: Path, receipt: Receipt) -> None:
    """Note what the centre has, durable when this returns; less than it is known to have is left out.

    A record that cannot be read is replaced. Raises StorageFailed; LogDamaged where the record is of another log:
    that is a person's to decide.
    """
    try:
        known = read(folder)
    except LogDamaged:
        known = None
    if known is not None and known.log_id != receipt.log_id:
        raise LogDamaged(
            "The receipt is of another log than the one before it.",
            mend=f"Remove {folder / FILE_NAME} where the box has begun a new log.",
        )
    if known is not None and known.through >= receipt.through:
        return
    said = [receipt.log_id, receipt.through, receipt.link, receipt.number, receipt.segment]
    write_whole(folder / FILE_NAME, encode([_VERSION, *said]))
