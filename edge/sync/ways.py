"""Which way a box's segments take to its centre, from its settings and its enrolment. Called by `edge-sync`."""

from __future__ import annotations

from pathlib import Path

from edge.core.errors import Misconfigured, Unavailable
from edge.core.settings import Settings
from edge.segments.sealing import read_head
from edge.sync import centre
from edge.sync.folder import FolderTransport
from edge.sync.transport import Transport


def way_to_centre(settings: Settings) -> Transport:
    """A new way. Raises Misconfigured where there is none, Unavailable where nothing was ever sealed."""
    enrolment = centre.centre_of(settings)
    if not settings.ship_to:
        raise Misconfigured(
            "Nothing says how this box reaches its centre.",
            mend='Set ship_to = "/srv/share" in edge.toml: a folder that is always there, which the centre imports.',
        )
    folder, head = Path(settings.ship_to), read_head(settings.sealed_folder)
    if not folder.is_absolute():
        raise Misconfigured(f"ship_to is {settings.ship_to!r}.", mend="It is the whole path of a folder.")
    if not folder.is_dir():
        raise Unavailable(f"{folder} is not there.", mend="Is the share mounted?")
    if head is None:
        raise Unavailable("Nothing is sealed yet.")
    return FolderTransport(folder, settings.box, head.log_id, enrolment.key)
