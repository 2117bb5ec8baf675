"""Expressions and templates made to exhaust, and what each costs: `python -m tests.bench.bombs`.

Prints the slowest in CPU milliseconds, compiling and evaluating apart, and fails when one takes longer than the
limit (100 ms unless told otherwise by `--limit-ms`). That each is ended by the evaluator's own budget, whatever the
machine, is a test: `tests/properties/test_bombs.py`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from edge.core.errors import EvaluationFailed
from playbooks.evaluate import evaluate
from playbooks.filters import FILTERS
from playbooks.methods import METHODS
from playbooks.nodes import Prepared
from playbooks.predicates import TESTS
from playbooks.refusal import Refused
from playbooks.scope import build_scope
from playbooks.statements import compile_template

MILLION: Final = 1_000_000


def scope() -> dict[str, Any]:
    """What the bombs work on: as large as a request and a step's result may be."""
    deep: Any = 1
    for _ in range(60):
        deep = [deep, deep]
    wide = {f"key{index:05}": index for index in range(100_000)}
    workload = {
        "numbers": list(range(MILLION)),
        "some": list(range(1_000)),
        "more": list(range(5_000)),
        "alike": ["x" * 5_000 + str(index) for index in range(1_500)],
        "maps": [{"a": index, "b": {"c": str(index)}} for index in range(100_000)],
        "few": [{"a": index % 7, "b": "x" * 20} for index in range(3_000)],
        "text": "ab" * (4 * 1024 * 1024),
        "page": "ab " * 20_000,
        "line": "a" * 29_000,
        "signs": "".join(map(chr, range(0x4E00, 0x4E00 + 20_000))),
        "words": ["word"] * 15_000,
        "digits": "9" * 250_000,
        "json": "[" + "1," * 120_000 + "1]",
        "objects": "[" + '{"a":1},' * 30_000 + "1]",
        "nested": "[" * 120_000 + "]" * 120_000,
        "deep": deep,
        "wide": wide,
        "big": 2**63 - 1,
        "tiny": 1e-300,
    }
    return build_scope(workload, {}, {}, "log-1", None)


def _chained(step: str, times: int, start: str = "'a'") -> str:
    return f"{{{{ {start}{step * times} }}}}"


def bombs() -> Iterator[tuple[str, str]]:
    """Each bomb's kind and text."""
    doubled = "{% set x = {'a': x, 'b': x} %}"
    yield "range", "{{ range(10 ** 18) }}"
    yield "range", "{{ range(-10 ** 18, 10 ** 18, 3) | list }}"
    yield "range", "{{ [range(30000), range(30000)] }}"
    yield "repetition", "{{ 'x' * 10 ** 12 }}"
    yield "repetition", "{{ ('x' * 9999 * 9999) }}"
    yield "repetition", "{{ [1] * 10 ** 9 }}"
    yield "repetition", _chained(" | replace('a', 'aaaaaaaaaa')", 40)
    yield "repetition", _chained(".replace('', 'aa')", 40)
    yield "repetition", "{% set x = 'ab' %}" + "{% set x = x ~ x %}" * 300 + "{{ x | length }}"
    yield "repetition", "{% set x = [1, 2] %}" + "{% set x = x + x %}" * 300 + "{{ x | length }}"
    yield "repetition", "{% set x = [1] %}" + "{% set x = [x, x] %}" * 100 + "{{ x == x }}{{ x | tojson }}"
    yield "repetition", "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x | tojson }}"
    yield (
        "repetition",
        "{% set x = {'a': 1} %}" + doubled * 50 + "{{ x == {'a': x} }}{{ x == x }}",
    )
    yield "numbers", "{{ 2 ** 10 ** 9 }}"
    yield "numbers", "{{ 9 ** 9 ** 9 ** 9 }}"
    yield "numbers", "{{ " + "big * " * 150 + "big }}"
    yield "numbers", "{{ " + " ** ".join(["2"] * 150) + " }}"
    yield "numbers", "{{ 1e308 * 1e308 }}"
    yield "numbers", "{{ tiny ** 1e300 }}"
    yield "numbers", "{{ " + "9" * 4_000 + " }}"
    yield "numbers", "{{ digits | int }}"
    yield "numbers", "{{ '%d' % 1e308 }}{% if 1 %}{% endif %}"
    yield "numbers", "{{ numbers | sum }}"
    yield "numbers", "{{ numbers | map('string') | join }}"
    yield "formats", "{{ '%99999999d' % 1 }}"
    yield "formats", "{{ '%.99999999f' % 1 }}"
    yield "formats", "{{ '%200s' * 1000 % some }}"
    yield "formats", "{{ '{:>999999999}'.format(1) }}"
    yield "formats", "{{ ('{:>200}' * 20000).format(1) }}"
    yield "formats", "{{ '{0.__class__.__mro__}'.format('') }}"
    yield "formats", "{{ 'x' | center(10 ** 9) }}"
    yield "formats", "{{ 'x'.ljust(10 ** 9) }}"
    yield "formats", "{{ '1'.zfill(10 ** 9) }}"
    yield "formats", "{{ page | indent(10000) }}"
    yield "formats", "{{ ('\\n' * 3000) | indent('x' * 9000, true, true) }}"
    yield "slices", "{{ numbers[::-1] }}"
    yield "slices", "{{ text[::10 ** 17] }}{{ numbers[10 ** 17:-10 ** 17:-10 ** 17] }}"
    yield "slices", "{{ some | batch(10 ** 9, 0) }}"
    yield "slices", "{{ some | slice(10 ** 9, 0) }}"
    yield "slices", "{{ some | slice(20000) }}"
    yield "searches", "{{ ('a' * 99 ~ 'b') in line }}"
    yield "searches", "{{ line | replace('a' * 90 ~ 'b', '') }}"
    yield "searches", "{{ text | replace('b', 'cc') }}"
    yield "searches", "{{ 'c' in text }}{{ 'ac' in text }}{{ text.count('ba') }}"
    yield "searches", "{{ signs | trim(signs) }}"
    yield "searches", "{{ signs.strip(signs[1:]) }}"
    yield "searches", "{{ page | wordcount }}{{ page | title }}"
    yield "searches", "{{ text | wordcount }}"
    yield "searches", "{{ page | split }}"
    yield "searches", "{{ page.splitlines() }}"
    yield "searches", "{{ numbers.index(999999) }}"
    yield "searches", "{{ 999999 in numbers }}"
    yield "searches", "{{ [deep] in [deep] }}"
    yield "searches", "{% for x in some %}{{ -1 in more }}{% endfor %}"
    yield "searches", "{% for x in some %}{{ 'zz' in page }}{% endfor %}"
    yield "sorting", "{{ alike | sort }}"
    yield "sorting", "{{ alike | sort(case_sensitive=true) | unique }}"
    yield "sorting", "{{ numbers | sort }}"
    yield "sorting", "{{ few | sort(attribute='b,a,b,a,b,a,b,a') }}"
    yield "sorting", "{{ few | groupby('a') }}"
    yield "sorting", "{{ few | groupby('b') | map('last') | map('sort', attribute='a') | list }}"
    yield "sorting", "{{ wide | dictsort(by='value') }}"
    yield "sorting", "{{ maps | map(attribute='b.c') | list }}"
    yield "sorting", "{{ few | map('groupby', 'a') }}"
    yield (
        "joins",
        "{% for a in some %}{% for b in some %}{% if a == b %}{{ a }}{% endif %}{% endfor %}{% endfor %}",
    )
    yield "joins", "{% for a in some %}{% for b in some if a == b %}{{ a }}{% endfor %}{% endfor %}"
    yield "joins", "{% for a in few %}{{ few | selectattr('a', 'eq', a.a) | list | length }}{% endfor %}"
    yield "joins", "{% for a in some %}{{ some | select('gt', a) | sum }}{% endfor %}"
    yield "joins", "{% for a in some %}{{ some | map('string') | join(',') | length }}{% endfor %}"
    yield (
        "joins",
        "{% for a in some %}{% set x %}{% for b in some %}{{ b }}{% endfor %}{% endset %}{% endfor %}",
    )
    yield "loops", "{% for a in numbers %}{% endfor %}"
    yield "loops", "{% for a in text %}{% endfor %}"
    yield "loops", "{% for a, b in wide.items() %}{% endfor %}"
    yield "loops", "{% for a in range(30000) %}{{ loop.index }}{% endfor %}"
    yield "loops", "{% for a in some %}" * 20 + "x" + "{% endfor %}" * 20
    yield "loops", "{% for a in more %}{% set b = a %}{% set c = b %}{% set d = c %}{% endfor %}"
    yield "loops", "{% for a in more %}{{ loop.index }}{{ loop.last }}{{ loop.cycle('a', 'b') }}{% endfor %}"
    yield "loops", "{% for a in few %}{{ a | tojson | fromjson | tojson | length }}{% endfor %}"
    yield "loops", "{% for a in few %}{{ '%s %5d %.2f' % (a.b, a.a, a.a) }}{% endfor %}"
    yield (
        "loops",
        "{% for a in few %}{{ [a.a, a.a + 1, a.a * 2] | map('string') | join('-') | upper }}{% endfor %}",
    )
    yield "loops", "{% for a in more %}" + "{{ a + 1 - 1 * 2 / 2 }}" * 30 + "{% endfor %}"
    yield "loops", "{% for a in more %}{{ " + "(a if a else a) and " * 60 + "a }}{% endfor %}"
    yield "loops", "{% for a in more %}{{ [" + "[a, a], " * 60 + "a] | length }}{% endfor %}"
    yield (
        "loops",
        "{% for a in more %}{{ {" + ", ".join(f"'k{n}': a" for n in range(80)) + "} | length }}{% endfor %}",
    )
    yield "json", "{{ json | fromjson }}"
    yield "json", "{{ objects | fromjson }}"
    yield "json", "{{ nested | fromjson }}"
    yield "json", "{% if 1 %}{{ json }}{% endif %}"
    yield "json", "{% if 1 %}{{ nested }}{% endif %}"
    yield "json", "{{ maps | tojson }}"
    yield "json", "{{ deep | tojson }}"
    yield "json", "{{ few | map('tojson') | list }}"
    yield "json", "{{ text | b64encode }}{{ page | b64encode | b64decode | b64encode | length }}"
    yield "json", "{{ page | urlencode }}"
    yield "json", "{{ (page ~ page) | e }}"
    yield "values", "{{ deep == deep }}"
    yield "values", "{{ numbers == numbers }}"
    yield "values", "{{ wide == wide }}"
    yield "values", "{{ text == text }}{{ text < text }}"
    yield "values", "{{ wide | items }}"
    yield "values", "{{ numbers | list }}"
    yield "values", "{{ numbers | reverse }}"
    yield "values", "{{ [" + ", ".join(["numbers"] * 150) + "] }}"
    yield "nesting", "{{ " + "(" * 3_000 + "1" + ")" * 3_000 + " }}"
    yield "nesting", "{{ " + "[" * 1_500 + "]" * 1_500 + " }}"
    yield "nesting", "{{ " + "not " * 390 + "1 }}"
    yield "nesting", "{{ " + "-" * 390 + "1 }}"
    yield "nesting", "{{ 1" + " if 1 else 2" * 120 + " }}"
    yield "nesting", "{{ x" + ".y" * 190 + " }}"
    yield "nesting", "{{ x" + " | abs" * 190 + " }}"
    yield "nesting", "{% if 1 %}" * 700 + "{% endif %}" * 700
    yield "nesting", "{% if 1 %}" * 20 + "{% endif %}" * 20
    yield "nesting", "{% if 1 %}1" + "{% elif 1 %}1" * 700 + "{% endif %}"
    yield "nesting", "{{" * 5_000
    yield "nesting", "{% " * 5_000
    yield "nesting", "{#" * 15_000
    yield "nesting", "{{ '" + "\\" * 3_000 + "' }}{# #}"
    yield "nesting", "{#" + "-" * 30_000 + "#}{{ 1 }}{{ 2 }}"
    yield "nesting", " " * 32_000 + "{%- if 1 %}x{% endif %}"
    for name in sorted(FILTERS):
        for subject in ("numbers", "text", "page", "maps", "wide", "json", "few", "more", "alike", "big"):
            yield "filters", f"{{{{ {subject} | {name}{_ARGUMENTS.get(name, '')} }}}}"
    for name in sorted(METHODS):
        for subject in ("text", "page", "numbers", "wide"):
            yield "methods", f"{{{{ {subject}.{name}({_METHOD_ARGUMENTS.get(name, '')}) }}}}"
    for name in sorted(name for name in TESTS if name.isalpha()):
        for subject in ("numbers", "text", "wide"):
            given = f"({subject})" if TESTS[name].arguments else ""
            yield "tests", f"{{{{ {subject} is {name}{given} }}}}"
            yield (
                "tests",
                f"{{{{ maps | selectattr('a', '{name}'{', 3' if TESTS[name].arguments else ''}) | list }}}}",
            )


_ARGUMENTS: Final = {
    "replace": "('a', 'bbb')",
    "map": "('string')",
    "select": "('string')",
    "reject": "('number')",
    "selectattr": "('a')",
    "rejectattr": "('a', 'gt', 5)",
    "groupby": "('a')",
    "batch": "(3, 0)",
    "slice": "(7, 0)",
    "get": "('key00001')",
    "sort": "(attribute='a')",
    "indent": "(100, true)",
    "truncate": "(100000)",
    "center": "(9999)",
    "join": "('xxxxxxxx')",
    "trim": "('ab')",
    "split": "('a')",
    "sum": "('a')",
    "format": "(numbers)",
}
_METHOD_ARGUMENTS: Final = {
    "replace": "'a', 'bbb'", "get": "'key00001'", "split": "'b'", "rsplit": "'b'", "strip": "'ab'", "lstrip": "'ab'",
    "rstrip": "'ab'", "startswith": "'ab'", "endswith": "text", "join": "numbers", "format": "text", "zfill": "9999",
    "ljust": "9999, 'x'", "rjust": "9999", "center": "9999", "find": "'c'", "index": "'c'", "count": "'ba'",
    "removeprefix": "'a'", "removesuffix": "'b'",
}  # fmt: skip


def measure(text: str, held: dict[str, Any]) -> tuple[float, float, str]:
    """CPU milliseconds of compiling and of evaluating, and how it ended."""
    began = time.process_time()
    try:
        node = Prepared(compile_template(text, lambda name, offset: ["name", name]))
    except Refused as error:
        return (time.process_time() - began) * 1_000, 0.0, f"refused: {error.message[:60]}"
    compiled = time.process_time()
    try:
        evaluate(node, held)
        ended = "a value"
    except EvaluationFailed as error:
        ended = error.problem_code
    return (compiled - began) * 1_000, (time.process_time() - compiled) * 1_000, ended


def main() -> int:
    """Run every bomb, three times each, and print the slowest of the best."""
    arguments = argparse.ArgumentParser(
        prog="python -m tests.bench.bombs", description=__doc__.split("\n")[0]
    )
    arguments.add_argument("--limit-ms", type=float, default=100.0)
    arguments.add_argument("--show", type=int, default=15)
    given = arguments.parse_args()
    held, found = scope(), []
    for kind, text in bombs():
        best = min((measure(text, held) for _ in range(3)), key=lambda one: one[0] + one[1])
        found.append((best[0] + best[1], *best, kind, text))
    found.sort(reverse=True)
    print(f"{len(found)} bombs; the slowest, in CPU ms:")
    print(f"{'compile':>8} {'run':>8}  kind        ended")
    for _, compiling, running, ended, kind, text in found[: given.show]:
        print(f"{compiling:8.2f} {running:8.2f}  {kind:<11} {ended:<24} {text[:90]!r}")
    return 0 if found[0][0] <= given.limit_ms else 1


if __name__ == "__main__":
    sys.exit(main())
