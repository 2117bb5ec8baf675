"""The `wait` kind's entries: how long, until when, and what becomes of it over a power cut.

Read by `playbooks.kinds`. What is written out is checked here; what a template gives is checked by the runtime when
the wait begins (`edge.runtime.waiting.waits`), by the same readings (`playbooks.durations`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edge.core.limits import CALLBACK_TIMEOUT_S, WAIT_S_MAX
from playbooks.durations import duration_ms, instant_ms
from playbooks.expressions import NodeList, Resolve
from playbooks.fields import choice, fields, flag
from playbooks.kinds.kind import Kind
from playbooks.loader import Mapping_, Marked, Scalar
from playbooks.model.parts import EDGE, AnyOf, Block, Choice, Duration, Flag, Key, Number, Of, Template
from playbooks.problems import Source
from playbooks.shape import AFTER_POWER_LOSS
from playbooks.templates import compile_tree, has_template

_LENGTH_VALUE: Final = AnyOf((Duration(WAIT_S_MAX * 1_000), Template()))
_INSTANT_VALUE: Final = AnyOf((Number(0, 2**40), Template()))
_BOUNDS: Final = (
    Key("timeout", _LENGTH_VALUE, "How long a callback is waited for; 24 hours where nothing is said.", EDGE),
    Key("deadline", _INSTANT_VALUE, "Until when a callback is waited for.", EDGE),
)
_CALLBACK: Final = Block("callback", "A wait for a callback, and its bound.", _BOUNDS)
_WAIT: Final = Block(
    "wait",
    "Waits without holding a worker: a length of time, until an instant, or for a callback.",
    (
        Key("seconds", _LENGTH_VALUE, "How long.", EDGE),
        Key("duration", _LENGTH_VALUE, "As `seconds`.", EDGE),
        Key("until", _INSTANT_VALUE, "The instant: UTC, or seconds since 1970.", EDGE),
        Key(
            "callback",
            AnyOf((Flag(), Of("callback"))),
            "Waits until somebody uses `callback.token`; what they send is the result.",
            EDGE,
        ),
        *_BOUNDS,
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
    """The config of a wait: `seconds` and `until` as trees, one of them null; with `callback` they are its bound."""
    callback = found.get("callback")
    calls = isinstance(callback, Mapping_) or flag(source, callback, "`callback`") is True
    times = {key: node for key in ("seconds", "duration", "until") if (node := found.get(key)) is not None}
    bounds = {key: node for key in ("timeout", "deadline") if (node := found.get(key)) is not None}
    if isinstance(callback, Mapping_):
        bounds |= fields(source, callback, "`callback`", _CALLBACK)
    if not calls and not times:
        mend = "Give it `seconds`, `duration`, `until` or `callback: true`."
        source.refuse(tool.start, "A wait does not say how long.", mend)
    odd = times if calls else bounds
    for key, node in odd.items():
        mend = "Write timeout: 2h." if calls else "Write `seconds`, or callback: true beside it."
        source.refuse(
            node.start, f"`{key}` means nothing in a wait with{'' if calls else 'out'} callback.", mend
        )
    said = bounds if calls else times
    first = next(iter(said), "")
    for key in list(said)[1:]:
        source.refuse(said[key].start, f"A wait has `{first}` or `{key}`.", "Take one of them out.")
    length = next((said[key] for key in ("seconds", "duration", "timeout") if key in said), None)
    instant = next((said[key] for key in ("until", "deadline") if key in said), None)
    seconds = _tree(source, length, resolve, _length, _LENGTH)
    if calls and not said:
        seconds = ["const", CALLBACK_TIMEOUT_S]
    lost = choice(source, found.get("after_power_loss"), "`after_power_loss`", AFTER_POWER_LOSS)
    return {
        "seconds": seconds,
        "until": _tree(source, instant, resolve, instant_ms, _INSTANT),
        "callback": calls,
        "after_power_loss": lost or "fire",
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


WAIT: Final = Kind(_WAIT, _read, effects=("read",), blocks=(_CALLBACK,))
