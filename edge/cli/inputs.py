"""Inputs as people give them on the command line: JSON in place, or `@file` by its kind."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from edge.core.codec import decode_json_payload
from edge.core.errors import PayloadInvalid, RequestRefused
from edge.core.limits import PAYLOAD_BYTES_MAX, PLAYBOOK_BYTES_MAX
from edge.core.settings import Settings

_KINDS: Final = {
    ".json": "application/json",
    ".cbor": "application/cbor",
    ".arrow": "application/vnd.apache.arrow.stream",
    ".arrows": "application/vnd.apache.arrow.stream",
}
EXAMPLE: Final = '--input \'{"name": "Ada"}\' or --input @readings.json (.cbor, .arrow)'


def read_input(given: str | None) -> tuple[bytes, str]:
    """`(payload, content type)` of an `--input`. Raises RequestRefused, PayloadInvalid."""
    if given is None:
        return b"{}", _KINDS[".json"]
    if not given.startswith("@"):
        payload = os.fsencode(given)  # as it was typed, whatever the locale makes of it
        try:
            decode_json_payload(payload)
        except PayloadInvalid as error:
            raise RequestRefused(f"--input: {error.message}", mend=f"Write {EXAMPLE}.") from error
        return payload, _KINDS[".json"]
    path = Path(given[1:])
    kind = _KINDS.get(path.suffix)
    if kind is None:
        raise RequestRefused(f"--input: {path} has no known kind.", mend=f"Name it {', '.join(_KINDS)}.")
    try:
        if not path.is_file() and path.exists():
            raise RequestRefused(f"--input: {path} is no file.", mend="Name an ordinary file.")
        if path.stat().st_size > PAYLOAD_BYTES_MAX:
            raise RequestRefused(
                f"--input: {path} has {path.stat().st_size} bytes; {PAYLOAD_BYTES_MAX} are allowed.",
                mend="Send less at a time.",
            )
        return path.read_bytes(), kind
    except OSError as error:
        raise RequestRefused(
            f"--input: {path} cannot be read: {error.strerror}.", mend="Check the path."
        ) from error


def file_name(text: str) -> Path:
    """A file's name, for argparse: an empty one would be the folder one is in."""
    if not text:
        raise argparse.ArgumentTypeError("a file's name cannot be empty")
    return Path(text)


def positive_count(text: str) -> int:
    """A whole number above 0, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def whole_number(text: str) -> int:
    """A whole number from 0 up, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def port_number(text: str) -> int:
    """A port of this machine, 0 for any, for argparse."""
    if not (text.isascii() and text.isdecimal()) or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; write 0 to 65535")
    return int(text)


def positive_seconds(text: str) -> float:
    """A number of seconds above 0, for argparse."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def read_source(path: Path) -> bytes:
    """A playbook's source. Raises RequestRefused where it is no file that can be read, or is too large."""
    try:
        if not path.is_file() and path.exists():  # a device or a pipe may never end
            raise RequestRefused(
                f"{path} is no ordinary file.", mend="Name one; save what a pipe gives first."
            )
        with path.open("rb") as file:
            source = file.read(PLAYBOOK_BYTES_MAX + 1)
    except OSError as error:
        raise RequestRefused(f"{path} cannot be read: {error.strerror}.", mend="Check the path.") from error
    if len(source) > PLAYBOOK_BYTES_MAX:
        raise RequestRefused(
            f"{path} has more than {PLAYBOOK_BYTES_MAX // 1024} KB.", mend="Split the playbook."
        )
    return source


def require_log(settings: Settings) -> None:
    """Raises RequestRefused where a data folder holds no log."""
    if not settings.journal_folder.is_dir() and not settings.index_folder.is_dir():
        raise RequestRefused(
            f"There is no log in {settings.data}.",
            mend="Name the data folder with --data, or start `edge up`.",
        )
