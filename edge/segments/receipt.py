"""Receipts: a centre's signed word that it has all of a log up to an event. Small enough for a picture of squares.

Made by the centre (`edge.central`) after everything it speaks of is durable there; believed by a box only with the
centre's key that it was enrolled with, and only as far as the box's own chain agrees (`edge.store.upstream`). Pure.
"""

from __future__ import annotations

from typing import Final

from edge.core.codec import decode, encode_canonical
from edge.core.errors import ReceiptRejected
from edge.core.records import record
from edge.security.signing import SIGNATURE_BYTES, Signer, signed_by

_VERSION: Final = 1
#: Bytes of the centre's key that stand in a receipt: enough to say which key, too few to be taken for it.
_HINT_BYTES: Final = 4


@record
class CentreReceipt:
    """The centre has all of log `log_id` up to event `through`, where the chain's link is `link`, as of `wall_ns`."""

    log_id: bytes
    through: int
    link: bytes
    wall_ns: int


def signed(receipt: CentreReceipt, signer: Signer) -> bytes:
    """The receipt as it is carried: 64 bytes of signature, then canonical CBOR; some 140 bytes."""
    hint = signer.public[:_HINT_BYTES]
    said = encode_canonical([_VERSION, receipt.log_id, receipt.through, receipt.link, receipt.wall_ns, hint])
    return signer.sign(said) + said


def opened(data: bytes, centre: bytes) -> CentreReceipt:
    """A receipt that the centre with this public key signed. Raises ReceiptRejected."""
    unchecked(data)
    signature, said = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    if not signed_by(centre, signature, said):
        raise ReceiptRejected(
            "The receipt is not signed by this box's centre.",
            mend="Is it another centre's, was the box enrolled anew, was it damaged on its way? Ask the centre for a "
            "fresh one.",
        )
    return unchecked(data)


def unchecked(data: bytes) -> CentreReceipt:
    """What a receipt says, whoever signed it: to be shown, never to be believed. Raises ReceiptRejected."""
    said = data[SIGNATURE_BYTES:]
    try:
        version, log_id, through, link, wall_ns, _ = decode(said)
        if (
            version != _VERSION
            or (len(log_id), len(link)) != (8, 32)
            or type(through) is not int
            or through < 1
            or type(wall_ns) is not int
        ):
            raise ValueError("its fields are not those of a receipt")
    except (ValueError, TypeError) as error:
        raise ReceiptRejected(
            "That is no receipt, or one of another release.",
            mend="A receipt is the file RECEIPT in a bundle that was imported, or the text of its picture.",
        ) from error
    return CentreReceipt(log_id, through, link, wall_ns)
