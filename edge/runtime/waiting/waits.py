"""The kind `wait`: for a length of time, for an instant of the wall clock, or for a callback within either.

Called through `edge.runtime.waiting.hosted`. What is left of a wait is judged by `edge.core.timing` from the clocks
in the log; how it was judged stands in the task's outcome. It must never hold a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.core.codec import decode
from edge.core.events import CallbackReceived
from edge.core.limits import WAIT_S_MAX
from edge.core.loop_state import Waiting
from edge.core.records import record
from edge.core.timing import UNKNOWN, Left, Moment, left_of_length, left_until
from edge.runtime.commit.gate import CommitGate
from edge.runtime.running.live import Live, Place
from edge.runtime.waiting.hosted import Hosted, HostedOutcome
from edge.runtime.waiting.timers import LOOK_S, Timers
from playbooks.durations import duration_ms, instant_ms

KIND: Final = "wait"
_NS_PER_MS: Final = 1_000_000
_LOOK_MS: Final = round(LOOK_S * 1_000)


@record
class _Armed:
    """One wait: since when, and `{for_ms | until_ms[, lost][, round]}` as recorded; `round` of a callback's."""

    since: Moment
    detail: dict[str, Any]


class Waits:
    """All waits of one runtime."""

    def __init__(self, hosted: Hosted, timers: Timers, gate: CommitGate) -> None:
        self._hosted, self._timers, self._gate = hosted, timers, gate
        self._armed: dict[Place, _Armed] = {}

    def begin(self, live: Live, place: Place, config: Mapping[str, Any]) -> None:
        """Wait as the evaluated config says."""
        now = self._gate.now()
        detail = _detail(config)
        if detail is None:
            self._hosted.settle(place, HostedOutcome(problem=_invalid_problem(config)))
            return
        if self._adopts(live, place, detail):
            return
        left = _left(detail, now, now)
        if left.left_ms is not None and left.left_ms > WAIT_S_MAX * 1_000:
            self._hosted.settle(place, HostedOutcome(problem=_too_long_problem(left.left_ms)))
        elif left.left_ms == 0:
            self._over(place, detail, left.by, 0)
        else:
            self._hosted.waits(place, KIND, detail)
            self._arm(place, _Armed(now, detail), left)

    def take_up(self, live: Live, place: Place, waiting: Waiting) -> None:
        """Go on waiting since the event that says so."""
        detail = waiting.body.detail or {}
        if self._adopts(live, place, detail):
            return
        context = self._gate.context_of(waiting.seq)
        self._armed[place] = _Armed(Moment(context.boot_id, context.at), detail)
        self._look(place)

    def called(self, live: Live, step: str, item: int | None, body: CallbackReceived) -> None:
        """A callback was recorded: the task that waits for it, if it waits by now, is over."""
        act = live.under_way.get(step)
        held = None if act is None else act.hosted.get(item)
        armed = None if held is None else self._armed.get(held[1])
        if held is not None and armed is not None and armed.detail.get("round") == body.round:
            passed_us = _passed_us(armed.since, self._gate.now())
            self.drop(held[1])
            self._hosted.settle(held[1], _called(body, passed_us))

    def _adopts(self, live: Live, place: Place, detail: Mapping[str, Any]) -> bool:
        """Whether the callback is there already; then the task is over."""
        if "round" not in detail:
            return False
        step = live.state.steps.get(place.step)
        came: tuple[CallbackReceived, ...] = ()
        if step is not None and step.visit == place.visit:
            loop = step.loop
            came = step.callbacks if loop is None else loop.callbacks.get(place.item or 0, ())
        body = next((each for each in came if each.round == detail["round"]), None)
        if body is not None:
            self._hosted.settle(place, _called(body, 0))
        return body is not None

    def drop(self, place: Place) -> None:
        """Nobody waits for this any longer."""
        self._armed.pop(place, None)
        self._timers.drop(place)

    def due(self, waiting: Waiting, callbacks: tuple[CallbackReceived, ...]) -> tuple[int, int | None]:
        """When it is to be looked at again; part of `edge.runtime.waiting.hosted.HostedKind`."""
        detail, now = waiting.body.detail or {}, self._gate.now()
        if any(came.round == detail.get("round") for came in callbacks):
            return now.at.mono_ns, None  # what it waits for is there
        left_ms = self._left_of(waiting, now).left_ms
        next_ms = _LOOK_MS if left_ms is None else left_ms
        return now.at.mono_ns + next_ms * _NS_PER_MS, detail.get("until_ms")

    def left_ms(self, waiting: Waiting) -> int | None:
        """How long a wait may last from now; None where no clock can say, or its kind is another."""
        if waiting.body.kind != KIND:
            return None
        return self._left_of(waiting, self._gate.now()).left_ms

    def _left_of(self, waiting: Waiting, now: Moment) -> Left:
        since = now
        if waiting.seq <= self._gate.durable_seq:
            context = self._gate.context_of(waiting.seq)
            since = Moment(context.boot_id, context.at)
        return _left(waiting.body.detail or {}, since, now)

    def _arm(self, place: Place, armed: _Armed, left: Left) -> None:
        self._armed[place] = armed
        next_ms = _LOOK_MS if left.left_ms is None else left.left_ms
        if "until_ms" in armed.detail:
            next_ms = min(next_ms, _LOOK_MS)  # the wall clock may be set meanwhile
        self._timers.arm(self._gate.now().at.mono_ns + next_ms * _NS_PER_MS, place, self._look)

    def _look(self, place: Place) -> None:
        """Whether it is over."""
        armed, now = self._armed[place], self._gate.now()
        left = _left(armed.detail, armed.since, now)
        if left.left_ms or left.left_ms is None:
            self._arm(place, armed, left)
        elif left.by == UNKNOWN:
            self._unknown(place, armed, now)
        else:
            self._over(place, armed.detail, left.by, _passed_us(armed.since, now))

    def _unknown(self, place: Place, armed: _Armed, now: Moment) -> None:
        """The clocks cannot say what is left: as the playbook wants for that."""
        wanted = armed.detail.get("lost", "fire")
        if wanted == "fail":
            self.drop(place)
            self._hosted.settle(place, HostedOutcome(problem=_LOST_PROBLEM))
        elif wanted == "restart":
            # Recorded anew, so that the next restart counts from here.
            self._hosted.waits(place, KIND, armed.detail)
            self._arm(place, _Armed(now, armed.detail), _left(armed.detail, now, now))
        else:
            self._over(place, armed.detail, "after_power_loss", 0)

    def _over(self, place: Place, detail: Mapping[str, Any], by: str, passed_us: int) -> None:
        """The time has come: what was waited for, or the bound of a callback that did not come."""
        self.drop(place)
        value = {"by": by, "waited_ms": passed_us // 1_000}
        if "round" in detail:
            problem = {**_TIMEOUT_PROBLEM, **value}
            self._hosted.settle(place, HostedOutcome(problem=problem, duration_us=passed_us))
        else:
            self._hosted.settle(place, HostedOutcome(value, duration_us=passed_us))


def _detail(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the log keeps of a wait's config; None where it says no time."""
    lost = config.get("after_power_loss", "fire")
    more: dict[str, Any] = {"lost": lost} if lost != "fire" else {}
    if config.get("callback"):
        more["round"] = config["round"]
    if config.get("until") is not None:
        until_ms = instant_ms(config["until"])
        return None if until_ms is None else {"until_ms": until_ms, **more}
    length_ms = duration_ms(config.get("seconds"))
    return None if length_ms is None else {"for_ms": round(length_ms), **more}


def _called(body: CallbackReceived, passed_us: int) -> HostedOutcome:
    return HostedOutcome(None if body.value is None else decode(body.value), duration_us=passed_us)


def _left(detail: Mapping[str, Any], since: Moment, now: Moment) -> Left:
    if "until_ms" in detail:
        return left_until(detail["until_ms"], since, now)
    return left_of_length(detail["for_ms"], since, now)


def _passed_us(since: Moment, now: Moment) -> int:
    """How long a wait took: by the clock that can say."""
    if since.boot_id == now.boot_id:
        return (now.at.mono_ns - since.at.mono_ns) // 1_000
    return max(0, now.at.wall_ns - since.at.wall_ns) // 1_000


def _invalid_problem(config: Mapping[str, Any]) -> dict[str, Any]:
    what = "until" if config.get("until") is not None else "seconds"
    return {
        "code": "wait_invalid",
        "message": f"`{what}` of a wait is {config.get(what)!r:.60}.",
        "mend": 'Give seconds or a text such as "5s", "2m"; for `until` an ISO 8601 time or seconds since 1970.',
    }


def _too_long_problem(length_ms: int) -> dict[str, Any]:
    return {
        "code": "wait_too_long",
        "message": f"A wait of {length_ms // 86_400_000} days is longer than {WAIT_S_MAX // 86_400}.",
        "mend": "Send a new request by then.",
    }


_TIMEOUT_PROBLEM: Final = {
    "code": "callback_timeout",
    "message": "The callback did not come in time.",
    "mend": "Let the policy say what follows: do: jump to the task that hands out the token gives a new one.",
}
_LOST_PROBLEM: Final = {
    "code": "wait_lost",
    "message": "The power failed during a wait, and no clock says for how long.",
    "mend": "Let the policy say what follows, or set after_power_loss to fire or restart.",
}
