"""`edge log recover` and `edge log salvage`: make a damaged log whole again, or name what is lost and go on.

Both need the log for themselves: the runtime must be stopped. Damaged files are kept beside, in `damaged-…`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from heapq import merge
from operator import itemgetter
from typing import Final

from edge.cli.index_child import IndexChild
from edge.cli.inputs import require_log
from edge.core.chain import Context, encode_event, seal_group
from edge.core.clock import SystemClock, boot_id
from edge.core.errors import LogDamaged
from edge.core.event_body import Body
from edge.core.events import Event, Gap
from edge.core.settings import Settings, load_settings
from edge.replay.doubt import ending, in_doubt
from edge.runtime.process.locks import lock_alone
from edge.store import mirror, segment_file
from edge.store.journal import Journal, read_groups
from edge.store.recovery import Loss, Other, Plan, StoredGroup, carry_out, make_plan
from edge.store.verify import verify_journal

_CAUSE: Final = "damaged"
_EVENTS_PER_GROUP: Final = 64


def add(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    """Add both actions to `edge log`."""
    recover = actions.add_parser(
        "recover",
        parents=[shared],
        help="make a damaged log whole from its other home; stop the box first",
        description="Make a damaged log whole: the journal from the index, the index from the journal. Nothing is "
        "given up: where events would be lost it says so and changes nothing.",
    )
    recover.add_argument("--dry-run", action="store_true", help="only say what would be done")
    anew = (
        "make the index again from the journal, though it reads well: damage may show only when it is written"
    )
    recover.add_argument("--index-anew", action="store_true", help=anew)
    recover.set_defaults(command=_recover)
    salvage = actions.add_parser(
        "salvage",
        parents=[shared],
        help="keep every good event, name every lost one; stop the box first",
        description="As recover, and where events are in no home any more: keep all others and write into the log "
        "which numbers are lost (a `gap` event).",
    )
    salvage.add_argument("--dry-run", action="store_true", help="only say what would be done")
    salvage.add_argument("--index-anew", action="store_true", help=anew)
    salvage.set_defaults(command=_salvage)


def _recover(given: argparse.Namespace) -> int:
    return _mend(given, give_up=False)


def _salvage(given: argparse.Namespace) -> int:
    return _mend(given, give_up=True)


def _mend(given: argparse.Namespace, *, give_up: bool) -> int:
    settings = _readable(load_settings(given.data))
    require_log(settings)
    lock_fd = lock_alone(settings)
    try:
        _name_again(settings, dry=given.dry_run)
        index = IndexChild(settings.index_folder)
        log_id = index.log_id() or _mirrored_id(settings)
        mirrored = _mirrored_id(settings) is not None
        other = _other(settings, index)
        made = make_plan(settings.journal_folder, other, log_id, other_has_end=mirrored)
        for loss in made.losses:
            print(f"lost     {loss}: in no home of this log")
        if made.losses and not give_up:
            raise LogDamaged(
                f"{_count(made.losses)} events cannot be recovered; nothing was changed.",
                mend="Run `edge log salvage` to keep all others and to name these in the log.",
            )
        known = verify_journal(settings.journal_folder).absent
        problem = index.check(known) or ("It is made anew as asked." if given.index_anew else "")
        return _do(settings, made, problem, dry=given.dry_run)
    finally:
        os.close(lock_fd)


def _readable(settings: Settings) -> Settings:
    """The settings, without the mirror where that cannot be read: mending goes on with what there is."""
    try:
        mirrored = _mirrored_id(settings)
    except OSError as error:
        print(f"mirror   {settings.mirror_folder} cannot be read, and is left out: {error.strerror}")
        return replace(settings, journal_mirror="off")
    own = segment_file.log_id_of(settings.journal_folder)
    if mirrored is not None and own is not None and mirrored != own:
        raise mirror.another_logs(settings.mirror_folder)
    return settings


def _name_again(settings: Settings, *, dry: bool) -> None:
    """Give segments that lost their names to a torn block of the file system's own their names back."""
    for folder in filter(None, (settings.journal_folder, settings.mirror_folder)):
        held = segment_file.nameless(folder)
        if held is None:
            continue
        name = segment_file.segment_name(held.header.first_seq)
        would = "would get" if dry else "gets"
        print(
            f"named    {held.path} holds events from {held.header.first_seq} on: it {would} its name {name} back"
        )
        if not dry:
            segment_file.name_again(folder)


def _mirrored_id(settings: Settings) -> bytes | None:
    end = mirror.end_of(settings.mirror_folder) if settings.mirror_folder is not None else None
    return end.log_id if end is not None else None


def _other(settings: Settings, index: IndexChild) -> Other:
    """What the mirror and the index have, as one home; where both have a group, the mirror's comes first."""
    folder = settings.mirror_folder
    if folder is None:
        return index.groups

    def groups(from_seq: int) -> Iterator[StoredGroup]:
        return merge(mirror.groups(folder, from_seq), index.groups(from_seq), key=itemgetter(0))

    return groups


def _count(losses: list[Loss]) -> int:
    return sum(loss.last - loss.first + 1 for loss in losses)


def _do(settings: Settings, made: Plan, index_problem: str, *, dry: bool) -> int:
    if made.nothing_to_do and not dry:
        _restore_mirror(settings)
    if made.nothing_to_do and not index_problem and not _unnoted(settings):
        print(f"whole    nothing to mend; the log ends at event {made.last_seq}")
        return 0
    kept = settings.data / f"damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    if not made.nothing_to_do:
        other = "the index" if settings.mirror_folder is None else "mirror and index"
        done = "would be written" if dry else "written"
        print(f"journal  {len(made.targets)} segments {done} anew, {made.taken} events taken from {other}")
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
    _note_losses(settings, made.highest)
    _restore_mirror(settings)
    if kept.exists():
        print(f"kept     what was damaged, in {kept}")
    print("done     start the box, then run `edge log verify`")
    return 0


def _restore_mirror(settings: Settings) -> None:
    """Make the mirror what the journal is, now that that is whole."""
    folder = settings.mirror_folder
    if folder is not None and (changed := mirror.restore(settings.journal_folder, folder)):
        print(f"mirror   {changed} files made the same as the journal's")


def _unnoted(settings: Settings) -> list[Loss]:
    """Losses that the segments name and the log itself does not: salvage was killed in between."""
    noted: set[tuple[int, int]] = set()

    def seen(event: Event) -> None:
        if isinstance(event.body, Gap):
            noted.add((event.body.first, event.body.last))

    report = verify_journal(settings.journal_folder, seen)
    return [Loss(*lost) for lost in report.lost if lost not in noted]


def _note_losses(settings: Settings, highest: int) -> None:
    """Write into the log what is lost and not noted yet, and end what that leaves in doubt.

    `highest` is the highest number seen in any home: what is written now goes on above it.
    """
    losses = _unnoted(settings)
    if not losses:
        return
    doubtful = in_doubt(_events(settings), losses[-1].last)
    for execution in doubtful:
        print(f"ended    execution {execution}: some of what it did may be lost")
    said = ", ".join(map(str, losses))
    bodies: list[tuple[Body, int | None]] = [(ending(said), execution) for execution in doubtful]
    bodies += [(Gap(loss.first, loss.last, _CAUSE), None) for loss in losses]
    journal = Journal(settings.journal_folder)
    journal.begin_life(boot_id(), highest)
    try:
        # The gaps come last: killed before them, the same command does all of this again.
        for start in range(0, len(bodies), _EVENTS_PER_GROUP):
            _append(journal, bodies[start : start + _EVENTS_PER_GROUP])
    finally:
        journal.close()


def _events(settings: Settings) -> Iterator[Event]:
    for _, group, _ in read_groups(settings.journal_folder):
        yield from group.events()


def _append(journal: Journal, bodies: list[tuple[Body, int | None]]) -> None:
    events = [Event(seq, body, execution) for seq, (body, execution) in enumerate(bodies, journal.next_seq)]
    parts = [part for event in events for part in encode_event(event)]
    if not journal.has_room_for(sum(map(len, parts)) + 16 * len(parts) + 512):
        journal.roll()
    context = Context(journal.log_id, boot_id(), SystemClock().read())
    epoch_key = journal.header.epoch_key
    journal.write(seal_group(events[0].seq, journal.last_link, context, epoch_key, parts))
