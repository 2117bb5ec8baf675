"""What the journal holds of one execution, and how much of it was written. Reads files of a live box only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge.core.chain import open_group
from edge.core.limits import SEGMENT_BYTES
from edge.store.segment_file import Frame, SegmentReader, segment_paths


def _frames(folder: Path, first_seq: int) -> Iterator[Frame]:
    paths = segment_paths(folder)
    firsts = [int(path.stem) for path in paths]
    for index, path in enumerate(paths):
        if index + 1 < len(paths) and firsts[index + 1] <= first_seq:
            continue
        yield from SegmentReader(path).frames()


def cost_of(folder: Path, execution_seq: int) -> tuple[int, int]:
    """`(bytes, events)` of one execution: whole frames that hold its events, headers and neighbours included."""
    size_bytes = events = 0
    for frame in _frames(folder, execution_seq):
        if frame.first_seq + frame.count <= execution_seq:
            continue
        group = open_group(frame.first_seq, frame.data)
        own = sum(event.execution == execution_seq for event in group.events())
        if own:
            events += own
            size_bytes += frame.end - frame.offset
    return size_bytes, events


def last_seq(folder: Path) -> int:
    """Number of the last event that is durable."""
    found = 0
    for frame in _frames(folder, int(segment_paths(folder)[-1].stem)):
        found = frame.first_seq + frame.count - 1
    return found


def written_bytes(folder: Path) -> int:
    """Bytes of all segments that frames were written to."""
    *full, last = segment_paths(folder)
    reader = SegmentReader(last)
    for _ in reader.frames():
        pass
    end: int = reader.end
    return len(full) * SEGMENT_BYTES + end


def prepared_files(folder: Path) -> int:
    """Files that were filled with zeros: segments and spares."""
    # Room that is only allocated, for a spare to come, was not written.
    return sum(path.stat().st_size == SEGMENT_BYTES for path in folder.iterdir() if path.suffix != ".part")
