"""Settings of one box: where things are, how large they may get. One place, one table of defaults.

Read by every process from the same folder; given as `edge.toml` in the data folder or on the command line.
Parsed with the standard library only, because daemons read it too. Unknown keys are refused by name.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from edge.core.errors import Misconfigured, not_allowed
from edge.core.limits import CACHE_BUDGET_BYTES, MIB, REMEMBER_DAYS, RESERVE_BYTES, RETAIN_MB_MIN, WORKERS
from edge.core.records import record

#: Names the broker where neither edge.toml nor the command line should hold its password.
BROKER_VARIABLE: Final = "EDGE_BROKER"
FILE_NAME: Final = "edge.toml"
#: A unix socket's path, less its closing zero (unix(7)).
SOCKET_PATH_BYTES_MAX: Final = 107
HOLD: Final = "hold"
OLDEST: Final = "oldest"
THIN: Final = "thin"
POLICIES: Final = (HOLD, OLDEST, THIN)
LINK_SETTINGS: Final = ("auto", "ethernet", "wifi", "metered")
#: Memory that looks like a folder; a cache in it has mode 0700.
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - tmpfs by design
_BOX_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


@record
class Settings:
    """What may be set. Every field has a default that works on a fresh box."""

    #: Everything that is kept: journal, index, blobs.
    data: Path
    #: The box's name: a topic level, and part of what the log says.
    box: str
    #: Broker as `mqtt://[user:password@]host[:port]`; empty means the embedded one on loopback.
    broker: str = ""
    #: Worker processes. More than cores only helps steps that wait.
    workers: int = WORKERS
    #: Arrow blocks held at once, in MB.
    cache_mb: int = CACHE_BUDGET_BYTES // MIB
    #: Folder of the cache; empty means a folder of its own below /dev/shm (or the data folder without one).
    cache: str = ""
    #: Wait this long for more events before each flush: saves flash, costs latency.
    commit_window_ms: int = 0
    #: Write the journal to a second place, for drives that tear blocks: "on" (in the data folder) or a folder's path.
    journal_mirror: str = "off"
    #: Free space kept on the drive; below it requests are refused.
    reserve_mb: int = RESERVE_BYTES // MIB
    #: Whether a centre stores this log. Then nothing is pruned before it has receipted it.
    centre: bool = False
    #: Where `edge-sync` leaves sealed segments: a folder's whole path (a share, a disk that a courier takes); empty:
    #: at the centre that the box was enrolled with.
    ship_to: str = ""
    #: Class of the link to the centre: "ethernet", "wifi" or "metered"; "auto" goes by the interface of the route.
    link: str = "auto"
    #: What may go over a link of each class, like "64 kbit/s, 5 MB/day, 60 MB/month"; "": no bound; "off": nothing.
    budget_ethernet: str = ""
    budget_wifi: str = ""
    #: A box that runs one execution a minute sends 0.1 to 0.2 MB a day.
    budget_metered: str = "256 kbit/s, 5 MB/day, 60 MB/month"
    #: Days (of the box being on) after which events may be pruned; 0: age alone lets nothing go.
    retain_days: int = 0
    #: What the log may take on the drive, in MB: journal, index and blobs; 0: as much as there is.
    retain_mb: int = 0
    #: Where there is no centre, and the budget or the drive's reserve asks for room before the age has come:
    #: "hold" refuses requests, "oldest" prunes, "thin" prunes and leaves a trace of each execution.
    retain_policy: str = HOLD
    #: Days for which a request id is remembered with its answer, over pruning too.
    remember_days: int = REMEMBER_DAYS

    @property
    def journal_folder(self) -> Path:
        """The event log's first home."""
        return self.data / "journal"

    @property
    def mirror_folder(self) -> Path | None:
        """The journal's second place, None where it has none."""
        if self.journal_mirror in ("", "off"):
            return None
        return self.data / "mirror" if self.journal_mirror == "on" else Path(self.journal_mirror)

    @property
    def index_folder(self) -> Path:
        """The event log's second home, LMDB."""
        return self.data / "index"

    @property
    def blob_folder(self) -> Path:
        """Large values."""
        return self.data / "blobs"

    @property
    def keychain_folder(self) -> Path:
        """Credentials under aliases, sealed, and where nothing better holds it their key."""
        return self.data / "keychain"

    @property
    def sealed_folder(self) -> Path:
        """Sealed segments on their way out of the box."""
        return self.data / "sealed"

    @property
    def enrolment_path(self) -> Path:
        """With which centre the box is enrolled; not there where it is with none."""
        return self.data / "centre.json"

    @property
    def log_key_path(self) -> Path:
        """The key that signs the log's segments; the box's identity at its centre."""
        return self.data / "log.key"

    @property
    def socket_path(self) -> Path:
        """The runtime's unix socket."""
        return self.data / "run" / "runtime.sock"

    @property
    def lock_path(self) -> Path:
        """Held alone by the one runtime of this data folder."""
        return self.data / "run" / "runtime.lock"

    @property
    def workers_lock_path(self) -> Path:
        """Held shared by every worker: a new runtime dispatches only once it holds it alone."""
        return self.data / "run" / "workers.lock"

    @property
    def cache_folder(self) -> Path:
        """Where Arrow blocks go."""
        if self.cache:
            return Path(self.cache)
        if not os.access(_MEMORY, os.W_OK):
            return self.data / "cache"
        return memory_cache(self.data)


def memory_cache(data: Path) -> Path:
    """Where the cache of a data folder lies in memory; its name is made of the folder's path."""
    import hashlib  # OpenSSL comes with it, and most commands have no cache

    mark = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:16]
    return _MEMORY / f"noetl-edge-{os.getuid()}-{mark}"


def default_data_folder() -> Path:
    """`$EDGE_DATA`, else a folder in the user's own data."""
    given = os.environ.get("EDGE_DATA")
    if given:
        return Path(given)
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "noetl-edge"


def load_settings(data: Path | None = None, **given: Any) -> Settings:
    """Defaults, then `edge.toml` in the data folder, then what is given. Raises Misconfigured."""
    folder = (data or default_data_folder()).expanduser().absolute()
    settings = Settings(folder, _box_name(socket.gethostname()))
    path = folder / FILE_NAME
    return _checked(_apply(_apply(settings, _read(path), str(path)), given, "the command line"))


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
        import tomllib  # half a megabyte in every daemon: only where there is something to read

        return tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except NotADirectoryError as error:
        raise Misconfigured(f"{path.parent} is no folder.", mend="Name a folder with --data.") from error
    except PermissionError as error:
        raise not_allowed(path) from error
    except (ValueError, OSError) as error:  # a TOMLDecodeError is a ValueError, and so is what is not UTF-8
        raise Misconfigured(f"{path} cannot be read: {error}.", mend="Mend the file or remove it.") from error


def _apply(settings: Settings, given: dict[str, Any], where: str) -> Settings:
    kinds = {f.name: type(getattr(settings, f.name)) for f in fields(settings) if f.name != "data"}
    for name, value in given.items():
        if name not in kinds:
            raise Misconfigured(
                f"{where}: there is no setting {name!r}.", mend=f"There are: {', '.join(sorted(kinds))}."
            )
        if type(value) is not kinds[name]:
            raise Misconfigured(f"{where}: {name} must be {kinds[name].__name__}, not {value!r}.")
    return replace(settings, **given)


def _checked(settings: Settings) -> Settings:
    if not _BOX_NAME.fullmatch(settings.box):
        raise Misconfigured(
            f"The box name {settings.box!r} cannot be a topic level.", mend="Use letters, digits, - and _."
        )
    socket_path = str(settings.socket_path)
    if len(socket_path.encode()) > SOCKET_PATH_BYTES_MAX:
        raise Misconfigured(
            f"The data folder's path is too long: its socket would be {socket_path}.",
            mend=f"Use a folder that leaves the socket {SOCKET_PATH_BYTES_MAX} bytes (--data).",
        )
    mirror = settings.mirror_folder
    if mirror is not None and (not mirror.is_absolute() or mirror == settings.journal_folder):
        raise Misconfigured(
            f"journal_mirror is {settings.journal_mirror!r}.",
            mend="It is on, off, or the whole path of a folder of its own, best on another drive.",
        )
    bounds = {
        "workers": (1, 64),
        "cache_mb": (1, 65_536),
        "commit_window_ms": (0, 10_000),
        "reserve_mb": (1, 2**20),
        "retain_days": (0, 36_500),
        "retain_mb": (0, 2**30),
        "remember_days": (0, 3_650),
    }
    for name, (low, high) in bounds.items():
        if not low <= getattr(settings, name) <= high:
            raise Misconfigured(f"{name} is {getattr(settings, name)}; it may be {low} to {high}.")
    if settings.link not in LINK_SETTINGS:
        raise Misconfigured(f"link is {settings.link!r}.", mend=f"There are: {', '.join(LINK_SETTINGS)}.")
    if settings.retain_policy not in POLICIES:
        raise Misconfigured(
            f"retain_policy is {settings.retain_policy!r}.", mend=f"There are: {', '.join(POLICIES)}."
        )
    if 0 < settings.retain_mb < RETAIN_MB_MIN:
        raise Misconfigured(
            f"retain_mb is {settings.retain_mb}; the log needs {RETAIN_MB_MIN} at least, or 0 for no bound."
        )
    return settings


def _box_name(host: str) -> str:
    made = re.sub(r"[^A-Za-z0-9_-]", "-", host.split(".", maxsplit=1)[0])[:63].lstrip("-_")
    return made or "box"
