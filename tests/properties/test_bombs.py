"""Expressions made to exhaust are ended by the evaluator's own budget, however large the values they work on.

What they cost in time is a bench, `python -m tests.bench.bombs`; here only work is counted.
"""

from __future__ import annotations

from typing import Any

import pytest

from edge.core.errors import EvaluationFailed
from edge.core.limits import EVALUATION_BYTES_MAX, EVALUATION_STEPS_MAX, PAYLOAD_BYTES_MAX
from playbooks.budget import Budget
from playbooks.evaluate import evaluate
from playbooks.nodes import Prepared
from playbooks.refusal import Refused
from playbooks.statements import compile_template
from tests.bench.bombs import bombs, scope

#: How an expression may end that is not worth a value.
ENDS = {"expression_too_long", "expression_too_large", "expression_failed", "expression_undefined"}


@pytest.fixture(scope="module")
def held() -> dict[str, Any]:
    return scope()


def kinds() -> list[str]:
    return sorted({kind for kind, _ in bombs()})


@pytest.mark.parametrize("kind", kinds())
def test_bombs_end_within_the_budget(held: dict[str, Any], kind: str) -> None:
    """Each is refused while compiling, fails by its budget, or gives a value no larger than one may be."""
    ended = {ending(text, held) for one, text in bombs() if one == kind}
    assert ended <= ENDS | {"refused", "value"}
    assert ended & {"refused", "expression_too_long", "expression_too_large"} or kind in ("methods", "tests")


def ending(text: str, held: dict[str, Any]) -> str:
    """How it ends; that nothing but the budget's allowance was spent is asserted on the way."""
    try:
        node = Prepared(compile_template(text, lambda name, offset: ["name", name]))
    except Refused:
        return "refused"
    budget = Budget()
    try:
        node.run(held, budget)
    except EvaluationFailed as error:
        return error.problem_code
    assert 0 <= budget.steps <= EVALUATION_STEPS_MAX, text
    assert 0 <= budget.size_bytes <= EVALUATION_BYTES_MAX, text
    return "value"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{{ range(10 ** 18) }}", "expression_too_large"),
        ("{{ 'x' * 10 ** 12 }}", "expression_too_large"),
        ("{{ 2 ** 10 ** 9 }}", "expression_failed"),
        ("{{ big * big }}", "expression_failed"),
        ("{{ big + big }}", None),
        ("{{ '%99999999d' % 1 }}", "expression_failed"),
        ("{{ 'x' | center(10 ** 9) }}", "expression_failed"),
        ("{{ some | batch(10 ** 9, 0) }}", "expression_too_large"),
        ("{{ some | slice(10 ** 9, 0) }}", "expression_too_large"),
        ("{{ text | wordcount }}", "expression_too_long"),
        ("{{ numbers is in(numbers) }}", "expression_too_long"),
        ("{{ signs.strip(signs[1:]) }}", "expression_too_long"),
        ("{{ deep == deep }}", "expression_too_long"),
        ("{{ nested | fromjson }}", "expression_too_long"),
        ("{{ wide | urlencode }}", "expression_too_large"),
        ("{{ text.format(text) }}", "expression_too_long"),
    ],
)
def test_what_ends_them(held: dict[str, Any], text: str, code: str | None) -> None:
    """The bound that each runs into is the one meant for it."""
    node = Prepared(compile_template(text, lambda name, offset: ["name", name]))
    if code is None:
        evaluate(node, held)
        return
    with pytest.raises(EvaluationFailed) as caught:
        evaluate(node, held)
    assert caught.value.problem_code == code
    assert caught.value.mend or code == "expression_failed"


def test_what_repeats_what_it_reads_is_measured(held: dict[str, Any]) -> None:
    """A list of what is large already is refused where it becomes larger than a payload may be."""
    text = "{{ [" + ", ".join(["numbers"] * 150) + "] }}"
    assert PAYLOAD_BYTES_MAX < 150 * 8 * 1_000_000
    with pytest.raises(EvaluationFailed) as caught:
        evaluate(compile_template(text, lambda name, offset: ["name", name]), held)
    assert caught.value.problem_code == "expression_too_large"
