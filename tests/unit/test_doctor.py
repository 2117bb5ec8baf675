"""What the doctor makes of machines that are planted here: tables, trees below a root, readings of clocks, times."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.cli.main import main
from edge.core.clock import WALL_IMPLAUSIBLE, WALL_SYNCHRONISED, WALL_UNCONFIRMED, Reading
from edge.core.events import BootStopped, Event
from edge.core.limits import FLUSH_HONEST_US, FLUSH_SLOW_US
from edge.core.settings import Settings, load_settings
from edge.doctor import broker, drive, machine
from edge.doctor.findings import FAIL, OK, WARN, Finding
from edge.store.filesystem import mount_id
from edge.store.journal import Journal
from edge.store.segment_file import SegmentReader
from edge.testing.history import write_group
from gateway.mqtt import BrokerAddress


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = load_settings(tmp_path / "data")
    made.data.mkdir()
    return made


def table(folder: Path, kind: str, options: str = "rw") -> Path:
    """A mount table in which `folder` lies on this."""
    path = folder / "mountinfo"
    path.write_text(f"{mount_id(folder)} 1 8:1 / /mnt {options} - {kind} /dev/sda1 rw\n")
    return path


def plant(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("kind", "options", "grade", "says"),
    [
        (
            "ext4",
            "rw",
            OK,
            "on ext4 (/dev/sda1); mounted with `commit=60` a quiet box writes a third less to it.",
        ),
        ("ext4", "rw,commit=60", OK, "on ext4 (/dev/sda1)."),
        ("vfat", "rw", FAIL, "which is vfat"),
        ("ext4", "rw,nobarrier", FAIL, "`nobarrier`"),
        ("tmpfs", "rw", WARN, "a power cut takes all of it"),
        ("overlay", "rw", WARN, "a container's own layer"),
    ],
)
def test_file_systems(settings: Settings, kind: str, options: str, grade: str, says: str) -> None:
    """What the runtime would refuse fails, what dies with power or container is a warning; one line a mount."""
    (found,) = drive.file_systems(settings, table(settings.data, kind, options))
    assert found.grade == grade
    assert says in found.says


def test_an_unknown_place_is_a_warning(settings: Settings, tmp_path: Path) -> None:
    """Without a mount table nobody knows, and that is said."""
    (found,) = drive.file_systems(settings, tmp_path / "none")
    assert (found.grade, "not known" in found.says) == (WARN, True)


@pytest.mark.parametrize(
    ("took_us", "grade", "says"),
    [
        (FLUSH_HONEST_US - 1, WARN, "most likely ignores flushes"),
        (FLUSH_HONEST_US, OK, "20 µs"),
        (2_900, OK, "2900 µs"),
        (FLUSH_SLOW_US + 1, WARN, "100 ms"),
    ],
)
def test_what_a_flush_takes_is_judged(took_us: float, grade: str, says: str) -> None:
    """Too quick is a drive that lies, too slow one that makes every receipt wait."""
    found = drive.judge_flush(took_us)
    assert found.grade == grade
    assert says in found.says


def test_a_flush_is_really_timed_and_leaves_nothing(settings: Settings) -> None:
    """Each round flushes one written file, and none is left."""
    flushed: list[int] = []
    assert drive.flush_us(settings.data, lambda fd: flushed.append(os.fstat(fd).st_size)) > 0
    assert len(set(flushed)) == 1
    assert len(flushed) == flushed[0] // 8192
    assert not list(settings.data.iterdir())
    assert drive.flush(settings, table(settings.data, "tmpfs")).says.startswith("not tried")
    assert drive.flush(load_settings(settings.data / "none")).says.startswith("not tried")


def statvfs(free_mb: int, files: int = 10**6) -> os.statvfs_result:
    """A drive of 1 KiB blocks with so much free."""
    return os.statvfs_result((1024, 1024, 10**9, free_mb * 1024, free_mb * 1024, 10**7, files, files, 0, 255))


@pytest.mark.parametrize(
    ("free_mb", "files", "grade"),
    [(63, 10**6, FAIL), (64, 10**6, WARN), (255, 10**6, WARN), (256, 10**6, OK), (256, 999, WARN)],
)
def test_free_space(settings: Settings, free_mb: int, files: int, grade: str) -> None:
    """Below the reserve requests are refused; below four of it, or with few files left, somebody should look."""
    (found,) = drive.space(settings, lambda place: statvfs(free_mb, files))
    assert found.grade == grade


@pytest.mark.parametrize(
    ("given", "grade", "says"),
    [
        ({}, OK, "of the 48 it may take"),
        ({"full": True}, WARN, "what is not old enough is held"),
        ({"full": True, "centre": True}, WARN, "what the centre has not receipted is held"),
        ({"full": True, "retain_policy": "oldest"}, OK, "the oldest is pruned then"),
    ],
)
def test_a_budget_that_is_nearly_reached(
    settings: Settings, given: dict[str, Any], grade: str, says: str
) -> None:
    """Where reaching it means that requests are refused, somebody should look before."""
    assert drive.budget(settings) == []
    bound = replace(
        settings, retain_mb=48, **{name: value for name, value in given.items() if name != "full"}
    )
    settings.journal_folder.mkdir(parents=True)
    with (settings.journal_folder / "next.spare").open("wb") as file:
        file.truncate((44 if given.get("full") else 4) * 2**20)
    (found,) = drive.budget(bound)
    assert (found.grade, says in found.says) == (grade, True), found


def test_the_log_is_told_by_its_size(settings: Settings) -> None:
    """None, one that is there, and a journal that is gone beside its index."""
    assert drive.log(settings).says == "none yet."
    journal = Journal(settings.journal_folder)
    assert "holds no event yet" in drive.log(settings).says
    for seq in (1, 2, 3):
        write_group(journal, [Event(seq, BootStopped())])
    journal.close()
    assert "ends at event 3; `edge log verify`" in drive.log(settings).says
    other = load_settings(settings.data / "other")
    plant(other.index_folder, "data.mdb", "x")
    assert drive.log(other).grade == FAIL


def test_a_damaged_end_of_the_log_is_found(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A flipped bit before the last event is a failure with its mend, and the other checks go on."""
    journal = Journal(settings.journal_folder)
    for seq in (1, 2, 3):
        write_group(journal, [Event(seq, BootStopped())])
    journal.close()
    (path,) = settings.journal_folder.glob("*.journal")
    data = bytearray(path.read_bytes())
    data[[frame.end for frame in SegmentReader(path).frames()][1] - 1] ^= 1
    path.write_bytes(data)
    assert main(["doctor", "--data", str(settings.data)]) == 1
    out = capsys.readouterr().out.splitlines()
    (line,) = [line for line in out if line.startswith("fail  log")]
    assert "damaged before event 3. Stop the box and run `edge log recover`" in line
    assert [line for line in out if " clock " in line]


def test_a_clock_that_was_set_back_is_told_by_the_log() -> None:
    """A wall clock behind the log's last event is a warning, even where somebody vouches for it."""
    ended = Reading(9, 56 * YEAR_NS, WALL_UNCONFIRMED)
    now = [Reading(mono_ns, 55 * YEAR_NS, WALL_SYNCHRONISED) for mono_ns in (1, 2)]
    assert "31536000 s behind the end of the log" in machine.clock(*now, ended).says
    assert machine.clock(*now, Reading(9, 55 * YEAR_NS + 10**9, WALL_UNCONFIRMED)).grade == OK


YEAR_NS = 10**9 * 365 * 86_400


@pytest.mark.parametrize(
    ("first_ns", "second_ns", "trust", "grade", "says"),
    [
        (5, 6, WALL_SYNCHRONISED, OK, "synchronised"),
        (5, 6, WALL_UNCONFIRMED, WARN, "after_power_loss"),
        (5, 6, WALL_IMPLAUSIBLE, WARN, "never set"),
        (6, 5, WALL_SYNCHRONISED, FAIL, "backwards"),
        (0, 5, WALL_SYNCHRONISED, FAIL, "backwards"),
    ],
)
def test_clocks(first_ns: int, second_ns: int, trust: int, grade: str, says: str) -> None:
    """A time since boot that runs backwards fails; a wall clock that nobody vouches for is a warning."""
    found = machine.clock(Reading(first_ns, 56 * YEAR_NS, trust), Reading(second_ns, 56 * YEAR_NS, trust))
    assert found.grade == grade
    assert says in found.says


FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


@pytest.mark.parametrize(
    ("files", "grade", "says"),
    [
        ({}, OK, "not known"),
        ({FIRMWARE: "0\n"}, OK, "enough"),
        ({FIRMWARE: "50005\n"}, FAIL, "too low now"),
        ({FIRMWARE: "50000\n"}, WARN, "since the last start"),
        ({FIRMWARE: "80008\n"}, OK, "enough"),
        ({FIRMWARE: "what\n"}, OK, "not known"),
        ({"sys/class/hwmon/hwmon1/name": "cpu_thermal\n"}, OK, "not known"),
        (
            {"sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n"},
            OK,
            "enough",
        ),
        (
            {"sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"},
            FAIL,
            "now",
        ),
        ({"usr/bin/vcgencmd": "#!/bin/sh\necho throttled=0x10000\n"}, WARN, "since the last start"),
        ({"usr/bin/vcgencmd": "#!/bin/sh\necho throttled=0x0; exit 1\n"}, OK, "not known"),
    ],
)
def test_power(tmp_path: Path, files: dict[str, str], grade: str, says: str) -> None:
    """A Raspberry Pi's firmware, its sensor or its program says it; any other machine does not."""
    for name, text in files.items():
        plant(tmp_path, name, text).chmod(0o755)
    found = machine.power(tmp_path)
    assert found.grade == grade
    assert says in found.says


@pytest.mark.parametrize(
    ("available_mb", "serving", "grade"),
    [(296, False, WARN), (297, False, OK), (104, False, FAIL), (104, True, WARN), (192, True, OK)],
)
def test_memory(tmp_path: Path, settings: Settings, available_mb: int, serving: bool, grade: str) -> None:
    """Two workers' blocks and the cache must fit beside the box, or beside nothing more where it runs already."""
    plant(tmp_path, "proc/meminfo", f"MemTotal: 999 kB\nMemAvailable:   {available_mb * 1024} kB\n")
    assert machine.memory(settings, serving=serving, root=tmp_path).grade == grade
    assert "not known" in machine.memory(settings, serving=False, root=tmp_path / "none").says


def test_kernels(tmp_path: Path) -> None:
    """Without landlock or seccomp no code of a playbook runs; an old landlock does with more left to seccomp."""
    plant(tmp_path, "proc/self/status", "Name:\tx\nSeccomp:\t0\n")
    assert machine.kernel(7, tmp_path).grade == OK
    assert "ABI 2" in machine.kernel(2, tmp_path).says
    assert "lacks landlock:" in machine.kernel(0, tmp_path).says
    found = machine.kernel(0, tmp_path / "none")
    assert (found.grade, "lacks landlock and seccomp" in found.says) == (FAIL, True)


def test_serial_devices(tmp_path: Path) -> None:
    """Each device that was plugged in is named, and the group that would open it."""
    assert [found.says for found in machine.serial(tmp_path)] == ["no serial device is plugged in."]
    for name in ("ttyUSB0", "ttyACM1", "tty1"):
        plant(tmp_path, f"dev/{name}", "")
    shut, usable = machine.serial(tmp_path, lambda device: device.name != "ttyACM1")
    assert (shut.grade, usable.grade) == (WARN, OK)
    assert "usermod -aG" in shut.mend


def test_versions() -> None:
    """What runs is named; what is missing fails."""
    found = machine.versions()
    assert found.grade == OK
    assert "Python 3." in found.says
    assert machine.versions(("cbor2", "no-such-package")).grade == FAIL


async def test_a_broker_that_is_away_is_named_without_its_password() -> None:
    """Nobody listens there: one finding, the address and no secret."""
    (found,) = await broker.check(BrokerAddress.parse("mqtt://box:geheim@127.0.0.1:1"), "b")
    assert found.grade == FAIL
    assert "mqtt://127.0.0.1:1" in found.says
    assert "geheim" not in repr(found)


def test_a_finding_that_is_not_well_has_a_mend() -> None:
    """Neither a warning without a mend nor a mend without a reason can be made."""
    with pytest.raises(AssertionError):
        Finding("x", WARN, "bad")
    with pytest.raises(AssertionError):
        Finding("x", OK, "good", "do this")


def test_the_command(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line each for people, one object for programs; 1 where something fails, and a warning is none."""
    monkeypatch.delenv("EDGE_BROKER", raising=False)
    code = main(["doctor", "--data", str(settings.data)])
    lines = capsys.readouterr().out.splitlines()
    assert code == (1 if any(line.startswith("fail") for line in lines) else 0)
    assert {line.split("  ")[0].strip().split()[0] for line in lines} <= {"ok", "warn", "fail"}
    assert [line[6:18].strip() for line in lines if "one is set" in line] == ["broker"]
    assert main(["doctor", "--json", "--data", str(settings.data), "--broker", "mqtt://127.0.0.1:1"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["well"] is False
    assert {row["subject"] for row in document["findings"]} == {
        *("file system", "flush", "free space", "log", "clock", "power", "memory"),
        *("kernel", "serial", "versions", "runtime", "broker"),
    }


def test_what_a_check_may_not_look_at_is_a_finding(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken data folder ends one check, not the command."""
    (settings.data / "journal").write_text("no folder")
    assert main(["doctor", "--data", str(settings.data)]) == 1
    out = capsys.readouterr().out
    assert "fail  log          " in out
    assert "ok    versions " in out
