"""What is no expression: refused by the grammar while compiling, or as a node when a blueprint is read."""

from __future__ import annotations

from typing import Any

import pytest

from playbooks.expressions import compile_expression
from playbooks.nodes import prepare
from playbooks.refusal import Refused


@pytest.mark.parametrize(
    "node",
    [[], ["nope"], ["const"], ["const", {}], ["bin", "^", ["const", 1], ["const", 1]], ["attr", ["const", 1], 2],
     ["filter", "no", ["const", 1], [], {}], ["dict", "a"], ["dict", 1, ["const", 1]], "x", None, ["range", []]],
)  # fmt: skip
def test_what_is_no_node(node: Any) -> None:
    """Nonsense in a blueprint is found when it is read, not when it runs."""
    with pytest.raises(ValueError, match=r"not an? |an attribute|needs text keys|takes one"):
        prepare(node)


@pytest.mark.parametrize(
    ("text", "offset", "said"),
    [
        ("a +", 3, "ends too early"),
        ("", 0, "empty"),
        ("a b", 2, "should end here"),
        ("a | nope", 4, "no filter 'nope'"),
        ("a | uper", 4, "Did you mean 'upper'"),
        ("a is nope", 2, "no test 'nope'"),
        ("1 + a.foo()", 9, "no method 'foo'"),
        ("a.__class__()", 11, "no method '__class__'"),
        ("len(a)", 3, "no function len()"),
        ("a if b", 0, "needs `else`"),
        ("x $ y", 2, "unexpected char"),
        ("1 + {1: 2}", 5, "text in quotes"),
        ("{'a': 1, 'a': 2}", 9, "stands twice"),
        ("f(*a)", 1, "not allowed"),
        ("a | replace('x')", 4, "needs new"),
        ("a | upper(1)", 4, "at most 0"),
        ("a | round(digits=1)", 4, "cannot take 'digits'"),
        ("a | map(b)", 8, "name in quotes"),
        ("a | map('nope')", 4, "cannot use the filter"),
        ("a | select('nope')", 4, "no test"),
        ("a | selectattr()", 4, "attribute"),
        ("99999999999999999999", 0, "64 bits"),
        ("1e999", 0, "not finite"),
        ("'\\ud800'", 0, "surrogate"),
        ("(" * 30 + "a" + ")" * 30, 24, "deeper than 24"),
        ("+".join(["a"] * 300), 400, "at most 400 tokens"),
        ("+".join(["a"] * 150), 0, "too deeply"),
        ("a" * 5000, 0, "at most 4096 bytes"),
        ("range()", 5, "one to three"),
        ("a.get(k=1)", 5, "no named arguments"),
        ("a.b.get()", 7, "cannot take 0 arguments"),
    ],
)
def test_what_the_grammar_refuses(text: str, offset: int, said: str) -> None:
    """What is no expression of ours is refused at compile time, at its own column."""
    with pytest.raises(Refused) as caught:
        compile_expression(text, lambda name, at: ["name", name])
    assert said in f"{caught.value.message} {caught.value.mend}"
    if said != "too deeply":
        assert abs(caught.value.offset - offset) <= 1, caught.value.offset
