"""A playbook's `workload`: plain default values, and templates that are worked out when an execution starts.

Called by `playbooks.compile`. A template sees the workload as the request left it, and `execution_id`; what it needs
of other templates is worked out first, and that they do not need each other in a circle is known here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from playbooks.expressions import NodeList, Refused, Resolve
from playbooks.fields import entries
from playbooks.loader import Listing, Mapping_, Marked, Scalar
from playbooks.nodes import RESERVED_NAMES
from playbooks.problems import Source
from playbooks.templates import compile_scalar, has_template
from playbooks.walks import inside

#: Where a template stands in the workload: keys of maps and indices of lists.
Path = tuple[str | int, ...]
Found = tuple[Path, Scalar, NodeList]

_MEND: Final = "A default value sees `workload`, its keys by bare name, and `execution_id`."
_NOT_YET: Final = frozenset(
    {*RESERVED_NAMES, "event", "iter", "job", "keychain", "loop", "outcome", "output", "vars"}
    | {"_prev", "_task", "_attempt", "_index", "_total"}
) - {"workload", "execution_id"}


def read_workload(
    source: Source, node: Marked | None, steps: Collection[str]
) -> tuple[dict[str, Any], list[Any]]:
    """The default values, none in the place of each template, and `[path, node]` of these in working order."""
    found: list[Found] = []
    keys = {key.value for key, _ in entries(source, node, "`workload`")}
    resolve = _resolver(frozenset(steps) - keys)
    values = {
        key.value: _read(source, value, (key.value,), resolve, found)
        for key, value in entries(source, node, "`workload`")
    }
    return values, _ordered(source, found)


def _resolver(steps: Collection[str]) -> Resolve:
    def resolve(name: str, offset: int) -> NodeList:
        if name in _NOT_YET:
            raise Refused(offset, f"The name {name!r} means nothing in `workload`.", _MEND)
        if name in steps:
            message = f"`workload` cannot look at the result of {name!r}: it is there before any step."
            raise Refused(offset, message, "Compute it in a transform step.")
        return ["name", name]

    return resolve


def _read(
    source: Source, node: Marked, path: Path, resolve: Resolve, found: list[tuple[Path, Scalar, NodeList]]
) -> Any:
    if isinstance(node, Listing):
        return [_read(source, item, (*path, index), resolve, found) for index, item in enumerate(node.items)]
    if isinstance(node, Mapping_):
        return {
            key.value: _read(source, value, (*path, key.value), resolve, found) for key, value in node.pairs
        }
    if not has_template(node.value):
        return node.value
    found.append((path, node, compile_scalar(source, node, resolve)))
    return None


def _ordered(source: Source, found: Sequence[Found]) -> list[Any]:
    """The templates, each after those whose places it looks at. Problems are noted in `source`."""
    needs = [
        [
            other
            for other, (place, _, _) in enumerate(found)
            if any(place[: len(ref)] == ref[: len(place)] for ref in _references(node))
        ]
        for _, _, node in found
    ]
    made: list[int] = []
    state = [0] * len(found)  # not looked at, being looked at, done
    for first in range(len(found)):
        # An explicit stack: a chain of templates may be longer than Python's.
        stack = [(first, iter(needs[first]))] if state[first] == 0 else []
        state[first] = state[first] or 1
        while stack:
            here, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                state[here] = 2
                made.append(here)
                stack.pop()
            elif state[following] == 1:
                one, other = _written(found[here][0]), _written(found[following][0])
                message = (
                    f"`{one}` needs itself." if one == other else f"`{one}` and `{other}` need each other."
                )
                source.refuse(found[here][1].start, message, "Write one of them out.")
                return []
            elif state[following] == 0:
                state[following] = 1
                stack.append((following, iter(needs[following])))
    return [[list(found[index][0]), found[index][2]] for index in made]


def _references(node: NodeList) -> list[Path]:
    """The places in the workload a node looks at, as far as they are written out."""
    chain = _chain(node)
    if chain is not None:
        return [chain[1:] if chain[0] == "workload" else chain]
    return [path for part in inside(node) for path in _references(part)]


def _chain(node: NodeList) -> Path | None:
    """`a.b[0]` as ("a", "b", 0); None where the node is no such chain."""
    if node[0] == "name":
        return (node[1],)
    if node[0] == "attr" or (node[0] == "item" and node[2][0] == "const"):
        inner = _chain(node[1])
        return None if inner is None else (*inner, node[2] if node[0] == "attr" else node[2][1])
    return None


def _written(path: Path) -> str:
    return ".".join(map(str, path))
