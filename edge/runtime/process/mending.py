"""Mending the log when the runtime starts on a damaged one: `edge log recover`, in a process of its own.

Called by the runtime's entry, before it holds the data folder. Nothing is given up here: where events would be lost,
recover changes nothing and the start stays refused, for a person to decide (`edge log salvage`).

A damaged index can end the process that opens it by a signal. So a mark stands in the run folder while the homes are
being opened; a start that finds one follows such an end, and has the log looked at before it opens anything.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Final

from edge.core.settings import Settings

logger = logging.getLogger("edge.runtime")

#: Set for the start after mending: what is damaged still is not mended again.
_TRIED: Final = "EDGE_LOG_WAS_MENDED"
_TIMEOUT_S: Final = 3_600
#: So many ends in a row, and the index is made anew though it may read well.
_ENDS_OF_INDEX: Final = 2


def opening_mark(settings: Settings) -> Path:
    """The file that stands while the homes of the log are being opened."""
    return settings.lock_path.with_name("opening")


def note_opening(settings: Settings) -> None:
    """Set the mark, and in it how many starts in a row came to it."""
    opening_mark(settings).write_text(str(ended_while_opening(settings) + 1), "ascii")


def note_damaged_index(settings: Settings) -> None:
    """Let the next start make the index anew: this runtime ends because of it."""
    opening_mark(settings).write_text(str(_ENDS_OF_INDEX), "ascii")


def ended_while_opening(settings: Settings) -> int:
    """How many starts in a row were ended by a signal while they opened the homes."""
    try:
        return int(opening_mark(settings).read_text("ascii") or 1)
    except (FileNotFoundError, ValueError):
        return int(opening_mark(settings).exists())


def mend(settings: Settings, *, index_anew: bool = False) -> bool:
    """Have the log made whole from what its homes hold; whether to start again. Never twice for one start.

    With `index_anew` the index is made again though it may read well: writing it failed, or it ended two starts.
    """
    if os.environ.get(_TRIED):
        return False
    os.environ[_TRIED] = "1"
    import subprocess

    command = [sys.executable, "-m", "edge.cli.main", "log", "recover", "--data", str(settings.data)]
    command += ["--index-anew"] if index_anew else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    for line in (done.stdout + done.stderr).splitlines():
        logger.warning("edge log recover: %s", line)
    return done.returncode == 0
