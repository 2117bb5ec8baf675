"""What statements do when a template runs: `for`, `if`, `set` and the text between them.

Part of `playbooks.nodes`, which hands over how to prepare an expression. The form of a template's node:

    ["template", [s…]]              the text its statements make, read back as a value where it is JSON's

and of each statement s:

    ["put", text]                   the text itself
    ["show", n]                     a value, as a text
    ["set", [name…], n]             a value, or its elements, under names
    ["space", name, [k, n, k, n…]]  a namespace: its keys stand under "name.k"
    ["capture", name, [s…]]         the text that statements make, under a name
    ["cond", [[n, [s…]]…], [s…]]    the first whose n holds, else the last
    ["for", [name…], n, n or none, [s…], [s…]]  for each element (for which the second n holds); else the last
    ["with", [[[name…], n]…], [s…]]

A template's own names live in a copy of the scope: nothing the scope holds is ever changed. Every run of a list of
statements is charged by its length, so that loops end within the budget like all else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from playbooks.budget import Budget, failed, kind_name, present
from playbooks.encodings import read_value
from playbooks.formats import text_of
from playbooks.operators import truth_of
from playbooks.sequences import elements

Run = Callable[[Mapping[str, Any], Budget], Any]
Prepare = Callable[[Sequence[Any]], Run]
Local = dict[str, Any]
#: A statement at work on the template's names, the budget, and the text so far.
Act = Callable[[Local, Budget, list[str]], None]

#: A node of an expression costs about this share of a step (2 ** -2): 0.2 µs.
_NODES_PER_STEP_LOG2: Final = 2


def prepare_template(node: Sequence[Any], prepare: Prepare) -> Run:
    """Closures for a template's node. Raises ValueError (or TypeError, IndexError) where it is not one."""
    body = _Builder(prepare).body(node[1])

    def run(scope: Mapping[str, Any], budget: Budget) -> Any:
        budget.scan(len(scope))
        made: list[str] = []
        body(dict(scope), budget, made)
        return read_value(budget, "".join(made))

    return run


def _size(node: Any) -> int:
    """How many lists a node is made of: a measure of the work it is."""
    if type(node) in (list, tuple):
        return 1 + sum(map(_size, node))
    return sum(map(_size, node.values())) if type(node) is dict else 0


def _assigned(statements: Any) -> set[str]:
    """The names that a list of statements sets for itself (those of its own loops they put back themselves)."""
    names: set[str] = set()
    for statement in statements:
        if statement[0] == "set":
            names |= {name for name in statement[1] if "." not in name}
        elif statement[0] == "capture":
            names.add(statement[1])
        elif statement[0] == "cond":
            for part in [pair[1] for pair in statement[1]] + [statement[2]]:
                names |= _assigned(part)
    return names


def _mentions(node: Any, name: str) -> bool:
    if type(node) in (list, tuple):
        return list(node) == ["name", name] or any(_mentions(part, name) for part in node)
    return any(_mentions(part, name) for part in node.values()) if type(node) is dict else False


class _Builder:
    """Makes the closures of statements; `prepare` makes those of expressions."""

    def __init__(self, prepare: Prepare) -> None:
        self._prepare = prepare

    def body(self, statements: Any) -> Act:
        """What a list of statements does, charged by its length."""
        if type(statements) not in (list, tuple):
            raise ValueError("statements stand in a list")
        acts = [self._act(statement) for statement in statements]
        own = sum(_size(part) for s in statements for part in s[1:] if s[0] in ("show", "set", "space"))
        work = len(acts) + (own >> _NODES_PER_STEP_LOG2)

        def run(local: Local, budget: Budget, made: list[str]) -> None:
            budget.walk(work)
            for act in acts:
                act(local, budget, made)

        return run

    def _act(self, statement: Any) -> Act:
        if type(statement) not in (list, tuple) or not statement:
            raise ValueError(f"not a statement: {statement!r:.80}")
        build = _STATEMENTS.get(statement[0]) if type(statement[0]) is str else None
        if build is None:
            raise ValueError(f"not a statement: {statement!r:.80}")
        return build(self, statement)

    def _put(self, statement: Any) -> Act:
        text = _texted(statement[1])

        def run(local: Local, budget: Budget, made: list[str]) -> None:
            budget.make_text(len(text))
            made.append(text)

        return run

    def _show(self, statement: Any) -> Act:
        value = self._prepare(statement[1])

        def run(local: Local, budget: Budget, made: list[str]) -> None:
            text = text_of(value(local, budget))
            budget.make_text(len(text))
            made.append(text)

        return run

    def _set(self, statement: Any) -> Act:
        names, value = [_texted(name) for name in statement[1]], self._prepare(statement[2])

        def run(local: Local, budget: Budget, made: list[str]) -> None:
            _give(local, names, value(local, budget))

        return run

    def _space(self, statement: Any) -> Act:
        name, parts = _texted(statement[1]), statement[2]
        values = [
            (f"{name}.{_texted(key)}", self._prepare(n))
            for key, n in zip(parts[::2], parts[1::2], strict=True)
        ]

        def run(local: Local, budget: Budget, made: list[str]) -> None:
            fresh = {key: present(value(local, budget)) for key, value in values}
            budget.walk(len(local))
            for key in [key for key in local if key.startswith(f"{name}.")]:
                del local[key]
            local.update(fresh)

        return run

    def _capture(self, statement: Any) -> Act:
        name, body, names = _texted(statement[1]), self.body(statement[2]), _assigned(statement[2])

        def run(local: Local, budget: Budget, made: list[str]) -> None:
            inside: list[str] = []
            before = _kept(local, names)
            body(local, budget, inside)
            _put_back(local, names, before)
            local[name] = "".join(inside)

        return run

    def _cond(self, statement: Any) -> Act:
        choices = [
            (self._prepare(test), self.body(part), 1 + (_size(test) >> _NODES_PER_STEP_LOG2))
            for test, part in statement[1]
        ]
        otherwise = self.body(statement[2])

        def run(local: Local, budget: Budget, made: list[str]) -> None:
            for test, body, work in choices:
                budget.walk(work)
                if truth_of(test(local, budget)):
                    return body(local, budget, made)
            return otherwise(local, budget, made)

        return run

    def _for(self, statement: Any) -> Act:
        _, targets, items, test, inside, otherwise = statement
        names, collection = [_texted(name) for name in targets], self._prepare(items)
        chosen = None if test is None else self._prepare(test)
        body, empty = self.body(inside), self.body(otherwise)
        own = _assigned(inside) | set(names) | {"loop"}
        told = _mentions(inside, "loop")
        work = 1 + len(own) + (_size(test) >> _NODES_PER_STEP_LOG2)

        def run(local: Local, budget: Budget, made: list[str]) -> None:
            values = collection(local, budget)
            if type(values) not in (list, tuple):
                values = elements(budget, values, "`for`")
            before = _kept(local, own)
            if chosen is not None:
                budget.make_list(len(values))
                kept = []
                for value in values:
                    budget.walk(work)
                    _give(local, names, value)
                    if truth_of(chosen(local, budget)):
                        kept.append(value)
                values = kept
            for index, value in enumerate(values):
                budget.walk(work)
                _put_back(local, own, before)
                _give(local, names, value)
                if told:
                    local["loop"] = _loop(values, index)
                body(local, budget, made)
            _put_back(local, own, before)
            if not values:
                empty(local, budget, made)

        return run

    def _with(self, statement: Any) -> Act:
        pairs = [([_texted(name) for name in names], self._prepare(value)) for names, value in statement[1]]
        body = self.body(statement[2])
        own = _assigned(statement[2]).union(*[names for names, _ in pairs])

        def run(local: Local, budget: Budget, made: list[str]) -> None:
            values = [value(local, budget) for _, value in pairs]
            before = _kept(local, own)
            for (names, _), value in zip(pairs, values, strict=True):
                _give(local, names, value)
            body(local, budget, made)
            _put_back(local, own, before)

        return run


_STATEMENTS: Final[dict[str, Callable[[_Builder, Any], Act]]] = {
    "put": _Builder._put,
    "show": _Builder._show,
    "set": _Builder._set,
    "space": _Builder._space,
    "capture": _Builder._capture,
    "cond": _Builder._cond,
    "for": _Builder._for,
    "with": _Builder._with,
}


def _texted(text: Any) -> str:
    if type(text) is not str:
        raise ValueError(f"not a text: {text!r:.80}")
    return text


def _give(local: Local, names: Sequence[str], value: Any) -> None:
    """Put a value under a name, or its elements under as many names."""
    if len(names) == 1:
        local[names[0]] = value
        return
    if type(present(value)) not in (list, tuple) or len(value) != len(names):
        what = f"{len(value)} elements" if type(value) in (list, tuple) else kind_name(value)
        raise failed(f"`{', '.join(names)}` takes {len(names)} elements and was given {what}.")
    local.update(zip(names, value, strict=True))


def _kept(local: Local, names: set[str]) -> Local:
    return {name: local[name] for name in names if name in local}


def _put_back(local: Local, names: set[str], before: Local) -> None:
    for name in names:
        if name in before:
            local[name] = before[name]
        else:
            local.pop(name, None)


def _loop(values: Sequence[Any], index: int) -> Local:
    """What `loop` says of one round, as Jinja2 does."""
    size = len(values)
    made: Local = {
        "index": index + 1,
        "index0": index,
        "revindex": size - index,
        "revindex0": size - index - 1,
        "first": index == 0,
        "last": index == size - 1,
        "length": size,
        "depth": 1,
        "depth0": 0,
    }
    if index:
        made["previtem"] = values[index - 1]
    if index + 1 < size:
        made["nextitem"] = values[index + 1]
    return made
