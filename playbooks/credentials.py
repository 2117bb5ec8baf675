"""Credentials in a playbook: the aliases it declares, which tools may name them, and where templates may read them.

Called by `playbooks.compile`, `steps` and `tasks`. Default deny, and no default connection: a tool goes by the alias
it names or by none. It must never see a value: those are in the box's keychain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from edge.core.access import GRANTS, Access
from playbooks.expressions import NodeList, Resolve
from playbooks.fields import choice, fields, items, text
from playbooks.grants import read_alias
from playbooks.loader import Mapping_, Marked, Scalar
from playbooks.model.keychain import CENTRE_KINDS, KEYCHAIN_ENTRY, KINDS, SCOPES
from playbooks.problems import Source, allowed, suggest
from playbooks.shape import HOSTED
from playbooks.templates import compile_tree

_NAME: Final = ["name", "keychain"]
_READS: Final = ("attr", "item")
#: What `{{ keychain.alias }}` is by itself: the secret, where the kind has one. Without a kind it is a bearer's.
_SECRETS: Final = {"": "token", "bearer": "token", "api_key": "api_key"}
_ALIASES: Final = GRANTS.index("keychain")


def read_keychain(source: Source, node: Marked | None) -> dict[str, str]:
    """The aliases a playbook declares, with their kinds; "" where it does not say one."""
    found: dict[str, str] = {}
    for item in items(source, node, "`keychain`"):
        entry = fields(source, item, "An alias of the keychain", KEYCHAIN_ENTRY)
        name = read_alias(source, entry.get("name"))
        if "name" not in entry and isinstance(item, Mapping_):
            source.refuse(item.start, "This alias has no `name`.", "Write `- name: api`.")
        if name is None:
            continue
        if name in found:
            source.refuse(item.start, f"There are two aliases named {name!r:.80}.", "Take one out.")
        found[name] = _kind(source, entry.get("kind"), name)
        choice(source, entry.get("scope"), "`scope`", SCOPES)
        text(source, entry.get("description"), "`description`")
    return found


def _kind(source: Source, node: Marked | None, name: str) -> str:
    kind = text(source, node, "`kind`") or ""
    if kind in KINDS or node is None:
        return kind
    message = f"There is no credential of kind {kind!r:.80}.{suggest(kind, KINDS)}"
    if kind in CENTRE_KINDS:
        message = f"A credential of kind {kind} is resolved in a data centre, not on the edge."
    mend = f"{allowed(KINDS)} Put the value into the box's keychain: edge keychain set {name}."
    source.refuse(node.start, message, mend)
    return ""


def read_auth(source: Source, node: Marked | None, access: Access, resolve: Resolve) -> NodeList | None:
    """A tree that names an alias, None where the tool names none."""
    if node is None:
        return None
    if not isinstance(node, Scalar) or not isinstance(node.value, str):
        source.refuse(node.start, "`auth` names one alias of the keychain.", "Write auth: api.")
        return None
    tree = compile_tree(source, node, resolve)
    if tree[0] == "attr" and tree[1] == _NAME:
        tree = ["const", tree[2]]  # NoETL writes `{{ keychain.api }}` for the credential itself
    if tree[0] == "const" and tree[1] not in access.keychain:
        mend = f"Grant it in the step: spec: {{policy: {{access: {{keychain: [{tree[1]}]}}}}}}."
        source.refuse(node.start, f"The alias {tree[1]!r:.80} is not granted here.", mend)
    elif tree[0] != "const" and not access.keychain:
        source.refuse(
            node.start, "No alias is granted here.", "Grant those it may name: spec.policy.access.keychain."
        )
    return tree


def check_aliases(source: Source, at: Marked, step: dict[str, Any], declared: Mapping[str, str]) -> None:
    """Every alias a step was granted is declared, and every one its templates read was granted."""
    granted = {alias for task in step["tasks"] for alias in (task["access"] or [[]] * len(GRANTS))[_ALIASES]}
    for alias in sorted(granted - set(declared)):
        mend = f"Declare it at the root: keychain: [{{name: {alias}}}]."
        source.refuse(at.start, f"The alias {alias!r} is not declared by this playbook.", mend)
    trees = [
        step["input"],
        *(tree for task in step["tasks"] for tree in (task["input"], task["config"], task["auth"])),
    ]
    read = {alias for tree in trees for alias in _read_in(tree, declared)}
    if read and any(task["kind"] in HOSTED for task in step["tasks"]):
        mend = "Read the keychain in a step of its own, whose tools run in a worker."
        source.refuse(
            at.start, "What a wait, playbook or mqtt tool is given is recorded: it can hold no secret.", mend
        )
    for alias in sorted(read - granted):
        if not alias:
            mend = "Write keychain.alias.field, or keychain.alias."
            source.refuse(at.start, "The keychain cannot be taken whole.", mend)
            continue
        mend = f"Grant it: spec: {{policy: {{access: {{keychain: [{alias}]}}}}}}."
        source.refuse(at.start, f"The alias {alias!r} is read here and not granted.", mend)


def _read_in(tree: Any, declared: Mapping[str, str]) -> Iterator[str]:
    """Aliases that a tree reads; "" where it takes the keychain whole. One read by itself becomes its secret."""
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            left.extend(node.values())
        if not isinstance(node, (list, tuple)):
            continue
        own, below = _alias_of(node), _alias_of(node[1]) if len(node) == 3 and node[0] in _READS else None
        if below is not None:
            yield below
            left.append(node[2])
        elif own is not None:
            yield own
            field = _SECRETS.get(declared.get(own, ""))
            if field is not None and isinstance(node, list):
                node[:] = ["attr", list(node), field]
        elif list(node) == _NAME:
            yield ""
        else:
            left.extend(node)


def _alias_of(node: Any) -> str | None:
    """The alias that a node reads from the keychain, "" where that is not written out, None where it reads none."""
    if not isinstance(node, (list, tuple)) or len(node) != 3 or node[0] not in _READS or node[1] != _NAME:
        return None
    key = node[2]
    constant = key[1] if isinstance(key, (list, tuple)) and list(key[:1]) == ["const"] else key
    return constant if isinstance(constant, str) else ""
