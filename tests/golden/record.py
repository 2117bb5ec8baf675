"""Records the logs of `tests/golden`: small ones that every later release must read to the same state.

`v1` holds what the first release knew; `v1-branches` what came to the same format with branches and
pipelines, `v1-waiting` with tasks that wait for the outside, `v1-circuits` with circuit breakers, `v1-subscriptions`
with their messages, `v1-composed` with children and large values, `v1-retention` with what is carried.
Run it by hand, once for each: `python -m tests.golden.record`. It writes segments by the
functions of `edge.store.segment_file` and `edge.core.chain` under fixed keys, ids and clocks, so that recording
again with the same code gives the same bytes. A recorded version is never changed: what reads differently is the
bug. When FORMAT_VERSION rises, copy this script's history into a new folder beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from edge.core.chain import GENESIS, Context, encode_event, open_group, seal_group
from edge.core.clock import WALL_IMPLAUSIBLE, WALL_SYNCHRONISED, WALL_UNCONFIRMED, Reading
from edge.core.codec import encode
from edge.core.events import (
    AttemptLost,
    BootStarted,
    BootStopped,
    CallbackReceived,
    CatalogRegistered,
    Event,
    ExecutionCancelled,
    ExecutionDeadline,
    ExecutionFinished,
    ExecutionRequested,
    ExecutionResumed,
    Gap,
    LoopItems,
    LoopStarted,
    RequestRefusedNoted,
    ResponsesDelivered,
    StepDone,
    StepFailed,
    StepStarted,
    StepWaiting,
    TaskDone,
)
from edge.core.limits import KIB
from edge.core.state import fold
from edge.core.values import TableRef
from edge.store.segment_file import SegmentHeader, create, group_frame, prepare
from edge.testing.plain import plain
from tests.golden.composed import COMPOSED
from tests.golden.entries import BLUEPRINT, DIGEST, PROBLEM, Entry, of, of_box
from tests.golden.pruned import PRUNED
from tests.golden.subscribed import CIRCUITS, SUBSCRIPTIONS

SEGMENT_BYTES: Final = 8 * KIB
LOG_ID: Final = bytes.fromhex("00112233445566ff")
BOOTS: Final = (b"first boot id  .", b"second boot id .")
STREAM: Final = b"stands for an Arrow stream of 3 rows"
TABLE: Final = TableRef("1b-read-0.arrow", hashlib.sha256(STREAM).digest(), len(STREAM), 3, ("t", "value"))
LARGE: Final = TableRef("20-make-0.arrow", hashlib.sha256(b"large").digest(), 1_000_000, 50_000, ("n",))

#: Groups of events in the order of the log; a number as execution is the place of its request in the log.
GROUPS: Final[list[list[Entry]]] = [
    [
        of_box(BootStarted("0.1.0", "golden", False)),
        of_box(CatalogRegistered("demo/golden", DIGEST, BLUEPRINT)),
    ],
    # 3: two pure steps, patches, an arc; everything in one group.
    [
        of(
            3,
            ExecutionRequested(
                DIGEST,
                "alice",
                "01JD8Q2R0G5T6Y7U8I9O0PASDF",
                "v5",
                "answers/alice",
                b"\x00\x01c",
                "application/json",
                b'{"a": 1}',
                None,
                True,
                30_000,
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
        ),
        of(
            3,
            StepDone(encode({"x": 1.5, "ü": None}), arc=1, ctx={"n": 1, "deep": {"list": [1, [True, b"b"]]}}),
            "first",
        ),
        of(3, StepDone(encode([1, 2]), ctx={"n": 2}, duration_us=812), "second"),
        of(3, ExecutionFinished("completed", "second")),
    ],
    # 7: a back arc, three visits of one step, the result in the end's own event.
    [
        of(7, ExecutionRequested(DIGEST, "bob", form="local", receipt=False)),
        of(7, StepDone(b"\x00", arc=0, ctx={"k": 0}), "again"),
        of(7, StepDone(b"\x01", arc=0, ctx={"k": 1}), "again", visit=1),
        of(7, StepDone(None, digest=hashlib.sha256(b"x").digest()), "again", visit=2),
        of(7, ExecutionFinished("completed", "again", encode("the result"))),
    ],
    # 12: a write that was lost once and tried again; 13: one that was lost and not tried again.
    [
        of(12, ExecutionRequested(DIGEST, "alice", "r-12", "v311")),
        of(13, ExecutionRequested(DIGEST, "alice", "r-13")),
    ],
    [of(12, StepStarted(), "effect"), of(13, StepStarted(), "effect")],
    [of(12, AttemptLost("it ran longer than 30 s", "timeout"), "effect")],
    [of(13, AttemptLost("its worker was ended by signal 9 (SIGKILL)"), "effect")],
    [of(12, StepStarted(), "effect", attempt=2, cause=16)],
    [
        of(12, StepDone(encode(True)), "effect", attempt=2),
        of(12, ExecutionFinished("completed", "effect")),
        of(13, StepFailed({"code": "outcome_unknown", "message": "Nobody knows."}), "effect"),
        of(
            13,
            ExecutionFinished(
                "failed", problem={"code": "outcome_unknown", "message": "Nobody knows.", "step": "effect"}
            ),
        ),
    ],
    [
        of_box(RequestRefusedNoted("playbook_unknown", "eve", "nope", "r-0")),
        of_box(RequestRefusedNoted("queue_full", count=17)),
    ],
    [of_box(ResponsesDelivered(22, [13]))],
    # 26: a read step's table, kept in its event.
    [
        of(
            26,
            ExecutionRequested(
                DIGEST, "alice", content_type="application/vnd.apache.arrow.stream", payload_digest=b"p" * 32
            ),
        ),
        of(26, StepDone(None, TABLE, None, STREAM, 0, {"table": TABLE}), "read", iteration=(0, 2)),
    ],
    # 28 fails in its block; the box stops in order.
    [
        of(28, ExecutionRequested(DIGEST, "alice", "r-28", payload=b"")),
        of(28, StepFailed(PROBLEM, 77), "bad"),
        of(28, ExecutionFinished("failed", problem={**PROBLEM, "step": "bad"})),
    ],
    [of_box(BootStopped())],
    # The second boot: 26 is resumed, ends with a blob; 34 stays open, resumed twice.
    [of_box(BootStarted("0.1.0", "golden")), of(26, ExecutionResumed())],
    [of(34, ExecutionRequested(DIGEST, "alice", "r-34"))],
    [
        of(26, StepDone(None, LARGE), "make"),
        of(26, ExecutionFinished("completed", "make", None, LARGE.digest, "table")),
    ],
    [of(34, ExecutionResumed()), of(34, ExecutionResumed()), of(34, AttemptLost("again"), "slow")],
    [of_box(Gap(1_000, 1_009, "as an example"))],
    [of_box(ResponsesDelivered(36))],
]
#: After which groups a new segment begins.
ROLLS: Final = (3, 13)

#: Branches, failures led on and borne, and pipelines.
BRANCHES: Final[list[list[Entry]]] = [
    [
        of_box(BootStarted("0.2.0", "golden", False)),
        of_box(CatalogRegistered("demo/golden", DIGEST, BLUEPRINT)),
    ],
    # 3: a fork with args, branches that settle out of order, a join, a circle, an end.
    [of(3, ExecutionRequested(DIGEST, "alice", "r-3", payload=b"{}"))],
    [
        of(3, StepDone(encode(1), ctx={"n": 1}, ways=[[0, "left", {"k": 2}], [2, "right"]]), "fork"),
        of(3, StepDone(encode(30), ways=[[0, "join"]]), "right"),
        of(3, StepDone(encode(20), ctx={"l": 1}, ways=[[0, "join", {"from": "left"}]]), "left", cause=4),
        of(3, StepDone(encode(50), arc=1), "join"),
        of(3, StepDone(encode(1), ways=[[0, "fork", None, True], [1, "last"]]), "again"),
        of(3, StepDone(encode("end")), "last"),
    ],
    # 10: a failure that an arc takes, one that is borne, and the end of what is left.
    [
        of(10, ExecutionRequested(DIGEST, "alice", "r-10")),
        of(10, StepDone(encode(None), ways=[[0, "a"], [1, "b"]]), "fork"),
        of(10, StepFailed(PROBLEM, 5, [[1, "mend", {"why": "x"}]], {"seen": True}), "a"),
        of(10, StepFailed(PROBLEM, 6, []), "b"),
        of(10, StepDone(encode("mended")), "mend"),
        of(10, ExecutionFinished("completed", "mend")),
    ],
    # 16: a pipeline with a failed attempt, a table, an intent that came true and one that did not.
    [of(16, ExecutionRequested(DIGEST, "bob", form="local"))],
    [
        of(16, TaskDone(0, "fetch", problem={"code": "x", "message": "y"}, duration_us=9), "pipe"),
        of(16, TaskDone(1, "fetch", None, TABLE, STREAM), "pipe"),
        of(16, StepStarted(3), "pipe"),
    ],
    [of(16, TaskDone(3, "send", encode({"ok": True})), "pipe"), of(16, StepStarted(5), "pipe")],
    [of(16, AttemptLost("it died"), "pipe")],
    # 23: a loop whose items settle out of order, one lost twice, one failed; 30: one that has only begun.
    [of(23, ExecutionRequested(DIGEST, "alice", "r-24"))],
    [
        of(23, LoopStarted(5, encode([1, 2, 3, 4, 5])), "each", cause=23),
        of(23, LoopItems(2, 2, encode([30, 40]), None, {"k": 1}, 11), "each"),
        of(23, AttemptLost("it died"), "each", iteration=(0, 2)),
        of(23, LoopItems(0, 1, encode([10])), "each"),
        of(23, StepStarted(), "each", iteration=(1,)),
        of(23, LoopItems(4, 1, encode([None]), {4: PROBLEM}), "each"),
    ],
    [of(30, ExecutionRequested(DIGEST, "alice", "r-31")), of(30, LoopStarted(2, None, b"d" * 32), "each")],
    [
        of(23, LoopItems(1, 1, encode([20])), "each"),
        of(23, StepDone(digest=hashlib.sha256(b"list").digest(), arc=0), "each"),
        of(30, ExecutionCancelled("cli", "wrong box")),
        of(30, ExecutionFinished("cancelled", problem={"code": "cancelled", "message": "cli cancelled it."})),
    ],
    [of_box(BootStopped())],
]


#: Hosted tasks that wait, in a pipeline and in a loop.
WAITING: Final[list[list[Entry]]] = [
    [
        of_box(BootStarted("0.3.0", "golden", False)),
        of_box(CatalogRegistered("demo/golden", DIGEST, BLUEPRINT)),
    ],
    # 3: a wait that is over, one that is begun anew after a cut, one whose intent came first and that still waits.
    [of(3, ExecutionRequested(DIGEST, "alice", "r-3"))],
    [of(3, StepWaiting(1, "pause", "wait", {"for_ms": 5_000}), "pipe")],
    [
        of(3, TaskDone(1, "pause", encode({"by": "boottime"}), duration_us=5_000_000), "pipe"),
        of(3, StepWaiting(3, "until", "wait", {"until_ms": 1_767_225_600_000, "lost": "restart"}), "pipe"),
        of(3, StepWaiting(3, "until", "wait", {"until_ms": 1_767_225_600_000, "lost": "restart"}), "pipe"),
    ],
    [of(3, TaskDone(3, "until", problem=PROBLEM), "pipe"), of(3, StepStarted(4), "pipe", attempt=2)],
    [
        of(3, StepWaiting(4, "send", "wait"), "pipe", attempt=2),
        of(3, CallbackReceived(0, encode(7)), "pipe"),
    ],
    # 12: items that wait, of which one settles and one has its task's outcome.
    [
        of(12, ExecutionRequested(DIGEST, "alice", "r-12")),
        of(12, LoopStarted(3, encode([1, 2, 3])), "each"),
        of(12, AttemptLost("it died"), "each", iteration=(1, 1)),
        of(12, StepWaiting(0, "pause", "wait", {"for_ms": 1}), "each", iteration=(0,)),
        of(12, StepWaiting(0, "pause", "wait", {"for_ms": 2}), "each", iteration=(1,)),
        of(12, StepWaiting(0, "pause", "wait", {"for_ms": 3}), "each", iteration=(2,)),
        of(12, TaskDone(0, "pause", encode(None)), "each", iteration=(0,)),
        of(12, TaskDone(0, "pause", encode(None)), "each", iteration=(1,)),
        of(12, CallbackReceived(1), "each", iteration=(2,)),
        of(12, CallbackReceived(0, encode(None)), "each", iteration=(0,)),
        of(12, LoopItems(0, 1, encode([1])), "each"),
    ],
    # 23: a deadline that passed.
    [
        of(23, ExecutionRequested(DIGEST, "alice", "r-23", deadline_ms=5_000)),
        of(23, StepWaiting(0, "answer", "wait", {"for_ms": 60_000, "round": 0}), "pipe"),
        of(23, ExecutionDeadline(5_000, "wall")),
        of(23, ExecutionFinished("failed", problem={"code": "deadline_exceeded", "message": "late"})),
    ],
    [of_box(BootStopped())],
]


def _reading(place: int) -> Reading:
    trust = (WALL_IMPLAUSIBLE, WALL_UNCONFIRMED, WALL_SYNCHRONISED)[min(place, 2)]
    wall_ns = (
        1_000_000_000 + place if trust == WALL_IMPLAUSIBLE else 1_767_225_600_000_000_000 + place * 1_234_567
    )
    return Reading(5_000_000_000 + place * 1_000_003, wall_ns, trust)


#: What is recorded where: the groups, and after which of them a new segment begins.
LOGS: Final[dict[str, tuple[list[list[Entry]], tuple[int, ...]]]] = {
    "v1": (GROUPS, ROLLS),
    "v1-branches": (BRANCHES, (4,)),
    "v1-waiting": (WAITING, (4,)),
    "v1-subscriptions": (SUBSCRIPTIONS, (3,)),
    "v1-circuits": (CIRCUITS, (2,)),
    "v1-composed": (COMPOSED, (3,)),
    "v1-retention": (PRUNED, ()),
}


def record(folder: Path) -> None:
    """Write the log of that name below `folder`/journal and what it must fold to into `folder`/expected.json."""
    groups, rolls = LOGS[folder.name]
    journal = folder / "journal"
    journal.mkdir(parents=True)
    seq, link, number, fd, offset, boot = 1, GENESIS, 0, -1, 0, 0
    header: SegmentHeader | None = None
    links: list[str] = []
    events: list[Event] = []
    for place, group in enumerate(groups):
        if place == 0 or place in rolls:
            if fd >= 0:
                os.close(fd)
            number += 1
            header = SegmentHeader(LOG_ID, seq, link, hashlib.sha256(b"epoch %d" % number).digest())
            prepare(journal / "spare", SEGMENT_BYTES)
            fd, offset = create(journal / "spare", journal, header)
        assert header is not None
        if place and type(group[0][0]) is BootStarted:
            boot = 1
        made = [Event(seq + n, body, **envelope) for n, (body, envelope) in enumerate(group)]
        context = Context(LOG_ID, BOOTS[boot], _reading(place))
        parts = [part for event in made for part in encode_event(event)]
        sealed = seal_group(seq, link, context, header.epoch_key, parts)
        frame = group_frame(header, seq, len(made), sealed.data)
        assert offset + len(frame) <= SEGMENT_BYTES
        os.pwrite(fd, frame, offset)
        offset, link, seq = offset + len(frame), sealed.links[-1], sealed.last_seq + 1
        links += [each.hex() for each in sealed.links]
        events += open_group(sealed.first_seq, sealed.data).events()
    os.close(fd)
    executions = sorted(event.seq for event in events if type(event.body) is ExecutionRequested)
    expected = {
        "log_id": LOG_ID.hex(),
        "events": len(events),
        "groups": len(groups),
        "links": links,
        "seqs": [event.seq for event in events],
        "types": [event.type for event in events],
        "executions": {
            str(execution): plain(fold(event for event in events if event.execution == execution))
            for execution in executions
        },
    }
    text = json.dumps(expected, indent=1, ensure_ascii=False, sort_keys=True)
    (folder / "expected.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    for name in LOGS:
        target = Path(__file__).parent / name
        if target.exists() and "--again" not in sys.argv:
            print(f"{target} is recorded already and never changed once released.")
            continue
        shutil.rmtree(target, ignore_errors=True)
        record(target)
