"""Entry of the process that workers of a re-run are forked from: `python -m edge.replay FD FOLDER`.

Started by `edge.replay.sandbox` with the recorded seed of Python's hashes in its environment: that can only be given
to a new interpreter. It becomes the zygote that a box forks its workers from (`edge.worker.zygote`); it must never
open a log, and it is granted nothing.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path


def main() -> None:
    """Serve until who started it ends."""
    control = socket.socket(fileno=int(sys.argv[1]))
    folder = Path(sys.argv[2])
    # What the kernel's lock of a box is for its workers; here there is nobody to be kept apart from.
    lock_fd = os.open(os.devnull, os.O_RDONLY)
    from edge.tools.registry import preload
    from edge.worker.arrow_import import import_arrow
    from edge.worker.zygote import serve

    import_arrow()
    preload()
    import edge.worker.loop  # noqa: F401 - for the workers, which would each import it

    serve(control, folder, folder, os.getppid(), lock_fd)


if __name__ == "__main__":
    main()
