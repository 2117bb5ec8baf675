"""The log's two homes as a machine of states beside a plain list: appended, cut, torn, damaged, lost, recovered."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.core.errors import LogDamaged
from edge.core.events import Event, Gap
from edge.core.limits import KIB
from edge.runtime.commit.catching_up import catch_up
from edge.store.eventlog import EventLog
from edge.store.index_rows import IndexedGroup
from edge.store.journal import Journal, read_groups
from edge.store.recovery import StoredGroup, carry_out, make_plan
from edge.store.segment_file import SegmentReader, segment_paths
from edge.store.verify import compare_index, verify_journal
from edge.testing.history import write_group

SEGMENT_BYTES = 2 * KIB
texts = st.lists(st.text(max_size=60), min_size=1, max_size=4)


class Log(RuleBasedStateMachine):
    """`model` is what was promised: the events of all groups whose flush was told, `(number, text)` each."""

    @initialize()
    def begin(self) -> None:
        """An empty folder; the first life."""
        self.folder = Path(tempfile.mkdtemp(prefix="edge-log-"))
        self.urandom, os.urandom = os.urandom, Random(0).randbytes  # so that a failure can be made smaller
        self.model: list[tuple[int, str]] = []
        self.unindexed: list[IndexedGroup] = []
        #: Every number that was ever given out, written or not: `(first, last)` each.
        self.given: list[tuple[int, int]] = []
        self.boot = 0
        self.kept = 0
        self._open(other_boot=False)

    def _open(self, *, other_boot: bool) -> None:
        self.boot += other_boot
        self.journal = Journal(self.folder / "journal", segment_bytes=SEGMENT_BYTES)
        self.index = EventLog(self.folder / "index")
        catch_up(self.journal, self.index)
        self.journal.begin_life(b"%016d" % self.boot)
        self.unindexed, self.wrote = [], False
        assert self.index.last()[1] == self.journal.last_link

    def _close(self) -> None:
        self.journal.close()
        self.index.close()

    def _write(self, said: list[str]) -> list[tuple[int, str]]:
        first, self.wrote = self._give_out(len(said)), True
        events = [Event(first + n, Gap(1, 1, text)) for n, text in enumerate(said)]
        self.unindexed.append(write_group(self.journal, events, boot_id=b"%016d" % self.boot))
        return [(first + n, text) for n, text in enumerate(said)]

    def _give_out(self, count: int) -> int:
        first, last = self.journal.next_seq, self.journal.next_seq + count - 1
        again = [each for each in self.given if each[0] <= last and first <= each[1]]
        assert again == [], f"{first} to {last} are given out again"
        self.given.append((first, last))
        return first

    def _held(self) -> list[tuple[int, str]]:
        groups = (group for _, group, _ in read_groups(self.folder / "journal"))
        return [(event.seq, _text(event)) for group in groups for event in group.events()]

    # ---- what the runtime does -------------------------------------------------------------------------

    @rule(said=texts)
    def append(self, said: list[str]) -> None:
        """A group is written, flushed and told."""
        self.model += self._write(said)

    @rule()
    def commit(self) -> None:
        """The index gets what is durable."""
        self.index.commit(self.unindexed, self.journal.log_id)
        self.unindexed = []

    @rule()
    def roll(self) -> None:
        """The journal goes on in a new segment."""
        self.journal.roll()

    @precondition(lambda self: self.wrote)
    @rule(count=st.integers(1, 50), other_boot=st.booleans())
    def give_out(self, count: int, other_boot: bool) -> None:
        """Events get numbers in memory and are never written; the life, which wrote before, ends by that."""
        self._give_out(count)
        self.crash(other_boot=other_boot)

    # ---- what happens to it ----------------------------------------------------------------------------

    @rule(other_boot=st.booleans())
    def crash(self, other_boot: bool) -> None:
        """The process ends without a word: the index lacks what it was not given."""
        self._close()
        self._open(other_boot=other_boot)

    @rule(said=texts, kept=st.floats(0, 1), holes=st.sets(st.integers(0, 7), max_size=4))
    def cut(self, said: list[str], kept: float, holes: set[int]) -> None:
        """Power fails while a group is written: a part of it is on the drive, or all, with holes; nobody was told."""
        self._write(said)
        path = segment_paths(self.folder / "journal")[-1]
        self._close()
        *_, frame = SegmentReader(path).frames()
        start, length = frame.offset, frame.end - frame.offset
        data = bytearray(path.read_bytes())
        whole = start + round(length * kept)
        data[whole:] = bytes(len(data) - whole)
        for hole in holes:
            at = start + length * hole // 8
            data[at : at + length // 8] = bytes(len(data[at : at + length // 8]))
        path.write_bytes(data)
        self._open(other_boot=True)
        # The whole of it or nothing: whatever is there now is promised by the start that found it.
        held = self._held()
        told = len(self.model)
        assert held[:told] == self.model
        assert [text for _, text in held[told:]] in ([], said)
        self.model = held

    @rule()
    def lose_the_index(self) -> None:
        """It is made again from the journal."""
        self._close()
        shutil.rmtree(self.folder / "index")
        self._open(other_boot=False)

    @precondition(lambda self: self.model)
    @rule(at=st.floats(0, 1), size=st.integers(1, 400), sign=st.sampled_from([b"\xff", b"\0", b"\x55"]))
    def damage_the_journal(self, at: float, size: int, sign: bytes) -> None:
        """A piece of any segment is overwritten; the index has all of it, and the journal is mended from there."""
        self.commit()
        self._close()
        paths = segment_paths(self.folder / "journal")
        place = min(int(at * len(paths)), len(paths) - 1)
        data = bytearray(paths[place].read_bytes())
        used = max(1, len(data.rstrip(b"\0")))
        first = int((at * len(paths)) % 1 * used)
        data[first : first + size] = sign * len(data[first : first + size])
        paths[place].write_bytes(data)
        self._recover()

    @precondition(lambda self: self.model)
    @rule(chosen=st.floats(0, 0.999))
    def lose_a_segment(self, chosen: float) -> None:
        """A file is gone, perhaps all there are."""
        self.commit()
        self._close()
        paths = segment_paths(self.folder / "journal")
        paths[int(chosen * len(paths))].unlink()
        self._recover()

    def _recover(self) -> None:
        """As `edge log recover` does, with the box stopped."""
        index = EventLog(self.folder / "index")

        def groups(from_seq: int) -> Iterator[StoredGroup]:
            return ((group.first_seq, key, data) for key, group, data in index.groups(max(0, from_seq - 1)))

        try:
            made = make_plan(self.folder / "journal", groups, index.log_id())
            # Without its end, or a header that named a loss, nobody knows what else a journal held: that is named.
            lost = [seq for seq, _ in self.model for loss in made.losses if loss.first <= seq <= loss.last]
            assert lost == [], "the index had everything"
            if not made.nothing_to_do:
                self.kept += 1
                carry_out(made, self.folder / "journal", self.folder / f"kept{self.kept}")
        finally:
            index.close()
        self._open(other_boot=True)

    # ---- what holds ------------------------------------------------------------------------------------

    @invariant()
    def holds_what_was_told(self) -> None:
        """The journal is the model, whole; the index is a beginning of it, and both are one chain."""
        if not hasattr(self, "model"):
            return
        assert self._held() == self.model
        report = verify_journal(self.folder / "journal")
        assert report.problems == []
        assert not any(first <= seq <= last for seq, _ in self.model for first, last in report.lost)
        groups = list(self.index.groups())
        indexed = [(event.seq, _text(event)) for _, group, _ in groups for event in group.events()]
        assert indexed == self.model[: len(indexed)]
        assert len(self.model) - len(indexed) == sum(len(group.events) for group in self.unindexed)
        stored = ((group.first_seq, key, data) for key, group, data in groups)
        compare_index(self.folder / "journal", stored, report)
        assert report.problems == []

    @precondition(lambda self: self.model)
    @rule(chosen=st.floats(0, 0.999))
    def looked_up(self, chosen: float) -> None:
        """Any event that the index has is found by its number; one that never was is refused."""
        seq, text = self.model[int(chosen * len(self.model))]
        if seq <= self.index.last()[0]:
            assert _text(self.index.event(seq)) == text
        try:
            self.index.event(self.given[-1][1] + 1)
        except LogDamaged:
            return
        raise AssertionError("an event that never was is there")

    def teardown(self) -> None:
        """Nothing stays."""
        if hasattr(self, "folder"):
            os.urandom = self.urandom
            self._close()
            shutil.rmtree(self.folder)


def _text(event: Event) -> str:
    body: Any = event.body
    return str(body.cause)


TestLog = pytest.mark.minutes(Log.TestCase)
TestLog.settings = settings(
    max_examples=int(os.environ.get("EDGE_TEST_LOG_RUNS") or 15),
    stateful_step_count=25,
    deadline=None,
    # Making a failure smaller runs it hundreds of times more; `hypothesis.seed` finds it again.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
