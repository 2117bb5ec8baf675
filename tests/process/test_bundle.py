"""`edge bundle` on a real box: beside it and without it, the stick pulled out at any file, every damage named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.segments.sealed import open_sealed
from edge.segments.sealing import sealed_paths
from edge.store import upstream
from edge.store.journal import read_groups
from edge.sync.bundle import MANIFEST
from tests.process.box import Box

SOURCE = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: p, path: p}
workflow:
  - step: a
    tool: {kind: transform, value: "{{ text | length }}"}
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path, 1)
    made.start("runtime")
    made.register(SOURCE)
    for size in (10, 20, 100_000):
        assert made.run("p", {"text": "x" * size})["result"] == size
    yield made
    made.down()


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    place = tmp_path / "stick"
    place.mkdir()
    return place


def export(box: Box, stick: Path, *more: str) -> Path:
    said = json.loads(box.edge("bundle", "export", str(stick), "--json", "--same-drive", *more).stdout)
    return Path(said["folder"])


def groups(place: Path) -> list[bytes]:
    return [
        each.stored.data for path in sealed_paths(place) for each in open_sealed(path.read_bytes()).groups()
    ]


def stored(box: Box) -> list[bytes]:
    return [data for _, _, data in read_groups(box.settings.journal_folder)]


@pytest.mark.parametrize("how", ["beside a running box", "stopped", "killed"])
def test_all_of_the_log_is_on_the_stick(box: Box, stick: Path, how: str) -> None:
    """Every event and every large value, whole, whether the box runs, was stopped or was killed."""
    if how != "beside a running box":
        box.kill("runtime", 9 if how == "killed" else 15)
    place = export(box, stick)
    box.kill("runtime", 9) if how == "beside a running box" else None
    assert groups(place) == stored(box)
    (blob,) = (place / "blobs").iterdir()
    assert len(blob.read_bytes()) > 100_000
    assert "whole    every file" in box.edge("bundle", "verify", str(place)).stdout


def test_words_for_a_technician(box: Box, stick: Path) -> None:
    """What was copied, whose it is, and that the stick may be pulled out; a second run copies nothing."""
    would = box.edge("bundle", "export", str(stick), "--same-drive", "--dry-run").stdout
    assert "nothing is sealed yet" in would
    assert "is on the box's own drive" in box.edge("bundle", "export", str(stick), check=2).stderr
    said = box.edge("bundle", "export", str(stick), "--same-drive").stdout
    assert "safe     all is written" in said
    assert "copied   2 of 2 files" in said
    again = box.edge("bundle", "export", str(stick), "--same-drive").stdout
    assert "copied   0 of 2 files" in again


def test_the_stick_is_pulled_out_at_every_file(box: Box, stick: Path) -> None:
    """Whatever had been written when it went: verifying names it, and the same command completes it."""
    whole = export(box, stick)
    files = {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    order = sorted(files, key=lambda path: (path.name == MANIFEST, str(path)))
    for count in range(len(order)):
        for torn in (b"", files[order[count]][: len(files[order[count]]) // 2]):
            shutil.rmtree(whole)
            (whole / "blobs").mkdir(parents=True)
            for path in order[:count]:
                (whole / path).write_bytes(files[path])
            (whole / f"{order[count]}.part").write_bytes(torn)
            refused = box.edge("bundle", "verify", str(whole), check=None)
            assert refused.returncode == 2
            assert "was not finished" in refused.stderr
            assert export(box, stick) == whole
            assert {path: (whole / path).read_bytes() for path in order} == files
            box.edge("bundle", "verify", str(whole))


def test_damage_on_the_stick_is_healed_by_the_next_export(box: Box, stick: Path) -> None:
    """A file of the right size and other bytes is copied again, and the bundle is whole."""
    place = export(box, stick)
    for path in (sealed_paths(place)[0], next((place / "blobs").iterdir())):
        flip(path)
    assert box.edge("bundle", "verify", str(place), check=1)
    export(box, stick)
    box.edge("bundle", "verify", str(place))


@pytest.mark.parametrize("what", ["value", "segment"])
def test_damage_on_the_box_is_said_before_anything_is_copied(box: Box, stick: Path, what: str) -> None:
    """A large value that is gone, a segment that was changed: named while somebody stands there, and no "safe"."""
    export(box, stick)
    if what == "value":
        (blob,) = [path for path in box.settings.blob_folder.rglob("*") if path.is_file()]
        blob.unlink()
    else:
        flip(sealed_paths(box.settings.sealed_folder)[0])
    refused = box.edge("bundle", "export", str(stick), "--same-drive", check=1)
    assert ("Blob" if what == "value" else "000000000000.segment") in refused.stderr
    assert "safe" not in refused.stdout


def test_another_history_on_the_stick_is_not_written_over(box: Box, stick: Path) -> None:
    """A data folder was put back: what the stick has of the other history stays, and the export says so."""
    box.kill("runtime", 15)
    shutil.copytree(box.data, box.data.parent / "older", ignore=shutil.ignore_patterns("run"))
    box.start("runtime")
    box.status()
    assert box.run("p", {"text": "a"})["result"] == 1
    place = export(box, stick)
    before = {path.name: path.read_bytes() for path in sealed_paths(place)}
    box.kill("runtime", 15)
    shutil.rmtree(box.data)
    shutil.copytree(box.data.parent / "older", box.data)
    box.start("runtime")
    box.status()
    assert box.run("p", {"text": "bb"})["result"] == 2
    refused = box.edge("bundle", "export", str(stick), "--same-drive", check=2)
    assert "of another history than this box's" in refused.stderr
    assert {path.name: path.read_bytes() for path in sealed_paths(place)} == before


def test_a_bundle_whose_end_is_cut_off_is_not_whole(box: Box, stick: Path) -> None:
    """The newest segment and its line are gone: the event that the bundle should go to stands there still."""
    export(box, stick)
    assert box.run("p", {"text": "a"})["result"] == 1
    place = export(box, stick)
    document = json.loads((place / MANIFEST).read_text())
    newest = sealed_paths(place)[-1]
    newest.unlink()
    del document["files"][newest.name]
    (place / MANIFEST).write_text(json.dumps(document))
    assert "the bundle should go to event" in box.edge("bundle", "verify", str(place), check=1).stdout


def test_later_events_follow_on_the_same_stick(box: Box, stick: Path) -> None:
    """A second visit adds what is new; what the centre has by its receipt is left out of a fresh stick."""
    first = export(box, stick)
    newest = open_sealed(sealed_paths(first)[-1].read_bytes()).manifest
    assert box.run("p", {"text": "abc"})["result"] == 3
    assert export(box, stick) == first
    box.edge("bundle", "verify", str(first))
    assert groups(first) == stored(box)
    upstream.write(box.settings.data, upstream.Receipt(newest.log_id, newest.last_seq, newest.link_after))
    other = stick.parent / "other"
    other.mkdir()
    assert len(sealed_paths(export(box, other))) == 1
    shutil.rmtree(other)
    other.mkdir()
    assert len(sealed_paths(export(box, other, "--all"))) == 2


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda place: sealed_paths(place)[0].unlink(), "000000000000.segment is absent"),
        (lambda place: next((place / "blobs").iterdir()).unlink(), "is absent"),
        (lambda place: flip(next((place / "blobs").iterdir())), "was changed"),
        (lambda place: flip(sealed_paths(place)[0]), "000000000000.segment"),
        (lambda place: cut(sealed_paths(place)[0]), "bytes and should have"),
        (lambda place: shutil.copy(sealed_paths(place)[0], place / "000000000007.segment"), "under another name"),
        (lambda place: (place / MANIFEST).write_text("{"), "cannot be read"),
        (lambda place: (place / MANIFEST).write_text('{"format": "x"}'), "of another format"),
        (lambda place: (place / MANIFEST).unlink(), "it is no bundle, or was not finished"),
    ],
)  # fmt: skip
def test_each_damage_is_named(box: Box, stick: Path, damage: object, words: str) -> None:
    """A file that is absent, cut, changed or somebody else's, and a list that cannot be read."""
    place = export(box, stick)
    assert callable(damage)
    damage(place)
    refused = box.edge("bundle", "verify", str(place), check=None)
    assert refused.returncode in (1, 2)
    assert words in refused.stdout + refused.stderr


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def test_wrong_places_are_said(box: Box, stick: Path) -> None:
    """No such folder, and a name in MANIFEST.json that leads out of the bundle."""
    refused = box.edge("bundle", "export", str(stick / "not there"), check=2)
    assert "Is the stick mounted?" in refused.stderr
    place = export(box, stick)
    document = json.loads((place / MANIFEST).read_text())
    document["files"]["../../secret"] = {"bytes": 1, "sha256": ""}
    (place / MANIFEST).write_text(json.dumps(document))
    assert "of another format" in box.edge("bundle", "verify", str(place), check=2).stderr
    refused = box.edge("bundle", "export", str(place), "--same-drive", check=2)
    assert f"Name the folder that it lies in: {stick}" in refused.stderr
