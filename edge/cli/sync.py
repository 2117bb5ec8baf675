"""`edge sync`: the way to the centre: with whom the box is enrolled, what waits, and receipts that came back.

Called by `edge.cli.main`. It must never let anything be pruned but by a receipt that the box's own centre signed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from edge.cli import sync_push, sync_status
from edge.cli.story import counted
from edge.core.errors import Misconfigured
from edge.core.settings import load_settings
from edge.security.signing import fingerprint
from edge.sync import centre, receipt_text

#: What a scanner types in one go is far shorter.
_LINE_CHARS_MAX: Final = 4_000


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the group to the command line."""
    parser = groups.add_parser(
        "sync",
        help="enrol with a centre, take in its receipts, see what waits",
        description="The way to the centre: with whom the box is enrolled, what waits, and receipts that came back.",
        epilog="example:\n  edge sync enrol pump7.json\n  edge sync receipt /media/stick/noetl-edge-pump7-…/RECEIPT",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    enrol = actions.add_parser(
        "enrol", parents=[shared], help="let a centre's receipts count, and bring it our key"
    )
    enrol.add_argument("file", type=Path, metavar="FILE", help="what `edge central enrol --out` made")
    enrol.set_defaults(command=_enrol)
    sync_push.add(actions, shared)
    receipt = actions.add_parser(
        "receipt", parents=[shared], help="take in a receipt: what it covers may be pruned"
    )
    receipt.add_argument(
        "receipt",
        metavar="FILE|TEXT|-",
        help="the file RECEIPT of a bundle that was imported; or the text EDGE1:… that a scanner gives, here or, "
        "with -, on standard input",
    )
    receipt.set_defaults(command=_receipt)
    sync_status.add(actions, shared)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise Misconfigured(f"{path} is not there.", mend="Is the stick mounted?") from error


def _enrol(given: argparse.Namespace) -> int:
    settings = load_settings(given.data)
    enrolment = centre.parse(_read(given.file), str(given.file))
    if enrolment.token:
        enrolment = sync_push.redeemed(settings, enrolment)
    centre.enrol(settings, enrolment)
    print(f"enrolled with the centre of key {fingerprint(enrolment.key)}, as {enrolment.box}")
    if not settings.centre:
        print(f"next     set centre = true in {settings.data / 'edge.toml'} and start the box again:")
        print("         from then on nothing is pruned that the centre does not have")
    return 0


def _receipt(given: argparse.Namespace) -> int:
    receipt, freed = centre.take_receipt(load_settings(given.data), _receipt_data(given.receipt))
    print(
        f"receipt  the centre has every event up to {receipt.through}; {counted(freed, 'segment')} left the queue"
    )
    return 0


def _receipt_data(given: str) -> bytes:
    if given == "-":
        if sys.stdin.isatty():
            print("scan it now, then Enter", file=sys.stderr)
        return receipt_text.from_text(sys.stdin.readline(_LINE_CHARS_MAX))
    if given.strip().upper().startswith(receipt_text.PREFIX):
        return receipt_text.from_text(given)
    return receipt_text.from_bytes(_read(Path(given)))
