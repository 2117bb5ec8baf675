"""The centre's server is killed before every call that changes a file: nothing is lost, the next run completes."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.core.errors import Unavailable
from edge.segments.receipt import opened
from edge.segments.verdicts import ARRIVED
from edge.sync.centre import Enrolment
from edge.sync.https import HttpsTransport
from edge.sync.transport import Outgoing, Parcel
from edge.testing.transport_conformance import nothing
from tests.faults.drive_calls import Counter, Fault, build
from tests.faults.test_centre_faults import BOX, OLD, Clock1970, grown, require_equal
from tests.process.centre import Centre

SEGMENTS = 5
A_PARCEL = 3
#: Of the walk, in a usual run.
SAMPLE = 4


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> list[Outgoing]:
    return grown(tmp_path_factory.mktemp("log"), OLD, SEGMENTS, random.Random(3))


@pytest.fixture(scope="module")
def calls(library: Path, segments: list[Outgoing], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The calls of a run that nothing strikes."""
    trial = Trial(library, tmp_path_factory.mktemp("count"), None)
    trial.deliver(segments)
    names = trial.counter.names()
    for part in ("/segments/", "/uploads/", "ledger.sqlite-wal"):
        assert any(part in name for name in names), (part, names)
    return names


class Trial:
    """One new centre, one log, one fault."""

    def __init__(self, library: Path, folder: Path, fault: Fault | None) -> None:
        self.folder, self.fault = folder, fault
        self.centre = Centre(folder, "--no-tls")
        self.centre.boxes.enrol(BOX, OLD.public, 1)
        self.counter = Counter(library, self.centre.data, folder / "state")
        self.centre.environment = self.counter.environment(fault)

    def deliver(self, segments: Sequence[Outgoing]) -> None:
        """Send until the centre has all; it is started again, whole, where it was killed."""
        if not self.centre.comes_up():
            self._start_whole()
        url = f"http://127.0.0.1:{self.centre.port}"
        transport = HttpsTransport(Enrolment(self.centre.key, BOX, url), OLD, Clock1970())
        try:
            for _ in range(4 * len(segments)):
                if self._sent_all(transport, segments):
                    break
            else:
                raise AssertionError("the log did not arrive")
            state = transport.state(segments[0].manifest.log_id)
        finally:
            transport.close()
            self.centre.stop()
        last = segments[-1].manifest
        assert opened(state.receipt, self.centre.key).through == state.through == last.last_seq
        require_equal(self.centre, segments, self.folder)

    def _sent_all(self, transport: HttpsTransport, segments: Sequence[Outgoing]) -> bool:
        try:
            state = transport.state(segments[0].manifest.log_id)
            missing = [each for each in segments if not state.has(each.manifest)]
            if missing:
                made = transport.send(Parcel(missing[:A_PARCEL]), nothing)
                assert {each.verdict for each in made.verdicts} <= set(ARRIVED)
        except Unavailable:
            process = self.centre.process
            assert process is not None
            assert process.wait(20) == -signal.SIGKILL
            self.centre.stop()
            self._start_whole()
            return False
        return not missing

    def _start_whole(self) -> None:
        self.centre.environment = {}
        self.centre.start()


def walk(library: Path, segments: list[Outgoing], tmp_path: Path, places: Sequence[int]) -> None:
    """One trial for each of these calls; in how many pieces an upload comes is another matter in each run."""
    struck = 0
    for place in places:
        trial = Trial(library, tmp_path / str(place), Fault("before", place))
        trial.deliver(segments)
        assert trial.counter.struck or len(trial.counter.names()) < place, place
        struck += trial.counter.struck
    assert struck >= len(places) - 2


def test_a_sample_of_calls(library: Path, segments: list[Outgoing], calls: list[str], tmp_path: Path) -> None:
    """Some of the walk, spread over all of it."""
    chance = random.Random(len(calls))
    walk(library, segments, tmp_path, sorted(chance.sample(range(1, len(calls) + 1), SAMPLE)))


@pytest.mark.faults_full
@pytest.mark.parametrize("part", range(4))
def test_every_call(
    library: Path, segments: list[Outgoing], calls: list[str], tmp_path: Path, part: int
) -> None:
    """Each once: before a segment, its verdict, an upload's end, a page of the ledger."""
    walk(library, segments, tmp_path, range(1 + part, len(calls) + 1, 4))
