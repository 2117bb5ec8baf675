"""What a step may touch outside its sandbox, as plain data: compiled by `playbooks.grants`, held where it runs.

Passed from blueprint to runtime, zygote and worker; pure. It must never open anything: who holds a grant to its
word is `edge.worker` (hosts, files, devices), the runtime (topics) and the keychain (aliases).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from edge.core.limits import ACCESS_ENTRIES_MAX, ACCESS_ENTRY_BYTES_MAX
from edge.core.records import record

#: The kinds of grants, in the order in which they are written.
GRANTS: Final = ("hosts", "topics", "files", "devices", "keychain", "programs")
FILE_MODES: Final = ("read", "write")


@record
class Access:
    """Grants of one step; empty means denied.

    `hosts` are `(name, address or *.name, port)`, lower case, port 0 for any TCP port. `topics` are MQTT filters
    to publish below. `files` are `(absolute path, read or write)`: a file, or all regular files in a folder.
    `devices` are absolute paths below /dev. `keychain` are aliases. `programs` are absolute paths of what may be run.
    """

    hosts: tuple[tuple[str, int], ...] = ()
    topics: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    devices: tuple[str, ...] = ()
    keychain: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.hosts, self.topics, self.files, self.devices, self.keychain, self.programs))

    def parts(self) -> list[Any]:
        """The grants as plain lists, in the order of GRANTS."""
        return [[list(host) for host in self.hosts], list(self.topics), [list(file) for file in self.files],
                list(self.devices), list(self.keychain), list(self.programs)]  # fmt: skip

    @classmethod
    def of(cls, raw: Any) -> Access:
        """Grants from `parts`. Raises ValueError where they have another shape."""
        if type(raw) is not list or [type(each) for each in raw] != [list] * len(GRANTS):
            raise ValueError("not grants: not a list of six lists")
        if any(len(each) > ACCESS_ENTRIES_MAX for each in raw):
            raise ValueError(f"not grants: more than {ACCESS_ENTRIES_MAX} of a kind")
        hosts, topics, files, devices, keychain, programs = raw
        made = cls(
            tuple((_text(name), _port(port)) for name, port in _pairs(hosts)),
            tuple(_text(topic) for topic in topics),
            tuple((_path(path), _mode(mode)) for path, mode in _pairs(files)),
            tuple(_path(path) for path in devices),
            tuple(_text(alias) for alias in keychain),
            tuple(_path(path) for path in programs),
        )
        if not all(path.startswith("/dev/") for path in made.devices):
            raise ValueError("not grants: a device outside /dev")
        return made

    def may_publish(self, topic: str) -> bool:
        """Whether a topic is granted."""
        return any(topic_matches(pattern, topic) for pattern in self.topics)

    def may_connect(self, host: str, port: int) -> bool:
        """Whether a TCP connection to a host, by the name or address a caller uses, is granted."""
        host = host.lower().removesuffix(".")
        return any(granted in (0, port) and name_matches(name, host) for name, granted in self.hosts)


NOTHING: Final = Access()


def union(several: Iterable[Access]) -> Access:
    """All that any of them grants; of a file granted twice the stronger mode counts."""
    listed = list(several)
    if len(listed) == 1:
        return listed[0]
    files: dict[str, str] = {}
    for path, mode in (file for each in listed for file in each.files):
        files[path] = max(mode, files.get(path, mode))  # "write" sorts behind "read"
    return Access(
        tuple(sorted({host for each in listed for host in each.hosts})),
        tuple(sorted({topic for each in listed for topic in each.topics})),
        tuple(sorted(files.items())),
        tuple(sorted({path for each in listed for path in each.devices})),
        tuple(sorted({alias for each in listed for alias in each.keychain})),
        tuple(sorted({path for each in listed for path in each.programs})),
    )


def name_matches(pattern: str, host: str) -> bool:
    """Whether a granted name covers a host: itself, or `*.name` any name below it (never the name alone)."""
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern


def topic_matches(pattern: str, topic: str) -> bool:
    """Whether an MQTT filter covers a topic (MQTT 5 §4.7), wildcards never reaching `$` topics."""
    wanted, levels = pattern.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("#", "+"):
        return False
    for place, want in enumerate(wanted):
        if want == "#":
            return True
        if place >= len(levels) or want not in ("+", levels[place]):
            return False
    return len(wanted) == len(levels)


def _pairs(raw: list[Any]) -> list[tuple[Any, Any]]:
    if any(type(pair) is not list or len(pair) != 2 for pair in raw):
        raise ValueError("not grants: no pair")
    return [(pair[0], pair[1]) for pair in raw]


def _text(value: Any) -> str:
    if type(value) is not str or not 0 < len(value.encode()) <= ACCESS_ENTRY_BYTES_MAX:
        raise ValueError("not grants: not a text of the allowed length")
    return value


def _path(value: Any) -> str:
    path = _text(value)
    if not path.startswith("/") or "\0" in path or any(part in (".", "..") for part in path.split("/")):
        raise ValueError("not grants: not an absolute path")
    return path


def _port(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= 65_535:
        raise ValueError("not grants: no port")
    return value


def _mode(value: Any) -> str:
    if value not in FILE_MODES:
        raise ValueError("not grants: no mode of a file")
    return str(value)
