"""The filters that work on lists: first, min, sum, sort, map, select and their kin.

Part of `playbooks.filters`, which lists them for everybody else. Every result is a plain list, never a
generator, so nothing is evaluated after its budget was checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from playbooks.budget import (
    Budget,
    Undefined,
    expect_int,
    expect_list,
    expect_text,
    failed,
    kind_name,
    present,
)
from playbooks.operators import add, truth_of

_NUMBERS: Final = frozenset({int, float, bool})
_COMPARED_TIMES: Final = 16
_INDEX_DIGITS_MAX: Final = 18
#: `sort(attribute='a,b,c')` sorts by at most so many.
_SORT_ATTRIBUTES_MAX: Final = 8

SequenceFilter = tuple[Callable[..., Any], tuple[str, ...], int, bool]


def attribute_of(item: Any, path: Any) -> Any:
    """What stands at `path` ("a", "a.b", "a.0" or a whole number) in an element; Undefined where nothing."""
    if type(path) is int:
        keys: list[Any] = [path]
    else:
        keys = expect_text(path, "`attribute`").split(".", 24)
    for key in keys:
        if type(item) is dict and key in item:
            item = item[key]
        elif type(item) in (list, tuple) and -len(item) <= (index := _index_of(key)) < len(item):
            item = item[index]
        else:
            return Undefined(str(path), "keys", item) if type(item) is dict else Undefined(str(path))
    return item


def _index_of(key: Any) -> int:
    """The whole number a key is or says; one that no list has where it says none."""
    if type(key) is int:
        return key
    return int(key) if key.isdecimal() and len(key) <= _INDEX_DIGITS_MAX else 2**63


def elements(budget: Budget, value: Any, what: str) -> list[Any]:
    """A new list of the elements of a list, the keys of a map or the characters of a text."""
    if type(value) not in (list, tuple, str, dict):
        expect_list(value, what)
    budget.make_list(len(value))
    return list(value)


def _first(budget: Budget, value: Any) -> Any:
    if type(value) is dict:
        return next(iter(value), Undefined("the first element of an empty map"))
    items = value if type(value) is str else expect_list(value, "`first`")
    return items[0] if items else Undefined("the first element of an empty list")


def _last(budget: Budget, value: Any) -> Any:
    if type(value) is dict:
        return next(reversed(value), Undefined("the last element of an empty map"))
    items = value if type(value) is str else expect_list(value, "`last`")
    return items[-1] if items else Undefined("the last element of an empty list")


def _sort_key(item: Any, case_sensitive: bool) -> Any:
    """A key by which elements can be ordered and told apart; refuses lists and maps."""
    present(item)
    if type(item) is str:
        return item if case_sensitive else item.lower()
    if type(item) in _NUMBERS:
        return item
    if item is None:
        raise failed("An element is none, which has no order.", "Leave it out with `reject('none')`.")
    raise failed(
        f"An element is {kind_name(item)}, which has no order.", "Name what to compare by `attribute='…'`."
    )


def _keyed(
    budget: Budget, value: Any, what: str, attribute: Any, case_sensitive: Any
) -> list[tuple[Any, int, Any]]:
    """`(key, position, element)` for every element; all keys are numbers or all are texts."""
    items = elements(budget, value, what)
    budget.walk(2 * len(items))
    strict = truth_of(case_sensitive)
    keyed = []
    for position, item in enumerate(items):
        found = item if attribute is None else attribute_of(item, attribute)
        key = _sort_key(found, strict)
        if type(key) is str:
            # Sorting compares a key with about sixteen others; texts that begin alike are compared to their ends.
            budget.read_text(_COMPARED_TIMES * len(key))
        keyed.append((key, position, item))
    if len({type(key) is str for key, _, _ in keyed}) > 1:
        raise failed(f"{what} was given numbers and texts together.", "Make them all one kind first.")
    return keyed


def _min(budget: Budget, value: Any, case_sensitive: Any = False, attribute: Any = None) -> Any:
    keyed = _keyed(budget, value, "`min`", attribute, case_sensitive)
    return min(keyed)[2] if keyed else Undefined("the smallest element of an empty list")


def _max(budget: Budget, value: Any, case_sensitive: Any = False, attribute: Any = None) -> Any:
    keyed = _keyed(budget, value, "`max`", attribute, case_sensitive)
    if not keyed:
        return Undefined("the largest element of an empty list")
    return max(keyed, key=lambda entry: (entry[0], -entry[1]))[2]


def _sum(budget: Budget, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    items = elements(budget, value, "`sum`")
    budget.walk(len(items))
    total = start
    for item in items:
        number = item if attribute is None else attribute_of(item, attribute)
        if type(number) not in _NUMBERS or type(total) not in _NUMBERS:
            present(number)
            raise failed(f"`sum` adds numbers and met {kind_name(number)}.")
        total = add(total, number, budget)
    return total


def _sort(
    budget: Budget, value: Any, reverse: Any = False, case_sensitive: Any = False, attribute: Any = None
) -> list[Any]:
    backwards = truth_of(reverse)
    attributes: list[Any] = [attribute]
    if type(attribute) is str and "," in attribute:
        attributes = attribute.split(",", _SORT_ATTRIBUTES_MAX)
        if len(attributes) > _SORT_ATTRIBUTES_MAX:
            raise failed(f"`sort` sorts by at most {_SORT_ATTRIBUTES_MAX} attributes.")
    # Sorting keeps the order of what is equal, so sorting by the last attribute first sorts by all of them.
    for one in reversed(attributes):
        keyed = _keyed(budget, value, "`sort`", one, case_sensitive)
        budget.make_list(len(keyed))
        keyed.sort(key=lambda entry: entry[0], reverse=backwards)
        value = [item for _, _, item in keyed]
    return list(value)


def _groupby(
    budget: Budget, value: Any, attribute: Any, default: Any = None, case_sensitive: Any = False
) -> list[Any]:
    """`[value, elements that have it]` for each value of an attribute, in the order of these values."""
    strict = truth_of(case_sensitive)
    groups: list[Any] = []
    pairs = []
    for item in elements(budget, value, "`groupby`"):
        budget.walk(2)
        found = attribute_of(item, attribute)
        pairs.append([default if type(found) is Undefined and default is not None else found, item])
    last: Any = None
    for pair in _sort(budget, pairs, False, strict, 0):
        key = _sort_key(pair[0], strict)
        if not groups or key != last:
            groups.append([pair[0], []])
            last = key
        groups[-1][1].append(pair[1])
    budget.make_list(3 * len(groups) + len(pairs))
    return groups


def _batch(budget: Budget, value: Any, linecount: Any, fill_with: Any = None) -> list[Any]:
    """Lists of `linecount` elements each; the last one is filled up where there is something to fill with."""
    items, size = elements(budget, value, "`batch`"), expect_int(linecount, "`batch`")
    if size < 1:
        raise failed("`batch` makes lists of at least one element.")
    budget.make_list(len(items) + len(items) // size + 1 + (size if fill_with is not None else 0))
    rows = [items[start : start + size] for start in range(0, len(items), size)]
    if fill_with is not None and rows:
        rows[-1] += [fill_with] * (size - len(rows[-1]))
    return rows


def _slice(budget: Budget, value: Any, slices: Any, fill_with: Any = None) -> list[Any]:
    """`slices` lists of nearly the same length; the shorter ones, which are last, are filled up."""
    items, count = elements(budget, value, "`slice`"), expect_int(slices, "`slice`")
    if count < 1:
        raise failed("`slice` makes at least one list.")
    budget.make_list(len(items) + 2 * count)
    budget.walk(count)
    least, longer = divmod(len(items), count)
    rows, at = [], 0
    for position in range(count):
        size = least + (position < longer)
        row = items[at : at + size]
        at += size
        if fill_with is not None and position >= longer:
            row.append(fill_with)
        rows.append(row)
    return rows


def _unique(budget: Budget, value: Any, case_sensitive: Any = False, attribute: Any = None) -> list[Any]:
    items = elements(budget, value, "`unique`")
    budget.walk(2 * len(items))
    budget.make_list(len(items))
    strict, seen, kept = truth_of(case_sensitive), set(), []
    for item in items:
        found = item if attribute is None else attribute_of(item, attribute)
        key = None if found is None else _sort_key(found, strict)
        if key not in seen:
            seen.add(key)
            kept.append(item)
    return kept


def _reverse(budget: Budget, value: Any) -> Any:
    if type(value) is str:
        budget.make_text(len(value))
        return value[::-1]
    return elements(budget, value, "`reverse`")[::-1]


def _list(budget: Budget, value: Any) -> list[Any]:
    return elements(budget, value, "`list`")


def _dictsort(
    budget: Budget, value: Any, case_sensitive: Any = False, by: Any = "key", reverse: Any = False
) -> list[Any]:
    if type(value) is not dict:
        present(value)
        raise failed(f"`dictsort` wants a map and was given {kind_name(value)}.")
    if by not in ("key", "value"):
        raise failed("`dictsort` sorts by 'key' or by 'value'.")
    budget.make_list(3 * len(value))
    pairs = [[key, item] for key, item in value.items()]
    return _sort(budget, pairs, reverse, case_sensitive, 0 if by == "key" else 1)


def _map(
    budget: Budget, value: Any, *args: Any, attribute: Any = None, default: Any = None, **named: Any
) -> Any:
    items = elements(budget, value, "`map`")
    budget.walk(len(items))
    if attribute is not None:
        found = (attribute_of(item, attribute) for item in items)
        if default is None:
            return [present(item) for item in found]
        return [default if type(item) is Undefined else item for item in found]
    from playbooks.filters import FILTERS

    chosen = FILTERS[args[0]]
    return [present(chosen.run(budget, item, *args[1:], **named)) for item in items]


def _test(name: Any) -> Callable[..., bool]:
    from playbooks.predicates import TESTS

    return TESTS[name].run


def _kept(budget: Budget, value: Any, args: tuple[Any, ...], wanted: bool) -> list[Any]:
    items = elements(budget, value, "`select`" if wanted else "`reject`")
    budget.walk(len(items))
    if not args:
        return [item for item in items if truth_of(item) is wanted]
    run = _test(args[0])
    return [item for item in items if run(budget, item, *args[1:]) is wanted]


def _kept_by(budget: Budget, value: Any, attribute: Any, args: tuple[Any, ...], wanted: bool) -> list[Any]:
    items = elements(budget, value, "`selectattr`" if wanted else "`rejectattr`")
    budget.walk(2 * len(items))
    if not args:
        return [item for item in items if truth_of(attribute_of(item, attribute)) is wanted]
    run = _test(args[0])
    return [item for item in items if run(budget, attribute_of(item, attribute), *args[1:]) is wanted]


def _select(budget: Budget, value: Any, *args: Any) -> list[Any]:
    return _kept(budget, value, args, True)


def _reject(budget: Budget, value: Any, *args: Any) -> list[Any]:
    return _kept(budget, value, args, False)


def _selectattr(budget: Budget, value: Any, attribute: Any, *args: Any) -> list[Any]:
    return _kept_by(budget, value, attribute, args, True)


def _rejectattr(budget: Budget, value: Any, attribute: Any, *args: Any) -> list[Any]:
    return _kept_by(budget, value, attribute, args, False)


#: name → (what runs, parameters in order, how many must be given, whether further arguments may follow)
SEQUENCE_FILTERS: Final[dict[str, SequenceFilter]] = {
    "first": (_first, (), 0, False),
    "last": (_last, (), 0, False),
    "min": (_min, ("case_sensitive", "attribute"), 0, False),
    "max": (_max, ("case_sensitive", "attribute"), 0, False),
    "sum": (_sum, ("attribute", "start"), 0, False),
    "sort": (_sort, ("reverse", "case_sensitive", "attribute"), 0, False),
    "unique": (_unique, ("case_sensitive", "attribute"), 0, False),
    "groupby": (_groupby, ("attribute", "default", "case_sensitive"), 1, False),
    "batch": (_batch, ("linecount", "fill_with"), 1, False),
    "slice": (_slice, ("slices", "fill_with"), 1, False),
    "reverse": (_reverse, (), 0, False),
    "list": (_list, (), 0, False),
    "dictsort": (_dictsort, ("case_sensitive", "by", "reverse"), 0, False),
    "map": (_map, ("attribute", "default"), 0, True),
    "select": (_select, (), 0, True),
    "reject": (_reject, (), 0, True),
    "selectattr": (_selectattr, ("attribute",), 1, True),
    "rejectattr": (_rejectattr, ("attribute",), 1, True),
}
