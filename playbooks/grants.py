"""`spec.policy.access`: what a step may touch outside, read strictly into plain data.

Called by `playbooks.spec`, `steps` and `tasks`. Default deny: what is not written here is refused by the sandbox. It
must never look at this machine: whether a file or device is there is asked where the step runs.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from edge.core.access import FILE_MODES, Access
from edge.core.limits import ACCESS_ENTRIES_MAX, ACCESS_ENTRY_BYTES_MAX
from playbooks.fields import choice, fields, items, text
from playbooks.loader import Mapping_, Marked
from playbooks.model.access import ACCESS, ACCESS_FILE, ALIAS_PATTERN
from playbooks.problems import Source
from playbooks.topic_filters import filter_problem

#: A policy block's grants as it says them, by kind; a kind that is not there is inherited.
Grants = Mapping[str, tuple[Any, ...]]

_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\.?")
_HOST: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>[0-9]{1,5}))?")
_ALIAS: Final = re.compile(ALIAS_PATTERN)
_NUL: Final = "\0"
_MEND_HOST: Final = "Write name, name:port, 10.0.0.5:80, [::1]:80 or *.example.org:443."


def read_access(source: Source, node: Marked | None) -> Grants | None:
    """The grants of one policy block, None where it has none."""
    if node is None:
        return None
    found = fields(source, node, "`access`", ACCESS)
    return {kind: _read(source, value, kind) for kind, value in found.items()}


def _read(source: Source, node: Marked, kind: str) -> tuple[Any, ...]:
    listed = items(source, node, f"`access.{kind}`")
    if len(listed) > ACCESS_ENTRIES_MAX:
        source.refuse(listed[ACCESS_ENTRIES_MAX].start, f"`{kind}` has at most {ACCESS_ENTRIES_MAX} entries.")
    made = {
        entry for item in listed[:ACCESS_ENTRIES_MAX] if (entry := _READERS[kind](source, item)) is not None
    }
    return tuple(sorted(made))


def merged(outer: Grants | None, inner: Grants | None) -> Grants | None:
    """`inner` over `outer`, kind by kind: a kind the inner block names is the inner one's."""
    if outer is None or inner is None:
        return inner if outer is None else outer
    return {**outer, **inner}


def compiled(grants: Grants | None) -> Access:
    """The grants as the blueprint keeps them."""
    return Access(**{kind: tuple(values) for kind, values in (grants or {}).items()})


def _entry(source: Source, node: Marked, what: str) -> str | None:
    value = text(source, node, what)
    if value is not None and len(value.encode()) > ACCESS_ENTRY_BYTES_MAX:
        source.refuse(node.start, f"{what} has at most {ACCESS_ENTRY_BYTES_MAX} bytes.")
        return None
    return value


def _host(source: Source, node: Marked) -> tuple[str, int] | None:
    value = _entry(source, node, "A host")
    if value is None:
        return None
    match = _HOST.fullmatch(value)
    port = int(match.group("port") or 0) if match else 0
    name = (match.group("six") or match.group("name")) if match else ""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        looks_sound = bool(_NAME.fullmatch(name)) and not re.fullmatch(r"[0-9.]+", name)
    else:
        looks_sound, name = True, str(address)
    if not match or not looks_sound or port > 65_535 or (match.group("port") is not None and port == 0):
        source.refuse(node.start, f"{value!r:.80} is no host that can be granted.", _MEND_HOST)
        return None
    return name.lower().removesuffix("."), port


def _topic(source: Source, node: Marked) -> str | None:
    value = _entry(source, node, "A topic")
    if value is None:
        return None
    if filter_problem(value):
        mend = "`+` stands for one whole level, `#` for all that follow, at the end."
        source.refuse(node.start, f"{value!r:.80} is no MQTT topic filter.", mend)
        return None
    return value


def _path(source: Source, node: Marked, what: str) -> str | None:
    value = _entry(source, node, what)
    if value is None:
        return None
    if not value.startswith("/") or _NUL in value or any(part in (".", "..") for part in value.split("/")):
        source.refuse(
            node.start, f"{value!r:.80} is no absolute path.", "Write the whole path, without . and .."
        )
        return None
    return re.sub("/+", "/", value).rstrip("/") or "/"


def _file(source: Source, node: Marked) -> tuple[str, str] | None:
    mode = None
    if isinstance(node, Mapping_):
        found = fields(source, node, "A file", ACCESS_FILE)
        if "path" not in found:
            source.refuse(node.start, "This file has no `path`.", "Write {path: /…, mode: read}.")
            return None
        mode, node = choice(source, found.get("mode"), "`mode`", FILE_MODES), found["path"]
    path = _path(source, node, "A file's path")
    if path is None:
        return None
    if path == "/dev" or path.startswith("/dev/"):
        source.refuse(node.start, "What lies in /dev is a device.", "Write it under `devices`.")
        return None
    return path, mode or "read"


def _device(source: Source, node: Marked) -> str | None:
    value = text(source, node, "A device")
    if value is not None and not value.startswith("/"):
        mend = "Write its whole path, such as /dev/ttyUSB0."
        source.refuse(node.start, f"{value!r:.80} is no device.", mend)
        return None
    path = _path(source, node, "A device")
    if path is not None and not path.startswith("/dev/"):
        source.refuse(node.start, f"{path!r:.80} is no path below /dev.", "Write a file under `files`.")
        return None
    return path


def read_alias(source: Source, node: Marked | None) -> str | None:
    """The name of a credential, None where it is none."""
    value = text(source, node, "An alias")
    if value is None or node is None or _ALIAS.fullmatch(value):
        return value
    mend = "Use up to 64 letters, digits, _ and -, not beginning with a digit or -."
    source.refuse(node.start, f"{value!r:.80} cannot be an alias.", mend)
    return None


_READERS: Final[Mapping[str, Callable[[Source, Marked], Any]]] = {
    "hosts": _host,
    "topics": _topic,
    "files": _file,
    "devices": _device,
    "keychain": read_alias,
    "programs": lambda source, node: _path(source, node, "A program"),
}
