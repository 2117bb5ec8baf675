"""Opens the keychain for the runtime, in a process that ends when it has: `python -m edge.security.unseal FOLDER`.

Started by `edge.runtime.dispatch.secrets`, whose daemon must not carry the library (10 MB). What it opened goes to
standard output, a pipe only the runtime reads, as CBOR: `{alias: [kind, fields]}`, or a text that says why not.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge.core.codec import encode
from edge.core.errors import EdgeError
from edge.security.keychain import Keychain


def main() -> int:
    """Write the opened keychain; 0 also where it does not open, since the reason is the answer."""
    answer: object
    try:
        answer = {entry.alias: [entry.kind, entry.fields] for entry in Keychain(Path(sys.argv[1])).entries()}
    except EdgeError as error:
        answer = str(error)
    sys.stdout.buffer.write(encode(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
