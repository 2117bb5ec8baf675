"""When the log's beginning goes: by age, by receipt, by policy; and when requests are refused instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.core.codec import encode
from edge.core.errors import LogDamaged, RequestRefused
from edge.core.limits import KIB, MIB
from edge.core.retention_events import ExecutionCarried, LogPruned, StorageRefusing, StorageServing
from edge.core.state import COMPLETED
from edge.runtime.retention.terms import AGE, HELD, RECEIPT, UNSYNCED, Terms, Verdict, judge
from edge.store import upstream
from edge.store.index_prune import link_after
from edge.store.segment_file import segment_paths
from edge.testing.box import Box
from edge.testing.plain import playbook
from tests.unit.retention_rig import DAY_S, again, check_whole

ONE: list[dict[str, Any]] = [{"step": "a", "tool": {"kind": "transform", "value": "{{ workload.n }}"}}]
PAD = b'{"n": 1, "pad": "' + b"x" * 8_000 + b'"}'
SEGMENT_BYTES = 64 * KIB
BUDGET_BYTES = 1 * MIB


async def started(folder: Path, **terms: Any) -> Box:
    box = Box(folder, segment_bytes=SEGMENT_BYTES, terms=Terms(**terms))
    await box.register(playbook(ONE, "one"))
    return box


async def work(box: Box, requests: int, **fields: Any) -> None:
    """Requests, each with its answer delivered."""
    for _ in range(requests):
        box.submit("one", PAD, **fields)
        await box.settle()
        box.engine.delivered(box.receipts[-1].seq)
    await box.gate.indexed(box.gate.next_seq - 1)


def bodies(box: Box, kind: type) -> list[Any]:
    return [event.body for event in box.events() if isinstance(event.body, kind)]


@pytest.mark.parametrize(
    ("terms", "given", "expected"),
    [
        (Terms(), {"age_s": 10**9, "receipted": False, "wanted": True}, Verdict(stays=HELD)),
        (Terms(), {"age_s": 10**9, "receipted": False, "wanted": False}, Verdict()),
        (Terms(age_s=DAY_S), {"age_s": DAY_S, "receipted": False, "wanted": False}, Verdict(AGE)),
        (Terms(age_s=DAY_S), {"age_s": DAY_S - 1, "receipted": False, "wanted": True}, Verdict(stays=HELD)),
        (Terms(policy="oldest"), {"age_s": 0, "receipted": False, "wanted": True}, Verdict("oldest")),
        (Terms(policy="thin"), {"age_s": 0, "receipted": False, "wanted": True}, Verdict("thin")),
        (Terms(policy="thin"), {"age_s": 0, "receipted": False, "wanted": False}, Verdict()),
        # With a centre nothing goes that it has not receipted, whatever else is said.
        (
            Terms(centre=True, age_s=DAY_S, policy="oldest"),
            {"age_s": 10**9, "receipted": False, "wanted": True},
            Verdict(stays=UNSYNCED),
        ),
        (Terms(centre=True), {"age_s": 0, "receipted": True, "wanted": True}, Verdict(RECEIPT)),
        (Terms(centre=True), {"age_s": 10**9, "receipted": True, "wanted": False}, Verdict()),
        (Terms(centre=True, age_s=9), {"age_s": 9, "receipted": True, "wanted": False}, Verdict(AGE)),
    ],
)
def test_what_may_go(terms: Terms, given: dict[str, Any], expected: Verdict) -> None:
    """Age lets go, a centre holds what it has not, a policy decides where room is wanted too early."""
    assert judge(terms, **given) == expected


async def test_nothing_goes_where_nothing_is_set(tmp_path: Path) -> None:
    """A box that is set to nothing keeps all of its log."""
    box = await started(tmp_path)
    await work(box, 20)
    await box.pass_time(400 * DAY_S)
    await box.keeper.look()
    assert box.events()[0].seq == 1
    await check_whole(box)


async def test_what_is_old_enough_goes(tmp_path: Path) -> None:
    """With an age, whole segments go once all that is in them is that old, and not before."""
    box = await started(tmp_path, age_s=DAY_S)
    await work(box, 20)
    await box.pass_time(DAY_S - 60)
    await box.keeper.look()
    assert not bodies(box, LogPruned)
    await box.pass_time(120)
    await work(box, 1)
    await box.keeper.look()
    pruned = bodies(box, LogPruned)
    assert pruned
    assert {body.cause for body in pruned} == {"age"}
    assert box.events()[0].seq == pruned[-1].through + 1
    assert sum(body.events for body in pruned) == pruned[-1].through
    await check_whole(box)


@pytest.mark.parametrize("policy", ["oldest", "thin"])
async def test_a_budget_is_kept(policy: str, tmp_path: Path) -> None:
    """Where the budget asks, the oldest segments go, whatever their age; "thin" leaves a trace of each execution."""
    box = await started(tmp_path, budget_bytes=BUDGET_BYTES, policy=policy)
    for _ in range(10):
        await work(box, 20)
        await box.keeper.look()
        assert box.keeper.log_bytes <= BUDGET_BYTES
    assert {body.cause for body in bodies(box, LogPruned)} == {policy}
    traces = bodies(box, ExecutionCarried)
    assert bool(traces) == (policy == "thin")
    assert not bodies(box, StorageRefusing)
    if traces:
        execution = next(e.execution for e in box.events() if isinstance(e.body, ExecutionCarried))
        assert execution is not None
        assert box.engine.state_of(execution).status == COMPLETED
    await check_whole(box)


async def test_what_is_held_refuses_requests(tmp_path: Path) -> None:
    """With "hold" a full budget refuses new requests by name, gives old answers, serves again when age lets go."""
    box = await started(tmp_path, budget_bytes=BUDGET_BYTES, age_s=DAY_S)
    await work(box, 1, request_id="r")
    await work(box, 150)
    await box.keeper.look()
    assert not bodies(box, LogPruned)
    with pytest.raises(RequestRefused) as refused:
        box.submit("one", PAD)
    problem = refused.value.problem()
    assert (problem["code"], problem["retry_after_ms"]) == ("storage_full", 60_000)
    assert "nothing of it is old enough" in problem["message"]
    box.submit("one", PAD, request_id="r")
    assert box.receipts[-1].duplicate
    await box.keeper.look()
    await box.gate.flushed()
    (said,) = bodies(box, StorageRefusing)
    assert (said.reason, said.log_bytes > BUDGET_BYTES) == ("held", True)
    await box.pass_time(DAY_S)
    box.gate.append(box.engine.owed.standing())
    await box.gate.indexed(box.gate.next_seq - 1)
    await box.keeper.look()
    await box.gate.flushed()
    assert len(bodies(box, StorageServing)) == 1
    await work(box, 1)
    await check_whole(box)


async def test_only_what_is_receipted_goes(tmp_path: Path) -> None:
    """With a centre the budget frees what it has receipted, refuses where that is not enough, goes on by receipt."""
    box = await started(tmp_path, budget_bytes=BUDGET_BYTES, centre=True, policy="oldest")
    await work(box, 150)
    await box.keeper.look()
    assert not bodies(box, LogPruned)
    with pytest.raises(RequestRefused, match="not stored upstream yet"):
        box.submit("one", PAD)
    middle = int(segment_paths(tmp_path / "journal")[9].stem) + 3
    link = link_after(box.eventlog, middle)
    assert link is not None
    log_id = box.journal.log_id
    for wrong in (upstream.Receipt(log_id, middle, bytes(32)), upstream.Receipt(b"another.", middle, link)):
        (tmp_path / upstream.FILE_NAME).unlink(missing_ok=True)
        upstream.write(tmp_path, wrong)
        await box.keeper.look()
        assert not bodies(box, LogPruned)
    (tmp_path / upstream.FILE_NAME).unlink()
    upstream.write(tmp_path, upstream.Receipt(log_id, middle, link))
    await box.keeper.look()
    assert [body.cause for body in bodies(box, LogPruned)] == ["receipt"] * 9
    assert int(segment_paths(tmp_path / "journal")[0].stem) <= middle
    last = box.journal.last_seq
    await box.gate.indexed(last)
    upstream.write(tmp_path, upstream.Receipt(log_id, last, box.journal.last_link))
    await box.keeper.look()
    assert box.keeper.log_bytes <= BUDGET_BYTES
    await work(box, 1)
    assert box.keeper.told()["receipted"] == last
    await check_whole(box)


@pytest.mark.parametrize("below", [0, 3])
async def test_a_receipt_of_what_is_pruned_is_no_doubt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, below: int
) -> None:
    """After a restart the receipt is believed although what it was for is pruned, up to its end or beyond it."""
    box = await started(tmp_path / "a", centre=True)
    await work(box, 40)
    pruned = int(segment_paths(box.folder / "journal")[2].stem) - 1
    log_id, links = box.journal.log_id, [link_after(box.eventlog, seq) for seq in (pruned, pruned - below)]
    upstream.write(box.folder, upstream.Receipt(log_id, pruned, links[0] or b""))
    box.keeper.terms = Terms(centre=True, budget_bytes=1)
    await box.keeper.look()
    box = await again(box, tmp_path / "b", segment_bytes=SEGMENT_BYTES, terms=Terms(centre=True))
    upstream.write(box.folder, upstream.Receipt(log_id, pruned - below, links[1] or b""))
    assert box.keeper.receipted() == pruned - below
    await box.keeper.look()
    assert "history" not in caplog.text
    await check_whole(box)


def test_a_receipt_never_goes_back(tmp_path: Path) -> None:
    """A lower receipt is left out, one of another log is refused, one that cannot be read is named."""
    assert upstream.read(tmp_path) is None
    (tmp_path / upstream.FILE_NAME).write_bytes(encode([1, b"l" * 8, 5, b"j" * 32]))
    assert upstream.read(tmp_path) == upstream.Receipt(b"l" * 8, 5, b"j" * 32), "of the first release"
    receipt = upstream.Receipt(b"l" * 8, 9, b"k" * 32)
    upstream.write(tmp_path, receipt)
    upstream.write(tmp_path, upstream.Receipt(b"l" * 8, 7, b"j" * 32))
    assert upstream.read(tmp_path) == receipt
    with pytest.raises(LogDamaged, match="another log"):
        upstream.write(tmp_path, upstream.Receipt(b"m" * 8, 10, b"j" * 32))
    (tmp_path / upstream.FILE_NAME).write_bytes(b"\x00")
    with pytest.raises(LogDamaged, match="cannot be read"):
        upstream.read(tmp_path)


async def test_what_is_needed_is_not_shipped_over_and_over(tmp_path: Path) -> None:
    """Where what is needed fills the budget, a centre that receipts what was carried does not have it carried again.

    A day later it is tried once more.
    """
    box = await started(tmp_path, budget_bytes=BUDGET_BYTES, centre=True)
    await box.register(playbook([{"step": "s", "tool": {"kind": "wait", "seconds": 10 * DAY_S}}], "waits"))
    for _ in range(130):
        box.submit("waits", PAD)
        await box.settle()

    async def receipted_and_looked_at() -> int:
        await box.gate.indexed(box.gate.next_seq - 1)
        end = upstream.Receipt(box.journal.log_id, box.journal.last_seq, box.journal.last_link)
        upstream.write(tmp_path, end)
        await box.keeper.look()
        return box.gate.next_seq - 1 - end.through

    first = [await receipted_and_looked_at() for _ in range(3)]
    assert sum(first) > 130
    assert sum([await receipted_and_looked_at() for _ in range(6)]) <= 3
    box.move_clock(DAY_S)
    await box.settle()
    assert sum([await receipted_and_looked_at() for _ in range(3)]) > 130
    assert sum([await receipted_and_looked_at() for _ in range(3)]) <= 3
    await check_whole(box)


async def test_what_is_needed_is_not_written_over_and_over(tmp_path: Path) -> None:
    """Where what is still needed fills the budget, the log is gone through once, and then requests are refused."""
    box = await started(tmp_path, budget_bytes=BUDGET_BYTES, policy="oldest")
    waits = [{"step": "s", "tool": {"kind": "wait", "seconds": 1_000}}]
    await box.register(playbook(waits, "waits"))
    for _ in range(110):
        box.submit("waits", PAD)
        await box.settle()
    await box.gate.indexed(box.gate.next_seq - 1)
    await box.keeper.look()
    written = box.gate.next_seq
    for _ in range(3):
        await box.keeper.look()
    assert box.gate.next_seq - written <= 3
    with pytest.raises(RequestRefused, match="still needed"):
        box.submit("one", PAD)
    await box.pass_time(1_000)
    await box.pass_time(1_000)
    for owed in list(box.engine.owed):
        box.engine.delivered(owed)
    await box.gate.indexed(box.gate.next_seq - 1)
    await box.keeper.look()
    await work(box, 1)
    await check_whole(box)


async def test_the_freed_file_is_written_again(tmp_path: Path) -> None:
    """A pruned segment's file becomes the next segment: its blocks are used again, and nothing of it is read."""
    box = await started(tmp_path, budget_bytes=BUDGET_BYTES, policy="oldest")
    await work(box, 130)
    inodes = {path.stat().st_ino for path in segment_paths(tmp_path / "journal")}
    await box.keeper.look()
    await work(box, 12)
    newest = segment_paths(tmp_path / "journal")[-2:]
    assert {path.stat().st_ino for path in newest} & inodes
    box = await again(box, tmp_path / "b", with_index=False)
    await check_whole(box)
