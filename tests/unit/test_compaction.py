"""The compactor: every event of every segment in the tables once, whatever came when, and what was wrong left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.central import compaction_files
from edge.central.compaction import TABLES, day_of, shard_of
from edge.central.compaction_rows import as_json
from edge.core.errors import Unavailable
from edge.core.limits import TABLE_SHARDS
from edge.segments.sealed import open_sealed
from tests.unit.central_rig import DAY_NS, Centre, Pump, forged


def numbers(centre: Centre, where: str = "true") -> list[int]:
    return [row[0] for row in centre.ask(f"SELECT seq FROM events WHERE {where} ORDER BY seq")]


def test_every_event_is_in_once_as_the_log_has_it(centre: Centre, pump: Pump) -> None:
    """Numbers, times, executions and bodies of the rows are those of the segments' events."""
    segments = pump.sealed(2)
    centre.take(segments)
    made = centre.compact()
    assert (made.segments, made.events, made.quarantined) == (2, pump.journal.last_seq, ())
    expected = []
    for data in segments:
        sealed = open_sealed(data)
        for each in sealed.groups():
            at = each.group.context.at
            expected += [
                (
                    e.seq,
                    e.type,
                    e.execution,
                    e.step,
                    e.visit,
                    e.attempt,
                    e.cause,
                    at.wall_ns // 1000,
                    at.mono_ns,
                )
                + (sealed.manifest.number, True)
                for e in each.group.events()
            ]
    found = centre.ask(
        "SELECT seq, type, execution, step, visit, attempt, cause, epoch_us(at_utc), mono_ns, segment, linked"
        " FROM events ORDER BY seq"
    )
    assert found == expected


def test_a_second_run_does_nothing_and_a_later_one_only_what_is_new(centre: Centre, pump: Pump) -> None:
    """What is in stays as it is; small files of a day grow together instead of one for each segment."""
    centre.take(pump.sealed(2))
    centre.compact()
    again = centre.compact()
    assert (again.segments, again.events, again.files) == (0, 0, 0)
    for _ in range(6):
        centre.take(pump.sealed(1))
        assert centre.compact().segments == 1
    assert numbers(centre) == list(range(1, pump.journal.last_seq + 1))
    assert len(list((centre.data / TABLES).glob("*.parquet"))) <= 3


def test_what_is_parked_is_there_marked_and_moves_when_it_is_linked(centre: Centre, pump: Pump) -> None:
    """Behind a gap: in the tables, unlinked. When the gap is filled: linked, and nothing twice."""
    first, second, third = pump.sealed(3)
    centre.take([first, third])
    centre.compact()
    late = open_sealed(third).manifest.first_seq
    assert numbers(centre, "NOT linked") == list(range(late, pump.journal.last_seq + 1))
    assert {row[0] for row in centre.ask("SELECT linked FROM executions")} == {True, False}
    centre.take([second])
    centre.compact()
    assert numbers(centre, "NOT linked") == []
    assert numbers(centre) == list(range(1, pump.journal.last_seq + 1))


def test_a_segment_that_does_not_stand_the_check_is_left_out_and_named(centre: Centre, pump: Pump) -> None:
    """Signed by its box but with a chain that its events do not give: quarantined, and all others are in."""
    pump.run()
    good = pump.seal()
    assert centre.take([good, forged(second := pump.sealed(1)[0])]) == ["stored", "stored"]
    other = Pump(pump.folder / "other", "pump-8")
    centre.take(other.sealed(1))
    made = centre.compact()
    assert [(bad.box, bad.number) for bad in made.quarantined] == [("pump-7", 1)]
    assert "give the link" in made.quarantined[0].reason
    assert open_sealed(second).manifest.first_seq not in numbers(centre, "box = 'pump-7'")
    assert centre.ask("SELECT count(*) FROM events WHERE box = 'pump-8'") == [(other.journal.last_seq,)]
    assert centre.compact() == centre.compact()


@pytest.mark.parametrize("parked", [False, True])
def test_a_file_that_rotted_is_left_out_until_it_is_put_back(
    centre: Centre, pump: Pump, parked: bool
) -> None:
    """Damage on the centre's own drive: named; the next run after it is mended puts the events in."""
    segments = pump.sealed(3)
    centre.take([segments[0], segments[2]] if parked else segments)
    path = sorted(centre.central.shelf.segments())[1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert len(centre.compact().quarantined) == 1
    missing = centre.rows()
    path.write_bytes(whole)
    assert centre.compact().quarantined == ()
    assert len(centre.rows()) > len(missing)
    mended = centre.rows()
    centre.compact(anew=True)
    assert centre.rows() == mended


def test_a_day_holds_whole_executions(centre: Centre, pump: Pump) -> None:
    """One that began before midnight and ended after it lies with all its events in the file of its first day."""
    early = pump.begin()
    centre.take([pump.seal()])
    pump.clock.set_wall(pump.clock.now.wall_ns + DAY_NS)
    pump.end(early)
    pump.run()
    centre.take([pump.seal()])
    centre.compact()
    day = day_of(pump.clock.now.wall_ns - DAY_NS)
    names = [path.name for path in (centre.data / TABLES).glob(f"*{day}.parquet")]
    found = [compaction_files.read(centre.data / TABLES, name)["execution"].to_pylist() for name in names]
    assert sum(row.count(early) for row in found) == 4


def test_times_that_no_calendar_has_are_kept(centre: Centre, pump: Pump) -> None:
    """A clock back in 1970, and one far ahead: the rows are there in the log's order."""
    for wall_ns in (5, 2**62):
        pump.clock.set_wall(wall_ns)
        pump.run()
        centre.take([pump.seal()])
    centre.compact()
    assert numbers(centre) == list(range(1, pump.journal.last_seq + 1))
    assert centre.ask("SELECT year(min(at_utc)), year(max(at_utc)) FROM events")[0] == (1970, 2116)


def test_a_ledger_that_went_back_makes_the_tables_anew(centre: Centre, pump: Pump, tmp_path: Path) -> None:
    """Tables of segments that the ledger does not have linked are never built upon."""
    centre.take(pump.sealed(2))
    centre.compact()
    other = Centre(tmp_path / "other")
    (centre.data / TABLES).rename(other.data / TABLES)
    stranger = Pump(tmp_path / "stranger", "pump-9")
    other.take(stranger.sealed(1))
    other.compact()
    assert {row[0] for row in other.ask("SELECT DISTINCT box FROM events")} == {"pump-9"}


def test_only_one_compacts(centre: Centre, pump: Pump) -> None:
    """A second compactor is told; files stay as long as somebody has them open for reading."""
    centre.take(pump.sealed(1))
    centre.compact()
    with centre.tables() as tables:
        before = [Path(name) for name in tables.files]
        centre.take(pump.sealed(1))
        centre.compact()
        assert all(path.exists() for path in before)
        assert (
            tables.query("SELECT count(*) n FROM events").read_all()["n"].to_pylist()[0]
            < pump.journal.last_seq
        )
    centre.take(pump.sealed(1))
    centre.compact()
    assert not any(path.exists() for path in before)
    import fcntl

    with (centre.data / TABLES / "compacting.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="Another process"):
            centre.compact()


def test_bodies_are_json_whatever_they_hold() -> None:
    """Bytes, numbers that JSON lacks, maps with keys that are no text, half characters: all become JSON."""
    assert as_json({"digest": bytes(32)}) == '{"digest":"' + "00" * 32 + '"}'
    assert as_json({"correlation": b"\xff\x00"}) == '{"correlation":{"base64":"/wA="}}'
    assert as_json({"value": b"\xa1\x01\xf9\x7e\x00"}) == '{"value":{"1":"nan"}}'
    assert as_json({"payload": b'{"a":[1,"\xc3\xa4"]}'}) == '{"payload":{"a":[1,"ä"]}}'
    assert as_json({"payload": b'"\\ud800"'}) == '{"payload":"\\"\\\\ud800\\""}'
    assert as_json({"payload": b"no json"}) == '{"payload":"no json"}'
    assert as_json({"problem": {b"k": 1, "d": b"x"}}) == '{"problem":{"b\'k\'":1,"d":"x"}}'


def test_shards_are_spread_and_stay() -> None:
    """Boxes spread over all shards, and a name's shard never changes between releases."""
    assert {shard_of(f"box-{n}") for n in range(64)} == set(range(TABLE_SHARDS))
    assert [shard_of(name) for name in ("pump-7", "pump-8", "box-1")] == [1, 1, 0]
