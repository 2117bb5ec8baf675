"""The journal over random groups, cuts and damage: always the prefix, or a refusal by name."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.errors import LogDamaged
from edge.core.events import Event, Gap
from edge.core.limits import KIB
from edge.store.journal import Journal, read_groups
from edge.store.segment_file import segment_paths
from edge.store.verify import verify_journal
from edge.testing.history import write_group

SMALL = 2 * KIB
groups = st.lists(st.lists(st.text(max_size=60), min_size=1, max_size=4), min_size=1, max_size=12)


def build(folder: Path, written: list[list[str]]) -> list[int]:
    """Write the groups; the last number after each."""
    journal = Journal(folder, segment_bytes=SMALL)
    ends = [0]
    for texts in written:
        first = journal.last_seq + 1
        write_group(journal, [Event(first + n, Gap(n, n, text)) for n, text in enumerate(texts)])
        ends.append(journal.last_seq)
    journal.close()
    return ends


@settings(max_examples=25, deadline=None)
@given(groups)
def test_what_was_written_is_read_in_order(written: list[list[str]]) -> None:
    """Every event of every group is read back in order, and the whole log verifies."""
    folder = Path(tempfile.mkdtemp())
    try:
        build(folder, written)
        texts = [event.body.cause for _, group, _ in read_groups(folder) for event in group.events()]  # type: ignore[attr-defined]
        assert texts == [text for group in written for text in group]
        assert verify_journal(folder).whole
    finally:
        shutil.rmtree(folder)


@settings(max_examples=60, deadline=None)
@given(groups, st.data())
def test_a_flip_anywhere_is_a_prefix_or_a_refusal(written: list[list[str]], data: st.DataObject) -> None:
    """One flipped bit in the last segment leaves a prefix of whole groups, or LogDamaged; never other events."""
    folder = Path(tempfile.mkdtemp())
    try:
        ends = build(folder, written)
        path = segment_paths(folder)[-1]
        damaged = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(damaged) - 1), label="place")
        damaged[place] ^= 1 << data.draw(st.integers(0, 7), label="bit")
        path.write_bytes(damaged)
        try:
            journal = Journal(folder, segment_bytes=SMALL)
        except LogDamaged:
            assert not verify_journal(folder).whole
            return
        journal.close()
        assert journal.last_seq in ends
        assert journal.last_seq >= ends[-2]
        texts = [event.body.cause for _, group, _ in read_groups(folder) for event in group.events()]  # type: ignore[attr-defined]
        assert texts == [text for group in written for text in group][: journal.last_seq]
    finally:
        shutil.rmtree(folder)
