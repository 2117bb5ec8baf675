"""Events and executions as lines for people. Shared by whatever command tells of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from edge.core.carried import held_by
from edge.core.clock import WALL_IMPLAUSIBLE, Reading
from edge.core.codec import decode
from edge.core.events import (
    AttemptLost,
    BootStarted,
    CallbackReceived,
    CatalogRegistered,
    Event,
    ExecutionCancelled,
    ExecutionDeadline,
    ExecutionFinished,
    ExecutionRequested,
    LoopItems,
    LoopStarted,
    RequestRefusedNoted,
    ResponsesDelivered,
    StepDone,
    StepFailed,
    StepWaiting,
    TaskDone,
)
from edge.core.limits import MIB
from edge.core.retention_events import RETENTION_BODIES, LogPruned, StorageRefusing, StorageServing
from edge.core.subscription_events import MessageDeadLettered, MessageReceived, SubscriptionPosition
from edge.core.values import TableRef, ValueRef

_TEXT_MAX = 100


def shorten(text: str, limit: int = _TEXT_MAX) -> str:
    """At most `limit` characters, cut with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def plain_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON; bytes as hex, tables as what is known of them."""

    def other(item: Any) -> Any:
        if isinstance(item, bytes):
            return item.hex()
        if isinstance(item, TableRef):
            return {"table": {"rows": item.rows, "columns": list(item.columns or ())}}
        if isinstance(item, ValueRef):
            return {"value": {"size_bytes": item.size_bytes, "preview": item.preview}}
        return str(item)

    return json.dumps(value, ensure_ascii=False, default=other, indent=indent)


def clock_text(at: Reading) -> str:
    """Wall time, marked where it cannot be trusted."""
    if at.wall_trust == WALL_IMPLAUSIBLE:
        return f"+{at.mono_ns / 1e9:.3f}s (clock not set)"
    moment = datetime.fromtimestamp(at.wall_ns / 1e9, UTC)
    return moment.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")


def event_line(event: Event, at: Reading) -> str:
    """One event on one line: number, time, type, execution, step, what it says."""
    where = "" if event.execution is None or event.execution == event.seq else f" of {event.execution}"
    step = f" {event.step}" if event.step else ""
    if event.visit:
        step += f"[{event.visit}]"
    if event.attempt > 1:
        step += f" (attempt {event.attempt})"
    return f"{event.seq:>8}  {clock_text(at)}  {event.type}{where}{step}{_detail(event)}"


def _detail(event: Event) -> str:
    body = event.body
    text = ""
    if isinstance(body, ExecutionRequested):
        size_bytes = len(body.payload) if body.payload else 0
        text = f"by {body.principal}, id {body.request_id or '-'}, {size_bytes} bytes"
        if body.batch is not None:
            _, first, last, count, _, attempt = body.batch
            text = f"by {body.principal}, {count} messages, {first} to {last}, attempt {attempt}"
    elif isinstance(body, StepDone):
        text = f"{output_text(body)} in {body.duration_us / 1000:.1f} ms"
    elif isinstance(body, StepFailed):
        text = f"{body.problem.get('code')}: {body.problem.get('message')}"
    elif isinstance(body, TaskDone):
        said = output_text(body) if body.problem is None else f"{body.problem.get('code')}"
        text = f"{body.task} ({body.number}): {said}"
    elif isinstance(body, StepWaiting):
        text = f"{body.task} ({body.number}), {body.kind} {plain_json(body.detail or {})}"
    elif isinstance(body, CallbackReceived):
        text = plain_json(decode(body.value)) if body.value is not None else "without a value"
    elif isinstance(body, LoopStarted):
        text = f"{body.total} items"
    elif isinstance(body, LoopItems):
        text = f"{body.first} to {body.first + body.count - 1} in {body.duration_us / 1000:.1f} ms"
        text += f", {len(body.failed)} failed" if body.failed else ""
    elif isinstance(body, ExecutionCancelled):
        text = f"by {body.by}{f': {body.reason}' if body.reason else ''}"
    elif isinstance(body, ExecutionDeadline):
        text = f"of {body.deadline_ms / 1000:g} s passed, by {body.by}"
    elif isinstance(body, AttemptLost):
        text = body.reason
    elif isinstance(body, ExecutionFinished):
        text = body.status if body.problem is None else f"{body.status}: {body.problem.get('code')}"
    elif isinstance(body, CatalogRegistered):
        text = f"{body.path} {body.digest.hex()[:16]}"
    elif isinstance(body, RequestRefusedNoted):
        text = (
            f"{body.code} × {body.count}" if body.count > 1 else f"{body.code} {body.playbook or ''}".rstrip()
        )
    elif isinstance(body, MessageReceived):
        text = body.topic if body.tick is None else f"tick {body.tick[0]}"
        text += f", {len(body.payload)} bytes" if body.payload is not None else ""
    elif isinstance(body, MessageDeadLettered):
        text = f"{body.first} to {body.last} after {body.attempts}: {body.problem.get('code')}"
    elif isinstance(body, SubscriptionPosition):
        text = f"through {body.through}, {body.state}"
    elif isinstance(body, BootStarted):
        before = "after a clean stop" if body.clean else "not stopped cleanly before"
        text = f"box {body.box}, {'the first start' if event.seq == 1 else before}"
    elif isinstance(body, ResponsesDelivered):
        text = f"through {body.through}"
    elif type(body) in RETENTION_BODIES:
        text = _retention_text(event)
    return f"  {shorten(text)}" if text else ""


def _retention_text(event: Event) -> str:
    """What an event of retention says."""
    body = event.body
    if isinstance(body, LogPruned):
        kept = f", {body.carried} events carried" if body.carried else ""
        return f"up to event {body.through} by {body.cause}, {body.events} events{kept}"
    if isinstance(body, StorageRefusing):
        return f"{body.reason}: {body.free_bytes // MIB} MB free, the log has {body.log_bytes // MIB} MB"
    if isinstance(body, StorageServing):
        return f"{body.free_bytes // MIB} MB free"
    return ", ".join(f"event {each.seq} {each.type}" for each in held_by(event))


def output_text(done: StepDone | TaskDone) -> str:
    """A step's or task's output in a few words."""
    if isinstance(done.table, ValueRef):
        return large_text(done.table.size_bytes, done.table.preview)
    if done.table is not None:
        return f"table of {done.table.rows} rows × {len(done.table.columns or ())} columns"
    if done.value is not None:
        return plain_json(decode(done.value))
    digest = done.digest if isinstance(done, StepDone) else None
    return f"value kept by digest {(digest or b'').hex()[:16]}"


def large_text(size_bytes: int, preview: str) -> str:
    """A large value in a few words: its size and how it begins."""
    return f"value of {size_bytes} bytes: {preview}"


def counted(count: int, noun: str) -> str:
    """So many of something, as people say it: "1 step", "2 steps"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
