"""The client library in a real browser, against a real gateway and a real broker."""

from __future__ import annotations

import ssl
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from websockets.sync.server import ServerConnection, serve

from gateway.core.protocol import CLOSE_CODES
from tests.conftest import MakeGateway, MakeMosquitto
from tests.support.brokers import Broker
from tests.support.certificates import Authority
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher, publishing

from .conftest import MakeNetwork, OpenPage, Tab, Tasks, WebTools
from .network import PAGE_PATH

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_shows_messages(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, network_to: MakeNetwork, open_page: OpenPage
) -> None:
    page = open_page(network_to(gateway.port))
    page.connect(topics=f"{prefix}/#")
    page.wait_open()
    publisher.publish(f"{prefix}/a", '{"temperature": 21.5}')
    page.wait("messages.length === 1")
    message = page.page.evaluate("messages[0]")
    assert message["topic"] == f"{prefix}/a"
    assert message["payload"] == {"temperature": 21.5}


def test_asks_for_last_values_history_and_devices(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, network_to: MakeNetwork, open_page: OpenPage
) -> None:
    page = open_page(network_to(gateway.port))
    page.connect(topics=f"{prefix}/#")
    page.wait_open()
    for number in range(25):
        publisher.publish(f"{prefix}//{number % 2}", str(number))
    page.wait("messages.length === 25")
    answer = page.page.evaluate(
        """async (filter) => {
          const { alerts, devices, history, last } = await import("./client-ask.js");
          const first = await history(filter, { limit: 20 });
          return {
            last: await last(filter, { where: "payload > 23" }),
            first,
            rest: await history([filter, "no/such"], { since: first.position }),
            newest: await history(filter, { order: "desc", limit: 2 }),
            devices: await devices(),
            alerts: await alerts(),
            refused: await last("a/#/b").catch(({ code }) => code),
          };
        }""",
        f"{prefix}//+",
    )
    assert [(each["topic"], each["payload"]) for each in answer["last"]] == [(f"{prefix}//0", 24)]
    assert [each["payload"] for each in answer["first"]["messages"]] == list(range(20))
    assert (answer["first"]["more"], answer["first"]["recovered"]) == (True, True)
    assert [each["payload"] for each in answer["rest"]["messages"]] == list(range(20, 25))
    assert answer["rest"]["more"] is False
    assert [each["payload"] for each in answer["newest"]["messages"]] == [24, 23]
    assert answer["devices"] == []
    assert answer["alerts"] == []
    assert answer["refused"] == "bad_topic"


@pytest.mark.slow
def test_goes_on_when_the_gateway_is_restarted(
    mosquitto: Broker,
    publisher: Publisher,
    prefix: str,
    make_gateway: MakeGateway,
    network_to: MakeNetwork,
    open_page: OpenPage,
) -> None:
    gateway = make_gateway(mosquitto)
    page = open_page(network_to(gateway.port))
    page.connect(topics=f"{prefix}/#")
    page.wait_open()
    publisher.publish(f"{prefix}/a", "1", retain=True)
    page.wait_payload(f"{prefix}/a", 1)
    gateway.stop()
    page.wait("live.state !== 'open'")
    gateway.start()
    page.wait("events.filter((event) => event.type === 'subscribed').length === 2")
    publisher.publish(f"{prefix}/a", "2")
    page.wait_payload(f"{prefix}/a", 2)
    assert [gap["reason"] for gap in page.events("gap")] == ["epoch"]
    assert page.events("error") == []


@pytest.mark.slow
def test_is_told_of_a_broker_that_is_restarted(
    make_mosquitto: MakeMosquitto, prefix: str, make_gateway: MakeGateway, network_to: MakeNetwork, open_page: OpenPage
) -> None:
    broker = make_mosquitto()
    gateway = make_gateway(broker)
    page = open_page(network_to(gateway.port))
    page.connect(topics=f"{prefix}/#")
    page.wait_open()
    broker.stop()
    page.wait("events.some((event) => event.type === 'upstream' && !event.connected)")
    broker.start()
    page.wait("events.some((event) => event.type === 'upstream' && event.connected)", 40)
    with Publisher(broker.url) as publisher:
        publisher.publish(f"{prefix}/a", "1")
    page.wait_payload(f"{prefix}/a", 1)
    assert page.states() == ["connecting", "open"]


@pytest.mark.slow
def test_misses_nothing_while_its_network_is_gone(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, network_to: MakeNetwork, open_page: OpenPage
) -> None:
    page = open_page(network_to(gateway.port))
    page.connect(topics=f"{prefix}/#")
    page.wait_open()
    publisher.publish_all([(f"{prefix}/a", str(number)) for number in range(20)], qos=1)
    page.wait_payload(f"{prefix}/a", 19)
    tools = page.cdp()
    tools.send("Network.enable")
    gone = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    tools.send("Network.emulateNetworkConditions", gone)
    publisher.publish_all([(f"{prefix}/a", str(number)) for number in range(20, 100)], qos=1)
    page.wait("live.state === 'waiting'")
    tools.send("Network.emulateNetworkConditions", {**gone, "offline": False})
    page.wait_payload(f"{prefix}/a", 99)
    assert page.payloads(f"{prefix}/a") == list(range(100))
    assert page.events("gap") == []


@pytest.mark.slow
def test_notices_a_connection_that_died_without_a_word(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, network_to: MakeNetwork, open_page: OpenPage
) -> None:
    network = network_to(gateway.port)
    page = open_page(network)
    page.connect(topics=f"{prefix}/#", silence=1, timeout=1)
    page.wait_open()
    publisher.publish(f"{prefix}/a", "1")
    page.wait_payload(f"{prefix}/a", 1)
    network.silence()
    page.wait("live.state === 'waiting'", 10)
    publisher.publish(f"{prefix}/a", "2")
    network.mend()
    page.wait_payload(f"{prefix}/a", 2)
    assert page.payloads(f"{prefix}/a") == [1, 2]


@pytest.mark.parametrize("limit", [1_500, 5_000, 20_000])
@pytest.mark.slow
def test_a_replay_that_is_cut_again_and_again_is_complete(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, network_to: MakeNetwork, open_page: OpenPage, limit: int
) -> None:
    count = 900
    topics = [f"{prefix}/a", f"{prefix}/b", f"{prefix}/c/d"]
    publisher.publish_all([(topics[number % 3], str(number)) for number in range(count)], qos=1)
    watch = f"{prefix}/#"
    network = network_to(gateway.port)
    page = open_page(network)
    network.limit = limit
    page.connect(topics=f"{prefix}/a", since="10m", maxDelay=0.05)
    page.page.evaluate(
        "([wide, narrow]) => { live.subscribe(wide, { since: '10m' }); live.subscribe(narrow, { since: '10m' }); }",
        [watch, f"{prefix}/c/#"],
    )
    last = [count - 3, count - 2, count - 1]
    for topic, payload in zip(topics, last, strict=True):
        page.wait_payload(topic, payload, 60)
    for number, topic in enumerate(topics):
        assert page.payloads(topic) == list(range(number, count, 3)), topic
    assert page.events("gap") == []
    assert network.websockets > 2


@pytest.mark.slow
@pytest.mark.parametrize("limit", [2_000, 10_000])
def test_a_history_that_is_cut_is_complete_beside_last_values_of_the_same_topics(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, network_to: MakeNetwork, open_page: OpenPage, limit: int
) -> None:
    count = 900
    topics = [f"{prefix}/a", f"{prefix}/b", f"{prefix}/c/d"]
    publisher.publish_all([(topics[number % 3], str(number)) for number in range(count)], qos=1)
    network = network_to(gateway.port)
    page = open_page(network)
    network.limit = limit
    page.connect(topics=f"{prefix}/#", since="last", maxDelay=0.05)
    page.page.evaluate("(topic) => { live.subscribe(topic, { since: '10m' }); }", topics[0])
    page.wait(f"messages.filter((message) => message.topic === '{topics[0]}').length >= {count // 3}", 60)
    publisher.publish_all([(topic, str(count)) for topic in topics], qos=1)
    for topic in topics:
        page.wait_payload(topic, count, 60)
    # the last value comes before the history that it is a part of, and once more if the connection was lost in between
    got = page.payloads(topics[0])
    assert sorted(set(got)) == [*range(0, count, 3), count]
    assert len(got) - len(set(got)) <= 1
    for number, topic in enumerate(topics[1:], 1):
        assert page.payloads(topic) == [count - 3 + number, count]
    assert page.events("gap") == []
    assert network.websockets > 2


@pytest.mark.slow
def test_a_hidden_tab_slows_to_a_trickle_and_catches_up_when_shown(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, network_to: MakeNetwork, tab: Tab
) -> None:
    topic = f"{prefix}/a"
    tab.connect(network_to(gateway.port), topics=topic)
    tab.hide()
    # it says so some seconds later: who only looks something up goes on as if nothing was
    tab.wait("events.filter((event) => event.type === 'subscribed').length === 2")
    publisher.publish_all([(topic, str(number)) for number in range(300)], per_second=50)
    seen = len(tab.payloads(topic))
    assert seen <= 3
    tab.show()
    tab.wait("messages.at(-1)?.payload === 299", 3)
    stood_for = tab.evaluate("messages.reduce((sum, message) => sum + 1 + (message.skipped ?? 0), 0)")
    assert stood_for == 300
    publisher.publish_all([(topic, str(number)) for number in range(300, 320)])
    tab.wait("messages.at(-1).payload === 319")
    assert tab.payloads(topic)[-20:] == list(range(300, 320))


@pytest.mark.slow
def test_a_hidden_tab_that_closes_misses_nothing(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, network_to: MakeNetwork, tab: Tab
) -> None:
    topic = f"{prefix}/a"
    tab.connect(network_to(gateway.port), topics=topic, hiddenHz=0)
    publisher.publish(topic, "0")
    tab.wait("messages.length === 1")
    tab.hide()
    tab.wait("live.state === 'paused'")
    publisher.publish_all([(topic, str(number)) for number in range(1, 300)], qos=1)
    tab.show()
    tab.wait("messages.at(-1).payload === 299")
    assert tab.payloads(topic) == list(range(300))


def test_a_tab_that_slept_goes_on_where_it_was(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, network_to: MakeNetwork, tab: Tab
) -> None:
    topic = f"{prefix}/a"
    network = network_to(gateway.port)
    tab.connect(network, topics=topic, hiddenHz="Infinity", timeout=5)
    publisher.publish(topic, "0")
    tab.wait("messages.length === 1")
    tab.hide()
    tab.freeze()
    # and while it sleeps, its connection goes without a word
    network.silence()
    publisher.publish_all([(topic, str(number)) for number in range(1, 300)], qos=1)
    tab.thaw()
    tab.show()
    tab.wait("live.state !== 'open'")
    network.mend()
    tab.wait("messages.at(-1).payload === 299", 40)
    assert tab.payloads(topic) == list(range(300))


def test_publishes_and_asks_and_answers(
    gateway: GatewayProcess, publisher: Publisher, prefix: str, network_to: MakeNetwork, open_page: OpenPage
) -> None:
    publisher.subscribe(f"{prefix}/#")
    page = open_page(network_to(gateway.port))
    page.connect(topics=f"{prefix}/answers", properties=True)
    page.wait_open()
    for payload in ({"on": True}, "text", 3):
        page.page.evaluate("([topic, payload]) => live.publish(topic, payload, { qos: 1 })", [f"{prefix}/a", payload])
    page.page.evaluate("(topic) => live.publish(topic, new Uint8Array([0, 255]))", f"{prefix}/a")
    for raw in (b'{"on":true}', b"text", b"3", b"\x00\xff"):
        publisher.wait_for(f"{prefix}/a", raw)
    # a request names where its answer goes (MQTT 5, 4.10); the correlation data comes back with it
    page.page.evaluate(
        "([topic, answers]) => live.publish(topic, 'sum', { response_topic: answers, correlation_data: 'AAE=' })",
        [f"{prefix}/questions", f"{prefix}/answers"],
    )
    publisher.wait_for(f"{prefix}/questions", b"sum")
    asked: Any = next(message for message in publisher.messages if message.topic == f"{prefix}/questions").properties
    publisher.publish(asked.ResponseTopic, "42", properties={"CorrelationData": asked.CorrelationData})
    page.wait("messages.length === 1")
    message = page.page.evaluate("messages[0]")
    assert message["payload"] == 42
    assert message["properties"]["correlation_data"] == "AAE="
    assert 0 < page.page.evaluate("live.ping()") < 5000


def test_refusals_are_told(gateway: GatewayProcess, network_to: MakeNetwork, open_page: OpenPage) -> None:
    page = open_page(network_to(gateway.port))
    page.connect()
    told = page.page.evaluate(
        """async () => {
          const code = (error) => error.code;
          return [await live.subscribe("a/#/b").catch(code), await live.publish("a/+", 1).catch(code)];
        }"""
    )
    assert told == ["bad_topic", "bad_topic"]
    page.connect(topics="a", since="long ago")
    page.wait("events.length > 0")
    assert page.events("error")[0]["code"] == "bad_since"


def test_works_over_tls_behind_a_path_prefix(
    gateway: GatewayProcess,
    publisher: Publisher,
    prefix: str,
    authority: Authority,
    network_to: MakeNetwork,
    open_page: OpenPage,
) -> None:
    pair = authority.issue("127.0.0.1", hosts=("127.0.0.1",))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.cert, pair.key)
    network = network_to(gateway.port, tls=tls, prefix="/house")
    page = open_page(network)
    page.connect(topics=f"{prefix}/#")
    page.wait_open()
    publisher.publish(f"{prefix}/a", "1")
    page.wait_payload(f"{prefix}/a", 1)
    assert network.page.startswith("https://")
    assert network.websockets == 1


@pytest.mark.slow
def test_tabs_share_one_socket(
    gateway: GatewayProcess,
    chromium: Browser,
    publisher: Publisher,
    prefix: str,
    network_to: MakeNetwork,
    open_page: OpenPage,
) -> None:
    network = network_to(gateway.port)
    context = chromium.new_context()
    publisher.publish(f"{prefix}/a", "1", retain=True)
    first = open_page(network, context)
    first.connect(module="./client-shared.js", topics=f"{prefix}/#")
    first.wait_payload(f"{prefix}/a", 1)
    second = open_page(network, context)
    second.connect(module="./client-shared.js", topics=f"{prefix}/a")
    second.wait_payload(f"{prefix}/a", 1)
    third = open_page(network, context)
    third.connect(module="./client-shared.js", topics=f"{prefix}/#")
    third.wait_payload(f"{prefix}/a", 1)
    publisher.publish(f"{prefix}/a", "2")
    publisher.publish(f"{prefix}/b", "3")
    for page in (first, third):
        page.wait_payload(f"{prefix}/b", 3)
        assert page.payloads(f"{prefix}/a") == [1, 2]
    second.wait_payload(f"{prefix}/a", 2)
    assert second.payloads(f"{prefix}/b") == []
    assert network.websockets == 1

    # the network goes, and all of them go on
    network.cut()
    publisher.publish_all([(f"{prefix}/a", str(number)) for number in range(3, 50)], qos=1)
    network.mend()
    for page in (first, second, third):
        page.wait_payload(f"{prefix}/a", 49)
        assert page.payloads(f"{prefix}/a") == list(range(1, 50))
    assert network.websockets == 2

    # one tab leaves, with what only it wanted
    first.page.close()
    third.page.evaluate("(topic) => live.unsubscribe(topic)", f"{prefix}/#")
    publisher.publish(f"{prefix}/b", "4")
    publisher.publish(f"{prefix}/a", "50")
    second.wait_payload(f"{prefix}/a", 50)
    assert third.payloads(f"{prefix}/b") == [3]
    assert second.page.evaluate("live.publish('x', 1).then(() => 'published')") == "published"

    # a replay is one tab's own
    third.page.evaluate("(topic) => live.subscribe(topic, { since: '10m' })", f"{prefix}/a")
    third.wait("messages.filter((message) => message.payload === 50).length === 1")
    assert network.websockets == 3
    context.close()


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_two_thousand_messages_a_second_neither_grow_the_heap_nor_freeze_the_page(
    gateway: GatewayProcess,
    mosquitto: Broker,
    prefix: str,
    network_to: MakeNetwork,
    open_page: OpenPage,
    page_tasks: Tasks,
) -> None:
    seconds = 60
    per_second = 2_000
    count = seconds * per_second
    page = open_page(network_to(gateway.port))
    # what a page does with messages: it keeps the newest of each topic and shows some of them in every frame
    page.page.evaluate(
        """async (topics) => {
          const { connect } = await import("./client.js");
          Object.assign(globalThis, { live: connect("ws", { topics }), count: 0, disorder: 0, gaps: [], frames: 0 });
          const newest = new Map();
          let last = 0;
          live.on("gap", (gap) => gaps.push(gap));
          live.on("message", (message) => {
            count++;
            if (message.seq <= last) disorder++;
            last = message.seq;
            newest.set(message.topic, message);
          });
          const draw = () => {
            frames++;
            document.body.textContent = [...newest.values()].map((m) => `${m.topic} ${m.payload.temperature}`).join();
            requestAnimationFrame(draw);
          };
          requestAnimationFrame(draw);
        }""",
        f"{prefix}/#",
    )
    page.wait("live.state === 'open'")
    tools = page.cdp()
    tools.send("HeapProfiler.enable")

    def heap() -> int:
        tools.send("HeapProfiler.collectGarbage")
        used: int = tools.send("Runtime.getHeapUsage")["usedSize"]
        return used

    messages = (
        (f"{prefix}/{number % 100}/state", b'{"temperature":%d.5,"humidity":44.1,"seq":%d}' % (number % 30, number))
        for number in range(count)
    )
    with publishing(mosquitto.url, messages, qos=0, per_second=per_second) as sent:
        page.wait(f"count > {count // 5}", seconds * 2)
        early = heap()
        page.wait(f"count > {count * 8 // 10}", seconds * 2)
        with page_tasks.noted() as tasks:
            before = page.page.evaluate("[count, frames]")
            page.wait(f"count > {count * 9 // 10}", seconds * 2)
            after = page.page.evaluate("[count, frames]")
        late = heap()
        page.wait(f"count >= {count}", 60)
    assert sent == [count]
    assert page.page.evaluate("[count, disorder, gaps]") == [count, 0, []]
    assert late - early < 500_000, f"the heap grew from {early} to {late} bytes in {count * 7 // 10} messages"
    messages, frames = after[0] - before[0], after[1] - before[1]
    print(
        f"heap {early} -> {late}, {messages=} {frames=} busy {sum(tasks):.2f} s, slowest {max(tasks):.3f} {len(tasks)}"
    )
    assert frames > 0
    assert max(tasks) < 0.5, f"the page stood still for {max(tasks):.3f} s"
    assert sum(tasks) < 0.5 * messages / per_second, "half of a core is left for the page's own work"


@pytest.mark.slow
def test_tokens_are_renewed_before_they_end(
    mosquitto: Broker,
    publisher: Publisher,
    prefix: str,
    make_gateway: MakeGateway,
    network_to: MakeNetwork,
    open_page: OpenPage,
) -> None:
    secret = "a secret of this test that is longer than 32 bytes"
    gateway = make_gateway(mosquitto, access_secret=secret)
    network = network_to(gateway.port)
    page = open_page(network)
    page.page.expose_function(
        "mint",
        lambda seconds: jwt.encode(
            {"sub": "page", "exp": int(time.time()) + seconds, "topics": {"subscribe": [f"{prefix}/#"]}},
            secret,
            "HS256",
        ),
    )
    page.page.evaluate(
        """async (topics) => {
          const { connect } = await import("./client.js");
          Object.assign(globalThis, { messages: [], events: [], tokens: 0, known: [] });
          globalThis.live = connect("ws", { topics, token: () => { tokens++; return mint(4); } });
          live.on("message", (message) => messages.push(message));
          live.on("authenticated", ({ subject }) => known.push(subject));
          live.on("error", (error) => events.push({ type: "error", ...error }));
        }""",
        f"{prefix}/#",
    )
    page.wait("known.length >= 3", 30)
    publisher.publish(f"{prefix}/a", "1")
    page.wait_payload(f"{prefix}/a", 1)
    assert network.websockets == 1
    assert page.events("error") == []
    assert set(page.page.evaluate("known")) == {"page"}
    assert page.page.evaluate("live.subscribe('other/#').catch((error) => error.code)") == "forbidden"


@pytest.mark.slow
def test_a_token_that_is_not_good_ends_it(
    mosquitto: Broker, make_gateway: MakeGateway, network_to: MakeNetwork, open_page: OpenPage
) -> None:
    gateway = make_gateway(mosquitto, access_secret="a secret of this test that is longer than 32 bytes")
    network = network_to(gateway.port)
    page = open_page(network)
    page.connect(topics="a", token="not.a.token")
    page.wait("live.state === 'closed'")
    assert [error["code"] for error in page.events("error")] == ["unauthorized"]
    assert network.websockets == 1


def test_the_plain_example_shows_a_sensor(
    gateway: GatewayProcess, publisher: Publisher, network_to: MakeNetwork, open_page: OpenPage
) -> None:
    network = network_to(gateway.port)
    network.files[PAGE_PATH] = (ROOT / "web" / "client" / "examples" / "plain.html").read_bytes()
    page = open_page(network)
    publisher.publish("sensors/kitchen/state", '{"temperature": 21.5}')
    page.wait("document.body.innerText === 'sensors/kitchen/state: 21.5 °C'")


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_the_react_example_shows_sensors(
    gateway: GatewayProcess,
    publisher: Publisher,
    tmp_path: Path,
    network_to: MakeNetwork,
    open_page: OpenPage,
    web_tools: WebTools,
) -> None:
    web_tools.run("exec", "--", "vite", "build", "client/examples/react", "--base", "./", "--outDir", str(tmp_path))
    network = network_to(gateway.port)
    for file in tmp_path.rglob("*.*"):
        network.files[f"/{file.relative_to(tmp_path)}"] = file.read_bytes()
    network.files[PAGE_PATH] = (tmp_path / "index.html").read_bytes()
    page = open_page(network)
    publisher.publish("sensors/attic/state", '{"temperature": 30}')
    page.wait("document.body.innerText.includes('attic: 30 °C')")
    publisher.publish("sensors/attic/state", '{"temperature": 31}')
    page.wait("document.body.innerText.includes('attic: 31 °C')")
    assert page.page.inner_text("p") == "open"
    network.cut()
    page.wait("!document.body.innerText.includes('open')")
    publisher.publish("sensors/cellar/state", '{"temperature": 12}')
    network.mend()
    page.wait("document.body.innerText.includes('cellar: 12 °C')")


@pytest.mark.slow
def test_comes_back_only_where_the_close_code_allows_it(
    gateway: GatewayProcess, network_to: MakeNetwork, open_page: OpenPage
) -> None:
    def close_as_asked(connection: ServerConnection) -> None:
        assert connection.request is not None
        connection.close(int(connection.request.path.strip("/")))

    expected = {int(code): "waiting" if come_back else "closed" for code, (come_back, _) in CLOSE_CODES.items()}
    page = open_page(network_to(gateway.port))
    with serve(close_as_asked, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, name="closing", daemon=True)
        thread.start()
        states = page.page.evaluate(
            """async ([port, codes]) => {
              const { connect } = await import("./client.js");
              const ended = (code) => new Promise((resolve) => {
                const live = connect(`ws://127.0.0.1:${port}/${code}`);
                live.on("state", (change) => {
                  if (change.code === undefined) return;
                  resolve([change.code, change.state]);
                  live.close();
                });
              });
              return Promise.all(codes.map(ended));
            }""",
            [server.socket.getsockname()[1], list(expected)],
        )
        server.shutdown()
        thread.join(30)
    assert dict(states) == expected
