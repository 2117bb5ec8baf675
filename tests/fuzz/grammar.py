"""Random expressions, templates and values, by the language's own grammar: most of them mean something.

Used by the fuzz (`tests.fuzz.expressions`) and by the property tests that compare with Jinja2. The same chance gives
the same text.
"""

from __future__ import annotations

import json
import random
from typing import Any

from playbooks.filters import FILTERS
from playbooks.methods import METHODS
from playbooks.predicates import TESTS

#: The names a scope of `values` holds, by the kind of value they usually have.
NAMES = ("n", "i", "t", "u", "xs", "ys", "rows", "m", "yes", "nothing")
_OPERATORS = (
    "+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or",
)  # fmt: skip
_TESTS = sorted(name for name in TESTS if name.isalpha())
_OPEN_ENDED = {
    "map": ("'upper'", "attribute='a'", "'default', 1", "attribute='b', default='q'", "'round', 1"),
    "select": ("", "'odd'", "'in', xs", "'gt', 1", "'defined'"),
    "reject": ("", "'none'", "'equalto', t"),
    "selectattr": ("'a'", "'a', 'gt', 0", "'b', 'equalto', t"),
    "rejectattr": ("'b'", "'zz', 'defined'", "'a', 'none'"),
    "format": ("t", "n, i", "a=t"),
}
_TEXTS = (
    "''",
    "'a'",
    "'ab c'",
    "'A-b'",
    "'%s|%05.1f'",
    "'{}{:>7}'",
    "'b64'",
    "'{\"a\": [1]}'",
    "'12'",
    "'é ß'",
    "'\\n'",
)
#: Filters that Jinja2 answers with a generator or a text of its own kind, which is true or adds otherwise than ours.
_GENERATORS = frozenset(
    {"map", "select", "reject", "selectattr", "rejectattr", "unique", "batch", "slice", "reverse", "items"}
)
_MARKED = frozenset({"e", "escape", "forceescape", "safe", "tojson"})
_NUMBERS = ("0", "1", "2", "-3", "7", "2.5", "1e3", "63", "200", "1e300", "9223372036854775807")


class Grammar:
    """Draws texts; `wild` mixes in what is likely to be refused or to fail."""

    def __init__(self, chance: random.Random, *, wild: bool = True) -> None:
        self.chance, self.wild = chance, wild
        self.locals: list[str] = []

    def pick(self, options: Any) -> Any:
        """One of some options."""
        return options[int(self.chance.random() * len(options))]

    def value(self, depth: int = 3) -> Any:
        """A plain value."""
        draw = self.chance.random()
        if depth == 0 or draw < 0.6:
            return self.pick(
                (
                    None, True, False, 0, 1, -7, 2**63 - 1, 2.5, -0.5, 1e300, "", "a", "Ab c", "12", "x" * 40,
                    self.chance.randrange(-99, 99), self.text(),
                )
            )  # fmt: skip
        if draw < 0.8:
            return [self.value(depth - 1) for _ in range(self.chance.randrange(5))]
        return {
            self.pick(("a", "b", "k", "x y")): self.value(depth - 1) for _ in range(self.chance.randrange(4))
        }

    def text(self) -> str:
        """A short text of awkward characters."""
        return "".join(self.chance.choices("abAB 01.,-_%{}'\"\\\n\té\U0001f600", k=self.chance.randrange(9)))

    def scope(self) -> dict[str, Any]:
        """Values under NAMES, mostly of the kind the names say."""
        draw = self.chance
        made: dict[str, Any] = {
            "n": self.pick((0, 1, -2.5, 3, True, 40)),
            "i": draw.randrange(-9, 60),
            "t": self.pick(("a", "Bc d", "", "12", self.text())),
            "u": self.text(),
            "xs": [draw.randrange(-9, 9) for _ in range(draw.randrange(7))],
            "ys": [self.pick(("a", "b", "B", "cd")) for _ in range(draw.randrange(5))],
            "rows": [
                {"a": draw.randrange(-3, 3), "b": self.pick(("x", "Y"))} for _ in range(draw.randrange(4))
            ],
            "m": {key: draw.randrange(-9, 9) for key in ("a", "b", "B")[: draw.randrange(4)]},
            "yes": True,
            "nothing": None,
        }
        if self.wild and draw.random() < 0.5:
            made[self.pick(NAMES)] = self.value()
        return made

    def atom(self) -> str:
        """A name or something written out."""
        draw = self.chance.random()
        if draw < 0.5:
            return str(self.pick((*NAMES, *self.locals)))
        if draw < 0.65:
            return str(self.pick(_NUMBERS if self.wild else _NUMBERS[:8]))
        if draw < 0.8:
            return str(self.pick(_TEXTS))
        if draw < 0.9:
            return str(
                self.pick(("m.a", "m['b']", "xs[0]", "xs[1:]", "t[::-1]", "rows[0].a", "m.b", "xs[-1]"))
            )
        if self.wild and draw < 0.93:
            return str(
                self.pick(("missing", "m.zz", "workload.k", "ctx", "execution_id", "m.zz.q", "xs[99]"))
            )
        return str(
            self.pick(("true", "none", "[]", "{}", "[n, t]", "{'k': i}", "range(4)", "dict(a=t)", "(i, t)"))
        )

    def expression(self, depth: int = 3) -> str:
        """The text of an expression."""
        draw = self.chance.random()
        if depth <= 0 or draw < 0.2:
            return self.atom()
        inner = self.expression(depth - 1)
        if draw < 0.45:
            return f"({inner}) {self.pick(_OPERATORS)} ({self.expression(depth - 1)})"
        if draw < 0.72:
            return self._filtered(inner, depth)
        if draw < 0.82:
            test = self.pick(_TESTS)
            wanted = TESTS[test].arguments or (self.wild and draw > 0.81)
            arguments = f"({self.expression(depth - 2)})" if wanted else ""
            return f"({inner}) is {self.pick(('', 'not '))}{test}{arguments}"
        if draw < 0.9:
            method = self.pick(sorted(METHODS))
            count = self.chance.randint(METHODS[method].arguments_min, min(METHODS[method].arguments_max, 3))
            given = ", ".join(self.expression(depth - 2) for _ in range(count))
            return f"({inner}).{method}({given})"
        if draw < 0.95:
            return f"({inner} if {self.expression(depth - 1)} else {self.expression(depth - 1)})"
        parts = [self.expression(depth - 2) for _ in range(3)]
        return str(
            self.pick(
                (
                    f"-({inner})", f"not ({inner})", f"({inner})[{parts[0]}]", f"[{inner}, {parts[0]}]",
                    f"({inner})[{parts[0]}:{parts[1]}:{parts[2]}]", f"range({parts[0]}, {parts[1]})",
                    f"{{'a': {inner}, 'b': {parts[0]}}}", f"({inner}) < ({parts[0]}) <= ({parts[1]})",
                )
            )
        )  # fmt: skip

    def _filtered(self, inner: str, depth: int) -> str:
        name = self.pick([name for name in sorted(FILTERS) if self.wild or name not in _MARKED])
        if name in _OPEN_ENDED:
            given = self.pick(_OPEN_ENDED[name])
        else:
            parameters = FILTERS[name].parameters
            count = self.chance.randint(min(FILTERS[name].required, len(parameters)), len(parameters))
            given = ", ".join(self.expression(depth - 2) for _ in range(count))
        made = f"({inner}) | {name}({given})" if given else f"({inner}) | {name}"
        return made if self.wild or name not in _GENERATORS else f"{made} | list"

    def template(self, depth: int = 3) -> str:
        """A text with statements, comments and white-space control."""
        return "".join(self._piece(depth) for _ in range(self.chance.randrange(1, 4)))

    def _piece(self, depth: int) -> str:
        draw = self.chance.random()
        left, right = self.pick(("", "", "", "-", "+")), self.pick(("", "", "", "-"))
        if draw < 0.25 or depth == 0:
            return str(self.pick(("a", " ", "\n", ", ", '"', "[", "]", "{ }", "  x\n", "'", "7", "\n\n")))
        if draw < 0.5:
            return f"{{{{{left} {self.expression(2)} {right}}}}}"
        if draw < 0.55:
            return str(
                self.pick(
                    (
                        "{# c #}",
                        "{#- {{ x }} -#}",
                        "{% raw %}{{ y }}{% endraw %}",
                        "{%- raw -%} z {% endraw %}",
                    )
                )
            )
        return f"{self._statement(depth, left, right)}"

    def _statement(self, depth: int, left: str, right: str) -> str:
        kept = list(self.locals)
        draw = self.chance.random()
        # Jinja2 takes a name for a template's own from its beginning where it is set anywhere in it; ours is the
        # scope's until then.
        name = self.pick(("x", "y", "z", "t") if self.wild else ("x", "y", "z"))
        begin, end = f"{{%{left} ", f" {right}%}}"
        if draw < 0.35:
            test = f"{begin}if {self.expression(2)}{end}{self.template(depth - 1)}"
            more = f"{begin}elif {self.expression(1)}{end}{self.template(depth - 1)}" if draw < 0.1 else ""
            other = f"{begin}else{end}{self.template(depth - 1)}" if draw < 0.25 else ""
            return f"{test}{more}{other}{{% endif %}}"
        if draw < 0.7:
            items = (
                self.expression(2) if draw < 0.5 else self.pick(("xs", "ys", "rows", "m", "range(3)", "t"))
            )
            target = name if draw < 0.6 else self.pick((f"{name}, w", name))
            if draw > 0.6 and "," in target:
                items = self.pick(("m.items()", "m | dictsort", "xs | batch(2)", "rows | groupby('b')"))
            chosen = f" if {self.expression(1)}" if self.chance.random() < 0.2 else ""
            self.locals += [
                name,
                self.pick(("loop.index", "loop.last", "loop.revindex0", "loop.cycle('a', 'b')")),
            ]
            body = self.template(depth - 1)
            self.locals = kept
            other = f"{{% else %}}{self.template(depth - 1)}" if self.chance.random() < 0.2 else ""
            return f"{begin}for {target} in {items}{chosen}{end}{body}{other}{{% endfor %}}"
        if draw < 0.85:
            value = self.expression(2)
            self.locals.append(name)
            return f"{begin}set {name} = {value}{end}"
        if draw < 0.9:
            space = f"s{self.chance.randrange(1000)}"
            step = self.expression(1)
            return (
                f"{{% set {space} = namespace(a={self.expression(1)}) %}}{{% for x in xs %}}"
                f"{{% set {space}.a = {space}.a ~ ({step}) %}}{{% endfor %}}{{{{ {space}.a }}}}"
            )
        if draw < 0.95:
            return f"{begin}set {name}{end}{self.template(depth - 1)}{{% endset %}}{{{{ {name} | length }}}}"
        return f"{begin}with {name} = {self.expression(2)}{end}{self.template(depth - 1)}{{% endwith %}}"


def mutated(text: str, chance: random.Random) -> str:
    """The text with something taken out, doubled, put in or exchanged."""
    for _ in range(chance.randrange(1, 4)):
        at, to = sorted((chance.randrange(len(text) + 1), chance.randrange(len(text) + 1)))
        piece = text[at : min(to, at + 12)]
        draw = chance.random()
        if draw < 0.3:
            text = text[:at] + text[at + len(piece) :]
        elif draw < 0.5:
            text = text[:at] + piece * chance.randrange(2, 9) + text[at:]
        elif draw < 0.8:
            put = chance.choice(
                ("{{", "}}", "{%", "%}", "{#", "-", "|", "(", ")", "[", "]", "'", '"', ".", ",", "~", "\\", "\x00",
                 "\r", "__class__", "|attr('x')", ".__init__", "{% for x in x %}", "{% endfor %}", "{{- ", " -}}",
                 "\ud800", "**", "9" * 30, " if ", " else ", "loop", "\u2028", "lipsum()", "self",
                 "{% macro m() %}", "%}{%")
            )  # fmt: skip
            text = text[:at] + put + text[at:]
        else:
            text = text[:at] + piece[::-1] + text[at + len(piece) :]
    return text


def as_json(value: Any) -> str:
    """A value as a message of the fuzz shows it."""
    return json.dumps(value, default=repr)[:2000]
