"""Entry of the process that ships: `python -m edge.sync --data FOLDER`.

Called by systemd (`edge-sync.service`) and `edge up`. It becomes the daemon, and ends with what a person must mend
where it cannot.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from edge.core.errors import EdgeError, Misconfigured
from edge.core.journal_log import log_as
from edge.core.options import LOG_LEVELS, Option, read_options
from edge.core.settings import load_settings
from edge.sync.daemon import serve
from edge.sync.ways import way_to_centre

OPTIONS = {
    "data": Option(None, help="data folder, $EDGE_DATA where it is left out"),
    "log-level": Option("info", LOG_LEVELS),
}


def main() -> int:
    """Run the daemon; its exit code: 0 stopped, 1 failed, 2 cannot start until somebody mends something."""
    given = read_options("edge.sync", OPTIONS, sys.argv[1:])
    log_as("sync", given["log-level"] or "info")
    try:
        settings = load_settings(Path(given["data"]) if given["data"] else None)
        return serve(settings, lambda: way_to_centre(settings))
    except EdgeError as error:
        logging.getLogger("edge.sync").critical("%s", error)
        return 2 if isinstance(error, Misconfigured) else 1


if __name__ == "__main__":
    sys.exit(main())
