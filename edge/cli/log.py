"""`edge log`: look into the event log and check that it is whole. Reads files; works with or without a runtime."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

from edge.cli import log_mend, log_stat
from edge.cli.client import RuntimeClient
from edge.cli.index_child import IndexChild
from edge.cli.inputs import positive_count, require_log, whole_number
from edge.cli.story import counted, event_line, plain_json
from edge.core.chain import open_group
from edge.core.codec import decode
from edge.core.errors import LogDamaged, Unavailable
from edge.core.events import StepDone
from edge.core.settings import Settings, load_settings
from edge.store import mirror
from edge.store.journal import read_groups
from edge.store.numbers import told_range
from edge.store.verify import Report, compare_index, verify_journal
from edge.store.verify_blobs import BlobCheck


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the group to the command line."""
    parser = groups.add_parser(
        "log",
        help="show and verify the event log",
        description="Look into the event log; check that it is whole.",
        epilog="examples:\n  edge log show --last 20\n  edge log verify\n  edge log recover --dry-run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    show = actions.add_parser("show", parents=[shared], help="print events, oldest first")
    show.add_argument(
        "--after", type=whole_number, default=0, metavar="SEQ", help="only events above this number"
    )
    show.add_argument("--last", type=positive_count, metavar="N", help="only the last N events")
    show.add_argument("--json", action="store_true", help="one JSON object for each event")
    show.set_defaults(command=_show)
    verify = actions.add_parser(
        "verify", parents=[shared], help="recompute the chain, compare both homes, read large values"
    )
    verify.add_argument("--json", action="store_true", help="one JSON object")
    verify.set_defaults(command=_verify)
    log_stat.add(actions, shared)
    log_mend.add(actions, shared)


def _show(given: argparse.Namespace) -> int:
    settings = load_settings(given.data)
    require_log(settings)
    lines = _json_lines(settings, given.after) if given.json else _lines(settings, given.after)
    if not given.last:
        for line in lines:
            print(line)
        return 0
    kept: deque[str] = deque(maxlen=given.last)
    try:
        kept.extend(lines)
    finally:  # what can be read is shown before it is said what cannot
        print("\n".join(kept))
    return 0


def _lines(settings: Settings, after: int) -> Iterator[str]:
    for _, group, _ in read_groups(settings.journal_folder, after):
        yield from (event_line(event, group.context.at) for event in group.events() if event.seq > after)


def _json_lines(settings: Settings, after: int) -> Iterator[str]:
    for _, group, _ in read_groups(settings.journal_folder, after):
        for event in group.events():
            if event.seq > after:
                body = {name: getattr(event.body, name) for name in event.body.__dataclass_fields__}
                if isinstance(event.body, StepDone) and event.body.value is not None:
                    body["value"] = decode(event.body.value)
                yield plain_json(
                    {
                        "seq": event.seq,
                        "type": event.type,
                        "wall_ns": group.context.at.wall_ns,
                        "wall_trust": group.context.at.wall_trust,
                        "execution": event.execution,
                        "step": event.step,
                        "visit": event.visit,
                        "attempt": event.attempt,
                        "body": {name: value for name, value in body.items() if value is not None},
                    }
                )


def verify(settings: Settings) -> Report:
    """Check journal and index of a data folder, beside a running runtime or without one."""
    blobs = BlobCheck()
    report = verify_journal(settings.journal_folder, blobs.see)
    blobs.look(settings.blob_folder, settings.journal_folder)
    report.blobs, report.blobs_bytes = blobs.count, blobs.size_bytes
    report.problems += blobs.problems
    try:
        with RuntimeClient(settings) as runtime:
            compare_index(settings.journal_folder, _indexed_groups(runtime), report, live=True)
    except Unavailable:
        index = IndexChild(settings.index_folder)
        try:
            compare_index(settings.journal_folder, index.groups(), report)
        except LogDamaged as error:
            report.problems.append(error.message)
        report.problems += [index.damage] if index.damage or index.check_rows() else []
    if settings.mirror_folder is not None:
        try:
            problems, report.mirror_last_seq = mirror.differences(
                settings.journal_folder, settings.mirror_folder, report.last_seq
            )
        except OSError as error:
            problems = [f"The mirror in {settings.mirror_folder} cannot be read: {error.strerror}."]
        report.problems += problems
    return report


def _indexed_groups(runtime: RuntimeClient) -> Iterator[tuple[int, bytes, bytes]]:
    """All groups of a running runtime's index, page by page."""
    after = 0
    while page := runtime.call("indexed", after=after)["groups"]:
        for first_seq, epoch_key, data in page:
            yield first_seq, epoch_key, data
            after = open_group(first_seq, data).last_seq


def _verify(given: argparse.Namespace) -> int:
    settings = load_settings(given.data)
    require_log(settings)
    report = verify(settings)
    if given.json:
        fields = {name: getattr(report, name) for name in report.__dataclass_fields__ if name != "pruned"}
        through = None if report.pruned is None else report.pruned.through
        print(plain_json({**fields, "pruned_through": through, "whole": report.whole}))
        return 0 if report.whole else 1
    print(f"log      {report.log_id.hex() or 'of unknown id'}")
    of = (
        counted(report.segments, "segment"),
        counted(report.groups, "group"),
        counted(report.events, "event"),
    )
    print(f"journal  {', '.join(of)}")
    if report.events:
        print(
            f"events   {report.first_seq} to {report.last_seq}, chain ends at {report.last_link.hex()[:32]}"
        )
    index = "empty yet: it follows the journal every 1,000 events and at a stop"
    if report.index_last_seq is not None:
        index = f"agrees up to event {report.index_last_seq}"
    elif not report.whole:
        index = "not compared"
    print(f"index    {index}")
    if report.mirror_last_seq is not None:
        behind = "" if report.mirror_last_seq == report.last_seq else "; it is behind: see `edge doctor`"
        print(f"mirror   ends at event {report.mirror_last_seq}{behind}")
    if report.skipped:
        count = sum(last - first + 1 for first, last in report.skipped)
        print(f"skipped  {count} numbers at {len(report.skipped)} places: no event ever had them")
    for first, last in report.lost:
        print(f"lost     {told_range(first, last)}, and the log says so")
    if report.pruned is not None:
        print(
            f"pruned   up to event {report.pruned.through}, and the chain goes on from what the log says of it"
        )
    if report.blobs:
        print(
            f"blobs    {counted(report.blobs, 'large value')}, {report.blobs_bytes / 1e6:.1f} MB, each read"
        )
    for problem in report.problems:
        print(f"problem  {problem}", file=sys.stderr)
    print("whole" if report.whole else f"NOT whole: {counted(len(report.problems), 'problem')}")
    return 0 if report.whole else 1
