"""The kind `mqtt`: a message for the gateway to publish, its acknowledgement or the answer to it as the outcome.

Called through `edge.runtime.waiting.hosted`; the gateway carries it out (`gateway.publishing`) and says how it went.
What a step may publish is held here, by its grants: the gateway has the box's own rights at the broker. A message is
handed over once; where nobody knows whether the broker has it, the step's `on_unknown` says what follows. Must never
hold a worker, and never hand over before the intent of the task is durable (`edge.runtime.waiting.hosted` sees to
that).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from edge.core.codec import decode_cbor_payload, decode_json_payload, encode
from edge.core.errors import PayloadInvalid
from edge.core.events import CallbackReceived
from edge.core.limits import INLINE_BYTES_MAX, MQTT_PROPERTIES_MAX, TOPIC_BYTES_MAX
from edge.core.loop_state import Waiting
from edge.core.records import record
from edge.runtime.commit.gate import CommitGate
from edge.runtime.downstreams.circuits import Circuits
from edge.runtime.running.live import Live, Place
from edge.runtime.waiting.hosted import Hosted, HostedOutcome
from edge.runtime.waiting.timers import Timers
from playbooks.shape import Step, Task

KIND: Final = "mqtt"
#: The broker's name among the downstreams of circuit breakers.
DOWNSTREAM: Final = "mqtt"
_NS_PER_MS: Final = 1_000_000
_CBOR: Final = "application/cbor"
_JSON: Final = "application/json"
_TEXT: Final = "text/plain"


@record
class _Under:
    """One message under way: its frame for the gateway, whether a gateway has it, and who waits for it."""

    place: Place
    frame: list[Any]
    task: Task
    step: Step
    since_ns: int
    handed: bool = False


class Mqtt:
    """All messages of hosted tasks."""

    def __init__(self, hosted: Hosted, timers: Timers, circuits: Circuits, gate: CommitGate) -> None:
        self._hosted, self._timers, self._circuits, self._gate = hosted, timers, circuits, gate
        #: Hands a frame to the gateway; False where there is none. The api's.
        self.send: Callable[[list[Any]], bool] = lambda frame: False
        self.box = ""
        self._number = 0
        self._under: dict[int, _Under] = {}
        self._numbers: dict[Place, int] = {}

    # ---- as a kind of hosted task ---------------------------------------------------------------------

    def begin(self, live: Live, place: Place, config: Mapping[str, Any]) -> None:
        """Hand the message over, or refuse it."""
        step = live.blueprint.steps[live.blueprint.step_index[place.step]]
        task = next(each for each in step.tasks if each.name == place.task)
        problem = self._refusal(task, config)
        frame: list[Any] = []
        if problem is None:
            try:
                frame = self._frame(live, place, config)
            except PayloadInvalid as error:
                problem = _problem("request_invalid", error.message, error.mend)
        if problem is not None:
            self._hosted.settle(place, HostedOutcome(problem=problem))
            return
        under = _Under(place, frame, task, step, self._gate.now().at.mono_ns)
        self._under[frame[1]] = under
        self._numbers[place] = frame[1]
        due_ns = under.since_ns + config["timeout_ms"] * _NS_PER_MS
        self._timers.arm(due_ns, place, self._late)
        self._hand_over(under)

    def take_up(self, live: Live, place: Place, waiting: Waiting) -> None:
        """Messages are never recorded as waiting: after a restart the step's `on_unknown` decides."""
        raise AssertionError("a message does not wait in the log")

    def due(self, waiting: Waiting, callbacks: tuple[CallbackReceived, ...]) -> None:
        """As `take_up`: no execution is parked over a message."""

    def drop(self, place: Place) -> None:
        """Nobody waits for this any longer; what the broker has it keeps."""
        number = self._numbers.pop(place, None)
        self._timers.drop(place)
        if number is not None:
            del self._under[number]
            self.send(["forget", number])

    # ---- from the gateway -----------------------------------------------------------------------------

    def gateway_up(self) -> None:
        """A gateway is there: hand over what waits for one."""
        for under in list(self._under.values()):
            if not under.handed:
                self._hand_over(under)

    def gateway_down(self) -> None:
        """The gateway went, and nobody knows what became of what it had."""
        for under in list(self._under.values()):
            if under.handed:
                self._unknown(under, "the gateway went away")

    def published(self, number: int, how: str, code: int) -> None:
        """What became of a message: "ok", "refused" with the broker's `code`, or "unknown"."""
        under = self._under.get(number)
        if under is None:
            return
        if how == "ok":
            self._met(under, success=True)
            if not under.frame[8]:
                self._settle(
                    under, HostedOutcome({"topic": under.frame[2], "qos": under.frame[4], "code": code})
                )
        elif how == "refused":
            message = f"The broker refused a message to {under.frame[2]} (0x{code:02x})."
            mend = "Look at the broker's access list; the gateway publishes with its own rights."
            self._settle(under, HostedOutcome(problem=_problem("mqtt_refused", message, mend)))
        else:
            self._met(under, success=False)
            self._unknown(under, "the connection to the broker was lost")

    def replied(self, number: int, content_type: str | None, payload: bytes) -> None:
        """The answer to a request."""
        under = self._under.get(number)
        if under is not None:
            self._settle(under, _reply_outcome(under.frame[2], content_type, payload))

    # ---- inside ---------------------------------------------------------------------------------------

    def _refusal(self, task: Task, config: Mapping[str, Any]) -> dict[str, Any] | None:
        topic = config["message"].get("topic")
        if not isinstance(topic, str) or not 0 < len(topic.encode()) <= TOPIC_BYTES_MAX:
            return _problem("request_invalid", f"{topic!r:.80} is no topic.", "Let it give a text.")
        if any(sign in topic for sign in "+#\0"):
            return _problem("request_invalid", f"{topic!r:.80} cannot be published to.", "Take + and # out.")
        if topic.startswith(("$", f"edge/v1/{self.box}/")):
            mend = "Publish below a topic of your own; a playbook is run by `kind: playbook`."
            return _problem(
                "access_denied", f"The topic {topic!r:.80} is the broker's or this box's own.", mend
            )
        if not task.access.may_publish(topic):
            mend = f'Grant it: spec.policy.access.topics: ["{topic:.80}"].'
            return _problem("access_denied", f"The step may not publish to {topic!r:.80}.", mend)
        refused_ms = self._circuits.refused_ms(DOWNSTREAM) if task.breaker is not None else 0
        if refused_ms:
            found = _problem("circuit_open", "The broker failed several times in a row and is left alone for now.",
                             "`edge circuit list` says until when.")  # fmt: skip
            return {**found, "kind": "circuit_open", "retryable": True, "retry_after_ms": refused_ms}
        return None

    def _frame(self, live: Live, place: Place, config: Mapping[str, Any]) -> list[Any]:
        """`[publish, number, topic, payload, qos, retain, content type, properties, whether it asks]`.

        Raises PayloadInvalid.
        """
        message = config["message"]
        payload, kind = _payload(message.get("payload"), config["content_type"])
        properties = _properties(message.get("properties"))
        item = "" if place.item is None else f"/{place.item}"
        key = f"{live.execution_id}/{place.step}/{place.visit}{item}/{place.task}/{place.number}"
        properties.append(["idempotency-key", key])
        self._number += 1
        asks = config["action"] == "request"
        head: list[Any] = ["publish", self._number, message["topic"], payload]
        return [*head, config["qos"], config["retain"], kind, properties, asks]

    def _hand_over(self, under: _Under) -> None:
        if self.send(under.frame):
            number = under.frame[1]
            self._under[number] = _Under(
                under.place, under.frame, under.task, under.step, under.since_ns, handed=True
            )

    def _unknown(self, under: _Under, why: str) -> None:
        """Nobody knows whether the broker has it."""
        if under.task.effect == "read" or under.step.on_unknown == "retry":
            again = _Under(under.place, under.frame, under.task, under.step, under.since_ns)
            self._under[under.frame[1]] = again
            self._hand_over(again)
            return
        message = f"It is not known whether the broker has the message to {under.frame[2]}: {why}."
        mend = "Look at its effect; or declare spec.on_unknown: retry, where receiving it twice does no harm."
        self._settle(under, HostedOutcome(problem=_problem("outcome_unknown", message, mend)))

    def _late(self, place: Place) -> None:
        number = self._numbers.get(place)
        if number is None:
            return
        under = self._under[number]
        what = "no answer came" if under.frame[8] else "the broker did not take it"
        message = f"A message to {under.frame[2]}: {what} in time."
        problem = _problem("mqtt_timeout", message, "Is the broker there? A rule may try again.")
        self._met(under, success=False)
        self.send(["forget", number])
        self._settle(under, HostedOutcome(problem={**problem, "kind": "timeout", "retryable": True}))

    def _settle(self, under: _Under, outcome: HostedOutcome) -> None:
        del self._under[under.frame[1]]
        del self._numbers[under.place]
        self._timers.drop(under.place)
        took_us = (self._gate.now().at.mono_ns - under.since_ns) // 1_000
        self._hosted.settle(
            under.place, HostedOutcome(outcome.value, outcome.table, outcome.problem, max(took_us, 0))
        )

    def _met(self, under: _Under, *, success: bool) -> None:
        breaker = under.task.breaker
        if breaker is not None:
            self._circuits.over(0, [[DOWNSTREAM, success, breaker.trip_after, breaker.probe_after_ms]])


def _problem(code: str, message: str, mend: str) -> dict[str, Any]:
    return {"code": code, "message": message, "mend": mend}


def _payload(given: Any, content_type: str | None) -> tuple[bytes, str | None]:
    """A payload as bytes, and what it is. Raises PayloadInvalid."""
    if content_type == _CBOR:
        data = encode(given)
    elif given is None:
        data = b""
    elif isinstance(given, bytes):
        data = given
    elif isinstance(given, str):
        data, content_type = given.encode(), content_type or _TEXT
    else:
        try:
            data = json.dumps(given, ensure_ascii=False, separators=(",", ":")).encode()
        except TypeError:
            raise PayloadInvalid(
                "A table, or bytes within a map, cannot be published as JSON.",
                mend="Publish rows, or content_type: application/cbor.",
            ) from None
        content_type = content_type or _JSON
    if len(data) > INLINE_BYTES_MAX:
        raise PayloadInvalid(
            f"The payload has {len(data)} bytes; {INLINE_BYTES_MAX} may be published.", mend="Publish less."
        )
    return data, content_type


def _properties(given: Any) -> list[list[str]]:
    if given is None:
        return []
    if not isinstance(given, dict) or len(given) > MQTT_PROPERTIES_MAX:
        raise PayloadInvalid(
            "`properties` is no map of texts.", mend=f"At most {MQTT_PROPERTIES_MAX} of them."
        )
    made = []
    for name, value in given.items():
        try:
            text = value if isinstance(value, str) else json.dumps(value)
        except TypeError:
            raise PayloadInvalid(
                f"The property {name!r:.40} is bytes or a table.", mend="Let it give a text or a number."
            ) from None
        if value is not None and not (name + text).isprintable():
            raise PayloadInvalid(f"The property {name!r:.40} holds a control character.", mend="Take it out.")
        if value is not None:
            made.append([name, text])
    return made


def _reply_outcome(topic: str, content_type: str | None, payload: bytes) -> HostedOutcome:
    """The answer's payload as a value: JSON and CBOR by their content type, texts, else bytes."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    try:
        if kind == _CBOR:
            return HostedOutcome(decode_cbor_payload(payload))
        if kind == _JSON or (not kind and payload[:1] in (b"{", b"[")):
            return HostedOutcome(decode_json_payload(payload))
        if kind.startswith("text/"):
            return HostedOutcome(payload.decode())
    except (PayloadInvalid, UnicodeDecodeError) as error:
        mend = "Mend the answering client, or its content type."
        return HostedOutcome(
            problem=_problem("response_invalid", f"The answer from {topic} is not {kind}: {error}", mend)
        )
    return HostedOutcome(payload)
