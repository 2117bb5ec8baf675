"""What an expression, a step and an event can hold besides plain values: a reference to a table.

Tables never travel as values; they are blocks of the cache, and this is what stands for one everywhere else.
"""

from __future__ import annotations

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
