"""Keeping the log within its bounds: looks now and then, prunes what may go, and says when requests must be refused.

Owned by the daemon, which calls `look` every few seconds. What it decides stands in the log: `log.pruned` with its
cause, `storage.refusing` with the reason and `storage.serving` when there is room again.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

from edge.core.errors import LogDamaged
from edge.core.limits import MIB
from edge.core.retention_events import StorageRefusing, StorageServing
from edge.runtime.commit.gate import CommitGate
from edge.runtime.requests.admit import FreeSpace
from edge.runtime.retention.pruner import Pruner, Segment, oldest_closed
from edge.runtime.retention.terms import AGE, DRIVE, HELD, NEEDED, UNSYNCED, Terms, Verdict, judge
from edge.store import upstream
from edge.store.index_prune import link_after, pruned_of, used_bytes
from edge.store.reserve import Reserve
from edge.store.segment_file import files_bytes, segment_paths

logger = logging.getLogger(__name__)

#: Blobs are counted again after so many looks, and whenever something was pruned.
_LOOKS_PER_COUNT: Final = 12
_AGAIN_NS: Final = 86_400 * 1_000_000_000
_WHY: Final = {
    UNSYNCED: "what is in it is not stored upstream yet",
    HELD: "nothing of it is old enough to be pruned",
    NEEDED: "what is in it is still needed",
}
_MENDS: Final = {
    UNSYNCED: "See that the box reaches its centre, or raise retain_mb in edge.toml.",
    HELD: "Raise retain_mb, or set retain_days or retain_policy in edge.toml.",
    NEEDED: "Raise retain_mb, or lower remember_days in edge.toml.",
}


class Keeper:
    """See the module."""

    def __init__(
        self,
        pruner: Pruner,
        gate: CommitGate,
        free_space: FreeSpace,
        terms: Terms,
        data: Path,
        reserve: Reserve,
    ) -> None:
        """`data` is the folder in which the receipt stands."""
        self._reserve = reserve
        homes = pruner.homes
        self._pruner, self._gate, self._eventlog, self._blobs = pruner, gate, homes.eventlog, homes.blobs
        self._free_space, self.terms, self._data, self._folder = free_space, terms, data, homes.journal.folder
        self._refusing = ""
        free_space.on_short = self._refused
        self._believed: tuple[upstream.Receipt | None, int] = (None, 0)
        self._receipt_problem = ""
        #: Where the log ended when room began to be wanted; what is younger was carried, or came meanwhile.
        self._pass_end = 0
        #: Nothing is pruned for room before that event or that moment (box-on time): nearly all of the log is needed.
        self._futile_until = 0, 0
        #: Negative where they are to be counted again.
        self._blob_bytes = -1
        self._looks = 0
        self.log_bytes = 0

    async def look(self) -> None:
        """Prune what may go, oldest first, and see whether requests can be taken."""
        self._hold()
        through, _ = pruned_of(self._eventlog)
        paths = segment_paths(self._folder)
        # A process before may have ended anywhere in it, and last of all go the blobs.
        if not self._looks or (through and paths and int(paths[0].stem) <= through):
            await self._pruner.finish()
            self._blob_bytes = -1
        self._looks += 1
        if self._looks % _LOOKS_PER_COUNT == 0:
            self._blob_bytes = -1
        stays = ""
        while True:
            await self._measure()
            short, over = self._free_space.is_short(), self._is_over()
            segment = oldest_closed(self._folder)
            verdict = Verdict() if segment is None else self._judge(segment, wanted=short or over)
            stays = verdict.stays
            if not short and not over:
                self._pass_end, self._futile_until = 0, (0, 0)
            if segment is None or not verdict.cause:
                break
            if verdict.cause != AGE and self._is_futile(segment):
                stays = NEEDED
                break
            carried = await self._pruner.prune(segment, self.terms, verdict.cause)
            self._blob_bytes = -1
            said = "pruned events %d to %d by %s, %d carried"
            logger.info(said, segment.first_seq, segment.last_seq, verdict.cause, carried)
        self._say(DRIVE if short else stays if over else "")

    def _hold(self) -> None:
        """See that what is left of the drive is ours."""
        self._pruner.homes.journal.hold_next()
        self._reserve.hold()
        self._free_space.reserved_bytes = self._reserve.held_bytes

    def _is_futile(self, segment: Segment) -> bool:
        """Whether all of the log was gone through since room began to be wanted: what is carried fills it.

        Trying again would write the same again, and with a centre have it shipped again, and so on for ever: it is
        tried when the log has grown by a quarter, or a day later, since ids are forgotten by time.
        """
        next_seq, now_ns = self._gate.next_seq, self._gate.now().at.mono_ns
        if self._pass_end and segment.first_seq >= self._pass_end:
            self._futile_until = next_seq + (next_seq - segment.first_seq) // 4, now_ns + _AGAIN_NS
            self._pass_end = 0
        until_seq, until_ns = self._futile_until
        if next_seq < until_seq and now_ns < until_ns:
            return True
        self._pass_end = self._pass_end or next_seq
        return False

    def _judge(self, segment: Segment, *, wanted: bool) -> Verdict:
        """By the age of the event that comes after it: what is older than that is in it."""
        following = next(self._eventlog.groups(segment.last_seq, 1), None)
        if following is None:
            return Verdict()
        context = following[1].context
        age_s = self._pruner.on_time().age_s(context.boot_id, context.at.mono_ns)
        receipted = self.terms.centre and self.receipted() >= segment.last_seq
        return judge(self.terms, age_s=age_s, receipted=receipted, wanted=wanted)

    def receipted(self) -> int:
        """Up to which event the centre has this log, as far as the log's own chain agrees; 0 for nothing."""
        try:
            receipt = upstream.read(self._data)
        except LogDamaged as error:
            self._doubt(str(error))
            return 0
        known, through = self._believed
        if receipt is None or receipt == known:
            return through if receipt is not None else 0
        if self._eventlog.last()[0] < receipt.through <= self._gate.durable_seq:
            return through  # the index has yet to come to it
        if receipt.log_id != self._eventlog.log_id() or not self._agrees(receipt):
            self._doubt("The receipt is of a history that this log does not have: nothing is pruned by it.")
            return through
        self._believed, self._receipt_problem = (receipt, receipt.through), ""
        return receipt.through

    def _agrees(self, receipt: upstream.Receipt) -> bool:
        """Whether the receipt is of this very history; what was pruned below its end can be asked no more."""
        pruned, link = pruned_of(self._eventlog)
        if receipt.through < pruned:
            return True
        if receipt.through == pruned:
            return receipt.link == link
        return link_after(self._eventlog, receipt.through) == receipt.link

    def _doubt(self, problem: str) -> None:
        if problem != self._receipt_problem:
            self._receipt_problem = problem
            logger.error("%s", problem)

    def _is_over(self) -> bool:
        return 0 < self.terms.budget_bytes < self.log_bytes

    async def _measure(self) -> None:
        """What the log takes. Of the index its pages in use: the file never shrinks, those freed are used again."""
        if not self.terms.budget_bytes:
            self._blob_bytes = 0  # nobody asks
        elif self._blob_bytes < 0:
            self._blob_bytes = await self._gate.in_journal(self._blobs.used_bytes)
        self.log_bytes = files_bytes(self._folder) + used_bytes(self._eventlog) + self._blob_bytes

    def _say(self, reason: str) -> None:
        """Write down when requests begin to be refused, and when they are taken again."""
        free_bytes = self._free_space.free_bytes()
        if reason in ("", DRIVE):
            self._free_space.held = None
        else:
            log_mb, budget_mb = self.log_bytes // MIB, self.terms.budget_bytes // MIB
            message = f"The log has {log_mb} MB of the {budget_mb} it may take, and {_WHY[reason]}."
            self._free_space.held = message, _MENDS[reason]
        if reason == self._refusing:
            return
        if reason:
            self._gate.append(StorageRefusing(reason, free_bytes, self.log_bytes), held_back=True)
            logger.warning("requests are refused: storage_full (%s)", reason)
        else:
            self._gate.append(StorageServing(free_bytes, self.log_bytes), held_back=True)
            logger.info("requests are taken again: there is room")
        self._refusing = reason

    def _refused(self) -> None:
        """The drive was found short between two looks."""
        if not self._refusing:
            self._say(DRIVE)

    def told(self) -> dict[str, Any]:
        """What `edge log stat` shows of a running box."""
        segment = oldest_closed(self._folder)
        verdict = Verdict() if segment is None else self._judge(segment, wanted=True)
        return {
            "log_bytes": self.log_bytes,
            "budget_bytes": self.terms.budget_bytes,
            "refusing": self._refusing or None,
            "oldest": None if segment is None else [segment.first_seq, segment.last_seq],
            "may_go_by": verdict.cause or None,
            "stays": verdict.stays or None,
            "receipted": self.receipted() if self.terms.centre else None,
        }
