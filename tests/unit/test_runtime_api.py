"""The runtime's socket: who is told what, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge.core.frames import FrameBuffer, pack
from edge.runtime.api.socket import Api
from edge.testing.box import Box
from edge.testing.plain import playbook

REGISTER = ["call", 1, "register", {}]


class Line:
    """One client of the socket, speaking frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._buffer = FrameBuffer()
        self._heard: list[list[Any]] = []

    def say(self, *message: Any) -> None:
        self._writer.write(pack(list(message)))

    async def hear(self, kind: str) -> list[Any]:
        """The next message of a kind; what came before it is dropped."""
        async with asyncio.timeout(5):
            while True:
                while self._heard:
                    message = self._heard.pop(0)
                    if message[0] == kind:
                        return message
                self._heard += self._buffer.feed(await self._reader.read(65_536))

    async def end(self) -> bytes:
        """The last that comes before the other side hangs up; nothing, where all was heard."""
        async with asyncio.timeout(5):
            while data := await self._reader.read(65_536):
                self._heard += self._buffer.feed(data)
        return data

    async def hang_up(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class Rig:
    """A runtime's engine behind its real socket."""

    def __init__(self, folder: Path) -> None:
        self.box = Box(folder / "data")
        self.path = folder / "socket"
        self.lines: list[Line] = []
        blueprint = playbook([{"step": "a", "tool": {"kind": "noop"}}])
        self.api = Api(self.box.engine, "box", b"12345678", {})
        self.api.operations["register"] = lambda _, reply: self.box.engine.catalog.register(
            blueprint.data, lambda path, new: reply([path, new])
        )

    async def line(self, role: str) -> Line:
        line = Line(*await asyncio.open_unix_connection(str(self.path)))
        self.lines.append(line)
        line.say("hello", role)
        await line.hear("welcome")
        return line


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    await made.api.listen(made.path)
    yield made
    for line in made.lines:
        await line.hang_up()
    made.api.close()
    await made.box.close()


async def test_a_registration_is_confirmed_when_the_gateway_knows(rig: Rig) -> None:
    """The command line hears `registered` only after the gateway took up the table: a request may follow at once."""
    gateway, asker = await rig.line("gateway"), await rig.line("cli")
    version = (await gateway.hear("admission"))[2]
    gateway.say("admitted", version)
    asker.say(*REGISTER)
    _, table, newer = await gateway.hear("admission")
    assert (list(table), newer > version) == (["t"], True)
    answer = asyncio.ensure_future(asker.hear("reply"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not answer.done()
    gateway.say("admitted", newer)
    assert await answer == ["reply", 1, ["t", True]]


async def test_a_gateway_that_leaves_is_not_waited_for(rig: Rig) -> None:
    """A registration is confirmed when the only gateway goes away instead of answering."""
    gateway, asker = await rig.line("gateway"), await rig.line("cli")
    asker.say(*REGISTER)
    while (await gateway.hear("admission"))[1] == {}:
        pass
    await gateway.hang_up()
    assert await asker.hear("reply") == ["reply", 1, ["t", True]]


async def test_without_a_gateway_nobody_is_waited_for(rig: Rig) -> None:
    """With no gateway connected a registration is confirmed once durable; the same one again, too."""
    asker = await rig.line("cli")
    asker.say(*REGISTER)
    assert await asker.hear("reply") == ["reply", 1, ["t", True]]
    asker.say(*REGISTER)
    assert await asker.hear("reply") == ["reply", 1, ["t", False]]


NONSENSE: list[list[Any]] = [
    ["hello"],
    ["hello", 7],
    ["submit", 1],
    ["submit", 1, "t", "p", None, "v5", None, None, None, True, None, None, "no bytes"],
    ["submit", "1", "t", "p", None, "v5", None, None, None, True, None, None, b""],
    ["call", 1, "status", []],
    ["callback", 1, "token", 3, b""],
    ["published", 1, "ok"],
    ["message", 1, 1, "t", b"", None, {"k": 1}, 1, False, False],
    ["message", 1, 1, "t", b"", None, [], 1, False, False],
    ["attending", "1", None],
    ["nonsense", 1],
    [["hello"], 1],
    [None],
]


@pytest.mark.parametrize("message", NONSENSE, ids=repr)
async def test_a_peer_that_breaks_the_protocol_is_hung_up_on(rig: Rig, message: list[Any]) -> None:
    """Whatever a message looks like, it ends its peer's connection at most: nothing reaches the loop's top."""
    reached: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reached.append(context))
    peer, other = await rig.line("gateway"), await rig.line("cli")
    peer.say(*message)
    assert await peer.end() == b""
    assert not reached
    other.say(*REGISTER)
    await other.hear("reply")


async def test_a_mistake_of_our_own_is_not_taken_for_a_peers(rig: Rig) -> None:
    """What an operation raises that nobody foresaw comes to the loop's top, whatever it is called."""
    reached: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reached.append(context["exception"]))
    for number, error in enumerate((ValueError("ours"), OSError(5, "the drive")), 1):

        def fails(_: dict[str, Any], __: Any, error: Exception = error) -> None:
            raise error

        rig.api.operations["cancel"] = fails
        peer = await rig.line("cli")
        peer.say("call", 1, "cancel", {})
        await peer.end()
        assert len(reached) == number
        assert error in (reached[-1], reached[-1].__cause__)


async def test_a_look_that_fails_is_told_to_who_looked(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It changed nothing, so nobody else is to be taken down: the asker hears why, and may ask on."""

    def fails(_: dict[str, Any], __: Any) -> None:
        raise KeyError("ours")

    rig.api.operations["execution"] = fails
    peer = await rig.line("cli")
    peer.say("call", 1, "execution", {"id": "3"})
    _, token, problem = await peer.hear("error")
    assert (token, problem["message"]) == (1, "The runtime could not tell: KeyError: 'ours'.")
    assert "KeyError" in caplog.text
    peer.say("call", 2, "register", {})
    await peer.hear("reply")
