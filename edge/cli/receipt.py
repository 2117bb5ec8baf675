"""`edge receipt`: the centre's signed word for what it has, shown so that it can be carried without a wire.

Called by `edge.cli.main`. A phone takes a picture at the centre, and the box's scanner reads it: no stick, no
network. It only shows; `edge sync receipt` takes one in. It must never call one good that it could not check.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from edge.cli import squares
from edge.core.errors import EdgeError, Misconfigured
from edge.core.settings import Settings, load_settings
from edge.segments.receipt import CentreReceipt, opened, unchecked
from edge.sync import centre, receipt_text


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the group to the command line."""
    parser = groups.add_parser(
        "receipt",
        help="show what the centre has receipted, also as a picture to scan",
        description="The centre's signed word for what it has of a log.",
        epilog="example:\n  edge receipt show --qr                        (the box's newest one)\n"
        "  edge receipt show --qr noetl-edge-pump7-…/RECEIPT   (one that a centre left in a bundle)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    show = actions.add_parser(
        "show",
        parents=[shared],
        help="say what it says; with --qr as a picture for a camera",
        description="Say what a receipt says. With --qr as a picture of squares, which a phone or a scanner reads; "
        "on the box, edge sync receipt takes the text that it gives.",
    )
    show.add_argument("file", nargs="?", type=Path, metavar="FILE", help="else the box's newest one")
    show.add_argument("--qr", action="store_true", help="as a picture of squares")
    show.add_argument(
        "--text", action="store_true", help="as the text that the picture holds, and nothing else"
    )
    show.add_argument("--json", action="store_true", help="one JSON object")
    show.set_defaults(command=_show)


def _show(given: argparse.Namespace) -> int:
    settings = load_settings(given.data)
    data = _data(settings, given.file)
    text = receipt_text.as_text(data)
    receipt, checked = _said(settings, data)
    if given.text:
        print(text)
        return 0
    if given.json:
        print(json.dumps(_document(receipt, text, checked)))
        return 0
    if given.qr:
        print(_picture(text))
    print(f"receipt  the centre has every event up to {receipt.through} of log {receipt.log_id.hex()}")
    print(f"made     {_utc(receipt.wall_ns)}, by the centre's clock")
    print(f"signed   {checked}")
    return 0


def _data(settings: Settings, file: Path | None) -> bytes:
    path = file or centre.newest_receipt_path(settings)
    try:
        return receipt_text.from_bytes(path.read_bytes())
    except FileNotFoundError as error:
        raise Misconfigured(
            "No centre has receipted anything of this box yet." if file is None else f"{path} is not there.",
            mend="Name one: the file RECEIPT of a bundle that was imported.",
        ) from error


def _said(settings: Settings, data: bytes) -> tuple[CentreReceipt, str]:
    """What it says, and how good that is: a machine that is enrolled nowhere cannot check it."""
    try:
        key = centre.centre_of(settings).key
    except Misconfigured:
        return unchecked(data), "not checked: this machine was enrolled with no centre"
    try:
        return opened(data, key), "by the centre of this box"
    except EdgeError as error:
        return unchecked(data), f"NOT by the centre of this box: {error.message}"


def _picture(text: str) -> str:
    modules = squares.rows(text)
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return squares.drawn(modules, coloured=sys.stdout.isatty(), blocks=encoding == "utf8")


def _document(receipt: CentreReceipt, text: str, checked: str) -> dict[str, Any]:
    return {
        "log_id": receipt.log_id.hex(),
        "through": receipt.through,
        "link": receipt.link.hex(),
        "made": _utc(receipt.wall_ns),
        "signed": checked,
        "text": text,
    }


def _utc(wall_ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall_ns // 1_000_000_000))
