"""The OpenAPI description is valid and says of every address what there is, no more and no less."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urljoin

import jsonschema
import pytest
from starlette.requests import Request
from starlette.routing import Route

from gateway.app import create_app
from gateway.core.parameters import BOUNDS, FORMATS, PARAMETERS, parameters_of
from gateway.core.protocol import ERROR_CODES
from gateway.door.guard import PUBLIC_FILES
from gateway.door.refusals import Refusal
from gateway.ops.openapi import SCHEMAS_OF_PARAMETERS, describe_http
from gateway.routes.request import representation_of
from gateway.settings.loading import load_settings
from tests.integration.test_asyncapi import references
from tests.test_topics_api import ask, running

pytestmark = pytest.mark.anyio

DOCUMENT = describe_http("1.2.3")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    ]


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    for reference in references(DOCUMENT):
        part: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            part = part[step]
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    assert {tag for _, _, operation in operations() for tag in operation["tags"]} == {
        tag["name"] for tag in DOCUMENT["tags"]
    }


def test_every_route_is_described_and_nothing_else() -> None:
    app = create_app(load_settings({"mqtt_url": "mqtt://127.0.0.1:1"}, environ={}))
    routes = {re.sub(r":\w+}", "}", route.path) for route in app.routes if isinstance(route, Route)}
    described = set(DOCUMENT["paths"])
    assert routes == described - set(PUBLIC_FILES)
    assert set(PUBLIC_FILES) < described


async def test_what_is_described_is_answered_and_every_other_method_is_405() -> None:
    async with running() as (app, _):
        for path, item in DOCUMENT["paths"].items():
            there = {method.upper() for method in item if method != "parameters"}
            there |= {"HEAD"} if "GET" in there else set()
            for method in METHODS:
                answer = await ask(app, re.sub(r"{\w+}", "x", path), method)
                assert (answer.status == 405) is (method not in there), (method, path, answer.status)
                if answer.status == 405:
                    assert answer.headers["allow"] == ", ".join(sorted(there))
                    assert method == "HEAD" or json.loads(answer.body)["reason"] == "method"


async def test_the_document_says_where_the_gateway_is_wherever_it_was_got() -> None:
    async with running() as (app, _):
        answer = await ask(app, "/openapi.json")
        assert answer.json()["openapi"] == "3.1.0"
        [server] = answer.json()["servers"]
    for root in ("http://localhost/", "https://example.com/sensors/"):
        assert urljoin(f"{root}openapi.json", server["url"]) == root


def query_of(path: str, method: str) -> dict[str, dict[str, Any]]:
    parameters = DOCUMENT["paths"][path][method].get("parameters", [])
    return {each["name"]: each for each in parameters if each["in"] == "query"}


@pytest.mark.parametrize(
    ("path", "method", "uses"),
    [
        ("/topics/{filter}", "get", ("json", "ndjson", "csv", "sse", "svg", "payload", "points")),
        ("/topics/{filter}", "post", ("publish",)),
        ("/topics", "get", ("list",)),
        ("/devices", "get", ("devices",)),
        ("/devices/{id}", "get", ("changes",)),
        ("/alerts", "get", ("alerts",)),
        ("/explain", "get", ("explain",)),
    ],
)
def test_parameters_are_those_of_the_table(path: str, method: str, uses: tuple[str, ...]) -> None:
    found = query_of(path, method)
    assert {*found, "token"} == {name for use in uses for name in parameters_of(use)}
    for name, parameter in found.items():
        assert parameter["description"].startswith(PARAMETERS[name].text)
        for bounds in (bounds for use, bounds in BOUNDS.get(name, {}).items() if use in uses):
            assert parameter["schema"]["minimum"] <= bounds.least
            assert parameter["schema"]["maximum"] >= bounds.most
    assert "token" in {scheme.get("name") for scheme in DOCUMENT["components"]["securitySchemes"].values()}


def test_tables_are_those_of_the_code() -> None:
    assert DOCUMENT["x-error-codes"] == ERROR_CODES
    assert DOCUMENT["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == list(ERROR_CODES)
    assert set(SCHEMAS_OF_PARAMETERS) | set(BOUNDS) <= set(PARAMETERS)


@pytest.mark.parametrize("of", [of for of in FORMATS if of != "points"])
def test_an_address_comes_in_its_own_formats_and_no_others(of: str) -> None:
    def asked(query: str, accept: str = "*/*") -> str:
        headers = [(b"accept", accept.encode())]
        return representation_of(
            Request({"type": "http", "query_string": query.encode(), "headers": headers, "path": "/"}), of
        )

    for name in FORMATS[of]:
        assert asked(f"format={name}") == name
    for name in {name for names in FORMATS.values() for name in names} - set(FORMATS[of]):
        with pytest.raises(Refusal, match=f"format '{name}': must be json"):
            asked(f"format={name}")
    assert asked("format=") == "json"
    assert asked("", "text/html, */*;q=0.1") in ("html", "json")
    with pytest.raises(Refusal, match="there are application/json"):
        asked("", "image/png")


async def test_an_empty_parameter_is_as_if_it_were_absent() -> None:
    async with running() as (app, gateway):
        gateway.hub.publish("a", b"1", 0, False, None, 0)
        for address in ("/topics/a", "/topics", "/devices", "/alerts", "/devices/x"):
            name = "changes" if address == "/devices/x" else address.strip("/").replace("topics/a", "json")
            name = "list" if name == "topics" else name
            plain = await ask(app, address)
            for parameter in parameters_of(name):
                if parameter not in ("token", "topic", "filter", "lastEventId"):
                    empty = await ask(app, f"{address}?{parameter}=")
                    assert (empty.status, empty.body) == (plain.status, plain.body), (address, parameter)


async def test_a_topic_with_a_line_break_is_an_address_like_any_other() -> None:
    async with running() as (app, gateway):
        gateway.hub.publish("a\nb", b"1", 0, False, None, 0)
        page = (await ask(app, "/topics/a%0Ab")).json()
        assert [message["topic"] for message in page["messages"]] == ["a\nb"]
        assert (await ask(app, "/topics/a%0A?format=payload")).status == 404


@pytest.mark.parametrize(
    "address", ["/topics/a?properties=perhaps", "/topics/a?format=svg&theme=pink", "/explain?tpoic=a"]
)
async def test_what_would_have_no_effect_is_refused(address: str) -> None:
    async with running() as (app, _):
        assert (await ask(app, address)).status == 400


@pytest.mark.parametrize("address", ["/explain", "/explain?topic=", "/explain?topic=a%2F%23%2Fb"])
async def test_a_question_about_no_topic_is_answered(address: str) -> None:
    async with running() as (app, _):
        assert (await ask(app, address)).json()["failed"] == "filter"
