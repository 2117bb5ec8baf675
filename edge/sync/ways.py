"""Which way a box's segments take to its centre, from its settings and its enrolment.

Called by `edge-sync` and the command line. It only makes the carrier; nothing goes out before the first call to it.
"""

from __future__ import annotations

from pathlib import Path

from edge.core.clock import SystemClock
from edge.core.errors import Misconfigured, Unavailable
from edge.core.settings import Settings
from edge.security.signing import SEED_BYTES, Signer
from edge.segments.cuts import read_head
from edge.store.key_file import read_or_make_key
from edge.sync import centre
from edge.sync.folder import FolderTransport
from edge.sync.https import HttpsTransport
from edge.sync.transport import Transport


def way_to_centre(settings: Settings) -> Transport:
    """A new way. Raises Misconfigured where there is none, Unavailable where nothing can go that way now."""
    return _folder(settings) if settings.ship_to else https_to_centre(settings)


def https_to_centre(settings: Settings) -> HttpsTransport:
    """The way over HTTPS. Raises Misconfigured where the enrolment names no address."""
    enrolment = centre.centre_of(settings)
    if not enrolment.url:
        raise Misconfigured(
            "This box's centre has no address: only sticks go there.",
            mend="Make an enrolment with one (edge central enrol BOX --url … --out FILE), then edge sync enrol FILE.",
        )
    signer = Signer(read_or_make_key(settings.log_key_path, SEED_BYTES))
    return HttpsTransport(enrolment, signer, SystemClock())


def _folder(settings: Settings) -> FolderTransport:
    folder, head = Path(settings.ship_to), read_head(settings.sealed_folder)
    if not folder.is_absolute():
        raise Misconfigured(f"ship_to is {settings.ship_to!r}.", mend="It is the whole path of a folder.")
    if not folder.is_dir():
        raise Unavailable(f"{folder} is not there.", mend="Is the share mounted?")
    if head is None:
        raise Unavailable("Nothing is sealed yet.")
    return FolderTransport(folder, settings.box, head.log_id, centre.centre_of(settings).key)
