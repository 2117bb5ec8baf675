"""Which file systems hold a log: told from the kernel's mount table, planted here with this folder's own number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge.core.errors import Misconfigured
from edge.core.settings import load_settings
from edge.store.filesystem import Mount, mount_id, mount_of, objection, require_sound


def planted(folder: Path, kind: str, options: str = "rw,relatime", of_file_system: str = "rw") -> Path:
    """A mount table in which `folder` lies on such a file system, among others."""
    table = folder / "mountinfo"
    table.write_text(
        "1 1 8:1 / / rw,relatime shared:1 - nfs4 elsewhere:/root rw\n"
        f"{mount_id(folder)} 1 8:2 / /mnt/the\\040data {options} shared:7 master:2 - {kind} /dev/sd\\040a2 "
        f"{of_file_system}\n"
    )
    return table


def test_the_row_of_a_folders_own_mount_is_found(tmp_path: Path) -> None:
    """Kind, folder, source and both kinds of options come from the row with the folder's own number."""
    mount = mount_of(tmp_path, planted(tmp_path, "ext4", "rw,noatime", "rw,errors=remount-ro"))
    assert mount == Mount("/mnt/the data", "ext4", ("rw", "noatime", "errors=remount-ro"), "/dev/sd a2")


def test_a_folder_that_is_not_there_yet_lies_where_it_will_be_made(tmp_path: Path) -> None:
    """A missing folder counts as its nearest ancestor that exists."""
    assert mount_id(tmp_path / "not" / "yet") == mount_id(tmp_path) is not None
    (tmp_path / "file").touch()
    assert mount_id(tmp_path / "file" / "below") == mount_id(tmp_path)


def test_this_machines_own_table_is_read(tmp_path: Path) -> None:
    """The kernel's real table has a row for a real folder, and /proc is told apart from it."""
    mount, other = mount_of(tmp_path), mount_of(Path("/proc"))
    assert mount is not None
    assert other is not None
    assert (mount.kind != "proc", other.kind, other.folder) == (True, "proc", "/proc")


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph"])
def test_another_machines_drive_is_refused(tmp_path: Path, kind: str) -> None:
    """A network's file system is named, with a kind that would do."""
    found = objection(tmp_path, Mount("/mnt", kind, ("rw",), "there"))
    assert found is not None
    assert f"which is {kind}, another machine's drive" in found.message
    assert "ext4" in found.mend


@pytest.mark.parametrize("kind", ["fuse", "fuseblk", "fuse.sshfs", "virtiofs", "vfat", "msdos", "exfat"])
def test_programs_and_plain_kinds_are_refused(tmp_path: Path, kind: str) -> None:
    """What a program serves, and what has no journal, is refused."""
    assert objection(tmp_path, Mount("/mnt", kind, ("rw",), "it")) is not None


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("ext4", "nobarrier"),
        ("ext4", "barrier=0"),
        ("f2fs", "fsync_mode=nobarrier"),
        ("overlay", "volatile"),
        ("xfs", "ro"),
    ],
)
def test_mounts_that_do_not_write_or_not_flush_are_refused(tmp_path: Path, kind: str, option: str) -> None:
    """An option that makes flushes empty is named, and so is a drive that cannot be written at all."""
    found = objection(tmp_path, Mount("/", kind, ("rw", option), "/dev/sda1"))
    assert found is not None
    assert f"`{option}`" in found.message


@pytest.mark.parametrize("kind", ["ext4", "xfs", "f2fs", "btrfs", "overlay", "zfs", "tmpfs"])
def test_sound_kinds_are_taken(tmp_path: Path, kind: str) -> None:
    """Local file systems that keep what they flushed are taken, and so is memory, for trials."""
    options = ("rw", "relatime", "errors=remount-ro", "barrier=1")
    assert objection(tmp_path, Mount("/", kind, options, "/dev/sda1")) is None


def test_every_home_of_the_log_is_looked_at(tmp_path: Path) -> None:
    """A journal that is a link to another drive is judged where it really lies."""
    settings = load_settings(tmp_path / "data")
    settings.data.mkdir()
    require_sound(settings, planted(tmp_path, "ext4"))
    table = tmp_path / "mountinfo"
    table.write_text(table.read_text() + f"{mount_id(Path('/proc'))} 1 0:5 / /stick rw - vfat /dev/sdb1 rw\n")
    settings.journal_folder.symlink_to("/proc")
    with pytest.raises(Misconfigured, match=r"journal lies on /stick, which is vfat") as caught:
        require_sound(settings, table)
    assert caught.value.problem_code == "file_system_unsound"


def test_where_the_kernel_says_nothing_nothing_is_objected_to(tmp_path: Path) -> None:
    """Without a mount table, or with one that does not have the folder, the runtime goes on."""
    settings = load_settings(tmp_path)
    require_sound(settings, tmp_path / "none")
    (tmp_path / "empty").write_text("\n1 2 3\n- -\n")
    require_sound(settings, tmp_path / "empty")


def test_the_runtime_refuses_before_it_writes_anything(tmp_path: Path) -> None:
    """On a data folder of nfs the runtime exits with 2, says the mend, and leaves the folder as it was."""
    data = tmp_path / "data"
    data.mkdir()
    code = (
        "import sys; from pathlib import Path; from edge.runtime.__main__ import main; "
        f"sys.exit(main(Path({str(planted(tmp_path, 'nfs4'))!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--data", str(data)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert "which is nfs4" in done.stderr
    assert "Put it on a drive of this machine" in done.stderr
    assert not list(data.iterdir())
