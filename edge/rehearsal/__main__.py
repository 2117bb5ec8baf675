"""Entry of a rehearsal's process: `python -m edge.rehearsal --data FOLDER`.

Started by `edge playbook test` on a scratch folder: cases come on stdin, what became of them goes to stdout, one CBOR
document each. A process of its own, so that workers are forked from one that has loaded neither YAML nor threads, as
the runtime's are. It must never be given a folder that somebody needs.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

from edge.core.codec import decode, encode
from edge.core.settings import load_settings
from edge.runtime.__main__ import fork_zygote
from edge.runtime.process.locks import hold_workers_lock, lock_alone


def main() -> int:
    """Run every case in order; 0 where all could be run, whatever became of them."""
    arguments = argparse.ArgumentParser(prog="edge.rehearsal", description="Runs cases of playbooks.")
    arguments.add_argument("--data", type=Path, required=True, help="scratch folder")
    settings = load_settings(arguments.parse_args().data)
    logging.basicConfig(level="ERROR", format="rehearsal: %(levelname)s %(message)s", stream=sys.stderr)
    cases = decode(sys.stdin.buffer.read())
    # Workers must not hold on to the stream the answers go to.
    out_fd = os.dup(1)
    os.set_inheritable(out_fd, False)
    os.dup2(2, 1)
    lock_fd = lock_alone(settings)
    zygote, _ = fork_zygote(settings, hold_workers_lock(settings), lock_fd)

    import asyncio

    from edge.core.unforeseen import end_by_unforeseen
    from edge.rehearsal.stage import Stage

    async def rehearse() -> list[dict[str, Any]]:
        end_by_unforeseen(asyncio.get_running_loop())  # else its case would seem to wait for something
        stage = Stage(settings, zygote)
        try:
            return [await stage.run(case) for case in cases]
        finally:
            await stage.close()

    runs = asyncio.run(rehearse())
    with open(out_fd, "wb") as out:
        out.write(encode(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
