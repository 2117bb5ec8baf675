"""A subscription's source to its compiled form: `compile_subscription`.

Called by `playbooks.documents`; never by a daemon. NoETL's Subscription document, with the sources that one box has:
what belongs to a data centre, or means nothing on one box, is refused by name. All problems are found in one run.
"""

from __future__ import annotations

from typing import Any, Final

from edge.core.limits import (
    BATCH_BYTES,
    BATCH_BYTES_MAX,
    BATCH_ROWS_MAX,
    BATCH_WAIT_MS_MAX,
    SUBSCRIPTION_BACKLOG,
    SUBSCRIPTION_BACKLOG_MAX,
    SUBSCRIPTION_IN_FLIGHT_MAX,
)
from playbooks.compile import compiled, read_metadata
from playbooks.fields import choice, fields, flag, length_ms, text, whole
from playbooks.loader import Mapping_, Marked
from playbooks.model import subscription as model
from playbooks.problems import Problem, Source
from playbooks.subscription import PAYLOADS, Subscription, encode_subscription
from playbooks.subscription_parts import (
    read_columns,
    read_dead_letter,
    read_dedup,
    read_headers,
    read_ordering,
    read_retry,
    read_source,
)

_ROWS: Final = 100
_WAIT_MS: Final = 1_000
_IN_FLIGHT: Final = 4


def compile_subscription(data: bytes, file_name: str) -> tuple[Subscription | None, list[Problem]]:
    """A subscription's compiled form, or what is wrong with its source, in order of position."""
    return compiled(data, file_name, _root, encode_subscription, Subscription.decode)


def _root(source: Source, root: Marked) -> dict[str, Any] | None:
    found = fields(source, root, "A subscription", model.ROOT)
    if not isinstance(root, Mapping_):
        return None
    for key in ("apiVersion", "kind", "metadata", "spec"):
        if root.get(key) is None:
            source.refuse(root.start, f"The subscription has no `{key}`.", f"Add `{key}:`.")
    # NoETL's own subscriptions say v1 where its playbooks say v2; the document is the same.
    choice(source, found.get("apiVersion"), "`apiVersion`", ("noetl.io/v2", "noetl.io/v1"))
    choice(source, found.get("kind"), "`kind`", ("Subscription",))
    name, path = read_metadata(source, found.get("metadata"))
    block = found.get("spec")
    if block is None:
        return None
    spec = fields(source, block, "A subscription's `spec`", model.SPEC)
    _mode(source, spec)
    body: dict[str, Any] = {"name": name, "path": path}
    body.update(read_source(source, block, spec))
    if body["source"] == "timer":
        for key in ("headers", "dedup", "ordering", "ordering_key", "table"):
            if key in spec:
                source.refuse(spec[key].start, f"`{key}` means nothing for a timer's ticks.", "Take it out.")
    body.update(_dispatch(source, block, spec, ticks=body["source"] == "timer"))
    body.update(read_headers(source, spec.get("headers")))
    body.update(read_dedup(source, spec.get("dedup")))
    body.update(read_ordering(source, spec))
    body.update(_limits(source, spec.get("limits"), ordering=body["ordering"]))
    body.update(read_retry(source, spec))
    body.update(read_dead_letter(source, spec.get("dead_letter")))
    return body


def _mode(source: Source, spec: dict[str, Marked]) -> None:
    mode = spec.get("mode")
    if text(source, mode, "`mode`") == "push":
        assert mode is not None
        message = "`mode: push` is a webhook of NoETL's gateway in a data centre; a box asks its broker."
        source.refuse(mode.start, message, "Write `mode: pull`, or leave it out.")
    else:
        choice(source, mode, "`mode`", ("pull",))
    activation = spec.get("activation")
    if text(source, activation, "`activation`") == "scheduled":
        assert activation is not None
        message = "`activation: scheduled` is not done here: messages are taken as they come."
        source.refuse(activation.start, message, "Leave it out; for a schedule, write `source: timer`.")
    else:
        choice(source, activation, "`activation`", ("continuous",))


def _dispatch(source: Source, block: Marked, spec: dict[str, Marked], *, ticks: bool) -> dict[str, Any]:
    found = fields(source, spec.get("dispatch"), "`dispatch`", model.DISPATCH)
    playbook = text(source, found.get("playbook"), "`playbook`")
    if playbook is None and "playbook" not in found:
        where = spec["dispatch"].start if "dispatch" in spec else block.start
        source.refuse(where, "The subscription names no playbook.", "Add `dispatch: {playbook: its/path}`.")
    runtime = fields(source, spec.get("runtime"), "`runtime`", model.RUNTIME)
    table = flag(source, found.get("batch_dispatch"), "`batch_dispatch`") or False
    rows = whole(source, runtime.get("batch"), "`batch`", 1, BATCH_ROWS_MAX)
    most = whole(source, found.get("batch_max"), "`batch_max`", 1, BATCH_ROWS_MAX)
    size = whole(source, runtime.get("batch_bytes"), "`batch_bytes`", 1, BATCH_BYTES_MAX)
    wait = whole(source, runtime.get("timeout_ms"), "`timeout_ms`", 0, BATCH_WAIT_MS_MAX)
    if wait is None:
        wait = length_ms(source, runtime.get("timeout"), "`timeout`", BATCH_WAIT_MS_MAX, least_ms=0)
    if ticks and table:
        mend = "Take `batch_dispatch` out."
        source.refuse(
            found["batch_dispatch"].start, "Each tick of a timer has an execution of its own.", mend
        )
    if "payload_from" in found and table:
        mend = "Leave it out, or take `batch_dispatch` out."
        source.refuse(
            found["payload_from"].start, "A batch is a table, so `payload_from` means nothing.", mend
        )
    if spec.get("table") is not None and not table:
        mend = "Add `dispatch: {batch_dispatch: true}`, or take `table` out."
        source.refuse(
            spec["table"].start, "`table` describes batches, and this subscription makes none.", mend
        )
    return {
        "playbook": playbook or "",
        "payload_from": choice(source, found.get("payload_from"), "`payload_from`", PAYLOADS) or PAYLOADS[0],
        "table": table,
        "rows_max": min(rows or _ROWS, most or BATCH_ROWS_MAX) if table else 1,
        "bytes_max": size or BATCH_BYTES,
        "wait_ms": (_WAIT_MS if wait is None else wait) if table else 0,
        "columns": read_columns(source, spec.get("table")),
    }


def _limits(source: Source, node: Marked | None, *, ordering: str) -> dict[str, Any]:
    found = fields(source, node, "`limits`", model.LIMITS)
    in_flight = whole(source, found.get("max_in_flight"), "`max_in_flight`", 1, SUBSCRIPTION_IN_FLIGHT_MAX)
    if ordering == "global" and (in_flight or 1) > 1:
        mend = "Leave it out, or say `ordering: none` or `ordering: per_key`."
        message = "One order for all messages means one execution at a time."
        source.refuse(found["max_in_flight"].start, message, mend)
    per_s = whole(source, found.get("max_dispatch_per_sec"), "`max_dispatch_per_sec`", 1, 1_000_000)
    backlog = whole(source, found.get("max_backlog"), "`max_backlog`", 1, SUBSCRIPTION_BACKLOG_MAX)
    return {
        "in_flight_max": 1 if ordering == "global" else in_flight or _IN_FLIGHT,
        "per_s": per_s or 0,
        "backlog_max": backlog or SUBSCRIPTION_BACKLOG,
    }
