"""Entry of the runtime process: `python -m edge.runtime --data FOLDER`.

Starts over once for its hash seed, then forks the zygote, before LMDB, threads or an event loop exist, then becomes
the daemon. Imports are late on purpose: those up here are done twice, what is imported before the fork is shared by
all processes, and what comes after is not in the zygote.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge.core.errors import EdgeError, LogDamaged, Misconfigured, Unavailable
from edge.core.journal_log import log_as
from edge.core.options import LOG_LEVELS, Option, read_options
from edge.core.settings import Settings, load_settings
from edge.runtime.process.hash_seed import with_own_seed
from edge.store.filesystem import MOUNT_TABLE, require_sound

if TYPE_CHECKING:
    import socket

OPTIONS = {
    "data": Option(None, help="data folder, $EDGE_DATA where it is left out"),
    "log-level": Option("info", LOG_LEVELS),
}


def main(mount_table: Path = MOUNT_TABLE) -> int:
    """Run the daemon; its exit code: 0 stopped, 1 failed, 2 cannot start until somebody mends something."""
    given = read_options("edge.runtime", OPTIONS, sys.argv[1:])
    log_as("runtime", given["log-level"] or "info")
    try:
        settings = load_settings(Path(given["data"]) if given["data"] else None)
        require_sound(settings, mount_table)  # before anything is written there
        # This may start the process over, so it stands before all that is long to import.
        return _run(settings, with_own_seed(settings))
    except LogDamaged as error:
        from edge.runtime.process.mending import mend

        logging.getLogger("edge.runtime").critical("%s", error)
        if mend(settings, index_anew=error.problem_code == LogDamaged.INDEX):
            # From the very start: the zygote of this one is forked, and another runtime may have come first.
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves
        return 2
    except EdgeError as error:
        logging.getLogger("edge.runtime").critical("%s", error)
        return 2 if isinstance(error, Unavailable | Misconfigured) else 1
    except OSError as error:
        from edge.runtime.process.system_errors import told

        said = told(error)
        if said is None:
            raise  # nobody is to look after a drive for a mistake of ours
        logging.getLogger("edge.runtime").critical("%s", said[0])
        return said[1]


def _run(settings: Settings, hash_seed: int | None) -> int:
    from edge.runtime.process.locks import lock_alone
    from edge.runtime.process.mending import ended_while_opening, mend
    from edge.store.segment_file import segment_paths

    # A journal that is gone is not for the start to make: most likely its drive is not there.
    if (ends := ended_while_opening(settings)) and segment_paths(settings.journal_folder):
        mend(settings, index_anew=ends > 1)
    lock_fd = lock_alone(settings)
    try:
        return _serve(settings, lock_fd, hash_seed)
    finally:
        os.close(lock_fd)


def _serve(settings: Settings, lock_fd: int, hash_seed: int | None) -> int:
    from edge.runtime.process.locks import hold_workers_lock

    workers_fd = hold_workers_lock(settings)
    zygote, zygote_pid = fork_zygote(settings, workers_fd, lock_fd)

    import asyncio

    import uvloop

    from edge.runtime.daemon import Daemon
    from edge.runtime.process.heap import one_heap

    one_heap()
    # A thread that needs the interpreter lock after a flush must not wait 5 ms for it.
    sys.setswitchinterval(0.0005)
    gc.freeze()
    # Next to nothing here is cyclic, and hundreds of open executions are walked at every full collection.
    gc.set_threshold(50_000, 20, 50)

    async def serve() -> int:
        return await Daemon(settings, zygote, zygote_pid, hash_seed).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve())


def fork_zygote(settings: Settings, workers_fd: int, lock_fd: int) -> tuple[socket.socket, int]:
    """`(its control socket, its process id)`; to be called before there are threads or an event loop."""
    import socket

    from edge.runtime.process.shared_imports import settle

    settle()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    runtime_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            os.close(lock_fd)
            from edge.worker.zygote import serve

            serve(theirs, settings.cache_folder, settings.data, runtime_pid, workers_fd)
        except BaseException:
            logging.getLogger("edge.runtime").critical("the zygote failed", exc_info=True)
            raise
        finally:
            os._exit(1)
    theirs.close()
    os.close(workers_fd)
    return ours, pid


if __name__ == "__main__":
    sys.exit(main())
