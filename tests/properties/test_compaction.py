"""Whatever comes when, and whenever it is compacted: the tables are those of one compaction of all at once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.central.rebuild import rebuild
from edge.segments.sealed import open_sealed
from tests.unit.central_rig import Centre, Pump

_SEGMENTS = 5


def _made() -> Iterator[list[bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        for box in ("pump-7", "box-1"):
            pump = Pump(Path(folder) / box, box)
            open_ones: list[int] = []
            for number in range(_SEGMENTS):
                pump.run()
                open_ones.append(pump.begin())
                if number > 1:
                    pump.end(open_ones.pop(0), failed=number % 2 == 0)
                pump.seal()
            yield pump.segments()


LOGS = list(_made())
ALL = [segment for log in LOGS for segment in log]


def _at_once() -> list[tuple[Any, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        made = Centre(Path(folder))
        made.take(ALL)
        made.compact()
        rows = made.rows()
        made.central.close()
        return rows


AT_ONCE = _at_once()


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_order_and_any_compactions_give_the_same_tables(data: st.DataObject) -> None:
    """Never an event twice, linked rows are exactly the linked beginning, and in the end all is as made at once."""
    order = data.draw(st.permutations(range(len(ALL))))
    with tempfile.TemporaryDirectory() as folder:
        made = Centre(Path(folder) / "centre")
        taken: list[int] = []
        for place in order:
            made.take([ALL[place]])
            taken.append(place)
            if data.draw(st.booleans()):
                made.compact(anew=data.draw(st.integers(0, 5)) == 0)
                _check(made, taken)
        made.compact()
        rows = made.rows()
        assert rows == AT_ONCE
        rebuild(made.central.shelf, made.data / "ledger.sqlite")
        made.central.close()
        again = Centre(made.data)
        assert again.compact().files == 0
        again.compact(anew=True)
        assert again.rows() == rows
        again.central.close()


def _check(made: Centre, taken: list[int]) -> None:
    found = made.ask("SELECT box, seq, linked FROM events ORDER BY box, seq")
    expected = []
    for log, segments in enumerate(LOGS):
        linked = True
        for number, segment in enumerate(segments):
            if log * _SEGMENTS + number not in taken:
                linked = False
                continue
            said = open_sealed(segment).manifest
            expected += [(said.box, seq, linked) for seq in range(said.first_seq, said.last_seq + 1)]
    assert found == sorted(expected)
