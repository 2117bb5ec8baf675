"""The box's own order of texts in sets: one seed of Python's hashes, the same at every start.

Called by the runtime's entry before anything else. Python draws a new seed at each start, and with it the order in
which a set of texts is walked: a pure block that walks one would answer otherwise after a restart. A seed that
everybody knows would let anybody who may send a request fill a map with keys that collide; so each box draws its own
once, keeps it to itself, and writes it into the log (`boot.started`), from which whoever runs an execution again
takes it. It can only be given to a new interpreter: where this one has another, it starts over in the same process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from edge.core.settings import Settings

_VARIABLE: Final = "PYTHONHASHSEED"
_DIGITS_MAX: Final = 10


def with_own_seed(settings: Settings) -> int | None:
    """The box's seed, once this interpreter has it; starts the process over where it has not.

    None where Python was told to ignore its environment: then order differs from start to start.
    """
    if sys.flags.ignore_environment:
        return None
    folder = settings.lock_path.parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    seed = _read(folder / "hash_seed") or _draw(folder / "hash_seed")
    if os.environ.get(_VARIABLE) != str(seed):
        environment = {**os.environ, _VARIABLE: str(seed)}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606 - ourselves
    del os.environ[_VARIABLE]  # no block reads it, no child inherits it
    return seed


def _read(path: Path) -> int | None:
    try:
        text = path.read_text("ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    sound = text.isdigit() and len(text) <= _DIGITS_MAX and 0 < int(text) < 2**32
    return int(text) if sound else None


def _draw(path: Path) -> int:
    """A new seed, written whole or not at all; of two that draw at once one wins for both."""
    seed = 1 + int.from_bytes(os.urandom(4), "big") % (2**32 - 1)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(f"{seed}\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    return _read(path) or seed
