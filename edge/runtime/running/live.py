"""One execution while it runs: its folded state beside the values that the log need not hold.

Owned by the engine. The state is what `evolve` says; `results` are outputs kept for the steps that read them, and may
be missing after a restart or an eviction (`edge.runtime.running.rebuild`). What is being carried out stands in
`under_way`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from edge.core.beginnings import has_recorded
from edge.core.codec import decode, encode
from edge.core.events import TaskDone
from edge.core.limits import LOOP_CLAIM_US
from edge.core.loops import Frame, Rows
from edge.core.records import record
from edge.core.routing import envelope
from edge.core.scheduler import FailStep, Finish, Run, RunLoop, token_args
from edge.core.state import Execution
from edge.core.values import BlockRef, TableRef, ValueRef
from edge.store.blocks import REQUEST_TABLE
from edge.worker.claims import Claim, Progress, TaskRecord
from playbooks.blueprint import Blueprint
from playbooks.deferred import Deferred
from playbooks.outputs import seen_with
from playbooks.scope import build_scope

#: Before anything is known of how long an item takes, it goes alone.
UNKNOWN_US: Final = LOOP_CLAIM_US


class Place(NamedTuple):
    """A hosted task that is waited for: which invocation of which step's pipeline, of which item in a loop."""

    execution: int
    step: str
    visit: int
    number: int
    task: str
    item: int | None = None
    attempt: int = 1

    def identity(self, execution_id: str) -> str:
        """The invocation's identity, the same for every attempt: hand it to the world outside."""
        item = "" if self.item is None else f"/{self.item}"
        return f"{execution_id}/{self.step}/{self.visit}{item}/{self.task}/{self.number}"


@record
class Seen:
    """What a claim goes by: `ctx` and the outputs its steps read, as they were after event `seq` of the execution."""

    seq: int
    ctx: dict[str, Any]
    results: dict[str, bytes | BlockRef]


@dataclass(slots=True, eq=False)
class LoopRun:
    """One loop under way: its items, what waits, what is out, and how long an item usually takes."""

    items: list[Any] | Rows
    total: int
    waiting: list[Frame]
    out: dict[int, Frame] = field(default_factory=dict)
    #: Items under way that hold no worker: their intent is on its way to the drive, their pause is not over, or their
    #: hosted task waits.
    resting: int = 0
    #: Items between two attempts; when their pause is over they go on, if they still stand here.
    pauses: set[int] = field(default_factory=set)
    #: Before which invocation an item served a pause last, by index.
    waited: dict[int, int] = field(default_factory=dict)
    item_us: int = UNKNOWN_US
    result_bytes: int = 0
    #: What policies of a parallel loop wrote: each name once, or to the same value.
    written: dict[str, Any] = field(default_factory=dict)
    #: Why no further item begins.
    problem: dict[str, Any] | None = None
    #: A block was gone: it is made again once nothing is out.
    missed: bool = False


@dataclass(slots=True, eq=False)
class Activation:
    """One thing under way for an execution: `goal` is what `decide` asked for, `name` its place in `Live.under_way`.

    `rebuilding` names the step that the claim under way makes again, None where it works on the goal; `intent_seq` is
    the event of a write's intent, 0 before it; `claim_bound` says that the claim goes to a process of this playbook;
    `saw_seq` is the event after which the claim's steps began: what they see is the state after it;
    `waited` is the invocation before which a pipeline served a pause last, `paused` says that it is in one; `loop` is
    the loop a step runs, with its own claims. By item (None: no loop): `hosted` are the hosted tasks that are waited
    for, kind and place, `intended` is the invocation whose intent was made durable for the attempt under way, `seen`
    what a pipeline began with and goes by until its end.
    """

    goal: Run | RunLoop | FailStep | Finish
    name: str
    claim: Claim | None = None
    rebuilding: str | None = None
    intent_seq: int = 0
    claim_bound: bool = False
    saw_seq: int = 0
    waited: int = 0
    paused: bool = False
    #: Why nothing more of the step begins: its deadline passed.
    overdue: dict[str, Any] | None = None
    loop: LoopRun | None = None
    hosted: dict[int | None, tuple[str, Place]] = field(default_factory=dict)
    intended: dict[int | None, int] = field(default_factory=dict)
    seen: dict[int | None, Seen] = field(default_factory=dict)

    def forget_seen(self, frame: Frame) -> None:
        """These items are over, or begin anew with what there is then; what was recorded of one says what it saw."""
        if self.seen:
            for index in range(frame.first, frame.first + frame.count):
                self.seen.pop(index, None)


@dataclass(slots=True, eq=False)
class Live:
    """An execution that has not ended."""

    execution_id: str
    blueprint: Blueprint
    state: Execution
    workload: dict[str, Any]
    #: Reads a block of this playbook. Raises CacheMiss.
    read: Callable[[bytes, BlockRef], bytes]
    results: dict[str, bytes | BlockRef] = field(default_factory=dict)
    #: By the name of its (first) step; the end goes under "".
    under_way: dict[str, Activation] = field(default_factory=dict)
    #: Steps whose admission rules were asked and would say the same now.
    admitted: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)
    #: Why the execution cannot go on; it ends once nothing is under way.
    doomed: dict[str, Any] | None = None
    #: Steps whose output comes from a process that ran author code. Only such a process of the same playbook may
    #: open their tables: a table made with bad intent must not reach a process that other playbooks share.
    author_made: set[str] = field(default_factory=set)
    #: Blocks that items of settled loops gave, by step.
    item_blocks: dict[str, list[BlockRef]] = field(default_factory=dict)
    misses: int = 0
    #: Some deadline of it is minded (`edge.runtime.waiting.deadlines`).
    watched: bool = False
    #: The execution's newest event.
    last_seq: int = 0
    #: The table that came with the request, and its bytes where they travel with the claims.
    request_table: TableRef | None = None
    request_table_bytes: bytes | None = None
    #: The workload without that table, as workers get it; encoded once.
    _workload_bytes: bytes | None = None
    _decoded: dict[str, Any] = field(default_factory=dict)

    @property
    def workload_bytes(self) -> bytes:
        """The workload as workers get it, without the request's table; encoded once."""
        if self._workload_bytes is None:
            self._workload_bytes = encode(self.workload)
        return self._workload_bytes

    def share_workload(self, encoded: dict[bytes, bytes]) -> None:
        """Take the encoded default workload that every request of this kind shares, or make it."""
        digest = self.blueprint.digest
        if digest not in encoded:
            encoded[digest] = self.workload_bytes
        self._workload_bytes = encoded[digest]

    def table_for(self, workload: bytes | None, results: Mapping[str, bytes | BlockRef]) -> TableRef | None:
        """The request's table where a claim with this workload and these results may look at it."""
        ref = self.request_table
        if ref is None or workload is not None:
            return ref
        names = (output.key for output in results.values() if type(output) is TableRef)
        return ref if ref.key in names else None

    def touches_author_made(self, results: Iterable[str], progress: Progress | None) -> bool:
        """Whether a claim with these results and records may open a table that author code made."""
        if not self.author_made.isdisjoint(results):
            return True
        recorded = () if progress is None else progress.recorded
        return any(type(each.table) is TableRef and each.task in self.author_made for each in recorded)

    @property
    def ending(self) -> bool:
        """True where nothing more of it is to begin."""
        return self.doomed is not None or self.state.problem is not None

    def keep(self, step: str, output: bytes | BlockRef) -> None:
        """Keep a step's output for the steps that read it."""
        self.results[step] = output
        self._decoded.pop(step, None)

    def value(self, step: str) -> Any:
        """A step's output as templates see it: decoded, large values read when asked for; a table's reference."""
        output = self.results[step]
        if type(output) is ValueRef:
            ref = output  # not kept decoded: it would stay as long as the execution
            return Deferred(ref.selected or {}, lambda: decode(self.read(self.blueprint.digest, ref)))
        if step not in self._decoded:
            known = self.blueprint.steps[self.blueprint.step_index[step]]
            self._decoded[step] = seen_with(known.output, decode(output)) if type(output) is bytes else output
        return self._decoded[step]

    def seen(self, steps: Iterable[int]) -> Seen:
        """What these steps see if they begin now."""
        return Seen(self.last_seq, self.state.ctx, {name: self.results[name] for name in self.needs(steps)})

    def began_with(self, act: Activation, item: int | None = None) -> int | None:
        """What the first event that a pipeline records names as its cause: the event after which it began.

        None for later ones, for what is no pipeline, and where that is simply the event before.
        """
        seen = act.seen.get(item)
        if seen is None or seen.seq == self.last_seq:
            return None
        assert isinstance(act.goal, Run | RunLoop), act.goal
        return None if has_recorded(self.state.steps.get(act.name), act.goal.visit, item) else seen.seq

    def progress(self, run: Run, act: Activation) -> Progress | None:
        """How far the pipeline of a run came before, by the log; None where its step is no pipeline.

        Of an intent only that of this attempt counts: another attempt needs one of its own, or nobody could tell how
        many there were.
        """
        step = self.blueprint.steps[run.steps[0]]
        if not step.pipeline:
            return None
        known = self.state.steps.get(step.name)
        if known is None or known.visit != run.visit:
            return Progress(waited=act.waited)
        return Progress(_records(known.tasks), act.waited, act.intended.get(None))

    def item_progress(self, step: int, index: int, waited: int, act: Activation) -> Progress | None:
        """As `progress`, for one item of a step's loop."""
        known = self.blueprint.steps[step]
        if not known.pipeline:
            return None
        loop = self.state.steps[known.name].loop
        assert loop is not None, known.name
        return Progress(_records(loop.tasks.get(index, ())), waited, act.intended.get(index))

    def needs(self, steps: Iterable[int]) -> list[str]:
        """Names of settled steps whose outputs these steps read."""
        known = self.state.steps
        made: set[str] = set()
        needed: dict[str, None] = {}
        for index in steps:
            step = self.blueprint.steps[index]
            for name in step.reads:
                if name not in made and name in known and known[name].status == "done":
                    needed[name] = None
            made.add(step.name)
        return list(needed)

    def reads_workload(self, steps: Iterable[int]) -> bool:
        """True where one of the steps looks at the workload."""
        return any(self.blueprint.steps[index].reads_workload for index in steps)

    def routing_scope(self, step: int, problem: dict[str, Any] | None = None) -> Mapping[str, Any]:
        """What a settled step's `set` and arcs may look at: its own outcome and what else they read."""
        known = self.blueprint.steps[step]
        names = {*known.reads, known.name} & self.results.keys()
        values = {each: self.value(each) for each in names}
        if problem is not None:
            values.pop(known.name, None)
        if known.reads_output:
            output = envelope(values.get(known.name), problem)
            values = {**values, "output": output}
        args = token_args(self.blueprint, self.state, known.name)
        return build_scope(self._workload(), self.state.ctx, values, self.execution_id, None, args)

    def step_scope(self, step: int, args: dict[str, Any] | None) -> Mapping[str, Any]:
        """What a step that is about to run may look at."""
        names = set(self.blueprint.steps[step].reads) & self.results.keys()
        values = {each: self.value(each) for each in names}
        scope = build_scope(self._workload(), self.state.ctx, values, self.execution_id, None, args)
        if self.blueprint.steps[step].reads_iter:
            outer = self.state.request.iter
            scope["iter"] = {} if outer is None else {"parent": decode(outer)}
        return scope

    def gate_scope(self, args: dict[str, Any] | None) -> Mapping[str, Any]:
        """What admission rules may look at."""
        return build_scope(self._workload(), self.state.ctx, {}, self.execution_id, None, args)

    def _workload(self) -> dict[str, Any]:
        if self.request_table is None:
            return self.workload
        return {**self.workload, REQUEST_TABLE: self.request_table}


def _records(tasks: tuple[TaskDone, ...]) -> tuple[TaskRecord, ...]:
    return tuple(
        TaskRecord(done.number, done.task, done.value, done.table, done.problem, done.duration_us)
        for done in tasks
    )
