"""The form of a compiled expression, and how it becomes something that runs.

A node is plain data, `[op, …]`, so that it can stand in a blueprint, be hashed, and be translated by others
(the arrow tool reads column expressions in this very form). The forms:

    ["const", v]                 v is none, a boolean, a number or a text
    ["name", x]                  a bare name: inputs and results first, then ctx, then workload
    ["step", x]                  the result of step x and nothing else
    ["attr", n, k]               key k of a map (or rows, columns, size_bytes of a table)
    ["envelope", n, k]           key k of a result, as of the envelope NoETL puts around it (ENVELOPE_KEYS)
    ["quiet", n]                 n, and where that is not there, what counts as false and equals nothing
    ["item", n, i]               element or key; i is a node
    ["slice", n, a, b, c]        each of a, b, c is a node or none
    ["list", n…]                 a new list
    ["dict", k, n, k, n…]        a new map; each k is a text
    ["text", n…]                 one text out of the parts (mixed text, and `~`)
    ["bin", o, a, b]             o is one of + - * / // % **
    ["neg", a]  ["pos", a]  ["not", a]  ["and", a, b]  ["or", a, b]
    ["cmp", a, [[o, b]…]]        a chain; o is one of == != < <= > >= in "not in"
    ["if", test, a, b]           a where test holds, else b
    ["filter", name, a, [n…], {k: n}]
    ["test", name, a, [n…]]      `is not` is a "not" around it
    ["call", name, a, [n…]]      a method of a plain value
    ["range", [n…]]              whole numbers, bounded
    ["template", [s…]]           what statements make (see `playbooks.passages`)

`prepare` turns a node into closures once, when a blueprint is read: they run about four times as fast as
walking the data. Called by `playbooks.blueprint` and `playbooks.evaluate`. Never raises at run time anything
but EvaluationFailed; raises ValueError for what is not a node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from playbooks.budget import Budget, Undefined, expect_int, fail_undefined, failed, kind_name, present
from playbooks.deferred import Deferred
from playbooks.filters import FILTERS
from playbooks.formats import text_of
from playbooks.lookups import RAW, asked_for, whole
from playbooks.methods import METHODS
from playbooks.operators import BINARY, COMPARE, negate, plus, truth_of
from playbooks.passages import prepare_template
from playbooks.paths import item_of, of_no_map, path_of
from playbooks.predicates import TESTS

Node = Sequence[Any]
Scope = Mapping[str, Any]
Run = Callable[[Scope, Budget], Any]

#: What may be asked of a step's or task's result beside its own keys.
ENVELOPE_KEYS: Final = ("context", "data", "result", "results", "status")

#: Names every scope has; no step, and no input, may be called so.
RESERVED_NAMES: Final = ("workload", "ctx", "execution_id", "args", "input", "input_data")


class Prepared:
    """A node ready to run: `node` is its data, `run(scope, budget)` evaluates it.

    `names` counts the names in it: a value can at most be so many times what the scope holds.
    """

    __slots__ = ("names", "node", "run")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.run = prepare(node)
        self.names = count_names(node)

    def __repr__(self) -> str:
        return f"Prepared({self.node!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prepared) and self.node == other.node

    __hash__ = None  # type: ignore[assignment]


def count_names(node: Any) -> int:
    """How many names stand in a node."""
    if isinstance(node, dict):
        return sum(map(count_names, node.values()))
    if type(node) not in (list, tuple) or not node or node[0] in ("const", "template"):
        return 0  # what a template makes is bounded by the budget
    if node[0] == "name" or node[0] == "step":
        return 1
    return sum(map(count_names, node))


def prepare(node: Node) -> Run:
    """Closures for a node. Raises ValueError where it is not one."""
    if type(node) not in (list, tuple) or not node:
        raise ValueError(f"not an expression node: {node!r:.80}")
    build = _BUILDERS.get(node[0]) if type(node[0]) is str else None
    if build is None:
        raise ValueError(f"not an expression node: {node!r:.80}")
    try:
        return build(node)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"not an expression node: {node!r:.80}") from error


def _const(node: Node) -> Run:
    value = node[1]
    if value is not None and type(value) not in (bool, int, float, str):
        raise ValueError(f"not a constant: {value!r:.80}")
    return lambda scope, budget: value


def _holder(node: Node) -> Run:
    """What a key is asked of: a name's value as it stands in the scope, deferred or not."""
    raw = RAW.get(node[0])
    return prepare(node) if raw is None else raw(node)


def _attr(node: Node) -> Run:
    inner, key, path = _holder(node[1]), node[2], path_of(node)
    if type(key) is not str:
        raise ValueError("an attribute is a text")

    def run(scope: Scope, budget: Budget) -> Any:
        value = inner(scope, budget)
        if type(value) is Deferred:
            value = asked_for(value, key)
        if type(value) is dict:
            if key in value:
                return value[key]
            return Undefined(path, "keys", value)
        return of_no_map(value, key, path)

    return run


def _envelope(node: Node) -> Run:
    """`.data` of a result is the result itself, `.status` is ok, where the result has no such key of its own."""
    inner, key = prepare(node[1]), node[2]
    if key not in ENVELOPE_KEYS:
        raise ValueError(f"not a key of an outcome: {key!r:.80}")

    def run(scope: Scope, budget: Budget) -> Any:
        value = inner(scope, budget)
        if type(value) is Undefined:
            return value
        if type(value) is dict and key in value:
            return value[key]
        return "ok" if key == "status" else value

    return run


def _quiet(node: Node) -> Run:
    inner = prepare(node[1])

    def run(scope: Scope, budget: Budget) -> Any:
        value = inner(scope, budget)
        if type(value) is Undefined and not value.quiet:
            return Undefined(value.path, value.kind, value.near, quiet=True)
        return value

    return run


def _item(node: Node) -> Run:
    inner, index, path = _holder(node[1]), prepare(node[2]), path_of(node)

    def run(scope: Scope, budget: Budget) -> Any:
        value, key = inner(scope, budget), present(index(scope, budget))
        if type(value) is Deferred:
            value = asked_for(value, key) if type(key) is str else value.value()
        return item_of(value, key, path)

    return run


def _slice(node: Node) -> Run:
    inner, path = prepare(node[1]), path_of(node[1])
    bounds = [None if part is None else prepare(part) for part in (node[2], node[3], node[4])]

    def run(scope: Scope, budget: Budget) -> Any:
        value = present(inner(scope, budget))
        if type(value) not in (list, tuple, str):
            raise failed(f"`{path}[…:…]`: {kind_name(value)} cannot be sliced.")
        found = [None if part is None else part(scope, budget) for part in bounds]
        start, stop, step = [None if part is None else expect_int(part, "A slice") for part in found]
        if step == 0:
            raise failed("A slice has the step 0.")
        size = len(range(*slice(start, stop, step).indices(len(value))))
        if type(value) is str:
            budget.make_text(size)
            return value[start:stop:step]
        budget.make_list(size)
        return list(value[start:stop:step])

    return run


def _list(node: Node) -> Run:
    parts = [prepare(part) for part in node[1:]]
    return lambda scope, budget: [present(part(scope, budget)) for part in parts]


def _dict(node: Node) -> Run:
    keys, parts = node[1::2], [prepare(part) for part in node[2::2]]
    if len(keys) != len(parts) or any(type(key) is not str for key in keys):
        raise ValueError("a map needs text keys, each with a value")
    pairs = list(zip(keys, parts, strict=True))
    return lambda scope, budget: {key: present(part(scope, budget)) for key, part in pairs}


def _text(node: Node) -> Run:
    parts = [prepare(part) for part in node[1:]]

    def run(scope: Scope, budget: Budget) -> str:
        texts = [text_of(part(scope, budget)) for part in parts]
        budget.make_text(sum(map(len, texts)))
        return "".join(texts)

    return run


def _binary(node: Node) -> Run:
    work, left, right = BINARY[node[1]], prepare(node[2]), prepare(node[3])
    return lambda scope, budget: work(left(scope, budget), right(scope, budget), budget)


def _negate(node: Node) -> Run:
    inner = prepare(node[1])
    return lambda scope, budget: negate(inner(scope, budget))


def _plus(node: Node) -> Run:
    inner = prepare(node[1])
    return lambda scope, budget: plus(inner(scope, budget))


def _not(node: Node) -> Run:
    inner = prepare(node[1])
    return lambda scope, budget: not truth_of(inner(scope, budget))


def _and(node: Node) -> Run:
    left, right = prepare(node[1]), prepare(node[2])

    def run(scope: Scope, budget: Budget) -> Any:
        value = left(scope, budget)
        return right(scope, budget) if truth_of(value) else value

    return run


def _or(node: Node) -> Run:
    left, right = prepare(node[1]), prepare(node[2])

    def run(scope: Scope, budget: Budget) -> Any:
        value = left(scope, budget)
        return value if truth_of(value) else right(scope, budget)

    return run


def _compare(node: Node) -> Run:
    first = prepare(node[1])
    chain = [(COMPARE[symbol], prepare(part)) for symbol, part in node[2]]
    if len(chain) == 1:
        work, second = chain[0]
        return lambda scope, budget: work(first(scope, budget), second(scope, budget), budget)

    def run(scope: Scope, budget: Budget) -> bool:
        left = first(scope, budget)
        for compare, part in chain:
            right = part(scope, budget)
            if not compare(left, right, budget):
                return False
            left = right
        return True

    return run


def _if(node: Node) -> Run:
    test, then, other = prepare(node[1]), prepare(node[2]), prepare(node[3])
    return lambda scope, budget: (then if truth_of(test(scope, budget)) else other)(scope, budget)


def _filter(node: Node) -> Run:
    chosen, inner = FILTERS[node[1]], prepare(node[2])
    work, may_miss = chosen.run, chosen.undefined
    args = [prepare(part) for part in node[3]]
    named = {key: prepare(part) for key, part in node[4].items()}

    def run_alone(scope: Scope, budget: Budget) -> Any:
        value = inner(scope, budget)
        if type(value) is Undefined and not may_miss:
            fail_undefined(value)
        return work(budget, value)

    def run(scope: Scope, budget: Budget) -> Any:
        value = inner(scope, budget)
        if type(value) is Undefined and not may_miss:
            fail_undefined(value)
        if may_miss:  # `a | default(b)`: b may be missing too, as long as nothing uses it
            given = [part(scope, budget) for part in args]
        else:
            given = [present(part(scope, budget)) for part in args]
        return work(
            budget, value, *given, **{key: present(part(scope, budget)) for key, part in named.items()}
        )

    return run if args or named else run_alone


def _test(node: Node) -> Run:
    work, inner = TESTS[node[1]].run, prepare(node[2])
    args = [prepare(part) for part in node[3]]
    if not args:
        return lambda scope, budget: work(budget, inner(scope, budget))
    return lambda scope, budget: work(
        budget, inner(scope, budget), *[present(part(scope, budget)) for part in args]
    )


def _call(node: Node) -> Run:
    work, inner = METHODS[node[1]].run, prepare(node[2])
    args = [prepare(part) for part in node[3]]
    return lambda scope, budget: work(
        budget, present(inner(scope, budget)), *[present(part(scope, budget)) for part in args]
    )


def _range(node: Node) -> Run:
    parts = [prepare(part) for part in node[1]]
    if not 1 <= len(parts) <= 3:
        raise ValueError("range takes one to three numbers")

    def run(scope: Scope, budget: Budget) -> list[int]:
        bounds = [expect_int(part(scope, budget), "`range`") for part in parts]
        if len(bounds) == 3 and bounds[2] == 0:
            raise failed("`range` has the step 0.")
        numbers = range(*bounds)
        try:
            budget.make_list(len(numbers))
        except OverflowError:
            budget.make_list(2**62)
        return list(numbers)

    return run


_BUILDERS: Final[dict[str, Callable[[Node], Run]]] = {
    "const": _const,
    "name": whole,
    "step": whole,
    "attr": _attr,
    "envelope": _envelope,
    "item": _item,
    "quiet": _quiet,
    "slice": _slice,
    "list": _list,
    "dict": _dict,
    "text": _text,
    "bin": _binary,
    "neg": _negate,
    "pos": _plus,
    "not": _not,
    "and": _and,
    "or": _or,
    "cmp": _compare,
    "if": _if,
    "filter": _filter,
    "test": _test,
    "call": _call,
    "range": _range,
    "template": lambda node: prepare_template(node, prepare),
}
