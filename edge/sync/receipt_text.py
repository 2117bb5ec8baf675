"""A receipt as text: what stands in a picture of squares, what a scanner types, what fits into a message.

Called by `edge receipt` and `edge sync receipt`. Pure. The signature is what makes a receipt believed; this only
carries its bytes. Base 32: capital letters and digits alone, the densest that a scanner which acts as a keyboard, and
a person's mail, leave as it is (base 45 saves two rows of squares, and has blanks and signs that they change).
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from edge.core.errors import ReceiptRejected
from edge.security.signing import SIGNATURE_BYTES

PREFIX: Final = "EDGE1:"
#: A receipt has some 141 bytes; a file that somebody takes for one may have any size.
_CHARS_MAX: Final = 1_000
_MEND: Final = "Scan it again, all of it: it begins with EDGE1: and has some 230 characters."


def as_text(receipt: bytes) -> str:
    """A signed receipt's bytes as text: `EDGE1:` and letters and digits."""
    return PREFIX + base64.b32encode(receipt).decode("ascii").rstrip("=")


def from_text(text: str) -> bytes:
    """The bytes again; blanks, line breaks and small letters do no harm. Raises ReceiptRejected."""
    said = "".join(text.split()).upper()
    if len(said) > _CHARS_MAX or not said.startswith(PREFIX):
        raise ReceiptRejected("This is no receipt as text.", mend=_MEND)
    digits = said.removeprefix(PREFIX)
    try:
        data = base64.b32decode(digits + "=" * (-len(digits) % 8))
    except binascii.Error as error:
        raise ReceiptRejected("The receipt's text is not whole.", mend=_MEND) from error
    if len(data) <= SIGNATURE_BYTES:
        raise ReceiptRejected("The receipt's text is cut short.", mend=_MEND)
    return data


def from_bytes(data: bytes) -> bytes:
    """A receipt from a file's content: the bytes as they are, or their text. Raises ReceiptRejected."""
    if data[: len(PREFIX) + 8].lstrip().upper().startswith(PREFIX.encode()):
        return from_text(data[: 2 * _CHARS_MAX].decode("ascii", "replace"))
    return data
