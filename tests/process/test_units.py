"""The systemd units: systemd itself finds nothing wrong with them, and a box works within what they allow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.testing.loopback import serving
from tests.process.box import Box
from tests.process.mosquitto import Mosquitto
from tests.process.unit_confinement import FOLDER, LIBRARY, allowed_calls, directives

UNITS = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".service", ".target"))
SERVICES = [name for name in UNITS if name.endswith(".service")]
#: Where the units look for our Python; here it is that of the tests.
INSTALLED = "/opt/edge/bin/python"
#: In tenths, as `systemd-analyze security` puts it; lower is tighter. What is open stands in systemd/DESIGN.md.
EXPOSURE_MAX = {"edge-runtime.service": 16, "edge-gateway.service": 11, "edge-sync.service": 12}

PLAYBOOK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {{name: every, path: every}}
workflow:
  - step: table
    tool:
      kind: python
      code: |
        import pyarrow as pa
        result = pa.table({{"n": list(range(20000))}})
    next: sum
  - step: sum
    input: {{made: "{{{{ table }}}}"}}
    tool: {{kind: sql, output: row, query: SELECT sum(n) AS n FROM made}}
    next: ask
  - step: ask
    spec: {{policy: {{access: {{hosts: ["localhost:{port}"]}}}}}}
    tool: {{kind: http, url: "http://localhost:{port}/word"}}
    next: say
  - step: say
    input: {{word: "{{{{ ask.data }}}}", n: "{{{{ sum.n }}}}"}}
    spec: {{policy: {{access: {{programs: [/bin/sh]}}}}}}
    tool: {{kind: shell, cmd: [/bin/sh, -c, 'echo "$1 $2"', sh, "{{{{ word }}}}", "{{{{ n }}}}"]}}
    next: end
  - step: end
    input: {{said: "{{{{ say }}}}"}}
    tool: {{kind: transform, value: "{{{{ said }}}}"}}
"""


def require_systemd() -> None:
    """Skip by name where systemd's own checker is missing; under CI=true that is a failure."""
    if shutil.which("systemd-analyze") is None or LIBRARY is None:
        pytest.skip("not installed: systemd-analyze (apt install systemd)")


def require_namespaces() -> None:
    """Skip where this user may not make namespaces of his own; under CI=true that is a failure."""
    done = subprocess.run(["unshare", "-Um", "true"], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this machine gives its users no namespaces of their own")


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, Path]:
    """The units as they are once Python is where they look for it."""
    require_systemd()
    copies = {name: tmp_path / name for name in UNITS}
    for name, path in copies.items():
        text = (FOLDER / name).read_text()
        assert name.endswith(".target") or text.count(INSTALLED) == 1
        path.write_text(text.replace(INSTALLED, sys.executable))
    return copies


def test_systemd_finds_nothing_wrong(installed: dict[str, Path]) -> None:
    """`systemd-analyze verify` on all units together says nothing at all."""
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, installed.values())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_check_sees_what_is_wrong(installed: dict[str, Path]) -> None:
    """The same check objects to a directive that does not exist, so its silence means something."""
    path = installed["edge-runtime.service"]
    path.write_text(path.read_text().replace("WatchdogSec=", "WatchDogSec="))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert "WatchDogSec" in done.stderr


@pytest.mark.parametrize("unit", SERVICES)
def test_no_unit_grows_more_exposed(installed: dict[str, Path], unit: str) -> None:
    """The exposure that systemd works out stays at or below what DESIGN.md gives reasons for."""
    done = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            f"--threshold={EXPOSURE_MAX[unit]}",
            str(installed[unit]),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.parametrize("unit", SERVICES)
def test_the_daemons_take_the_options_they_are_started_with(
    installed: dict[str, Path], unit: str, tmp_path: Path
) -> None:
    """The very command of the unit starts the daemon; here it is refused its data folder, in plain words."""
    (command,) = directives(installed[unit])["ExecStart"]
    data = tmp_path / "data"
    data.mkdir()
    (data / "edge.toml").write_text("nonsense = 1\n")
    words = command.replace("/var/lib/edge", str(data)).split()
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "there is no setting 'nonsense'" in done.stderr


@pytest.fixture
def confined(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Box]:
    """A box whose two daemons are held as their units hold them."""
    require_systemd()
    require_namespaces()
    made = Box(tmp_path, mosquitto.port)
    start = [sys.executable, "-m", "tests.process.unit_confinement"]
    made.started_by = {
        name: [*start, f"edge-{name}.service", str(made.data)] for name in ("runtime", "gateway")
    }
    try:
        made.start("runtime")
        made.status()  # as the units have it: After=, and ready once it answers
        made.start("gateway")
        yield made
    finally:
        made.down()


@pytest.mark.sandbox
@pytest.mark.mosquitto
def test_every_kind_of_block_works_within_the_units(confined: Box) -> None:
    """Fork, landlock, seccomp, mapped tables, SQL, a granted host and a granted program, asked for over MQTT."""
    with serving({"/word": lambda h: h.say(200, b'"heard"', "application/json")}) as server:
        confined.register(PLAYBOOK.format(port=server.port))
        answer = confined.edge("request", "every")
    assert "heard 199990000" in answer.stdout, confined.words()
    status = confined.status()
    for pid in (
        status["pid"],
        status["zygote_pid"],
        *status["worker_pids"],
        confined.processes["gateway"].pid,
    ):
        text = Path(f"/proc/{pid}/status").read_text()
        assert "Seccomp:\t2" in text
        assert "NoNewPrivs:\t1" in text
        (_, _, mapped), *others = (
            line.split() for line in Path(f"/proc/{pid}/uid_map").read_text().splitlines()
        )
        assert (mapped, others) == ("1", [])
        root = [row.split() for row in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
        assert ["ro" in row[5].split(",") for row in root if row[4] == "/"] == [True]
    assert confined.verify().whole


@pytest.mark.mosquitto
def test_the_gateway_sees_nothing_of_the_log(confined: Box) -> None:
    """Of the data folder it has the settings and the way to the runtime, also after that made its socket anew."""
    gateway = Path(f"/proc/{confined.processes['gateway'].pid}/root")
    assert "There is no playbook" in confined.edge("request", "none", check=2).stderr
    assert {path.name for path in (gateway / confined.data.relative_to("/")).iterdir()} == {
        "edge.toml",
        "run",
    }
    assert {"journal", "index"} <= {path.name for path in confined.data.iterdir()}
    confined.kill("runtime")
    confined.start("runtime")
    confined.status()
    assert "There is no playbook" in confined.edge("request", "none", check=2).stderr


@pytest.mark.sandbox
@pytest.mark.mosquitto
def test_the_log_is_sealed_within_the_unit(confined: Box, tmp_path: Path) -> None:
    """The process that seals is the runtime's child, and held as it is."""
    confined.register(PLAYBOOK.format(port=1))
    (tmp_path / "stick").mkdir()
    confined.edge("bundle", "export", str(tmp_path / "stick"), "--same-drive")
    (place,) = (tmp_path / "stick").iterdir()
    assert "whole    every file" in confined.edge("bundle", "verify", str(place)).stdout


def test_what_workers_lock_themselves_in_with_is_allowed() -> None:
    """Without these the runtime's workers could not shut their own doors; the gateway has no use for them."""
    require_systemd()
    own = {"capset", "seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}
    runtime, gateway = (
        allowed_calls(directives(FOLDER / f"edge-{name}.service")["SystemCallFilter"])
        for name in ("runtime", "gateway")
    )
    assert own <= runtime
    assert not own & gateway
    assert not {"bpf", "mount", "setuid", "chroot", "ptrace", "init_module"} & (runtime | gateway)


def test_the_users_of_the_units_are_made(tmp_path: Path) -> None:
    """systemd-sysusers would make the very users and groups that the units name; it is asked, and makes none."""
    require_systemd()
    command = ["systemd-sysusers", "--dry-run", f"--root={tmp_path}", str(FOLDER / "edge.sysusers")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for name in SERVICES:
        unit = directives(FOLDER / name)
        assert f"Creating user '{unit['User'][0]}'" in done.stderr
        assert f"Creating group '{unit['Group'][0]}'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_person_is_not_waited_for_by_restarting() -> None:
    """The runtime is not started again after exit code 2, nor for ever; the gateway goes on trying."""
    runtime, gateway = (directives(FOLDER / f"edge-{name}.service") for name in ("runtime", "gateway"))
    assert runtime["RestartPreventExitStatus"] == ["2"]
    assert int(runtime["StartLimitBurst"][0]) > 0
    assert gateway["StartLimitIntervalSec"] == ["0"]
    assert (
        os.path.basename(directives(FOLDER / "edge-gateway.service")["ExecStart"][0].split()[0]) == "python"
    )


def test_memory_ends_a_step_instead_of_slowing_the_box() -> None:
    """No unit has MemoryHigh=: above it the kernel slows every process of the unit down and ends none."""
    for name in SERVICES:
        unit = directives(FOLDER / name)
        assert "MemoryHigh" not in unit
        assert unit["MemoryMax"]
