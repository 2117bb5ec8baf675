"""`edge up`: the same processes systemd would start, in the foreground, under one small supervisor.

With no broker configured it starts the embedded one on loopback first: for laptops and demos. A process that ends is
started again, later each time it ends soon; one that cannot start as configured (exit code 2) ends all.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge.cli.children import ENDING, ends_with_us
from edge.cli.inputs import port_number
from edge.core.errors import Misconfigured, Unavailable
from edge.core.settings import BROKER_VARIABLE, Settings, load_settings
from gateway.mqtt import BrokerAddress

_RESTART_S: Final = 0.2
_RESTART_S_MAX: Final = 5.0
#: A process that lived this long earns a quick restart.
_STEADY_S: Final = 10.0
_EXIT_FAILED: Final = 1
_EXIT_MISCONFIGURED: Final = 2
#: Signals a process brings on itself; one that is killed from outside is simply started again.
_CRASHES: Final = frozenset({signal.SIGBUS, signal.SIGSEGV, signal.SIGILL, signal.SIGABRT, signal.SIGFPE})
_CRASHES_MAX: Final = 4
_PORT_MEND: Final = (
    "If a broker listens on that port already, use it with --broker mqtt://127.0.0.1:1883; "
    "else choose another port: --port 0."
)


def add(groups: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    parser = groups.add_parser(
        "up",
        parents=[shared],
        help="run gateway, runtime and workers here, in the foreground",
        description="Run gateway, runtime and workers in the foreground, with an embedded broker if none is set.",
        epilog="example:\n  edge up                                  (embedded broker on 127.0.0.1:1883)\n"
        "  edge up --broker mqtt://127.0.0.1:1883   (mosquitto)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--broker", metavar="URL", help="mqtt://[user:password@]host[:port]")
    parser.add_argument(
        "--port", type=port_number, default=1883, help="port of the embedded broker; 0 picks one"
    )
    parser.add_argument("--quiet", action="store_true", help="only warnings from the processes")
    parser.set_defaults(command=_up)


def _up(given: argparse.Namespace) -> int:
    broker = given.broker or os.environ.get(BROKER_VARIABLE)
    settings = load_settings(given.data, **({"broker": broker} if broker else {}))
    if settings.broker:
        BrokerAddress.parse(settings.broker)  # said now, and not once by every process
    try:
        (settings.data / "run").mkdir(parents=True, exist_ok=True, mode=0o750)
        _hold_alone(settings)
    except OSError as error:
        raise Misconfigured(
            f"The data folder {settings.data} cannot be used: {error.strerror}.",
            mend="Name another with --data, or give this one to the user who runs the box.",
        ) from error
    return asyncio.run(_Supervisor(settings, given.port, "warning" if given.quiet else "info").run())


def _hold_alone(settings: Settings) -> None:
    """One `edge up` for a folder, until this process ends. Raises Unavailable where another has it."""
    fd = os.open(settings.data / "run" / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise Unavailable(
            f"Another `edge up` already serves {settings.data}.",
            mend="Stop it first, or use another data folder (--data).",
        ) from error


class _Supervisor:
    def __init__(self, settings: Settings, port: int, log_level: str) -> None:
        self._settings, self._port, self._log_level = settings, port, log_level
        self._stop: asyncio.Event = asyncio.Event()
        self._exit_code = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
                loop.add_signal_handler(number, self._stop.set)
        tasks = []
        stop: asyncio.Future[Any] = loop.create_task(self._stop.wait())
        broker = self._settings.broker
        if not broker:
            ready: asyncio.Future[str] = loop.create_future()
            tasks.append(loop.create_task(self._keep("broker", self._broker_command, ready)))
            await asyncio.wait([ready, stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                return await self._end(tasks)
            port = ready.result().rpartition(":")[2]
            self._port = int(port)
            broker = f"mqtt://127.0.0.1:{port}"
        self._note_broker(broker)
        shared = ["--data", str(self._settings.data), "--log-level", self._log_level]
        runtime = [sys.executable, "-m", "edge.runtime", *shared]
        gateway = [sys.executable, "-m", "gateway", *shared]
        os.environ[BROKER_VARIABLE] = broker  # not an argument: arguments are for everybody to see
        tasks.append(loop.create_task(self._keep("runtime", lambda: runtime)))
        tasks.append(loop.create_task(self._keep("gateway", lambda: gateway)))
        if self._ships():
            sync = [sys.executable, "-m", "edge.sync", *shared]
            tasks.append(loop.create_task(self._keep("sync", lambda: sync)))
        print(
            f"box {self._settings.box} at {BrokerAddress.parse(broker)}, data in {self._settings.data}",
            flush=True,
        )
        # A task ends where all are to stop, or where it failed: then nobody would start its process again.
        await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        return await self._end(tasks)

    def _ships(self) -> bool:
        """Whether there is a way to a centre; where only sticks go, the process that ships would end at once."""
        try:
            said = json.loads(self._settings.enrolment_path.read_bytes())
        except (OSError, ValueError):
            return False
        return bool(self._settings.ship_to or (isinstance(said, dict) and said.get("url")))

    def _note_broker(self, broker: str) -> None:
        """Where `edge request` looks; it may hold a password."""
        path = _broker_note(self._settings)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as note:
            note.write(broker + "\n")

    def _broker_command(self) -> list[str]:
        return [sys.executable, "-m", "gateway.embedded_broker", "--port", str(self._port)]

    async def _keep(
        self, name: str, command: Callable[[], list[str]], ready: asyncio.Future[str] | None = None
    ) -> None:
        """Run a process, again and again, until told to stop."""
        loop = asyncio.get_running_loop()
        restart_s, crashes = _RESTART_S, 0
        while not self._stop.is_set():
            started_s = loop.time()
            try:
                code = await self._run_once(command(), ready)
            except OSError as error:  # no memory for a process, no file handle: there may be one in a moment
                code, ended = 1, f"cannot be started ({error.strerror})"
            else:
                ended = f"ended (code {code})"
            if self._stop.is_set():
                return
            if code == _EXIT_MISCONFIGURED or (ready is not None and not ready.done()):
                print(f"edge: {name} cannot start (see above); all stop.", file=sys.stderr, flush=True)
                if ready is not None:
                    print(f"edge: {_PORT_MEND}", file=sys.stderr, flush=True)
                self._exit_code = _EXIT_MISCONFIGURED
                self._stop.set()
                return
            if loop.time() - started_s > _STEADY_S:
                restart_s, crashes = _RESTART_S, 0
            crashes += code < 0 and -code in _CRASHES
            if crashes >= _CRASHES_MAX:
                self._give_up(name, -code)
                return
            print(
                f"{name} {ended}; it starts again in {restart_s:.1f} s",
                file=sys.stderr,
                flush=True,
            )
            await asyncio.sleep(restart_s)
            restart_s = min(restart_s * 1.5, _RESTART_S_MAX)

    def _give_up(self, name: str, number: int) -> None:
        """A process that crashes at every start is not mended by starting it once more."""
        print(
            f"edge: {name} was ended {_CRASHES_MAX} times by {signal.Signals(number).name} soon after it started; "
            f"all stop. `edge log verify --data {self._settings.data}` tells whether the log is whole; a damaged "
            f"index ({self._settings.index_folder}) may be moved away, it is made again from the journal.",
            file=sys.stderr,
            flush=True,
        )
        self._exit_code = _EXIT_FAILED
        self._stop.set()

    async def _run_once(self, command: list[str], ready: asyncio.Future[str] | None) -> int:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if ready is not None else None,
            start_new_session=True,
            preexec_fn=ends_with_us(signal.SIGTERM),
        )
        try:
            if ready is not None:
                assert process.stdout is not None
                line = (await process.stdout.readline()).decode().strip()
                if line and not ready.done():
                    ready.set_result(line)
            return await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 5.0)
            except TimeoutError:
                process.kill()
                await process.wait()
            raise

    async def _end(self, tasks: list[asyncio.Task[None]]) -> int:
        """Stop in the reverse order of starting: the gateway first, so that nothing is admitted into a stop."""
        self._stop.set()
        failed = [
            task for task in tasks if task.done() and not task.cancelled() and task.exception() is not None
        ]
        for task in reversed(tasks):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        _broker_note(self._settings).unlink(missing_ok=True)
        for task in failed:
            task.result()  # what nobody foresaw goes to the command's top
        return self._exit_code


def _broker_note(settings: Settings) -> Path:
    """Where `edge request` finds the broker of a running `edge up`."""
    return settings.data / "run" / "broker"
