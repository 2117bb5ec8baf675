"""The `wait` kind's entries: how long, until when, and what becomes of it over a power cut.

Read by `playbooks.kinds`. What is written out is checked here; what a template gives is checked by the runtime when
the wait begins (`edge.runtime.waits`), by the same readings (`playbooks.durations`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edge.core.limits import WAIT_S_MAX
from playbooks.durations import duration_ms, instant_ms
from playbooks.expressions import NodeList, Resolve
from playbooks.fields import choice
from playbooks.kinds.kind import Kind
from playbooks.loader import Mapping_, Marked, Scalar
from playbooks.model.parts import EDGE, AnyOf, Block, Choice, Duration, Expression, Key, Number, Template
from playbooks.problems import Source
from playbooks.shape import AFTER_POWER_LOSS
from playbooks.templates import compile_tree, has_template

_LENGTH_VALUE: Final = AnyOf((Duration(WAIT_S_MAX * 1_000), Expression()))
_WAIT: Final = Block(
    "wait",
    "Waits without holding a worker: a length of time, or until an instant.",
    (
        Key("seconds", _LENGTH_VALUE, "How long.", EDGE),
        Key("duration", _LENGTH_VALUE, "As `seconds`.", EDGE),
        Key("until", AnyOf((Number(0, 2**40), Template())), "The instant: UTC, or seconds since 1970.", EDGE),
        Key(
            "after_power_loss",
            Choice(AFTER_POWER_LOSS),
            "What follows where the time that went by is unknown.",
            EDGE,
        ),
    ),
)
_LENGTH: Final = 'Write 90, "500ms", "5s", "2m", "1h" or a template giving seconds.'
_INSTANT: Final = 'Write "2026-12-24T18:00:00Z", seconds since 1970, or a template giving one.'


def _read(source: Source, found: dict[str, Marked], tool: Mapping_, resolve: Resolve) -> dict[str, Any]:
    """The config of a wait: `seconds` and `until` as trees, one of them null."""
    said = [key for key in ("seconds", "duration", "until") if key in found]
    if not said:
        source.refuse(
            tool.start, "A wait does not say how long.", "Give it `seconds`, `duration` or `until`."
        )
    for key in said[1:]:
        source.refuse(found[key].start, f"A wait has `{said[0]}` or `{key}`.", "Take one of them out.")
    return {
        "seconds": _tree(source, found.get("seconds") or found.get("duration"), resolve, _length, _LENGTH),
        "until": _tree(source, found.get("until"), resolve, instant_ms, _INSTANT),
        "after_power_loss": choice(
            source, found.get("after_power_loss"), "`after_power_loss`", AFTER_POWER_LOSS
        )
        or "fire",
    }


def _length(value: Any) -> float | None:
    length_ms = duration_ms(value)
    return length_ms if length_ms is not None and length_ms <= WAIT_S_MAX * 1_000 else None


def _tree(
    source: Source, node: Marked | None, resolve: Resolve, read: Callable[[Any], Any], mend: str
) -> NodeList | None:
    if node is None:
        return None
    value = node.value if isinstance(node, Scalar) else None
    if not has_template(value) and read(value) is None:
        source.refuse(
            node.start, "A wait cannot be told this.", f"{mend} At most {WAIT_S_MAX // 86_400} days."
        )
    return compile_tree(source, node, resolve)


WAIT: Final = Kind(_WAIT, _read, effects=("read",))
