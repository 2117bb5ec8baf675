"""The keychain: credentials of the box under aliases, in one sealed file.

Used by `edge keychain` and by the runtime's short-lived child (`edge.security.unseal`); no daemon imports it, since
the library behind it costs 10 MB. Each entry is sealed by ChaCha20-Poly1305 with its alias, kind and version as
associated data, so that entries cannot change places; the file is replaced whole. The key lies beside it, readable by
its owner alone, or comes from systemd (`LoadCredentialEncrypted=noetl-edge-keychain`). It must never print or log a
value.

Who holds the drive holds the key beside it too: only a key from systemd, sealed to a TPM, protects a stolen card.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from edge.core.codec import decode, encode
from edge.core.errors import EdgeError, Misconfigured, not_allowed
from edge.core.limits import KEYCHAIN_ENTRIES_MAX, SECRET_BYTES_MAX, SECRET_BYTES_MIN
from edge.core.records import record
from edge.core.scrub import PLAIN_FIELDS

#: Kinds of credentials and the fields each must have; a `map` has any.
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "bearer": ("token",),
    "basic": ("username", "password"),
    "api_key": ("header", "api_key"),
    "map": (),
}
#: What systemd calls the key (`LoadCredentialEncrypted=`).
CREDENTIAL: Final = "noetl-edge-keychain"

_FORMAT: Final = 1
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_ALIAS: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


@record
class Entry:
    """One credential: its kind, how often it was set, its fields."""

    alias: str
    kind: str
    version: int
    #: Never part of a text about it.
    fields: dict[str, str] = field(repr=False)


class Keychain:
    """The sealed file of one box."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path, self._key_path = folder, folder / "sealed", folder / "key"

    def entries(self) -> list[Entry]:
        """Every entry, opened, by alias. Raises Misconfigured where the file or its key does not hold."""
        sealed = self._read()
        return [self._open(alias, sealed[alias], self._key()) for alias in sorted(sealed)]

    def put(self, alias: str, kind: str, fields: Mapping[str, str]) -> int:
        """Set or replace one; its version. Raises Misconfigured where it cannot be a credential."""
        _check(alias, kind, fields)
        with self._alone():
            sealed = self._read()
            if alias not in sealed and len(sealed) >= KEYCHAIN_ENTRIES_MAX:
                raise Misconfigured(
                    f"The keychain holds {KEYCHAIN_ENTRIES_MAX} aliases already.", mend="Remove one."
                )
            version = sealed[alias][1] + 1 if alias in sealed else 1
            key = self._key(make=not sealed)
            sealed[alias] = _seal(Entry(alias, kind, version, dict(fields)), key)
            self._write(self._path, encode([_FORMAT, sealed]))
        return version

    def remove(self, alias: str) -> bool:
        """Take one out; False where it was not there."""
        with self._alone():
            sealed = self._read()
            if sealed.pop(alias, None) is None:
                return False
            self._write(self._path, encode([_FORMAT, sealed]))
        return True

    def rotate(self) -> int:
        """Seal everything anew with a new key; how many entries. Raises Misconfigured where systemd gives the key."""
        if _from_systemd() is not None:
            raise Misconfigured(
                "The keychain's key comes from systemd.",
                mend="Make a new credential with systemd-creds, and set the aliases again.",
            )
        with self._alone():
            entries = self.entries()
            if self._next_key() is not None:  # one that was cut short: its key may be all that opens an entry
                self._seal_all(entries, self._key())
            key = ChaCha20Poly1305.generate_key()
            # Both keys lie there while the entries are replaced: a cut between the two leaves one that opens them.
            self._write(self._key_path.with_name("key.new"), key)
            self._seal_all(entries, key)
            os.replace(self._key_path.with_name("key.new"), self._key_path)
            self._flush_folder()
        return len(entries)

    def _seal_all(self, entries: list[Entry], key: bytes) -> None:
        self._write(self._path, encode([_FORMAT, {entry.alias: _seal(entry, key) for entry in entries}]))

    # ---- the file ----------------------------------------------------------------------------------

    def _read(self) -> dict[str, list[Any]]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        except PermissionError as error:
            raise not_allowed(self._path) from error
        try:
            body = decode(data)
            sound = type(body) is list and body[0] == _FORMAT and type(body[1]) is dict
        except (EdgeError, ValueError, IndexError):
            sound = False
        if not sound or not all(type(each) is list and len(each) == 4 for each in body[1].values()):
            raise Misconfigured(
                f"{self._path} is no keychain.", mend="Put it back from a copy, or remove it."
            )
        return dict(body[1])

    def _open(self, alias: str, sealed: list[Any], key: bytes) -> Entry:
        kind, version, nonce, data = sealed
        for each in (key, self._next_key()):
            if each is None:
                continue
            try:
                opened = ChaCha20Poly1305(each).decrypt(nonce, data, _associated(alias, kind, version))
                return Entry(alias, kind, version, decode(opened))
            except (InvalidTag, ValueError, TypeError):
                continue
        raise Misconfigured(
            f"The alias {alias} cannot be opened: another key sealed it, or the file was changed.",
            mend=f"Set it again: edge keychain set {alias}; or put the right key back.",
        )

    def _key(self, *, make: bool = False) -> bytes:
        given = _from_systemd()
        path = self._key_path if given is None else given
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            if not make:
                raise Misconfigured(
                    f"The keychain's key {path} is gone; nothing opens {self._path} without it.",
                    mend="Put it back from a copy; or remove the folder, and set the aliases again.",
                ) from None
            key = ChaCha20Poly1305.generate_key()
            self._write(path, key)
        except PermissionError as error:
            raise not_allowed(path) from error
        if given is None and path.stat().st_mode & 0o077:
            raise Misconfigured(
                f"Others may read {path}.", mend=f"chmod 600 {path}, then edge keychain rotate."
            )
        if len(key) != _KEY_BYTES:
            raise Misconfigured(f"{path} is no key: it has {len(key)} bytes, not {_KEY_BYTES}.")
        return key

    def _next_key(self) -> bytes | None:
        try:
            return self._key_path.with_name("key.new").read_bytes()
        except OSError:
            return None

    def _write(self, path: Path, data: bytes) -> None:
        """Replace a file whole, durable when this returns."""
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        self._flush_folder()

    def _flush_folder(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _from_systemd() -> Path | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder) / CREDENTIAL if folder else None
    return path if path is not None and path.exists() else None


def _seal(entry: Entry, key: bytes) -> list[Any]:
    nonce = os.urandom(_NONCE_BYTES)
    associated = _associated(entry.alias, entry.kind, entry.version)
    data = ChaCha20Poly1305(key).encrypt(nonce, encode(entry.fields), associated)
    return [entry.kind, entry.version, nonce, data]


def _associated(alias: str, kind: str, version: int) -> bytes:
    return encode(["noetl-edge keychain", _FORMAT, alias, kind, version])


def _check(alias: str, kind: str, fields: Mapping[str, str]) -> None:
    if not _ALIAS.fullmatch(alias):
        raise Misconfigured(
            f"{alias!r:.80} cannot be an alias.",
            mend="Use up to 64 letters, digits, _ and -, no digit in front.",
        )
    if kind not in KINDS:
        raise Misconfigured(f"There is no kind {kind!r:.40}.", mend=f"Use one of {', '.join(KINDS)}.")
    lacking = [name for name in KINDS[kind] if not fields.get(name)]
    if lacking or not fields:
        raise Misconfigured(
            f"A {kind} credential has {' and '.join(lacking) or 'fields'}, and none was given.",
            mend="Give it on standard input, or at the prompt; a username by --username.",
        )
    for name, value in fields.items():
        size = len(value.encode())
        if name not in PLAIN_FIELDS and not SECRET_BYTES_MIN <= size <= SECRET_BYTES_MAX:
            raise Misconfigured(
                f"The {name} of {alias} has {size} bytes; a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}.",
                mend="A shorter one could not be told from ordinary text where secrets are taken out of results. "
                f"What is no secret may be short under the names {' and '.join(sorted(PLAIN_FIELDS))}.",
            )
