"""A virtual network: clients that ask until they are answered, a gateway that holds what was not accepted.

Owned by `tests.sim.world`. Between clients and gateway messages are lost, doubled, late and out of order, as over a
broker that comes and goes. Between gateway and runtime frames keep their order until the connection breaks. Clients
and gateway do what design §7 asks of them and nothing more.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.sim.life import Life
    from tests.sim.virtual_time import SimLoop

LOSS: Final = 0.15
DOUBLE: Final = 0.15


class Network:
    """Between clients and the gateway."""

    def __init__(self, loop: SimLoop, chance: random.Random, calm: Callable[[], bool]) -> None:
        self._loop, self._chance, self._calm = loop, chance, calm

    def carry(self, arrives: Callable[[], object]) -> None:
        """A message is on its way: it arrives once, twice or never."""
        chance = self._chance
        if not self._calm() and chance.random() < LOSS:
            return
        for _ in range(2 if chance.random() < DOUBLE else 1):
            usual_s = chance.choice([0.005, 0.005, 0.2, 30.0])
            self._loop.call_later(chance.expovariate(1 / usual_s), arrives)


@dataclass(slots=True, eq=False)
class Asked:
    """One request of a client, and all it has been told."""

    number: int
    playbook: str
    payload: bytes
    #: Judges the answer: `(document, this)`. Raises AssertionError.
    judge: Callable[[dict[str, Any], Asked], None]
    deadline_ms: int | None = None
    first_ns: int = 0
    boots: int = 0
    seq: int | None = None
    answer: bytes | None = None
    told: int = 0
    again_s: float = 60.0
    callback: Any = None

    @property
    def name(self) -> str:
        """Its request id."""
        return f"r{self.number}"


@dataclass(slots=True, eq=False)
class Message:
    """One message to a subscription; sent until it is confirmed."""

    subscription: int
    packet: int
    payload: bytes
    key: str | None
    taken: bool = False


class Gateway:
    """What stands between broker and runtime: it forgets nothing that the runtime has not accepted."""

    role = ""
    admitted = -1

    def __init__(self, loop: SimLoop, chance: random.Random) -> None:
        self._loop, self._chance = loop, chance
        self._life: Life | None = None
        self._connection = 0
        self._busy_until_s = 0.0
        self._token = 0
        self.held: dict[int, Asked] = {}
        self.held_messages: dict[int, Message] = {}
        self.held_callbacks: dict[int, tuple[str, bytes, Callable[[str], None]]] = {}
        #: What the world makes of what the runtime said.
        self.on_receipt: Callable[[Asked, int], None] = lambda asked, seq: None
        self.on_refused: Callable[[Asked, dict[str, Any]], None] = lambda asked, problem: None
        self.on_answer: Callable[[str, int, bytes], None] = lambda request_id, execution, payload: None

    # ---- the connection ------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the runtime hears it."""
        return self._life is not None

    def connect(self, life: Life) -> None:
        """Say hello, and send again all that was not accepted."""
        self._connection += 1
        self._life, self.admitted = life, -1
        life.api.joined(self)  # type: ignore[arg-type]
        self._to_runtime(["hello", "gateway"])
        for token, asked in list(self.held.items()):
            self._submit(token, asked)
        for token, message in list(self.held_messages.items()):
            self._message(token, message, again=True)
        for token, call in list(self.held_callbacks.items()):
            self._to_runtime(["callback", token, call[0], "application/json", call[1]])

    def disconnect(self) -> None:
        """What was on its way, either way, is gone."""
        life, self._life = self._life, None
        self._connection += 1
        if life is not None and not life.loop.over:
            life.api.left(self)  # type: ignore[arg-type]

    def hang_up(self) -> None:
        """Part of a peer."""
        raise AssertionError("the runtime hung up on a gateway that kept to the protocol")

    def _in_order(self, call: Callable[[], object]) -> None:
        at_s = max(self._busy_until_s + 1e-6, self._loop.time() + self._chance.expovariate(1 / 0.0003))
        self._busy_until_s = at_s
        self._loop.call_at(at_s, call)

    def _to_runtime(self, frame: list[Any]) -> None:
        connection, life = self._connection, self._life

        def arrives() -> None:
            if connection == self._connection and life is not None and not life.loop.over:
                life.api.heard(self, frame)  # type: ignore[arg-type]

        self._in_order(arrives)

    def send(self, message: list[Any]) -> None:
        """A frame of the runtime's (`edge.runtime.api.socket.Peer`)."""
        connection = self._connection
        self._in_order(lambda: self._heard(message) if connection == self._connection else None)

    # ---- towards the runtime -------------------------------------------------------------------------

    def _new_token(self) -> int:
        self._token += 1
        return self._token

    def request(self, asked: Asked) -> None:
        """A request came from the broker."""
        token = self._new_token()
        self.held[token] = asked
        if self.connected:
            self._submit(token, asked)

    def _submit(self, token: int, asked: Asked) -> None:
        given = [asked.playbook, "alice", asked.name, "v5", "answers", b"c", "application/json", True]
        self._to_runtime(["submit", token, *given, asked.deadline_ms, None, asked.payload])

    def message(self, message: Message) -> None:
        """A message of a subscription's came from the broker."""
        token = self._new_token()
        self.held_messages[token] = message
        if self.connected:
            self._message(token, message, again=False)

    def _message(self, token: int, message: Message, *, again: bool) -> None:
        headers = {} if message.key is None else {"message-id": message.key}
        head = ["message", token, message.subscription, "a/x", message.payload]
        self._to_runtime([*head, "application/json", headers, message.packet, False, again])

    def callback(self, token: str, payload: bytes, said: Callable[[str], None]) -> None:
        """A callback came from the broker; `said` gets "received" or a problem's code."""
        number = self._new_token()
        self.held_callbacks[number] = token, payload, said
        if self.connected:
            self._to_runtime(["callback", number, token, "application/json", payload])

    # ---- from the runtime ----------------------------------------------------------------------------

    def _heard(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == "accepted":
            asked = self.held.pop(message[1], None)
            if asked is not None:
                self.on_receipt(asked, message[3])
        elif kind == "refused":
            asked = self.held.pop(message[1], None)
            if asked is not None:
                self.on_refused(asked, message[2])
            elif message[1] in self.held_callbacks:
                self.held_callbacks.pop(message[1])[2](message[2]["code"])
        elif kind == "received" and message[1] in self.held_callbacks:
            self.held_callbacks.pop(message[1])[2]("received")
        elif kind == "answer":
            self.on_answer(message[5], message[1], message[10])
            self._to_runtime(["delivered", message[1]])
        elif kind == "taken":
            taken = self.held_messages.pop(message[1], None)
            if taken is not None:
                taken.taken = True
        elif kind == "room":
            for token, held in list(self.held_messages.items()):
                if held.subscription == message[1]:
                    self._message(token, held, again=True)
        elif kind == "admission":
            self._to_runtime(["admitted", message[2]])
