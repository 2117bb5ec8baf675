"""A claim's secrets in its worker: what templates see of them, what `auth` names, what outputs must not hold.

Made for each claim that carries any, gone with it. It takes secrets out of outputs before they become blocks of the
cache; the runtime does the same again to all that reaches it, so that no worker is trusted with the log. Must never
put a value into an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from edge.core.errors import ToolFailed
from edge.core.scrub import Scrubber
from edge.core.values import Credential

#: Fields by the other names under which NoETL's playbooks read them.
_ALSO: Final = {"bearer": (("access_token", "token"),), "api_key": (("value", "api_key"),)}


class Secrets:
    """What a claim's steps were granted of the keychain."""

    def __init__(self, given: Mapping[str, Credential]) -> None:
        self._given = given
        self._scrubber = Scrubber({alias: each.fields for alias, each in given.items()})

    def check(self, step: str) -> None:
        """Raises ToolFailed `secret_missing` where a granted alias is not to be had."""
        for alias, credential in self._given.items():
            if credential.missing:
                raise ToolFailed(
                    f"Step {step} is granted the alias {alias}, but {credential.missing}.",
                    code="secret_missing",
                    mend=f"Set it on the box: edge keychain set {alias}.",
                )

    def scope(self) -> dict[str, dict[str, str]]:
        """`keychain` as templates see it: the fields of each alias."""
        return {
            alias: each.fields
            | {also: each.fields[name] for also, name in _ALSO.get(each.kind, ()) if name in each.fields}
            for alias, each in self._given.items()
        }

    def named(self, alias: Any) -> Credential:
        """The credential that a tool's `auth` names. Raises ToolFailed where it was not granted."""
        found = self._given.get(alias) if isinstance(alias, str) else None
        if found is None:
            raise not_granted(alias)
        return found

    def without(self, output: Any) -> Any:
        """An output without secrets. Raises ToolFailed where a table holds one that cannot be taken out."""
        if isinstance(output, pa.RecordBatch):
            output = pa.Table.from_batches([output])
        if isinstance(output, pa.Table):
            return self._table_without(output)
        return self._scrubber.value(output)

    def _table_without(self, table: pa.Table) -> pa.Table:
        if self._scrubber.finds(table.schema.serialize()):
            raise _in_table("a column's name")
        for place, field in enumerate(table.schema):
            column = table.column(place)
            if not any(self._scrubber.finds(buffer) for buffer in _buffers(column)):
                continue
            if not (pa.types.is_string(field.type) or pa.types.is_large_string(field.type)):
                raise _in_table(f"the column {field.name}")
            for needle, mark in self._scrubber.needles:
                column = pc.replace_substring(column, pattern=needle, replacement=mark)
            table = table.set_column(place, field, column)
        return table


def _buffers(column: pa.ChunkedArray) -> list[pa.Buffer]:
    chunks = [chunk.dictionary if hasattr(chunk, "dictionary") else chunk for chunk in column.chunks]
    return [buffer for chunk in [*chunks, *column.chunks] for buffer in chunk.buffers() if buffer is not None]


def _in_table(where: str) -> ToolFailed:
    return ToolFailed(
        f"The step's table holds a secret of the keychain in {where}.",
        code="secret_in_result",
        mend="Leave it out of the result; only columns of texts can be cleaned.",
    )


def not_granted(alias: Any) -> ToolFailed:
    """The refusal of an alias that the step was not granted."""
    name = f"{alias!r:.80}" if isinstance(alias, str) else "what `auth` gives"
    return ToolFailed(
        f"The step may not use {name}.",
        code="access_denied",
        mend="Name an alias, and grant it: spec.policy.access.keychain: [alias].",
    )
