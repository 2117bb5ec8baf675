"""`edge log recover` and `edge log salvage` on a real box that was damaged while it was down."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import lmdb
import pytest

from edge.cli.client import RuntimeClient
from edge.core.errors import Unavailable
from edge.core.events import BootStarted, Event, ExecutionFinished, Gap
from edge.store.joined_rows import FIRST
from edge.store.journal import Journal
from edge.store.numbers import told_range
from edge.store.segment_file import SegmentReader, segment_paths
from edge.testing.history import write_group
from tests.process.box import PLUS_ONE, Box


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Box]:
    """A box that ran thirty executions and was stopped in order, so that the index has all of them."""
    box = Box(tmp_path, 1)
    box.start("runtime")
    box.register(PLUS_ONE)
    for n in range(30):
        assert box.run("p", {"n": n})["result"] == n + 1
    box.kill("runtime", 15)
    yield box
    box.down()


def starts(box: Box) -> None:
    """It serves again, what it answers is in the log, and the log is whole."""
    box.start("runtime")
    box.status()
    assert box.run("p", {"n": 1})["result"] == 2
    report = box.verify()
    assert not report.problems, report.problems
    box.kill("runtime", 15)
    assert not box.verify().problems


def spoil(path: Path, at: int, size_bytes: int) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + size_bytes] = b"\xff" * len(data[at : at + size_bytes])
    path.write_bytes(data)


def test_a_damaged_journal_is_made_whole_from_the_index(stopped: Box) -> None:
    """Damage in the middle: recover takes the events from the index, and nothing is lost."""
    spoil_frames(stopped, 5, 9)
    tried = stopped.edge("log", "recover", "--dry-run").stdout
    assert "would be written anew" in tried
    assert not stopped.verify().whole
    said = stopped.edge("log", "recover").stdout
    assert "1 segments written anew" in said
    starts(stopped)
    assert "nothing to mend" in stopped.edge("log", "recover").stdout


def spoil_frames(box: Box, first: int, last: int) -> tuple[int, int]:
    """Overwrite frames of the journal; the first and last event in them."""
    (path,) = segment_paths(box.settings.journal_folder)
    frames = list(SegmentReader(path).frames())
    spoil(path, frames[first].offset, frames[last].end - frames[first].offset)
    return frames[first].first_seq, frames[last].first_seq + frames[last].count - 1


@pytest.mark.parametrize("what", ["journal", "index", "index cut"])
def test_a_box_mends_itself_where_nothing_is_lost(stopped: Box, what: str) -> None:
    """A start on a damaged log takes from one home what the other lacks, says so, and serves."""
    index = stopped.settings.index_folder / "data.mdb"
    if what == "journal":
        spoil_frames(stopped, 5, 9)
    elif what == "index":
        spoil(index, 8192, index.stat().st_size - 8192)
    else:
        os.truncate(index, 20_000)
        stopped.start("runtime")  # it may be ended by a signal: the next start knows
        stopped.processes.pop("runtime").wait(timeout=20)
    starts(stopped)
    assert "edge log recover: kept" in stopped.words()


def test_a_box_ends_on_a_hidden_request_id_and_answers_it_after_the_next_start(stopped: Box) -> None:
    """A row gone from the index is met when it is asked for: never run again, but a new index and the old answer."""
    stopped.start("runtime")
    stopped.status()
    with RuntimeClient(stopped.settings) as runtime:
        first = runtime.submit("p", b'{"n": 1}', "application/json", "r-1")
        answer = runtime.answer()[2]
    stopped.kill("runtime", 15)
    with lmdb.open(str(stopped.settings.index_folder), max_dbs=16) as env, env.begin(write=True) as txn:
        db = env.open_db(b"requests", txn=txn)
        (key,) = [bytes(key) for key, _ in txn.cursor(db=db) if key != FIRST]
        txn.delete(key, db=db)
    assert any("its table `requests`" in problem for problem in stopped.verify().problems)
    stopped.start("runtime")
    stopped.status()
    with RuntimeClient(stopped.settings) as runtime, pytest.raises(Unavailable):
        runtime.submit("p", b'{"n": 1}', "application/json", "r-1")
    assert stopped.processes.pop("runtime").wait(timeout=20) == 1
    stopped.start("runtime")
    stopped.status()
    with RuntimeClient(stopped.settings) as runtime:
        assert runtime.submit("p", b'{"n": 1}', "application/json", "r-1") == first
        assert runtime.answer()[2] == answer
    stopped.kill("runtime", 15)
    assert not stopped.verify().problems


def test_verifying_an_index_that_ends_whoever_reads_it(stopped: Box) -> None:
    """A cut map ends its reader by a signal: that is a child, and verification says what happened."""
    os.truncate(stopped.settings.index_folder / "data.mdb", 20_000)
    said = stopped.edge("log", "verify", check=1)
    assert "NOT whole" in said.stdout
    assert "reading it ends the process" in said.stderr


def test_an_index_that_reads_well_and_ended_two_starts_is_made_anew(stopped: Box) -> None:
    """Damage that shows only when the index is written would end every start: the third makes it from the journal."""
    mark = stopped.settings.lock_path.with_name("opening")
    mark.write_text("2")
    starts(stopped)
    assert "is made anew as asked" in stopped.words()
    assert not mark.exists()


def test_a_box_gives_nothing_up_by_itself(stopped: Box) -> None:
    """Where events are in no home the start stays refused, nothing is changed, and a person is told what to do."""
    spoil_frames(stopped, 5, 6)
    for file in stopped.settings.index_folder.iterdir():
        file.unlink()
    before = {path: path.read_bytes() for path in segment_paths(stopped.settings.journal_folder)}
    stopped.start("runtime")
    assert stopped.processes.pop("runtime").wait(timeout=30) == 2
    assert "edge log salvage" in stopped.words()
    assert before == {path: path.read_bytes() for path in segment_paths(stopped.settings.journal_folder)}


@pytest.fixture
def mirrored(tmp_path: Path) -> Iterator[Box]:
    """A box with a mirror of its journal that was killed: the index has nothing, the mirror all."""
    box = Box(tmp_path, 1, journal_mirror="on")
    box.start("runtime")
    box.register(PLUS_ONE)
    for n in range(30):
        assert box.run("p", {"n": n})["result"] == n + 1
    assert box.status()["mirror"] == "written"
    box.kill("runtime", 9)
    yield box
    box.down()


@pytest.mark.parametrize("what", ["end", "middle", "all"])
def test_a_box_takes_from_the_mirror_what_its_journal_lost(mirrored: Box, what: str) -> None:
    """The end is gone, which one home alone could not tell from a torn write, or more is: every event is there."""
    events = mirrored.verify().events
    (path,) = segment_paths(mirrored.settings.journal_folder)
    frames = list(SegmentReader(path).frames())
    if what == "all":
        path.unlink()
        assert "events taken from mirror and index" in mirrored.edge("log", "recover").stdout
    elif what == "middle":
        spoil_frames(mirrored, 5, 9)
    else:
        spoil(path, frames[-9].offset, 16_384)
    starts(mirrored)
    report = mirrored.verify()
    assert (report.lost, report.mirror_last_seq) == ([], report.last_seq)
    assert report.events >= events
    assert "goes to event" in mirrored.edge("doctor", check=None).stdout


def test_another_logs_mirror_is_not_touched(mirrored: Box, tmp_path: Path) -> None:
    """Two cards were exchanged: every command says so, and not a byte of the other log is changed."""
    mirror = mirrored.settings.data / "mirror"
    shutil.rmtree(mirror)
    other = Journal(mirror)
    write_group(other, [Event(1, Gap(1, 1, "x"))])
    other.close()
    before = {path.name: path.read_bytes() for path in mirror.iterdir()}
    for command, code in (("recover", 2), ("salvage", 2), ("verify", 1)):
        said = mirrored.edge("log", command, check=code)
        assert "is another log's" in said.stdout + said.stderr
    assert "is another log's" in mirrored.edge("doctor", check=None).stdout
    assert {path.name: path.read_bytes() for path in mirror.iterdir()} == before


def test_a_mirror_that_cannot_be_read_after_a_cut_is_named(tmp_path: Path) -> None:
    """The power went, and the mirror is no folder any more: the box serves, and a gap says what nothing can tell."""
    box = Box(tmp_path, 1, journal_mirror="on")
    journal = Journal(box.settings.journal_folder)  # of another boot than this machine's
    write_group(journal, [Event(seq, Gap(seq, seq, "x")) for seq in range(1, 9)])
    journal.close()
    (box.settings.data / "mirror").write_text("a file")
    assert f"The mirror in {box.settings.data / 'mirror'} cannot be read" in " ".join(box.verify().problems)
    assert "cannot be read, and is left out: Not a directory" in box.edge("log", "recover").stdout
    box.start("runtime")
    box.register(PLUS_ONE)
    assert box.run("p", {"n": 1})["result"] == 2
    box.down()
    started, gap = (
        event for event in box.events() if event.seq > 8 and isinstance(event.body, BootStarted | Gap)
    )
    assert gap.body == Gap(9, started.seq - 1, "mirror not read")


def test_a_lost_journal_is_made_from_the_index(stopped: Box) -> None:
    """All of the journal may be gone, and the index have every event; asked to make it from that, recover does.

    The start does not by itself: the journal may stand on a drive that is not mounted.
    """
    shutil.rmtree(stopped.settings.journal_folder)
    stopped.settings.journal_folder.mkdir()
    for _ in range(2):  # nor does the start after it
        stopped.start("runtime")
        assert stopped.processes.pop("runtime").wait(timeout=20) == 2
        assert segment_paths(stopped.settings.journal_folder) == []
    assert "is its drive mounted?" in stopped.words()
    stopped.settings.journal_folder.rmdir()
    assert "NOT whole" in stopped.edge("log", "verify", check=1).stdout
    assert "events taken from the index" in stopped.edge("log", "recover").stdout
    starts(stopped)


@pytest.mark.parametrize("size_bytes", [64, 4096, 1 << 20])
def test_a_damaged_index_is_made_again(stopped: Box, size_bytes: int) -> None:
    """An index that cannot be read is moved aside, and the next start makes it from the journal."""
    spoil(stopped.settings.index_folder / "data.mdb", 0, size_bytes)
    said = stopped.edge("log", "recover").stdout
    assert "made again from the journal" in said
    assert not stopped.settings.index_folder.exists()
    starts(stopped)


def test_what_no_home_has_is_named_and_the_log_goes_on(stopped: Box) -> None:
    """Recover refuses to give anything up; salvage keeps all else, names the numbers, and the box runs on."""
    lost = spoil_frames(stopped, 5, 6)
    for file in stopped.settings.index_folder.iterdir():
        file.unlink()
    refused = stopped.edge("log", "recover", check=None)
    assert refused.returncode != 0
    assert "edge log salvage" in refused.stderr
    said = stopped.edge("log", "salvage").stdout
    assert told_range(*lost) in said
    starts(stopped)
    assert stopped.verify().lost == [lost]
    gaps = [event.body for event in stopped.events() if isinstance(event.body, Gap)]
    assert gaps == [Gap(*lost, "damaged")]
    assert f"lost     {told_range(*lost)}" in stopped.edge("log", "verify").stdout


WAITING = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: w, path: w}
workflow:
  - step: a
    tool: {kind: transform, value: 1}
    next: b
  - step: b
    tool: {kind: wait, duration: 1h}
"""


@pytest.mark.parametrize("seed", range(5))
def test_what_a_loss_leaves_in_doubt_is_ended(stopped: Box, seed: int) -> None:
    """Open executions that may have lost steps end as `history_lost`; whatever is lost, the box runs on."""
    stopped.start("runtime")
    stopped.status()
    stopped.register(WAITING)
    for _ in range(4):
        start_waiting(stopped)
    stopped.kill("runtime")
    chance = Random(seed)
    (path,) = segment_paths(stopped.settings.journal_folder)
    frames = list(SegmentReader(path).frames())
    first = chance.randrange(len(frames) - 3)
    spoil(path, frames[first].offset + 3, frames[first + 2].offset - frames[first].offset)
    for file in stopped.settings.index_folder.iterdir():
        file.unlink()
    said = stopped.edge("log", "salvage").stdout
    ended = said.count("ended    execution")
    stopped.start("runtime")
    stopped.status()
    failed = [
        event.body.problem["code"]
        for event in stopped.events()
        if isinstance(event.body, ExecutionFinished) and event.body.problem
    ]
    assert failed == ["history_lost"] * ended
    stopped.kill("runtime")
    assert "nothing to mend" in stopped.edge("log", "salvage").stdout
    stopped.start("runtime")
    stopped.status()
    stopped.register(PLUS_ONE)
    assert stopped.run("p", {"n": 1})["result"] == 2
    assert not stopped.verify().problems


def start_waiting(box: Box) -> None:
    """Begin one execution and leave it: a request is durable once its receipt came."""
    with RuntimeClient(box.settings) as runtime:
        runtime.submit("w", b"{}", "application/json", None)


def test_a_running_box_is_not_touched(stopped: Box) -> None:
    """While a runtime serves the folder both commands refuse, and say what to do."""
    stopped.start("runtime")
    stopped.status()
    refused = stopped.edge("log", "recover", check=None)
    assert refused.returncode != 0
    assert "Stop it first" in refused.stderr


def test_verify_reads_large_values(stopped: Box) -> None:
    """A blob that is gone, or whose bits flipped, is named with its digest and the event that brought it."""
    stopped.start("runtime")
    stopped.status()
    assert stopped.run("p", {"n": 1, "pad": "x" * 100_000})["result"] == 2
    stopped.kill("runtime", 15)
    assert json.loads(stopped.edge("log", "verify", "--json").stdout)["blobs"] == 1
    (blob,) = stopped.settings.blob_folder.glob("??/*")
    data = blob.read_bytes()
    spoil(blob, 7, 1)
    told = stopped.edge("log", "verify", check=1)
    assert f"Blob {blob.name[:16]} does not hold what was stored" in told.stderr
    blob.unlink()
    (request,) = (event for event in stopped.events() if getattr(event.body, "payload_digest", None))
    told = stopped.edge("log", "verify", check=1)
    assert f"Blob {blob.name[:16]} is missing, which event {request.seq} came with" in told.stderr
    blob.write_bytes(data)
    (blob.parent / ("z" * 64)).write_bytes(b"somebody's")
    assert "1 large value, 0.1 MB" in stopped.edge("log", "verify").stdout
