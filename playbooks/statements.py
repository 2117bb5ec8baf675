"""Templates with `{% %}` statements, comments or white-space control to nodes.

Called by `playbooks.templates` for a text that `{{ }}` alone cannot say. Knows Jinja2's scopes: a `{% for %}` and a
`{% with %}` keep what is set in them to themselves, an `{% if %}` does not. What runs is `playbooks.passages`.
"""

from __future__ import annotations

from typing import Final

from jinja2 import nodes as jinja

from playbooks.expressions import NODE_DEPTH_MAX, convert_expression
from playbooks.nodes import RESERVED_NAMES
from playbooks.parse import parse_template
from playbooks.refusal import NodeList, Refused, Resolve, SpaceNode

#: Names that mean something of their own everywhere and that a template may not give another meaning.
_FIXED: Final = frozenset(
    {*RESERVED_NAMES, "event", "iter", "keychain", "loop", "namespace", "outcome", "output"}
    | {"_prev", "_task", "_attempt", "_index", "_total"}
)
_MEND_PLAIN: Final = "Take the statements apart over `set`, or over steps."


def compile_template(text: str, resolve: Resolve, depth: int = 0) -> NodeList:
    """The node of a template. Raises Refused with an offset into the text.

    One expression and nothing else keeps its own type, as in `{{ }}`. A text without statements is a text; one
    with statements is read back as a value where it is JSON's, as NoETL's engines do.
    """
    body = parse_template(text)
    parts = [part for node in body if isinstance(node, jinja.Output) for part in node.nodes]
    if len(body) == len([node for node in body if isinstance(node, jinja.Output)]):
        holes = [part for part in parts if not isinstance(part, jinja.TemplateData)]
        if len(parts) == 1 and holes:
            return convert_expression(parts[0], resolve, depth)
        if not holes:
            return ["const", "".join(part.data for part in parts if isinstance(part, jinja.TemplateData))]
        made: NodeList = ["text"]
        for part in parts:
            if isinstance(part, jinja.TemplateData):
                made.append(["const", part.data])
            else:
                made.append(convert_expression(part, resolve, depth + 1))
        return made
    try:
        return ["template", _Scope(resolve).body(body, depth + 1)]
    except RecursionError as error:
        raise Refused(0, "The template is nested too deeply.", _MEND_PLAIN) from error


class _Scope:
    """What is known of a template's own names at one place of it."""

    def __init__(self, resolve: Resolve) -> None:
        self._outer = resolve
        #: Names that have a value here whatever was chosen before; which of them are namespaces; all namespaces.
        self._sure, self._spaces, self._declared = set[str](), set[str](), set[str]()

    def _copy(self) -> _Scope:
        made = _Scope(self._outer)
        made._sure, made._spaces, made._declared = set(self._sure), set(self._spaces), self._declared
        return made

    def _resolve(self, name: str, offset: int) -> NodeList:
        if name in self._spaces:
            return SpaceNode(["name", name])
        if name in self._sure:
            return ["name", name]
        return self._outer(name, offset)

    def _expression(self, node: jinja.Node, depth: int) -> NodeList:
        return convert_expression(node, self._resolve, depth)

    def _bind(self, name: str, offset: int) -> None:
        if name in _FIXED:
            raise Refused(offset, f"`{name}` has a meaning of its own here.", "Choose another name.")
        self._sure.add(name)
        self._spaces.discard(name)

    def body(self, nodes: list[jinja.Node], depth: int) -> NodeList:
        """The statements of a list of Jinja2's nodes, in order."""
        if depth > NODE_DEPTH_MAX:
            raise Refused(nodes[0].lineno if nodes else 0, "This is nested too deeply.", _MEND_PLAIN)
        made: NodeList = []
        for node in nodes:
            if isinstance(node, jinja.Output):
                for part in node.nodes:
                    if isinstance(part, jinja.TemplateData):
                        made.append(["put", part.data])
                    else:
                        made.append(["show", self._expression(part, depth + 2)])
            else:
                made.append(self._statement(node, depth + 1))
        return made

    def _statement(self, node: jinja.Node, depth: int) -> NodeList:
        if isinstance(node, jinja.If):
            return self._if(node, depth)
        if isinstance(node, jinja.For):
            return self._for(node, depth)
        if isinstance(node, jinja.Assign):
            return self._set(node, depth)
        if isinstance(node, jinja.AssignBlock):
            if node.filter is not None:
                raise Refused(
                    node.lineno, "`{% set x | filter %}` is not allowed.", "Write `{{ x | filter }}`."
                )
            inner = self._copy().body(node.body, depth + 1)
            (name,) = self._targets(node.target)
            return ["capture", name, inner]
        if isinstance(node, jinja.With):
            inside = self._copy()
            values = [self._expression(value, depth + 3) for value in node.values]
            names = [inside._targets(target) for target in node.targets]
            return [
                "with",
                [list(pair) for pair in zip(names, values, strict=True)],
                inside.body(node.body, depth + 1),
            ]
        kind = type(node).__name__
        raise Refused(node.lineno, f"Templates cannot hold this ({kind}).", "See playbooks/DESIGN.md.")

    def _if(self, node: jinja.If, depth: int) -> NodeList:
        choices, ends = [], []
        for branch in (node, *node.elif_):
            test = self._expression(branch.test, depth + 3)
            inside = self._copy()
            choices.append([test, inside.body(branch.body, depth + 3)])
            ends.append(inside)
        last = self._copy()
        otherwise = last.body(node.else_, depth + 1)
        ends.append(last)
        self._sure = set.intersection(*[end._sure for end in ends])
        self._spaces = set.intersection(*[end._spaces for end in ends])
        return ["cond", choices, otherwise]

    def _for(self, node: jinja.For, depth: int) -> NodeList:
        if node.recursive:
            raise Refused(node.lineno, "`recursive` loops are not allowed.", "Walk a tree in a python step.")
        items = self._expression(node.iter, depth + 1)
        inside, otherwise = self._copy(), self._copy().body(node.else_, depth + 1)
        names = inside._targets(node.target)
        test = None if node.test is None else inside._expression(node.test, depth + 1)
        inside._sure.add("loop")
        return ["for", names, items, test, inside.body(node.body, depth + 1), otherwise]

    def _set(self, node: jinja.Assign, depth: int) -> NodeList:
        if isinstance(node.target, jinja.NSRef):
            name, key = node.target.name, node.target.attr
            if name not in self._spaces:
                mend = f"Begin with `{{% set {name} = namespace({key}=…) %}}`."
                raise Refused(node.lineno, f"`{name}` is no namespace here.", mend)
            return ["set", [f"{name}.{key}"], self._expression(node.node, depth + 1)]
        call = node.node
        space = (
            isinstance(call, jinja.Call)
            and isinstance(call.node, jinja.Name)
            and call.node.name == "namespace"
        )
        if space and isinstance(node.target, jinja.Name):
            assert isinstance(call, jinja.Call)
            if node.target.name in self._declared:
                message = f"There are two namespaces named `{node.target.name}`."
                raise Refused(node.lineno, message, "Give each a name of its own.")
            self._declared.add(node.target.name)
            if call.args or call.dyn_args is not None or call.dyn_kwargs is not None:
                raise Refused(node.lineno, "namespace() takes values by name.", "Write `namespace(count=0)`.")
            values: NodeList = []
            for pair in call.kwargs:
                values += [str(pair.key), self._expression(pair.value, depth + 2)]
            self._bind(node.target.name, node.lineno)
            self._spaces.add(node.target.name)
            return ["space", node.target.name, values]
        value = self._expression(call, depth + 1)
        return ["set", self._targets(node.target), value]

    def _targets(self, target: jinja.Node) -> list[str]:
        """The names a value is given to; bound from here on."""
        names = target.items if isinstance(target, (jinja.Tuple, jinja.List)) else [target]
        made = []
        for name in names:
            if not isinstance(name, jinja.Name):
                raise Refused(target.lineno, "Only names can be set.", "Write `{% set name = … %}`.")
            self._bind(name.name, name.lineno)
            made.append(name.name)
        if len(set(made)) != len(made):
            raise Refused(target.lineno, "A name stands twice here.", "Name each part once.")
        return made
