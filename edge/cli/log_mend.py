"""`edge log recover` and `edge log salvage`: make a damaged log whole again, or name what is lost and go on.

Both need the log for themselves: the runtime must be stopped. Damaged files are kept beside, in `damaged-…`.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any, Final

from edge.cli.index_child import IndexChild
from edge.cli.inputs import require_log
from edge.core.chain import Context, encode_event, seal_group
from edge.core.clock import SystemClock, boot_id
from edge.core.errors import LogDamaged
from edge.core.events import Event, Gap
from edge.core.settings import Settings, load_settings
from edge.runtime.locks import lock_alone
from edge.store.journal import Journal
from edge.store.recovery import Loss, Plan, carry_out, make_plan

_CAUSE: Final = "damaged"


def add(actions: Any, shared: argparse.ArgumentParser) -> None:
    """Add both actions to `edge log`."""
    recover = actions.add_parser(
        "recover",
        parents=[shared],
        help="make a damaged log whole from its other home; stop the box first",
        description="Make a damaged log whole: the journal from the index, the index from the journal. Nothing is "
        "given up: where events would be lost it says so and changes nothing.",
    )
    recover.add_argument("--dry-run", action="store_true", help="only say what would be done")
    recover.set_defaults(command=_recover)
    salvage = actions.add_parser(
        "salvage",
        parents=[shared],
        help="keep every good event, name every lost one; stop the box first",
        description="As recover, and where events are in no home any more: keep all others and write into the log "
        "which numbers are lost (a `gap` event).",
    )
    salvage.add_argument("--dry-run", action="store_true", help="only say what would be done")
    salvage.set_defaults(command=_salvage)


def _recover(given: argparse.Namespace) -> int:
    return _mend(given, give_up=False)


def _salvage(given: argparse.Namespace) -> int:
    return _mend(given, give_up=True)


def _mend(given: argparse.Namespace, *, give_up: bool) -> int:
    settings = load_settings(given.data)
    require_log(settings)
    lock_fd = lock_alone(settings)
    try:
        index = IndexChild(settings.index_folder)
        made = make_plan(settings.journal_folder, index.groups, index.log_id())
        for loss in made.losses:
            print(f"lost     {loss}: in no home of this log")
        if made.losses and not give_up:
            raise LogDamaged(
                f"{_count(made.losses)} events cannot be recovered; nothing was changed.",
                mend="Run `edge log salvage` to keep all others and to name these in the log.",
            )
        return _do(settings, made, index, dry=given.dry_run)
    finally:
        os.close(lock_fd)


def _count(losses: list[Loss]) -> int:
    return sum(loss.last - loss.first + 1 for loss in losses)


def _do(settings: Settings, made: Plan, index: IndexChild, *, dry: bool) -> int:
    index_problem = index.check()
    if made.nothing_to_do and not index_problem:
        print(f"whole    nothing to mend; the log ends at event {made.last_seq}")
        return 0
    kept = settings.data / f"damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    if not made.nothing_to_do:
        done = "would be written" if dry else "written"
        print(f"journal  {len(made.targets)} segments {done} anew, {made.taken} events taken from the index")
        if not dry:
            carry_out(made, settings.journal_folder, kept / "journal")
    if settings.index_folder.exists() and (index_problem or made.losses):
        why = index_problem or "It holds nothing of what is lost."
        print(
            f"index    {why} It {'would be' if dry else 'is'} made again from the journal at the next start"
        )
        if not dry:
            kept.mkdir(exist_ok=True, mode=0o750)
            settings.index_folder.rename(kept / "index")
    if dry:
        return 0
    last_seq = _note_gaps(settings, made.losses)
    print(f"kept     what was damaged, in {kept}")
    print(f"done     the log ends at event {last_seq}; start the box, then run `edge log verify`")
    return 0


def _note_gaps(settings: Settings, losses: list[Loss]) -> int:
    """Write what is lost into the log itself; the number of the last event."""
    journal = Journal(settings.journal_folder)
    try:
        if losses:
            events = [
                Event(seq, Gap(loss.first, loss.last, _CAUSE))
                for seq, loss in enumerate(losses, journal.last_seq + 1)
            ]
            parts = [part for event in events for part in encode_event(event)]
            if not journal.has_room_for(sum(map(len, parts)) + 64 * len(parts) + 512):
                journal.roll()
            context = Context(journal.log_id, boot_id(), SystemClock().read())
            epoch_key = journal.header.epoch_key
            journal.write(seal_group(events[0].seq, journal.last_link, context, epoch_key, parts))
        return journal.last_seq
    finally:
        journal.close()
