"""A bundle through a pipe: whole, resumable at every byte, and never outside its folder."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from edge.core.errors import EdgeError, SegmentRejected, Unavailable
from edge.store.blobs import BlobStore
from edge.sync import bundle, bundle_check, bundle_stream
from edge.testing.transport_conformance import Written


@pytest.fixture
def made(tmp_path: Path) -> bundle.Contents:
    """What a box has to carry."""
    written = Written(tmp_path / "box")
    written.grow(1, 6)
    found = bundle.contents(tmp_path / "box" / "sealed", BlobStore(tmp_path / "box" / "blobs"))
    assert found is not None
    return found


def _stream(made: bundle.Contents, has: list[str]) -> bytes:
    out = io.BytesIO()
    bundle_stream.write(made, has, out)
    return out.getvalue()


def test_what_arrives_is_a_whole_bundle(made: bundle.Contents, tmp_path: Path) -> None:
    """Every file, signature and event of it; a second time nothing is sent; a copy of the copy is the same."""
    got = bundle_stream.receive(io.BytesIO(_stream(made, [])), tmp_path / "logs")
    assert got.place is not None
    assert bundle_check.verify(got.place).problems == []
    assert (got.files, got.size_bytes) == (len(made.items), made.size_bytes)
    has = bundle_stream.held(tmp_path / "logs")
    again = bundle_stream.receive(io.BytesIO(_stream(made, has)), tmp_path / "logs")
    assert again.files == 0
    copy = bundle_stream.receive(
        io.BytesIO(_stream(bundle_stream.of_folder(got.place), [])), tmp_path / "copy"
    )
    assert copy.place is not None
    assert (copy.place / bundle.MANIFEST).read_bytes() == (got.place / bundle.MANIFEST).read_bytes()


def test_a_stream_that_breaks_off_anywhere_goes_on(made: bundle.Contents, tmp_path: Path) -> None:
    """Cut at some hundred places, one after another, each file comes once, and the end is whole."""
    files = 0
    for percent in range(0, 100, 3):
        stream = _stream(made, bundle_stream.held(tmp_path))
        with pytest.raises(EdgeError) as caught:
            bundle_stream.receive(io.BytesIO(stream[: len(stream) * percent // 100]), tmp_path)
        assert isinstance(caught.value, Unavailable)
        files = len(bundle_stream.held(tmp_path))
    got = bundle_stream.receive(io.BytesIO(_stream(made, bundle_stream.held(tmp_path))), tmp_path)
    assert got.place is not None
    assert files + got.files == len(made.items)
    assert bundle_check.verify(got.place).problems == []


@pytest.mark.parametrize(
    "line",
    [
        {"name": "../../etc/passwd", "bytes": 1, "sha256": ""},
        {"name": "/tmp/x", "bytes": 1, "sha256": ""},
        {"name": "MANIFEST.json", "bytes": 1, "sha256": ""},
        {"name": "000000000000.segment", "bytes": -1, "sha256": ""},
        {"name": "000000000000.segment", "bytes": 1 << 40, "sha256": ""},
        {"name": "000000000000.segment", "bytes": 1, "sha256": "00"},
    ],
)
def test_what_no_bundle_has_is_refused(line: dict[str, object], tmp_path: Path) -> None:
    """Names that lead elsewhere, sizes that cannot be, bytes that were changed: nothing of it is written."""
    head = {"format": bundle_stream.FORMAT, "folder": "noetl-edge-a-" + "0" * 16, "files": 1, "bytes": 1}
    stream = b"".join(json.dumps(each).encode() + b"\n" for each in (head, line)) + b"x"
    with pytest.raises(SegmentRejected):
        bundle_stream.receive(io.BytesIO(stream), tmp_path)
    assert bundle_stream.held(tmp_path) == []


def test_a_shell_that_talks_is_named(tmp_path: Path) -> None:
    """A greeting before the stream is said to be one; another folder's name is refused."""
    with pytest.raises(SegmentRejected, match="logs in"):
        bundle_stream.receive(io.BytesIO(b"Welcome to pump7!\n"), tmp_path)
    head = {"format": bundle_stream.FORMAT, "folder": "../x", "files": 0, "bytes": 0}
    with pytest.raises(SegmentRejected, match="no stream"):
        bundle_stream.receive(io.BytesIO(json.dumps(head).encode() + b"\n"), tmp_path)
