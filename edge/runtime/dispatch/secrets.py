"""The secrets of claims: which of them a claim takes along, and how they are taken out of what it brings back.

Owned by the dispatcher. The sealed file is opened by a child that ends at once (`edge.security.unseal`): at the start
where there is one, and again where it was replaced. The runtime keeps what was opened in its memory only. It must
never log a value, nor hand a claim an alias that its steps were not granted.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.core.codec import decode, encode
from edge.core.errors import EdgeError
from edge.core.scrub import Scrubber
from edge.core.values import Credential
from edge.worker.claims import Claim, Outcome, TaskRecord

logger = logging.getLogger(__name__)


class Secrets:
    """The box's keychain, opened when it is first needed and whenever its file is another."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._seen: tuple[int, int] | None = None
        self._opened: dict[str, Credential] = {}
        self._why = ""

    def prepare(self) -> None:
        """Open it ahead, so that no claim waits for it."""
        self._refresh()

    def take(self, aliases: Sequence[str]) -> dict[str, Credential] | None:
        """What a claim with these grants takes along; None for none. An alias that is not there says why."""
        if not aliases:
            return None
        self._refresh()
        missing = self._why or "it is not in the box's keychain"
        return {alias: self._opened.get(alias) or Credential("", {}, missing) for alias in aliases}

    def _refresh(self) -> None:
        if self._folder is None:
            return
        try:
            found = os.stat(self._folder / "sealed")
        except OSError:
            self._seen, self._opened, self._why = None, {}, ""
            return
        if self._seen == (found.st_ino, found.st_mtime_ns):
            return
        opened = _unseal(self._folder)
        self._seen = found.st_ino, found.st_mtime_ns
        self._opened, self._why = {}, ""
        if isinstance(opened, str):
            self._why = f"the keychain does not open: {opened}"
            logger.error("The keychain does not open: %s", opened)
            return
        self._opened = {alias: Credential(kind, fields) for alias, (kind, fields) in opened.items()}
        logger.info("the keychain is open: %d aliases", len(self._opened))


def _unseal(folder: Path) -> dict[str, list[Any]] | str:
    """Everything in the keychain, or why it does not open."""
    reader, writer = os.pipe()
    try:
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "edge.security.unseal", str(folder)],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_CLOSE, reader)],
        )
    finally:
        os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    try:
        opened = decode(data)
    except (EdgeError, ValueError):
        return "the process that opens it failed; is the package `cryptography` installed?"
    return opened if isinstance(opened, str | dict) else "what came of it cannot be read"


def scrubbed(claim: Claim, outcomes: list[Outcome]) -> list[Outcome]:
    """The outcomes of a claim without its secrets, before anything of them is looked at or written down."""
    if not claim.secrets:
        return outcomes
    found = Scrubber({alias: each.fields for alias, each in claim.secrets.items()})
    return [_outcome(outcome, found) for outcome in outcomes]


def _outcome(outcome: Outcome, found: Scrubber) -> Outcome:
    return dataclasses.replace(
        outcome,
        value=_encoded(outcome.value, found),
        problem=found.value(outcome.problem),
        tasks=tuple(_task(record, found) for record in outcome.tasks),
        ctx=found.value(outcome.ctx),
        hosted=found.value(outcome.hosted),
    )


def _task(record: TaskRecord, found: Scrubber) -> TaskRecord:
    return dataclasses.replace(
        record, value=_encoded(record.value, found), problem=found.value(record.problem)
    )


def _encoded(value: bytes | None, found: Scrubber) -> bytes | None:
    if value is None or not found.finds(value):
        return value
    return encode(found.value(decode(value)))
