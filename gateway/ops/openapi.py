"""The OpenAPI 3.1 description of what there is over HTTP, made from the tables that the routes go by.

Invariant: parameters, their bounds, codes of errors and files for all origins are those of the code's own tables;
`tests/test_openapi.py` holds paths and methods to the routes, and a running gateway to all of it. What goes over
WebSockets and event streams is in `asyncapi`; what both speak of is described there.

It is long because every address, its answers and what is in them stand here, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from gateway.core.parameters import BOUNDS, FORMATS, ORDERS, PARAMETERS, THEMES, parameters_of
from gateway.core.protocol import ERROR_CODES, GAP_REASONS
from gateway.core.shapes import MAX_FIELDS_LENGTH, MAX_HZ, MIN_HZ, SWITCHES, Mode
from gateway.door.guard import PUBLIC_FILES
from gateway.ops.asyncapi import POSITION, device_schema, event_schema, message_schema

__all__ = ["describe_http"]

Json = dict[str, Any]

FILTER = {
    "type": "string",
    "pattern": r"^(#|([^/+#\x00]*|\+)(/([^/+#\x00]*|\+))*(/#)?)$",
    "minLength": 1,
    "examples": ["sensors/+/state"],
}
TOPIC = {
    "type": "string",
    "pattern": r"^[^+#\x00-\x1f\x7f-\x9f]+$",
    "examples": ["sensors/kitchen/state"],
}
TIME = {"type": "integer", "description": "Milliseconds since 1970."}
COUNT = {"type": "integer", "minimum": 0}

_MOMENTS: list[Json] = [
    {
        "type": "string",
        "pattern": r"^([0-9]{1,4}(\.[0-9]{1,3})?(ms|[smhd]))+$",
        "description": "A time back.",
    },
    {"type": "string", "format": "date-time", "description": "An ISO 8601 time; without a zone it is UTC."},
    {"type": "string", "pattern": "^[0-9]{12,14}$", "description": "Milliseconds since 1970."},
]
_POSITION = {**POSITION, "description": "A position, `epoch:seq`."}

SCHEMAS_OF_PARAMETERS: dict[str, Json] = {
    "topic": {"type": "array", "items": FILTER},
    "filter": {"type": "array", "items": FILTER},
    "since": {
        "anyOf": [{"enum": ["last", "now"]}, *_MOMENTS, _POSITION],
        "examples": ["10m", "2026-11-22T10:00:00Z", "k3f9a2:18273"],
    },
    "until": {"anyOf": [_POSITION, *_MOMENTS]},
    "max_hz": {"type": "number", "minimum": MIN_HZ, "maximum": MAX_HZ},
    "mode": {"enum": [mode.value for mode in Mode]},
    "fields": {"type": "string", "maxLength": MAX_FIELDS_LENGTH, "examples": ["temperature,outdoor.humidity"]},
    "deadband": {"type": "number", "minimum": 0},
    "where": {"type": "string", "maxLength": 500, "examples": ["temperature > 30 && humidity < 40"]},
    "properties": {"enum": [text for text in SWITCHES if text]},
    "retain": {"enum": [text for text in SWITCHES if text]},
    "confirm": {"enum": [text for text in SWITCHES if text]},
    "order": {"enum": [*ORDERS]},
    "theme": {"enum": [*THEMES]},
    "lastEventId": _POSITION,
}
"""What values may be; of those that are not here any text may come, of those in `BOUNDS` a whole number."""

_EVENT_STREAM = {"schema": {"type": "string", "description": "Server-sent events, as AsyncAPI has them."}}
_PAGE: Json = {"text/html": {"schema": {"type": "string", "description": "The dashboard."}}}


def _object(required: Iterable[str], more: Mapping[str, Any] | None = None, **members: Any) -> Json:
    """A schema of an object with these members and no others."""
    return {
        "type": "object",
        "required": [*required],
        "additionalProperties": False,
        "properties": {**members, **(more or {})},
    }


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_GAP = _object(
    ["reason", "lost"],
    reason={"enum": [*GAP_REASONS]},
    lost={"type": ["integer", "null"], "minimum": 1, "description": "How many; null when nobody can know."},
)
_RECOVERED = {"type": "boolean", "description": "False when something of what was asked for is gone; `gap` says what."}
_MORE: Json = {
    "more": {"const": True, "description": "There is a further page."},
    "next": {"type": "string", "description": "What the question for the next page has in place of this one's."},
}
_NUMBER = {"type": ["number", "null"]}
_POINT = _object(
    ["time", "first", "min", "max", "last", "mean", "count"],
    time=TIME,
    **{name: {"type": "number"} for name in ("first", "min", "max", "last", "mean")},
    count=COUNT,
)
_TEXT_POINT = _object(
    ["time", "first", "last", "changes", "count"],
    time=TIME,
    first={"type": "string"},
    last={"type": "string"},
    changes=COUNT,
    count=COUNT,
)


def _column(schema: Json) -> Json:
    return {"type": "array", "items": schema, "description": "With format=columns: an entry for each step."}


_SERIES_HEAD: Json = {
    "topic": {"type": "string"},
    "field": {"type": "string", "description": "Its path in the payload; empty for the payload itself."},
    "level": {"enum": ["raw", "minute", "hour"]},
}
_STATE = {"enum": ["ok", "pending", "firing"]}
_ALERT = event_schema("alert")


def _schemas() -> dict[str, Json]:
    strings = {"type": "array", "items": {"type": "string"}}
    name = {"type": "string", "minLength": 1, "maxLength": 1_000}
    ends = {"type": ["integer", "null"], "description": "When no such token can be good any more: ms since 1970."}
    alert = {member: schema for member, schema in _ALERT["properties"].items() if member != "event"}
    return {
        "Message": message_schema,
        "Device": device_schema,
        "Gap": _GAP,
        "Problem": {
            "type": "object",
            "description": "A problem document (RFC 9457).",
            "required": ["title", "status", "code", "detail", "reason"],
            "properties": {
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "code": {"enum": [*ERROR_CODES], "description": "Stable."},
                "detail": {"type": "string", "description": "For people: names the rule and the value."},
                "reason": {"type": "string", "description": "What in particular, such as the name of a limit."},
            },
        },
        "Messages": _object(
            ["position", "recovered", "messages"],
            _MORE,
            position=_POSITION,
            recovered=_RECOVERED,
            gap=_ref("Gap"),
            messages={"type": "array", "items": _ref("Message")},
        ),
        "Topics": _object(
            ["position", "total", "topics"],
            position={**_POSITION, "type": ["string", "null"], "description": "Null to who may read nothing."},
            total=COUNT,
            next={"type": "string", "description": "The `after` of the next page."},
            topics={
                "type": "array",
                "items": _object(
                    ["topic", "count", "kept", "rate", "time", "retained", "bytes"],
                    topic={"type": "string"},
                    count=COUNT,
                    kept=COUNT,
                    rate={"type": "number", "minimum": 0, "description": "Messages a second."},
                    time=TIME,
                    retained={"type": "boolean"},
                    bytes=COUNT,
                    cleared={"const": True, "description": "The newest message is the empty one that took it away."},
                ),
            },
        ),
        "Chart": _object(
            ["position", "recovered", "start", "step", "points", "series", "texts"],
            _MORE,
            position=_POSITION,
            recovered=_RECOVERED,
            gap=_ref("Gap"),
            start=TIME,
            step={"type": "integer", "minimum": 1, "description": "Milliseconds."},
            points=COUNT,
            series={
                "type": "array",
                "items": _object(
                    _SERIES_HEAD,
                    _SERIES_HEAD,
                    points={"type": "array", "items": _POINT},
                    **{name: _column(_NUMBER) for name in ("first", "min", "max", "last", "mean")},
                    count=_column(COUNT),
                ),
            },
            texts={
                "type": "array",
                "items": _object(
                    _SERIES_HEAD,
                    _SERIES_HEAD,
                    points={"type": "array", "items": _TEXT_POINT},
                    **{name: _column({"type": ["string", "null"]}) for name in ("first", "last")},
                    **{name: _column(COUNT) for name in ("changes", "count")},
                ),
            },
        ),
        "Devices": _object(
            ["total", "devices"],
            total=COUNT,
            next={"type": "string", "description": "The `after` of the next page."},
            devices={"type": "array", "items": _ref("Device")},
        ),
        "DeviceWithValues": {
            **device_schema,
            "required": [*device_schema["required"], "values"],
            "properties": {
                **device_schema["properties"],
                "values": {
                    "type": "array",
                    "items": _object(
                        ["id", "value", "time"],
                        id={"type": "string"},
                        value={"description": "A JSON value; null where there is none."},
                        time={**TIME, "type": ["integer", "null"]},
                    ),
                },
            },
        },
        "Alerts": _object(
            ["alerts"],
            alerts={
                "type": "array",
                "items": _object((name for name in _ALERT["required"] if name != "event"), alert),
            },
        ),
        "Published": _object(
            ["topic", "qos", "retain"],
            topic={"type": "string"},
            qos={"enum": [0, 1, 2]},
            retain={"type": "boolean"},
            subscribers={"const": 0, "description": "The broker says that nobody is subscribed (QoS 1)."},
            new={"const": True, "description": "The gateway knew no message of this topic; told to who may read it."},
            position={
                **_POSITION,
                "type": ["string", "null"],
                "description": "With confirm=1 or a condition: the position that the message got; null when it has not "
                "come back in time.",
            },
        ),
        "Explanation": _object(
            ["topic", "ok", "answer", "failed", "steps", "near"],
            topic={"type": "string"},
            ok={"type": "boolean"},
            answer={"type": "string"},
            failed={"type": ["string", "null"], "description": "The step that fails."},
            steps={
                "type": "array",
                "items": _object(
                    ["step", "ok", "text"],
                    step={"type": "string"},
                    ok={"type": ["boolean", "null"]},
                    text={"type": "string"},
                ),
            },
            near={
                "type": "array",
                "items": _object(["topic", "why"], topic={"type": "string"}, why={"type": "string"}),
            },
        ),
        "Identity": _object(
            ["name", "anonymous", "expires", "subscribe", "publish", "notes", "tokens", "node", "views",
             "share_seconds"],
            name={"type": ["string", "null"]},
            anonymous={"type": "boolean"},
            expires={**TIME, "type": ["integer", "null"]},
            subscribe=strings,
            publish=strings,
            notes=strings,
            tokens={"type": "boolean", "description": "Whether this gateway can verify any."},
            node={"type": ["string", "null"], "description": "The node of a cluster that answers."},
            views={"type": ["string", "null"], "description": "The topic below which views are kept."},
            share_seconds={"type": ["integer", "null"], "description": "For how long one may share."},
        ),
        "BrokerForBoards": _object(
            ["url"], url={"type": "string"}, username={"type": "string"}, password={"type": "string"}
        ),
        "KeyOfBoard": _object(
            ["key"],
            key={"type": "string", "pattern": "^[0-9a-f]{64}$"},
        ),
        "KeyKept": _object(["id"], id={"type": "string"}),
        "TokenAsked": _object(
            ["subscribe", "seconds"],
            subscribe={"type": "array", "items": FILTER, "minItems": 1, "maxItems": 100},
            seconds={"type": "number", "exclusiveMinimum": 0},
        ),
        "TokenMade": _object(
            ["token", "expires", "subscribe"], token={"type": "string"}, expires=TIME, subscribe=strings
        ),
        "RevocationAsked": {
            "oneOf": [
                _object(["token"], token={"type": "string", "minLength": 1, "description": "The token itself."}),
                _object(["jti"], jti=name, expires=ends),
                _object(["subject"], subject=name, expires=ends),
            ]
        },
        "Revoked": _object(
            ["ended", "kept"],
            ended={**COUNT, "description": "Connections that ended by it."},
            kept={"type": "boolean", "description": "Whether it outlives the process."},
            told={
                "type": "boolean",
                "description": "On a node of a cluster: whether the others hear of it now, or only later.",
            },
        ),
        "Live": _object(["status"], status={"const": "ok"}),
        "Ready": _object(
            ["status", "upstream"],
            status={"enum": ["ok", "waiting"]},
            upstream=_object(["connected", "error"], connected={"type": "boolean"}, error={"type": ["string", "null"]}),
            cluster=_object(
                ["role", "node", "leader", "behind"],
                role={"type": "string"},
                node={"type": "string"},
                leader={"type": ["string", "null"]},
                behind={"type": ["integer", "null"]},
            ),
            archive=_object(
                ["kept", "error"], kept={"type": "boolean"}, error={"type": ["string", "null"]}, lacks=COUNT
            ),
        ),
    }  # fmt: skip


_PROBLEMS: dict[int, tuple[str, str]] = {
    400: ("BadRequest", "The request breaks a rule; `detail` names it."),
    401: ("Unauthorized", "A token is needed, or this one is not valid."),
    403: ("Forbidden", "No grant covers it, or a page of this origin may not ask."),
    404: ("NotFound", "There is none, or none that the asker may know of."),
    406: ("NotAcceptable", "There is nothing that `Accept` takes."),
    408: ("TooSlow", "The body came too slowly."),
    409: ("OtherLog", "The pages before this one are of another log: begin anew."),
    412: ("Precondition", "Another payload is there meanwhile."),
    413: ("TooLarge", "The body is larger than the limit."),
    414: ("TooLong", "The address is longer than the limit."),
    415: ("Compressed", "A compressed body is not taken."),
    429: ("TooMany", "A limit of this address was reached: come back later."),
    502: ("Refused", "The broker refused the message."),
    503: ("Unavailable", "A limit of the gateway was reached, it stops, or the broker is away: come back."),
}
_DOOR = (400, 403, 408, 413, 414, 415)
"""What any request may be answered with."""

_EXTRA_HEADERS = {
    401: {"WWW-Authenticate": "What is wanted (RFC 6750)."},
    429: {"Retry-After": "Seconds."},
    503: {"Retry-After": "Seconds."},
}


def _header(text: str) -> Json:
    return {"description": text, "schema": {"type": "string"}}


def _problem_responses() -> Json:
    return {
        name: {
            "description": text,
            "headers": {name: _header(about) for name, about in _EXTRA_HEADERS.get(status, {}).items()},
            "content": {"application/problem+json": {"schema": _ref("Problem")}},
        }
        for status, (name, text) in _PROBLEMS.items()
    }


def _answer(text: str, content: Json, *headers: str) -> Json:
    known = {
        "ETag": "Stands for this answer: send it as If-None-Match.",
        "Link": 'The next page, `rel="next"`, relative to this one (RFC 8288).',
        "Gateway-Gap": "Of a table: what is missing at its beginning.",
        "Content-Disposition": "The name of a file.",
    }
    found: Json = {"description": text, "content": content}
    if headers:
        found["headers"] = {name: _header(known[name]) for name in headers}
    return found


def _json(name: str, text: str, *headers: str) -> Json:
    return _answer(text, {"application/json": {"schema": _ref(name)}}, *headers)


_NOT_MODIFIED = {"description": "It is as it was (RFC 9110 §15.4.5)."}
_IF_NONE_MATCH: Json = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The `ETag` of an earlier answer.",
    "schema": {"type": "string"},
}


_FORMATS_OF = {"changes": "device", **dict.fromkeys(("json", "ndjson", "csv", "sse", "svg", "payload"), "messages")}
"""The key of `FORMATS` for a use of parameters. A page is asked for by `Accept`: its parameters are its own."""


def _schema_of(name: str, uses: tuple[str, ...]) -> Json:
    if uses == ("explain",):
        return {"type": "string"}  # what is wrong with it is its answer
    if name == "format":
        there = dict.fromkeys(text for use in uses for text in FORMATS.get(_FORMATS_OF.get(use, use), ()))
        more = ["raw"] if "sse" in uses else []
        return {"enum": [text for text in there if text != "html"] + more}
    if name == "until" and uses == ("list",):
        return _POSITION
    if name in BOUNDS:
        bounds = [found for use, found in BOUNDS[name].items() if use in uses]
        found: Json = {"type": "integer", "minimum": min(b.least for b in bounds)}
        found["maximum"] = max(b.most for b in bounds)
        if len({b.default for b in bounds}) == 1:
            found["default"] = bounds[0].default
        return found
    return SCHEMAS_OF_PARAMETERS.get(name, {"type": "string"})


def _query(*uses: str) -> list[Json]:
    """The parameters of these uses together; which is for which, where that is not all, stands in the text."""
    found: list[Json] = []
    for name, parameter in PARAMETERS.items():
        mine = [use for use in uses if use in parameter.uses]
        if not mine or name == "token":  # that is a security scheme
            continue
        only = "" if len(mine) == len(uses) else f" For {', '.join(mine)}."
        found.append(
            {
                "name": name,
                "in": "query",
                "description": f"{parameter.text}{only}",
                "allowEmptyValue": (schema := _schema_of(name, uses)).get("type") != "array",
                "schema": schema,
            }
        )
    assert {each["name"] for each in found} | {"token"} == {name for use in uses for name in parameters_of(use)}  # noqa: S101
    return found


def _operation(
    identifier: str,
    tag: str,
    summary: str,
    responses: dict[str, Json],
    *,
    parameters: Iterable[Json] = (),
    problems: Iterable[int] = (),
    is_about_asker: bool = True,
    is_counted: bool = True,
    **more: Any,
) -> Json:
    """One method of one address.

    Args:
        identifier: its `operationId`.
        tag: what it belongs to.
        summary: a sentence.
        responses: what is not a problem, by status.
        parameters: all that are not of the path.
        problems: statuses besides those that any such request may get.
        is_about_asker: whether who asks matters, and a token is looked at.
        is_counted: whether it counts as a request of its address; health does not.
        more: further members.
    """
    statuses = {*_DOOR, *problems} | ({401, 429, 503} if is_about_asker else set())
    statuses |= {429, 503} if is_counted else set()
    told = {
        str(status): {"$ref": f"#/components/responses/{_PROBLEMS[status][0]}"}
        for status in sorted(statuses)
        if str(status) not in responses
    }
    found: Json = {"operationId": identifier, "tags": [tag], "summary": summary, "responses": {**responses, **told}}
    if parameters := list(parameters):
        found["parameters"] = parameters
    # {} first: an open gateway, and roles for everybody, ask for none
    found["security"] = [{}, {"bearer": []}, {"address": []}, {"cookie": []}] if is_about_asker else []
    return {**found, **more}


def _path(name: str, schema: Json, text: str) -> Json:
    return {"name": name, "in": "path", "required": True, "description": text, "schema": schema}


def _topics() -> Json:
    reading = ("json", "ndjson", "csv", "sse", "svg", "payload", "points")
    body = {"schema": {"type": "string", "format": "binary"}}
    messages = {"oneOf": [_ref("Messages"), _ref("Chart")]}
    content = {
        "application/json": {
            "schema": messages,
            "examples": {
                "last": {
                    "summary": "GET /topics/sensors/%2B/state",
                    "value": {
                        "position": "k3f9a2:18273",
                        "recovered": True,
                        "messages": [
                            {"topic": "sensors/a/state", "payload": 21.5, "time": 1_790_000_000_123, "seq": 18_273}
                        ],
                    },
                }
            },
        },
        "application/x-ndjson": {
            "schema": {"type": "string", "description": "A message in each line; a gap event before or behind them."}
        },
        "text/csv": {"schema": {"type": "string"}},
        "text/event-stream": _EVENT_STREAM,
        "image/svg+xml": {"schema": {"type": "string"}},
        **{
            name: {"schema": {"type": "string", "description": "The newest payload (format=payload)."}}
            for name in ("text/plain", "application/octet-stream", "image/png", "image/jpeg", "image/gif", "image/webp")
        },
        **_PAGE,
    }
    conditions = [
        {
            "name": "If-Match",
            "in": "header",
            "description": "The `ETag` of format=payload: only while that is the newest payload.",
            "schema": {"type": "string"},
        },
        {**_IF_NONE_MATCH, "description": "Only while there is no payload.", "schema": {"const": "*"}},
    ]
    return {
        "get": _operation(
            "readTopics",
            "topics",
            "Last values, history, a chart, a table, a badge, a payload or events, as `Accept` or `format` say.",
            {
                "200": _answer("What was asked for.", content, "ETag", "Link", "Gateway-Gap", "Content-Disposition"),
                "304": _NOT_MODIFIED,
            },
            parameters=[
                _path("filter", FILTER, "A topic filter; `#` is written %23. Slashes may stand as they are."),
                *_query(*reading), _IF_NONE_MATCH, {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "Of an event stream: the last id that came; goes before `since`.",
                "schema": _POSITION,
            }],
            problems=(404, 406, 409),
        ),
        "post": _operation(
            "publish",
            "topics",
            "Publishes the body to a topic.",
            {"202": _json("Published", "The broker has it (QoS 1 and 2), or it was handed over (QoS 0).", "ETag")},
            parameters=[
                _path("filter", TOPIC, "A topic; slashes may stand as they are."), *_query("publish"), *conditions
            ],
            problems=(412, 502),
            requestBody={
                "description": "The payload, as it is published.",
                "content": {"application/octet-stream": body, "text/plain": body, "application/json": {"schema": {}}},
            },
        ),
    }  # fmt: skip


def _paths() -> Json:
    upgrade = _operation(
        "upgrade",
        "live",
        "A WebSocket; AsyncAPI has what goes over it.",
        {
            "426": {
                "description": "It was asked for without an upgrade.",
                "headers": {"Upgrade": _header("websocket")},
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
        is_about_asker=False,
    )
    document = {"application/json": {"schema": {"type": "object"}}}
    page = _operation("page", "pages", "The dashboard.", {"200": _answer("The page.", _PAGE)}, is_about_asker=False)
    stream = _path("rest", {"type": "string"}, "The name of a stream, and a slash.")
    return {
        "/": {"get": page},
        "/topics": {
            "get": _operation(
                "listTopics",
                "topics",
                "The topics that the asker may read, by name.",
                {"200": _answer("A page of them.", {"application/json": {"schema": _ref("Topics")}, **_PAGE})},
                parameters=_query("list"),
                problems=(406,),
            )
        },
        "/topics/{filter}": _topics(),
        "/devices": {
            "get": _operation(
                "listDevices",
                "devices",
                "The devices that the asker may know of, by id; as events, what of them changes.",
                {
                    "200": _answer(
                        "A page of them.",
                        {"application/json": {"schema": _ref("Devices")}, "text/event-stream": _EVENT_STREAM, **_PAGE},
                        "ETag",
                    ),
                    "304": _NOT_MODIFIED,
                },
                parameters=[*_query("devices"), _IF_NONE_MATCH],
                problems=(406,),
            )
        },
        "/devices/{id}": {
            "parameters": [_path("id", {"type": "string", "minLength": 1}, "One of its ids.")],
            "get": _operation(
                "readDevice",
                "devices",
                "A device, with the newest value of each field.",
                {"200": _answer("The device.", {"application/json": {"schema": _ref("DeviceWithValues")}, **_PAGE})},
                parameters=_query("changes"),
                problems=(404, 406),
            ),
        },
        "/alerts": {
            "get": _operation(
                "readAlerts",
                "alerts",
                "How it is with the alerts that watch something which the asker may read.",
                {
                    "200": _answer(
                        "All of them.",
                        {"application/json": {"schema": _ref("Alerts")}, "text/event-stream": _EVENT_STREAM},
                        "ETag",
                    ),
                    "304": _NOT_MODIFIED,
                },
                parameters=[*_query("alerts"), _IF_NONE_MATCH],
                problems=(406,),
            )
        },
        "/tokens": {
            "post": _operation(
                "share",
                "tokens",
                "Makes a token that reads some of what the asker may read.",
                {"201": _json("TokenMade", "The token.")},
                problems=(404,),
                requestBody={
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": _ref("TokenAsked"),
                            "example": {"subscribe": ["sensors/attic/#"], "seconds": 86_400},
                        }
                    },
                },
            )
        },
        "/tokens/revoke": {
            "post": _operation(
                "revoke",
                "tokens",
                "Calls a token back, or all that a subject has been given so far: one of `token`, `jti` and `subject`.",
                {"200": _json("Revoked", "No connection goes on by it any more.")},
                problems=(404,),
                requestBody={
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": _ref("RevocationAsked"),
                            "example": {"subject": "anna", "expires": 1_790_000_000_000},
                        }
                    },
                },
            )
        },
        "/whoami": {
            "get": _operation(
                "whoami",
                "operation",
                "Who the asker is taken for, and what that allows.",
                {"200": _json("Identity", "That.")},
            )
        },
        "/flash": {
            "get": _operation(
                "flashPage",
                "pages",
                "A page that writes the sensor's program to a board, by the browser's serial port.",
                {"200": _answer("The page.", {"text/html": {"schema": {"type": "string"}}}), "304": _NOT_MODIFIED},
                is_about_asker=False,
            )
        },
        "/flash/{name}": {
            "parameters": [_path("name", {"type": "string", "minLength": 1}, "`manifest.json`, or what that names.")],
            "get": _operation(
                "readImage",
                "pages",
                "The images that the page writes, where the gateway has a folder of them.",
                {
                    "200": _answer(
                        "The file.",
                        {
                            "application/json": {"schema": {}},
                            "application/octet-stream": {
                                "schema": {"type": "string", "contentMediaType": "application/octet-stream"}
                            },
                        },
                    ),
                    "304": _NOT_MODIFIED,
                },
                problems=(404,),
                is_about_asker=False,
            ),
        },
        "/flash/broker": {
            "get": _operation(
                "readBrokerForBoards",
                "pages",
                "The broker as boards reach it, for who may publish all that a sensor does.",
                {"200": _json("BrokerForBoards", "It.")},
                problems=(403, 404),
            )
        },
        "/flash/keys/{id}": {
            "parameters": [_path("id", {"type": "string", "pattern": "^[a-z0-9_-]{1,64}$"}, "The board's.")],
            "post": _operation(
                "keepKeyOfBoard",
                "pages",
                "Keeps the key that signs a board's updates, of who may publish all that a sensor does; gives none.",
                {"201": _json("KeyKept", "It is on the disk.")},
                problems=(403, 404, 413),
                requestBody={
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": _ref("KeyOfBoard"),
                            "example": {"key": "5e" * 32},
                        }
                    },
                },
            ),
        },
        "/explain": {
            "get": _operation(
                "explain",
                "operation",
                "Why the asker sees nothing of a topic.",
                {"200": _json("Explanation", "Each step of the way, and the first that fails.")},
                parameters=_query("explain"),
            )
        },
        "/metrics": {
            "get": _operation(
                "metrics",
                "operation",
                "For Prometheus; with a policy for those who are granted `$SYS/#`.",
                {
                    "200": _answer(
                        "Samples, in the form that `Accept` asks for.",
                        {
                            name: {"schema": {"type": "string"}}
                            for name in ("text/plain", "application/openmetrics-text")
                        },
                    )
                },
            )
        },
        "/health/live": {
            "get": _operation(
                "live",
                "operation",
                "The process answers.",
                {"200": _json("Live", "It does.")},
                is_about_asker=False,
                is_counted=False,
            )
        },
        "/health/ready": {
            "get": _operation(
                "ready",
                "operation",
                "The broker is connected.",
                {"200": _json("Ready", "It is."), "503": _json("Ready", "It is not, and why.")},
                is_about_asker=False,
                is_counted=False,
            )
        },
        "/openapi.json": {
            "get": _operation(
                "describe", "pages", "This document.", {"200": _answer("It.", document)}, is_about_asker=False
            )
        },
        "/asyncapi.json": {
            "get": _operation(
                "describeEvents",
                "pages",
                "AsyncAPI 3: what goes over WebSockets and event streams.",
                {"200": _answer("It.", document)},
                is_about_asker=False,
            )
        },
        "/ws": {"get": upgrade},
        "/ws/{rest}": {"parameters": [stream], "get": {**upgrade, "operationId": "upgradeStream"}},
        **{name: {"get": _file(name)} for name in PUBLIC_FILES},
    }


def _file(name: str) -> Json:
    identifier = "".join(part.title() for part in name.strip("/").replace(".", "-").split("-"))
    plain = {"text/plain": {"schema": {"type": "string"}}}
    return _operation(
        f"file{identifier}",
        "pages",
        "A file of the client library, for pages of all origins.",
        {
            "200": _answer("The file.", {"text/javascript": {"schema": {"type": "string"}}}, "ETag"),
            "304": _NOT_MODIFIED,
            "404": {"description": "The web pages were not built.", "content": plain},
        },
        is_about_asker=False,
    )


@cache
def describe_http(version: str) -> Json:
    """The whole document.

    Args:
        version: the gateway's.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MQTT to browser gateway",
            "version": version,
            "description": "Messages of an MQTT broker over HTTP. HEAD is answered wherever GET is. Every answer has "
            "an `X-Request-Id`. A parameter that would have no effect is refused, unless its name begins with `_`; an "
            "empty one is as if it were absent. WebSockets and events are in `/asyncapi.json`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "./", "description": "This gateway: beside this document."}],
        "tags": [
            {"name": name, "description": text}
            for name, text in {
                "topics": "Every topic filter is an address.",
                "devices": "What announces itself on the broker.",
                "alerts": "Rules that watch topics.",
                "tokens": "Who may do what.",
                "live": "Messages as they come.",
                "operation": "For those who run it.",
                "pages": "Files.",
            }.items()
        ],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "responses": _problem_responses(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "address": {"type": "apiKey", "in": "query", "name": "token", "description": PARAMETERS["token"].text},
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "token",
                    "description": "Under the name that GATEWAY_ACCESS_COOKIE gives; without it none is looked at.",
                },
            },
        },
        "x-error-codes": ERROR_CODES,
    }
