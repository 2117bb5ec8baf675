"""`edge-sync`: ships sealed segments to the centre, within the budget, whenever there is a way.

Started by `python -m edge.sync`. One thread ships, turn by turn (`edge.sync.shipper`), and waits between turns;
another tells systemd that it lives, while turns or bytes go on: not while it is merely connected. It never opens the
log: it reads sealed segments and large values, and writes receipts, counts and what was set aside.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

from edge.core.clock import SystemClock, boot_id
from edge.core.errors import Misconfigured, StorageFailed, Unavailable
from edge.core.limits import PROGRESS_PATIENCE_S, SEAL_AFTER_S, SYNC_LOOK_S
from edge.core.service import Service
from edge.core.settings import Settings
from edge.sync import box_door, centre
from edge.sync.budget import METERED
from edge.sync.link import link_of
from edge.sync.meter import Meter, budgets_of
from edge.sync.shipper import Rooms, Shipper, Stopped, Turn
from edge.sync.transport import Transport

logger = logging.getLogger(__name__)

STATE_FILE: Final = "sync.json"
#: The note for `edge sync status` is written anew so often at most, unless it begins or ends to be trouble.
_NOTE_S: Final = 600.0
_STICKS_ONLY: Final = "only sticks go to this box's centre: there is nothing to ship to"
#: The link is looked at so often: it changes when somebody plugs something in.
_LINK_S: Final = 10.0


class Progress:
    """Whether anything moves: a turn that ends, a wait that was meant, or bytes that go out."""

    def __init__(self) -> None:
        self._moved_s = time.monotonic()
        self._until_s = 0.0

    def moved(self, wait_s: float = 0.0) -> None:
        """Something moved; for so long nothing more is expected."""
        self._moved_s = time.monotonic()
        self._until_s = self._moved_s + wait_s

    def __call__(self) -> bool:
        """For the watchdog."""
        return time.monotonic() - max(self._moved_s, self._until_s) < PROGRESS_PATIENCE_S


class Daemon:
    """One `edge-sync`, from start to stop. `connect` makes a new way to the centre."""

    def __init__(self, settings: Settings, connect: Callable[[], Transport]) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._progress = Progress()
        self._service = Service.of_environment()
        self._noted: tuple[str, str, float] = ("", "", -_NOTE_S)
        self._link = (METERED, -_LINK_S)
        self._sealed_s = time.monotonic()
        budgets, clock = budgets_of(settings), SystemClock()
        self._meter = Meter(budgets, settings.data / centre.FOLDER, clock, boot_id())
        self._shipper = Shipper(
            Rooms(
                settings=settings,
                meter=self._meter,
                budgets=budgets,
                clock=clock,
                link=self._link_now,
                chance=SystemRandom().random,
                connect=connect,
                progress=self._moved,
            ),
            SYNC_LOOK_S,
        )

    def run(self) -> int:
        """Ship until told to stop; the process's exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        self._service.ready("looking what the centre lacks")
        self._service.watch(_call_later, self._progress)
        said = ""
        try:
            while not self._stop.is_set():
                turn = self._shipper.turn()
                if turn.said != said:
                    said = turn.said
                    logger.log(logging.WARNING if turn.trouble else logging.INFO, "%s", said)
                self._service.status(said)
                self._note(turn)
                self._seal_where_nobody_does()
                self._progress.moved(turn.wait_s)
                self._rest(turn.wait_s)
        except Stopped:
            logger.info("an upload was let go; it goes on from there")
        self._service.stopping()
        self._shipper.let_go()
        self._meter.close()
        return 0

    def _rest(self, wait_s: float) -> None:
        """Wait for the next turn, the stop, or something urgent."""
        until_s = time.monotonic() + wait_s
        while (left_s := until_s - time.monotonic()) > 0:
            if self._stop.wait(min(left_s, SYNC_LOOK_S)) or self._shipper.urgent_came():
                return

    def _moved(self, _: int) -> None:
        if self._stop.is_set():
            raise Stopped
        self._progress.moved()

    def _link_now(self) -> str:
        name, looked_s = self._link
        if time.monotonic() - looked_s >= _LINK_S:
            # Where no route leads anywhere the centre may be next door; what nobody knows is spared.
            name = link_of(self._settings) or METERED
            self._link = name, time.monotonic()
        return name

    def _seal_where_nobody_does(self) -> None:
        """A box with `centre = true` seals by itself; one without is asked as often."""
        if self._settings.centre or time.monotonic() - self._sealed_s < SEAL_AFTER_S:
            return
        self._sealed_s = time.monotonic()
        self._progress.moved(SEAL_AFTER_S)
        try:
            if problem := box_door.seal(self._settings):
                logger.error("The log could not be sealed: %s", problem)
        except Unavailable as error:
            logger.info("nothing is sealed now: %s", error)

    def _note(self, turn: Turn) -> None:
        """For `edge sync status`, a file that need not outlive anything: written when trouble begins or ends.

        Else when it comes to rest, and now and then while something takes long: a quiet box's upload writes nothing.
        """
        said, trouble, at_s = self._noted
        rests = turn.wait_s == SYNC_LOOK_S
        long = turn.wait_s >= 1 and time.monotonic() - at_s >= _NOTE_S
        if turn.trouble == trouble and (turn.said == said or not (rests or long)):
            return
        self._noted = turn.said, turn.trouble, time.monotonic()
        _write_note(self._settings, {"said": turn.said, "trouble": turn.trouble, "link": self._link_now()})


def note_path(settings: Settings) -> Path:
    """Where the daemon says how it goes."""
    return settings.data / "run" / STATE_FILE


def _write_note(settings: Settings, said: dict[str, Any]) -> None:
    path = note_path(settings)
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(mode=0o750, exist_ok=True)
        part.write_text(json.dumps(said) + "\n", "utf-8")
        part.rename(path)
    except OSError as error:
        logger.warning("%s cannot be written: %s", path, error.strerror)


def _call_later(delay_s: float, callback: Callable[[], None]) -> None:
    timer = threading.Timer(delay_s, callback)
    timer.daemon = True
    timer.start()


def serve(settings: Settings, connect: Callable[[], Transport]) -> int:
    """Run the daemon. Raises Misconfigured where a person must mend something first, StorageFailed."""
    enrolment = centre.centre_of(settings)  # said now, and not at each turn
    if not (enrolment.url or settings.ship_to):
        service = Service.of_environment()
        service.ready(_STICKS_ONLY)
        logger.info(_STICKS_ONLY)
        service.stopping()
        return 0
    if not settings.data.is_dir():
        raise Misconfigured(f"The data folder {settings.data} is not there.", mend="Name one with --data.")
    if not settings.centre:
        logger.warning(
            "centre = true is not set in edge.toml: this box may prune what the centre does not have"
        )
    try:
        return Daemon(settings, connect).run()
    except StorageFailed as error:
        logger.critical("%s", error)
        return 1
