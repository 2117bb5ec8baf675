"""`edge doctor --drive-test` and `--drive-check`: the plug test's two halves, before and after the cut.

Called by `edge.cli.doctor`. The test itself is `edge.doctor.plug`; here is what a person gives and sees.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

from edge.core.errors import Misconfigured
from edge.core.settings import Settings
from edge.doctor import plug
from edge.doctor.findings import Finding
from edge.store.filesystem import MOUNT_TABLE, require_sound

_SAY_S: Final = 1.0


def write(settings: Settings, notes_at: str, mount_table: Path = MOUNT_TABLE) -> Finding:
    """Write until the power goes, or until somebody stops it. Raises Misconfigured, StorageFailed, Unavailable."""
    host, port = _address(notes_at)
    require_sound(settings, mount_table)
    settings.data.mkdir(parents=True, exist_ok=True)
    teller = plug.Teller(host, port)
    print(
        f"Writing to {settings.data / plug.FILE_NAME}. Pull the plug while numbers run; then start again and run\n"
        f"  edge doctor --data {settings.data} --drive-check NUMBER\n"
        f"with the last number that {host} has.",
        file=sys.stderr,
    )
    number, said_s = 0, time.monotonic()
    try:
        for number in plug.write_until_cut(settings.data, teller.tell):
            if time.monotonic() - said_s >= _SAY_S:
                said_s = time.monotonic()
                print(f"{number} flushed and told", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        return plug.unjudged(number)
    finally:
        teller.close()
    raise AssertionError("it goes on for ever")


def check(settings: Settings, told: int) -> Finding:
    """Look whether all up to the told number is there. Raises Misconfigured, StorageFailed."""
    if told < 1:
        raise Misconfigured(f"{told} is no number that was told.", mend="Give the last one: 1 or more.")
    return plug.judge(plug.look(settings.data, told), told)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise Misconfigured(
            f"{text!r} is not the address of a machine that notes.",
            mend="Give HOST:PORT, as in 192.168.1.5:7070.",
        )
    return host.strip("[]"), int(port)
