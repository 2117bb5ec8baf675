"""Takes secrets out of what a step gave back: values, texts and bytes, in the spellings in which they travel.

Made by whoever handed a claim its secrets (the runtime, and the worker for tables), for such claims only. Pure. It
finds a secret as it is, in base64 at any offset, percent-encoded, in hexadecimal and as JSON escapes it; what a block
encrypts, splits or turns round it cannot find, and that is nobody's promise.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus

from edge.core.limits import SECRET_BYTES_MIN

#: Fields of a credential that are no secret: they may be shown, and stay where they are.
PLAIN_FIELDS: Final = frozenset({"header", "username"})


class Scrubber:
    """Replaces every secret by `***alias***`."""

    def __init__(self, secrets: Mapping[str, Mapping[str, str]]) -> None:
        """`secrets` are the fields of each alias; what is shorter than SECRET_BYTES_MIN is no secret."""
        needles: dict[str, str] = {}
        for alias, fields in secrets.items():
            secret_fields = [value for name, value in fields.items() if name not in PLAIN_FIELDS]
            for secret in (*secret_fields, *_joined(fields)):
                if len(secret.encode()) >= SECRET_BYTES_MIN:
                    needles.update(dict.fromkeys(_spellings(secret), f"***{alias}***"))
        #: Longest first: one secret may hold another.
        self.needles: Final = sorted(needles.items(), key=lambda pair: -len(pair[0]))
        self._needles_bytes = [(needle.encode(), mark.encode()) for needle, mark in self.needles]

    def finds(self, data: bytes | memoryview) -> bool:
        """Whether any secret stands in these bytes."""
        data = bytes(data)
        return any(needle in data for needle, _ in self._needles_bytes)

    def text(self, text: str) -> str:
        """A text without secrets."""
        for needle, mark in self.needles:
            if needle in text:
                text = text.replace(needle, mark)
        return text

    def bytes(self, data: bytes) -> bytes:
        """Bytes without secrets."""
        for needle, mark in self._needles_bytes:
            if needle in data:
                data = data.replace(needle, mark)
        return data

    def value(self, value: Any) -> Any:
        """A plain value without secrets, keys of maps included; the same object where there is none."""
        kind = type(value)
        if kind is str:
            return self.text(value)
        if kind is bytes:
            return self.bytes(value)
        if kind is dict:
            return {self.value(key): self.value(each) for key, each in value.items()}
        if kind in (list, tuple):
            return kind(self.value(each) for each in value)
        return value


def _joined(fields: Mapping[str, str]) -> list[str]:
    """What a basic credential becomes in a header."""
    if "username" in fields and "password" in fields:
        return [f"{fields['username']}:{fields['password']}"]
    return []


def _spellings(secret: str) -> set[str]:
    data = secret.encode()
    found = {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        data.hex(),
        data.hex().upper(),
    }
    found |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    for before in range(3):
        # Inside a longer text base64 begins at one of three offsets; its first and last characters hold neighbours.
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            coded = encode(bytes(before) + data).decode().rstrip("=")
            first = -(-before * 8 // 6)
            last = (before + len(data)) * 8 // 6
            found.add(coded[first:last])
    return {each for each in found if len(each) >= SECRET_BYTES_MIN}
