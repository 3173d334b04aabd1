"""A door in front of a real broker that refuses, swallows or answers nonsense when a test says so."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator
from typing import Self


class Answer(enum.Enum):
    """What a new connection meets."""

    PASS = enum.auto()
    """The broker behind."""
    REFUSE_5 = enum.auto()
    """MQTT 5 gets CONNACK 0x84, as MQTT 5 §3.1.2.2 has it; 3.1.1 passes."""
    REFUSE_5_AS_3 = enum.auto()
    """MQTT 5 gets CONNACK 0x01 in the form of 3.1.1, as 3.1.1 §3.1.2.2 has it; 3.1.1 passes."""
    CLOSE_ON_5 = enum.auto()
    """MQTT 5 is cut off without a word; 3.1.1 passes."""
    NOT_AUTHORIZED = enum.auto()
    """MQTT 5 gets CONNACK 0x87 (MQTT 5 §3.2.2.2), 3.1.1 gets 0x05 (3.1.1 §3.2.2.3)."""
    NOT_AUTHORIZED_3 = enum.auto()
    """MQTT 5 gets CONNACK 0x84, so that 3.1.1 is tried, which gets 0x05."""
    UNAVAILABLE = enum.auto()
    """MQTT 5 gets CONNACK 0x88, 3.1.1 gets 0x03."""
    GARBAGE = enum.auto()
    """An answer in another protocol."""
    MALFORMED = enum.auto()
    """A good CONNACK, then bytes that are no MQTT."""
    SILENCE = enum.auto()
    """Nothing at all."""


class Line:
    """Listens on a port of loopback for what is to reach another one; how it passes on is its subclass's.

    Attributes:
        target_port: where what comes is to go.
        port: where it listens.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    def cut(self) -> None:
        """Breaks every connection (RST)."""
        for writer in list(self._writers):
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Listens while the block runs."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port or None)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            # who has been accepted and not served yet is a transport, and in a few turns a task
            for _ in range(5):
                await asyncio.sleep(0)
                self.cut()
                for task in list(self._tasks):
                    task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)


class Relay(Line):
    """Listens on a port of its own and passes bytes to and from the broker at `target_port`.

    Attributes:
        answer: what new connections meet.
        versions: the MQTT version of every CONNECT that came, 4 or 5.
        max_subscribes: how many SUBSCRIBE packets a connection may send before it is cut; None for any number.
        swallows: while True, bytes of passed connections vanish in both directions: a network that is gone.
        swallows_answers: while True, what clients send after CONNECT vanishes, and what brokers send does not.
    """

    def __init__(self, target_port: int, answer: Answer = Answer.PASS) -> None:
        super().__init__(target_port)
        self.answer = answer
        self.versions: list[int] = []
        self.swallows = False
        self.swallows_answers = False
        self.max_subscribes: int | None = None

    @property
    def url(self) -> str:
        """Where to connect to."""
        return f"mqtt://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            connect = await reader.read(4096)
            if not connect:
                return
            # fixed header (one or two bytes of length), then the name "MQTT" with its length, then the version
            version = connect[connect.index(b"MQTT") + 4]
            self.versions.append(version)
            await self._answer(version, connect, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _answer(
        self, version: int, connect: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        match self.answer:
            case Answer.REFUSE_5 if version == 5:
                writer.write(b"\x20\x03\x00\x84\x00")
            case Answer.REFUSE_5_AS_3 if version == 5:
                writer.write(b"\x20\x02\x00\x01")
            case Answer.NOT_AUTHORIZED:
                writer.write(b"\x20\x03\x00\x87\x00" if version == 5 else b"\x20\x02\x00\x05")
            case Answer.NOT_AUTHORIZED_3:
                writer.write(b"\x20\x03\x00\x84\x00" if version == 5 else b"\x20\x02\x00\x05")
            case Answer.UNAVAILABLE:
                writer.write(b"\x20\x03\x00\x88\x00" if version == 5 else b"\x20\x02\x00\x03")
            case Answer.CLOSE_ON_5 if version == 5:
                pass
            case Answer.GARBAGE:
                writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            case Answer.MALFORMED:
                writer.write(b"\x20\x03\x00\x00\x00" if version == 5 else b"\x20\x02\x00\x00")
                writer.write(b"\x30\xff\xff\xff\xff\xff")
            case Answer.SILENCE:
                await reader.read()
                return
            case _:
                await self._pass(connect, reader, writer)
                return
        await writer.drain()

    async def _pass(self, connect: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        self._writers.add(there_writer)
        there_writer.write(connect)
        try:
            async with asyncio.TaskGroup() as group:
                for source, sink in ((reader, there_writer), (there_reader, writer)):
                    group.create_task(self._pump(source, sink, is_client=source is reader))
        finally:
            self._writers.discard(there_writer)
            there_writer.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_client: bool) -> None:
        subscribes = 0
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                # our client waits for each SUBACK, so that a SUBSCRIBE always comes first
                subscribes += data[0] == 0x82
                if self.max_subscribes is not None and subscribes > self.max_subscribes:
                    self.cut()
                    return
                if not (self.swallows or (self.swallows_answers and is_client)):
                    sink.write(data)
                    await sink.drain()
        if not self.swallows:
            sink.close()


class Pipe(Line):
    """Passes bytes of any protocol to and from `target_port`, and holds them while a test says so.

    What is held comes late and in order, as TCP has it after a network was away.
    """

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self._flows = asyncio.Event()
        self._flows.set()

    def hold(self) -> None:
        """Nothing passes any more."""
        self._flows.clear()

    def release(self) -> None:
        """Everything passes again, what was held first."""
        self._flows.set()

    def lead_to(self, target_port: int) -> None:
        """Ends what is connected; who connects from now on reaches another port."""
        self.target_port = target_port
        self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        pair = [writer]
        self._writers.add(writer)
        try:
            await self._flows.wait()
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            pair.append(there_writer)
            self._writers.add(there_writer)
            await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for each in pair:
                self._writers.discard(each)
                each.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
        await self._flows.wait()
        sink.close()
