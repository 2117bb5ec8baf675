"""`edge central whatif`: what executions would have come to with another playbook, over boxes and a time range.

Called by `edge.cli.central_replay`. Reads segments, runs both playbooks in the sandbox, and keeps what came out below
`derived/`. The question's options and how results are told it shares with `edge.cli.whatif`.
"""

from __future__ import annotations

import argparse
from fnmatch import fnmatchcase
from typing import Any

from edge.central.ledger import Ledger
from edge.cli.central_sources import central_source, require_centre
from edge.cli.replayed import number_of
from edge.cli.whatif import DESCRIPTION, EXIT_CODES, add_question, asked_of, begun, told
from edge.replay.derived import Unit, over, parts_of_segments
from edge.replay.sealed_source import SealedSource


def add(actions: Any, where: argparse.ArgumentParser) -> None:
    """Add the action to the group."""
    parser = actions.add_parser(
        "whatif",
        parents=[where],
        help="what executions would have come to with another playbook",
        description=DESCRIPTION,
        epilog=EXIT_CODES + "examples:\n"
        "  edge central whatif --playbook guard.yaml --box 'pump*' --from 2026-11-01 --data /srv/centre\n"
        "  edge central whatif 3f2a9c0d11e0b7aa-42 --playbook guard.yaml --data /srv/centre",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--box", metavar="PATTERN", action="append", help="of these boxes, such as 'pump*' (default: all)"
    )
    add_question(parser)
    parser.set_defaults(command=_whatif)


def _whatif(given: argparse.Namespace) -> int:
    require_centre(given.data)
    sources = _sources(given)
    asked = asked_of(given, 0 if given.execution is None else number_of(given.execution, sources[0]))
    derived = begun(given.data, asked)
    units: list[Unit] = []
    for source in sources:
        if source.files:
            parts = parts_of_segments(source, asked)
            units += over(source, parts, source.files[-1].last_seq, asked, derived, given.jobs)
    return told(units, asked, derived, given)


def _sources(given: argparse.Namespace) -> list[SealedSource]:
    """The logs that are asked for."""
    if given.execution is not None:
        return [central_source(given.data, given.execution, None)]
    ledger = Ledger(given.data / "ledger.sqlite")
    try:
        known = [(each.box, each.log_id) for each in ledger.logs()]
    finally:
        ledger.close()
    patterns = given.box or ["*"]
    chosen = [each for each in known if any(fnmatchcase(each[0], pattern) for pattern in patterns)]
    return [central_source(given.data, f"{log_id.hex()}-0", None) for _, log_id in chosen]
