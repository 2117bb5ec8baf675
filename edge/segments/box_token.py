"""What a box says of itself over the network: a request signed by its log key, and the proof with a one-time token.

A request's token is good for that method and target only, and for minutes. Nothing in it is secret after it was used,
and whoever repeats it repeats a request that changes nothing. Used by `edge.sync.https` and the centre's HTTP. Pure.
Texts are signed under a name of their own, so that no signature of a segment can be taken for one of these.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from edge.core.codec import decode, encode_canonical
from edge.core.errors import RequestRefused
from edge.core.limits import TOKEN_SKEW_NS
from edge.security.signing import SIGNATURE_BYTES, Signer, signed_by

SCHEME: Final = "NoETL-Box"
#: Codes of problem documents that a box acts upon.
CLOCK_SKEW: Final = "clock_skew"
TOKEN_INVALID: Final = "token_invalid"  # noqa: S105 - a code, no secret
_VERSION: Final = 1
_KEY_BYTES: Final = 32
_REQUEST: Final = b"noetl-edge request 1\0"
_ENROLMENT: Final = b"noetl-edge enrolment 1\0"


def authorization(signer: Signer, method: str, target: str, wall_ns: int) -> str:
    """The value of the header Authorization for one request; `target` is its path with the query."""
    said = encode_canonical([_VERSION, signer.public, wall_ns])
    signature = signer.sign(_text(method, target, said))
    return f"{SCHEME} {base64.urlsafe_b64encode(signature + said).decode()}"


def _text(method: str, target: str, said: bytes) -> bytes:
    return b"".join((_REQUEST, method.encode(), b" ", target.encode(), b"\0", said))


def key_of(header: str, method: str, target: str, now_ns: int) -> bytes:
    """The public key that signed this request; whose it is, the caller must know. Raises RequestRefused."""
    scheme, _, text = header.partition(" ")
    try:
        raw = base64.b64decode(text.encode(), altchars=b"-_", validate=True)
        signature, said = raw[:SIGNATURE_BYTES], raw[SIGNATURE_BYTES:]
        version, public, wall_ns = decode(said)
        if (
            (scheme, version) != (SCHEME, _VERSION)
            or type(public) is not bytes
            or len(public) != _KEY_BYTES
            or type(wall_ns) is not int
        ):
            raise ValueError
    except (ValueError, TypeError, binascii.Error) as error:
        raise RequestRefused(
            "The request is not signed by a box.",
            code=TOKEN_INVALID,
            mend="Send it with `edge sync push`, from a box that was enrolled.",
        ) from error
    if not signed_by(public, signature, _text(method, target, said)):
        raise RequestRefused(
            "The signature of this request does not fit it: it was changed on its way.", code=TOKEN_INVALID
        )
    if abs(wall_ns - now_ns) > TOKEN_SKEW_NS:
        raise RequestRefused(
            f"The box's clock is {abs(wall_ns - now_ns) // 10**9} s {'behind' if wall_ns < now_ns else 'ahead'}.",
            code=CLOCK_SKEW,
            mend="A box takes the time from this answer and asks again; nothing need be done.",
        )
    return public


def enrolment_proof(signer: Signer, token: str, box: str) -> bytes:
    """That who redeems a one-time token holds the log key."""
    return signer.sign(_proof_text(token, box, signer.public))


def proves(public: bytes, proof: bytes, token: str, box: str) -> bool:
    """Whether that key's holder redeems that token for that box."""
    return signed_by(public, proof, _proof_text(token, box, public))


def _proof_text(token: str, box: str, public: bytes) -> bytes:
    return _ENROLMENT + encode_canonical([token, box, public])
