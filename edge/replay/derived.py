"""What-if over many executions: in units, by several processes, kept apart from the log with what they were made of.

    derived/whatif/<key>/PROVENANCE.json            playbook, release, mode, selection
    derived/whatif/<key>/<log>-<segment>.jsonl      a header, then one line for each execution begun in that segment

The key is a digest of everything that decides what comes out, so the same asked again finds what is there, and one
that was broken off goes on. A log is never edited: what is here can be thrown away. Called by `edge central whatif`.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from edge import VERSION
from edge.core.clock import WALL_IMPLAUSIBLE
from edge.core.codec import encode_canonical
from edge.core.errors import EdgeError
from edge.core.events import Event, ExecutionFinished, ExecutionRequested
from edge.core.records import record
from edge.core.state import EXECUTION_BODIES
from edge.replay.effects import STOP
from edge.replay.pinned import Pinned, pinned_by
from edge.replay.sandbox import Sandbox
from edge.replay.sealed_source import SealedFile, SealedSource, manifest_of
from edge.replay.shield import shielded
from edge.replay.whatif import Pair, WhatIf, whatif
from edge.store.whole_file import write_whole
from playbooks.blueprint import Blueprint

_KEY_DIGITS: Final = 16
PROVENANCE: Final = "PROVENANCE.json"


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


@dataclass(slots=True)
class Unit:
    """One segment's executions: what came of them, how many have not ended, how many have no believed time."""

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

    def read(self, name: str, last_seq: int) -> Unit | None:
        """A unit that is there; None where it is not, or where some had not ended and the log has grown since."""
        path = self.folder / f"{name}.jsonl"
        if not path.exists():
            return None
        header, *lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        if header["open"] and header["log_through"] < last_seq:
            return None
        return Unit(name, lines, header["open"], header["timeless"], header)

    def write(self, unit: Unit) -> None:
        """Keep a unit, whole. Raises StorageFailed."""
        lines = [
            json.dumps(each, ensure_ascii=False, default=_shown) for each in (unit.header, *unit.results)
        ]
        write_whole(self.folder / f"{unit.name}.jsonl", ("\n".join(lines) + "\n").encode())


def _shown(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def over(source: SealedSource, asked: Asked, derived: Derived, jobs: int) -> Iterator[Unit]:
    """Every unit of a log, those that are there already first. Raises EdgeError.

    A unit is written before it is given; broken off at any point, the same again goes on.
    """
    last_seq = source.files[-1].last_seq if source.files else 0
    left: list[SealedFile] = []
    needed: set[bytes] = set()
    for each in source.files:
        if asked.only and not each.first_seq <= asked.only <= each.last_seq:
            continue
        said = manifest_of(each.path)
        known = derived.read(_name(source, each), last_seq)
        if known is not None:
            yield known
        elif said.wall_max_ns >= asked.from_ns and said.wall_min_ns <= asked.to_ns and said.blueprints:
            left.append(each)
            needed.update(said.blueprints)
    if not left:
        return
    pinned = pinned_by(source.groups(), needed)
    shares = [left[place::jobs] for place in range(min(jobs, len(left)))]
    if len(shares) == 1:
        yield from _work(source, asked, derived, shares[0], pinned)
        return
    yield from _by_processes(source, asked, derived, shares, pinned)


def _by_processes(
    source: SealedSource, asked: Asked, derived: Derived, shares: list[list[SealedFile]], pinned: Pinned
) -> Iterator[Unit]:
    context = multiprocessing.get_context("fork")
    ends: list[tuple[Any, Connection]] = []
    for share in shares:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_tell, args=(theirs, source, asked, derived, share, pinned))
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


def _tell(
    out: Connection,
    source: SealedSource,
    asked: Asked,
    derived: Derived,
    share: list[SealedFile],
    pinned: Pinned,
) -> None:
    try:
        for unit in _work(source, asked, derived, share, pinned):
            out.send(unit)
    except EdgeError as error:
        out.send(str(error))


def _name(source: SealedSource, file: SealedFile) -> str:
    return f"{source.log_id.hex()}-{file.path.stem}"


def _work(
    source: SealedSource, asked: Asked, derived: Derived, share: list[SealedFile], pinned: Pinned
) -> Iterator[Unit]:
    other = shielded(asked.blueprint)
    pairs: dict[bytes, Pair | None] = {}
    sandbox: Sandbox | None = None
    try:
        for file in share:
            unit = Unit(_name(source, file))
            for history in _begun_in(source, file, asked, unit):
                digest = history[0].body.digest  # type: ignore[attr-defined]
                if digest not in pairs:
                    own = pinned.blueprint(digest)
                    pairs[digest] = Pair(shielded(own), other) if own.path == asked.blueprint.path else None
                pair = pairs[digest]
                if pair is None:
                    continue
                sandbox = sandbox or Sandbox(pinned.hash_seed)
                made: WhatIf = whatif(sandbox, source, pair, history, asked.mode, asked.model)
                unit.results.append({"execution": f"{source.log_id.hex()}-{made.execution}", **_rest(made)})
            unit.header = {
                "box": source.box, "log": source.log_id.hex(), "segment": file.path.name,
                "events": [file.first_seq, file.last_seq], "log_through": source.files[-1].last_seq,
                "recorded_by": list(pinned.releases), "open": unit.open, "timeless": unit.timeless,
            }  # fmt: skip
            derived.write(unit)
            yield unit
    finally:
        if sandbox is not None:
            sandbox.close()


def _rest(made: WhatIf) -> dict[str, Any]:
    return {name: value for name, value in made.plain().items() if name != "execution"}


def _begun_in(source: SealedSource, file: SealedFile, asked: Asked, unit: Unit) -> Iterator[Sequence[Event]]:
    """Histories that began in a segment, read on until all have ended or the log does."""
    going: dict[int, list[Event]] = {}
    for group in source.groups(file.first_seq - 1):
        if group.first_seq > file.last_seq and not going:
            return
        at = group.context.at
        for event in group.events():
            if event.seq == event.execution and isinstance(event.body, ExecutionRequested):
                if event.seq > file.last_seq or asked.only not in (0, event.seq):
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
