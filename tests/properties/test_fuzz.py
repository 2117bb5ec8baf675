"""A little of the fuzz with every run of the tests; the million is `python -m tests.fuzz.expressions`."""

from __future__ import annotations

import pytest

from playbooks.budget import Budget
from playbooks.refusal import Refused
from playbooks.statements import compile_template
from tests.fuzz import expressions
from tests.fuzz.published import PUBLISHED


@pytest.mark.parametrize("seed", [1, 2])
def test_random_inputs_end_as_they_may(seed: int) -> None:
    """Two thousand expressions, templates and noises: refused at a place, a value, or a failure; nothing else."""
    tally = expressions.Tally()
    expressions.fuzz(2_000, seed, tally)
    assert sum(tally.ended.values()) == 2_000
    assert min(tally.ended["refused"], tally.ended["value"], tally.ended["expression_failed"]) > 100


@pytest.mark.parametrize("text", PUBLISHED)
def test_what_is_published_compiles(text: str) -> None:
    """Each of the forms that published playbooks use is a template here."""
    compile_template(text, expressions.resolve)


def test_the_fuzz_sees_what_it_looks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted change of the scope, an exception of Python's and a refusal without a place are all caught."""
    scope = {"ctx": {}, "workload": {}, "xs": [1]}

    def sum_that_changes(budget: Budget, value: list[int]) -> int:
        value.append(1)
        return 1

    def sum_that_breaks(budget: Budget, value: list[int]) -> int:
        raise ZeroDivisionError

    from playbooks import nodes

    chosen = nodes.FILTERS["sum"]
    for planted in (sum_that_changes, sum_that_breaks):
        monkeypatch.setitem(nodes.FILTERS, "sum", type(chosen)(planted))  # type: ignore[arg-type]
        with pytest.raises((expressions.Escape, ZeroDivisionError)):
            expressions.run("{{ xs | sum }}", scope, {**scope, "xs": [1]}, expressions.Tally())
    with pytest.raises(expressions.Escape):
        _ = expressions._Trap().x

    def refuse(text: str, resolve: object) -> None:
        raise Refused(99, "no")

    monkeypatch.setattr(expressions, "compile_template", refuse)
    with pytest.raises(expressions.Escape):
        expressions.run("{{ 1 }}", scope, scope, expressions.Tally())
