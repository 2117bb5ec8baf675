"""`edge central show|diff`: what boxes sent, folded and run again at the centre, by the code that a box does it with.

Called by `edge.cli.central`, which owns the group. It reads segments and the ledger, and changes neither.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge.central.ledger import STORED, Ledger
from edge.central.shelf import Shelf
from edge.cli.replay import add_place, add_rerun, replay
from edge.cli.replayed import wall_ns
from edge.core.errors import RequestRefused
from edge.replay.sealed_source import SealedFile, SealedSource


def add(actions: Any, where: argparse.ArgumentParser) -> None:
    """Add the actions to the group."""
    show = actions.add_parser(
        "show",
        parents=[where],
        help="the state of an execution, or of a whole log, after any event",
        description="Fold what a box sent again: the state of one execution, or of a whole log, as it was after any\n"
        "event, at any time, or as it was known here at any time.",
        epilog="exit codes: 0 it is whole, 1 part of it is not here, 2 refused\n\n"
        "examples:\n  edge central show 3f2a9c0d11e0b7aa-42 --data /srv/centre\n"
        "  edge central show --box pump7 --data /srv/centre --known-at 2026-11-26T04:00:00Z",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_which(show)
    show.set_defaults(command=_show, rerun=False)
    diff = actions.add_parser(
        "diff",
        parents=[where],
        help="run the blocks of an execution, or of a log, again, and name what comes out otherwise",
        description="Run every pure block again in the box's sandbox, on what it saw, with the recorded clock,\n"
        "chance and effects. Names each block that comes out otherwise, both values, the class of difference.",
        epilog="exit codes: 0 all as recorded, 1 something comes out otherwise, 2 refused\n\n"
        "examples:\n  edge central diff 3f2a9c0d11e0b7aa-42 --data /srv/centre\n"
        "  edge central diff --box pump7 --jobs 4 --data /srv/centre",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_which(diff)
    add_rerun(diff, asked=True)
    diff.set_defaults(command=_show, rerun=True)


def _add_which(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "execution", metavar="EXEC", nargs="?", help="execution id: its log's, a dash, its number"
    )
    parser.add_argument("--box", metavar="BOX", help="the whole newest log of a box instead")
    parser.add_argument("--known-at", metavar="TIME", help="with what had come here by then")
    add_place(parser)


def _show(given: argparse.Namespace) -> int:
    if (given.box is None) == (given.execution is None):
        raise RequestRefused("Which execution?", mend="Name one, or a box with --box.")
    source = central_source(given.data, given.execution, given.box)
    if given.known_at is not None:
        source = source.known_at(wall_ns(given.known_at))
        if not source.files:
            raise RequestRefused(
                f"Nothing of this log had come here by {given.known_at}.", mend="Ask for a later time."
            )
    return replay(source, given)


def central_source(data: Path, execution: str | None, box: str | None) -> SealedSource:
    """The log that an execution's id names, or the newest of a box, as the centre has it. Raises RequestRefused."""
    if not (data / "ledger.sqlite").is_file():
        raise RequestRefused(f"{data} is no folder of a centre.", mend="Name it with --data.")
    ledger = Ledger(data / "ledger.sqlite")
    try:
        known = ledger.log_ids()
        if execution is not None:
            found = [each for each in known if each[1].hex() == execution.rpartition("-")[0]]
        else:
            found = [each for each in known if each[0] == box]
        if not found:
            raise RequestRefused(
                f"There is no log of {execution or box} here.",
                mend="`edge central boxes` lists the boxes; an execution's id begins with its log's.",
            )
        ends = {log_id: max((e.wall_max_ns for e in ledger.segments(log_id, STORED)), default=0)
                for _, log_id in found}  # fmt: skip
        name, log_id = max(found, key=lambda each: ends[each[1]])
        shelf = Shelf(data)
        files = []
        for entry in ledger.segments(log_id, STORED):
            path = shelf.path(log_id, entry.number, entry.id)
            files.append(
                SealedFile(path, entry.number, entry.first_seq, entry.last_seq, path.stat().st_mtime_ns)
            )
        return SealedSource(log_id, name, files, shelf.blob)
    finally:
        ledger.close()
