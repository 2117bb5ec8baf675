"""Files and modules that the source names in backticks are there: a map out of date is worse than none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("edge", "firmware_bridge", "gateway", "playbooks", "tests")
_MODULE = re.compile(rf"`((?:{'|'.join(FOLDERS)})(?:\.\w+)+)")
_FILE = re.compile(rf"`((?:{'|'.join(FOLDERS)})(?:/\w+)+\.(?:py|md))\b")


def _texts() -> Iterator[tuple[str, str]]:
    yield "README.md", (ROOT / "README.md").read_text("utf-8")
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md"):
                yield str(path.relative_to(ROOT)), path.read_text("utf-8")


def _stands(dotted: str) -> bool:
    """A module or package, or a name that stands in the last module of the path."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        module = next(
            (each for each in (place.with_suffix(".py"), place / "__init__.py") if each.is_file()), None
        )
        if module is not None:
            return (
                count == len(parts)
                or re.search(rf"\b{parts[count]}\b", module.read_text("utf-8")) is not None
            )
        if place.is_dir():
            return count == len(parts)
    return False


def test_what_is_named_is_there() -> None:
    """Modules as `edge.core.state.fold`, files as `edge/core/state.py`, in docstrings, comments and pages."""
    gone = [
        f"{text}: {name}"
        for text, content in _texts()
        for name in {*_MODULE.findall(content), *_FILE.findall(content)}
        if not (_stands(name) if "/" not in name else (ROOT / name).is_file())
    ]
    assert not gone, f"moved, or called otherwise by now: {gone}"
