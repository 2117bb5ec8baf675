"""The centre: who may speak, forks, receipts, and a ledger that can be thrown away."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from edge.central.boxes import Boxes
from edge.central.ingest import ALREADY, REJECTED, Central
from edge.central.ledger import FORK, PARKED, STORED, Ledger
from edge.central.rebuild import rebuild
from edge.central.uploads import Uploads
from edge.cli.main import main
from edge.core.errors import Misconfigured, ReceiptRejected, RequestRefused, SegmentRejected
from edge.core.events import Event, StepDone
from edge.core.limits import MIB
from edge.security.signing import Signer
from edge.segments.receipt import CentreReceipt, opened, signed
from edge.segments.sealed import open_sealed
from edge.segments.sealing import Sealing, sealed_paths
from edge.store.blobs import BlobStore
from edge.store.journal import Journal
from edge.testing.history import write_group

SIGNER = Signer(bytes(range(32)))
OTHER = Signer(bytes(32))


def grow(folder: Path, value: int, segments: int = 2) -> list[bytes]:
    """Write and seal some more of the log in a folder; the new segments."""
    known = len(sealed_paths(folder / "sealed"))
    journal = Journal(folder / "journal", segment_bytes=MIB)
    sealer = Sealing(folder / "sealed", SIGNER, "pump-7", BlobStore(folder / "blobs"))
    for _ in range(segments):
        for _ in range(3):
            write_group(journal, [Event(journal.next_seq, StepDone(bytes([0x18, value])), 1)])
        list(sealer.seal(journal.folder, journal.last_seq, everything=True))
    journal.close()
    return [path.read_bytes() for path in sealed_paths(folder / "sealed")[known:]]


@pytest.fixture
def central(tmp_path: Path) -> Central:
    made = Central.open(tmp_path / "central", lambda: 7)
    made.boxes.enrol("pump-7", SIGNER.public, 1)
    return made


def rows(path: Path) -> list[tuple[object, ...]]:
    ledger = Ledger(path)
    try:
        return list(ledger.everything())
    finally:
        ledger.close()


def test_a_cloned_card_is_a_fork(central: Central, tmp_path: Path) -> None:
    """Two boxes go on from one card: the first to come is the log, the other's are kept apart for a person."""
    begun = grow(tmp_path / "a", 1)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    own, cloned = grow(tmp_path / "a", 2), grow(tmp_path / "b", 3)
    assert [central.take(each, deep=True).verdict for each in begun + own] == [STORED] * 4
    verdicts = [central.take(each, deep=True) for each in cloned]
    assert [each.verdict for each in verdicts] == [FORK, FORK]
    assert "was a card copied" in verdicts[0].reason
    assert central.take(cloned[0], deep=True).verdict == FORK
    linked = central.ledger.linked(open_sealed(own[0]).manifest.log_id)
    assert linked is not None
    assert linked.id == open_sealed(own[-1]).id
    assert len(list(central.shelf.forks())) == 2
    live = central.ledger.everything()
    assert rebuild(central.shelf, tmp_path / "again.sqlite") == 6
    assert rows(tmp_path / "again.sqlite") == live


def test_a_fork_that_was_parked_is_found_when_it_is_reached(central: Central, tmp_path: Path) -> None:
    """Segments of another history that came early do not join when their turn comes."""
    begun = grow(tmp_path / "a", 1)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    own, cloned = grow(tmp_path / "a", 2), grow(tmp_path / "b", 3)
    assert [central.take(each, deep=True).verdict for each in (cloned[1], *begun, own[0])] == [
        PARKED, STORED, STORED, STORED,
    ]  # fmt: skip
    log_id = open_sealed(own[0]).manifest.log_id
    assert [each.number for each in central.ledger.segments(log_id, FORK)] == [3]
    assert central.take(own[1], deep=True).verdict == STORED
    live = central.ledger.everything()
    rebuild(central.shelf, tmp_path / "again.sqlite")
    assert rows(tmp_path / "again.sqlite") == live


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_what_comes_again_puts_a_rotten_file_right(central: Central, tmp_path: Path, what: str) -> None:
    """A segment whose file was changed or removed is whole again once it came again, and so is a large value."""
    import hashlib

    parts, value = grow(tmp_path / "a", 1), b"large" * 99
    central.shelf.put_blob(hashlib.sha256(value).digest(), value)
    central.take_all(parts, deep=True)
    for path in (*central.shelf.segments(), *(tmp_path / "central" / "blobs").iterdir()):
        path.write_bytes(path.read_bytes()[:-1] + b"\x00") if what == "changed" else path.unlink()
    assert [each.verdict for each in central.take_all(parts, deep=True)] == [ALREADY] * len(parts)
    assert [path.read_bytes() for path in central.shelf.segments()] == parts
    central.shelf.put_blob(hashlib.sha256(value).digest(), value)
    assert central.shelf.blob(hashlib.sha256(value).digest()) == value


def test_a_mended_file_came_when_it_first_did_even_by_a_key_revoked_since(
    central: Central, tmp_path: Path
) -> None:
    """`--known-at` goes by a file's time; and what was believed when it came needs no key that still is."""
    parts = grow(tmp_path / "a", 1)
    central.take_all(parts, deep=True)
    paths = list(central.shelf.segments())
    for path in paths:
        path.write_bytes(b"")
        os.utime(path, ns=(5, 5))
    central.boxes.revoke("pump-7", SIGNER.public, 9)
    assert [each.verdict for each in central.take_all(parts, deep=True)] == [ALREADY] * len(parts)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths] == [(part, 5) for part in parts]
    assert central.take(grow(tmp_path / "a", 2)[0], deep=True).verdict == REJECTED


def test_nobody_makes_the_ledger_again_under_a_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server would go on with the file that is replaced, and give receipts for what nobody finds again."""
    serving = Central.open(tmp_path / "central", lambda: 7, taking=True)
    assert main(["central", "rebuild", "--data", str(tmp_path / "central")]) == 3
    assert "stop the other one" in capsys.readouterr().err
    serving.close()
    assert main(["central", "rebuild", "--data", str(tmp_path / "central")]) == 0


def test_who_may_speak(central: Central, tmp_path: Path) -> None:
    """An unknown key is refused with the command that lets it in; a revoked one is refused from then on."""
    first, second = grow(tmp_path / "a", 1)
    stranger = Central.open(tmp_path / "other", lambda: 7)
    refused = stranger.take(first, deep=True)
    assert refused.verdict == REJECTED
    assert f"edge central enrol pump-7 {SIGNER.public.hex()}" in refused.reason
    Boxes(tmp_path / "renamed" / "boxes").enrol("pump-8", SIGNER.public, 1)
    assert (
        "its key is box pump-8's"
        in Central.open(tmp_path / "renamed", lambda: 7).take(first, deep=True).reason
    )
    stranger.boxes.enrol("pump-7", SIGNER.public, 1)
    assert stranger.take(first, deep=True).verdict == STORED
    stranger.boxes.revoke("pump-7", SIGNER.public, 2)
    assert "was revoked" in stranger.take(second, deep=True).reason
    assert stranger.take(first, deep=True).verdict == ALREADY, "what was believed once may be brought again"
    assert len(list((tmp_path / "other" / "refused").iterdir())) == 2


def test_enrolling(tmp_path: Path) -> None:
    """A box may have several keys, a key one box; wrong names and keys are refused, damage of the file is named."""
    boxes = Boxes(tmp_path / "boxes")
    boxes.enrol("a", SIGNER.public, 1)
    assert [key.public for key in boxes.enrol("a", OTHER.public, 2).keys] == [SIGNER.public, OTHER.public]
    assert boxes.enrol("a", OTHER.public, 3).keys[1].since_ns == 2
    for box, key, words in (
        ("b", OTHER.public, "That key is box a's"),
        ("../x", OTHER.public, "is no name of a box"),
        ("b", b"short", "64 hexadecimal digits"),
    ):
        with pytest.raises(RequestRefused, match=words):
            boxes.enrol(box, key, 1)
    with pytest.raises(RequestRefused, match="has no such key"):
        boxes.revoke("b", OTHER.public, 1)
    (tmp_path / "boxes" / "a.json").write_text("{")
    with pytest.raises(Misconfigured, match=r"a\.json cannot be read"):
        boxes.all()


@pytest.mark.parametrize("url", ["foo", "centre.example.org:8443", "ftp://centre.example.org", "https://"])
def test_an_enrolment_needs_a_whole_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    """A box could make nothing of it, and its technician is far from the centre by then."""
    data, file = str(tmp_path / "central"), str(tmp_path / "a.json")
    assert main(["central", "enrol", "a", "--url", url, "--out", file, "--data", data]) == 2
    assert "is no address of a centre" in capsys.readouterr().err
    assert not Path(file).exists()
    assert main(["central", "enrol", "a/b", "--out", file, "--data", data]) == 2
    assert "'a/b' is no name of a box" in capsys.readouterr().err


def test_what_cannot_be_opened_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A ledger that SQLite cannot open, a box's folder, a port that is none, a certificate that is none."""
    box, centre = tmp_path / "box", tmp_path / "central"
    (box / "journal").mkdir(parents=True)
    with pytest.raises(Misconfigured, match="is a box's data folder"):
        Central.open(box, lambda: 7)
    Central.open(centre, lambda: 7).close()
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
        (centre / name).unlink(missing_ok=True)
    (centre / "ledger.sqlite").write_bytes(b"no database" * 99)
    assert main(["central", "boxes", "--data", str(centre)]) == 1
    assert "`edge central rebuild` makes it again" in capsys.readouterr().err
    assert main(["central", "rebuild", "--data", str(centre)]) == 0
    assert main(["central", "boxes", "--data", str(centre)]) == 0
    with pytest.raises(SystemExit):
        main(["central", "serve", "--port", "99999", "--data", str(centre)])
    assert "'99999' is no port" in capsys.readouterr().err
    (centre / "ledger.sqlite").unlink()
    empty = tmp_path / "empty.pem"
    empty.touch()
    words = ["central", "serve", "--tls-cert", str(empty), "--tls-key", str(empty), "--data", str(centre)]
    assert main(words) == 2
    assert "The certificate cannot be used" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In words, with what to do, and nothing of the folder stays locked."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = ["central", "serve", "--no-tls", "--port", port, "--data", str(tmp_path / "central")]
        assert main(words) == 3
        said = capsys.readouterr().err
        assert f"cannot serve on 127.0.0.1, port {port}: Address already in use" in said
        assert "--port names a free port" in said
    Central.open(tmp_path / "central", lambda: 7, taking=True).close()


def test_an_upload_that_ends_while_room_is_made_is_no_trouble(tmp_path: Path) -> None:
    """Two uploads of one box at once: the file of the one may go while the other looks which are old."""
    uploads = Uploads(tmp_path)
    digest = bytes(32)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "gone.part").symlink_to(tmp_path / "nowhere")
    with uploads.receive("a", digest, 0) as receiving:
        receiving.write(b"x")
    assert uploads.offset("a", digest) == 1


def test_receipts() -> None:
    """Signed by another centre, changed at any byte, or nonsense that is signed: refused in words."""
    receipt = CentreReceipt(b"log-id-8", 42, b"\1" * 32, 7)
    data = signed(receipt, SIGNER)
    assert opened(data, SIGNER.public) == receipt
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(ReceiptRejected):
            opened(bytes(changed), SIGNER.public)
    with pytest.raises(ReceiptRejected, match="not signed by this box's centre"):
        opened(data, OTHER.public)
    for said in (b"", b"\x80", b"\x01"):
        with pytest.raises(ReceiptRejected, match="That is no receipt"):
            opened(SIGNER.sign(said) + said, SIGNER.public)


def test_large_values(central: Central) -> None:
    """A value is kept under its digest; another one under that digest is refused."""
    import hashlib

    digest = hashlib.sha256(b"value").digest()
    with pytest.raises(SegmentRejected, match="changed on its way"):
        central.shelf.put_blob(digest, b"other")
    with pytest.raises(SegmentRejected, match="cannot be read"):
        central.shelf.blob(digest)
    central.shelf.put_blob(digest, b"value")
    assert central.shelf.blob(digest) == b"value"
