"""`edge central`: the centre of some boxes, in one folder; no other service.

Called by `edge.cli.main`. Takes in bundles, enrols boxes, says what is missing, makes the ledger again. It must never
change a segment that was taken.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.central.ingest import ALREADY, REJECTED, Central, held
from edge.central.ledger import FORK, STORED
from edge.central.rebuild import rebuild
from edge.central.shelf import Shelf
from edge.cli import central_audit, central_query, central_replay, central_serve
from edge.cli.central_sources import require_centre
from edge.cli.progress import Progress
from edge.core.errors import RequestRefused, SegmentRejected
from edge.security.signing import fingerprint
from edge.segments.sealing import sealed_paths
from edge.store.whole_file import write_whole
from edge.sync import bundle, bundle_check
from edge.sync.centre import receipt_file


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the group to the command line."""
    del shared  # its data folder is a box's
    parser = groups.add_parser(
        "central",
        help="keep the logs of many boxes",
        description="The centre of some boxes, in one folder: what they sent, checked and kept for ever.",
        epilog="example:\n  edge central enrol pump7 8f3c… --data /srv/centre --out pump7.json\n"
        "  edge central import /media/stick/noetl-edge-pump7-… --data /srv/centre",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the centre's folder")
    central_serve.add(actions, where)
    revoke = actions.add_parser("revoke", parents=[where], help="believe nothing more that a key signs")
    revoke.add_argument("box", metavar="BOX")
    revoke.add_argument("key", metavar="KEY")
    revoke.set_defaults(command=_revoke)
    taken = actions.add_parser(
        "import", parents=[where], help="take in a bundle, and leave a receipt in it for the way back"
    )
    taken.add_argument("bundle", type=Path, metavar="BUNDLE", help="a folder noetl-edge-…")
    taken.set_defaults(command=take_in)
    for name, help_text, command in (
        ("boxes", "boxes and their keys", _boxes),
        ("rebuild", "make ledger and tables again from the segments alone", _rebuild),
    ):
        actions.add_parser(name, parents=[where], help=help_text).set_defaults(command=command)
    central_replay.add(actions, where)
    central_query.add(actions, where)
    central_audit.add(actions, where)


def _open(given: argparse.Namespace) -> Central:
    return Central.open(given.data, time.time_ns)


def _key(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _revoke(given: argparse.Namespace) -> int:
    require_centre(given.data)
    _open(given).boxes.revoke(given.box, _key(given.key), time.time_ns())
    print(f"revoked  {given.box}, key {fingerprint(_key(given.key))}: nothing more that it signs is taken")
    return 0


def _boxes(given: argparse.Namespace) -> int:
    require_centre(given.data)
    for box in _open(given).boxes.all():
        for key in box.keys:
            said = "revoked" if key.revoked_ns else "enrolled"
            print(f"{box.box:<24} {said:<9} {key.public.hex()}")
    return 0


def take_in(given: argparse.Namespace) -> int:
    """Import a bundle into a centre's folder; 1 where not all of it is good."""
    verdict = bundle_check.verify(given.bundle)
    central = Central.open(given.data, time.time_ns, taking=True)
    paths = sealed_paths(given.bundle)
    counts: dict[str, int] = {}
    logs: dict[bytes, None] = {}
    blobs = _take_blobs(central, given.bundle, verdict.keys)
    with Progress(sum(path.stat().st_size for path in paths), "importing") as progress:
        for path in paths:
            data = path.read_bytes()
            made = central.take(data, deep=True)
            counts[made.verdict] = counts.get(made.verdict, 0) + 1
            if made.reason:
                print(f"{made.verdict:<8} {path.name}: {made.reason}")
            if made.log_id:
                logs[made.log_id] = None
            progress(len(data))
    print(f"bundle   of box {verdict.box}: {', '.join(f'{count} {name}' for name, count in counts.items())}")
    if blobs:
        print(f"values   {', '.join(f'{count} {name}' for name, count in blobs.items())}")
    for problem in verdict.problems:
        print(f"wrong    {problem}")
    for log_id in logs:
        _leave_receipt(central, log_id, given.bundle)
    central.close()
    return 1 if verdict.problems or counts.get(REJECTED) or counts.get(FORK) else 0


def _take_blobs(central: Central, place: Path, keys: Sequence[str]) -> Counter[str]:
    """Large values first: a segment that is stored has what it names, as far as the bundle has it.

    Of a bundle whose keys are no box's here none is kept.
    """
    counts: Counter[str] = Counter()
    folder = place / bundle.BLOBS
    known = any(central.boxes.of_key(_key(key)) is not None for key in keys)
    for path in sorted(folder.iterdir()) if folder.is_dir() and known else []:
        digest = _key(path.name)
        here = central.shelf.has_blob(digest)
        try:
            central.shelf.put_blob(digest, path.read_bytes())
            counts[ALREADY if here else STORED] += 1
        except SegmentRejected as error:
            print(f"wrong    {error}")
    return counts


def _leave_receipt(central: Central, log_id: bytes, place: Path) -> None:
    receipt, linked = central.receipt(log_id), central.ledger.linked(log_id)
    if receipt is None or linked is None:
        return
    try:
        write_whole(receipt_file(place), receipt)
    except OSError as error:
        print(f"receipt  could not be left in the bundle: {error}")
        return
    print(f"receipt  up to event {linked.last_seq}, in {receipt_file(place)}: take it back to the box")


def _rebuild(given: argparse.Namespace) -> int:
    if not given.data.is_dir():
        raise RequestRefused(f"{given.data} is no folder of a centre.", mend="Name it with --data.")
    # A server would go on with the ledger that is replaced, and tell boxes what nobody finds again.
    with held(given.data):
        count = rebuild(Shelf(given.data), given.data / "ledger.sqlite")
    print(f"rebuilt  the ledger from {count} segments")
    made = central_query.compacted(given.data, anew=True)
    print(f"rebuilt  the tables: {made.events} events in {made.files} files")
    central_query.say_quarantined(made, sys.stdout)
    return 1 if made.quarantined else 0
