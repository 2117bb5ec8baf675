"""Signatures of the log: Ed25519 (RFC 8032), the same bytes for the same key and text.

Used by the sealer, by the centre and by whoever checks a segment or receipt. No daemon of the box imports it: the
library costs 10 MB. A private key is its seed of 32 bytes; where it is kept is its owner's affair
(`edge.store.key_file`).
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SEED_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64


class Signer:
    """One private key. `public` is the key that others know it by, 32 bytes."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """The signature, 64 bytes."""
        return self._key.sign(data)


def signed_by(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether that key signed those bytes. A key that is none signed nothing."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public: bytes) -> str:
    """A public key for people: eight groups of four hexadecimal digits of its SHA-256."""
    digits = hashlib.sha256(public).hexdigest()[:32]
    return " ".join(digits[at : at + 4] for at in range(0, 32, 4))
