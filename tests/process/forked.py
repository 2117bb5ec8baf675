"""A forked child of the test process that locks itself in, acts, and says what came of it.

Used by the tests of the sandbox, which are marked `forks`: forking wants a process with one thread, so they never run
in a worker of pytest-xdist (scripts/test runs them apart).
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from typing import Any


def forked(act: Callable[[int], Any]) -> Any:
    """Fork; the child calls `act(pipe_fd)`, whose value comes back by JSON; what it raises fails the test.

    `pipe_fd` is what a child that locks itself in has to keep open.
    """
    reader_fd, writer_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader_fd)
        try:
            answer: dict[str, Any] = {"value": act(writer_fd)}
        except BaseException:
            answer = {"raised": traceback.format_exc()}
        try:
            os.write(writer_fd, json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(writer_fd)
    with open(reader_fd, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with status {status}"
    assert data, "the child ended without an answer"
    answer = json.loads(data)
    assert "value" in answer, answer["raised"]
    return answer["value"]


def outcomes(*acts: Callable[[], Any]) -> list[Any]:
    """The value of each act, or the number of the OSError it ended in."""
    seen: list[Any] = []
    for act in acts:
        try:
            seen.append(act())
        except OSError as error:
            seen.append(error.errno)
    return seen
