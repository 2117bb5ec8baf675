"""`edge replay`: a log once more: the state after any event, and its blocks run again, from a box's log or a bundle.

Called by `edge.cli.main`. Needs no runtime, no playbook, no network, and changes nothing. `edge central show` and
`edge central diff` do the same with what the centre has.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from edge.cli.inputs import positive_count, require_log, whole_number
from edge.cli.replayed import number_of, print_log, print_log_rerun, print_one, print_rerun, through_of
from edge.core.errors import RequestRefused
from edge.core.settings import load_settings
from edge.replay.journal_source import JournalSource
from edge.replay.log_state import log_state
from edge.replay.reconstruct import Reconstructed, reconstruct
from edge.replay.rerun_log import rerun_log, rerun_one
from edge.replay.source import Source


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    parser = groups.add_parser(
        "replay",
        parents=[shared],
        help="the state of an execution, or of the whole log, after any event",
        description="Fold the log again: what an execution, or the whole log, was after any event. Needs no\n"
        "playbook and no running box. Equal digests mean equal states: here, from a bundle, at the centre.",
        epilog="exit codes: 0 whole and the same, 1 part is not here, or comes out otherwise, 2 refused\n\n"
        "examples:\n  edge replay 42\n  edge replay 42 --rerun\n  edge replay 42 --at-seq 50\n"
        "  edge replay 42 --at 2026-11-26T04:00:00Z\n"
        "  edge replay --all --bundle /media/stick/noetl-edge-pump7-…",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("execution", metavar="EXEC", nargs="?", help="execution id, or its number")
    parser.add_argument("--all", action="store_true", help="every execution of the log, as one digest")
    parser.add_argument(
        "--bundle", type=Path, metavar="FOLDER", help="read a bundle instead of this box's log"
    )
    add_place(parser)
    add_rerun(parser)
    parser.set_defaults(command=_replay)


def add_rerun(parser: argparse.ArgumentParser, *, asked: bool = False) -> None:
    """The options of running again; where that is `asked` by the command itself, not the one that asks for it."""
    if not asked:
        parser.add_argument("--rerun", action="store_true", help="run the pure blocks again, and compare")
    parser.add_argument(
        "--jobs", type=positive_count, default=1, metavar="N", help="with --rerun --all: processes"
    )
    parser.add_argument(
        "--tolerance", type=float, default=0.0, metavar="T",
        help="with --rerun: call numbers that differ by T of their size within-tolerance (never equal)",
    )  # fmt: skip


def add_place(parser: argparse.ArgumentParser) -> None:
    """The options that say after which event."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--at-seq", type=whole_number, metavar="N", help="after event N of the log")
    place.add_argument("--at", metavar="TIME", help="at that time, such as 2026-11-26T04:00:00Z")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def _replay(given: argparse.Namespace) -> int:
    if given.all and given.execution is not None:
        raise RequestRefused(
            f"Execution {given.execution}, or all of them?", mend="Leave out --all, or the execution."
        )
    if not given.all and given.execution is None:
        raise RequestRefused("Which execution?", mend="Name one, or every one with --all.")
    return replay(_source(given), given)


def replay(source: Source, given: argparse.Namespace) -> int:
    """What was asked of a source: the state, or running again, of one execution or of all."""
    through = through_of(source, given)
    if given.execution is None:
        if given.rerun:
            made = rerun_log(source, through, given.jobs, given.tolerance)
            return print_log_rerun(made, source, as_json=given.json)
        state = log_state(source, through)
        if given.at_seq is not None and state.through < given.at_seq:
            print(f"--at-seq {given.at_seq}: the log ends with event {state.through} here", file=sys.stderr)
        return print_log(state, source, as_json=given.json)
    found = reconstruct(source, number_of(given.execution, source), through)
    if given.rerun:
        return print_rerun(rerun_one(source, _whole(found), given.tolerance), source, as_json=given.json)
    return print_one(found, source, as_json=given.json)


def _whole(found: Reconstructed) -> Reconstructed:
    if found.thinned:
        raise RequestRefused(
            f"Only request, answer and end are kept of execution {found.execution}: there is nothing to run.",
            mend="Run it again at the centre, which has all of it: edge central diff.",
        )
    return found


def _source(given: argparse.Namespace) -> Source:
    if given.bundle is not None:
        from edge.replay.sealed_source import (
            folder_source,  # opens segments: zstd and signatures, for this only
        )

        return folder_source(given.bundle)
    settings = load_settings(given.data)
    require_log(settings)
    return JournalSource(settings)
