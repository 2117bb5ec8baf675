"""`edge bundle stream` and `receive`: the two ends of a pipe, for scripts that visit many boxes (`scripts/field`).

Called by `edge.cli.bundle`. Standard output of the one is standard input of the other and holds nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edge.cli.inputs import require_log
from edge.cli.seal import seal
from edge.core.errors import Misconfigured
from edge.core.settings import load_settings
from edge.store import upstream
from edge.store.blobs import BlobStore
from edge.store.segment_file import log_id_of
from edge.sync import bundle, bundle_stream


def add(actions: Any, shared: argparse.ArgumentParser) -> None:
    """Add both to the group's actions."""
    stream = actions.add_parser(
        "stream",
        parents=[shared],
        help="write a bundle to standard output, for a pipe",
        description="Write what the centre does not have, or a bundle that lies in a folder, to standard output: "
        "nothing is written on the box but what is sealed. Read from standard input, where --has is given: what the "
        "other side has already, as `edge bundle receive --list` says it.",
        epilog="example:\n  edge bundle receive --list logs | ssh pump7 edge bundle stream --has \\\n"
        "    | edge bundle receive logs",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stream.add_argument(
        "--from", dest="source", type=Path, metavar="FOLDER", help="this bundle, not the box's log"
    )
    stream.add_argument("--has", action="store_true", help="leave out what standard input names")
    stream.set_defaults(command=_stream)
    receive = actions.add_parser(
        "receive",
        help="take a bundle from standard input",
        description="Take what `edge bundle stream` writes into a folder of bundles, each file whole.",
    )
    receive.add_argument(
        "folder", type=Path, metavar="FOLDER", help="the folder of bundles; made where it is not there"
    )
    receive.add_argument(
        "--list", action="store_true", help="only say what is there already, for `stream --has`"
    )
    receive.set_defaults(command=_receive)


def _stream(given: argparse.Namespace) -> int:
    has = frozenset(sys.stdin.read().split()) if given.has else frozenset()
    if sys.stdout.isatty():
        raise Misconfigured(
            "A bundle on a terminal is of no use.", mend="Lead it into `edge bundle receive FOLDER`."
        )
    if given.source is not None:
        bundle_stream.write(bundle_stream.of_folder(given.source), has, sys.stdout.buffer)
        return 0
    settings = load_settings(given.data)
    require_log(settings)
    seal(settings)
    receipt = upstream.of_log(settings.data, log_id_of(settings.journal_folder))
    made = bundle.contents(
        settings.sealed_folder, BlobStore(settings.blob_folder), receipt.through if receipt is not None else 0
    )
    if made is None:
        bundle_stream.write_nothing(sys.stdout.buffer)
    else:
        bundle_stream.write(made, has, sys.stdout.buffer)
    return 0


def _receive(given: argparse.Namespace) -> int:
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.list:
        print("\n".join(bundle_stream.held(given.folder)))
        return 0
    got = bundle_stream.receive(sys.stdin.buffer, given.folder)
    place = str(got.place) if got.place is not None else None
    print(json.dumps({"folder": place, "files": got.files, "bytes": got.size_bytes}))
    return 0
