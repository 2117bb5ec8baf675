"""From a claim to what a tool needs: blueprint, scope, inputs, tables. And back: an output as an outcome.

Called by the worker's loop only. It reads and writes cache blocks; it never opens the log, and it never
decides what comes next.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import pyarrow as pa

from edge.core.access import NOTHING
from edge.core.circuits import Breaker
from edge.core.codec import check_plain, decode, encode
from edge.core.errors import CacheMiss, PayloadInvalid, ToolFailed
from edge.core.limits import INLINE_BYTES_MAX
from edge.core.values import BlockRef, Credential, Ended, TableRef, ValueRef
from edge.store.arrow_stream import table_from_stream
from edge.store.blocks import REQUEST_TABLE, block_key, value_key
from edge.store.cache import BlockStore
from edge.tools.registry import tool
from edge.tools.table_output import rows_of
from edge.worker.batch_table import batch_table, is_batch
from edge.worker.calls import Calls
from edge.worker.claims import TABLE, VALUE, Claim, Items, Outcome, Progress
from edge.worker.credentials import Secrets, not_granted
from edge.worker.keeping import fetched_later, kept
from edge.worker.pipeline import Pipeline
from edge.worker.programs import run_program
from playbooks.blueprint import Blueprint
from playbooks.evaluate import render
from playbooks.nodes import Prepared
from playbooks.outputs import seen_with
from playbooks.scope import build_scope
from playbooks.shape import CHILD, CONFIG_TREES, HOSTED, Loop, Step, Task

_KEPT_MAX: Final = 32
#: Begins a key that names no block: a slice of one, in this claim only.
_SLICE: Final = ".slice-"


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

    def close(self) -> None:
        """Let go of every folder."""
        while self._folders:
            os.close(self._folders.popitem()[1])


class Bench:
    """One claim laid out for work: what its steps see, and where their outputs go.

    Also the `ToolContext` of the step under way (`edge.tools.contract`).
    """

    def __init__(self, claim: Claim, blueprint: Blueprint, blocks: BlockStore) -> None:
        self._claim, self._blueprint, self._blocks = claim, blueprint, blocks
        self.execution_id = claim.execution_id
        self._results = {name: self._as_seen(name, value) for name, value in claim.results.items()}
        self._workload: dict[str, Any] = decode(claim.workload) if claim.workload is not None else {}
        if claim.table is not None:
            self._workload[REQUEST_TABLE] = claim.table
        self.step = ""
        self.idempotency_key = ""
        self.effect = "pure"
        self.access = NOTHING
        self.breaker: Breaker | None = None
        self.calls = Calls(claim.circuits or {})
        self._ctx = claim.ctx
        self._outer: dict[str, Any] = {} if claim.outer is None else {"parent": decode(claim.outer)}
        self._looks_at_iter = False
        self._names: dict[str, Any] = {}
        self._scope: Mapping[str, Any] = {}
        self._args: dict[str, Any] | None = None
        self._inputs: dict[str, Any] = {}
        self.adopted: TableRef | None = None
        #: The table that came with the claim, once a step looked at it.
        self._came: pa.Table | None = None
        #: Frames of a table that this claim's items are, by the key that stands for them.
        self._slices: dict[str, pa.Table] = {}
        #: Why no step may run in this process, as a problem; None where they may.
        self.refusal: dict[str, Any] | None = None
        self._secrets = None if claim.secrets is None else Secrets(claim.secrets)
        self._auth: Prepared | None = None

    def _as_seen(self, name: str, held: bytes | BlockRef) -> Any:
        """A step's result as templates see it."""
        if type(held) is bytes:
            output = self._blueprint.steps[self._blueprint.step_index[name]].output
            return seen_with(output, decode(held))
        return fetched_later(self._blocks, held) if type(held) is ValueRef else held

    def rows(self, items: Items) -> list[Any]:
        """A cursor's items: rows as maps, or slices that stand for tables of their own. Raises CacheMiss."""
        assert items.table is not None, items
        table, start = self.table(items.table), items.first * items.each
        if not items.whole:
            return list(rows_of(table.slice(start, items.count)))
        made = []
        for place in range(items.count):
            part = table.slice(start + place * items.each, items.each)
            key = f"{_SLICE}{items.first + place}"
            self._slices[key] = part
            made.append(TableRef(key, b"", part.nbytes, part.num_rows, tuple(part.column_names)))
        return made

    def take_item(self, loop: Loop, item: Any, index: int, total: int) -> None:
        """Lay out one item of a loop for the step that is begun next."""
        iteration = {loop.iterator: item, "index": index, "_index": index, "_total": total, **self._outer}
        seen = {
            "index": index,
            "count": index + 1,
            "size": total,
            "length": total,
            "first": index == 0,
            "last": index + 1 == total,
        }
        shared = {loop.iterator: item, "_index": index, "_total": total}
        self._names = {"iter": iteration, "loop": seen, **shared}

    def write_ctx(self, patches: dict[str, Any] | None) -> None:
        """What one item's policies wrote is there for the items after it."""
        if patches:
            self._ctx = {**self._ctx, **patches}

    def begin(self, index: int, visit: int) -> Step:
        """Take up one step: its inputs are evaluated and its scope is laid out. Raises EvaluationFailed."""
        step = self._blueprint.steps[index]
        claim = self._claim
        self.step = step.name
        self.idempotency_key = f"{self.execution_id}/{step.name}/{visit}"
        if self._names:
            self.idempotency_key += f"/{self._names['_index']}"
        self._args = claim.args if index == claim.steps[0] else None
        self._inputs = {}
        self._looks_at_iter = step.reads_iter
        if self._secrets is not None:
            self._secrets.check(step.name)
        if step.input is not None:
            self._inputs = render(step.input, self._lay_out(None))
        if self._names:
            self._inputs = {**self._item_names(), **self._inputs}
        self._scope = self._lay_out(self._inputs)
        return step

    def _item_names(self) -> dict[str, Any]:
        """What an item's tools get among their inputs, so that author code finds it by name."""
        return {name: value for name, value in self._names.items() if name not in ("iter", "loop")}

    def _lay_out(self, inputs: dict[str, Any] | None) -> dict[str, Any]:
        """The step's scope, inside its tool where there are inputs."""
        scope = build_scope(self._workload, self._ctx, self._results, self.execution_id, inputs, self._args)
        if self._secrets is not None:
            scope["keychain"] = self._secrets.scope()
        if self._names:
            return {**scope, **self._names}
        if self._looks_at_iter:
            scope["iter"] = self._outer
        return scope

    def run(self, task: Task) -> Any:
        """Run a step's one tool; its output as the tool gave it. Raises EdgeError."""
        self.effect, self.access, self.breaker = task.effect, task.access, task.breaker
        self._auth = task.auth
        return tool(task.kind).run(task.config, self._inputs, self)

    def pipeline(self, step: Step, visit: int) -> Pipeline:
        """The step's tasks, ready to run from where earlier goes stopped."""
        claim = self._claim
        progress = claim.progress or Progress()
        label = f"{step.name}.{self._names['_index']}" if self._names else step.name
        base, inputs, identity = self._scope, self._inputs, self.idempotency_key

        def invoke(number: int, task: Task, names: Mapping[str, Any]) -> Any:
            scope = {**base, **names}
            own = render(task.input, scope) if task.input is not None else {}
            given = {**inputs, **own}
            carried = {**(self._args or {}), **given}
            self._scope = {**scope, **given, "args": carried, "input": carried, "input_data": carried}
            self.idempotency_key = f"{identity}/{task.name}/{number}"
            if task.kind in HOSTED:
                return self._hosted_config(task, given)
            self.effect, self.access, self.breaker = task.effect, task.access, task.breaker
            self._auth = task.auth
            output = tool(task.kind).run(task.config, given, self)
            with _effect_kept(task):
                return self._held(output, block_key(claim.execution, f"{label}.{number}", visit))

        def keep(number: int, task: Task, value: Any) -> bytes | BlockRef:
            with _effect_kept(task):
                key = value_key(claim.execution, f"{label}.{number}", visit)
                return kept(self._blocks, key, task.name, task.output, value)

        return Pipeline(
            step.tasks,
            dict(base),
            self._ctx,
            invoke,
            keep,
            lambda ref: fetched_later(self._blocks, ref),
            {record.number: record for record in progress.recorded},
            progress.waited,
            progress.intended,
            dict(self._names.get("iter") or self._outer),
            claim.callbacks,
        )

    def _hosted_config(self, task: Task, given: dict[str, Any]) -> dict[str, Any]:
        """What the runtime needs to bring a hosted task's outcome about. Raises EvaluationFailed."""
        trees = CONFIG_TREES[task.kind]
        config = {
            key: self.render(value) if key in trees and value is not None else value
            for key, value in task.config.items()
        }
        if task.kind == CHILD:
            config["iter"] = self._iteration()
        return {**config, "input": given} if HOSTED[task.kind] else config

    def _iteration(self) -> bytes | None:
        """The iteration that a child may look at, as CBOR; empty bytes where it cannot be handed over."""
        iteration = self._scope["iter"] if self._names else self._outer.get("parent")
        if iteration is None:
            return None
        try:
            data = encode(check_plain(iteration))
        except PayloadInvalid:
            return b""
        return data if len(data) <= INLINE_BYTES_MAX else b""

    def render(self, tree: Any, extra: Mapping[str, Any] | None = None) -> Any:
        """Evaluate a template tree of the tool's configuration. Raises EvaluationFailed."""
        return render(tree, {**self._scope, **extra} if extra else self._scope)

    def credential(self) -> Credential | None:
        """What the task's `auth` names, None where it has none. Raises ToolFailed where it was not granted."""
        if self._auth is None:
            return None
        alias = self.render(self._auth)
        if self._secrets is None:
            raise not_granted(alias)
        return self._secrets.named(alias)

    def downstream(self, name: str) -> AbstractContextManager[None]:
        """Around one call to a downstream (`edge.tools.contract.ToolContext`)."""
        return self.calls.to(name, self.breaker)

    def run_program(
        self, argv: Sequence[str], environment: Mapping[str, str], given: bytes, timeout_ms: int
    ) -> Ended:
        """Run a granted program by way of this worker's launcher. Raises ToolFailed, Unavailable."""
        return run_program(argv, environment, given, timeout_ms)

    def table(self, ref: TableRef) -> pa.Table:
        """Map a table. Raises CacheMiss; PayloadInvalid where it came from outside and is not sound."""
        claim = self._claim
        if ref.key in self._slices:
            return self._slices[ref.key]
        if claim.table_bytes is not None and claim.table is not None and ref.key == claim.table.key:
            if self._came is None:
                made = batch_table if is_batch(claim.table) else table_from_stream
                self._came = made(claim.table_bytes)
            table = self._came
        else:
            table = self._blocks.read(ref)
        if ref.outside:
            self.adopted = TableRef(
                ref.key, ref.digest, ref.size_bytes, table.num_rows, tuple(table.column_names)
            )
        return table

    def settle(self, visit: int, output: Any, held: BlockRef | None = None) -> Outcome:
        """Put the step's output where it belongs, unless it is `held` already.

        Raises ToolFailed, CacheMiss, Unavailable.
        """
        label = f"{self.step}.{self._names['_index']}" if self._names else self.step
        execution = self._claim.execution
        output = self._held(output, block_key(execution, label, visit)) if held is None else held
        how = self._blueprint.steps[self._blueprint.step_index[self.step]].output
        made: bytes | BlockRef
        if type(output) is TableRef or type(output) is ValueRef:
            made = output
        else:
            made = kept(self._blocks, value_key(execution, label, visit), self.step, how, output)
        if not self._names:  # an item's output is nothing that other items may see
            self._results[self.step] = (
                fetched_later(self._blocks, output) if type(output) is ValueRef else seen_with(how, output)
            )
        return Outcome(VALUE, value=made) if isinstance(made, bytes) else Outcome(TABLE, table=made)

    def _is_batch(self, ref: TableRef) -> bool:
        """Whether this is the table of a batch: it is in no block, but made of the messages in the claim."""
        came = self._claim.table
        return came is not None and came.key == ref.key and is_batch(came)

    def _held(self, output: Any, key: str) -> Any:
        """An output as other steps and tasks see it: without secrets, tables are blocks of the cache."""
        if self._secrets is not None:
            output = self._secrets.without(output)
        if isinstance(output, pa.RecordBatch):
            output = pa.Table.from_batches([output])
        if type(output) is TableRef and output.key in self._slices:
            output = self._slices[output.key]
        if isinstance(output, pa.Table):
            output = self._blocks.write(key, output)
        if type(output) is TableRef and self._is_batch(output):
            output = self._blocks.write(key, self.table(output))
        if type(output) is TableRef and output.outside:
            self.table(output)
            assert self.adopted is not None, "an outside table was opened"
            output = self.adopted
        return output


@contextmanager
def _effect_kept(task: Task) -> Iterator[None]:
    """A write had its effect: losing its output must not bring it about a second time."""
    try:
        yield
    except CacheMiss as error:
        if task.effect != "write":
            raise
        raise ToolFailed(
            f"Task {task.name} had its effect, but its output could not be kept: {error.message}",
            mend="Look at the effect; then send a new request.",
            code="output_lost",
        ) from error
