"""The audit: everything that is wrong with a box's log at the centre is named, with what to do about it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edge.cli.main import main
from edge.core.events import Event, Gap
from edge.segments.sealed import open_sealed
from tests.unit.central_rig import DAY_NS, Centre, Pump, forged, signer_of


def audit(
    centre: Centre, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0
) -> dict[str, list[str]]:
    """States and texts by check, as the command says them."""
    capsys.readouterr()
    assert main(["central", "audit", "--json", "--data", str(centre.data), *words]) == code
    found: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        said = json.loads(line)
        found.setdefault(said["check"], []).append(f"{said['state']} {said['text']}")
    return found


def test_a_whole_log_is_ok(centre: Centre, pump: Pump, capsys: pytest.CaptureFixture[str]) -> None:
    """Chain, events, keys and receipt: ok; before the compaction the events are a warning, never ok unseen."""
    centre.take(pump.sealed(2))
    before = audit(centre, capsys)
    assert before["events"] == ["warn looked at one by one not yet"]
    centre.compact()
    found = audit(centre, capsys, "pump-7")
    assert {text.split()[0] for texts in found.values() for text in texts} == {"ok"}
    assert found["receipt"] == [f"ok log {pump.journal.log_id.hex()} up to event {pump.journal.last_seq}"]
    assert sorted(found) == ["chain", "events", "keys", "receipt"]


def test_gaps_name_range_box_and_time(centre: Centre, pump: Pump, capsys: pytest.CaptureFixture[str]) -> None:
    """`gaps` and the audit say which events are missing of which box, and between which moments it wrote them."""
    first, second, third = pump.sealed(3)
    centre.take([first, third])
    said = open_sealed(second).manifest
    missing = f"events {said.first_seq} to {said.last_seq}"
    assert [text for text in audit(centre, capsys)["gap"] if missing in text and "between 2" in text]
    assert main(["central", "gaps", "--data", str(centre.data)]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"pump-7  {missing} are missing of log {pump.journal.log_id.hex()}, since 2")
    assert main(["central", "gaps", "--json", "--data", str(centre.data)]) == 1
    gap = json.loads(capsys.readouterr().out)
    assert (gap["first"], gap["last"]) == (said.first_seq, said.last_seq)
    assert gap["since_ns"] == open_sealed(first).manifest.wall_max_ns
    centre.take([second])
    assert main(["central", "gaps", "--data", str(centre.data)]) == 0
    capsys.readouterr()
    list(centre.central.shelf.segments())[1].unlink()
    assert main(["central", "gaps", "--data", str(centre.data)]) == 1
    assert missing in capsys.readouterr().out


@pytest.mark.parametrize(("apart_ns", "check"), [(0, "clone"), (-9 * DAY_NS, "fork")])
def test_forks_and_clones_are_told_apart(
    centre: Centre, pump: Pump, tmp_path: Path, capsys: pytest.CaptureFixture[str], apart_ns: int, check: str
) -> None:
    """Two histories at one time: two boxes with one card. At different times: an older copy was put back."""
    first = pump.sealed(1)
    pump.journal.close()
    shutil.copytree(pump.folder, tmp_path / "copy")
    ours, copy = Pump(pump.folder, begun=True), Pump(tmp_path / "copy", begun=True)
    centre.take([*first, *ours.sealed(2)])
    copy.clock.set_wall(copy.clock.now.wall_ns + apart_ns + 10)
    copy.end(copy.begin(), failed=True)
    assert centre.take([copy.seal()]) == ["fork"]
    found = audit(centre, capsys, code=1)
    assert found[check][0].startswith("fail 1 segments are of another history")


def test_keys_that_rotate_and_are_revoked(
    centre: Centre, pump: Pump, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two believed keys ask for the old one's end; a revoked one's segments stay, with a warning."""
    centre.take(pump.sealed(1))
    boxes = centre.central.boxes
    old = signer_of("pump-7").public
    boxes.enrol("pump-7", signer_of("new").public, 5)
    assert audit(centre, capsys)["keys"][0].startswith("warn 2 keys are believed")
    boxes.revoke("pump-7", old, 9)
    assert [
        text for text in audit(centre, capsys)["keys"] if text.startswith("warn 1 segments are signed by")
    ]
    boxes.revoke("pump-7", signer_of("new").public, 9)
    assert "warn every key is revoked: nothing more is taken" in audit(centre, capsys)["keys"]
    (centre.data / "boxes" / "pump-7.json").unlink()
    assert audit(centre, capsys, code=1)["keys"] == ["fail segments of it are here, and it is not enrolled"]


def test_losses_quarantine_rot_and_what_was_refused(
    centre: Centre, pump: Pump, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the log calls lost, what is left out, what rotted on the centre's drive, and what was kept aside."""
    pump.group([Event(pump.journal.next_seq, Gap(7, 9, "torn"))])
    first = pump.seal()
    centre.take([first, forged(pump.sealed(1)[0])])
    centre.central.take(b"nonsense", deep=True)
    centre.compact()
    found = audit(centre, capsys, code=1)
    assert found["loss"] == ['warn event 2 gap: {"first":7,"last":9,"cause":"torn"}']
    assert found["events"][0].startswith("fail segment 1 is left out of the tables")
    assert found["refused"][0].startswith("warn 1 rejected; the last one")
    path = next(iter(centre.central.shelf.segments()))
    path.write_bytes(path.read_bytes()[:-3])
    assert audit(centre, capsys, code=1)["chain"][0].startswith("fail Segment 0 of pump-7 has")


def test_a_box_of_which_nothing_came(centre: Centre, capsys: pytest.CaptureFixture[str]) -> None:
    """Enrolled and silent: a warning. A name that nobody knows: refused."""
    centre.central.boxes.enrol("quiet", signer_of("quiet").public, 1)
    assert audit(centre, capsys)["log"] == ["warn nothing of it has come yet"]
    assert main(["central", "audit", "nobody", "--data", str(centre.data)]) == 2
    assert "edge central boxes" in capsys.readouterr().err
