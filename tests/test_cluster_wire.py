"""A connection to the server of the shared log: what belongs to what, what is late, and what is no answer."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("valkey")

from valkey.asyncio.connection import Connection
from valkey.exceptions import ConnectionError as NoConnectionError
from valkey.exceptions import InvalidResponse, NoScriptError

from gateway.cluster.address import Address
from gateway.cluster.cluster import Cluster
from gateway.cluster.resp import command, parts
from gateway.cluster.wire import Wire
from tests.fakes import FakeLoop, make_hub
from tests.support.waiting import free_port

PING = command(1, parts("PING"))

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def wire_to(answers: Answer, on_push: Callable[[bytes], None] = lambda _: None) -> AsyncIterator[Wire]:
    """A wire to a server that answers so."""
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answers(reader, writer)
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()
            ended.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        connection = Connection(host=host, port=port, lib_name=None, lib_version=None)
        await connection.connect()  # type: ignore[no-untyped-call]
        wire = Wire(connection, on_push)
        try:
            yield wire
        finally:
            wire.close()
            await asyncio.wait_for(ended.wait(), 10)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data.removeprefix(b"*1\r\n"))


def test_a_command_says_how_long_its_parts_are() -> None:
    assert command(3, parts("GET", 12, b"\r\n")) == b"*3\r\n$3\r\nGET\r\n$2\r\n12\r\n$2\r\n\r\n\r\n"
    assert parts("ü") == b"$2\r\n\xc3\xbc\r\n"


async def test_an_answer_may_come_in_any_pieces_and_have_any_size() -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        for byte in b"*3\r\n$2\r\nab\r\n:7\r\n$-1\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read(65536)
        writer.write(b"$3000000\r\n" + bytes(3_000_000) + b"\r\n")

    async with wire_to(slowly) as wire:
        assert await wire.ask(PING, 5) == [b"ab", 7, None]
        assert await wire.ask(PING, 5) == bytes(3_000_000)


async def test_each_command_has_its_own_answer() -> None:
    async with wire_to(echo) as wire:
        for number in range(500):
            assert await wire.ask(command(1, parts(number)), 5) == str(number).encode()


async def test_an_answer_that_is_an_error_is_raised_and_the_next_one_is_none() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"-NOSCRIPT no such script\r\n")
        await reader.read(65536)
        writer.write(b"+OK\r\n")

    async with wire_to(refuse) as wire:
        with pytest.raises(NoScriptError):
            await wire.ask(PING, 5)
        assert await wire.ask(PING, 5) == b"OK"


async def test_one_that_is_late_is_given_up_and_each_has_its_own_time() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if b"now" in data:
                writer.write(b"+OK\r\n")

    now = command(1, parts("now"))
    async with wire_to(never) as wire:
        assert await wire.ask(now, 60) == b"OK"  # a timer of a minute must not serve the next
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await wire.ask(PING, 0.2)
        assert asyncio.get_running_loop().time() - began < 30


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": loop}) for loop in (False, True)])
async def test_an_answer_that_came_while_the_loop_stood_still_is_not_late(anyio_backend: object) -> None:
    def serve(server: socket.socket) -> None:
        there, _ = server.accept()
        with there:
            there.recv(65536)
            time.sleep(0.1)
            there.sendall(b"+OK\r\n")
            there.recv(65536)

    def stand_still() -> None:
        """What came on another connection takes long; uvloop looks at its timers next."""
        busy.recv(1)
        loop.remove_reader(busy)
        time.sleep(0.6)

    loop = asyncio.get_running_loop()
    busy, other = socket.socketpair()
    with busy, other, socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        connection = Connection(host="127.0.0.1", port=server.getsockname()[1], lib_name=None, lib_version=None)
        await connection.connect()  # type: ignore[no-untyped-call]
        wire = Wire(connection)
        try:
            asking = asyncio.create_task(wire.ask(PING, 0.3))
            await asyncio.sleep(0)
            loop.add_reader(busy, stand_still)
            other.send(b"x")
            assert await asking == b"OK"
        finally:
            wire.close()
            await asyncio.to_thread(thread.join, 10)


@pytest.mark.parametrize("what", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\xff\r\n"])
async def test_something_else_than_a_server_is_told_and_nothing_more_is_asked_of_it(what: bytes) -> None:
    async def wrong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(what)

    async with wire_to(wrong) as wire:
        for _ in range(2):
            with pytest.raises(InvalidResponse):
                await wire.ask(PING, 5)


async def test_an_answer_to_nothing_ends_the_connection() -> None:
    async def talkative(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"+one\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"+two\r\n")

    async with wire_to(talkative) as wire:
        assert await wire.ask(PING, 5) == b"one"
        await asyncio.sleep(0.3)
        with pytest.raises(InvalidResponse):
            await wire.ask(PING, 5)


async def test_a_connection_that_ends_is_told_at_once() -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.close()

    async with wire_to(leave) as wire:
        for _ in range(2):
            with pytest.raises(NoConnectionError):
                await wire.ask(PING, 60)


SUBSCRIBED = b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
PUSHED = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\n%b\r\n"


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": loop}) for loop in (False, True)])
async def test_pushes_and_answers_are_told_in_the_order_in_which_they_came(anyio_backend: object) -> None:
    async def push(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(PUSHED % b"a" + SUBSCRIBED + b"+one\r\n" + PUSHED % b"b" + PUSHED % b"c")
        await reader.read(65536)
        writer.write(b"+two\r\n" + PUSHED % b"d")

    told: list[object] = []
    async with wire_to(push, told.append) as wire:
        for _ in range(2):
            wire.send(PING, 5, told.append)
            await asyncio.sleep(0.2)
    assert told == [b"a", b"one", b"b", b"c", b"two", b"d"]


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": loop}) for loop in (False, True)])
async def test_a_push_is_waited_for_and_no_longer_than_was_said(anyio_backend: object) -> None:
    async def push(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(PUSHED % b"a")
        await reader.read(65536)
        writer.write(b"+one\r\n")

    def told(pushed: bytes) -> None:
        assert pushed == b"a"
        wire.end_wait()

    loop = asyncio.get_running_loop()

    async def wait(seconds: float) -> object:
        ended = loop.create_future()
        wire.wait(seconds, ended.set_result)
        return await asyncio.wait_for(ended, 10)

    async with wire_to(push, told) as wire:
        assert await wait(60) is None
        for seconds in (0.2, 0.0001, -1.0, 0.0, 0.05):
            assert isinstance(await wait(seconds), TimeoutError)
            wire.wait(seconds, lambda _: None)
            wire.end_wait()  # the timer goes on
            assert isinstance(await wait(0.05), TimeoutError)
        assert await wire.ask(PING, 5) == b"one"
        wire.end_wait()  # nobody waits


async def test_an_answer_is_not_what_was_waited_for() -> None:
    async def talkative(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+one\r\n")

    async with wire_to(talkative) as wire:
        ended = asyncio.get_running_loop().create_future()
        wire.wait(60, ended.set_result)
        assert isinstance(await ended, InvalidResponse)


async def test_a_node_waits_no_longer_for_a_server_that_cannot_be_reached() -> None:
    async def leave() -> None: ...

    loop = FakeLoop()
    address = Address.parse(f"valkey://127.0.0.1:{free_port()}")
    node = Cluster(
        address, "c", "n", make_hub(loop), clock=time.monotonic, wall_clock_ms=loop.wall_clock_ms,
        on_lead=lambda _: None, on_follow=lambda _: None, leave=leave, on_change=lambda: None, is_able=lambda: False,
    )  # fmt: skip
    running = asyncio.create_task(node.run())
    async with asyncio.timeout(60):
        assert not await node.wait_caught_up(1e6)
    assert (node.reason or "").startswith("the shared log can't be reached")
    await node.stop(running)
