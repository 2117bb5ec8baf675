"""`edge log stat`: what an event log consists of: sizes of its homes, events by type, times, open executions.

Reads files only, so it works beside a running box: it then tells of the log up to the last whole group.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge.cli.client import RuntimeClient
from edge.cli.inputs import require_log
from edge.cli.story import clock_text, counted, plain_json
from edge.core.carried import held_by
from edge.core.chain import Context, OpenedGroup
from edge.core.errors import Unavailable
from edge.core.events import ExecutionFinished, ExecutionRequested
from edge.core.retention_events import Carried, ExecutionCarried, LogPruned
from edge.core.settings import Settings, load_settings
from edge.store.journal import read_groups
from edge.store.numbers import told_range
from edge.store.segment_file import segment_paths


@dataclass(slots=True)
class Figures:
    """What is counted. `bytes_by_type` are envelopes and bodies as they stand in the journal, before its frames."""

    first_seq: int = 0
    last_seq: int = 0
    groups: int = 0
    boots: set[bytes] = field(default_factory=set)
    first: Context | None = None
    last: Context | None = None
    events_by_type: Counter[str] = field(default_factory=Counter)
    bytes_by_type: Counter[str] = field(default_factory=Counter)
    open_executions: set[int] = field(default_factory=set)
    #: What the log says last of where it begins.
    pruned: LogPruned | None = None


def count(groups: Iterable[OpenedGroup]) -> Figures:
    """Go over a log once, oldest first. Raises LogDamaged where an event cannot be read."""
    figures = Figures()
    for group in groups:
        figures.first_seq = figures.first_seq or group.first_seq
        figures.first = figures.first or group.context
        figures.last_seq, figures.last = group.last_seq, group.context
        figures.groups += 1
        figures.boots.add(group.context.boot_id)
        for place, event in enumerate(group.events()):
            figures.events_by_type[event.type] += 1
            figures.bytes_by_type[event.type] += sum(map(len, group.parts[2 * place : 2 * place + 2]))
            if isinstance(event.body, LogPruned):
                figures.pruned = event.body
            is_open = type(event.body) is not Carried or event.body.open
            for each in held_by(event):
                if isinstance(each.body, ExecutionRequested) and is_open:
                    figures.open_executions.add(each.seq)
                elif isinstance(each.body, ExecutionFinished) and each.execution is not None:
                    figures.open_executions.discard(each.execution)
    return figures


def add(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add the action to `edge log`."""
    stat = actions.add_parser("stat", parents=[shared], help="sizes, events by type, times, open executions")
    stat.add_argument("--json", action="store_true", help="one JSON object")
    stat.set_defaults(command=_stat)


def _stat(given: argparse.Namespace) -> int:
    settings = load_settings(given.data)
    require_log(settings)
    figures = count(group for _, group, _ in read_groups(settings.journal_folder))
    sizes = {
        "journal": _size_bytes(settings.journal_folder),
        "index": _size_bytes(settings.index_folder),
        "blobs": _size_bytes(settings.blob_folder),
    }
    if settings.mirror_folder is not None:
        sizes["mirror"] = _size_bytes(settings.mirror_folder)
    kept = retention(settings, figures)
    if given.json:
        document = _document(figures, sizes, len(segment_paths(settings.journal_folder)))
        print(plain_json({**document, "retention": kept}))
        return 0
    within = f"{counted(figures.groups, 'group')}, {counted(len(figures.boots), 'boot')}"
    print(f"events   {figures.first_seq} to {figures.last_seq} in {within}")
    if figures.first is not None and figures.last is not None:
        print(f"from     {clock_text(figures.first.at)} to {clock_text(figures.last.at)}")
    print(f"open     {counted(len(figures.open_executions), 'execution')}")
    for name, size_bytes in sizes.items():
        print(f"{name:<8} {size_bytes / 1e6:.1f} MB on the drive")
    for line in _kept_lines(kept):
        print(line)
    print(f"{'events':>9} {'bytes':>12}  type")
    for kind, events in figures.events_by_type.most_common():
        print(f"{events:>9} {figures.bytes_by_type[kind]:>12}  {kind}")
    return 0


def retention(settings: Settings, figures: Figures) -> dict[str, Any]:
    """What the settings keep, what was pruned, and of a running box what holds the oldest segment."""
    pruned = figures.pruned
    kept: dict[str, Any] = {
        "policy": settings.retain_policy,
        "centre": settings.centre,
        "days": settings.retain_days,
        "budget_mb": settings.retain_mb,
        "remember_days": settings.remember_days,
        "pruned_through": pruned.through if pruned else None,
        "pruned_by": pruned.cause if pruned else None,
        "carried": figures.events_by_type[Carried.TYPE] + figures.events_by_type[ExecutionCarried.TYPE],
    }
    try:
        with RuntimeClient(settings) as runtime:
            kept["now"] = runtime.call("retention")
    except Unavailable:
        kept["now"] = None
    return kept


def _kept_lines(kept: dict[str, Any]) -> list[str]:
    """Retention for people."""
    days = f"{kept['days']} days" if kept["days"] else "any age"
    budget = f"{kept['budget_mb']} MB" if kept["budget_mb"] else "as much as the drive holds"
    centre = "a centre" if kept["centre"] else "no centre"
    lines = [f"kept     {days}, {budget}, {kept['policy']}, {centre}; ids for {kept['remember_days']} days"]
    if kept["pruned_through"] is not None:
        carried = f"; {counted(kept['carried'], 'event')} carried" if kept["carried"] else ""
        lines.append(f"pruned   up to event {kept['pruned_through']}, last by {kept['pruned_by']}{carried}")
    now = kept["now"]
    if now is None:
        return lines
    if now["receipted"] is not None:
        lines.append(f"centre   has up to event {now['receipted']}")
    if now["oldest"] is not None:
        first, last = now["oldest"]
        why = f"may go by {now['may_go_by']}" if now["may_go_by"] else f"stays: {_STAYS[now['stays']]}"
        lines.append(f"oldest   {told_range(first, last)}: {why} when room is wanted")
    if now["refusing"]:
        lines.append(f"full     requests are refused: {_STAYS[now['refusing']]}")
    return lines


_STAYS: Final = {
    "unsynced": "the centre does not have it yet",
    "held": "it is not old enough, and the policy is hold",
    "needed": "what is carried fills the budget",
    "drive": "the drive has less than the reserve left",
}


def _size_bytes(folder: Path) -> int:
    """What a folder takes on the drive; files that were filled ahead or are sparse count as what they occupy."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _document(figures: Figures, sizes: dict[str, int], segments: int) -> dict[str, object]:
    return {
        "first_seq": figures.first_seq,
        "last_seq": figures.last_seq,
        "groups": figures.groups,
        "segments": segments,
        "boots": len(figures.boots),
        "first_wall_ns": figures.first.at.wall_ns if figures.first else None,
        "last_wall_ns": figures.last.at.wall_ns if figures.last else None,
        "open_executions": len(figures.open_executions),
        "size_bytes": sizes,
        "events_by_type": dict(figures.events_by_type),
        "bytes_by_type": dict(figures.bytes_by_type),
    }
