"""/topics over HTTP: every filter is a URL, and what the request accepts decides what comes."""

from __future__ import annotations

import contextlib
import csv
import http.client
import io
import json
import socket
import threading
from typing import Any
from urllib.parse import quote, urljoin
from urllib.request import Request, urlopen

import pytest

from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.brokers import Broker
from tests.support.event_streams import EventStream
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import PATIENCE_SECONDS, eventually


def url(prefix: str, rest: str = "") -> str:
    return f"/topics/{quote(prefix)}/%23{rest}"


@pytest.fixture
def filled(gateway: GatewayProcess, publisher: Publisher, prefix: str) -> str:
    """Ten readings of two sensors are in the log."""
    for number in range(10):
        publisher.publish(f"{prefix}/{'ab'[number % 2]}", json.dumps({"t": number, "deep": {"x": -number}}))
    eventually(lambda: len(gateway.json(url(prefix, "?since=1h"))["messages"]) == 10)
    return prefix


@pytest.mark.slow
def test_json_gives_the_last_values(gateway: GatewayProcess, filled: str) -> None:
    answer = gateway.json(url(filled))
    assert [(m["topic"][-1], m["payload"]["t"]) for m in answer["messages"]] == [("a", 8), ("b", 9)]
    assert answer["recovered"] is True
    assert gateway.json(f"/topics/{filled}/a")["messages"][0]["payload"]["t"] == 8
    assert gateway.json(f"/topics/{filled}/never")["messages"] == []


def test_history_comes_in_pages_by_position_in_both_orders(gateway: GatewayProcess, filled: str) -> None:
    found: list[int] = []
    address = url(filled, "?since=1h&limit=4")
    answer: dict[str, Any] = {}
    for _ in range(3):
        answer = gateway.json(address)
        found += [m["payload"]["t"] for m in answer["messages"]]
        if "next" in answer:
            address = url(filled, f"?since={answer['next']}&limit=4")
    assert found == list(range(10))
    assert "next" not in answer

    found = []
    next_page: str | None = url(filled, "?order=desc&limit=4")
    while next_page is not None:
        status, headers, body = gateway_request(gateway, next_page)
        assert status == 200
        found += [m["payload"]["t"] for m in json.loads(body)["messages"]]
        link = headers.get("link")
        # relative to the page that was asked for
        next_page = urljoin(next_page, link.partition("<")[2].partition(">")[0]) if link else None
    assert found == list(range(9, -1, -1))


def gateway_request(
    gateway: GatewayProcess, path: str, method: str = "GET", data: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(gateway.http + path, data=data, headers=named, method=method)
    try:
        with urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
    except OSError as error:
        if not hasattr(error, "headers"):
            raise
        return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()  # type: ignore[attr-defined]


def test_an_etag_saves_what_has_not_changed(gateway: GatewayProcess, publisher: Publisher, filled: str) -> None:
    status, headers, body = gateway_request(gateway, url(filled))
    tag = headers["etag"]
    head_status, head_headers, head_body = gateway_request(gateway, url(filled), "HEAD")
    assert (head_status, head_headers["etag"], head_body) == (200, tag, b"")
    assert int(head_headers["content-length"]) == len(body)
    assert gateway_request(gateway, url(filled), If_None_Match=tag)[0] == 304
    publisher.publish(f"{filled}/a", "1")
    eventually(lambda: gateway_request(gateway, url(filled), If_None_Match=tag)[0] == 200)
    assert status == 200


def test_downloads_are_complete(gateway: GatewayProcess, filled: str) -> None:
    status, headers, body = gateway_request(gateway, url(filled, "?fields=t,deep.x"), Accept="text/csv")
    assert (status, headers["content-type"]) == (200, "text/csv; charset=utf-8")
    rows = list(csv.DictReader(io.StringIO(body.decode())))
    assert [row["t"] for row in rows] == [str(number) for number in range(10)]
    assert rows[3]["deep.x"] == "-3"
    assert rows[0]["time"].endswith("Z")
    _, headers, body = gateway_request(gateway, url(filled), Accept="application/x-ndjson")
    assert headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["payload"]["t"] for line in body.splitlines()] == list(range(10))


def test_accept_is_followed_by_preference(gateway: GatewayProcess, filled: str) -> None:
    for accept, expected in [
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("*/*", "application/json"),
        ("image/svg+xml", "image/svg+xml"),
    ]:
        status, headers, _ = gateway_request(gateway, url(filled), Accept=accept)
        assert status == 200
        assert headers["content-type"].startswith(expected)
        assert "accept" in headers["vary"].lower()
    status, headers, body = gateway_request(gateway, url(filled), Accept="image/png")
    assert (status, headers["content-type"]) == (406, "application/problem+json")
    assert "text/event-stream" in json.loads(body)["detail"]


def test_fields_and_where_shape_every_representation(gateway: GatewayProcess, filled: str) -> None:
    rest = "?since=1h&fields=t&where=t%20%3E%206"
    answer = gateway.json(url(filled, rest))
    assert [m["payload"] for m in answer["messages"]] == [{"t": 7}, {"t": 8}, {"t": 9}]
    answer = gateway.json(url(filled, rest + "&order=desc&limit=2"))
    assert [m["payload"] for m in answer["messages"]] == [{"t": 9}, {"t": 8}]
    _, _, body = gateway_request(gateway, url(filled, rest), Accept="application/x-ndjson")
    assert [json.loads(line)["payload"] for line in body.splitlines()] == [{"t": 7}, {"t": 8}, {"t": 9}]
    _, _, body = gateway_request(gateway, url(filled, rest), Accept="text/csv")
    assert [row["t"] for row in csv.DictReader(io.StringIO(body.decode()))] == ["7", "8", "9"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/topics/a/%23/b", "bad_topic"),
        ("/topics/", "bad_topic"),
        ("/topics/a%00b", "bad_topic"),
        ("/topics/%24share/g/a", "bad_topic"),
        ("/topics/a?since=soon", "bad_since"),
        ("/topics/a?limit=0", "limit"),
        ("/topics/a?limit=x", "limit"),
        ("/topics/a?order=up", "bad_shape"),
        ("/topics/a?where=1%2B", "bad_shape"),
        ("/topics/a?format=xml", "bad_shape"),
        ("/topics/a?until=5", "bad_since"),
        ("/topics/a?max_hz=5", "bad_shape"),
    ],
)
def test_errors_are_problem_documents(gateway: GatewayProcess, path: str, code: str) -> None:
    status, headers, body = gateway_request(gateway, path)
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    problem = json.loads(body)
    assert problem["code"] == code
    assert problem["status"] == 400
    assert problem["detail"]


def test_a_post_publishes_and_confirms_with_a_position(gateway: GatewayProcess, prefix: str) -> None:
    path = f"/topics/{prefix}/led"
    status, _, body = gateway_request(
        gateway, f"{path}?confirm=1&qos=1&retain=1", "POST", b'{"on": true}', Content_Type="application/json"
    )
    assert status == 202
    position = json.loads(body)["position"]
    [message] = gateway.json(path)["messages"]
    assert message["payload"] == {"on": True}
    assert message["retained"] is True
    assert position.endswith(f":{message['seq']}")
    status, _, body = gateway_request(gateway, path, "POST", b"\xff\x00", Content_Type="application/octet-stream")
    assert (status, json.loads(body)) == (202, {"topic": f"{prefix}/led", "qos": 0, "retain": False})
    eventually(lambda: gateway.json(path)["messages"][0].get("encoding") == "base64")
    for bad, data, headers in [
        (f"/topics/{prefix}/%2B", b"1", {}),
        (f"{path}?qos=3", b"1", {}),
        (path, b"{", {"Content_Type": "application/json"}),
    ]:
        status, answer_headers, body = gateway_request(gateway, bad, "POST", data, **headers)
        assert (status, answer_headers["content-type"]) == (400, "application/problem+json")


def test_topics_are_listed_in_pages(gateway: GatewayProcess, filled: str) -> None:
    answer = gateway.json(f"/topics?prefix={filled}/")
    assert [(t["topic"][-1], t["count"], t["kept"]) for t in answer["topics"]] == [("a", 5, 5), ("b", 5, 5)]
    assert answer["topics"][0]["rate"] > 0
    assert answer["total"] == 2
    first = gateway.json(f"/topics?prefix={filled}/&limit=1")
    assert first["next"] == f"{filled}/a"
    second = gateway.json(f"/topics?prefix={filled}/&limit=1&after={first['next']}")
    assert [t["topic"] for t in second["topics"]] == [f"{filled}/b"]
    assert gateway.json(f"/topics?filter={filled}/%2B&prefix={filled}/b")["total"] == 1


def test_events_stream_live_and_resume_from_the_last_event_id(
    gateway: GatewayProcess, publisher: Publisher, filled: str
) -> None:
    stream = EventStream(gateway, url(filled))
    assert stream.headers["x-accel-buffering"] == "no"
    assert stream.headers["content-type"].startswith("text/event-stream")
    eventually(lambda: len(stream.messages) == 2)
    publisher.publish(f"{filled}/a", "10")
    eventually(lambda: len(stream.messages) == 3)
    last = stream.messages[-1]["id"]
    stream.cut()
    for number in range(11, 15):
        publisher.publish(f"{filled}/a", str(number))
    again = EventStream(gateway, url(filled), Last_Event_ID=last)
    eventually(lambda: len(again.messages) == 4)
    assert [m["data"]["payload"] for m in again.messages] == [11, 12, 13, 14]
    assert again.events[0]["event"] == "subscribed"
    again.cut()
    other = EventStream(gateway, url(filled), Last_Event_ID="old:7")
    everything = gateway.json(url(filled, "?since=1h"))["messages"]
    eventually(lambda: len(other.messages) == len(everything))
    gap = next(event for event in other.events if event.get("event") == "gap")
    assert gap["data"]["reason"] == "epoch"
    other.cut()


@pytest.mark.parametrize("query", ["", "?since=now"])
def test_events_that_come_before_the_first_message_was_seen_are_not_missed(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, query: str
) -> None:
    """What an EventSource does: it sends back the last id, also that of an event that it has no listener for."""
    stream = EventStream(gateway, url(prefix, query))
    eventually(lambda: stream.last_id)
    stream.cut()
    for number in range(3):
        publisher.publish(f"{prefix}/a", str(number))
    again = EventStream(gateway, url(prefix, query), Last_Event_ID=stream.last_id)
    eventually(lambda: len(again.messages) >= 3)
    assert [m["data"]["payload"] for m in again.messages] == [0, 1, 2]
    assert {event["event"] for event in again.events if "event" in event} <= {"subscribed", "position"}
    again.cut()


@pytest.mark.slow
def test_a_table_whose_rows_are_evicted_before_they_are_read_shows_as_a_failed_transfer(
    make_gateway: MakeGateway, mosquitto: Broker, publisher: Publisher, prefix: str
) -> None:
    own = make_gateway(mosquitto, mqtt_topics=[f"{prefix}/#"], history_messages=20)
    payload = "x" * 500_000
    for _ in range(20):
        publisher.publish(f"{prefix}/a", payload)
    eventually(lambda: own.metrics()["gateway_history_messages"] == 20)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", own.port, timeout=PATIENCE_SECONDS)) as connection:
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
        connection.request("GET", url(prefix, "?format=csv"))
        answer = connection.getresponse()
        assert answer.read(10_000).startswith(b"time,seq,topic,payload")
        for _ in range(20):
            publisher.publish(f"{prefix}/a", payload)
        eventually(lambda: own.metrics()["gateway_history_evicted_total"] == 20)
        with pytest.raises(http.client.IncompleteRead):
            answer.read()
    assert "broken off" in own.log()
    assert "Traceback" not in own.log()


@pytest.mark.slow
def test_a_restart_of_the_gateway_ends_event_streams_in_order(make_gateway: Any, mosquitto: Any, prefix: str) -> None:
    own = make_gateway(mosquitto)
    stream = EventStream(own, url(prefix))
    eventually(lambda: stream.events)
    assert own.stop() == 0
    assert "Traceback" not in own.log()


def test_a_limit_is_a_short_number(gateway: GatewayProcess, filled: str) -> None:
    for limit in ("000000000001" + "9" * 8, "000000000001" + "9" * 5_000, "10001", "0"):
        status, _, body = gateway_request(gateway, url(filled, f"?limit={limit}"))
        assert (status, json.loads(body)["code"]) == (400, "limit")


def test_the_head_of_an_event_stream_ends(gateway: GatewayProcess, filled: str) -> None:
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    ) as connection:
        for method, path in (("HEAD", f"/topics/{filled}/a"), ("GET", "/health/live")):
            connection.request(method, path, headers={"Accept": "text/event-stream"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            if method == "HEAD":
                assert answer.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("character", ["%00", "%01", "%7F", "%C2%85", "%EF%BF%BF"])
def test_a_topic_for_which_the_broker_would_close_its_connection_is_refused(
    gateway: GatewayProcess, prefix: str, character: str
) -> None:
    status, _, body = gateway_request(gateway, f"/topics/{prefix}{character}", "POST", b"1")
    assert (status, json.loads(body)["code"]) == (400, "bad_topic")
    assert gateway_request(gateway, f"/topics/{prefix}?confirm=1&qos=1", "POST", b"1")[0] == 202


@pytest.mark.slow
def test_a_badge_of_a_long_log_without_numbers_holds_nobody_up(
    make_gateway: MakeGateway, mosquitto: Broker, publisher: Publisher, prefix: str
) -> None:
    """The endpoint gives way: others are answered while it looks for a number."""
    gateway = make_gateway(mosquitto, history_messages=100_000)
    payload = json.dumps({"text": ["word"] * 100})
    for _ in range(20_000):
        publisher.publish(f"{prefix}/long", payload)
    publisher.publish(f"{prefix}/long", payload, qos=1)
    eventually(lambda: gateway.json(f"/topics?prefix={prefix}")["topics"][0]["kept"] > 20_000)
    done = threading.Event()

    def badge() -> None:
        gateway_request(gateway, url(prefix, "?format=svg&field=t"))
        done.set()

    thread = threading.Thread(target=badge)
    thread.start()
    answered = 0
    while not done.is_set():
        gateway_request(gateway, "/health/live")
        answered += 1
    thread.join()
    assert answered >= 10


@pytest.mark.parametrize("size", [60_000, 100_000, 400_000, 1_048_576])
def test_a_body_of_any_size_that_is_allowed_is_read_to_its_end(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, size: int
) -> None:
    publisher.subscribe(f"{prefix}/#")
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST", f"/topics/{prefix}/large?qos=1", b"x" * size)
        assert connection.getresponse().status == 202
    eventually(lambda: (f"{prefix}/large", b"x" * size) in publisher.received, 20)


@pytest.mark.slow
def test_a_publish_says_what_is_known_of_who_gets_it(make_mosquitto: MakeMosquitto, make_gateway: MakeGateway) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker, mqtt_topics=["heard/#"])

    def post(topic: str, qos: int) -> dict[str, Any]:
        status, body = gateway.request("POST", f"/topics/{topic}?qos={qos}", b"1")
        assert status == 202
        found: dict[str, Any] = json.loads(body)
        return found

    assert post("nobody/here", 1) == {
        "topic": "nobody/here", "qos": 1, "retain": False, "subscribers": 0, "new": True,
    }  # fmt: skip
    assert all("subscribers" not in post("nobody/here", qos) for qos in (0, 2)), "of these the broker says nothing"
    with Publisher(broker.url) as other:
        other.subscribe("nobody/#")
        for qos in (1, 2):
            assert "subscribers" not in post("nobody/here", qos)
    assert post("heard/a", 1) == {"topic": "heard/a", "qos": 1, "retain": False, "new": True}
    eventually(lambda: gateway.json("/topics/heard/a")["messages"])
    assert post("heard/a", 2) == {"topic": "heard/a", "qos": 2, "retain": False}
