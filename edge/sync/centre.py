"""The centre of a box: which key its receipts are signed by, and what they let the box prune.

The enrolment is a file that the centre made (`edge central enrol`), taken in once by a person. Called by `edge sync`.
A receipt is believed where the centre's key signed it and the box's own chain says the same; only then does it reach
retention (`edge.store.upstream`), and what it covers leaves the queue of sealed segments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from edge.core.errors import Misconfigured, ReceiptRejected, SegmentRejected, StorageFailed
from edge.core.records import record
from edge.core.settings import Settings
from edge.segments.cuts import Cut, Cuts, read_head
from edge.segments.receipt import CentreReceipt, opened
from edge.segments.sealing import cut_of, sealed_paths
from edge.store import upstream
from edge.store.whole_file import write_whole

#: The problem's code where a receipt is the centre's own and speaks of a history that this box does not have.
OTHER_HISTORY: Final = "other_history"
#: Below the data folder: what sync keeps for itself.
FOLDER: Final = "sync"
_FORMAT: Final = "noetl-edge-enrolment-1"
_KEY_BYTES: Final = 32


@record
class Enrolment:
    """A centre as a box knows it: its public key, and the name that it has for the box.

    `url` and `authority` (PEM) are where it is reached and whom that server's certificate is from, "" where only
    sticks go there. `made_s` is when the enrolment was made, seconds since 1970: no right clock of the box is before.
    `token` is the one-time token of an enrolment that still has to be redeemed, "" in what a box keeps.
    """

    key: bytes
    box: str
    url: str = ""
    authority: str = ""
    made_s: int = 0
    token: str = ""


def document(enrolment: Enrolment) -> bytes:
    """The file that is carried to the box."""
    made: dict[str, object] = {"format": _FORMAT, "centre_key": enrolment.key.hex(), "box": enrolment.box}
    for name in ("url", "authority", "made_s", "token"):
        if value := getattr(enrolment, name):
            made[name] = value
    return json.dumps(made, indent=1).encode() + b"\n"


def parse(data: bytes, where: str) -> Enrolment:
    """What such a file says. Raises Misconfigured."""
    try:
        said = json.loads(data)
        if type(said) is not dict:
            raise ValueError("it is no JSON object")
        key = bytes.fromhex(said["centre_key"])
        if said["format"] != _FORMAT or len(key) != _KEY_BYTES:
            raise ValueError("it is of another format")
        more = [str(said.get(name, "")) for name in ("url", "authority", "token")]
        return Enrolment(key, str(said["box"]), more[0], more[1], int(said.get("made_s", 0)), more[2])
    except (ValueError, KeyError, TypeError) as error:
        lacks = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise Misconfigured(
            f"{where} is no enrolment: {lacks}.",
            mend="Make one at the centre: edge central enrol BOX KEY --out FILE.",
        ) from error


def enrol(settings: Settings, enrolment: Enrolment) -> None:
    """Let a centre's receipts count from now on. Raises Misconfigured where the box has another centre."""
    require_same(settings, enrolment)
    write_whole(settings.enrolment_path, document(enrolment))


def require_same(settings: Settings, enrolment: Enrolment) -> None:
    """Raises Misconfigured where the box has another centre already."""
    path = settings.enrolment_path
    if path.exists() and centre_of(settings).key != enrolment.key:
        raise Misconfigured(
            f"This box has another centre already ({path}).",
            mend="Remove that file where the box is to change its centre: receipts of the old one count no more.",
        )


def centre_of(settings: Settings) -> Enrolment:
    """The centre that this box was enrolled with. Raises Misconfigured."""
    path = settings.enrolment_path
    try:
        return parse(path.read_bytes(), str(path))
    except FileNotFoundError as error:
        raise Misconfigured(
            "This box was enrolled with no centre, so nobody's receipt counts.",
            mend="Make an enrolment at the centre (edge central enrol) and take it in: edge sync enrol FILE.",
        ) from error


def take_receipt(settings: Settings, data: bytes) -> tuple[CentreReceipt, int]:
    """Believe a receipt; `(what it says, segments that left the queue)`. Raises ReceiptRejected, Misconfigured."""
    receipt = opened(data, centre_of(settings).key)
    head = read_head(settings.sealed_folder)
    if head is None or head.log_id != receipt.log_id:
        raise ReceiptRejected(
            f"The receipt is for log {receipt.log_id.hex()}, which is not this box's.",
            mend="Is it another box's stick?",
        )
    known = upstream.of_log(settings.data, receipt.log_id)
    covered = dict(_covered(settings, receipt.through))
    ends = chain(Cuts(settings.sealed_folder), covered.values(), (head,))
    end = next((cut for cut in ends if (cut.last_seq, cut.link) == (receipt.through, receipt.link)), None)
    if end is None and (known is None or known.through < receipt.through):
        # A centre's receipt ends where one of this box's own segments does. Nothing is let go without that one.
        raise ReceiptRejected(
            f"The centre has another history up to event {receipt.through} than this box.",
            mend="Was a card copied, or the data folder put back? `edge central audit` shows both.",
            code=OTHER_HISTORY,
        )
    if end is not None:
        made = upstream.Receipt(receipt.log_id, receipt.through, receipt.link, end.number, end.id)
        upstream.write(settings.data, made)
    if known is None or known.through <= receipt.through:
        _keep(newest_receipt_path(settings), data)
    for path in covered:
        path.unlink()
    return receipt, len(covered)


def _covered(settings: Settings, through: int) -> Iterator[tuple[Path, Cut]]:
    """Segments of the queue that end at event `through` or before; what lies behind them is not read."""
    for path in sealed_paths(settings.sealed_folder):
        try:
            cut = cut_of(path)
        except SegmentRejected:
            continue  # a damaged file is for a person
        if cut.last_seq > through:
            return
        yield path, cut


def newest_receipt_path(settings: Settings) -> Path:
    """Where the newest receipt stands as the centre signed it: to be shown to others, nothing is pruned by it."""
    return settings.data / FOLDER / "receipt"


def _keep(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(exist_ok=True, mode=0o750)
    except OSError as error:
        raise StorageFailed(f"{path.parent} could not be made: {error.strerror}.") from error
    write_whole(path, data)


def receipt_file(place: Path) -> Path:
    """Where a centre leaves its receipt in a bundle, for the way back."""
    return place / "RECEIPT"
