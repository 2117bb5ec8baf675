"""Receipts as text and as a picture: what a camera reads is what the centre signed."""

from __future__ import annotations

from pathlib import Path

import pytest
import zxingcpp
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cli import squares
from edge.cli.main import main
from edge.core.errors import ReceiptRejected
from edge.core.settings import Settings
from edge.security.signing import Signer
from edge.segments.receipt import CentreReceipt, opened, signed
from edge.sync import receipt_text
from edge.sync.centre import Enrolment, document, newest_receipt_path

CENTRE = Signer(bytes(range(32)))
RECEIPT = CentreReceipt(bytes(8), 259_200, bytes(range(32)), 1_795_000_000_000_000_000)


def _seen(picture: str) -> str:
    """What a decoder reads in lines of half blocks, four pixels for a module."""
    pairs = {" ": (255, 255), "▀": (0, 255), "▄": (255, 0), "█": (0, 0)}
    rows = [[pairs[sign][half] for sign in line] for line in picture.splitlines() for half in (0, 1)]
    pixels = [bytes(value for value in row for _ in range(4)) for row in rows for _ in range(4)]
    image = memoryview(b"".join(pixels)).cast("B", (len(pixels), len(pixels[0])))
    [found] = zxingcpp.read_barcodes(image)
    return str(found.text)


@pytest.fixture
def box(tmp_path: Path) -> Settings:
    """An enrolled box that has a receipt."""
    settings = Settings(tmp_path, "pump7")
    settings.enrolment_path.write_bytes(document(Enrolment(CENTRE.public, "pump7")))
    newest_receipt_path(settings).parent.mkdir()
    newest_receipt_path(settings).write_bytes(signed(RECEIPT, CENTRE))
    return settings


def test_a_camera_reads_the_receipt_from_the_terminal(
    box: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """The picture that `edge receipt show --qr` prints gives back the signed bytes; the words say the same."""
    assert main(["receipt", "show", "--qr", "--data", str(box.data)]) == 0
    shown = capsys.readouterr().out
    picture = "\n".join(line for line in shown.splitlines() if not line[:1].isalpha())
    text = _seen(picture)
    assert opened(receipt_text.from_text(text), CENTRE.public) == RECEIPT
    assert "every event up to 259200" in shown
    assert "by the centre of this box" in shown


def test_a_picture_fits_an_ordinary_terminal() -> None:
    """With its border it takes 57 columns and 29 lines at most; without UTF-8 other signs say the same."""
    modules = squares.rows(receipt_text.as_text(signed(RECEIPT, CENTRE)))
    lines = squares.drawn(modules, coloured=False, blocks=True).splitlines()
    assert len(lines[0]) in (53, 57)
    assert len(lines) == (len(lines[0]) + 1) // 2
    plain = squares.drawn(modules, coloured=False, blocks=False).splitlines()
    assert [
        [1 if line[at : at + 2] == "##" else 0 for at in range(0, len(line), 2)] for line in plain
    ] == modules
    assert squares.drawn(modules, coloured=True, blocks=True).count("\x1b[30;107m") == len(lines)


def test_another_centres_receipt_is_not_called_good(
    box: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """What somebody else signed is shown as that."""
    other = box.data / "RECEIPT"
    other.write_bytes(signed(RECEIPT, Signer(bytes(32))))
    assert main(["receipt", "show", str(other), "--data", str(box.data)]) == 0
    assert "NOT by the centre" in capsys.readouterr().out


@settings(deadline=None)
@given(st.binary(min_size=65, max_size=200))
def test_text_gives_back_every_byte(data: bytes) -> None:
    """As it is, in small letters, and broken into lines as mail does."""
    text = receipt_text.as_text(data)
    for way in (text, text.lower(), f" {text[:70]}\r\n{text[70:]}\n"):
        assert receipt_text.from_text(way) == data
        assert receipt_text.from_bytes(way.encode()) == data


@pytest.mark.parametrize(
    "wrong", ["", "EDGE1:", "EDGE1:AB", "EDGE1:" + "1" * 200, "hello", "EDGE1:" + "A" * 9_000]
)
def test_what_is_no_receipt_is_said(wrong: str) -> None:
    """A text that is cut or of something else is refused with the mend."""
    with pytest.raises(ReceiptRejected, match="Scan it again"):
        receipt_text.from_text(wrong)
