"""`tmp_path` in memory, for tests within one process: what they show is never that something outlives a power cut.

Imported by the conftest of unit, property and golden tests. On a drive each of a thousand boxes waits for some ten
flushes; real drives, real flushes and their loss are the matter of tests/process and tests/faults, which keep the
`tmp_path` of pytest. Where /dev/shm is missing or small (a container has 64 MB) these tests have that too.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")
_PREFIX = f"noetl-edge-tests-{os.getuid()}-"
#: Less would fill up: the largest of these tests needs 40 MB, and several processes run them.
_FREE_BYTES_MIN = 1024**3


def _sweep() -> None:
    """Remove what killed runs have left: the lock of each ends with its process."""
    for folder in _MEMORY.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(fd)


@pytest.fixture(scope="session")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of this test process, in memory where there is enough of it."""
    try:
        found = os.statvfs(_MEMORY)
        roomy = os.access(_MEMORY, os.W_OK) and found.f_bavail * found.f_frsize >= _FREE_BYTES_MIN
    except OSError:
        roomy = False
    if not roomy:
        yield tmp_path_factory.mktemp("no-memory")
        return
    _sweep()
    unnamed = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}", dir=_MEMORY))
    fd = os.open(unnamed, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    folder = unnamed.rename(_MEMORY / unnamed.name.removeprefix("new-"))  # held before anybody can sweep it
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


@pytest.fixture
def tmp_path(memory: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder of this test, gone after it."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=memory))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
