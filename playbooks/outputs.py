"""What a tool's `output` block says of its result, and what follows from it: parts to select, results to accumulate.

Read from a blueprint by `playbooks.shape`; used by workers and the runtime. Pure and total: a path that leads nowhere
gives null. How the block is written in YAML stands in `playbooks.results`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.core.errors import ToolFailed
from edge.core.limits import INLINE_BYTES_MAX, PREVIEW_BYTES, PREVIEW_BYTES_MAX, SELECTED_MAX
from edge.core.records import record
from edge.core.values import TableRef
from playbooks.blueprint_fields import text_value
from playbooks.deferred import Deferred

STRATEGIES: Final = ("append", "replace", "merge", "concat")
#: NoETL's envelope around a result: a path may go through it where the result has no such key of its own.
_ENVELOPE: Final = ("data", "result")

#: What an output block has in a blueprint, in the order of Output's fields.
_PARTS: Final = 5

Path = tuple[str | int, ...]


@record
class Accumulate:
    """How the results of a tool's invocations become one value, under `name` in `iter`.

    `strategy` is one of STRATEGIES; `path` leads to the list that `concat` joins; at most `items_max` are kept.
    """

    strategy: str
    path: Path
    name: str
    on_success: bool
    on_error: bool
    items_max: int | None


@record
class Output:
    """A tool's `output` block.

    `select` are `(name, path)`: parts of the result that stay at hand beside it. A result over `inline_bytes` becomes
    a block of the cache, with a preview of `preview_bytes`. `recorded` says that the result is kept in the log or the
    blob store even where it could be made again.
    """

    select: tuple[tuple[str, Path], ...] = ()
    inline_bytes: int = INLINE_BYTES_MAX
    preview_bytes: int = PREVIEW_BYTES
    recorded: bool = False
    accumulate: Accumulate | None = None


PLAIN: Final = Output()


def output_of(raw: Any) -> Output:
    """An output block from a blueprint. Raises ValueError."""
    if raw is None:
        return PLAIN
    if type(raw) is not list or len(raw) != _PARTS:
        raise ValueError(f"not a blueprint: output {raw!r:.80}")
    try:
        select, inline_bytes, preview_bytes, recorded, accumulate = raw
        parts = tuple((text_value(name), _path(path)) for name, path in select)
        gathered = None if accumulate is None else _accumulate(*accumulate)
    except TypeError as error:
        raise ValueError(f"not a blueprint: output {raw!r:.80}") from error
    sound = type(inline_bytes) is int and 0 <= inline_bytes <= INLINE_BYTES_MAX
    sound &= type(preview_bytes) is int and 0 <= preview_bytes <= PREVIEW_BYTES_MAX
    if not sound or type(recorded) is not bool or len(parts) > SELECTED_MAX:
        raise ValueError(f"not a blueprint: output {raw!r:.80}")
    return Output(parts, inline_bytes, preview_bytes, recorded, gathered)


def _accumulate(
    strategy: Any, path: Any, name: Any, on_success: Any, on_error: Any, items_max: Any
) -> Accumulate:
    sound = strategy in STRATEGIES and type(on_success) is bool and type(on_error) is bool
    if not sound or (items_max is not None and (type(items_max) is not int or items_max < 1)):
        raise ValueError("not a blueprint: accumulate")
    return Accumulate(strategy, _path(path), text_value(name), on_success, on_error, items_max)


def _path(value: Any) -> Path:
    if type(value) is not list or any(type(key) not in (str, int) for key in value):
        raise ValueError("not a blueprint: a path")
    return tuple(value)


def reach(value: Any, path: Path) -> Any:
    """What a path leads to; None where there is nothing."""
    for place, key in enumerate(path):
        if (type(value) is dict and key in value) or (type(key) is int and _has_place(value, key)):
            value = value[key]
        elif place > 0 or key not in _ENVELOPE:
            return None
    return value


def _has_place(value: Any, index: int) -> bool:
    return type(value) is list and -len(value) <= index < len(value)


def selected(output: Output, value: Any) -> dict[str, Any]:
    """The selected parts of a result, by name."""
    return {name: reach(value, path) for name, path in output.select}


def seen_with(output: Output, value: Any) -> Any:
    """A result as templates see it: with its selected parts at hand, where the playbook selects any."""
    if not output.select or type(value) is TableRef:
        return value
    return Deferred(selected(output, value), lambda: value)


def together(listed: tuple[Output, ...]) -> Output:
    """What holds for a step whose pipeline ends with any of these: the later tool's parts win."""
    if len(listed) == 1:
        return listed[0]
    parts = {name: path for output in listed for name, path in output.select}
    last = listed[-1]
    recorded = any(output.recorded for output in listed)
    if not parts and last == PLAIN and not recorded:
        return PLAIN
    return Output(tuple(parts.items()), last.inline_bytes, last.preview_bytes, recorded, None)


def accumulated(how: Accumulate, before: Any, value: Any) -> Any:
    """`before` (None at the start) with one more result. Raises ToolFailed where the two do not go together."""
    if how.strategy == "replace":
        return value
    if how.strategy == "merge":
        return _merged(how, before, reach(value, how.path))
    list_before: list[Any] = [] if before is None else before
    more = [value]
    if how.strategy == "concat":
        found = reach(value, how.path)
        if type(found) is TableRef:
            found = [found]  # nothing is copied: an arrow tool takes a list of tables as one
        if found is not None and type(found) is not list:
            raise _unfit(how, "a list", found)
        more = found or []
    made = [*list_before, *more]
    return made if how.items_max is None else made[: how.items_max]


def _merged(how: Accumulate, before: Any, more: Any) -> Any:
    if more is None:
        return before
    if type(more) is not dict:
        raise _unfit(how, "a map", more)
    return deep_merged(before or {}, more)


def deep_merged(before: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Two maps as one: maps merge deeply, all else of the later one replaces."""
    made = dict(before)
    for key, value in more.items():
        known = made.get(key)
        made[key] = deep_merged(known, value) if type(known) is dict and type(value) is dict else value
    return made


def _unfit(how: Accumulate, wanted: str, found: Any) -> ToolFailed:
    return ToolFailed(
        f"`accumulate` with the strategy {how.strategy} wants {wanted} and was given {type(found).__name__}.",
        mend="Name where it stands with `merge_path`, or use the strategy append.",
        code="accumulate_failed",
    )
