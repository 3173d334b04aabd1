"""Clients of server-sent events that people use, over a cut and a restart of the gateway: each misses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
import httpx
import httpx_sse
import pytest
import sseclient
from aiohttp_sse_client import client as aiohttp_sse

from tests.conftest import MakeGateway
from tests.support.brokers import Broker
from tests.support.peers import PEERS
from tests.support.publishers import Publisher
from tests.support.waiting import eventually, missing

from .conftest import MakeNetwork

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Heard = Callable[[], list[tuple[str, str]]]
"""What a client has given its user so far: the name and the data of each event."""

PACKAGES = {
    "polyfill": "event-source-polyfill/src/eventsource.js",
    "reconnecting": "reconnecting-eventsource/dist/ReconnectingEventSource.min.js",
    "sse": "sse.js/lib/sse.js",
    "index": "@microsoft/fetch-event-source/lib/esm/index.js",
    "fetch": "@microsoft/fetch-event-source/lib/esm/fetch.js",
    "parse": "@microsoft/fetch-event-source/lib/esm/parse.js",
}

LISTEN = """for (const type of ["message", "gap"]) source.addEventListener(type, e => hear(type, e.data));"""
PAGES = {
    "event-source-polyfill": f"""await load("/polyfill.js");
        const source = new EventSourcePolyfill(url); {LISTEN}""",
    "reconnecting-eventsource": f"""await load("/reconnecting.js");
        const source = new ReconnectingEventSource(url, {{max_retry_time: 500}}); {LISTEN}""",
    "sse.js": f"""const {{SSE}} = await import("/sse.js");
        const source = new SSE(url + "?format=sse", {{autoReconnect: true, reconnectDelay: 200}}); {LISTEN}""",
    "fetch-event-source": """const {fetchEventSource} = await import("/index.js");
        void fetchEventSource(url, {
            openWhenHidden: true,
            onmessage: e => hear(e.event || "message", e.data),
            onclose: () => { throw new Error("again"); },
            onerror: () => 200,
        });""",
}

PAGE = """async url => {
    window.heard = [];
    const hear = (type, data) => window.heard.push([type, data]);
    const load = src => new Promise((resolve, reject) =>
        document.head.append(Object.assign(document.createElement("script"), {src, onload: resolve, onerror: reject})));
    %s
}"""


class Client:
    """A client in Python as its user would drive it: what ends is begun again with the last id.

    Attributes:
        events: what it gave its user.
        last_id: the last id that it told its user.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.last_id = ""

    def hear(self, event: str | None, data: str, last_id: str | None) -> None:
        """One event."""
        self.last_id = last_id or self.last_id
        self.events.append((event or "message", data))

    @property
    def headers(self) -> dict[str, str]:
        return {"Accept": "text/event-stream"} | ({"Last-Event-ID": self.last_id} if self.last_id else {})


def with_httpx_sse(url: str, heard: Client) -> None:
    with httpx.Client(timeout=60) as client, httpx_sse.connect_sse(client, "GET", url, headers=heard.headers) as source:
        for event in source.iter_sse():
            heard.hear(event.event, event.data, event.id)


def with_lines_of_httpx(url: str, heard: Client) -> None:
    """By hand, as many do: lines end where `str.splitlines` says so."""
    name = last_id = ""
    with httpx.stream("GET", url, headers=heard.headers, timeout=60) as response:
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            match field:
                case "event":
                    name = value
                case "id":
                    last_id = value
                case "data":
                    heard.hear(name, value, last_id)
                case "retry":
                    pass
                case _:
                    assert line == "", line
                    name = ""


def with_sseclient_py(url: str, heard: Client) -> None:
    with httpx.stream("GET", url, headers=heard.headers, timeout=60) as response:
        for event in sseclient.SSEClient(response.iter_bytes()).events():
            heard.hear(event.event, event.data, event.id)


def with_aiohttp_sse_client(url: str, heard: Client) -> None:
    async def listen() -> None:
        async with aiohttp_sse.EventSource(url, headers=heard.headers) as source:
            async for event in source:
                heard.hear(event.type, event.data, event.last_event_id)

    asyncio.run(listen())


PROGRAMS = {
    "httpx-sse": with_httpx_sse,
    "lines of httpx": with_lines_of_httpx,
    "sseclient-py": with_sseclient_py,
    "aiohttp-sse-client": with_aiohttp_sse_client,
}


@contextlib.contextmanager
def in_python(name: str, url: str) -> Iterator[Heard]:
    heard, is_over = Client(), threading.Event()

    def listen() -> None:
        while not is_over.is_set():
            with contextlib.suppress(httpx.HTTPError, aiohttp.ClientError, ConnectionError, TimeoutError):
                PROGRAMS[name](url, heard)
            time.sleep(0.1)

    threading.Thread(target=listen, name=name, daemon=True).start()
    try:
        yield lambda: list(heard.events)
    finally:
        is_over.set()


@contextlib.contextmanager
def in_node(url: str) -> Iterator[Heard]:
    node = shutil.which("node") or missing("the program node")
    events: list[tuple[str, str]] = []
    with subprocess.Popen([node, str(PEERS / "event_source.mjs"), url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = process.stdout
        threading.Thread(target=lambda: events.extend(map(json.loads, lines)), daemon=True).start()
        yield lambda: list(events)
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PAGES, "eventsource", *PROGRAMS])
def test_a_client_that_people_use_misses_nothing_over_a_cut_and_a_restart(
    name: str,
    chromium: Browser,
    make_gateway: MakeGateway,
    network_to: MakeNetwork,
    mosquitto: Broker,
    publisher: Publisher,
    prefix: str,
) -> None:
    gateway = make_gateway(mosquitto)
    network = network_to(gateway.port)
    path = f"/topics/{prefix}/%23"
    with contextlib.ExitStack() as stack:
        heard: Heard
        if name in PROGRAMS:
            heard = stack.enter_context(in_python(name, network.origin + path))
        else:
            modules = PEERS / "node_modules"
            if not (modules / "event-source-polyfill").is_dir():
                missing("the npm packages of tests/peers (make peers)")
            if name == "eventsource":
                heard = stack.enter_context(in_node(network.origin + path))
            else:
                for short, file in PACKAGES.items():
                    # modules may name each other without an ending
                    script = re.sub(rb"(from '\./\w+)'", rb"\1.js'", (modules / file).read_bytes())
                    network.files[f"/{short}.js"] = script
                page = stack.enter_context(contextlib.closing(chromium.new_page()))
                page.goto(network.page)
                page.evaluate(PAGE % PAGES[name], path)
                heard = partial(page.evaluate, "window.heard")

        def payloads() -> list[object]:
            # all that a client gives its user is JSON: no event is empty, none is a part of one
            told = [(event, json.loads(data)) for event, data in heard()]
            return [data["payload"] for event, data in told if event == "message"]

        def publish(payload: str, *, retain: bool = False) -> str:
            publisher.publish(f"{prefix}/a", json.dumps(payload, ensure_ascii=False), retain=retain)
            return payload

        first = publish("0\u2028")
        eventually(lambda: payloads() == [first])
        sent = [first]
        for number in range(1, 6):
            sent.append(publish(f"{number}\u0085\u2029"))
            if number == 3:
                network.cut()
        network.mend()
        eventually(lambda: sent[-1] in payloads(), 40)
        sent.append(publish("6", retain=True))
        eventually(lambda: sent[-1] in payloads(), 20)
        assert payloads() == sent
        assert [event for event, _ in heard() if event == "gap"] == []

        gateway.stop()
        gateway.start()
        eventually(lambda: [data for event, data in heard() if event == "gap"], 40)
        [gap] = [json.loads(data) for event, data in heard() if event == "gap"]
        assert (gap["reason"], gap["lost"]) == ("epoch", None)
        eventually(lambda: payloads() == [*sent, "6"], 20)
