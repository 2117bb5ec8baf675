"""The filters that work on texts, and the text work that filters and methods share.

Part of `playbooks.filters`, which lists them for everybody else. As in Jinja2 a number or boolean handed to one of
them counts as its text; lists, maps and tables do not. Each charges the budget before it makes anything.
"""

from __future__ import annotations

import re
from typing import Any, Final

from playbooks.budget import Budget, expect_int, expect_text, failed, kind_name, present
from playbooks.formats import soft_text, text_of
from playbooks.operators import truth_of
from playbooks.sequences import attribute_of, elements

#: A width, an indentation or a length asked for is at most this: more is a bomb, or belongs into a python step.
WIDTH_MAX: Final = 10_000

#: Looking for one character among others goes so fast (measured: 10,000 among 10,000 in 5 ms).
STRIP_COMPARES_PER_STEP_LOG2: Final = 13

_WORD_BEGINNING: Final = re.compile(r"([-\s({\[<]+)")
_WORD: Final = re.compile(r"\w+")
#: Looking for words costs about this share of a step for each character (2 ** -3).
_WORD_CHARACTERS_LOG2: Final = 3
_HTML: Final = {"&": "&amp;", ">": "&gt;", "<": "&lt;", "'": "&#39;", '"': "&#34;"}
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~")


def _width(value: Any, what: str) -> int:
    width = expect_int(value, what)
    if -WIDTH_MAX <= width <= WIDTH_MAX:
        return width
    raise failed(f"{what} was given {width}; at most {WIDTH_MAX} are allowed.")


def upper(budget: Budget, value: Any) -> str:
    """The text in capitals."""
    text = soft_text(value, "`upper`")
    budget.make_text(3 * len(text))
    return text.upper()


def lower(budget: Budget, value: Any) -> str:
    """The text in small letters."""
    text = soft_text(value, "`lower`")
    budget.make_text(3 * len(text))
    return text.lower()


def title_method(budget: Budget, value: Any) -> str:
    """As `text.title()`: a letter after anything but a letter is a capital."""
    text = expect_text(value, "`.title()`")
    budget.make_text(3 * len(text))
    return text.title()


def _title(budget: Budget, value: Any) -> str:
    """As Jinja2's filter: a letter after white space, `-` or an opening bracket is a capital."""
    text = soft_text(value, "`title`")
    budget.make_text(3 * len(text))
    budget.walk(len(text) >> _WORD_CHARACTERS_LOG2)
    parts = [part for part in _WORD_BEGINNING.split(text) if part]
    budget.walk(len(parts))
    return "".join([part[0].upper() + part[1:].lower() for part in parts])


def capitalize(budget: Budget, value: Any) -> str:
    """The text with a capital in front."""
    text = soft_text(value, "`capitalize`")
    budget.make_text(3 * len(text))
    return text.capitalize()


def trim(budget: Budget, value: Any, chars: Any = None) -> str:
    """The text without white space, or without `chars`, around it."""
    text = soft_text(value, "`trim`")
    budget.make_text(len(text))
    given = None if chars is None else expect_text(chars, "`trim`")
    charge_strip(budget, text, given)
    return text.strip(given)


def charge_strip(budget: Budget, text: str, chars: str | None) -> None:
    """Charge looking for each character of a text among others, until one is not there."""
    budget.walk(len(text) * len(chars or "") >> STRIP_COMPARES_PER_STEP_LOG2)


def replace_text(budget: Budget, value: Any, old: Any, new: Any, count: Any = None) -> str:
    """`value` with every `old` (the first `count` of them) replaced by `new`."""
    text = soft_text(value, "`replace`")
    old, new = soft_text(old, "`replace`"), soft_text(new, "`replace`")
    times_max = -1 if count is None else expect_int(count, "`replace`")
    budget.search(2 * len(old), len(text))  # counted, then replaced
    found = text.count(old)
    if times_max >= 0:
        found = min(found, times_max)
    budget.make_text(len(text) + found * max(len(new) - len(old), 0))
    return text.replace(old, new, times_max)


def split_text(budget: Budget, value: Any, sep: Any = None, maxsplit: Any = -1) -> list[str]:
    """The parts of a text between separators (white space where none is given)."""
    text, separator, times_max = _to_split(budget, value, sep, maxsplit)
    return text.split(separator, times_max)


def split_right(budget: Budget, value: Any, sep: Any = None, maxsplit: Any = -1) -> list[str]:
    """As `split_text`, counted from the end."""
    text, separator, times_max = _to_split(budget, value, sep, maxsplit)
    return text.rsplit(separator, times_max)


def _to_split(budget: Budget, value: Any, sep: Any, maxsplit: Any) -> tuple[str, str | None, int]:
    text = soft_text(value, "`split`")
    separator = None if sep is None else expect_text(sep, "`split`")
    if separator == "":
        raise failed(
            "`split` wants a separator of at least one character.", "Use `| list` for the characters."
        )
    budget.search(2 * len(separator or ""), len(text))  # counted, then split
    parts_max = text.count(separator) + 1 if separator is not None else len(text) // 2 + 1
    times_max = expect_int(maxsplit, "`split`")
    if times_max >= 0:
        parts_max = min(parts_max, times_max + 1)
    budget.make_list(parts_max)
    budget.make_text(len(text))
    return text, separator, min(times_max, len(text))


def join_texts(budget: Budget, value: Any, d: Any = "", attribute: Any = None) -> str:
    """The elements of a list as one text, with `d` between them."""
    items = elements(budget, value, "`join`")
    between = soft_text(d, "`join`")
    budget.walk(len(items))
    if attribute is not None:
        items = [attribute_of(item, attribute) for item in items]
    parts = [text_of(item) for item in items]
    budget.make_text(sum(map(len, parts)) + len(between) * max(len(parts) - 1, 0))
    return between.join(parts)


def center(budget: Budget, value: Any, width: Any = 80) -> str:
    """The text in the middle of `width` characters."""
    text = soft_text(value, "`center`")
    wide = _width(width, "`center`")
    budget.make_text(max(wide, len(text)))
    return text.center(wide)


def indent(budget: Budget, value: Any, width: Any = 4, first: Any = False, blank: Any = False) -> str:
    """The text with every line but the first (and with `blank` the empty ones too) moved in."""
    text = soft_text(value, "`indent`")
    margin = width if type(width) is str else " " * _width(width, "`indent`")
    if len(margin) > WIDTH_MAX:
        raise failed(f"`indent` moves in by at most {WIDTH_MAX} characters.")
    lines_max = text.count("\n") + text.count("\r") + 2
    budget.read_text(2 * len(text))
    budget.make_list(lines_max)
    lines = f"{text}\n".splitlines()
    budget.walk(len(lines))
    budget.make_text(len(text) + (len(lines) + 1) * (len(margin) + 1))
    if truth_of(blank):
        made = f"\n{margin}".join(lines)
    else:
        made = "\n".join([lines[0], *[margin + line if line else line for line in lines[1:]]])
    return margin + made if truth_of(first) else made


def truncate(
    budget: Budget, value: Any, length: Any = 255, killwords: Any = False, end: Any = "...", leeway: Any = 5
) -> str:
    """The text cut to `length` characters with `end` behind it, between words unless `killwords`."""
    text, tail = soft_text(value, "`truncate`"), expect_text(end, "`truncate`")
    long, spare = expect_int(length, "`truncate`"), expect_int(5 if leeway is None else leeway, "`truncate`")
    if long < len(tail) or spare < 0:
        raise failed("`truncate` wants a length that `end` fits in, and no negative leeway.")
    if len(text) <= long + spare:
        return text
    budget.make_text(2 * long)
    cut = text[: long - len(tail)]
    return (cut if truth_of(killwords) else cut.rsplit(" ", 1)[0]) + tail


def _wordcount(budget: Budget, value: Any) -> int:
    text = soft_text(value, "`wordcount`")
    budget.walk(len(text) >> _WORD_CHARACTERS_LOG2)
    return sum(1 for _ in _WORD.finditer(text))


def _escape(budget: Budget, value: Any) -> str:
    text = soft_text(value, "`escape`")
    budget.read_text(len(_HTML) * len(text))
    budget.make_text(len(text) + 5 * sum(text.count(character) for character in _HTML))
    for character, written in _HTML.items():
        text = text.replace(character, written)
    return text


def _quote(budget: Budget, value: Any, safe: bytes) -> str:
    data = value if type(value) is bytes else soft_text(value, "`urlencode`").encode()
    budget.make_text(3 * len(data))
    budget.walk(len(data) >> 3)
    return "".join([chr(byte) if byte in _UNRESERVED or byte in safe else f"%{byte:02X}" for byte in data])


def _urlencode(budget: Budget, value: Any) -> str:
    if type(value) not in (list, tuple, dict):
        return _quote(budget, value, b"/")
    budget.make_list(3 * len(value))
    pairs = list(value.items()) if type(value) is dict else value
    made = []
    for pair in pairs:
        if type(pair) not in (list, tuple) or len(pair) != 2:
            raise failed(f"`urlencode` wants a text, a map or pairs and met {kind_name(present(pair))}.")
        made.append("=".join([_quote(budget, part, b"").replace("%20", "+") for part in pair]))
    return "&".join(made)


#: name → (what runs, parameters in order, how many must be given)
TEXT_FILTERS: Final[dict[str, tuple[Any, tuple[str, ...], int]]] = {
    "upper": (upper, (), 0),
    "lower": (lower, (), 0),
    "title": (_title, (), 0),
    "capitalize": (capitalize, (), 0),
    "trim": (trim, ("chars",), 0),
    "replace": (replace_text, ("old", "new", "count"), 2),
    "split": (split_text, ("sep", "maxsplit"), 0),
    "join": (join_texts, ("d", "attribute"), 0),
    "center": (center, ("width",), 0),
    "indent": (indent, ("width", "first", "blank"), 0),
    "truncate": (truncate, ("length", "killwords", "end", "leeway"), 0),
    "wordcount": (_wordcount, (), 0),
    "escape": (_escape, (), 0),
    "e": (_escape, (), 0),
    "forceescape": (_escape, (), 0),
    "urlencode": (_urlencode, (), 0),
}
