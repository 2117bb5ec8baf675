"""`edge central audit` and `gaps`: what is whole at a centre, what is missing, and what to do about it.

Called by `edge.cli.central`. It looks only; `edge central compact` is what looks at events one by one, and the audit
says how far that came.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from edge.central.audit import FAIL, Audit, Finding, Loss, refused, said_at
from edge.central.gaps import gaps
from edge.central.ledger import FORK
from edge.cli.central_query import opened
from edge.core.errors import RequestRefused

#: By these types a log says of itself that something is lost, given up or refused.
_LOSSES: Final = ("gap", "log.pruned", "storage.refusing", "subscription.message.dead_lettered")
#: What a centre has receipted may be pruned: that is no loss.
_HARMLESS: Final = ('"cause":"receipt"',)


def add(actions: Any, where: argparse.ArgumentParser) -> None:
    """Add the commands."""
    audit = actions.add_parser(
        "audit",
        parents=[where],
        help="chain, keys, forks, clones, gaps, losses and receipts of each box",
        description="Look at everything that is here of a box, or of all: one line for each check, ok, warn or fail, "
        "with the mend.",
        epilog="exit codes: 0 nothing failed, 1 something did",
    )
    audit.add_argument("box", nargs="?", metavar="BOX", help="of this box alone")
    audit.add_argument("--json", action="store_true", help="one JSON object a line")
    audit.set_defaults(command=_audit)
    missing = actions.add_parser(
        "gaps", parents=[where], help="what is missing of each log, and what is of another history"
    )
    missing.add_argument("--json", action="store_true", help="one JSON object a line")
    missing.set_defaults(command=_gaps)


def _audit(given: argparse.Namespace) -> int:
    from edge.central.compaction import CATALOG, TABLES
    from edge.central.compaction_rows import PROJECTION
    from edge.central.tables_catalog import Catalog

    central = opened(given.data)
    catalog = Catalog.reading(given.data / TABLES / CATALOG, PROJECTION)
    try:
        known = {each.box for each in central.boxes.all()} | {box for box, _ in central.ledger.log_ids()}
        if given.box is not None and given.box not in known:
            raise RequestRefused(
                f"No box {given.box} is known here.", mend="`edge central boxes` lists them."
            )
        looked = Audit(central, catalog, _losses(given.data)).findings(given.box)
        findings = [*looked, *(refused(given.data) if given.box is None else ())]
    finally:
        central.close()
        if catalog is not None:
            catalog.close()
    for finding in findings:
        print(_as_json(finding) if given.json else _as_line(finding))
    if not findings and not given.json:
        print("ok    nothing has come, and no box is enrolled")
    return 1 if any(finding.state == FAIL for finding in findings) else 0


def _losses(data: Path) -> list[Loss]:
    """What the events in the tables say of losses."""
    from edge.central.tables import Tables

    try:
        with Tables(data, memory_mb=0) as tables:
            found = tables.events_of(_LOSSES).to_pylist()
    except RequestRefused:
        return []
    return [
        Loss(bytes.fromhex(row["log_id"]), row["seq"], row["type"], row["body"])
        for row in found
        if not any(sign in row["body"] for sign in _HARMLESS)
    ]


def _as_line(finding: Finding) -> str:
    mend = f"  -> {finding.mend}" if finding.mend else ""
    return f"{finding.state:<5} {finding.box or '-':<16} {finding.check:<8} {finding.text}{mend}"


def _as_json(finding: Finding) -> str:
    said = {
        "state": finding.state,
        "box": finding.box,
        "check": finding.check,
        "text": finding.text,
        "mend": finding.mend,
    }
    return json.dumps(said)


def _gaps(given: argparse.Namespace) -> int:
    central = opened(given.data)
    found = 0
    shelf = central.shelf
    for gap in gaps(central.ledger, lambda each: shelf.path(each.log_id, each.number, each.id).exists()):
        found += 1
        if given.json:
            print(json.dumps({"kind": "gap", "box": gap.box, "log_id": gap.log_id.hex(), "first": gap.first,
                              "last": gap.last, "since_ns": gap.since_ns, "until_ns": gap.until_ns}))  # fmt: skip
            continue
        since = f"since {said_at(gap.since_ns)}" if gap.since_ns else "from its beginning"
        print(
            f"{gap.box}  events {gap.first} to {gap.last} are missing of log {gap.log_id.hex()}, {since}, "
            f"until {said_at(gap.until_ns)}"
        )
    for box, log_id in central.ledger.log_ids():
        for fork in central.ledger.segments(log_id, FORK):
            found += 1
            if given.json:
                print(json.dumps({"kind": "fork", "box": box, "log_id": log_id.hex(), "segment": fork.number,
                                  "first": fork.first_seq, "last": fork.last_seq}))  # fmt: skip
                continue
            print(
                f"{box}  segment {fork.number} is of another history, events {fork.first_seq} to {fork.last_seq}"
            )
    central.close()
    if not found and not given.json:
        print("none     every log that is here joins from its first event to its last")
    return 1 if found else 0
