"""Reading maps of a playbook: known keys, kinds of values, and what to say about the others.

Used by the compiler's readers of the root, of steps and of tools. Everything notes its problem in the source
and goes on with None, so that one run shows all problems.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from edge.core.limits import STEP_MEMORY_MB_MAX, STEP_MEMORY_MB_MIN, STEP_TIMEOUT_MS_MAX
from playbooks.loader import Listing, Mapping_, Marked, Scalar
from playbooks.model.parts import Block
from playbooks.problems import Source, allowed, suggest
from playbooks.templates import has_template

_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m)")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000}


def fields(source: Source, node: Marked | None, what: str, block: Block) -> dict[str, Marked]:
    """The entries of a map by key. Keys the block does not have are refused, with their reason if any."""
    if node is None:
        return {}
    keys = block.names
    if not isinstance(node, Mapping_):
        source.refuse(node.start, f"{what} must be a map.", allowed(keys))
        return {}
    found = {}
    for key, value in node.pairs:
        if key.value in keys:
            found[key.value] = value
        elif key.value in block.refused:
            why = block.refused[key.value]
            source.refuse(key.start, f"{what} cannot have {key.value!r}: {why}", allowed(keys))
        else:
            did = suggest(key.value, keys)
            source.refuse(key.start, f"{what} cannot have the key {key.value!r}.{did}", allowed(keys))
    return found


def text(source: Source, node: Marked | None, what: str) -> str | None:
    """A text without templates, or None where there is none."""
    if node is None:
        return None
    if not isinstance(node, Scalar) or not isinstance(node.value, str) or not node.value.strip():
        source.refuse(node.start, f"{what} must be a text.", "Quote it." if isinstance(node, Scalar) else "")
        return None
    if has_template(node.value):
        source.refuse(node.start, f"{what} cannot be a template.", "Write the value out.")
        return None
    return node.value


def choice(source: Source, node: Marked | None, what: str, options: Sequence[str]) -> str | None:
    """One of some texts, or None where there is none."""
    value = text(source, node, what)
    if value is None or value in options:
        return value
    assert node is not None
    source.refuse(node.start, f"{what} cannot be {value!r}.{suggest(value, options)}", allowed(options))
    return None


def flag(source: Source, node: Marked | None, what: str) -> bool | None:
    """True or false, or None where there is none."""
    if node is None:
        return None
    if isinstance(node, Scalar) and isinstance(node.value, bool):
        return node.value
    source.refuse(node.start, f"{what} must be true or false.")
    return None


def items(source: Source, node: Marked | None, what: str) -> tuple[Marked, ...]:
    """The elements of a list."""
    if node is None:
        return ()
    if isinstance(node, Listing):
        return node.items
    source.refuse(node.start, f"{what} must be a list.", "Begin each element with `- `.")
    return ()


def entries(source: Source, node: Marked | None, what: str) -> tuple[tuple[Scalar, Marked], ...]:
    """The entries of a map with any keys."""
    if node is None or (isinstance(node, Scalar) and node.value is None):
        return ()
    if isinstance(node, Mapping_):
        return node.pairs
    source.refuse(node.start, f"{what} must be a map.")
    return ()


def timeout_ms(source: Source, node: Marked | None) -> int | None:
    """A length of time: seconds as a number, or a text such as "500ms", "5s", "2m"."""
    if node is None:
        return None
    value = node.value if isinstance(node, Scalar) else None
    milliseconds: float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        milliseconds = value * 1_000
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        milliseconds = float(match[1]) * _UNIT_MS[match[2]]
    if milliseconds is None:
        source.refuse(node.start, "`timeout` must be a length of time.", 'Write 5, "5s", "500ms" or "2m".')
        return None
    if not 1 <= milliseconds <= STEP_TIMEOUT_MS_MAX:
        mend = "A longer wait needs a callback, not a held worker."
        source.refuse(node.start, f"`timeout` must be 1 ms to {STEP_TIMEOUT_MS_MAX // 1_000} s.", mend)
        return None
    return round(milliseconds)


def memory_mb(source: Source, node: Marked | None) -> int | None:
    """A number of megabytes within the box's limits."""
    if node is None:
        return None
    value = node.value if isinstance(node, Scalar) else None
    if type(value) is int and STEP_MEMORY_MB_MIN <= value <= STEP_MEMORY_MB_MAX:
        return value
    limits = f"{STEP_MEMORY_MB_MIN} to {STEP_MEMORY_MB_MAX}"
    source.refuse(node.start, f"`memory_mb` must be a whole number of megabytes, {limits}.")
    return None


def plain(source: Source, node: Marked) -> Any:
    """The plain value of a node; templates in it are refused."""
    if isinstance(node, Listing):
        return [plain(source, item) for item in node.items]
    if isinstance(node, Mapping_):
        return {key.value: plain(source, value) for key, value in node.pairs}
    if has_template(node.value):
        source.refuse(node.start, "A default value cannot be a template.", "Compute it in a transform step.")
    return node.value
