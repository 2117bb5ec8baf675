"""`edge replay`: what a log says once more: the state after any event, from the box's log or from a bundle.

Called by `edge.cli.main`. Needs no runtime, no playbook, no network, and changes nothing. What it prints of a state
is shared with `edge central show` (`edge.cli.replayed`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge.cli.inputs import require_log, whole_number
from edge.cli.replayed import number_of, print_log, print_one, through_of
from edge.core.errors import RequestRefused
from edge.core.settings import load_settings
from edge.replay.journal_source import JournalSource
from edge.replay.reconstruct import log_state, reconstruct
from edge.replay.source import Source


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    parser = groups.add_parser(
        "replay",
        parents=[shared],
        help="the state of an execution, or of the whole log, after any event",
        description="Fold the log again: what an execution, or the whole log, was after any event. Needs no\n"
        "playbook and no running box. Equal digests mean equal states: here, from a bundle, at the centre.",
        epilog="exit codes: 0 it is whole, 1 the log is damaged or part of it is not here, 2 refused\n\n"
        "examples:\n  edge replay 42\n  edge replay 42 --at-seq 50\n  edge replay 42 --at 2026-11-26T04:00:00Z\n"
        "  edge replay --all --bundle /media/stick/noetl-edge-pump7-…",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("execution", metavar="EXEC", nargs="?", help="execution id, or its number")
    parser.add_argument("--all", action="store_true", help="every execution of the log, as one digest")
    parser.add_argument(
        "--bundle", type=Path, metavar="FOLDER", help="read a bundle instead of this box's log"
    )
    add_place(parser)
    parser.set_defaults(command=_replay)


def add_place(parser: argparse.ArgumentParser) -> None:
    """The options that say after which event."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--at-seq", type=whole_number, metavar="N", help="after event N of the log")
    place.add_argument("--at", metavar="TIME", help="at that time, such as 2026-11-26T04:00:00Z")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def _replay(given: argparse.Namespace) -> int:
    if given.all == (given.execution is not None):
        raise RequestRefused("Which execution?", mend="Name one, or every one with --all.")
    source = _source(given)
    through = through_of(source, given)
    if given.all:
        return print_log(log_state(source, through), source, as_json=given.json)
    number = number_of(given.execution, source)
    return print_one(reconstruct(source, number, through), source, as_json=given.json)


def _source(given: argparse.Namespace) -> Source:
    if given.bundle is not None:
        from edge.replay.sealed_source import (
            folder_source,  # opens segments: zstd and signatures, for this only
        )

        return folder_source(given.bundle)
    settings = load_settings(given.data)
    require_log(settings)
    return JournalSource(settings)
