"""Having the log sealed before it is carried: by the box where it runs, by the sealer's process where not.

Called by the commands that carry it. It must never seal what is not durable: both ways only read the journal.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from edge.cli.client import RuntimeClient
from edge.core.codec import decode
from edge.core.errors import LogDamaged, Unavailable
from edge.core.settings import Settings

_PATIENCE_S: Final = 900.0


def seal(settings: Settings) -> None:
    """Have all events sealed: by the box where it runs, else here. Raises LogDamaged where that does not go."""
    try:
        with RuntimeClient(settings, _PATIENCE_S) as runtime:
            problem = runtime.call("seal")["problem"]
    except Unavailable:
        problem = _seal_stopped(settings)
    if problem:
        raise LogDamaged(f"The log could not be sealed: {problem}")


def _seal_stopped(settings: Settings) -> str:
    """Seal what is on the drive. No lock keeps the box from starting meanwhile: sealing only reads the journal."""
    command = [sys.executable, "-m", "edge.segments.sealer", str(settings.data), "end", "all"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=_PATIENCE_S)
        return next((each for each in decode(done.stdout) if isinstance(each, str)), "")
    except (subprocess.SubprocessError, ValueError) as error:
        return f"the process that seals ended early ({error}); run the same command again."
