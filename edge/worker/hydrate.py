"""From a claim to what a tool needs: blueprint, scope, inputs, tables. And back: an output as an outcome.

Called by the worker's loop only. It reads and writes cache blocks; it never opens the log, and it never
decides what comes next.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from edge.core.codec import check_plain, decode, encode
from edge.core.errors import CacheMiss, PayloadInvalid, ToolFailed
from edge.core.limits import INLINE_BYTES_MAX
from edge.core.values import TableRef
from edge.store.arrow_stream import table_from_stream
from edge.store.blocks import REQUEST_TABLE, block_key
from edge.store.cache import BlockStore
from edge.worker.claims import TABLE, VALUE, Claim, Outcome
from playbooks.blueprint import Blueprint
from playbooks.evaluate import render
from playbooks.scope import build_scope

_KEPT_MAX: Final = 32


class Shelf:
    """Blueprints and open cache folders a worker keeps between claims; nothing in them depends on a claim."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._blueprints: OrderedDict[bytes, Blueprint] = OrderedDict()
        self._folders: OrderedDict[bytes, int] = OrderedDict()

    def blueprint(self, claim: Claim) -> Blueprint | None:
        """The claim's blueprint, from the claim or from an earlier one; None where neither has it."""
        if claim.blueprint is not None:
            self._blueprints[claim.digest] = Blueprint.decode(claim.blueprint)
            if len(self._blueprints) > _KEPT_MAX:
                self._blueprints.popitem(last=False)
        return self._blueprints.get(claim.digest)

    def blocks(self, folder_name: str, digest: bytes) -> BlockStore:
        """The block store of one playbook. Raises CacheMiss with `cache_folder_gone`."""
        folder_fd = self._folders.get(digest)
        if folder_fd is not None and os.fstat(folder_fd).st_nlink == 0:
            os.close(self._folders.pop(digest))
            folder_fd = None
        if folder_fd is None:
            try:
                folder_fd = os.open(
                    folder_name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root_fd
                )
            except OSError as error:
                raise CacheMiss("The playbook's cache folder is gone.", code="cache_folder_gone") from error
            if os.fstat(folder_fd).st_nlink == 0:  # a removed folder can still be opened as "." of itself
                os.close(folder_fd)
                raise CacheMiss("The playbook's cache folder is gone.", code="cache_folder_gone")
            self._folders[digest] = folder_fd
            if len(self._folders) > _KEPT_MAX:
                os.close(self._folders.popitem(last=False)[1])
        return BlockStore(folder_fd)


class Bench:
    """One claim laid out for work: what its steps see, and where their outputs go.

    Also the `ToolContext` of the step under way (`edge.tools.contract`).
    """

    def __init__(self, claim: Claim, blueprint: Blueprint, blocks: BlockStore) -> None:
        self._claim, self._blueprint, self._blocks = claim, blueprint, blocks
        self.execution_id = claim.execution_id
        self._results = {
            name: decode(value) if type(value) is bytes else value for name, value in claim.results.items()
        }
        self._workload: dict[str, Any] = decode(claim.workload) if claim.workload is not None else {}
        if claim.table is not None:
            self._workload[REQUEST_TABLE] = claim.table
        self.step = ""
        self.idempotency_key = ""
        self._scope: Mapping[str, Any] = {}
        self.adopted: TableRef | None = None

    def begin(self, index: int, visit: int) -> tuple[Any, dict[str, Any]]:
        """Take up one step: `(its blueprint step, its evaluated inputs)`. Raises EvaluationFailed."""
        step = self._blueprint.steps[index]
        self.step = step.name
        self.idempotency_key = f"{self.execution_id}/{step.name}/{visit}"
        claim = self._claim
        args = claim.args if index == claim.steps[0] else None
        outer = build_scope(self._workload, claim.ctx, self._results, self.execution_id, None, args)
        inputs: dict[str, Any] = render(step.input, outer) if step.input is not None else {}
        self._scope = build_scope(self._workload, claim.ctx, self._results, self.execution_id, inputs, args)
        return step, inputs

    def render(self, tree: Any, extra: Mapping[str, Any] | None = None) -> Any:
        """Evaluate a template tree of the tool's configuration. Raises EvaluationFailed."""
        return render(tree, {**self._scope, **extra} if extra else self._scope)

    def table(self, ref: TableRef) -> pa.Table:
        """Map a table. Raises CacheMiss; PayloadInvalid where it came from outside and is not sound."""
        claim = self._claim
        if claim.table_bytes is not None and claim.table is not None and ref.key == claim.table.key:
            table = table_from_stream(claim.table_bytes)
        else:
            table = self._blocks.read(ref)
        if ref.outside:
            self.adopted = TableRef(
                ref.key, ref.digest, ref.size_bytes, table.num_rows, tuple(table.column_names)
            )
        return table

    def settle(self, visit: int, output: Any) -> Outcome:
        """Write the step's output where it belongs. Raises ToolFailed, CacheMiss, Unavailable."""
        if isinstance(output, pa.RecordBatch):
            output = pa.Table.from_batches([output])
        if isinstance(output, pa.Table):
            output = self._blocks.write(block_key(self._claim.execution, self.step, visit), output)
        if type(output) is TableRef and output.outside:
            self.table(output)
            assert self.adopted is not None, "an outside table was opened"
            output = self.adopted
        self._results[self.step] = output
        if type(output) is TableRef:
            return Outcome(TABLE, table=output)
        try:
            value = encode(check_plain(output))
        except PayloadInvalid as error:
            raise ToolFailed(
                f"Step {self.step} returned what cannot be kept: {error.message}",
                mend="Return numbers, texts, lists, maps or one table.",
                code="result_invalid",
            ) from error
        if len(value) > INLINE_BYTES_MAX:
            raise ToolFailed(
                f"Step {self.step} returned {len(value)} bytes; a value may have {INLINE_BYTES_MAX}.",
                mend="Return a table (pyarrow.Table), or less.",
                code="result_too_large",
            )
        return Outcome(VALUE, value=value)
