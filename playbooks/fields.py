"""Reading maps of a playbook: known keys, kinds of values, and what to say about the others.

Used by the compiler's readers of the root, of steps and of tools. Everything notes its problem in the source
and goes on with None, so that one run shows all problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge.core.limits import STEP_TIMEOUT_MS_MAX
from playbooks.durations import duration_ms
from playbooks.loader import Listing, Mapping_, Marked, Scalar
from playbooks.model.parts import Block
from playbooks.problems import Source, allowed, suggest
from playbooks.templates import has_template


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


def whole(source: Source, node: Marked | None, what: str, least: int, most: int) -> int | None:
    """A whole number within bounds, or None where there is none."""
    if node is None:
        return None
    value = node.value if isinstance(node, Scalar) else None
    if type(value) is int and least <= value <= most:
        return value
    source.refuse(node.start, f"{what} must be a whole number of {least} to {most}.")
    return None


def length_ms(
    source: Source, node: Marked | None, what: str, most_ms: int, *, least_ms: int = 1, mend: str = ""
) -> int | None:
    """A length of time: seconds as a number, or a text such as "500ms", "5s", "2m", "1h"."""
    if node is None:
        return None
    found_ms = duration_ms(node.value if isinstance(node, Scalar) else None)
    if found_ms is not None and least_ms <= found_ms <= most_ms:
        return round(found_ms)
    if found_ms is None:
        source.refuse(node.start, f"{what} must be a length of time.", 'Write 5, "5s", "500ms" or "2m".')
    else:
        source.refuse(node.start, f"{what} must be {least_ms} ms to {most_ms // 1_000} s.", mend)
    return None


def timeout_ms(source: Source, node: Marked | None) -> int | None:
    """How long a claim, or a call in it, may take."""
    mend = "A longer wait needs a callback, not a held worker."
    return length_ms(source, node, "`timeout`", STEP_TIMEOUT_MS_MAX, mend=mend)


def one_spelling(source: Source, found: Mapping[str, Marked], keys: Sequence[str]) -> str | None:
    """The one of these keys, which all say the same, that is there; a second one is refused."""
    named = [key for key in keys if key in found]
    for other in named[1:]:
        message = f"`{named[0]}` and `{other}` say the same."
        source.refuse(found[other].start, message, "Take one of them out.")
    return named[0] if named else None


def plain(source: Source, node: Marked) -> Any:
    """The plain value of a node; templates in it are refused."""
    if isinstance(node, Listing):
        return [plain(source, item) for item in node.items]
    if isinstance(node, Mapping_):
        return {key.value: plain(source, value) for key, value in node.pairs}
    if has_template(node.value):
        source.refuse(node.start, "A default value cannot be a template.", "Compute it in a transform step.")
    return node.value
