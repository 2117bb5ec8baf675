"""Shipping turn by turn, in virtual time, from a box's own folder into a real centre."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.core.errors import ReceiptRejected
from edge.core.limits import BACKOFF_S_MAX
from edge.security.signing import Signer
from edge.segments.sealing import manifest_of, sealed_paths
from edge.store import upstream
from edge.sync.budget import DAY_NS, Budget
from edge.sync.push import push
from edge.sync.status import status_of
from edge.testing.transport_conformance import Written
from tests.unit.shipping_rig import S_NS, Shipping


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Shipping]:
    """No budget but the line's own."""
    made = Shipping(tmp_path)
    yield made
    made.central.close()


def _limited(folder: Path, budget: Budget) -> Shipping:
    return Shipping(folder, budget)


def test_all_goes_once_and_the_receipt_empties_the_queue(box: Shipping) -> None:
    """A backlog in one upload, later a single one; what is receipted left the box, and nothing is sent twice."""
    box.grow(10)
    box.ship()
    assert box.way.parcels == [list(range(10))]
    box.grow(1)
    box.ship()
    assert box.way.parcels[1:] == [[10]]
    assert sealed_paths(box.settings.sealed_folder) == []
    receipt = upstream.read(box.settings.data)
    assert receipt is not None
    assert receipt.through == box.linked == 33


def test_a_lost_queue_goes_on_where_the_centre_is(box: Shipping) -> None:
    """Somebody emptied the folder before all was sent: what the centre lacks is sealed again, and no more."""
    box.grow(4)
    box.ship()
    box.grow(3)
    for path in sealed_paths(box.settings.sealed_folder):
        path.unlink()
    assert status_of(box.settings).gaps == [(13, 21)]
    box.grow(1)
    assert status_of(box.settings).gaps == []
    box.ship()
    assert box.way.parcels == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert box.linked == 24
    assert status_of(box.settings).problems == []


def test_a_trouble_from_before_the_newest_receipt_is_over(box: Shipping) -> None:
    """The daemon's note stays when it stops; what a person brought by hand since is newer."""
    note = box.settings.data / "run" / "sync.json"
    note.parent.mkdir(exist_ok=True)
    box.grow(1)
    note.write_text('{"said": "stopped", "trouble": "the centre did not answer"}')
    assert status_of(box.settings).problems == ["the centre did not answer"]
    box.ship()
    os.utime(note, (5, 5))
    assert status_of(box.settings).problems == []


def test_what_rots_in_the_queue_is_said(box: Shipping) -> None:
    """Before anybody sends it: one flipped bit in a segment's events, and the file that says what to do."""
    box.grow(2)
    path = sealed_paths(box.settings.sealed_folder)[1]
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (problem,) = status_of(box.settings).problems
    assert problem.startswith("segment 1 is damaged on the box")
    assert "Move that file away: it is sealed again" in problem
    path.unlink()
    box.grow(1)
    assert status_of(box.settings).problems == []
    box.ship()
    assert box.linked == 9


def test_a_receipt_of_the_log_before_is_said_and_not_believed(box: Shipping) -> None:
    """A new log was begun and the old receipt left: what it says of is not what is here."""
    box.grow(1)
    upstream.write(box.settings.data, upstream.Receipt(b"another.", 999, bytes(32)))
    said = status_of(box.settings)
    assert (said.receipted, said.waiting_segments) == (0, 1)
    assert f"Remove {box.settings.data / upstream.FILE_NAME}" in said.problems[0]


def test_a_receipt_that_cannot_be_read_is_replaced_by_the_next(box: Shipping) -> None:
    """Meanwhile the log is sealed and sent as if nobody had it."""
    box.grow(1)
    box.ship()
    (box.settings.data / upstream.FILE_NAME).write_bytes(b"")
    assert "cannot be read" in status_of(box.settings).problems[0]
    box.grow(1)
    box.ship()
    assert status_of(box.settings).problems == []
    receipt = upstream.read(box.settings.data)
    assert receipt is not None
    assert receipt.through == box.linked == 6


def test_a_push_that_meets_another_history_stops_the_upload(box: Shipping, tmp_path: Path) -> None:
    """As when the process that ships meets it: `edge sync status` must not say that all is well."""
    box.grow(1)
    shutil.copytree(box.settings.data, tmp_path / "other")
    Written(tmp_path / "other").grow(9, 1)
    for path in sealed_paths(tmp_path / "other" / "sealed"):
        box.central.take(path.read_bytes(), deep=True)
    box.grow(2)
    log_id = manifest_of(sealed_paths(box.settings.sealed_folder)[0]).log_id
    with pytest.raises(ReceiptRejected, match="another history"):
        push(box.settings, box.way, log_id, lambda size_bytes: None)
    said = status_of(box.settings).problems
    assert [each.split(": ")[0] for each in said] == [
        "the upload is STOPPED at segment 0", "the upload is STOPPED at segment 2",
    ]  # fmt: skip


def test_an_idle_box_asks_nothing(box: Shipping) -> None:
    """With an empty queue the centre is not asked, not once in a day."""
    box.grow(1)
    box.ship()
    asked = box.way.asked
    for _ in range(40_000):
        assert box.shipper.turn().wait_s == 2.0
        box.clock.advance(2 * S_NS)
    assert box.way.asked == asked


def test_days_away_cost_little_and_nothing_is_lost(box: Shipping) -> None:
    """Two days without a centre: some 1,200 attempts; then all goes within five minutes, in one upload."""
    box.grow(3)
    box.way.down = -1
    began_ns = box.clock.now.mono_ns
    turns = 0
    while box.clock.now.mono_ns - began_ns < 2 * DAY_NS:
        turn = box.shipper.turn()
        turns += 1
        box.way.down = -1
        box.clock.advance(int(turn.wait_s * S_NS))
    assert turns < 1_300
    box.way.down = 0
    back_ns = box.clock.now.mono_ns
    box.ship()
    assert box.clock.now.mono_ns - back_ns <= BACKOFF_S_MAX * S_NS
    assert box.way.parcels == [[0, 1, 2]]
    assert box.linked == 9


def test_a_day_without_a_network_leaves_the_budget(tmp_path: Path) -> None:
    """Attempts that meet nobody cost next to nothing: when the network is back, the day's budget is there."""
    box = _limited(tmp_path, Budget(day_bytes=5_000_000))
    box.grow(3)
    box.way.down = -1
    for _ in range(500):
        box.clock.advance(int(box.shipper.turn().wait_s * S_NS) // 100)
        box.way.down = -1
    left = status_of(replace(box.settings, link="ethernet", budget_ethernet="5 MB/day")).left.day_bytes
    assert left is not None
    assert left > 4_500_000
    box.central.close()


def test_a_poison_segment_is_set_aside_and_the_rest_goes_on(box: Shipping) -> None:
    """A segment that the centre refuses is named with its reason, over restarts too, and all behind it arrives."""
    box.grow(2)
    path = sealed_paths(box.settings.sealed_folder)[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    box.grow(3)
    box.ship()
    box.restart()
    box.ship()
    assert [numbers for numbers in box.way.parcels if 0 in numbers] == [[0, 1, 2, 3, 4]]
    said = status_of(box.settings)
    assert said.unsealed == 0
    assert [each.number for each in said.aside] == [0]
    assert any("segment 0" in problem for problem in said.problems)
    assert said.waiting_segments == 5
    data[-1] ^= 1
    path.write_bytes(data)
    box.shipper.aside.clear()
    box.restart()
    box.ship()
    assert box.linked == 15
    assert status_of(box.settings).problems == []


def test_a_segment_that_fells_the_centre_goes_last(box: Shipping) -> None:
    """Where an upload fails again and again its segments go alone, the one that does it last: the rest arrives."""
    box.grow(5)
    box.way.deadly = {1}
    box.ship(60)
    assert sorted(number for numbers in box.way.parcels for number in numbers) == [0, 2, 3, 4]
    box.way.deadly = set()
    box.ship()
    assert box.linked == 15


def test_another_history_stops_the_log_loudly(box: Shipping, tmp_path: Path) -> None:
    """A cloned card: at the first fork nothing more is sent, over restarts too, until a person lets it."""
    box.grow(2)
    box.ship()
    shutil.copytree(box.settings.data, tmp_path / "clone")
    box.grow(1)
    box.ship()
    box.settings = replace(box.settings, data=tmp_path / "clone")
    box.written = Written(tmp_path / "clone")
    box.written.grow(2, 1)
    box.restart()
    box.ship(5)
    assert "STOPPED" in status_of(box.settings).problems[0]
    sent = len(box.way.parcels)
    box.written.grow(2, 3)
    box.restart()
    assert "STOPPED" in box.shipper.turn().said
    assert len(box.way.parcels) == sent


@pytest.mark.parametrize("killed_after", range(1, 12))
def test_killed_after_any_turn_the_next_one_goes_on(tmp_path: Path, killed_after: int) -> None:
    """Whatever a process remembered is not needed: all arrives, each segment stored once."""
    box = _limited(tmp_path, Budget(bytes_per_s=1_000))
    box.grow(6)
    for _ in range(12):
        box.ship(killed_after)
        box.restart()
    box.ship()
    assert box.linked == 18
    assert sealed_paths(box.settings.sealed_folder) == []
    box.central.close()


def test_the_rate_is_used_and_not_exceeded(tmp_path: Path) -> None:
    """A backlog at a rate: what goes out in all, what it costs beside counted too, is 98 to 100 percent of it."""
    box = _limited(tmp_path, Budget(bytes_per_s=125_000))
    box.grow(40)
    began_ns = box.clock.now.mono_ns
    box.ship(400)
    took_s = (box.clock.now.mono_ns - began_ns) / S_NS - 2.0
    charged = box.sent_bytes + 2_048 * (len(box.way.parcels) + 1) + 6_144
    assert box.linked == 120
    assert 0.98 * took_s * 125_000 <= charged <= took_s * 125_000 + 1


def test_urgent_ones_overtake(tmp_path: Path) -> None:
    """While a backlog waits for its budget, what becomes urgent goes next."""
    box = _limited(tmp_path, Budget(day_bytes=4_096 * 3))
    box.grow(30)
    box.ship(100, until="used up")
    there = {number for numbers in box.way.parcels for number in numbers}
    assert there
    assert len(there) < 30
    [urgent] = box.grow(1)
    queue = box.shipper.queue
    box.shipper.turn()
    queue.segments[urgent.manifest.number] = replace(queue.segments[urgent.manifest.number], priority=1)
    box.clock.advance(DAY_NS)
    box.ship(100, until="used up")
    position = [number for numbers in box.way.parcels for number in numbers]
    assert position.index(urgent.manifest.number) == len(there)
    box.central.close()


def test_what_is_urgent_waits_out_no_back_off(box: Shipping) -> None:
    """It is worth one attempt at once, and no more of them; a centre that said when to come is not pressed."""
    box.way.down = -1
    box.grow(1)
    waits = [box.shipper.turn().wait_s for _ in range(12)]
    assert waits[-1] > 60
    assert not box.shipper.urgent_came()
    box.grow(1)
    assert not box.shipper.urgent_came()
    [urgent] = box.grow(1, urgent=True)
    assert box.shipper.urgent_came()
    assert not box.shipper.urgent_came()
    asked = box.way.asked
    assert box.shipper.turn().wait_s > 60
    assert box.way.asked == asked + 1
    box.way.wants_ms = 60_000
    box.shipper.turn()
    box.grow(1, urgent=True)
    assert not box.shipper.urgent_came()
    box.way.down = 0
    box.ship()
    assert box.way.parcels[0][0] == urgent.manifest.number


def test_a_gap_in_the_queue_is_seen(box: Shipping) -> None:
    """A segment that somebody took away is named by its events, on the box, before anybody asks the centre."""
    box.grow(4)
    sealed_paths(box.settings.sealed_folder)[1].unlink()
    said = status_of(box.settings)
    assert said.gaps == [(4, 6)]
    assert any("events 4 to 6" in problem for problem in said.problems)
    box.ship()
    assert box.linked == 3
    assert status_of(box.settings).gaps == [(4, 6)]


def test_a_box_that_is_not_let_in_says_so(box: Shipping) -> None:
    """Segments under a key that the centre does not know are set aside with what to do there."""
    box.central.boxes.revoke("pump-7", Signer(bytes(range(32))).public, 1)
    box.grow(1)
    box.ship(5)
    assert "revoked" in status_of(box.settings).problems[0]
