"""A box that serves and prunes on a drive that is cut, and what it must know at the next start.

Functions for `tests.faults.children`. What a client was told, or the box itself saw durable, is put into a file when
it happens: lines `told N`, `asked NAME N`, `answered NAME SHA`, `delivered NAME`, `history N LAST SHA`, `messages N`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final

from edge.core.carried import logical
from edge.core.chain import encode_event
from edge.core.errors import LogDamaged
from edge.core.events import Event
from edge.core.limits import INLINE_BYTES_MAX, KIB
from edge.core.state import RUNNING, fold
from edge.runtime.commit import index
from edge.runtime.commit.catching_up import catch_up
from edge.runtime.retention.carrier import Carrier
from edge.runtime.retention.pruner import Pruner, Segment, oldest_closed
from edge.runtime.retention.terms import Terms
from edge.store.eventlog import EventLog
from edge.store.index_prune import condemned_of, first_of, pruned_of
from edge.store.journal import Journal, read_groups
from edge.store.segment_file import segment_paths
from edge.store.verify import compare_index, verify_journal
from edge.testing.box import Box
from edge.testing.clock import ManualClock
from edge.testing.plain import playbook
from tests.faults.log_on_trial import (
    BOOT,
    EVENTS_PER_COMMIT,
    NEXT_BOOT,
    REFUSED,
    flush_now_and_then,
    mirror_of,
)
from tests.unit.retention_rig import prune_all
from tests.unit.subscription_rig import ONE, subscription

SEGMENT_BYTES: Final = 64 * KIB
_HERE: Final = "tests.faults.pruned_lives"
LIVE, LOOK = f"{_HERE}:live", f"{_HERE}:look"
_NS: Final = 1_000_000_000
_LIFE_S: Final = 1_000
#: Longer than all lives; by it an execution is open for ever.
_WAIT: Final = {"name": "pause", "kind": "wait", "seconds": 864_000}
_VALUE: Final = {"name": "a", "kind": "transform", "value": "{{ workload.n }}"}
WAITS: Final[list[dict[str, Any]]] = [
    {"step": "first", "tool": _VALUE, "next": [{"step": "s"}]},
    {"step": "s", "tool": [_VALUE, _WAIT]},
]
SHORT: Final[list[dict[str, Any]]] = [{"step": "a", "tool": _VALUE}]
_TABLES: Final = ("executions", "requests", "open", "catalog", "circuits", "carried", "blobs", "meta")


def payload_of(number: int) -> bytes:
    """What request `number` asks with: now and then so large that it lies in a blob."""
    size_bytes = INLINE_BYTES_MAX if number % 16 == 8 else 4_000
    return b'{"n": %d, "pad": "%s"}' % (number, b"y" * size_bytes)


def asked_of(number: int) -> tuple[str, str]:
    """Its playbook and its request id."""
    path = "waits" if number % 11 == 0 else "short"
    return path, f"r-{number}"


def _box(folder: Path, boot: bytes, life: int) -> Box:
    clock = ManualClock()
    clock.advance(life * _LIFE_S * _NS)
    if boot != BOOT:  # the clock since the machine started begins anew, the wall clock goes on
        wall_ns = clock.now.wall_ns
        clock = ManualClock()
        clock.set_wall(wall_ns)
    box = Box(
        folder,
        clock=clock,
        segment_bytes=SEGMENT_BYTES,
        boot_id=boot,
        mirror=mirror_of(folder),
        numbers_jump=True,
    )
    # As the daemon does: whatever the drive refuses ends the process.
    box.gate._on_failure = lambda error: os._exit(REFUSED)
    return box


# ---- a life ----------------------------------------------------------------------------------------------


def live(folder: str, say: str, seed: int, life: int, requests: int, planted: str = "") -> None:
    """Open the box, serve so many requests and prune meanwhile; most lives end without closing anything.

    `planted` is a bug: see `_plant`.
    """
    _plant(planted)
    index.INDEX_EVENTS_PER_COMMIT = EVENTS_PER_COMMIT  # type: ignore[misc]
    said = os.open(say, os.O_WRONLY | os.O_APPEND)
    asyncio.run(_Life(Path(folder), said, Random(seed), life).run(requests))


class _Life:
    def __init__(self, folder: Path, said: int, chance: Random, life: int) -> None:
        self._folder, self._said, self._chance, self._life = folder, said, chance, life

    async def run(self, requests: int) -> None:
        chance = self._chance
        stop = flush_now_and_then(self._folder, Random(chance.random()))
        box = self._box = _box(self._folder, BOOT, self._life)
        self._say(f"log {box.journal.log_id.hex()}")
        box.engine.on_answer = self._answered
        await box.settle()
        await box.keeper.look()  # goes on with what a life before left half done
        number = await self._furnish()
        pruning = asyncio.create_task(self._prune())
        first = self._life * requests
        for place in range(first, first + requests):
            path, name = asked_of(place)
            box.submit(path, payload_of(place), request_id=name)
            box.message(number, "a/x", b"%d" % place, packet=place % 65_535 + 1)
            box.move_clock(1)
            await box.settle()
            self._say(f"told {box.gate.durable_seq}")
            self._say(f"asked {name} {box.receipts[-1].seq}")
            self._say(f"messages {place + 1}")
            if path == "waits":
                self._say_history(box.receipts[-1].seq)
            await asyncio.sleep(chance.choice([0, 0, 0.002, 0.01]))
        if chance.random() < 0.75:
            await asyncio.sleep(chance.random() * 0.05)
            os._exit(0)  # killed wherever pruning is
        pruning.cancel()
        with suppress(asyncio.CancelledError):
            await pruning
        await box.close()
        stop.set()

    async def _furnish(self) -> int:
        box = self._box
        if not box.engine.catalog.playbooks():
            await box.register(playbook(WAITS, "waits"))
            await box.register(playbook(SHORT, "short"))
            await box.register(ONE)
            await box.subscribe(subscription())
        return box.subscriptions.find("in/s").number

    async def _prune(self) -> None:
        """As the keeper does where room is wanted, as fast as segments fill."""
        box, chance = self._box, self._chance
        while True:
            segment = oldest_closed(self._folder / "journal")
            if segment is not None and len(segment_paths(self._folder / "journal")) > 2:
                await box.pruner.prune(segment, Terms(), chance.choice(["oldest", "thin"]))
            await asyncio.sleep(0.002)

    def _answered(self, answer: Any) -> None:
        name = answer.request_id
        if name is None:
            return
        self._say(f"answered {name} {hashlib.sha256(answer.payload).hexdigest()}")
        if self._chance.random() < 0.8:
            self._say(f"delivered {name}")
            self._box.engine.delivered(answer.execution)

    def _say_history(self, execution: int) -> None:
        last = self._box.gate.durable_seq
        self._say(f"history {execution} {last} {digest_of(self._box.gate.events_of(execution), last)}")

    def _say(self, line: str) -> None:
        os.write(self._said, line.encode() + b"\n")


def digest_of(history: list[Event], last: int) -> str:
    """What one execution's history says up to an event, wherever it stands by now."""
    whole = hashlib.sha256()
    for event in logical(history):
        if event.seq <= last:
            whole.update(b"%d" % event.seq + b"".join(encode_event(event)))
    return whole.hexdigest()


def _plant(bug: str) -> None:
    """Make pruning work as it must not, in this process."""
    real = Pruner.prune

    async def too_early(pruner: Pruner, segment: Segment, terms: Terms, cause: str) -> int:
        await asyncio.to_thread(pruner.homes.journal.retire, segment.path)
        return await real(pruner, segment, terms, cause)

    if bug == "unlinked before it is carried":
        Pruner.prune = too_early  # type: ignore[method-assign]
    elif bug == "open executions not carried":
        Carrier._carry = lambda *given: None  # type: ignore[method-assign]
    elif bug == "request ids not carried":
        Carrier._keep = lambda *given: None  # type: ignore[method-assign]
    elif bug == "no flush":
        os.fdatasync = lambda fd: None


# ---- the start after a cut -------------------------------------------------------------------------------


def look(folder: str, words: list[str]) -> dict[str, Any]:
    """Start the box after the cut, look at all that was said before it, let pruning go on and look again.

    Gives `pruned` (up to which event) and `asked` (how many requests were looked at). Raises what opening raises,
    LogDamaged where the log is not whole; fails where anything that was told is not there.
    """
    return asyncio.run(_Look(Path(folder), words).run())


class _Look:
    def __init__(self, folder: Path, words: list[str]) -> None:
        self._folder = folder
        lines = [line.split() for line in words]
        self._told = max((int(line[1]) for line in lines if line[0] == "told"), default=0)
        self._asked = {line[1]: int(line[2]) for line in lines if line[0] == "asked"}
        #: What was asked for next, and perhaps not accepted.
        self._next = max((int(name[2:]) for name in self._asked), default=-1) + 1
        self._answers = {line[1]: line[2] for line in lines if line[0] == "answered"}
        self._delivered = {line[1] for line in lines if line[0] == "delivered"}
        self._histories = [(int(a), int(b), c) for word, a, b, c in (s for s in lines if s[0] == "history")]
        self._messages = max((int(line[1]) for line in lines if line[0] == "messages"), default=0)

    async def run(self) -> dict[str, Any]:
        box = _box(self._folder, NEXT_BOOT, 10)
        await box.settle()
        self._whole(box)
        self._numbers()
        self._known(box)
        for name, digest in self._answers.items():
            if name not in self._delivered:
                seq = self._asked.get(name)
                owed = seq is None or seq in box.engine.owed
                assert owed, f"the answer {name} is owed no more, and nobody has it: {digest}"
        await box.keeper.look()
        self._finished(box)
        await prune_all(box)
        await prune_all(box)
        await box.settle()
        self._known(box)
        self._files(box)
        await box.gate.indexed(box.gate.next_seq - 1)
        through, _ = pruned_of(box.eventlog)
        self._whole(box)
        self._finished(box)
        await box.close()
        self._same_index()
        return {"pruned": through, "asked": len(self._asked), "histories": len(self._histories)}

    def _whole(self, box: Box) -> None:
        journal = self._folder / "journal"
        report = verify_journal(journal)
        groups = ((group.first_seq, key, data) for key, group, data in box.eventlog.groups())
        compare_index(journal, groups, report)
        if not report.whole:
            raise LogDamaged(" ".join(report.problems))
        assert report.last_seq >= self._told, f"told {self._told}, the log ends at {report.last_seq}"
        assert not report.lost, report.lost

    def _numbers(self) -> None:
        given = [
            group.first_seq
            for _, group, _ in read_groups(self._folder / "journal")
            if group.context.boot_id == NEXT_BOOT
        ]
        assert min(given) > self._told, f"number {min(given)} was given before {self._told} was told"

    def _known(self, box: Box) -> None:
        """Request ids, answers, open histories, messages: as they were told, pruned or not."""
        for name, seq in self._asked.items():
            number = int(name[2:])
            path, _ = asked_of(number)
            box.submit(path, payload_of(number), request_id=name)
            receipt = box.receipts[-1]
            assert (receipt.duplicate, receipt.seq) == (True, seq), f"{name} was {seq}, is run as {receipt}"
            if name in self._answers:
                assert receipt.finished is not None, f"{name} was answered, and nobody knows how"
                found = hashlib.sha256(receipt.finished.payload).hexdigest()
                assert found == self._answers[name], f"{name} has another answer: {receipt.finished}"
        executor = box.engine.executor
        known_open = {*executor.open, *executor.parking.numbers()}
        for execution, last, digest in self._histories:
            history = box.gate.events_of(execution)
            assert digest_of(history, last) == digest, f"the history of {execution} is not what it was"
            assert execution in known_open, f"{execution} waits, and nobody knows"
            request = fold(logical(history)).request
            if request.payload_digest is not None:
                assert box.blobs.get(request.payload_digest).startswith(b'{"n": ')
        if self._messages:
            received = box.subscriptions.find("in/s").counts["received"]
            assert received >= self._messages, f"{self._messages} messages were taken, {received} are known"

    def _files(self, box: Box) -> None:
        """The journal's files alone say the same of what is open."""
        by_execution: dict[int, list[Event]] = {execution: [] for execution, _, _ in self._histories}
        for event in box.events():
            if event.execution in by_execution:
                by_execution[event.execution].append(event)
        for execution, last, digest in self._histories:
            assert digest_of(by_execution[execution], last) == digest, f"the files forgot {execution}"
            assert fold(logical(by_execution[execution])).status == RUNNING

    def _finished(self, box: Box) -> None:
        """What is pruned is wholly gone."""
        through, _ = pruned_of(box.eventlog)
        paths = segment_paths(self._folder / "journal")
        assert not through or int(paths[0].stem) > through, f"pruned to {through}, {paths[0].name} is there"
        first = first_of(box.eventlog)
        assert not through or first > through, f"pruned to {through}, the index begins at {first}"
        assert condemned_of(box.eventlog, 1) == ([], []), "blobs that nobody needs were left"

    def _same_index(self) -> None:
        """The index is the one that the journal's files make: no row of what went is left, none is missing."""
        made = EventLog(self._folder / "again")
        kept = EventLog(self._folder / "index")
        journal = Journal(self._folder / "journal", segment_bytes=SEGMENT_BYTES)
        catch_up(journal, made)
        try:
            for table in _TABLES:
                with made.reading() as rows:
                    wanted = dict(rows.scan(table))
                with kept.reading() as rows:
                    found = dict(rows.scan(table))
                left = {k: v for k, v in found.items() if wanted.get(k) != v}
                missing = {k: v for k, v in wanted.items() if found.get(k) != v}
                assert not left, f"table {table}: {left} left over"
                assert not missing, f"table {table}: {missing} missing"
            with kept.reading() as rows:
                named = {key[:-8].hex() for key, _ in rows.scan("blobs")}
            named.discard(hashlib.sha256(payload_of(self._next)).hexdigest())
            stored = {path.name for path in (self._folder / "blobs").rglob("*") if path.is_file()}
            # It was written and flushed before the event that would have named it.
            stored.discard(hashlib.sha256(payload_of(self._next)).hexdigest())
            assert stored == named, f"blobs {stored - named} are needed by nobody"
        finally:
            for each in (journal, made, kept):
                each.close()
