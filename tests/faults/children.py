"""Children that start in a moment: one process with the store loaded, forked for each thing to be tried.

What is tried may end by a signal (a damaged map does that), leave threads behind or hold LMDB: it gets a process of
its own. Hundreds of interpreters would take minutes to start, so one is started and forked: `Children.run`.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: `code` as subprocess has it, `value` what it returned, `words` its errors."""

    code: int
    value: Any
    words: str


class Children:
    """The process that is forked; a context manager. Functions are named "module:function"."""

    def __init__(self, folder: Path) -> None:
        self._answer = folder / "answer.json"
        self._words = folder / "words.txt"
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self._answer), str(self._words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.communicate()

    def run(self, function: str, **arguments: Any) -> Ended:
        """Call a function in a child of its own; arguments and value are plain."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for path in (self._answer, self._words):
            path.write_text("")
        self._process.stdin.write(json.dumps([function, arguments]) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        answer = self._answer.read_text()
        return Ended(code, json.loads(answer) if answer else None, self._words.read_text())


def _serve(answer: str, words: str) -> None:
    for line in sys.stdin:
        function, arguments = json.loads(line)
        module, _, name = function.partition(":")
        importlib.import_module(module)  # before the fork: the next child has it
        pid = os.fork()
        if pid == 0:
            _child(getattr(sys.modules[module], name), arguments, answer, words)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _child(function: Any, arguments: dict[str, Any], answer: str, words: str) -> None:
    code = 1
    try:
        fd = os.open(words, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(fd, 2)
        os.dup2(fd, 1)  # what serves the forks speaks through it
        value = function(**arguments)
        Path(answer).write_text(json.dumps(value))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
