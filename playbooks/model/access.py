"""The language model of grants: `policy.access`.

Read by `playbooks.grants`. Plain data.
"""

from __future__ import annotations

from typing import Final

from edge.core.access import FILE_MODES
from playbooks.model.parts import EDGE, AnyOf, Block, Choice, Key, ListOf, Of, Text

#: What an alias of the keychain may be called.
ALIAS_PATTERN: Final = r"[A-Za-z_][A-Za-z0-9_-]{0,63}"

ACCESS: Final = Block(
    "access",
    "What the tools may touch outside their sandbox; what is not granted is refused. Merged key by key over layers.",
    (
        Key(
            "hosts",
            ListOf(Text()),
            "Where TCP may connect: `name`, `name:port`, `10.0.0.5:80`, `*.name`.",
            EDGE,
        ),
        Key("topics", ListOf(Text()), "MQTT topic filters that may be published to.", EDGE),
        Key(
            "files",
            ListOf(AnyOf((Text(r"/.*"), Of("access.file")))),
            "Files and folders; a path is read.",
            EDGE,
        ),
        Key("devices", ListOf(Text(r"/dev/.+")), "Character devices, opened both ways.", EDGE),
        Key("programs", ListOf(Text(r"/.*")), "Programs that may be run, by their whole path.", EDGE),
        Key("keychain", ListOf(Text(ALIAS_PATTERN)), "Aliases of the keychain that may be used.", EDGE),
    ),
)

ACCESS_FILE: Final = Block(
    "access.file",
    "One file or folder that is granted.",
    (
        Key("path", Text(r"/.*"), "The absolute path, without `.` and `..`.", EDGE, required=True),
        Key("mode", Choice(FILE_MODES), "Reading (the default), or writing as well.", EDGE),
    ),
)
