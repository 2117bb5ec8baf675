"""Writes the golden segments of one release: `python -m tests.golden.seal FOLDER`, from every golden log beside this.

One segment of each codec for each log. A folder that was released is never written again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge.core.codec import encode
from edge.security.signing import Signer
from edge.segments import packing, sealing
from edge.segments.columns import StoredGroup
from edge.segments.cuts import Cuts
from edge.segments.sealing import Sealing
from edge.store.blobs import BlobStore

HERE = Path(__file__).parent
#: Known to everybody: it vouches for nothing.
SIGNER = Signer(bytes(range(32)))


def as_plain(groups: list[StoredGroup]) -> tuple[str, bytes, int]:
    """What `packed` falls back to."""
    import zstandard

    data = encode([[group.first_seq, group.epoch_key, group.data] for group in groups])
    return packing.PLAIN, zstandard.ZstdCompressor(level=19).compress(data), len(data)


def main() -> int:
    """Write them."""
    folder = Path(sys.argv[1])
    for log in sorted(path for path in HERE.glob("v*") if path.is_dir()):
        for codec, pack in ((packing.COLUMNS, packing.packed), (packing.PLAIN, as_plain)):
            sealing.packed = pack  # type: ignore[assignment]
            place = folder / log.name / codec.partition("+")[0]
            made = Sealing(place, SIGNER, "golden", BlobStore(log / "blobs"))
            count = len(list(made.seal(log / "journal", 2**62, everything=True)))
            Cuts(place).path.unlink()
            print(f"{place}: {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
