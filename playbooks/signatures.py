"""Whether a filter, test, method or function is called as it may be: by name, number and kind of arguments.

Called by `playbooks.expressions` while it converts; everything here raises Refused with an offset or lets it pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from jinja2 import nodes as jinja

from playbooks.filters import FILTERS, FILTERS_ELSEWHERE, NO_CHANCE, NO_CLOCK, Filter
from playbooks.methods import METHODS, METHODS_ELSEWHERE
from playbooks.predicates import TESTS, TESTS_ELSEWHERE
from playbooks.problems import allowed, suggest
from playbooks.refusal import Refused

#: Functions authors reach for, and what to write instead.
_FUNCTIONS_ELSEWHERE: Final[Mapping[str, str]] = {
    "len": "Write `x | length`.",
    "str": "Write `x | string`.",
    "int": "Write `x | int`.",
    "float": "Write `x | float`.",
    "bool": "Write `x | bool`.",
    "list": "Write `x | list`.",
    "min": "Write `[a, b] | min`.",
    "max": "Write `[a, b] | max`.",
    "sum": "Write `x | sum`.",
    "abs": "Write `x | abs`.",
    "round": "Write `x | round(2)`.",
    "sorted": "Write `x | sort`.",
    "zip": "Work on lists side by side in a python step.",
    "enumerate": "Use `loop.index0` in a `{% for %}`.",
    "now": NO_CLOCK,
    "utcnow": NO_CLOCK,
    "today": NO_CLOCK,
    "time": NO_CLOCK,
    "random": NO_CHANCE,
    "uuid": "Use `execution_id`, or make one in a python step.",
    "uuid4": "Use `execution_id`, or make one in a python step.",
    "env": "An expression cannot see the environment; give the value in `workload` or with the request.",
    "lookup": "An expression reads nothing from outside; give the value in `workload` or with the request.",
    "token": "Credentials go by `auth: alias`, never through an expression.",
    "secret": "Credentials go by `auth: alias`, never through an expression.",
    "cycler": "Use `loop.cycle('a', 'b')` in a `{% for %}`.",
    "joiner": "Use `{% if not loop.last %},{% endif %}` in a `{% for %}`.",
    "lipsum": NO_CHANCE,
    "loop": "Loops do not call themselves; walk a tree in a python step.",
    "namespace": "Only as all of a `{% set x = namespace(count=0) %}`.",
    "super": "Templates have no blocks to inherit from.",
    "caller": "Templates have no macros.",
}


def function_refused(name: str, offset: int) -> Refused:
    """What to raise for a call of a function that there is not."""
    mend = _FUNCTIONS_ELSEWHERE.get(name, "The only functions are range() and dict(); see also the filters.")
    return Refused(offset, f"There is no function {name}().", mend)


def check_filter(node: jinja.Filter) -> Filter:
    """The filter that is named, given arguments it can take. Raises Refused."""
    if node.node is None:
        raise Refused(node.lineno, "A filter needs a value before it.", "Write `value | filter`.")
    chosen = FILTERS.get(node.name)
    if chosen is None:
        did = suggest(node.name, FILTERS)
        mend = FILTERS_ELSEWHERE.get(node.name) or allowed(sorted(FILTERS))
        raise Refused(node.lineno, f"There is no filter {node.name!r}.{did}", mend)
    refuse_stars(node)
    named = {str(part.key): part.value for part in node.kwargs}
    if chosen.open_ended:
        _check_open_ended(node, named)
    else:
        _check_arguments(node, chosen.parameters, chosen.required, named)
    return chosen


def check_test(node: jinja.Test) -> None:
    """Refuse a test there is not, or one with the wrong arguments."""
    chosen = TESTS.get(node.name)
    if chosen is None:
        did = suggest(node.name, TESTS)
        names = sorted(name for name in TESTS if name.isalpha())
        mend = TESTS_ELSEWHERE.get(node.name) or allowed(names)
        raise Refused(node.lineno, f"There is no test {node.name!r}.{did}", mend)
    refuse_stars(node)
    if node.kwargs or len(node.args) != chosen.arguments:
        wanted = "no argument" if chosen.arguments == 0 else "one argument"
        raise Refused(node.lineno, f"The test {node.name!r} takes {wanted}.")


def check_method(name: str, arguments: int, offset: int) -> None:
    """Refuse a method there is not, or one with the wrong number of arguments."""
    method = METHODS.get(name)
    if method is None:
        did = suggest(name, METHODS)
        mend = METHODS_ELSEWHERE.get(name) or allowed(sorted(METHODS))
        raise Refused(offset, f"There is no method {name!r}.{did}", mend)
    if not method.arguments_min <= arguments <= method.arguments_max:
        raise Refused(offset, f"`.{name}()` cannot take {arguments} arguments.")


def refuse_stars(node: jinja.Filter | jinja.Test | jinja.Call) -> None:
    """Refuse `*` and `**` in a call."""
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        raise Refused(node.lineno, "`*` and `**` arguments are not allowed.", "Write the arguments out.")


def _check_arguments(
    node: jinja.Filter, parameters: tuple[str, ...], required: int, named: dict[str, jinja.Expr]
) -> None:
    given = len(node.args)
    if given > len(parameters):
        raise Refused(node.lineno, f"The filter {node.name!r} takes at most {len(parameters)} arguments.")
    free = parameters[given:]
    for name in named:
        if name not in free:
            names = allowed(parameters) if parameters else "It takes none."
            raise Refused(node.lineno, f"The filter {node.name!r} cannot take {name!r} here.", names)
    missing = [name for name in parameters[given:required] if name not in named]
    if missing:
        raise Refused(node.lineno, f"The filter {node.name!r} needs {', '.join(missing)}.")


def _check_open_ended(node: jinja.Filter, named: dict[str, jinja.Expr]) -> None:
    """`map`, `select` and their kin: the name they are given must be written out, and must exist."""
    if node.name == "map":
        return _check_map(node, named)
    if node.name == "format":
        return None
    if named:
        raise Refused(node.lineno, f"The filter {node.name!r} takes no named arguments.")
    first = 0 if node.name in ("select", "reject") else 1
    if len(node.args) < first:
        raise Refused(node.lineno, f"The filter {node.name!r} needs an attribute's name.")
    if len(node.args) > first:
        name = _written(node, first)
        if name not in TESTS:
            raise Refused(node.lineno, f"There is no test {name!r}.{suggest(name, TESTS)}")
        if len(node.args) - first - 1 != TESTS[name].arguments:
            raise Refused(node.lineno, f"The test {name!r} takes {TESTS[name].arguments} arguments.")
    return None


def _check_map(node: jinja.Filter, named: dict[str, jinja.Expr]) -> None:
    if "attribute" in named:
        if node.args or set(named) - {"attribute", "default"}:
            raise Refused(node.lineno, "`map(attribute=…)` takes only `default` beside it.")
        return
    if not node.args:
        raise Refused(node.lineno, "`map` needs `attribute=…` or a filter's name.")
    name = _written(node, 0)
    chosen = FILTERS.get(name)
    if chosen is None or chosen.open_ended:
        raise Refused(node.lineno, f"`map` cannot use the filter {name!r}.{suggest(name, FILTERS)}")
    inner = jinja.Filter(None, name, node.args[1:], [], None, None, lineno=node.lineno)
    _check_arguments(inner, chosen.parameters, chosen.required, named)


def _written(node: jinja.Filter, index: int) -> str:
    part = node.args[index]
    if isinstance(part, jinja.Const) and isinstance(part.value, str):
        return part.value
    raise Refused(part.lineno, f"`{node.name}` wants a name in quotes here.")
