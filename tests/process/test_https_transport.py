"""The way to the centre over HTTPS, against the real server: the conformance of carriers, and who is let in."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from edge.core.clock import Reading
from edge.core.errors import Misconfigured, RequestRefused, Unavailable
from edge.security.signing import Signer
from edge.sync.centre import Enrolment
from edge.sync.https import HttpsTransport, redeem
from edge.sync.transport import Outgoing, Parcel
from edge.testing.transport_conformance import (
    BOX,
    SIGNER,
    BrokenOff,
    TransportConformance,
    Written,
    breaking_after,
    nothing,
)
from tests.process.centre import Centre


class HttpsRig:
    """A server that runs, and one box that redeemed its enrolment there."""

    def __init__(self, centre: Centre, box: str = BOX, signer: Signer = SIGNER) -> None:
        self.centre = centre
        self.centre_data, self.centre_key = centre.data, centre.key
        self.enrolment = redeem(centre.enrolment(box), signer)
        self.signer = signer
        self.transport = HttpsTransport(self.enrolment, signer)

    def reopen(self) -> None:
        self.transport.close()
        self.transport = HttpsTransport(self.enrolment, self.signer)

    def carry(self) -> None:
        pass


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    made = Centre(tmp_path_factory.mktemp("https"))
    made.start()
    yield made
    assert made.stop() == 0


@pytest.fixture
def rig(centre: Centre) -> Iterator[HttpsRig]:
    made = HttpsRig(centre)
    yield made
    made.transport.close()


class TestHttps(TransportConformance):
    @pytest.fixture
    def rig(self, centre: Centre) -> Iterator[HttpsRig]:
        made = HttpsRig(centre)
        yield made
        made.transport.close()


class FixedClock:
    """A box's clock that stands at one moment."""

    def __init__(self, wall_s: float) -> None:
        self._reading = Reading(1, int(wall_s * 1e9), 0)

    def read(self) -> Reading:
        return self._reading


def test_a_token_is_good_once(rig: HttpsRig) -> None:
    """The same key may ask again, whose answer was lost; another key, expired and unknown tokens are told apart."""
    enrolment = rig.centre.enrolment("pump-8")
    own, other = Signer(b"\1" * 32), Signer(b"\2" * 32)
    assert redeem(enrolment, own).token == ""
    assert redeem(enrolment, own).key == rig.centre.key
    with pytest.raises(RequestRefused, match="was used already, by another key"):
        redeem(enrolment, other)
    with pytest.raises(RequestRefused, match="has expired"):
        redeem(rig.centre.enrolment("pump-9", at_s=time.time() - 700), other)
    with pytest.raises(RequestRefused, match="No enrolment of this centre has that token"):
        redeem(replaced(enrolment, token="x" * 32), other)
    with pytest.raises(RequestRefused, match="No enrolment of this centre has that token"):
        redeem(replaced(rig.centre.enrolment("pump-9"), box="pump-10"), other)
    with pytest.raises(RequestRefused, match="That key is box pump-8's"):
        redeem(rig.centre.enrolment("pump-9"), own)


def replaced(enrolment: Enrolment, **values: str) -> Enrolment:
    """The enrolment with other values."""
    return Enrolment(**{each.name: getattr(enrolment, each.name) for each in fields(enrolment)} | values)


def test_a_revoked_key_is_refused_at_once(centre: Centre, tmp_path: Path) -> None:
    """On the connection that is open already, for the state and for an upload; a new key is let in."""
    old = Signer(b"\5" * 32)
    rig = HttpsRig(centre, "pump-20", old)
    written = Written(tmp_path / "log", old, "pump-20")
    first, second = written.grow(1, 2)
    rig.transport.send(Parcel([first]), nothing)
    rig.centre.boxes.revoke("pump-20", old.public, time.time_ns())
    with pytest.raises(RequestRefused, match="was revoked at the centre"):
        rig.transport.send(Parcel([second]), nothing)
    with pytest.raises(RequestRefused, match="was revoked at the centre"):
        rig.transport.state(written.log_id)
    again = Signer(b"\3" * 32)
    transport = HttpsTransport(redeem(rig.centre.enrolment("pump-20"), again), again)
    assert transport.state(written.log_id).through == first.manifest.last_seq
    transport.close()
    rig.transport.close()


def test_an_unknown_box_is_refused_before_its_body_is_read(rig: HttpsRig, tmp_path: Path) -> None:
    """Nothing of it is kept, whatever it sends; a request that somebody changed on its way is no box's."""
    (segment,) = Written(tmp_path / "log").grow(1, 1)
    stranger = HttpsTransport(rig.enrolment, Signer(b"\4" * 32))
    with pytest.raises(RequestRefused, match="No box of this centre has the key"):
        stranger.state(segment.manifest.log_id)
    with pytest.raises(RequestRefused, match="No box of this centre has the key"):
        stranger.send(Parcel([segment]), nothing)
    stranger.close()
    assert not list((rig.centre.data / "uploads").glob(f"*/{Parcel([segment]).digest.hex()}*"))
    assert rig.centre.kept(segment.manifest.log_id) == {}


@pytest.mark.parametrize("wall_s", [0.0, 86_400.0 * 365, 4_000_000_000.0])
def test_any_clock_of_the_box_will_do(rig: HttpsRig, tmp_path: Path, wall_s: float) -> None:
    """1970, 1971 or 2096: the box takes the time from the centre's answer and is let in; in 2096 certificates end."""
    (segment,) = Written(tmp_path / "log").grow(1, 1)
    transport = HttpsTransport(rig.enrolment, SIGNER, FixedClock(wall_s))
    assert transport.send(Parcel([segment]), nothing).receipt
    assert transport.state(segment.manifest.log_id).through == segment.manifest.last_seq
    transport.close()


def test_another_server_is_not_believed(rig: HttpsRig, tmp_path: Path) -> None:
    """Another authority's certificate, a name that it is not for, no address, http to elsewhere: no byte is sent."""
    log_id = Written(tmp_path / "log").log_id
    other = Centre(tmp_path / "other")
    strange = replaced(rig.enrolment, authority=other.enrolment(BOX).authority)
    for enrolment, words in (
        (strange, "is not the centre of this box"),
        (replaced(rig.enrolment, url=f"https://localhost:{rig.centre.port}"), "is for another name"),
        (replaced(rig.enrolment, authority=""), "names no authority"),
    ):
        with pytest.raises(Misconfigured, match=words):
            HttpsTransport(enrolment, SIGNER).state(log_id)
    for url, words in (("", "no centre that can be reached"), ("http://192.0.2.1", "is not https")):
        with pytest.raises(Misconfigured, match=words):
            HttpsTransport(replaced(rig.enrolment, url=url), SIGNER)


def test_a_centre_that_is_away(rig: HttpsRig, tmp_path: Path) -> None:
    """Stopped and started again on one connection: told in words, then it goes on."""
    written = Written(tmp_path / "log")
    first, second = written.grow(1, 2)
    rig.transport.send(Parcel([first]), nothing)
    assert rig.centre.stop() == 0
    with pytest.raises(Unavailable, match="could not be reached"):
        rig.transport.state(written.log_id)
    rig.centre.start()
    assert rig.transport.send(Parcel([second]), nothing).receipt
    assert sorted(rig.centre.kept(written.log_id)) == [0, 1]


def test_two_servers_on_one_folder_are_refused(rig: HttpsRig) -> None:
    """The second says who has it and ends; enrolling beside a running server works."""
    words = [
        sys.executable,
        "-m",
        "edge.cli.main",
        "central",
        "serve",
        "--data",
        str(rig.centre.data),
        "--port",
        "0",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "Another process takes in" in done.stderr


def test_an_upload_goes_on_where_it_broke_off(rig: HttpsRig, tmp_path: Path) -> None:
    """What the centre had of it is not sent again, by a box that was started anew as well."""
    value = os.urandom(200_000)
    digest = hashlib.sha256(value).digest()
    (tmp_path / "value").write_bytes(value)
    part = rig.centre.data / "uploads" / BOX / f"{digest.hex()}.part"
    with pytest.raises(BrokenOff):
        rig.transport.send_value(digest, tmp_path / "value", breaking_after(100_000))
    there = settled_size(part)
    assert 0 < there <= 100_000 + 16 * 1024
    rig.reopen()
    sent: list[int] = []
    rig.transport.send_value(digest, tmp_path / "value", sent.append)
    assert sum(sent) == len(value) - there
    assert rig.transport.lacking([digest]) == set()


def settled_size(path: Path) -> int:
    """How much of an upload is there once its connection's end was noticed."""
    seen, since_s = -1, time.monotonic()
    while time.monotonic() - since_s < 0.5 or seen <= 0:
        size = path.stat().st_size if path.exists() else 0
        if size != seen:
            seen, since_s = size, time.monotonic()
        threading.Event().wait(0.02)
    return seen


def test_what_is_no_segment_is_rejected_with_its_reason(rig: HttpsRig, tmp_path: Path) -> None:
    """Bytes flipped in a manifest: that segment is rejected, the next ones of the parcel are not."""
    written = Written(tmp_path / "log")
    segments = written.grow(1, 3)
    changed = bytearray(segments[1].data)
    changed[40] ^= 1
    broken = Outgoing(segments[1].data)
    broken.data = bytes(changed)
    made = rig.transport.send(Parcel([segments[0], broken, segments[2]]), nothing)
    assert [each.verdict for each in made.verdicts] == ["stored", "rejected", "parked"]
    assert made.verdicts[1].reason
