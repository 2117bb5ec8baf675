"""What-if over many executions: in units, by several processes, kept apart from the log with what they were made of.

    derived/whatif/<key>/PROVENANCE.json            playbook, release, mode, selection
    derived/whatif/<key>/<log>-<part>.jsonl         a header, then one line for each execution begun in that part

The key is a digest of everything that decides what comes out, so the same asked again finds what is there, and one
that was broken off goes on. A log is never edited: what is here can be thrown away. A part is a segment where there
are segments, else some thousand events. Called by `edge whatif` and `edge central whatif`.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from edge import VERSION
from edge.core.chain import OpenedGroup
from edge.core.clock import WALL_IMPLAUSIBLE
from edge.core.codec import encode, encode_canonical
from edge.core.errors import EdgeError
from edge.core.events import Event, ExecutionFinished, ExecutionRequested
from edge.core.records import record
from edge.core.state import EXECUTION_BODIES
from edge.replay.effects import STOP
from edge.replay.journal_source import JournalSource
from edge.replay.pinned import Pinned, pinned_by
from edge.replay.sandbox import Sandbox
from edge.replay.sealed_source import SealedSource
from edge.replay.shield import shielded
from edge.replay.source import Source
from edge.replay.whatif import Pair, WhatIf, whatif
from edge.segments.sealing import manifest_of
from edge.store.whole_file import write_whole
from playbooks.blueprint import Blueprint

_KEY_DIGITS: Final = 16
PROVENANCE: Final = "PROVENANCE.json"
#: A box's own log is taken in parts of so many events.
_PART_EVENTS: Final = 10_000
#: How the envelope of a request goes on behind its head.
_REQUESTED: Final = encode(ExecutionRequested.CODE)


@record
class Asked:
    """What is asked: another playbook, what becomes of other requests, of which time (ns, by the boxes' clocks).

    `only` is one execution's number, 0 for all.
    """

    blueprint: Blueprint
    mode: str = STOP
    model: tuple[Mapping[str, Any], ...] = ()
    from_ns: int = 0
    to_ns: int = 1 << 62
    only: int = 0

    @property
    def key(self) -> str:
        """Equal for all that comes out the same."""
        model = json.dumps(self.model, sort_keys=True, default=str)
        asked = [self.blueprint.digest, self.mode, model, self.from_ns, self.to_ns, self.only]
        parts = [*asked, VERSION, platform.python_version()]
        return hashlib.sha256(encode_canonical(parts)).hexdigest()[:_KEY_DIGITS]

    def provenance(self) -> dict[str, Any]:
        """For people, beside the results."""
        return {
            "playbook": self.blueprint.path,
            "playbook_digest": self.blueprint.digest.hex(),
            "runtime": VERSION,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "on_other_request": self.mode,
            "model": list(self.model),
            "from_ns": self.from_ns,
            "to_ns": self.to_ns,
            "only": self.only or None,
        }


@record
class Part:
    """A part of a log: its name, its first and last event, and what playbooks its executions are pinned to."""

    name: str
    first_seq: int
    last_seq: int
    blueprints: tuple[bytes, ...]


@dataclass(slots=True)
class Unit:
    """One part's executions: what came of them, how many have not ended, how many have no believed time."""

    name: str
    results: list[dict[str, Any]] = field(default_factory=list)
    open: int = 0
    timeless: int = 0
    header: dict[str, Any] = field(default_factory=dict)


class Derived:
    """The folder of one question's results."""

    def __init__(self, data: Path, asked: Asked) -> None:
        self.folder = data / "derived" / "whatif" / asked.key
        self._asked = asked

    def begin(self) -> None:
        """Make the folder. Raises StorageFailed."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        write_whole(self.folder / PROVENANCE, json.dumps(self._asked.provenance(), indent=1).encode() + b"\n")

    def drop(self) -> None:
        """Take the folder away: nothing was asked about."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self, name: str, last_seq: int) -> Unit | None:
        """A unit that is there; None where it is not, or where some had not ended and the log has grown since."""
        path = self.folder / f"{name}.jsonl"
        if not path.exists():
            return None
        try:
            header, *lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            if header["open"] and header["log_through"] < last_seq:
                return None
        except (ValueError, KeyError, TypeError):
            return None  # damaged: it is made again
        return Unit(name, lines, header["open"], header["timeless"], header)

    def write(self, unit: Unit) -> None:
        """Keep a unit, whole. Raises StorageFailed."""
        lines = [
            json.dumps(each, ensure_ascii=False, default=_shown) for each in (unit.header, *unit.results)
        ]
        write_whole(self.folder / f"{unit.name}.jsonl", ("\n".join(lines) + "\n").encode())


def _shown(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def parts_of_segments(source: SealedSource, asked: Asked) -> list[Part]:
    """Each segment that may hold an execution that is asked for. Raises SegmentRejected."""
    parts = []
    for each in source.files:
        if asked.only and not each.first_seq <= asked.only <= each.last_seq:
            continue
        said = manifest_of(each.path)
        if said.wall_max_ns >= asked.from_ns and said.wall_min_ns <= asked.to_ns and said.blueprints:
            name = f"{each.number:012d}-{said.body_digest.hex()[:_KEY_DIGITS]}"
            parts.append(Part(name, each.first_seq, each.last_seq, tuple(said.blueprints)))
    return parts


def parts_of_journal(source: JournalSource, asked: Asked) -> tuple[list[Part], int]:
    """A box's own log, so many events at a time, and the last event of all of it. Raises LogDamaged."""
    parts: list[Part] = []
    first_seq, last_seq, digests = 0, 0, dict[bytes, None]()
    for group in source.groups():
        first_seq = first_seq or group.first_seq
        last_seq = group.last_seq
        for place in range(0, len(group.parts), 2):
            seq = group.first_seq + place // 2
            if group.parts[place][1:2] == _REQUESTED and asked.only in (0, seq):
                digests[group.event(seq).body.digest] = None  # type: ignore[attr-defined]
        if last_seq - first_seq >= _PART_EVENTS:
            parts.append(_part(first_seq, group, digests))
            first_seq, digests = 0, {}
    if first_seq:
        parts.append(_part(first_seq, group, digests))
    return [part for part in parts if part.blueprints], last_seq


def _part(first_seq: int, last: OpenedGroup, digests: Mapping[bytes, None]) -> Part:
    """Named after its end, too, and with it the chain: the log of a copied card has the same numbers."""
    end = hashlib.sha256(b"".join((last.previous, last.context_bytes, *last.parts))).hexdigest()
    name = f"{first_seq:012d}-{last.last_seq:012d}-{end[:_KEY_DIGITS]}"
    return Part(name, first_seq, last.last_seq, tuple(digests))


def over(
    source: Source, parts: Sequence[Part], last_seq: int, asked: Asked, derived: Derived, jobs: int
) -> Iterator[Unit]:
    """Every unit of a log that ends at `last_seq`, those that are there already first. Raises EdgeError.

    A unit is written before it is given; broken off at any point, the same again goes on.
    """
    left: list[Part] = []
    for each in parts:
        known = derived.read(_name(source, each), last_seq)
        if known is not None:
            yield known
        else:
            left.append(each)
    if not left:
        return
    digests = {digest for each in left for digest in each.blueprints}
    work = _Work(source, last_seq, asked, derived, pinned_by(source.groups(), digests))
    shares = [left[place::jobs] for place in range(min(jobs, len(left)))]
    if len(shares) == 1:
        yield from work(shares[0])
        return
    yield from _by_processes(work, shares)


def _by_processes(work: _Work, shares: list[list[Part]]) -> Iterator[Unit]:
    context = multiprocessing.get_context("fork")
    ends: list[tuple[Any, Connection]] = []
    for share in shares:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_tell, args=(theirs, work, share))
        process.start()
        theirs.close()
        ends.append((process, ours))
    failed: str | None = None
    for process, ours in ends:
        while True:
            try:
                told = ours.recv()
            except EOFError:
                break
            if isinstance(told, str):
                failed = failed or told
            else:
                yield told
        process.join()
        if process.exitcode and failed is None:
            failed = f"A process ended with {process.exitcode} before it was done."
    if failed is not None:
        raise EdgeError(failed, mend="What was done is kept: the same command goes on from there.")


def _tell(out: Connection, work: _Work, share: list[Part]) -> None:
    try:
        for unit in work(share):
            out.send(unit)
    except EdgeError as error:
        out.send(str(error))


def _name(source: Source, part: Part) -> str:
    return f"{source.log_id.hex()}-{part.name}"


@dataclass(slots=True)
class _Work:
    """What every process does with its share of the parts."""

    source: Source
    last_seq: int
    asked: Asked
    derived: Derived
    pinned: Pinned

    def __call__(self, share: Sequence[Part]) -> Iterator[Unit]:
        pairs: dict[bytes, Pair | None] = {}
        other = shielded(self.asked.blueprint)
        with ExitStack() as stack:
            sandbox: Sandbox | None = None
            for part in share:
                unit = Unit(_name(self.source, part))
                for history in _begun_in(self.source, part, self.asked, unit):
                    pair = self._pair(pairs, history, other)
                    if pair is None:
                        continue
                    sandbox = sandbox or stack.enter_context(Sandbox(self.pinned.hash_seed))
                    made = whatif(sandbox, self.source, pair, history, self.asked.mode, self.asked.model)
                    execution_id = f"{self.source.log_id.hex()}-{made.execution}"
                    unit.results.append({"execution": execution_id, **_rest(made)})
                unit.header = self._header(part, unit)
                self.derived.write(unit)
                yield unit

    def _pair(
        self, pairs: dict[bytes, Pair | None], history: Sequence[Event], other: Blueprint
    ) -> Pair | None:
        """Both playbooks of an execution, None where its own is of another path."""
        digest = history[0].body.digest  # type: ignore[attr-defined]
        if digest not in pairs:
            own = self.pinned.blueprint(digest)
            pairs[digest] = Pair(shielded(own), other) if own.path == self.asked.blueprint.path else None
        return pairs[digest]

    def _header(self, part: Part, unit: Unit) -> dict[str, Any]:
        return {
            "box": self.source.box, "log": self.source.log_id.hex(), "part": part.name,
            "events": [part.first_seq, part.last_seq], "log_through": self.last_seq,
            "recorded_by": list(self.pinned.releases), "open": unit.open, "timeless": unit.timeless,
        }  # fmt: skip


def _rest(made: WhatIf) -> dict[str, Any]:
    return {name: value for name, value in made.plain().items() if name != "execution"}


def _begun_in(source: Source, part: Part, asked: Asked, unit: Unit) -> Iterator[Sequence[Event]]:
    """Histories that began in a part, read on until all have ended or the log does."""
    going: dict[int, list[Event]] = {}
    for group in source.groups(part.first_seq - 1):
        if group.first_seq > part.last_seq and not going:
            return
        at = group.context.at
        for event in group.events():
            if event.seq == event.execution and isinstance(event.body, ExecutionRequested):
                if event.seq > part.last_seq or asked.only not in (0, event.seq):
                    continue
                if at.wall_trust == WALL_IMPLAUSIBLE:
                    unit.timeless += 1
                if asked.from_ns <= at.wall_ns <= asked.to_ns:
                    going[event.seq] = [event]
            elif event.execution in going and type(event.body) in EXECUTION_BODIES:
                going[event.execution].append(event)
                if isinstance(event.body, ExecutionFinished):
                    yield going.pop(event.execution)
    unit.open += len(going)
    yield from going.values()
