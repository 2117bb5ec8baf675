"""`edge doctor` beside a running box, and before brokers that keep people apart, or do not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from edge.doctor import broker
from edge.doctor.findings import FAIL, OK, WARN
from gateway.mqtt import IMPLEMENTATIONS, BrokerAddress
from tests.process.box import BOX, Box
from tests.process.mosquitto import Mosquitto

pytestmark = pytest.mark.mosquitto

BOX_ACL = f"""
user box
topic readwrite edge/v1/{BOX}/#
pattern write edge/v1/+/request/%u/#
"""


def secure(mosquitto: Mosquitto, folder: Path, acl: str) -> BrokerAddress:
    """Start the broker again with one user, `box`, and these rights; its address with the password."""
    mosquitto.kill()
    passwords, rights = folder / "passwords", folder / "acl"
    command = ["mosquitto_passwd", "-b", "-c", str(passwords), "box", "geheim"]
    subprocess.run(command, check=True, capture_output=True)
    rights.write_text(acl)
    for path in (passwords, rights):
        path.chmod(0o600)
    mosquitto._template = mosquitto._template.replace(
        "allow_anonymous true\n", f"allow_anonymous false\npassword_file {passwords}\nacl_file {rights}\n"
    )
    mosquitto.start()
    return BrokerAddress.parse(f"mqtt://box:geheim@127.0.0.1:{mosquitto.port}")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
async def test_a_broker_that_keeps_principals_apart(
    implementation: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    """All is well: heard, answered, and nobody else may ask in somebody's name."""
    found = await broker.check(secure(mosquitto, tmp_path, BOX_ACL), BOX, implementation)
    assert [(each.grade, each.subject) for each in found] == [
        (OK, "broker"),
        (OK, "access list"),
        (OK, "access list"),
    ]
    assert "is heard" in found[1].says
    assert "nobody" in found[2].says


async def test_a_right_that_is_granted_and_not_given(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """The broker grants the subscription and then delivers nothing: that is found by trying."""
    acl = f"user box\ntopic write edge/v1/{BOX}/#\n"
    found = await broker.check(secure(mosquitto, tmp_path, acl), BOX)
    assert found[1].grade == FAIL
    assert f"edge/v1/{BOX}/request/#" in found[1].mend


async def test_answers_that_may_not_be_published(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """A box that may only read could never answer."""
    acl = f"user box\ntopic read edge/v1/{BOX}/#\n"
    found = await broker.check(secure(mosquitto, tmp_path, acl), BOX)
    assert found[1].grade == FAIL
    assert "may not publish answers: not authorized" in found[1].says


async def test_a_wrong_password(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """A broker that does not know us is named, our password is not."""
    address = secure(mosquitto, tmp_path, BOX_ACL)
    wrong = BrokerAddress(address.host, address.port, username="box", password="falsch")
    (found,) = await broker.check(wrong, BOX)
    assert found.grade == FAIL
    assert "falsch" not in repr(found)


def test_beside_a_running_box(box: Box) -> None:
    """The box is told of, its open broker on loopback is a warning, and it goes on as if nobody had looked."""
    document = json.loads(box.edge("doctor", "--json", check=None).stdout)
    grades = {row["subject"]: row["grade"] for row in document["findings"]}
    says = {row["subject"]: row["says"] for row in document["findings"]}
    assert says["runtime"].startswith(f"serves box {BOX} with version")
    assert (grades["broker"], grades["access list"]) == (OK, WARN)
    assert "still want" in says["memory"]
    assert box.processes["gateway"].poll() is None
    assert box.processes["runtime"].poll() is None
    assert "There is no playbook" in box.edge("request", "none", check=2).stderr
    assert box.verify().whole
    assert "WARNING" not in box.words().replace("lets anyone publish", "").split("serving box")[-1]
