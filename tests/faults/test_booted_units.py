"""The units under a real systemd, in a Debian that was installed as README says: start, trouble of every kind, stop.

Before and after each trouble a client asks over MQTT and is answered. As root: scripts/test --booted
tests/faults/test_booted_units.py (apt install --no-install-recommends systemd-container debootstrap). One Debian is
shared: a test leaves the box running. Memory needs control groups of the second version with that controller.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.faults.contained import Contained, require
from tests.process.test_units import PLAYBOOK

pytestmark = pytest.mark.booted

_BOTH = "edge-runtime edge-gateway"
_DATA = "--data /var/lib/edge"
_INSTALL = "PIP_NO_INDEX=1 PIP_FIND_LINKS=/root/wheels checkout/scripts/install-units"
#: Eats more than the unit may have; its own granted bound is wider, so that the unit's is what it meets.
_HOG = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: hog, path: hog}
workflow:
  - step: eat
    spec: {memory_mb: 2000, policy: {access: {programs: [/usr/bin/python3]}}}
    tool: {kind: shell, cmd: [/usr/bin/python3, -c, "x = bytearray(800 << 20)"]}
"""
_LOOKS = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: hello, path: hello}
workflow:
  - step: greet
    tool: {kind: python, code: 'result = f"Hello, {name}"'}
    input: {name: "{{ workload.name }}"}
"""


def ask(debian: Contained, playbook: str = "hello") -> str:
    """What an MQTT client is answered."""
    return debian.do(
        f"mosquitto_rr -V 5 -W 60 -q 1 -t edge/v1/box/request/ada/{playbook} -e answers/ada"
        """ -D publish user-property receipt none -m '{"name": "Ada"}'"""
    )


def shown(debian: Contained, unit: str, name: str) -> str:
    """One property of a unit."""
    return debian.do(f"systemctl show --value --property={name} {unit}").strip()


def serving(debian: Contained) -> str:
    """Return once both units run and a client is answered; the answer."""
    debian.until(f"systemctl is-active {_BOTH}")
    debian.until("systemctl show --property=StatusText edge-gateway | grep serving")
    answer = ask(debian)
    assert "Hello, Ada" in answer, answer
    return answer


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contained]:
    """A Debian in which a box was installed and three playbooks were registered."""
    require()
    made = Contained(tmp_path_factory.mktemp("debian"))
    try:
        made.start()
        made.bring()
        made.do(_INSTALL, within_s=900)
        pip = "/opt/edge/bin/pip install --quiet --no-index --find-links wheels"
        made.do(f"{pip} duckdb starlette uvicorn", within_s=300)
        made.put("/srv/edge/word", '"heard"')
        made.do("systemd-run --unit=words python3 -m http.server --bind 127.0.0.1 --directory /srv/edge 8000")
        for name, text in (("hello", _LOOKS), ("hog", _HOG), ("every", PLAYBOOK.format(port=8000))):
            made.put(f"/srv/edge/{name}.yaml", text)
            made.do(f"edge playbook register --data /var/lib/edge /srv/edge/{name}.yaml")
        yield made
    finally:
        made.end()


def test_it_starts_as_installed_and_says_how_it_goes(debian: Contained) -> None:
    """Both units are ready, `systemctl status` has a line of each, and nothing failed to start."""
    serving(debian)
    assert "serving box box from /var/lib/edge" in shown(debian, "edge-runtime", "StatusText")
    assert "serving" in debian.do("systemctl status edge-gateway")
    assert debian.do("systemctl list-units --failed --no-legend 'edge*'") == ""
    assert (shown(debian, "edge-runtime", "NRestarts"), shown(debian, "edge-gateway", "NRestarts")) == (
        "0",
        "0",
    )


def test_installing_again_changes_nothing(debian: Contained) -> None:
    """A second run keeps settings and log, and the box answers."""
    debian.do("echo 'retain_days = 30' >> /var/lib/edge/edge.toml")
    debian.do(_INSTALL, within_s=600)
    assert "retain_days = 30" in debian.do("cat /var/lib/edge/edge.toml")
    serving(debian)


def test_every_kind_of_block_works_in_its_unit(debian: Contained) -> None:
    """Tables, SQL, a granted host, a granted program: under all that the unit shuts."""
    serving(debian)
    assert "199990000" in ask(debian, "every")


def test_the_gateway_sees_nothing_of_the_log(debian: Contained) -> None:
    """Neither by its view of files nor by its user."""
    pid = shown(debian, "edge-gateway", "MainPID")
    assert debian.do(f"ls /proc/{pid}/root/var/lib/edge").split() == ["edge.toml", "run"]
    debian.do("runuser -u edge-gateway -g edge-gateway -- ls /var/lib/edge/journal", code=2)
    debian.do("runuser -u edge-gateway -- ls /var/lib/edge/keychain", code=2)


@pytest.mark.parametrize("which", ["gateway", "runtime", "zygote", "worker"])
def test_what_is_killed_comes_back(debian: Contained, which: str) -> None:
    """After kill -9 of any process the next request is answered."""
    serving(debian)
    pid = shown(debian, f"edge-{'gateway' if which == 'gateway' else 'runtime'}", "MainPID")
    if which in ("zygote", "worker"):
        pid = debian.do(f"pgrep -P {pid} | head -1").strip()
    if which == "worker":
        pid = debian.do(f"pgrep -P {pid} | head -1").strip()
    debian.do(f"kill -9 {pid}")
    debian.until(f"! kill -0 {pid} 2>/dev/null")
    serving(debian)


def test_the_watchdog_ends_what_hangs(debian: Contained) -> None:
    """A runtime that is stopped says nothing, is ended for it, started anew, and answers."""
    serving(debian)
    debian.put("/run/systemd/system/edge-runtime.service.d/fast.conf", "[Service]\nWatchdogSec=3s\n")
    debian.do("systemctl daemon-reload && systemctl restart edge-runtime")
    serving(debian)
    pid = shown(debian, "edge-runtime", "MainPID")
    debian.do(f"kill -STOP {pid}")
    debian.until("journalctl -u edge-runtime | grep 'Watchdog timeout'")
    debian.until(f"! kill -0 {pid} 2>/dev/null")
    debian.do("rm -r /run/systemd/system/edge-runtime.service.d && systemctl daemon-reload")
    debian.until(
        f"systemctl is-active edge-runtime && [ $(systemctl show -P MainPID edge-runtime) != {pid} ]"
    )
    debian.do("systemctl restart edge-runtime")
    serving(debian)


def test_a_person_is_waited_for(debian: Contained) -> None:
    """A wrong setting: exit code 2, one start, the sentence that says what to mend; mended, it starts."""
    serving(debian)
    debian.do("cp -p /var/lib/edge/edge.toml /root/ && echo 'nonsense = 1' >> /var/lib/edge/edge.toml")
    debian.do("systemctl restart edge-runtime", code=1)
    assert (shown(debian, "edge-runtime", "NRestarts"), shown(debian, "edge-runtime", "SubState")) == (
        "0",
        "failed",
    )
    assert "there is no setting 'nonsense'" in debian.do("systemctl status edge-runtime", code=3)
    debian.do("cp -p edge.toml /var/lib/edge/ && systemctl start edge-runtime")
    serving(debian)


def test_starting_ends_after_twenty_failures(debian: Contained) -> None:
    """A runtime that fails at each start is given up on, and one command begins again."""
    serving(debian)
    debian.put(
        "/run/systemd/system/edge-runtime.service.d/fails.conf",
        "[Service]\nExecStart=\nExecStart=/bin/false\nRestartSec=10ms\n",
    )
    debian.do("systemctl daemon-reload && systemctl restart edge-runtime", code=1)
    debian.until(
        "systemctl show -P Result edge-runtime | grep start-limit-hit || systemctl is-failed edge-runtime"
    )
    assert int(shown(debian, "edge-runtime", "NRestarts")) <= 20
    debian.do("systemctl start edge-runtime", code=1)
    debian.do("rm -r /run/systemd/system/edge-runtime.service.d && systemctl daemon-reload")
    debian.do("systemctl reset-failed edge-runtime && systemctl start edge-runtime")
    serving(debian)


def test_a_step_that_eats_all_memory_is_one_lost_attempt(debian: Contained) -> None:
    """The kernel ends the step, not the runtime: the client is told, and the next request is answered."""
    if "memory" not in debian.do("cat /sys/fs/cgroup/cgroup.controllers").split():
        pytest.skip("systemd has no memory controller here: its groups are of the first version")
    serving(debian)
    pid = shown(debian, "edge-runtime", "MainPID")
    assert "program_killed" in ask(debian, "hog")
    assert shown(debian, "edge-runtime", "MainPID") == pid
    serving(debian)


def test_sync_ships_in_its_unit(debian: Contained) -> None:
    """A centre on the same machine, enrolled by root: what was sealed arrives, its receipt empties the queue."""
    serving(debian)
    debian.do("edge central enrol box --url https://localhost:8443 --out box.json --data /srv/centre")
    debian.do("systemd-run --unit=centre edge central serve --name localhost --data /srv/centre")
    debian.until("journalctl -u centre | grep serving")
    debian.do(f"edge sync enrol box.json {_DATA}")
    debian.do("echo 'centre = true' >> /var/lib/edge/edge.toml && systemctl restart edge.target")
    serving(debian)
    debian.do("systemctl restart edge-runtime")  # what stops seals first
    serving(debian)
    debian.until(
        f"edge sync status --json {_DATA} | grep '\"waiting_segments\": 0' | grep -v 'receipted\": 0,'"
    )
    assert debian.do("ls /var/lib/edge/sealed/*.segment 2>/dev/null | wc -l").strip() == "0"
    assert "receipt" in debian.do("edge central audit box --data /srv/centre", code=None)
    pid = shown(debian, "edge-sync", "MainPID")
    assert debian.do(f"ls /proc/{pid}/root/var/lib/edge/journal") == ""
    assert shown(debian, "edge-sync", "NRestarts") == "0"


def test_what_root_does_stays_the_boxs(debian: Contained) -> None:
    """A technician's sudo on a box that is stopped: nothing of root's is in the services' way afterwards."""
    serving(debian)
    debian.do("systemctl stop edge.target && mkdir -p /srv/stick")
    debian.do(f"edge bundle export /srv/stick --same-drive --all {_DATA}")
    debian.do(f"edge bundle verify /srv/stick/* && edge log verify {_DATA} && edge replay --all {_DATA}")
    assert debian.do("find /var/lib/edge -user root").split() == ["/var/lib/edge/edge.toml"]
    debian.do("systemctl start edge.target")
    serving(debian)


def test_the_journal_has_priorities(debian: Contained) -> None:
    """Warnings are found as such, and information is not among them."""
    lines = debian.do("journalctl -b -o cat -p err -u edge-runtime")
    assert "no setting 'nonsense'" in lines
    assert "serving box" not in lines
    assert "serving box" in debian.do("journalctl -b -o cat -p info -u edge-runtime")


def test_stopping_is_clean(debian: Contained) -> None:
    """`systemctl stop edge.target` ends all processes of both units with success, none by a signal."""
    serving(debian)
    debian.do("systemctl stop edge.target")
    for unit in _BOTH.split():
        debian.until(f"systemctl show -P ActiveState {unit} | grep -x inactive")  # what stops seals first
        assert (shown(debian, unit, "Result"), shown(debian, unit, "ExecMainStatus")) == ("success", "0")
    assert debian.do("pgrep -u edge,edge-gateway", code=1) == ""
    debian.do("systemctl start edge.target")
    serving(debian)


def test_all_is_back_after_a_restart_of_the_machine_and_the_broker_may_come_later(debian: Contained) -> None:
    """The machine starts in full while its broker is away; the gateway serves once the broker is there."""
    serving(debian)
    debian.do("systemctl disable mosquitto")
    debian.reboot()
    debian.until(f"systemctl is-active multi-user.target {_BOTH}")
    assert not re.match("serving", shown(debian, "edge-gateway", "StatusText"))
    debian.do("systemctl enable --now mosquitto")
    serving(debian)
    debian.reboot()
    serving(debian)
