"""The two homes of the log brought together at a start: what only the journal has goes into LMDB, its chain checked.

Called once by the daemon, before anything is appended or looked up. It must never go on where the homes disagree:
which of them is right is for `edge log recover` to find.
"""

from __future__ import annotations

from typing import Final

from edge.core.errors import LogDamaged
from edge.store.eventlog import EventLog
from edge.store.index_prune import pruned_of
from edge.store.index_rows import IndexedGroup
from edge.store.journal import Journal, read_groups
from edge.store.verify import require_beginning

#: Groups in one transaction of LMDB: a long journal is not held in memory whole.
_GROUPS_MAX: Final = 2_000
_MEND: Final = "Run `edge log recover`: it takes what is damaged from the other home."


def catch_up(journal: Journal, eventlog: EventLog) -> int:
    """Put into LMDB what only the journal has, checking the chain on the way; how many events. LogDamaged."""
    seq, link = eventlog.last()
    known = eventlog.log_id()
    if known is not None and known != journal.log_id:
        raise LogDamaged(
            "Journal and index belong to different logs.", mend="Restore the folder that was exchanged."
        )
    if seq > journal.last_seq:
        raise LogDamaged(
            f"The journal ends at event {journal.last_seq}, the index already at {seq}: the journal lost its end.",
            mend=_MEND,
        )
    if seq == journal.last_seq and link != journal.last_link:
        raise LogDamaged(
            f"Journal and index both end at event {seq}, with different chains: one of them was exchanged.",
            mend=_MEND,
        )
    events = 0
    segment = None
    batch: list[IndexedGroup] = []
    for header, group, data in read_groups(journal.folder, seq):
        if header is not segment and seq < header.first_seq and (header.lost or not seq):
            # What is lost here has been named, or pruned; the chain goes on from what the header says.
            seq, link = header.first_seq - 1, header.previous
        segment = header
        if not group.follows(seq, link):
            raise LogDamaged(f"Event {seq + 1} is missing: the journal goes on at {group.first_seq}.")
        link = group.check(link, header.epoch_key)
        seq = group.last_seq
        events += seq - group.first_seq + 1
        batch.append(IndexedGroup(group.first_seq, seq, link, header.epoch_key, data, tuple(group.events())))
        if len(batch) >= _GROUPS_MAX:
            eventlog.commit(batch, journal.log_id)
            batch = []
    if batch:
        eventlog.commit(batch, journal.log_id)
    require_beginning(journal.folder, *pruned_of(eventlog))
    return events
