"""The recipe for Grafana: each request of its dashboard, as the plug-ins send it, and what they make of the answer."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from websockets.sync.client import connect

from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import PATIENCE_SECONDS, eventually, missing

EXAMPLE = Path(__file__).parents[2] / "examples/grafana"
PAGE = (Path(__file__).parents[2] / "docs/grafana.md").read_text(encoding="utf-8")
SOURCES = {each["uid"]: each for each in yaml.safe_load((EXAMPLE / "datasources.yml").read_text())["datasources"]}
TARGETS = [
    (panel["title"], target)
    for panel in json.loads((EXAMPLE / "dashboard.json").read_text(encoding="utf-8"))["panels"]
    for target in panel["targets"]
]
INFINITY = [(title, each) for title, each in TARGETS if each["datasource"]["type"].startswith("yesoreyeram")]
LIVE = [(title, each) for title, each in TARGETS if each["datasource"]["type"].startswith("golioth")]
ACCEPT = "application/json;q=0.9,text/plain"
"""What Infinity asks with, for JSON (its pkg/infinity/headers.go)."""


def names(found: list[tuple[str, Any]]) -> list[str]:
    return [title.replace(" ", "-") for title, _ in found]


@pytest.fixture(scope="module")
def shown(gateway: GatewayProcess) -> tuple[int, int]:
    """The range of the panels, in milliseconds; two rooms have ten messages each in it, in turn."""
    start = now()
    with Publisher(str(gateway.settings["mqtt_url"])) as publisher:
        for number in range(10):
            # what comes in one step of a chart is one point
            eventually(lambda number=number: now() >= start + 30 * number, 10)  # type: ignore[misc]
            for room in ("living-climate", "attic"):
                text = json.dumps({"temperature": 20 + number, "humidity": 40, "on": True})
                publisher.publish(f"sensors/{room}/state", text)
    last = "/topics/sensors/attic/state"
    eventually(lambda: gateway.json(last)["messages"][0]["payload"]["temperature"] == 29, 10, "all have come")
    return start, now()


def now() -> int:
    return int(time.time() * 1000)


def asked(url: str, gateway: GatewayProcess, shown: tuple[int, int]) -> Any:
    """The JSON with which a URL of the recipe is answered."""
    assert url.startswith("http://gateway:8000/")
    assert url.partition("/topics")[0] in SOURCES["sensors"]["jsonData"]["allowedHosts"]
    # macros of the panel's range, in milliseconds
    url = url.replace("${__timeFrom}", str(shown[0])).replace("${__timeTo}", str(shown[1]))
    assert "$" not in url
    status, body = gateway.get(url.removeprefix("http://gateway:8000"), {"Accept": ACCEPT, "Accept-Encoding": "gzip"})
    assert status == 200, body
    return json.loads(body)


def selected(root_selector: str, answer: Any) -> list[Any]:
    """The rows that the parser "JSONata" makes of an answer."""
    try:
        from jsonata import Jsonata
    except ImportError:
        missing("the package jsonata-python")
    limit = sys.getrecursionlimit()
    try:
        rows = Jsonata(root_selector).evaluate(answer)
    finally:
        sys.setrecursionlimit(limit)  # which it raises, for all tests behind it
    return rows if isinstance(rows, list) else [rows]


def value(row: Any, selector: str) -> Any:
    """What a column's selector finds in a row; None, which Grafana leaves empty, where there is nothing."""
    for name in selector.split("."):
        row = row.get(name) if isinstance(row, dict) else None
    return row


@pytest.mark.parametrize(("title", "target"), INFINITY, ids=names(INFINITY))
def test_each_panel_of_infinity_gets_rows_of_the_columns_it_names(
    title: str, target: dict[str, Any], gateway: GatewayProcess, shown: tuple[int, int]
) -> None:
    assert target["parser"] == "backend", "the others run in the browser, and have no alerts"
    rows = selected(target["root_selector"], asked(target["url"], gateway, shown))
    assert rows
    kinds: dict[str, tuple[type, ...]] = {"timestamp_epoch": (int,), "number": (int, float), "string": (str,)}
    for row in rows:
        for column in target["columns"]:
            found = value(row, column["selector"])
            if found is None and target["format"] == "table":
                continue  # not every sensor measures everything
            assert isinstance(found, kinds[column["type"]]), f"{column['selector']}: {found!r}"
            assert not isinstance(found, bool)
    if target["format"] == "timeseries":
        times = [row["time"] for row in rows]
        # Grafana makes columns of rows only where they are sorted (LongToWide of its SDK)
        assert times == sorted(times)
        assert shown[0] - 1_000 <= times[0] < times[-1] <= shown[1]


def test_all_rooms_are_in_the_panel_that_says_so(gateway: GatewayProcess, shown: tuple[int, int]) -> None:
    [target] = [each for title, each in INFINITY if "all rooms" in title]
    rows = selected(target["root_selector"], asked(target["url"], gateway, shown))
    assert {row["topic"] for row in rows} >= {"sensors/living-climate/state", "sensors/attic/state"}


@pytest.mark.parametrize(("title", "target"), LIVE, ids=names(LIVE))
def test_each_live_panel_gets_its_fields_over_a_websocket(
    title: str, target: dict[str, Any], gateway: GatewayProcess, shown: tuple[int, int]
) -> None:
    # what Grafana lets through in the name of a channel
    assert re.fullmatch(r"[A-Za-z0-9_\-/=.]+", target["path"])
    host = SOURCES[target["datasource"]["uid"]]["url"]
    address = f"{host}/{target['path']}".replace("ws://gateway:8000", gateway.ws)
    with connect(address, open_timeout=PATIENCE_SECONDS) as socket:
        frames = [json.loads(socket.recv(timeout=PATIENCE_SECONDS))]
        while "topic" not in frames[-1]:
            frames.append(json.loads(socket.recv(timeout=PATIENCE_SECONDS)))
    fields = {field["name"]: value(frames[-1], field["jsonPath"].removeprefix("$.")) for field in target["fields"]}
    assert fields["temperature"] == 29
    assert fields["time"] > 1_000_000_000_000, "less is taken for seconds"
    # frames that are about the connection have none of the fields, so they make no row
    for frame in frames[:-1]:
        assert not {field["jsonPath"].split(".")[1] for field in target["fields"]} & set(frame)


def test_a_stream_is_found_without_the_slash_that_the_plug_in_takes_away(
    gateway: GatewayProcess, shown: tuple[int, int]
) -> None:
    with connect(f"{gateway.ws}/ws/temperature", open_timeout=PATIENCE_SECONDS) as socket:
        first = json.loads(socket.recv(timeout=PATIENCE_SECONDS))
    assert set(first) == {"temperature", "topic", "time"}


def test_what_is_commented_out_for_an_access_policy_is_whole() -> None:
    """With the comments of the access policy taken for lines, it is YAML, and where the plug-ins look for it."""
    text = (EXAMPLE / "datasources.yml").read_text(encoding="utf-8")
    head, _, body = text.partition("datasources:")
    lines = []
    for line in body.splitlines():
        found = re.fullmatch(r"( +)# (?!with )(.*)", line)
        if found is not None:
            lines.append(found[1] + found[2])
        elif not line.lstrip().startswith("#"):
            lines.append(line)
    whole = {each["uid"]: each for each in yaml.safe_load(head + "datasources:" + "\n".join(lines))["datasources"]}
    infinity, live = whole["sensors"], whole["sensors-live"]
    assert infinity["jsonData"]["auth_method"] == "bearerToken"
    assert infinity["jsonData"]["allowedHosts"], "without it Infinity sends no token"
    assert infinity["secureJsonData"] == {"bearerToken": "$GATEWAY_TOKEN"}
    assert live["jsonData"]["headerName1"] == "Authorization"
    assert live["secureJsonData"]["headerValue1"] == "$GATEWAY_AUTHORIZATION"


def test_the_page_shows_what_the_dashboard_has() -> None:
    for _, target in INFINITY:
        assert target["root_selector"] in PAGE
    for url in re.findall(r"`(http://gateway:8000/topics/[^`]+)`", PAGE):
        assert url in {each["url"] for _, each in INFINITY}
    for _, target in LIVE:
        assert f"`{target['path']}`" in PAGE
