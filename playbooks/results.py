"""`output` of a tool (and `spec.result`): from marked nodes to its part of the blueprint.

Called by `playbooks.tasks`. NoETL's models put the block under the tool as `output`, its documentation under the
task's spec as `result`; both are read, the inner one wins. Stores that are other machines are refused by name.
"""

from __future__ import annotations

import re
from typing import Any, Final

from edge.core.limits import INLINE_BYTES_MAX, LOOP_ITEMS_MAX, PREVIEW_BYTES, PREVIEW_BYTES_MAX, SELECTED_MAX
from playbooks.arcs import CTX_NAME
from playbooks.fields import choice, fields, flag, items, text, whole
from playbooks.loader import Mapping_, Marked, Scalar
from playbooks.model.results import (
    ACCUMULATE,
    COMPRESSION,
    KEPT,
    MADE_AGAIN,
    OUTPUT,
    PART,
    SCOPES,
    STORE,
)
from playbooks.outputs import STRATEGIES
from playbooks.problems import Source, allowed

_ELSEWHERE: Final = {
    "db": "write it with a tool of its own, at the centre",
    "duckdb": "return a table and query it with an sql step",
    "gcs": "what the box recorded is uploaded by its sync",
    "kv": "use store.kind: auto",
    "nats_kv": "use store.kind: auto",
    "nats_object": "use store.kind: disk",
    "postgres": "write it with a tool of its own, at the centre",
    "s3": "what the box recorded is uploaded by its sync",
}
#: The name an accumulated value has in `iter` where the block says none.
ACCUMULATED: Final = "accumulated"
_PART: Final = re.compile(r"\.?([A-Za-z_][A-Za-z0-9_-]*)|\[(-?[0-9]{1,6})\]|\[(?:'([^']*)'|\"([^\"]*)\")\]")


def read_output(source: Source, blocks: list[Marked | None]) -> list[Any] | None:
    """The blueprint's form of a tool's output blocks; later ones win. None where nothing is said."""
    found: dict[str, Marked] = {}
    for block in blocks:
        found |= fields(source, block, "`output`", OUTPUT)
    if not found:
        return None
    store = fields(source, found.get("store"), "`store`", STORE)
    text(source, store.get("ttl"), "`ttl`")
    choice(source, store.get("compression"), "`compression`", COMPRESSION)
    for scope in (found.get("scope"), store.get("scope")):
        _scope(source, scope)
    return [
        _select(source, found),
        _bytes(
            source, found.get("inline_max_bytes"), "`inline_max_bytes`", INLINE_BYTES_MAX, INLINE_BYTES_MAX
        ),
        _bytes(
            source, found.get("preview_max_bytes"), "`preview_max_bytes`", PREVIEW_BYTES_MAX, PREVIEW_BYTES
        ),
        _kept(source, store.get("kind")),
        _accumulate(source, found.get("accumulate")),
    ]


def _scope(source: Source, node: Marked | None) -> None:
    if isinstance(node, Scalar) and node.value == "permanent":
        message = "A result lives as long as its execution; what is truth stays in the log."
        source.refuse(node.start, message, "Let the playbook return it, or write store: {kind: eventlog}.")
        return
    choice(source, node, "`scope`", SCOPES)


def _kept(source: Source, node: Marked | None) -> bool:
    kind = text(source, node, "A store's `kind`")
    if kind is None or kind in MADE_AGAIN:
        return False
    assert node is not None
    if kind in _ELSEWHERE:
        message = f"The store {kind!r} is another machine than this box."
        source.refuse(node.start, message, f"For this, {_ELSEWHERE[kind]}.")
    elif kind not in KEPT:
        source.refuse(node.start, f"There is no store {kind!r:.40}.", allowed((*MADE_AGAIN, *KEPT)))
    return kind in KEPT


def _bytes(source: Source, node: Marked | None, what: str, most: int, default: int) -> int:
    """A number of bytes; more than the box allows means what it allows."""
    if node is None:
        return default
    value = node.value if isinstance(node, Scalar) else None
    if type(value) is not int or value < 0:
        source.refuse(node.start, f"{what} must be a whole number of bytes.")
        return default
    return min(value, most)


def _select(source: Source, found: dict[str, Marked]) -> list[list[Any]]:
    made: dict[str, list[str | int]] = {}
    listed = [*items(source, found.get("select"), "`select`")]
    listed += items(source, found.get("output_select"), "`output_select`")
    for node in listed:
        if isinstance(node, Mapping_):
            part = fields(source, node, "A selected part", PART)
            for key in ("path", "as"):
                if key not in part:
                    source.refuse(node.start, f"This part has no `{key}`.", "Write {path: $.a.b, as: name}.")
            path = _path(source, part.get("path"))
            name = text(source, part.get("as"), "`as`")
        else:
            path = _path(source, node)
            name = next((key for key in reversed(path or []) if type(key) is str), None)
        if name is not None and not CTX_NAME.fullmatch(name):
            source.refuse(node.start, f"{name!r:.80} cannot be a name.", "Use letters, digits and _.")
        elif name is not None and path is not None:
            made[name] = path
    if len(made) > SELECTED_MAX:
        source.refuse(listed[0].start, f"At most {SELECTED_MAX} parts can be selected.", "Select fewer.")
    return [[name, path] for name, path in made.items()]


def _path(source: Source, node: Marked | None) -> list[str | int] | None:
    """Keys and indices of a path such as `$.data.items[0].id`."""
    written = text(source, node, "A path")
    if written is None or node is None:
        return None
    rest = written.removeprefix("$")
    path: list[str | int] = []
    while rest:
        match = _PART.match(rest)
        if match is None:
            mend = "Write keys and indices only, such as $.data.items[0].id."
            source.refuse(node.start, f"The path {written!r:.80} cannot be read.", mend)
            return None
        name, index, *quoted = match.groups()
        path.append(int(index) if index is not None else name or next(q for q in quoted if q is not None))
        rest = rest[match.end() :]
    return path


def _accumulate(source: Source, node: Marked | None) -> list[Any] | None:
    found = fields(source, node, "`accumulate`", ACCUMULATE)
    enabled = flag(source, found.get("enabled"), "`enabled`")
    if isinstance(node, Mapping_) and enabled is None:
        message = "`accumulate` does not say whether it is on; NoETL leaves it off then."
        source.refuse(node.start, message, "Add enabled: true.")
    if not enabled:
        return None
    name = text(source, found.get("manifest_as"), "`manifest_as`") or ACCUMULATED
    if not CTX_NAME.fullmatch(name):
        source.refuse(
            found["manifest_as"].start, f"{name!r:.80} cannot be a name.", "Use letters, digits and _."
        )
    on_success = flag(source, found.get("on_success"), "`on_success`")
    return [
        choice(source, found.get("strategy"), "`strategy`", STRATEGIES) or "append",
        _path(source, found.get("merge_path")) or [],
        name,
        True if on_success is None else on_success,
        flag(source, found.get("on_error"), "`on_error`") or False,
        whole(source, found.get("max_items"), "`max_items`", 1, LOOP_ITEMS_MAX),
    ]
