"""Random expressions and templates by the million: `python -m tests.fuzz.expressions --count 1000000 --seed 1`.

Each input is compiled and, where it compiles, evaluated on random values. Held of every one:

- it compiles to a node that can stand in a blueprint, or is refused at an offset inside the text;
- it ends within the budget's allowance, with a plain value that can be recorded, or with EvaluationFailed;
- no other exception leaves either, no attribute of a Python object is asked for, nothing is imported, and what the
  scope holds is the same afterwards;
- evaluating it again gives the same.

Prints how many ended how, and the slowest. Fails with the input that broke one of these. A small
count of fixed seed runs with the tests (`tests/properties/test_fuzz.py`).
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from edge.core.codec import encode, encode_canonical
from edge.core.errors import EvaluationFailed
from edge.core.limits import EVALUATION_BYTES_MAX, EVALUATION_STEPS_MAX
from edge.core.values import TableRef
from playbooks.budget import Budget, Undefined
from playbooks.evaluate import evaluate
from playbooks.nodes import Prepared
from playbooks.refusal import Refused
from playbooks.scope import build_scope
from playbooks.statements import compile_template
from tests.fuzz.grammar import Grammar, as_json, mutated
from tests.fuzz.published import PUBLISHED

_LETTERS: Final = "abinotxs1.5,:|()[]{}{{}}{%%}'\"+-*/%~<>=! \n\\_#"
#: Events of Python's audit that evaluating must never cause.
_FORBIDDEN: Final = frozenset({"import", "open", "exec", "compile", "object.__getattr__", "socket.connect"})
_REPORT_EVERY: Final = 50_000


class Escape(AssertionError):
    """An input did what none may do."""


class _Trap:
    """A value whose every attribute, comparison and truth is an escape; the evaluator may only pass it on."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return _Trap
        raise Escape(f"the attribute {name} of a Python object was asked for")


_TRAP: Final = _Trap()
_TABLE: Final = TableRef("k", b"d" * 32, 640, 12, ("a",))
_watching = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in _FORBIDDEN:
        raise Escape(f"{event} {arguments!r:.100}")


@dataclass(slots=True)
class Tally:
    """What was seen so far."""

    ended: Counter[str] = field(default_factory=Counter)
    slowest: list[tuple[float, str, str]] = field(default_factory=list)

    def note(self, milliseconds: float, what: str, text: str) -> None:
        """Keep the ten slowest."""
        if len(self.slowest) < 10 or milliseconds > self.slowest[-1][0]:
            self.slowest.append((milliseconds, what, text))
            self.slowest.sort(reverse=True)
            del self.slowest[10:]


def inputs(chance: random.Random) -> Iterator[str]:
    """Texts for ever: by the grammar, published ones mutated, and noise."""
    grammar = Grammar(chance)
    while True:
        draw = chance.random()
        grammar.locals = []
        if draw < 0.35:
            yield f"{{{{ {grammar.expression(chance.randrange(1, 5))} }}}}"
        elif draw < 0.6:
            yield grammar.template()
        elif draw < 0.75:
            yield mutated(chance.choice(PUBLISHED), chance)
        elif draw < 0.9:
            yield mutated(grammar.template() if draw < 0.83 else f"{{{{ {grammar.expression()} }}}}", chance)
        elif draw < 0.97:
            body = "".join(chance.choices(_LETTERS, k=chance.randrange(30)))
            yield chance.choice(("{{ %s }}", "{%% if %s %%}x{%% endif %%}", "%s", "{%%%s%%}")) % body
        else:
            data = chance.randbytes(chance.randrange(60))
            yield data.decode("latin-1") if draw < 0.985 else data.decode("utf-8", "surrogateescape")


def scope_of(seed: int) -> dict[str, Any]:
    """A scope of random values, with a table, a step's result, and a trap that nobody may touch."""
    grammar = Grammar(random.Random(seed))
    held = grammar.scope()
    workload = {"api_url": "http://x", "k": grammar.value(2), "items": held["xs"], "page_size": 5}
    results = {"start": {"base_url": "u"}, "table": _TABLE, "trap": _TRAP}
    extra = {
        "iter": {"page": 2, "next_cursor": None},
        "_index": 3,
        "output": {"status": "ok", "data": held["m"]},
    }
    return build_scope(workload, {"last": 1, "index": 0}, {**results, **extra, **held}, "log-1", None)


def resolve(name: str, offset: int) -> list[Any]:
    """Any name may be there; two of them are steps that have not run."""
    return ["step", name] if name in ("process_high", "process_low") else ["name", name]


def run(text: str, scope: dict[str, Any], twin: dict[str, Any], tally: Tally) -> None:
    """One input; `twin` is a scope of equal values. Raises Escape, or whatever it should not have raised."""
    global _watching
    began = time.perf_counter()
    try:
        data = compile_template(text, resolve)
    except Refused as refused:
        if not 0 <= refused.offset <= len(text) or not refused.message:
            raise Escape(f"refused at {refused.offset} of {len(text)}: {refused.message!r}") from refused
        tally.ended["refused"] += 1
        tally.note((time.perf_counter() - began) * 1_000, "compile", text)
        return
    tally.note((time.perf_counter() - began) * 1_000, "compile", text)
    encode_canonical(data)
    node = Prepared(data)
    began, budget = time.perf_counter(), Budget()
    _watching = True
    try:
        found = node.run(scope, budget)
    except EvaluationFailed as error:
        tally.ended[error.problem_code] += 1
        if not error.message:
            raise Escape("a failure without a message") from error
        return
    finally:
        _watching = False
        tally.note((time.perf_counter() - began) * 1_000, "evaluate", text)
        if scope != twin:
            raise Escape("the scope was changed")
    if not (0 <= budget.steps <= EVALUATION_STEPS_MAX and 0 <= budget.size_bytes <= EVALUATION_BYTES_MAX):
        raise Escape(f"beyond the budget: {budget.steps} steps, {budget.size_bytes} bytes left")
    if type(found) is Undefined:
        tally.ended["missing"] += 1
        return
    _check_value(found, node, scope)
    tally.ended["value"] += 1


def _check_value(found: Any, node: Prepared, scope: dict[str, Any]) -> None:
    if _holds(found, _Trap):
        return  # passed on whole, as any value may be
    again = evaluate(node, scope)
    if _holds(found, TableRef):
        return
    if encode(found) != encode(again):
        raise Escape(f"{found!r:.200} and then {again!r:.200}")


def _holds(value: Any, kind: type) -> bool:
    left = [value]
    while left:
        item = left.pop()
        if type(item) is kind:
            return True
        if type(item) in (list, tuple):
            left.extend(item)
        elif type(item) is dict:
            left.extend(item.values())
    return False


def fuzz(count: int, seed: int, tally: Tally) -> None:
    """Run so many inputs. Raises Escape naming the input and how to have it again."""
    chance = random.Random(seed)
    texts = inputs(chance)
    for number in range(count):
        text = next(texts)
        if number % 20 == 0:
            drawn = chance.getrandbits(64)
            scope, twin = scope_of(drawn), scope_of(drawn)
        try:
            run(text, scope, twin, tally)
        except Exception as error:
            raise Escape(f"input {number} of seed {seed}: {text!r} on {as_json(scope)}: {error!r}") from error


def main() -> int:
    """Fuzz, and print what was seen."""
    arguments = argparse.ArgumentParser(
        prog="python -m tests.fuzz.expressions", description=__doc__.split("\n")[0]
    )
    arguments.add_argument("--count", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    sys.addaudithook(_watch)
    tally, began, done = Tally(), time.monotonic(), 0
    while done < given.count:
        part = min(_REPORT_EVERY, given.count - done)
        fuzz(part, given.seed * 1_000_000 + done, tally)
        done += part
        print(
            f"{done:>9} inputs, {time.monotonic() - began:7.0f} s, slowest {tally.slowest[0][0]:.1f} ms",
            flush=True,
        )
    for what, number in sorted(tally.ended.items(), key=lambda pair: -pair[1]):
        print(f"{number:>9} {what}")
    print("slowest, in ms (a busy machine adds to the first; the second is CPU time of doing it again):")
    for milliseconds, what, text in tally.slowest:
        again = time.process_time()
        try:
            run(text, scope_of(given.seed), scope_of(given.seed), Tally())
        except Escape:
            print("it escapes when it is done again:")
        print(f"{milliseconds:9.2f} {(time.process_time() - again) * 1_000:9.2f} {what:<9} {text[:90]!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
