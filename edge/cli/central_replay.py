"""`edge central show|diff`: what boxes sent, folded and run again at the centre, by the code that a box does it with.

Called by `edge.cli.central`, which owns the group. It reads segments and the ledger, and changes neither.
"""

from __future__ import annotations

import argparse
from typing import Any

from edge.cli import central_whatif
from edge.cli.central_sources import OneSource, central_source
from edge.cli.replay import add_place, add_rerun, replay
from edge.cli.replayed import wall_ns
from edge.core.errors import RequestRefused


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
    central_whatif.add(actions, where)


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
    if given.execution is not None and given.known_at is None:
        one = OneSource(given.data, given.execution)
        try:
            return replay(one, given)
        finally:
            one.close()
    source = central_source(given.data, given.execution, given.box)
    if given.known_at is not None:
        source = source.known_at(wall_ns(given.known_at))
        if not source.files:
            raise RequestRefused(
                f"Nothing of this log had come here by {given.known_at}.", mend="Ask for a later time."
            )
    return replay(source, given)
