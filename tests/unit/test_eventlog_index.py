"""The index: looking up what was committed, and catching up with the journal."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from edge.core.chain import GENESIS
from edge.core.errors import LogDamaged
from edge.core.events import (
    Body,
    BootStarted,
    CatalogRegistered,
    Event,
    ExecutionFinished,
    ExecutionRequested,
    ResponsesDelivered,
    StepDone,
)
from edge.core.limits import KIB, MIB
from edge.runtime.commit.catching_up import catch_up
from edge.store.eventlog import EventLog
from edge.store.index_rows import IndexedGroup, payload_mark, request_key
from edge.store.journal import Journal
from edge.store.segment_file import SegmentReader, segment_paths
from edge.testing.history import write_group

DIGEST = b"d" * 32
SEGMENT_BYTES = 8 * KIB


def request(request_id: str | None = None, payload: bytes | None = None) -> ExecutionRequested:
    return ExecutionRequested(DIGEST, "alice", request_id, payload=payload)


#: Ten events in four groups: two executions, the first finished, the second open.
GROUPS: list[list[tuple[Body, int | None, str | None]]] = [
    [(BootStarted("0", "box"), None, None), (CatalogRegistered("t", DIGEST, b"bp"), None, None)],
    [(request("r3", b"{}"), 3, None), (request("r4"), 4, None), (StepDone(b"\x01", arc=0), 3, "a")],
    [(StepDone(b"\x02", arc=0), 4, "a"), (StepDone(b"\x03"), 3, "b"), (ExecutionFinished(), 3, None)],
    [(ResponsesDelivered(8, [3]), None, None), (CatalogRegistered("u", b"e" * 32, b"bp2"), None, None)],
]


def fill(journal: Journal) -> list[IndexedGroup]:
    made = []
    for group in GROUPS:
        events = [
            Event(seq, body, execution, step)
            for seq, (body, execution, step) in enumerate(group, journal.last_seq + 1)
        ]
        made.append(write_group(journal, events))
    return made


class Homes:
    """Journal and index of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = Journal(folder / "journal", segment_bytes=SEGMENT_BYTES)
        self.index = EventLog(folder / "index")

    def close(self) -> None:
        self.index.close()
        self.journal.close()


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[Homes]:
    made = Homes(tmp_path)
    yield made
    made.close()


def changed(folder: Path, table: bytes, key: bytes, change: Callable[[bytes], bytes]) -> None:
    """Change a value behind the index's back, as a flipped bit would."""
    with lmdb.open(str(folder), max_dbs=16) as env, env.begin(write=True) as txn:
        db = env.open_db(table, txn=txn)
        txn.put(key, change(bytes(txn.get(key, db=db))), db=db)


@pytest.mark.parametrize("first_seq", [1, 3, 6, 9])
def test_a_changed_group_is_not_believed(tmp_path: Path, first_seq: int) -> None:
    """LMDB has no checksums: a group that does not join what follows is damage, not an answer."""
    homes = Homes(tmp_path)
    homes.index.commit(fill(homes.journal), homes.journal.log_id)
    homes.close()
    flip = lambda value: value[:-1] + bytes([value[-1] ^ 1])  # noqa: E731
    changed(tmp_path / "index", b"groups", first_seq.to_bytes(8, "big"), flip)
    eventlog = EventLog(tmp_path / "index")
    with pytest.raises(LogDamaged, match="its table `groups`"):
        eventlog.event(first_seq)
    eventlog.close()


@pytest.mark.parametrize("answer", [4, 5, 99])
def test_a_request_id_that_leads_elsewhere_is_not_believed(tmp_path: Path, answer: int) -> None:
    """A request id that names another request, another event or none is damage: nobody gets another's answer."""
    homes = Homes(tmp_path)
    homes.index.commit(fill(homes.journal), homes.journal.log_id)
    homes.close()
    key = request_key("alice", "r3")
    changed(tmp_path / "index", b"requests", key, lambda value: answer.to_bytes(8, "big") + value[8:])
    eventlog = EventLog(tmp_path / "index")
    with pytest.raises(LogDamaged, match="its table `requests`"):
        eventlog.find_request(key)
    eventlog.close()


def test_an_empty_index_knows_nothing(homes: Homes) -> None:
    """A new index ends at 0, belongs to no log and finds nothing."""
    index = homes.index
    assert (index.last(), index.log_id(), index.delivered()) == ((0, GENESIS), None, (0, frozenset()))
    assert (index.open_executions(), index.catalog(), index.events_of(3)) == ([], [], [])
    assert list(index.groups()) == []
    with pytest.raises(LogDamaged, match="Event 1 is not in the index"):
        index.event(1)


def test_everything_committed_is_found(homes: Homes) -> None:
    """By number, by execution across groups, by request id, by catalog; open executions and watermark."""
    groups, index = fill(homes.journal), homes.index
    index.commit(groups, homes.journal.log_id)
    events = [event for group in groups for event in group.events]
    assert [index.event(seq) for seq in range(1, 11)] == events
    assert index.events_of(3) == [event for event in events if event.execution == 3]
    assert index.events_of(4) == [event for event in events if event.execution == 4]
    assert index.events_of(5) == []
    assert index.find_request(request_key("alice", "r3")) == (3, payload_mark(request("r3", b"{}")))
    assert index.find_request(request_key("bob", "r3")) is None
    assert (index.open_executions(), index.catalog()) == ([4], [2, 10])
    assert index.delivered() == (8, frozenset({3}))
    assert (index.last(), index.log_id()) == (
        (10, homes.journal.last_link),
        homes.journal.log_id,
    )
    with pytest.raises(LogDamaged, match="Event 11 is not"):
        index.event(11)


@pytest.mark.parametrize(
    ("after", "firsts"), [(0, [1, 3, 6, 9]), (2, [3, 6, 9]), (3, [3, 6, 9]), (8, [9]), (10, [])]
)
def test_groups_are_read_above_a_number(homes: Homes, after: int, firsts: list[int]) -> None:
    """Groups that end above the number come, byte for byte as in the journal, oldest first."""
    groups = fill(homes.journal)
    homes.index.commit(groups, homes.journal.log_id)
    found = list(homes.index.groups(after))
    assert [group.first_seq for _, group, _ in found] == firsts
    by_first = {group.first_seq: (group.epoch_key, group.data) for group in groups}
    assert all(by_first[group.first_seq] == (key, data) for key, group, data in found)
    assert len(list(homes.index.groups(after, 1))) == min(1, len(firsts))


def test_it_is_all_there_after_reopening(tmp_path: Path) -> None:
    """A committed index says the same after closing and opening again, for reading only too."""
    homes = Homes(tmp_path)
    homes.index.commit(fill(homes.journal), homes.journal.log_id)
    homes.close()
    for readonly in (False, True):
        index = EventLog(tmp_path / "index", readonly=readonly)
        assert index.last()[0] == 10
        assert index.events_of(3)[-1].body == ExecutionFinished()
        index.close()


def test_an_index_without_a_later_table_is_readable(tmp_path: Path) -> None:
    """An index that no runtime opened since a table was added is there and is read; opening gives it the table."""
    homes = Homes(tmp_path)
    homes.index.commit(fill(homes.journal), homes.journal.log_id)
    with homes.index._env.begin(write=True) as txn:
        txn.drop(homes.index._db["circuits"])
    homes.close()
    assert EventLog.there(tmp_path / "index")
    index = EventLog(tmp_path / "index", readonly=True)
    assert (index.last()[0], index.circuits()) == (10, [])
    assert index.events_of(3)[-1].body == ExecutionFinished()
    index.close()
    EventLog(tmp_path / "index").close()
    assert EventLog.there(tmp_path / "index")


def test_marks_differ_by_playbook_and_payload() -> None:
    """Two requests share a mark only with the same playbook and payload, inline or in a blob."""
    other = ExecutionRequested(b"e" * 32, "alice", "r", payload=b"{}")
    marks = {payload_mark(request("r")), payload_mark(request("r", b"{}")), payload_mark(other)}
    assert len(marks) == 3
    assert payload_mark(request("r", b"{}")) == payload_mark(request("s", b"{}"))
    assert request_key("a", "b\x00c") != request_key("a\x00b", "d")


@pytest.mark.parametrize("indexed", [0, 1, 2, 3, 4])
def test_catching_up_ends_where_the_journal_ends(homes: Homes, indexed: int) -> None:
    """However far behind the index is, catching up makes it say what an index that was never behind says."""
    groups = fill(homes.journal)
    if indexed:
        homes.index.commit(groups[:indexed], homes.journal.log_id)
    missing = sum(len(group.events) for group in groups[indexed:])
    assert catch_up(homes.journal, homes.index) == missing
    assert homes.index.last() == (10, homes.journal.last_link)
    assert (homes.index.open_executions(), homes.index.catalog()) == ([4], [2, 10])
    assert [event.seq for event in homes.index.events_of(3)] == [3, 5, 7, 8]
    assert homes.index.delivered() == (8, frozenset({3}))
    assert catch_up(homes.journal, homes.index) == 0


def test_a_lost_index_is_made_again_over_many_segments(tmp_path: Path) -> None:
    """An index deleted whole is rebuilt from all segments of the journal."""
    homes = Homes(tmp_path)
    for seq in range(1, 121):
        execution = seq - (seq - 1) % 3
        body: Body = (request(f"r{seq}"), StepDone(b"x" * 90), ExecutionFinished())[(seq - 1) % 3]
        write_group(homes.journal, [Event(seq, body, execution, "a" if seq % 3 == 2 else None)])
    assert len(segment_paths(tmp_path / "journal")) > 2
    homes.index.close()
    shutil.rmtree(tmp_path / "index")
    homes.index = EventLog(tmp_path / "index")
    assert catch_up(homes.journal, homes.index) == 120
    assert homes.index.last() == (120, homes.journal.last_link)
    assert [event.seq for event in homes.index.events_of(61)] == [61, 62, 63]
    homes.close()


def test_an_index_ahead_of_its_journal_is_refused(tmp_path: Path) -> None:
    """A journal that lost its end under a longer index is LogDamaged, never continued."""
    homes = Homes(tmp_path)
    groups = fill(homes.journal)
    homes.index.commit(groups, homes.journal.log_id)
    homes.close()
    (path,) = segment_paths(tmp_path / "journal")
    last = list(SegmentReader(path).frames())[-1]
    data = path.read_bytes()
    path.write_bytes(data[: last.offset] + bytes(len(data) - last.offset))
    homes = Homes(tmp_path)
    with pytest.raises(LogDamaged, match="the journal lost its end"):
        catch_up(homes.journal, homes.index)
    homes.close()


def test_an_index_of_another_log_is_refused(tmp_path: Path, homes: Homes) -> None:
    """Journal and index of different logs do not go together."""
    other = Homes(tmp_path / "other")
    other.index.commit(fill(other.journal), other.journal.log_id)
    fill(homes.journal)
    with pytest.raises(LogDamaged, match="different logs"):
        catch_up(homes.journal, other.index)
    other.close()


def test_a_journal_that_went_another_way_is_refused(tmp_path: Path) -> None:
    """Where the journal goes on from another event than the index holds, the chain says so."""
    homes = Homes(tmp_path)
    groups = fill(homes.journal)
    homes.journal.close()
    forged = IndexedGroup(1, 2, b"x" * 32, groups[0].epoch_key, groups[0].data, groups[0].events)
    homes.index.commit([forged], homes.journal.log_id)
    homes.journal = Journal(tmp_path / "journal", segment_bytes=SEGMENT_BYTES)
    with pytest.raises(LogDamaged, match="The chain breaks at event 3"):
        catch_up(homes.journal, homes.index)
    homes.close()


def test_homes_of_equal_length_must_end_in_the_same_link(homes: Homes) -> None:
    """Journal and index that end at the same number must agree on the link there."""
    groups = fill(homes.journal)
    last = groups[-1]
    forged = IndexedGroup(last.first_seq, last.last_seq, b"x" * 32, last.epoch_key, last.data, last.events)
    homes.index.commit([*groups[:-1], forged], homes.journal.log_id)
    with pytest.raises(LogDamaged):
        catch_up(homes.journal, homes.index)


def test_a_hole_in_the_journal_stops_catching_up(tmp_path: Path) -> None:
    """A segment missing in the middle is LogDamaged and names the first lost event."""
    homes = Homes(tmp_path)
    for seq in range(1, 121):
        write_group(homes.journal, [Event(seq, StepDone(b"x" * 90), 1, "a")])
    paths = segment_paths(tmp_path / "journal")
    assert len(paths) > 2
    paths[1].unlink()
    with pytest.raises(LogDamaged, match=f"events {int(paths[1].stem)} to"):
        catch_up(homes.journal, homes.index)
    homes.close()


def test_a_reader_that_was_killed_is_let_go(homes: Homes) -> None:
    """A process killed while it read holds its slot, and every page since; looking after readers frees it."""
    homes.index.commit(fill(homes.journal), homes.journal.log_id)
    code = (
        "import sys; from pathlib import Path; from edge.store.eventlog import EventLog\n"
        "with EventLog(Path(sys.argv[1]), readonly=True).reading() as rows:\n"
        "    rows.get('meta', b'last'); print('reading', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(homes.folder / "index")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"reading\n"
        assert homes.index.reclaim_readers() == 0
        child.kill()
    assert homes.index.reclaim_readers() == 1
    assert homes.index.reclaim_readers() == 0


def test_an_index_of_an_earlier_form_is_made_anew(tmp_path: Path) -> None:
    """Rows without checksums: whoever only reads takes them as they are, the first start fills a new index."""
    homes = Homes(tmp_path)
    groups = fill(homes.journal)
    homes.index.close()
    shutil.rmtree(tmp_path / "index")
    with lmdb.open(str(tmp_path / "index"), max_dbs=16) as env:
        tables = {
            name: env.open_db(name)
            for name in (b"groups", b"executions", b"requests", b"open", b"catalog", b"meta")
        }
        with env.begin(write=True) as txn:
            for group in groups:
                txn.put(
                    group.first_seq.to_bytes(8, "big"), group.epoch_key + group.data, db=tables[b"groups"]
                )
            txn.put(b"last", (10).to_bytes(8, "big") + groups[-1].last_link, db=tables[b"meta"])
            txn.put(b"log", homes.journal.log_id, db=tables[b"meta"])
    old = EventLog(tmp_path / "index", readonly=True)
    assert (old.last()[0], old.log_id()) == (10, homes.journal.log_id)
    assert [group.first_seq for _, group, _ in old.groups()] == [1, 3, 6, 9]
    old.close()
    homes.index = EventLog(tmp_path / "index")
    assert homes.index.last()[0] == 0
    assert catch_up(homes.journal, homes.index) == 10
    assert homes.index.find_request(request_key("alice", "r3")) is not None
    homes.close()


@pytest.mark.parametrize("table", ["executions", "requests", "open", "catalog"])
def test_all_of_an_index_is_checked_when_it_is_verified(tmp_path: Path, table: str) -> None:
    """A row that is gone from any table is damage that reading everything finds, asked for or not."""
    homes = Homes(tmp_path)
    homes.index.commit(fill(homes.journal), homes.journal.log_id)
    assert homes.index.read_all() > 10
    homes.close()
    with lmdb.open(str(tmp_path / "index"), max_dbs=16) as env, env.begin(write=True) as txn:
        db = env.open_db(table.encode(), txn=txn)
        with txn.cursor(db=db) as cursor:
            assert cursor.last()
            cursor.delete()
    index = EventLog(tmp_path / "index", readonly=True)
    told: list[LogDamaged] = []
    index.on_damage = told.append
    with pytest.raises(LogDamaged, match=f"its table `{table}`"):
        index.read_all()
    assert [error.problem_code for error in told] == [LogDamaged.INDEX]
    index.close()


def test_a_group_put_twice_is_refused(homes: Homes) -> None:
    """A group that does not belong at the end is refused, not half put."""
    groups = fill(homes.journal)
    homes.index.commit(groups, homes.journal.log_id)
    with pytest.raises((LogDamaged, AssertionError)):
        homes.index.commit(groups[:1], homes.journal.log_id)


def test_an_index_opens_where_address_space_is_short(tmp_path: Path) -> None:
    """A process that may not have 64 GiB of address space opens the log with less; one that may have next to none is
    told why not."""
    program = (
        "import resource, sys; from pathlib import Path; from edge.store.eventlog import EventLog;"
        " resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2);"
        " log = EventLog(Path(sys.argv[1])); print(log.last()[0]); log.close()"
    )

    def opened(room_bytes: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, str(tmp_path / "index"), str(room_bytes)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert opened(8 * 1024 * MIB).stdout == "0\n"
    refused = opened(900 * MIB)
    assert refused.returncode == 1
    assert "cannot be opened" in refused.stderr


def test_a_new_index_takes_two_commits_and_an_old_one_none(tmp_path: Path) -> None:
    """Each commit is flushed: a box's first start should not wait for one per table, and a restart for none."""
    for _ in range(2):
        EventLog(tmp_path / "index").close()
        with lmdb.open(str(tmp_path / "index"), readonly=True, max_dbs=9) as env:
            assert env.info()["last_txnid"] == 2
