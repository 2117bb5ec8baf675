"""`edge bundle`: carry a box's log on a stick. Needs no network and no account, and no running box.

Called by `edge.cli.main`. It seals (through the box where that runs, by the sealer's process where not), copies by
`edge.sync.bundle` and speaks to the technician. It must never take anything off the box.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from edge.cli import bundle_stream
from edge.cli.inputs import require_log
from edge.cli.progress import Progress
from edge.cli.seal import seal
from edge.cli.story import counted
from edge.core.errors import Misconfigured
from edge.core.records import record
from edge.core.settings import Settings, load_settings
from edge.security.signing import fingerprint
from edge.segments.cuts import Cuts, read_head
from edge.segments.sealer import sealing_of
from edge.store import upstream
from edge.store.blobs import BlobStore
from edge.store.segment_file import log_id_of, segment_paths
from edge.sync import bundle, bundle_check


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the group to the command line."""
    parser = groups.add_parser(
        "bundle",
        help="carry the log on a stick",
        description="Carry a box's log on a stick: sealed, signed, complete in itself. Nothing is taken off the box.",
        epilog="example:\n  edge bundle export /media/stick\n  edge bundle verify /media/stick/noetl-edge-pump7-…",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    export = actions.add_parser(
        "export",
        parents=[shared],
        help="copy what the centre does not have yet to a folder",
        description="Seal what is not sealed yet and copy all that the centre does not have, by its receipt, into a "
        "folder below the one named. Run again it copies what is missing, also after the stick was pulled out.",
    )
    export.add_argument("folder", type=Path, metavar="FOLDER", help="where the stick is mounted")
    export.add_argument(
        "--all", action="store_true", help="also what the centre has, as far back as the journal goes"
    )
    export.add_argument("--same-drive", action="store_true", help="the folder may be on the box's own drive")
    export.add_argument("--dry-run", action="store_true", help="only say what would be copied")
    export.add_argument("--json", action="store_true", help="one JSON object")
    export.set_defaults(command=_export)
    verify = actions.add_parser(
        "verify",
        help="read all of a bundle and say what is wrong with it",
        description="Read all of a bundle: each file, each signature, each event against its chain. Needs no box.",
    )
    verify.add_argument("folder", type=Path, metavar="FOLDER", help="the bundle: a folder noetl-edge-…")
    verify.add_argument("--json", action="store_true", help="one JSON object")
    verify.set_defaults(command=_verify)
    taken = actions.add_parser(
        "import",
        help="take a bundle in at a centre (edge central import)",
        description="Take a bundle in at a centre, and leave a receipt in it for the way back: edge central import.",
    )
    taken.add_argument("bundle", type=Path, metavar="BUNDLE", help="a folder noetl-edge-…")
    taken.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the centre's folder")
    taken.set_defaults(command=_import)
    bundle_stream.add(actions, shared)


def _import(given: argparse.Namespace) -> int:
    from edge.cli import central  # the centre's rooms, for this only

    return central.take_in(given)


def _export(given: argparse.Namespace) -> int:
    settings = load_settings(given.data)
    require_log(settings)
    _require_other_drive(given, settings)
    if not given.dry_run:
        seal(settings)
    receipt = None if given.all else upstream.of_log(settings.data, log_id_of(settings.journal_folder))
    after = receipt.through if receipt is not None else 0
    blobs = BlobStore(settings.blob_folder)
    if given.dry_run:
        return _dry_run(given, bundle.contents(settings.sealed_folder, blobs, after), after)
    head = read_head(settings.sealed_folder)
    if head is None or head.last_seq <= after:
        return _nothing(given, after)
    place = given.folder / bundle.folder_name(settings.box, head.log_id)
    with bundle.alone(place):
        again: list[Path] = []
        if given.all:
            delivered = sealing_of(settings).seal_delivered(settings.journal_folder)
            again = bundle.add_again(delivered, place)
        made = bundle.contents(settings.sealed_folder, blobs, after, again)
        if made is None:
            return _say(given, "nothing of it is on this box any more")
        absent = bundle.missing(made, place)
        bundle.require_room(absent, place)
        try:
            with Progress(sum(item.size_bytes for item in absent), "copying") as progress:
                bundle.export(made, absent, place, progress)
        except KeyboardInterrupt:
            print("stopped: what is copied stays, and the same command goes on from there", file=sys.stderr)
            raise
    os.sync()
    lacking = _lacking(settings, made) if given.all else None
    _say_exported(made, place, len(absent), lacking, as_json=given.json)
    return 1 if lacking is not None and not lacking.pruned else 0


@record
class _Lacking:
    """Events that the journal has and no segment of the bundle.

    `pruned`: since the beginning of their segment went with pruning; else nobody knows any more where it was.
    """

    first: int
    last: int
    pruned: bool

    def __str__(self) -> str:
        why = "the beginning of their segment was pruned" if self.pruned else (
            "where the log was cut there is not known any more, so they cannot be sealed as they were"
        )  # fmt: skip
        return f"events {self.first} to {self.last} of the journal are not in it: {why}"


def _lacking(settings: Settings, made: bundle.Contents) -> _Lacking | None:
    first = made.manifests[0]
    begin = next((int(path.stem) for path in segment_paths(settings.journal_folder)), first.first_seq)
    if begin >= first.first_seq:
        return None
    cuts = Cuts(settings.sealed_folder).all()
    whole = first.number - 1 in cuts and (first.number == 1 or first.number - 2 in cuts)
    return _Lacking(begin, first.first_seq - 1, whole)


def _dry_run(given: argparse.Namespace, made: bundle.Contents | None, after: int) -> int:
    if made is None:
        return _nothing(given, after)
    place = given.folder / made.folder_name
    absent_bytes = sum(item.size_bytes for item in bundle.missing(made, place))
    more = "what is not sealed yet" + (", or was delivered" if given.all else "")
    words = f"would copy {absent_bytes / 1e6:.1f} MB into {place} and {more}; --dry-run seals nothing"
    return _say(given, words, bytes=absent_bytes)


def _nothing(given: argparse.Namespace, after: int) -> int:
    said = "nothing to carry: the centre has all that is sealed" if after else "nothing is sealed yet"
    return _say(given, said)


def _say(given: argparse.Namespace, words: str, **figures: int) -> int:
    print(json.dumps({"said": words, **figures}) if given.json else words)
    return 0


def _require_other_drive(given: argparse.Namespace, settings: Settings) -> None:
    """A stick that is not mounted is a folder of the box's own drive."""
    if not given.folder.is_dir():
        raise Misconfigured(
            f"{given.folder} is no folder.", mend="Is the stick mounted? `lsblk` shows where."
        )
    if (given.folder / bundle.MANIFEST).is_file():
        raise Misconfigured(
            f"{given.folder} is a bundle itself.",
            mend=f"Name the folder that it lies in: {given.folder.parent}.",
        )
    same = given.folder.stat().st_dev == settings.data.stat().st_dev
    if same and not given.same_drive:
        raise Misconfigured(
            f"{given.folder} is on the box's own drive.",
            mend="Is the stick mounted? `lsblk` shows where. If it is meant so, add --same-drive.",
        )


def _say_exported(
    made: bundle.Contents, place: Path, copied: int, lacking: _Lacking | None, *, as_json: bool
) -> None:
    first, last = made.manifests[0], made.manifests[-1]
    if as_json:
        document = {
            "folder": str(place),
            "copied": copied,
            "files": len(made.items),
            "bytes": made.size_bytes,
            "lacking": [lacking.first, lacking.last] if lacking is not None else None,
        }
        print(
            json.dumps({**document, "first": first.first_seq, "last": last.last_seq, "key": last.key.hex()})
        )
        return
    print(f"bundle   {place}")
    print(
        f"events   {first.first_seq} to {last.last_seq} in {counted(len(made.manifests), 'segment')}, "
        f"{made.size_bytes / 1e6:.1f} MB"
    )
    print(f"copied   {copied} of {counted(len(made.items), 'file')}")
    print(f"key      {last.key.hex()}")
    if lacking is not None:
        print(f"lacking  {lacking}")
    print("safe     all is written: the stick may be unmounted and pulled out")


def _verify(given: argparse.Namespace) -> int:
    with Progress(_size_bytes(given.folder), "reading") as progress:
        verdict = bundle_check.verify(given.folder, progress)
    if given.json:
        print(json.dumps({each.name: getattr(verdict, each.name) for each in fields(verdict)}))
        return 1 if verdict.problems else 0
    print(f"bundle   of box {verdict.box}, log {verdict.log_id}")
    print(
        f"events   {verdict.first_seq} to {verdict.last_seq}: {verdict.events} "
        f"in {counted(verdict.segments, 'segment')}"
    )
    for key in verdict.keys:
        print(f"key      {fingerprint(bytes.fromhex(key))}")
    print(f"size     {verdict.size_bytes / 1e6:.1f} MB, {counted(verdict.blobs, 'large value')}")
    for problem in verdict.problems:
        print(f"wrong    {problem}")
    print("NOT whole" if verdict.problems else "whole    every file, signature and event")
    return 1 if verdict.problems else 0


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
