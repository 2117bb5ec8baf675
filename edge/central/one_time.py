"""One-time tokens: a file made here lets one box bring its own key, once, within days.

Made by `edge central enrol` without a key, redeemed over HTTPS. The folder holds digests of tokens, so that who reads
a copy of it can enrol nothing. The same key redeeming the same token again is answered as at first, whose answer was
lost. A token must never bring a second key.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from pathlib import Path
from typing import Any, Final

from edge.central.boxes import Boxes, Enrolled
from edge.core.errors import Misconfigured, RequestRefused
from edge.segments.box_token import proves
from edge.store.whole_file import write_whole

TOKEN_UNKNOWN: Final = "enrolment_unknown"  # noqa: S105 - a code, no secret
TOKEN_USED: Final = "enrolment_used"  # noqa: S105
TOKEN_EXPIRED: Final = "enrolment_expired"  # noqa: S105
_TOKEN_BYTES: Final = 24
_NAME_DIGITS: Final = 32
_AGAIN: Final = "Make a new one at the centre: edge central enrol BOX --url URL --out FILE."


class OneTimeTokens:
    """The folder of tokens."""

    def __init__(self, folder: Path, boxes: Boxes) -> None:
        self._folder, self._boxes = folder, boxes
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)

    def make(self, box: str, now_ns: int, valid_ns: int) -> str:
        """A token for one box. Raises RequestRefused for a name that none can have, StorageFailed."""
        self._boxes.require_name(box)
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._write(token, {"box": box, "made_ns": now_ns, "expires_ns": now_ns + valid_ns, "used_by": ""})
        return token

    def redeem(self, token: str, box: str, public: bytes, proof: bytes, now_ns: int) -> Enrolled:
        """Enrol the key that this token brings. Raises RequestRefused with a code for each reason, StorageFailed."""
        said = self._read(token)
        if said is None or said["box"] != box:
            raise RequestRefused(
                "No enrolment of this centre has that token for that box.", code=TOKEN_UNKNOWN, mend=_AGAIN
            )
        if not proves(public, proof, token, box):
            raise RequestRefused("Who redeems this token does not hold the key.", code=TOKEN_UNKNOWN)
        if said["used_by"] not in ("", public.hex()):
            raise RequestRefused(
                f"The enrolment of {box} was used already, by another key.",
                code=TOKEN_USED,
                mend=f"Where nobody knows by whom: edge central revoke {box} {said['used_by']}. {_AGAIN}",
            )
        if said["used_by"] == "" and now_ns > said["expires_ns"]:
            raise RequestRefused(f"The enrolment of {box} has expired.", code=TOKEN_EXPIRED, mend=_AGAIN)
        # The key first: killed between the two, the same box redeems again and finds it there.
        if said["used_by"] == "":
            enrolled = self._boxes.enrol(box, public, now_ns)
            self._write(token, {**said, "used_by": public.hex(), "used_ns": now_ns})
            return enrolled
        return self._boxes.of_box(box)

    def _path(self, token: str) -> Path:
        return self._folder / f"{hashlib.sha256(token.encode()).hexdigest()[:_NAME_DIGITS]}.json"

    def _read(self, token: str) -> dict[str, Any] | None:
        path = self._path(token)
        try:
            said = json.loads(path.read_bytes())
            return {
                "box": str(said["box"]),
                "made_ns": int(said["made_ns"]),
                "expires_ns": int(said["expires_ns"]),
                "used_by": str(said["used_by"]),
            }
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Misconfigured(f"{path} cannot be read: {error}.", mend="Remove it. " + _AGAIN) from error

    def _write(self, token: str, said: dict[str, Any]) -> None:
        write_whole(self._path(token), json.dumps(said, indent=1).encode() + b"\n")
