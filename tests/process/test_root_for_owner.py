"""A technician's `sudo edge …` on a box of another user: what it writes is the box's, what it starts is no root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.security.signing import Signer
from edge.sync.centre import Enrolment, document

OWNER = 64_321
#: Bits of capabilities(7): CAP_DAC_OVERRIDE, CAP_SETGID, CAP_SETUID, CAP_SETPCAP.
_NEEDED = 1 << 1 | 1 << 6 | 1 << 7 | 1 << 8


def may_act_for_others() -> bool:
    """Whether this root is a whole one: some containers take rights or users away."""
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line
    )
    (_, mapped, count), *_ = (line.split() for line in Path("/proc/self/uid_map").read_text().splitlines())
    whole = int(status["CapEff"], 16) & _NEEDED == _NEEDED
    return os.geteuid() == 0 and whole and mapped == "0" and int(count) > OWNER


pytestmark = pytest.mark.skipif(
    not may_act_for_others(), reason="only a whole root may act for somebody else"
)

_PROBE = """
import os, subprocess, sys
from pathlib import Path
from edge.cli.owner import act_for_owner
act_for_owner(Path(sys.argv[1]))
print(os.getuid(), os.geteuid(), os.getgid())
Path(sys.argv[2]).write_text("a stick that only root may write")
print(Path(sys.argv[2]).stat().st_uid)
print(subprocess.run(["cat", sys.argv[2] + "/../secret"], stderr=subprocess.DEVNULL).returncode)
print(subprocess.run(["id", "-u"], stdout=subprocess.PIPE, text=True).stdout.strip())
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder of a user of its own."""
    made = tmp_path / "data"
    made.mkdir()
    os.chown(made, OWNER, OWNER)
    return made


def probe(data: Path, stick: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, str(data), str(stick)], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.splitlines()


def test_root_keeps_its_rights_and_gives_none_on(data: Path, tmp_path: Path) -> None:
    """Files are the owner's wherever they are written; a process that is started may no more than the owner may."""
    place = tmp_path / "stick"
    place.mkdir(mode=0o700)
    (place / "secret").touch(mode=0o600)
    assert probe(data, place / "file") == [
        f"{OWNER} {OWNER} {OWNER}", str(OWNER), "1", str(OWNER),
    ]  # fmt: skip


def test_roots_own_folder_is_left_to_root(tmp_path: Path) -> None:
    """Nobody's services are in the way there; nor is anything changed where the folder is not there yet."""
    for folder in (tmp_path, tmp_path / "absent"):
        assert probe(folder, tmp_path / "file")[0] == "0 0 0"


def test_an_enrolment_by_root_is_the_boxs(data: Path, tmp_path: Path) -> None:
    """`edge sync enrol` as root: the box's own processes must read what it leaves."""
    file = tmp_path / "box.json"
    file.write_bytes(document(Enrolment(Signer(bytes(32)).public, "box", "https://centre:8443")))
    file.chmod(0o600)
    command = [sys.executable, "-m", "edge.cli.main", "sync", "enrol", str(file), "--data", str(data)]
    subprocess.run(command, check=True)
    found = {path.name: path.stat().st_uid for path in data.iterdir()}
    assert found == {"centre.json": OWNER}
