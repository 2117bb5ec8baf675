"""The few methods an expression may call on plain values: `text.upper()`, `map.get(key, default)`.

Called by prepared nodes; the compiler reads `METHODS` to refuse any other name. Nothing here reaches Python
attributes: a method's name is looked up in this table and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from edge.core.records import record
from playbooks import texts
from playbooks.budget import Budget, expect_int, expect_text, failed, kind_name, present
from playbooks.filters import FILTERS, get_key
from playbooks.formats import brace_format
from playbooks.operators import contains, equal


@record
class Method:
    """One method: what runs, and how many arguments it takes at least and at most."""

    run: Callable[..., Any]
    arguments_min: int = 0
    arguments_max: int = 0


def _starts(budget: Budget, value: Any, prefix: Any) -> bool:
    return expect_text(value, "`.startswith()`").startswith(expect_text(prefix, "`.startswith()`"))


def _ends(budget: Budget, value: Any, suffix: Any) -> bool:
    return expect_text(value, "`.endswith()`").endswith(expect_text(suffix, "`.endswith()`"))


def _strip(left: bool, right: bool) -> Callable[..., str]:
    def run(budget: Budget, value: Any, chars: Any = None) -> str:
        text = expect_text(value, "`.strip()`")
        given = None if chars is None else expect_text(chars, "`.strip()`")
        budget.make_text(len(text))
        texts.charge_strip(budget, text, given)
        text = text.lstrip(given) if left else text
        return text.rstrip(given) if right else text

    return run


def _remove_prefix(budget: Budget, value: Any, prefix: Any) -> str:
    text = expect_text(value, "`.removeprefix()`")
    budget.make_text(len(text))
    return text.removeprefix(expect_text(prefix, "`.removeprefix()`"))


def _remove_suffix(budget: Budget, value: Any, suffix: Any) -> str:
    text = expect_text(value, "`.removesuffix()`")
    budget.make_text(len(text))
    return text.removesuffix(expect_text(suffix, "`.removesuffix()`"))


def _join(budget: Budget, value: Any, items: Any) -> str:
    return texts.join_texts(budget, items, value)


def _format(budget: Budget, value: Any, *args: Any) -> str:
    return brace_format(budget, expect_text(value, "`.format()`"), args)


def _padded(name: str) -> Callable[..., str]:
    def run(budget: Budget, value: Any, width: Any, fill: Any = " ") -> str:
        text, wide = expect_text(value, f"`.{name}()`"), expect_int(width, f"`.{name}()`")
        filler = expect_text(fill, f"`.{name}()`")
        if wide > texts.WIDTH_MAX or len(filler) != 1:
            raise failed(
                f"`.{name}()` makes at most {texts.WIDTH_MAX} characters, filled up with a single one."
            )
        budget.make_text(max(wide, len(text)))
        if name == "zfill":
            return text.zfill(wide)
        return text.ljust(wide, filler) if name == "ljust" else text.rjust(wide, filler)

    return run


def _find(budget: Budget, value: Any, part: Any) -> int:
    text, wanted = expect_text(value, "`.find()`"), expect_text(part, "`.find()`")
    budget.search(len(wanted), len(text))
    return text.find(wanted)


def _count(budget: Budget, value: Any, part: Any) -> int:
    if type(value) in (list, tuple):
        budget.walk(len(value))
        return sum(1 for item in value if equal(item, part, budget))
    text, wanted = expect_text(value, "`.count()`"), expect_text(part, "`.count()`")
    budget.search(len(wanted), len(text))
    return text.count(wanted)


def _index(budget: Budget, value: Any, part: Any) -> int:
    if type(value) in (list, tuple):
        budget.walk(len(value))
        for position, item in enumerate(value):
            if equal(item, part, budget):
                return position
        raise failed("`.index()`: the list has no such element.", "Ask first: `x in items`.")
    if not contains(part, expect_text(value, "`.index()`"), budget):
        raise failed("`.index()`: the text has no such part.", "Ask first: `x in text`, or use `.find()`.")
    return _find(budget, value, part)


def _asked(name: str) -> Method:
    """`text.isdigit()` and its kin."""

    def run(budget: Budget, value: Any) -> bool:
        text = expect_text(value, f"`.{name}()`")
        budget.read_text(16 * len(text))
        return bool(_ASKED[name](text))

    return Method(run)


_ASKED: Final[dict[str, Callable[[str], bool]]] = {
    "isdigit": str.isdigit,
    "isdecimal": str.isdecimal,
    "isnumeric": str.isnumeric,
    "isalpha": str.isalpha,
    "isalnum": str.isalnum,
    "isspace": str.isspace,
    "islower": str.islower,
    "isupper": str.isupper,
}


def _lines(budget: Budget, value: Any) -> list[str]:
    text = expect_text(value, "`.splitlines()`")
    budget.read_text(len(text))
    budget.make_text(len(text))
    budget.make_list(len(text) // 2 + 1)
    return text.splitlines()


def _of_map(name: str) -> Method:
    run = FILTERS[name].run

    def checked(budget: Budget, value: Any) -> Any:
        if type(value) is not dict:
            raise failed(f"`.{name}()` wants a map and was given {kind_name(present(value))}.")
        return run(budget, value)

    return Method(checked)


METHODS: Final[Mapping[str, Method]] = {
    "get": Method(get_key, 1, 2),
    "items": _of_map("items"),
    "keys": _of_map("keys"),
    "values": _of_map("values"),
    "upper": Method(texts.upper),
    "lower": Method(texts.lower),
    "title": Method(texts.title_method),
    "capitalize": Method(texts.capitalize),
    "strip": Method(_strip(True, True), 0, 1),
    "lstrip": Method(_strip(True, False), 0, 1),
    "rstrip": Method(_strip(False, True), 0, 1),
    "split": Method(texts.split_text, 0, 2),
    "rsplit": Method(texts.split_right, 0, 2),
    "splitlines": Method(_lines),
    "replace": Method(texts.replace_text, 2, 3),
    "removeprefix": Method(_remove_prefix, 1, 1),
    "removesuffix": Method(_remove_suffix, 1, 1),
    "startswith": Method(_starts, 1, 1),
    "endswith": Method(_ends, 1, 1),
    "join": Method(_join, 1, 1),
    "format": Method(_format, 0, 20),
    "zfill": Method(_padded("zfill"), 1, 1),
    "ljust": Method(_padded("ljust"), 1, 2),
    "rjust": Method(_padded("rjust"), 1, 2),
    "center": Method(texts.center, 1, 1),
    "find": Method(_find, 1, 1),
    "index": Method(_index, 1, 1),
    "count": Method(_count, 1, 1),
    **{name: _asked(name) for name in _ASKED},
}

_NO_CHANGE: Final = "An expression changes nothing: "
#: Methods authors reach for, and what to write instead.
METHODS_ELSEWHERE: Final[Mapping[str, str]] = {
    "append": f"{_NO_CHANGE}write `items + [x]`.",
    "extend": f"{_NO_CHANGE}write `items + others`.",
    "insert": f"{_NO_CHANGE}write `[x] + items`.",
    "pop": f"{_NO_CHANGE}write `items[:-1]`.",
    "remove": f"{_NO_CHANGE}write `items | reject('equalto', x) | list`.",
    "sort": f"{_NO_CHANGE}write `items | sort`.",
    "reverse": f"{_NO_CHANGE}write `items | reverse`.",
    "update": f"{_NO_CHANGE}put maps together in a python step.",
    "setdefault": f"{_NO_CHANGE}write `x.get(key, default)`.",
    "clear": f"{_NO_CHANGE}write `[]` or `{{}}`.",
    "copy": f"{_NO_CHANGE}there is no need of a copy.",
    "changed": "Compare with `loop.previtem`.",
    "strftime": "Make the text of a time in a python step.",
    "isoformat": "Make the text of a time in a python step.",
    "encode": "Use `| b64encode`, or a python step.",
    "decode": "Use `| b64decode`, or a python step.",
    "json": "Write `x | tojson` or `x | fromjson`.",
}
