"""What an expression, a step and an event can hold besides plain values: references to blocks of the cache.

Tables never travel as values, nor do values over the inline bound; they are blocks of the cache, and these records
stand for them everywhere else.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from edge.core.records import record


@record
class TableRef:
    """One Arrow table in the cache.

    `key` is the block's file name inside its playbook's cache folder, `digest` the SHA-256 of the file's
    bytes, `size_bytes` their number. `rows` and `columns` are None for a table that came with a request and
    that no worker has opened yet: such a block is checked in full before use.
    """

    key: str
    digest: bytes
    size_bytes: int
    rows: int | None
    columns: tuple[str, ...] | None

    @property
    def outside(self) -> bool:
        """True where the bytes came from outside and were never validated."""
        return self.rows is None


@record
class ValueRef:
    """One large plain value in the cache, as CBOR bytes.

    `key`, `digest` and `size_bytes` as in TableRef. `preview` is the beginning of the value as text, for people;
    `selected` are the parts its playbook selected (`output.select`), which can be asked for without the block.
    """

    key: str
    digest: bytes
    size_bytes: int
    preview: str
    selected: dict[str, Any] | None = None


BlockRef = TableRef | ValueRef


@record
class Ended:
    """How a program ended, and what it wrote.

    `how` is "exit" or "signal" (then `number` says which), "timeout", "output" (it wrote too much), "denied" or
    "failed" (it could not be started; `stderr` is the reason).
    """

    how: str
    number: int
    stdout: bytes
    stderr: bytes


@record
class Credential:
    """One credential of the keychain as a claim carries it; `missing` says why it is not to be had."""

    kind: str
    #: Never part of a text about it.
    fields: dict[str, str] = field(repr=False)
    missing: str = ""

    def parts(self) -> list[Any]:
        """The credential as part of a claim."""
        return [self.kind, self.fields, self.missing]
