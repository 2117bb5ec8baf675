"""Who the MQTT tests talk with: a session with queues, a cable to cut, a scripted broker, a client without rules."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import mqtt5

from gateway.mqtt import BrokerAddress, Message, Session, Settings, open_session
from gateway.mqtt.framing import Framer

PATIENCE_S = 30
QOS_1 = mqtt5.QoS.AT_LEAST_ONCE
_names = itertools.count(1)


async def patiently(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE_S)


class Client:
    """A session with a queue of what it received and an event for its loss."""

    def __init__(self, implementation: str, port: int, name: str = "", **settings: Any) -> None:
        self.received: asyncio.Queue[Message] = asyncio.Queue()
        self.lost: asyncio.Queue[str] = asyncio.Queue()
        self.session: Session = open_session(
            implementation,
            address=BrokerAddress("127.0.0.1", port),
            settings=Settings(client_id=name or f"client-{next(_names)}", **settings),
            on_message=self.received.put_nowait,
            on_lost=self.lost.put_nowait,
        )

    async def next(self) -> Message:
        return await patiently(self.received.get())

    async def next_acknowledged(self) -> Message:
        message = await self.next()
        self.session.acknowledge(message)
        return message


class Relay:
    """A TCP relay in front of a broker whose cable can be cut, or held so that answers do not return."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def hold(self) -> None:
        self._open.clear()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        self._open.set()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        away_reader, away_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers += [writer, away_writer]
        for source, sink, answers in ((reader, away_writer, False), (away_reader, writer, True)):
            task = asyncio.create_task(self._pass(source, sink, answers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: bool) -> None:
        try:
            while data := await source.read(65_536):
                if answers:
                    await self._open.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


class Scripted:
    """One accepted connection, read and written packet by packet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._framer = Framer(10_000_000)
        self._packets: list[mqtt5.Packet] = []

    async def read(self) -> Any:
        while not self._packets:
            data = await patiently(self.reader.read(65_536))
            if not data:
                raise EOFError
            self._packets += self._framer.feed(data)
        return self._packets.pop(0)

    def write(self, packet: Any) -> None:
        self.writer.write(packet if isinstance(packet, bytes) else packet.write())

    async def greet(self, **properties: Any) -> mqtt5.ConnectPacket:
        connect = await self.read()
        assert isinstance(connect, mqtt5.ConnectPacket)
        self.write(mqtt5.ConnAckPacket(**properties))
        return connect


Script = Callable[[Scripted], Awaitable[None]]


@asynccontextmanager
async def playing(script: Script) -> AsyncIterator[int]:
    """A server that plays the script for each connection; what it raises fails the test."""
    failures: list[BaseException] = []
    tasks: list[asyncio.Task[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            await script(Scripted(reader, writer))
        except (EOFError, ConnectionError):
            pass
        except BaseException as failure:
            failures.append(failure)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await patiently(asyncio.gather(*tasks, return_exceptions=True))
    if failures:
        raise failures[0]


class Raw:
    """A client that sends and sees packets, and keeps no rules of its own."""

    opened: ClassVar[list[asyncio.StreamWriter]] = []

    def __init__(self, port: int) -> None:
        self.port = port
        self._framer = Framer(20_000_000)
        self._packets: list[Any] = []
        self._id = 0

    async def open(self) -> Raw:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        Raw.opened.append(self.writer)
        return self

    async def connect(self, client_id: str, **options: Any) -> Any:
        await self.open()
        self.send(mqtt5.ConnectPacket(client_id, **options))
        return await self.read()

    def send(self, packet: Any) -> None:
        self.writer.write(packet if isinstance(packet, bytes) else packet.write())

    async def read(self) -> Any:
        """The next packet; None where the broker has closed the connection."""
        while not self._packets:
            try:
                data = await patiently(self.reader.read(65_536))
            except ConnectionError:
                return None
            if not data:
                return None
            self._packets += self._framer.feed(data)
        return self._packets.pop(0)

    async def subscribe(self, *filters: mqtt5.TopicFilter, identifier: int | None = None) -> list[Any]:
        self._id += 1
        self.send(mqtt5.SubscribePacket(self._id, list(filters), subscription_id=identifier))
        answer = await self.read()
        assert isinstance(answer, mqtt5.SubAckPacket), answer
        assert answer.packet_id == self._id
        return answer.reason_codes

    async def publish(self, topic: str, payload: bytes, **options: Any) -> Any:
        """Publish with QoS 1 and give the reason code of the PUBACK."""
        self._id += 1
        self.send(mqtt5.PublishPacket(topic, payload, qos=QOS_1, packet_id=self._id, **options))
        answer = await self.read()
        assert isinstance(answer, mqtt5.PubAckPacket), answer
        return answer.reason_code

    async def expect(self, payload: bytes) -> mqtt5.PublishPacket:
        """The next packet is this message; it is acknowledged."""
        packet = await self.read()
        assert isinstance(packet, mqtt5.PublishPacket), packet
        assert packet.payload == payload
        if packet.packet_id:
            self.send(mqtt5.PubAckPacket(packet.packet_id))
        return packet

    async def expect_nothing(self) -> None:
        """No message is on its way: the next packet is the answer to a ping."""
        self.send(mqtt5.PingReqPacket())
        packet = await self.read()
        assert isinstance(packet, mqtt5.PingRespPacket), packet

    async def expect_goodbye(self, code: Any) -> None:
        packet = await self.read()
        assert isinstance(packet, mqtt5.DisconnectPacket), packet
        assert packet.reason_code == code
        assert await self.read() is None

    async def leave(self, **options: Any) -> None:
        self.send(mqtt5.DisconnectPacket(**options))
        assert await self.read() is None
        self.writer.close()

    def cut(self) -> None:
        self.writer.transport.abort()

    @classmethod
    async def close_all(cls) -> None:
        """Close every connection any test has left open."""
        writers = list(cls.opened)
        cls.opened.clear()
        for writer in writers:
            writer.transport.abort()
        await patiently(asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True))
