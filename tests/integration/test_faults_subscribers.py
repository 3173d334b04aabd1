"""Subscribers that don't read, don't answer, come all at once, can't decide or send rubbish: no neighbour suffers."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import selectors
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.faults import assert_accounted, assert_sound, client_frame, raw_websocket, upgrade
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.subscribers import Subscriber, close_all
from tests.support.waiting import eventually, eventually_async


@contextlib.contextmanager
def closing_all(sockets: list[socket.socket]) -> Iterator[list[socket.socket]]:
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


def is_closed(sock: socket.socket) -> bool:
    """Whether the gateway has ended the connection; takes whatever it sent before."""
    sock.settimeout(0.01)
    try:
        while sock.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@pytest.mark.slow
async def test_a_thousand_that_never_read(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    gateway = await asyncio.to_thread(
        make_gateway,
        mosquitto,
        mqtt_topics=[f"{prefix}/#"],
        history_bytes="32MiB",
        limit_buffer_bytes="32KiB",
        limit_connections_per_address=3_000,
        limit_stall_seconds=2,
    )
    before = gateway.memory() / 2**20

    def open_all() -> list[socket.socket]:
        return [raw_websocket(gateway, "#", receive_buffer=2048, since="now") for _ in range(1_000)]

    with closing_all(await asyncio.to_thread(open_all)):
        async with Subscriber(gateway, "#", since="now") as reader:
            await reader.wait_event("subscribed")
            # 8 MiB for each of a thousand
            messages = [(f"{prefix}/x", b"%06d" % number + b"." * 4_000) for number in range(2_000)]
            await asyncio.to_thread(publisher.publish_all, messages, qos=1, per_second=400)
            await reader.wait_messages(2_000, 60)
            await assert_accounted(gateway, reader)
            assert reader.lost == 0
            # what a thousand sockets may hold in the gateway, history, and what Python keeps for itself
            assert_sound(gateway, ceiling_mib=before + 1_000 * 32 / 1024 * 2 + 32 * 1.5 + 60)
            await eventually_async(
                lambda: gateway.metrics()["gateway_subscribers"] == 1, 30, "those without progress are closed"
            )
        samples = await asyncio.to_thread(gateway.metrics)
        assert samples["gateway_subscribers_closed_slow_total"] == 1_000
        assert samples["gateway_subscribers_slowed_total"] >= 1_000
        assert samples["gateway_subscribers_slow"] == 0
        assert samples["gateway_messages_received_total"] == 2_000


@pytest.mark.slow
def test_one_that_answers_no_ping_is_closed(mosquitto: Broker, make_gateway: MakeGateway, prefix: str) -> None:
    """A half-open connection looks like this: open, and silent for ever."""
    gateway = make_gateway(mosquitto, mqtt_topics=[f"{prefix}/#"], limit_idle_seconds=2)
    with raw_websocket(gateway, f"{prefix}/#", since="now") as silent:
        eventually(lambda: gateway.metrics()["gateway_subscribers"] == 1)
        eventually(lambda: is_closed(silent), 15, "it is closed")
    eventually(lambda: gateway.metrics()["gateway_subscribers"] == 0)
    assert gateway.metrics()['gateway_refused_total{reason="idle_seconds"}'] == 1
    assert_sound(gateway, ceiling_mib=200)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system can't tell that nothing is taken")
def test_one_that_takes_nothing_but_is_not_sent_enough_to_be_slow_is_noticed(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    gateway = make_gateway(mosquitto, mqtt_topics=[f"{prefix}/#"], limit_idle_seconds=2, limit_stall_seconds=1)
    with raw_websocket(gateway, f"{prefix}/#", receive_buffer=2048, since="now"):
        eventually(lambda: gateway.metrics()["gateway_subscribers"] == 1)
        for _ in range(20):
            publisher.publish(f"{prefix}/a", b"." * 20_000)
        eventually(lambda: gateway.metrics()["gateway_messages_delivered_total"] == 20)
        assert gateway.metrics()["gateway_subscribers_slow"] == 0
        assert gateway.metrics()["gateway_buffer_bytes"] > 0
        eventually(lambda: gateway.metrics()["gateway_subscribers"] == 0, 30, "it is closed")
    samples = gateway.metrics()
    assert samples["gateway_buffer_bytes"] == 0
    assert samples['gateway_refused_total{reason="idle_seconds"}'] == 1
    assert_sound(gateway, ceiling_mib=200)


GOES_AWAY = """
import socket, sys, time
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
sock.connect((sys.argv[1], int(sys.argv[2])))
sock.sendall(sys.argv[3].encode())
assert sock.recv(12) == b"HTTP/1.1 101"
time.sleep(600)
"""


@contextlib.contextmanager
def somebody_elsewhere(gateway: GatewayProcess, topic: str) -> Iterator[Callable[[], None]]:
    """A subscriber in a container; the function takes its network away: packets vanish, nobody is told."""
    import docker  # type: ignore[import-untyped]

    client = docker.from_env()
    bridge = client.networks.get("bridge")
    [config, *_] = bridge.attrs["IPAM"]["Config"]
    # not every engine tells it; it is the first address unless somebody chose another one
    here = config.get("Gateway") or str(ipaddress.ip_network(config["Subnet"])[1])
    handshake = upgrade(f"/ws?topic={topic}&since=now", f"{here}:{gateway.port}").decode()
    command = ["python", "-c", GOES_AWAY, here, str(gateway.port), handshake]
    container = client.containers.run("python:3.13-slim", command, detach=True, init=True)
    try:
        yield lambda: bridge.disconnect(container)
    finally:
        container.remove(force=True)
        client.close()


@pytest.mark.parametrize("size", [40_000, 400_000], ids=["in the system's buffer", "in ours, too"])
@pytest.mark.slow
async def test_one_that_vanished_with_data_under_way_is_noticed(
    docker: None, mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str, size: int
) -> None:
    gateway = await asyncio.to_thread(
        make_gateway,
        mosquitto,
        mqtt_topics=[f"{prefix}/#"],
        host="0.0.0.0",
        access_allow_anonymous=True,
        limit_idle_seconds=8,  # it is gone before `vanish` returns: on a busy machine seconds before
        limit_stall_seconds=2,
    )
    async with Subscriber(gateway, "#", since="now") as neighbour:
        await neighbour.wait_event("subscribed")
        with somebody_elsewhere(gateway, f"{prefix}/%23") as vanish:
            await eventually_async(lambda: gateway.metrics()["gateway_subscribers"] == 2, 30, "it is there")
            await asyncio.to_thread(vanish)
            messages = [(f"{prefix}/a", b"%02d" % number + b"." * 20_000) for number in range(size // 20_000)]
            await asyncio.to_thread(publisher.publish_all, messages)
            await neighbour.wait_messages(size // 20_000)
            samples = await asyncio.to_thread(gateway.metrics)
            assert samples["gateway_subscribers_slow"] == 0, "less waits than makes it a slow one"
            assert (samples["gateway_buffer_bytes"] > 0) is (size > 300_000)
            await eventually_async(lambda: gateway.metrics()["gateway_subscribers"] == 1, 30, "it is gone")
        samples = await asyncio.to_thread(gateway.metrics)
        assert samples["gateway_buffer_bytes"] == 0
        assert samples['gateway_refused_total{reason="idle_seconds"}'] == 1
        await eventually_async(lambda: gateway.metrics()["gateway_connections"] == 1, 10, "its socket is gone, too")
        await assert_accounted(gateway, neighbour)
    assert_sound(gateway, ceiling_mib=200)


@pytest.mark.slow
def test_a_handshake_that_never_ends_is_given_up(mosquitto: Broker, make_gateway: MakeGateway, prefix: str) -> None:
    gateway = make_gateway(mosquitto, mqtt_topics=[f"{prefix}/#"], limit_handshake_seconds=1)
    starts = [b"", b"G", b"GET /ws HTTP/1.1\r\nHost: x\r\n", upgrade("/ws")[:-2]]
    with closing_all([socket.create_connection(("127.0.0.1", gateway.port)) for _ in starts]) as sockets:
        for sock, start in zip(sockets, starts, strict=True):
            sock.sendall(start)
        for sock, start in zip(sockets, starts, strict=True):
            eventually(lambda sock=sock: is_closed(sock), 15, f"closed after {start[:20]!r}")  # type: ignore[misc]
    assert_sound(gateway, ceiling_mib=200)


@pytest.mark.slow
async def test_two_thousand_come_back_at_once_each_to_its_place(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    gateway = await asyncio.to_thread(
        make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"], limit_connections_per_address=5_000
    )
    messages = [(f"{prefix}/{number % 20}", b"%d" % number) for number in range(100)]
    await asyncio.to_thread(publisher.publish_all, messages, qos=1)
    # the broker has them; whoever comes before the gateway has them, too, is given some as they arrive
    await eventually_async(lambda: gateway.metrics()["gateway_history_messages"] >= 100, 20)
    async with Subscriber(gateway, "#", since="1h") as first:
        await first.wait_messages(100)
        epoch = first.events[0]["position"].partition(":")[0]
        position = f"{epoch}:{first.messages[49]['seq']}"
    began = asyncio.Semaphore(200)  # so many handshakes under way at a time: this process has one core, too
    back: list[Subscriber] = []

    async def come_back(number: int) -> None:
        # what one address may take of the processor is bounded
        client = Subscriber(gateway, "#", since=position, address=f"127.0.1.{number % 50 + 1}")
        async with began:
            await client.__aenter__()
        back.append(client)

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(2_000):
                group.create_task(come_back(number))
        for client in back:
            await client.wait(lambda client=client: len(client.messages) >= 50, 60)  # type: ignore[misc]
            assert [m["payload"] for m in client.messages] == list(range(50, 100))
            assert client.events[0]["recovered"] is True
        await asyncio.to_thread(publisher.publish, f"{prefix}/live", b"100")
        for client in back:
            await client.wait(lambda client=client: client.messages[-1]["payload"] == 100, 60)  # type: ignore[misc]
            assert len(client.messages) == 51
    finally:
        await close_all(back)
    await eventually_async(lambda: gateway.metrics()["gateway_subscribers"] == 0, 20)
    samples = await asyncio.to_thread(gateway.metrics)
    assert samples["gateway_messages_delivered_total"] == 100 + 2_000 * 51
    assert samples["gateway_messages_replayed_total"] >= 100 + 2_000 * 50
    assert sum(value for name, value in samples.items() if name.startswith("gateway_messages_lost_total")) == 0
    assert_sound(gateway, ceiling_mib=350)


@pytest.mark.slow
async def test_one_that_subscribes_and_unsubscribes_in_a_loop(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    gateway = await asyncio.to_thread(
        make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"], limit_commands_per_second=100_000
    )
    async with Subscriber(gateway, "#", since="now") as neighbour, Subscriber(gateway) as undecided:
        await neighbour.wait_event("subscribed")
        groups = (await asyncio.to_thread(gateway.metrics))["gateway_groups"]
        before = gateway.memory()
        for number in range(3_000):
            topics = [f"{prefix}/{number % 500}/#", f"{prefix}/+/{number}"]
            await undecided.send("subscribe", id=2 * number, topics=topics)
            await undecided.send("unsubscribe", id=2 * number + 1, topics=topics)
            if number % 100 == 0:
                await asyncio.to_thread(publisher.publish, f"{prefix}/n", b"%d" % (number // 100))
        await undecided.wait(lambda: undecided.events[-1:] and undecided.events[-1].get("id") == 5_999, 30)
        assert {event["event"] for event in undecided.events} == {"subscribed", "replayed", "unsubscribed"}
        await neighbour.wait(lambda: neighbour.payloads() == list(range(30)))
        await assert_accounted(gateway, neighbour)
        assert (await asyncio.to_thread(gateway.metrics))["gateway_groups"] == groups
        assert gateway.memory() - before < 20 * 2**20
    assert_sound(gateway, ceiling_mib=200)


@pytest.mark.slow
async def test_one_that_asks_for_all_of_history_in_a_loop(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    """Wide filters since an hour ago, taken back before their replay is over, over and over."""
    gateway = await asyncio.to_thread(
        make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"], limit_commands_per_second=100_000
    )
    history = [(f"{prefix}/{number % 500}/x", b"%d" % number + b"." * 100) for number in range(3_000)]
    async with Subscriber(gateway, "#", since="now") as neighbour, Subscriber(gateway) as undecided:
        await neighbour.wait_event("subscribed")
        await asyncio.to_thread(publisher.publish_all, history, qos=1)
        await neighbour.wait_messages(3_000)
        groups = (await asyncio.to_thread(gateway.metrics))["gateway_groups"]
        before = gateway.memory()
        for number in range(200):
            topics = [f"{prefix}/#", f"+/{number % 500}/#", "+/+/x", "#"]
            await undecided.send("subscribe", id=2 * number, topics=topics, since="1h")
            await undecided.send("unsubscribe", id=2 * number + 1, topics=topics)
            if number % 10 == 0:
                await asyncio.to_thread(publisher.publish, f"{prefix}/live", b"%d" % (number // 10))
        await undecided.wait(lambda: undecided.events[-1:] and undecided.events[-1].get("id") == 399, 60)
        assert {event["event"] for event in undecided.events} <= {"subscribed", "replayed", "unsubscribed", "gap"}
        await neighbour.wait(lambda: neighbour.payloads(f"{prefix}/live") == list(range(20)), 20)
        await assert_accounted(gateway, neighbour)
        assert neighbour.lost == 0
        samples = await asyncio.to_thread(gateway.metrics)
        assert samples["gateway_groups"] == groups
        assert samples["gateway_messages_replayed_total"] > 0
        assert samples["gateway_messages_delivered_total"] - samples["gateway_messages_replayed_total"] >= 3_020
        assert gateway.memory() - before < 40 * 2**20
        await undecided.send("subscribe", id="last", topics=[f"{prefix}/live"])
        await undecided.wait(lambda: undecided.payloads(f"{prefix}/live")[-1:] == [19], 20)
    assert_sound(gateway, ceiling_mib=250)


@pytest.mark.slow
async def test_commands_above_the_rate_are_refused_to_the_one_who_sends_them(
    mosquitto: Broker, make_gateway: MakeGateway, publisher: Publisher, prefix: str
) -> None:
    gateway = await asyncio.to_thread(
        make_gateway, mosquitto, mqtt_topics=[f"{prefix}/#"], limit_commands_per_second=20
    )
    async with Subscriber(gateway, "#", since="now") as neighbour, Subscriber(gateway) as hasty:
        await neighbour.wait_event("subscribed")
        for number in range(60):
            await hasty.send("ping", id=number)
        await hasty.wait(lambda: len(hasty.events) >= 60 or hasty.code is not None)
        refused = [event for event in hasty.events if event.get("code") == "limit"]
        assert refused
        samples = await asyncio.to_thread(gateway.metrics)
        assert samples['gateway_refused_total{reason="commands_per_second"}'] == len(refused)
        await neighbour.send("ping", id="mine")
        await neighbour.wait_event("pong", id="mine")
        await asyncio.to_thread(publisher.publish, f"{prefix}/a", b"1")
        await neighbour.wait_messages(1)
        await assert_accounted(gateway, neighbour)
    assert_sound(gateway, ceiling_mib=200)


SOMAXCONN = Path("/proc/sys/net/core/somaxconn")


@pytest.mark.skipif(
    not SOMAXCONN.exists() or int(SOMAXCONN.read_text()) < 3_000, reason="the system lets no more than that wait"
)
def test_three_thousand_who_come_at_once_wait_in_the_line_and_not_in_their_retries(
    mosquitto: Broker, make_gateway: MakeGateway, prefix: str
) -> None:
    gateway = make_gateway(mosquitto, mqtt_topics=[f"{prefix}/#"])
    gateway.freeze()  # all of them come while it does something else
    try:
        with closing_all([socket.socket() for _ in range(3_000)]) as sockets:
            waiting = selectors.DefaultSelector()
            for sock in sockets:
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    sock.connect(("127.0.0.1", gateway.port))
                waiting.register(sock, selectors.EVENT_WRITE)
            connected = 0
            while found := waiting.select(0.5):  # the first retry is due after a second
                for key, _ in found:
                    waiting.unregister(key.fileobj)
                connected += len(found)
            assert connected == len(sockets)
    finally:
        gateway.thaw()


def garbage(chance: random.Random) -> bytes:
    """Bytes of a client that are wrong in one way or another, after a good handshake."""
    body = chance.randbytes(chance.randint(0, 200))
    return chance.choice(
        [
            body,
            client_frame(0x1, body),  # text, mostly not UTF-8
            client_frame(0x1, b'{"command":"subscribe","topics":["a/#/b",1,null]}'),
            client_frame(0x1, b'{"command":"subscribe","topics":["a/#/b"]}'),
            client_frame(0x1, b"[" * 100_000),
            client_frame(0x1, b'{"command":' * 5_000),
            client_frame(0x2, body),
            client_frame(0x3, body),  # reserved
            client_frame(0x1, b"{}", masked=False),
            client_frame(0x0, body),  # a continuation of nothing
            client_frame(0x1, b"x", fin=False) + client_frame(0x1, b"y"),
            client_frame(0x9, b"x" * 126),  # a control frame that is too long
            client_frame(0x8, b"\x00"),  # half a close code
            client_frame(0x8, b"\x03\xef"),  # 1007, without having been asked
            b"\x81\xff" + (2**62).to_bytes(8, "big") + b"\0\0\0\0",
            b"\xf1\x80\0\0\0\0",  # reserved bits
        ]
    )


@pytest.mark.slow
def test_garbage_frames(mosquitto: Broker, make_gateway: MakeGateway, prefix: str) -> None:
    gateway = make_gateway(mosquitto, mqtt_topics=[f"{prefix}/#"], limit_connections_per_address=3_000)
    chance = random.Random(4)
    before = gateway.memory()
    with raw_websocket(gateway, "#") as neighbour, Publisher(mosquitto.url) as publisher:
        for number in range(400):
            with contextlib.suppress(ConnectionError), raw_websocket(gateway, "#", since="now") as sock:
                for _ in range(chance.randint(1, 4)):
                    sock.sendall(garbage(chance))
                if number % 3 == 0:
                    with contextlib.suppress(OSError):  # the gateway may have closed by now
                        sock.shutdown(socket.SHUT_WR)
                    eventually(lambda sock=sock: is_closed(sock), what="a client that is done")  # type: ignore[misc]
        publisher.publish(f"{prefix}/a", b"still here")
        eventually(lambda: b"still here" in receive(neighbour), what="the neighbour gets its message")
    eventually(lambda: gateway.metrics()["gateway_subscribers"] == 0, 20, "all are gone")
    samples = gateway.metrics()
    for reason in ("bad_frame", "bad_command", "bad_topic"):
        assert samples[f'gateway_refused_total{{reason="{reason}"}}'] > 10, reason
    assert samples["gateway_messages_received_total"] == 1
    assert gateway.memory() - before < 40 * 2**20
    assert_sound(gateway, ceiling_mib=200)


def receive(sock: socket.socket) -> bytes:
    sock.settimeout(1)
    try:
        return sock.recv(1 << 16)
    except TimeoutError:
        return b""


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00" * 1_000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /ws?topic=%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: x\r\n" % n for n in range(20_000)) + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x5a" * 500,  # TLS
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00",  # MQTT
        upgrade("/ws?since=" + "9" * 5_000),
        upgrade("/ws?topic=" + "a/" * 4_000),
    ],
    ids=range(9),
)
def test_garbage_instead_of_a_handshake(gateway: GatewayProcess, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(request_bytes)
        receive(sock)
    assert_sound(gateway, ceiling_mib=200)
