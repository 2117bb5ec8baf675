"""The reference page of the language, in Markdown, made of the model: `playbooks/REFERENCE.md`.

Called by the command line; a test compares the page with what this makes. Must never read a playbook.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from playbooks.kinds import ABSENT_KINDS, CENTRE_KINDS, KINDS
from playbooks.model import BLOCKS, parts
from playbooks.model.cases import CASE_BLOCKS

_HEAD: Final = """\
# The playbook language, key by key

Made by `edge playbook reference > playbooks/REFERENCE.md` from the table the compiler reads by (`playbooks/model`);
do not edit it. What the constructs mean, and where that differs from NoETL, is in [DESIGN.md](DESIGN.md).

Keys in **bold** must be there. Keys marked † are known to NoETL Edge alone. A *template* is a text that may hold
`{{ }}` and `{% %}`; a *tree* is any value with templates anywhere in it; a *condition* is true, false, one whole
`"{{ expression }}"`, or a template whose `{% %}` make true or false. A key that is not listed is refused.
"""


def reference_page() -> str:
    """The whole page, with a line end."""
    page = [_HEAD]
    page += [_section(block) for block in BLOCKS.values()]
    page.append("## Tool kinds\n\nThe keys of every tool (see [tool](#tool)) may stand beside these.\n")
    for name, kind in sorted(KINDS.items()):
        effects = ", ".join(kind.effects)
        page.append(_section(kind.block, f"Effect: {effects}; the first where nothing is declared."))
        page += [_section(block) for block in kind.blocks]
        assert name == kind.block.name
    page.append("## Tool kinds that are not here\n")
    page.append("They run in a data centre, not on the edge:\n")
    page.append(_reasons(CENTRE_KINDS))
    page.append("They are refused by name:\n")
    page.append(_reasons(ABSENT_KINDS))
    page.append("## Cases\n\nWhat `edge playbook test` reads. Nothing in it is a template.\n")
    page += [_section(block) for block in CASE_BLOCKS]
    return "\n".join(page)


def _reasons(kinds: Mapping[str, str]) -> str:
    lines = [f"| `{name}` | {why} |" for name, why in sorted(kinds.items())]
    return "\n".join(["| Kind | |", "|---|---|", *lines, ""])


def _section(block: parts.Block, more: str = "") -> str:
    level = "###" if block in CASE_BLOCKS or block.name.partition(".")[0] in KINDS else "##"
    lines = [f"{level} {block.name}", "", block.doc, *([more] if more else []), ""]
    if block.keys:
        lines += ["| Key | Takes | |", "|---|---|---|"]
        for key in block.keys:
            name = f"**`{key.name}`**" if key.required else f"`{key.name}`"
            mark = " †" if key.origin == parts.EDGE else ""
            lines.append(f"| {name}{mark} | {value_text(key.value)} | {_cell(key.doc)} |")
        lines.append("")
    if block.open:
        lines += ["Other keys may stand here: those of the tool it stands for.", ""]
    if block.one_key:
        lines += ["Exactly one of them.", ""]
    if block.refused:
        lines += ["Refused by name:", ""]
        lines += [f"- `{name}`: {why}" for name, why in block.refused.items()]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def value_text(value: parts.Value) -> str:
    """A kind of value in a few words."""
    match value:
        case parts.Text():
            return "text"
        case parts.Template():
            return "template"
        case parts.Expression():
            return "`{{ expression }}`"
        case parts.Condition():
            return "condition"
        case parts.Tree():
            return "tree"
        case parts.Plain():
            return "any value"
        case parts.Flag():
            return "`true`, `false`"
        case parts.Whole(least, most):
            return f"whole number, {least} to {most:,}" if most is not None else f"whole number from {least}"
        case parts.Number(low, high):
            return f"number, {low:,} to {high:,}"
        case parts.Duration(most_ms):
            return f"length of time, up to {most_ms // 1_000:,} s"
        case parts.Choice(options):
            return ", ".join(f"`{option}`" for option in options)
        case parts.ListOf(item):
            return f"list of {_inner(item)}"
        case parts.MapOf(item):
            return f"map of {_inner(item)}"
        case parts.Of(block):
            return f"[{block}](#{block.replace('.', '')})"
        case parts.Tool():
            return "[tool](#tool)"
        case parts.Pipeline():
            return "[tool](#tool), or a list of tools, each also as `label: {…}`"
        case parts.AnyOf(options):
            return ", or ".join(value_text(option) for option in options)


def _inner(value: parts.Value) -> str:
    return f"({value_text(value)})" if isinstance(value, parts.AnyOf) else value_text(value)
