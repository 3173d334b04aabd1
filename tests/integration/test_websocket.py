"""/ws and streams over real sockets: every command, every answer, every way to say no."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.core.protocol import CloseCode
from tests.conftest import MakeGateway
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.subscribers import Subscriber
from tests.support.waiting import PATIENCE_SECONDS, eventually, eventually_async, free_port

pytestmark = pytest.mark.anyio


def answer_to(client: Subscriber, id_: int) -> dict[str, Any] | None:
    return next((event for event in client.events if event.get("id") == id_), None)


async def ask(client: Subscriber, command: str, id_: int, **arguments: Any) -> dict[str, Any]:
    await client.send(command, id=id_, **arguments)
    answer: dict[str, Any] = await client.wait(lambda: answer_to(client, id_))
    return answer


@pytest.mark.slow
async def test_an_address_with_topics_streams_at_once(
    gateway: GatewayProcess, publisher: Publisher, prefix: str
) -> None:
    publisher.publish(f"{prefix}/b", "21.5", qos=1)
    async with Subscriber(gateway, f"{prefix}/+") as client:
        [message] = await client.wait_messages(1)
        assert message["topic"] == f"{prefix}/b"
        assert message["payload"] == 21.5
        assert client.events[0]["event"] == "subscribed"
        assert client.events[0]["recovered"] is True
        assert ":" in client.events[0]["position"]
        publisher.publish(f"{prefix}/c", '{"on": true}')
        messages = await client.wait_messages(2)
        assert messages[1]["payload"] == {"on": True}
        assert messages[1]["qos"] == 1


async def test_every_command_is_answered_with_its_id(gateway: GatewayProcess, prefix: str) -> None:
    async with Subscriber(gateway) as client:
        answer = await ask(client, "subscribe", 1, topics=[f"{prefix}/#"])
        assert answer["event"] == "subscribed"
        assert answer["topics"] == [f"{prefix}/#"]
        answer = await ask(client, "publish", 2, topic=f"{prefix}/led", payload={"on": True}, qos=1, retain=True)
        assert answer["event"] == "published"
        [message] = await client.wait_messages(1)
        assert message["payload"] == {"on": True}
        assert message["retained"] is True
        answer = await ask(client, "ping", 3)
        assert answer["event"] == "pong"
        answer = await ask(client, "unsubscribe", 4, topics=[f"{prefix}/#", "never/there"])
        assert answer == {"event": "unsubscribed", "id": 4, "topics": [f"{prefix}/#"]}
        await ask(client, "publish", 5, topic=f"{prefix}/led", payload="off")
        await ask(client, "ping", 6)
        assert len(client.messages) == 1


@pytest.mark.parametrize(
    ("frame", "code", "part"),
    [
        ("{", "bad_command", "truncated"),
        ('["subscribe"]', "bad_command", "Expected `object`"),
        ('{"command":"jump","id":7}', "bad_command", "jump"),
        ('{"id":7}', "bad_command", "known are subscribe, unsubscribe, publish, authenticate, ping"),
        ('{"command":"subscribe","id":7,"topics":"a"}', "bad_command", "$.topics"),
        ('{"command":"subscribe","id":7,"topics":["a/#/b"]}', "bad_topic", "'#' must be the last level"),
        ('{"command":"subscribe","id":7,"topics":["$share/g/a"]}', "bad_topic", "shared subscriptions"),
        ('{"command":"subscribe","id":7,"topics":["a"],"since":"yesterday"}', "bad_since", "a time back"),
        ('{"command":"subscribe","id":7,"topics":["a"],"max_hz":0}', "bad_shape", "max_hz"),
        ('{"command":"subscribe","id":7,"topics":["a"],"where":"temperature >"}', "bad_shape", "where"),
        ('{"command":"subscribe","id":7,"topics":["a"],"where":"[1].map(x, x)"}', "bad_shape", "'map' is not allowed"),
        ('{"command":"publish","id":7,"topic":"a/+","payload":1}', "bad_topic", "only in a topic filter"),
        ('{"command":"publish","id":7,"topic":"a","payload":1,"qos":3}', "bad_command", "qos 3"),
        ('{"command":"publish","id":7,"topic":"a","payload":"!","encoding":"base64"}', "bad_payload", "payload"),
        (b'{"command":"ping"}', "bad_command", "binary"),
    ],
)
async def test_a_bad_command_gets_an_error_and_the_connection_lives(
    gateway: GatewayProcess, frame: str | bytes, code: str, part: str
) -> None:
    async with Subscriber(gateway) as client:
        await client.send_raw(frame)
        await client.wait(lambda: client.events)
        [error] = client.events
        assert error["event"] == "error"
        assert error["code"] == code
        assert part in error["message"]
        assert ("id" in error) == (isinstance(frame, str) and '"id":7' in frame)
        assert (await ask(client, "ping", 9))["event"] == "pong"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"topic": "a/#/b"}, "bad_topic"),
        ({"topic": "a", "since": "?"}, "bad_since"),
        ({"topic": "a", "format": "xml"}, "bad_shape"),
        ({"topic": "a", "max_hz": "fast"}, "bad_shape"),
        ({"topic": "a", "since": "k3f9:x"}, "bad_since"),
        ({"topics": "a"}, "bad_request"),
    ],
)
async def test_a_bad_address_says_what_is_wrong_and_closes_for_good(
    gateway: GatewayProcess, query: dict[str, Any], code: str
) -> None:
    async with Subscriber(gateway, **query) as client:
        await client.wait(lambda: client.code)
        assert client.code == CloseCode.BAD_REQUEST
        assert not CloseCode.BAD_REQUEST.is_reconnectable
        assert client.events[-1]["code"] == code
        assert client.events[-1]["message"].startswith(client.reason[:40])


async def test_a_stream_carries_data_only(gateway: GatewayProcess, publisher: Publisher) -> None:
    async with Subscriber(gateway, path="/ws/temperature/", since="now") as client:
        await asyncio.sleep(0.1)  # no answer says that it is subscribed
        publisher.publish("sensors/s1/state", '{"temperature": 21.5, "humidity": 40}')
        publisher.publish("sensors/s1/state", '{"humidity": 41}')
        publisher.publish("sensors/s1/state", '{"temperature": 22}')
        await client.wait(lambda: len(client.frames) >= 2)
        first, second = map(json.loads, client.frames)
        assert first["temperature"] == 21.5
        assert first.keys() == {"temperature", "topic", "time"}
        assert second["temperature"] == 22


async def test_a_stream_sends_numbers_and_leaves_out_what_failed(gateway: GatewayProcess, publisher: Publisher) -> None:
    payloads = [
        b'{"temperature": 1}', b'{"temperature": NaN}', b'{"temperature": null}', b"\xff\x00", b"nan", b"[]x",
        b'{"humidity": 3}', b"2.5",
    ]  # fmt: skip
    topic = "sensors/stream-of-failures/state"
    skipped = gateway.metrics()["gateway_messages_skipped_total"]
    async with Subscriber(gateway, path="/ws/temperature/?since=now") as client:
        await eventually_async(lambda: gateway.metrics()["gateway_subscribers"] >= 1)
        for payload in payloads:
            publisher.publish(topic, payload)
        await client.wait(lambda: len(client.frames) >= 2)
        assert [json.loads(frame)["temperature"] for frame in client.frames] == [1, 2.5]
        await eventually_async(lambda: gateway.metrics()["gateway_messages_skipped_total"] >= skipped + 6)


async def test_a_stream_takes_no_commands_and_only_its_own_parameters(gateway: GatewayProcess) -> None:
    command = json.dumps({"command": "subscribe", "topics": ["#"]})
    async with Subscriber(gateway, path="/ws/temperature/?since=now") as client:
        await client.send_raw(command)
        assert await client.wait_closed() == CloseCode.BAD_REQUEST
        assert "takes no commands" in client.reason
        assert client.frames == []
    for query in ("topic=%23", "format=json", "fields=humidity"):
        async with Subscriber(gateway, path=f"/ws/temperature/?{query}") as client:
            assert await client.wait_closed() == CloseCode.BAD_REQUEST
            assert "known are since, max_hz, deadband, where, token" in client.reason
            assert client.frames == []


async def test_a_plus_that_is_a_level_may_be_typed_as_it_is(
    gateway: GatewayProcess, publisher: Publisher, prefix: str
) -> None:
    for written, meant in ((f"{prefix}/+", f"{prefix}/+"), ("%2B/living+room", "+/living room"), ("%20/a", " /a")):
        async with Subscriber(gateway, path=f"/ws?topic={written}") as client:
            assert (await client.wait_event("subscribed"))["topics"] == [meant]
    publisher.publish(f"{prefix}/x", b"1", qos=1)
    eventually(lambda: gateway.json(f"/topics/{prefix}/none?topic={prefix}/+")["messages"], 10, "also over HTTP")


async def test_a_pong_says_how_far_everything_has_come(
    gateway: GatewayProcess, publisher: Publisher, prefix: str
) -> None:
    async with Subscriber(gateway, f"{prefix}/#", since="now") as client:
        await client.wait_event("subscribed")
        publisher.publish(f"{prefix}/seen", b"1", qos=1)
        [seen] = await client.wait_messages(1)
        publisher.publish("elsewhere/x", b"1", qos=1)
        position = ""

        async def quiet_but_ahead() -> bool:
            nonlocal position
            position = (await ask(client, "ping", len(client.events) + 1))["position"]
            return int(position.partition(":")[2]) > int(seen["seq"])

        while not await quiet_but_ahead():
            pass
    publisher.publish(f"{prefix}/missed", b"2", qos=1)
    async with Subscriber(gateway, f"{prefix}/#", since=position) as client:
        [missed] = await client.wait_messages(1)
        assert missed["payload"] == 2
        assert client.events[0]["recovered"] is True


async def test_raw_answers_commands_with_events_and_sends_no_others(gateway: GatewayProcess, prefix: str) -> None:
    async with Subscriber(gateway, f"{prefix}/#", format="raw", since="now") as client:
        assert (await ask(client, "ping", 1))["event"] == "pong"
        assert len(client.frames) == 1


async def test_an_unknown_stream_is_named_with_those_that_there_are(gateway: GatewayProcess) -> None:
    async with Subscriber(gateway, path="/ws/pressure/") as client:
        await client.wait(lambda: client.code)
        assert client.code == CloseCode.UNKNOWN_STREAM
        assert "'pressure'" in client.reason
        assert "temperature" in client.reason


@pytest.mark.parametrize(
    ("path", "status", "part"),
    [("/ws", 426, "/topics/"), ("/ws/", 426, "/topics/"), ("/ws/temperature/", 426, "/topics/"), ("/wsx", 404, "")],
)
def test_a_request_without_an_upgrade_says_what_is_missing(
    gateway: GatewayProcess, path: str, status: int, part: str
) -> None:
    found, body = gateway.get(path)
    assert found == status
    assert part in body.decode()


async def test_an_address_with_no_websocket_says_so_and_a_slash_at_the_end_is_none(gateway: GatewayProcess) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{gateway.ws}/socket", proxy=None)
    assert refused.value.response.status_code == 404
    assert "no WebSocket is at /socket: there are /ws," in json.loads(refused.value.response.body or b"")["detail"]
    async with Subscriber(gateway, "a", path="/ws/") as client:
        await client.wait_event("subscribed")


async def test_raw_gives_payloads_as_they_are(gateway: GatewayProcess, publisher: Publisher, prefix: str) -> None:
    async with Subscriber(gateway, f"{prefix}/x", format="raw", since="now") as client:
        await asyncio.sleep(0.1)
        for payload in (b"21.50", b"\xff\x00", b""):
            publisher.publish(f"{prefix}/x", payload)
        await client.wait(lambda: len(client.frames) == 3)
        assert client.frames == ["21.50", b"\xff\x00", ""]


async def test_an_upgrade_of_a_topics_address_is_the_websocket(
    gateway: GatewayProcess, publisher: Publisher, prefix: str
) -> None:
    publisher.publish(f"{prefix}/a/state", "1")
    async with Subscriber(gateway, path=f"/topics/{prefix}/%2B/state") as client:
        [message] = await client.wait_messages(1)
        assert message["topic"] == f"{prefix}/a/state"


async def test_a_position_resumes_without_a_gap_and_another_epoch_says_so(
    gateway: GatewayProcess, publisher: Publisher, prefix: str
) -> None:
    async with Subscriber(gateway, f"{prefix}/#") as client:
        position = (await client.wait(lambda: client.events))[0]["position"]
    for number in range(10):
        publisher.publish(f"{prefix}/{number % 2}", str(number))
    async with Subscriber(gateway, f"{prefix}/#", since=position) as client:
        messages = await client.wait_messages(10)
        assert [m["payload"] for m in messages] == list(range(10))
        assert client.events[0]["recovered"] is True
    async with Subscriber(gateway, f"{prefix}/#", since="zzz:17") as client:
        await client.wait_messages(10)
        assert client.events[0]["recovered"] is False
        assert client.events[1]["reason"] == "epoch"
        assert [m["payload"] for m in client.messages] == list(range(10))


async def test_shapes_thin_out_what_a_viewer_gets(gateway: GatewayProcess, publisher: Publisher, prefix: str) -> None:
    async with (
        Subscriber(gateway, f"{prefix}/s", since="now", mode="minmax", max_hz=5, fields="t") as minmax,
        Subscriber(gateway, f"{prefix}/s", since="now", where="t >= 45 && h < 50", fields="t") as hot,
    ):
        for client in (minmax, hot):
            await client.wait(lambda client=client: client.events)  # type: ignore[misc]
        readings = ((f"{prefix}/s", json.dumps({"t": number, "h": number})) for number in range(60))
        await asyncio.to_thread(publisher.publish_all, readings, qos=0, per_second=100)
        await minmax.wait(lambda: sum(m["count"] for m in minmax.messages) == 60)
        assert minmax.messages[0]["payload"]["t"]["min"] == 0
        assert minmax.messages[-1]["payload"]["t"]["max"] == 59
        assert len(minmax.messages) <= 6
        assert [m["payload"] for m in hot.messages] == [{"t": t} for t in range(45, 50)]


async def test_a_request_and_its_response_meet_by_mqtt_5_properties(gateway: GatewayProcess, prefix: str) -> None:
    correlation = base64.b64encode(b"\x00\x01").decode()
    async with (
        Subscriber(gateway, f"{prefix}/answer", since="now", properties=1) as asker,
        Subscriber(gateway, f"{prefix}/question", since="now", properties=1) as responder,
        Subscriber(gateway, f"{prefix}/#", since="now") as plain,
    ):
        for client in (asker, responder, plain):
            await client.wait(lambda client=client: client.events)  # type: ignore[misc]
        await ask(
            asker, "publish", 1, topic=f"{prefix}/question", payload={"ask": "time"}, qos=1,
            properties={
                "response_topic": f"{prefix}/answer", "correlation_data": correlation,
                "content_type": "application/json",
                "user_properties": [["a", "1"], ["a", "2"]], "message_expiry_interval": 60,
            },
        )  # fmt: skip
        [question] = await responder.wait_messages(1)
        given = question["properties"]
        assert given["content_type"] == "application/json"
        assert given["user_properties"] == [["a", "1"], ["a", "2"]]
        assert 0 < given["message_expiry_interval"] <= 60
        await ask(
            responder, "publish", 2, topic=given["response_topic"], payload=12,
            properties={"correlation_data": given["correlation_data"]},
        )  # fmt: skip
        [answer] = await asker.wait_messages(1)
        assert answer["payload"] == 12
        assert answer["properties"]["correlation_data"] == correlation
        await plain.wait_messages(2)
        assert all("properties" not in message for message in plain.messages)


@pytest.mark.slow
async def test_readers_that_stall_lose_nothing_in_silence(
    make_gateway: Any, mosquitto: Any, publisher: Publisher, prefix: str
) -> None:
    """The invariant over real sockets: small buffers, readers that stop and go on, history that is too short for it."""
    gateway = make_gateway(mosquitto, limit_buffer_bytes=8192, history_messages=300)
    count = 6_000
    payload = "x" * 400
    stalled = [Subscriber(gateway, f"{prefix}/#", since="now", small_buffers=True) for _ in range(5)]
    async with contextlib.AsyncExitStack() as stack:
        fast = await stack.enter_async_context(Subscriber(gateway, f"{prefix}/#", since="now"))
        await fast.wait(lambda: fast.events)
        for client in stalled:
            await stack.enter_async_context(client)
            await client.wait(lambda client=client: client.events)  # type: ignore[misc]
            client.pause()
        messages = ((f"{prefix}/{n % 7}", json.dumps({"n": n, "pad": payload})) for n in range(count))
        sending = asyncio.create_task(asyncio.to_thread(publisher.publish_all, messages, qos=0, per_second=3_000))
        for number, client in enumerate(stalled):
            await asyncio.sleep(0.15 * number)
            client.resume()
            await asyncio.sleep(0.05)
            client.pause()
        await sending
        await fast.wait_messages(count, 30)
        seqs = [m["seq"] for m in fast.messages]
        for client in stalled:
            client.resume()
        for client in stalled:
            await client.wait(lambda client=client: client.messages and client.messages[-1]["seq"] == seqs[-1], 30)  # type: ignore[misc]
            got = [m["seq"] for m in client.messages]
            assert got == sorted(set(got))
            gaps = [event for event in client.events if event["event"] == "gap"]
            assert gaps, "history was too short: there must have been a gap"
            assert all(gap["reason"] == "slow" for gap in gaps)
            assert len(got) + sum(gap["lost"] for gap in gaps) == count
    assert [m["payload"]["n"] for m in fast.messages] == list(range(count))


@pytest.mark.slow
async def test_the_answer_comes_first_when_the_broker_is_away_and_a_socket_takes_more_topics(
    make_gateway: MakeGateway,
) -> None:
    gateway = make_gateway(f"mqtt://127.0.0.1:{free_port()}", ready=False)
    address = f"{gateway.ws}/topics/a?topic=b"
    async with connect(address, proxy=None) as socket, asyncio.timeout(PATIENCE_SECONDS):
        first, second = [json.loads(await socket.recv()) for _ in range(2)]
    assert (first["event"], first["topics"]) == ("subscribed", ["a", "b"])
    assert (second["event"], second["connected"]) == ("upstream", False)
