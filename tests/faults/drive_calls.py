"""What a drive may do to a daemon, call by call: builds the preloaded counter (drive_calls.c) and reads it.

Used by the walk over every call (test_every_drive_call.py). Faults strike real processes through their environment;
the product knows nothing of this.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("drive_calls.c")
_NAMES = 4096
_NAME_BYTES = 96
_STATE_BYTES = 16 + _NAMES * _NAME_BYTES


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at one call: `kind` is "before" or "after" (killed there) or an errno's name."""

    kind: str
    place: int
    lasting: bool = False

    def __str__(self) -> str:
        return f"{self.kind}{' from' if self.lasting else ' at'} call {self.place}"

    @property
    def kills(self) -> bool:
        """Whether the process that makes the call dies of it."""
        return self.kind in ("before", "after")


def build(folder: Path) -> Path:
    """The library, made in a folder; skips where there is no compiler."""
    if shutil.which("gcc") is None:
        pytest.skip("not installed: gcc (apt install gcc libc6-dev)")
    made = folder / "drive_calls.so"
    options = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror"]
    subprocess.run(["gcc", *options, "-o", str(made), str(SOURCE), "-ldl"], check=True)
    return made


class Counter:
    """The count that all processes of one run share."""

    def __init__(self, library: Path, counted: Path, state: Path) -> None:
        self._library, self._counted, self._state = library, counted, state
        with state.open("wb") as file:
            file.truncate(_STATE_BYTES)

    def environment(self, fault: Fault | None) -> dict[str, str]:
        """What a daemon must find in its environment to be counted, and to be struck."""
        given = {
            "LD_PRELOAD": str(self._library),
            "EDGE_FAULT_FOLDER": str(self._counted),
            "EDGE_FAULT_STATE": str(self._state),
            "EDGE_FAULT_KIND": "count",
        }
        if fault is not None:
            given |= {
                "EDGE_FAULT_KIND": fault.kind if fault.kills else "error",
                "EDGE_FAULT_PLACE": str(fault.place),
                "EDGE_FAULT_ERRNO": "0" if fault.kills else str(getattr(errno, fault.kind)),
            }
            if fault.lasting:
                given["EDGE_FAULT_LASTING"] = "1"
        return given

    @property
    def count(self) -> int:
        """How many calls were made."""
        return self._number(0)

    @property
    def struck(self) -> int:
        """How many of them were struck."""
        return self._number(1)

    def _number(self, index: int) -> int:
        with self._state.open("rb") as file:
            return int.from_bytes(file.read(16)[8 * index : 8 * index + 8], "little")

    def names(self) -> list[str]:
        """The calls in order: what was called, and on which file below the folder."""
        data = self._state.read_bytes()[16:]
        names = [
            data[at : at + _NAME_BYTES].split(b"\0")[0].decode() for at in range(0, len(data), _NAME_BYTES)
        ]
        return names[: self.count]
