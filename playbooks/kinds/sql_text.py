"""SQL with `{{ }}` in it: every template becomes a bound parameter, so that no value can become SQL.

Called by `playbooks.kinds.sql`. NoETL pastes the values of templates into the text; what is published that way means
the same here as long as a template stands where SQL takes a value: on its own, or inside a quoted text.
"""

from __future__ import annotations

import re
from typing import Final

from playbooks.expressions import NodeList, Refused, Resolve
from playbooks.loader import Scalar
from playbooks.problems import Source
from playbooks.templates import Hole, compile_part, place, split_template

#: What the parameters made of templates are called; a playbook's own are its to name.
BOUND: Final = "edge_{}"

_OPENS: Final = re.compile(r"'|\"|--|/\*|\$[A-Za-z_]*\$")
_CLOSES: Final = {"'": "'", '"': '"', "--": "\n", "/*": "*/"}


class _Writer:
    """The text so far, and what is open at its end: "", a quote, a comment, or a dollar quote."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.open = ""
        #: Where in `parts` the quoted text stands that is open.
        self._opened_at = 0
        self._joined = False

    def text(self, text: str) -> None:
        """SQL as it stands."""
        at = 0
        while at < len(text):
            if not self.open:
                found = _OPENS.search(text, at)
                end = len(text) if found is None else found.end()
                if found is None or found.group() != "'":
                    self.parts.append(text[at:end])
                else:
                    self.parts += [text[at : found.start()], "'"]
                    self._opened_at, self._joined = len(self.parts) - 1, False
                self.open = "" if found is None else found.group()
                at = end
                continue
            close = _CLOSES.get(self.open, self.open)
            place = text.find(close, at)
            while close in ("'", '"') and place >= 0 and text.startswith(close, place + 1):
                place = text.find(close, place + 2)  # a doubled quote is one within the text
            end = len(text) if place < 0 else place + len(close)
            self.parts.append(text[at:end])
            if place >= 0:
                if self.open == "'" and self._joined:
                    self.parts.append(")")
                self.open = ""
            at = end

    def parameter(self, name: str) -> bool:
        """A parameter here. False where there can be none."""
        if not self.open:
            self.parts.append(f"${name}")
        elif self.open == "'":
            self._joined = True
            self.parts[self._opened_at] = "('"
            self.parts.append(f"' || CAST(${name} AS VARCHAR) || '")
        else:
            return self.open in ("--", "/*")
        return True


def bind_templates(
    source: Source, scalar: Scalar, resolve: Resolve, taken: int
) -> tuple[str, dict[str, NodeList]]:
    """`(the text, its parameters by name)`; `taken` parameters exist already."""
    try:
        parts = split_template(scalar.value)
    except Refused as refused:
        place(source, scalar, refused, 0)
        return "", {}
    if len(parts) == 1 and isinstance(parts[0], Hole):
        mend = "Write the SQL out; values in it may be templates."
        source.refuse(scalar.start, "SQL cannot come from a template.", mend)
        return "", {}
    writer = _Writer()
    bound: dict[str, NodeList] = {}
    for part in parts:
        if isinstance(part, str):
            writer.text(part)
            continue
        name = BOUND.format(taken + len(bound))
        if not writer.parameter(name):
            place(
                source,
                scalar,
                Refused(0, "A template cannot be part of a name.", "Write it out."),
                part.offset,
            )
        elif not writer.open or writer.open == "'":
            bound[name] = compile_part(source, scalar, part, resolve)
    return "".join(writer.parts), bound
