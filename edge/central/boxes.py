"""Which boxes may speak, and by which keys: one file for each, written by a person's command and by nothing else.

Asked by ingest for every segment. It is no projection: segments say which key signed them, never whose it is. A key
that is revoked stays in its file, with the time: what it signed before that is believed, what comes after is not.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edge.core.errors import Misconfigured, RequestRefused
from edge.core.records import record
from edge.store.whole_file import write_whole

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_KEY_BYTES: Final = 32
_TICK_NS: Final = 2_000_000_000


@record
class Key:
    """A box's public key: since when, and until when it is believed (0: still)."""

    public: bytes
    since_ns: int
    revoked_ns: int = 0


@record
class Enrolled:
    """A box that may send, and its keys, oldest first."""

    box: str
    keys: tuple[Key, ...]

    def key(self, public: bytes) -> Key | None:
        """The key of that value, None where the box never had it."""
        return next((key for key in self.keys if key.public == public), None)


class Boxes:
    """The folder of enrolled boxes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._known: tuple[int, dict[bytes, Enrolled]] = (0, {})

    def all(self) -> list[Enrolled]:
        """Every box, by name. Raises Misconfigured."""
        return [self._read(path) for path in sorted(self._folder.glob("*.json"))]

    def of_key(self, public: bytes) -> tuple[Enrolled, Key] | None:
        """Whose key that is. Raises Misconfigured."""
        changed_ns = os.stat(self._folder).st_mtime_ns
        if changed_ns != self._known[0]:
            by_key = {key.public: box for box in self.all() for key in box.keys}
            # The folder changes with every file that is replaced in it. What changed just now may change once more
            # within the same tick of the file system's clock, so that is not remembered.
            fresh = time.time_ns() - changed_ns < _TICK_NS
            self._known = (0 if fresh else changed_ns, by_key)
        box = self._known[1].get(public)
        key = box.key(public) if box is not None else None
        return (box, key) if box is not None and key is not None else None

    def of_box(self, box: str) -> Enrolled:
        """A box and its keys; none where it was never enrolled. Raises Misconfigured."""
        path = self._path(box)
        return self._read(path) if path.exists() else Enrolled(box, ())

    def require_name(self, box: str) -> None:
        """Raises RequestRefused for what no box can be called."""
        if not _NAME.fullmatch(box):
            raise RequestRefused(
                f"{box!r} is no name of a box.", mend="Letters, digits, - and _; at most 63."
            )

    def enrol(self, box: str, public: bytes, now_ns: int) -> Enrolled:
        """Let a box send by that key, beside those that it has. Raises RequestRefused."""
        self.require_name(box)
        with self._alone():
            return self._enrol(box, public, now_ns)

    def _enrol(self, box: str, public: bytes, now_ns: int) -> Enrolled:
        if len(public) != _KEY_BYTES:
            raise RequestRefused(
                "A box's key is 64 hexadecimal digits.",
                mend="`edge bundle export` prints it, and MANIFEST.json has it.",
            )
        owner = self.of_key(public)
        if owner is not None and owner[0].box != box:
            raise RequestRefused(
                f"That key is box {owner[0].box}'s.",
                mend="Two boxes with one key are a copied card: give one of them a key and a log of its own.",
            )
        known = self.of_box(box)
        if owner is not None:
            return known
        return self._write(Enrolled(box, (*known.keys, Key(public, now_ns))))

    def revoke(self, box: str, public: bytes, now_ns: int) -> Enrolled:
        """Believe nothing more that this key signs from now on. Raises RequestRefused."""
        with self._alone():
            return self._revoke(box, public, now_ns)

    def _revoke(self, box: str, public: bytes, now_ns: int) -> Enrolled:
        known = self.of_box(box)
        if known.key(public) is None:
            raise RequestRefused(f"Box {box} has no such key.", mend="`edge central boxes` lists them.")
        keys = tuple(
            Key(key.public, key.since_ns, key.revoked_ns or now_ns) if key.public == public else key
            for key in known.keys
        )
        return self._write(Enrolled(box, keys))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One change at a time: a server redeems tokens while a person revokes keys."""
        with (self._folder / ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _path(self, box: str) -> Path:
        return self._folder / f"{box}.json"

    def _read(self, path: Path) -> Enrolled:
        try:
            document = json.loads(path.read_bytes())
            keys = tuple(
                Key(bytes.fromhex(each["key"]), int(each["since_ns"]), int(each["revoked_ns"]))
                for each in document["keys"]
            )
            return Enrolled(str(document["box"]), keys)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Misconfigured(
                f"{path} cannot be read: {error}.", mend="Put it back from a copy, or enrol the box again."
            ) from error

    def _write(self, enrolled: Enrolled) -> Enrolled:
        keys = [
            {"key": key.public.hex(), "since_ns": key.since_ns, "revoked_ns": key.revoked_ns}
            for key in enrolled.keys
        ]
        document = json.dumps({"box": enrolled.box, "keys": keys}, indent=1).encode() + b"\n"
        write_whole(self._path(enrolled.box), document)
        return enrolled
