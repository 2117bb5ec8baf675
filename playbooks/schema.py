"""The language as a JSON Schema (draft 2020-12), for editors: completion, hover texts, and red lines while typing.

Made of the model, so that it knows the keys the compiler knows. It checks shape only: names, expressions and what one
key means for another are `edge playbook check`'s. Called by the command line and tests; must never read a playbook.
"""

from __future__ import annotations

from typing import Any, Final

from playbooks.kinds import all_kinds
from playbooks.model import BLOCKS, ROOTS, parts
from playbooks.model.cases import CASE_BLOCKS, CASES
from playbooks.model.workflow import WORKBOOK_TOOL

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_EXPRESSION: Final = {"type": "string", "pattern": r"^\s*\{\{[\s\S]*\}\}\s*$"}
#: An expression, or a text with statements or comments in it, which the compiler looks at.
_CONDITION: Final = {"type": "string", "pattern": r"^\s*\{\{[\s\S]*\}\}\s*$|\{[%#]"}
_NO_TEMPLATE: Final = {"not": {"pattern": r"\{[{%#]"}}
_DURATION_TEXT: Final = {"type": "string", "pattern": r"^\s*[0-9]{1,12}(\.[0-9]{1,9})?(ms|s|m|h|d)?\s*$"}


def json_schema() -> dict[str, Any]:
    """The whole schema; the document's `kind` chooses its root, and a file of cases, which has none, its own."""
    definitions = {block.name: _block(block) for block in BLOCKS.values() if block.name != "tool"}
    for name, kind in all_kinds().items():
        definitions[f"tool.{name}"] = _block(kind.tool_block())
        definitions |= {block.name: _block(block) for block in kind.blocks}
    definitions |= {block.name: _block(block) for block in CASE_BLOCKS}
    definitions[f"tool.{WORKBOOK_TOOL.name}"] = definitions.pop(WORKBOOK_TOOL.name)
    return {
        "$schema": _DRAFT,
        "title": "NoETL Edge playbook",
        "type": "object",
        "if": {"required": ["cases"], "not": {"required": ["kind"]}},
        "then": {"$ref": _at(CASES.name)},
        "else": {
            "required": ["apiVersion", "kind"],
            "properties": {"kind": {"enum": list(ROOTS)}},
            "allOf": [
                {"if": _is("kind", kind), "then": {"$ref": _at(block)}} for kind, block in ROOTS.items()
            ],
        },
        "$defs": {**definitions, "tool": _tool(), "task": _task(), "plain": _plain()},
    }


def _at(name: str) -> str:
    return f"#/$defs/{name}"


def _is(key: str, value: str) -> dict[str, Any]:
    return {"properties": {key: {"const": value}}, "required": [key]}


def _tool() -> dict[str, Any]:
    """A tool: the keys that may stand in it follow from its `kind`."""
    kinds = [*all_kinds(), WORKBOOK_TOOL.name]
    about = {name: kind.block.doc for name, kind in all_kinds().items()} | {
        WORKBOOK_TOOL.name: WORKBOOK_TOOL.doc
    }
    told = "\n".join(f"- `{name}`: {about[name]}" for name in kinds)
    return {
        "type": "object",
        "description": "A tool; what may stand in it follows from its `kind`.",
        "required": ["kind"],
        "properties": {"kind": {"enum": kinds, "description": f"What kind of tool it is.\n{told}"}},
        "allOf": [{"if": _is("kind", name), "then": {"$ref": _at(f"tool.{name}")}} for name in kinds],
    }


def _task() -> dict[str, Any]:
    """A tool, or one under a label: `- fetch: {kind: …}`."""
    labelled = {"minProperties": 1, "maxProperties": 1, "additionalProperties": {"$ref": _at("tool")}}
    return {
        "type": "object",
        "if": {"required": ["kind"]},
        "then": {"$ref": _at("tool")},
        "else": labelled,
    }


def _plain() -> dict[str, Any]:
    """Any value without templates in it."""
    inner = {"$ref": _at("plain")}
    return {
        "if": {"type": "string"},
        "then": _NO_TEMPLATE,
        "else": {"items": inner, "additionalProperties": inner},
    }


def _block(block: parts.Block) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "object",
        "description": block.doc,
        "properties": {key.name: _key(key) for key in block.keys}
        | {name: _refused(why) for name, why in block.refused.items() if not block.open},
    }
    if not block.open:
        made["additionalProperties"] = False
    if required := [key.name for key in block.keys if key.required]:
        made["required"] = required
    if block.one_key:
        made |= {"minProperties": 1, "maxProperties": 1}
    return made


def _key(key: parts.Key) -> dict[str, Any]:
    doc = f"{key.doc} (Only NoETL Edge knows it.)" if key.origin == parts.EDGE else key.doc
    return {"description": doc, **schema_of(key.value)}


def _refused(why: str) -> dict[str, Any]:
    """A key that is refused by name: never valid; editors that can, say why and do not offer it."""
    said = f"Refused: {why}"
    return {"not": {}, "description": said, "errorMessage": said, "doNotSuggest": True}


def schema_of(value: parts.Value) -> dict[str, Any]:
    """The schema of one kind of value."""
    match value:
        case parts.Text(pattern):
            return {"type": "string", "pattern": f"^(?:{pattern})$" if pattern else r"\S", **_NO_TEMPLATE}
        case parts.Template():
            return {"type": "string"}
        case parts.Expression():
            return dict(_EXPRESSION)
        case parts.Condition():
            return {"anyOf": [{"type": "boolean"}, _CONDITION]}
        case parts.Tree():
            return {}
        case parts.Flag():
            return {"type": "boolean"}
        case parts.Whole(least, most):
            bounds = {"minimum": least} | ({} if most is None else {"maximum": most})
            return {"type": "integer", **bounds}
        case parts.Number(low, high):
            return {"type": "number", "minimum": low, "maximum": high}
        case parts.Duration(most_ms):
            return {"anyOf": [{"type": "number", "minimum": 0, "maximum": most_ms / 1_000}, _DURATION_TEXT]}
        case parts.Choice(options):
            return {"enum": list(options)}
        case parts.ListOf(item):
            return {"type": "array", "items": schema_of(item)}
        case parts.MapOf(item):
            return {"type": ["object", "null"], "additionalProperties": schema_of(item)}
        case parts.AnyOf(options):
            return {"anyOf": [schema_of(option) for option in options]}
        case parts.Pipeline():
            task = {"$ref": _at("task")}
            return {"anyOf": [task, {"type": "array", "items": task, "minItems": 1}]}
        case parts.Of() | parts.Tool() | parts.Plain():
            return {"$ref": _at(_definition(value))}


def _definition(value: parts.Of | parts.Tool | parts.Plain) -> str:
    if isinstance(value, parts.Of):
        return value.block
    return "tool" if isinstance(value, parts.Tool) else "plain"
